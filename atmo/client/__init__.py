"""Talk to a node, from a script, a program or the command line: `SyncClient` waits, `Client` awaits.

    options.py ──> calls.py ──> exchange.py (HTTP without a socket) ──┬─> blocking.py: SyncClient
    what is said   what is asked             ^ address.py             └─> waiting.py: Client ──> batch.py
    results.py <── what is told

A node of this user listens on a Unix socket in the runtime folder, which only this user can open; the client finds it
by itself. Import stays light, for the command line pays for it: asyncio comes with `Client` only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from atmo.client.address import find_socket, running_nodes
from atmo.client.blocking import SyncClient, SyncStream
from atmo.client.options import Filters, Job, Message, Options
from atmo.client.results import (
    Answer,
    Decision,
    Embeddings,
    Event,
    Mesh,
    Model,
    Models,
    NodeView,
    Outcome,
    Report,
    Status,
    Step,
)

if TYPE_CHECKING:
    from atmo.client.waiting import Client as Client
    from atmo.client.waiting import Stream as Stream

__all__ = [
    "Answer",
    "Client",
    "Decision",
    "Embeddings",
    "Event",
    "Filters",
    "Job",
    "Mesh",
    "Message",
    "Model",
    "Models",
    "NodeView",
    "Options",
    "Outcome",
    "Report",
    "Status",
    "Step",
    "Stream",
    "SyncClient",
    "SyncStream",
    "find_socket",
    "running_nodes",
]


def __getattr__(name: str) -> Any:
    if name in ("Client", "Stream"):
        from atmo.client import waiting

        return getattr(waiting, name)
    raise AttributeError(f"module 'atmo.client' has no attribute {name!r}")
