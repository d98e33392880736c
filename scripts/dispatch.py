"""How waiting requests come to workers: what is waiting is taken at once, by the worker that was busy last.

TorchServe 0.12 collects a batch by waiting up to maxBatchDelay (a whole millisecond at least) for more requests, and holds
the lock that the other workers need meanwhile: a lone client pays for it with every photo, and without batches a crowd gets
a third less. And its workers take turns, so that a lone client's photos always come to the one whose data the processor has
forgotten meanwhile. Both are decided in one class, `Model`, of which Java finds a changed copy before TorchServe's own:

- `pollBatch` waits for the next request of a batch no longer than 0 milliseconds: docs/decisions/0007-natural-batching.md
- it does so without the lock, on a queue that serves whoever came last first: docs/decisions/0008-last-come-first-served.md

A class that is not exactly TorchServe 0.12's is left alone, and batches and workers wait as they always did.
"""

import hashlib
import shutil
import zipfile
from pathlib import Path

CLASS = "org/pytorch/serve/wlm/Model.class"
SHA256 = "7c5523f1fe77fe79aa32665469e17725e70518692abcf4987989ef72f10d4cff"  # TorchServe 0.12.0
QUEUE = "petclf/LastFirst"
COMPILED = Path(__file__).with_name("java") / f"{QUEUE}.class"  # `make java` compiles it; its source lies beside it

COUNT, END = 733, 10784  # the class has constants up to this number, and up to this byte
CONSTANTS = b"".join(
    [
        bytes.fromhex("01 0010") + QUEUE.encode(),  # 733: a text
        bytes.fromhex("07 02dd"),  # 734: the class of that name
        bytes.fromhex("0a 02de 0031"),  # 735: its constructor that takes a capacity, described by constant 49
    ]
)
CHANGES = {
    # aload 5 (the queue), lload 6 (the delay), getstatic (milliseconds): wait 0 instead
    bytes.fromhex("1905 1606 b2"): bytes.fromhex("1905 0900 b2"),
    # aload 0, getfield lock, invokevirtual lockInterruptibly, aload 0, getfield maxBatchDelay, i2l: do not lock
    bytes.fromhex("2ab40100 b601b8 2ab400e8 85"): bytes.fromhex("00000000 000000 2ab400e8 85"),
    # new LinkedBlockingDeque, dup, iload 2 (the capacity), invokespecial its constructor: new LastFirst
    bytes.fromhex("bb00da 59 1c b700dc"): bytes.fromhex("bb02de 59 1c b702df"),
}


def patch(jar: Path, folder: Path) -> bool:
    """Write the changed class, and what it needs, below `folder`; returns whether this is the class that is known."""
    with zipfile.ZipFile(jar) as packed:
        code = packed.read(CLASS)
    if hashlib.sha256(code).hexdigest() != SHA256:
        return False
    changed, queue = folder / CLASS, folder / f"{QUEUE}.class"
    for path in (changed, queue):
        path.parent.mkdir(parents=True)
    changed.write_bytes(with_changes(code))
    shutil.copyfile(COMPILED, queue)
    return True


def with_changes(code: bytes) -> bytes:
    """Return the class with three constants more and three pieces of code replaced."""
    for before, after in CHANGES.items():
        code = code.replace(before, after)
    return code[:8] + (COUNT + 3).to_bytes(2, "big") + code[10:END] + CONSTANTS + code[END:]
