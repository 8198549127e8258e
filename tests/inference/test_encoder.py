"""The text encoder as it ships: the real model, compared with the float vectors that `tools/encoder` wrote down."""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from atmo.errors import ModelInvalid, ModelNotFound, UsageError
from atmo.inference.encoder import HEAD_CHARS, TAIL_CHARS, Encoder, default_folder, dequantise, quantise
from atmo.mesh.views import READ_WIDTH

GOLDEN = Path(__file__).parents[2] / "tools" / "encoder" / "results" / "golden.json"
DIM = 384


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return Encoder.load()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the installed encoder that a test may damage."""
    return Path(shutil.copytree(default_folder(), tmp_path / "encoder"))


def test_vectors_agree_with_the_float_model(encoder: Encoder) -> None:
    lines = json.loads(GOLDEN.read_text("utf-8"))
    assert len(lines) >= 20
    for line in lines:
        golden = dequantise(np.frombuffer(base64.b64decode(line["vector"]), np.int8))
        assert float(encoder.encode(line["text"]) @ golden) > 0.99, line["text"]


def test_a_vector_has_length_one_and_says_what_made_it(encoder: Encoder) -> None:
    vector = encoder.encode("How do I add a node?")
    assert vector.shape == (DIM,)
    assert vector.dtype == np.float32
    assert float(np.linalg.norm(vector)) == pytest.approx(1, abs=1e-5)
    assert encoder.encoder_id == "minilm-l6-v2-int8-3"
    assert (encoder.dim, encoder.window) == (DIM, 128)


def test_texts_of_one_meaning_are_closer_than_texts_of_two(encoder: Encoder) -> None:
    asked, said_otherwise, other = encoder.encode_batch(
        ["How can I reset my password?", "I forgot my login and need a new one", "A recipe for banana bread"]
    )
    assert asked @ said_otherwise > asked @ other + 0.3


def test_a_batch_gives_the_same_bits_as_single_texts() -> None:
    texts = ["short", "a text of some more words than that", "short", "数字を足してください"]
    batch = Encoder.load().encode_batch(texts)
    alone = Encoder.load(cache_entries=0)
    assert batch.shape == (len(texts), DIM)
    for row, text in zip(batch, texts, strict=True):
        assert np.array_equal(row, alone.encode(text))
    assert alone.encode_batch([]).shape == (0, DIM)


def test_threads_may_share_one_encoder() -> None:
    texts = [f"text number {number} of many, some of which are the same" for number in range(12)] * 3
    expected = Encoder.load().encode_batch(texts)
    shared = Encoder.load(cache_entries=5)  # small, so that threads also push each other's vectors out
    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(shared.encode, texts))
    assert np.array_equal(np.stack(found), expected)


# Tokens


def test_each_token_has_a_direction_and_a_share(encoder: Encoder) -> None:
    reading = encoder.read("translate this haiku")
    tokens, width = reading.tokens.shape
    assert tokens == encoder.count_tokens("translate this haiku")
    assert width == READ_WIDTH
    assert np.linalg.norm(reading.tokens / 127, axis=1) == pytest.approx(np.ones(tokens), abs=0.02)
    assert float(reading.shares.sum()) == pytest.approx(1, abs=1e-5)
    assert np.array_equal(reading.vector, encoder.encode("translate this haiku"))


def test_a_word_of_another_language_is_read_as_what_it_means(encoder: Encoder) -> None:
    french, english, other = encoder.encode_batch(
        ["traduire cette lettre", "translate this letter", "weather tomorrow"]
    )
    assert french @ english > 0.7 > 0.4 > french @ other
    assert encoder.count_tokens("traduire") == 3


def test_a_shorter_window_leaves_out_the_middle(encoder: Encoder) -> None:
    words = [f"{number}" for number in range(100, 200)]
    short = encoder.read(" ".join(words), 64)
    assert len(short.tokens) == 64
    assert np.array_equal(short.vector, encoder.encode(" ".join(words[:47] + words[-15:])))


# Long texts


def test_a_long_text_is_read_at_its_start_and_its_end_only(encoder: Encoder) -> None:
    start, end = "Translate the following into French. " * 20, " That was the letter, please keep it polite." * 10
    one = encoder.encode(start + "alpha beta gamma. " * 300 + end)
    same = encoder.encode(start + "omega psi chi. " * 900 + end)
    assert np.array_equal(one, same)
    assert not np.array_equal(one, encoder.encode("Summarise this. " * 60 + "alpha beta gamma. " * 300 + end))
    assert not np.array_equal(one, encoder.encode(start + "alpha beta gamma. " * 300 + " Now write a poem." * 30))


def test_the_window_holds_the_first_95_and_the_last_31_words(encoder: Encoder) -> None:
    """Every word here is one token, so what is read can be spelled out."""
    words = [f"{number}" for number in range(100, 400)]
    read = words[:95] + words[-31:]
    assert encoder.count_tokens(" ".join(words)) == 128
    assert np.array_equal(encoder.encode(" ".join(words)), encoder.encode(" ".join(read)))


def test_a_text_that_just_fits_is_read_whole(encoder: Encoder) -> None:
    assert encoder.count_tokens("mesh " * 126) == 128
    assert encoder.count_tokens("mesh " * 125) == 127
    assert encoder.count_tokens("mesh") == 3


def test_a_megabyte_costs_no_more_than_a_page(encoder: Encoder) -> None:
    text = "lorem ipsum dolor sit amet " * 40_000
    start = time.thread_time()
    assert encoder.count_tokens(text) == 128
    assert time.thread_time() - start < 0.05  # tokenising all of it takes about a second


@pytest.mark.parametrize("filler", ["\n" * 50_000, " \t" * 50_000])
def test_blank_space_does_not_push_a_text_out_of_the_window(encoder: Encoder, filler: str) -> None:
    text = "What is the weather like?"
    assert np.array_equal(encoder.encode(filler + text + filler), encoder.encode(text))


@pytest.mark.parametrize("length", [HEAD_CHARS, HEAD_CHARS + TAIL_CHARS, HEAD_CHARS + TAIL_CHARS + 1])
def test_a_single_endless_word_has_a_vector(encoder: Encoder, length: int) -> None:
    assert float(np.linalg.norm(encoder.encode("x" * length))) == pytest.approx(1, abs=1e-5)


# Odd texts


@pytest.mark.parametrize("text", ["", "   \n\t", "\x00", "\u200b" * 5_000])
def test_nothing_to_read_is_a_usage_error(encoder: Encoder, text: str) -> None:
    with pytest.raises(UsageError, match="empty"):
        encoder.encode(text)
    assert encoder.count_tokens(text) == 2


@pytest.mark.parametrize("text", ["\ud800", "ok \udfff", "🙂", "a\x00b", "[CLS] [SEP] [PAD]", "\u202eabc"])
def test_odd_characters_have_a_vector_like_any_other(encoder: Encoder, text: str) -> None:
    assert float(np.linalg.norm(encoder.encode(text))) == pytest.approx(1, abs=1e-5)


# Recent texts


def test_recent_texts_are_found_and_the_oldest_forgotten() -> None:
    encoder = Encoder.load(cache_entries=2)
    first = encoder.encode("one")
    encoder.encode("two")
    assert encoder.encode("one") is first
    encoder.encode("three")  # pushes out "two", which was used least recently
    encoder.encode("one")
    encoder.encode("two")
    assert (encoder.stats.hits, encoder.stats.misses, encoder.stats.entries) == (2, 4, 2)
    assert repr(encoder) == "<Encoder minilm-l6-v2-int8-3 cached=2 hits=2 misses=4>"


def test_no_text_stays_in_memory_and_two_encoders_keep_it_under_different_digests() -> None:
    kept = []
    for encoder in (Encoder.load(), Encoder.load()):
        encoder.encode("a secret prompt")
        kept += list(encoder._cache._readings)
    assert all(len(key) == 16 for key in kept)
    assert kept[0] != kept[1]


def test_a_caller_cannot_change_a_vector_that_others_will_get(encoder: Encoder) -> None:
    vector = encoder.encode("shared")
    with pytest.raises(ValueError, match="read-only"):
        vector[0] = 1


# int8


def test_a_code_points_where_its_vector_does(encoder: Encoder) -> None:
    code = encoder.encode_int8("How do I add a node?")
    assert code.shape == (DIM,)
    assert code.dtype == np.int8
    # Rounding to 127 steps leaves 1 - 384 / 12 / 127**2 / 2 = 0.9990 on the mean, a little more or less for each text.
    assert float(dequantise(code) @ encoder.encode("How do I add a node?")) > 0.998


@given(st.lists(st.floats(-1, 1, width=32), min_size=1, max_size=16))
def test_a_component_is_off_by_at_most_half_a_step(values: list[float]) -> None:
    vector = np.array(values, np.float32)
    assert np.abs(quantise(vector) / 127.0 - vector).max() <= 0.5 / 127 + 1e-6


def test_a_stack_of_codes_becomes_a_stack_of_vectors() -> None:
    codes = np.array([[127, 0], [0, -127], [3, 4], [0, 0]], np.int8)
    assert np.allclose(dequantise(codes), np.array([[1, 0], [0, -1], [0.6, 0.8], [0, 0]]))


# What can be wrong with the files


def test_without_files_it_says_which_folder_and_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound) as caught:
        Encoder.load(tmp_path)
    assert str(tmp_path) in str(caught.value)
    assert caught.value.hint == "Install the package again."


@pytest.mark.parametrize("name", ["encoder.onnx", "tokenizer.json"])
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(ModelNotFound, match=name):
        Encoder.load(folder)


@pytest.mark.parametrize("name", ["encoder.onnx", "tokenizer.json"])
def test_a_truncated_file_is_refused(folder: Path, name: str) -> None:
    data = (folder / name).read_bytes()
    (folder / name).write_bytes(data[:-1])
    with pytest.raises(ModelInvalid, match=f"{len(data) - 1} bytes instead of {len(data)}"):
        Encoder.load(folder)


def test_a_single_flipped_bit_is_refused(folder: Path) -> None:
    data = bytearray((folder / "encoder.onnx").read_bytes())
    data[len(data) // 2] ^= 1
    (folder / "encoder.onnx").write_bytes(data)
    with pytest.raises(ModelInvalid, match="checksum"):
        Encoder.load(folder)


@pytest.mark.parametrize("card", ["", "{}", '{"id": 5}', "no json"])
def test_a_damaged_card_is_refused(folder: Path, card: str) -> None:
    (folder / "encoder.json").write_text(card)
    with pytest.raises(ModelInvalid, match=r"encoder\.json is damaged"):
        Encoder.load(folder)


def test_a_file_that_is_no_model_is_refused_even_when_the_card_lists_it(folder: Path) -> None:
    junk = b"not a graph"
    (folder / "encoder.onnx").write_bytes(junk)
    card = json.loads((folder / "encoder.json").read_text())
    card["files"]["encoder.onnx"] = {"bytes": len(junk), "sha256": hashlib.sha256(junk).hexdigest()}
    (folder / "encoder.json").write_text(json.dumps(card))
    with pytest.raises(ModelInvalid, match="onnxruntime cannot load") as caught:
        Encoder.load(folder)
    assert "\n" not in str(caught.value)


# What it costs


def test_importing_the_module_loads_no_runtime() -> None:
    program = (
        "import sys, atmo.inference.encoder; print([n for n in ('onnxruntime', 'tokenizers') if n in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_loading_and_encoding_start_no_thread() -> None:
    before = threading.active_count(), _kernel_threads()
    Encoder.load().encode("a text")
    assert (threading.active_count(), _kernel_threads()) == before


def _kernel_threads() -> int:
    tasks = Path("/proc/self/task")
    return len(list(tasks.iterdir())) if tasks.exists() else 0
