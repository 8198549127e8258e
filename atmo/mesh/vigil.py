"""Failure detection as the core sees it: joins the detector (who is dead) to the table and to the own rows.

`due` is called after every event and gives what is to be said, what changed in the table and what people want to know.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec

from atmo.clock import Moment
from atmo.ids import PeerId
from atmo.mesh.agenda import Agenda, Chance
from atmo.mesh.author import Author
from atmo.mesh.detector import Detector
from atmo.mesh.events import Health, HealthChanged
from atmo.mesh.rows import Body, Kind, NodeInfo, Row, RowId, Suspicion
from atmo.mesh.rowstore import RowStore
from atmo.mesh.timing import MeshTiming
from atmo.mesh.verdict import Change


@dataclass(slots=True)
class Findings:
    """said: own rows, to be put into the table and sent. forgotten: dead nodes that are not worth a dial any more.
    outlived: the own generation was lived before, so another must begin."""

    said: list[Row] = field(default_factory=list)
    changes: list[Change] = field(default_factory=list)
    effects: list[HealthChanged] = field(default_factory=list)
    forgotten: list[PeerId] = field(default_factory=list)
    outlived: bool = False


class Vigil:
    """Watches over the other nodes, and answers for this one."""

    def __init__(self, store: RowStore, author: Author, own: PeerId, timing: MeshTiming, rng: Chance) -> None:
        self.detector = Detector(own, store, timing, rng)
        self._store = store
        self._author = author
        self._own = own
        self._timing = timing
        self._dialled: Agenda[PeerId] = Agenda()  # until when a dead node is dialled
        self._graves: set[PeerId] = set()
        self._back: list[HealthChanged] = []
        self._expected_s: float | None = None

    # What happens

    def awake(self, now: Moment) -> None:
        """Called first, whatever woke the node: a timer that is overdue by now was late."""
        if self._expected_s is not None and now.mono_s > self._expected_s:
            self.detector.awareness.late(now.mono_s - self._expected_s, now.mono_s)

    def expect(self, wakeup_s: float | None) -> None:
        """Called last: when the node wants to be woken next."""
        self._expected_s = wakeup_s

    def stamp(self, body: Body) -> Body:
        """The NODE row carries the incarnation."""
        if isinstance(body, NodeInfo):
            return msgspec.structs.replace(body, incarnation=self.detector.incarnation)
        return body

    def changed(self, change: Change, now: Moment) -> bool:
        """The table changed. True if it is a node that was taken for dead and says that it is not."""
        peer, kind, _ = change.id
        if kind is Kind.SUSPECT and peer != self._own:
            body = change.row.body if change.row is not None else None
            charges = body.charges if isinstance(body, Suspicion) else ()
            self.detector.accused(peer, charges, self._author.generation, now.mono_s)
        elif kind is Kind.NODE and not change.renewal:
            self.detector.life_changed(peer, now.mono_s)
            if change.row is not None and peer in self._graves:
                self._graves.discard(peer)
                self._dialled.drop(peer)
                self._back.append(HealthChanged(peer, Health.REFUTED))
                return True
        return False

    def heard(self, row: Row, now: Moment) -> None:
        """A genuine row of a node that is taken for dead. If two took each other for dead, neither would refute if it
        did not listen to what the other has against it."""
        if isinstance(row.body, Suspicion):
            self.detector.answer(row.body.charges, self._author.generation, now.mono_s)
        self.detector.heard(row.id.origin, now.mono_s)

    # What follows

    def due(self, now: Moment) -> Findings:
        found = Findings(effects=self._back, outlived=self.detector.take_outlived())
        self._back = []
        for peer, health in self.detector.poll(now.mono_s):
            found.effects.append(HealthChanged(peer, health))
            if health is Health.DEAD:
                found.changes += self._store.bury(peer)
                self._dialled.put(peer, now.mono_s + self._timing.node_ttl_s)
                self._graves = {dead for dead in (*self._graves, peer) if self._store.is_dead(dead)}
        found.forgotten = self._dialled.take_due(now.mono_s)
        if self.detector.take_refutation(now.mono_s):
            self._again(found, now)
        self._accuse(found, now)
        return found

    def epitaphs(self) -> list[tuple[PeerId, NodeInfo]]:
        """The nodes that died lately, and what they said of themselves."""
        found = ((peer, self._store.epitaph(peer)) for peer in sorted(self._graves))
        return [(peer, info) for peer, info in found if info is not None]

    def next_due(self) -> float | None:
        if self._back:
            return float("-inf")
        times = (self.detector.next_due(), self._dialled.next_s())
        return min((at_s for at_s in times if at_s is not None), default=None)

    def _again(self, found: Findings, now: Moment) -> None:
        """Say that this node lives."""
        row = self._store.get(RowId(self._own, Kind.NODE, ""))
        if row is not None and row.body is not None:
            said = self._author.publish(Kind.NODE, "", self.stamp(row.body), now)
            found.said += [said] if said is not None else []

    def _accuse(self, found: Findings, now: Moment) -> None:
        """Bring the own SUSPECT row up to date."""
        charges = self.detector.charges()
        row = self._store.get(RowId(self._own, Kind.SUSPECT, ""))
        standing = row.body.charges if row is not None and isinstance(row.body, Suspicion) else ()
        if charges == standing:
            return
        if charges:
            said = self._author.publish(Kind.SUSPECT, "", Suspicion(charges), now)
        else:
            said = self._author.withdraw(Kind.SUSPECT, "", now)
        found.said += [said] if said is not None else []
