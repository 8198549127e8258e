"""A file or folder of this machine becomes a model of the store: read once to know its chunks, then shared or copied.

A copy goes the way of any other model, chunk by chunk, verified and journalled: a file that changed meanwhile is
noticed, and an import that ended early is gone on with.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from atmo.errors import BadChunk, ModelDamaged
from atmo.models.files import disk
from atmo.models.hashing import ZERO_LEAF, hash_file, is_hole, read_at
from atmo.models.manifest import CHUNK_BYTES, Entry, manifest_of
from atmo.models.partial import Partial
from atmo.models.records import StoredModel
from atmo.models.shape import whole_name
from atmo.models.trees import files_of

if TYPE_CHECKING:
    from atmo.models.store import Store


def take_in(
    store: Store,
    path: Path,
    name: str,
    *,
    source: str,
    copy: bool,
    progress: Callable[[int], None] | None,
) -> StoredModel:
    """As `Store.import_` says."""
    found = files_of(path)
    hashed = {}
    for relative, place in found.items():
        with disk("read a model", place):
            hashed[relative] = hash_file(place, progress)
    manifest = manifest_of((Entry(relative, each.size), each.hashes) for relative, each in hashed.items())
    if store.has(manifest.root):
        return store.get(manifest.root)
    name = name or whole_name(path.name).lower()
    store.check_name(name, manifest.root)
    with store.partial(manifest, name, source or str(path.absolute()), reuse=False) as partial:
        for relative, place in found.items():
            if copy or not partial.take_file(relative, place, hashed[relative].mtime_ns):
                _copy(partial, relative, place)
        partial.finish()
    return store.get(manifest.root)


def _copy(partial: Partial, relative: str, place: Path) -> None:
    manifest = partial.manifest
    at = [entry.path for entry in manifest.entries].index(relative)
    with disk("read a model", place), open(place, "rb", buffering=0) as file:
        for number in range(manifest.first_chunks[at], manifest.first_chunks[at + 1]):
            _, offset, length = manifest.chunk(number)
            if partial.has(number):
                continue
            if length == CHUNK_BYTES and manifest.hash(number) == ZERO_LEAF and is_hole(file.fileno(), offset, length):
                partial.have_hole(number)
                continue
            try:
                partial.write(number, read_at(file.fileno(), offset, length))
            except BadChunk as error:
                raise ModelDamaged(f"{place} was changed while it was read.", hint="Try again.") from error
