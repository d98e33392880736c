"""What a deadly photo does, in a file that a child process can import."""

import os

DEADLY = b"deadly"


def read(data: bytes) -> None:
    if data == DEADLY:
        os._exit(11)  # as a fault in a decoder would
