"""What a node says, for the live view: a thread follows its events, another looks at the mesh, both come back when the
node was away. The view takes what has come when it has time for it."""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from atmo.cli.watch.story import MEMBERS, TRANSFERS
from atmo.client import SyncClient
from atmo.config import Config
from atmo.errors import AtmoError, NodeNotRunning

Json = dict[str, Any]
Item = tuple[str, Any]
"""`event`: an event; `mesh`: a report; `transfers`: a list; `decision`: (request id, lines); `lost`: why; `back`:
nothing."""

RETRY_S = 0.5
# After an event about a member the mesh is looked at again, but not sooner than this after the last look.
SOON_S = 0.2
# While nothing travels it is looked for transfers so seldom. Events tell of those that begin.
TRANSFERS_S = 5.0
# Items that the view has not taken yet; while it is paused the oldest fall out.
WAITING = 5000


class Feed:
    """`connect` finds the node, anew each time since it may have moved; `wake` is called when something came.

    Both threads end with the process; `close` ends them sooner, within a pulse of the node.
    """

    def __init__(self, connect: Callable[[], SyncClient], wake: Callable[[], None], interval_s: float) -> None:
        self._connect = connect
        self._wake = wake
        self._interval_s = interval_s
        self._items: deque[Item] = deque(maxlen=WAITING)
        self._lock = threading.Lock()
        self._look = threading.Event()
        self._wanted: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._closed = threading.Event()
        self._travels = threading.Event()
        self._travels.set()
        self._looked_s = 0.0
        self._threads = [
            threading.Thread(target=work, name=f"watch-{work.__name__.strip('_')}", daemon=True)
            for work in (self._follow, self._poll)
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        self._closed.set()
        self._look.set()

    def join(self, timeout_s: float) -> bool:
        """Wait for the threads after `close`. False if one still runs."""
        for thread in self._threads:
            thread.join(timeout_s)
        return not any(thread.is_alive() for thread in self._threads)

    def want_decision(self, request_id: str) -> None:
        """Ask the node why a request went where it went; comes as an item."""
        self._wanted.put(request_id)
        self._look.set()

    def take(self) -> list[Item]:
        """What came since the last time."""
        with self._lock:
            taken = list(self._items)
            self._items.clear()
        return taken

    def _put(self, kind: str, value: Any = None) -> None:
        with self._lock:
            self._items.append((kind, value))
        self._wake()

    def _follow(self) -> None:
        since = 0
        while not self._closed.is_set():
            try:
                for event in self._connect().events(since):
                    since = event["seq"]
                    self._put("event", event)
                    if event["event"] in TRANSFERS:
                        self._travels.set()
                    if event["event"] in MEMBERS or event["event"] == "transfer_began":
                        self._look.set()
                    if self._closed.is_set():
                        return
            except (AtmoError, ValueError):
                pass  # the other thread meets the same trouble and tells it
            self._closed.wait(RETRY_S)

    def _poll(self) -> None:
        lost = False
        while not self._closed.is_set():
            try:
                client = self._connect()
                self._put("mesh", client.mesh())
                self._look_for_transfers(client)
                if lost:
                    self._put("back")
                lost = False
                self._decide(client)
            except (AtmoError, ValueError) as error:
                lost = True
                self._put("lost", getattr(error, "message", "The node's answer cannot be read."))
            self._closed.wait(min(SOON_S, self._interval_s))
            self._look.wait(RETRY_S if lost else max(0.0, self._interval_s - SOON_S))
            self._look.clear()

    def _look_for_transfers(self, client: SyncClient) -> None:
        """A node of an earlier version has none, and says so by an error."""
        if not self._travels.is_set() and time.monotonic() < self._looked_s + TRANSFERS_S:
            return
        self._travels.clear()
        self._looked_s = time.monotonic()
        try:
            transfers = client.transfers()
        except NodeNotRunning:
            raise
        except AtmoError:
            return
        if any(transfer.state == "running" for transfer in transfers):
            self._travels.set()
        self._put("transfers", transfers)

    def _decide(self, client: SyncClient) -> None:
        while True:
            try:
                request_id = self._wanted.get_nowait()
            except queue.Empty:
                return
            try:
                self._put("decision", (request_id, client.explain(request_id)["lines"]))
            except AtmoError as error:
                self._put("decision", (request_id, [error.message]))


def finder(config: Config, node: str) -> Callable[[], SyncClient]:
    """Find the node of this name again and again; without a name the one that answers first, and then that one."""
    first = SyncClient(config, node=node)
    name = node or str(first.status()["node"]["name"])
    return lambda: SyncClient(config, node=name)
