"""The prediction log, photo by photo -> what is known about drift at the last look."""

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from handler.model_file import ModelFileError, read_archive, read_model_file
from operate.drift import (
    EVERY,
    LEAST_REFERENCE,
    REFERENCE,
    Columns,
    DriftError,
    Finding,
    Look,
    ModelReference,
    PhotosBefore,
    Reference,
    findings,
    look,
)
from operate.photo_log import Photo, PhotoLog, new_photos

KEPT = 20_000  # photos: the largest window, and as many before it
TOO_LITTLE = "too little data"


class Watch:
    """The photos that one version of the model answered: the first are the reference unless there is one, the last are kept."""

    def __init__(self, version: str, reference: Reference | None = None) -> None:
        self.version, self.reference = version, reference
        self.first: list[Photo] = []
        self.last: deque[Photo] = deque(maxlen=KEPT)
        self.count = 0  # photos beside the reference

    def add(self, photo: Photo) -> None:
        if self.reference:
            self.last.append(photo)
            self.count += 1
            return
        self.first.append(photo)
        if len(self.first) == REFERENCE:
            self.reference = PhotosBefore(f"the first {REFERENCE:,} photos of the log", Columns.of(self.first))

    @property
    def lacking(self) -> str:
        """Say what is missing for a look, or nothing."""
        photos = f"photos of version {self.version}" if self.version else "photos"
        if not self.reference:
            return f"the log has {len(self.first):,} {photos}; the first {REFERENCE:,} become the reference"
        if self.count < EVERY:
            return f"the log has {self.count:,} {photos} beside the reference; a look needs {EVERY}"
        return ""

    def looks(self, photos: Columns, most: int) -> tuple[Look, ...]:
        """Return the last looks, the oldest first."""
        if self.lacking or not self.reference:
            return ()
        ends = [*range(len(photos) - self.count % EVERY, EVERY - 1, -EVERY)][:most]
        return tuple(look(self.reference, photos, end) for end in reversed(ends))


@dataclass(frozen=True)
class State:
    """What is known of one version's photos."""

    version: str
    reference: Reference | None
    lacking: str
    photos: Columns  # the last ones
    count: int  # of all, beside the reference
    other_versions: int
    broken: int
    looks: tuple[Look, ...]

    @property
    def verdict(self) -> str:
        return self.looks[-1].verdict if self.looks else TOO_LITTLE

    @property
    def findings(self) -> list[Finding]:
        return findings(self.looks[-1], self.photos) if self.looks else []


class Watcher:
    """Reads logs again and again, and compares the photos of the version that answered last, or of the one that is named.

    Without references, each version is compared with its own first photos.
    """

    def __init__(
        self, logs: Sequence[PhotoLog], references: Mapping[str, Reference] | None = None, version: str | None = None
    ) -> None:
        self.logs, self.references, self.version = logs, references, version
        self.watches: dict[str, Watch] = {}
        self.newest = ""

    def read(self) -> None:
        self.add(new_photos(self.logs))

    def add(self, photos: Iterable[Photo]) -> None:
        for photo in photos:
            self.newest = photo.version
            if photo.version not in self.watches:
                self.watches[photo.version] = Watch(photo.version, (self.references or {}).get(photo.version))
            self.watches[photo.version].add(photo)

    def state(self, looks: int = 1) -> State:
        version = self.version or self.newest
        broken = sum(log.broken for log in self.logs)
        if not version and broken:
            raise DriftError(
                f"none of {broken:,} lines is one of petclf's prediction log; name the file of PETCLF_PREDICTION_LOG"
            )
        if self.references is not None and version and version not in self.references:
            raise DriftError(
                f"the reference has {' and '.join(self.references) or 'no version'}, and the photos were answered by {version}; "
                "take a reference of that version"
            )
        watch = self.watches.get(version) or Watch(version, (self.references or {}).get(version))
        photos = Columns.of(watch.last)
        others = sum(one.count + len(one.first) for name, one in self.watches.items() if name != version)
        return State(version, watch.reference, watch.lacking, photos, watch.count, others, broken, watch.looks(photos, looks))


def references_of_log(path: Path) -> dict[str, Reference]:
    """Return a reference of each version that answered enough photos of a log."""
    photos: dict[str, list[Photo]] = {}
    for photo in PhotoLog(path).new_photos():
        photos.setdefault(photo.version, []).append(photo)
    if enough := {name: some for name, some in photos.items() if len(some) >= LEAST_REFERENCE}:
        return {name: PhotosBefore(f"{len(some):,} photos of {path}", Columns.of(some)) for name, some in enough.items()}
    most = max(map(len, photos.values()), default=0)
    raise DriftError(f"{path} has {most:,} photos of one version; a reference needs {LEAST_REFERENCE}")


def references_of_model(path: Path) -> dict[str, Reference]:
    """Return the reference inside an archive or a petclf.pt."""
    try:
        metadata = (read_archive(path).model if path.suffix == ".mar" else read_model_file(path)).metadata
    except FileNotFoundError:
        raise DriftError(f"no model at {path}; name an archive (.mar) or a petclf.pt") from None
    except ModelFileError as error:
        raise DriftError(f"{path} {error}; name an archive (.mar) or a petclf.pt") from None
    reference = ModelReference.of(metadata)
    return {str(metadata["version"]): reference}
