"""Sources of a model that are no peers: a server by its address, and a file of this machine."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from urllib.parse import unquote, urlsplit

import httpx

from atmo.errors import UsageError
from atmo.models.downloads import Downloader, Remote
from atmo.models.pulling import Progress, Tell
from atmo.models.records import StoredModel
from atmo.models.reference import Reference
from atmo.models.shape import parts_of, whole_name
from atmo.models.staging import Staging
from atmo.models.store import Store
from atmo.models.trees import files_of


class UrlSource:
    """Any server that gives files over HTTP. All parts of a split model are taken from beside the one that was
    named."""

    label = "url"

    def fetch(self, wanted: Reference, name: str, store: Store, tell: Tell) -> StoredModel | None:
        if wanted.kind != "url":
            return None
        parts = urlsplit(wanted.value)
        folder, _, last = parts.path.rpartition("/")
        if not last:
            raise UsageError(f"{wanted.value} names no file.", hint="Give the address of a .gguf file.")
        remotes = [Remote(parts._replace(path=f"{folder}/{part}").geturl(), unquote(part)) for part in parts_of(last)]
        with httpx.Client() as client:
            return download(
                Downloader(client), remotes, store, wanted.source, name or whole_name(unquote(last)).lower(), tell
            )


class FileSource:
    """A file or folder of this machine."""

    label = "file"

    def fetch(self, wanted: Reference, name: str, store: Store, tell: Tell) -> StoredModel | None:
        if wanted.kind != "file":
            return None
        path = Path(wanted.value).expanduser()
        total, done = sum(place.stat().st_size for place in files_of(path).values()), 0

        def more(count: int) -> None:
            nonlocal done
            done += count
            tell(Progress(done, total, 0, (str(path),), "checking"))

        return store.import_(path, name, progress=more)


def download(
    downloader: Downloader, remotes: Sequence[Remote], store: Store, source: str, name: str, tell: Tell
) -> StoredModel:
    """All files of a model, one after the other, and then into the store."""
    store.check_name(name, b"")
    with Staging(store, source) as staging:
        tally = _Tally(staging, remotes, tell)
        for number, remote in enumerate(remotes):
            tally.done_bytes += downloader.fetch(staging, number, remote, tally.so_far)
        return staging.move_in(name)


class _Tally:
    """How far a download of several files is."""

    def __init__(self, staging: Staging, remotes: Sequence[Remote], tell: Tell) -> None:
        self.done_bytes = 0
        self._staging = staging
        self._tell = tell
        self._alone = len(remotes) == 1
        self._sources = (httpx.URL(remotes[0].url).host,)
        self._resumed: int | None = None
        self._total = sum(remote.size for remote in remotes) if all(remote.size for remote in remotes) else 0
        if self._total:
            staging.expect(self._total)

    def so_far(self, here: int, size: int) -> None:
        if self._resumed is None:
            self._resumed = here
        if not self._total and self._alone and size:
            self._total = size
            self._staging.expect(size)
        self._tell(Progress(self.done_bytes + here, self._total, self._resumed, self._sources))
