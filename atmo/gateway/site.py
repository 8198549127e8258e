"""The web page at `/`: files of this package, sent as they are.

Theory of operation. The page itself is asked for anew each time (an `etag` spares sending it again); all it needs lies
under `/web/<digest>/`, where the digest is that of all files together. A file there can never change, so browsers keep
it for good, and after an update everything has a new address. Compressed once, when somebody first asks.

What the page is allowed to do is said in its headers: scripts and styles only from this node and only from files,
nothing from elsewhere, in nobody's frame. `require-trusted-types-for` with no policy makes a browser refuse every
conversion of text into markup, so what other nodes and models say stays text even where the page had a mistake.
"""

from __future__ import annotations

import gzip
import hashlib
from dataclasses import dataclass
from pathlib import Path

from atmo.gateway.asgi import Header, Receive, Scope, Send, reply

FOLDER = Path(__file__).parent / "web"
PREFIX = "/web/"
# Where the page says from where its files come, and which of them to load at once.
BASE, MODULES = "{{base}}", "<!-- modules -->"
KINDS = {
    ".html": b"text/html; charset=utf-8",
    ".css": b"text/css; charset=utf-8",
    ".js": b"text/javascript; charset=utf-8",
    ".svg": b"image/svg+xml",
}
CONTENT_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)
GUARDS: list[Header] = [
    (b"content-security-policy", CONTENT_POLICY.encode()),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"x-frame-options", b"DENY"),
    (b"permissions-policy", b"camera=(), microphone=(), geolocation=(), interest-cohort=()"),
]
_FOR_EVER = (b"cache-control", b"public, max-age=31536000, immutable")
_ASK_AGAIN = (b"cache-control", b"no-cache")
_VARIES = (b"vary", b"accept-encoding")


@dataclass(frozen=True, slots=True)
class File:
    """One file as it is sent: plain, or compressed where that makes it smaller."""

    kind: bytes
    plain: bytes
    packed: bytes

    @classmethod
    def of(cls, kind: bytes, plain: bytes) -> File:
        return cls(kind, plain, gzip.compress(plain, 9, mtime=0))


class Site:
    """Two ASGI apps: `page` for `/`, `file` for what lies under `/web/`."""

    def __init__(self, folder: Path = FOLDER) -> None:
        self._folder = folder
        self._digest = ""
        self._page = File(b"", b"", b"")
        self._files: dict[str, File] = {}

    async def page(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._read()
        etag = f'"{self._digest}"'.encode()
        headers = [*GUARDS, _ASK_AGAIN, _VARIES, (b"etag", etag)]
        if etag in _header(scope, b"if-none-match"):
            await reply(send, 304, b"", headers)
        else:
            await _send(scope, send, self._page, headers)

    async def file(self, scope: Scope, receive: Receive, send: Send) -> None:
        """An address of an older version is not there any more: a page that asks for it has to be loaded anew."""
        self._read()
        digest, _, name = scope["path"].removeprefix(PREFIX).partition("/")
        found = self._files.get(name) if digest == self._digest else None
        if found is None:
            await reply(send, 404, b"No such file.", [*GUARDS, _ASK_AGAIN, (b"content-type", b"text/plain")])
        else:
            await _send(scope, send, found, [*GUARDS, _FOR_EVER, _VARIES])

    def _read(self) -> None:
        """Once: a running node sends what it was started with."""
        if self._digest:
            return
        sources = {path.name: path.read_bytes() for path in sorted(self._folder.iterdir()) if path.suffix in KINDS}
        found = hashlib.sha256()
        for name, source in sources.items():
            found.update(name.encode() + b"\0" + hashlib.sha256(source).digest())
        self._files = {name: File.of(KINDS[Path(name).suffix], source) for name, source in sources.items()}
        digest = found.hexdigest()[:16]
        self._page = _filled(
            self._files.pop("index.html"), PREFIX + digest, [name for name in sources if ".js" in name]
        )
        self._digest = digest


def _filled(page: File, base: str, scripts: list[str]) -> File:
    """The page with its addresses. A module is found only when another that imports it has been read; told at once, all
    come together."""
    told = "\n".join(f'<link rel="modulepreload" href="{base}/{name}">' for name in scripts if name != "theme.js")
    text = page.plain.decode().replace(MODULES, told).replace(BASE, base)
    return File.of(page.kind, text.encode())


async def _send(scope: Scope, send: Send, file: File, headers: list[Header]) -> None:
    packed = b"gzip" in _header(scope, b"accept-encoding") and len(file.packed) < len(file.plain)
    told = [(b"content-type", file.kind), *headers, *([(b"content-encoding", b"gzip")] if packed else [])]
    await reply(send, 200, file.packed if packed else file.plain, told)


def _header(scope: Scope, name: bytes) -> bytes:
    found: bytes = next((value for key, value in scope["headers"] if key == name), b"")
    return found
