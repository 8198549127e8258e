"""A process that takes a model in until it is killed: the test reads how far it says it is.

`python -m tests.models.writer STORE CHUNKS SEED` writes the chunks of `big(CHUNKS)` in an order of its own; each line
of its output is the number of chunks that are here.
"""

from __future__ import annotations

import random
import sys
from pathlib import Path

from atmo.models.manifest import CHUNK_BYTES, Entry, Manifest, leaf, manifest_of
from atmo.models.store import Store


def chunk(number: int) -> bytes:
    return number.to_bytes(8, "big") * (CHUNK_BYTES // 8)


def big(chunks: int) -> Manifest:
    """Two files, the second ends in half a chunk."""
    first = chunks // 3
    hashes = b"".join(leaf(chunk(number)) for number in range(chunks - 1)) + leaf(chunk(chunks - 1)[: CHUNK_BYTES // 2])
    return manifest_of(
        [
            (Entry("a.gguf", first * CHUNK_BYTES), hashes[: first * 32]),
            (Entry("b.gguf", (chunks - first) * CHUNK_BYTES - CHUNK_BYTES // 2), hashes[first * 32 :]),
        ]
    )


def piece(manifest: Manifest, number: int) -> bytes:
    return chunk(number)[: manifest.chunk(number)[2]]


def main() -> None:
    folder, chunks, seed = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    manifest = big(chunks)
    with Store(folder).partial(manifest, "big") as partial:
        print(partial.count, flush=True)
        missing = partial.missing()
        random.Random(seed).shuffle(missing)
        for number in missing:
            partial.write(number, piece(manifest, number))
            print(partial.count, flush=True)
        partial.finish()


if __name__ == "__main__":
    main()
