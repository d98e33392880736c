"""A version is drained and removed such that nobody waits for it, whatever a worker had in its hands."""

import email.message
import io
import re
import urllib.error
import urllib.request
from typing import Any

import pytest

from serving.management import Management, ManagementError


class TorchServe(Management):
    """Two versions; `in_hand` requests go back to the queue when the last worker is taken away, as TorchServe does it."""

    def __init__(self, in_hand: int = 0, stubborn: bool = False) -> None:
        super().__init__("nowhere")
        self.in_hand, self.stubborn = in_hand, stubborn
        self.waiting, self.workers = 0, 2
        self.calls: list[str] = []

    def ask(self, method: str, path: str, seconds: float = 0, **parameters: Any) -> Any:  # noqa: ARG002
        if method == "PUT":
            self.workers = parameters["min_worker"]
            self.calls.append(f"scale to {self.workers}")
            self.waiting, self.in_hand = (self.in_hand, 0) if not self.workers else (0, 3 if self.stubborn else 0)
        elif method == "DELETE":
            assert (self.waiting, self.workers) == (0, 0)
            self.calls.append(f"delete {path}")
            return {"status": "removed"}
        if path == "/models":
            return {"models": [{"modelName": "petclf"}]}
        if path.count("/") == 3 and not path.endswith("/all"):
            return [self.described("2.0.0")]
        described = [self.described("1.0.0"), self.described("2.0.0")]
        return described if path.endswith("/all") else described[:1]

    def described(self, version: str) -> dict[str, Any]:
        workers = [{"pid": pid, "status": "READY"} for pid in range(self.workers)]
        queue = {"pendingRequests": self.waiting, "remainingCapacity": 100 - self.waiting}
        return {"modelVersion": version, "modelUrl": "x.mar", "minWorkers": 2, "workers": workers, "jobQueueStatus": queue}


def test_a_version_that_nobody_asks_goes_at_once() -> None:
    server = TorchServe()
    assert server.remove("petclf", "2.0.0") == {"status": "removed"}
    assert server.calls == ["scale to 0", "delete /models/petclf/2.0.0"]


def test_what_a_worker_had_in_its_hands_is_answered_before_the_version_goes() -> None:
    server = TorchServe(in_hand=3)
    server.remove("petclf", "2.0.0")
    assert server.calls == ["scale to 0", "scale to 1", "scale to 0", "delete /models/petclf/2.0.0"]


@pytest.mark.parametrize(
    ("version", "status", "reason"),
    [
        ("3.0.0", 404, "there is no petclf 3.0.0"),
        ("1.0.0", 409, "petclf 1.0.0 is live; make another version the default first"),
    ],
)
def test_what_cannot_be_removed_is_refused_and_stays(version: str, status: int, reason: str) -> None:
    server = TorchServe()
    with pytest.raises(ManagementError) as refused:
        server.remove("petclf", version)
    assert (refused.value.status, str(refused.value), server.calls) == (status, reason, [])


def test_a_version_that_is_asked_all_the_time_is_not_waited_for_without_end() -> None:
    server = TorchServe(in_hand=3, stubborn=True)
    with pytest.raises(ManagementError, match="is asked all the time"):
        server.drain([*server.versions()][1], seconds=0.2)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b'{"code": 404, "type": "ModelNotFoundException", "message": "Model not found: petclf"}', "Model not found: petclf"),
        (b'{"error": {"code": "conflict", "message": "another version comes"}}', "another version comes"),
        (b"[]", "Service Unavailable"),
        (b'[{"message": "of a worker"}]', "Service Unavailable"),
        (b'{"error": "text"}', "Service Unavailable"),
        (b"<html>", "Service Unavailable"),
        (b"", "Service Unavailable"),
    ],
)
def test_a_refusal_is_told_whatever_its_body_is_like(body: bytes, said: str) -> None:
    class Refusing(urllib.request.OpenerDirector):
        def open(self, *_: Any, **__: Any) -> Any:
            raise urllib.error.HTTPError("http://there", 503, "Service Unavailable", email.message.Message(), io.BytesIO(body))

    with pytest.raises(ManagementError, match=f"^{re.escape(said)}$") as refused:
        Management("http://there", opener=Refusing()).ask("GET", "/models")
    assert refused.value.status == 503
