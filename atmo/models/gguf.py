"""Reads what a GGUF file says of itself, and checks that the file is whole, before llama.cpp is let near it.

Theory of operation. A GGUF is: magic, version, count of tensors, count of key-value pairs; the pairs; a table of
tensors (name, shape, type, offset); padding; the tensors' data. llama.cpp calls abort() on some malformed files, which
takes its process with it, so everything that can be checked cheaply is checked here: the table is read in full, the
weights are not. Counts and lengths in the file are claims by a stranger: nothing is allocated because of one, each
must fit into the bytes the file really has, and what is kept is kept for a few known keys only.

Format: github.com/ggml-org/ggml, docs/gguf.md, versions 2 and 3, little-endian.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TypeAlias

from atmo.errors import ModelInvalid, ModelNotFound
from atmo.models.shape import parts_of

_MAX_HEADER_BYTES = 256 * 1024 * 1024  # a guess: 262,144 tokens with merges take 20 MB
_MAX_NAME_BYTES = 65_535  # docs/gguf.md: keys
_MAX_TEXT_BYTES = 4 * 1024 * 1024  # a guess: chat templates reach 30 kB
_MAX_DIMENSIONS = 4  # GGML_MAX_DIMS
_READ_BYTES = 1024 * 1024

_NUMBERS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
_TEXT, _ARRAY = 8, 9

# Tensor type -> (weights in a block, bytes of a block); from ggml.h and ggml-common.h.
_BLOCKS = {
    0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34), 9: (32, 40), 10: (256, 84),
    11: (256, 110), 12: (256, 144), 13: (256, 176), 14: (256, 210), 15: (256, 292), 16: (256, 66), 17: (256, 74),
    18: (256, 98), 19: (256, 50), 20: (32, 18), 21: (256, 110), 22: (256, 82), 23: (256, 136), 24: (1, 1), 25: (1, 2),
    26: (1, 4), 27: (1, 8), 28: (1, 8), 29: (256, 56), 30: (1, 2), 34: (256, 54), 35: (256, 66), 39: (32, 17),
}  # fmt: skip

# general.file_type -> the name users know; from llama.h, enum llama_ftype.
_QUANTISATIONS = {
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 7: "Q8_0", 8: "Q5_0", 9: "Q5_1", 10: "Q2_K", 11: "Q3_K_S", 12: "Q3_K_M",
    13: "Q3_K_L", 14: "Q4_K_S", 15: "Q4_K_M", 16: "Q5_K_S", 17: "Q5_K_M", 18: "Q6_K", 19: "IQ2_XXS", 20: "IQ2_XS",
    21: "Q2_K_S", 22: "IQ3_XS", 23: "IQ3_XXS", 24: "IQ1_S", 25: "IQ4_NL", 26: "IQ3_S", 27: "IQ3_M", 28: "IQ2_S",
    29: "IQ2_M", 30: "IQ4_XS", 31: "IQ1_M", 32: "BF16", 36: "TQ1_0", 37: "TQ2_0", 38: "MXFP4",
}  # fmt: skip

# Architectures that only read; from llama.cpp, src/llama-arch.cpp.
_ENCODERS = {
    "bert", "nomic-bert", "nomic-bert-moe", "neo-bert", "jina-bert-v2", "jina-bert-v3", "modern-bert", "eurobert",
    "gemma-embedding",
}  # fmt: skip
_POOLINGS = (1, 2, 3)  # enum llama_pooling_type: mean, first token, last token

Value: TypeAlias = int | float | str


@dataclass(frozen=True, slots=True)
class GgufInfo:
    """What the file says. context: tokens the model was trained for, 0 when it does not say; parameters: weights in
    this file; kv_bytes_per_token: memory one token of context takes in one slot at 16 bits, 0 when it cannot be
    told; embeds: it makes vectors of texts and does not chat; layers, width: its blocks, and numbers in the vector of a
    token; 0 when it does not say."""

    architecture: str
    name: str
    parameters: int
    context: int
    quantisation: str
    vocabulary: int
    has_chat_template: bool
    kv_bytes_per_token: int
    size_bytes: int
    embeds: bool = False
    layers: int = 0
    width: int = 0


@dataclass(frozen=True, slots=True)
class _Tensor:
    name: str
    weights: int
    size_bytes: int  # 0 when the type is newer than this reader
    offset: int


@dataclass(frozen=True, slots=True)
class _File:
    """values: numbers and texts by key; lengths: of arrays by key."""

    values: dict[str, Value]
    lengths: dict[str, int]
    tensors: list[_Tensor]
    size_bytes: int


def read_gguf(path: Path) -> GgufInfo:
    """Of a split model, give the first part; the others must lie beside it, and count into parameters and size_bytes.

    Raises ModelNotFound when there is no such file, ModelInvalid in one line when it is not a whole GGUF.
    """
    try:
        return _info(path, [_read(path.with_name(name)) for name in parts_of(path.name)])
    except FileNotFoundError as error:
        raise ModelNotFound(f"There is no model file {error.filename}.", hint="Check the path.") from error
    except OSError as error:
        what = f"{path} cannot be read: {error.strerror}."
        raise ModelInvalid(what, hint="Check its type and permissions.") from error
    except _Broken as error:
        raise ModelInvalid(f"{path} is not a usable GGUF model: {error}.", hint=error.hint) from error


def read_text(path: Path, key: str) -> str:
    """One text of a GGUF's metadata, such as `tokenizer.chat_template`; "" when it has none. Raises as `read_gguf`."""
    with path.open("rb") as file:
        cursor = _Cursor(file, path.stat().st_size)
        try:
            values, _ = _pairs(cursor, _counts(cursor)[1])
        except _Broken as error:
            raise ModelInvalid(f"{path} is not a usable GGUF model: {error}.", hint=error.hint) from error
    value = values.get(key, "")
    return value if isinstance(value, str) else ""


class _Broken(Exception):
    def __init__(self, what: str, hint: str = "Fetch it again; it may be damaged or no model at all.") -> None:
        super().__init__(what)
        self.hint = hint


class _Cursor:
    """Reads forward through a file's header. `left` is what the file still holds: no claim may exceed it."""

    def __init__(self, file: BinaryIO, size_bytes: int) -> None:
        self._file = file
        self._size = size_bytes
        self._buffer = b""
        self._start = 0  # of the buffer, in the file
        self._at = 0  # of the cursor, in the buffer

    @property
    def position(self) -> int:
        return self._start + self._at

    @property
    def left(self) -> int:
        return self._size - self.position

    def take(self, count: int) -> bytes:
        self._need(count)
        taken = self._buffer[self._at : self._at + count]
        self._at += count
        return taken

    def skip(self, count: int) -> None:
        """Pass over bytes without keeping them."""
        if count > self.left:
            raise _Broken(f"it ends at byte {self._size}, inside its header")
        self._limit(count)
        if self._at + count <= len(self._buffer):
            self._at += count
            return
        self._start, self._at, self._buffer = self.position + count, 0, b""
        self._file.seek(self._start)

    def number(self, form: str) -> int | float:
        size = struct.calcsize(form)
        value: int | float = struct.unpack(form, self.take(size))[0]
        return value

    def count(self) -> int:
        return int(self.number("<Q"))

    def text(self, most_bytes: int, what: str) -> str:
        length = self.count()
        if length > most_bytes:
            raise _Broken(f"{what} claims {length} bytes, and {most_bytes} are allowed")
        return self.take(length).decode("utf-8", "replace")

    def _need(self, count: int) -> None:
        if self._at + count <= len(self._buffer):
            return
        if count > self.left:
            raise _Broken(f"it ends at byte {self._size}, inside its header")
        self._limit(count)
        rest = self._buffer[self._at :]
        self._start, self._at = self.position, 0
        self._buffer = rest + self._file.read(max(count, _READ_BYTES))
        if len(self._buffer) < count:
            raise _Broken("it became shorter while it was read")

    def _limit(self, count: int) -> None:
        if self.position + count > _MAX_HEADER_BYTES:
            raise _Broken(f"its header is larger than {_MAX_HEADER_BYTES} bytes")


def _read(path: Path) -> _File:
    size_bytes = path.stat().st_size
    with path.open("rb") as file:
        cursor = _Cursor(file, size_bytes)
        tensor_count, pair_count = _counts(cursor)
        values, lengths = _pairs(cursor, pair_count)
        if tensor_count == 0 and _int(values, "split.count") < 2:
            raise _Broken("it holds no tensors, so it is a vocabulary or a header without weights")
        tensors = _tensors(cursor, tensor_count)
        _check_data(cursor.position, size_bytes, _alignment(values), tensors)
    return _File(values, lengths, tensors, size_bytes)


def _counts(cursor: _Cursor) -> tuple[int, int]:
    if cursor.left < 24:
        raise _Broken(f"it has {cursor.left} bytes only")
    magic = cursor.take(4)
    if magic != b"GGUF":
        raise _Broken("it does not begin with GGUF")
    version = int(cursor.number("<I"))
    if version not in (2, 3):
        raise _Broken(f"its version is {version}, and 2 and 3 are known", "Convert it again with a current tool.")
    tensor_count, pair_count = cursor.count(), cursor.count()
    # A tensor's entry takes at least 24 bytes, a pair's 13.
    if tensor_count * 24 > cursor.left or pair_count * 13 > cursor.left:
        raise _Broken(f"it claims {tensor_count} tensors and {pair_count} pairs, more than it has room for")
    return tensor_count, pair_count


def _pairs(cursor: _Cursor, count: int) -> tuple[dict[str, Value], dict[str, int]]:
    """Numbers and texts by key, and the lengths of arrays by key."""
    values: dict[str, Value] = {}
    lengths: dict[str, int] = {}
    for _ in range(count):
        key = cursor.text(_MAX_NAME_BYTES, "a key")
        if key in values or key in lengths:
            raise _Broken(f"the key {key[:60]!r} occurs twice")
        kind = int(cursor.number("<I"))
        if kind in _NUMBERS:
            values[key] = cursor.number(_NUMBERS[kind])
        elif kind == _TEXT:
            values[key] = cursor.text(_MAX_TEXT_BYTES, f"{key[:60]!r}")
        elif kind == _ARRAY:
            lengths[key] = _skip_array(cursor, key)
        else:
            raise _Broken(f"the value of {key[:60]!r} has the unknown type {kind}")
    return values, lengths


def _skip_array(cursor: _Cursor, key: str) -> int:
    kind, length = int(cursor.number("<I")), cursor.count()
    if kind in _NUMBERS:
        cursor.skip(length * struct.calcsize(_NUMBERS[kind]))
        return length
    if kind != _TEXT:
        raise _Broken(f"the array {key[:60]!r} has elements of the unknown type {kind}")
    if length * 8 > cursor.left:
        raise _Broken(f"the array {key[:60]!r} claims {length} texts, more than it has room for")
    for _ in range(length):
        cursor.skip(cursor.count())
    return length


def _tensors(cursor: _Cursor, count: int) -> list[_Tensor]:
    tensors = [_tensor(cursor) for _ in range(count)]
    if len({tensor.name for tensor in tensors}) != count:
        raise _Broken("two of its tensors have the same name")
    return tensors


def _tensor(cursor: _Cursor) -> _Tensor:
    name = cursor.text(_MAX_NAME_BYTES, "a tensor's name")
    dimensions = int(cursor.number("<I"))
    if not 1 <= dimensions <= _MAX_DIMENSIONS:
        raise _Broken(f"the tensor {name[:60]!r} has {dimensions} dimensions")
    shape = [cursor.count() for _ in range(dimensions)]
    kind, offset = int(cursor.number("<I")), cursor.count()
    weights = 1
    for extent in shape:
        weights *= extent
    if not 0 < weights < 2**63:
        raise _Broken(f"the tensor {name[:60]!r} has the shape {shape}")
    per_block, block_bytes = _BLOCKS.get(kind, (1, 0))
    if shape[0] % per_block:
        raise _Broken(f"the tensor {name[:60]!r} has rows of {shape[0]} weights, which its type does not allow")
    return _Tensor(name, weights, weights // per_block * block_bytes, offset)


def _alignment(values: dict[str, Value]) -> int:
    alignment = values.get("general.alignment", 32)
    if not isinstance(alignment, int) or alignment < 1 or alignment & (alignment - 1) or alignment > 2**20:
        raise _Broken(f"its alignment is {alignment!r}, and a power of two is needed")
    return alignment


def _check_data(header_end: int, size_bytes: int, alignment: int, tensors: list[_Tensor]) -> None:
    start = -(-header_end // alignment) * alignment
    for tensor in tensors:
        if tensor.offset % alignment:
            raise _Broken(f"the tensor {tensor.name[:60]!r} begins at an odd place")
        if start + tensor.offset + tensor.size_bytes > size_bytes:
            needed = max(start + each.offset + each.size_bytes for each in tensors)
            raise _Broken(f"it is cut short: {size_bytes} of {needed} bytes are there", "Fetch it again.")


def _info(path: Path, files: list[_File]) -> GgufInfo:
    values, lengths = files[0].values, files[0].lengths
    _check_parts(values, len(files))
    architecture = values.get("general.architecture")
    if not isinstance(architecture, str) or not architecture:
        raise _Broken("it does not name its architecture")
    name, file_type = values.get("general.name"), values.get("general.file_type")
    return GgufInfo(
        architecture=architecture[:80],
        name=_printable(name) if isinstance(name, str) and name else path.stem,
        parameters=sum(tensor.weights for file in files for tensor in file.tensors),
        context=_int(values, f"{architecture}.context_length"),
        quantisation=_QUANTISATIONS.get(file_type, "") if isinstance(file_type, int) else "",
        vocabulary=lengths.get("tokenizer.ggml.tokens", 0),
        has_chat_template=bool(values.get("tokenizer.chat_template")),
        kv_bytes_per_token=_kv_bytes_per_token(lambda key: _int(values, f"{architecture}.{key}")),
        size_bytes=sum(file.size_bytes for file in files),
        layers=_int(values, f"{architecture}.block_count"),
        width=_int(values, f"{architecture}.embedding_length"),
        embeds=architecture in _ENCODERS or _int(values, f"{architecture}.pooling_type") in _POOLINGS,
    )


def _check_parts(values: dict[str, Value], count: int) -> None:
    """llama.cpp finds the parts of a split model by their names, so these must be right."""
    number, told = _int(values, "split.no"), max(1, _int(values, "split.count"))
    if number:
        raise _Broken(f"it is part {number + 1} of {told}", "Give the first part.")
    if told != count:
        raise _Broken(f"it is the first of {told} parts", f"Call the parts NAME-00001-of-{told:05}.gguf and so on.")


def _kv_bytes_per_token(number: Callable[[str], int]) -> int:
    """Keys and values of all layers, two bytes each. `number` gives an architecture's value by key, 0 when it is
    absent."""
    heads = number("attention.head_count")
    if not heads:
        return 0
    head_width = number("embedding_length") // heads
    key_width = number("attention.key_length") or head_width
    value_width = number("attention.value_length") or head_width
    return 2 * number("block_count") * (number("attention.head_count_kv") or heads) * (key_width + value_width)


def _int(values: dict[str, Value], key: str) -> int:
    value = values.get(key, 0)
    return value if isinstance(value, int) and 0 <= value < 2**40 else 0


def _printable(text: str) -> str:
    """A name from a stranger's file, fit for a terminal."""
    return "".join(char for char in text if char.isprintable())[:80]
