"""What each mode promises: standalone has no socket, provider asks nobody, headless has no API."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from atmo.client import running_nodes
from atmo.config import load
from atmo.errors import NoRoute
from tests.cluster import Cluster, atmo, eventually

CHAT = '[[serve]]\nmodel = "atmo-nano"\n'
TONE = '[[serve]]\nmodel = "atmo-tone"\n'


@pytest.fixture
def cluster(environ: dict[str, str]) -> Iterator[Cluster]:
    cluster = Cluster(Path(environ["ATMO_HOME"]).parent)
    yield cluster
    cluster.stop_all()


def test_a_standalone_node_answers_and_opens_no_network_socket(cluster: Cluster) -> None:
    client = cluster.start("alone", CHAT, "--mode", "standalone")
    other = cluster.start("other", TONE)
    node = psutil.Process(cluster.pids["alone"])
    for process in [node, *node.children(recursive=True)]:
        assert process.net_connections("inet") == []
    assert client.ask("What is 2+2?", timeout_s=30).finish
    assert client.status()["peers"] == 0
    assert [node["name"] for node in other.mesh()["nodes"]] == ["other"]


def test_a_provider_serves_others_and_asks_nobody(cluster: Cluster) -> None:
    provider = cluster.start("provider", CHAT, "--mode", "provider")
    other = cluster.start("other", TONE)
    cluster.together()
    assert other.ask("Hi", type="chat", timeout_s=30).node == "provider"
    with pytest.raises(NoRoute):
        provider.ask("I love it", type="classification", timeout_s=30)


def test_a_headless_node_has_no_api_and_serves(cluster: Cluster) -> None:
    asker = cluster.start("asker", TONE)
    file = cluster.folder / "headless.toml"
    file.write_text(CHAT)
    started = atmo("node", "start", "--name", "headless", "--mode", "headless", "--config", str(file))
    assert started.code == 0, started.err
    (card,) = [card for card in running_nodes(load()) if card.name == "headless"]
    assert card.api_socket == ""
    listening = [str(connection.laddr) for connection in psutil.Process(card.pid).net_connections("unix")]
    assert not [path for path in listening if path.endswith(".sock")]
    eventually(lambda: any(node["name"] == "headless" for node in asker.mesh()["nodes"]), "it is seen")
    assert asker.ask("Hi", type="chat", timeout_s=30).node == "headless"
    assert "No node named" in atmo("ask", "--node", "headless", "Hi").err
    assert atmo("node", "stop", "--node", "headless").out == "Stopped headless.\n"
