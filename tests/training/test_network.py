"""The network and the views it is trained on."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from torch.nn import functional

from training.augment import as_jpeg, augment, blur, corrupt, mix
from training.config import load_params
from training.errors import UserError
from training.network import build_network, continue_from, count_parameters
from training.optimizer import orthogonal
from training.released import DistanceUnlike, Released
from training.torchvision_ops import declare_missing

CONFIG = load_params(Path(__file__).parents[2] / "params.yaml").train


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def photos(count: int = 6, size: int = 80) -> torch.Tensor:
    return torch.randint(0, 256, (count, 3, size, size), generator=generator(), dtype=torch.uint8)


def test_it_has_at_most_two_million_parameters() -> None:
    assert count_parameters(build_network("petnet", 2)) == 1_942_474


@pytest.mark.parametrize("size", [64, 97, 160, 224])
def test_any_size_and_number_of_photos_works(size: int) -> None:
    network = build_network("petnet", 3).eval()

    assert network(photos(2, size)).shape == (2, 3)
    assert network(photos(1, size)).shape == (1, 3)


def test_a_photos_answer_does_not_depend_on_its_neighbours() -> None:
    network = build_network("petnet", 2).eval()
    batch = photos(6, 96)
    with torch.inference_mode():
        alone = torch.cat([network(photo[None]) for photo in batch])

        assert torch.allclose(network(batch), alone, atol=1e-4)


def test_views_keep_the_range_and_have_the_size_asked_for() -> None:
    views = augment(photos(), 64, CONFIG, generator())

    assert views.shape == (6, 3, 64, 64)
    assert 0 <= views.min() < views.max() <= 255


def test_the_same_seed_gives_the_same_views_and_another_seed_others() -> None:
    first, again, other = (augment(photos(), 64, CONFIG, generator(seed)) for seed in (1, 1, 2))

    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_without_augmentation_a_view_is_the_photo_or_its_mirror_image() -> None:
    still = dataclasses.replace(CONFIG, zoom=[1.0, 1.0], aspect=1.0, rotation=0, colour=0.0, corruption=0.0)
    photo = photos(8, 64).float()

    views = augment(photos(8, 64), 64, still, generator())

    same = [torch.allclose(view, one, atol=1e-2) for view, one in zip(views, photo, strict=True)]
    mirrored = [torch.allclose(view, one.flip(2), atol=1e-2) for view, one in zip(views, photo, strict=True)]
    assert [one != other for one, other in zip(same, mirrored, strict=True)] == [True] * 8
    assert 0 < sum(same) < 8


def test_as_many_views_are_corrupted_as_asked_for_and_the_others_stay() -> None:
    views = photos(300, 32).float()

    changed = (corrupt(views.clone(), 0.1, generator()) != views).flatten(1).any(1)

    assert 0.3 < changed.float().mean() < 0.5  # each of the five kinds spares nine of ten: 0.9 ** 5 stay as they are


def test_corrupted_views_are_still_photos() -> None:
    views = corrupt(photos(40, 32).float(), 1.0, generator())

    assert 0 <= views.min() < views.max() <= 255


def test_a_worse_jpeg_or_a_stronger_blur_loses_more_of_a_view() -> None:
    view = functional.interpolate(photos(1, 8).float(), (64, 64), mode="bilinear")[0]

    def loss(changed: torch.Tensor) -> float:
        return float((changed - view).abs().mean())

    assert 0 < loss(as_jpeg(view, 90)) < loss(as_jpeg(view, 30)) < loss(as_jpeg(view, 8)) < 25
    assert 0 < loss(blur(view[None], 0.5)[0]) < loss(blur(view[None], 0.2)[0]) < 60


def test_mixing_blends_photos_and_targets_alike() -> None:
    views, targets = torch.stack([torch.zeros(3, 4, 4), torch.ones(3, 4, 4)]), torch.eye(2)

    mixed, mixed_targets = mix(views, targets, generator())

    assert torch.allclose(mixed.mean((1, 2, 3)), mixed_targets[:, 1])
    assert torch.allclose(mixed_targets.sum(1), torch.ones(2))


@pytest.mark.parametrize("shape", [(16, 64), (64, 16), (32, 32)])
def test_orthogonalised_matrices_stretch_no_direction_much(shape: tuple[int, int]) -> None:
    singular = torch.linalg.svdvals(orthogonal(torch.randn(shape, generator=generator())))

    assert 0.6 < singular.min() < singular.max() < 1.3


def test_torchvision_needs_no_more_declarations_once_it_loads() -> None:
    declare_missing()
    import torchvision

    assert declare_missing() == []
    assert torchvision.__version__.startswith("0.28")


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A petclf.pt of petnet for cats and dogs, as far as `start_from` looks."""
    path = tmp_path_factory.mktemp("released") / "petclf.pt"
    torch.manual_seed(3)
    module = Released(
        build_network("petnet", 2), 1.0, DistanceUnlike(means=torch.zeros(2, 4), scale=torch.ones(4), typical=torch.tensor(1.0))
    )
    extra = {"metadata.json": json.dumps({"labels": ["cat", "dog"]}), "golden.png": b""}
    torch.jit.save(torch.jit.script(module), str(path), _extra_files=extra)
    return path


def test_a_training_continues_from_a_released_model(released: Path) -> None:
    theirs = torch.jit.load(str(released)).network
    network = build_network("petnet", 2)

    assert continue_from(released, network, ["cat", "dog"]) is True

    ours = network.state_dict()
    assert all(torch.equal(ours[name], value) for name, value in theirs.state_dict().items())


def test_for_other_labels_only_what_sees_is_taken(released: Path) -> None:
    theirs = torch.jit.load(str(released)).network.state_dict()
    network = build_network("petnet", 3)

    assert continue_from(released, network, ["bird", "cat", "dog"]) is False

    assert all(torch.equal(value, theirs[name]) for name, value in network.state_dict().items() if name.startswith("body."))
    assert network.classifier.out_features == 3


def test_another_network_or_no_model_is_told(released: Path, tmp_path: Path) -> None:
    (tmp_path / "petclf.pt").write_bytes(b"no model")
    advice = r"give train\.start_from a petclf\.pt, or null"
    for path, network, told in (
        (released, "efficientnet_lite0", r"holds another network than train\.network"),
        (tmp_path / "petclf.pt", "petnet", r"is no model of petclf \(is no TorchScript model\)"),
        (tmp_path / "absent.pt", "petnet", r"no file at .*absent\.pt"),
    ):
        with pytest.raises(UserError, match=f"{told}.*; {advice}"):
            continue_from(path, build_network(network, 2), ["cat", "dog"])
