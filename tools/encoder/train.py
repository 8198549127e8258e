"""Fine-tunes the encoder for routing: a text should lie nearest to the capability that serves it.

    python -m tools.encoder.train WEIGHTS --out FOLDER --steps 400

Theory of operation. Text and capability go through the same encoder; a capability is one text, its description and
its examples (`capability_text`). Of each step's intents the capabilities that are right for them and look-alikes of
these are encoded with gradient; all others take part as negatives with the vector they had when last encoded (Wang
et al. 2020, "Cross-Batch Memory for Embedding Learning"), so that each intent is held against every capability for
the price of a few. The loss is a softmax over them at temperature 0.05, once for each right one against all wrong ones
(van den Oord et al. 2018, InfoNCE). One more candidate stands for "nothing fits": its score is a number that is learnt,
and it is right for the texts that nothing fits, and for some of the others while their capability is hidden.

To stay open-vocabulary no capability is learnt by heart: which of its examples are shown, and in which order, changes
each time, and what is learnt is how words about a task relate to words of a task.

The learning rate stays level and the weights are averaged exponentially, which does for the noise what a decaying rate
would (Polyak and Juditsky 1992); so a run may be ended after any step. The published weights are mixed in at the end
(Wortsman et al. 2022, "Robust fine-tuning of zero-shot models") by as much as helps on held-out capabilities.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from atmo.mesh.views import capability_text
from tools.encoder.bert import Bert
from tools.encoder.calibrate import float_tokenizer
from tools.encoder.corpus import GENERAL_CHAT, Corpus, Target, judged, read_corpus
from tools.encoder.weights import Checkpoint, Weights, read_checkpoint, save_checkpoint

TEMPERATURE = 0.05
TARGETS_A_STEP, INTENTS_A_TARGET, NOTHING_A_STEP = 24, 4, 6
LOOK_ALIKES = 3  # of each drawn target, drawn with it
TEXTS_A_TARGET = 8  # enough for variety, few enough that frozen layers read each only once
HIDDEN = 0.12  # of the intents: all that is right for them is hidden, and then nothing fits
WARM_UP_STEPS, WEIGHT_DECAY = 15, 0.01  # a guess, as in most fine-tuning of this size
AVERAGE = 0.98  # of the running average of the weights: about the last 50 steps
WINDOW, HEAD = 128, 96
CHECKPOINT_STEPS = 10


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
    """Draws intents evenly over their targets, each before any comes twice."""

    def __init__(self, task: Task, rng: random.Random) -> None:
        self._task, self._rng = task, rng
        self._queues: dict[str, list[int]] = {}

    def draw(self) -> tuple[list[int], list[int]]:
        """Rows of intents, rows of the targets to encode with gradient."""
        names: list[str] = []
        while len(names) < TARGETS_A_STEP:
            name = self._rng.choice([name for name in self._task.rows if self._task.by_name.get(name)])
            alike = self._task.near[name]
            names += [name, *(self._rng.choice(alike) for _ in range(LOOK_ALIKES) if alike)]
        names = list(dict.fromkeys(names))[:TARGETS_A_STEP]
        intents = [self._next(name) for name in names for _ in range(INTENTS_A_TARGET) if self._task.by_name.get(name)]
        intents += [self._next("") for _ in range(NOTHING_A_STEP)]
        return intents, [self._rng.choice(self._task.rows[name]) for name in names]

    def _next(self, name: str) -> int:
        queue = self._queues.get(name)
        if not queue:
            queue = self._queues[name] = self._rng.sample(self._task.by_name[name], len(self._task.by_name[name]))
        return queue.pop()


def shown(target: Target, rng: random.Random) -> str:
    """The target's text with some of its examples in some order, one of TEXTS_A_TARGET that are drawn alike."""
    rng = random.Random(f"{target.name} {target.description} {rng.randrange(TEXTS_A_TARGET)}")
    count = rng.randint(0, len(target.examples)) if rng.random() < 0.7 else len(target.examples)
    return capability_text(target.description, rng.sample(target.examples, count))


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
    def __init__(
        self, checkpoint: Checkpoint, corpus: Corpus, *, frozen: int, rate: float, nothing: float, seed: int
    ) -> None:
        self.rng = random.Random(seed)
        torch.manual_seed(seed)
        self.task, self.ids, self.model = Task(corpus), Ids(checkpoint), Bert(checkpoint, frozen)
        self.batches = Batches(self.task, self.rng)
        self.nothing = torch.nn.Parameter(torch.tensor(nothing))
        learnt = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        self.optimizer = torch.optim.AdamW(
            [
                {"params": learnt, "weight_decay": WEIGHT_DECAY, "rate": rate},
                {"params": [self.nothing], "weight_decay": 0.0, "rate": rate * 20},
            ],
            lr=rate,
        )
        self.average = {name: array.copy() for name, array in self.model.trained().items()}
        self.right, self.wrong = torch.tensor(self.task.right), torch.tensor(self.task.wrong)
        with torch.no_grad():
            self.memory = self.model([self.ids(shown(target, self.rng)) for target in self.task.targets])

    def step(self, number: int) -> float:
        rows, targets = self.batches.draw()
        texts = [self.ids(altered(self.task.intents[row].text, self.rng)) for row in rows]
        fresh = [self.ids(shown(self.task.targets[row], self.rng)) for row in targets]
        vectors = self.model([*texts, *fresh])
        asked, offered = vectors[: len(texts)], vectors[len(texts) :]
        self.memory[targets] = offered.detach()
        everyone = self.memory.clone()
        everyone[targets] = offered
        right, wrong = self._hidden(self.right[rows], self.wrong[rows])
        loss = loss_of(asked @ everyone.T, right, wrong, self.nothing)
        self.optimizer.zero_grad()
        loss.backward()
        for group in self.optimizer.param_groups:
            group["lr"] = group["rate"] * min(1.0, (number + 1) / WARM_UP_STEPS)
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self._remember(number)
        return float(loss.detach())

    def _hidden(self, right: Tensor, wrong: Tensor) -> tuple[Tensor, Tensor]:
        """Hides what is right for some intents; general chat then also counts as neither, as it may well do."""
        hidden = torch.tensor([self.rng.random() < HIDDEN for _ in range(len(right))])
        chat = self.task.rows[GENERAL_CHAT]
        hidden &= ~right[:, chat].any(dim=1)
        right, wrong = right & ~hidden[:, None], wrong.clone()
        columns = torch.zeros_like(wrong)
        columns[:, chat] = True
        return right, wrong & ~(columns & hidden[:, None])

    def _remember(self, number: int) -> None:
        keep = min(AVERAGE, number / (number + 10))
        for name, array in self.model.trained().items():
            self.average[name] += (1 - keep) * (array - self.average[name])


def validate(model: Bert, ids: Ids, corpus: Corpus, seen: Corpus) -> dict[str, float]:
    """Accuracy on capabilities that training never saw, held against these alone and against all."""
    intents = [intent for intent in corpus.intents if intent.right]
    with torch.no_grad():
        asked = model([ids(intent.text) for intent in intents]).numpy()
        own, others = (_offers(model, ids, part.targets) for part in (corpus, seen))
    own_scores, other_scores = asked @ own.T, asked @ others.T
    best = own_scores.argmax(axis=1)
    hits = np.array([corpus.targets[at].name == intent.right for at, intent in zip(best, intents, strict=True)])
    wrong = np.array([[judged(intent, target) for target in seen.targets] for intent in intents])
    first = np.array(
        [
            max(score for score, target in zip(row, corpus.targets, strict=True) if target.name == intent.right)
            for row, intent in zip(own_scores, intents, strict=True)
        ]
    )
    beaten = np.where(wrong, other_scores, -1.0).max(axis=1)
    return {"among_unseen": float(hits.mean()), "among_all": float((hits & (first > beaten)).mean())}


def _offers(model: Bert, ids: Ids, targets: tuple[Target, ...]) -> NDArray[np.float32]:
    vectors = model([ids(capability_text(target.description, target.examples)) for target in targets])
    return np.asarray(vectors.numpy(), np.float32)


def mixed(published: Weights, tuned: Weights, share: float) -> Weights:
    """share: of the tuned weights, 0 to 1."""
    return {name: (1 - share) * published[name] + share * array for name, array in tuned.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("weights", type=Path)
    parser.add_argument("--out", type=Path, required=True, help="folder of the fine-tuned checkpoint")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--frozen", type=int, default=0, help="lowest layers that keep their weights")
    parser.add_argument("--rate", type=float, default=2e-4, help="learning rate")
    parser.add_argument("--nothing", type=float, default=0.3, help='first score of "nothing fits"')
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    checkpoint, corpus = read_checkpoint(arguments.weights), read_corpus()
    seen, unseen = corpus.part(held_out=False), corpus.part(held_out=True)
    training = Training(
        checkpoint, seen, frozen=arguments.frozen, rate=arguments.rate, nothing=arguments.nothing, seed=arguments.seed
    )
    log: list[dict[str, float]] = []
    began = time.monotonic()
    for number in range(arguments.steps):
        loss = training.step(number)
        log.append({"step": number + 1, "loss": round(loss, 4), "nothing": round(float(training.nothing), 3)})
        print(json.dumps(log[-1] | {"s": round(time.monotonic() - began)}), flush=True)
        if (number + 1) % CHECKPOINT_STEPS == 0 or number + 1 == arguments.steps:
            _save(arguments.out, checkpoint, training, log)
    training.model.load(training.average)
    print(json.dumps(validate(training.model, training.ids, unseen, seen)))


def _save(out: Path, checkpoint: Checkpoint, training: Training, log: list[dict[str, float]]) -> None:
    save_checkpoint(out, checkpoint, training.average)
    (out / "log.json").write_text(json.dumps(log) + "\n", "utf-8")


if __name__ == "__main__":
    main()
