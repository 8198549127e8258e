"""A manifest: the same bytes have the same root, a changed byte has another, and a stranger's bytes are refused."""

from __future__ import annotations

from pathlib import Path

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from atmo.errors import RemoteProtocolError
from atmo.models.manifest import CHUNK_BYTES, Entry, Manifest
from atmo.models.roots import root_of
from tests.models.stores import manifest_for, noise, pieces, put

TREE = {"model.onnx": noise(1, 2_500_000), "sub/tokenizer.json": b"{}", "empty": b""}


def test_a_manifest_names_every_chunk_of_every_file_and_none_spans_two() -> None:
    manifest = manifest_for(TREE)
    assert [manifest.chunk(number) for number in range(manifest.chunk_count)] == [
        ("model.onnx", 0, CHUNK_BYTES),
        ("model.onnx", CHUNK_BYTES, CHUNK_BYTES),
        ("model.onnx", 2 * CHUNK_BYTES, 2_500_000 - 2 * CHUNK_BYTES),
        ("sub/tokenizer.json", 0, 2),
    ]
    assert manifest.size == 2_500_002
    assert all(manifest.fits(number, data) for number, data in enumerate(pieces(manifest, TREE)))
    for number in (-1, 4):
        assert not manifest.fits(number, b"{}")
        with pytest.raises(IndexError):
            manifest.chunk(number)


def test_a_file_has_one_root_whatever_it_is_called_and_whoever_computes_it(tmp_path: Path) -> None:
    data = noise(2, 3_000_000)
    assert manifest_for({"a.gguf": data}).root == manifest_for({"b.gguf": data}).root
    put(tmp_path, {"c.gguf": data})
    assert root_of(tmp_path / "c.gguf") == manifest_for({"a.gguf": data}).root.hex()


def test_a_folder_has_the_root_of_its_manifest(tmp_path: Path) -> None:
    assert root_of(put(tmp_path, TREE)) == manifest_for(TREE).root.hex()


def test_what_is_changed_has_another_root() -> None:
    root = manifest_for(TREE).root
    for changed in (
        {**TREE, "model.onnx": TREE["model.onnx"] + b"x"},
        {**TREE, "model.onnx": b"x" + TREE["model.onnx"][1:]},
        {**TREE, "more": b""},
        {"model.onnx": TREE["model.onnx"], "sub/other.json": b"{}", "empty": b""},
    ):
        assert manifest_for(changed).root != root


def test_a_single_chunk_is_not_taken_for_the_file_it_makes() -> None:
    """Or an inner node could be passed off as a leaf."""
    manifest = manifest_for({"a": b"abc"})
    assert manifest.root not in (manifest.hash(0), manifest_for({"a": manifest.hash(0)}).root)


def test_a_manifest_survives_the_journey() -> None:
    manifest = manifest_for(TREE)
    assert Manifest.decode(manifest.encode(), manifest.root) == manifest


def test_a_manifest_of_another_model_is_refused() -> None:
    with pytest.raises(RemoteProtocolError, match="not of"):
        Manifest.decode(manifest_for(TREE).encode(), bytes(32))


@pytest.mark.parametrize(
    ("entries", "hashes", "why"),
    [
        ([["../x", 1]], 1, "not a relative path"),
        ([["/etc/passwd", 1]], 1, "not a relative path"),
        ([["a//b", 1]], 1, "not a relative path"),
        ([["a\\b", 1]], 1, "not a relative path"),
        ([["a\nb", 1]], 1, "control character"),
        ([["a/" + "n" * 300, 1]], 1, "not a relative path"),
        ([["a", 1], ["a/b", 1]], 2, "both a file and a folder"),
        ([["A", 1], ["a", 1]], 2, "same path"),
        ([["b", 1], ["a", 1]], 2, "not sorted"),
        ([], 0, "length"),
        ([["a", 1]], 2, "bytes of hashes"),
        ([["a", -1]], 0, "Expected"),
        ([["a", 1 << 60]], 0, "Expected"),
        ([["a", 1 << 41], ["b", 1 << 42]], 0, "chunks"),
    ],
)
def test_a_tree_that_cannot_lie_in_one_folder_is_refused(entries: list[list[object]], hashes: int, why: str) -> None:
    with pytest.raises(RemoteProtocolError, match=why):
        Manifest.decode(msgpack.packb([1, entries, bytes(32 * hashes)]))


@pytest.mark.parametrize("data", [b"", b"\x00", b"\x91" * 65536, msgpack.packb([2, [["a", 0]], b""]), b"\xff" * 99])
def test_what_is_no_manifest_is_refused_in_one_line(data: bytes) -> None:
    with pytest.raises(RemoteProtocolError) as refused:
        Manifest.decode(data)
    assert "\n" not in str(refused.value)


@given(st.binary(max_size=200), st.integers(0, 200))
def test_mutated_manifests_are_read_or_refused(noise_: bytes, at: int) -> None:
    """Whatever comes: a manifest that hashes to its root, or RemoteProtocolError."""
    data = bytearray(manifest_for({"a": b"x", "b/c": b"yz"}).encode())
    at = min(at, len(data))
    data[at : at + len(noise_)] = noise_
    try:
        found = Manifest.decode(bytes(data))
    except RemoteProtocolError:
        return
    assert Manifest.decode(found.encode(), found.root) == found


def test_the_order_in_which_a_tree_is_listed_is_part_of_nothing() -> None:
    with pytest.raises(RemoteProtocolError):
        Manifest((Entry("b", 0), Entry("a", 0)), b"")
    assert manifest_for({"b": b"1", "a": b"2"}) == manifest_for({"a": b"2", "b": b"1"})
