"""What `atmo mesh` shows of nodes that are well, doubted and dead."""

from __future__ import annotations

from typing import Any

from rich.console import Console

from atmo.cli import views


def node(name: str, state: str) -> dict[str, Any]:
    return {
        "name": name, "state": state, "self": state == "self", "linked": state == "linked",
        "rtt_ms": None, "labels": {}, "capabilities": [],
    }  # fmt: skip


def test_each_node_shows_how_it_is() -> None:
    report = {
        "mesh": "12D3KooWmesh",
        "nodes": [
            node("here", "self"),
            node("friend", "linked"),
            node("mute", "suspect"),
            node("far", "lost"),
            node("heard", "known"),
        ],
        "dead": [{"name": "gone", "state": "dead", "labels": {}}],
        "alone": "",
        "problems": [],
    }
    console = Console(width=100, record=True, file=None, force_terminal=False)
    with console.capture() as capture:
        console.print(views.mesh(report))

    shown = {line.split()[0]: line for line in capture.get().splitlines() if line.strip()}
    assert "this node" in shown["here"]
    assert "linked" in shown["friend"]
    assert "suspect" in shown["mute"]
    assert "lost" in shown["far"]
    assert "dead" in shown["gone"]
    assert "known" in shown["heard"]
    assert "5 nodes" in capture.get()  # the dead are not counted
