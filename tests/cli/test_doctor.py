"""`atmo doctor` names cause and remedy: each trouble is made for real, and what a user would read is checked."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from atmo.clock import SystemClock
from atmo.config import load
from atmo.invitation import write_token
from atmo.node import membership
from atmo.node.home import open_home
from atmo.node.node import Node
from tests.cluster import Cluster, eventually
from tests.node.test_invites import User

PATIENCE_S = 15.0


@pytest.fixture
def users(environ: dict[str, str]) -> Iterator[list[User]]:
    folder = Path(environ["ATMO_HOME"]).parent
    people = [User(folder, name) for name in ("anna", "ben")]
    yield people
    for user in people:
        user("node", "stop", "--all")
    Cluster(folder).stop_all()


def finding(user: User, *words: str, state: str = "bad") -> dict[str, str]:
    """What doctor finds that has all these words in cause and remedy, waited for; the exit code agrees with it."""

    def look() -> dict[str, str] | None:
        outcome = user("doctor", "--json")
        assert outcome.json["healthy"] is (outcome.code == 0), outcome.err
        found: list[dict[str, str]] = outcome.json["findings"]
        for each in found:
            if each["state"] == state and all(word in f"{each['what']} {each['remedy']}" for word in words):
                assert outcome.code == (1 if state == "bad" else outcome.code)
                return each
        return None

    named = eventually(look, f"doctor says {words}", PATIENCE_S)
    assert named["remedy"], named
    return dict(named)


def token(owner: User) -> str:
    outcome = owner("mesh", "invite", "--json")
    assert outcome.code == 0, outcome.err
    return str(outcome.json["token"])


def start(user: User, *flags: str) -> None:
    """A node that serves nothing, which is quicker."""
    file = Path(user.environ["ATMO_HOME"]).with_suffix(".toml")
    file.write_text("serve = []\n")
    user.start("--config", str(file), *flags)


def test_nothing_is_wrong_with_two_nodes_that_are_linked(users: list[User]) -> None:
    anna, ben = users
    start(anna)
    assert ben("mesh", "join", token(anna)).code == 0
    start(ben)
    eventually(lambda: anna.sees().get("ben"), "they are linked")
    for user in users:
        outcome = user("doctor")
        assert (outcome.code, "Everything is in order." in outcome.out) == (0, True), outcome.out
    assert "The certificate of the node ben is valid." in ben("doctor").out


def test_a_blocked_port(users: list[User]) -> None:
    """Packets to it vanish, as behind a firewall: its queue of connections is full, so the kernel answers nobody."""
    with closing(socket.socket()) as wall, closing(socket.socket()) as first:
        wall.bind(("127.0.0.1", 0))
        wall.listen(0)
        host, port = wall.getsockname()
        first.connect((host, port))
        start(users[0], "--seed", f"/ip4/{host}/tcp/{port}")
        finding(users[0], f"{host} port {port}", "No answer within", "firewall")


def test_a_port_behind_which_something_else_listens(users: list[User]) -> None:
    with serving(b"HTTP/1.1 400 Bad Request\r\n\r\n") as port:
        start(users[0], "--seed", f"/ip4/127.0.0.1/tcp/{port}")
        finding(users[0], f"port {port}", "does not speak Atmosphere's protocol")


def test_a_token_of_another_mesh(users: list[User]) -> None:
    """Anna has begun a new mesh since she gave Ben the token."""
    anna, ben = users
    port = ("--port", str(free_port()))
    start(anna, *port)
    assert ben("mesh", "join", token(anna)).code == 0
    assert anna("node", "stop").code == 0
    assert anna("mesh", "create").code == 0
    start(anna, *port)
    start(ben)
    finding(ben, "another mesh", "ask its owner for a token", "atmo mesh join TOKEN")


def test_a_token_that_was_used_up(users: list[User]) -> None:
    anna, ben = users
    start(anna)
    ticket = token(anna)
    carl = User(Path(anna.environ["ATMO_HOME"]).parent, "carl")
    try:
        for guest in (carl, ben):
            assert guest("mesh", "join", ticket).code == 0
        start(carl)
        eventually(lambda: anna.sees().get("carl"), "carl came first")
        start(ben)
        finding(ben, "used by 1 others already", "new token")
    finally:
        carl("node", "stop", "--all")


def test_an_expired_certificate(users: list[User]) -> None:
    """Ben joined two days ago, for a day."""
    anna, ben = users
    start(anna)
    past_s = time.time() - 2 * 86_400
    owner = membership.open_mesh(load({"home": anna.environ["ATMO_HOME"]}))
    addresses = [address for node in anna("mesh", "--json").json["nodes"] for address in node["addresses"]]
    ticket = owner.invite(addresses, past_s, 86_400, 1, 86_400, renewable=False)
    config = load({"home": ben.environ["ATMO_HOME"], "node.name": "ben"})
    membership.join(config, write_token(ticket), past_s)
    open_home(config, Past()).close()

    assert "No node is running." in ben("doctor").out
    finding(ben, "ben: ", "certificate expired on", "new token", "atmo mesh join TOKEN")
    start(ben)
    finding(ben, "Refused by a node of mesh", "certificate has expired")


class Past(SystemClock):
    def wall(self) -> float:
        return super().wall() - 2 * 86_400


class Tomorrow(SystemClock):
    def wall(self) -> float:
        return super().wall() + 86_400


def test_a_skewed_clock(users: list[User]) -> None:
    """A second node of the same user, on whose machine it is tomorrow already."""
    anna, _ = users
    start(anna)
    with running(anna, "late", Tomorrow()):
        finding(anna, "not valid yet", "clock")


def test_a_skewed_clock_of_a_guest_whose_certificate_is_older_than_the_skew(users: list[User]) -> None:
    anna, ben = users
    start(anna)
    ticket = token(anna)
    config = load({"home": ben.environ["ATMO_HOME"], "runtime": ben.environ["ATMO_RUNTIME"], "node.name": "ben"})
    membership.join(config, ticket, time.time())
    open_home(config, SystemClock()).close()  # joined with the right time; it goes wrong afterwards
    with running(ben, "ben", Tomorrow()):
        finding(anna, "The clock of", "ahead of this machine's", "Set the wrong one right")


def test_a_revoked_node(users: list[User]) -> None:
    anna, ben = users
    start(anna)
    assert ben("mesh", "join", token(anna)).code == 0
    start(ben)
    eventually(lambda: anna.sees().get("ben"), "the guest is linked")
    assert anna("mesh", "revoke", "ben").code == 0
    finding(ben, "This node was revoked", "atmo node rotate", "new token")
    assert ben("node", "stop").code == 0
    start(ben)
    finding(ben, "Refused by a node of mesh", "was revoked", "atmo node rotate")


def test_no_multicast(users: list[User]) -> None:
    """A network namespace of its own, where nothing but a loopback interface is, and that is down."""
    anna = users[0]
    prefix = alone_on_the_network()
    environ = {**os.environ, **anna.environ, "COLUMNS": "200", "ATMO_DISCOVERY_LAN": "true"}

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*prefix, sys.executable, "-m", "atmo", *arguments],
            capture_output=True, text=True, check=False, timeout=60, env=environ,
        )  # fmt: skip

    told = run("doctor").stdout
    assert "No network interface is up that can do multicast." in told
    assert "--seed" in told
    started = run("node", "start", "--name", "anna", "--serve", "atmo-tone", "--host", "0.0.0.0")
    assert started.returncode == 0, started.stderr
    assert "positive" in run("ask", "I love it, it works perfectly").stdout, "it serves its own user"
    said = eventually(lambda: "anna: " in (told := run("doctor").stdout) and told, "the node says it")
    said = said[said.index("anna: ") :]
    assert "multicast" in said
    assert "--seed" in said


def alone_on_the_network() -> list[str]:
    prefix = ["unshare", "--net"]
    tried = subprocess.run([*prefix, "true"], capture_output=True, check=False) if sys.platform == "linux" else None
    if tried is None or tried.returncode != 0:
        pytest.skip("network namespaces need Linux and root")
    return prefix


def test_key_files_that_others_can_read_or_that_are_damaged(users: list[User]) -> None:
    anna = users[0]
    start(anna)
    assert anna("node", "stop").code == 0
    key = Path(anna.environ["ATMO_HOME"]) / "nodes" / "anna" / "identity.key"
    key.chmod(0o644)
    finding(anna, str(key), "read by others", f"chmod 600 {key}")
    key.chmod(0o600)
    key.write_bytes(b"half")
    finding(anna, str(key), "damaged", "backup")


def free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def serving(answer: bytes) -> Iterator[int]:
    """A program that answers whatever it is told with the same, and hangs up."""
    with closing(socket.socket()) as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        over = threading.Event()

        def serve() -> None:
            while not over.is_set():
                connection, _ = listener.accept()
                with connection:
                    connection.recv(4096)
                    connection.sendall(answer)

        server = threading.Thread(target=serve)
        server.start()
        try:
            yield listener.getsockname()[1]
        finally:
            over.set()
            socket.create_connection(listener.getsockname()).close()
            server.join()


@contextmanager
def running(user: User, name: str, clock: SystemClock) -> Iterator[None]:
    """A node of this user in this process, with another clock."""
    where = {"home": user.environ["ATMO_HOME"], "runtime": user.environ["ATMO_RUNTIME"]}
    node = Node(load({**where, "node.name": name, "serve": []}), clock)
    up, over = threading.Event(), threading.Event()

    async def live() -> None:
        await node.start()
        up.set()
        try:
            await asyncio.to_thread(over.wait)
        finally:
            await node.stop()

    thread = threading.Thread(target=lambda: asyncio.run(live()))
    thread.start()
    try:
        assert up.wait(PATIENCE_S)
        yield
    finally:
        over.set()
        thread.join()
