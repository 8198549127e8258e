"""An answer that has begun arrives whole: the node that gives it is killed, or told to stop, at any token."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from atmo.client import SyncClient
from tests.cluster import Cluster, eventually
from tests.inference.gguf_maker import song, write_parrot

TOKENS = 1500
TONE = """
[[serve]]
model = "atmo-tone"
"""


@pytest.fixture
def cluster(environ: dict[str, str]) -> Iterator[Cluster]:
    cluster = Cluster(Path(environ["ATMO_HOME"]).parent)
    yield cluster
    cluster.stop_all()


@pytest.fixture
def singers(cluster: Cluster) -> SyncClient:
    """Two nodes with a model that sings one long song, and a client of a third that has none."""
    parrot = write_parrot(cluster.folder / "parrot.gguf", blocks=2, inner=1024)  # so slow that a stop finds it singing
    serve = f'[inference]\ndrain_s = 0.05\n[[serve]]\nmodel = "{parrot}"\n'
    cluster.start("first", serve)
    cluster.start("second", serve)
    client = cluster.start("asker", TONE)
    cluster.together()
    return client


def sung(client: SyncClient, at_token: int, then: Callable[[str], None]) -> tuple[str, list[int], list[dict[str, Any]]]:
    """The whole song as it arrived, its token ids and the other events. `then(node)` is done in mid-answer."""
    text, ids = "", list[int]()
    others: list[dict[str, Any]] = []
    node = ""
    for event in client.stream("sing", model="parrot", max_tokens=TOKENS, timeout_s=60).steps():
        if event["event"] != "text":
            others.append(event)
            node = event["chosen"]["node"] if event["event"] == "route" else node
            continue
        text += event["text"]
        ids += event["token_ids"]
        if len(ids) >= at_token:
            then(node)
            at_token = TOKENS + 1
    return text, ids, others


def check(text: str, ids: list[int], events: list[dict[str, Any]]) -> None:
    assert text == song(TOKENS), "a token was lost or came twice"
    assert bytes(ids) == song(TOKENS).encode()
    retries = [event for event in events if event["event"] == "retry"]
    assert [retry["resumed"] for retry in retries] == [True]
    assert not retries[0]["other_model"]
    done = events[-1]
    assert (done["event"], done["output_tokens"], done["finish"]) == ("done", TOKENS, "length")


@pytest.mark.parametrize("at_token", [1, 333])
def test_a_node_killed_in_mid_answer_is_not_noticed(cluster: Cluster, singers: SyncClient, at_token: int) -> None:
    check(*sung(singers, at_token, cluster.kill))


def test_a_node_told_to_stop_lets_another_go_on(cluster: Cluster, singers: SyncClient) -> None:
    check(*sung(singers, 100, lambda node: os.kill(cluster.pids.pop(node), signal.SIGTERM)))


def test_a_worker_that_dies_on_the_only_node_is_waited_for(cluster: Cluster, singers: SyncClient) -> None:
    """Nobody else has the model: the answer goes on when the worker is back."""
    cluster.kill("first")
    eventually(lambda: _linked(singers) == ["second"], "the asker knows that the other is gone")

    def kill_worker(node: str) -> None:
        os.kill(cluster.client(node).status()["capabilities"][0]["worker_pid"], signal.SIGKILL)

    check(*sung(singers, 50, kill_worker))


def _linked(client: SyncClient) -> list[str]:
    return [node["name"] for node in client.mesh()["nodes"] if node["linked"]]
