"""Files of a model that are fetched before its root can be known: from a server that speaks HTTP and nothing else.

Each server's model has a folder of its own, `<store>/incoming/<id>/`, locked while it is worked on. A file comes in
order, so its journal is the hashes of the chunks that are there for certain, 32 bytes each, under a line that says
which version of the file they are of. When all files are there the hashes make the manifest, and the files move into
the store without being read again.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from atmo.errors import ModelInUse, StorageError
from atmo.models import files
from atmo.models.files import disk
from atmo.models.hashing import read_at
from atmo.models.importing import copy_file
from atmo.models.manifest import CHUNK_BYTES, HASH_BYTES, Entry, leaf, manifest_of
from atmo.models.partial import WINDOW_CHUNKS
from atmo.models.records import StoredModel

if TYPE_CHECKING:
    from atmo.models.store import Store

INCOMING = "incoming"
_LOCK, _ABOUT = "lock", "about.json"


class About(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a download that is under way says of itself to whoever looks. total_bytes: 0 when it is not known."""

    source: str
    total_bytes: int = 0


class Staging:
    """One model on its way. Raises ModelInUse when another process fetches it, StorageError. Leave it as a context
    manager; `move_in` ends it."""

    def __init__(self, store: Store, source: str) -> None:
        self._store = store
        self.source = source
        self.folder = store.folder / INCOMING / hashlib.sha256(source.encode()).hexdigest()[:32]
        self._done: list[tuple[Entry, bytes]] = []
        with disk("keep a model", self.folder):
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            lock = files.try_lock(self.folder / _LOCK)
        if lock is None:
            raise ModelInUse(f"{source} is being fetched by another process.", hint="Wait for it.")
        self._lock = lock

    def expect(self, total_bytes: int) -> None:
        """Say how much it will be. Raises StorageFull when the disk has no room for it."""
        here = sum(each.stat().st_size for each in self.folder.iterdir())
        self._store.make_room(total_bytes - here)
        with disk("keep a model", self.folder):
            (self.folder / _ABOUT).write_bytes(msgspec.json.encode(About(self.source, total_bytes)))

    def file(self, number: int, path: str, version: str) -> Incoming:
        """version: says that the bytes are the same as last time, such as an ETag; "" when nobody can tell."""
        return Incoming(self.folder / f"{number}", path, version, self._store.sync)

    def done(self, incoming: Incoming) -> None:
        self._done.append((Entry(incoming.path, incoming.size), incoming.hashes))

    def move_in(self, name: str) -> StoredModel:
        """All files are there. Raises StorageError."""
        manifest = manifest_of(self._done)
        if not self._store.has(manifest.root):
            with self._store.partial(manifest, name, self.source, reuse=False) as partial:
                for number, (entry, _) in enumerate(self._done):
                    place = self.folder / f"{number}"
                    if not partial.take_file(entry.path, place, place.stat().st_mtime_ns):
                        copy_file(partial, entry.path, place)
                partial.finish()
        with disk("remove what is no longer needed", self.folder):
            shutil.rmtree(self.folder)
        return self._store.get(manifest.root)

    def __enter__(self) -> Staging:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._lock)


def incoming(folder: Path) -> list[tuple[About, int, Path]]:
    """What is under way or was left in a store: what it is, its bytes so far, its folder."""
    found = []
    for place in sorted((folder / INCOMING).glob("*")):
        with suppress(OSError, msgspec.DecodeError):
            about = msgspec.json.decode((place / _ABOUT).read_bytes(), type=About)
            parts = [part.stat().st_size for part in place.iterdir() if part.name.isdigit()]
            found.append((about, sum(parts), place))
    return found


class Incoming:
    """One file, written from its beginning to its end. `kept_bytes` of it are here and right when it is opened."""

    def __init__(self, place: Path, path: str, version: str, sync: Callable[[int], None]) -> None:
        self.path = path
        self.size = 0
        self._place = place
        self._journal = place.with_name(place.name + ".journal")
        self._sync = sync
        self._hashes = bytearray()
        self._journalled = 0  # bytes of hashes
        self._rest = bytearray()  # of the chunk that is not full yet
        self._sha256 = hashlib.sha256()
        self._failed = False
        self._journal_handle = -1
        with disk("keep a model", place):
            self._handle = os.open(place, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            self._open_journal(version)

    @property
    def kept_bytes(self) -> int:
        """What was written, whole chunks and the rest in memory."""
        return self.size + len(self._rest)

    @property
    def hashes(self) -> bytes:
        return bytes(self._hashes)

    @property
    def sha256(self) -> str:
        """Of the file as it is: what servers name it by."""
        return self._sha256.hexdigest()

    def write(self, data: bytes) -> None:
        """Raises StorageFull, StorageError."""
        self._rest += data
        while len(self._rest) >= CHUNK_BYTES:
            self._put(bytes(self._rest[:CHUNK_BYTES]))
            del self._rest[:CHUNK_BYTES]

    def flush(self) -> None:
        """Make the whole chunks last. Raises StorageError; then this object is not to be used any more."""
        self._failed = True
        with disk("keep a model", self._place):
            self._sync(self._handle)
            os.write(self._journal_handle, self._hashes[self._journalled :])
            self._sync(self._journal_handle)
        self._journalled = len(self._hashes)
        self._failed = False

    def restart(self, version: str) -> None:
        """Forget all of it: the server has another file now."""
        with disk("keep a model", self._place):
            os.close(self._journal_handle)
            self._journal.unlink(missing_ok=True)
            self._forget()
            self._open_journal(version)

    def discard(self) -> None:
        """Remove all of it: it is not what it should be."""
        self._failed = True
        self.close()
        with disk("remove what is no longer needed", self._place):
            self._journal.unlink(missing_ok=True)
            self._place.unlink(missing_ok=True)

    def finish(self) -> None:
        if self._rest:
            self._put(bytes(self._rest))
            self._rest.clear()
        with disk("keep a model", self._place):
            os.ftruncate(self._handle, self.size)
        self.flush()
        self.close()

    def close(self) -> None:
        """Keep the whole chunks, unless the disk has failed."""
        if self._handle >= 0 and not self._failed:
            with suppress(StorageError):
                self.flush()
        for handle in (self._handle, self._journal_handle):
            if handle >= 0:
                os.close(handle)
        self._handle = self._journal_handle = -1

    def _put(self, chunk: bytes) -> None:
        with disk("write a model", self._place):
            files.write_at(self._handle, chunk, self.size)
        self._hashes += leaf(chunk)
        self._sha256.update(chunk)
        self.size += len(chunk)
        if len(self._hashes) - self._journalled >= WINDOW_CHUNKS * HASH_BYTES:
            self.flush()

    def _forget(self) -> None:
        self._hashes.clear()
        self._rest.clear()
        self._journalled = self.size = 0
        self._sha256 = hashlib.sha256()

    def _open_journal(self, version: str) -> None:
        head = msgspec.json.encode([self.path, version]) + b"\n"
        known = self._journal.read_bytes() if self._journal.exists() else b""
        if version and known.startswith(head):
            self._read_again(known[len(head) :])
        files.write_whole(self._journal, head + self._hashes, self._sync)
        self._journal_handle = os.open(self._journal, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        self._journalled = len(self._hashes)

    def _read_again(self, hashes: bytes) -> None:
        """What the journal names, up to the first chunk that is not what it was."""
        size = os.fstat(self._handle).st_size
        for at in range(0, len(hashes) - HASH_BYTES + 1, HASH_BYTES):
            length = min(CHUNK_BYTES, size - self.size)
            chunk = read_at(self._handle, self.size, length) if length > 0 else b""
            if not chunk or leaf(chunk) != hashes[at : at + HASH_BYTES]:
                return
            self._hashes += hashes[at : at + HASH_BYTES]
            self._sha256.update(chunk)
            self.size += length
