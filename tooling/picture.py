"""Take docs/page.png, the picture of the page: `make picture`, while `make demo` or `make serve` runs elsewhere."""

import argparse
import hashlib
import io
import shutil
import sys
from pathlib import Path
from typing import Any

from PIL import Image
from PIL.PngImagePlugin import PngInfo

ROOT = Path(__file__).parents[1]
PICTURE = ROOT / "docs" / "page.png"
WIDTH, HEIGHT = 1100, 800
SHOWN = (".html", ".css", ".js", ".json", ".jpg")


def digest() -> str:
    """Return what the page's files are now; the picture carries what they were."""
    files = [path for path in sorted((ROOT / "web").rglob("*")) if path.suffix in SHOWN]
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()


def taken(browser: Any, url: str) -> Image.Image:
    """Ask about three examples, show where the model looked in one, and return the screen."""
    page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT}, color_scheme="light")
    page.goto(url)
    examples = page.query_selector_all("#thumbs button")
    for number in (1, 0, -1):
        examples[number].click()
        page.wait_for_timeout(1500)
    page.get_by_role("button", name="Where it looked").nth(1).click()
    page.wait_for_timeout(1500)
    return Image.open(io.BytesIO(page.screenshot(full_page=True)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", default="http://127.0.0.1:8080/predictions/petclf", help="the page of a running server")
    args = parser.parse_args()
    try:
        from playwright.sync_api import Error, sync_playwright  # noqa: PLC0415  (only this needs it)
    except ImportError:
        sys.exit("error: playwright is not installed; `make setup` installs it")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if not chromium:
        sys.exit("error: no Chromium here; Debian: apt-get install chromium")
    try:
        with sync_playwright() as started:
            picture = taken(started.chromium.launch(executable_path=chromium, args=["--no-sandbox"]), args.url)
    except Error as error:
        sys.exit(f"error: {args.url} cannot be shown: {str(error).splitlines()[0]}; start the server with `make serve`")
    facts = PngInfo()
    facts.add_text("page", digest())
    picture.convert("P", palette=Image.Palette.ADAPTIVE, colors=255).save(PICTURE, optimize=True, pnginfo=facts)
    print(f"{PICTURE.relative_to(ROOT)}: {picture.width} x {picture.height}, {PICTURE.stat().st_size // 1024} KB")


if __name__ == "__main__":
    main()
