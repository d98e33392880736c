"""The parts of a plan over Ray Data's workers: the only file that knows Ray.

A row of the data set is a portion of the plan's parts, and not a photo: workers read their parts' photos by name, answer them, and write
each part's file themselves; what comes back through Ray are reports. Ray Data gives each row to a worker at least once: it repeats what a
lost worker or machine had begun, and what comes out of it is gone when the driver dies. Files that are whole or absent, always
with the same bytes, make exactly once out of that, and no photo passes through the object store, which is small on small machines.

The workers are tasks, not actors. Each process keeps its model between parts, as an actor would, but nothing waits for
a certain process: a part of a lost machine goes to whoever is free. An actor would have to start again where there may be no room.
"""

import contextlib
import logging
import os
import tempfile
import traceback
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from bulk.errors import BulkError, FailedError
from bulk.work import Job, Report, finish

ROOT = Path(__file__).parents[1]
PHOTOS_AT_ONCE = 1024  # that a worker gets, some 8 seconds of work: until Ray Data hands it the next, 0.1 to 0.2 seconds pass
OBJECT_STORE = 100_000_000  # bytes: only the archive and reports pass through it
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    # As serving/command.py starts its workers, for the same reason: memory that is given back must be cleared again
    "MALLOC_MMAP_THRESHOLD_": "33554432",
    "MALLOC_TRIM_THRESHOLD_": "67108864",
}
SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",  # Ray would tell its makers
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # said in a warning otherwise
    "RAY_worker_niceness": "0",  # 15 otherwise: behind everything else on the machine
}
ALONE = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}  # the only way to make all of Ray listen on loopback, on Linux too


def load_ray(alone: bool) -> Any:
    """Return Ray, set up by what it reads when it is imported, or say how to install it."""
    for name, value in {**SETTINGS, **(ALONE if alone else {})}.items():
        os.environ.setdefault(name, value)
    try:
        import ray  # noqa: PLC0415  (it takes a second, and is not everywhere)
        import ray.data  # noqa: PLC0415
    except ImportError as error:
        raise BulkError(f"Ray is not installed here ({error}); `make setup-bulk` installs it") from None
    return ray


@contextlib.contextmanager
def connected(address: str | None, workers: int | None) -> Iterator[Any]:
    """Start Ray on this machine, for this process alone and on loopback; or join a cluster and hand it our code."""
    ray = load_ray(alone=not address)
    with tempfile.TemporaryDirectory(prefix="petclf-ray-", ignore_cleanup_errors=True) as folder:
        try:
            ray.init(log_to_driver=False, logging_level=logging.ERROR, **(there(address) if address else here(workers, folder)))
        except (OSError, RuntimeError, ValueError) as error:
            where = f"the cluster at {address} cannot be joined" if address else "Ray cannot be started"
            raise BulkError(f"{where}: {first_line(error)}") from None
        try:
            keep_quiet(ray)
            yield ray
        finally:
            ray.shutdown()


def here(workers: int | None, folder: str) -> dict[str, Any]:
    environment = {"env_vars": {**ENVIRONMENT, "PYTHONPATH": str(ROOT)}}
    return {
        "num_cpus": workers, "num_gpus": 0, "object_store_memory": OBJECT_STORE, "include_dashboard": False, "_temp_dir": folder,
        "runtime_env": environment,
    }  # fmt: skip


def there(address: str) -> dict[str, Any]:
    modules = [str(ROOT / name) for name in ("bulk", "handler")]
    return {"address": address, "runtime_env": {"py_modules": modules, "env_vars": ENVIRONMENT}}


def keep_quiet(ray: Any) -> None:
    """Leave the terminal to our own progress."""
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    for name in ("ray", "ray.data"):
        logging.getLogger(name).setLevel(logging.ERROR)


def run(
    ray: Any, job: Job, parts: Sequence[int], workers: int | None, finish: Callable[[Job, int], Report] = finish
) -> Iterator[Report]:
    """Yield a report of each part when it is finished, in no order."""
    shared = ray.put(job)

    def work(batch: dict[str, Any]) -> dict[str, Any]:
        reports = list(until_a_failure(reported(finish, job_of(shared), int(part)) for part in batch["parts"][0]))
        return {name: [report[name] for report in reports] for name in reports[0]}

    processes = workers or max(1, int(ray.cluster_resources().get("CPU", 1)))
    rows = [{"parts": some} for some in portions(parts, processes, max(1, PHOTOS_AT_ONCE // job.plan.part))]
    done = ray.data.from_items(rows, override_num_blocks=len(rows)).map_batches(
        work, batch_size=1, num_cpus=1, concurrency=workers
    )
    try:
        for report in done.iter_rows():
            if report["failure"]:
                raise FailedError(f"a worker failed: {report['failure']}; when the reason is gone, the same command goes on")
            yield report
    except (ray.exceptions.RayError, ConnectionError) as error:
        raise FailedError(f"Ray failed: {first_line(error)}; the same command goes on") from None


def portions(parts: Sequence[int], workers: int, most: int) -> Iterator[list[int]]:
    """Yield what a worker gets at once: so much that it seldom waits for Ray, and less towards the end, so that all end together."""
    start = 0
    while left := len(parts) - start:
        some = min(most, -(-left // (2 * workers)))
        yield list(parts[start : start + some])
        start += some


def until_a_failure(reports: Iterator[Report]) -> Iterator[Report]:
    for report in reports:
        yield report
        if report["failure"]:
            return


@lru_cache(maxsize=1)
def job_of(reference: Any) -> Job:
    """Return what a worker was sent; each process fetches it once."""
    import ray  # noqa: PLC0415  (this file must be readable without it)

    job: Job = ray.get(reference)
    return job


def reported(finish: Callable[[Job, int], Report], job: Job, part: int) -> Report:
    """Return a report also of a failure: raised, it would come out of Ray Data as pages of stack traces."""
    try:
        return {**finish(job, part), "failure": ""}
    except (BulkError, OSError) as error:
        failure = first_line(error)
    except Exception as error:
        *_, last = traceback.extract_tb(error.__traceback__)
        failure = f"{type(error).__name__} in {Path(last.filename).name}, line {last.lineno}: {first_line(error)}"
    return {"part": part, "photos": 0, "refused": 0, "seconds": 0.0, "failure": failure}


def first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
