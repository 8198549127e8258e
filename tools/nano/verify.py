"""Check that llama.cpp runs the network that was trained: `python -m tools.nano.verify`.

Three comparisons between torch and llama.cpp: the token ids of many texts, the text of the chat template, and greedy
answers to prompts. The first two must be equal always; answers may differ where two tokens are almost equally likely,
because the GGUF holds 8 bits of each weight.
"""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path

import torch
from tokenizers import Tokenizer

from tools.nano.chat import END, START
from tools.nano.corpus.stream import Stream, held_out
from tools.nano.evaluate import GGUF
from tools.nano.export import load
from tools.nano.model import Nano
from tools.nano.runtime import LONGEST_ANSWER, Runtime
from tools.nano.vocabulary import BUILD

RESULT = Path(__file__).parent / "results" / "verification.json"
ODD = (
    "", " ", "  two  spaces ", "\n\n\n", "tab\there", "don't I'LL WE'VE", "ß ü é ñ", "日本語", "🙂 ok", "12345 3.14",
    "a\r\nb", "x=1;y=2", "((()))", "http://a.b/c?d=e", "  leading", "trailing  ", "`code` **bold**", "¿qué?", "a_b_c",
    "\u00a0nbsp", "१२३",
)  # fmt: skip


def texts(count: int = 2000) -> list[str]:
    """Corpus texts, odd strings and random printable noise."""
    rng, stream = random.Random(3), Stream(99)
    said = [text for _ in range(count // 4) for _, text in stream.conversation()]
    noise = ["".join(chr(rng.randrange(32, 127)) for _ in range(rng.randrange(1, 40))) for _ in range(count // 4)]
    return [*ODD, *said, *noise]


def differing_tokens(runtime: Runtime, tokenizer: Tokenizer, samples: list[str]) -> list[str]:
    def theirs(text: str) -> list[int]:
        return list(runtime.post("/tokenize", {"content": text, "add_special": False})["tokens"])

    return [t for t in samples if theirs(t) != tokenizer.encode(t).ids]


def prompt_of(question: str) -> str:
    return f"{START}user\n{question}{END}\n{START}assistant\n"


@torch.no_grad()
def greedy(model: Nano, tokenizer: Tokenizer, prompt: str) -> str:
    ids, end = tokenizer.encode(prompt).ids, tokenizer.token_to_id(END)
    start = len(ids)
    for _ in range(LONGEST_ANSWER):
        token = int(model(torch.tensor([ids]))[0, -1].argmax())
        if token == end:
            break
        ids.append(token)
    return str(tokenizer.decode(ids[start:]))


def main() -> int:
    runtime, model = Runtime(GGUF), load(BUILD / "model.pt")
    tokenizer = Tokenizer.from_file(str(BUILD / "tokenizer.json"))
    samples = texts()
    differing = differing_tokens(runtime, tokenizer, samples)
    questions = [q.text for q in random.Random(5).sample(held_out(), 50)]
    template = runtime.post("/apply-template", {"messages": [{"role": "user", "content": " Hi "}]})["prompt"]
    answers = {q: (greedy(model, tokenizer, prompt_of(q)), runtime.ask(q)) for q in questions}
    unequal = {q: pair for q, pair in answers.items() if pair[0] != pair[1]}
    result = {
        "texts": len(samples),
        "texts_with_other_tokens": differing,
        "template_equal": template == prompt_of("Hi"),
        "prompts": len(answers),
        "equal_answers": len(answers) - len(unequal),
        "unequal": {q: {"torch": a, "llama.cpp": b} for q, (a, b) in unequal.items()},
    }
    RESULT.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=1, ensure_ascii=False))
    return 1 if differing or not result["template_equal"] else 0


if __name__ == "__main__":
    sys.exit(main())
