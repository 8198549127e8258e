"""Reading a GGUF's description, and refusing in one line what is truncated, hostile or no GGUF at all."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from atmo.errors import ModelInvalid, ModelNotFound
from atmo.models.gguf import GgufInfo, read_gguf, read_text
from tests.inference.gguf_maker import TEMPLATE, write_parrot

NANO = Path(__file__).parents[2] / "atmo" / "assets" / "nano" / "atmo-nano.gguf"


@pytest.fixture(scope="module")
def parrot(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_parrot(tmp_path_factory.mktemp("gguf") / "parrot.gguf")


def number(value: int, size: int = 8) -> bytes:
    return value.to_bytes(size, "little")


def text(value: str) -> bytes:
    return number(len(value.encode())) + value.encode()


def header(pairs: bytes = b"", *, pair_count: int = 0, tensors: bytes = b"", tensor_count: int = 1) -> bytes:
    return b"GGUF" + number(3, 4) + number(tensor_count) + number(pair_count) + pairs + tensors


def tensor(name: str = "w", shape: tuple[int, ...] = (1,), kind: int = 0, offset: int = 0) -> bytes:
    extents = b"".join(number(extent) for extent in shape)
    return text(name) + number(len(shape), 4) + extents + number(kind, 4) + number(offset)


ARCHITECTURE = text("general.architecture") + number(8, 4) + text("llama")


def test_says_what_the_file_says(parrot: Path) -> None:
    assert read_gguf(parrot) == GgufInfo(
        architecture="llama",
        name="parrot",
        parameters=637_760,
        context=2048,
        quantisation="F32",
        vocabulary=259,
        has_chat_template=True,
        kv_bytes_per_token=2 * 1 * 5 * (64 + 64),
        size_bytes=parrot.stat().st_size,
        layers=1,
        width=320,
    )
    assert read_text(parrot, "tokenizer.chat_template") == TEMPLATE
    assert read_text(parrot, "no.such.key") == ""


@pytest.mark.skipif(not NANO.exists(), reason="atmo-nano is not built")
def test_reads_the_shipped_model() -> None:
    info = read_gguf(NANO)
    assert info.architecture == "llama"
    assert info.quantisation == "Q8_0"
    assert info.has_chat_template
    assert 2_000_000 < info.parameters < 6_000_000


def test_an_absent_file_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match="no model file"):
        read_gguf(tmp_path / "none.gguf")


def test_a_folder_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(ModelInvalid, match="cannot be read"):
        read_gguf(tmp_path)


@pytest.mark.parametrize("share", [0.0001, 0.001, 0.01, 0.05, 0.5, 0.9, 0.9999])
def test_a_truncated_file_is_refused_wherever_it_ends(parrot: Path, tmp_path: Path, share: float) -> None:
    whole = parrot.read_bytes()
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(ModelInvalid) as caught:
        read_gguf(cut)
    assert "\n" not in str(caught.value)
    assert str(cut) in str(caught.value)


def pair(key: str, kind: int, value: bytes) -> bytes:
    """A header with one key-value pair and some room behind it."""
    return header(text(key) + number(kind, 4) + value + bytes(99), pair_count=1)


def shaped(*shape: int, kind: int = 0, offset: int = 0) -> bytes:
    """A header with one tensor and some room behind it."""
    return header(tensors=tensor(shape=shape, kind=kind, offset=offset) + bytes(99))


def array(kind: int, length: int) -> bytes:
    return number(kind, 4) + number(length)


HOSTILE = {
    "empty": (b"", "it has 0 bytes only"),
    "text": (b"<!DOCTYPE html>" + b" " * 64, "does not begin with GGUF"),
    "version 1": (b"GGUF" + number(1, 4) + bytes(64), "version is 1"),
    "big-endian": (b"GGUF" + (3).to_bytes(4, "big") + bytes(64), "version is 50331648"),
    "no tensors": (header(tensor_count=0), "holds no tensors"),
    "endless tensors": (header(tensor_count=2**64 - 1), "more than it has room for"),
    "endless pairs": (header(pair_count=2**63), "more than it has room for"),
    "endless key": (header(number(2**60) + bytes(99), pair_count=1), "a key claims"),
    "endless text": (pair("k", 8, number(2**61)), "'k' claims 2305843009213693952 bytes"),
    "endless array": (pair("k", 9, array(5, 2**62)), "it ends at byte"),
    "endless texts": (pair("k", 9, array(8, 2**50)), "1125899906842624 texts"),
    "endless text in an array": (pair("k", 9, array(8, 2) + number(2**60)), "it ends at byte"),
    "nested array": (pair("k", 9, array(9, 1)), "unknown type 9"),
    "unknown type": (pair("k", 99, b""), "unknown type 99"),
    "same key twice": (header(ARCHITECTURE * 2 + bytes(99), pair_count=2), "occurs twice"),
    "no architecture": (shaped(1), "does not name its architecture"),
    "five dimensions": (shaped(1, 1, 1, 1, 1), "5 dimensions"),
    "no dimensions": (shaped(), "0 dimensions"),
    "overflowing shape": (shaped(2**32, 2**32), "has the shape"),
    "empty shape": (shaped(0), "has the shape"),
    "half a block": (shaped(33, kind=8), "rows of 33"),
    "same tensor twice": (header(tensors=tensor() * 2 + bytes(99), tensor_count=2), "same name"),
    "tensor beyond the end": (shaped(1, offset=2**40), "cut short"),
    "tensor at an odd place": (shaped(1, offset=3), "odd place"),
    "odd alignment": (
        header(text("general.alignment") + number(4, 4) + number(33, 4), pair_count=1, tensors=tensor() + bytes(99)),
        "alignment is 33",
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_are_refused_without_believing_them(tmp_path: Path, name: str) -> None:
    data, what = HOSTILE[name]
    path = tmp_path / "hostile.gguf"
    path.write_bytes(data)
    tracemalloc.start()
    with pytest.raises(ModelInvalid, match=what):
        read_gguf(path)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak_bytes < 4_000_000


def test_a_name_cannot_write_to_the_terminal(tmp_path: Path) -> None:
    pairs = ARCHITECTURE + text("general.name") + number(8, 4) + text("\x1b[2Jevil\nname")
    path = tmp_path / "name.gguf"
    path.write_bytes(header(pairs, pair_count=2, tensors=tensor()) + bytes(99))
    assert read_gguf(path).name == "[2Jevilname"


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(at=st.integers(0, 12_000), flipped=st.binary(min_size=1, max_size=8))
def test_damage_is_refused_or_harmless(parrot: Path, tmp_path: Path, at: int, flipped: bytes) -> None:
    """Whatever a few bytes of the header become, the answer is a description or ModelInvalid in one line."""
    data = bytearray(parrot.read_bytes()[:40_000])
    data[at : at + len(flipped)] = flipped
    path = tmp_path / "damaged.gguf"
    path.write_bytes(bytes(data))
    what = ""
    try:
        assert read_gguf(path).parameters > 0
    except ModelInvalid as error:
        what = str(error)
    assert "\n" not in what
