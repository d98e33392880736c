"""How TorchServe is started: its command line, its settings and its environment."""

import argparse
import os
import sys
from pathlib import Path

from handler.model_file import Archive
from serving.machine import LOOPBACK, cores, find_java, find_torchserve, free_port

MOST_WORKERS = 4  # each takes about 250 MB
JVM = [
    "-Xms64m", "-Xmx512m",  # a hundred requests that wait; the gateway lets few large ones in at a time
    "-Xmn48m", "-XX:SurvivorRatio=2",  # photos that wait find room among the young; the old are not cleared before the heap has grown
    "-XX:MaxDirectMemorySize=1g",  # a batch of eight at 10 MB each is copied into one buffer; without room a worker waits in vain
    "-Dio.netty.allocator.type=unpooled",  # TorchServe loses the buffers of a form that it cannot read; a pool would never get them back
    "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:-UsePerfData",  # no second thread pool, no files in /tmp
    "-XX:+ExitOnOutOfMemoryError",
    "--enable-native-access=ALL-UNNAMED",
]  # fmt: skip


def number_of_workers(args: argparse.Namespace) -> int:
    return args.workers or min(MOST_WORKERS, cores())


def command(args: argparse.Namespace, archives: list[Archive], folder: Path) -> list[str]:
    """Return TorchServe's command line; its settings are written into the folder."""
    home = find_torchserve()
    config = folder / "config.properties"
    config.write_text(configuration(args, archives), encoding="utf-8")
    return [
        find_java(), *JVM, *args.java_options.split(),
        f"-Dmodel_server_home={home}", f"-Djava.io.tmpdir={folder}", f"-Dlog4j.configurationFile=file://{args.log_config.resolve()}",
        "-cp", f"{home}/ts/frontend/*", "org.pytorch.serve.ModelServer",
        "--python", sys.executable, "-f", str(config), "-s", str(args.model_store.resolve()), "-ncs",
    ]  # fmt: skip


def configuration(args: argparse.Namespace, archives: list[Archive]) -> str:
    """Return the operator's settings and, after them, so that they win, what this command line decides."""
    return "\n".join(
        [
            args.config.read_text(encoding="utf-8"),
            f"inference_address=http://{args.host}:{args.port}",
            f"management_address=http://{args.management_host}:{args.management_port}",
            f"metrics_address=http://{args.metrics_host}:{args.metrics_port}",
            *(f"grpc_{name}_address={LOOPBACK}\ngrpc_{name}_port={free_port()}" for name in ("inference", "management")),
            f"model_store={args.model_store.resolve()}",
            f"load_models={','.join(archive.path.name for archive in archives)}",
            f"default_workers_per_model={number_of_workers(args)}",
            f"metrics_config={args.metrics_config.resolve()}",
            "",
        ]
    )


def environment(args: argparse.Namespace, folder: Path) -> dict[str, str]:
    """Return what TorchServe and its workers see; PYTHONPATH is left out, for it would win over the archive's own code."""
    threads = str(max(1, cores() // number_of_workers(args)))
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    return kept | {
        **dict.fromkeys(("TEMP", "TMPDIR", "LOG_LOCATION", "METRICS_LOCATION", "PETCLF_STATE"), str(folder)),
        "PETCLF_MODEL_STORE": str(args.model_store.resolve()),
        "PETCLF_THREADS": threads,
        "PETCLF_DEAR_WORKERS": str(max(1, number_of_workers(args) // 2)),  # who sends dear requests never gets the others
        "OMP_NUM_THREADS": threads,
        "OMP_WAIT_POLICY": "PASSIVE",  # threads that wait sleep; spinning beside a busy process costs 30 times the time
        "MALLOC_ARENA_MAX": "2",  # Java's threads would each keep memory of their own
        "MALLOC_MMAP_THRESHOLD_": "33554432",  # a worker keeps what a batch needs: given back, every page is cleared again
        "MALLOC_TRIM_THRESHOLD_": "67108864",  # ... which took a third of the model's time; a huge photo's is given back
        "PYTHONWARNINGS": "ignore",  # a worker's warnings would be lines in the log at every start
    }
