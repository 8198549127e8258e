"""Which files make a model: the parts of a split GGUF, an ONNX model's data, a folder as it lies."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest

from atmo.errors import ModelInvalid, ModelNotFound
from atmo.models.shape import is_first, main_file, parts_of, whole_name
from atmo.models.trees import files_of
from tests.models.stores import put


def entry(number: int, data: bytes) -> bytes:
    """A field of a protobuf message that has a length."""
    assert len(data) < 128
    return bytes([number << 3 | 2, len(data)]) + data


def onnx(*locations: str) -> bytes:
    """A model whose tensors lie in other files: one in the graph, one in a node of a graph in an attribute."""
    tensors = [
        entry(8, b"w") + entry(13, entry(1, b"location") + entry(2, location.encode())) + entry(13, entry(1, b"offset"))
        for location in locations
    ]
    graph = b"".join(entry(5, tensor) for tensor in tensors[:1])
    for tensor in tensors[1:]:
        graph += entry(1, entry(5, entry(6, entry(5, tensor))))
    return b"\x08\x09" + entry(2, b"tests") + entry(7, graph)


def test_any_part_of_a_split_model_brings_all_of_them(tmp_path: Path) -> None:
    names = [f"m-{number:05}-of-00003.gguf" for number in (1, 2, 3)]
    put(tmp_path, dict.fromkeys(names, b"x"))
    for name in names:
        assert sorted(files_of(tmp_path / name)) == names
    (tmp_path / names[1]).unlink()
    with pytest.raises(ModelNotFound, match="m-00002-of-00003"):
        files_of(tmp_path / names[0])


def test_an_onnx_model_brings_the_files_its_weights_lie_in(tmp_path: Path) -> None:
    put(tmp_path, {"m.onnx": onnx("m.data", "sub/more.bin"), "m.data": b"1", "sub/more.bin": b"2", "other": b"3"})
    assert sorted(files_of(tmp_path / "m.onnx")) == ["m.data", "m.onnx", "sub/more.bin"]


@pytest.mark.parametrize("location", ["../secret", "/etc/passwd", "a/../../b", ""])
def test_an_onnx_model_that_reaches_out_of_its_folder_is_refused(tmp_path: Path, location: str) -> None:
    put(tmp_path, {"m.onnx": onnx(location)})
    with pytest.raises(ModelInvalid, match="not beside it"):
        files_of(tmp_path / "m.onnx")


@pytest.mark.parametrize("cut", range(1, 60, 7))
def test_a_damaged_onnx_model_is_refused_or_read(tmp_path: Path, cut: int) -> None:
    put(tmp_path, {"m.onnx": onnx("m.data")[:-cut], "m.data": b""})
    with suppress(ModelInvalid, ModelNotFound):
        files_of(tmp_path / "m.onnx")


def test_the_models_that_come_with_atmosphere_need_no_other_file() -> None:
    assets = Path(__file__).parents[2] / "atmo" / "assets"
    for path in (assets / "encoder" / "encoder.onnx", assets / "shapes" / "model.onnx", assets / "tone" / "head.onnx"):
        assert list(files_of(path)) == [path.name]


def test_a_folder_comes_as_it_lies_but_for_what_is_none_of_a_model(tmp_path: Path) -> None:
    put(
        tmp_path,
        {"m.gguf": b"1", "mmproj-m.gguf": b"2", "tok/tokenizer.json": b"3", ".git/HEAD": b"4", ".cache/x": b""},
    )
    assert list(files_of(tmp_path)) == ["m.gguf", "mmproj-m.gguf", "tok/tokenizer.json"]


def test_what_is_not_there_or_no_tree_is_said(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match="no file or folder"):
        files_of(tmp_path / "none.gguf")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelNotFound, match="no file in"):
        files_of(tmp_path / "empty")
    put(tmp_path / "odd", {"a": b"", "A": b""})
    with pytest.raises(ModelInvalid, match="same path"):
        files_of(tmp_path / "odd")


def test_the_file_to_load_is_the_largest_gguf_that_is_no_projector_or_its_first_part() -> None:
    assert main_file({"a.gguf": 2, "mmproj-a.gguf": 9, "draft.gguf": 1}) == "a.gguf"
    assert main_file({"x/m-00001-of-00002.gguf": 1, "x/m-00002-of-00002.gguf": 9}) == "x/m-00001-of-00002.gguf"
    assert main_file({"model.onnx": 5}) == ""
    assert parts_of("m.gguf") == ["m.gguf"]
    assert [is_first(name) for name in ("m.gguf", "m-00001-of-00002.gguf", "m-00002-of-00002.gguf", "mmproj.gguf")] == [
        True,
        True,
        False,
        False,
    ]
    assert [whole_name(name) for name in ("sub/m-00001-of-00002.gguf", "m.GGUF", "folder/")] == ["m", "m", "folder"]
