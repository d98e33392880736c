"""The page, in a real browser, on the real server."""

import json
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.drawing import draw_photo, encoded
from tests.e2e.conftest import Serving

pytestmark = pytest.mark.e2e

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed; `make setup` installs it")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
if CHROMIUM is None:
    pytest.skip("no Chromium here; Debian: apt-get install chromium", allow_module_level=True)

ANSWER = {
    "label": "cat", "confidence": 0.97, "probabilities": {"cat": 0.97, "dog": 0.03}, "unsure": False, "unsure_because": None,
    "model": {"name": "petclf", "version": "1.0.0"}, "request_id": "x", "milliseconds": {"decode": 1.0, "model": 3.0},
}  # fmt: skip


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as started:
        chromium = started.chromium.launch(
            executable_path=CHROMIUM,
            args=["--no-sandbox", "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"],
        )
        yield chromium
        chromium.close()


@pytest.fixture
def page(browser: Any, server: Serving) -> Iterator[Any]:
    """The page, opened; whatever its console complains about, the policy's violations too, fails the test."""
    context = browser.new_context(viewport={"width": 1100, "height": 800}, permissions=["camera"])
    opened = context.new_page()
    complaints: list[str] = []
    opened.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    opened.on("pageerror", lambda error: complaints.append(str(error)))
    opened.goto(f"{server.url}/predictions/petclf")
    opened.complaints = complaints
    yield opened
    context.close()
    assert [text for text in complaints if "status of" not in text and "net::ERR" not in text] == []  # those are the tests' doing


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("photos")
    for index, label in enumerate(("cat", "dog", "cross")):
        (folder / f"{label}.jpg").write_bytes(encoded(draw_photo(label, index, (400, 300))))
    return [folder / "cat.jpg", folder / "dog.jpg", folder / "cross.jpg"]


def until(page: Any, expression: str) -> None:
    """Wait for it; playwright's own way needs eval, which the page's policy forbids."""
    end = time.monotonic() + 30
    while not page.evaluate(expression):
        assert time.monotonic() < end, expression
        page.wait_for_timeout(50)


def choose(page: Any, *files: Path) -> None:
    page.set_input_files("#files", [str(file) for file in files])


def reply(page: Any, status: int, body: object = None, headers: dict[str, str] | None = None, times: int | None = None) -> None:
    """Let the server seem to answer so."""
    content = body if isinstance(body, str) else json.dumps(body)

    def answer(route: Any) -> None:
        route.fulfill(status=status, body=content, headers={"content-type": "application/json", **(headers or {})})

    page.route("**/predictions/petclf", answer, **({"times": times} if times else {}))


def keep_picture(page: Any, name: str) -> None:
    """For looking at with one's own eyes: PETCLF_SCREENSHOTS names a folder."""
    if folder := os.environ.get("PETCLF_SCREENSHOTS"):
        page.screenshot(path=f"{folder}/{name}.png", full_page=True)


def test_several_photos_are_answered_each_with_all_that_is_known(page: Any, server: Serving, photos: list[Path]) -> None:
    choose(page, *photos)
    until(page, "document.querySelectorAll('#results h2').length === 3")
    keep_picture(page, "light")

    for photo, item in zip(reversed(photos), page.query_selector_all("#results li"), strict=True):
        answer = server.predict(photo.read_bytes()).json()
        text = item.inner_text()
        assert item.query_selector(".name").inner_text() == photo.name
        assert item.query_selector("h2").inner_text().startswith(f"{'perhaps ' if answer['unsure'] else ''}{answer['label']}, ")
        assert [row.inner_text() for row in item.query_selector_all("dt")] == sorted(
            answer["probabilities"], key=answer["probabilities"].__getitem__, reverse=True
        )
        assert ("Not sure" in text) == answer["unsure"]
        assert "ms in all" in text
    assert page.inner_text("#model") == f"petclf {answer['model']['version']}"


def test_the_heat_map_comes_on_demand(page: Any, photos: list[Path]) -> None:
    choose(page, photos[0])
    page.click("text=Where did it look?")
    page.wait_for_selector("img.whole")
    assert page.evaluate("document.querySelector('img.whole').naturalWidth") == 400
    keep_picture(page, "heat")


def test_a_photo_can_be_dropped_and_pasted(page: Any) -> None:
    data = list(encoded(draw_photo("dog", 3, (200, 200))))
    make = "const t = new DataTransfer(); t.items.add(new File([new Uint8Array(data)], name, {type: 'image/jpeg'}));"
    page.evaluate(
        f"([data, name]) => {{ {make} document.dispatchEvent(new DragEvent('drop', {{dataTransfer: t, bubbles: true, cancelable: true}})) }}",
        [data, "dropped.jpg"],
    )
    page.evaluate(
        f"([data, name]) => {{ {make} document.dispatchEvent(new ClipboardEvent('paste', {{clipboardData: t}})) }}",
        [data, "pasted.jpg"],
    )
    until(page, "document.querySelectorAll('#results h2').length === 2")
    assert [name.inner_text() for name in page.query_selector_all(".name")] == ["pasted.jpg", "dropped.jpg"]


def test_a_photo_can_be_taken(page: Any) -> None:
    page.click("#take")
    until(page, "document.getElementById('video').videoWidth > 0")
    page.click("#snap")
    page.wait_for_selector("#results h2")
    assert page.is_hidden("#camera")


def test_the_keyboard_alone_will_do(page: Any, photos: list[Path]) -> None:
    page.on("filechooser", lambda _: None)  # tells the browser now that choosers are to be caught, not when the key is pressed
    page.wait_for_timeout(300)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "drop"
    with page.expect_file_chooser() as chooser:
        page.keyboard.press("Enter")
    chooser.value.set_files(str(photos[0]))
    page.wait_for_selector("#results h2")
    for _ in range(6):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.textContent") == "Where did it look?":
            break
    page.keyboard.press("Enter")
    page.wait_for_selector("img.whole")


def test_a_screen_reader_hears_what_happens(page: Any, photos: list[Path]) -> None:
    choose(page, photos[0])
    page.wait_for_selector("#results h2")
    heard = page.locator("[aria-live=polite]").inner_text()
    tree = page.locator("body").aria_snapshot()
    assert heard.startswith("cat.jpg: ")
    for part in (
        'heading "What does the photo show?" [level=1]',
        'button "Drop photos here',
        'list "Answers"',
        'progressbar "cat"',
        'button "Where did it look?"',
    ):
        assert part in tree


@pytest.mark.parametrize(
    ("status", "body", "shown"),
    [
        (400, {"error": {"code": "not_an_image", "message": "m", "request_id": "x"}}, "This file is no photo that can be read, or it is damaged."),
        (422, {"error": {"code": "too_many_pixels", "message": "m", "request_id": "x"}}, "The photo has too many pixels to be read here. Make it smaller and try again."),
        (413, "", "The file is larger than 10 MB. Make it smaller and try again."),
        (400, {"error": {"code": "new_code", "message": "Said by the server.", "request_id": "x"}}, "Said by the server."),
        (401, {"error": {"code": "unauthorized", "message": "m", "request_id": "x"}}, "This server wants a key, which this page does not have. Use curl."),
        (500, {"error": {"code": "internal_error", "message": "m", "request_id": "x"}}, "The server made a mistake. It is not the photo's fault; try again."),
        (502, "<html>", "The server answered with status 502."),
    ],
)  # fmt: skip
def test_every_error_is_told_in_plain_words(page: Any, photos: list[Path], status: int, body: object, shown: str) -> None:
    reply(page, status, body)
    choose(page, photos[0])
    assert page.wait_for_selector("#results .error").inner_text() == shown


def test_a_busy_server_is_asked_again(page: Any, photos: list[Path]) -> None:
    reply(page, 200, ANSWER)
    reply(page, 503, {}, {"Retry-After": "1"}, times=1)  # the last one that is set answers first
    choose(page, photos[0])
    page.wait_for_selector("text=the server is busy; trying again in 1 s")
    assert page.wait_for_selector("#results h2").inner_text() == "cat, 97.0 %"


def test_a_server_that_is_away_is_told(page: Any, photos: list[Path]) -> None:
    page.route("**/predictions/petclf", lambda route: route.abort())
    choose(page, photos[0])
    assert (
        page.wait_for_selector("#results .error").inner_text()
        == "The server cannot be reached. Is it running, and are you online?"
    )


def test_a_file_that_is_too_large_is_not_even_sent(page: Any, tmp_path: Path) -> None:
    (tmp_path / "large.jpg").write_bytes(bytes(10_485_761))
    choose(page, tmp_path / "large.jpg")
    assert (
        page.wait_for_selector("#results .error").inner_text() == "The file is larger than 10 MB. Make it smaller and try again."
    )


def test_a_photo_that_the_browser_cannot_show_is_still_answered(page: Any, tmp_path: Path) -> None:
    (tmp_path / "photo.heic").write_bytes(encoded(draw_photo("cat", 1), "HEIF"))
    choose(page, tmp_path / "photo.heic")
    page.wait_for_selector("#results h2")
    assert page.inner_text(".picture") == "no preview of this kind of file"


def test_labels_are_text_whatever_they_contain_and_there_may_be_many(page: Any, photos: list[Path]) -> None:
    labels = {"<img src=x onerror=alert(1)>": 0.7, "兎 と亀": 0.2, "قط": 0.1}
    reply(
        page,
        200,
        {
            **ANSWER,
            "label": "<img src=x onerror=alert(1)>",
            "confidence": 0.7,
            "probabilities": labels,
            "unsure": True,
            "unsure_because": "close_call",
        },
    )
    choose(page, photos[0])
    assert page.wait_for_selector("#results h2").inner_text() == "perhaps <img src=x onerror=alert(1)>, 70.0 %"
    assert [row.inner_text() for row in page.query_selector_all("dt")] == list(labels)
    assert page.inner_text(".unsure") == "Not sure: the labels are close together."


def test_a_foreign_script_does_not_run(page: Any) -> None:
    page.evaluate("const s = document.createElement('script'); s.textContent = 'window.foreign = true'; document.body.append(s)")
    assert page.evaluate("window.foreign") is None
    assert any("Content Security Policy" in text for text in page.complaints)
    page.complaints.clear()


@pytest.mark.parametrize(("scheme", "width"), [("dark", 1100), ("dark", 360), ("light", 360)])
def test_it_fits_every_screen_in_light_and_dark(page: Any, photos: list[Path], scheme: str, width: int) -> None:
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": width, "height": 740})
    choose(page, *photos)
    until(page, "document.querySelectorAll('#results h2').length === 3")
    keep_picture(page, f"{scheme}-{width}")

    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    contrast = page.evaluate(CONTRAST)
    assert min(contrast.values()) >= 4.5, contrast


CONTRAST = """() => {
  const light = (text) => { const [r, g, b] = text.match(/\\d+/g).slice(0, 3).map((v) => { v /= 255; return v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; }); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const behind = (node) => { for (; node; node = node.parentElement) { const c = getComputedStyle(node).backgroundColor; if (c !== 'rgba(0, 0, 0, 0)') return c; } };
  const found = {};
  for (const selector of ['h1', 'header p', '#drop strong', '#drop span', '.name', 'h2', 'dt', '.small', 'button.plain', 'footer code']) {
    const node = document.querySelector(selector), one = light(getComputedStyle(node).color), other = light(behind(node));
    found[selector] = (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
  }
  return found;
}"""
