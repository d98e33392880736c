"""The page, in a real browser, on the real server."""

import csv
import io
import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from handler.page import load_page
from tests.drawing import draw_photo, encoded
from tests.e2e import screens
from tests.e2e.conftest import ROOT, Serving
from tests.e2e.nginx import HOW_TO_GET_NGINX, NGINX, running
from web.build import page as build_page

pytestmark = pytest.mark.e2e

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed; `make setup` installs it")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
if CHROMIUM is None:
    pytest.skip("no Chromium here; Debian: apt-get install chromium", allow_module_level=True)

EXAMPLES = ROOT / "web" / "examples"
ANSWER = {
    "label": "cat", "confidence": 0.97, "probabilities": {"cat": 0.97, "dog": 0.03}, "unsure": False, "unsure_because": None,
    "model": {"name": "petclf", "version": "1.0.0"}, "request_id": "x", "milliseconds": {"decode": 1.0, "model": 3.0},
}  # fmt: skip
ANIMALS = [
    "ant",
    "bee",
    "cat",
    "dog",
    "eagle",
    "fox",
    "goat",
    "horse",
    "ibis",
    "jaguar",
    "koala",
    "lion",
    "mouse",
    "newt",
    "otter",
    "panda",
    "quail",
    "rabbit",
    "snake",
    "tapir",
]


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
    context = browser.new_context(
        viewport={"width": 1100, "height": 800},
        permissions=["camera", "clipboard-read", "clipboard-write"],
        reduced_motion="reduce",
    )
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


@pytest.fixture(scope="module")
def axe(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The script of axe-core, which looks for barriers."""
    if shutil.which("npm") is None:
        pytest.skip("no npm here, which brings axe-core")
    folder = tmp_path_factory.mktemp("axe")
    shutil.copytree(Path(__file__).parent / "axe", folder, dirs_exist_ok=True)
    command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--fetch-retries=1"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)
    if "code E" in done.stderr:
        pytest.skip("npm reaches no registry here")
    assert done.returncode == 0, done.stderr
    return (folder / "node_modules" / "axe-core" / "axe.min.js").read_text(encoding="utf-8")


def until(page: Any, expression: str) -> None:
    """Wait for it; playwright's own way needs eval, which the page's policy forbids."""
    end = time.monotonic() + 30
    while not page.evaluate(expression):
        assert time.monotonic() < end, expression
        page.wait_for_timeout(50)


def choose(page: Any, *files: Path) -> None:
    page.set_input_files("#files", [str(file) for file in files])


def until_answered(page: Any, count: int) -> None:
    """Wait until so many photos have an answer or a reason why not."""
    until(page, f"document.querySelectorAll('#results h3').length === {count}")


def headlines(page: Any) -> list[str]:
    return [title.inner_text() for title in page.query_selector_all("#results h3")]


def names(page: Any) -> list[str]:
    return [name.inner_text() for name in page.query_selector_all("#results .name")]


def reply(page: Any, status: int, body: object = None, headers: dict[str, str] | None = None, times: int | None = None) -> None:
    """Let the server seem to answer so; the page itself and instructions still come from it."""
    content = body if isinstance(body, str) else json.dumps(body)

    def answer(route: Any) -> None:
        if route.request.method != "POST":
            route.fallback()
            return
        route.fulfill(status=status, body=content, headers={"content-type": "application/json", **(headers or {})})

    page.route("**/predictions/petclf", answer, **({"times": times} if times else {}))


def open_for(page: Any, folder: Path, labels: list[str]) -> None:
    """Open the page of a model with other labels."""
    (folder / "page.html").write_bytes(build_page({"labels": labels}))
    built = load_page(folder / "page.html", "petclf")
    assert built is not None
    content = {"body": built.body, "headers": {**built.headers, "content-type": built.content_type}}
    page.route(
        page.url, lambda route: route.fulfill(**content) if "html" in route.request.headers["accept"] else route.fallback()
    )
    page.reload()


def answer_of(probabilities: dict[str, float], because: str | None = None) -> dict[str, Any]:
    label = max(probabilities, key=probabilities.__getitem__)
    unsure = {"unsure": because is not None, "unsure_because": because}
    return {**ANSWER, "label": label, "confidence": probabilities[label], "probabilities": probabilities, **unsure}


def keep_picture(page: Any, name: str) -> None:
    """For looking at with one's own eyes: PETCLF_SCREENSHOTS names a folder."""
    if folder := os.environ.get("PETCLF_SCREENSHOTS"):
        page.screenshot(path=f"{folder}/{name}.png", full_page=True)


# ---- what it says


def test_it_asks_what_its_model_can_tell_and_says_what_it_cannot(page: Any) -> None:
    assert page.inner_text("h1") == "Cat or dog?"
    assert page.title() == "petclf: cat or dog?"
    assert page.inner_text("#limits") == (
        "The model knows only cat and dog: a photo gets one answer even if it shows several, "
        "and some photos of other things get one of these labels, too."
    )


@pytest.mark.parametrize(
    ("labels", "question", "known"),
    [
        (["cat", "dog", "rabbit"], "Cat, dog or rabbit?", "The model knows only cat, dog and rabbit:"),
        (ANIMALS, "Which of 20 labels?", "The model knows only its 20 labels:"),
    ],
)
def test_it_asks_of_any_labels(page: Any, tmp_path: Path, labels: list[str], question: str, known: str) -> None:
    open_for(page, tmp_path, labels)
    assert page.inner_text("h1") == question
    assert page.inner_text("#limits").startswith(known)


def test_several_photos_are_answered_in_their_order_each_with_all_that_is_known(
    page: Any, server: Serving, photos: list[Path]
) -> None:
    choose(page, *photos)
    until_answered(page, 3)

    assert names(page) == [photo.name for photo in photos]
    for photo, item in zip(photos, page.query_selector_all("#results > li"), strict=True):
        answer = server.predict(photo.read_bytes()).json()
        assert [row.inner_text() for row in item.query_selector_all("dt")] == sorted(
            answer["probabilities"], key=answer["probabilities"].__getitem__, reverse=True
        )
        assert bool(item.query_selector(".unsure")) == answer["unsure"]
        assert "ms in all" in item.inner_text()
    page.click("#about summary")
    assert page.inner_text("#version") == f"petclf {answer['model']['version']}"
    assert "held-out photos" in page.inner_text("#model")


def test_every_example_is_answered_and_the_headlines_mean_what_they_say(page: Any) -> None:
    for example in page.query_selector_all("#thumbs button"):
        example.click()
    until_answered(page, 6)
    assert dict(zip(names(page), [title.split(" >")[0] for title in headlines(page)], strict=True)) == {
        "dog.jpg": "Dog",
        "cat.jpg": "Cat",
        "both.jpg": "Dog or cat: too close to call",
        "coffee.jpg": "Probably neither cat nor dog",
        "tabby.jpg": "Cat",
        "shuttle.jpg": "Probably neither cat nor dog",
    }
    assert page.inner_text("#summary") == "6 photos: 2 cat, 1 dog, 3 unsure"


@pytest.mark.parametrize(
    ("answer", "headline", "reason"),
    [
        (answer_of({"cat": 0.97, "dog": 0.03}), "Cat 97.0 %", None),
        (answer_of({"cat": 0.99999, "dog": 0.00001}), "Cat > 99.9 %", None),
        (answer_of({"cat": 0.9, "dog": 0.1}, "low_confidence"), "Most likely cat, but not sure", "Answers with a figure like this are wrong too often to rely on."),
        (answer_of({"cat": 0.4, "dog": 0.6}, "close_call"), "Dog or cat: too close to call", "The two likeliest labels are too close to each other."),
        (answer_of({"cat": 0.01, "dog": 0.99}, "unlike_training_photos"), "Probably neither cat nor dog", "This looks unlike the photos that the model learned from."),
        (answer_of({"ant": 0.2, "bee": 0.7, "cat": 0.1}, "unlike_training_photos"), "Probably not ant, bee or cat", "This looks unlike the photos that the model learned from."),
        (answer_of(dict.fromkeys(ANIMALS, 0.05), "unlike_training_photos"), "Probably none of the 20 labels", "This looks unlike the photos that the model learned from."),
        (answer_of({"cat": 0.9, "dog": 0.1}, "a_reason_of_tomorrow"), "Most likely cat, but not sure", "The model is not sure."),
    ],
)  # fmt: skip
def test_each_kind_of_answer_has_its_headline(
    page: Any, photos: list[Path], answer: dict[str, Any], headline: str, reason: str | None
) -> None:
    reply(page, 200, answer)
    choose(page, photos[0])
    until_answered(page, 1)
    assert headlines(page) == [headline]
    said = page.query_selector(".unsure")
    assert (said.inner_text() if said else None) == reason
    assert ("If it had to be one of them:" in page.inner_text("#results")) == (
        answer["unsure_because"] == "unlike_training_photos"
    )


def test_of_many_labels_five_are_shown_and_the_others_on_demand(page: Any, photos: list[Path]) -> None:
    reply(page, 200, answer_of({label: (20 - index) / 210 for index, label in enumerate(ANIMALS)}, "low_confidence"))
    choose(page, photos[0])
    until_answered(page, 1)
    assert page.locator(".chances dt:visible").all_inner_texts() == ANIMALS[:5]
    page.click("text=15 more")
    assert page.locator(".chances dt:visible").all_inner_texts() == ANIMALS


def test_labels_are_text_whatever_they_contain(page: Any, photos: list[Path]) -> None:
    labels = {"<img src=x onerror=alert(1)>": 0.7, "兎 と亀": 0.2, "قط": 0.1}
    reply(page, 200, answer_of(labels))
    choose(page, photos[0])
    until_answered(page, 1)
    assert headlines(page) == ["<img src=x onerror=alert(1)> 70.0 %"]
    assert [row.inner_text() for row in page.query_selector_all("dt:visible")] == list(labels)


def test_a_foreign_script_does_not_run(page: Any) -> None:
    page.evaluate("const s = document.createElement('script'); s.textContent = 'window.foreign = true'; document.body.append(s)")
    assert page.evaluate("window.foreign") is None
    assert any("Content Security Policy" in text for text in page.complaints)
    page.complaints.clear()


# ---- how photos come in


def test_a_photo_can_be_dropped_and_pasted(page: Any) -> None:
    data = list(encoded(draw_photo("dog", 3, (200, 200))))
    make = "const t = new DataTransfer(); t.items.add(new File([new Uint8Array(data)], name, {type: 'image/jpeg'}));"
    page.evaluate(
        f"([data, name]) => {{ {make} document.dispatchEvent(new DragEvent('drop', {{dataTransfer: t, bubbles: true, cancelable: true}})) }}",
        [data, "dropped.jpg"],
    )
    until_answered(page, 1)
    page.evaluate(
        f"([data, name]) => {{ {make} document.dispatchEvent(new ClipboardEvent('paste', {{clipboardData: t}})) }}",
        [data, "pasted.jpg"],
    )
    until_answered(page, 2)
    assert names(page) == ["dropped.jpg", "pasted.jpg"]


def drop_text(page: Any, kind: str, text: str) -> None:
    page.evaluate(
        """([kind, text]) => {
          const data = new DataTransfer();
          data.setData(kind, text);
          document.dispatchEvent(new DragEvent('drop', {dataTransfer: data, bubbles: true, cancelable: true}));
        }""",
        [kind, text],
    )


def test_a_picture_dropped_from_another_page_is_sent_if_the_page_holds_it(page: Any) -> None:
    drop_text(page, "text/html", f'<a><img src="{page.evaluate("facts.examples[0].photo")}"></a>')
    until_answered(page, 1)
    assert (names(page), headlines(page)) == (["photo.jpeg"], ["Dog > 99.9 %"])


def test_an_address_is_the_servers_to_fetch_and_a_refusal_says_what_to_do(page: Any) -> None:
    drop_text(page, "text/uri-list", "https://example.org/a%20cat.jpg")
    until_answered(page, 1)
    assert names(page) == ["a cat.jpg"]
    assert page.inner_text(".error") == "This server fetches no addresses; send the photo itself"
    assert "Save the picture and drop the file here." in page.inner_text("#results")
    assert page.inner_text(".stage") == "no preview: this page loads no pictures from other sites"


def test_an_address_can_be_typed(page: Any) -> None:
    sent: list[Any] = []
    page.on("request", lambda request: sent.append(request.post_data) if request.method == "POST" else None)
    reply(page, 200, ANSWER)
    page.fill("#address", "kitten.jpg")
    page.press("#address", "Enter")
    assert page.inner_text("#status") == "Give the address of a picture; it begins with https://"
    page.fill("#address", "https://example.org/%E0%A4%A.jpg")
    page.press("#address", "Enter")
    until_answered(page, 1)
    assert (headlines(page), [json.loads(body) for body in sent]) == (
        ["Cat 97.0 %"],
        [{"url": "https://example.org/%E0%A4%A.jpg"}],
    )


@pytest.mark.parametrize("text", ["just words", "data:image/png;base64,%%%"])
def test_what_is_no_photo_is_not_sent(page: Any, text: str) -> None:
    drop_text(page, "text/plain", text)
    until(page, "document.getElementById('status').textContent !== ''")
    assert page.inner_text("#status") in ("That is neither a photo nor the address of one.", "That data: address cannot be read.")
    assert names(page) == []


def test_a_folder_is_read_to_its_depths_without_what_is_no_photo(page: Any, photos: list[Path], tmp_path: Path) -> None:
    (tmp_path / "pets" / "more").mkdir(parents=True)
    shutil.copy(photos[0], tmp_path / "pets")
    shutil.copy(photos[1], tmp_path / "pets" / "more")
    (tmp_path / "pets" / "notes.txt").write_text("no photo")
    page.set_input_files("#folder", str(tmp_path / "pets"))
    until_answered(page, 2)
    assert page.inner_text("#summary").endswith(", 1 other file left out")
    assert sorted(names(page)) == ["cat.jpg", "dog.jpg"]


def test_a_dropped_folder_is_read_to_its_depths(page: Any) -> None:
    reply(page, 200, ANSWER)
    page.evaluate(
        """() => {
          const file = (name) => ({ isFile: true, file: (found) => found(new File(['x'], name, {type: 'image/jpeg'})) });
          const folder = (...entries) => ({ isDirectory: true, createReader: () => {
            const portions = [...entries.map((entry) => [entry]), []];  // a browser, too, gives them in portions
            return { readEntries: (found) => found(portions.shift()) };
          }});
          const tree = folder(file('a.jpg'), folder(file('b.jpg'), file('.hidden.jpg')), file('c.txt.jpg'));
          return dropped({ items: [{ webkitGetAsEntry: () => tree }], files: [] });
        }"""
    )
    until_answered(page, 3)
    assert names(page) == ["a.jpg", "b.jpg", "c.txt.jpg"]


def test_a_photo_can_be_taken(page: Any) -> None:
    page.click("#take")
    until(page, "document.getElementById('video').videoWidth > 0")
    page.click("#snap")
    until_answered(page, 1)
    assert page.is_hidden("#camera")


def test_a_hundred_photos_are_all_answered_in_their_order(page: Any) -> None:
    reply(page, 200, ANSWER)
    data = list(encoded(draw_photo("cat", 1, (60, 40))))
    page.evaluate(
        "data => add(Array.from({length: 100}, (_, index) => new File([new Uint8Array(data)], `${index}.jpg`, {type: 'image/jpeg'})))",
        data,
    )
    until_answered(page, 100)
    assert names(page) == [f"{index}.jpg" for index in range(100)]
    assert page.inner_text("#status") == "All answered: 100 cat"
    assert page.inner_text("#summary") == "100 photos: 100 cat"


def test_more_photos_than_the_list_takes_are_told(page: Any) -> None:
    reply(page, 200, ANSWER)
    page.evaluate("add(Array.from({length: 501}, (_, index) => new File(['x'], `${index}.jpg`)))")
    assert page.inner_text("#status") == "500 photos are in the list, which is all it takes. For more, use scripts/predict.py."
    assert page.locator("#results > li").count() == 500
    page.click("#clear")
    assert (page.locator("#results > li").count(), page.is_hidden("#answers")) == (0, True)


# ---- where it looked


def toggle(page: Any, index: int = 0) -> None:
    page.locator("#results .words button[aria-pressed]").nth(index).click()


def boxes(page: Any, inside: str) -> tuple[dict[str, float], dict[str, float]]:
    return page.locator(f"{inside} img").bounding_box(), page.locator(f"{inside} canvas").bounding_box()


def test_the_heat_map_lies_on_the_photo_can_be_thinned_enlarged_and_taken_off(page: Any) -> None:
    page.locator("#thumbs button").first.click()
    until_answered(page, 1)
    toggle(page)
    page.wait_for_selector(".frame canvas")
    photo, heat = boxes(page, "#results .frame")
    assert heat == pytest.approx(photo, abs=1)
    assert page.inner_text("#results .legend").split("\n") == ["against", "for dog"]

    page.fill("#results .heat input", "30")
    assert page.evaluate("getComputedStyle(document.querySelector('#results canvas')).opacity") == "0.3"
    page.click("#results .frame")
    large, over = boxes(page, "#large .frame")
    assert over == pytest.approx(large, abs=1)
    assert large["width"] > 1.3 * photo["width"]
    assert page.evaluate("getComputedStyle(document.querySelector('#large canvas')).opacity") == "0.3"
    page.keyboard.press("Escape")
    assert page.is_hidden("#large")

    toggle(page)
    assert page.query_selector("#results canvas") is None


def test_the_heat_map_of_a_mirrored_photo_is_mirrored(page: Any, tmp_path: Path) -> None:
    """So it lies where the photo shows the label, neither to the right nor below."""
    for name, turn in {
        "as-it-is": None,
        "mirrored": Image.Transpose.FLIP_LEFT_RIGHT,
        "flipped": Image.Transpose.FLIP_TOP_BOTTOM,
    }.items():
        with Image.open(EXAMPLES / "dog.jpg") as photo:
            (photo if turn is None else photo.transpose(turn)).save(tmp_path / f"{name}.png")
        choose(page, tmp_path / f"{name}.png")
    until_answered(page, 3)
    for index in range(3):
        toggle(page, index)
    until(page, "document.querySelectorAll('#results canvas').length === 3")
    (x, y), (mirrored, _), (_, flipped) = page.evaluate(MIDDLES)
    assert x + mirrored == pytest.approx(1, abs=0.08)
    assert y + flipped == pytest.approx(1, abs=0.15)  # dogs on their heads are rare


MIDDLES = """() => [...document.querySelectorAll('#results canvas')].map((canvas) => {
  const { width, height } = canvas, { data } = canvas.getContext('2d').getImageData(0, 0, width, height);
  let all = 0, x = 0, y = 0;
  for (let place = 0; place < width * height; place += 1) {
    const heat = data[4 * place + 3] ** 2;
    all += heat;
    x += heat * ((place % width) + 0.5) / width;
    y += heat * (Math.floor(place / width) + 0.5) / height;
  }
  return [x / all, y / all];
})"""


def test_a_photo_that_its_exif_turns_is_shown_upright_under_its_heat_map(page: Any, tmp_path: Path) -> None:
    with Image.open(EXAMPLES / "dog.jpg") as photo:
        exif = Image.Exif()
        exif[0x0112] = 6  # turn it by a quarter to the right
        photo.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "turned.jpg", exif=exif)
    choose(page, tmp_path / "turned.jpg")
    until_answered(page, 1)
    toggle(page)
    page.wait_for_selector(".frame canvas")
    photo_box, heat = boxes(page, "#results .frame")
    assert photo_box["width"] / photo_box["height"] == pytest.approx(400 / 267, rel=0.02)
    assert heat == pytest.approx(photo_box, abs=1)


def test_of_a_photo_that_the_browser_cannot_show_the_server_shows_where_it_looked(page: Any, tmp_path: Path) -> None:
    (tmp_path / "photo.heic").write_bytes(encoded(draw_photo("cat", 1), "HEIF"))
    choose(page, tmp_path / "photo.heic")
    until_answered(page, 1)
    assert page.inner_text(".stage") == "no preview of this kind of file"
    toggle(page)
    page.wait_for_selector(".frame img")
    until(page, "document.querySelector('.frame img').naturalWidth === 96")
    assert page.inner_text(".stage").startswith("Bright where it speaks for ")


def test_a_heat_map_that_does_not_come_says_why(page: Any, photos: list[Path]) -> None:
    choose(page, photos[0])
    until_answered(page, 1)
    page.route("**/explanations/petclf", lambda route: route.abort())
    toggle(page)
    assert (
        page.wait_for_selector("#results .error").inner_text()
        == "The server cannot be reached. Is it running, and are you online?"
    )
    assert page.get_attribute("#results [aria-pressed]", "aria-pressed") == "false"


# ---- many photos


@pytest.fixture
def mixed(page: Any) -> Any:
    """A list with a sure answer, an unsure one, a refused one and another sure one, whose names a spreadsheet might run."""
    answers = [
        (200, ANSWER),
        (200, answer_of({"cat": 0.45, "dog": 0.55}, "close_call")),
        (400, {"error": {"code": "not_an_image", "message": "not a readable image", "request_id": "x"}}),
        (200, answer_of({"cat": 0.001, "dog": 0.999})),
    ]
    for count, name in enumerate(("=1+1.jpg", "@sum, of.jpg", 'no "photo".jpg', "plain.jpg"), 1):
        status, body = answers[count - 1]
        reply(page, status, body, times=1)
        page.evaluate("name => add([new File(['x'], name)])", name)
        until_answered(page, count)
    return page


def test_a_list_is_counted_and_shown_unsure_first_on_wish(mixed: Any) -> None:
    assert mixed.inner_text("#summary") == "4 photos: 1 cat, 1 dog, 1 unsure, 1 not answered"
    mixed.check("#unsure-first")
    assert names(mixed) == ['no "photo".jpg', "@sum, of.jpg", "=1+1.jpg", "plain.jpg"]
    mixed.uncheck("#unsure-first")
    assert names(mixed) == ["=1+1.jpg", "@sum, of.jpg", 'no "photo".jpg', "plain.jpg"]


def test_a_list_can_be_taken_away_as_csv_in_which_no_name_is_a_formula(mixed: Any) -> None:
    with mixed.expect_download() as download:
        mixed.click("#csv")
    assert download.value.suggested_filename == "petclf.csv"
    text = Path(download.value.path()).read_text(encoding="utf-8-sig")
    assert list(csv.reader(io.StringIO(text))) == [
        ["photo", "label", "confidence", "probability_cat", "probability_dog", "unsure_because", "version", "error", "code"],
        ["'=1+1.jpg", "cat", "0.97", "0.97", "0.03", "", "1.0.0", "", ""],
        ["'@sum, of.jpg", "dog", "0.55", "0.45", "0.55", "close_call", "1.0.0", "", ""],
        ['no "photo".jpg', "", "", "", "", "", "", "Not a readable image", "not_an_image"],
        ["plain.jpg", "dog", "0.999", "0.001", "0.999", "", "1.0.0", "", ""],
    ]


def test_the_columns_are_those_of_predict(mixed: Any, server: Serving, photos: list[Path]) -> None:
    command = [sys.executable, "scripts/predict.py", "--csv", "--server", server.url, str(photos[0])]
    told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    with mixed.expect_download() as download:
        mixed.click("#csv")
    text = Path(download.value.path()).read_text(encoding="utf-8-sig")
    assert text.splitlines()[0] == told.splitlines()[0]


def test_a_list_can_be_taken_away_as_json(mixed: Any) -> None:
    with mixed.expect_download() as download:
        mixed.click("#json")
    answers = json.loads(Path(download.value.path()).read_text(encoding="utf-8"))
    assert answers[0] == {"photo": "=1+1.jpg", **ANSWER}
    refused = {"code": "not_an_image", "message": "Not a readable image", "request_id": "x"}
    assert answers[2] == {"photo": 'no "photo".jpg', "error": refused}


# ---- refusals


@pytest.mark.parametrize(
    ("status", "body", "shown"),
    [
        (400, {"error": {"code": "not_an_image", "message": "not a readable image; send JPEG", "request_id": "x"}}, "Not a readable image; send JPEG"),
        (422, {"error": {"code": "too_many_pixels", "message": "60 megapixels; the limit for such a PNG is 35", "request_id": "x"}}, "60 megapixels; the limit for such a PNG is 35"),
        (401, {"error": {"code": "unauthorized", "message": "a key is needed", "request_id": "x"}}, "A key is needed"),
        (404, {"code": 404, "type": "ModelNotFoundException", "message": "Model not found: petclf"}, "Model not found: petclf"),
        (413, "", "The file is larger than 10 MB. Make it smaller and try again."),
        (502, "<html>", "The server answered with status 502 and no reason."),
    ],
)  # fmt: skip
def test_the_servers_own_reason_is_shown(page: Any, photos: list[Path], status: int, body: object, shown: str) -> None:
    reply(page, status, body)
    choose(page, photos[0])
    assert page.wait_for_selector("#results .error").inner_text() == shown
    assert headlines(page) == ["Not answered"]


def test_a_file_that_is_no_photo_gets_the_real_servers_reason(page: Any, tmp_path: Path) -> None:
    (tmp_path / "notes.jpg").write_text("no photo")
    choose(page, tmp_path / "notes.jpg")
    reason = "Not a readable image; send JPEG, PNG, WebP, GIF, BMP, TIFF, AVIF or HEIC"
    assert page.wait_for_selector("#results .error").inner_text() == reason


def test_a_busy_server_is_asked_again(page: Any, photos: list[Path]) -> None:
    reply(page, 200, ANSWER)
    reply(page, 503, {}, {"Retry-After": "1"}, times=1)  # the last one that is set answers first
    choose(page, photos[0])
    page.wait_for_selector("text=the server is busy; trying again in 1 s")
    until_answered(page, 1)
    assert headlines(page) == ["Cat 97.0 %"]


def test_a_server_that_is_away_is_told_and_can_be_asked_again(page: Any, photos: list[Path]) -> None:
    reply(page, 200, ANSWER)
    page.route("**/predictions/petclf", lambda route: route.abort(), times=1)
    choose(page, photos[0])
    assert (
        page.wait_for_selector("#results .error").inner_text()
        == "The server cannot be reached. Is it running, and are you online?"
    )
    page.click("text=Try again")
    page.wait_for_selector("text=Where it looked >> visible=true")
    until(page, "document.querySelector('#results h3').textContent === 'Cat 97.0 %'")


def test_a_file_that_is_too_large_is_not_even_sent(page: Any, tmp_path: Path) -> None:
    (tmp_path / "large.jpg").write_bytes(bytes(10_485_761))
    choose(page, tmp_path / "large.jpg")
    reason = "The file is larger than 10 MB. Make it smaller and try again."
    assert page.wait_for_selector("#results .error").inner_text() == reason


# ---- programs and documents


def samples(page: Any) -> dict[str, str]:
    page.click("#programs summary")
    return {
        sample.query_selector("h3").inner_text(): sample.query_selector("pre").inner_text()
        for sample in page.query_selector_all(".sample")
    }


def test_its_lines_for_programs_work_as_they_stand(page: Any, tmp_path: Path) -> None:
    shutil.copy(EXAMPLES / "dog.jpg", tmp_path / "photo.jpg")

    def run(*command: str) -> str:
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True, timeout=60).stdout

    shown = samples(page)
    assert json.loads(run(*shlex.split(shown["curl"])))["label"] == "dog"
    run(*shlex.split(shown["Where it looked, as a picture"]))
    with Image.open(tmp_path / "why.png") as picture:
        assert picture.size == (400, 267)
    assert run(sys.executable, "-c", shown["Python"]).split()[::2] == ["dog", "False"]
    javascript = (
        f"async (data) => {{ const file = new Blob([new Uint8Array(data)]); {shown['JavaScript']}; return [label, unsure]; }}"
    )
    assert page.evaluate(javascript, list((tmp_path / "photo.jpg").read_bytes())) == ["dog", False]


def test_a_line_can_be_copied(page: Any) -> None:
    line = samples(page)["curl"]
    page.locator(".sample button").first.click()
    page.locator(".sample button", has_text="Copied").wait_for()
    assert page.evaluate("navigator.clipboard.readText()") == line


def test_it_links_the_documents_that_its_server_has(page: Any, server: Serving) -> None:
    page.click("#programs summary")
    link = page.wait_for_selector("#links a")
    assert (link.inner_text(), link.get_attribute("href")) == ("TorchServe's API as OpenAPI", "/api-description")
    assert page.request.get(f"{server.url}/api-description").json()["info"]["title"] == "TorchServe APIs"


@pytest.mark.skipif(NGINX is None, reason=HOW_TO_GET_NGINX)
@pytest.mark.parametrize("path", ["/", "/predictions/petclf"])
def test_it_works_through_the_gateway_and_links_its_documents(page: Any, server: Serving, tmp_path: Path, path: str) -> None:
    ports = {
        "PETCLF_INFERENCE_PORT": server.port,
        "PETCLF_MANAGEMENT_PORT": server.management_port,
        "PETCLF_READY_PORT": server.ready_port,
    }
    with running(tmp_path, **{name: str(port) for name, port in ports.items()}) as gateway:
        page.goto(gateway.url + path)
        page.locator("#thumbs button").first.click()
        until_answered(page, 1)
        toggle(page)
        page.wait_for_selector("#results canvas")
        page.click("#programs summary")
        page.wait_for_selector("#links a")
        links = {link.inner_text(): link.get_attribute("href") for link in page.query_selector_all("#links a")}
        assert links == {"API documentation": "/docs", "OpenAPI": "/openapi.json"}
        assert [page.request.get(gateway.url + address).status for address in links.values()] == [200, 200]
    assert headlines(page) == ["Dog > 99.9 %"]


# ---- for everybody


def test_the_keyboard_alone_will_do(page: Any, photos: list[Path]) -> None:
    page.on("filechooser", lambda _: None)  # tells the browser now that choosers are to be caught, not when the key is pressed
    page.wait_for_timeout(300)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "drop"
    with page.expect_file_chooser() as chooser:
        page.keyboard.press("Enter")
    chooser.value.set_files(str(photos[0]))
    until_answered(page, 1)
    for _ in range(20):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.textContent") == "Where it looked":
            break
    page.keyboard.press("Enter")
    page.wait_for_selector("#results canvas")
    until(page, "document.activeElement.textContent === 'Where it looked'")
    page.keyboard.press("Shift+Tab")
    assert page.evaluate("document.activeElement.type") == "range"
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Enter")
    assert page.is_visible("#large")
    page.keyboard.press("Escape")
    assert page.evaluate("document.activeElement.className") == "frame warm"


def test_on_a_phone_it_offers_what_a_phone_has(browser: Any, server: Serving) -> None:
    context = browser.new_context(viewport={"width": 390, "height": 800}, has_touch=True, is_mobile=True)
    phone = context.new_page()
    phone.goto(f"{server.url}/predictions/petclf")
    assert phone.inner_text("#drop strong") == "Choose photos"
    assert (phone.is_visible("#take"), phone.is_visible("#choose-folder")) == (True, False)
    phone.locator("#thumbs button").first.tap()
    until_answered(phone, 1)
    assert phone.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    keep_picture(phone, "phone")
    context.close()


def test_a_screen_reader_hears_what_happens(page: Any) -> None:
    page.locator("#thumbs button").first.click()
    until_answered(page, 1)
    toggle(page)
    page.wait_for_selector("#results canvas")
    assert page.locator("[aria-live=polite]").inner_text() == "dog.jpg: Dog, > 99.9 %"
    tree = page.locator("body").aria_snapshot()
    for part in (
        'heading "Cat or dog?" [level=1]',
        'button "Drop photos or folders here',
        'button "a cup of coffee"',
        'list "Answers"',
        'button "Enlarge dog.jpg"',
        'progressbar "dog"',
        'button "Where it looked" [pressed]',
        'slider "Strength"',
    ):
        assert part in tree
    assert page.get_attribute("#results canvas", "aria-label") == "Heat map: strongest in the middle"


@pytest.mark.parametrize(("scheme", "width"), [("light", 1440), ("dark", 1440), ("light", 320), ("dark", 320)])
def test_axe_finds_no_barrier_before_with_or_around_answers(page: Any, axe: str, scheme: str, width: int, tmp_path: Path) -> None:
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": width, "height": 800})

    def violations() -> list[str]:
        page.evaluate(axe)
        found = page.evaluate("axe.run(document, {resultTypes: ['violations', 'incomplete']})")
        return [f"{kind}: {one['id']} {one['nodes'][0]['html']}" for kind in ("violations", "incomplete") for one in found[kind]]

    assert violations() == []
    (tmp_path / "notes.jpg").write_text("no photo")
    choose(page, EXAMPLES / "dog.jpg", EXAMPLES / "coffee.jpg", tmp_path / "notes.jpg")
    until_answered(page, 3)
    toggle(page)
    page.wait_for_selector("#results canvas")
    for summary in page.query_selector_all("footer summary"):
        summary.click()
    page.mouse.move(0, 0)
    assert violations() == []
    page.click("#results .frame >> nth=0")
    assert violations() == []


@pytest.mark.parametrize("width", [320, 768, 1440, 3840])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_every_screen(page: Any, tmp_path: Path, scheme: str, width: int) -> None:
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": width, "height": 2160 if width > 3000 else 900})
    keep_picture(page, f"{width}-{scheme}-before")
    (tmp_path / f"{'a-name-without-breaks-' * 10}.jpg").write_text("no photo")
    choose(page, *sorted(EXAMPLES.glob("*.jpg")), *tmp_path.iterdir())
    until_answered(page, 7)
    toggle(page)
    page.wait_for_selector("#results canvas")
    for summary in page.query_selector_all("footer summary"):
        summary.click()
    keep_picture(page, f"{width}-{scheme}-after")
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    cut = page.evaluate(
        "[...document.querySelectorAll('button, h1, h2, h3, dt, dd, .error')].filter((one) => one.scrollWidth > one.clientWidth + 1 && one.clientWidth > 1).map((one) => one.outerHTML)"
    )
    assert cut == []


@pytest.mark.skipif(
    screens.HERE != screens.FONT, reason=f"the kept screens are in {screens.FONT}; the font here is {screens.HERE}"
)
@pytest.mark.parametrize("width", [320, 768, 1440, 3840])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_looks_as_it_did_when_somebody_last_looked(page: Any, tmp_path: Path, scheme: str, width: int) -> None:
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": width, "height": 2160 if width > 3000 else 900})
    page.wait_for_load_state("networkidle")
    before = screens.changed(f"{width}-{scheme}-before", screens.screen(page), tmp_path)
    choose(page, *sorted(EXAMPLES.glob("*.jpg")))
    until_answered(page, 6)
    toggle(page)
    page.wait_for_selector("#results canvas")
    after = screens.changed(f"{width}-{scheme}-after", screens.screen(page), tmp_path)
    assert (before < 0.03, after < 0.03) == (True, True), f"{before:.3f} and {after:.3f} of the screens in {tmp_path} changed"
