"""Each condition a request can set: whom it excludes, and what the refusal says when it excludes everybody."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from atmo.errors import NoRoute, UsageError
from atmo.ids import format_peer, short
from atmo.mesh.explain import survey
from atmo.mesh.reasons import WORDS, Reason, verdict
from atmo.mesh.versions import satisfies
from tests.mesh.routing_support import Town, capability, load, peer


@pytest.fixture
def town() -> Iterator[Town]:
    """Two nodes that differ in everything: `small` is local in Europe, `large` a paid one in America."""
    made = Town()
    small = capability("small", "code", context=2048, version="2.1", modalities=("text",), labels=(("use", "inside"),))
    large = capability("large", "code", context=32768, version="3.0", price=20.0, modalities=("text", "image"))
    made.tell(made.node("small", small, residency="eu", team="red"), load("small", decode_tps=20.0, service_s=2.0))
    made.tell(
        made.node("large", large, residency="us"),
        load("large", decode_tps=80.0, in_flight=3, slots=3, service_s=1.0),
    )
    yield made
    made.table.validate()


ONE_LEFT: list[tuple[str, dict[str, Any], Reason]] = [
    ("small", {"model": "small"}, Reason.MODEL),
    ("large", {"modality": "image"}, Reason.MODALITY),
    ("large", {"prompt_tokens": 4000}, Reason.CONTEXT),
    ("large", {"min_context": 8000}, Reason.MIN_CONTEXT),
    ("small", {"max_cost": 0.001}, Reason.COST),
    ("small", {"max_cost": 0.0}, Reason.COST),
    ("large", {"version": ">=3.0"}, Reason.VERSION),
    ("small", {"labels": (("team", "red"),)}, Reason.LABELS),
    ("small", {"labels": (("use", "inside"), ("team", "red"))}, Reason.LABELS),
    ("small", {"data_residency": ("eu", "ch")}, Reason.RESIDENCY),
    ("large", {"data_residency": ("us",)}, Reason.RESIDENCY),
    ("small", {"allow_nodes": ("small",)}, Reason.ALLOW),
    ("small", {"allow_nodes": (short(peer("small")),)}, Reason.ALLOW),
    ("small", {"allow_nodes": (format_peer(peer("small")),)}, Reason.ALLOW),
    ("small", {"deny_nodes": ("large",)}, Reason.DENY),
    ("small", {"exclude": frozenset({peer("large")})}, Reason.TRIED),
    ("large", {"min_tps": 50.0}, Reason.MIN_TPS),
    ("small", {"max_load": 0.9}, Reason.MAX_LOAD),
    ("large", {"max_latency_ms": 1500.0}, Reason.MAX_LATENCY),
]


@pytest.mark.parametrize(("left", "wanted", "reason"), ONE_LEFT, ids=lambda value: str(value)[:40])
def test_a_condition_excludes_one_node_and_says_why(
    town: Town, left: str, wanted: dict[str, Any], reason: Reason
) -> None:
    assert town.shares(60, "code", **wanted) == {left: 1.0}

    told = survey(town.table, town.field, town.query("code", **wanted), town.now)
    assert told.feasible == 1
    assert [excluded.reason for excluded in told.excluded] == [verdict(reason, town.query("code", **wanted))]


def test_type_excludes_other_types(town: Town) -> None:
    town.node("judge", capability("judge", "code", kind="classification"))

    assert town.shares(60, "code", type="classification") == {"judge": 1.0}


def test_local_only_keeps_the_request_at_home(town: Town) -> None:
    town.node("home", capability("own", "recipes"))

    assert town.shares(60, "code", local_only=True) == {"home": 1.0}


def test_a_lost_node_gets_nothing_until_its_link_is_back(town: Town) -> None:
    town.table.mark_lost(peer("large"))
    assert town.shares(60, "code") == {"small": 1.0}

    town.table.mark_back(peer("large"))
    assert town.shares(60, "code", deny_nodes=("small",)) == {"large": 1.0}


def test_a_node_that_is_loading_gets_nothing(town: Town) -> None:
    town.tell(peer("small"), load("small", ready=False))

    assert town.shares(60, "code") == {"large": 1.0}


def test_an_ejected_node_rests_unless_it_is_the_last(town: Town) -> None:
    for _ in range(5):
        town.field.observe_start(peer("small"), "atmo:chat:small", town.now)
        town.field.observe_failure(peer("small"), "atmo:chat:small", town.now)

    assert town.shares(60, "code") == {"large": 1.0}
    assert town.ask("code", deny_nodes=("large",)).chosen.node == "small"
    town.now += 31.0
    town.tell(peer("large"), load("large", ready=False))
    assert town.ask("code").chosen.node == "small"


def test_conditions_add_up_and_the_refusal_names_each_and_the_least_to_change(town: Town) -> None:
    with pytest.raises(NoRoute) as caught:
        town.ask("code", data_residency=("eu",), min_context=8000)

    assert str(caught.value) == (
        "No node can serve this. Of 2 offers that fit the text, min_context 8000 excludes 1 (small), "
        "data_residency eu excludes 1 (large). "
        "Least to change: lower min_context to 2048; then small could serve it."
    )
    assert caught.value.exit_code == 5
    assert "\n" not in str(caught.value)


LEAST: list[tuple[dict[str, Any], str]] = [
    ({"min_context": 100_000}, "lower min_context to 32768; then large"),
    ({"prompt_tokens": 40_000}, "shorten the prompt or the wanted answer to 32768 tokens in all; then large"),
    ({"min_tps": 500.0}, "lower min_tps to 80; then large"),
    ({"max_load": 0.5, "deny_nodes": ("small",), "min_context": 4096}, "raise max_load to 1; then large"),
    ({"max_cost": 0.001, "deny_nodes": ("small",)}, "raise max_cost to 0.00256; then large"),
    (
        {"max_latency_ms": 1.0, "deny_nodes": ("large",), "data_residency": ("eu",)},
        "raise max_latency_ms to 2005",
    ),
    ({"data_residency": ("ch",), "deny_nodes": ("large",)}, "allow another data_residency"),
]


@pytest.mark.parametrize(("wanted", "least"), LEAST, ids=lambda value: str(value)[:40])
def test_a_refusal_says_by_how_much_a_condition_would_have_to_give(
    town: Town, wanted: dict[str, Any], least: str
) -> None:
    with pytest.raises(NoRoute) as caught:
        town.ask("code", **wanted)

    assert f"Least to change: {least}" in str(caught.value)


def test_what_a_refusal_says_is_enough_is_enough(town: Town) -> None:
    assert town.ask("code", min_context=32768).chosen.node == "large"
    assert town.ask("code", min_tps=80.0).chosen.node == "large"
    assert town.ask("code", max_load=1.0, deny_nodes=("small",)).chosen.node == "large"
    assert town.ask("code", max_cost=0.00256, deny_nodes=("small",)).chosen.node == "large"
    assert town.ask("code", max_latency_ms=2005.0, deny_nodes=("large",)).chosen.node == "small"


def test_a_refusal_of_many_names_a_few(town: Town) -> None:
    for number in range(10):
        town.node(f"n{number}", capability("small", "code"))

    with pytest.raises(NoRoute, match=r"model gpt excludes 12 \(large, n0, small and 9 more\)\. Least to change: name"):
        town.ask("code", model="gpt")


def test_unknown_types_labels_and_nodes_exclude_everybody(town: Town) -> None:
    for wanted in ({"type": "vision"}, {"labels": (("a", "b"),)}, {"allow_nodes": ("nobody",)}, {"modality": "audio"}):
        with pytest.raises(NoRoute):
            town.ask("code", **wanted)


def test_max_latency_counts_with_what_the_field_expects(town: Town) -> None:
    with pytest.raises(NoRoute, match=r"max_latency_ms 100\.0 excludes 2"):
        town.ask("code", max_latency_ms=100.0)


def test_every_reason_has_words() -> None:
    assert set(WORDS) == set(Reason)


@pytest.mark.parametrize(
    ("version", "rule", "meets"),
    [
        ("3.0", ">=3.0", True),
        ("3", ">=3.0", True),
        ("v2.10", ">2.9", True),
        ("2.9", ">=2.10", False),
        ("3.5", ">=3,<4", True),
        ("4.0", ">=3,<4", False),
        ("1.2", "1.2", True),
        ("1.2", "!=1.2", False),
        ("", ">=0", False),
        ("nightly", ">=1", False),
    ],
)
def test_versions_compare_as_people_expect(version: str, rule: str, meets: bool) -> None:
    assert satisfies(version, rule) is meets


def test_a_malformed_version_rule_says_how_to_write_one(town: Town) -> None:
    with pytest.raises(UsageError, match=r"'newest' is not a version rule. Write it as >=3.0"):
        town.ask("code", version="newest")


def test_a_malformed_peer_id_in_a_list_of_nodes_is_said(town: Town) -> None:
    with pytest.raises(UsageError, match="is not a peer id"):
        town.ask("code", allow_nodes=("12D3KooWnonsense",))


def test_a_refusal_speaks_of_the_offers_that_fit_the_text(town: Town) -> None:
    """A free thermometer is no answer to a question about code whose node is down."""
    town.node("sensor", capability("thermometer", "temperature", kind="tool"))
    town.table.mark_lost(peer("small"))

    with pytest.raises(
        NoRoute, match=r"Of 2 offers that fit the text, modality image excludes 1 \(small\), .*1 \(small"
    ):
        town.ask("code", modality="image", max_cost=0.0, min_tps=1.0)
