"""The worked example of docs/routing.md, recomputed: every number that the page shows in bold or in a sum."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import numpy as np
import pytest
from numpy.typing import NDArray

from atmo.mesh.capability import EMBEDDING_DIM
from atmo.mesh.classes import TOKEN_SCALE
from atmo.mesh.decision import Decision
from atmo.mesh.query import Query
from atmo.mesh.routing import decide
from atmo.mesh.views import READ_WIDTH, coarse_vector
from tests.mesh.routing_support import Town, capability, load

PAGE = (Path(__file__).parents[2] / "docs" / "routing.md").read_text(encoding="utf-8")
CODER = "atmo:chat:coder"


def views(*cosines: float) -> NDArray[np.float32]:
    """Unit vectors with these cosines to the first axis."""
    matrix = np.zeros((len(cosines), EMBEDDING_DIM), dtype=np.float32)
    for at, cosine in enumerate(cosines):
        matrix[at, 0], matrix[at, at + 1] = cosine, np.sqrt(1 - cosine**2)
    return matrix


def tokens(*cosines: float) -> NDArray[np.int8]:
    """For each of the text's tokens one with this cosine to it, times 127 and, for once, not rounded."""
    return cast(NDArray[np.int8], np.eye(len(cosines), READ_WIDTH) * np.array(cosines)[:, None] * TOKEN_SCALE)


TOKENS = {"atmo:chat:coder": tokens(0.62, 0.40), "atmo:chat:writer": tokens(0.59, 0.42)}


def put_views(town: Town, capability_id: str, *cosines: float) -> None:
    """Exact vectors in place of the int8 ones."""
    classes = town.table.classes
    [klass] = classes.named(capability_id)
    classes.views[klass] = views(*cosines)
    classes.coarse[klass] = coarse_vector(classes.views[klass])


@pytest.fixture(scope="module")
def town() -> Town:
    town, coder = Town(), capability("coder", strength=0.4)
    desk, attic, cellar = (town.node(name, coder) for name in ("desk", "attic", "cellar"))
    town.now = 60.0
    town.tell(cellar, load("coder", service_s=0.1))
    town.now = 90.0
    town.tell(attic, load("coder"))
    for _ in range(3):
        town.field.observe_finish(attic, CODER, 2.4, 80, 110, town.now)
    town.field.observe_failure(attic, CODER, town.now)
    town.now = 95.0
    town.tell(desk, load("coder", in_flight=2, slots=2, service_s=1.2))
    town.field.observe_start(desk, CODER, 99.0)
    town.now = 100.0
    for who, rtt_s in ((desk, 0.002), (attic, 0.004), (cellar, 0.003)):
        town.field.observe_rtt(who, rtt_s, town.now)
    cloud = town.node("cloud", capability("writer", strength=0.9, price=15.0))
    town.tell(cloud, load("writer", service_s=1.19))
    town.field.observe_rtt(cloud, 0.01, town.now)
    put_views(town, "coder", 0.45, 0.50, 0.60)
    put_views(town, "writer", 0.45, 0.45, 0.60)
    town.table.classes.reader = lambda told: TOKENS[told.id]
    return town


@pytest.fixture(scope="module")
def decision(town: Town) -> Decision:
    asked = np.eye(2, READ_WIDTH, dtype=np.float32) * np.float32(0.5)
    query = Query(local=town.home, vector=views(1.0)[0], prompt_tokens=80, expected_output_tokens=110, tokens=asked)
    return decide(town.table, town.field, query, town.now, np.random.default_rng(3))


def shown(value: float) -> str:
    """As the page writes it; fails where the page does not."""
    text = f"{value:.3f}"
    assert text in PAGE, text
    return text


def test_both_readings(decision: Decision) -> None:
    coder, writer = decision.classes
    assert (shown(coder.first), shown(coder.second)) == ("0.520", "0.532")
    assert (shown(writer.first), shown(writer.second)) == ("0.510", "0.522")


def test_relevance(decision: Decision) -> None:
    assert {terms.capability[-6:]: shown(terms.relevance) for terms in decision.classes} == {
        ":coder": "0.526",
        "writer": "0.516",
    }
    assert shown(decision.unfit) == "0.321"


def test_the_field(decision: Decision) -> None:
    told = {terms.node: terms for terms in (decision.chosen, *decision.runners)}

    assert {node: shown(terms.phi_s) for node, terms in told.items()} == {
        "desk": "2.402",
        "attic": "2.404",
        "cellar": "0.303",
    }
    assert {node: shown(terms.weight) for node, terms in told.items()} == {
        "desk": "0.779",
        "attic": "0.607",
        "cellar": "0.135",
    }
    assert {node: shown(terms.potential_s) for node, terms in told.items()} == {
        "desk": "2.402",
        "attic": "4.808",
        "cellar": "2.120",
    }
    assert (told["desk"].own, told["desk"].in_flight, told["attic"].failures) == (1, 2, 0.5)
    assert told["cellar"].service_s == pytest.approx(0.3)


def test_fitness(decision: Decision) -> None:
    coder, writer = decision.classes

    assert [shown(value) for value in (coder.strength, coder.time, writer.strength, writer.gap, writer.price)] == [
        "0.200",
        "0.250",
        "0.450",
        "0.500",
        "0.469",
    ]
    assert (shown(coder.fitness), shown(writer.fitness)) == ("-0.050", "-0.519")
    assert (shown(coder.expected_s), shown(writer.expected_s)) == ("2.402", "1.200")


def test_the_draw(decision: Decision) -> None:
    told = {terms.node: terms for terms in (decision.chosen, *decision.runners)}
    shares = {node: terms.slots / (terms.service_s + terms.latency_s) for node, terms in told.items()}

    assert {node: shown(share) for node, share in shares.items()} == {
        "desk": "1.664",
        "attic": "0.416",
        "cellar": "3.300",
    }
