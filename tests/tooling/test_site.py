"""The site: every page is in it, no link is broken, nothing comes from another host."""

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tooling import site_hook

ROOT = Path(__file__).parents[2]
ENVIRONMENT = ROOT / "build" / "site-environment" / "bin"
MKDOCS = shutil.which("mkdocs", path=f"{ENVIRONMENT}{os.pathsep}{os.environ['PATH']}")
builds = pytest.mark.skipif(not MKDOCS, reason="no mkdocs; `make site` brings it into build/site-environment")
DEAD = "http://127.0.0.1:9"  # nothing listens there


def pages_of(nav: Any) -> list[str]:
    if isinstance(nav, str):
        return [nav]
    return [page for part in (nav.values() if isinstance(nav, dict) else nav) for page in pages_of(part)]


def build(project: Path, site: Path) -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ,
        "http_proxy": DEAD,
        "https_proxy": DEAD,
        "NO_MKDOCS_2_WARNING": "1",
        "SITE_SOURCE": "https://source.example/blob/1",
    }
    command = [str(MKDOCS), "build", "--site-dir", str(site)]
    return subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, check=False, timeout=120)


def test_every_page_of_docs_is_in_the_navigation_once() -> None:
    config = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    pages = pages_of(site_hook.on_config(config)["nav"])
    docs = [str(path.relative_to(ROOT / "docs")) for path in (ROOT / "docs").rglob("*.md")]
    assert sorted(pages) == sorted([*docs, *site_hook.PAGES.values()])
    assert pages[0] == "index.md"


@pytest.mark.parametrize(
    ("place", "source", "written", "shown"),
    [
        ("api.md", "docs/api.md", "[limits](gateway.md#limits), [here](#errors)", "[limits](gateway.md#limits), [here](#errors)"),
        ("api.md", "docs/api.md", "[`params.yaml`](../params.yaml)", "[`params.yaml`](https://source.example/params.yaml)"),
        ("api.md", "docs/api.md", "[web](https://example.org)", "[web](https://example.org)"),
        ("decisions/1.md", "docs/decisions/1.md", "[a](../api.md) [b](2.md)", "[a](../api.md) [b](2.md)"),
        ("decisions/1.md", "docs/decisions/1.md", "[changes](../../CHANGELOG.md)", "[changes](../changelog.md)"),
        ("changelog.md", "CHANGELOG.md", "[docs/bulk.md](docs/bulk.md#how)", "[docs/bulk.md](bulk.md#how)"),
        ("contributing.md", "CONTRIBUTING.md", "[why](docs/decisions)", "[why](https://source.example/docs/decisions)"),
    ],
)  # fmt: skip
def test_links_lead_within_the_site_or_to_the_source(
    monkeypatch: pytest.MonkeyPatch, place: str, source: str, written: str, shown: str
) -> None:
    monkeypatch.setenv("SITE_SOURCE", "https://source.example")
    assert site_hook.relinked(written, place, source) == shown


def test_without_an_address_of_the_source_a_links_text_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SITE_SOURCE", raising=False)
    text = "see [`params.yaml`](../params.yaml) and ![the curve](../benchmarks/curve.png)"
    assert site_hook.relinked(text, "api.md", "docs/api.md") == "see `params.yaml` and the curve (`benchmarks/curve.png`)"


def test_lists_are_written_as_the_sites_markdown_needs_them_and_code_stays() -> None:
    written = "Do this:\n1. first\n   - within\n2. second\n\n```\ntext\n- no list [a](../b)\n```\n- after code"
    assert site_hook.outside_code(written, "api.md", "docs/api.md") == [
        "Do this:", "", "1. first", "    - within", "2. second", "", "```", "text", "- no list [a](../b)", "```", "", "- after code",
    ]  # fmt: skip


@builds
def test_the_site_is_built_without_a_network_and_fetches_nothing_from_other_hosts(tmp_path: Path) -> None:
    result = build(ROOT, tmp_path)
    assert result.returncode == 0, result.stderr
    pages = [path.read_text(encoding="utf-8") for path in tmp_path.rglob("*.html")]
    fetched = r"<(?:script|img|iframe|source)[^>]* src=\"?(?:https?:)?//|<link[^>]* href=\"?(?:https?:)?//"
    assert len(pages) > 30
    assert [found for page in pages for found in re.findall(fetched, page)] == []
    assert "url(http" not in "".join(path.read_text(encoding="utf-8") for path in tmp_path.rglob("*.css"))


@builds
@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[gone](nowhere.md)", "contains a link 'nowhere.md', but the target is not found"),
        ("[gone](gateway.md#nowhere)", "does not contain an anchor '#nowhere'"),
    ],
)
def test_a_link_that_leads_nowhere_ends_the_build(tmp_path: Path, text: str, told: str) -> None:
    project = tmp_path / "project"
    for name in ("docs", "tooling"):
        shutil.copytree(ROOT / name, project / name)
    for name in ("mkdocs.yml", *site_hook.PAGES):
        shutil.copy(ROOT / name, project / name)
    with (project / "docs" / "api.md").open("a", encoding="utf-8") as page:
        page.write(f"\n{text}\n")
    result = build(project, tmp_path / "site")
    assert result.returncode == 1
    assert told in result.stderr
