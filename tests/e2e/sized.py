"""Photos whose files have exactly as many bytes as wanted: what is too few is filled up with bytes that no decoder looks at."""

import struct
import zlib
from collections.abc import Callable

from tests.drawing import draw_photo, encoded

LONGEST_COMMENT = 65_533
HEAD_OF_JPEG = 20  # its first four bytes, and the rest of JFIF's own segment
HEAD_OF_PNG = 33  # its signature, and the header
LEAST_OF_JPEG, LEAST_OF_PNG = 4, 12  # bytes of an empty comment, and of an empty chunk

Filler = Callable[[int], bytes]


def small_photo(seed: int, format: str) -> bytes:
    photo = draw_photo("cat" if seed % 2 else "dog", seed, (48, 40))
    return encoded(photo.resize((3, 2)), "PNG") if format == "PNG" else encoded(photo, "JPEG", quality=75)


def filled(data: bytes, size: int, filler: Filler) -> bytes:
    """Fill a file up: a JPEG with comments, a PNG with a chunk that only its maker knows."""
    is_jpeg = data.startswith(b"\xff\xd8")
    missing = size - len(data)
    if missing == 0:
        return data
    if missing < (LEAST_OF_JPEG if is_jpeg else LEAST_OF_PNG):
        raise ValueError(f"{len(data)} bytes cannot become {size}")
    head = HEAD_OF_JPEG if is_jpeg else HEAD_OF_PNG
    return data[:head] + (comments(missing, filler) if is_jpeg else chunk(missing, filler)) + data[head:]


def comments(length: int, filler: Filler) -> bytes:
    pieces = []
    while length:
        payload = min(LONGEST_COMMENT, length - 4)
        if 0 < length - 4 - payload < 4:  # too little for a further comment
            payload -= 4
        pieces.append(b"\xff\xfe" + struct.pack(">H", payload + 2) + filler(payload))
        length -= payload + 4
    return b"".join(pieces)


def chunk(length: int, filler: Filler) -> bytes:
    data = b"paDd" + filler(length - 12)
    return struct.pack(">I", length - 12) + data + struct.pack(">I", zlib.crc32(data))
