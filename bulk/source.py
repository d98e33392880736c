"""Where the photos are: a folder, a zip, a bucket, or a CSV of addresses. Lists them, and reads one at a time within the handler's limits."""

import csv
import io
import os
import stat
import time
import zipfile
import zlib
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

from bulk.errors import BulkError
from bulk.files import is_url, open_url
from handler.fetch import Fetcher
from handler.limits import FETCHES, MAX_BODY
from handler.refusal import Refusal

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif", ".heic", ".heif"}
COLUMNS = ("photo", "path", "url")  # of a CSV, any one of them
BUCKETS = ("file", "s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "hdfs")  # that a CSV may name; http has a list of hosts
TRIES = 3  # of what comes over a network
PAUSE = 1.0  # seconds before the second try; twice as much before the third
READERS = 8  # photos that are on their way over a network at a time
NEVER = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError)  # trying again does not help

Photo = tuple[bytes, bytes | Refusal]


@dataclass(frozen=True)
class Listed:
    """All photos of a source in their final order, and how many other files lie among them."""

    names: list[bytes]
    stamps: list[bytes]  # what would tell that a photo is another one now: its size
    left_out: int = 0


class Source(ABC):
    """Photos by their name. Travels to the workers, where it is opened anew."""

    def __getstate__(self) -> dict[str, Any]:
        """Return the address and no more: nothing that is open can travel."""
        return {name: value for name, value in vars(self).items() if name in self.__dataclass_fields__}  # type: ignore[attr-defined]

    @abstractmethod
    def found(self) -> Iterator[tuple[bytes, bytes, bool]]:
        """Yield the name of every file, its stamp, and whether it is called like a photo."""

    @abstractmethod
    def read(self, name: bytes) -> bytes | Refusal:
        """Return a photo's bytes, or why there are none."""

    def is_near(self, names: Sequence[bytes]) -> bool:  # noqa: ARG002  (an address tells, a folder knows)
        """Tell whether reading waits for no network."""
        return True

    def listed(self) -> Listed:
        """Return the photos sorted by name, each once."""
        photos: dict[bytes, bytes] = {}
        left_out = 0
        for name, stamp, is_photo in self.found():
            if is_photo:
                photos[name] = stamp
            else:
                left_out += 1
        names = sorted(photos)
        return Listed(names, [photos[name] for name in names], left_out)

    def read_all(self, names: Sequence[bytes]) -> Iterator[Photo]:
        """Yield photos in their order; over a network some are read ahead."""
        if self.is_near(names):
            yield from ((name, self.read(name)) for name in names)
        else:
            yield from zip(names, ahead(self.read, names), strict=True)


@dataclass(frozen=True)
class Folder(Source):
    """A folder on this machine, or on a disk that all machines share."""

    root: str

    def found(self) -> Iterator[tuple[bytes, bytes, bool]]:
        waiting = [b""]
        while waiting:
            inside = waiting.pop()
            with os.scandir(self.place(inside)) as entries:
                for entry in entries:
                    name = inside + b"/" + entry.name if inside else entry.name
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(name)
                    else:
                        is_photo = looks_like_photo(entry.name) and entry.is_file()
                        yield name, str(entry.stat().st_size).encode() if is_photo else b"", is_photo

    def read(self, name: bytes) -> bytes | Refusal:
        return refusing(lambda: read_file(self.place(name)))

    def place(self, name: bytes) -> bytes:
        return os.fsencode(self.root) + b"/" + name


@dataclass(frozen=True)
class Bucket(Source):
    """Everything below an address that fsspec opens: s3://, gs://, abfs://, file:// ..."""

    address: str

    @cached_property
    def opened(self) -> tuple[Any, str]:
        return open_url(self.address)

    def found(self) -> Iterator[tuple[bytes, bytes, bool]]:
        fs, root = self.opened
        for path, facts in fs.find(root, detail=True).items():
            name = str(path)[len(root) :].lstrip("/").encode("utf-8", "surrogateescape")
            yield name, str(facts.get("size")).encode(), looks_like_photo(name.rsplit(b"/", 1)[-1])

    def read(self, name: bytes) -> bytes | Refusal:
        fs, root = self.opened
        path = f"{root}/{name.decode('utf-8', 'surrogateescape')}"
        return refusing(lambda: again(lambda: read_limited(fs.open(path, "rb"))))

    def is_near(self, names: Sequence[bytes]) -> bool:  # noqa: ARG002
        return False


@dataclass(frozen=True)
class Zip(Source):
    """A zip, on a disk or in a bucket; nothing is unpacked."""

    address: str

    @cached_property
    def packed(self) -> zipfile.ZipFile:
        try:
            if is_url(self.address):
                fs, path = open_url(self.address)
                return zipfile.ZipFile(fs.open(path, "rb"))
            return zipfile.ZipFile(self.address)
        except (zipfile.BadZipFile, OSError) as error:
            raise BulkError(f"{self.address} cannot be read as a zip: {error}") from None

    def found(self) -> Iterator[tuple[bytes, bytes, bool]]:
        for entry in self.packed.infolist():
            if not entry.is_dir():
                inside = entry.filename.startswith("__MACOSX/")
                is_photo = looks_like_photo(entry.filename.rsplit("/", 1)[-1].encode()) and not inside
                yield entry.filename.encode(), f"{entry.file_size} {entry.CRC}".encode(), is_photo

    def read(self, name: bytes) -> bytes | Refusal:
        return refusing(lambda: read_limited(self.packed.open(name.decode())))


@dataclass(frozen=True)
class Addresses(Source):
    """A CSV of paths and addresses. A relative path begins at the CSV; of http only hosts that were allowed are asked."""

    address: str
    hosts: frozenset[str]

    @cached_property
    def fetcher(self) -> Fetcher:
        return Fetcher(self.hosts)

    def found(self) -> Iterator[tuple[bytes, bytes, bool]]:
        for row in self.rows():
            if row:
                yield row.encode("utf-8", "surrogateescape"), b"", True

    def rows(self) -> Iterator[str]:
        with open_text(self.address) as file:
            reader = csv.DictReader(file)
            column = next((name for name in COLUMNS if name in (reader.fieldnames or [])), None)
            if not column:
                raise BulkError(f"{self.address} has no column {' or '.join(COLUMNS)}; its first line names the columns")
            try:
                yield from ((row[column] or "").strip() for row in reader)
            except csv.Error as error:
                raise BulkError(f"{self.address}, line {reader.line_num}: {error}") from None

    def is_near(self, names: Sequence[bytes]) -> bool:
        return not is_url(self.address) and not any(b"://" in name for name in names)

    def read(self, name: bytes) -> bytes | Refusal:
        address = name.decode("utf-8", "surrogateescape")
        if not is_url(address):
            return refusing(self.beside(address))
        scheme = address.split("://", 1)[0].lower()
        if scheme in ("http", "https"):
            return self.fetched(address)
        if scheme not in BUCKETS:  # fsspec would follow others, such as simplecache::http, to hosts that nobody allowed
            return Refusal("url_not_allowed", f"an address may begin with {', '.join(BUCKETS)}, http or https")
        return refusing(lambda: again(lambda: read_url(address)))

    def beside(self, path: str) -> Callable[[], bytes | Refusal]:
        if is_url(self.address):
            return lambda: again(lambda: read_url(f"{self.address.rsplit('/', 1)[0]}/{path}"))
        return lambda: read_file(os.path.join(os.path.dirname(self.address), path))  # noqa: PTH118, PTH120  (any bytes)

    def fetched(self, address: str) -> bytes | Refusal:
        """Return the photo at an address as the server would fetch it, but ask more than once."""
        found: bytes | Refusal = b""
        for number in range(TRIES):
            time.sleep(PAUSE * number)
            [found] = self.fetcher.fetch_all([address])
            if not isinstance(found, Refusal) or found.code not in ("busy", "url_failed"):
                break
        return found

    def require_allowed(self, names: Sequence[bytes]) -> None:
        """Refuse a list with web addresses unless somebody has said which hosts may be asked."""
        web = [name.decode("utf-8", "replace") for name in names if name.lower().startswith((b"http://", b"https://"))]
        if web and not self.hosts:
            raise BulkError(
                f"{self.address} names {len(web):,} web addresses; allow their hosts, e.g. --allow-host {urlsplit(web[0]).hostname}"
            )


def source_of(address: str, hosts: frozenset[str] = frozenset()) -> Source:
    """Return what lies at an address."""
    if address.lower().startswith(("http://", "https://")) or "::" in address:
        raise BulkError(f"{address} is not listed: write its photos' addresses into a CSV, and allow the host with --allow-host")
    local = "" if is_url(address) else str(Path(address).absolute())
    if local and not Path(local).exists():
        raise BulkError(f"there is nothing at {address}")
    if address.lower().endswith(".csv"):
        return Addresses(local or address, hosts)
    if address.lower().endswith(".zip"):
        return Zip(local or address)
    if not local:
        return Bucket(address)
    if Path(local).is_dir():
        return Folder(local)
    raise BulkError(f"{address} is no folder, zip, CSV or bucket")


def looks_like_photo(name: bytes) -> bool:
    return not name.startswith(b".") and os.path.splitext(name.lower())[1].decode("utf-8", "replace") in SUFFIXES  # noqa: PTH122


def open_text(address: str) -> IO[str]:
    try:
        if is_url(address):
            fs, path = open_url(address)
            return io.TextIOWrapper(fs.open(path, "rb"), encoding="utf-8-sig", errors="surrogateescape", newline="")
        return open(address, encoding="utf-8-sig", errors="surrogateescape", newline="")  # noqa: PTH123
    except OSError as error:
        raise BulkError(f"{address} cannot be read: {error}") from None


@lru_cache(maxsize=16)
def file_system(start: str) -> Any:
    return open_url(start)[0]


def read_url(address: str) -> bytes | Refusal:
    scheme, rest = address.split("://", 1)
    fs = file_system(f"{scheme}://{rest.split('/', 1)[0]}/")
    return read_limited(fs.open(address, "rb"))


def read_file(path: bytes | str) -> bytes | Refusal:
    """Return a file's bytes; a device or a pipe, which might never end, is none."""
    if not stat.S_ISREG(os.stat(path).st_mode):  # noqa: PTH116  (any bytes)
        return unreadable("it is no file")
    return read_limited(open(path, "rb"))  # noqa: PTH123


def read_limited(file: IO[bytes]) -> bytes | Refusal:
    with file:
        data = file.read(MAX_BODY + 1)
    if len(data) > MAX_BODY:
        return Refusal("too_large", f"the photo is larger than {MAX_BODY:,} bytes")
    return data


def unreadable(reason: str) -> Refusal:
    return Refusal("cannot_read", f"the photo cannot be read: {reason}")


def refusing(read: Callable[[], bytes | Refusal]) -> bytes | Refusal:
    """Return what was read, or a refusal that says why nothing was."""
    try:
        return read()
    except OSError as error:
        return unreadable(error.strerror or type(error).__name__)
    except (zipfile.BadZipFile, zlib.error, EOFError, KeyError, NotImplementedError, RuntimeError, ValueError) as error:
        return unreadable(str(error) or type(error).__name__)


def again(read: Callable[[], bytes | Refusal]) -> bytes | Refusal:
    """Read what comes over a network; a failure that may pass is no answer yet."""
    reason = ""
    for number in range(1, TRIES + 1):
        try:
            return read()
        except NEVER:
            raise
        except Exception as error:  # every store's library has kinds of its own
            reason = (str(error).splitlines() or [type(error).__name__])[0]
        time.sleep(PAUSE * number if number < TRIES else 0)
    return unreadable(reason)


def ahead(read: Callable[[bytes], bytes | Refusal], names: Sequence[bytes]) -> Iterator[bytes | Refusal]:
    """Yield in order what threads read; few photos wait in memory."""
    pool = ThreadPoolExecutor(min(READERS, FETCHES))
    waiting: deque[Future[bytes | Refusal]] = deque()
    try:
        for name in names:
            waiting.append(pool.submit(read, name))
            if len(waiting) >= 2 * READERS:
                yield waiting.popleft().result()
        yield from (future.result() for future in waiting)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
