"""Do well-behaved clients get their answers while others attack, and does the operator hear of it? `make attack`.

A server and the shipped gateway run on this machine, in a network of their own where Linux allows one. Each attack is a process
from addresses of its own (127.0.1.*), at a lower priority, so that it does not take the cores from what it attacks.
"""

import argparse
import contextlib
import json
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from benchmarks import attackers, hostile_files, own_network
from benchmarks.attackers import ATTACKS
from benchmarks.bystanders import Client, Summary, hurt_seconds, summary, within
from benchmarks.record import write_record
from benchmarks.stack import Alert, Stack, running

RATE = 4.0  # photos a second of the good client
SLOWER = 5  # times the quiet p99: beyond it a client is hurt
LEAD_SECONDS = 1.0  # an attacker needs it to start
WELL_SECONDS = 5.0  # without a failed or slow answer: an attack is over for the good client
RECOVERY_SECONDS = 90.0  # to wait for that; a server that was ended needs 20 to start
AT_ONCE = 2.0  # seconds: no attack makes an alert fire so soon
GRACE_SECONDS = 60.0  # an attacker that has not ended by then is killed


@dataclass(frozen=True)
class Course:
    """How one attack went."""

    good: Summary  # of what was due while it lasted
    hurt: float  # seconds from the first failed or slow answer to the last, also after the attack
    shares: dict[str, float]  # of 200: operator, operator from the attacker's address, health
    attacker: dict[str, int] = field(default_factory=dict)
    alerts: list[Alert] | None = None  # none where nothing watches
    restarts: int = 0  # of the server


@dataclass(frozen=True)
class Bystanders:
    """Everybody who means well."""

    good: Client
    others: dict[str, Client]

    @contextlib.contextmanager
    def asking(self) -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            for client in (self.good, *self.others.values()):
                stack.enter_context(client.asking())
            yield

    def settle(self, slowest: float) -> None:
        """Wait until the good client has been well for some seconds, but not for ever."""
        end = time.monotonic() + RECOVERY_SECONDS
        while time.monotonic() < end:
            time.sleep(1)
            now = time.monotonic()
            recent = within(self.good.outcomes, now - WELL_SECONDS, now)
            if len(recent) >= 0.9 * RATE * WELL_SECONDS and not hurt_seconds(recent, slowest):
                return

    def course(self, start: float, end: float, slowest: float) -> Course:
        shares = {name: summary(within(client.outcomes, start, end)).answered for name, client in self.others.items()}
        hurt = hurt_seconds(within(self.good.outcomes, start, float("inf")), slowest)
        return Course(summary(within(self.good.outcomes, start, end)), hurt, shares)


def bystanders(stack: Stack) -> Bystanders:
    """The operator asks from an address of their own, and from the attacker's: behind a proxy both have the same."""
    others = {
        "operator": stack.operator(1, address="127.0.0.2"),
        "operator at the attacker's address": stack.operator(1, address=attackers.addresses(1)[0]),
        "health": stack.client(1, "/health", address="127.0.0.3"),
    }
    return Bystanders(stack.good_client(RATE), others)


def quiet(stack: Stack, seconds: float) -> Course:
    who, begun = bystanders(stack), time.time()
    start = time.monotonic()
    with who.asking():
        time.sleep(seconds)
    return replace(who.course(start, start + seconds, float("inf")), alerts=alerts(stack, begun, patience=0))


def under_attack(stack: Stack, name: str, files: Path, args: argparse.Namespace, slowest: float) -> Course:
    who, begun, restarts = bystanders(stack), time.time(), stack.server.restarts
    with who.asking():
        attacker = start_attacker(stack, name, files, args.seconds)
        try:
            time.sleep(LEAD_SECONDS)
            start = time.monotonic()
            time.sleep(args.seconds - LEAD_SECONDS)
            end = time.monotonic()
            said = attacker.communicate(timeout=GRACE_SECONDS)[0]
        except subprocess.TimeoutExpired:
            said = ""
        finally:
            attacker.kill()
            attacker.wait()
        who.settle(slowest)
    return replace(
        who.course(start, end, slowest), attacker=json.loads(said or '{"did not end": 1}'),
        alerts=alerts(stack, begun, args.clear), restarts=stack.server.restarts - restarts,
    )  # fmt: skip


def start_attacker(stack: Stack, name: str, files: Path, seconds: float) -> subprocess.Popen[str]:
    where = ["--port", str(stack.port), "--management-port", str(stack.management_port), "--files", str(files)]
    who = [*(["--tls"] if stack.tls else []), *(["--key", stack.keys["attacker"]] if "attacker" in stack.keys else [])]
    command = ["nice", "-n", "10", sys.executable, attackers.__file__, name, "--seconds", str(seconds), *where, *who]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def alerts(stack: Stack, begun: float, patience: float) -> list[Alert] | None:
    """Wait until none fires any more, but not for ever; return those that did."""
    if stack.prometheus is None:
        return None
    end = time.monotonic() + patience
    while stack.prometheus.firing() and time.monotonic() < end:
        time.sleep(1)
    return stack.prometheus.fired(begun, time.time())


# --- the table

HEAD = (
    "attack", "good client answered", "n", "p50 ms", "p99 ms", "of quiet", "max ms", "other answers", "hurt s",
    "operator", "at the attacker's address", "/health", "restarts", "alerts", "the attacker got",
)  # fmt: skip


def row(name: str, course: Course, quiet_p99: float) -> str:
    good, ms = course.good, course.good.ms
    p50, p99, longest = (f"{ms[point]:.0f}" if ms else "-" for point in ("p50", "p99", "max"))
    ratio = f"{ms['p99'] / quiet_p99:.1f}" if ms else "-"
    cells = [name, f"{good.answered:.1%}", str(good.count), p50, p99, ratio, longest, listed(good.others), f"{course.hurt:.0f}"]
    cells += [f"{share:.0%}" for share in course.shares.values()]
    cells += [str(course.restarts), told(course.alerts), listed(course.attacker)]
    return f"| {' | '.join(cells)} |"


def listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{name}: {count:,}" for name, count in sorted(counts.items())) or "-"


def told(fired: list[Alert] | None) -> str:
    """Return which alerts fired, after how many seconds, and whether they cleared."""
    if fired is None:
        return "no Prometheus here"
    return ", ".join(map(story, fired)) or "-"


def story(alert: Alert) -> str:
    begun = f"after {alert.after:.0f} s" if alert.after > AT_ONCE else "from before"
    ended = "still firing" if alert.seconds is None else f"for {alert.seconds:.0f} s"
    return f"{alert.name} ({alert.severity}) {begun}, {ended}"


def separator() -> str:
    return "|" + "---|" * len(HEAD)


def explained(names: list[str]) -> list[str]:
    return ["", "| attack | addresses | what it does |", "|---|---|---|"] + [
        f"| {name} | {ATTACKS[name].addresses} | {ATTACKS[name].what} |" for name in names
    ]


def measure(args: argparse.Namespace, names: list[str], folder: Path) -> list[str]:
    """Run the attacks one after another; return the table, which is printed as it grows."""
    hosts = own_network.BadHosts(attackers.noise(64))
    with contextlib.ExitStack() as stack:
        if any(ATTACKS[name].names for name in names):
            stack.enter_context(hosts.running())
        hosts_listed = ",".join(own_network.NAMES)
        attacked = stack.enter_context(
            running(folder / "stack", tls=args.tls, keys=args.keys, watched=True, url_hosts=hosts_listed)
        )
        files = folder / "files"
        files.mkdir()
        hostile_files.make(
            files, (file for name in names for file in ATTACKS[name].files), lambda photo: answers(attacked, photo)
        )
        usual = quiet(attacked, args.quiet)
        p99 = usual.good.ms["p99"]
        lines: list[str] = []

        def say(*some: str) -> None:
            lines.extend(some)
            print(*some, sep="\n", flush=True)

        say(f"| {' | '.join(HEAD)} |", separator(), row("none, before", usual, p99))
        for name in names:
            say(row(name, under_attack(attacked, name, files, args, SLOWER * p99 / 1000), p99))
        say(row("none, after", quiet(attacked, args.quiet), p99))
    return [
        *lines,
        "",
        f"Private addresses that the server connected to for an address: {hosts.private_visits}.",
        *explained(names),
    ]


def answers(stack: Stack, photo: bytes) -> bool:
    client = stack.client(1, "/predict", photo)
    connection = client.connect()
    try:
        return client.status(connection) == "200"
    finally:
        connection.close()


def chosen(only: list[str] | None, without_names: str) -> list[str]:
    """Return the attacks to run; those that need names only in a network of our own."""
    names = [name for name in ATTACKS if not only or name in only]
    if not without_names:
        return names
    return [name for name in names if not ATTACKS[name].names]


def parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60, help="of each attack")
    parser.add_argument("--quick", action="store_true", help="15 seconds each, and no long wait for alerts to clear")
    parser.add_argument("--quiet", type=float, default=60, help="seconds without an attack, before and after them all")
    parser.add_argument("--clear", type=float, default=150, help="seconds to wait for alerts to clear after an attack")
    parser.add_argument("--only", nargs="+", choices=ATTACKS, metavar="NAME", help=f"of {', '.join(ATTACKS)}")
    parser.add_argument("--tls", action="store_true", help="the gateway speaks TLS, with a certificate of its own")
    parser.add_argument("--keys", action="store_true", help="asking needs a key; the attackers have one too")
    parser.add_argument("--record", action="store_true")
    args = parser.parse_args(argv)
    if args.quick:
        args.seconds, args.quiet, args.clear = 15.0, 30.0, 5.0
    return args


def stop(*_: Any) -> None:
    raise KeyboardInterrupt


def main() -> None:
    args = parse(sys.argv[1:])
    without_names = own_network.enter("benchmarks.attack", sys.argv[1:])
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # a shell may have told us to ignore one
        signal.signal(number, stop)
    names = chosen(args.only, without_names)
    if without_names:
        print(f"no network of our own ({without_names}): attacks by address are left out", file=sys.stderr)
    with tempfile.TemporaryDirectory(prefix="petclf-attack-", ignore_cleanup_errors=True) as folder:
        try:
            lines = measure(args, names, Path(folder))
        except KeyboardInterrupt:
            sys.exit("error: stopped; what was started has ended")
    if args.record:
        options = [f"--seconds {args.seconds:g}", *(f"--{name}" for name in ("tls", "keys") if getattr(args, name))]
        theme = "_".join(["attacks", *(name for name in ("tls", "keys") if getattr(args, name))])
        write_record(theme, "Under attack", " ".join(["python -m benchmarks.attack", *options]), lines, NOTE)


NOTE = "good client: 4 photos a second; gateway, server and attackers on the same cores, attackers at nice 10"


if __name__ == "__main__":
    main()
