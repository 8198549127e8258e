"""What the tests of the store share: models of random bytes, and stores in a folder of their own."""

from __future__ import annotations

import random
from pathlib import Path

from atmo.models.manifest import CHUNK_BYTES, Entry, Manifest, leaf, manifest_of


def noise(seed: int, size: int) -> bytes:
    return random.Random(seed).randbytes(size)


def chunks(data: bytes) -> list[bytes]:
    return [data[at : at + CHUNK_BYTES] for at in range(0, len(data), CHUNK_BYTES)]


def manifest_for(files: dict[str, bytes]) -> Manifest:
    return manifest_of(
        (Entry(path, len(data)), b"".join(leaf(chunk) for chunk in chunks(data))) for path, data in files.items()
    )


def pieces(manifest: Manifest, files: dict[str, bytes]) -> list[bytes]:
    """The chunks in their order."""
    return [
        files[path][offset : offset + length]
        for path, offset, length in (manifest.chunk(number) for number in range(manifest.chunk_count))
    ]


def put(folder: Path, files: dict[str, bytes]) -> Path:
    for path, data in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
    return folder
