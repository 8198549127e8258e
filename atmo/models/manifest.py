"""What a model is made of: a small tree of files, the hash of each of their chunks, and one root that names it all.

Theory of operation. Each file is cut into chunks of 1 MiB; the last one is shorter, and no chunk spans two files. A
leaf is SHA-256 over a zero byte and a chunk, a node SHA-256 over a one byte and its two children, and an odd node at
the end of a level moves up as it is (RFC 6962's tree, so that no leaf can be passed off as a node). A file's root also
covers its length. A model of one file is named by that file's root alone, so that equal bytes have equal roots whatever
the file is called; a model of several is a hash over their paths and roots, sorted by path. Equal roots mean equal
models.

A manifest that hashes to its root is right, whoever sent it, save for the name of a single file, which means nothing.
So: compare the root first, then check each chunk against its leaf.
"""

from __future__ import annotations

import bisect
import hashlib
import itertools
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, TypeAlias

import msgspec

from atmo.errors import RemoteProtocolError

CHUNK_BYTES = 1 << 20
HASH_BYTES = 32
MAX_FILES = 1000  # a guess: the largest models that are out there come in 200
MAX_PATH_BYTES = 512
MAX_CHUNKS = 1 << 22  # 4 TiB; its hashes take 128 MiB
MAX_MANIFEST_BYTES = MAX_CHUNKS * HASH_BYTES + MAX_FILES * (MAX_PATH_BYTES + 16) + 64
_LEAF, _NODE, _FILE, _FOLDER = b"\0", b"\1", b"\2", b"\3"
_FORMAT = 1

Buffer: TypeAlias = bytes | bytearray | memoryview


def leaf(chunk: Buffer) -> bytes:
    """The hash of one chunk, 32 bytes."""
    digest = hashlib.sha256(_LEAF)
    digest.update(chunk)
    return digest.digest()


def chunks_of(size_bytes: int) -> int:
    """How many chunks a file of that size has; an empty one has none."""
    return -(-size_bytes // CHUNK_BYTES)


def file_root(leaves: Iterable[bytes], size_bytes: int) -> bytes:
    """The root of one file from the hashes of its chunks in order."""
    level = list(leaves) or [leaf(b"")]
    while len(level) > 1:
        pairs = [hashlib.sha256(_NODE + level[at] + level[at + 1]).digest() for at in range(0, len(level) - 1, 2)]
        level = pairs + level[len(pairs) * 2 :]
    return hashlib.sha256(_FILE + size_bytes.to_bytes(8, "big") + level[0]).digest()


def tree_root(files: Iterable[tuple[str, bytes]]) -> bytes:
    """The root of a folder from the paths and roots of its files, in any order."""
    digest = hashlib.sha256(_FOLDER)
    for path, root in sorted(files):
        digest.update(f"{path}\0{root.hex()}\n".encode())
    return digest.digest()


@dataclass(frozen=True, slots=True)
class Entry:
    """One file. path: relative, with `/`; size: in bytes."""

    path: str
    size: int


@dataclass(frozen=True)
class Manifest:
    """entries: sorted by path; hashes: 32 bytes for each chunk, those of the first entry first.

    Raises RemoteProtocolError where these do not make a tree of files: a path that leaves its folder, too many chunks.
    """

    entries: tuple[Entry, ...]
    hashes: bytes

    def __post_init__(self) -> None:
        _check_tree(self.entries)
        if self.chunk_count > MAX_CHUNKS:
            raise _bad(f"it has {self.chunk_count:,} chunks, {MAX_CHUNKS:,} are allowed")
        if len(self.hashes) != self.chunk_count * HASH_BYTES:
            raise _bad(f"it has {self.chunk_count} chunks and {len(self.hashes)} bytes of hashes")

    @cached_property
    def root(self) -> bytes:
        """32 bytes: the model's name by its content. `.root.hex()` stands in descriptors and in SEED rows."""
        roots = [(entry.path, self.file_root(at)) for at, entry in enumerate(self.entries)]
        return roots[0][1] if len(roots) == 1 else tree_root(roots)

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(entry.size for entry in self.entries)

    @property
    def chunk_count(self) -> int:
        return self.first_chunks[-1]

    @cached_property
    def first_chunks(self) -> list[int]:
        """The number of each entry's first chunk, and at last the number of all chunks."""
        return [0, *itertools.accumulate(chunks_of(entry.size) for entry in self.entries)]

    def file_root(self, at: int) -> bytes:
        """The root of the entry at this position."""
        numbers = range(self.first_chunks[at], self.first_chunks[at + 1])
        return file_root((self.hash(number) for number in numbers), self.entries[at].size)

    def chunk(self, number: int) -> tuple[str, int, int]:
        """Path, offset in that file, length in bytes. Raises IndexError."""
        if not 0 <= number < self.chunk_count:
            raise IndexError(number)
        at = bisect.bisect_right(self.first_chunks, number) - 1
        entry = self.entries[at]
        offset = (number - self.first_chunks[at]) * CHUNK_BYTES
        return entry.path, offset, min(CHUNK_BYTES, entry.size - offset)

    def hash(self, number: int) -> bytes:
        return self.hashes[number * HASH_BYTES : (number + 1) * HASH_BYTES]

    def fits(self, number: int, data: Buffer) -> bool:
        """Whether these bytes are that chunk. False for a number that is none."""
        if not 0 <= number < self.chunk_count or len(data) != self.chunk(number)[2]:
            return False
        return leaf(data) == self.hash(number)

    def encode(self) -> bytes:
        entries = [(entry.path, entry.size) for entry in self.entries]
        return msgspec.msgpack.encode(_Wire(_FORMAT, tuple(entries), self.hashes))

    @classmethod
    def decode(cls, data: Buffer, root: bytes | None = None) -> Manifest:
        """root: the one it must have. Raises RemoteProtocolError, in one line, for whatever is not a manifest."""
        if len(data) > MAX_MANIFEST_BYTES:
            raise _bad(f"it has {len(data):,} bytes, {MAX_MANIFEST_BYTES:,} are allowed")
        try:
            wire = _decoder.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
            raise _bad(str(exc).split("\n")[0][:120]) from exc
        if wire.format != _FORMAT:
            raise _bad(f"its format is {wire.format}, this program knows {_FORMAT}")
        made = cls(tuple(Entry(path, size) for path, size in wire.entries), wire.hashes)
        if root is not None and made.root != root:
            raise _bad(f"it is of {made.root.hex()[:12]}, not of {root.hex()[:12]}")
        return made

    def __repr__(self) -> str:
        return f"<Manifest {self.root.hex()[:12]} {len(self.entries)} files, {self.chunk_count} chunks>"


def manifest_of(files: Iterable[tuple[Entry, bytes]]) -> Manifest:
    """From each file's entry and the hashes of its chunks, in any order."""
    ordered = sorted(files, key=lambda each: each[0].path)
    return Manifest(tuple(entry for entry, _ in ordered), b"".join(hashes for _, hashes in ordered))


_Path = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_PATH_BYTES)]
_Size = Annotated[int, msgspec.Meta(ge=0, le=MAX_CHUNKS * CHUNK_BYTES)]


class _Wire(msgspec.Struct, array_like=True, forbid_unknown_fields=True, frozen=True):
    format: Annotated[int, msgspec.Meta(ge=0, le=255)]
    entries: Annotated[tuple[tuple[_Path, _Size], ...], msgspec.Meta(min_length=1, max_length=MAX_FILES)]
    hashes: Annotated[bytes, msgspec.Meta(max_length=MAX_CHUNKS * HASH_BYTES)]


_decoder = msgspec.msgpack.Decoder(_Wire)


def _check_tree(entries: tuple[Entry, ...]) -> None:
    """Files that can lie in one folder, on any file system, and nowhere else."""
    if not 1 <= len(entries) <= MAX_FILES:
        raise _bad(f"it has {len(entries)} files, 1 to {MAX_FILES} are allowed")
    paths = [entry.path for entry in entries]
    if paths != sorted(paths):
        raise _bad("its files are not sorted by path")
    for entry in entries:
        _check_path(entry.path)
        if not 0 <= entry.size <= MAX_CHUNKS * CHUNK_BYTES:
            raise _bad(f"{entry.path!r} has {entry.size} bytes")
    files = {_folded(path) for path in paths}
    if len(files) != len(paths):
        raise _bad("two of its files have the same path")
    folders = {folder for path in files for folder in _folders_of(path)}
    if files & folders:
        raise _bad(f"{min(files & folders)!r} is both a file and a folder")


def _check_path(path: str) -> None:
    parts = path.split("/")
    unfit = "\\" in path or len(path.encode("utf-8", "surrogatepass")) > MAX_PATH_BYTES
    if unfit or any(part in ("", ".", "..") or len(part.encode("utf-8", "replace")) > 255 for part in parts):
        raise _bad(f"{path[:80]!r} is not a relative path")
    if any(unicodedata.category(char) in ("Cc", "Cs", "Zl", "Zp") for char in path):
        raise _bad(f"{path[:80]!r} holds a control character")


def _folded(path: str) -> str:
    """Equal for paths that some file system takes for the same."""
    return unicodedata.normalize("NFC", path).casefold()


def _folders_of(path: str) -> list[str]:
    parts = path.split("/")
    return ["/".join(parts[:depth]) for depth in range(1, len(parts))]


def _bad(what: str) -> RemoteProtocolError:
    return RemoteProtocolError(f"This is no usable manifest of a model: {what}.", hint="Fetch it from another source.")
