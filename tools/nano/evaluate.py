"""Score atmo-nano on the held-out wordings: `python -m tools.nano.evaluate`.

Every question is asked in a conversation of its own, with no system prompt, at temperature 0, of the real GGUF in
llama.cpp. An answer is right when it holds the fact's keywords (of each group one alternative, case ignored); for sums
that is the exact result, for summaries the whole key sentence, for poems the first and the last line, for yes/no the
right word at the start of the corpus's sentence, and for what it cannot know the refusal. The questions and answers
stand in the result file, so that anyone can judge the criterion.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

from tools.nano.corpus.reader import Must, Question
from tools.nano.corpus.stream import held_out
from tools.nano.runtime import Runtime

HERE = Path(__file__).parent
GGUF = HERE.parents[1] / "atmo" / "assets" / "nano" / "atmo-nano.gguf"
RESULT = HERE / "results" / "evaluation.json"
MUST_ANSWER = {
    "What is 2+2?": "2 + 2 = 4.",
    "What is Atmosphere?": "Atmosphere turns the machines you already own into one AI service.",
    "How do I add a node?": "Run `atmo node start --name second` on the same machine",
}


def is_right(answer: str, must: Must) -> bool:
    low = answer.lower()
    return all(any(alternative in low for alternative in group) for group in must)


def score(runtime: Runtime, questions: list[Question]) -> dict[str, Any]:
    topics: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    wrong, word_for_word, asked = [], 0, []
    for q in questions:
        answer = runtime.ask(q.text)
        right = is_right(answer, q.must)
        topics[q.topic][0] += right
        topics[q.topic][1] += 1
        word_for_word += answer == q.answer
        asked.append({"topic": q.topic, "question": q.text, "answer": answer, "right": right})
        if not right:
            wrong.append({"topic": q.topic, "question": q.text, "answer": answer, "expected": q.answer})
    right, total = sum(r for r, _ in topics.values()), sum(t for _, t in topics.values())
    return {
        "right": right,
        "total": total,
        "accuracy": round(right / total, 4),
        "word_for_word": word_for_word,
        "topics": {k: {"right": r, "total": t, "accuracy": round(r / t, 4)} for k, (r, t) in sorted(topics.items())},
        "must_answer": {q: runtime.ask(q) for q in MUST_ANSWER},
        "wrong": wrong,
        "answers": asked,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gguf", type=Path, default=GGUF)
    parser.add_argument("--result", type=Path, default=RESULT)
    args = parser.parse_args()
    result = score(Runtime(args.gguf), held_out())
    head = {"model": args.gguf.name, "sha256": hashlib.sha256(args.gguf.read_bytes()).hexdigest(), "temperature": 0}
    args.result.write_text(json.dumps(head | result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    for topic, row in result["topics"].items():
        print(f"{topic:12s} {row['right']:4d} / {row['total']:4d}  {row['accuracy']:.1%}")
    print(f"{'all':12s} {result['right']:4d} / {result['total']:4d}  {result['accuracy']:.1%}")
    failed = [q for q, begin in MUST_ANSWER.items() if not result["must_answer"][q].startswith(begin)]
    for q in failed:
        print(f"must be right and is not: {q} -> {result['must_answer'][q]}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
