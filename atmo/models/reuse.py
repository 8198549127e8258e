"""What a model has in common with those that are here already is taken from them: whole files without a copy, single
chunks by copying. Every chunk is verified on the way like any other."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from atmo.errors import BadChunk, ModelDamaged, ModelNotFound
from atmo.models.manifest import Manifest
from atmo.models.partial import Partial

if TYPE_CHECKING:
    from atmo.models.store import Store


def fill_from(partial: Partial, store: Store) -> None:
    """Raises StorageError when the disk fails, nothing when a model here turns out to be damaged."""
    for model in store.models():
        with suppress(ModelNotFound, ModelDamaged, BadChunk):
            _take(partial, store, model.root)


def _take(partial: Partial, store: Store, root: bytes) -> None:
    there, wanted = store.manifest(root), partial.manifest
    taken = _hashes(there).keys() & set(_hashes(wanted))
    if not taken:
        return
    whole = {there.file_root(at): entry.path for at, entry in enumerate(there.entries) if entry.size}
    for at, entry in enumerate(wanted.entries):
        source = whole.get(wanted.file_root(at)) if entry.size else None
        if source is not None and not partial.has(wanted.first_chunks[at]):
            _take_file(partial, store, root, source, entry.path)
    numbers = _hashes(there)
    for number in partial.missing():
        if wanted.hash(number) in taken:
            partial.write(number, store.read(root, numbers[wanted.hash(number)]))


def _take_file(partial: Partial, store: Store, root: bytes, source: str, path: str) -> None:
    model = store.get(root)
    partial.take_file(path, model.folder / source, model.record.prints[source][1])


def _hashes(manifest: Manifest) -> dict[bytes, int]:
    return {manifest.hash(number): number for number in range(manifest.chunk_count)} if manifest.hashes else {}
