"""How requests come to workers, and how refusals leave: what TorchServe 0.12 decides in four classes, changed in a few bytes.

TorchServe hands a photo from thread to thread five times, and each time a sleeping core wakes. It collects a batch by waiting up
to maxBatchDelay, a whole millisecond at least, for more requests; its workers take turns, so that a lone client's photos always
come to the one whose data the processor has forgotten meanwhile; it reads a photo in pieces of 4 KiB; and with a refusal it hangs
up, so that a crowd that comes too fast costs a new connection each time besides.

So Java starts `petclf.Server` (java/petclf, compiled beside its sources), and finds changed copies of these classes before
TorchServe's own:

- `WorkLoadManager` makes workers of our class `DirectWorker`, `Model` keeps what waits in a `Dispatcher`: one thread reads a photo,
  hands it to the worker that was busy last, with its share of what else waits, and passes the answers on. docs/decisions/0007, 0008, 0010 and 0011
- `ModelServer` lets what clients send go through a `Pipeline`: 64 KiB are read at once, a plain photo takes a short way, and who
  still sends while being hung up on can read why. docs/decisions/0012 and 0009
- `NettyUtils.sendHttpResponse` keeps a refused client's connection: docs/decisions/0009-refused-not-hung-up-on.md

A TorchServe whose classes are not exactly 0.12's is left alone, and all is as it always was.
"""

import hashlib
import zipfile
from dataclasses import dataclass
from pathlib import Path

CLASSES = Path(__file__).with_name("java")  # `make java` compiles them
MAIN = "petclf.Server"


def text(content: str) -> bytes:
    """Return a text as a class file holds it."""
    return b"\x01" + len(content).to_bytes(2, "big") + content.encode()


@dataclass(frozen=True)
class Change:
    """A class of TorchServe 0.12.0, pieces of it with what replaces them, and constants that the new code needs."""

    path: str
    sha256: str
    pieces: dict[bytes, bytes]
    constants: tuple[bytes, ...] = ()
    end: int = 0  # the byte where those that it has end

    def apply(self, before: bytes) -> bytes:
        after = before
        if self.constants:
            count = int.from_bytes(before[8:10], "big") + len(self.constants)
            after = after[:8] + count.to_bytes(2, "big") + after[10 : self.end] + b"".join(self.constants) + after[self.end :]
        for old, new in self.pieces.items():
            after = after.replace(old, new)
        return after


CHANGES = (
    Change(
        path="org/pytorch/serve/wlm/Model.class",
        sha256="7c5523f1fe77fe79aa32665469e17725e70518692abcf4987989ef72f10d4cff",
        pieces={
            # new LinkedBlockingDeque, dup, iload 2 (the capacity), invokespecial its constructor: new Dispatcher
            bytes.fromhex("bb00da 59 1c b700dc"): bytes.fromhex("bb02de 59 1c b702df"),
        },
        end=10784,
        constants=(
            text("petclf/Dispatcher"),  # 733
            bytes.fromhex("07 02dd"),  # 734: the class of that name
            bytes.fromhex("0a 02de 0031"),  # 735: its constructor that takes a capacity, described by constant 49
        ),
    ),
    Change(
        path="org/pytorch/serve/wlm/WorkLoadManager.class",
        sha256="d8078b60dcae76ca80482b1db01510c5babc45e5af88f4cff1b1e18f0e322c74",
        pieces={
            # the class of workers that are made if the model wants asyncCommunication ...
            text("org/pytorch/serve/wlm/AsyncWorkerThread"): text("petclf/DirectWorker"),
            # ... and: aload 2 (the model), invokevirtual isAsyncCommunication, ifeq the other class: do not ask
            bytes.fromhex("2c b6015d 990020"): bytes.fromhex("00 000000 000000"),
        },
    ),
    Change(
        path="org/pytorch/serve/ModelServer.class",
        sha256="779d0df5bfc17c5ad09ac46d63d9a017d48a4cd68c1b7464de914d3cb40190b9",
        pieces={
            # what a client's bytes go through
            text("org/pytorch/serve/ServerInitializer"): text("petclf/Pipeline"),
        },
    ),
    Change(
        path="org/pytorch/serve/util/NettyUtils.class",
        sha256="705f3daad4559394afa0152e71fc358fc14baab42133c2cc09e3726e11c52933",
        pieces={
            # iload 2 (keep the connection: always true), ifeq close, iload 7 (the status), sipush 400, if_icmplt keep:
            # iload 7, sipush 503, irem, sipush 400, if_icmplt keep, for 503 leaves 0, 504 and 507 leave 1 and 4
            bytes.fromhex("1c 99000b 1507 110190 a10026"): bytes.fromhex("1507 1101f7 70 110190 a10026"),
        },
    ),
)


def patch(jar: Path, folder: Path) -> bool:
    """Write the changed classes below `folder`; returns whether all are those that are known."""
    with zipfile.ZipFile(jar) as packed:
        classes = [packed.read(change.path) for change in CHANGES]
    if any(hashlib.sha256(code).hexdigest() != change.sha256 for code, change in zip(classes, CHANGES, strict=True)):
        return False
    for change, code in zip(CHANGES, classes, strict=True):
        target = folder / change.path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(change.apply(code))
    return True
