"""The table of rows: what this node knows of the mesh, merged so that every node that saw the same rows knows the same.

Theory of operation. Of each origin only the newest generation counts: its first row voids everything the origin said
in an earlier life. Within a generation, of each (kind, key) only the row with the highest version counts; of two rows
with the same version and different payloads (equivocation: an origin that lies, or whose key was copied) the one with
the lower SHA-256 counts, and both are kept as proof. Each rule takes a maximum, so merging is commutative, associative
and idempotent: the order in which rows arrive does not matter, and repeating one changes nothing (a join semilattice,
as in state-based CRDTs; Shapiro et al. 2011, section 2).

A row leaves when its origin withdraws it or when it was not renewed within its TTL, counted on the receiver's
monotonic clock from its arrival. Its *mark* (order and digest) stays until no copy of it could be accepted any more,
so a replayed frame changes nothing. Dates only bound how old such a copy may be: clocks of two members may differ by
the tolerance.

A node that is taken for dead is *buried*: all its rows are out of sight, here and for those who ask, but merged as
before, so that nothing is lost if it lives. Only a NODE row of a higher incarnation, or a newer generation, brings them
back (detector.py).

Each received row is checked cheapest first, and no signature is checked for a row that would change nothing:
size, header, own mesh, known kind, newer than what is known, dates, room, the origin's standing (roll.py), signature,
body. A NODE row shows its origin's certificate, which is looked at last; other rows of an origin count after that, and
none outlives it.

Not promised: that all nodes drop an expired row at the same moment; a node whose wall clock is set back may accept
rows of the time between again, until they expire.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from atmo.clock import Moment
from atmo.errors import RemoteProtocolError
from atmo.ids import MeshId, PeerId
from atmo.keys import CLOCK_TOLERANCE_S
from atmo.mesh.agenda import Agenda
from atmo.mesh.limits import MAX_TTL_S
from atmo.mesh.records import SUM_MASK, Held, Limits, Mark, Record, Slot, digest, short_digest
from atmo.mesh.roll import Roll
from atmo.mesh.rows import Kind, NodeInfo, Row, RowId, RowPayload, SignedRow, Verify, genuine, peek, read
from atmo.mesh.verdict import Applied, Change, Equivocation, Reason, Rejected

# A copy of a row is acceptable until issued + ttl + tolerance, and it was accepted at issued - tolerance at the
# earliest.
MARK_LIFE_S = MAX_TTL_S + 2 * CLOCK_TOLERANCE_S
# Share of a row's TTL after which its renewal is overdue: above all at which rows are renewed (timing.py).
OVERDUE_SHARE = 0.75
# How long a withdrawal is told to those who may not have heard of it. It must reach whoever was cut off for a while;
# after that the row it ends is no worse than one whose origin was killed. A guess.
TELL_S = 300.0
_KINDS = frozenset(int(kind) for kind in Kind)


class RowStore:
    """`own` is this node: its rows enter through `write` alone, and do not expire while it lives."""

    def __init__(self, own: PeerId, mesh: MeshId, verify: Verify, roll: Roll, limits: Limits | None = None) -> None:
        self.roll = roll
        self._own = own
        self._mesh = mesh
        self._verify = verify
        self._limits = limits or Limits()
        self._origins: dict[PeerId, Record] = {}
        self._proofs: dict[PeerId, Equivocation] = {}
        self._agenda: Agenda[tuple[PeerId, Slot]] = Agenda()  # when to look at a slot again

    # Changing

    def apply(self, signed: SignedRow, now: Moment) -> Applied | Rejected:
        """Take a row that a peer sent, if it is new, dated plausibly and genuine."""
        try:
            payload = peek(signed)
        except RemoteProtocolError as exc:
            return Rejected(Reason.MALFORMED, detail=exc.message)
        origin, order = PeerId(payload.origin), (payload.generation, payload.version)
        refused = self._screen(signed, payload, now)
        if refused is None and not genuine(signed, payload, self._verify):
            refused = Reason.FORGED
        if refused is None and origin == self._own:
            refused = Reason.OWN
        if refused is not None:
            return Rejected(refused, origin, order)
        try:
            row = read(signed, payload)
            if isinstance(row.body, NodeInfo):
                refused = self.roll.show(origin, row.body.certificate, now.wall_s)
            return self._take(row, now) if refused is None else Rejected(refused, origin, order)
        except RemoteProtocolError as exc:
            return Rejected(Reason.MALFORMED, origin, order, exc.message)

    def write(self, row: Row, now: Moment) -> tuple[Change, ...]:
        """Take a row that this node has just written. The caller counts versions up, so it is always new."""
        taken = self._take(row, now)
        assert isinstance(taken, Applied)
        return taken.changes

    def bury(self, origin: PeerId) -> tuple[Change, ...]:
        """The origin is dead, in its present life: nothing it said counts any more."""
        record, life = self._origins.get(origin), self.life(origin)
        if record is None or life is None or record.buried is not None:
            return ()
        record.buried = life[1]
        return tuple(Change(held.row.id, None, held.row) for held in record.rows.values())

    def expire(self, now: Moment) -> list[Change]:
        """Drop rows that were not renewed in time, and forget marks that nothing can need any more."""
        looks = (self._look(origin, slot, now.mono_s) for origin, slot in self._agenda.take_due(now.mono_s))
        return [change for change in looks if change is not None]

    def ban(self, key: bytes) -> list[Change]:
        """The root took back an origin, or an invite with everyone it made: drop their rows and take none again."""
        changes = []
        for origin in self.roll.strike(key):
            record = self._origins.get(origin)
            held = [(slot, record.release(slot)) for slot in list(record.rows)] if record is not None else []
            if record is not None and record.buried is None:
                changes += [Change(RowId(origin, *slot), None, row) for slot, row in held]
        return changes

    # Reading

    def next_expiry(self) -> float | None:
        """Monotonic time at which `expire` has something to do, or may have."""
        return self._agenda.next_s()

    def get(self, row_id: RowId) -> Row | None:
        record = self._origins.get(row_id.origin)
        held = record.rows.get((row_id.kind, row_id.key)) if record and record.buried is None else None
        return held.row if held else None

    def rows(self, kind: Kind | None = None, origin: PeerId | None = None) -> Iterator[Row]:
        """The live rows, of one kind or of one origin if asked so, in no particular order."""
        found = self._origins.values() if origin is None else filter(None, [self._origins.get(origin)])
        for record in found:
            if record.buried is not None:
                continue
            if kind is Kind.NODE:  # there is but one, and a thousand origins are asked for it again and again
                held = record.rows.get((Kind.NODE, ""))
                if held is not None:
                    yield held.row
            else:
                yield from (held.row for slot, held in record.rows.items() if kind is None or slot[0] is kind)

    def life(self, origin: PeerId) -> tuple[int, int] | None:
        """Generation and incarnation of a node, None if neither its NODE row nor its grave is here."""
        record = self._origins.get(origin)
        held = record.rows.get((Kind.NODE, "")) if record else None
        if record is not None and record.buried is not None:
            return record.generation, record.buried
        if record is None or held is None or not isinstance(held.row.body, NodeInfo):
            return None
        return record.generation, held.row.body.incarnation

    def is_dead(self, origin: PeerId) -> bool:
        record = self._origins.get(origin)
        return record is not None and record.buried is not None

    def epitaph(self, origin: PeerId) -> NodeInfo | None:
        """What a dead node said of itself; None once that has expired."""
        record = self._origins.get(origin)
        held = record.rows.get((Kind.NODE, "")) if record is not None and record.buried is not None else None
        return held.row.body if held is not None and isinstance(held.row.body, NodeInfo) else None

    def population(self) -> int:
        """Origins with rows that count."""
        return sum(1 for record in self._origins.values() if record.rows and record.buried is None)

    def summary(self) -> tuple[tuple[PeerId, int, int], ...]:
        """(origin, generation, sum over its live rows) of every origin: equal entries mean equal rows. Rows of the
        dead are counted in: whoever has the same of them has nothing to tell."""
        return tuple([(origin, record.generation, record.sum) for origin, record in self._origins.items()])

    def transcript(self, origin: PeerId, now: Moment) -> Iterator[SignedRow]:
        """What a peer that knows less of an origin is told: live rows, and withdrawals of rows that it may still hold.

        Rows whose renewal is overdue are left out: their origin may be gone, and each newcomer would let them live on
        for another TTL.
        """
        return (signed for _, signed in self.told(origin, now))

    def told(self, origin: PeerId, now: Moment, travels_s: float = 0.0) -> Iterator[tuple[int, SignedRow]]:
        """The same, each with its version, but for renewals younger than `travels_s`: they are on their way."""
        record = self._origins.get(origin)
        if record is not None and record.buried is not None:
            return
        for slot, mark in sorted(record.marks.items(), key=_certificate_first) if record else ():
            held = record.rows.get(slot) if record else None
            if held is not None and now.mono_s - held.renewed_s < travels_s:
                continue
            if held is not None and held.expires_s - now.mono_s >= held.row.ttl_s * (1.0 - OVERDUE_SHARE):
                yield mark.version, held.row.signed
            elif held is None and mark.signed is not None and mark.forget_s - now.mono_s > MARK_LIFE_S - TELL_S:
                yield mark.version, mark.signed

    def versions(self, origin: PeerId) -> tuple[int, int, list[int]]:
        """(generation, sum, versions of all its rows that are or were here); (0, 0, []) for an unknown origin."""
        record = self._origins.get(origin)
        if record is None:
            return 0, 0, []
        return record.generation, record.sum, [mark.version for mark in record.marks.values()]

    def latest(self, row_id: RowId) -> SignedRow | None:
        """What was said last under this name, be it a withdrawal. None if nothing was, or it has expired."""
        record = self._origins.get(row_id.origin)
        mark = record.marks.get((row_id.kind, row_id.key)) if record else None
        return mark.signed if mark else None

    def newest(self, origin: PeerId) -> SignedRow | None:
        """The latest that was accepted from an origin, be it expired or withdrawn."""
        record = self._origins.get(origin)
        return record.newest.signed if record else None

    @property
    def proofs(self) -> tuple[Equivocation, ...]:
        return tuple(self._proofs.values())

    def fingerprint(self) -> bytes:
        """Equal for tables of equal content, 32 bytes."""
        return hashlib.sha256(b"".join(sorted(digest(row.signed) for row in self.rows()))).digest()

    def __len__(self) -> int:
        return sum(len(record.rows) for record in self._origins.values() if record.buried is None)

    def __repr__(self) -> str:
        tombstones = sum(len(record.marks) - len(record.rows) for record in self._origins.values())
        return f"<RowStore {len(self)} rows of {len(self._origins)} origins, {tombstones} tombstones>"

    # The pipeline

    def _screen(self, signed: SignedRow, payload: RowPayload, now: Moment) -> Reason | None:
        """All that can be said against a row without checking its signature."""
        if payload.mesh != self._mesh:
            return Reason.FOREIGN_MESH
        if payload.kind not in _KINDS:
            return Reason.UNKNOWN_KIND
        if self.roll.is_struck(payload.origin):
            return Reason.REVOKED
        record = self._origins.get(PeerId(payload.origin))
        if record is not None and payload.generation <= record.generation:
            refused = self._compare(record, signed, payload)
            if refused is not None:
                return refused
        if payload.origin == self._own:
            return None  # whatever its date, it matters that it exists
        if now.wall_s > payload.issued_s + payload.ttl_s + CLOCK_TOLERANCE_S:
            return Reason.EXPIRED
        if payload.issued_s > now.wall_s + CLOCK_TOLERANCE_S:
            return Reason.FUTURE
        if not self._has_room(record, payload):
            return Reason.FULL
        shows = payload.kind == Kind.NODE and bytes(payload.body) != _NIL
        return None if shows else self.roll.bars(PeerId(payload.origin), now.wall_s)

    def _compare(self, record: Record, signed: SignedRow, payload: RowPayload) -> Reason | None:
        """None if the row might be news, or proof of equivocation."""
        if payload.generation < record.generation:
            return Reason.STALE
        mark = record.marks.get((Kind(payload.kind), payload.key))
        if mark is None or payload.version > mark.version:
            return None
        if payload.version < mark.version:
            return Reason.STALE
        if mark.signed is None:
            return Reason.STALE if digest(signed) != mark.digest else Reason.DUPLICATE
        if signed.payload == mark.signed.payload:
            return Reason.DUPLICATE
        loses = digest(signed) > mark.digest
        return Reason.EQUIVOCATES if loses and PeerId(payload.origin) in self._proofs else None

    def _has_room(self, record: Record | None, payload: RowPayload) -> bool:
        if record is None:
            return len(self._origins) < self._limits.origins
        slot = (Kind(payload.kind), payload.key)
        if payload.generation > record.generation or slot in record.rows:
            return True
        if slot not in record.marks and len(record.marks) >= self._limits.marks_per_origin:
            return False
        return len(record.rows) < self._limits.rows_per_origin or bytes(payload.body) == _NIL

    def _take(self, row: Row, now: Moment) -> Applied | Rejected:
        """Merge a row that passed: see the rules at the head of this module."""
        slot: Slot = (row.id.kind, row.id.key)
        mine = digest(row.signed)
        record, voided = self._enter_generation(row)
        rival = record.marks.get(slot)
        proof = None
        if rival is not None and rival.version == row.version and rival.signed is not None:
            if mine > rival.digest:
                proof = self._prove(row.id.origin, Equivocation(rival.signed, row.signed))
                return Rejected(Reason.EQUIVOCATES, row.id.origin, row.order, equivocation=proof)
            proof = self._prove(row.id.origin, Equivocation(row.signed, rival.signed))
        old = record.release(slot) or voided.pop(slot, None)
        changes = [Change(RowId(row.id.origin, *where), None, past) for where, past in voided.items()]
        forget_s = now.mono_s + MARK_LIFE_S
        record.marks[slot] = Mark(row.version, mine, forget_s, row.signed)
        look_s = forget_s
        if row.body is not None:
            left_s = min(row.ttl_s, self.roll.left_s(row.id.origin, now.wall_s))
            expires_s = now.mono_s + left_s if row.id.origin != self._own else float("inf")
            renews = old is not None and old.body == row.body
            record.hold(slot, Held(row, expires_s, now.mono_s if renews else float("-inf")))
            look_s = min(look_s, expires_s)
        self._agenda.put_if_sooner((row.id.origin, slot), look_s)
        if record.buried is not None:
            return self._at_the_grave(record, row, proof)
        if row.body is not None or old is not None:
            changes.append(Change(row.id, row if row.body is not None else None, old))
        return Applied(row, tuple(changes), proof)

    def _at_the_grave(self, record: Record, row: Row, proof: Equivocation | None) -> Applied | Rejected:
        """A row of a dead origin was merged: either it is its refutation, which brings all its rows back, or nothing
        to be seen."""
        assert record.buried is not None
        if not isinstance(row.body, NodeInfo) or row.body.incarnation <= record.buried:
            return Rejected(Reason.DEAD, row.id.origin, row.order, equivocation=proof)
        record.buried = None
        return Applied(row, tuple(Change(held.row.id, held.row, None) for held in record.rows.values()), proof)

    def _enter_generation(self, row: Row) -> tuple[Record, dict[Slot, Row]]:
        """The record of the row's generation, and the rows of an earlier life that it voids."""
        record = self._origins.get(row.id.origin)
        if record is not None and record.generation >= row.generation:
            if row.version > record.newest.version:
                record.newest = row
            return record, {}
        fresh = self._origins[row.id.origin] = Record(row.generation, row)
        seen = record.rows if record is not None and record.buried is None else {}
        return fresh, {slot: held.row for slot, held in seen.items()}

    def _prove(self, origin: PeerId, proof: Equivocation) -> Equivocation | None:
        """Keep one proof for each origin. None if there was one already, or no room for it."""
        if origin in self._proofs or len(self._proofs) >= self._limits.proofs:
            return None
        self._proofs[origin] = proof
        return proof

    def _look(self, origin: PeerId, slot: Slot, now_s: float) -> Change | None:
        record = self._origins.get(origin)
        mark = record.marks.get(slot) if record else None
        if record is None or mark is None:
            return None  # voided by a newer generation
        held = record.rows.get(slot)
        if held is not None and held.expires_s > now_s:
            if held.expires_s < float("inf"):
                self._agenda.put((origin, slot), held.expires_s)
            return None
        gone = record.release(slot)
        if gone is not None:
            record.marks[slot] = Mark(mark.version, mark.digest, mark.forget_s, None)
        if mark.forget_s > now_s:
            self._agenda.put((origin, slot), mark.forget_s)
        else:
            del record.marks[slot]
            if not record.marks:
                del self._origins[origin]
                self.roll.forget(origin)
        return Change(gone.id, None, gone) if gone is not None and record.buried is None else None

    def validate(self) -> None:
        """Raises AssertionError if an invariant does not hold."""
        assert len(self._origins) <= self._limits.origins + 1, "more origins than there is room for"
        assert all(origin in self._origins for origin in self.roll), "a standing of nobody"
        for origin, record in self._origins.items():
            assert record.marks, "an origin without marks is remembered"
            assert record.rows.keys() <= record.marks.keys(), "a row without a mark"
            for slot, held in record.rows.items():
                row, mark = held.row, record.marks[slot]
                assert row.body is not None, "a withdrawal is kept as a row"
                assert row.id == (origin, *slot), "a row in another's place"
                assert row.order == (record.generation, mark.version), "a row is not the newest"
                assert digest(row.signed) == mark.digest, "a mark of another row"
                assert genuine(row.signed, peek(row.signed), self._verify), "a row without a genuine signature"
            for slot, mark in record.marks.items():
                if origin != self._own or slot not in record.rows:
                    due_s = record.rows[slot].expires_s if slot in record.rows else mark.forget_s
                    look_s = self._agenda.at((origin, slot))
                    assert look_s is not None, "a slot that nobody looks at"
                    assert look_s <= due_s, "a slot that is looked at too late"
            assert record.newest.generation == record.generation, "evidence of another generation"
            assert record.newest.version >= max(mark.version for mark in record.marks.values()), (
                "a newer row than newest"
            )
            total = sum(short_digest(record.marks[slot].digest) for slot in record.rows)
            assert record.sum == total & SUM_MASK, "a wrong sum"


def _certificate_first(entry: tuple[Slot, Mark]) -> bool:
    return entry[0][0] is not Kind.NODE


_NIL = b"\xc0"
