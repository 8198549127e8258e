"""From a request to a node: relevance, fitness, choice, fallback, refusal."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator

import numpy as np
import pytest

from atmo.errors import NoRoute
from atmo.mesh.choice import EXPLORE, draws_for
from atmo.mesh.explain import arithmetic, as_dict, lines, survey
from atmo.mesh.query import Query
from atmo.mesh.ranking import SHORTLIST
from atmo.mesh.routing import decide
from tests.mesh.routing_support import Town, capability, direction, load, peer

GENERAL = (("scope", "general"),)


@pytest.fixture
def town() -> Iterator[Town]:
    made = Town()
    yield made
    made.table.validate()


def test_the_text_decides_which_capability_answers(town: Town) -> None:
    town.node("kitchen", capability("cook", "recipes"))
    town.node("desk", capability("coder", "code"))

    assert town.ask("recipes").chosen.node == "kitchen"
    assert town.ask("code").chosen.node == "desk"
    assert town.ask("code").chosen.relevance == pytest.approx(1.0, abs=0.01)


def test_one_class_is_read_once_however_many_nodes_serve_it(town: Town) -> None:
    for number in range(50):
        town.node(f"n{number}", capability("coder", "code"))

    assert len(town.table) == 50
    assert len(town.table.classes) == 1


def test_the_best_of_many_classes_is_found_though_few_are_read_in_full(town: Town) -> None:
    for number in range(40):
        town.node(f"n{number}", capability(f"c{number}"))

    assert len(town.table.classes) > SHORTLIST
    for number in range(40):
        assert town.ask(f"c{number}").capability == f"atmo:chat:c{number}"


def test_the_busier_of_two_nodes_is_avoided(town: Town) -> None:
    offer = capability("coder", "code")
    town.tell(town.node("busy", offer), load("coder", in_flight=5))
    town.tell(town.node("idle", offer), load("coder"))

    assert town.shares(300, "code")["idle"] > 0.95


def test_a_queue_elsewhere_makes_the_slower_node_worth_it(town: Town) -> None:
    offer = capability("coder", "code")
    town.tell(town.node("fast", offer), load("coder", service_s=1.0, in_flight=1, queued=4))
    town.tell(town.node("slow", offer), load("coder", service_s=3.0))

    assert town.ask("code").chosen.node == "slow"


def test_many_equal_nodes_share_the_work_instead_of_one_minimum(town: Town) -> None:
    """With twenty nodes whose loads differ a little, the least loaded one must not get everything."""
    offer = capability("coder", "code")
    for number in range(20):
        town.tell(town.node(f"n{number}", offer), load("coder", in_flight=number % 5, slots=1))

    shares = town.shares(2000, "code")

    assert max(shares.values()) < 0.2
    assert sum(share for name, share in shares.items() if int(name[1:]) % 5 == 0) > 0.3


def test_a_share_of_the_decisions_explores(town: Town) -> None:
    offer = capability("coder", "code")
    for number in range(4):
        town.tell(town.node(f"n{number}", offer), load("coder"))

    explored = sum(town.ask("code").explored for _ in range(3000)) / 3000

    assert explored == pytest.approx(EXPLORE, abs=0.01)


def test_equally_fit_classes_are_chosen_by_strength(town: Town) -> None:
    town.node("small", capability("small", "code", strength=0.2))
    town.node("large", capability("large", "code", strength=0.9))

    decision = town.ask("code")

    assert decision.chosen.node == "large"
    assert [terms.capability for terms in decision.classes] == ["atmo:chat:large", "atmo:chat:small"]


def test_a_hurry_prefers_the_quick_class_to_the_strong_one(town: Town) -> None:
    town.tell(town.node("large", capability("large", "code", strength=0.9)), load("large", service_s=8.0))
    town.tell(town.node("small", capability("small", "code", strength=0.1)), load("small", service_s=4.0))

    assert town.ask("code").chosen.node == "large"
    assert town.ask("code", latency_critical=True).chosen.node == "small"


def test_the_cheaper_of_equal_classes_is_chosen(town: Town) -> None:
    town.node("cloud", capability("paid", "code", price=15.0))
    town.node("own", capability("free", "code"))

    assert town.ask("code").chosen.node == "own"


def test_a_wished_version_is_preferred_but_not_demanded(town: Town) -> None:
    town.node("old", capability("m2", "code", version="2.4", strength=0.5))
    town.node("new", capability("m3", "code", version="3.0"))

    assert town.ask("code").chosen.node == "old"
    assert town.ask("code", prefer_version=">=3.0").chosen.node == "new"
    assert town.ask("code", prefer_version=">=9").chosen.node == "old"


def test_the_next_best_class_answers_while_the_best_is_down(town: Town) -> None:
    mixed = direction("code") * 0.8 + direction("recipes") * 0.6
    town.node("desk", capability("coder", "code"))
    town.node("kitchen", capability("cook", "recipes"))
    town.table.mark_lost(peer("desk"))
    query = Query(local=town.home, vector=(mixed / np.linalg.norm(mixed)).astype(np.float32))

    decision = decide(town.table, town.field, query, town.now, town.rng)

    assert decision.chosen.node == "kitchen"
    assert "none of its nodes can serve this now" in [passed.why for passed in decision.passed]
    assert [(excluded.reason, excluded.rows) for excluded in decision.excluded] == [("has no link at the moment", 1)]


def test_a_text_that_fits_nothing_goes_to_the_general_chat_and_says_so(town: Town) -> None:
    town.node("desk", capability("coder", "code"))
    town.node("parlour", capability("talker", "small talk", labels=GENERAL))

    decision = town.ask("something else entirely")

    assert decision.chosen.node == "parlour"
    assert decision.fallback
    assert not decision.sure
    assert "No capability fits the text; a general chat answers instead." in lines(decision)


def test_a_caller_that_asks_for_a_chat_gets_the_general_one_for_what_fits_nothing(town: Town) -> None:
    town.node("desk", capability("coder", "code"))
    town.node("parlour", capability("talker", "small talk", labels=GENERAL))

    assert town.shares(50, "something else entirely", type="chat") == {"parlour": 1.0}


def test_a_pinned_type_other_than_chat_is_served_whatever_the_text(town: Town) -> None:
    town.node("parlour", capability("talker", "small talk", labels=GENERAL))
    town.node("encoder", capability("vectors", "search", kind="embedding"))

    assert not town.ask("something else entirely", type="embedding").fallback


def test_an_image_goes_to_whatever_reads_images_when_its_text_fits_nothing(town: Town) -> None:
    town.node("eye", capability("shapes", "shapes", "vision", modalities=("text", "image")))
    assert town.ask("shapes", modality="image").fallback is False
    decision = town.ask("weather", modality="image")
    assert (decision.chosen.node, decision.fallback) == ("eye", True)
    assert "No capability fits the text; what can read all of the request answers instead." in lines(decision)
    with pytest.raises(NoRoute, match="Nothing that is offered fits"):
        town.ask("weather", modality="image", strict=True)
    with pytest.raises(NoRoute):
        town.ask("weather", modality="audio")

    town.node("seer", capability("llava", "anything", modalities=("text", "image")))
    assert town.ask("weather", modality="image").chosen.node == "seer", "a chat is the better answer"


def test_without_a_general_chat_any_chat_takes_what_fits_nothing(town: Town) -> None:
    town.node("sensor", capability("thermometer", "temperature", kind="tool"))
    town.node("desk", capability("coder", "code"))

    assert town.ask("something else entirely").chosen.node == "desk"


def test_a_strict_caller_is_refused_what_fits_nothing(town: Town) -> None:
    town.node("parlour", capability("talker", "small talk", labels=GENERAL))

    with pytest.raises(NoRoute, match="Nothing that is offered fits this text; the nearest is atmo:chat:talker at"):
        town.ask("something else entirely", strict=True)


def test_without_a_chat_what_fits_nothing_is_refused(town: Town) -> None:
    town.node("sensor", capability("thermometer", "temperature", kind="tool"))

    with pytest.raises(NoRoute, match="Name a model with --model"):
        town.ask("something else entirely")


def test_a_pinned_model_is_served_whatever_the_text(town: Town) -> None:
    town.node("desk", capability("coder", "code"))
    town.node("kitchen", capability("cook", "recipes"))

    assert town.ask("recipes", model="coder").chosen.node == "desk"
    assert town.ask(None, model="atmo:chat:cook").chosen.node == "kitchen"
    assert not town.ask(None, model="coder").by_text


def test_a_node_that_failed_gives_way_to_the_alternatives_in_order(town: Town) -> None:
    offer = capability("coder", "code")
    for number in range(3):
        town.tell(town.node(f"n{number}", offer), load("coder", in_flight=number))
    decision = town.ask("code")

    again = town.ask("code", exclude=frozenset({decision.peer}))

    assert again.peer in [route.peer for route in decision.alternatives]
    assert decision.peer not in [route.peer for route in decision.alternatives]
    assert len(decision.alternatives) == 2


def test_a_table_of_a_thousand_nodes_is_read_in_part_only(town: Town) -> None:
    offer = capability("coder", "code")
    for number in range(1000):
        town.tell(town.node(f"n{number}", offer), load("coder"))

    decision = town.ask("code")

    assert decision.rows_read < 100
    assert decision.rows_known == 1000


def test_the_only_free_node_among_a_thousand_is_found(town: Town) -> None:
    offer = capability("coder", "code")
    for number in range(1000):
        town.tell(town.node(f"n{number}", offer), load("coder", ready=number == 777))

    assert town.ask("code").chosen.node == "n777"


def test_an_empty_table_says_what_to_start(town: Town) -> None:
    with pytest.raises(NoRoute, match=r"No node offers anything yet.*atmo node start"):
        town.ask("code")


def test_the_sum_shown_is_the_sum_used(town: Town) -> None:
    who = town.node("desk", capability("coder", "code"))
    town.tell(who, load("coder", in_flight=3, slots=2, service_s=0.5))
    town.field.observe_rtt(who, 0.02, town.now)
    chosen = town.ask("code").chosen

    assert chosen.phi_s == pytest.approx(0.02 + 0.5 * (1 + 2 / 2))
    assert arithmetic(chosen) == ("20.000 ms path + 500.0 ms service x (1 + 2/2) = 1020.0 ms; potential 1020.0 ms.")


def test_a_decision_is_plain_data_that_json_can_hold(town: Town) -> None:

    offer = capability("coder", "code")
    town.node("a", offer)
    town.node("b", offer)

    plain = as_dict(town.ask("code"))

    assert json.loads(json.dumps(plain, allow_nan=False)) == plain
    assert plain["chosen"]["peer"].startswith("12D3KooW")
    assert plain["chosen"]["age_s"] is None  # never told


def test_a_survey_speaks_of_every_offer(town: Town) -> None:
    town.node("desk", capability("coder", "code"), residency="eu")
    town.node("cloud", capability("coder", "code"), residency="us")

    told = survey(town.table, town.field, town.query("code", data_residency=("eu",)), town.now)

    assert (told.known, told.feasible) == (2, 1)
    assert [(offer.node, offer.reasons) for offer in told.offers] == [
        ("desk", ()),
        ("cloud", ("does not carry residency eu",)),
    ]


def test_a_vector_of_another_shape_or_with_nan_is_a_programming_mistake(town: Town) -> None:
    with pytest.raises(ValueError, match="384"):
        Query(local=town.home, vector=np.zeros(3, dtype=np.float32))
    with pytest.raises(ValueError, match="finite"):
        Query(local=town.home, vector=np.full(384, math.nan, dtype=np.float32))


def test_equal_seeds_give_equal_decisions() -> None:
    def run() -> list[str]:
        town = Town(seed=5)
        for number in range(10):
            town.tell(town.node(f"n{number}", capability("coder", "code")), load("coder", in_flight=number % 3))
        return [town.ask("code").chosen.node for _ in range(50)]

    assert run() == run()


@pytest.mark.parametrize(("age", "draws"), [(0.0, 5), (0.5, 5), (0.6, 2), (math.inf, 2)])
def test_the_older_the_reports_the_fewer_are_drawn(age: float, draws: int) -> None:
    assert draws_for(age) == draws
