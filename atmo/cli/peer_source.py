"""Models from peers: the running node fetches them, and this says how far it is. See atmo/models/pulling.py.

A file of the hub that peers say they have is fetched from them and compared with the hash by which the hub names it:
what they say decides where the bytes come from, never what they are. With `--from peers` no hub is asked, and their
word counts.
"""

from __future__ import annotations

import time
from typing import Any

from atmo.client import SyncClient, running_nodes
from atmo.config import Config
from atmo.errors import AtmoError, ModelDamaged, ModelNotFound, PeerUnreachable, TransportError, UsageError
from atmo.models.hub import HubSource, Named
from atmo.models.pulling import Progress, Tell, find_here
from atmo.models.records import StoredModel
from atmo.models.reference import Reference, parse
from atmo.models.store import Store

# Looks at the node a second.
_LOOKS = 5
# Claims that turn out wrong before the hub itself is asked for the bytes: each costs a transfer. A guess.
_WRONG = 2


class PeerSource:
    """node: the local node of this name, "" for any that runs; hub: what knows the hashes of its files, None where the
    word of peers counts."""

    label = "peers"

    def __init__(self, config: Config, node: str = "", hub: HubSource | None = None) -> None:
        self._config = config
        self._node = node
        self._hub = hub

    def fetch(self, wanted: Reference, name: str, store: Store, tell: Tell) -> StoredModel | None:
        if wanted.kind not in ("name", "hub") or not (self._node or running_nodes(self._config)):
            return None
        client = SyncClient(self._config, node=self._node)
        if client.status()["node"]["home"] != str(self._config.home):
            return None  # what it fetches lands elsewhere
        if wanted.kind == "hub":
            claims = [seed for seed in client.models()["seeds"] if seed["complete"] and _of_repo(wanted, seed)]
            if not claims:
                return None
            if self._hub is None:
                return self._believed(client, wanted, name, store, tell, claims)
            return self._checked(client, self._named(self._hub, wanted, claims), name, store, tell, claims)
        try:
            root = bytes.fromhex(client.fetch(wanted.root.hex() if wanted.root else wanted.value)["root"])
        except ModelNotFound:
            return None
        _watch(client, root, tell)
        return store.mark(root, name=name) if name else store.get(root)

    def _believed(
        self, client: SyncClient, wanted: Reference, name: str, store: Store, tell: Tell, claims: list[dict[str, Any]]
    ) -> StoredModel | None:
        """Raises UsageError where peers say different things."""
        fitting = [seed for seed in claims if wanted.means("", b"", seed["source"])]
        meant = {(seed["source"], seed["root"]) for seed in fitting}
        if len({root for _, root in meant}) > 1:
            found = ", ".join(f"{source} ({root[:12]})" for source, root in sorted(meant))
            raise UsageError(f"Peers have several that may be meant: {found}.", hint="Name one by its root.")
        if not fitting:
            return None
        root = bytes.fromhex(fitting[0]["root"])
        if not store.has(root):
            _bring(client, root, tell)
        return store.mark(root, name=name) if name else store.get(root)

    def _named(self, hub: HubSource, wanted: Reference, claims: list[dict[str, Any]]) -> Named:
        try:
            return hub.look_up(wanted)
        except TransportError as error:
            error.hint = f"{_nodes(claims)} may have it; to take the word of peers for that: --from peers."
            raise

    def _checked(
        self, client: SyncClient, named: Named, name: str, store: Store, tell: Tell, claims: list[dict[str, Any]]
    ) -> StoredModel | None:
        """Raises ModelDamaged where peers had other bytes than the hub names."""
        here = find_here(named.reference, store)
        if here is not None:
            return here
        fitting = [
            seed
            for seed in claims
            if named.place.means("", b"", seed["source"]) and seed["size_bytes"] == named.size_bytes
        ]
        fitting.sort(key=lambda seed: seed["source"] != named.reference.source)  # of this very commit first
        wrong: list[str] = []
        for root in list(dict.fromkeys(seed["root"] for seed in fitting))[: _WRONG if named.hashed else 0]:
            key = bytes.fromhex(root)
            fresh = not store.has(key)
            if fresh:
                _bring(client, key, tell)
            if named.is_(store.get(key)):
                return _called(store, key, name or named.chosen.name, named.reference.source, strict=bool(name))
            if fresh:
                store.remove(key)
            wrong.append(_nodes([seed for seed in fitting if seed["root"] == root]))
        if wrong:
            raise ModelDamaged(
                f"{' and '.join(wrong)} gave other bytes than those that the hub calls {named.reference.source}. "
                "They were not kept."
            )
        return None


def _of_repo(wanted: Reference, seed: dict[str, Any]) -> bool:
    try:
        claimed = parse(seed["source"]) if seed["source"] else None
    except UsageError:
        return False
    return claimed is not None and claimed.kind == "hub" and claimed.repo.lower() == wanted.repo.lower()


def _nodes(claims: list[dict[str, Any]]) -> str:
    return ", ".join(sorted({seed["node"] for seed in claims}))


def _called(store: Store, root: bytes, name: str, source: str, *, strict: bool) -> StoredModel:
    """Remember what it is. strict: by this name or not at all. Raises UsageError."""
    try:
        return store.mark(root, name=name or None, source=source)
    except UsageError:
        if strict:
            raise
        return store.mark(root, source=source)  # another model has the name


def _bring(client: SyncClient, root: bytes, tell: Tell) -> None:
    client.fetch(root.hex())
    _watch(client, root, tell)


def _watch(client: SyncClient, wanted: bytes, tell: Tell) -> None:
    """Until it is here. Raises what made it fail. Stopped by a person, it is stopped at the node, too."""
    resumed_bytes, root = -1, wanted.hex()
    try:
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
    except KeyboardInterrupt:
        client.stop_fetch(root)
        raise


def _find(client: SyncClient, root: str) -> dict[str, Any]:
    for shown in client.transfers():
        if shown["root"] == root and shown["direction"] == "in":
            return shown
    raise AtmoError("The node does not know of the transfer any more.", hint="Was it restarted? Pull it again.")
