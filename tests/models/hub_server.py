"""A hub on this machine that speaks the real one's protocol, as recorded: the API that lists a repository at a
revision, `resolve` with a redirect to another host for large files and headers about them, ranges, tokens, refusals. It
can also misbehave: drop the line, be busy, send other bytes, know no ranges.

The redirect goes to another name of this machine (`localhost`), so that a token that follows it is seen.
"""

from __future__ import annotations

import hashlib
import json
import threading
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

LARGE_BYTES = 4096  # above it a file is one of the large file storage


@dataclass
class Repo:
    """commits: files by commit; branches: what a name points to; token: needed to see it; gated: nobody may."""

    commits: dict[str, dict[str, bytes]]
    branches: dict[str, str]
    token: str = ""
    gated: bool = False

    def at(self, revision: str) -> str | None:
        commit = self.branches.get(revision, revision)
        return commit if commit in self.commits else None


@dataclass
class Asked:
    method: str
    host: str
    path: str
    token: str
    range: str


@dataclass
class Hub:
    """repos: by name. drop_after: bytes after which an answer breaks off, used up one by one; busy: answers 503 so
    often; ranges: whether parts can be had; lies: sends other bytes of the same length."""

    repos: dict[str, Repo] = field(default_factory=dict)
    drop_after: list[int] = field(default_factory=list)
    busy: int = 0
    ranges: bool = True
    lies: bool = False
    pace: threading.Event | None = None
    asked: list[Asked] = field(default_factory=list)
    sent_bytes: int = 0
    endpoint: str = ""

    def add(self, repo: str, files: dict[str, bytes], **more: Any) -> str:
        """A repository with one commit, which is its main. Returns the commit."""
        commit = hashlib.sha1(repr(sorted(files)).encode() + b"".join(files.values())).hexdigest()
        known = self.repos.setdefault(repo, Repo({}, {}, **more))
        known.commits[commit] = files
        known.branches["main"] = commit
        return commit

    def url(self, repo: str, path: str, revision: str = "main") -> str:
        return f"{self.endpoint}/{repo}/resolve/{revision}/{path}"

    def bodies(self) -> list[Asked]:
        """What was asked for of large files."""
        return [asked for asked in self.asked if asked.method == "GET" and asked.path.startswith("/cdn/")]


@contextmanager
def running(hub: Hub) -> Iterator[Hub]:
    class Handler(_Handler):
        pass

    Handler.hub = hub
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    hub.endpoint = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Into `Hub.asked`, not onto the screen."""

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        way = urllib.parse.unquote(urllib.parse.urlsplit(self.path).path)
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        range_ = self.headers.get("Range", "")
        self.hub.asked.append(Asked(self.command, self.headers["Host"].partition(":")[0], way, token, range_))
        if self.hub.busy:
            self.hub.busy -= 1
            self._say(503, {"Retry-After": "0"})
            return
        if way.startswith("/api/models/"):
            self._list(way.removeprefix("/api/models/"), token)
            return
        if way.startswith("/cdn/"):
            self._large(way.removeprefix("/cdn/"))
            return
        self._resolve(way.strip("/"), token)
        return

    def _repo(self, name: str, token: str) -> Repo | None:
        repo = self.hub.repos.get(name)
        if repo is None or (repo.token and token != repo.token):
            # The real one does not say whether it exists.
            self._say(401, {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"})
            return None
        return repo

    def _list(self, way: str, token: str) -> None:
        name, _, revision = way.partition("/revision/")
        repo = self._repo(name, token)
        if repo is None:
            return
        commit = repo.at(revision or "main")
        if commit is None:
            self._say(404, {"X-Error-Code": "RevisionNotFound"})
            return
        siblings = [_sibling(path, data) for path, data in repo.commits[commit].items()]
        body = json.dumps({"id": name, "sha": commit, "private": bool(repo.token), "siblings": siblings}).encode()
        self._say(200, {"Content-Type": "application/json"}, body)

    def _resolve(self, way: str, token: str) -> None:
        head, _, rest = way.partition("/resolve/")
        revision, _, path = rest.partition("/")
        repo = self._repo(head, token)
        if repo is None:
            return
        if repo.gated:
            self._say(403, {"X-Error-Code": "GatedRepo", "X-Error-Message": "Access is restricted"})
            return
        commit = repo.at(revision)
        if commit is None:
            self._say(404, {"X-Error-Code": "RevisionNotFound"})
            return
        data = repo.commits[commit].get(path)
        if data is None:
            self._say(404, {"X-Error-Code": "EntryNotFound"})
            return
        headers = {"X-Repo-Commit": commit}
        if len(data) <= LARGE_BYTES:
            self._say(200, {**headers, "ETag": f'"{hashlib.sha1(data).hexdigest()}"'}, data)
            return
        sha256 = hashlib.sha256(data).hexdigest()
        port = self.hub.endpoint.rpartition(":")[2]
        headers |= {"X-Linked-Size": str(len(data)), "X-Linked-ETag": f'"{sha256}"', "ETag": f'"{sha256}"'}
        self._say(302, {**headers, "Location": f"http://localhost:{port}/cdn/{sha256}"})
        return

    def _large(self, sha256: str) -> None:
        every = [data for repo in self.hub.repos.values() for files in repo.commits.values() for data in files.values()]
        data = next(data for data in every if hashlib.sha256(data).hexdigest() == sha256)
        if self.hub.lies:
            data = bytes(reversed(data))
        start = 0
        headers = {"ETag": f'"{sha256}"', "Accept-Ranges": "bytes" if self.hub.ranges else "none"}
        wanted = self.headers.get("Range", "")
        if wanted and self.hub.ranges and self.headers.get("If-Range", f'"{sha256}"') == f'"{sha256}"':
            start = int(wanted.removeprefix("bytes=").rstrip("-"))
            if start >= len(data):
                self._say(416, {"Content-Range": f"bytes */{len(data)}"})
                return
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        self._say(206 if "Content-Range" in headers else 200, headers, data[start:])
        return

    def _say(self, status: int, headers: dict[str, str], body: bytes = b"") -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        end = len(body)
        if status in (200, 206) and len(body) > LARGE_BYTES and self.hub.drop_after:
            end = min(end, self.hub.drop_after.pop(0))
        try:
            for at in range(0, end, 1 << 18):
                if self.hub.pace is not None:
                    self.hub.pace.wait(0.01)
                self.wfile.write(body[at : min(end, at + (1 << 18))])
                self.hub.sent_bytes += min(end, at + (1 << 18)) - at
        except (BrokenPipeError, ConnectionResetError):
            pass  # the client was stopped
        if end < len(body):
            self.close_connection = True


def _sibling(path: str, data: bytes) -> dict[str, Any]:
    found: dict[str, Any] = {"rfilename": path, "size": len(data), "blobId": hashlib.sha1(data).hexdigest()}
    if len(data) > LARGE_BYTES:
        found["lfs"] = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 135}
    return found
