"""What a person writes to say which model is meant, and where it may come from. Pure.

hf://org/repo                         the hub; the usual quantisation, when there are several
hf://org/repo:Q8_0                    that quantisation
hf://org/repo@v1.0/file.gguf          one file (all parts of a split one) at a revision
hf://org/repo/onnx/                   a folder; hf://org/repo/ for all of it
https://example.org/model.gguf        any server; an address on the hub itself is read as the form above
./model.gguf, /a/folder               a file or folder of this machine
qwen2.5-7b, 64 hex digits             a name or a root: other nodes may have it
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from urllib.parse import unquote, urlsplit

from atmo.errors import UsageError

_HUB_HOSTS = ("huggingface.co", "www.huggingface.co", "hf.co")
_HUB = re.compile(
    r"(?P<repo>[\w.-]+/[\w.-]+?)(@(?P<revision>[^/:@]+))?(:(?P<quantisation>[\w.-]+)|/(?P<path>[^@]*))?", re.ASCII
)
_COMMIT = re.compile(r"[0-9a-f]{40}")
_HINT = "Write hf://org/repo, hf://org/repo/file.gguf, an https:// address, a path, or a model's name."


@dataclass(frozen=True, slots=True)
class Reference:
    """kind: `hub`, `url`, `file` or `name`; text: as it was written. For the hub: repo `org/repo`, revision, path and
    quantisation, each empty when it was not said. root: when it was written in full; value: the address, path or name
    of the other kinds."""

    text: str
    kind: str
    value: str = ""
    repo: str = ""
    revision: str = ""
    path: str = ""
    quantisation: str = ""
    root: bytes = b""

    @property
    def pinned(self) -> bool:
        """Whether it always means the same bytes."""
        return bool(self.root or _COMMIT.fullmatch(self.revision))

    @property
    def source(self) -> str:
        """As it is remembered of a model that came so."""
        if self.kind != "hub":
            return self.value
        revision = f"@{self.revision}" if self.revision else ""
        rest = f":{self.quantisation}" if self.quantisation else f"/{self.path}" if self.path else ""
        return f"hf://{self.repo}{revision}{rest}"

    def at(self, commit: str, path: str) -> Reference:
        """The same, pinned to a commit and to what was chosen of the repository."""
        return replace(self, revision=commit, path=path, quantisation="")

    def means(self, name: str, root: bytes, source: str) -> bool:
        """Whether a model that somebody has, with this name, root and source, is one that was asked for. A revision
        that was not said is any; a quantisation is found in the name of the file."""
        if self.kind == "name":
            return root == self.root if self.root else name.lower() == self.value.lower()
        if self.kind != "hub":
            return source == self.source
        try:
            theirs = parse(source)
        except UsageError:
            return False
        if theirs.kind != "hub" or theirs.repo.lower() != self.repo.lower():
            return False
        if self.revision and theirs.revision != self.revision:
            return False
        if self.quantisation:
            return self.quantisation.lower() in theirs.path.lower()
        return not self.path or theirs.path == self.path


def parse(text: str) -> Reference:
    """Raises UsageError for what is none of the forms above."""
    text = text.strip()
    scheme, separator, rest = text.partition("://")
    if scheme == "hf" and separator:
        return _hub(text, rest)
    if scheme in ("http", "https") and separator:
        return _page(text)
    if scheme == "file" and separator:
        return Reference(text, "file", unquote(rest))
    if separator:
        raise UsageError(f"Models do not come by {scheme}://.", hint=_HINT)
    if not text or not text.isprintable():
        raise UsageError(f"{text!r} is not a model.", hint=_HINT)
    if text.startswith(("/", "./", "../", "~")) or text.lower().endswith((".gguf", ".onnx")):
        return Reference(text, "file", text)
    if "/" in text:
        raise UsageError(f"{text!r} may be a path or a repository.", hint=f"Write ./{text} or hf://{text}.")
    root = bytes.fromhex(text) if re.fullmatch(r"[0-9a-f]{64}", text) else b""
    return Reference(text, "name", text, root=root)


def _hub(text: str, rest: str) -> Reference:
    found = _HUB.fullmatch(rest)
    if found is None:
        raise UsageError(f"{text!r} is not a model of the hub.", hint=_HINT)
    path = found["path"] if found["path"] is not None else ""
    if any(part in (".", "..") for part in path.split("/")) or path.startswith("/"):
        raise UsageError(f"{text!r} is not a model of the hub.", hint=_HINT)
    everything = "/" if found["path"] == "" else path  # hf://org/repo/ is all of it
    return Reference(text, "hub", "", found["repo"], found["revision"] or "", everything, found["quantisation"] or "")


def _page(text: str) -> Reference:
    """An address; of a file on the hub, as a browser shows it, the hub's own form."""
    parts = urlsplit(text)
    if not parts.hostname:
        raise UsageError(f"{text!r} is not an address.", hint=_HINT)
    way = [unquote(part) for part in parts.path.strip("/").split("/")]
    if parts.hostname in _HUB_HOSTS and len(way) >= 2:
        if len(way) > 4 and way[2] in ("blob", "resolve"):
            return _hub(text, f"{way[0]}/{way[1]}@{way[3]}/{'/'.join(way[4:])}")
        if len(way) == 2:
            return _hub(text, "/".join(way))
    return Reference(text, "url", text)
