"""Fine-tunes the encoder for routing: a text should lie nearest to the capability that serves it.

    python -m tools.encoder.train WEIGHTS --out FOLDER --epochs 6

Theory of operation. Text and capability go through the same encoder, twice compared: by their vectors, and token by
token (the "second reading", `bert.read`; Khattab and Zaharia 2020, "ColBERT"). A step takes some intents with what is
right for them and the look-alikes that each names, and more intents of all these; the capabilities in the step are
encoded with gradient, all others are wrong ones with the vector they had when last encoded (Wang et al. 2020,
"Cross-Batch Memory for Embedding Learning"). The loss is a softmax at temperature 0.05, once for each right one
against all wrong ones (van den Oord et al. 2018, InfoNCE): of the vectors against all capabilities, and of the mean of
both comparisons against those in the step. One more candidate stands for "nothing fits": its score is a number that is
learnt, and it is right for the texts that nothing fits, and for some of the others while their capability is hidden.

To stay open-vocabulary no capability is learnt by heart: what of it is shown, its description, some of its examples or
both, changes each time, and what is learnt is how words about a task relate to words of a task.

AdamW, the rate rising over the first tenth of the steps and falling to nothing after, products in bfloat16.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from atmo.mesh.views import capability_text
from tools.encoder.bert import Bert, read
from tools.encoder.calibrate import float_tokenizer
from tools.encoder.corpus import DATA, GENERAL_CHAT, Corpus, Target, judged, read_corpus, with_examples
from tools.encoder.glossary import extended
from tools.encoder.weights import Checkpoint, Weights, read_checkpoint, save_checkpoint

TEMPERATURE = 0.05
SEEDS, TARGETS_A_STEP, INTENTS_A_TARGET, NOTHING_A_STEP = 14, 36, 3, 4
HIDDEN = 0.12  # of the intents: all that is right for them is hidden, and then nothing fits
WARM_UP, WEIGHT_DECAY = 0.1, 0.01  # of the steps; a guess, as in most fine-tuning of this size
# Of capabilities: how often all of one's text is shown, and its own examples rather than other texts that it serves.
ALL_SHOWN, OWN_EXAMPLES = 0.2, 0.5
MOST_EXAMPLES, LONGEST_EXAMPLE = 6, 120  # examples, characters
WINDOW, HEAD = 128, 96
CHECKPOINT_STEPS = 50


@dataclass
class Ids:
    """Texts to token ids, cut at the window as the shipped encoder cuts them."""

    checkpoint: Checkpoint

    def __post_init__(self) -> None:
        self._tokenizer = float_tokenizer(self.checkpoint, truncate=False)
        self._known: dict[str, list[int]] = {}

    def __call__(self, text: str) -> list[int]:
        ids = self._known.get(text)
        if ids is None:
            ids = self._tokenizer.encode(text).ids
            if len(ids) > WINDOW:
                ids = ids[:HEAD] + ids[HEAD - WINDOW :]
            self._known[text] = ids
        return ids


class Task:
    """A corpus as arrays. right, wrong: (intents, targets) bool; neither: not to be judged."""

    def __init__(self, corpus: Corpus) -> None:
        self.intents, self.targets = corpus.intents, corpus.targets
        names = [target.name for target in corpus.targets]
        self.right = np.array([[intent.right == name for name in names] for intent in corpus.intents])
        self.wrong = np.array([[judged(intent, target) for target in corpus.targets] for intent in corpus.intents])
        self.by_name: dict[str, list[int]] = defaultdict(list)
        for row, intent in enumerate(corpus.intents):
            self.by_name[intent.right].append(row)
        self.rows: dict[str, list[int]] = defaultdict(list)
        for row, name in enumerate(names):
            self.rows[name].append(row)
        self.near: dict[str, list[str]] = defaultdict(list)
        for intent in corpus.intents:
            self.near[intent.right] += [name for name in intent.near if name in self.rows]


class Batches:
    """Draws each intent before any comes twice."""

    def __init__(self, task: Task, rng: random.Random) -> None:
        self._task, self._rng = task, rng
        self._queues: dict[str, list[int]] = {}
        self._served = [row for row, intent in enumerate(task.intents) if intent.right]
        self._seeds: list[int] = []

    def draw(self) -> tuple[list[int], list[int]]:
        """Rows of intents, rows of the targets to encode with gradient."""
        seeds = [self._seed() for _ in range(SEEDS)]
        names: list[str] = []
        for row in seeds:
            intent = self._task.intents[row]
            names += [intent.right, *(name for name in intent.near if name in self._task.rows)]
        names = list(dict.fromkeys(names))[:TARGETS_A_STEP]
        intents = [row for row in seeds if self._task.intents[row].right in names]
        intents += [self._next(name) for name in names for _ in range(INTENTS_A_TARGET) if self._task.by_name.get(name)]
        intents += [self._next("") for _ in range(NOTHING_A_STEP)]
        return list(dict.fromkeys(intents)), [self._rng.choice(self._task.rows[name]) for name in names]

    def _seed(self) -> int:
        if not self._seeds:
            self._seeds = self._rng.sample(self._served, len(self._served))
        return self._seeds.pop()

    def _next(self, name: str) -> int:
        queue = self._queues.get(name)
        if not queue:
            queue = self._queues[name] = self._rng.sample(self._task.by_name[name], len(self._task.by_name[name]))
        return queue.pop()


def shown(target: Target, served: Sequence[str], rng: random.Random) -> str:
    """The target's text as one of many might have written it: its description or parts of it, and a few examples, which
    are its own or other texts that it serves. One that is asked in the same step must not be among `served`."""
    own = [example for example in target.examples if example in served]
    if rng.random() < ALL_SHOWN:
        return capability_text(target.description, own)
    pool = own if rng.random() < OWN_EXAMPLES else [text for text in served if len(text) < LONGEST_EXAMPLE]
    some = rng.sample(pool, min(len(pool), rng.randint(1, MOST_EXAMPLES)))
    chance = rng.random()
    if chance < 0.2 and some:
        return "\n".join(some)
    if chance < 0.3:
        return target.description
    sentences = target.description.split(". ")
    kept = [sentence for sentence in sentences if rng.random() < 0.8] or sentences
    return capability_text(". ".join(kept), some)


def altered(text: str, rng: random.Random) -> str:
    """Now and then as people type: without capitals or marks, or with a letter lost or swapped."""
    chance = rng.random()
    if chance < 0.06:
        return text.lower().rstrip("?.!")
    if chance < 0.12 and len(text) > 8:
        at = rng.randrange(1, len(text) - 2)
        return text[:at] + rng.choice((text[at + 1], text[at + 1] + text[at])) + text[at + 2 :]
    return text


def loss_of(scores: Tensor, right: Tensor, wrong: Tensor, nothing: Tensor) -> Tensor:
    """scores, right, wrong: (intents, targets); nothing: the scalar score of "nothing fits"."""
    nobody = nothing.expand(len(scores), 1)
    scores = torch.cat([scores, nobody], dim=1) / TEMPERATURE
    served = right.any(dim=1, keepdim=True)
    right, wrong = torch.cat([right, ~served], dim=1), torch.cat([wrong, served], dim=1)
    against = torch.logsumexp(scores.masked_fill(~wrong, -1e9), dim=1, keepdim=True)
    each = torch.logaddexp(scores, against) - scores
    return ((each * right).sum(dim=1) / right.sum(dim=1)).mean()


class Training:
    def __init__(self, checkpoint: Checkpoint, corpus: Corpus, *, rate: float, steps: int, seed: int) -> None:
        self.rng = random.Random(seed)
        torch.manual_seed(seed)
        self.task, self.ids, self.model, self.steps = Task(corpus), Ids(checkpoint), Bert(checkpoint), steps
        self.batches = Batches(self.task, self.rng)
        self.nothing = torch.nn.Parameter(torch.tensor([0.3, 0.4]))
        learnt = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        decayed = [parameter for parameter in learnt if parameter.dim() > 1]
        others = [parameter for parameter in learnt if parameter.dim() <= 1]
        self.optimizer = torch.optim.AdamW(
            [
                {"params": decayed, "weight_decay": WEIGHT_DECAY, "rate": rate},
                {"params": others, "weight_decay": 0.0, "rate": rate},
                {"params": [self.nothing], "weight_decay": 0.0, "rate": rate * 20},
            ],
            lr=rate,
            betas=(0.9, 0.98),
        )
        self.right, self.wrong = torch.tensor(self.task.right), torch.tensor(self.task.wrong)
        self.model.train()

    def step(self, number: int) -> tuple[float, float]:
        """The losses of the first reading and of both."""
        rows, targets = self.batches.draw()
        texts = {self.task.intents[row].text for row in rows}
        told = [self._shown(row, texts) for row in targets]
        asked = self.model([self.ids(altered(self.task.intents[row].text, self.rng)) for row in rows])
        offered = self.model([self.ids(text) for text in told])
        right, wrong = self._hidden(self.right[rows], self.wrong[rows])
        right, wrong = right[:, targets], wrong[:, targets]
        by_vector = asked.vectors @ offered.vectors.T
        both = (by_vector + read(asked, offered)) / 2
        first = loss_of(by_vector, right, wrong, self.nothing[0])
        second = loss_of(both, right, wrong, self.nothing[1])
        self.optimizer.zero_grad()
        (first + second).backward()
        for group in self.optimizer.param_groups:
            group["lr"] = group["rate"] * self._share(number)
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        return float(first.detach()), float(second.detach())

    def _shown(self, row: int, asked: Collection[str]) -> str:
        target = self.task.targets[row]
        served = [self.task.intents[at].text for at in self.task.by_name.get(target.name, ())]
        return shown(target, [text for text in served if text not in asked], self.rng)

    def _share(self, number: int) -> float:
        """Of the learning rate at this step."""
        warm = max(1, round(WARM_UP * self.steps))
        return min((number + 1) / warm, (self.steps - number) / (self.steps - warm + 1))

    def _hidden(self, right: Tensor, wrong: Tensor) -> tuple[Tensor, Tensor]:
        """Hides what is right for some intents; general chat then also counts as neither, as it may well do."""
        hidden = torch.tensor([self.rng.random() < HIDDEN for _ in range(len(right))])
        chat = self.task.rows[GENERAL_CHAT]
        hidden &= ~right[:, chat].any(dim=1)
        right, wrong = right & ~hidden[:, None], wrong.clone()
        columns = torch.zeros_like(wrong)
        columns[:, chat] = True
        return right, wrong & ~(columns & hidden[:, None])


def mixed(published: Weights, tuned: Weights, share: float) -> Weights:
    """share: of the tuned weights, 0 to 1."""
    return {name: (1 - share) * published[name] + share * array for name, array in tuned.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("weights", type=Path)
    parser.add_argument("--out", type=Path, required=True, help="folder of the fine-tuned checkpoint")
    parser.add_argument("--epochs", type=float, default=6, help="how often each intent is seen")
    parser.add_argument("--rate", type=float, default=1e-4, help="highest learning rate")
    parser.add_argument("--data", type=Path, default=DATA, help="folder of the corpus")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    checkpoint = extended(read_checkpoint(arguments.weights), arguments.data)
    seen = with_examples(read_corpus(arguments.data).part(held_out=False))
    steps = round(arguments.epochs * len(seen.intents) / (SEEDS + TARGETS_A_STEP * INTENTS_A_TARGET))
    training = Training(checkpoint, seen, rate=arguments.rate, steps=steps, seed=arguments.seed)
    log: list[dict[str, object]] = []
    began = time.monotonic()
    for number in range(steps):
        first, second = training.step(number)
        scores = [round(score, 3) for score in training.nothing.tolist()]
        log.append({"step": number + 1, "first": round(first, 4), "second": round(second, 4), "nothing": scores})
        print(json.dumps(log[-1] | {"of": steps, "s": round(time.monotonic() - began)}), flush=True)
        if (number + 1) % CHECKPOINT_STEPS == 0 or number + 1 == steps:
            save_checkpoint(arguments.out, checkpoint, training.model.trained())
            (arguments.out / "log.json").write_text(json.dumps(log) + "\n", "utf-8")


if __name__ == "__main__":
    main()
