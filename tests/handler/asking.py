"""Requests as TorchServe hands them to a worker."""

import json
from typing import Any

from handler.petclf_handler import to_request
from handler.question import Request

PREDICT = {"explain": "False"}
EXPLAIN = {"explain": "True"}


def raw(data: bytes, headers: dict[str, Any] | None = None, id: str = "id") -> Request:
    return to_request({"body": bytearray(data)}, {**PREDICT, "Content-Length": str(len(data)), **(headers or {})}, id)


def as_json(content: object, headers: dict[str, Any] | None = None, id: str = "id") -> Request:
    return raw(json.dumps(content).encode(), {"Content-Type": "application/json", **(headers or {})}, id)


def form(fields: dict[str, bytes], types: dict[str, str], id: str = "id") -> Request:
    parts = {name: {"content-type": types.get(name, "")} for name in fields}
    headers = {**parts, **PREDICT, "Content-Type": "multipart/form-data; boundary=x"}
    return to_request({name: bytearray(data) for name, data in fields.items()}, headers, id)


def get(headers: dict[str, Any] | None = None, id: str = "id") -> Request:
    return to_request({"body": bytearray()}, {**PREDICT, "content-length": "0", **(headers or {})}, id)


def content(reply: Any) -> Any:
    return json.loads(reply.body)


def lasting(reply: Any) -> Any:
    """The reply without what differs from time to time."""
    answer = content(reply)
    for one in answer.get("predictions", [answer]):
        one.pop("milliseconds", None)
    return answer
