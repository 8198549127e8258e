"""Fits what turns the encoder's vectors into decisions; writes `results/fit.json`.

    python -m tools.encoder.fit

On intents and capabilities that training never saw, held among capabilities that it did see, by the relevance formula
of views.py: the threshold below which nothing fits and the temperature of the probabilities (ranking.py), the margin
and the lead from which a choice is sure, and how a conversation is best read (meaning.py). The constants in the code
are these, rounded. Also says which weights of the formula would do best here. One intent in ten is also asked with its
capability taken away, and then nothing fits.

Every second intent fits, the others measure; then the halves change places.
"""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from atmo.generation import Turn
from atmo.inference.encoder import Encoder
from atmo.mesh.classes import TOKEN_SCALE
from atmo.mesh.ranking import SHORTLIST
from atmo.mesh.views import BEST_WEIGHT, CENTRE_WEIGHT, SECOND_WEIGHT, WHOLE_WEIGHT, capability_text, second_reading
from atmo.node.meaning import conversation
from tools.encoder.corpus import GENERAL_CHAT, Corpus, Target, judged, read_corpus

RESULT = Path(__file__).parent / "results" / "fit.json"
DISTRACTORS = 26  # capabilities beside the held-out ones, so that an intent has 40 to choose from
HIDDEN = 10  # every so many intents are asked once more without their capability
FIRST = [tuple(part / 5 for part in (w, c, 5 - w - c)) for w in range(6) for c in range(6 - w)]
SECOND = (0.0, 0.25, 0.4, 0.5, 0.6, 0.75, 1.0)
WEIGHTS = [(*((1 - second) * part for part in first), second) for first in FIRST for second in SECOND]
IN_USE = (*((1 - SECOND_WEIGHT) * part for part in (WHOLE_WEIGHT, CENTRE_WEIGHT, BEST_WEIGHT)), SECOND_WEIGHT)
TEMPERATURES = np.geomspace(0.01, 0.4, 40)
UNFITS = np.arange(0.0, 0.8, 0.01)
MARGINS = (0.01, 0.02, 0.03, 0.05, 0.08)
SURE_SHARE = 0.9  # of the choices called sure should be right
BINS = 10
LAST_WEIGHTS = (0.0, 0.5, 0.7, 0.8, 0.9, 1.0)

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Cases:
    """parts: (4, cases, targets), whole text, centre of the examples, best view, second reading; allowed, right:
    (cases, targets)."""

    parts: Array
    allowed: NDArray[np.bool_]
    right: NDArray[np.bool_]

    def scores(self, weights: Sequence[float]) -> Array:
        mixed = np.tensordot(np.asarray(weights), self.parts, axes=1)
        return np.where(self.allowed, mixed, -1.0)

    def half(self, odd: int) -> Cases:
        return Cases(self.parts[:, odd::2], self.allowed[odd::2], self.right[odd::2])

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
    return Cases(_parts(encoder, vectors, [reading.weighted() for reading in asked], targets), allowed, right)


def _parts(
    encoder: Encoder, asked: NDArray[np.float32], tokens: Sequence[NDArray[np.float32]], targets: Sequence[Target]
) -> Array:
    parts = []
    for target in targets:
        examples = encoder.encode_batch(target.examples)
        whole = encoder.read(capability_text(target.description, target.examples))
        mean = examples.mean(axis=0) if len(examples) else whole.vector
        centre = mean / np.linalg.norm(mean)
        best = np.max(asked @ np.vstack([whole.vector, centre, examples]).T, axis=1)
        offered = whole.tokens.astype(np.float32) / np.float32(TOKEN_SCALE)
        second = [second_reading(offered, np.array([0]), one)[0] for one in tokens]
        parts.append((asked @ whole.vector, asked @ centre, best, np.array(second)))
    return np.stack(parts, axis=2).astype(np.float64)


def accuracy(scores: Array, cases: Cases) -> float:
    """Of the cases that somebody serves."""
    chosen = scores[cases.served].argmax(axis=1)
    return float(cases.right[cases.served][np.arange(len(chosen)), chosen].mean())


def shares(scores: Array, unfit: float, temperature: float) -> Array:
    """(cases, targets + 1): the probabilities of ranking.py, the last one of "nothing fits"."""
    all_scores = np.hstack([scores, np.full((len(scores), 1), unfit)]) / temperature
    weights = np.exp(all_scores - all_scores.max(axis=1, keepdims=True))
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))


def listed(scores: Array) -> Array:
    """The SHORTLIST best alone, as ranking.py reads them."""
    least = np.partition(scores, -SHORTLIST, axis=1)[:, -SHORTLIST, None]
    return np.where(scores >= least, scores, -1.0)


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


def boast(told: Array, cases: Cases) -> float:
    """How far the mean of what is told lies from the share that is right. Smoother than the calibration error, whose
    least value is a matter of which case fell into which bin."""
    chosen = told.argmax(axis=1)
    rows = np.arange(len(chosen))
    return abs(float(told[rows, chosen].mean() - truth(cases)[rows, chosen].mean()))


def best_weights(cases: Cases) -> tuple[float, ...]:
    return max(WEIGHTS, key=lambda weights: accuracy(cases.scores(weights), cases))


def best_scale(scores: Array, cases: Cases) -> tuple[float, float]:
    """unfit, temperature: the threshold of the least surprise, and for it the temperature that boasts least."""
    pairs = itertools.product(UNFITS, TEMPERATURES)
    unfit, _ = min(pairs, key=lambda pair: surprise(shares(scores, *pair), cases))
    temperature = min(TEMPERATURES, key=lambda each: boast(shares(listed(scores), unfit, each), cases))
    return float(unfit), float(temperature)


def crossed(cases: Cases) -> dict[str, float]:
    """What is fitted on one half, measured on the other; the mean of both ways."""
    found = []
    for odd in (0, 1):
        fitted, measured = cases.half(odd), cases.half(1 - odd)
        told = shares(listed(measured.scores(IN_USE)), *best_scale(fitted.scores(IN_USE), fitted))
        right = truth(measured)[np.arange(len(told)), told.argmax(axis=1)]
        found.append((accuracy(measured.scores(IN_USE), measured), right.mean(), calibration_error(told, measured)))
    served, decided, error = np.mean(found, axis=0)
    return {"right_where_served": served, "right_with_nothing_fits": decided, "calibration_error": error}


def thresholds(scores: Array, cases: Cases, unfit: float) -> dict[str, object]:
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
        "nothing_fits": {
            "recall": float((best < unfit)[~cases.served].mean()),
            "loses": float((best < unfit)[cases.served].mean()),
        },
    }


def conversations(encoder: Encoder, corpus: Corpus, weights: Sequence[float]) -> dict[str, float]:
    """How often the right one of all is found, by the weight of the last turn beside the whole conversation."""
    intents = [intent for intent in corpus.intents if intent.right and intent.text.startswith("user: ")]
    talks = [turns_of(intent.text) for intent in intents]
    last = [encoder.read_prompt(turns[-1].content) for turns in talks]
    all_of_it = [encoder.read_prompt(conversation(turns)) for turns in talks]
    right = np.array([[intent.right == target.name for target in corpus.targets] for intent in intents])
    allowed = right | np.array([[judged(intent, target) for target in corpus.targets] for intent in intents])
    found = {"n": float(len(intents))}
    for weight in LAST_WEIGHTS:
        pairs = list(zip(last, all_of_it, strict=True))
        asked = np.stack([weight * one.vector + (1 - weight) * other.vector for one, other in pairs])
        asked /= np.linalg.norm(asked, axis=1, keepdims=True)
        tokens = [np.vstack((weight * one.weighted(), (1 - weight) * other.weighted())) for one, other in pairs]
        cases = Cases(_parts(encoder, asked, tokens, corpus.targets), allowed, right)
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
    scores = cases.scores(IN_USE)
    unfit, temperature = best_scale(scores, cases)
    single = {"whole text": (1, 0, 0, 0), "centre": (0, 1, 0, 0), "best view": (0, 0, 1, 0), "second": (0, 0, 0, 1)}
    first = (WHOLE_WEIGHT, CENTRE_WEIGHT, BEST_WEIGHT, 0)
    result = {
        "encoder": encoder.encoder_id,
        "cases": len(scores),
        "targets": cases.right.shape[1],
        "right": {name: accuracy(cases.scores(alone), cases) for name, alone in single.items()},
        "first_reading": _named(first, cases),
        "weights": _named(IN_USE, cases),
        "weights_that_do_best_here": _named(best_weights(cases), cases),
        "unfit": unfit,
        "temperature": temperature,
        "crossed": crossed(cases),
        **thresholds(scores, cases, unfit),
        "conversations": conversations(encoder, corpus, IN_USE),
    }
    RESULT.write_text(json.dumps(rounded(result), indent=2) + "\n", "utf-8")
    print(json.dumps(rounded(result), indent=2))


if __name__ == "__main__":
    main()
