"""Real clients, each in every way it can send a photo, with photos of many sizes: directly and through the gateway.

Each must get the answer that the model gives in this process.
"""

import asyncio
import base64
import contextlib
import http.client
import itertools
import json
import math
import random
import re
import shutil
import subprocess
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import httpx
import pytest
import requests

from handler.classifier import Classifier, Judgement
from handler.photo_input import decode_photo
from tests.e2e.conftest import ROOT, Serving
from tests.e2e.forms import Form, draw_form
from tests.e2e.nginx import HOW_TO_GET_NGINX, NGINX, running
from tests.e2e.sized import filled, small_photo

pytestmark = pytest.mark.e2e

KB, MB = 1024, 1024 * 1024
SIZES = [400, *(number * KB for number in (1, 4, 8, 16, 24, 31, 32, 33, 40, 64, 256)), MB, 5 * MB, 99 * MB // 10]
LARGEST_BODY = 10_485_760
JPEG, JSON, OF_FORMS = "image/jpeg", "application/json", "application/x-www-form-urlencoded"
HUNG_UP = 0
# Answers are rounded to six decimals, which is 5e-7, and int8 differs by nothing more; fp32, where int8 cannot run, adds about
# 1e-6 between batches of different sizes. The answers to any two photos are a hundred times further apart (photos_far_apart)
TOLERANCE = 1e-5

Key = tuple[str, int]  # the way of asking, and the photo's size
Answers = dict[Key, tuple[int, str]]  # status and text


@dataclass
class Photos:
    """One photo for each size: as bytes, as files of all forms that a client can send, and what the model says of it."""

    data: dict[int, bytes]
    folder: Path
    judged: dict[int, Judgement]

    def path(self, size: int, ending: str = "jpg") -> Path:
        return self.folder / f"{size}.{ending}"


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Photos:
    folder = tmp_path_factory.mktemp("photos")
    small = photos_far_apart(["PNG" if size < 2 * KB else "JPEG" for size in SIZES])
    noise = random.Random(1)
    data = {size: filled(photo, size, noise.randbytes) for size, (photo, _) in zip(SIZES, small, strict=True)}
    assert [len(photo) for photo in data.values()] == SIZES
    photos = Photos(data, folder, {size: judgement for size, (_, judgement) in zip(SIZES, small, strict=True)})
    for size, photo in data.items():
        photos.path(size).write_bytes(photo)
        photos.path(size, "json").write_bytes(as_json(photo))
        photos.path(size, "form").write_bytes(as_form(photo))
    return photos


@pytest.fixture(scope="module")
def gateway(server: Serving, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    if NGINX is None:
        pytest.skip(HOW_TO_GET_NGINX)
    ports = {"PETCLF_INFERENCE_PORT": str(server.port), "PETCLF_MANAGEMENT_PORT": str(server.management_port)}
    with running(tmp_path_factory.mktemp("gateway"), **ports) as started:
        yield started.url


@dataclass(frozen=True)
class Target:
    url: str
    direct: bool


@pytest.fixture(params=["direct", "gateway"])
def target(request: pytest.FixtureRequest, server: Serving) -> Target:
    direct = request.param == "direct"
    base = server.url if direct else request.getfixturevalue("gateway")
    return Target(f"{base}/predictions/petclf", direct)


def photos_far_apart(formats: list[str]) -> list[tuple[bytes, Judgement]]:
    """Return a small photo of each format and what the model says in this process; no answer passes for that to another."""
    model = Classifier(ROOT / "pretrained" / "petclf.pt", "cpu", threads=1)
    found: list[tuple[bytes, Judgement]] = []
    seeds = itertools.count()
    while len(found) < len(formats):
        photo = small_photo(next(seeds), formats[len(found)])
        [judgement], _ = model.predict(decode_photo(photo, model.size)[None])
        distances = [abs(judgement.probabilities["cat"] - other.probabilities["cat"]) for _, other in found]
        if min(distances, default=1) > 100 * TOLERANCE:
            found.append((photo, judgement))
    return found


BOUNDARY = "a-boundary"
FORM = f"multipart/form-data; boundary={BOUNDARY}"


def as_form(photo: bytes) -> bytes:
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="a.jpg"\r\nContent-Type: {JPEG}\r\n\r\n'
    return head.encode() + photo + f"\r\n--{BOUNDARY}--\r\n".encode()


def as_json(photo: bytes) -> bytes:
    return json.dumps({"image": base64.b64encode(photo).decode()}).encode()


def said(answer: tuple[int, str]) -> tuple[int, Any]:
    """Return an answer as it is compared: its status and, of a prediction, all that depends on the photo."""
    status, text = answer
    if status != 200:
        return status, None
    content = json.loads(text)
    return status, {name: content[name] for name in ("label", "probabilities", "unsure_because")}


def is_too_large(key: Key) -> bool:
    way, size = key
    return way == "json" and size * 4 / 3 > LARGEST_BODY


def expected(key: Key, photos: Photos) -> tuple[int, Any]:
    if is_too_large(key):
        return 413, None
    return predicted(photos.judged[key[1]])


def predicted(judgement: Judgement) -> tuple[int, Any]:
    return 200, {
        "label": judgement.label,
        "probabilities": pytest.approx(judgement.probabilities, abs=TOLERANCE),
        "unsure_because": judgement.unsure_because,
    }


def ask_requests(url: str, photos: Photos) -> Answers:
    answers = {}
    with requests.Session() as session:
        for size, photo in photos.data.items():
            asked: dict[str, dict[str, Any]] = {
                "raw": {"data": photo},
                "raw with type": {"data": photo, "headers": {"Content-Type": JPEG}},
                "raw in chunks": {"data": iter([photo[:100], photo[100:]])},
                "form": {"files": {"file": ("photo.jpg", photo)}},
                "json": {"json": {"image": base64.b64encode(photo).decode()}},
            }
            for way, options in asked.items():
                answers[way, size] = post(session, url, options)
    return answers


def post(client: requests.Session | httpx.Client, url: str, options: dict[str, Any]) -> tuple[int, str]:
    try:
        response = client.post(url, timeout=30, **options)
    except (requests.ConnectionError, httpx.TransportError) as error:
        return HUNG_UP, str(error)
    return response.status_code, response.text


def ask_httpx(url: str, photos: Photos) -> Answers:
    answers = {}
    with httpx.Client() as client:
        for size, photo in photos.data.items():
            asked: dict[str, dict[str, Any]] = {
                "raw": {"content": photo},
                "raw in chunks": {"content": iter([photo[:100], photo[100:]])},
                "form": {"files": {"file": ("photo.jpg", photo, JPEG)}},
                "json": {"json": {"image": base64.b64encode(photo).decode()}},
            }
            for way, options in asked.items():
                answers[way, size] = post(client, url, options)
    return answers


def ask_aiohttp(url: str, photos: Photos) -> Answers:
    async def all_of_them() -> Answers:
        answers = {}
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(30)) as session:
            for size, photo in photos.data.items():
                form = aiohttp.FormData()
                form.add_field("file", photo, filename="photo.jpg", content_type=JPEG)
                asked: dict[str, dict[str, Any]] = {
                    "raw": {"data": photo, "headers": {"Content-Type": JPEG}},
                    "form": {"data": form},
                    "json": {"json": {"image": base64.b64encode(photo).decode()}},
                }
                for way, options in asked.items():
                    try:
                        async with session.post(url, **options) as response:
                            answers[way, size] = response.status, await response.text()
                    except aiohttp.ClientError as error:
                        answers[way, size] = HUNG_UP, str(error)
        await asyncio.sleep(0.1)  # a connection that was reset closes after its session
        return answers

    return asyncio.run(all_of_them())


def ask_urllib(url: str, photos: Photos) -> Answers:
    answers = {}
    for size, photo in photos.data.items():
        for way, body, content_type in (("raw", photo, JPEG), ("form", as_form(photo), FORM), ("json", as_json(photo), JSON)):
            request = urllib.request.Request(url, body, {"Content-Type": content_type})
            answers[way, size] = opened(request)
    return answers


def opened(request: urllib.request.Request) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()
    except urllib.error.URLError as error:
        return HUNG_UP, str(error)


CURL: dict[str, Callable[[Photos, int], list[str]]] = {
    "raw by PUT": lambda photos, size: ["-T", str(photos.path(size))],
    "raw by PUT, asking first": lambda photos, size: ["-T", str(photos.path(size)), "-H", "Expect: 100-continue"],
    "raw by PUT, not asking first": lambda photos, size: ["-T", str(photos.path(size)), "-H", "Expect:"],
    "raw by PUT in chunks": lambda photos, size: ["-T", str(photos.path(size)), "-H", "Transfer-Encoding: chunked"],
    "raw by HTTP/1.0": lambda photos, size: ["-0", "-T", str(photos.path(size))],
    "raw": lambda photos, size: ["--data-binary", f"@{photos.path(size)}", "-H", f"Content-Type: {JPEG}"],
    "form": lambda photos, size: ["-F", f"file=@{photos.path(size)}"],
    "json": lambda photos, size: ["-d", f"@{photos.path(size, 'json')}", "-H", f"Content-Type: {JSON}"],
}
CURL_WITHOUT_TYPE: dict[str, Callable[[Photos, int], list[str]]] = {
    "raw": lambda photos, size: ["--data-binary", f"@{photos.path(size)}"],
    "json": lambda photos, size: ["-d", f"@{photos.path(size, 'json')}"],
}


def ask_curl(url: str, photos: Photos, ways: dict[str, Callable[[Photos, int], list[str]]] = CURL) -> Answers:
    """Let one curl ask everything; each answer in a file of its own."""
    keys = [(way, size) for size in photos.data for way in ways]
    command = ["curl"]
    for number, (way, size) in enumerate(keys):
        command += ["--next"] if number else []
        output = ["-o", f"{photos.folder}/{number}.answer", "-w", "%{http_code}\n"]  # 000 when the server hung up
        command += ["-sS", "-m", "30", *ways[way](photos, size), *output, url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    statuses = [int(line) for line in done.stdout.split()]
    return {
        key: (status, read(photos.folder / f"{number}.answer"))
        for number, (key, status) in enumerate(zip(keys, statuses, strict=True))
    }


def read(path: Path) -> str:
    """Return what a client wrote down; nothing where an answer had no body."""
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    path.unlink(missing_ok=True)
    return text


def ask_wget(url: str, photos: Photos) -> Answers:
    answers = {}
    for size in photos.data:
        for way, ending, content_type in (("raw", "jpg", JPEG), ("form", "form", FORM), ("json", "json", JSON)):
            answers[way, size] = wget(url, photos.path(size, ending), "--header", f"Content-Type: {content_type}")
    return answers


def wget(url: str, body: Path, *options: str) -> tuple[int, str]:
    command = [
        "wget",
        "-S",
        "-O",
        "-",
        "--content-on-error",
        "--tries=1",
        "--timeout=30",
        "--post-file",
        str(body),
        *options,
        url,
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    statuses = [line.split()[1] for line in done.stderr.splitlines() if line.lstrip().startswith("HTTP/")]
    return (int(statuses[-1]), done.stdout) if statuses else (HUNG_UP, done.stderr)


def ask_node(client: str, url: str, photos: Photos, folder: Path) -> Answers:
    listed = folder / "photos.json"
    listed.write_text(json.dumps([{"size": size, "path": str(photos.path(size))} for size in photos.data]), encoding="utf-8")
    command = ["node", "ask.mjs", client, url, str(listed)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return {(answer["way"], answer["size"]): (answer["status"], answer["text"]) for answer in json.loads(done.stdout)}


@pytest.fixture(scope="module")
def node_scripts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    needs("node")
    folder = tmp_path_factory.mktemp("node")
    shutil.copytree(Path(__file__).parent / "clients", folder, dirs_exist_ok=True)
    return folder


@pytest.fixture(scope="module")
def axios_scripts(node_scripts: Path) -> Path:
    needs("npm")
    command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--fetch-retries=1"]
    done = subprocess.run(command, cwd=node_scripts, capture_output=True, text=True, timeout=120, check=False)
    if unreachable := re.search(r"code (E[45]\d\d|ENOTFOUND|EAI_AGAIN|ECONN\w+|ENETUNREACH|ETIMEDOUT)", done.stderr):
        pytest.skip(f"npm reaches no registry here: {unreachable[1]}")
    assert done.returncode == 0, done.stderr
    return node_scripts


def needs(program: str) -> None:
    if shutil.which(program) is None:
        pytest.skip(f"no {program} here")


def compare(answers: Answers, photos: Photos, direct: bool) -> None:
    """Compare whole answers. TorchServe closes the connection of a client that still sends a body that is too large, so the
    client may not see its 413; the gateway reads on."""
    kept = {key: answer for key, answer in answers.items() if not (direct and is_too_large(key) and answer[0] == HUNG_UP)}
    assert {size for _, size in answers} == set(SIZES)
    assert {key: said(answer) for key, answer in kept.items()} == {key: expected(key, photos) for key in kept}


@pytest.mark.parametrize("ask", [ask_requests, ask_httpx, ask_aiohttp, ask_urllib])
@pytest.mark.filterwarnings("ignore:Sending a large body")  # aiohttp would have a file for it
def test_clients_in_python_get_the_models_answer(ask: Callable[[str, Photos], Answers], target: Target, photos: Photos) -> None:
    compare(ask(target.url, photos), photos, target.direct)


def test_curl_gets_the_models_answer(target: Target, photos: Photos) -> None:
    needs("curl")
    compare(ask_curl(target.url, photos), photos, target.direct)


def test_wget_gets_the_models_answer(target: Target, photos: Photos) -> None:
    needs("wget")
    compare(ask_wget(target.url, photos), photos, target.direct)


def test_fetch_gets_the_models_answer(target: Target, photos: Photos, node_scripts: Path) -> None:
    compare(ask_node("fetch", target.url, photos, node_scripts), photos, target.direct)


def test_axios_gets_the_models_answer(target: Target, photos: Photos, axios_scripts: Path) -> None:
    compare(ask_node("axios", target.url, photos, axios_scripts), photos, target.direct)


def test_through_the_gateway_curl_needs_no_type(gateway: str, photos: Photos) -> None:
    needs("curl")
    compare(ask_curl(f"{gateway}/predict", photos, CURL_WITHOUT_TYPE), photos, direct=False)


def test_through_the_gateway_wget_needs_no_type(gateway: str, photos: Photos) -> None:
    needs("wget")
    compare({("raw", size): wget(f"{gateway}/predict", photos.path(size)) for size in photos.data}, photos, direct=False)


def test_on_torchserve_itself_curl_needs_no_type_for_json_with_padding(server: Serving, photos: Photos) -> None:
    """TorchServe takes the body for a form, and hands on nothing of one without any `=`: then curl is told what to say."""
    needs("curl")
    ways = {"json": CURL_WITHOUT_TYPE["json"]}
    answers = ask_curl(f"{server.url}/predictions/petclf", photos, ways)
    without = {key: answers.pop(key) for key in list(answers) if key[1] % 3 == 0}
    assert {answer[0] for answer in without.values()} == {415}
    padded = {key: answer for key, answer in answers.items() if not (is_too_large(key) and answer[0] == HUNG_UP)}
    assert {key: said(answer) for key, answer in padded.items()} == {key: expected(key, photos) for key in padded}
    assert len(padded) > len(SIZES) // 2


def test_on_torchserve_itself_a_photo_that_is_sent_as_a_form_is_refused(server: Serving, photos: Photos) -> None:
    """TorchServe decodes it before a worker sees it: what cannot be decoded it refuses itself."""
    for size, photo in photos.data.items():
        response = server.predict(photo, Content_Type=OF_FORMS)
        refused = response.json()
        code = refused["error"]["code"] if "error" in refused else refused["type"]
        assert (response.status_code, code) in ((415, "unsupported_media_type"), (500, "ErrorDataDecoderException")), size


@pytest.mark.parametrize("name", ["explain", "Host", "Accept", "Content-Type"])
def test_a_field_may_be_named_like_a_header(server: Serving, photos: Photos, name: str) -> None:
    url, photo = f"{server.url}/predictions/petclf", photos.data[4 * KB]
    headers = {"Host": "x", "Accept": "*/*"}
    response = requests.post(url, files={name: ("a.jpg", photo, JPEG)}, data={"note": "hello"}, headers=headers, timeout=30)
    assert said((response.status_code, response.text)) == predicted(photos.judged[4 * KB])


FORMS, CONNECTIONS = 2000, 4


@pytest.mark.slow
def test_a_form_gets_the_plain_photos_answer_however_it_is_written(server: Serving) -> None:
    known = photos_far_apart(["PNG"] * 6 + ["JPEG"] * 10)
    portions = [range(first, FORMS, CONNECTIONS) for first in range(CONNECTIONS)]
    with ThreadPoolExecutor(CONNECTIONS) as pool:
        wrong = list(itertools.chain(*pool.map(lambda seeds: answered_wrong(server.port, seeds, known), portions)))
    assert not wrong, f"{len(wrong)} of {FORMS}; the first: " + "\n".join(wrong[:3])


def answered_wrong(port: int, seeds: range, known: list[tuple[bytes, Judgement]]) -> list[str]:
    """Send a form for each seed over one connection; return seed, form and answer of those that were not answered right."""
    wrong = []
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=30)) as connection:
        for seed in seeds:
            rng = random.Random(seed)
            form, judgement = draw(rng, known)
            answer = send(connection, form, rng)
            if said(answer) != predicted(judgement):
                wrong.append(f"seed {seed}: {form!r} was answered {answer}")
    return wrong


def draw(rng: random.Random, known: list[tuple[bytes, Judgement]]) -> tuple[Form, Judgement]:
    size = round(math.exp(rng.uniform(math.log(100), math.log(300_000))))
    photo, judgement = rng.choice([one for one in known if len(one[0]) + 12 <= size])
    return draw_form(rng, lambda filler: filled(photo, size, filler)), judgement


def send(connection: http.client.HTTPConnection, form: Form, rng: random.Random) -> tuple[int, str]:
    """Send a form in a few pieces, cut anywhere; its head by hand, for a client writes a boundary as it likes."""
    if connection.sock is None:
        connection.connect()
    head = f"POST /predictions/petclf HTTP/1.1\r\nHost: x\r\nContent-Type: {form.content_type}\r\nContent-Length: {len(form.body)}\r\n\r\n"
    request = head.encode() + form.body
    cuts = sorted(rng.choices(range(len(request)), k=rng.randint(0, 3)))
    try:
        for start, end in itertools.pairwise([0, *cuts, len(request)]):
            connection.sock.sendall(request[start:end])
        with http.client.HTTPResponse(connection.sock, method="POST") as response:
            response.begin()
            answer = response.status, response.read().decode()
            if response.will_close:
                connection.close()
            return answer
    except (OSError, http.client.HTTPException) as error:
        connection.close()
        return HUNG_UP, repr(error)


@pytest.mark.parametrize("disposition", ['form-data; name=""; filename="a.jpg"', 'form-data; filename="a.jpg"', "form-data", ""])
def test_a_form_whose_part_has_no_name_is_refused_by_the_gateway_and_not_called_our_fault(gateway: str, disposition: str) -> None:
    head = f"Content-Disposition: {disposition}\r\n" if disposition else ""
    body = f"--{BOUNDARY}\r\n{head}Content-Type: {JPEG}\r\n\r\nphoto\r\n--{BOUNDARY}--\r\n"
    answer = requests.post(f"{gateway}/predict", body, headers={"Content-Type": FORM}, timeout=30)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "bad_request")
    assert "each part needs a Content-Disposition with a name" in answer.json()["error"]["message"]
