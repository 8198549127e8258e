"""Certificates near their end: renewed where the owner allows it, refused and told where not. Real nodes and sockets,
in one process, with a calendar that the test turns."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from atmo.clock import SystemClock
from atmo.config import Config, load
from atmo.ids import PeerId
from atmo.invitation import write_token
from atmo.keys import Identity, Sealed, Standing, issue_membership
from atmo.mesh.rows import Kind
from atmo.node import membership
from atmo.node.machine import describe
from atmo.node.node import Node

DAY_S = 24 * 3600


class Calendar(SystemClock):
    """The machine's clocks, with days added to the date."""

    def __init__(self) -> None:
        self.days = 0.0

    def wall(self) -> float:
        return super().wall() + self.days * DAY_S


class User:
    """Somebody with a home of their own and at most one node, all on one calendar."""

    def __init__(self, folder: Path, name: str, calendar: Calendar) -> None:
        where = {"home": str(folder / name), "runtime": str(folder / f"r-{name}")}
        self.config: Config = load({**where, "node.name": name, "serve": []})
        self.calendar = calendar
        self.node: Node | None = None

    @property
    def it(self) -> Node:
        assert self.node is not None
        return self.node

    @property
    def peer(self) -> PeerId:
        return self.it.mesh.peer

    async def start(self) -> None:
        self.node = Node(self.config, self.calendar)
        await self.node.start()

    async def stop(self) -> None:
        if self.node is not None:
            node, self.node = self.node, None
            await node.stop()

    def token(self, days: float, *, renewable: bool = True) -> str:
        addresses = [str(self.it.mesh.transport.address)]
        lifetime_s = int(days * DAY_S)
        return write_token(
            self.it.mesh_home.invite(addresses, self.calendar.wall(), DAY_S, 1, lifetime_s, renewable=renewable)
        )

    def join(self, token: str) -> None:
        membership.join(self.config, token, self.calendar.wall())

    def standing(self, of: User) -> Standing | None:
        return self.it.mesh.core.store.roll.standing(of.peer)

    def linked(self, other: User) -> bool:
        return other.peer in self.it.mesh.transport.linked()

    def knows(self, other: User) -> bool:
        return any(row.id.origin == other.peer for row in self.it.mesh.core.store.rows(Kind.NODE))

    def problems(self) -> str:
        return " ".join(str(problem) for problem in self.it.problems())


async def eventually(true: Callable[[], Any], what: str, patience_s: float = 15.0) -> None:
    ends_s = time.monotonic() + patience_s
    while not true():
        assert time.monotonic() < ends_s, f"waited {patience_s:g} s in vain: {what}"
        await asyncio.sleep(0.02)


@asynccontextmanager
async def two_users(folder: Path) -> AsyncIterator[tuple[User, User, Calendar]]:
    calendar = Calendar()
    anna, ben = (User(folder, name, calendar) for name in ("anna", "ben"))
    await anna.start()
    try:
        yield anna, ben, calendar
    finally:
        await ben.stop()
        await anna.stop()


Story = Callable[[User, User, Calendar], Awaitable[None]]


@pytest.fixture
def told(environ: dict[str, str]) -> Callable[[Story], None]:
    """Tell a story of Anna, whose node runs, and Ben, who has not joined."""

    def tell(story: Story) -> None:
        async def run() -> None:
            async with two_users(Path(environ["ATMO_HOME"]).parent) as (anna, ben, calendar):
                await story(anna, ben, calendar)

        asyncio.run(run())

    return tell


def turn(calendar: Calendar, days: float, *users: User) -> None:
    """A later day. Nodes say anew what they are, as they do every half minute: what was dated on another day is
    refused."""
    calendar.days = days
    for user in users:
        info = describe(user.config, user.it.mesh.transport.address)
        user.it.mesh.introduce(msgspec.structs.replace(info, labels=(("day", str(days)),)))


async def together(anna: User, ben: User) -> None:
    await eventually(lambda: anna.linked(ben) and anna.knows(ben) and ben.knows(anna), "both know each other")


def test_a_guests_membership_is_renewed_by_the_owners_node_before_it_ends(told: Callable[[Story], None]) -> None:
    async def story(anna: User, ben: User, calendar: Calendar) -> None:
        ben.join(anna.token(days=30))
        await ben.start()
        await together(anna, ben)
        first = anna.standing(ben)
        assert first is not None
        anna.it.renewals.look()
        assert not list(anna.it.mesh.core.store.rows(Kind.CERT)), "nothing is due yet"

        turn(calendar, 25, anna, ben)
        anna.it.renewals.look()
        await eventually(lambda: anna.standing(ben) != first, "the guest shows a new certificate")
        second = anna.standing(ben)
        assert second is not None
        assert second.not_after_s - first.not_after_s == pytest.approx(25 * DAY_S, abs=60)
        assert second.invite == first.invite
        assert second.invite_uses == 0, "the root signed it"
        anna.it.renewals.look()
        assert not list(anna.it.mesh.core.store.rows(Kind.CERT)), "the renewal is taken back"

        turn(calendar, 31, anna, ben)  # the first would have ended, and the link that stood on it does
        await eventually(lambda: "certificate has expired" in str(anna.it.journal.since(0)), "the link ends")
        await together(anna, ben)
        assert "certificate" not in ben.problems()

        await ben.stop()
        await ben.start()
        await together(anna, ben)
        assert anna.standing(ben) == second, "it was kept across the restart"

    told(story)


def test_a_stay_that_the_owner_limited_ends_and_everybody_is_told_why(told: Callable[[Story], None]) -> None:
    async def story(anna: User, ben: User, calendar: Calendar) -> None:
        ben.join(anna.token(days=30, renewable=False))
        await ben.start()
        await together(anna, ben)

        turn(calendar, 28, anna, ben)
        for user in (anna, ben):
            user.it.renewals.look()
        assert "ends on" in ben.problems()
        assert "new token" in ben.problems()
        assert not list(anna.it.mesh.core.store.rows(Kind.CERT))

        turn(calendar, 31, anna, ben)
        ben.it.renewals.look()
        assert "expired on" in ben.problems()
        await eventually(lambda: not anna.linked(ben), "the link ends")
        await eventually(lambda: not anna.knows(ben), "the guest leaves the table", 30.0)
        anna.it.renewals.look()
        assert not list(anna.it.mesh.core.store.rows(Kind.CERT)), "it is too late"

        await ben.stop()
        await ben.start()  # it runs, for its own user
        await eventually(lambda: "certificate has expired" in ben.problems(), "the door tells it")
        assert not anna.linked(ben)

        await ben.stop()
        ben.join(anna.token(days=30))
        await ben.start()
        await together(anna, ben)
        assert "certificate" not in ben.problems()

    told(story)


def test_a_renewal_that_the_root_did_not_sign_or_that_is_for_another_is_ignored(told: Callable[[Story], None]) -> None:
    async def story(anna: User, ben: User, calendar: Calendar) -> None:
        ben.join(anna.token(days=30))
        await ben.start()
        await together(anna, ben)
        root = anna.it.mesh_home.root
        assert root is not None
        before = ben.it.renewals.standing
        forger, invite = Identity.generate(), before.invite
        wall_s, later = calendar.wall(), 99 * DAY_S
        sign = issuing(wall_s, later)
        for made in (
            sign(forger, ben.peer, invite),
            sign(root, anna.peer, invite),
            sign(root, ben.peer, b""),  # it would hide the invite
            issuing(wall_s, DAY_S)(root, ben.peer, invite),  # it would end sooner
            issuing(wall_s + DAY_S, later)(root, ben.peer, invite),  # not valid yet
        ):
            ben.it.renewals.heard(made)
            assert ben.it.renewals.standing == before
        ben.it.renewals.heard(sign(root, ben.peer, invite))
        assert ben.it.renewals.standing.not_after_s == int(wall_s) + later

    told(story)


def issuing(wall_s: float, lifetime_s: int) -> Callable[[Identity, PeerId, bytes], Sealed]:
    def issue(by: Identity, peer: PeerId, invite: bytes) -> Sealed:
        return issue_membership(by, peer, wall_s=wall_s, serial=9, lifetime_s=lifetime_s, came_by=invite)

    return issue


def test_an_owners_node_renews_itself(told: Callable[[Story], None]) -> None:
    async def story(anna: User, ben: User, calendar: Calendar) -> None:
        ben.join(anna.token(days=3650))
        await ben.start()
        await together(anna, ben)
        first = ben.standing(anna)
        turn(calendar, 300, anna, ben)

        anna.it.renewals.look()

        await eventually(lambda: ben.standing(anna) != first, "the owner shows a new certificate")
        turn(calendar, 366, anna, ben)
        await eventually(lambda: "expired" in str(ben.it.journal.since(0)), "the link ends with the old one")
        await together(anna, ben)

    told(story)


def test_a_curve_key_is_replaced_after_a_month_and_the_old_one_is_refused(told: Callable[[Story], None]) -> None:
    async def story(anna: User, ben: User, calendar: Calendar) -> None:
        ben.join(anna.token(days=3650))
        await ben.start()
        await together(anna, ben)
        old = anna.it.mesh.passports[ben.peer]
        for days, renewed in ((1, False), (32, True)):
            await ben.stop()
            turn(calendar, days, anna)
            await eventually(lambda: not anna.it.mesh.transport.linked(), "ben is gone")
            await ben.start()
            await together(anna, ben)
            assert (anna.it.mesh.passports[ben.peer].curve != old.curve) is renewed
        assert not anna.it.mesh.trust.allows(old)
        mode = os.stat(ben.config.node_home / "curve.key").st_mode & 0o777
        assert mode == 0o600

    told(story)
