"""What a node keeps: private, whole after a crash, and neither lost nor copied without a word."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from atmo.clock import SystemClock
from atmo.config import Config, load
from atmo.errors import ConfigError
from atmo.ids import parse_peer
from atmo.invitation import write_token
from atmo.keys import read_membership
from atmo.node import membership
from atmo.node.home import Home, open_home, remember_generation, rotate
from atmo.trust import Trust
from tests.cluster import Cluster, atmo
from tests.cluster import eventually as eventually_now
from tests.node.test_renewal import DAY_S, Calendar, User, eventually, together

CLOCK = SystemClock()


def config_of(folder: Path, user: str, node: str = "n") -> Config:
    return load({"home": str(folder / user), "runtime": str(folder / f"r-{user}"), "node.name": node, "serve": []})


def opened(config: Config, clock: SystemClock = CLOCK) -> Home:
    home = open_home(config, clock)
    home.close()
    return home


def token_of(owner: Config, wall_s: float, days: float = 30, uses: int = 1) -> str:
    made = membership.open_mesh(owner).invite([], wall_s, int(days * DAY_S), uses, int(days * DAY_S))
    return write_token(made)


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_everything_is_for_the_user_alone(tmp_path: Path) -> None:
    owner, guest = config_of(tmp_path, "anna"), config_of(tmp_path, "ben")
    umask = os.umask(0o000)  # what a careless login sets
    try:
        mesh = opened(owner).mesh_home
        membership.join(guest, token_of(owner, CLOCK.wall()), CLOCK.wall())
        joined = opened(guest)
        mesh.revoke(joined.identity.public, CLOCK.wall())
        mesh.remember_guests({b"i" * 32: frozenset({joined.identity.public})})
    finally:
        os.umask(umask)

    kept = files(tmp_path)
    names = {path.name.partition("-")[0] for path in kept}
    assert names == {
        "root.key", "identity.key", "curve.key", "generation", "lock", "joined", "certificate", "invites", "revoked",
        "guests",
    }  # fmt: skip
    assert {oct(path.stat().st_mode & 0o777) for path in kept} == {"0o600"}
    assert {oct(path.parent.stat().st_mode & 0o077) for path in kept} == {"0o0"}


def invite(home: Home) -> None:
    home.mesh_home.invite([], CLOCK.wall(), 60, 1, 60)


WRITERS: list[tuple[str, Callable[[Home], None]]] = [
    ("generation", lambda home: remember_generation(home.folder, 10**9)),
    ("guests", lambda home: home.mesh_home.remember_guests({b"j" * 32: frozenset()})),
    ("invites", invite),
    ("revoked", lambda home: home.mesh_home.revoke(b"k" * 32, CLOCK.wall())),
]


@pytest.mark.parametrize("step", ["fsync", "replace"])
@pytest.mark.parametrize(("name", "write"), WRITERS, ids=[name for name, _ in WRITERS])
def test_a_crash_while_a_file_is_written_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, write: Callable[[Home], None], step: str
) -> None:
    home = opened(config_of(tmp_path, "anna"))
    for _, earlier in WRITERS:
        earlier(home)
    (file,) = [path for path in files(tmp_path) if path.name == name]
    before = file.read_bytes()

    def crash(*_: object) -> None:
        raise OSError(5, "the disk is gone")

    with monkeypatch.context() as patch:
        if step == "fsync":
            patch.setattr(os, "fsync", crash)
        else:
            patch.setattr(Path, "replace", crash)
        with pytest.raises(OSError, match="the disk is gone"):
            write(home)

    assert file.read_bytes() == before
    assert opened(config_of(tmp_path, "anna")).identity.public == home.identity.public


def test_a_lost_generation_is_found_again_by_the_date_and_a_damaged_one_is_named(tmp_path: Path) -> None:
    config = config_of(tmp_path, "anna")
    first = opened(config).generation
    assert opened(config).generation == first + 1
    remember_generation(config.node_home, first + 10)
    (config.node_home / "generation").unlink()
    clock = Calendar()
    clock.days = 1
    assert opened(config, clock).generation > first + 10
    (config.node_home / "generation").write_text("many")
    with pytest.raises(ConfigError, match="damaged"):
        opened(config)


def test_one_name_is_one_node_at_a_time(tmp_path: Path) -> None:
    config = config_of(tmp_path, "anna")
    home = open_home(config, CLOCK)
    try:
        for attempt in (lambda: open_home(config, CLOCK), lambda: rotate(config, CLOCK.wall())):
            with pytest.raises(ConfigError, match=f"runs already .process {os.getpid()}"):
                attempt()
    finally:
        home.close()


def test_a_guest_whose_key_was_lost_joins_again_while_the_token_is_good(tmp_path: Path) -> None:
    owner, guest = config_of(tmp_path, "anna"), config_of(tmp_path, "ben")
    opened(owner)
    membership.join(guest, token_of(owner, CLOCK.wall(), uses=2), CLOCK.wall())
    first = opened(guest)
    assert opened(guest).credential.membership == first.credential.membership
    (guest.node_home / "identity.key").unlink()

    second = opened(guest)

    assert second.identity.public != first.identity.public
    assert read_membership(second.credential.membership).peer == second.identity.public
    trust = Trust(second.mesh)
    assert {trust.check(home.credential, CLOCK.wall()).peer for home in (first, second)} == {
        first.identity.public, second.identity.public
    }  # fmt: skip
    (guest.node_home / "identity.key").unlink()
    later = Calendar()
    later.days = 31
    with pytest.raises(ConfigError, match=r"has expired.*atmo mesh join TOKEN"):
        opened(guest, later)


def test_a_new_token_takes_the_place_of_the_old_membership(tmp_path: Path) -> None:
    owner, guest = config_of(tmp_path, "anna"), config_of(tmp_path, "ben")
    opened(owner)
    for days in (1, 30):
        membership.join(guest, token_of(owner, CLOCK.wall(), days=days), CLOCK.wall())
        home = opened(guest)
        passport = Trust(home.mesh).check(home.credential, CLOCK.wall())
        assert passport.not_after_s == pytest.approx(CLOCK.wall() + days * DAY_S, abs=5)


def test_a_damaged_file_of_the_mesh_is_named(tmp_path: Path) -> None:
    owner, guest = config_of(tmp_path, "anna"), config_of(tmp_path, "ben")
    opened(owner)
    membership.join(guest, token_of(owner, CLOCK.wall()), CLOCK.wall())
    opened(guest)
    for file in [path for path in files(guest.home) if path.name.startswith(("joined", "certificate"))]:
        good = file.read_bytes()
        file.write_bytes(good[: len(good) // 2])
        with pytest.raises(ConfigError, match=f"{file} is damaged"):
            opened(guest)
        file.write_bytes(good)
    opened(guest)


def test_a_copied_home_is_noticed_and_rotating_the_copy_ends_it(environ: dict[str, str]) -> None:
    folder = Path(environ["ATMO_HOME"]).parent

    async def story() -> None:
        calendar = Calendar()
        anna, ben, copy = (User(folder, name, calendar) for name in ("anna", "ben", "copy"))
        await anna.start()
        try:
            ben.join(anna.token(days=30))
            await ben.start()
            await together(anna, ben)
            shutil.copytree(ben.config.home, copy.config.home)
            (copy.config.home / "nodes" / "ben").rename(copy.config.home / "nodes" / "copy")
            await copy.start()
            await eventually(
                lambda: any("uses this node's key" in user.problems() for user in (ben, copy)), "it is noticed", 30.0
            )
            await copy.stop()
            before = ben.peer
            rotated = rotate(copy.config, calendar.wall())
            assert (rotated[0], rotated[2]) == (before, False)
            copy.join(anna.token(days=30))
            await copy.start()
            await together(anna, copy)
            await eventually(lambda: anna.linked(ben), "the original is linked")
            assert anna.standing(copy) != anna.standing(ben)
        finally:
            for user in (copy, ben, anna):
                await user.stop()

    asyncio.run(story())


@pytest.fixture
def cluster(environ: dict[str, str]) -> Cluster:
    return Cluster(Path(environ["ATMO_HOME"]).parent)


def test_a_node_with_new_keys_is_another_one_and_the_old_one_is_out(cluster: Cluster) -> None:
    """By the commands: one node goes on, the other is stopped, gets new keys and comes back."""
    try:
        one = cluster.start("one", "serve = []\n")
        cluster.start("two", "serve = []\n")
        eventually_now(lambda: len(one.mesh()["nodes"]) == 2, "both are there")
        assert "runs already" in atmo("node", "rotate", "--name", "two").err
        assert "no node named" in atmo("node", "rotate", "--name", "three").err
        assert atmo("node", "stop", "--node", "two").code == 0
        old_files = {path.name: path.read_bytes() for path in (load().home / "nodes" / "two").glob("*.key")}

        changed = atmo("node", "rotate", "--name", "two", "--json")

        assert changed.code == 0, changed.err
        names = changed.json
        assert names["revoked"] is True
        assert parse_peer(names["old"]) != parse_peer(names["new"])
        cluster.start("two", "serve = []\n")
        eventually_now(lambda: len(one.mesh()["nodes"]) == 2, "both are there again")
        assert {node["peer"] for node in one.mesh()["nodes"]} >= {names["new"]}
        assert names["old"] not in {node["peer"] for node in one.mesh()["nodes"]}
        eventually_now(lambda: "revoked" in (load().log_file.parent.parent / "one" / "node.log").read_text(), "told")
        for path in (load().home / "nodes" / "two").glob("*.key"):
            assert path.read_bytes() != old_files[path.name]

        assert atmo("node", "stop", "--node", "two").code == 0
        for name, content in old_files.items():  # whoever kept the old keys
            (load().home / "nodes" / "two" / name).write_bytes(content)
        two = cluster.start("two", "serve = []\n")
        eventually_now(lambda: "revoked" in " ".join(two.status()["problems"]), "the old keys are refused")
        assert names["old"] not in {node["peer"] for node in one.mesh()["nodes"]}
    finally:
        cluster.stop_all()
