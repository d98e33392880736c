"""What a request is refused with: a status for the protocol, a code for programs, a sentence for people."""

from handler.photo_input import InvalidPhoto

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
}


class Refusal(Exception):  # noqa: N818  (it says what happens better than RefusalError)
    """This request, or this photo of it, gets no answer."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.status = STATUS.get(code, 400)

    @classmethod
    def of(cls, error: InvalidPhoto) -> "Refusal":
        return cls(error.code, str(error))

    def without_traceback(self) -> "Refusal":
        """Drop what raised it: a traceback would keep the whole batch in memory until Python collects cycles."""
        self.__traceback__ = self.__context__ = self.__cause__ = None
        return self
