"""Atmosphere: a decentralised AI mesh. `Client` and `SyncClient` ask, `Node` serves, `Config` configures; errors are in
`atmo.errors`, options and results in `atmo.client`."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from atmo.client import Client as Client
    from atmo.client import SyncClient as SyncClient
    from atmo.config import Config as Config
    from atmo.node import Node as Node

__version__ = "0.1.0"
__all__ = ["Client", "Config", "Node", "SyncClient", "__version__"]

_HOMES = {"Client": "atmo.client", "SyncClient": "atmo.client", "Config": "atmo.config", "Node": "atmo.node"}


def __getattr__(name: str) -> Any:
    """Import on first use: `import atmo` and `atmo --help` must not pay for engines and sockets."""
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'atmo' has no attribute {name!r}")
