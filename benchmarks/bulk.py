"""How fast is score_many, does its memory stay flat, and what is lost when it is killed?

Five measurements, each in turns or repeated: `throughput` against the bare cores, a plain multiprocessing loop and predict.py; `cost` in
processor time; `memory` of few photos against many; `kills` of the driver and of workers at random points; `nodes`, of which one of two is killed.
"""

import argparse
import contextlib
import json
import multiprocessing
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import psutil
import pyarrow.parquet as pq

from benchmarks.ceiling import Ceiling, in_environment
from benchmarks.load import read_photos
from benchmarks.machine import pss_of_children
from benchmarks.record import record_path, write_record
from benchmarks.systems import ONE_THREAD, SYSTEMS, running
from bulk import work
from bulk.cluster import ALONE, SETTINGS
from bulk.run import Asked, score_many
from bulk.scorer import Model, Scorer
from bulk.source import Photo, Source
from bulk.work import Job

ROOT = Path(__file__).parents[1]
WORKERS = 2


# --- A run whose photos are counted: what is computed twice is what is counted too often


@dataclass(frozen=True)
class Counted(Source):
    """A source that writes one byte into a file for each photo that a worker takes."""

    inner: Source
    counter: str

    def found(self) -> Iterator[tuple[bytes, bytes, bool]]:
        return self.inner.found()

    def read(self, name: bytes) -> Any:
        return self.inner.read(name)

    def read_all(self, names: Sequence[bytes]) -> Iterator[Photo]:
        file = os.open(self.counter, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        try:
            for photo in self.inner.read_all(names):
                os.write(file, b".")
                yield photo
        finally:
            os.close(file)


@dataclass(frozen=True)
class Counting:
    """What workers do instead of bulk.work.finish: the same, and count."""

    counter: str

    def __call__(self, job: Job, part: int) -> dict[str, Any]:
        return work.finish(replace(job, source=Counted(job.source, self.counter)), part)


def counted(counter: Path) -> int:
    return counter.stat().st_size if counter.exists() else 0


def own_command(*words: object) -> list[str]:
    """Return the command that runs a part of this file in another process."""
    return [sys.executable, "-W", "ignore", "-m", "benchmarks.bulk", *map(str, words)]


@dataclass
class Run:
    """A run in a process of its own, whose photos are counted."""

    photos: Path
    output: Path
    archive: Path
    counter: Path
    process: subprocess.Popen[bytes]

    @classmethod
    def start(cls, photos: Path, output: Path, archive: Path, counter: Path, part: int | None = None) -> "Run":
        command = own_command("counted", photos, output, archive, counter, part or 0)
        with output.with_name(f"{output.name}.log").open("ab") as log:
            process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)
        return cls(photos, output, archive, counter, process)

    def reaches(self, photos: int, seconds: float = 300) -> bool:
        """Wait until so many photos have been taken; tells whether the run is still going on."""
        end = time.monotonic() + seconds
        while counted(self.counter) < photos and self.process.poll() is None and time.monotonic() < end:
            time.sleep(0.01)
        return self.process.poll() is None

    def workers(self) -> list[psutil.Process]:
        """Return the processes that answer photos."""
        with contextlib.suppress(psutil.NoSuchProcess):
            return [one for one in psutil.Process(self.process.pid).children(recursive=True) if is_worker(one)]
        return []

    def kill_driver(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def kill_worker(self, choose: random.Random) -> bool:
        workers = self.workers()
        if not workers:
            return False
        with contextlib.suppress(psutil.NoSuchProcess):
            choose.choice(workers).send_signal(signal.SIGKILL)
        return True


def is_worker(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
        return process.name().startswith("ray::MapBatches")
    return False


def run_counted(photos: str, output: str, archive: str, counter: str, part: str) -> None:
    score_many(Asked(photos, output, Path(archive), WORKERS, part=int(part) or None), Counting(counter))


def parts_of(output: Path) -> dict[str, bytes]:
    """Return the final files, by their name."""
    return {path.name: path.read_bytes() for path in sorted((output / "answers").iterdir())}


def paths_of(output: Path) -> list[str]:
    found: list[str] = pq.read_table(output / "answers", columns=["path"])["path"].to_pylist()
    return found


@dataclass(frozen=True)
class Timing:
    """What workers do instead of bulk.work.finish: the same, and write down the processor time that a part took."""

    log: str

    def __call__(self, job: Job, part: int) -> dict[str, Any]:
        return self.timed(lambda: work.finish(job, part), job.plan.photos_of(part))

    def timed(self, act: Callable[[], Any], photos: int) -> Any:
        started = time.process_time()
        result = act()
        line = f"{os.getpid()} {photos} {time.process_time() - started}\n"
        file = os.open(self.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(file, line.encode())
        os.close(file)
        return result

    def a_photo(self) -> float:
        """Return the seconds for a photo, without each process's first part, for which it loaded the model."""
        seen: set[str] = set()
        photos, seconds = 0, 0.0
        for line in Path(self.log).read_text(encoding="utf-8").splitlines():
            pid, count, took = line.split()
            if pid in seen:
                photos, seconds = photos + int(count), seconds + float(took)
            seen.add(pid)
        return seconds / photos


# --- Kills


def kills(photos: Path, archive: Path, folder: Path, count: int, in_a_run: int, seed: int) -> list[dict[str, Any]]:
    """Kill runs at random points, several times each, and let each end; returns what became of every run."""
    choose = random.Random(seed)
    expected = reference(photos, archive, folder)
    found: list[dict[str, Any]] = []
    while (done := sum(len(one["killed"]) for one in found)) < count:
        found.append(killed_and_compared(photos, archive, folder, min(in_a_run, count - done), choose, expected))
        print(json.dumps(found[-1]), flush=True)
    return found


def reference(photos: Path, archive: Path, folder: Path) -> dict[str, bytes]:
    """Return the files of a run that nobody disturbs."""
    output = folder / "reference"
    if not output.exists():
        end(Run.start(photos, output, archive, folder / "count-reference"))
    return parts_of(output)


def killed_and_compared(
    photos: Path, archive: Path, folder: Path, times: int, choose: random.Random, expected: dict[str, bytes]
) -> dict[str, Any]:
    """Kill the driver, which needs a new run, or a worker, which needs nothing, when so many photos have been taken."""
    output, counter = folder / "killed", folder / "count"
    total = len(paths_of(folder / "reference"))
    killed: list[str] = []
    run = Run.start(photos, output, archive, counter)
    for point in sorted(choose.randrange(total) for _ in range(times)):
        if not run.reaches(max(point, counted(counter) + 1)):
            break
        killed.append(choose.choice(["driver", "worker"]))
        if killed[-1] == "driver":
            run.kill_driver()
            run = Run.start(photos, output, archive, counter)
        else:
            run.kill_worker(choose)
    end(run)
    paths, twice = paths_of(output), counted(counter) - total
    found = {
        "killed": killed,
        "ids_equal": set(paths) == set(paths_of(folder / "reference")),
        "double": len(paths) - len(set(paths)),
        "bytes_equal": parts_of(output) == expected,
        "twice": twice / total / max(len(killed), 1),
        "twice_in_all": twice / total,
    }
    shutil.rmtree(output)
    counter.unlink()
    return found


def end(run: Run) -> None:
    """Wait for a run's end."""
    if run.process.wait(1800):
        sys.exit(f"error: a run ended with {run.process.returncode}; its log: {run.output}.log")


# --- Throughput


@dataclass(frozen=True)
class Plain:
    """The loop that one would write without score_many: a pool, the photos in portions, one Parquet file a portion."""

    photos: list[Path]
    archive: Path
    output: Path
    log: str = os.devnull  # of processor time

    scorer: ClassVar[Scorer]
    timing: ClassVar[Timing]

    @classmethod
    def set_up(cls, archive: Path, log: str) -> None:
        cls.scorer, cls.timing = Scorer(Model.of(archive)), Timing(log)

    @classmethod
    def answer(cls, paths: list[Path], target: Path) -> int:
        def write() -> int:
            content, found = cls.scorer.as_part((bytes(path), path.read_bytes()) for path in paths)
            return target.write_bytes(content) and len(found)

        return cls.timing.timed(write, len(paths))

    def run(self, portion: int) -> None:
        self.output.mkdir()
        portions = [self.photos[start : start + portion] for start in range(0, len(self.photos), portion)]
        jobs = [(some, self.output / f"{number}.parquet") for number, some in enumerate(portions)]
        with in_environment(ONE_THREAD):
            pool = multiprocessing.get_context("spawn").Pool(WORKERS, Plain.set_up, (self.archive, self.log))
        with pool:
            assert sum(pool.starmap(Plain.answer, jobs, chunksize=1)) == len(self.photos)


def throughput(photos: Path, archive: Path, folder: Path, rounds: int) -> list[dict[str, float]]:
    """Measure all ways in turns. `whole` counts from the start of the command; `steady` from the first finished part to the last."""
    names = sorted(path for path in photos.iterdir())
    [petclf] = [system for system in SYSTEMS if system.name == "petclf"]
    some = read_photos(photos)[:512]
    found: list[dict[str, float]] = []
    with Ceiling(some, 8, WORKERS) as ceiling, running(petclf, folder / "server", some[0], "label") as server:
        for number in range(rounds):
            output = folder / f"throughput-{number}"
            one = {"ceiling": ceiling.at_most(8, 10)["rate"]}
            one["score_many whole"] = len(names) / timed(partial(ours, photos, output, archive))
            part = json.loads((output / "plan.json").read_text(encoding="utf-8"))["part"]
            one["score_many steady"] = steady(output / "answers")
            plain = folder / f"plain-{number}"
            one["loop whole"] = len(names) / timed(partial(Plain(names, archive, plain).run, part))
            one["loop steady"] = steady(plain)
            one["ceiling after"] = ceiling.at_most(8, 10)["rate"]
            one["predict.py"] = len(names) / timed(partial(asked, photos, server.port))
            found.append(one)
            print(json.dumps({name: round(value, 1) for name, value in one.items()}), flush=True)
            shutil.rmtree(output)
            shutil.rmtree(plain)
    return found


def timed(act: Callable[[], object]) -> float:
    started = time.perf_counter()
    act()
    return time.perf_counter() - started


def ours(photos: Path, output: Path, archive: Path) -> None:
    command = [
        sys.executable,
        "-W",
        "ignore",
        "-m",
        "scripts.score_many",
        str(photos),
        "--output",
        str(output),
        "--archive",
        str(archive),
    ]
    subprocess.run([*command, "--workers", str(WORKERS)], cwd=ROOT, check=True, capture_output=True)


def asked(photos: Path, port: int) -> None:
    command = [
        sys.executable,
        "-m",
        "scripts.predict",
        str(photos),
        "--csv",
        "--jobs",
        "16",
        "--server",
        f"http://127.0.0.1:{port}",
    ]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)


def steady(answers: Path) -> float:
    """Return the rate between the moments when the first and the last part were written."""
    written = sorted((path.stat().st_mtime, pq.ParquetFile(path).metadata.num_rows) for path in answers.iterdir())
    return sum(photos for _, photos in written[1:]) / (written[-1][0] - written[0][0])


# --- Cost: seconds of a core for a photo, which other work on the machine changes less than it changes rates


def run_timed(photos: str, output: str, archive: str, log: str) -> None:
    score_many(Asked(photos, output, Path(archive), WORKERS), Timing(log))


def others_seconds(process: subprocess.Popen[bytes], log: Path) -> float:
    """Return the processor seconds of driver and Ray, without the workers, from the first finished part to the end."""
    first: dict[int, float] | None = None
    last: dict[int, float] = {}
    while process.poll() is None:
        with contextlib.suppress(psutil.NoSuchProcess):
            whole = psutil.Process(process.pid)
            seen = {}
            for one in [whole, *whole.children(recursive=True)]:
                with contextlib.suppress(psutil.NoSuchProcess):
                    if not one.name().startswith("ray::MapBatches"):
                        times = one.cpu_times()
                        seen[one.pid] = times.user + times.system
            if log.exists():
                first = first or dict(seen)
                last |= seen
        time.sleep(0.5)
    return sum(value - (first or {}).get(pid, value) for pid, value in last.items())


def cost(photos: Path, archive: Path, folder: Path, rounds: int) -> list[dict[str, float]]:
    """Measure in turns what a photo costs in score_many's workers, in Ray and the driver, in the plain loop, and in the ceiling."""
    names = sorted(photos.iterdir())
    found: list[dict[str, float]] = []
    with Ceiling(read_photos(photos)[:512], 8, WORKERS) as ceiling:
        for number in range(rounds):
            output, log, plain_log = (folder / f"{name}-{number}" for name in ("cost", "cost-log", "plain-log"))
            one = {"ceiling": cost_of_ceiling(ceiling)}
            command = own_command("timed", photos, output, archive, log)
            process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            others = others_seconds(process, log)
            assert process.returncode == 0
            one |= {"workers": Timing(str(log)).a_photo(), "Ray and driver": others / len(names)}
            part = json.loads((output / "plan.json").read_text(encoding="utf-8"))["part"]
            Plain(names, archive, folder / f"plain-{number}", str(plain_log)).run(part)
            one |= {"loop": Timing(str(plain_log)).a_photo(), "ceiling after": cost_of_ceiling(ceiling)}
            found.append(one)
            print(json.dumps({name: round(value * 1000, 3) for name, value in one.items()}), flush=True)
    return found


def cost_of_ceiling(ceiling: Ceiling) -> float:
    processes = [psutil.Process(one.pid) for one in ceiling.pool._pool]  # type: ignore[attr-defined]
    before = sum(sum(one.cpu_times()[:2]) for one in processes)
    photos = ceiling.at_most(8, 10)["rate"] * 10
    return (sum(sum(one.cpu_times()[:2]) for one in processes) - before) / photos


def cost_lines(found: list[dict[str, float]], photos: int) -> list[str]:
    ceiling = [(one["ceiling"] + one["ceiling after"]) / 2 for one in found]
    whole = [one["workers"] + one["Ray and driver"] for one in found]
    values = {name: [one[name] * 1000 for one in found] for name in ("workers", "Ray and driver", "loop")}
    ratios = {
        "ceiling / workers": [top / one["workers"] for one, top in zip(found, ceiling, strict=True)],
        "ceiling / workers, Ray and driver": [top / one for one, top in zip(whole, ceiling, strict=True)],
        "loop / workers": [one["loop"] / one["workers"] for one in found],
        "loop / workers, Ray and driver": [one["loop"] / all_of_it for one, all_of_it in zip(found, whole, strict=True)],
    }
    return [
        f"Processor time, {photos:,} photos, n = {len(found)} rounds in turns; milliseconds of a core for a photo, start left out.",
        "",
        "| what | ms | ratio |",
        "|---|---|---|",
        f"| in-process ceiling, mean of before and after | {median_and_range([value * 1000 for value in ceiling])} | |",
        *(f"| {name} | {median_and_range(ones)} | |" for name, ones in values.items()),
        *(f"| {name} | | {median_and_range(ones)} |" for name, ones in ratios.items()),
    ]


# --- Memory


def memory(photos: Path, archive: Path, folder: Path, counts: Sequence[int]) -> dict[int, dict[str, float]]:
    """Answer so many photos, the same ones again under other names; returns what all processes take together, MB."""
    found = {}
    for count in counts:
        many = named_again(photos, folder / f"photos-{count}", count)
        run = Run.start(many, folder / f"memory-{count}", archive, folder / f"count-{count}")
        seen = []
        while run.process.poll() is None:
            if counted(run.counter):
                with contextlib.suppress(psutil.NoSuchProcess):
                    seen.append(pss_of_children(run.process.pid) / 1e6)
            time.sleep(1)
        end(run)
        found[count] = {"peak": max(seen), "median": statistics.median(seen), "seconds": len(seen)}
        print(json.dumps({count: found[count]}), flush=True)
        shutil.rmtree(many)
    return found


def named_again(photos: Path, folder: Path, count: int) -> Path:
    """Fill a folder with `count` names of these photos' files."""
    folder.mkdir()
    names = sorted(photos.iterdir())
    for number in range(count):
        (folder / f"{number:07d}.jpg").hardlink_to(names[number % len(names)])
    return folder


# --- Nodes


def nodes(photos: Path, archive: Path, folder: Path, times: int) -> list[dict[str, Any]]:
    """Answer on a cluster of two nodes with one core each, of which one is killed in the middle."""
    os.environ.update({**SETTINGS, **ALONE})  # for the nodes too, which start before score_many
    from ray.cluster_utils import Cluster  # noqa: PLC0415  (only this measurement needs it)

    expected = reference(photos, archive, folder)
    found = []
    for _ in range(times):
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
        second = cluster.add_node(num_cpus=1)
        output, counter = folder / "nodes", folder / "count-nodes"
        killed: list[int] = []
        killer = threading.Thread(
            target=kill_node, args=(cluster, second, counter, len(paths_of(folder / "reference")) // 2, killed)
        )
        killer.start()
        part = json.loads((folder / "reference" / "plan.json").read_text(encoding="utf-8"))["part"]
        score_many(Asked(str(photos), str(output), archive, WORKERS, part=part, address=cluster.address), Counting(str(counter)))
        killer.join()
        cluster.shutdown()
        total = len(paths_of(output))
        found.append(
            {"killed_at": killed[0] / total, "bytes_equal": parts_of(output) == expected, "twice": counted(counter) / total - 1}
        )
        print(json.dumps(found[-1]), flush=True)
        shutil.rmtree(output)
        counter.unlink()
    return found


def kill_node(cluster: Any, node: Any, counter: Path, photos: int, killed: list[int]) -> None:
    while counted(counter) < photos:
        time.sleep(0.05)
    killed.append(counted(counter))
    cluster.remove_node(node, allow_graceful=False)


# --- The record


def median_and_range(values: Sequence[float], digits: int = 2) -> str:
    return f"{statistics.median(values):.{digits}f} [{min(values):.{digits}f}-{max(values):.{digits}f}]"


def throughput_lines(found: list[dict[str, float]], photos: int) -> list[str]:
    lines = [
        f"Throughput, {photos:,} photos, {WORKERS} workers, n = {len(found)} rounds in turns; photos a second, and each round's ratio.",
        "",
        "| what | photos a second | ratio |",
        "|---|---|---|",
    ]
    ceiling = [(one["ceiling"] + one["ceiling after"]) / 2 for one in found]
    lines.append(f"| in-process ceiling, mean of before and after | {median_and_range(ceiling, 0)} | |")
    for name in ("score_many steady", "loop steady", "score_many whole", "loop whole", "predict.py"):
        lines.append(f"| {name} | {median_and_range([one[name] for one in found], 0)} | |")
    pairs = {
        "score_many steady / ceiling": [one["score_many steady"] / top for one, top in zip(found, ceiling, strict=True)],
        "score_many steady / loop steady": [one["score_many steady"] / one["loop steady"] for one in found],
        "score_many whole / loop whole": [one["score_many whole"] / one["loop whole"] for one in found],
        "score_many whole / predict.py": [one["score_many whole"] / one["predict.py"] for one in found],
    }
    return lines + [f"| {name} | | {median_and_range(values)} |" for name, values in pairs.items()]


def memory_lines(found: dict[int, dict[str, float]]) -> list[str]:
    (few, low), (many, high) = list(found.items())
    return [
        "Memory of all processes together (PSS, MB, sampled every second), the same photos under many names.",
        "",
        "| photos | peak | median |",
        "|---|---|---|",
        *(f"| {count:,} | {one['peak']:.0f} | {one['median']:.0f} |" for count, one in found.items()),
        f"| {many:,} / {few:,} | {high['peak'] / low['peak']:.2f} | {high['median'] / low['median']:.2f} |",
    ]


def kills_lines(found: list[dict[str, Any]], photos: int) -> list[str]:
    killed = [who for one in found for who in one["killed"]]
    runs = len(found)
    return [
        f"Killed with SIGKILL at {len(killed)} random points ({killed.count('driver')} drivers, {killed.count('worker')} workers) of "
        f"{runs} runs over {photos:,} photos; after a driver's death the same command was given again.",
        "",
        "| what | result |",
        "|---|---|",
        f"| runs with the same photos as the undisturbed run | {sum(one['ids_equal'] for one in found)} of {runs} |",
        f"| photos with two rows | {sum(one['double'] for one in found)} |",
        f"| runs whose files have the same bytes | {sum(one['bytes_equal'] for one in found)} of {runs} |",
        f"| computed twice, share of all photos a kill | {percents([one['twice'] for one in found])} |",
        f"| computed twice, share of all photos a run | {percents([one['twice_in_all'] for one in found])} |",
    ]


def percents(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.2%} [{min(values):.2%}-{max(values):.2%}]"


def nodes_lines(found: list[dict[str, Any]]) -> list[str]:
    return [
        f"Two Ray nodes on this machine, one killed in the middle, n = {len(found)}.",
        "",
        "| what | result |",
        "|---|---|",
        f"| runs that ended with the same bytes | {sum(one['bytes_equal'] for one in found)} of {len(found)} |",
        f"| killed after this share of the photos | {percents([one['killed_at'] for one in found])} |",
        f"| computed twice | {percents([one['twice'] for one in found])} |",
    ]


def record(found: dict[str, Any], note: str) -> Path:
    lines = []
    for name in found:
        lines += [*found[name]["lines"], ""]
    path = write_record("bulk", "Answering many photos", "python -m benchmarks.bulk all --record", lines[:-1], note)
    content = {name: one["found"] for name, one in found.items()}
    record_path("bulk").with_suffix(".json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return path


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["all", "throughput", "cost", "memory", "kills", "nodes"])
    parser.add_argument("--photos", type=Path, required=True, help="folder of JPEGs, without sub-folders")
    parser.add_argument("--archive", type=Path, required=True)
    parser.add_argument("--folder", type=Path, help="where to work; a temporary folder if none is named")
    parser.add_argument("--rounds", type=int, default=7, help="of throughput and cost")
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--kills-in-a-run", type=int, default=5)
    parser.add_argument("--nodes", type=int, default=3, help="runs on two nodes")
    parser.add_argument("--counts", type=int, nargs=2, default=(10_000, 100_000), help="photos for memory")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="file that collects what several calls found, for one record")
    parser.add_argument("--record", action="store_true")
    parser.add_argument("--note", default="", help="what the reader of the record must know")
    return parser.parse_args()


def main() -> None:
    args = parse()
    photos, archive = args.photos.absolute(), args.archive.absolute()
    count = sum(1 for _ in photos.iterdir())
    found: dict[str, Any] = json.loads(args.keep.read_text(encoding="utf-8")) if args.keep and args.keep.exists() else {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = (args.folder or Path(temporary)).absolute()
        folder.mkdir(parents=True, exist_ok=True)
        measure: dict[str, Callable[[], tuple[Any, list[str]]]] = {
            "throughput": lambda: with_lines(throughput(photos, archive, folder, args.rounds), throughput_lines, count),
            "cost": lambda: with_lines(cost(photos, archive, folder, args.rounds), cost_lines, count),
            "memory": lambda: with_lines(memory(photos, archive, folder, args.counts), memory_lines),
            "kills": lambda: with_lines(
                kills(photos, archive, folder, args.kills, args.kills_in_a_run, args.seed), kills_lines, count
            ),
            "nodes": lambda: with_lines(nodes(photos, archive, folder, args.nodes), nodes_lines),
        }
        for name in measure if args.what == "all" else [args.what]:
            values, lines = measure[name]()
            found[name] = {"found": values, "lines": lines}
            print("\n".join(lines))
            if args.keep:
                args.keep.write_text(json.dumps(found, indent=1), encoding="utf-8")
    if args.record:
        print(record(found, args.note))


def with_lines(values: Any, lines: Callable[..., list[str]], *more: Any) -> tuple[Any, list[str]]:
    return values, lines(values, *more)


if __name__ == "__main__":
    if sys.argv[1:2] == ["counted"]:
        run_counted(*sys.argv[2:])
    elif sys.argv[1:2] == ["timed"]:
        run_timed(*sys.argv[2:])
    else:
        main()
