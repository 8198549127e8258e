"""What a request insists on, and the bit mask that says which row breaks which condition.

Every condition is one bit of `Reason`. Some concern the descriptor and are asked once per class, the others concern
the node or its load and are asked per row. A row is feasible when no bit is set. The bits, not the conditions, travel
on: they are counted for `NoRoute` and told one by one in an explanation.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import msgspec
import numpy as np
from numpy.typing import NDArray

from atmo.ids import parse_peer, short
from atmo.mesh.classes import ELSEWHERE
from atmo.mesh.reasons import Reason
from atmo.mesh.table import RoutingTable
from atmo.mesh.versions import satisfies

if TYPE_CHECKING:
    from atmo.mesh.query import Query

Bits = NDArray[np.int64]


class Constraints(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What the caller insists on; None or empty means no condition.

    data_residency: the node must carry the label `residency=` with one of these values, and so must a capability that
    the node has run by somebody else; local_only: this node alone, and nobody else for it;
    max_cost: US dollars for the whole answer; max_latency_ms: expected time until the answer is complete;
    latency_critical: speed counts more than strength and price (a wish, it excludes nobody); min_tps: tokens a second
    for this request; max_load: requests in flight per slot; min_context: tokens; labels: `key=value` pairs that node or
    capability carries, all of them; allow_nodes, deny_nodes: node names, peer ids or their last eight letters;
    model: capability id, its last part, or model name; type: `chat`, ...; modality: what the request holds, such as
    `image`; version: such as `>=3.0`; prefer_version: the same as a wish; strict: refuse when nothing fits the text.
    """

    data_residency: tuple[str, ...] = ()
    local_only: bool = False
    max_cost: float | None = None
    max_latency_ms: float | None = None
    latency_critical: bool = False
    min_tps: float | None = None
    max_load: float | None = None
    min_context: int | None = None
    labels: tuple[tuple[str, str], ...] = ()
    allow_nodes: tuple[str, ...] = ()
    deny_nodes: tuple[str, ...] = ()
    model: str = ""
    type: str = ""
    modality: str = ""
    version: str = ""
    prefer_version: str = ""
    strict: bool = False

    @property
    def of_nodes(self) -> bool:
        """Does any of them concern the node or its load, and not the descriptor alone?"""
        return bool(
            self.local_only
            or self.data_residency
            or self.labels
            or self.allow_nodes
            or self.deny_nodes
            or self.min_tps is not None
            or self.max_load is not None
        )


NO_CONDITIONS = Constraints()
_LOST, _READY, _EJECTED = int(Reason.LOST), int(Reason.READY), int(Reason.EJECTED)  # enum arithmetic is slow


def class_bits(table: RoutingTable, query: Query) -> Bits:
    """(n_classes,) int64: the conditions that each class's descriptor breaks. Absent classes get every bit."""
    classes, wanted, n = table.classes, query.constraints, table.classes.used
    bits: Bits = np.zeros(n, dtype=np.int64)
    if wanted.type:
        bits[classes.type_id[:n] != classes.types.find(wanted.type)] |= Reason.TYPE
    if wanted.model:
        named = np.zeros(n, dtype=bool)
        named[list(classes.named(wanted.model))] = True
        bits[~named] |= Reason.MODEL
    if query.root:
        for klass, capability in classes.capability.items():
            if capability.descriptor.root != query.root:
                bits[klass] |= Reason.MODEL
    if wanted.modality:
        place = classes.modalities.find(wanted.modality)
        has = (
            np.zeros(n, dtype=bool) if place < 0 else (classes.modality_mask[:n] >> np.uint64(min(place, 63))) & 1 == 1
        )
        bits[~has] |= Reason.MODALITY
    context = classes.context[:n]
    needed = query.prompt_tokens + query.expected_output_tokens
    if needed:
        bits[(context > 0) & (context < needed)] |= Reason.CONTEXT
    if wanted.min_context is not None:
        bits[context < wanted.min_context] |= Reason.MIN_CONTEXT
    if wanted.max_cost is not None:
        cost = classes.price[:n] * (query.expected_output_tokens / 1e6)
        bits[cost > wanted.max_cost] |= Reason.COST
    if wanted.version:
        for klass, capability in classes.capability.items():
            if not satisfies(capability.descriptor.version, wanted.version):
                bits[klass] |= Reason.VERSION
    if wanted.local_only or wanted.data_residency:
        _elsewhere_bits(table, wanted, bits)
    bits[~classes.present[:n]] = -1
    return bits


def _elsewhere_bits(table: RoutingTable, wanted: Constraints, bits: Bits) -> None:
    """What a node has run by a server on another machine leaves the node, whatever the node's own labels say."""
    homes = {("residency", home) for home in wanted.data_residency}
    for klass, labels in table.classes.labels.items():
        if ELSEWHERE in labels and wanted.local_only:
            bits[klass] |= Reason.LOCAL_ONLY
        if ELSEWHERE in labels and homes and not homes & labels:
            bits[klass] |= Reason.RESIDENCY


def row_bits(table: RoutingTable, query: Query, rows: NDArray[np.int32], now: float) -> Bits:
    """(n_rows,) int64: the conditions that each row's node, link or load breaks; MAX_LATENCY is the field's to set."""
    columns, wanted = table.rows, query.constraints
    peers = columns.peer.take(rows)
    bits: Bits = np.zeros(len(rows), dtype=np.int64)
    for broken, reason in (
        (table.peers.lost.take(peers), _LOST),
        (columns.ready[rows] == 0, _READY),
        (columns.ejected_until_s[rows] > now, _EJECTED),
    ):
        if np.count_nonzero(broken):  # counting is quicker than masking, and mostly there are none
            bits[broken] |= reason
    if not query.exclude and not wanted.of_nodes:
        return bits
    if query.exclude:
        bits[np.isin(peers, [table.find_peer(peer) for peer in query.exclude])] |= Reason.TRIED
    if wanted.local_only:
        bits[peers != table.find_peer(query.local)] |= Reason.LOCAL_ONLY
    if wanted.allow_nodes:
        bits[~np.isin(peers, _nodes(table, wanted.allow_nodes))] |= Reason.ALLOW
    if wanted.deny_nodes:
        bits[np.isin(peers, _nodes(table, wanted.deny_nodes))] |= Reason.DENY
    if wanted.min_tps is not None:
        bits[columns.decode_tps[rows] < wanted.min_tps] |= Reason.MIN_TPS
    if wanted.max_load is not None:
        load = (columns.in_flight[rows] + columns.own[rows]) / columns.slots[rows]
        bits[load > wanted.max_load] |= Reason.MAX_LOAD
    if wanted.labels or wanted.data_residency:
        _label_bits(table, query, rows, bits)
    return bits


def bits_of_one(table: RoutingTable, row: int, now: float) -> int:
    """The conditions of `row_bits` that one row breaks, when neither excluded peers nor conditions of nodes are given.
    Without numpy, which would take five times as long for one."""
    columns = table.rows
    lost = _LOST if table.peers.lost[columns.peer[row]] else 0
    ready = _READY if columns.ready[row] == 0 else 0
    return lost | ready | (_EJECTED if columns.ejected_until_s[row] > now else 0)


def _label_bits(table: RoutingTable, query: Query, rows: NDArray[np.int32], bits: Bits) -> None:
    """Label sets repeat, so each pair of node labels and class is judged once."""
    needed, homes = frozenset(query.constraints.labels), query.constraints.data_residency
    allowed_homes = {("residency", home) for home in homes}
    no_home, no_label = int(Reason.RESIDENCY), int(Reason.LABELS)
    width = table.classes.capacity
    pairs = table.peers.label_set[table.rows.peer[rows]].astype(np.int64) * width + table.rows.klass[rows]
    distinct, which = np.unique(pairs, return_inverse=True)
    judged = np.zeros(len(distinct), dtype=np.int64)
    for at, pair in enumerate(distinct.tolist()):
        node, offer = table.label_sets.values[pair // width], table.classes.labels[pair % width]
        wrong_home = bool(homes) and not (node & allowed_homes)
        judged[at] = wrong_home * no_home | (not needed <= node | offer) * no_label
    bits |= judged[which]


def _nodes(table: RoutingTable, names: tuple[str, ...]) -> list[int]:
    """Peer numbers for node names, peer ids, or the last letters of peer ids. A name that means nobody adds nobody."""
    found: set[int] = set()
    for name in names:
        named = table.peers_named.get(name)
        if named:
            found |= named
        elif len(name) == SHORT_LETTERS:
            found |= {index for index, peer in table.peers.id.items() if _short(peer) == name}
        elif name.startswith("12D3KooW"):
            found.add(table.find_peer(parse_peer(name)))
    return list(found)


SHORT_LETTERS = 8  # as ids.short gives
_short = functools.lru_cache(maxsize=100_000)(short)  # base58 of a number of 38 bytes: 20 us each
