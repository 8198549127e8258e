"""The overlay's terms: how large its views are and when it does what, and what it wants done."""

from __future__ import annotations

from dataclasses import dataclass

from atmo.ids import PeerId
from atmo.mesh.messages import Contact, OverlayMessage


@dataclass(frozen=True, slots=True, kw_only=True)
class ViewSizes:
    """everyone: nodes up to which all link to all. arwl, prwl: hops of a join's random walk, and at how many hops to
    go the newcomer enters a passive view. shuffle_*: how many of each view travel, how far, how often."""

    everyone: int = 24  # a guess: at rest 24 nodes in a full mesh cost each 2 kB/s, and every request is one hop
    active: int = 6  # the design's; the paper has 5 for 10,000 nodes
    passive: int = 30  # the paper, section 5.1, as are the walks' lengths
    arwl: int = 6
    prwl: int = 3
    shuffle_active: int = 3
    shuffle_passive: int = 4
    own_choice: int = 2  # a guess: one may be lost at any moment
    shuffle_s: float = 60.0  # a guess; a passive view is renewed in about five minutes
    fill_s: float = 1.0  # a guess: wait between two attempts to find neighbours, doubled with each refusal
    heal_s: float = 30.0  # a guess: a hundred nodes on each side find each other within a second after a partition
    shed_s: float = 0.5  # a guess: a node that has too many neighbours gives up an eighth of them so often
    linger_s: float = 10.0  # a guess: what was on its way has arrived, and a short pause between requests costs no dial
    seek_timeout_s: float = 10.0  # as MeshTiming.dial_timeout_s
    remembered: int = 64  # a guess
    extras: int = 64  # a guess: links that other nodes dialled for their requests


@dataclass(frozen=True, slots=True)
class Tell:
    """Say this to a linked peer."""

    peer: PeerId
    message: OverlayMessage


@dataclass(frozen=True, slots=True)
class Seek:
    """Dial this peer. An outcome by `link_up` or `dial_failed` is welcome, silence is a failure."""

    contact: Contact


@dataclass(frozen=True, slots=True)
class Part:
    """Hang up on this peer, who has done nothing wrong."""

    peer: PeerId
    reason: str


Want = Tell | Seek | Part


@dataclass(frozen=True, slots=True)
class Sought:
    """A peer that is dialled to become a neighbour."""

    contact: Contact
    until_s: float
    priority: bool
