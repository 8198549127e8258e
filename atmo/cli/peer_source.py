"""Models from peers: the running node fetches them, and this says how far it is. See atmo/models/pulling.py."""

from __future__ import annotations

import time
from typing import Any

from atmo.client import SyncClient, running_nodes
from atmo.config import Config
from atmo.errors import AtmoError, ModelNotFound, PeerUnreachable
from atmo.models.pulling import Progress, Tell
from atmo.models.records import StoredModel
from atmo.models.reference import Reference
from atmo.models.store import Store

# Looks at the node a second.
_LOOKS = 5


class PeerSource:
    """node: the local node of this name, "" for any that runs."""

    label = "peers"

    def __init__(self, config: Config, node: str = "") -> None:
        self._config = config
        self._node = node

    def fetch(self, wanted: Reference, name: str, store: Store, tell: Tell) -> StoredModel | None:
        if wanted.kind != "name" or not (self._node or running_nodes(self._config)):
            return None
        client = SyncClient(self._config, node=self._node)
        if client.status()["node"]["home"] != str(self._config.home):
            return None  # what it fetches lands elsewhere
        try:
            begun = client.fetch(wanted.root.hex() if wanted.root else wanted.value)
        except ModelNotFound:
            return None
        try:
            _watch(client, begun["root"], tell)
        except KeyboardInterrupt:
            client.stop_fetch(begun["root"])
            raise
        root = bytes.fromhex(begun["root"])
        return store.mark(root, name=name) if name else store.get(root)


def _watch(client: SyncClient, root: str, tell: Tell) -> None:
    """Until it is here. Raises what made it fail."""
    resumed_bytes = -1
    while True:
        shown = _find(client, root)
        done, total = shown["bytes_done"], shown["bytes_total"]
        sent = sum(source["bytes"] for source in shown["sources"])
        resumed_bytes = done - sent if resumed_bytes < 0 else resumed_bytes
        tell(Progress(done, total, max(0, resumed_bytes), tuple(source["name"] for source in shown["sources"])))
        if shown["state"] == "done":
            return
        if shown["state"] == "failed":
            raise PeerUnreachable(shown["error"], hint="What is here is kept; pull it again to go on.")
        time.sleep(1 / _LOOKS)


def _find(client: SyncClient, root: str) -> dict[str, Any]:
    for shown in client.transfers():
        if shown["root"] == root and shown["direction"] == "in":
            return shown
    raise AtmoError("The node does not know of the transfer any more.", hint="Was it restarted? Pull it again.")
