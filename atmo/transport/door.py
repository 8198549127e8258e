"""The door: how two nodes that know nothing of each other but an address get each other's keys.

Theory of operation. CURVE wants the server's key before the first packet and lets in only keys that the server knows
already. A multiaddr holds neither: it names an identity (Ed25519), not the curve key. So the port in a node's address
is its door: plain TCP that speaks one thing. A stranger sends `Introduce` with its credential, and gets `Introduction`
with the responder's credential and the ports of its encrypted lanes, or `Refusal` with a reason.

Plain text is enough here. A credential is public and carries its own proof: the mesh's root signed the identity, the
identity signed the curve key. Who replays somebody else's credential gains nothing, because the lanes behind the door
demand possession of the curve key. Who alters an introduction on the way can at worst misdirect a connection that will
then fail its handshake. What the door does is: check the credential, put its curve key on the allow-list of the lanes,
answer. Nothing is kept about strangers except their token buckets, which are bounded.

Cheapest check first: size, rate of this source, global rate, schema, mesh, and only then two signatures (0.2 ms).
A guest's credential has one signature more. The reasons to refuse one are the caller's `Trust` to know.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from atmo.errors import AtmoError, Refused, RemoteProtocolError, Untrusted
from atmo.ids import PeerId, format_peer
from atmo.keys import Credential, Passport
from atmo.transport import wire
from atmo.trust import Trust

# A check costs 0.2 ms of CPU, so the global rate is 2% of a core. The bursts let a mesh of a hundred nodes start at
# once behind one address. Guesses.
SOURCE_RATE_PER_S, SOURCE_BURST = 20.0, 100.0
GLOBAL_RATE_PER_S, GLOBAL_BURST = 100.0, 300.0
MAX_SOURCES = 1024


@dataclass(slots=True)
class TokenBucket:
    """`burst` tokens at first, refilled at `rate_per_s`."""

    rate_per_s: float
    burst: float
    tokens: float
    updated_s: float

    def try_take(self, now_s: float) -> bool:
        self.tokens = min(self.burst, self.tokens + self.rate_per_s * max(0.0, now_s - self.updated_s))
        self.updated_s = now_s
        if self.tokens < 1:
            return False
        self.tokens -= 1
        return True


class RateLimit:
    """A bucket for each source and one for all. The sources seen last are remembered."""

    def __init__(self, now_s: float) -> None:
        self._all = TokenBucket(GLOBAL_RATE_PER_S, GLOBAL_BURST, GLOBAL_BURST, now_s)
        self._sources: OrderedDict[str, TokenBucket] = OrderedDict()

    def allows(self, source: str, now_s: float) -> bool:
        bucket = self._sources.pop(source, None) or TokenBucket(SOURCE_RATE_PER_S, SOURCE_BURST, SOURCE_BURST, now_s)
        self._sources[source] = bucket
        if len(self._sources) > MAX_SOURCES:
            self._sources.popitem(last=False)
        return bucket.try_take(now_s) and self._all.try_take(now_s)


@dataclass(frozen=True, slots=True)
class Ports:
    """Where a node's lanes listen; TCP, 1 to 65535."""

    control: int
    gossip: int
    bulk: int


def lane_ports(first: int) -> Ports:
    """Three in a row; 0 leaves them to the kernel."""
    return Ports(first, first + 1, first + 2) if first else Ports(0, 0, 0)


class Doorkeeper:
    """Answers strangers. Pure: sockets and clocks are the caller's."""

    def __init__(
        self, credential: Credential, trust: Trust, ports: Ports, admit: Callable[[Passport], None], now_s: float
    ) -> None:
        self._ports = ports
        self.renew(credential)
        self._trust = trust
        self._admit = admit
        self._limit = RateLimit(now_s)
        self.admitted = 0
        self.refused = 0

    def renew(self, credential: Credential) -> None:
        """Show this one from now on."""
        ports = self._ports
        self._answer = wire.encode_door(wire.Introduction(credential, ports.control, ports.gossip, ports.bulk))

    def answer(self, source: str, frame: bytes, *, now_s: float, wall_s: float) -> bytes | None:
        """The reply to `frame` from the address `source`; None for what is not our protocol at all."""
        if not self._limit.allows(source, now_s):
            return self._refuse("busy", "The peer is asked too often; try again in a minute.")
        try:
            word = wire.decode_door(frame)
        except wire.VersionMismatchError:
            return self._refuse("version", f"The peer speaks transport version {wire.PROTOCOL_VERSION} only.")
        except RemoteProtocolError:
            self.refused += 1
            return None
        if not isinstance(word, wire.Introduce):
            self.refused += 1
            return None
        try:
            passport = self._trust.check(word.credential, wall_s)
        except Untrusted as exc:
            return self._refuse(exc.why, self._explain(exc))
        self._admit(passport)
        self.admitted += 1
        return self._answer

    def _explain(self, error: AtmoError) -> str:
        """The check's words speak of the stranger as "the peer"; the stranger reads them about itself."""
        reason = error.message.replace("The peer", "This node")
        return f"Refused by a node of mesh {format_peer(self._trust.mesh)}: {reason}"

    def _refuse(self, code: str, text: str) -> bytes:
        self.refused += 1
        return wire.encode_door(wire.Refusal(code, text))

    def __repr__(self) -> str:
        return f"<Doorkeeper admitted {self.admitted}, refused {self.refused}>"


def read_introduction(
    frame: bytes, trust: Trust, expected: PeerId | None, wall_s: float
) -> tuple[Passport, wire.Introduction]:
    """The responder's checked passport and its ports.

    Raises RemoteProtocolError or Refused, with what to tell the user.
    """
    word = wire.decode_door(frame)
    if isinstance(word, wire.Refusal):
        text, hint = wire.printable(word.text), _REFUSAL_HINTS.get(word.code, "")
        raise Refused(text, why=word.code, by_peer=True, hint=hint)
    if not isinstance(word, wire.Introduction):
        raise RemoteProtocolError("The peer answered an introduction with one of its own.")
    try:
        passport = trust.check(word.credential, wall_s)
    except Untrusted as exc:
        raise Refused(exc.message, why=exc.why, hint=exc.hint) from exc
    if expected is not None and passport.peer != expected:
        raise RemoteProtocolError(
            f"Peer {format_peer(passport.peer)} answers there, not {format_peer(expected)}.",
            hint="The address is out of date: ask the peer for its own with `atmo node status`.",
        )
    return passport, word


_JOIN_AGAIN = "Ask the owner for a new token: atmo mesh join TOKEN"
# What the refused end can do.
_REFUSAL_HINTS = {
    "version": "Upgrade the older of the two.",
    "mesh": "If you want to be in that one, ask its owner for a token: atmo mesh join TOKEN",
    "expired": f"Restart the node if the mesh is your own. {_JOIN_AGAIN}",
    "early": "This machine's clock or the other's is off: set it right.",
    "revoked": "Get a new key with `atmo node rotate`, and a new token from the owner: atmo mesh join TOKEN",
    "used": _JOIN_AGAIN,
    "replaced": "This node's key was copied, and the copy started later. Give one of them a new key: atmo node rotate",
    "forged": "Join the mesh again: atmo mesh join TOKEN",
}
