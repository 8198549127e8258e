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
from atmo.models.manifest import CHUNK_BYTES, Entry, Manifest, manifest_of
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
                copy_file(partial, relative, place)
        partial.finish()
    return store.get(manifest.root)


def copy_file(partial: Partial, relative: str, place: Path) -> None:
    """The chunks of one file that are missing, from where it lies. Raises ModelDamaged when it changed,
    StorageError."""
    manifest = partial.manifest
    at = [entry.path for entry in manifest.entries].index(relative)
    missing = [each for each in range(*manifest.first_chunks[at : at + 2]) if not partial.has(each)]
    with disk("read a model", place), open(place, "rb", buffering=0) as file:
        empty = {number for number in missing if _is_empty(file.fileno(), manifest, number)}
        partial.have_holes(sorted(empty))
        for number in missing:
            if number not in empty:
                _, offset, length = manifest.chunk(number)
                _write(partial, number, read_at(file.fileno(), offset, length), place)


def _is_empty(handle: int, manifest: Manifest, number: int) -> bool:
    _, offset, length = manifest.chunk(number)
    return manifest.hash(number) == ZERO_LEAF and length == CHUNK_BYTES and is_hole(handle, offset, length)


def _write(partial: Partial, number: int, data: bytes, place: Path) -> None:
    try:
        partial.write(number, data)
    except BadChunk as error:
        raise ModelDamaged(f"{place} was changed while it was read.", hint="Try again.") from error
