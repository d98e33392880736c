"""Multipart forms as clients of all kinds write them: drawn from a seed, so that a failure can be drawn again."""

import random
import string
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

TOKEN = string.ascii_letters + string.digits + "'+_-."
LEGAL_IN_BOUNDARY = TOKEN + "(),/:=? "  # RFC 2046; a space not at the end
NAMES = [
    "file", "image", "photo", "data", "body", "describe", "x[0]", "the photo", "Bild ä 猫", "a%22b", "a;b", "a=b", "a,b", "explain", "Host",
]  # fmt: skip
FILE_NAMES = [
    "photo.jpg", "a b.jpg", "C:\\\\photos\\\\a.jpg", 'my \\"best\\" cat.jpg', "my %22best%22 cat.jpg", "it's.jpg", "a;b.jpg", "a=b,c.jpg",
    "Kätzchen 猫.jpg", "Кошка.png", "🐈.jpg", "..", "-", "a" * 200 + ".jpg",
]  # fmt: skip
TYPES = ["image/jpeg", "image/png", "application/octet-stream", "Image/JPEG; quality=1", None]
TEXTS = ["", "hello", "a=b&c=d", "line\r\nline", "-", "--", "\r\n", "ünï 猫", "x" * 5000, '{"image": "x"}']


@dataclass(frozen=True)
class Form:
    """A body with one photo among other fields."""

    content_type: str
    before: bytes
    photo: bytes
    after: bytes

    @property
    def body(self) -> bytes:
        return self.before + self.photo + self.after

    def __repr__(self) -> str:
        return f"{self.content_type!r} {self.before!r} + {len(self.photo)} bytes + {self.after!r}"


def draw_form(rng: random.Random, make_photo: Callable[[Callable[[int], bytes]], bytes]) -> Form:
    """Return a form; `make_photo` gets what to fill a photo up with: bytes that nearly end the form."""
    while True:
        boundary = draw_boundary(rng)
        photo = make_photo(partial(nearly, boundary, rng))
        fields = [text_field(rng) for _ in range(rng.choice((0, 0, 1, 3)))]
        if not any(f"--{boundary}".encode() in content for content in (photo, *fields)):  # or no client would choose it
            break
    split = rng.randint(0, len(fields))
    delimiter = f"--{boundary}\r\n".encode()
    before = b"".join(delimiter + field for field in fields[:split]) + delimiter + photo_head(rng)
    after = b"\r\n" + b"".join(delimiter + field for field in fields[split:]) + f"--{boundary}--".encode()
    return Form(content_type(boundary, rng), before, photo, after + rng.choice((b"\r\n", b"")))


def draw_boundary(rng: random.Random) -> str:
    if rng.random() < 0.3:
        return "-" * rng.randint(10, 30) + "".join(rng.choices(string.hexdigits, k=16))  # curl's, browsers'
    return "".join(rng.choices(LEGAL_IN_BOUNDARY, k=rng.randint(0, 69))) + rng.choice(LEGAL_IN_BOUNDARY[:-1])


def content_type(boundary: str, rng: random.Random) -> str:
    quoted = any(letter not in TOKEN for letter in boundary) or rng.random() < 0.3
    value = f'"{boundary}"' if quoted else boundary
    return rng.choice(("multipart/form-data; boundary={}", "multipart/form-data;boundary={}")).format(value)


def photo_head(rng: random.Random) -> bytes:
    disposition = f'Content-Disposition: form-data; name="{rng.choice(NAMES)}"; filename="{rng.choice(FILE_NAMES)}"'
    if rng.random() < 0.1:
        disposition += "; filename*=UTF-8''K%C3%A4tzchen.jpg"
    lines = [disposition]
    if kind := rng.choice(TYPES):
        lines.append(f"Content-Type: {kind}")
    if rng.random() < 0.2:
        lines.append("Content-Transfer-Encoding: binary")
    rng.shuffle(lines)
    return "".join(f"{line}\r\n" for line in (*lines, "")).encode()


def text_field(rng: random.Random) -> bytes:
    head = f'Content-Disposition: form-data; name="note {rng.randint(0, 10**9)}"\r\n'
    if rng.random() < 0.3:
        head += "Content-Type: text/plain; charset=utf-8\r\n"  # .NET's and Spring's
    return f"{head}\r\n{rng.choice(TEXTS)}\r\n".encode()


def nearly(boundary: str, rng: random.Random, count: int) -> bytes:
    """Return bytes with many beginnings of the form's delimiter in them, and never all of it."""
    begun = f"\r\n--{boundary}"
    pieces = [b"\r", b"\n", b"\r\n", b"\r\n--", b"--\r\n", begun[: rng.randint(1, len(begun) - 1)].encode()]
    filling = bytearray(rng.randbytes(count))
    for _ in range(count // 200):
        piece = rng.choice(pieces)
        where = rng.randrange(count)
        filling[where : where + len(piece)] = piece
    return bytes(filling[:count])
