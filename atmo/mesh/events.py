"""What the core is told and what it wants done. Neither knows how: events and effects are plain values."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from atmo.ids import Multiaddr, PeerId
from atmo.keys import Certificate, Sealed
from atmo.mesh.messages import AnyMessage
from atmo.mesh.rows import Body, Kind
from atmo.mesh.verdict import Change, Equivocation

# Events


@dataclass(frozen=True, slots=True)
class LinkUp:
    """A peer is linked. `address` is where it can be dialled, None if nobody knows; outbound: this node dialled."""

    peer: PeerId
    address: Multiaddr | None
    outbound: bool = False


@dataclass(frozen=True, slots=True)
class LinkDown:
    peer: PeerId
    reason: str


@dataclass(frozen=True, slots=True)
class DialFailed:
    """Nothing came of `Dial(address)`."""

    address: Multiaddr


@dataclass(frozen=True, slots=True)
class FrameReceived:
    """gossip: True if it came on the gossip lane, False for the control lane."""

    peer: PeerId
    gossip: bool
    frame: bytes


@dataclass(frozen=True, slots=True)
class Publish:
    """Say this of the own node. `key` tells several rows of one kind apart: a capability's id, or empty."""

    kind: Kind
    key: str
    body: Body


@dataclass(frozen=True, slots=True)
class Withdraw:
    kind: Kind
    key: str


@dataclass(frozen=True, slots=True)
class Discovered:
    """Somebody may be there: a seed, an announcement on the LAN, a remembered address."""

    address: Multiaddr


@dataclass(frozen=True, slots=True)
class Want:
    """A request is for this peer: there has to be a link, until `needed` is False as often as it was True."""

    peer: PeerId
    needed: bool


@dataclass(frozen=True, slots=True)
class Tick:
    """The time that `next_wakeup` named has come, or any other time."""


@dataclass(frozen=True, slots=True)
class Stop:
    """The node is about to leave: withdraw all it said."""


@dataclass(frozen=True, slots=True)
class Revoke:
    """The root of the mesh, on this machine, takes somebody back."""

    statement: Sealed


@dataclass(frozen=True, slots=True)
class Banned:
    """The peer is no member any more: it is not dialled again."""

    peer: PeerId


@dataclass(frozen=True, slots=True)
class Certified:
    """This node's certificate was renewed."""

    certificate: Certificate


Event = (
    Revoke
    | Banned
    | Certified
    | LinkUp
    | LinkDown
    | DialFailed
    | FrameReceived
    | Publish
    | Withdraw
    | Discovered
    | Want
    | Tick
    | Stop
)

# Effects


@dataclass(frozen=True, slots=True)
class Send:
    """A frame for one peer, on the control lane."""

    peer: PeerId
    frame: bytes


@dataclass(frozen=True, slots=True)
class Broadcast:
    """A frame for all linked peers, on the gossip lane."""

    frame: bytes


@dataclass(frozen=True, slots=True)
class Dial:
    """Try to link. Told of the outcome by `LinkUp` or `DialFailed`."""

    address: Multiaddr


@dataclass(frozen=True, slots=True)
class NotDialled:
    """A link that a request needs will not come about: there is no address to dial, or not now."""

    peer: PeerId
    why: str


@dataclass(frozen=True, slots=True)
class HangUp:
    """End the link with a peer that has done nothing wrong: `LinkDown` follows."""

    peer: PeerId
    reason: str


@dataclass(frozen=True, slots=True)
class RowsChanged:
    """The table changed, in this order."""

    changes: tuple[Change, ...]


@dataclass(frozen=True, slots=True)
class Deliver:
    """A message that is none of the core's business."""

    peer: PeerId
    message: AnyMessage


@dataclass(frozen=True, slots=True)
class PeerLost:
    """The link to a peer is gone. Its rows stay until they expire, but nothing should be routed there."""

    peer: PeerId


@dataclass(frozen=True, slots=True)
class Misbehaved:
    """The peer broke the protocol too often: hang up. It will not be dialled for a while."""

    peer: PeerId
    reason: str


@dataclass(frozen=True, slots=True)
class OwnRowSeen:
    """A row in this node's name that it did not write: its state was lost, or its key was copied.

    generation: the new one that this node took to be believed again, worth keeping for the next start. times: how
    often this happened since the start; more than once means that a second node with this key is alive.
    """

    generation: int
    times: int


@dataclass(frozen=True, slots=True)
class Equivocated:
    """An origin signed two different rows under one version."""

    origin: PeerId
    proof: Equivocation


class Health(enum.Enum):
    """What others think of a node. suspect: accused of being dead, has time to contradict; refuted: it contradicted;
    healed: the accusation was taken back; dead: it did not contradict, and its rows are out of the table."""

    SUSPECT = "suspect"
    REFUTED = "refuted"
    HEALED = "healed"
    DEAD = "dead"


@dataclass(frozen=True, slots=True)
class HealthChanged:
    """For people: what the table has to show follows in `RowsChanged`."""

    peer: PeerId
    health: Health


@dataclass(frozen=True, slots=True)
class ClockOff:
    """A peer's rows cannot be used because its clock and this node's differ too much. off_s: its clock minus ours."""

    origin: PeerId
    off_s: float


@dataclass(frozen=True, slots=True)
class KeyRevoked:
    """News: this member, or every member that this invite made, is out. To be kept for the next start."""

    key: bytes


Effect = (
    KeyRevoked
    | Send
    | Broadcast
    | Dial
    | NotDialled
    | HangUp
    | RowsChanged
    | Deliver
    | PeerLost
    | Misbehaved
    | OwnRowSeen
    | Equivocated
    | ClockOff
    | HealthChanged
)

__all__ = [
    "Banned",
    "Broadcast",
    "Certified",
    "Change",
    "ClockOff",
    "Deliver",
    "Dial",
    "DialFailed",
    "Discovered",
    "Effect",
    "Equivocated",
    "Event",
    "FrameReceived",
    "HangUp",
    "Health",
    "HealthChanged",
    "KeyRevoked",
    "LinkDown",
    "LinkUp",
    "Misbehaved",
    "NotDialled",
    "OwnRowSeen",
    "PeerLost",
    "Publish",
    "Revoke",
    "RowsChanged",
    "Send",
    "Stop",
    "Tick",
    "Want",
    "Withdraw",
]
