"""The training loop: it learns, it can be killed, it refuses what it should."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml

from tests.conftest import draw_folder
from tests.training.conftest import child_environment, run_module, write_params
from training.config import load_params
from training.dataset import load_others
from training.errors import UserError
from training.files import replace_atomically
from training.manifest import Manifest
from training.network import build_network, load_weights
from training.train import some_of_each, train


def prepare(folder: Path, labels: tuple[str, ...] = ("cat", "dog"), count: int = 140, **train: object) -> Path:
    """Put drawn photos, params and a manifest into `folder`."""
    draw_folder(folder / "photos", labels, count)
    write_params(folder, **train)
    result = run_module("training.manifest", cwd=folder)
    assert result.returncode == 0, result.stderr
    return folder


def final_accuracy(output: str) -> float:
    found = re.findall(r"validation accuracy ([\d.]+)%", output)
    assert found, output
    return float(found[-1])


def figures(folder: Path) -> list[tuple[float, ...]]:
    """Return what must not depend on interruptions: every epoch's losses and accuracies."""
    history = load_weights(folder / "build" / "weights.pt")[1]["history"]
    return [(epoch["train_loss"], epoch["train_accuracy"], epoch["val_loss"], epoch["val_accuracy"]) for epoch in history]


def test_it_learns_two_labels(tmp_path: Path) -> None:
    prepare(tmp_path, count=220, epochs=16, sizes=[48, 64])

    result = run_module("training.train", cwd=tmp_path)

    assert result.returncode == 0, result.stderr
    assert final_accuracy(result.stdout) >= 95
    network, saved = load_weights(tmp_path / "build" / "weights.pt")
    assert saved["labels"] == ["cat", "dog"]
    pretrained = build_network("efficientnet_lite0", 2, pretrained=True).body.state_dict()
    learned = {name for name, value in network.body.state_dict().items() if not torch.equal(value, pretrained[name])}
    assert learned == {name for name, _ in network.body.named_parameters() if int(name.split(".")[0]) >= 9}  # and no statistics


def test_of_few_photos_only_the_last_layer_learns(tmp_path: Path) -> None:
    prepare(tmp_path, count=60, epochs=None)

    result = run_module("training.train", cwd=tmp_path)

    assert result.returncode == 0, result.stderr
    network, saved = load_weights(tmp_path / "build" / "weights.pt")
    pretrained = build_network("efficientnet_lite0", 2, pretrained=True).body.state_dict()
    assert all(torch.equal(pretrained[name], value) for name, value in network.body.state_dict().items())
    (epoch,) = saved["history"]
    assert epoch["train_accuracy"] == 1.0
    assert final_accuracy(result.stdout) >= 90


def test_it_learns_three_labels_of_any_script(tmp_path: Path) -> None:
    prepare(tmp_path, ("cat", "dog", "兎 と亀"), count=120, epochs=14)

    result = run_module("training.train", cwd=tmp_path)

    assert result.returncode == 0, result.stderr
    assert final_accuracy(result.stdout) >= 95
    assert load_weights(tmp_path / "build" / "weights.pt")[1]["labels"] == ["cat", "dog", "兎 と亀"]


def test_photos_of_other_things_teach_it_to_be_unsure(trained: Path, tmp_path: Path) -> None:
    folder = tmp_path / "unsure"
    folder.mkdir()
    for name in ("photos", "data"):
        shutil.copytree(trained / name, folder / name)
    draw_folder(folder / "others", ("cross",), 60)
    write_params(folder, outliers="others", outlier_share=0.3)

    result = run_module("training.train", cwd=folder)

    assert result.returncode == 0, result.stderr
    assert final_accuracy(result.stdout) >= 90
    unseen = load_others(folder / "others", 64, "measure")
    confidence = {}
    for name in (trained, folder):
        network, _ = load_weights(name / "build" / "weights.pt")
        with torch.inference_mode():
            confidence[name] = torch.softmax(network(unseen), 1).amax(1).mean().item()
    assert confidence[folder] < confidence[trained]


def test_killed_at_any_moment_it_continues_to_the_same_figures(tmp_path: Path) -> None:
    whole, cut = prepare(tmp_path / "whole", count=40, epochs=5), tmp_path / "cut"
    shutil.copytree(whole, cut)
    assert run_module("training.train", cwd=whole).returncode == 0

    for epochs_before in (1, 3):
        with subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "training.train"],
            cwd=cut, env=child_environment(), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, start_new_session=True,
        ) as process:  # fmt: skip
            assert process.stdout
            for line in process.stdout:
                if line.startswith(f"epoch {epochs_before} "):
                    time.sleep(0.2)  # into the next epoch
                    break
            os.killpg(process.pid, signal.SIGKILL)
    result = run_module("training.train", cwd=cut)

    assert "continuing after epoch" in result.stdout
    assert figures(cut) == figures(whole)
    assert not list((cut / "build").glob(".*.tmp")) or result.returncode == 0


def test_weights_tell_the_code_that_trained_them(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not the code that found them finished."""
    folder = tmp_path / "later"
    shutil.copytree(trained, folder)
    monkeypatch.chdir(folder)
    monkeypatch.setattr("training.train.git_commit", lambda: "later")

    train(load_params(Path("params.yaml")).train, Manifest.read(Path("data/manifest.csv")))

    assert (
        load_weights(Path("build/weights.pt"))[1]["git_commit"] == load_weights(trained / "build" / "weights.pt")[1]["git_commit"]
    )


def test_a_finished_training_is_not_repeated(trained: Path) -> None:
    before = figures(trained)

    result = run_module("training.train", cwd=trained)

    assert result.returncode == 0, result.stderr
    assert figures(trained) == before


def test_a_checkpoint_of_another_configuration_is_refused_and_kept(trained: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(trained, folder)
    params = yaml.safe_load((folder / "params.yaml").read_text())
    params["train"]["learning_rate"] = 0.5
    (folder / "params.yaml").write_text(yaml.safe_dump(params))
    before = (folder / "build" / "checkpoint.pt").read_bytes()

    result = run_module("training.train", cwd=folder)

    assert (result.returncode, result.stdout) == (2, "")
    assert "belongs to another configuration (learning_rate 0.0005 -> 0.5)" in result.stderr
    assert (folder / "build" / "checkpoint.pt").read_bytes() == before


@pytest.mark.parametrize("content", [b"", b"garbage", b"PK\x03\x04 half a file"])
def test_a_corrupt_checkpoint_is_told_and_kept(trained: Path, tmp_path: Path, content: bytes) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(trained, folder)
    checkpoint = folder / "build" / "checkpoint.pt"
    checkpoint.write_bytes(content)

    result = run_module("training.train", cwd=folder)

    assert result.returncode == 2
    assert result.stderr.startswith("error: build/checkpoint.pt is damaged")
    assert "make train FRESH=1" in result.stderr
    assert checkpoint.read_bytes() == content


def test_two_processes_reach_the_accuracy_of_one(trained: Path, tmp_path: Path) -> None:
    folder = tmp_path / "two"
    folder.mkdir()
    for name in ("photos", "data"):
        shutil.copytree(trained / name, folder / name)
    write_params(folder, epochs=14)
    command = [sys.executable, "-W", "ignore", "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    result = subprocess.run(
        [*command, "-m", "training.train"], cwd=folder, env=child_environment(CUDA_VISIBLE_DEVICES=""), capture_output=True, text=True,
        check=False,
    )  # fmt: skip

    assert result.returncode == 0, result.stderr
    assert final_accuracy(result.stdout) >= 90  # of 38 photos: one is 2.6 points


def test_processes_stop_by_the_clock_of_the_first(tmp_path: Path) -> None:
    """Each by its own, one would wait for the others' gradients when they have stopped."""
    script = tmp_path / "clocks.py"
    script.write_text(
        "from training.train import Rank\nrank = Rank()\nprint(f'{rank.of_first(rank.index + 0.5)}\\n', end='')\nrank.close()"
    )
    command = [sys.executable, "-W", "ignore", "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    result = subprocess.run(
        [*command, str(script)], cwd=tmp_path, env=child_environment(CUDA_VISIBLE_DEVICES=""), capture_output=True, text=True,
        check=False,
    )  # fmt: skip

    assert result.stdout.split() == ["0.5", "0.5"], result.stderr


def test_the_head_sees_photos_of_every_label() -> None:
    labels = torch.tensor([0] * 900 + [1] * 90 + [2] * 3)

    chosen = some_of_each(labels, 300, torch.Generator().manual_seed(1))

    assert labels[chosen].bincount().tolist() == [100, 90, 3]
    assert len(chosen.unique()) == len(chosen)


def test_a_time_budget_is_kept(trained: Path, tmp_path: Path) -> None:
    folder = tmp_path / "timed"
    folder.mkdir()
    for name in ("photos", "data"):
        shutil.copytree(trained / name, folder / name)
    write_params(folder, minutes=0.08)

    result = run_module("training.train", cwd=folder)

    assert result.returncode == 0, result.stderr
    _, saved = load_weights(folder / "build" / "weights.pt")
    assert saved["history"][-1]["learning_rate"] == pytest.approx(0, abs=1e-9)
    assert {epoch["size"] for epoch in saved["history"]} <= {32, 48}


def test_224_pixels_work_end_to_end(tmp_path: Path) -> None:
    prepare(tmp_path, count=30, image_size=224, sizes=[96, 224], epochs=2)

    for name in ("train", "fit", "evaluate", "export"):
        result = run_module(f"training.{name}", cwd=tmp_path)
        assert result.returncode == 0, result.stderr

    model = torch.jit.load(str(tmp_path / "build" / "petclf.pt"))
    probabilities, unlike = model(torch.zeros(2, 3, 224, 224, dtype=torch.uint8))
    assert probabilities.shape == (2, 2)
    assert unlike.shape == (2,)


def test_a_torchvision_backbone_trains_too(tmp_path: Path) -> None:
    prepare(tmp_path, count=30, network="mobilenet_v3_small", pretrained=False, remember=0.0, frozen=0, epochs=1)

    for name in ("train", "fit", "evaluate", "export"):
        result = run_module(f"training.{name}", cwd=tmp_path)
        assert result.returncode == 0, result.stderr


def test_mistakes_get_one_sentence_and_exit_code_2(trained: Path, tmp_path: Path) -> None:
    without_manifest = run_module("training.train", "--manifest", "nowhere.csv", cwd=trained)
    unknown_network = tmp_path / "unknown"
    unknown_network.mkdir()
    write_params(unknown_network, network="resnet1000", pretrained=False, remember=0.0, frozen=0)
    shutil.copytree(trained / "data", unknown_network / "data")
    unknown = run_module("training.train", cwd=unknown_network)

    assert (without_manifest.returncode, unknown.returncode) == (2, 2)
    assert without_manifest.stderr == "error: no manifest at nowhere.csv; make one with `make data PHOTOS=folder-or-zip`\n"
    assert unknown.stderr.startswith(
        "error: train.network is 'resnet1000'; it must be petnet, efficientnet_lite0 or one of torchvision's: "
    )


def test_a_label_missing_in_a_split_is_told(trained: Path, tmp_path: Path) -> None:
    lines = (trained / "data" / "manifest.csv").read_text().splitlines()
    kept = [line for line in lines if ",cat,val," not in line]
    (tmp_path / "manifest.csv").write_text("\n".join(kept) + "\n")

    result = run_module(
        "training.train", "--manifest", tmp_path / "manifest.csv", "--output", tmp_path / "weights.pt", cwd=trained
    )

    assert (result.returncode, (tmp_path / "weights.pt").exists()) == (2, False)
    assert "split 'val' has no photo of cat" in result.stderr


def test_a_full_disk_is_told_and_leaves_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "weights.pt"
    target.write_text("the old one")

    def write(path: Path) -> None:
        path.write_text("half of the n")
        raise OSError(28, "No space left on device")

    with pytest.raises(UserError, match=r"cannot write .*weights.pt: no space left on the disk"):
        replace_atomically(target, write)
    assert [path.name for path in tmp_path.iterdir()] == ["weights.pt"]
    assert target.read_text() == "the old one"
