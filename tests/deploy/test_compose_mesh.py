"""The compose file's mesh, without Docker: what the image installs, with the same commands and the same variables in
bare homes, as real processes.

What differs is what a container would give: folders instead of volumes, free ports instead of addresses of their own.
"""

from __future__ import annotations

import socket
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from atmo.client import SyncClient
from atmo.config import LANES, load
from atmo.errors import NodeNotRunning
from tests.cluster import eventually
from tests.deploy.containers import PATIENCE_S, Container
from tests.deploy.ports import Ports
from tests.deploy.recipes import compose, image

NODES = ("one", "two", "three")


class Service(Container):
    """A node of the compose file, of what the image installs; `owner` is whose volume it has."""

    def __init__(
        self, name: str, programs: Path, place: Path, ports: Ports, doors: dict[str, int], owner: str = ""
    ) -> None:
        self.name = name
        self.recipe = compose()["services"][name]
        self.api_port, self.lane_port = ports.one(), ports.lanes()
        told = {**image().environment, **(self.recipe.get("environment") or {})}
        told |= {"ATMO_DISCOVERY_RUNTIMES": "false", "ATMO_GATEWAY_PORT": str(self.api_port)}
        told |= {"ATMO_PORT": str(doors.get(name, 0)), "ATMO_TRANSPORT_LANE_PORT": str(self.lane_port)}
        told |= {"ATMO_N_CTX": "512", "ATMO_N_BATCH": "64", "ATMO_N_GPU_LAYERS": "0", "ATMO_HEARTBEAT_INTERVAL": "1"}
        swaps = {
            "/var/lib/atmo": str(place / (owner or name)),
            "/invite": str(place / "invite"),
            "/tmp/atmo": str(place / f"run-{name}"),
            "0.0.0.0": "127.0.0.1",
        }
        swaps |= {f"/dns4/{other}/tcp/4600": f"/dns4/localhost/tcp/{port}" for other, port in doors.items()}
        super().__init__(told, swaps, programs)

    def sees(self) -> set[str]:
        try:
            nodes = SyncClient(load(environ=self.environ)).mesh()["nodes"]
        except NodeNotRunning:
            return set()
        return {node["name"] for node in nodes if node["linked"] or node["self"]}

    def asked(self, key: str = "") -> int:
        """The status with which its API answers a program that has this key."""
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        request = urllib.request.Request(f"http://127.0.0.1:{self.api_port}/v1/models", headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=10) as response:
                return int(response.status)
        except urllib.error.HTTPError as error:
            return error.code


def invite(programs: Path, place: Path, ports: Ports) -> None:
    """What the service `invite` does before the others start."""
    service = Service("invite", programs, place, ports, {}, owner="one")
    outcome = service.run(*service.recipe["entrypoint"], *map(service.swapped, service.recipe["command"]))
    assert outcome.code == 0, outcome.err


@pytest.fixture
def place(environ: dict[str, str]) -> Path:
    folder = Path(environ["ATMO_HOME"]).parent / "volumes"
    for name in ("invite", *NODES):
        (folder / name).mkdir(parents=True, mode=0o700)
    return folder


@pytest.fixture
def ports() -> Iterator[Ports]:
    with closing(Ports()) as ports:
        yield ports


@pytest.fixture
def nodes(programs: Path, place: Path, ports: Ports) -> Iterator[list[Service]]:
    invite(programs, place, ports)
    doors = {name: ports.one() for name in NODES}
    services = [Service(name, programs, place, ports, doors) for name in NODES]
    for service in services:
        service.start()
    yield services
    assert [service.stop() for service in services] == [0, 0, 0]


@pytest.mark.timeout(600)  # some seconds where the machine is not busy with other things
def test_three_containers_are_one_mesh_that_asks_for_a_key(
    nodes: list[Service], programs: Path, place: Path, ports: Ports
) -> None:
    one, two, three = nodes
    for node in nodes:
        eventually(lambda node=node: node.sees() == set(NODES), f"{node.name} sees all", PATIENCE_S)  # type: ignore[misc]
    for port in range(two.lane_port, two.lane_port + LANES):
        socket.create_connection(("127.0.0.1", port), timeout=5).close()

    token = (place / "invite" / "token").read_text()
    assert (place / "invite" / "token").stat().st_mode & 0o777 == 0o600
    invite(programs, place, ports)
    assert (place / "invite" / "token").read_text() == token, "a second `up` makes no second token"
    assert "Only the owner" in two.run("atmo", "mesh", "invite").err

    assert three.run("atmo", "node", "status", "--json").json["capabilities"][0]["context"] == 512

    answer = three.run("atmo", "ask", "--json", "--type", "classification", "It broke after one day")
    assert answer.json["done"]["node"] == "two"

    assert one.healthy()
    assert one.asked() == 401
    key = one.run("atmo", "keys", "create", "--name", "me", "--json").json["key"]
    eventually(lambda: one.asked(key) == 200, "the key is known")

    assert three.stop() == 0
    assert not three.healthy()
    three.start()
    eventually(lambda: one.sees() == set(NODES), "it is back", PATIENCE_S)
    members = SyncClient(load(environ=one.environ)).members()
    assert members["invites"][0]["used"] == 2, "it has the membership that it had"
