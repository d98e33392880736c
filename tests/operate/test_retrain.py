"""Retraining: every step once and in order, whatever happens in between."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import yaml

from handler.archive_digest import sha256
from operate.client import UsageError
from operate.retrain import Retraining, next_version
from scripts import retrain
from scripts.build_archive import build_archive
from tests.archives import MODEL

STEPS = ["servers", "prepare", "train", "fit", "evaluate", "export", "archive", "register", "hold out", "verify", "promote"]
ROOT = Path(__file__).parents[2]


class Runner:
    """Notes which commands are run; at the one that `fails` names it ends as told."""

    def __init__(self, fails: str = "", code: int = 0) -> None:
        self.fails, self.code, self.ran = fails, code, list[tuple[str, ...]]()

    def __call__(self, command: Sequence[str]) -> int:
        self.ran.append(tuple(command))
        return self.code if self.fails and self.fails in command else 0

    @property
    def names(self) -> list[str]:
        """What ran: the module, and of scripts.models the sub-command."""
        return [command[1] if command[0] == "scripts.models" else command[0].rpartition(".")[2] for command in self.ran]


ALL = ["list", "manifest", "train", "fit", "evaluate", "export", "build_archive", "register", "held_out", "verify", "promote"]


@pytest.fixture
def store(tmp_path: Path) -> Path:
    folder = tmp_path / "store"
    folder.mkdir()
    build_archive(MODEL, folder / "petclf-2.0.0.mar")
    return folder


@pytest.fixture
def called(tmp_path: Path, store: Path, monkeypatch: pytest.MonkeyPatch):
    """Call the command with a runner in place of real steps; returns its exit code."""
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    params["train"]["tracking"] = False
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))

    def call(runner: Runner, *options: str) -> int:
        monkeypatch.setattr(retrain, "Retraining", lambda work, servers: Retraining(work, servers, runner))
        where = ["--params", str(tmp_path / "params.yaml"), "--work", str(tmp_path / "work"), "--store", str(store)]
        with pytest.raises(SystemExit) as ended:
            retrain.main([*options, *where])
        return int(ended.value.code or 0)

    return call


def test_all_steps_run_in_order_from_the_live_model_to_a_promoted_one(called, tmp_path: Path, capsys) -> None:
    runner = Runner()

    assert called(runner, "photos", "new.csv") == 0

    assert runner.names == ALL
    assert runner.ran[1][:3] == ("training.manifest", "photos", "new.csv")
    params = yaml.safe_load((tmp_path / "work" / "params.yaml").read_text())
    assert params["train"]["start_from"] == str(tmp_path / "work" / "live.pt")
    assert sha256(tmp_path / "work" / "live.pt") == sha256(MODEL)
    assert params["export"] == {"name": "petclf", "version": "2.1.0"}
    assert (
        capsys.readouterr().out.splitlines()[-1] == "petclf 2.1.0 is live; 2.0.0 stays loaded for a rollback until it is retired"
    )


@pytest.mark.parametrize("step", range(len(ALL)))
def test_a_step_that_failed_is_where_the_same_command_goes_on(called, step: int) -> None:
    first, again = Runner(fails=failing(step), code=2), Runner()

    assert called(first, "photos") == 2
    assert called(again, "photos") == 0

    assert first.names == ALL[: step + 1]
    assert again.names == ALL[step:]


def failing(step: int) -> str:
    name = ALL[step]
    return (
        f"training.{name}"
        if name in ("manifest", "train", "fit", "evaluate", "export", "held_out")
        else name
        if step != 6
        else "scripts.build_archive"
    )


@pytest.mark.parametrize("step", ["verify", "promote"])
def test_a_candidate_that_is_not_good_enough_leaves_the_servers(called, step: str, capsys, tmp_path: Path) -> None:
    runner = Runner(fails=step, code=1)

    assert called(runner, "photos") == 1

    assert runner.names == [*ALL[: ALL.index(step) + 1], "retire"]
    assert capsys.readouterr().err == (
        f"refused: 2.1.0 did not pass `{step}`, 2.0.0 stays live; reports and model are in {tmp_path / 'work'}\n"
    )


def test_after_a_refusal_the_same_command_begins_anew(called) -> None:
    called(Runner(fails="verify", code=1), "photos")
    again = Runner()

    assert called(again, "photos") == 0

    assert again.names == ALL


def test_other_options_do_not_go_on_with_what_was_begun(called, capsys, tmp_path: Path) -> None:
    called(Runner(fails="training.train", code=2), "photos")
    capsys.readouterr()

    assert called(other := Runner(), "photos", "more") == 2
    assert other.ran == []
    assert capsys.readouterr().err == (
        f"error: the retraining in {tmp_path / 'work'} to 2.1.0 was asked for with other options and is not finished; give the "
        "same command again, or begin anew with --fresh\n"
    )
    assert called(anew := Runner(), "photos", "more", "--fresh") == 0
    assert anew.names == ALL


def test_a_fresh_beginning_that_was_killed_is_no_retraining_to_go_on_with(
    called, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    called(Runner(fails="training.fit", code=2), "photos")
    with monkeypatch.context() as patch:
        patch.setattr("operate.retrain.shutil.rmtree", killed)
        patch.setattr(Path, "unlink", unlinked_or_killed(Path.unlink))
        with pytest.raises(Killed):
            retrain.main(
                [
                    "photos",
                    "--fresh",
                    "--params",
                    str(tmp_path / "params.yaml"),
                    "--work",
                    str(tmp_path / "work"),
                    "--store",
                    str(tmp_path / "store"),
                ]
            )

    assert called(again := Runner(), "photos") == 0

    assert again.names == ALL


class Killed(BaseException):
    """Stands for SIGKILL: nothing catches it."""


def killed(*_: object, **__: object) -> None:
    raise Killed


def unlinked_or_killed(unlink: Callable[..., None]) -> Callable[..., None]:
    """Let retrain.json go, and be killed at the next file."""

    def one(path: Path, missing_ok: bool = False) -> None:
        if path.name in ("live.pt", "params.yaml"):
            raise Killed
        unlink(path, missing_ok)

    return one


def test_a_dry_run_tells_every_step_and_does_nothing(called, capsys, tmp_path: Path) -> None:
    runner = Runner()

    assert called(runner, "photos", "--dry-run") == 0

    first, *lines = capsys.readouterr().out.splitlines()
    assert first == f"petclf 2.0.0 is live; 2.1.0 would be trained from it, in {tmp_path / 'work'}"
    assert [line[8:].partition("python -m ")[0].strip() for line in lines] == STEPS
    assert (runner.ran, (tmp_path / "work").exists()) == ([], False)


def test_a_dry_run_tells_what_is_done_already(called, capsys) -> None:
    called(Runner(fails="training.train", code=2), "photos")
    capsys.readouterr()

    called(Runner(), "photos", "--dry-run")

    done = [line.split()[1] for line in capsys.readouterr().out.splitlines() if line.startswith("  done")]
    assert done == ["servers", "prepare"]


def test_tracked_trainings_come_from_the_registry(called, tmp_path: Path) -> None:
    params = yaml.safe_load((tmp_path / "params.yaml").read_text())
    params["train"]["tracking"] = True
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))

    called(runner := Runner())

    assert [command[0] for command in runner.ran if "training.register" in command] == ["training.register"]
    assert [command[:3] for command in runner.ran if command[1] == "register"] == [
        ("scripts.models", "register", "models:/petclf@candidate")
    ]


def test_late_labels_are_reported_first(called, tmp_path: Path) -> None:
    called(runner := Runner(), "--late-labels", "a.csv", "--late-labels", "b.csv", "--log", "predictions.jsonl")

    assert runner.ran[1] == (
        "scripts.late_labels", "predictions.jsonl", "--labels", "a.csv", "--labels", "b.csv", "--report", str(tmp_path / "work" / "late"),
    )  # fmt: skip


def test_a_version_that_is_there_already_is_refused(called, capsys) -> None:
    assert called(Runner(), "--version", "2.0.0") == 2
    assert capsys.readouterr().err == "error: petclf 2.0.0 is there already; give the new one another version\n"


@pytest.mark.parametrize(
    ("live", "taken", "wanted"),
    [("2.0.0", ["2.0.0"], "2.1.0"), ("2.1.3", ["2.2.0", "2.3.0"], "2.4.0"), ("1.0.0-rc1", [], "1.1.0")],
)
def test_the_next_version_is_one_that_nobody_has_used(live: str, taken: list[str], wanted: str) -> None:
    assert next_version(live, taken) == wanted


def test_a_step_that_outlives_its_killed_command_keeps_others_out(tmp_path: Path) -> None:
    program = (
        "from pathlib import Path; from operate.retrain import Retraining, run\n"
        f"with Retraining(Path({str(tmp_path)!r}), ()).locked(): run(['tests.operate.outliving', {str(tmp_path / 'pid')!r}])"
    )
    parent = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT)
    while not (tmp_path / "pid").exists():
        assert parent.poll() is None
        time.sleep(0.05)
    parent.kill()
    parent.wait()
    child = int((tmp_path / "pid").read_text())

    with (
        pytest.raises(UsageError, match=r"^a retraining is running in .*; try again when it has ended$"),
        Retraining(tmp_path, ()).locked(),
    ):
        pass

    os.kill(child, signal.SIGTERM)
    for _ in range(100):
        try:
            with Retraining(tmp_path, ()).locked():
                return
        except UsageError:
            time.sleep(0.1)
    raise AssertionError("the lock is still held")
