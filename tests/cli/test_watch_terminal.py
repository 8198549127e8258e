"""`atmo mesh watch` in a real terminal (tmux): what a person sees who presses keys, resizes, quits, loses the node."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.invented import InventedNode
from tests.cli.terminal import ATMO, Terminal, terminal
from tests.cluster import atmo

needs_tmux = pytest.mark.skipif(shutil.which("tmux") is None, reason="tmux is not installed")
WATCH = f"{ATMO} mesh watch"


@pytest.fixture
def node(environ: dict[str, str]) -> Iterator[InventedNode]:
    """A node in a mesh of 200, the same each time."""
    invented = InventedNode(200)
    yield invented
    invented.close()


@pytest.fixture
def screen(environ: dict[str, str]) -> Iterator[Terminal]:
    folder = Path(environ["ATMO_HOME"]).parent
    with terminal(folder) as opened:
        yield opened


@needs_tmux
def test_a_person_looks_around_and_quits(node: InventedNode, screen: Terminal) -> None:
    screen.run(f"stty -g > before; {WATCH}; stty -g | diff before -")
    shown = screen.shows("● live", "200 nodes", "laptop", "attic ✗ → desk", "EVENTS")
    assert len(shown.rstrip("\n").splitlines()) == 24
    screen.press("2")
    screen.shows("node-018")
    screen.press("End")
    screen.shows("node-199")
    screen.press("s", "s")
    screen.shows("by state", "gone")
    screen.press("/")
    screen.tmux("send-keys", "-l", "suspect")
    screen.press("Enter")
    screen.shows("filter: suspect", "node-066", "1/2")
    screen.press("Enter")
    screen.shows("12D3KooW", "GiB", "Esc back")
    screen.press("Escape")
    screen.shows("1/2")
    screen.press("Escape", "4", "Down", "Enter")
    screen.shows("attic ✗ → desk", "Request 0003 is invented")
    screen.press("Escape", "7")
    screen.shows("qwen2.5-7b", "42%", "112 MB/s", "24 s")
    screen.press("Enter")
    screen.shows("2.0 GB of 4.7 GB", "From", "desk")
    screen.press("?")
    screen.shows("Keys")
    screen.press("x", "p")
    screen.shows("paused")
    screen.press("Space")
    screen.shows("● live")
    screen.press("1")
    wide = screen.resize(120, 35, "REQUESTS", "EVENTS", "│")  # wide screens put them beside each other
    assert len(wide.rstrip("\n").splitlines()) == 35
    screen.press("q")
    screen.shows("ended with 0")
    assert not screen.full_screen


@needs_tmux
def test_ctrl_c_leaves_the_terminal_as_it_was(node: InventedNode, screen: Terminal) -> None:
    screen.run(f"stty -g > before; {WATCH}; stty -g | diff before -")
    screen.shows("● live")
    assert screen.full_screen
    screen.press("C-c")
    assert "Traceback" not in screen.shows("ended with 0")
    assert not screen.full_screen


@needs_tmux
def test_a_node_that_dies_is_missed_and_found_again(node: InventedNode, screen: Terminal) -> None:
    screen.run(WATCH)
    screen.shows("● live", "laptop")
    node.end()
    screen.shows("Reconnecting", "laptop")
    node.start()
    screen.shows("● live", "laptop")
    node.process.send_signal(signal.SIGSTOP)
    try:
        screen.shows("says nothing")
    finally:
        node.process.send_signal(signal.SIGCONT)
    screen.shows("● live")
    screen.press("q")
    screen.shows("ended with 0")


def test_without_a_terminal_there_is_one_picture(node: InventedNode) -> None:
    piped = atmo("mesh", "watch", COLUMNS="100")
    assert piped.code == 0
    assert "no terminal" in piped.err
    assert "\x1b" not in piped.out
    assert "node-199" in piped.out
    asked = atmo("mesh", "watch", "--once", COLUMNS="100")
    assert asked.err == ""
    assert len(asked.out.splitlines()) == len(piped.out.splitlines())


def test_events_for_programs(node: InventedNode) -> None:
    lines = atmo("mesh", "watch", "--json", "--once").out.splitlines()
    events = [json.loads(line) for line in lines]
    assert [event["event"] for event in events][:2] == ["joined", "joined"]
    seqs = [event["seq"] for event in events]
    assert seqs == sorted(set(seqs))
    followed = atmo("mesh", "watch", "--json", "--seconds", "1.2").out.splitlines()
    assert followed == lines, "it goes on until its time is over, and nothing else happened"


@needs_tmux
@pytest.mark.timeout(240)  # twenty seconds where the machine is not busy with other things
def test_a_partition_is_seen_live(tmp_path: Path) -> None:
    """Joins, suspicion, death and return on the screen, in this order, with real nodes (examples/partition.py)."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("ATMO_")}
    folder = Path("/tmp") / f"atmo-tmux-{os.getpid()}"  # a socket's path must be short
    folder.mkdir()
    try:
        with pytest.MonkeyPatch.context() as patch, terminal(folder, 100, 30) as screen:
            for name in os.environ.keys() - environ.keys():
                patch.delenv(name)
            screen.run(f"{sys.executable} -m examples.partition")
            screen.shows("● live", "3 nodes", "desk", "joined", patience_s=100.0)
            screen.shows("4 nodes", "attic")
            for word, state in (("lost", "desk"), ("suspect", "● suspect"), ("dead", "● dead"), ("back", "● linked")):
                shown = screen.shows(word, state, "desk")
            words = [line.split()[1:3] for line in shown.splitlines() if len(line.split()) > 2]
            told = [word for word, name in words if name == "desk" and word in ("back", "dead", "suspect", "lost")]
            assert told == ["back", "dead", "suspect", "lost"], shown
            screen.shows("ended with 0", "desk was cut off")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
