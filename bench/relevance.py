"""How often a text finds the capability that serves it, on capabilities that the encoder was not trained on.

`eval/caps.json` and its two halves of intents. `dev` served to make decisions while the encoder was trained, `test`
was kept for the end. Beside the whole formula stand its parts alone. Another encoder's folder in
BENCH_OTHER_ENCODER (such as the published weights, exported by `tools.encoder.export`) is measured beside ours.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from atmo.inference.encoder import Encoder
from atmo.mesh.classes import TOKEN_SCALE
from atmo.mesh.views import capability_text, coarse_vector, first_reading, second_reading
from atmo.relevance import Intent, Offer, answer, calibration_error, make_table, read_intents, read_offers
from bench.harness import Context, Outcome, Series

FOLDER = Path(__file__).parent / "eval"
ALL = np.array([0])  # one capability at a time
OTHER = "BENCH_OTHER_ENCODER"
Array = NDArray[np.float32]


class Sizes(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """halves: of the intents, by name; each: take every so many of them."""

    halves: tuple[str, ...]
    each: int


def run(context: Context) -> list[Outcome]:
    sizes, offers = context.sizes(Sizes), read_offers(FOLDER / "caps.json")
    encoders = {"": Encoder.load(cache_entries=0)}
    if folder := os.environ.get(OTHER):
        encoders["other encoder, "] = Encoder.load(Path(folder), cache_entries=0)
    outcomes: list[Outcome] = []
    for half in sizes.halves:
        intents = read_intents(FOLDER / f"{half}.jsonl", offers)[:: sizes.each]
        for name, encoder in encoders.items():
            context.say(f"{half}: {len(intents)} intents, {encoder.encoder_id}")
            outcomes += _measured(f"{half}, {name}", offers, intents, encoder)
            outcomes += _parts(f"{half}, {name}", offers, intents, encoder)
    return outcomes


def _measured(name: str, offers: Sequence[Offer], intents: Sequence[Intent], encoder: Encoder) -> Iterator[Series]:
    """As a node does it, "nothing fits" included."""
    table = make_table(offers, encoder)
    found = [answer(table, intent, encoder) for intent in intents]
    hard = [one for one in found if one.intent.hard]
    served = [one for one in found if one.intent.expect]
    unfit = [one for one in found if not one.intent.expect]
    said = [one for one in found if not one.chosen]
    yield Series(f"{name}wrong", "of 1", [float(not one.right) for one in found], encoder.encoder_id)
    yield Series(f"{name}wrong, hard", "of 1", [float(not one.right) for one in hard], "those made to mislead")
    wrong_first = [float(one.best[0].id not in one.intent.expect) for one in served]
    yield Series(f"{name}wrong first", "of 1", wrong_first, "the best one, of texts that something fits")
    beyond = [float(not {score.id for score in one.best} & set(one.intent.expect)) for one in served]
    yield Series(f"{name}not among the first three", "of 1", beyond, "of texts that something fits")
    if unfit:
        yield Series(f"{name}nothing fits, missed", "of 1", [float(bool(one.chosen)) for one in unfit], "1 - recall")
    if said:
        wrongly = [float(bool(one.intent.expect)) for one in said]
        yield Series(f"{name}nothing fits, said wrongly", "of 1", wrongly, "1 - precision")
    yield Series(f"{name}calibration error", "of 1", [calibration_error(found)], "expected calibration error, ten bins")
    yield Series(f"{name}time", "ms", [one.ms for one in found], "encoder and ranking")


def _parts(name: str, offers: Sequence[Offer], intents: Sequence[Intent], encoder: Encoder) -> Iterator[Series]:
    """What one part of the formula would choose alone, of texts that something fits."""
    served = [intent for intent in intents if intent.expect]
    asked = np.stack([encoder.read_prompt(intent.text).vector for intent in served])
    scored = {
        part: np.stack([(asked @ group.T).max(axis=1) for group in views], axis=1)
        for part, views in _views(offers, encoder).items()
    }
    scored["first reading"] = _first_reading(offers, encoder, asked)
    if encoder.reads_twice:
        scored["second reading"] = _second_reading(offers, encoder, served)
    for part, scores in scored.items():
        chosen = [offers[at].id for at in scores.argmax(axis=1).tolist()]
        wrong = [float(one not in intent.expect) for one, intent in zip(chosen, served, strict=True)]
        yield Series(f"{name}wrong first, {part} alone", "of 1", wrong)


def _views(offers: Sequence[Offer], encoder: Encoder) -> dict[str, list[Array]]:
    """Of each capability the vectors of which the best counts, (n, 384)."""
    examples = [encoder.encode_batch(offer.examples) for offer in offers]
    whole = [encoder.encode(capability_text(offer.description, offer.examples))[None] for offer in offers]
    return {
        "description": [encoder.encode(offer.description)[None] for offer in offers],
        "centre of the examples": [_unit(group.mean(axis=0))[None] for group in examples],
        "best example": examples,
        "description and examples as one text": whole,
    }


def _first_reading(offers: Sequence[Offer], encoder: Encoder, asked: Array) -> Array:
    scores = []
    for offer in offers:
        examples = encoder.encode_batch(offer.examples)
        whole = encoder.encode(capability_text(offer.description, offer.examples))
        views = np.vstack((whole, _unit(examples.mean(axis=0)), examples))
        linear = coarse_vector(views)
        scores.append([first_reading(views, ALL, one @ linear[:, None], one)[0] for one in asked])
    return np.array(scores, np.float32).T


def _second_reading(offers: Sequence[Offer], encoder: Encoder, intents: Sequence[Intent]) -> Array:
    """Of all capabilities against each other, where ranking.py reads the best few."""
    read = [encoder.read(capability_text(offer.description, offer.examples)).tokens for offer in offers]
    offered = np.concatenate(read).astype(np.float32) / np.float32(TOKEN_SCALE)
    starts = np.cumsum([0, *map(len, read[:-1])])
    asked = [encoder.read_prompt(intent.text).weighted() for intent in intents]
    return np.stack([second_reading(offered, starts, one) for one in asked])


def _unit(vector: Array) -> Array:
    return np.asarray(vector / np.linalg.norm(vector), np.float32)
