"""What this node says of itself: its own rows, their versions and their renewal.

Versions are counted over all rows of a generation, so each row's versions grow and none is given twice. A row is
renewed when half of its TTL or two thirds are over (`MeshTiming.renewal_shares`; at random, so that nodes that started
together do not stay in step); what would be due shortly is renewed with it, for one frame instead of several.

In a large mesh rows live longer and load is told more seldom (`nodes`, see MeshTiming): what is said too early waits
until its time has come, and of several the last is said.
"""

from __future__ import annotations

from dataclasses import dataclass

from atmo.clock import Moment
from atmo.ids import MeshId, PeerId
from atmo.keys import CLOCK_TOLERANCE_S
from atmo.mesh.agenda import Agenda, Chance
from atmo.mesh.rows import Body, Kind, Row, RowId, Sign, seal
from atmo.mesh.timing import MeshTiming

MAX_GENERATION = (1 << 53) - 1  # limits.Order


@dataclass(frozen=True, slots=True)
class _Said:
    row: Row
    at_s: float


class Author:
    """Writes rows; keeping and sending them is the caller's part."""

    def __init__(
        self, peer: PeerId, mesh: MeshId, generation: int, *, sign: Sign, timing: MeshTiming, rng: Chance
    ) -> None:
        self.generation = generation
        self._peer = peer
        self._mesh = mesh
        self._sign = sign
        self._timing = timing
        self._rng = rng
        self._version = 0
        self._said: dict[tuple[Kind, str], _Said] = {}
        self._renewals: Agenda[tuple[Kind, str]] = Agenda()
        self._later: dict[tuple[Kind, str], Body] = {}  # said too early
        self._date_off_s: float | None = None  # the date minus the monotonic clock, when rows were dated last
        self.nodes = 1  # how large the mesh is

    def publish(self, kind: Kind, key: str, body: Body, now: Moment) -> Row | None:
        """The row to send, or None if it says what was said less than half its TTL ago.

        Raises LocalProtocolError if the body exceeds a bound.
        """
        said = self._said.get((kind, key))
        self._later.pop((kind, key), None)
        if said is not None and said.row.body == body and now.mono_s - said.at_s < said.row.ttl_s / 2:
            return None
        if said is not None and kind is Kind.GRADIENT:
            until_s = said.at_s + self._timing.load_interval_s(self.nodes)
            if now.mono_s < until_s:
                self._later[kind, key] = body
                self._renewals.put_if_sooner((kind, key), until_s)
                return None
        return self._write(kind, key, body, now)

    def withdraw(self, kind: Kind, key: str, now: Moment) -> Row | None:
        """None if there is nothing to withdraw."""
        return self._write(kind, key, None, now) if (kind, key) in self._said else None

    def withdraw_all(self, now: Moment) -> list[Row]:
        """The last words, NODE at the end."""
        order = sorted(self._said, key=lambda slot: slot[0] is Kind.NODE)
        return [self._write(kind, key, None, now) for kind, key in order]

    def renew(self, now: Moment) -> list[Row]:
        """What is due again: everything if the date has jumped. Withdrawals are not renewed: the rows they end expire
        by themselves."""
        if self._date_jumped(now):
            return self._repeat(now)
        due = self._renewals.take_due(now.mono_s)
        if due:
            due += [slot for slot in self._said if slot not in due and self._soon(slot, now)]
        said = [(kind, key, self._later.pop((kind, key), self._said[kind, key].row.body)) for kind, key in due]
        return [self._write(kind, key, body, now) for kind, key, body in said]

    def next_renewal(self) -> float | None:
        return self._renewals.next_s()

    def jump(self, beyond: int, now: Moment) -> list[Row]:
        """Say everything again in a generation after `beyond`. No rows if there is none left."""
        if beyond >= MAX_GENERATION:
            return []
        self.generation, self._version = beyond + 1, 0
        return self._repeat(now)

    def __repr__(self) -> str:
        return f"<Author generation {self.generation} version {self._version}, {len(self._said)} rows>"

    def _write(self, kind: Kind, key: str, body: Body | None, now: Moment) -> Row:
        ttl_s = self._timing.stretched_ttl_s(kind, self.nodes)
        row = seal(
            RowId(self._peer, kind, key),
            body,
            mesh=self._mesh,
            order=(self.generation, self._version + 1),
            issued_s=now.wall_s,
            ttl_s=ttl_s,
            sign=self._sign,
        )
        self._version += 1
        if body is None:
            self._said.pop((kind, key), None)
            self._later.pop((kind, key), None)
            self._renewals.drop((kind, key))
        else:
            self._said[kind, key] = _Said(row, now.mono_s)
            shares = self._timing.renewal_shares(ttl_s, self.nodes)
            self._renewals.put((kind, key), now.mono_s + ttl_s * self._rng.uniform(*shares))
        return row

    def _repeat(self, now: Moment) -> list[Row]:
        return [self._write(kind, key, said.row.body, now) for (kind, key), said in list(self._said.items())]

    def _date_jumped(self, now: Moment) -> bool:
        """True when the clock was set, or the machine slept: what was said bears a date that others refuse."""
        off_s = now.wall_s - now.mono_s
        jumped = self._date_off_s is not None and abs(off_s - self._date_off_s) > CLOCK_TOLERANCE_S
        if jumped or self._date_off_s is None:
            self._date_off_s = off_s
        return jumped

    def _soon(self, slot: tuple[Kind, str], now: Moment) -> bool:
        at_s = self._renewals.at(slot)
        return at_s is not None and at_s - now.mono_s < 0.1 * self._said[slot].row.ttl_s
