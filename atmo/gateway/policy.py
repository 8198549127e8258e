"""Who may come in over TCP. The Unix socket needs no policy: the file's mode lets in its owner alone.

Without keys the gateway is for the programs of this machine, and three things keep web pages out, which run here too,
all but the one that it serves itself: a body has to say that it is JSON (a page needs permission for that, which is
never given), the name in `Host` has to be this machine's (a page that makes its own name point here cannot change what
it was loaded from), and where a browser says which page asks, it has to be the gateway's own. A key is proof enough: a
page from elsewhere has none, and no browser adds it by itself.
"""

from __future__ import annotations

import functools
import re

import structlog

from atmo.errors import ConfigError, Forbidden, Unauthorized, UnsupportedMedia
from atmo.gateway.api_keys import ApiKey, KeyRing
from atmo.gateway.asgi import Scope
from atmo.gateway.quotas import Quotas
from atmo.gateway.trace import Trace
from atmo.transport.hosts import is_ip

log = structlog.get_logger("atmo.gateway")

# Open to everybody: they tell nothing but that there is a node, and how its API looks.
PUBLIC = frozenset(("/health", "/ready", "/docs", "/openapi.json"))
# The web page, which asks for a key where one is needed.
PAGE, PAGE_FILES = "/", "/web/"
# A name has 253 at most (RFC 1035), then comes the port; so what is remembered of strangers' names stays small.
MAX_HOST_BYTES = 300
# For the owner at the Unix socket alone: what ends the node, changes the mesh or tells who belongs to it.
OWNERS = frozenset(("/api/stop", "/api/revoke", "/api/members", "/api/fetch", "/api/fetch/stop"))
_PORT = re.compile(rb":\d{1,5}$")


class Policy:
    """keys; always: ask for a key even where none was ever made; local: only this machine is listened to."""

    def __init__(self, keys: KeyRing, *, always: bool, local: bool) -> None:
        self._keys = keys
        self._always = always
        self._local = local
        self._quotas = Quotas()

    def admit(self, scope: Scope, trace: Trace, headers: dict[bytes, bytes], now_s: float) -> ApiKey | None:
        """The key it came with, which `leave` wants back; None where no key is needed. Raises Unauthorized, Forbidden,
        RateLimited or UnsupportedMedia."""
        path = scope["path"]
        if path in PUBLIC:
            return None
        self._refresh(now_s)
        needed, page = self._always or self._keys.any, path == PAGE or path.startswith(PAGE_FILES)
        key = self._key(headers) if needed and not page else None
        if not needed and self._local and not _ours(headers.get(b"host", b"")):
            raise Forbidden("This is not the name of this node.", hint="Use its address, or localhost.")
        if page:
            return None
        if key is None and _from_another_page(headers):
            raise Forbidden("A web page of another site may not use this node.", hint="Open the node's own page.")
        if path in OWNERS:
            raise Forbidden(f"{path} is for the node's owner only.", hint="Use the atmo command on its machine.")
        if scope["method"] == "POST" and not _says_json(headers):
            raise UnsupportedMedia("The body is not said to be JSON.", hint="Send Content-Type: application/json.")
        if key is None:
            return None
        trace.key = key.name or key.id
        if key.models:
            if path.startswith("/api/"):
                raise Forbidden("This API key is for some models only, and /api for all.", hint="Use /v1.")
            trace.key_models = frozenset(key.models)
        trace.headers += self._quotas.enter(key, now_s)
        return key

    def leave(self, key: ApiKey) -> None:
        self._quotas.leave(key)

    def _refresh(self, now_s: float) -> None:
        try:
            self._keys.refresh(now_s)
        except ConfigError as error:  # what was known still holds
            log.warning("the API keys could not be read", why=error.message)

    def _key(self, headers: dict[bytes, bytes]) -> ApiKey:
        kind, _, secret = headers.get(b"authorization", b"").decode("latin-1").partition(" ")
        if kind.lower() != "bearer" or not secret.strip():
            raise Unauthorized(
                "You didn't provide an API key.",
                hint="Send Authorization: Bearer KEY; `atmo keys create` makes one.",
            )
        found = self._keys.find(secret.strip())
        if found is None:
            raise Unauthorized("Incorrect API key provided.", hint="See: atmo keys list")
        return found


@functools.lru_cache(maxsize=256)
def _ours(host: bytes) -> bool:
    """Is it this machine itself? An address counts: a page that was loaded by address cannot make it mean another."""
    if len(host) > MAX_HOST_BYTES:
        return False
    name = _PORT.sub(b"", host).strip(b"[]").lower()
    if name == b"localhost" or name.endswith(b".localhost"):
        return True
    return is_ip(name.decode("latin-1"))


def _from_another_page(headers: dict[bytes, bytes]) -> bool:
    """Does a browser say that a page asks which the gateway did not serve? Programs say nothing, or, where they are
    made of a browser, a scheme of their own, which no page of the web can have."""
    origin = headers.get(b"origin")
    if origin is None:
        return headers.get(b"sec-fetch-site", b"none") not in (b"none", b"same-origin")
    scheme, _, host = origin.partition(b"://")
    return scheme == b"null" or (scheme in (b"http", b"https") and host.lower() != headers.get(b"host", b"").lower())


def _says_json(headers: dict[bytes, bytes]) -> bool:
    return headers.get(b"content-type", b"").partition(b";")[0].strip().lower() == b"application/json"
