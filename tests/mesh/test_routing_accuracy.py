"""The shipped encoder on 40 capabilities that it was not trained on: a floor under what docs/routing.md reports.

Of the half that served to make decisions; the other half is only measured by the benchmark `relevance`.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from atmo.inference.encoder import Encoder
from atmo.mesh import ranking, routing, views
from atmo.relevance import Report, answer, make_table, read_intents, read_offers, report

FIT = Path(__file__).parents[2] / "tools" / "encoder" / "results" / "fit.json"
FOLDER = Path(__file__).parents[2] / "bench" / "eval"


@pytest.fixture(scope="module")
def found() -> Report:
    offers, encoder = read_offers(FOLDER / "caps.json"), Encoder.load()
    table = make_table(offers, encoder)
    intents = read_intents(FOLDER / "dev.jsonl", offers)
    return report([answer(table, intent, encoder) for intent in intents], encoder.encoder_id)


def test_texts_find_their_capability(found: Report) -> None:
    assert found.n == 240
    assert found.accuracy >= 0.72


def test_misleading_texts_do_too(found: Report) -> None:
    assert found.hard_n == 122
    assert found.accuracy_hard is not None
    assert found.accuracy_hard >= 0.64


def test_probabilities_mean_what_they_say(found: Report) -> None:
    assert found.calibration_error < 0.07


def test_the_fitted_constants_are_the_ones_in_use(found: Report) -> None:
    fitted = json.loads(FIT.read_text("utf-8"))
    assert fitted["encoder"] == found.encoder
    assert fitted["unfit"]["of_one"] == ranking.UNFIT_OF_ONE
    assert fitted["unfit"]["growth"] == ranking.UNFIT_GROWTH
    assert fitted["unfit"]["most"] == ranking.UNFIT_MOST
    assert fitted["sure"]["lead"] == routing.SURE
    assert fitted["temperature"] == pytest.approx(ranking.TEMPERATURE, abs=0.001)
    first = (views.WHOLE_WEIGHT, views.CENTRE_WEIGHT, views.BEST_WEIGHT)
    assert tuple(fitted["first_reading"][name] for name in ("whole", "centre", "best")) == first
    assert fitted["weights"]["second"] == views.SECOND_WEIGHT
