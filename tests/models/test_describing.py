"""What the mesh is told of a model file whose user described nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from atmo.models.describing import describe
from atmo.models.gguf import GgufInfo
from atmo.models.purposes import PURPOSES, purpose_of
from atmo.node.offers import MAX_TOLD_CHARS

PLAIN = GgufInfo(
    architecture="qwen2",
    name="",
    parameters=7_600_000_000,
    context=32768,
    quantisation="Q4_K_M",
    vocabulary=152_064,
    has_chat_template=True,
    kv_bytes_per_token=57_344,
    size_bytes=4_700_000_000,
)

REAL_NAMES = [
    ("Qwen2.5-7B-Instruct-Q4_K_M", "general assistant"),
    ("Meta-Llama-3.1-8B-Instruct-Q5_K_S", "general assistant"),
    ("gemma-3-4b-it-Q4_0", "general assistant"),
    ("Mistral-Nemo-Instruct-2407.Q6_K", "general assistant"),
    ("Phi-3.5-mini-instruct-Q8_0", "general assistant"),
    ("SmolLM2-360M-Instruct-Q8_0", "general assistant"),
    ("qwen2.5-coder-14b-instruct-q4_k_m", "programming assistant"),
    ("deepseek-coder-v2-lite-instruct-Q4_K_M", "programming assistant"),
    ("starcoder2-15b-instruct-v0.1.Q4_K_M", "programming assistant"),
    ("Codestral-22B-v0.1-Q4_K_M", "programming assistant"),
    ("CodeLlama-13B-Instruct.Q4_K_M", "programming assistant"),
    ("Devstral-Small-2505-Q4_K_M", "programming assistant"),
    ("granite-8b-code-instruct.Q4_K_M", "programming assistant"),
    ("DeepSeek-R1-Distill-Qwen-7B-Q4_K_M", "reasoning assistant"),
    ("QwQ-32B-Q4_K_M", "reasoning assistant"),
    ("Qwen3-4B-Thinking-2507-Q4_K_M", "reasoning assistant"),
    ("Mathstral-7B-v0.1-Q4_K_M", "mathematics step by step"),
    ("Qwen2.5-Math-7B-Instruct-Q4_K_M", "mathematics step by step"),
    ("sqlcoder-7b-2.Q5_K_M", "into SQL"),
    ("madlad400-3b-mt-q4_k_m", "translates"),
    ("TowerInstruct-7B-v0.2.Q4_K_M", "translates"),
    ("BioMistral-7B.Q4_K_M", "medical"),
    ("Saul-7B-Instruct-v1.Q4_K_M", "legal"),
    ("Llama-Guard-3-8B.Q4_K_M", "is safe"),
    ("MythoMax-L2-13b.Q4_K_M", "fiction"),
    ("functionary-small-v3.2.Q4_0", "calls functions"),
    ("nomic-embed-text-v1.5.Q8_0", "into vectors"),
    ("bge-m3-Q8_0", "into vectors"),
    ("Qwen3-Embedding-0.6B-Q8_0", "into vectors"),
    ("all-MiniLM-L6-v2-Q8_0", "into vectors"),
]


@pytest.mark.parametrize(("stem", "says"), REAL_NAMES, ids=lambda value: value)
def test_the_name_tells_what_a_model_is_for(stem: str, says: str) -> None:
    told = describe(stem, PLAIN)

    assert says in told.description.lower() or says in told.description
    assert len(told.examples) >= 3


def test_people_read_the_name_and_the_size_without_the_noise_of_files() -> None:
    assert describe("qwen2.5-7b-instruct-q4_k_m", PLAIN).description.endswith(
        "Model: qwen2.5 7b instruct, 7.6 billion parameters."
    )
    named = replace(PLAIN, name="Qwen2.5 7B Instruct", parameters=494_000_000)
    assert describe("q", named).description.endswith("Model: Qwen2.5 7B Instruct, 494 million parameters.")
    assert "Model: my model." in describe("my-model", replace(PLAIN, name="/home/x/model", parameters=3)).description


def test_a_model_that_only_encodes_is_an_embedding_whatever_its_name() -> None:
    told = describe("granite-small", replace(PLAIN, embeds=True, has_chat_template=False))

    assert told.type == "embedding"
    assert not told.general


def test_a_base_model_says_that_it_follows_no_instructions() -> None:
    base = describe("llama-3-8b", replace(PLAIN, has_chat_template=False))

    assert "does not follow instructions" in base.description
    assert not base.general
    assert describe("llama-3-8b-instruct", replace(PLAIN, has_chat_template=False)).general


def test_the_larger_of_two_models_is_the_stronger() -> None:
    sizes = [3_000_000, 360_000_000, 7_600_000_000, 70_000_000_000]
    strengths = [describe("chat", replace(PLAIN, parameters=size)).strength for size in sizes]

    assert strengths == sorted(strengths)
    assert strengths[0] == 0.05
    assert strengths[-1] < 0.95


def test_every_purpose_fits_into_a_row_and_is_told_apart() -> None:
    texts = [purpose.what for purpose in PURPOSES]
    assert len(set(texts)) == len(texts)
    for purpose in PURPOSES:
        assert len(purpose.what) + sum(map(len, purpose.examples)) < MAX_TOLD_CHARS / 2


def test_a_word_inside_another_is_no_hint() -> None:
    """`it`, `med` and `law` are parts of many names."""
    for name in ("Medium-7B-chat", "outlaw-13b-chat", "mediterraneo-chat", "encoderless-chat"):
        assert purpose_of(name).general, name


def test_the_shipped_model_file_is_described_by_its_own_words(tmp_path: Path) -> None:
    from atmo.models.library import embedded_models, find_model

    nano = next(model for model in embedded_models() if model.name == "atmo-nano")
    copy = tmp_path / "tiny-coder-instruct.gguf"
    copy.write_bytes(nano.path.read_bytes())

    found = find_model(str(copy), tmp_path)

    assert "programming assistant" in found.description
    assert found.examples
    assert not found.general
