"""A remembered ranking is what ranking anew would say."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from atmo.mesh.ranking import rank
from tests.mesh.routing_support import Town, capability

TOPICS = [f"t{number}" for number in range(6)]


def test_the_second_time_nothing_is_computed() -> None:
    town = Town()
    for topic in TOPICS:
        town.node(topic, capability(topic))
    query = town.query("t1")

    assert town.field.rankings.of(query) is town.field.rankings.of(replace(query))
    assert town.field.rankings.of(query) is not town.field.rankings.of(town.query("t2"))
    assert town.field.rankings.of(query) is not town.field.rankings.of(town.query("t1", max_cost=1.0))
    assert town.field.rankings.of(query) is not town.field.rankings.of(replace(query, prompt_tokens=9))


steps = st.lists(st.tuples(st.sampled_from(["put", "drop"]), st.sampled_from(TOPICS)), max_size=25)


@given(steps, st.sampled_from(TOPICS))
@settings(max_examples=60, deadline=None)
def test_it_is_forgotten_when_a_class_comes_or_goes(happened: list[tuple[str, str]], asked: str) -> None:
    town = Town()
    query = town.query(asked)
    for what, topic in happened:
        if what == "put":
            town.node(f"node of {topic}", capability(topic))
        else:
            town.table.drop_capability(town.node(f"node of {topic}"), f"atmo:chat:{topic}")
        ranked, now = town.field.rankings.of(query), rank(town.table, query)
        assert (ranked.ranking.classes, ranked.ranking.scores) == (now.classes, now.scores)
        assert ranked.names == [town.table.classes.capability[klass].descriptor.id for klass in now.classes]
