"""What a request is refused with: a status for the protocol, a code for programs, a sentence for people."""

import logging
from collections.abc import Callable
from typing import Any, TypeVar

from handler.photo_input import InvalidPhoto

logger = logging.getLogger(__name__)
Result = TypeVar("Result")

STATUS = {
    "url_not_allowed": 403,
    "too_large": 422,
    "too_many_pixels": 422,
    "too_many_instances": 422,
    "unsupported_media_type": 415,
    "url_failed": 422,
    "internal_error": 500,
    "out_of_time": 503,
    "busy": 503,
    "dear_request": 503,
}


class Refusal(Exception):  # noqa: N818  (it says what happens better than RefusalError)
    """This request, or this photo of it, gets no answer."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.status = STATUS.get(code, 400)


def attempt(read: Callable[..., Result], *what: Any) -> Result | Refusal:
    """Return what is read of a stranger's bytes, or the refusal that they get: no exception touches a neighbour.

    The refusal is a new one: the traceback of the one that was raised would keep the whole batch in memory until Python collects cycles.
    """
    try:
        return read(*what)
    except (Refusal, InvalidPhoto) as error:
        return Refusal(error.code, str(error))
    except Exception:
        logger.exception("a request could not be read")
        return Refusal("internal_error", "this request could not be read; the reason is in the server's log")
