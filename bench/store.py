"""The store of models: what a GB costs in time and processor, beside what hash and disk alone cost on this machine.

Every round does the same work in each way, on bytes that were never seen before, with the file that is read in the page
cache; the disk is the one that holds the temporary folder. A file is made to last (fdatasync) each 32 MiB in every way
that writes.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from atmo.models.hashing import hash_file
from atmo.models.manifest import CHUNK_BYTES, Entry, Manifest, manifest_of
from atmo.models.partial import WINDOW_CHUNKS
from atmo.models.store import Store
from bench.harness import Context, Outcome, Pair, Series

GB = 1e9


class Sizes(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """mebibytes: of the model."""

    mebibytes: int
    rounds: int


class Taken(msgspec.Struct):
    """Seconds for a GB, of the clock and of the processor."""

    wall: list[float] = []
    processor: list[float] = []


def run(context: Context) -> list[Outcome]:
    sizes = context.sizes(Sizes)
    size = sizes.mebibytes * CHUNK_BYTES
    ways = {name: Taken([], []) for name in ("hash", "hash_file", "alone", "comes", "read", "share", "copy", "cp")}
    for number in range(sizes.rounds + 1):
        context.say(f"round {number} of {sizes.rounds}" + (" (warming up)" if number == 0 else ""))
        for name, (wall_s, processor_s) in _round(context, size).items():
            if number:
                ways[name].wall.append(wall_s * GB / size)
                ways[name].processor.append(processor_s * GB / size)
    return _outcomes(ways, f"{sizes.mebibytes} MiB a round")


def _round(context: Context, size: int) -> dict[str, tuple[float, float]]:
    folder = context.folder / "round"
    folder.mkdir()
    source = folder / "model.gguf"
    with source.open("wb") as file:
        for _ in range(size // CHUNK_BYTES):
            file.write(context.rng.bytes(CHUNK_BYTES))
        os.fsync(file.fileno())
    try:
        return _all_ways(folder, source, size)
    finally:
        shutil.rmtree(folder)


def _all_ways(folder: Path, source: Path, size: int) -> dict[str, tuple[float, float]]:
    found = {"hash": _timed(lambda: _hash(source)), "hash_file": _timed(lambda: hash_file(source))}
    hashed = hash_file(source)
    manifest = manifest_of([(Entry(source.name, size), hashed.hashes)])
    store = Store(folder / "comes")
    found["alone"] = _timed(lambda: _write_alone(source, folder / "alone"))
    found["comes"] = _timed(lambda: _comes(source, store, manifest))
    found["read"] = _timed(lambda: _read(store, manifest))
    found["share"] = _timed(lambda: Store(folder / "share").import_(source))
    found["copy"] = _timed(lambda: Store(folder / "copy").import_(source, copy=True))
    found["cp"] = _timed(lambda: _cp(source, folder / "cp"))
    return found


def _timed(work: Callable[[], object]) -> tuple[float, float]:
    begun_s, processor_s = time.perf_counter(), _processor_s()
    work()
    return time.perf_counter() - begun_s, _processor_s() - processor_s


def _processor_s() -> float:
    """Of this process and of those that it started and waited for."""
    told = os.times()
    return told.user + told.system + told.children_user + told.children_system


def _hash(source: Path) -> None:
    with source.open("rb", buffering=0) as file:
        while chunk := file.read(CHUNK_BYTES):
            hashlib.sha256(chunk).digest()


def _write_alone(source: Path, target: Path) -> None:
    """What cannot be saved: hash each chunk once, write it once, wait for the disk as often."""
    with source.open("rb", buffering=0) as file, target.open("wb", buffering=0) as out:
        for number in range(1 << 62):
            chunk = file.read(CHUNK_BYTES)
            if not chunk:
                break
            hashlib.sha256(chunk).digest()
            out.write(chunk)
            if number % WINDOW_CHUNKS == WINDOW_CHUNKS - 1:
                os.fdatasync(out.fileno())
        os.fdatasync(out.fileno())


def _comes(source: Path, store: Store, manifest: Manifest) -> None:
    with source.open("rb", buffering=0) as file, store.partial(manifest, "model") as partial:
        for number in range(manifest.chunk_count):
            partial.write(number, file.read(CHUNK_BYTES))
        partial.finish()


def _read(store: Store, manifest: Manifest) -> None:
    for number in range(manifest.chunk_count):
        store.read(manifest.root, number)


def _cp(source: Path, target: Path) -> None:
    subprocess.run(["cp", "--reflink=never", source, target], check=True)
    subprocess.run(["sync", "-d", target], check=True)


def _outcomes(ways: dict[str, Taken], note: str) -> list[Outcome]:
    def wall(way: str, name: str, more: str = "") -> Series:
        return Series(name, "s/GB", ways[way].wall, f"{note}{'; ' if more else ''}{more}")

    def processor(way: str, name: str) -> Series:
        return Series(f"processor, {name}", "s/GB", ways[way].processor, "user and system time, all threads")

    return [
        Pair(
            "hashing a file against sha256 alone",
            wall("hash_file", "hash of a file", "up to four threads"),
            wall("hash", "sha256 alone", "one thread"),
        ),
        Pair(
            "coming against hash and write alone",
            wall("comes", "a model that comes", "verified, written, journalled, in the order of its chunks"),
            wall("alone", "hash and write alone", "as many waits for the disk"),
        ),
        wall("read", "reading to give away", "from the page cache"),
        wall("share", "import by sharing", "hashed, not copied"),
        Pair("import by copying against cp", wall("copy", "import by copying"), wall("cp", "cp and sync")),
        processor("comes", "a model that comes"),
        processor("share", "a model imported by sharing"),
        processor("copy", "a model imported by copying"),
        processor("read", "a model given away"),
        processor("cp", "cp"),
    ]
