"""params.yaml is read strictly: every mistake has its sentence."""

from pathlib import Path

import pytest
import yaml

from training.config import load_params
from training.errors import UserError

ROOT = Path(__file__).parents[2]


def test_the_projects_own_params_are_valid() -> None:
    assert load_params(ROOT / "params.yaml").train.network == "efficientnet_lite0"


@pytest.mark.parametrize(
    ("section", "key", "value", "message"),
    [
        ("train", "epoch", 3, "train has an unknown key: epoch"),
        ("train", "epochs", None, "train lacks epochs"),
        ("train", "epochs", "many", "train.epochs is 'many'; it must be int"),
        ("train", "epochs", True, "train.epochs is True; it must be int"),
        ("train", "sizes", "96", "train.sizes is '96'; it must be list"),
        ("train", "image_size", 32, "train.image_size is 32; it must be 64 to 512"),
        ("train", "size_shares", [0.7], "train.size_shares must add up to 1"),
        ("train", "learning_rate", -1, "learning rates must be more than 0"),
        ("train", "mixup", 1.5, "train.mixup must be from 0 to 1"),
        ("train", "epochs", -1, "train.epochs must be 0 or more, or null"),
        ("train", "frozen", -1, "train.frozen must be 0 or more"),
        ("train", "pretrained", False, "train.frozen keeps layers as they are; set it to 0 where they start at random"),
        ("train", "remember", -0.1, "train.remember must be 0 or more"),
        ("train", "network", "petnet", "train.remember is for efficientnet_lite0 with train.pretrained: true"),
        ("train", "optimizer", "sgd", "train.optimizer must be muon or adamw"),
        ("data", "doubtful_up_to", -1, "data.doubtful_up_to must be at least 0"),
        ("evaluate", "refuse", 0.9, "evaluate.refuse must be from 0 to 0.5"),
        ("evaluate", "wrong_when_sure", 0.0, "evaluate.wrong_when_sure must be from 0 to 0.5"),
        ("evaluate", "int8_loss", 1.0, "evaluate.int8_loss must be from 0 to below 1"),
        ("evaluate", "promise_confidence", 1.0, "evaluate.promise_confidence must be from 0.5 to below 1"),
    ],
)
def test_a_mistake_is_named(tmp_path: Path, section: str, key: str, value: object, message: str) -> None:
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    params[section][key] = value
    if value is None:
        del params[section][key]
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(params))

    with pytest.raises(UserError, match=message.replace("[", r"\[")):
        load_params(path)


def test_a_network_from_scratch_needs_epochs(tmp_path: Path) -> None:
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    params["train"] |= {"network": "petnet", "pretrained": False, "remember": 0.0, "frozen": 0, "epochs": 0}
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(params))

    with pytest.raises(UserError, match=r"train\.epochs: 0 fits the last layer only, which needs train\.pretrained or"):
        load_params(path)


@pytest.mark.parametrize(("text", "message"), [("a: [", "not valid YAML"), ("- 1", "must hold the sections"), ("", "must hold")])
def test_a_file_that_is_no_params_file_is_told(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(text)

    with pytest.raises(UserError, match=message):
        load_params(path)


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no settings at"):
        load_params(tmp_path / "params.yaml")
