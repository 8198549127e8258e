"""What the store remembers of a model beside its bytes, and how a model is seen from outside."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import msgspec

from atmo.errors import ModelDamaged
from atmo.models.files import Sync, write_whole
from atmo.models.manifest import Entry, Manifest
from atmo.models.shape import main_file, projector_of

RECORD, MANIFEST, USED, FILES = "model.json", "manifest", "used", "files"


class Record(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One model's `model.json`. source: where from, as `atmo models pull` takes it; added_s: seconds since 1970;
    shared: peers may fetch it; only: labels that such a peer must have; prints: size and mtime_ns of each file, by
    path, when it was last known to be right."""

    name: str
    source: str = ""
    added_s: float = 0.0
    pinned: bool = False
    shared: bool = False
    only: dict[str, str] = {}
    prints: dict[str, tuple[int, int]] = {}

    def keep(self, folder: Path, sync: Sync) -> None:
        """Raises OSError."""
        write_whole(folder / RECORD, msgspec.json.format(msgspec.json.encode(self)), sync)


@dataclass(frozen=True, slots=True)
class StoredModel:
    """A model in the store, whole or on its way. done_bytes equals size_bytes when it is whole; folder: where its files
    lie; used_s: when it was last loaded or came, in seconds since 1970."""

    root: bytes
    record: Record
    entries: tuple[Entry, ...]
    size_bytes: int
    done_bytes: int
    folder: Path
    used_s: float

    @property
    def name(self) -> str:
        return self.record.name

    @property
    def files(self) -> tuple[str, ...]:
        """Their paths, in order."""
        return tuple(entry.path for entry in self.entries)

    @property
    def whole(self) -> bool:
        return self.done_bytes == self.size_bytes

    @property
    def path(self) -> Path:
        """What an engine loads: a GGUF's file, the first of its parts, or the folder of anything else."""
        main = main_file({entry.path: entry.size for entry in self.entries})
        return self.folder / main if main else self.folder

    @property
    def projector(self) -> Path | None:
        """What turns images into what the model reads, where there is such a file beside it."""
        main = main_file({entry.path: entry.size for entry in self.entries})
        found = projector_of(main, self.files) if main else ""
        return self.folder / found if found else None


def read_record(folder: Path) -> Record:
    """Raises ModelDamaged, or FileNotFoundError when the model is gone."""
    try:
        return msgspec.json.decode((folder / RECORD).read_bytes(), type=Record)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ModelDamaged(
            f"{folder / RECORD} cannot be read: {error}.", hint=f"Remove {folder} and fetch the model again."
        ) from error


def read_manifest(folder: Path, root: bytes) -> Manifest:
    """Raises ModelDamaged, or FileNotFoundError when the model is gone."""
    from atmo.errors import RemoteProtocolError

    try:
        return Manifest.decode((folder / MANIFEST).read_bytes(), root)
    except RemoteProtocolError as error:
        raise ModelDamaged(
            f"{folder / MANIFEST} cannot be read. {error.message}", hint=f"Remove {folder} and fetch the model again."
        ) from error
