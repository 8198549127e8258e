"""A node that is told its mesh by the configuration, as a container is: it joins once, and stays what it became."""

from __future__ import annotations

from pathlib import Path

import pytest

from atmo.clock import SystemClock
from atmo.config import Config, load
from atmo.errors import ConfigError, UsageError
from atmo.invitation import write_token
from atmo.keys import read_membership
from atmo.node import membership
from atmo.node.home import open_home
from atmo.node.membership import MeshHome, open_mesh
from atmo.transport.link import LinkTiming

DAY_S = 24 * 3600


class LaterClock(SystemClock):
    """So much later."""

    def __init__(self, later_s: float) -> None:
        self._later_s = later_s

    def wall(self) -> float:
        return super().wall() + self._later_s


@pytest.fixture
def owner(environ: dict[str, str]) -> MeshHome:
    return open_mesh(load())


def token(owner: MeshHome) -> str:
    return write_token(owner.invite([], SystemClock().wall(), DAY_S, 5, 365 * DAY_S))


def guest(environ: dict[str, str], **more: str) -> Config:
    """The configuration of a home of its own."""
    return load(environ=environ | {"ATMO_HOME": environ["ATMO_HOME"] + "-guest"} | more)


def opened(config: Config, later_s: float = 0.0) -> tuple[bytes, bytes]:
    """The mesh and the certificate of a node that starts."""
    home = open_home(config, LaterClock(later_s))
    home.close()
    return home.mesh, home.credential.certificate.membership.payload


def test_it_joins_at_its_first_start_and_keeps_its_membership(environ: dict[str, str], owner: MeshHome) -> None:
    config = guest(environ, ATMO_MESH_TOKEN=token(owner))
    mesh, first = opened(config)
    assert mesh == owner.mesh
    assert not config.root_key.exists()
    assert opened(config) == (mesh, first)
    assert opened(config, 2 * DAY_S) == (mesh, first), "the token has expired, the membership has not"


def test_the_token_may_stand_in_a_file(environ: dict[str, str], owner: MeshHome, tmp_path: Path) -> None:
    file = tmp_path / "token"
    config = guest(environ, ATMO_MESH_TOKEN_FILE=str(file))
    with pytest.raises(ConfigError, match="cannot be read"):
        opened(config)
    file.write_text("\n")
    with pytest.raises(ConfigError, match="holds no mesh token"):
        opened(config)
    file.write_text(token(owner) + "\n")
    assert opened(config)[0] == owner.mesh


def test_another_token_makes_another_membership(environ: dict[str, str], owner: MeshHome) -> None:
    home = open_home(guest(environ, ATMO_MESH_TOKEN=token(owner)), SystemClock())
    home.close()
    again = open_home(guest(environ, ATMO_MESH_TOKEN=token(owner)), SystemClock())
    again.close()
    invites = {read_membership(each.credential.certificate.membership).invite for each in (home, again)}
    assert len(invites) == 2


def test_the_owner_may_be_given_the_same_token_as_everybody(environ: dict[str, str], owner: MeshHome) -> None:
    mine = open_mesh(load(environ=environ | {"ATMO_MESH_TOKEN": token(owner)}))
    assert mine.mesh == owner.mesh
    assert mine.root is not None


def test_a_damaged_token_stops_the_start(environ: dict[str, str], owner: MeshHome) -> None:
    with pytest.raises(UsageError, match="not a whole token"):
        opened(guest(environ, ATMO_MESH_TOKEN=token(owner)[:-3]))


def test_commands_that_the_next_start_would_undo_are_refused(environ: dict[str, str], owner: MeshHome) -> None:
    ticket = token(owner)
    config = guest(environ, ATMO_MESH_TOKEN=ticket)
    opened(config)
    with pytest.raises(ConfigError, match="which mesh"):
        membership.leave(config)
    with pytest.raises(ConfigError, match="which mesh"):
        membership.join(config, ticket, 0.0)


@pytest.mark.parametrize("heartbeat_s", [0.1, 0.5, 30.0])
def test_a_heartbeat_sets_the_pace_of_the_links(heartbeat_s: float) -> None:
    timing = LinkTiming.with_heartbeat(heartbeat_s)
    assert timing.ping_s == heartbeat_s
    assert timing.timeout_s == pytest.approx(3 * heartbeat_s)
    assert timing.zmtp_timeout_s >= timing.timeout_s
    assert LinkTiming.with_heartbeat(0.5) == LinkTiming()
