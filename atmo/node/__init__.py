"""The node a user starts: home, mesh, engines, encoder, discovery and API put together."""

from __future__ import annotations

from atmo.node.node import Node

__all__ = ["Node"]
