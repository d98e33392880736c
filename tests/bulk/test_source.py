"""Photos are found and read wherever they lie, within the handler's limits; what cannot be read is a refusal, not the run's end."""

import os
import pickle
import zipfile
from pathlib import Path

import pytest

from bulk import source as sources
from bulk.errors import BulkError
from bulk.source import SUFFIXES, Source, source_of
from handler import fetch as fetching
from handler.limits import MAX_BODY
from handler.refusal import Refusal
from operate import client
from tests.drawing import draw_photo, encoded

PHOTO = encoded(draw_photo("cat", 1))


def fill(folder: Path) -> Path:
    for name in ("b.jpg", "a/1.PNG", "a/2.heic", "a/.hidden.jpg", "a/notes.txt", "é.webp"):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    return folder


def zipped(folder: Path, target: Path) -> Path:
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as packed:
        for path in sorted(folder.rglob("*")):
            packed.write(path, path.relative_to(folder))
        packed.writestr("__MACOSX/b.jpg", b"no photo")
    return target


def found(source: Source) -> dict[str, bytes | str]:
    return {
        name.decode(): data.code if isinstance(data, Refusal) else data for name, data in source.read_all(source.listed().names)
    }


ALL = {name: name.encode() for name in ("a/1.PNG", "a/2.heic", "b.jpg", "é.webp")}


def test_photos_of_a_folder_a_zip_and_a_bucket_are_the_same_in_the_same_order(tmp_path: Path) -> None:
    folder = fill(tmp_path / "photos")
    packed = zipped(folder, tmp_path / "photos.zip")
    for address, others in ((str(folder), 2), (str(packed), 3), (folder.as_uri(), 2), (packed.as_uri(), 3)):
        source = source_of(address)
        assert found(source) == ALL, address
        assert found(pickle.loads(pickle.dumps(source))) == ALL, f"{address}, on its way to a worker"
        assert source.listed().names == sorted(name.encode() for name in ALL)
        assert source.listed().left_out == others, address


def test_the_suffixes_are_those_of_the_other_commands() -> None:
    assert SUFFIXES == client.SUFFIXES


def test_names_in_no_encoding_are_read(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"d\xffg.jpg")).write_bytes(PHOTO)
    source = source_of(str(tmp_path))
    assert list(source.read_all(source.listed().names)) == [(b"d\xffg.jpg", PHOTO)]


def test_a_csv_names_paths_and_addresses_each_once(tmp_path: Path) -> None:
    folder = fill(tmp_path / "photos")
    table = tmp_path / "list.csv"
    lines = ["id,photo", "1,photos/b.jpg", f"2,{(folder / 'a/1.PNG').as_uri()}", "3,photos/b.jpg", f"4,{folder}/a/2.heic", "5,"]
    table.write_text("\ufeff" + "\n".join(lines), encoding="utf-8")
    assert found(source_of(str(table))) == {
        f"{folder}/a/2.heic": b"a/2.heic",
        (folder / "a/1.PNG").as_uri(): b"a/1.PNG",
        "photos/b.jpg": b"b.jpg",
    }


@pytest.mark.parametrize("column", ["photo", "path", "url"])
def test_a_csv_may_call_its_column_in_three_ways(column: str, tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text(f"{column}\na.jpg\n", encoding="utf-8")
    assert source_of(str(tmp_path / "list.csv")).listed().names == [b"a.jpg"]


def test_what_cannot_be_read_is_a_refusal(tmp_path: Path) -> None:
    (tmp_path / "large.jpg").write_bytes(bytes(MAX_BODY + 1))
    (tmp_path / "largest.jpg").write_bytes(bytes(MAX_BODY))
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "list.csv").write_text("photo\nlarge.jpg\nlargest.jpg\npipe.jpg\nabsent.jpg\n/dev/zero\n.\n", encoding="utf-8")
    source = source_of(str(tmp_path / "list.csv"))
    told = {
        name.decode(): f"{data.code}: {data.message}" if isinstance(data, Refusal) else len(data)
        for name, data in source.read_all(source.listed().names)
    }
    assert told == {
        "large.jpg": "too_large: the photo is larger than 10,485,760 bytes",
        "largest.jpg": MAX_BODY,
        "pipe.jpg": "cannot_read: the photo cannot be read: it is no file",
        "absent.jpg": "cannot_read: the photo cannot be read: No such file or directory",
        "/dev/zero": "cannot_read: the photo cannot be read: it is no file",
        ".": "cannot_read: the photo cannot be read: it is no file",
    }


def test_damage_in_a_zip_touches_one_photo_only(tmp_path: Path) -> None:
    path = tmp_path / "photos.zip"
    with zipfile.ZipFile(path, "w") as packed:
        packed.writestr("a.jpg", b"first photo")
        packed.writestr("b.jpg", b"second photo")
    path.write_bytes(path.read_bytes().replace(b"first photo", b"worse photo"))
    assert found(source_of(str(path))) == {"a.jpg": "cannot_read", "b.jpg": b"second photo"}


def test_a_failing_network_is_asked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "PAUSE", 0)
    failures: list[Exception] = [OSError("the line is down"), RuntimeError("the line is down")]

    def read() -> bytes:
        if failures:
            raise failures.pop()
        return b"a photo"

    assert sources.again(read) == b"a photo"
    failures += [RuntimeError("the store is away")] * sources.TRIES
    refusal = sources.again(read)
    assert isinstance(refusal, Refusal)
    assert (refusal.code, refusal.message) == ("cannot_read", "the photo cannot be read: the store is away")
    assert failures == []
    failures += [FileNotFoundError("gone"), OSError("not reached")]
    failures.reverse()
    with pytest.raises(FileNotFoundError):
        sources.again(read)
    assert len(failures) == 1
    (tmp_path / "list.csv").write_text(f"photo\n{tmp_path.as_uri()}/absent.jpg\n", encoding="utf-8")
    assert found(source_of(str(tmp_path / "list.csv"))) == {f"{tmp_path.as_uri()}/absent.jpg": "cannot_read"}


def test_web_addresses_need_a_list_of_hosts(tmp_path: Path) -> None:
    table = tmp_path / "list.csv"
    table.write_text("url\nhttps://photos.example.org/1.jpg\nhttp://other.example.org/2.jpg\n", encoding="utf-8")
    source = source_of(str(table))
    assert isinstance(source, sources.Addresses)
    with pytest.raises(BulkError, match=r"names 2 web addresses; allow their hosts, e\.g\. --allow-host other\.example\.org"):
        source.require_allowed(source.listed().names)
    source_of(str(table), frozenset({"photos.example.org"}))


def test_only_allowed_public_hosts_are_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "PAUSE", 0)
    monkeypatch.setattr(fetching.socket, "getaddrinfo", lambda *_, **__: [(2, 1, 6, "", ("10.0.0.1", 80))])
    table = tmp_path / "list.csv"
    addresses = [
        "http://inside.example.org/1.jpg",
        "http://other.example.org/2.jpg",
        "simplecache::http://x/3.jpg",
        "ftp://x/4.jpg",
    ]
    table.write_text("url\n" + "\n".join(addresses), encoding="utf-8")
    source = source_of(str(table), frozenset({"inside.example.org"}))
    told = {name.decode(): data.message for name, data in source.read_all(source.listed().names) if isinstance(data, Refusal)}
    others = "an address may begin with file, s3, s3a, gs, gcs, az, abfs, abfss, hdfs, http or https"
    assert told == {
        "http://inside.example.org/1.jpg": "the host of url has a private address",
        "http://other.example.org/2.jpg": "the host of url is not on this server's list",
        "simplecache::http://x/3.jpg": others,
        "ftp://x/4.jpg": others,
    }


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("absent", "there is nothing at absent"),
        ("http://example.org/photos/", "write its photos' addresses into a CSV"),
        ("zip::http://example.org/photos.zip", "write its photos' addresses into a CSV"),
        ("nonsense://photos", "nonsense://photos is no address that can be opened"),
    ],
)
def test_what_is_no_source_is_refused(address: str, told: str) -> None:
    with pytest.raises(BulkError, match=told):
        source_of(address).listed()


def test_a_csv_without_a_column_of_photos_is_refused(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("name\n1.jpg\n", encoding="utf-8")
    with pytest.raises(BulkError, match="has no column photo or path or url; its first line names the columns"):
        source_of(str(tmp_path / "list.csv")).listed()
