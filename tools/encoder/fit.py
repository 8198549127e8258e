"""Fits what turns the encoder's vectors into decisions; writes `results/fit.json`.

    python -m tools.encoder.fit

On intents and capabilities that training never saw, held among capabilities that it did see, by the relevance formula
of views.py: from which relevance on something fits, by the number of capabilities to choose from, and the temperature
of the probabilities (ranking.py), the margin and the lead from which a choice is sure, and how a conversation is best
read (meaning.py). The constants in the code are these, rounded. Also says which weights of the formula would do best
here. One intent in ten is also asked with its capability taken away, and then nothing fits; where fewer capabilities
are to choose from, about one in six.

Every second intent fits, the others measure; then the halves change places.
"""

from __future__ import annotations

import functools
import itertools
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from atmo.generation import Turn
from atmo.inference.encoder import Encoder
from atmo.mesh.classes import TOKEN_SCALE
from atmo.mesh.ranking import SHORTLIST, UNFIT_MOST
from atmo.mesh.views import BEST_WEIGHT, CENTRE_WEIGHT, SECOND_WEIGHT, WHOLE_WEIGHT, capability_text, second_reading
from atmo.node.meaning import conversation
from tools.encoder.corpus import GENERAL_CHAT, Corpus, Target, judged, read_corpus

RESULT = Path(__file__).parent / "results" / "fit.json"
DISTRACTORS = 26  # capabilities beside the held-out ones
HIDDEN = 10  # every so many intents are asked once more without their capability
NUMBERS = (1, 2, 3, 5, 10, 20, 40, UNFIT_MOST)  # of capabilities to choose from; the last: all
NOTHING = 0.15  # of the intents, where some of the capabilities are drawn: theirs is not among them
FIRST = [tuple(part / 5 for part in (w, c, 5 - w - c)) for w in range(6) for c in range(6 - w)]
SECOND = (0.0, 0.25, 0.4, 0.5, 0.6, 0.75, 1.0)
WEIGHTS = [(*((1 - second) * part for part in first), second) for first in FIRST for second in SECOND]
IN_USE = (*((1 - SECOND_WEIGHT) * part for part in (WHOLE_WEIGHT, CENTRE_WEIGHT, BEST_WEIGHT)), SECOND_WEIGHT)
TEMPERATURES = np.arange(0.02, 0.071, 0.005)
ONES, GROWTHS = np.arange(0.24, 0.40, 0.01), np.arange(0.0, 0.051, 0.005)
MARGINS = (0.01, 0.02, 0.03, 0.05, 0.08)
SURE_SHARE = 0.9  # of the choices called sure should be right
BINS = 10
LAST_WEIGHTS = (0.0, 0.5, 0.7, 0.8, 0.9, 1.0)

Array = NDArray[np.float64]
Tokens = Sequence[NDArray[np.float32]]


@dataclass(frozen=True)
class Cases:
    """first: (3, cases, targets), whole text, centre of the examples, best view; asked: of each case its tokens times
    their shares; offered: of each target its tokens; allowed, right: (cases, targets); chat: (targets,)."""

    first: Array
    asked: Tokens
    offered: Tokens
    allowed: NDArray[np.bool_]
    right: NDArray[np.bool_]
    chat: NDArray[np.bool_]

    def scores(self, weights: Sequence[float]) -> Array:
        """-1 for what is not allowed or not on the short list."""
        parts = np.concatenate([self.first, self._second[None]])
        return np.where(self._listed, np.tensordot(np.asarray(weights), parts, axes=1), -1.0)

    @functools.cached_property
    def _listed(self) -> NDArray[np.bool_]:
        """The SHORTLIST best by what is linear, as ranking.py reads them."""
        linear = np.where(self.allowed, WHOLE_WEIGHT * self.first[0] + CENTRE_WEIGHT * self.first[1], -1.0)
        place = min(SHORTLIST, linear.shape[1])
        return self.allowed & (linear >= np.partition(linear, -place, axis=1)[:, -place, None])

    @functools.cached_property
    def _second(self) -> Array:
        found = np.zeros(self.allowed.shape)
        for row, asked in enumerate(self.asked):
            listed = np.flatnonzero(self._listed[row])
            tokens = [self.offered[at] for at in listed.tolist()]
            found[row, listed] = second_reading(np.concatenate(tokens), np.cumsum([0, *map(len, tokens[:-1])]), asked)
        return found

    def half(self, odd: int) -> Cases:
        rows = slice(odd, None, 2)
        return replace(
            self,
            first=self.first[:, rows],
            asked=self.asked[rows],
            allowed=self.allowed[rows],
            right=self.right[rows],
        )

    def among(self, number: int, seed: int = 1) -> Cases:
        """Each case with so many of its capabilities, drawn. The right one is one of them unless nothing shall fit."""
        if number >= UNFIT_MOST:
            return self
        rng = np.random.default_rng(seed + number)
        allowed = np.zeros_like(self.allowed)
        for row, (may, right) in enumerate(zip(self.allowed, self.right, strict=True)):
            served = right.any() and not right[self.chat].any() and rng.random() >= NOTHING
            if right[self.chat].any() or served:
                chosen, others = np.flatnonzero(right)[:1], np.flatnonzero(may & ~right)
            else:
                chosen, others = np.flatnonzero(right)[:0], np.flatnonzero(may & ~right & ~self.chat)
            allowed[row, chosen] = True
            allowed[row, rng.permutation(others)[: number - len(chosen)]] = True
        return replace(self, allowed=allowed, right=self.right & allowed)

    @property
    def served(self) -> NDArray[np.bool_]:
        return np.asarray(self.right.any(axis=1))


def make_cases(encoder: Encoder, corpus: Corpus, seed: int = 1) -> Cases:
    rng = random.Random(seed)
    unseen, seen = corpus.part(held_out=True), corpus.part(held_out=False)
    targets = [*unseen.targets, *rng.sample(seen.targets, DISTRACTORS)]
    intents = [*unseen.intents, *unseen.intents[::HIDDEN]]
    right = np.array([[intent.right == target.name for target in targets] for intent in intents])
    allowed = right | np.array([[judged(intent, target) for target in targets] for intent in intents])
    chat = np.array([target.name == GENERAL_CHAT for target in targets])
    hidden = np.arange(len(intents)) >= len(unseen.intents)
    allowed[hidden] &= ~(right[hidden] | chat)
    right[hidden] = False
    asked = [encoder.read_prompt(intent.text) for intent in intents]
    vectors = np.stack([reading.vector for reading in asked])
    tokens = [reading.weighted() for reading in asked]
    return Cases(_first(encoder, vectors, targets), tokens, _tokens(encoder, targets), allowed, right, chat)


def _first(encoder: Encoder, asked: NDArray[np.float32], targets: Sequence[Target]) -> Array:
    parts = []
    for target in targets:
        examples = encoder.encode_batch(target.examples)
        whole = encoder.encode(capability_text(target.description, target.examples))
        mean = examples.mean(axis=0) if len(examples) else whole
        centre = mean / np.linalg.norm(mean)
        best = np.max(asked @ np.vstack([whole, centre, examples]).T, axis=1)
        parts.append((asked @ whole, asked @ centre, best))
    return np.stack(parts, axis=2).astype(np.float64)


def _tokens(encoder: Encoder, targets: Sequence[Target]) -> Tokens:
    read = [encoder.read(capability_text(target.description, target.examples)) for target in targets]
    return [one.tokens.astype(np.float32) / np.float32(TOKEN_SCALE) for one in read]


def accuracy(scores: Array, cases: Cases) -> float:
    """Of the cases that somebody serves."""
    chosen = scores[cases.served].argmax(axis=1)
    return float(cases.right[cases.served][np.arange(len(chosen)), chosen].mean())


def shares(scores: Array, unfit: float, temperature: float) -> Array:
    """(cases, targets + 1): the probabilities of ranking.py, the last one of "nothing fits"."""
    all_scores = np.hstack([scores, np.full((len(scores), 1), unfit)]) / temperature
    weights = np.exp(all_scores - all_scores.max(axis=1, keepdims=True))
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))


def truth(cases: Cases) -> NDArray[np.bool_]:
    return np.hstack([cases.right, ~cases.served[:, None]])


def surprise(told: Array, cases: Cases) -> float:
    """Mean negative log-likelihood, where several are right of their sum."""
    return float(-np.log(np.maximum((told * truth(cases)).sum(axis=1), 1e-9)).mean())


def calibration_error(told: Array, cases: Cases) -> float:
    chosen = told.argmax(axis=1)
    rows = np.arange(len(chosen))
    sure, right = told[rows, chosen], truth(cases)[rows, chosen]
    bins = np.minimum((sure * BINS).astype(int), BINS - 1)
    return float(sum(abs((sure - right)[bins == bin_].sum()) for bin_ in range(BINS)) / len(chosen))


def best_weights(cases: Cases) -> tuple[float, ...]:
    return max(WEIGHTS, key=lambda weights: accuracy(cases.scores(weights), cases))


def unfit_among(one: float, growth: float, number: int) -> float:
    return one + growth * float(np.log(number))


def best_scale(by_number: dict[int, Cases]) -> tuple[float, float, float]:
    """What one capability needs to fit, its growth with the logarithm of their number, and the temperature: the least
    surprised ones, all numbers counted alike."""
    scored = {number: (cases.scores(IN_USE), cases) for number, cases in by_number.items()}

    def surprised(pair: tuple[float, float, float]) -> float:
        one, growth, temperature = pair
        return sum(
            surprise(shares(scores, unfit_among(one, growth, number), temperature), cases)
            for number, (scores, cases) in scored.items()
        )

    one, growth, temperature = min(itertools.product(ONES, GROWTHS, TEMPERATURES), key=surprised)
    return float(one), float(growth), float(temperature)


def told_of(cases: Cases, number: int, scale: tuple[float, float, float]) -> dict[str, float]:
    """What these constants make of the cases."""
    one, growth, temperature = scale
    told = shares(cases.scores(IN_USE), unfit_among(one, growth, number), temperature)
    chosen = told.argmax(axis=1)
    nothing = chosen == told.shape[1] - 1
    return {
        "right_where_served": accuracy(cases.scores(IN_USE), cases),
        "right_with_nothing_fits": float(truth(cases)[np.arange(len(chosen)), chosen].mean()),
        "calibration_error": calibration_error(told, cases),
        "nothing_fits_recall": float(nothing[~cases.served].mean()),
        "nothing_fits_precision": float((~cases.served)[nothing].mean()),
        "nothing_fits_loses": float(nothing[cases.served].mean()),
    }


def crossed(cases: Cases) -> dict[int, dict[str, float]]:
    """What is fitted on one half, measured on the other, the mean of both ways; by the number of capabilities."""
    halves = [{number: cases.half(odd).among(number) for number in NUMBERS} for odd in (0, 1)]
    scales = [best_scale(half) for half in halves]
    found: dict[int, dict[str, float]] = {}
    for number in NUMBERS:
        both = [told_of(halves[odd][number], number, scales[1 - odd]) for odd in (0, 1)]
        found[number] = {name: (both[0][name] + both[1][name]) / 2 for name in both[0]}
    return found


def thresholds(scores: Array, cases: Cases) -> dict[str, object]:
    order = np.sort(scores, axis=1)
    lead, best = order[:, -1] - order[:, -2], order[:, -1]
    hit = cases.right[np.arange(len(scores)), scores.argmax(axis=1)]
    within = {str(margin): float(cases.right[scores >= best[:, None] - margin].mean()) for margin in MARGINS}
    leads = np.arange(0.0, 0.6, 0.01)
    sure = next((x for x in leads if hit[lead >= x].mean() >= SURE_SHARE), leads[-1])
    return {
        "of_the_best_right": float(hit.mean()),
        "of_classes_within_margin_right": within,
        "sure": {"lead": float(sure), "right": float(hit[lead >= sure].mean()), "share": float((lead >= sure).mean())},
    }


def conversations(encoder: Encoder, corpus: Corpus, weights: Sequence[float]) -> dict[str, float]:
    """How often the right one of all is found, by the weight of the last turn beside the whole conversation."""
    intents = [intent for intent in corpus.intents if intent.right and intent.text.startswith("user: ")]
    talks = [turns_of(intent.text) for intent in intents]
    last = [encoder.read_prompt(turns[-1].content) for turns in talks]
    all_of_it = [encoder.read_prompt(conversation(turns)) for turns in talks]
    right = np.array([[intent.right == target.name for target in corpus.targets] for intent in intents])
    allowed = right | np.array([[judged(intent, target) for target in corpus.targets] for intent in intents])
    offered, chat = _tokens(encoder, corpus.targets), np.zeros(len(corpus.targets), bool)
    found = {"n": float(len(intents))}
    for weight in LAST_WEIGHTS:
        pairs = list(zip(last, all_of_it, strict=True))
        asked = np.stack([weight * one.vector + (1 - weight) * other.vector for one, other in pairs])
        asked /= np.linalg.norm(asked, axis=1, keepdims=True)
        tokens = [np.vstack((weight * one.weighted(), (1 - weight) * other.weighted())) for one, other in pairs]
        cases = Cases(_first(encoder, asked, corpus.targets), tokens, offered, allowed, right, chat)
        found[f"{weight:g} of the last turn"] = accuracy(cases.scores(weights), cases)
    return found


def turns_of(text: str) -> list[Turn]:
    """`user: ...` and `assistant: ...` lines of the corpus as turns."""
    turns: list[Turn] = []
    for line in text.splitlines():
        role, mark, said = line.partition(": ")
        if mark and role in ("user", "assistant"):
            turns.append(Turn(role, said))
        else:
            turns[-1] = Turn(turns[-1].role, f"{turns[-1].content}\n{line}")
    return turns


def _named(weights: Sequence[float], cases: Cases) -> dict[str, float]:
    right = accuracy(cases.scores(weights), cases)
    return dict(zip(("whole", "centre", "best", "second", "right"), (*weights, right), strict=True))


def rounded(value: object) -> object:
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    return round(value, 4) if isinstance(value, float) else value


def main() -> None:
    encoder, corpus = Encoder.load(), read_corpus()
    cases = make_cases(encoder, corpus)
    one, growth, temperature = best_scale({number: cases.among(number) for number in NUMBERS})
    single = {"whole text": (1, 0, 0, 0), "centre": (0, 1, 0, 0), "best view": (0, 0, 1, 0), "second": (0, 0, 0, 1)}
    first = (WHOLE_WEIGHT, CENTRE_WEIGHT, BEST_WEIGHT, 0)
    result = {
        "encoder": encoder.encoder_id,
        "cases": len(cases.asked),
        "targets": cases.right.shape[1],
        "right": {name: accuracy(cases.scores(alone), cases) for name, alone in single.items()},
        "first_reading": _named(first, cases),
        "weights": _named(IN_USE, cases),
        "weights_that_do_best_here": _named(best_weights(cases), cases),
        "unfit": {"of_one": one, "growth": growth, "most": UNFIT_MOST},
        "temperature": temperature,
        "crossed": crossed(cases),
        **thresholds(cases.scores(IN_USE), cases),
        "conversations": conversations(encoder, corpus, IN_USE),
    }
    RESULT.write_text(json.dumps(rounded(result), indent=2) + "\n", "utf-8")
    print(json.dumps(rounded(result), indent=2))


if __name__ == "__main__":
    main()
