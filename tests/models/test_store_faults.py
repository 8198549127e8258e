"""What the store survives: kill -9, a full disk, a disk that does not keep, bytes that rot, models larger than
memory."""

from __future__ import annotations

import errno
import os
import random
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from atmo.errors import StorageError, StorageFull
from atmo.models.manifest import CHUNK_BYTES
from atmo.models.partial import WINDOW_CHUNKS, Partial
from atmo.models.store import Store
from tests.models.stores import manifest_for, noise, pieces, put
from tests.models.writer import big, piece

CHUNKS = 3 * WINDOW_CHUNKS


def killed_at(store: Path, at: int, seed: int, chunks: int = CHUNKS) -> tuple[int, int]:
    """Run a writer until it says that it has `at` chunks, and kill it. Returns what it had when it began, and last."""
    command = [sys.executable, "-m", "tests.models.writer", str(store), str(chunks), str(seed)]
    writer = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2])
    assert writer.stdout is not None
    begun = last = int(writer.stdout.readline())
    while last < at and (line := writer.stdout.readline()):
        last = int(line)
    writer.send_signal(signal.SIGKILL)
    told = writer.stdout.read().split()  # what it had said before it died
    writer.stdout.close()
    writer.wait()
    return begun, int(told[-1]) if told else last


def through_kills(store: Path, seed: int, kills: int, chunks: int = CHUNKS) -> None:
    """Every start finds all but the window of what was there when its predecessor died, and the end is exact."""
    chance = random.Random(seed)
    had = 0
    for _ in range(kills):
        begun, last = killed_at(store, had + chance.randrange(1, 2 * WINDOW_CHUNKS), chance.getrandbits(32), chunks)
        assert begun >= had - WINDOW_CHUNKS
        had = last
        if Store(store).models():
            break
    manifest = big(chunks)
    here = Store(store)
    if not here.has(manifest.root):
        with here.partial(manifest) as partial:
            assert partial.count >= had - WINDOW_CHUNKS
            for number in partial.missing():
                partial.write(number, piece(manifest, number))
            partial.finish()
    assert here.verify(manifest.root) == []


def test_kill_9_costs_at_most_the_window(tmp_path: Path) -> None:
    through_kills(tmp_path / "store", seed=1, kills=3)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(10))
def test_kill_9_fifty_times_costs_at_most_the_window_each_time(tmp_path: Path, seed: int) -> None:
    through_kills(tmp_path / "store", seed, kills=5, chunks=6 * WINDOW_CHUNKS)


def write(partial: Partial, parts: list[bytes]) -> None:
    for number in partial.missing():
        partial.write(number, parts[number])


@contextmanager
def files_up_to(size: int) -> Iterator[None]:
    """No file of this process may grow beyond it: the kernel refuses to write, as it does on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_disk_that_takes_no_more_is_one_clear_error_and_the_rest_is_kept(tmp_path: Path) -> None:
    files = {"a.gguf": noise(1, 3 * CHUNK_BYTES)}
    manifest, parts, store = manifest_for(files), pieces(files=files, manifest=manifest_for(files)), Store(tmp_path)
    with store.partial(manifest) as partial:
        partial.write(0, parts[0])
        with files_up_to(2 * CHUNK_BYTES + 1000):
            partial.write(1, parts[1])
            with pytest.raises(StorageFull, match="what is there is kept"):
                partial.write(2, parts[2])
        assert not partial.has(2)
    with store.partial(manifest) as partial:
        assert partial.missing() == [2]
        partial.write(2, parts[2])
        partial.finish()
    assert store.verify(manifest.root) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")
def test_a_full_disk_is_one_clear_error_and_with_room_the_same_goes_on(tmp_path: Path) -> None:
    files = {"a.gguf": noise(1, 6 * CHUNK_BYTES)}
    manifest, parts = manifest_for(files), pieces(files=files, manifest=manifest_for(files))
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", tmp_path], check=False)
    if mounted.returncode:
        pytest.skip("this machine lets nobody mount")
    try:
        store, ballast = Store(tmp_path / "store"), tmp_path / "ballast"
        with store.partial(manifest) as partial:
            ballast.write_bytes(bytes(4 * CHUNK_BYTES))  # somebody else fills the disk meanwhile
            with pytest.raises(StorageFull, match="The disk is full"):
                write(partial, parts)
            there = partial.count
            assert 0 < there < len(parts)
        with pytest.raises(StorageFull, match="no room for this model"):
            store.partial(manifest)
        ballast.unlink()
        with store.partial(manifest) as partial:
            assert partial.count == there
            write(partial, parts)
            partial.finish()
        assert store.verify(manifest.root) == []
    finally:
        subprocess.run(["umount", tmp_path], check=True)


class FailingDisk:
    """Keeps everything but when it is told to fail: then what was written may be gone."""

    def __init__(self) -> None:
        self.failures = 0

    def sync(self, handle: int) -> None:
        if self.failures:
            self.failures -= 1
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        os.fdatasync(handle)


def test_what_a_failing_disk_may_have_lost_is_not_believed(tmp_path: Path) -> None:
    disk = FailingDisk()
    store = Store(tmp_path, sync=disk.sync)
    manifest = big(WINDOW_CHUNKS + 4)
    partial = store.partial(manifest)
    for number in range(4):
        partial.write(number, piece(manifest, number))
    partial.flush()
    disk.failures = 1
    with pytest.raises(StorageError, match="Input/output error"):
        write(partial, [piece(manifest, number) for number in range(manifest.chunk_count)])
    assert partial.missing() == list(range(4, WINDOW_CHUNKS + 4))
    with pytest.raises(StorageError):
        partial.write(5, piece(manifest, 5))  # the next success would hide what was lost
    partial.close()
    with store.partial(manifest) as again:
        assert again.missing() == list(range(4, WINDOW_CHUNKS + 4))
        for number in again.missing():
            again.write(number, piece(manifest, number))
        again.finish()
    assert store.verify(manifest.root) == []


def test_a_model_is_not_whole_before_the_disk_has_kept_it(tmp_path: Path) -> None:
    disk = FailingDisk()
    store = Store(tmp_path, sync=disk.sync)
    manifest = manifest_for({"a.gguf": b"abc"})
    partial = store.partial(manifest)
    partial.write(0, b"abc")
    disk.failures = 1
    with pytest.raises(StorageError):
        partial.finish()
    partial.close()
    assert not store.has(manifest.root)


def test_a_byte_that_rots_is_found_and_named(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    files = {"a.gguf": noise(1, 2_500_000), "b.json": b"{}"}
    model = store.import_(put(tmp_path / "source", files), copy=True)
    place = model.folder / "a.gguf"
    before = place.stat()
    with place.open("r+b") as file:
        file.seek(1_234_567)
        file.write(b"!")
    os.utime(place, ns=(before.st_atime_ns, before.st_mtime_ns))  # as bits rot: nobody is told
    assert store.verify(model.root) == ["a.gguf"]


_IMPORT = """
import resource, sys
from pathlib import Path
from atmo.models.store import Store
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
model = Store(Path(sys.argv[2])).import_(Path(sys.argv[1]), copy=True)
print(model.path.stat().st_blocks * 512, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_a_model_of_any_size_passes_through_little_memory_and_its_holes_stay_holes(tmp_path: Path) -> None:
    """96 MiB of data in 20 GB of file."""
    source, block = tmp_path / "large.gguf", noise(1, CHUNK_BYTES)
    with source.open("wb") as file:
        for _ in range(96):
            file.write(block)
        file.truncate(20_000_000_000)
    done = subprocess.run(
        [sys.executable, "-c", _IMPORT, str(source), str(tmp_path / "store")],
        check=True,
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    on_disk, grown_kib = map(int, done.stdout.split())
    assert on_disk < 100 << 20
    assert grown_kib < 40 << 10
