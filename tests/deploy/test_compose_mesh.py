"""The compose file's mesh, without Docker: the same commands with the same variables in bare homes, as real processes.

What differs is what a container would give: folders instead of volumes, free ports instead of addresses of their own.
"""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from atmo.client import SyncClient
from atmo.config import load
from atmo.errors import NodeNotRunning
from tests.cluster import Outcome, atmo, eventually
from tests.deploy.ports import free_ports, lanes
from tests.deploy.recipes import compose, image

NODES = ("one", "two", "three")
PATIENCE_S = 30.0


class Container:
    """One service of the compose file as a process. Volumes are folders in `place`."""

    def __init__(self, name: str, place: Path, doors: dict[str, int]) -> None:
        self.name = name
        self.service: dict[str, Any] = compose()["services"][name]
        self.api_port = free_ports(1)[0]
        told = {**image().environment, **(self.service.get("environment") or {})}
        swaps = {
            "/var/lib/atmo": str(place / name if name in doors else place / "one"),
            "/invite": str(place / "invite"),
            "/tmp/atmo": str(place / f"run-{name}"),
            "0.0.0.0": "127.0.0.1",
        }
        swaps |= {f"/dns4/{other}/tcp/4600": f"/dns4/localhost/tcp/{port}" for other, port in doors.items()}
        self._swaps = swaps
        self.environ = {key: self.swapped(value) for key, value in told.items() if key.startswith("ATMO_")}
        if name in doors:
            self.environ |= {
                "ATMO_PORT": str(doors[name]),
                "ATMO_TRANSPORT_LANE_PORT": str(lanes()),
                "ATMO_GATEWAY_PORT": str(self.api_port),
                "ATMO_DISCOVERY_RUNTIMES": "false",
            }
        self.process: subprocess.Popen[bytes] | None = None

    def swapped(self, text: str) -> str:
        return re.sub("|".join(map(re.escape, self._swaps)), lambda found: self._swaps[found[0]], text)

    def run_shell(self) -> Outcome:
        """A service whose entrypoint is a shell, to its end."""
        entrypoint, command = self.service["entrypoint"], self.service["command"]
        done = subprocess.run(
            [*entrypoint, *(self.swapped(part) for part in command)],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
            env=self._whole_environment(),
        )
        return Outcome(done.returncode, done.stdout, done.stderr)

    def start(self) -> None:
        """What the image starts: its entrypoint with its command."""
        words = [*image().command("ENTRYPOINT"), *image().command("CMD")]
        self.process = subprocess.Popen(words, stderr=subprocess.DEVNULL, env=self._whole_environment())

    def exec(self, *words: str) -> Outcome:
        """As `docker exec` does: another process with the same variables."""
        return atmo(*words, **self.environ)

    def sees(self) -> set[str]:
        try:
            nodes = SyncClient(load(environ=self.environ)).mesh()["nodes"]
        except NodeNotRunning:
            return set()
        return {node["name"] for node in nodes if node["linked"] or node["self"]}

    def stop(self) -> int:
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=PATIENCE_S)

    def _whole_environment(self) -> dict[str, str]:
        ours = {key: value for key, value in os.environ.items() if not key.startswith("ATMO_")}
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        return {**ours, "PATH": path, "OMP_NUM_THREADS": "1", **self.environ}


@pytest.fixture
def place(environ: dict[str, str]) -> Path:
    folder = Path(environ["ATMO_HOME"]).parent / "c"
    for name in ("invite", *NODES):
        (folder / name).mkdir(parents=True, mode=0o700)
    return folder


@pytest.fixture
def nodes(place: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Container]]:
    for name in [name for name in os.environ if name.startswith("ATMO_")]:
        monkeypatch.delenv(name)
    doors = dict(zip(NODES, free_ports(len(NODES)), strict=True))
    invited = Container("invite", place, doors).run_shell()
    assert invited.code == 0, invited.err
    containers = [Container(name, place, doors) for name in NODES]
    for container in containers:
        container.start()
    yield containers
    for container in containers:
        assert container.stop() == 0


def asked(container: Container, key: str = "") -> int:
    request = urllib.request.Request(
        f"http://127.0.0.1:{container.api_port}/v1/models", headers={"Authorization": f"Bearer {key}"} if key else {}
    )
    try:
        with urllib.request.urlopen(request, timeout=10) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0


def test_three_containers_are_one_mesh_that_asks_for_a_key(nodes: list[Container], place: Path) -> None:
    one, two, three = nodes
    for node in nodes:
        eventually(lambda node=node: node.sees() == set(NODES), f"{node.name} sees all", PATIENCE_S)  # type: ignore[misc]

    members = one.exec("mesh", "members", "--json").json
    assert members["invites"][0]["used"] == 2
    assert "Only the owner" in two.exec("mesh", "invite").err
    token = (place / "invite" / "token").read_text()
    assert (place / "invite" / "token").stat().st_mode & 0o777 == 0o600
    assert Container("invite", place, {}).run_shell().code == 0
    assert (place / "invite" / "token").read_text() == token, "a second `up` makes no second token"

    answer = three.exec("ask", "--json", "--type", "classification", "It broke after one day")
    assert answer.json["done"]["node"] == "two"

    healthy = one.exec(*image().command("HEALTHCHECK")[1:])
    assert healthy.code == 0
    assert asked(one) == 401
    key = one.exec("keys", "create", "--name", "me", "--json").json["key"]
    eventually(lambda: asked(one, key) == 200, "the key is known")

    assert three.stop() == 0
    assert three.exec(*image().command("HEALTHCHECK")[1:]).code == 3
    three.start()
    eventually(lambda: one.sees() == set(NODES), "it is back, with the membership it had", PATIENCE_S)
    assert one.exec("mesh", "members", "--json").json["invites"][0]["used"] == 2


def test_the_health_check_is_what_the_test_runs() -> None:
    assert shlex.join(image().command("HEALTHCHECK")) == "atmo node status"
