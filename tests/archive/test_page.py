"""The page that goes into an archive: one file, with what it says of the model, and example photos of its labels."""

import base64
import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from handler.model_file import read_model_file
from handler.page import load_page
from web.build import examples, page

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "web" / "examples"
METADATA: dict[str, Any] = {"labels": ["cat", "dog"]}


def facts(metadata: dict[str, Any]) -> dict[str, Any]:
    [content] = re.findall(r'<script id="facts" type="application/json">(.*?)</script>', page(metadata).decode(), re.DOTALL)
    found: dict[str, Any] = json.loads(content)
    return found


def test_the_page_needs_no_other_file_and_its_policy_allows_its_own_style_and_script(tmp_path: Path) -> None:
    (tmp_path / "page.html").write_bytes(page(METADATA))
    reply = load_page(tmp_path / "page.html", "petclf")
    assert reply is not None
    assert re.findall(rb'(?:src|href)="(?!data:)[^"]+"', reply.body) == []
    policy = reply.headers["content-security-policy"]
    assert [policy.count(f"{kind}-src 'sha256-") for kind in ("script", "style")] == [1, 1]
    assert "unsafe" not in policy


def test_the_page_says_what_was_measured_of_the_model() -> None:
    metadata = read_model_file(ROOT / "pretrained" / "petclf.pt").metadata
    said = facts(metadata)
    assert (said["labels"], said["version"]) == (["cat", "dog"], metadata["version"])
    assert said["commit"] == metadata["provenance"]["git_commit"][:12]
    assert said["measured"]["int8"]["accuracy"] == metadata["int8"]["metrics"]["test"]["accuracy"]
    assert said["measured"]["fp32"] == {
        "accuracy": metadata["metrics"]["test"]["accuracy"],
        "photos": metadata["metrics"]["test"]["photos"],
        "others_refused": metadata["metrics"]["unlike"]["others_refused"],
    }


def test_a_model_of_which_nothing_was_measured_has_a_page_too() -> None:
    said = facts({"labels": ["a", "b"]})
    assert (said["measured"], said["examples"], said["trained"]) == ({}, [], "")


def test_no_label_can_end_the_element_that_it_stands_in() -> None:
    labels = ["</script><script>alert(1)</script>", "<!--"]
    assert facts({"labels": labels})["labels"] == labels


@pytest.mark.parametrize(
    ("labels", "files"),
    [
        (["cat", "dog"], ["dog.jpg", "cat.jpg", "both.jpg", "coffee.jpg", "tabby.jpg", "shuttle.jpg"]),
        (["cat", "rabbit", "bird"], ["cat.jpg", "coffee.jpg", "tabby.jpg", "shuttle.jpg"]),
        (["ship", "train"], []),
    ],
)
def test_a_model_gets_the_examples_of_its_labels_and_with_them_those_of_other_things(labels: list[str], files: list[str]) -> None:
    assert [one["file"] for one in examples(labels)] == files


def test_every_example_is_small_carries_no_metadata_and_has_its_source_and_licence() -> None:
    sources = json.loads((EXAMPLES / "sources.json").read_text(encoding="utf-8"))
    assert {one["file"] for one in sources} == {path.name for path in EXAMPLES.glob("*.jpg")}
    assert {one["licence"] for one in sources} == {"CC0-1.0"}
    assert [one["file"] for one in sources if not all(one[key] for key in ("name", "author", "source", "stated_in"))] == []
    for path in EXAMPLES.glob("*.jpg"):
        with Image.open(path) as photo:
            assert (photo.format, dict(photo.getexif()), "icc_profile" in photo.info) == ("JPEG", {}, False)
        assert path.stat().st_size <= 20_000


def test_the_examples_in_the_page_are_the_files() -> None:
    for example in facts(METADATA)["examples"]:
        data = base64.b64decode(example["photo"].removeprefix("data:image/jpeg;base64,"))
        assert data == (EXAMPLES / example["file"]).read_bytes()
        with Image.open(io.BytesIO(data)) as photo:
            assert max(photo.size) == 400
