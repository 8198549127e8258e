"""Several real nodes: they find each other, answer for each other, and survive each other."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from atmo.client import SyncClient
from atmo.errors import ContextOverflow, NoRoute, UsageError
from tests.cluster import Cluster, atmo, eventually

CHAT = """
[[serve]]
model = "atmo-nano"
description = "General chat: greetings, small talk, small sums, everyday questions."
examples = ["Hello, who are you?", "What is 2+2?"]
"""
TONE = """
[node]
labels = { residency = "eu" }
[[serve]]
model = "atmo-tone"
"""
ENCODER = """
[[serve]]
model = "atmo-encoder"
"""


@pytest.fixture
def cluster(environ: dict[str, str]) -> Iterator[Cluster]:
    cluster = Cluster(Path(environ["ATMO_HOME"]).parent)
    yield cluster
    cluster.stop_all()


def ask(client: SyncClient, text: str, **wishes: Any) -> dict[str, Any]:
    """The answer, and who gave it."""
    events = list(client.stream(text, timeout_s=30, **wishes).steps())
    pieces = [event["text"] for event in events if event["event"] == "text"]
    found: dict[str, Any] = {event["event"]: event for event in events}
    return {**found, "text": "".join(pieces), "node": found["done"]["node"]}


def test_each_prompt_goes_to_the_node_that_serves_its_kind(cluster: Cluster) -> None:
    cluster.start("chat", CHAT)
    cluster.start("tone", TONE)
    client = cluster.start("vectors", ENCODER)
    cluster.together()

    chat = ask(client, "Hello, who are you?")
    assert chat["node"] == "chat"
    assert chat["text"].strip()
    assert chat["done"]["output_tokens"] > 0

    tone = ask(client, "Is this review positive or negative: the battery died after one day, what a waste of money")
    assert tone["node"] == "tone"
    assert tone["labels"]["labels"][0][0] == "negative"

    vector = ask(cluster.client("chat"), "some text", type="embedding")
    assert vector["node"] == "vectors"
    assert len(vector["vector"]["vector"]) == 384

    constrained = ask(client, "How does this sound: lovely, thank you!", constraints={"residency": "eu"})
    assert constrained["node"] == "tone"
    with pytest.raises(NoRoute, match="local"):
        ask(client, "Hello", type="chat", constraints={"local_only": True})


def test_the_answer_is_the_same_through_a_hop_and_without(cluster: Cluster) -> None:
    direct = cluster.start("chat", CHAT)
    remote = cluster.start("tone", TONE)
    cluster.together()
    here, there = (ask(client, "What is 2+2?", type="chat") for client in (direct, remote))
    assert (here["done"]["local"], there["done"]["local"]) == (True, False)
    assert here["text"] == there["text"]


def test_a_request_larger_than_any_frame_arrives(cluster: Cluster) -> None:
    cluster.start("vectors", ENCODER)
    client = cluster.start("tone", TONE)
    cluster.together()
    book = "It was a dark and stormy night. " * 100_000
    vector = ask(client, book, type="embedding")
    assert (vector["node"], len(vector["vector"]["vector"])) == ("vectors", 384)


def test_a_killed_node_is_out_of_the_way_at_once(cluster: Cluster) -> None:
    cluster.start("first", CHAT)
    cluster.start("second", CHAT)
    client = cluster.start("tone", TONE)
    cluster.together()
    cluster.kill("first")
    for _ in range(5):  # asked before anybody can have noticed, and after
        assert ask(client, "What is 2+2?", type="chat")["node"] == "second"


def test_a_stopped_process_is_replaced_before_the_first_word(cluster: Cluster) -> None:
    """SIGSTOP: the sockets stay open and nothing comes. The request waits for the link to be given up, not for ever."""
    cluster.start("first", CHAT)
    cluster.start("second", CHAT)
    client = cluster.start("tone", TONE)
    cluster.together()
    pid = cluster.pids["first"]
    os.kill(pid, signal.SIGSTOP)
    try:
        answers = [ask(client, "What is 2+2?", type="chat")["node"] for _ in range(3)]
    finally:
        os.kill(pid, signal.SIGCONT)
    assert answers == ["second"] * 3


def test_a_dead_worker_is_restarted_and_the_node_lives(cluster: Cluster) -> None:
    client = cluster.start("chat", CHAT)
    served = client.status()["capabilities"][0]
    os.kill(served["worker_pid"], signal.SIGKILL)

    def back() -> bool:
        now = client.status()["capabilities"][0]
        return bool(now["state"] == "ready" and now["worker_pid"] != served["worker_pid"])

    eventually(back, "the worker is back")
    assert ask(client, "What is 2+2?")["text"].strip()


def test_a_node_that_stops_says_goodbye(cluster: Cluster) -> None:
    client = cluster.start("chat", CHAT)
    cluster.start("tone", TONE)
    cluster.together()
    cluster.client("tone").stop()
    eventually(lambda: [n["name"] for n in client.mesh()["nodes"]] == ["chat"], "the withdrawal arrives")
    cluster.pids.pop("tone")


def test_the_decision_can_be_explained_afterwards(cluster: Cluster) -> None:
    client = cluster.start("chat", CHAT)
    answer = ask(client, "What is 2+2?")
    report = client.explain(answer["done"]["request_id"])
    assert report["chosen"]["node"] == "chat"
    assert report["chosen"]["potential_s"] > 0
    with pytest.raises(UsageError, match="no decision"):
        client.explain("00" * 16)


def test_bad_requests_are_refused_in_one_line(cluster: Cluster) -> None:
    client = cluster.start("chat", CHAT)
    with pytest.raises(UsageError, match="empty"):
        ask(client, "   ")
    with pytest.raises((ContextOverflow, NoRoute), match="token"):
        ask(client, "word " * 20_000)
    with pytest.raises(UsageError, match="Did you mean 'min_tps'"):
        ask(client, "Hi", constraints={"min_tsp": 3})
    with pytest.raises(NoRoute, match="excluded by model gpt-9"):
        ask(client, "Hi", model="gpt-9")


def test_leaving_in_the_middle_frees_the_slot(cluster: Cluster) -> None:
    client = cluster.start("chat", CHAT)
    cluster.start("tone", TONE)
    cluster.together()
    stream = cluster.client("tone").stream(
        "Hello, who are you?", type="chat", temperature=5.0, max_tokens=900, timeout_s=30
    )
    assert next(stream.steps()).kind == "route"
    assert next(iter(stream))
    stream.close()
    eventually(lambda: client.status()["capabilities"][0]["in_flight"] == 0, "the slot is free", patience_s=5.0)


def test_a_peer_of_another_mesh_is_refused_by_name(cluster: Cluster, environ: dict[str, str]) -> None:
    client = cluster.start("chat", CHAT)
    address = client.status()["node"]["address"]
    foreign = {"ATMO_HOME": environ["ATMO_HOME"] + "2", "ATMO_RUNTIME": environ["ATMO_RUNTIME"] + "2"}
    assert atmo("node", "start", "--name", "stranger", "--seed", address, **foreign).code == 0
    try:

        def told() -> bool:
            return "another mesh" in " ".join(atmo("node", "status", "--json", **foreign).json["problems"])

        eventually(told, "the stranger is told why")
        assert [node["name"] for node in client.mesh()["nodes"]] == ["chat"]
    finally:
        assert atmo("node", "stop", **foreign).code == 0
