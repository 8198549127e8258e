"""The hashes of a file's chunks, in bounded memory whatever its size.

Chunks are read and hashed by a few threads (both leave Python's lock), a batch at a time. Holes of a sparse file are
not read: the kernel says where data begins, and the hash of a chunk of zeros is known.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from atmo.models.manifest import CHUNK_BYTES, chunks_of, leaf

# More threads than this wait for the disk. A guess.
MAX_THREADS = 4
# Chunks between two reports; each costs a future and a hash, a few hundred bytes.
_BATCH_CHUNKS = 256
ZEROS = bytes(CHUNK_BYTES)
ZERO_LEAF = leaf(ZEROS)


@dataclass(frozen=True, slots=True)
class Hashed:
    """hashes: 32 bytes for each chunk; size and mtime_ns: of the file as it was read."""

    hashes: bytes
    size: int
    mtime_ns: int


def hash_file(path: Path, progress: Callable[[int], None] | None = None) -> Hashed:
    """progress is told how many more bytes are done. Raises OSError, also when the file changes while it is read."""
    with open(path, "rb", buffering=0) as file:
        before = os.fstat(file.fileno())
        hashes = bytearray()
        threads = max(1, min(MAX_THREADS, os.cpu_count() or 1, chunks_of(before.st_size)))
        with ThreadPoolExecutor(threads, thread_name_prefix="hash") as pool:
            reader = _Reader(file.fileno(), before.st_size)
            for batch in _batches(before.st_size):
                if reader.is_empty(batch):
                    hashes += ZERO_LEAF * len(batch)
                else:
                    hashes += b"".join(pool.map(reader.leaf_at, batch))
                if progress is not None:
                    progress(min(before.st_size, batch.stop * CHUNK_BYTES) - batch.start * CHUNK_BYTES)
        after = os.fstat(file.fileno())
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        raise OSError(errno.ESTALE, "it changed while it was read", str(path))
    return Hashed(bytes(hashes), before.st_size, before.st_mtime_ns)


def _batches(size: int) -> Iterator[range]:
    total = chunks_of(size)
    for start in range(0, total, _BATCH_CHUNKS):
        yield range(start, min(total, start + _BATCH_CHUNKS))


class _Reader:
    """Hashes chunks of one open file."""

    def __init__(self, handle: int, size: int) -> None:
        self._handle = handle
        self._size = size

    def is_empty(self, batch: range) -> bool:
        """Whether all of these chunks are whole and lie in a hole."""
        offset, length = batch.start * CHUNK_BYTES, len(batch) * CHUNK_BYTES
        return offset + length <= self._size and is_hole(self._handle, offset, length)

    def leaf_at(self, number: int) -> bytes:
        offset = number * CHUNK_BYTES
        length = min(CHUNK_BYTES, self._size - offset)
        if is_hole(self._handle, offset, length):
            return ZERO_LEAF if length == CHUNK_BYTES else leaf(memoryview(ZEROS)[:length])
        return leaf(read_at(self._handle, offset, length))


def is_hole(handle: int, offset: int, length: int) -> bool:
    """Whether the file system knows that nothing was ever written there. False where it cannot tell."""
    try:
        return os.lseek(handle, offset, os.SEEK_DATA) >= offset + length
    except OSError as error:
        return error.errno == errno.ENXIO  # no data from here to the end


def read_at(handle: int, offset: int, length: int) -> bytes:
    """Raises OSError when the file ends early."""
    data = os.pread(handle, length, offset)
    while len(data) < length:
        more = os.pread(handle, length - len(data), offset + len(data))
        if not more:
            raise OSError(errno.ESTALE, "it became shorter while it was read")
        data += more
    return data
