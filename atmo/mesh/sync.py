"""Anti-entropy: how two nodes find out where their tables differ, and make both the same.

Theory of operation. Whatever was lost on its way, or said while somebody was away, is found by comparing tables: when
a link comes up, and with a random neighbour every now and then. A comparison narrows down in three steps, so that two
equal tables of any size cost two kilobytes and two different ones little more than the difference:

1. *Digest*: origins are spread over up to 256 buckets, and the sender tells 8 bytes for each bucket: a keyed hash over
   (origin, generation, sum of its rows' hashes).
2. *Versions*: the receiver tells, of the buckets that differ, what it has of each origin. An origin counts its versions
   over all its rows, so a list of small numbers says which rows of a generation are here.
3. *Rows*: the first sends what the other lacks, and its own versions of the same origins if it lacks something itself;
   the second sends that.

A table of a few origins skips the first step when a link comes up: its versions are hardly longer than the digests, and
newcomers know nothing. Between neighbours that compared lately the tables are mostly the same, and a small table's
digest is a tenth of its versions.

The salt is drawn for each comparison. Neither a collision nor a crowded bucket can be prepared by choosing keys or
rows, for the multiplier that spreads the origins is not known before (universal hashing; Dietzfelbinger et al. 1997).

In a large mesh renewals travel slowly, and at any moment some are on their way. Comparisons leave those out of what
they tell (`travels_s`): they find what was lost, and are no second way for what is not.

Invariant: after an exchange without loss or change in between each end holds, of every origin that neither calls
silent, at least what the other would tell. (Of an origin that told two things under one version it may take another
exchange, if something else of it was missing.)
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from atmo.clock import Moment
from atmo.ids import PeerId
from atmo.mesh.limits import MAX_VERSIONS
from atmo.mesh.messages import Digest, Versions
from atmo.mesh.rows import SignedRow
from atmo.mesh.rowstore import RowStore

# Up to so many origins the versions themselves are told at once: about as long as 256 digests.
FEW_ORIGINS = 32
# Origins in one Versions message. At 512 versions of at most 9 bytes each it still fits into a control frame ...
ORIGINS_PER_MESSAGE = 200
# ... and buckets are small enough for that: four origins each, until there are 256 buckets.
ORIGINS_PER_BUCKET = 4
MAX_PARTS = 256

Known = tuple[int, int, tuple[int, ...]]
"""Of one origin: generation, sum, versions."""
NOTHING: Known = (0, 0, ())


@dataclass(frozen=True, slots=True)
class Sync:
    """Compares `store` with what others say. silent: origins of which nothing is told, see Core. travels_s: how long a
    renewal is on its way to all nodes; see `_lacking`."""

    store: RowStore
    silent: Callable[[PeerId], bool]
    travels_s: Callable[[], float] = lambda: 0.0

    def opening(self, salt: bytes, *, again: bool = False) -> Digest | Versions:
        """What to say first. salt: 16 random bytes; again: the two have compared before, and probably agree."""
        known = self.store.summary()
        if len(known) <= (1 if again else FEW_ORIGINS):
            return Versions(salt, 1, b"\0", tuple(self._entries(origin for origin, _, _ in known)), True)
        parts = MAX_PARTS
        while parts > 1 and parts * ORIGINS_PER_BUCKET >= 2 * len(known):
            parts //= 2
        return Digest(salt, b"".join(self._digests(salt, parts)))

    def on_digest(self, theirs: Digest) -> list[Versions]:
        """What this node has where the tables differ. Nothing for digests that nobody would send."""
        parts = len(theirs.digests) // 8
        if len(theirs.digests) % 8 or parts & (parts - 1):
            return []
        mine = self._digests(theirs.salt, parts)
        differ = {at for at in range(parts) if mine[at] != theirs.digests[8 * at : 8 * at + 8]}
        if not differ:
            return []
        members: dict[int, list[PeerId]] = {at: [] for at in sorted(differ)}
        spread = _spreader(theirs.salt, parts)
        for origin, _, _ in self.store.summary():
            at = spread(origin)
            if at in members:
                members[at].append(origin)
        return [
            Versions(theirs.salt, parts, bytes(buckets), tuple(self._entries(origins)), True)
            for buckets, origins in _batches(members)
        ]

    def on_versions(self, theirs: Versions, now: Moment) -> tuple[list[SignedRow], Versions | None]:
        """The rows that the other lacks, and the answer if this node lacks some."""
        known: dict[PeerId, Known] = {PeerId(entry[0]): entry[1:] for entry in theirs.origins}
        spread, told = _spreader(theirs.salt, theirs.parts), set(theirs.buckets)
        rows: list[SignedRow] = []
        for origin, generation, total in self.store.summary():
            there = known.get(origin, NOTHING)
            if (generation, total) != there[:2] and generation >= there[0] and spread(origin) in told:
                rows += self._lacking(origin, generation, there, now)
        if not (theirs.answer and any(self._lacks(origin, *entry) for origin, entry in known.items())):
            return rows, None
        mine = self._entries(known)
        return rows, Versions(theirs.salt, theirs.parts, theirs.buckets, tuple(mine), False)

    def _lacking(self, origin: PeerId, generation: int, there: Known, now: Moment) -> list[SignedRow]:
        """What to tell of an origin to somebody who has `there` of it."""
        if self.silent(origin):
            return []
        held = self.store.versions(origin)[2]
        # A renewal of what the other has comes to it by itself: to tell it here as well would double the renewals'
        # traffic, and prune the link that would have brought it.
        has_all_but_renewals = there[0] == generation and len(there[2]) >= len(held)
        told = list(self.store.told(origin, now, self.travels_s() if has_all_but_renewals else 0.0))
        if there[0] < generation:
            return [signed for _, signed in told]
        theirs = set(there[2])
        if theirs == set(held):
            return [signed for _, signed in told]  # the same versions and other rows: equivocation, or one has expired
        return [signed for version, signed in told if version not in theirs]

    def _lacks(self, origin: PeerId, generation: int, total: int, versions: tuple[int, ...]) -> bool:
        """True if this node lacks something of an origin that somebody else has. Its own rows it knows best."""
        own_generation, own_total, held = self.store.versions(origin)
        if generation != own_generation:
            return generation > own_generation
        return total != own_total and not (set(versions) < set(held))

    def _digests(self, salt: bytes, parts: int) -> list[bytes]:
        """(parts,) digests of 8 bytes."""
        entries: list[list[bytes]] = [[] for _ in range(parts)]
        spread = _spreader(salt, parts)
        for origin, generation, total in self.store.summary():
            if total:
                entries[spread(origin)].append(origin + (generation << 56 | total).to_bytes(16, "big"))
        return [hashlib.blake2b(b"".join(sorted(each)), key=salt, digest_size=8).digest() for each in entries]

    def _entries(self, origins: Iterable[PeerId]) -> Iterator[tuple[PeerId, int, int, tuple[int, ...]]]:
        for origin in origins:
            generation, total, versions = self.store.versions(origin)
            if generation:
                yield origin, generation, total, tuple(sorted(versions)[-MAX_VERSIONS:])


def _spreader(salt: bytes, parts: int) -> Callable[[PeerId], int]:
    """Which of `parts` (a power of two) buckets an origin belongs to."""
    factor = int.from_bytes(salt[:8], "big") | 1
    shift = 64 - parts.bit_length() + 1
    return lambda origin: (int.from_bytes(origin[:8], "big") * factor & _MASK) >> shift


_MASK = (1 << 64) - 1


def _batches(members: dict[int, list[PeerId]]) -> Iterator[tuple[list[int], list[PeerId]]]:
    """Buckets with their origins, as many together as fit into a message."""
    buckets: list[int] = []
    origins: list[PeerId] = []
    for bucket, found in members.items():
        if buckets and len(origins) + len(found) > ORIGINS_PER_MESSAGE:
            yield buckets, origins
            buckets, origins = [], []
        buckets.append(bucket)
        origins = origins + found[:ORIGINS_PER_MESSAGE]
    if buckets:
        yield buckets, origins
