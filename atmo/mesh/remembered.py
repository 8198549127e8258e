"""Rankings of texts that were asked before.

Which classes fit a text depends on the text, the conditions and the classes, not on load; and texts repeat: retries,
hedges, conversations, batches, clients that poll. So the last rankings are kept until a class comes or goes. Invariant:
a remembered ranking is what `rank` would say now.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator

from atmo.mesh.constraints import NO_CONDITIONS
from atmo.mesh.query import Query
from atmo.mesh.ranking import Ranking, Round, rank, rounds
from atmo.mesh.table import RoutingTable

KEPT = 512  # texts; about 3 kB each
NAMED = 16  # classes whose names are kept for an account


class Ranked:
    """A ranking with its rounds, worked out as far as they were needed, and the first capabilities' ids."""

    __slots__ = ("_more", "_rounds", "names", "ranking")

    def __init__(self, table: RoutingTable, query: Query) -> None:
        self.ranking: Ranking = rank(table, query)
        self.names = [table.classes.capability[klass].descriptor.id for klass in self.ranking.classes[:NAMED]]
        self._rounds: list[Round] = []
        self._more = rounds(table, query, self.ranking)

    def rounds(self) -> Iterator[Round]:
        """As `ranking.rounds` gives them."""
        at = 0
        while True:
            if at == len(self._rounds):
                following = next(self._more, None)
                if following is None:
                    return
                self._rounds.append(following)
            yield self._rounds[at]
            at += 1


class Rankings:
    """Of one table."""

    def __init__(self, table: RoutingTable) -> None:
        self._table = table
        self._kept: OrderedDict[object, Ranked] = OrderedDict()
        self._version = -1

    def of(self, query: Query) -> Ranked:
        if self._version != self._table.classes.version:
            self._kept.clear()
            self._version = self._table.classes.version
        key = (
            None if query.vector is None else query.vector.tobytes(),
            None if query.tokens is None else hash(query.tokens.tobytes()),
            None if query.constraints is NO_CONDITIONS else query.constraints,
            query.prompt_tokens,
            query.expected_output_tokens,
            query.root,
        )
        found = self._kept.get(key)
        if found is None:
            found = self._kept[key] = Ranked(self._table, query)
            if len(self._kept) > KEPT:
                self._kept.popitem(last=False)
        else:
            self._kept.move_to_end(key)
        return found
