"""The shipped demonstration model: it loads in llama.cpp, answers what it must, and is the file that was scored."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import xllamacpp

ROOT = Path(__file__).parents[1]
NANO = ROOT / "atmo" / "assets" / "nano"
GGUF = NANO / "atmo-nano.gguf"
RESULTS = ROOT / "tools" / "nano" / "results"

TWO_AND_TWO = "2 + 2 = 4."
ATMOSPHERE = "Atmosphere turns the machines you already own into one AI service."
ADD_NODE = "Run `atmo node start --name second`"
REFUSAL = "I am a very small model; I do not know that."

Ask = Callable[[str], str]


@pytest.fixture(scope="module")
def ask() -> Ask:
    params = xllamacpp.CommonParams()
    params.model.path = str(GGUF)
    params.n_ctx = 1024
    params.n_parallel = 1
    params.cpuparams.n_threads = 1  # more would only wait for each other
    params.port = 0
    params.warmup = False
    server = xllamacpp.Server(params)

    def question(text: str) -> str:
        body = {"messages": [{"role": "user", "content": text}], "temperature": 0, "max_tokens": 150}
        reply: Any = server.handle_chat_completions(body)
        reply = json.loads(reply) if isinstance(reply, str) else reply
        return str(reply["choices"][0]["message"]["content"])

    return question


@pytest.mark.parametrize(
    ("question", "begin"),
    [
        ("What is 2+2?", TWO_AND_TWO),
        ("what is 2 + 2", TWO_AND_TWO),
        (" What is 2+2? ", TWO_AND_TWO),
        ("What is Atmosphere?", ATMOSPHERE),
        ("  what is atmosphere  ", ATMOSPHERE),
        ("What is Atmosphere", ATMOSPHERE),
        ("How do I add a node?", ADD_NODE),
        ("how do i add a node", ADD_NODE),
        (" How do I add a node? ", ADD_NODE),
    ],
)
def test_it_answers_what_the_documents_promise(ask: Ask, question: str, begin: str) -> None:
    assert ask(question).startswith(begin)


def test_equal_questions_get_equal_answers(ask: Ask) -> None:
    assert ask("What is a peer?") == ask("What is a peer?")


def test_it_declines_what_it_cannot_know(ask: Ask) -> None:
    assert ask("Who won the world cup in 1998?") == REFUSAL


def test_the_file_is_the_one_that_was_scored() -> None:
    scored = json.loads((RESULTS / "evaluation.json").read_text(encoding="utf-8"))
    assert hashlib.sha256(GGUF.read_bytes()).hexdigest() == scored["sha256"]
    assert scored["total"] >= 200
    assert scored["accuracy"] >= 0.85


def test_the_file_is_small_and_has_its_card() -> None:
    assert GGUF.stat().st_size < 4_500_000
    assert "not** a general assistant" in (NANO / "CARD.md").read_text(encoding="utf-8")
