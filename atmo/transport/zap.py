"""Who may connect: the ZeroMQ authentication protocol (ZAP, RFC 27), answered by hand.

libzmq asks `inproc://zeromq.zap.01` about every connection to a socket with a ZAP domain. Without somebody who answers
there, a CURVE server admits any key (measured), so the handler is bound before any server socket. The admitted key's
hex form becomes the connection's User-Id, which libzmq attaches to each message: that is what the lanes check per
message, because taking a key off the list does not cut a connection that stands.
"""

from __future__ import annotations

from typing import Protocol

import zmq

from atmo.keys import Passport
from atmo.trust import Trust

ENDPOINT = "inproc://zeromq.zap.01"
DOMAIN, PLAIN_DOMAIN = b"atmo", b"atmo-plain"
PLAIN_NAME = b"ticket"
_REQUEST_FRAMES = 9  # routing id, empty, version, request id, domain, address, identity, mechanism, key
_PLAIN_FRAMES = 10  # the same, with name and password for the key


class AllowList:
    """Curve key (hex) -> passport. Members only, so its size is bounded by the mesh's. Who is revoked is not found."""

    def __init__(self, trust: Trust) -> None:
        self._trust = trust
        self._passports: dict[str, Passport] = {}

    def admit(self, passport: Passport) -> None:
        self._passports[passport.curve.hex()] = passport

    def get(self, user_id: str) -> Passport | None:
        passport = self._passports.get(user_id)
        return passport if passport is not None and self._trust.allows(passport) else None

    def drop_expired(self, wall_s: float) -> None:
        for user_id in [key for key, passport in self._passports.items() if passport.not_after_s < wall_s]:
            del self._passports[user_id]

    def __len__(self) -> int:
        return len(self._passports)

    def __repr__(self) -> str:
        return f"<AllowList of {len(self)} keys>"


class Redeemer(Protocol):
    def redeem(self, ticket: str) -> bool:
        """Whether whoever shows this may connect to the plain lane, once."""


class ZapHandler:
    """Answers for all sockets of one context. Must be bound before the first server socket."""

    def __init__(
        self, context: zmq.Context[zmq.Socket[bytes]], allowed: AllowList, tickets: Redeemer | None = None
    ) -> None:
        self._allowed = allowed
        self._tickets = tickets
        self.socket = context.socket(zmq.ROUTER)
        self.socket.linger = 0
        self.socket.bind(ENDPOINT)

    def on_readable(self) -> None:
        while True:
            try:
                request = self.socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            self.socket.send_multipart(self._reply(request))

    def _reply(self, request: list[bytes]) -> list[bytes]:
        sender, request_id = request[0], request[3]
        if request[4] == PLAIN_DOMAIN:
            return self._reply_plain(request)
        user_id = request[8].hex() if len(request) == _REQUEST_FRAMES and request[7] == b"CURVE" else ""
        if request[4] == DOMAIN and self._allowed.get(user_id) is not None:
            return [sender, b"", b"1.0", request_id, b"200", b"OK", user_id.encode(), b""]
        return [sender, b"", b"1.0", request_id, b"400", b"not introduced", b"", b""]

    def _reply_plain(self, request: list[bytes]) -> list[bytes]:
        """The ticket becomes the connection's User-Id, which says whose link it serves."""
        sender, request_id = request[0], request[3]
        ticket = request[9] if len(request) == _PLAIN_FRAMES and request[7:9] == [b"PLAIN", PLAIN_NAME] else b""
        if self._tickets is not None and self._tickets.redeem(ticket.decode("ascii", "replace")):
            return [sender, b"", b"1.0", request_id, b"200", b"OK", ticket, b""]
        return [sender, b"", b"1.0", request_id, b"400", b"no such ticket", b"", b""]
