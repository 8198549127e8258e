"""A model on its way: which chunks are there, and how to add one so that nothing is believed that the disk may forget.

Theory of operation. Files lie at their places from the start, as large as they will be and empty. A chunk is verified,
written, and counts as here at once; it counts after a crash only when the journal names it. Each `WINDOW_CHUNKS`
chunks, the files are made to last first and their numbers are appended to the journal second. So a process that dies at
any moment, or a machine that loses power, costs what was not yet journalled and nothing else. A record that was cut
short carries a wrong check and is dropped.

When the disk refuses to make data last, what was written since the last success may be gone although it still can be
read (the kernel drops such pages and reports it once). So all of that is forgotten, and this object takes no more: a
new one, from the journal, goes on.
"""

from __future__ import annotations

import os
import struct
import threading
import zlib
from collections.abc import Callable
from pathlib import Path

from atmo.errors import BadChunk, ModelDamaged, StorageError
from atmo.models.files import Sync, disk, share_blocks, sync_folder, write_at, write_whole
from atmo.models.hashing import ZEROS
from atmo.models.manifest import CHUNK_BYTES, Buffer, Manifest
from atmo.models.reading import Head, no_head, read_behind
from atmo.models.records import FILES

# Chunks that a crash may cost. At 32 MiB the disk's pauses are a few per cent of its speed. A guess.
WINDOW_CHUNKS = 32
JOURNAL = "journal"
_RECORD = struct.Struct(">II")  # the chunk's number, and a check over it and the root


class Partial:
    """Made by `Store.partial`, which holds the model's lock for it. All methods may be called from several threads.

    have: a bitmap, bit i is `have[i >> 3] & 0x80 >> (i & 7)`. Leaving it as a context manager closes it.
    """

    def __init__(
        self, folder: Path, manifest: Manifest, sync: Sync, lock: int, finished: Callable[[Partial], None]
    ) -> None:
        self.folder = folder
        self.manifest = manifest
        self._sync = sync
        self._lock_handle = lock
        self._finished = finished
        self._state = threading.Lock()  # over what follows
        self._bits = bytearray((manifest.chunk_count + 7) // 8)
        self._count = 0
        self._pending: list[int] = []  # written and not yet journalled
        self._failed: StorageError | None = None
        self._syncing = threading.Lock()  # one thread journals, others go on writing
        self._handles: dict[str, int] = {}
        self._journal, self._journal_end = -1, 0
        try:
            with disk("keep a model", folder):
                journalled, self._journal_end = _read_journal(folder, manifest)
                self._prepare(journalled)
        except BaseException:
            self.close()
            raise

    # What is here

    @property
    def have(self) -> bytes:
        with self._state:
            return bytes(self._bits)

    @property
    def count(self) -> int:
        """Chunks that are here."""
        return self._count

    @property
    def complete(self) -> bool:
        return self._count == self.manifest.chunk_count

    def has(self, number: int) -> bool:
        return bool(self._bits[number >> 3] & 0x80 >> (number & 7))

    def missing(self) -> list[int]:
        return [number for number in range(self.manifest.chunk_count) if not self.has(number)]

    @property
    def done_bytes(self) -> int:
        return done_bytes(self.manifest, self.missing())

    def read(self, number: int, head: Head = no_head) -> memoryview:
        """A chunk that is here, behind its head. Raises KeyError when it is not, StorageError."""
        if not self.has(number):
            raise KeyError(number)
        path, offset, length = self.manifest.chunk(number)
        with disk("read a model", self.folder / FILES / path):
            return read_behind(head(length), self._handles[path], offset, length)

    # Adding

    def write(self, number: int, data: Buffer) -> bool:
        """Keep a chunk; False when it was here already.

        Raises BadChunk, and has written nothing, when the bytes are not what the manifest says; StorageFull or
        StorageError when the disk does not take them.
        """
        if not self.manifest.fits(number, data):
            raise BadChunk(f"What came as chunk {number} of {self.manifest.root.hex()[:12]} is something else.")
        if self.has(number):
            return False
        path, offset, length = self.manifest.chunk(number)
        self._raise_failure()
        # A place that was never written reads as zeros: a hole stays a hole.
        if data != (ZEROS if length == CHUNK_BYTES else memoryview(ZEROS)[:length]):
            with disk("write a model", self.folder / FILES / path):
                write_at(self._handles[path], data, offset)
        return self._written([number])

    def have_holes(self, numbers: list[int]) -> None:
        """The same as `write` for chunks that the manifest says are all zeros: nothing needs to be written."""
        self._written(numbers)

    def take_file(self, path: str, source: Path, mtime_ns: int) -> bool:
        """Put a file that is known to be right into its place without copying it; False where the file system cannot.

        mtime_ns: when that was known. Raises ModelDamaged when it was written to since, StorageError.
        """
        target = self.folder / FILES / path
        spare = target.with_name(f".{target.name}.shared")
        with disk("share a file with the store", target):
            spare.unlink(missing_ok=True)
            if not share_blocks(source.resolve(), spare):
                return False
            if source.stat().st_mtime_ns != mtime_ns:
                spare.unlink()
                raise ModelDamaged(f"{source} was changed while it was read.", hint="Try again.")
            spare.replace(target)
            os.close(self._handles.pop(path))
            self._handles[path] = os.open(target, os.O_RDONLY | os.O_CLOEXEC)
        at = [entry.path for entry in self.manifest.entries].index(path)
        self._written(range(self.manifest.first_chunks[at], self.manifest.first_chunks[at + 1]))
        return True

    def flush(self) -> None:
        """Make what is here last. Raises StorageFull or StorageError, and then what was not yet journalled is
        forgotten."""
        with self._syncing:
            self._raise_failure()
            with self._state:
                batch, self._pending = self._pending, []
            if not batch:
                return
            try:
                with disk("keep a model", self.folder):
                    self._keep(batch)
            except StorageError as error:
                self._forget(batch, error)
                raise

    def finish(self) -> None:
        """The model is whole: move it to its place in the store. Raises StorageError, also when a chunk is missing."""
        self.flush()
        if not self.complete:
            raise StorageError(f"{self.manifest.chunk_count - self._count} chunks of {self!r} are missing.")
        self._finished(self)
        self.close()

    def close(self) -> None:
        """Let go of the model. What is not journalled is forgotten; `flush` first to keep it."""
        with self._state:
            handles = [*self._handles.values(), self._journal, self._lock_handle]
            self._handles, self._journal, self._lock_handle = {}, -1, -1
        for handle in handles:
            if handle >= 0:
                os.close(handle)

    def __enter__(self) -> Partial:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            if self._failed is None and self._journal >= 0:
                self.flush()
        finally:
            self.close()

    def __repr__(self) -> str:
        root = self.manifest.root.hex()[:12]
        return f"<Partial {root} {self._count} of {self.manifest.chunk_count} chunks>"

    # Inside

    def _prepare(self, journalled: set[int]) -> None:
        lost = {number for at in range(len(self.manifest.entries)) for number in self._unsound(at, journalled)}
        if lost & journalled:  # taken out of the journal before new, empty files stand in for what it spoke of
            journalled -= lost
            records = b"".join(_record(self.manifest, number) for number in sorted(journalled))
            write_whole(self.folder / JOURNAL, records, self._sync)
            self._journal_end = len(records)
        self._open_files(journalled)
        self._journal = os.open(self.folder / JOURNAL, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        room = self.manifest.chunk_count * _RECORD.size
        size = os.fstat(self._journal).st_size
        # Room for all records from the start, or on a full disk the last chunks could not be told from lost ones.
        write_at(self._journal, bytes(max(0, room - size)), size)
        for place in {self.folder, *(self.folder.joinpath(FILES, each.path).parent for each in self.manifest.entries)}:
            sync_folder(place, self._sync)
        for number in journalled:
            self._mark(number)

    def _unsound(self, at: int, journalled: set[int]) -> range:
        """The chunks of a file that is not there as it was left, or that is another model's, put here just before a
        crash and not to be written to. Such a file is removed."""
        entry = self.manifest.entries[at]
        place = self.folder / FILES / entry.path
        numbers = range(*self.manifest.first_chunks[at : at + 2])
        if not place.exists():
            return numbers
        found = place.stat()
        if found.st_size == entry.size and (found.st_nlink == 1 or journalled.issuperset(numbers)):
            return range(0)
        place.unlink()
        return numbers

    def _open_files(self, journalled: set[int]) -> None:
        for at, entry in enumerate(self.manifest.entries):
            place = self.folder / FILES / entry.path
            place.parent.mkdir(parents=True, exist_ok=True)
            whole = place.exists() and journalled.issuperset(range(*self.manifest.first_chunks[at : at + 2]))
            flags = os.O_RDONLY if whole else os.O_RDWR | os.O_CREAT
            handle = self._handles[entry.path] = os.open(place, flags | os.O_CLOEXEC, 0o600)
            if not whole:
                os.ftruncate(handle, entry.size)

    def _written(self, numbers: range | list[int]) -> bool:
        """Count chunks as here; True if one was new. The thread that fills the window journals it."""
        with self._state:
            self._raise_failure()
            fresh = [number for number in numbers if not self.has(number)]
            for number in fresh:
                self._mark(number)
            self._pending += fresh
            due = len(self._pending) >= WINDOW_CHUNKS
        if due:
            self.flush()
        return bool(fresh)

    def _mark(self, number: int) -> None:
        self._bits[number >> 3] |= 0x80 >> (number & 7)
        self._count += 1

    def _keep(self, batch: list[int]) -> None:
        for path in {self.manifest.chunk(number)[0] for number in batch}:
            self._sync(self._handles[path])
        records = b"".join(_record(self.manifest, number) for number in batch)
        write_at(self._journal, records, self._journal_end)
        self._sync(self._journal)
        self._journal_end += len(records)

    def _forget(self, batch: list[int], error: StorageError) -> None:
        with self._state:
            for number in (*batch, *self._pending):
                self._bits[number >> 3] &= ~(0x80 >> (number & 7))
                self._count -= 1
            self._pending = []
            self._failed = error

    def _raise_failure(self) -> None:
        if self._failed is not None:
            raise self._failed


def read_journal(folder: Path, manifest: Manifest) -> set[int]:
    """The chunks that are there for certain. Raises OSError."""
    return _read_journal(folder, manifest)[0]


def _read_journal(folder: Path, manifest: Manifest) -> tuple[set[int], int]:
    """And where the next record belongs: behind the last that is one."""
    try:
        data = (folder / JOURNAL).read_bytes()
    except FileNotFoundError:
        return set(), 0
    found, end = set(), 0
    for at in range(0, len(data) - _RECORD.size + 1, _RECORD.size):
        number, check = _RECORD.unpack_from(data, at)
        if number < manifest.chunk_count and _check(manifest, number) == check:
            found.add(number)
            end = at + _RECORD.size
    return found, end


def done_bytes(manifest: Manifest, missing: list[int]) -> int:
    return manifest.size - sum(manifest.chunk(number)[2] for number in missing)


def _record(manifest: Manifest, number: int) -> bytes:
    return _RECORD.pack(number, _check(manifest, number))


def _check(manifest: Manifest, number: int) -> int:
    return zlib.crc32(manifest.root + number.to_bytes(4, "big"))
