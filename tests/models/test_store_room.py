"""What the store takes on the disk: nothing twice, within a quota, and what goes when there is no room."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from atmo.errors import StorageFull, UsageError
from atmo.models.collecting import STALE_S, own_bytes
from atmo.models.manifest import CHUNK_BYTES
from atmo.models.records import StoredModel
from atmo.models.store import Store
from tests.models.stores import manifest_for, noise, pieces, put

MB = CHUNK_BYTES


class Shelf:
    """A store, a clock that is set, and models of one chunk that are added by copying."""

    def __init__(self, folder: Path) -> None:
        self.now_s = 1_000_000.0
        self._folder = folder
        self.store = Store(folder / "store", now=lambda: self.now_s, sync=lambda _: None)

    def add(self, name: str, seed: int, used_s: float) -> StoredModel:
        source = put(self._folder / name, {f"{name}.gguf": noise(seed, MB)})
        model = self.store.import_(source, name, copy=True)
        os.utime(model.folder.parent / "used", (used_s, used_s))
        return self.store.get(model.root)

    @property
    def names(self) -> list[str]:
        return [model.name for model in self.store.models()]


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path)


def test_the_longest_unused_go_first_and_what_is_pinned_or_in_use_never(shelf: Shelf) -> None:
    for at, name in enumerate(("pinned", "in-use", "old", "newer", "newest")):
        shelf.add(name, at, 1000.0 + at)
    shelf.store.mark(shelf.store.find("pinned").root, pinned=True)
    with shelf.store.hold(shelf.store.find("in-use").root):
        dry = shelf.store.gc(int(3.5 * MB), dry=True)
        assert [model.name for model in dry.removed] == ["old", "newer"]
        assert len(shelf.names) == 5
        found = shelf.store.gc(int(3.5 * MB))
        assert [model.name for model in found.removed] == ["old", "newer"]
        assert found.fits
        assert found.used_bytes == own_bytes(shelf.store.folder) == dry.used_bytes
        assert 2 * MB <= found.freed_bytes == dry.freed_bytes
        assert not shelf.store.gc(1).fits
        assert shelf.names == ["in-use", "pinned"]


def test_a_model_that_comes_makes_room_within_the_quota(shelf: Shelf) -> None:
    shelf.store.quota_bytes = int(3.5 * MB)
    for at, name in enumerate(("a", "b", "c")):
        shelf.add(name, at, 1000.0 + at)
    shelf.add("d", 9, 1009.0)
    assert shelf.names == ["b", "c", "d"]


def test_a_model_that_cannot_fit_is_refused_before_it_comes(shelf: Shelf) -> None:
    shelf.store.quota_bytes = int(1.5 * MB)
    kept = shelf.add("kept", 1, 1000.0)
    shelf.store.mark(kept.root, pinned=True)
    with pytest.raises(StorageFull, match="quota"):
        shelf.add("more", 2, 1001.0)
    assert shelf.names == ["kept"]


def test_without_a_quota_only_what_was_given_up_goes(shelf: Shelf) -> None:
    shelf.add("a", 1, 1000.0)
    manifest = manifest_for({"b.gguf": noise(2, MB)})
    begun = shelf.store.partial(manifest, "b")
    shelf.now_s = begun.folder.joinpath("used").stat().st_mtime + STALE_S + 1
    assert shelf.store.gc().removed == []  # somebody is at it
    begun.close()
    assert [model.name for model in shelf.store.gc().removed] == ["b"]
    assert shelf.names == ["a"]


def test_what_a_killed_process_was_removing_goes_with_the_next_collection(shelf: Shelf) -> None:
    shelf.add("a", 1, 1000.0)
    put(shelf.store.folder / ".dead.123", {"files/a.gguf": noise(5, MB)})
    before = own_bytes(shelf.store.folder)
    assert shelf.store.gc().freed_bytes >= MB
    assert own_bytes(shelf.store.folder) < before


def test_a_file_that_has_another_name_elsewhere_takes_no_room_of_the_store(shelf: Shelf, tmp_path: Path) -> None:
    source = put(tmp_path, {"mine.gguf": noise(1, 4 * MB)}) / "mine.gguf"
    model = shelf.store.import_(source)
    if model.path.stat().st_nlink > 1:  # where the file system has no reflinks
        assert own_bytes(shelf.store.folder) < MB
        source.unlink()
    assert own_bytes(shelf.store.folder) >= 4 * MB


def test_a_file_that_two_models_have_in_common_is_there_once_and_no_chunk_of_it_travels(
    shelf: Shelf, tmp_path: Path
) -> None:
    common, first, second = noise(1, 3 * MB), noise(2, MB), noise(3, MB)
    shelf.store.import_(put(tmp_path / "one", {"a.gguf": first, "mmproj.gguf": common}), copy=True)
    before = own_bytes(shelf.store.folder)
    files = {"b.gguf": second, "projector/mmproj.gguf": common}
    manifest = manifest_for(files)
    with shelf.store.partial(manifest, "two") as partial:
        assert [manifest.chunk(number)[0] for number in partial.missing()] == ["b.gguf"]
        partial.write(partial.missing()[0], second)
        partial.finish()
    assert shelf.store.verify(manifest.root) == []
    assert own_bytes(shelf.store.folder) - before < 2 * MB
    shelf.store.remove(shelf.store.find("one").root)
    assert shelf.store.verify(manifest.root) == []


def test_chunks_that_two_models_have_in_common_do_not_travel(shelf: Shelf, tmp_path: Path) -> None:
    """As in two fine-tunes of one model that changed a part of its layers."""
    files = {"base.gguf": noise(1, 4 * MB)}
    shelf.store.import_(put(tmp_path, files) / "base.gguf")
    tuned = {"tuned.gguf": files["base.gguf"][: 2 * MB] + noise(2, 2 * MB)}
    manifest = manifest_for(tuned)
    with shelf.store.partial(manifest) as partial:
        assert partial.missing() == [2, 3]
        for number in partial.missing():
            partial.write(number, pieces(manifest, tuned)[number])
        partial.finish()
    assert shelf.store.verify(manifest.root) == []
    assert (tmp_path / "base.gguf").read_bytes() == files["base.gguf"]


def test_two_models_do_not_share_a_name_unless_nobody_chose_it(shelf: Shelf, tmp_path: Path) -> None:
    shelf.store.import_(put(tmp_path / "1", {"m.gguf": b"one"}) / "m.gguf")
    other = put(tmp_path / "2", {"m.gguf": b"two"}) / "m.gguf"
    with pytest.raises(UsageError, match="Another model is called 'm'"):
        shelf.store.import_(other)
    assert shelf.store.import_(other, "n").name == "n"
    with shelf.store.partial(manifest_for({"M.gguf": b"three"})) as partial:  # it came from a peer that calls it so
        partial.write(0, b"three")
        partial.finish()
    assert len(shelf.names) == 3
    assert len(set(shelf.names)) == 3
