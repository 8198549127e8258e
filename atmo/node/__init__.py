"""The node a user starts: home, mesh, engines, encoder, discovery and API put together."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from atmo.node.node import Node as Node

__all__ = ["Node"]


def __getattr__(name: str) -> Any:
    """Import on first use: `atmo mesh invite` needs the membership alone."""
    if name == "Node":
        from atmo.node.node import Node

        return Node
    raise AttributeError(f"module 'atmo.node' has no attribute {name!r}")
