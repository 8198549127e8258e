"""What feeds the live view: events and looks at the mesh, through the death and return of the node."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any, cast

import pytest

from atmo.cli.watch import demo
from atmo.cli.watch.feed import WAITING, Feed, finder
from atmo.client import SyncClient, Transfer
from atmo.config import load
from atmo.errors import NodeNotRunning, RequestError
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


class Played:
    """A node that says what it is told to say about transfers, and counts how often it is asked."""

    def __init__(self) -> None:
        self.transfers_say: list[Any] = []
        self.asked = 0

    def mesh(self) -> dict[str, Any]:
        return {"nodes": []}

    def events(self, since: int) -> Iterator[Any]:
        yield from ()

    def transfers(self) -> list[Transfer]:
        self.asked += 1
        said = self.transfers_say[min(self.asked, len(self.transfers_say)) - 1]
        if isinstance(said, Exception):
            raise said
        return [Transfer(each) for each in said]


def test_transfers_are_looked_at_while_something_travels(monkeypatch: pytest.MonkeyPatch) -> None:
    """A node of an earlier version has none; while nothing travels it is asked seldom."""
    monkeypatch.setattr("atmo.cli.watch.feed.TRANSFERS_S", 1e9)
    node = Played()
    running = [transfer for transfer in demo.transfers() if transfer["state"] == "running"]
    node.transfers_say = [running, running, []]
    feed = Feed(lambda: cast(SyncClient, node), lambda: None, interval_s=0.01)
    taken = Taken(feed)
    feed.start()
    try:
        eventually(lambda: len(taken.all("mesh")) > 10, "many looks at the mesh")
        assert taken.all("transfers") == [running, running, []]
        assert node.asked == 3
    finally:
        feed.close()
    assert feed.join(10.0)
    old = Played()
    old.transfers_say = [RequestError("Unknown request URL: GET /api/transfers.")]
    feed = Feed(lambda: cast(SyncClient, old), lambda: None, interval_s=0.01)
    taken = Taken(feed)
    feed.start()
    try:
        eventually(lambda: len(taken.all("mesh")) > 3, "the mesh is seen all the same")
        assert taken.all("transfers") == taken.all("lost") == []
    finally:
        feed.close()
    assert feed.join(10.0)


def _nobody() -> Any:
    raise NodeNotRunning("Nobody is there.")
