"""The store: a model comes in chunk by chunk and is there whole or not at all; nothing is copied that can be shared."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from atmo.errors import BadChunk, ModelDamaged, ModelInUse, ModelNotFound, StorageError
from atmo.models.partial import WINDOW_CHUNKS
from atmo.models.store import Store
from tests.models.stores import manifest_for, noise, pieces, put

TREE = {"model.onnx": noise(1, 2_500_000), "sub/tokenizer.json": b"{}", "empty": b""}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def test_a_model_that_came_chunk_by_chunk_in_any_order_is_a_folder_of_plain_files(store: Store) -> None:
    manifest = manifest_for(TREE)
    with store.partial(manifest, "onnx", "from a peer") as partial:
        assert partial.missing() == [0, 1, 2, 3]
        for number, data in reversed(list(enumerate(pieces(manifest, TREE)))):
            assert not store.has(manifest.root)
            assert partial.write(number, data)
            assert partial.has(number)
            assert partial.read(number) == data
            assert not partial.write(number, data)
        assert partial.have == b"\xf0"
        partial.finish()
    assert store.has(manifest.root)
    (model,) = store.models()
    assert (model.name, model.record.source, model.size_bytes) == ("onnx", "from a peer", manifest.size)
    assert {path: (model.folder / path).read_bytes() for path in model.files} == TREE
    assert [store.read(manifest.root, number) for number in range(4)] == pieces(manifest, TREE)
    assert store.verify(manifest.root) == []
    assert not store.models(partial=True)


def test_a_wrong_chunk_is_refused_before_it_is_written(store: Store) -> None:
    manifest = manifest_for(TREE)
    with store.partial(manifest) as partial:
        for wrong in (pieces(manifest, TREE)[1], b"", b"\0" * 1048576):
            with pytest.raises(BadChunk):
                partial.write(0, wrong)
        with pytest.raises(BadChunk):
            partial.write(99, b"")
        place = partial.folder / "files" / "model.onnx"
        assert place.stat().st_blocks == 0
        assert partial.count == 0


def test_an_unfinished_model_is_gone_on_with(store: Store) -> None:
    manifest = manifest_for(TREE)
    parts = pieces(manifest, TREE)
    with store.partial(manifest) as partial:
        partial.write(2, parts[2])
    assert store.models(partial=True)[0].done_bytes == len(parts[2])
    with store.partial(manifest) as partial:
        assert partial.missing() == [0, 1, 3]
        with pytest.raises(StorageError, match="missing"):
            partial.finish()


def test_a_crash_costs_what_was_not_journalled_and_a_torn_record_is_dropped(store: Store) -> None:
    files = {"a.gguf": b"".join(bytes([number]) * 1048576 for number in range(WINDOW_CHUNKS + 3))}
    manifest = manifest_for(files)
    partial = store.partial(manifest)
    for number, data in enumerate(pieces(manifest, files)):
        partial.write(number, data)
    partial.close()  # as a crash does: nothing more is journalled
    with (partial.folder / "journal").open("r+b") as journal:
        journal.seek(WINDOW_CHUNKS * 8)
        journal.write(b"\x00\x00\x00\x21torn")
    with store.partial(manifest) as resumed:
        assert resumed.missing() == [WINDOW_CHUNKS, WINDOW_CHUNKS + 1, WINDOW_CHUNKS + 2]


def test_two_processes_do_not_fetch_one_model_at_once(store: Store, tmp_path: Path) -> None:
    manifest = manifest_for(TREE)
    other = Store(tmp_path / "store")
    with store.partial(manifest), pytest.raises(ModelInUse):
        other.partial(manifest)
    other.partial(manifest).close()


def test_a_file_is_imported_without_copying_it(store: Store, tmp_path: Path) -> None:
    source = put(tmp_path, {"Some Model.gguf": TREE["model.onnx"]}) / "Some Model.gguf"
    model = store.import_(source)
    assert model.name == "some model"
    assert model.path.read_bytes() == TREE["model.onnx"]
    assert os.path.samefile(model.path, source) or model.path.stat().st_nlink == 1  # a hard link, or a reflink
    source.unlink()
    assert store.verify(model.root) == []


def test_what_was_changed_behind_the_stores_back_is_not_given_to_anybody(store: Store, tmp_path: Path) -> None:
    model = store.import_(put(tmp_path, {"a.gguf": b"abc"}) / "a.gguf")
    model.path.write_bytes(b"xyz")
    with pytest.raises(ModelDamaged, match="changed"):
        store.read(model.root, 0)
    assert store.verify(model.root) == ["a.gguf"]


def test_a_file_that_is_read_from_stays_open_for_a_while_and_not_longer_than_the_model(
    store: Store, tmp_path: Path
) -> None:
    model = store.import_(put(tmp_path, {"a.gguf": b"abc"}) / "a.gguf")
    store.read(model.root, 0)
    place = model.path.stat()
    assert opened(place) == 1

    store.close_unused()
    assert opened(place) == 1, "it was read from since the last look"
    store.close_unused()
    assert opened(place) == 0

    store.read(model.root, 0)
    store.remove(model.root)
    assert opened(place) == 0
    with pytest.raises(ModelNotFound):
        store.read(model.root, 0)


def opened(place: os.stat_result) -> int:
    """How often this process has the file open, wherever it lies by now."""
    handles = Path("/proc/self/fd")
    if not handles.exists():
        pytest.skip("this system does not say what is open")
    return sum(each.exists() and os.path.samestat(each.stat(), place) for each in handles.iterdir())


def test_a_file_that_was_only_touched_is_right_again_once_it_was_verified(store: Store, tmp_path: Path) -> None:
    model = store.import_(put(tmp_path, {"a.gguf": b"abc"}) / "a.gguf")
    os.utime(model.path, (1, 1))
    with pytest.raises(ModelDamaged):
        store.read(model.root, 0)
    assert store.verify(model.root) == []
    assert bytes(store.read(model.root, 0)) == b"abc"


def test_a_model_in_use_is_not_removed(store: Store, tmp_path: Path) -> None:
    model = store.import_(put(tmp_path, {"a.gguf": b"abc"}) / "a.gguf")
    with Store(store.folder).hold(model.root), pytest.raises(ModelInUse):
        store.remove(model.root)
    store.remove(model.root)
    assert store.models() == []
    with pytest.raises(ModelNotFound):
        store.get(model.root)


def test_a_model_is_found_by_name_root_and_source_and_a_near_miss_is_told(store: Store, tmp_path: Path) -> None:
    model = store.import_(put(tmp_path, {"llama.gguf": b"abc"}) / "llama.gguf", source="hf://org/llama")
    for text in ("llama", model.root.hex(), model.root.hex()[:8], "hf://org/llama"):
        assert store.find(text) == model
    with pytest.raises(ModelNotFound, match="Did you mean 'llama'"):
        store.find("lama")


def test_a_file_that_vanished_from_an_unfinished_model_is_not_believed_to_be_there(store: Store) -> None:
    manifest, parts = manifest_for(TREE), pieces(manifest_for(TREE), TREE)
    with store.partial(manifest) as partial:
        for number in (0, 1, 3):
            partial.write(number, parts[number])
    (partial.folder / "files" / "model.onnx").unlink()
    for _ in range(2):  # the second time there is a file again, and it is empty
        with store.partial(manifest) as again:
            assert again.missing() == [0, 1, 2]


def test_a_linked_file_whose_coming_was_not_journalled_is_not_written_to(store: Store, tmp_path: Path) -> None:
    """A crash between the link and the journal: the other name of the file must not see what comes then."""
    manifest, parts = manifest_for(TREE), pieces(manifest_for(TREE), TREE)
    partial = store.partial(manifest)
    partial.close()
    mine = put(tmp_path, {"mine.onnx": bytes(2_500_000)}) / "mine.onnx"
    place = partial.folder / "files" / "model.onnx"
    place.unlink()
    os.link(mine, place)
    with store.partial(manifest) as again:
        for number in again.missing():
            again.write(number, parts[number])
        again.finish()
    assert mine.read_bytes() == bytes(2_500_000)
    assert store.verify(manifest.root) == []


TWELVE = {"a": noise(3, 4 << 20), "b/c": noise(4, (7 << 20) + 5)}


@given(st.lists(st.one_of(st.integers(0, 11), st.sampled_from(["crash", "close", "flush", "wrong"])), max_size=40))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_happens_what_is_believed_to_be_here_is_right(tmp_path: Path, life: list[int | str]) -> None:
    """Chunks in any order, wrong ones, crashes at any point: the journal never says more than the disk has."""
    manifest = manifest_for(TWELVE)
    parts = pieces(manifest, TWELVE)
    folder = Path(tempfile.mkdtemp(dir=tmp_path))
    store = Store(folder, sync=lambda _: None)
    partial, kept = store.partial(manifest), set[int]()
    for step in life:
        here = {number for number in range(12) if partial.has(number)}
        if isinstance(step, int):
            assert partial.write(step, parts[step]) is (step not in here)
        elif step == "wrong":
            with pytest.raises(BadChunk):
                partial.write(3, parts[4])
        elif step == "flush":
            partial.flush()
            kept = here
        else:
            if step == "close":
                partial.flush()
                kept = here
            partial.close()
            partial = store.partial(manifest)
            assert {number for number in range(12) if partial.has(number)} == kept
        assert all(partial.read(number) == parts[number] for number in range(12) if partial.has(number))
    partial.close()
