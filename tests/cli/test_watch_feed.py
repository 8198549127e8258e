"""What feeds the live view: events and looks at the mesh, through the death and return of the node."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from atmo.cli.watch.feed import WAITING, Feed, finder
from atmo.config import load
from atmo.errors import NodeNotRunning
from tests.cli.invented import InventedNode
from tests.cluster import eventually


@pytest.fixture
def node(environ: dict[str, str]) -> Iterator[InventedNode]:
    invented = InventedNode(3)
    yield invented
    invented.close()


class Taken:
    """All that a feed gave."""

    def __init__(self, feed: Feed) -> None:
        self._feed = feed
        self.items: list[tuple[str, Any]] = []

    def all(self, kind: str) -> list[Any]:
        self.items += self._feed.take()
        return [value for found, value in self.items if found == kind]


def test_news_comes_again_after_the_node_was_away(node: InventedNode) -> None:
    woken = threading.Event()
    feed = Feed(finder(load(), ""), woken.set, interval_s=0.1)
    taken = Taken(feed)
    feed.start()
    try:
        eventually(lambda: taken.all("mesh") and len(taken.all("event")) >= 14, "events and a report")
        assert woken.is_set()
        assert taken.all("mesh")[0]["nodes"][0]["name"] == "laptop"
        feed.want_decision("1".zfill(32))
        eventually(lambda: taken.all("decision"), "the decision")
        assert taken.all("decision") == [("1".zfill(32), ["Request 0001 is invented, and so is its decision."])]

        node.end()
        eventually(lambda: taken.all("lost"), "it is told that the node is away")
        assert not taken.all("back")
        before = len(taken.all("event"))
        node.start()
        eventually(lambda: taken.all("back") and len(taken.all("event")) > before, "the new life is heard")
        assert [event["event"] for event in taken.all("event")][before] == "gap", "what lies between is not known"
        seqs = [event["seq"] for event in taken.all("event") if event["event"] != "pulse"]
        assert seqs == sorted(set(seqs)), "nothing twice"
    finally:
        feed.close()
    assert feed.join(10.0)


def test_what_nobody_takes_does_not_pile_up() -> None:
    feed = Feed(_nobody, lambda: None, interval_s=1.0)
    for number in range(WAITING + 10):
        feed._put("event", number)
    taken = feed.take()
    assert len(taken) == WAITING
    assert taken[-1] == ("event", WAITING + 9)
    assert feed.take() == []


def test_there_has_to_be_a_node_at_first(environ: dict[str, str]) -> None:
    with pytest.raises(NodeNotRunning, match="atmo node start"):
        finder(load(), "")


def _nobody() -> Any:
    raise NodeNotRunning("Nobody is there.")
