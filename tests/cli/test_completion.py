"""What Tab offers, in real shells: commands, options, and names that only this machine knows."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from atmo.clock import SystemClock
from atmo.config import load
from atmo.ids import MeshId, Multiaddr
from atmo.node.home import open_home
from atmo.transport.neighbours import Neighbours, NodeCard
from tests.cli.inside import inside
from tests.inference.gguf_maker import write_parrot

# In each shell: source the completion, type `line`, print what is offered.
BASH = """
source <(atmo --show-completion)
COMP_WORDS=({line}); COMP_CWORD={last}
_atmo_completion atmo
printf '%s\\n' "${{COMPREPLY[@]}}"
"""
ZSH = """
autoload -Uz compinit; compinit -u -D
source <(atmo --show-completion)
_arguments() {{ print -r -- "$1" }}
words=({line}); CURRENT={place}
_atmo_completion
"""
FISH = """
atmo --show-completion | source
complete -C {quoted}
"""


@pytest.fixture
def shell(environ: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """`atmo` is a command, and a node called `attic` is announced as running."""
    program = tmp_path / "bin" / "atmo"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m atmo "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def offered(name: str, line: str) -> list[str]:
    """line: what is typed so far; a space at its end begins a new word."""
    if shutil.which(name) is None:
        pytest.skip(f"{name} is not installed")
    words = [*line.split(), *([""] if line.endswith(" ") else [])]
    script = {"bash": BASH, "zsh": ZSH, "fish": FISH}[name].format(
        line=" ".join(shlex.quote(word) for word in words),
        last=len(words) - 1,
        place=len(words),
        quoted=shlex.quote(line),
    )
    flags = {"zsh": ["-f"], "fish": ["--no-config"]}.get(name, ["--norc"])
    done = subprocess.run([name, *flags, "-c", script], capture_output=True, text=True, check=False, timeout=60)
    assert done.stderr == "", done.stderr
    if name == "zsh":  # *: :(("name":"what it is" ...))
        return re.findall(r'"([^"]+)"', done.stdout)
    return [line.split("\t")[0] for line in done.stdout.splitlines()]


@pytest.mark.parametrize("name", ["bash", "zsh", "fish"])
def test_commands_and_names_are_completed(shell: Path, name: str) -> None:
    assert {"mesh", "models"} <= set(offered(name, "atmo m"))
    home = open_home(load({"node.name": "attic"}), SystemClock())
    try:
        assert "attic" in offered(name, "atmo node logs --name a")
    finally:
        home.close()


def test_what_is_known_here_is_offered(environ: dict[str, str], tmp_path: Path) -> None:
    """As the shells ask for it, without a shell."""
    neighbours = Neighbours(Path(environ["ATMO_RUNTIME"]))
    peer = open_home(load({"node.name": "attic"}), SystemClock())
    peer.close()
    card = NodeCard(
        peer.identity.public,
        MeshId(peer.mesh),
        Multiaddr("127.0.0.1", 1, peer.identity.public),
        os.getpid(),
        "attic",
        "/x",
    )
    neighbours.announce(card)
    try:
        assert asked("atmo mesh --node ") == ["attic"]
        assert asked("atmo node logs --name at") == ["attic"]
        assert asked("atmo ask --model ") == [], "a node that does not answer is no matter for Tab"
    finally:
        neighbours.withdraw(peer.identity.public)
    assert asked("atmo node start --serve atmo-n") == ["atmo-nano"]
    assert asked("atmo node start --mode s") == ["standalone"]
    assert asked("atmo ask --type c") == ["chat", "classification"]
    assert asked("atmo ask --where min_") == ["min_context=", "min_tps="]
    assert asked("atmo config set transport.p") == ["transport.port"]
    write_parrot(tmp_path / "parrot.gguf")
    assert inside("models", "import", str(tmp_path / "parrot.gguf")).code == 0
    assert asked("atmo models pin p") == ["parrot"]
    inside("keys", "create", "--name", "app")
    assert asked("atmo keys revoke ") == ["app"]
    assert asked("atmo config set ", ATMO_TRANSPORT_PRT="1"), "a wrong setting is no matter for Tab, either"


def asked(line: str, **environ: str) -> list[str]:
    words = [*line.split(), *([""] if line.endswith(" ") else [])]
    done = subprocess.run(
        [sys.executable, "-m", "atmo"],
        capture_output=True,
        text=True,
        check=False,
        env={
            **os.environ,
            **environ,
            "_ATMO_COMPLETE": "complete_bash",
            "COMP_WORDS": "\n".join(words),
            "COMP_CWORD": str(len(words) - 1),
        },
    )
    assert done.stderr == "", done.stderr
    return done.stdout.split()
