"""Dear requests give way: whoever sends ordinary photos is answered, whatever others send beside it."""

import base64
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests
from PIL import Image

from tests.drawing import draw_photo, encoded
from tests.e2e.conftest import Serving

pytestmark = pytest.mark.e2e

PHOTO = encoded(draw_photo("cat", 1, (500, 375)), quality=90)
SECONDS = 6
ATTACKERS = 8
LONGEST = 15.0
DEAR = {
    "PNG of 25 megapixels": (encoded(Image.new("RGB", (5800, 4300)), "PNG"), "image/png"),
    "32 instances": (
        b'{"instances": [' + b", ".join([b'"' + base64.b64encode(PHOTO) + b'"'] * 32) + b"]}", "application/json",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", DEAR)
def test_ordinary_photos_are_all_answered_beside_dear_ones(server: Serving, kind: str) -> None:
    data, content_type = DEAR[kind]
    over = threading.Event()

    def attack() -> Counter[tuple[int, str]]:
        seen: Counter[tuple[int, str]] = Counter()
        while not over.is_set():
            response = server.predict(data, Content_Type=content_type)
            seen[response.status_code, response.json().get("error", {}).get("code", "")] += 1
            assert response.status_code == 200 or int(response.headers["Retry-After"]) > 0
        return seen

    with ThreadPoolExecutor(ATTACKERS) as pool:
        attacks = [pool.submit(attack) for _ in range(ATTACKERS)]
        try:
            statuses, longest = ask_for(SECONDS, server)
        finally:
            over.set()
        seen = sum((attack.result() for attack in attacks), Counter())
    assert statuses == Counter({200: sum(statuses.values())})
    assert longest < LONGEST
    assert set(seen) <= {(200, ""), (503, "dear_request"), (503, "out_of_time")}
    assert seen[503, "dear_request"] > 0


def ask_for(seconds: float, server: Serving) -> tuple[Counter[int], float]:
    """Send an ordinary photo several times a second; returns what came back, and the longest time that it took."""
    statuses: Counter[int] = Counter()
    longest, end = 0.0, time.monotonic() + seconds
    while time.monotonic() < end:
        began = time.monotonic()
        statuses[server.predict(PHOTO).status_code] += 1
        longest = max(longest, time.monotonic() - began)
        time.sleep(0.2)
    return statuses, longest


def test_a_dear_request_alone_is_answered(server: Serving) -> None:
    for data, content_type in DEAR.values():
        response = retried(server, data, content_type)
        assert response.status_code == 200, response.text


def retried(server: Serving, data: bytes, content_type: str) -> requests.Response:
    """Ask again as the API says: a machine that runs other tests may have looked at a photo in the same moment."""
    for _ in range(5):
        response = server.predict(data, Content_Type=content_type)
        if response.status_code != 503:
            break
        time.sleep(float(response.headers["Retry-After"]))
    return response
