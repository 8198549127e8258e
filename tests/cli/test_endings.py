"""However a command ends, a person sees no traceback: every command with every kind of wrong input, and then the ways
to end that only a process of its own has."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cli.inside import arguments, inside, leaves, options
from tests.cluster import Cluster, Outcome, atmo, eventually
from tests.inference.gguf_maker import write_parrot
from tools.docs import HEAD

DOCUMENTED = {int(code) for code in re.findall(r"^\| (\d+) \|", HEAD, re.MULTILINE)}
LEAVES = leaves()
NUMBERS = {"N", "X", "PORT", "SECONDS", "HOURS", "DAYS"}
SETTINGS = {"config set": ["node.name", "x"], "config unset": ["node.name"], "config get": ["node.name"]}
# What needs no configuration.
FREE = {"version", "eval routing"}


def refused(outcome: Outcome, what: str) -> None:
    """One clear message and a documented exit code; with --json the same as an object."""
    said = outcome.out + outcome.err
    assert outcome.code in DOCUMENTED, f"{what}: exit code {outcome.code}: {said}"
    assert "Traceback" not in said, f"{what}: {said}"
    assert "This is a bug" not in said, f"{what}: {said}"
    assert len(said.strip()) > 10, f"{what}: nothing is said"


@pytest.fixture
def alone(environ: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """No node, and no editor that would wait for a person."""
    monkeypatch.setenv("EDITOR", "false")
    return environ


def filled(command: Any, value: str = "x") -> list[str]:
    """As many arguments as it needs."""
    return [value for argument in arguments(command) if argument.required]


@pytest.mark.parametrize("name", LEAVES)
def test_a_wrong_command_line_is_answered_with_what_is_wrong(alone: dict[str, str], name: str) -> None:
    command = LEAVES[name]
    words = name.split()
    wrong = [[*words, "--nonsense"], [*words, "--jsn"]]
    if filled(command):
        wrong.append(words)
    if not any(argument.nargs == -1 for argument in arguments(command)) and not getattr(command, "commands", {}):
        wrong.append([*words, *filled(command), "one", "too", "many"])
    for option in command.params:
        if option.metavar in NUMBERS:
            wrong.append([*words, *filled(command), option.opts[0], "seven"])
    for line in wrong:
        outcome = inside(*line)
        refused(outcome, " ".join(line))
        assert outcome.code == 2, line
        assert "--help" in outcome.err, line
        assert inside(*line, "--json").json["error"]["message"], line


@pytest.mark.parametrize("name", [name for name in LEAVES if name not in FREE])
def test_a_mistake_in_the_configuration_is_named_by_every_command(
    alone: dict[str, str], name: str, tmp_path: Path
) -> None:
    file = tmp_path / "config.toml"
    file.write_text("[transprt]\nport = 1\n")
    line = [*name.split(), *SETTINGS.get(name, filled(LEAVES[name])), "--json"]
    outcome = inside(*line, given="hello", ATMO_CONFIG=str(file))
    if name == "config path":
        assert outcome.json == {"file": str(file), "exists": True}, "it is found although it is wrong"
        return
    refused(outcome, name)
    if name == "doctor":
        assert (outcome.code, outcome.json["healthy"]) == (1, False)
    elif name != "config edit":
        assert outcome.code == 2, name
        assert "Did you mean 'transport'?" in outcome.json["error"]["hint"], name


@pytest.mark.parametrize("name", [name for name in LEAVES if "--home" in options(LEAVES[name])])
def test_a_home_that_cannot_be_is_named(alone: dict[str, str], name: str, tmp_path: Path) -> None:
    """`--home` lies within a file."""
    (tmp_path / "file").write_text("")
    home = str(tmp_path / "file" / "home")
    line = [*name.split(), *SETTINGS.get(name, filled(LEAVES[name])), "--home", home]
    outcome = inside(*line)
    assert "Traceback" not in outcome.err
    assert "This is a bug" not in outcome.err, outcome.err
    assert outcome.code in {0, *DOCUMENTED}, line
    if name in ("mesh create", "mesh invite", "keys create", "config set", "config edit", "node start", "doctor"):
        assert outcome.code in (1, 2), line
        assert home in outcome.err + outcome.out, line


@pytest.mark.parametrize("name", [name for name in LEAVES if "--node" in options(LEAVES[name])])
def test_without_a_node_it_is_said_how_to_start_one(alone: dict[str, str], name: str) -> None:
    outcome = inside(*name.split(), *filled(LEAVES[name]), given="hello")
    if name.startswith("models"):
        assert outcome.code == 0, "what is here is shown without a node"
        return
    refused(outcome, name)
    assert outcome.code == 3, outcome.err
    assert "atmo node start" in outcome.err + outcome.out
    other = inside(*name.split(), *filled(LEAVES[name]), "--node", "nobody", given="hello")
    refused(other, name)
    assert other.code == 3
    assert "nobody" in other.err


@pytest.mark.parametrize("name", [name for name in LEAVES if "--node" in options(LEAVES[name])])
def test_a_runtime_folder_open_to_others_is_named(alone: dict[str, str], name: str) -> None:
    folder = Path(alone["ATMO_RUNTIME"])
    (folder / "nodes").mkdir(parents=True)
    (folder / "nodes").chmod(0o755)
    outcome = inside(*name.split(), *filled(LEAVES[name]), given="hello")
    refused(outcome, name)
    assert "chmod 700" in outcome.err


def test_options_of_a_group_before_a_command_are_not_passed_over_in_silence(alone: dict[str, str]) -> None:
    refused(outcome := inside("mesh", "--node", "x", "members"), "mesh --node x members")
    assert "atmo mesh members --node" in outcome.err


@pytest.mark.parametrize(
    ("line", "near"),
    [
        (("aks",), "'ask'"),
        (("mesh", "wach"), "'watch'"),
        (("ask", "--modle", "x"), "'--model'"),
        (("config", "get", "transport.prot"), "'transport.port'"),
        (("config", "set", "port", "1"), "'transport.port'"),
        (("node", "start", "--serve", "atmo-nono"), "'atmo-nano'"),
        (("node", "start", "--mode", "provder"), "'provider'"),
    ],
)
def test_typing_errors_are_answered_with_what_was_meant(
    alone: dict[str, str], line: tuple[str, ...], near: str
) -> None:
    outcome = inside(*line)
    refused(outcome, " ".join(line))
    assert f"Did you mean {near}?" in outcome.err


# What only a process of its own has


@pytest.fixture
def talker(environ: dict[str, str], tmp_path: Path) -> Iterator[Cluster]:
    """A node with a model that never ends by itself."""
    cluster = Cluster(Path(environ["ATMO_HOME"]).parent)
    cluster.start("default", "", "--serve", str(write_parrot(tmp_path / "parrot.gguf", context=32_768)))
    yield cluster
    cluster.stop_all()


def begun(*words: str, **streams: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "atmo", *words],
        stdin=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "COLUMNS": "200"},
        **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **streams},
    )


def ended(process: subprocess.Popen[str], patience_s: float = 20.0) -> tuple[int, str]:
    """Exit code and what was said on standard error."""
    try:
        _, said = process.communicate(timeout=patience_s)
    finally:
        process.kill()
        process.wait()
    assert "Traceback" not in said, said
    assert "Exception ignored" not in said, said
    return process.returncode, said


def test_ctrl_c_and_a_reader_that_has_enough(talker: Cluster) -> None:
    client = talker.client("default")
    for line, first in ((("ask", "sing"), 5), (("chat", "sing"), 5), (("mesh", "watch", "--json"), 20)):
        process = begun(*line)
        assert process.stdout is not None
        assert process.stdout.read(first), line
        process.send_signal(signal.SIGINT)
        assert ended(process) == (130, ""), line
        eventually(lambda: client.status()["capabilities"][0]["in_flight"] == 0, "the slot is free again")

    process = begun("ask", "sing", "--max-tokens", "5000")
    assert process.stdout is not None
    assert process.stdout.read(5)
    process.stdout.close()
    process.stdout = None
    assert ended(process) == (0, ""), "that is no error"


def test_closed_and_full_standard_output(environ: dict[str, str]) -> None:
    shell = f"{sys.executable} -m atmo"
    assert run(f"{shell} version >&-") == (0, "")
    assert run(f"{shell} version <&- >/dev/null") == (0, "")
    assert run(f"{shell} ask hello <&- 2>&-")[0] == 3
    assert run(f"{shell} config --all | true; exit ${{PIPESTATUS[0]}}") == (0, "")
    if Path("/dev/full").exists():
        for command in ("config --all", "version --json"):
            code, said = run(f"{shell} {command} >/dev/full")
            assert (code, "No space left on device" in said) == (1, True), (command, said)


def run(line: str) -> tuple[int, str]:
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=False, timeout=60)
    assert "Traceback" not in done.stderr, done.stderr
    assert "Exception ignored" not in done.stderr, done.stderr
    return done.returncode, done.stderr


def test_a_bug_is_said_in_one_line_and_where_it_is(environ: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    from atmo.cli import welcome

    empty: dict[str, str] = {}
    monkeypatch.setattr(welcome, "welcome", lambda: empty["nothing"])
    outcome = inside()
    assert outcome.code == 1
    assert "This is a bug: KeyError: 'nothing' (" in outcome.err
    assert "Traceback" not in outcome.err


def test_nothing_but_text_goes_into_a_pipe(environ: dict[str, str]) -> None:
    """No colours, no progress: where FORCE_COLOR asks for colours they come, with NO_COLOR they do not."""
    assert "\x1b" not in atmo("models").out
    assert "\x1b[2m" in atmo("models", FORCE_COLOR="1").out
    assert "\x1b[3" not in atmo("keys", FORCE_COLOR="1", NO_COLOR="1").out
