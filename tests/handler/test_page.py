"""The page runs its own script and nothing else."""

import base64
import hashlib
from pathlib import Path

from handler.page import load_page, policy


def test_the_policy_allows_the_pages_own_script_and_style_only() -> None:
    def source(text: str) -> str:
        return "'sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() + "'"

    assert policy("<style>a{}</style><script>one()</script><p><script>two()</script>") == (
        f"default-src 'none'; script-src {source('one()')} {source('two()')}; style-src {source('a{}')}; img-src 'self' blob: data:; "
        "media-src blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


def test_the_page_knows_its_model(tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text('<meta name="petclf-model" content="petclf">', encoding="utf-8")
    page = load_page(tmp_path / "page.html", "birds")
    assert page is not None
    assert page.body == b'<meta name="petclf-model" content="birds">'


def test_an_archive_without_a_page_has_none(tmp_path: Path) -> None:
    assert load_page(tmp_path / "page.html", "petclf") is None
