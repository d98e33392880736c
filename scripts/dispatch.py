"""How requests come to workers, and how refusals leave: what TorchServe 0.12 decides in two classes, changed in a few bytes.

TorchServe collects a batch by waiting up to maxBatchDelay (a whole millisecond at least) for more requests, and holds the lock
that the other workers need meanwhile: a lone client pays for it with every photo, and without batches a crowd gets a third less.
Its workers take turns, so that a lone client's photos always come to the one whose data the processor has forgotten meanwhile.
And with a refusal it hangs up, so that a crowd that comes too fast costs a new connection each time besides. Java finds changed
copies of these classes before TorchServe's own:

- `Model.pollBatch` waits for the next request of a batch no longer than 0 milliseconds: docs/decisions/0007-natural-batching.md
- it does so without the lock, on a queue that serves whoever came last first: docs/decisions/0008-last-come-first-served.md
- `NettyUtils.sendHttpResponse` keeps a refused client's connection: docs/decisions/0009-refused-not-hung-up-on.md

A class that is not exactly TorchServe 0.12's is left alone, and all is as it always was.
"""

import hashlib
import shutil
import zipfile
from dataclasses import dataclass
from pathlib import Path

QUEUE = "petclf/LastFirst"
COMPILED = Path(__file__).with_name("java") / f"{QUEUE}.class"  # `make java` compiles it; its source lies beside it


@dataclass(frozen=True)
class Change:
    """A class of TorchServe 0.12.0, pieces of its code with what replaces them, and constants that the new code needs."""

    path: str
    sha256: str
    code: dict[bytes, bytes]
    constants: tuple[bytes, ...] = ()
    end: int = 0  # the byte where those that it has end

    def apply(self, before: bytes) -> bytes:
        after = before
        for old, new in self.code.items():
            after = after.replace(old, new)
        if self.constants:
            count = int.from_bytes(before[8:10], "big") + len(self.constants)
            after = after[:8] + count.to_bytes(2, "big") + after[10 : self.end] + b"".join(self.constants) + after[self.end :]
        return after


CHANGES = (
    Change(
        path="org/pytorch/serve/wlm/Model.class",
        sha256="7c5523f1fe77fe79aa32665469e17725e70518692abcf4987989ef72f10d4cff",
        code={
            # aload 5 (the queue), lload 6 (the delay), getstatic (milliseconds): wait 0 instead
            bytes.fromhex("1905 1606 b2"): bytes.fromhex("1905 0900 b2"),
            # aload 0, getfield lock, invokevirtual lockInterruptibly, aload 0, getfield maxBatchDelay, i2l: do not lock
            bytes.fromhex("2ab40100 b601b8 2ab400e8 85"): bytes.fromhex("00000000 000000 2ab400e8 85"),
            # new LinkedBlockingDeque, dup, iload 2 (the capacity), invokespecial its constructor: new LastFirst
            bytes.fromhex("bb00da 59 1c b700dc"): bytes.fromhex("bb02de 59 1c b702df"),
        },
        end=10784,
        constants=(
            bytes.fromhex("01 0010") + QUEUE.encode(),  # 733: a text
            bytes.fromhex("07 02dd"),  # 734: the class of that name
            bytes.fromhex("0a 02de 0031"),  # 735: its constructor that takes a capacity, described by constant 49
        ),
    ),
    Change(
        path="org/pytorch/serve/util/NettyUtils.class",
        sha256="705f3daad4559394afa0152e71fc358fc14baab42133c2cc09e3726e11c52933",
        code={
            # iload 2 (keep the connection: always true), ifeq close, iload 7 (the status), sipush 400, if_icmplt keep:
            # iload 7, sipush 503, irem, sipush 400, if_icmplt keep, for 503 leaves 0, 504 and 507 leave 1 and 4
            bytes.fromhex("1c 99000b 1507 110190 a10026"): bytes.fromhex("1507 1101f7 70 110190 a10026"),
        },
    ),
)


def patch(jar: Path, folder: Path) -> bool:
    """Write the changed classes, and what they need, below `folder`; returns whether all are those that are known."""
    with zipfile.ZipFile(jar) as packed:
        classes = [packed.read(change.path) for change in CHANGES]
    if any(hashlib.sha256(code).hexdigest() != change.sha256 for code, change in zip(classes, CHANGES, strict=True)):
        return False
    for change, code in zip(CHANGES, classes, strict=True):
        target = folder / change.path
        target.parent.mkdir(parents=True)
        target.write_bytes(change.apply(code))
    queue = folder / f"{QUEUE}.class"
    queue.parent.mkdir(parents=True)
    shutil.copyfile(COMPILED, queue)
    return True
