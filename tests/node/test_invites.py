"""Two users, each with a home of their own: invited, joined, used up, revoked, gone. Real processes and commands."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cluster import Cluster, Outcome, atmo, eventually

PATIENCE_S = 10.0  # what a revocation may take in the whole mesh


class User:
    """Somebody with a home and a runtime folder of their own."""

    def __init__(self, folder: Path, name: str) -> None:
        self.environ = {"ATMO_HOME": str(folder / name), "ATMO_RUNTIME": str(folder / f"r-{name}")}
        self.name = name

    def __call__(self, *arguments: str) -> Outcome:
        return atmo(*arguments, **self.environ)

    def start(self, *flags: str) -> None:
        outcome = self("node", "start", "--name", self.name, *flags)
        assert outcome.code == 0, outcome.err

    def sees(self) -> dict[str, bool]:
        """The nodes this user's node knows, and whether it is linked to them."""
        outcome = self("mesh", "--json")
        return {node["name"]: node["linked"] for node in outcome.json["nodes"]} if outcome.code == 0 else {}


@pytest.fixture
def users(environ: dict[str, str]) -> Iterator[list[User]]:
    folder = Path(environ["ATMO_HOME"]).parent
    people = [User(folder, name) for name in ("anna", "ben", "carl")]
    yield people
    for user in people:
        user("node", "stop", "--all")
    Cluster(folder).stop_all()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def token(owner: User, *flags: str) -> str:
    outcome = owner("mesh", "invite", "--json", *flags)
    assert outcome.code == 0, outcome.err
    return str(outcome.json["token"])


def test_a_guest_joins_answers_and_is_revoked(users: list[User]) -> None:
    anna, ben, _ = users
    anna.start("--serve", "atmo-tone")
    ticket = token(anna)
    assert ben("mesh", "join", ticket).code == 0
    ben.start("--serve", "atmo-nano")
    eventually(lambda: anna.sees().get("ben") and ben.sees().get("anna"), "the guest is linked")

    answer: dict[str, Any] = anna("ask", "--json", "--type", "chat", "What is 2+2?").json
    assert answer["done"]["node"] == "ben"

    report = anna("mesh", "members", "--json").json
    (guest,) = [member for member in report["members"] if member["name"] == "ben"]
    assert guest["invite"] == report["invites"][0]["id"]
    assert report["invites"][0]["used"] == 1
    assert "ben" in anna("mesh", "members").out

    assert anna("mesh", "revoke", "ben").code == 0
    assert "ben" not in anna.sees(), "whoever is told of it drops the guest at once"
    eventually(lambda: not any(ben.sees().get(name) for name in ("anna",)), "the guest has no link", PATIENCE_S)
    assert ben("node", "stop").code == 0
    ben.start("--serve", "atmo-nano")
    assert "revoked" in " ".join(eventually(lambda: ben("node", "status", "--json").json["problems"], "it is told why"))
    assert "ben" not in anna.sees()


def test_revoking_an_invite_ends_everyone_it_made_and_is_remembered(users: list[User]) -> None:
    anna, ben, _ = users
    port = ("--port", str(free_port()))
    anna.start("--serve", "atmo-tone", *port)
    ticket = token(anna, "--uses", "2")
    ben("mesh", "join", ticket)
    ben.start("--serve", "atmo-tone")
    eventually(lambda: anna.sees().get("ben"), "the guest is linked")
    invite = anna("mesh", "members", "--json").json["invites"][0]["id"]
    assert anna("mesh", "revoke", invite[-8:]).code == 0
    eventually(lambda: "ben" not in anna.sees(), "the guest is gone", PATIENCE_S)
    for user in (anna, ben):
        assert user("node", "stop").code == 0
    anna.start("--serve", "atmo-tone", *port)
    ben.start("--serve", "atmo-tone")
    said = eventually(lambda: " ".join(ben("node", "status", "--json").json["problems"]), "it is told why")
    assert "revoked" in said
    assert "ben" not in anna.sees()


def test_an_invite_that_is_used_up_lets_nobody_else_in(users: list[User]) -> None:
    anna, ben, carl = users
    anna.start("--serve", "atmo-tone")
    ticket = token(anna)
    for guest in (ben, carl):
        assert guest("mesh", "join", ticket).code == 0
    ben.start("--serve", "atmo-tone")
    eventually(lambda: anna.sees().get("ben"), "the first guest is linked")
    carl.start("--serve", "atmo-tone")
    said = eventually(lambda: " ".join(carl("node", "status", "--json").json["problems"]), "the second is told why")
    assert "used by 1 others" in said
    assert "carl" not in anna.sees()


def test_a_restart_of_the_owners_node_does_not_make_an_invite_good_for_more(users: list[User]) -> None:
    """The first guest is away when the second comes, and the node that let the first one in was restarted since."""
    anna, ben, carl = users
    idle = Path(anna.environ["ATMO_HOME"]).with_suffix(".toml")
    idle.write_text("serve = []\n")
    serving = ("--config", str(idle))
    port = (*serving, "--port", str(free_port()))
    anna.start(*port)
    ticket = token(anna)
    for guest in (ben, carl):
        assert guest("mesh", "join", ticket).code == 0
    ben.start(*serving)
    eventually(lambda: anna.sees().get("ben"), "the first guest is linked")
    for user in (ben, anna):
        assert user("node", "stop").code == 0
    anna.start(*port)
    carl.start(*serving)
    said = eventually(lambda: " ".join(carl("node", "status", "--json").json["problems"]), "the second is told why")
    assert "used by 1 others" in said
    assert anna("mesh", "members", "--json").json["invites"][0]["used"] == 1
    ben.start(*serving)
    eventually(lambda: anna.sees().get("ben"), "the first guest is back")


def test_mistakes_with_tokens_are_named(users: list[User]) -> None:
    anna, ben, _ = users
    ticket = token(anna)
    assert "No node is running" in anna("mesh", "invite").err

    for wrong in (ticket[:-5], "hello", ticket.replace("atmo1-", "")):
        outcome = ben("mesh", "join", wrong)
        assert outcome.code == 2
        assert "not a whole token" in outcome.err
    assert "your own mesh" in anna("mesh", "join", ticket).err

    assert ben("mesh", "join", ticket).code == 0
    assert "Only the owner" in ben("mesh", "invite").err
    assert "guest" in ben("mesh", "create").err
    ben.start("--serve", "atmo-tone")
    assert "Stop them first" in ben("mesh", "leave").err
    assert "Only the owner" in ben("mesh", "revoke", "anna").err
    ben("node", "stop")
    assert "Back in your own" in ben("mesh", "leave").out
    assert "already" in ben("mesh", "leave").out


def test_a_token_fits_into_a_qr_code(users: list[User]) -> None:
    anna = users[0]
    anna.start("--serve", "atmo-tone")
    shown = anna("mesh", "invite", "--qr").out
    assert shown.startswith("atmo1-")
    assert len(shown.splitlines()) > 20
