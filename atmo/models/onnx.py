"""Which other files an ONNX model keeps its weights in.

An ONNX file is one protobuf message. A tensor may lie in another file, named by the entry `location` of its
external_data (github.com/onnx/onnx, docs/ExternalData.md). Only the fields that lead to a tensor are walked; weights
are passed over. Lengths in the file are claims by a stranger: each must end inside what it stands in, and names must
not leave the folder.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from atmo.errors import ModelInvalid, ModelNotFound

# What leads to tensors: message -> field number -> message. From onnx.proto3.
_WAYS: dict[str, dict[int, str]] = {
    "Model": {7: "Graph", 25: "Function"},
    "Function": {7: "Node"},
    "Graph": {1: "Node", 5: "Tensor", 15: "Sparse"},
    "Sparse": {1: "Tensor", 2: "Tensor"},
    "Node": {5: "Attribute"},
    "Attribute": {5: "Tensor", 6: "Graph", 10: "Tensor", 11: "Graph", 22: "Sparse", 23: "Sparse"},
    "Tensor": {13: "Entry"},
}
_MAX_DEPTH = 64  # graphs in graphs; real ones reach five or six
_MAX_ENTRY_BYTES = 4096
_MAX_LOCATIONS = 1000
_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5


def external_files(path: Path) -> list[str]:
    """Names beside the file, sorted. Raises ModelNotFound, ModelInvalid."""
    try:
        with path.open("rb") as file:
            end = file.seek(0, 2)
            found = set()
            for location in _locations(file, 0, end, "Model", 0):
                found.add(_inside(location))
                if len(found) > _MAX_LOCATIONS:
                    raise _Broken(f"it keeps its weights in more than {_MAX_LOCATIONS} files")
    except FileNotFoundError as error:
        raise ModelNotFound(f"There is no model file {path}.", hint="Check the path.") from error
    except OSError as error:
        raise ModelInvalid(f"{path} cannot be read: {error.strerror}.") from error
    except _Broken as error:
        what = f"{path} is not a usable ONNX model: {error}."
        raise ModelInvalid(what, hint="Fetch it again; it may be damaged or no model at all.") from error
    return sorted(found)


class _Broken(Exception):
    pass


def _locations(file: BinaryIO, start: int, end: int, message: str, depth: int) -> Iterator[str]:
    if depth > _MAX_DEPTH:
        raise _Broken("its graphs are nested too deeply")
    for number, first, last in _fields(file, start, end):
        kind = _WAYS[message].get(number)
        if kind == "Entry":
            key, value = _entry(file, first, last)
            if key == b"location":
                yield value.decode("utf-8", "replace")
        elif kind is not None:
            yield from _locations(file, first, last, kind, depth + 1)


def _fields(file: BinaryIO, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Number, start and end of each field that has a length; the others are passed over."""
    at = start
    while at < end:
        file.seek(at)
        tag, at = _varint(file, at, end)
        number, wire = tag >> 3, tag & 7
        if wire == _VARINT:
            _, at = _varint(file, at, end)
        elif wire in (_FIXED64, _FIXED32):
            at += 8 if wire == _FIXED64 else 4
        elif wire == _LENGTH:
            length, at = _varint(file, at, end)
            if length > end - at:
                raise _Broken("a part of it claims to be longer than the file")
            yield number, at, at + length
            at += length
        else:
            raise _Broken("it does not read as a protobuf message")


def _varint(file: BinaryIO, at: int, end: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        byte = file.read(1)
        at += 1
        if not byte or at > end:
            break
        value |= (byte[0] & 0x7F) << shift
        if byte[0] < 0x80:
            return value, at
    raise _Broken("it does not read as a protobuf message")


def _entry(file: BinaryIO, start: int, end: int) -> tuple[bytes, bytes]:
    if end - start > _MAX_ENTRY_BYTES:
        raise _Broken("the name of a file is too long")
    texts = {1: b"", 2: b""}
    for number, first, last in _fields(file, start, end):
        file.seek(first)
        texts[number] = file.read(last - first)
    return texts[1], texts[2]


def _inside(location: str) -> str:
    parts = location.replace("\\", "/").split("/")
    parts = [part for part in parts if part != "."]
    if not parts or location.startswith("/") or any(part in ("", "..") for part in parts):
        raise _Broken(f"it wants the file {location[:80]!r}, which is not beside it")
    return "/".join(parts)
