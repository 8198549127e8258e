"""`atmo config`: what holds and why, and a file that is changed only into one a node could start with."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.cli.inside import inside

FILE = """# Ours.
[transport]
port = 4700  # the firewall lets it through
"""


@pytest.fixture
def file(environ: dict[str, str]) -> Path:
    path = Path(environ["ATMO_HOME"]) / "config.toml"
    path.parent.mkdir()
    path.write_text(FILE)
    return path


def source(setting: str, *more: str, **environ: str) -> tuple[object, str]:
    told = inside("config", "get", setting, "--json", *more, **environ).json
    return told["value"], told["source"]


def test_each_setting_says_where_it_comes_from(file: Path, tmp_path: Path) -> None:
    assert source("transport.port") == (4700, str(file))
    assert source("transport.port", ATMO_TRANSPORT_PORT="4800") == (4800, "ATMO_TRANSPORT_PORT")
    assert source("node.mode") == ("participant", "default")
    assert source("home") == (str(file.parent), "ATMO_HOME")
    assert source("home", "--home", str(tmp_path)) == (str(tmp_path), "flag")
    shown = inside("config").out
    assert "transport.port" in shown
    assert "node.mode" not in shown, "only what is not as it comes"
    assert "node.mode" in inside("config", "--all").out


def test_a_setting_is_written_and_comments_stay(file: Path) -> None:
    assert (
        inside("config", "set", "node.labels", "residency=eu,tier=lab").out == "node.labels = residency=eu, tier=lab\n"
    )
    assert inside("config", "set", "discovery.lan", "true").code == 0
    assert inside("config", "set", "inference.idle_unload_s", "60").code == 0
    assert file.read_text().startswith(FILE)
    assert source("node.labels") == ({"residency": "eu", "tier": "lab"}, str(file))
    assert source("inference.idle_unload_s") == (60.0, str(file))
    assert inside("config", "unset", "transport.port").code == 0
    assert source("transport.port") == (0, "default")
    assert "was not set" in inside("config", "unset", "transport.port").out


def test_a_variable_that_beats_the_file_is_named(file: Path) -> None:
    told = inside("config", "set", "transport.port", "4900", ATMO_TRANSPORT_PORT="4800")
    assert told.out == "transport.port = 4800\n"
    assert "ATMO_TRANSPORT_PORT is set and beats the file." in told.err


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (("transport.port", "99999"), "99999 is not a port"),
        (("transport.port", "many"), "it is a whole number"),
        (("discovery.lan", "maybe"), "it is true or false"),
        (("node.mode", "particpant"), "Did you mean 'participant'?"),
        (("node.labels", "eu"), "is not a label"),
        (("node.nmae", "x"), "Did you mean 'node.name'?"),
        (("port", "1"), "Did you mean 'transport.port'?"),
        (("serve", "x"), "atmo config edit"),
        (("home", "/x"), "ATMO_HOME"),
    ],
)
def test_what_a_node_could_not_start_with_is_not_written(file: Path, line: tuple[str, ...], says: str) -> None:
    refused = inside("config", "set", *line)
    assert refused.code == 2
    assert says in refused.err
    assert file.read_text() == FILE
    assert os.listdir(file.parent) == ["config.toml"], "nothing is left behind"


def test_a_file_that_is_no_toml_is_named_and_not_touched(file: Path) -> None:
    file.write_text("port = [")
    for line in (("check",), ("set", "transport.port", "1"), ("get", "transport.port")):
        refused = inside("config", *line)
        assert refused.code == 2
        assert str(file) in refused.err
    assert file.read_text() == "port = ["
    assert inside("config", "path").out == f"{file}\n"


def test_the_editor_gets_a_file_to_begin_with_and_what_it_leaves_is_checked(
    environ: dict[str, str], tmp_path: Path
) -> None:
    file = Path(environ["ATMO_HOME"]) / "config.toml"
    editor = tmp_path / "editor"
    editor.write_text('#!/bin/sh\necho "[transprt]" >> "$1"\n')
    editor.chmod(0o755)
    wrong = inside("config", "edit", EDITOR=str(editor), VISUAL="")
    assert wrong.code == 2
    assert "Did you mean 'transport'?" in wrong.err
    assert "atmo config --all" in file.read_text()
    file.unlink()
    assert inside("config", "edit", EDITOR="true", VISUAL="").code == 0
    assert inside("config", "check").code == 0
    assert "There is no editor 'no-such-editor'" in inside("config", "edit", EDITOR="no-such-editor", VISUAL="").err


def test_settings_that_are_tables_are_shown_by_their_models(file: Path) -> None:
    file.write_text('[[serve]]\nmodel = "atmo-tone"\n[[runtimes]]\nurl = "http://127.0.0.1:1"\n')
    assert inside("config", "get", "serve").out == "atmo-tone\n"
    assert inside("config", "get", "runtimes").out == "http://127.0.0.1:1\n"
    assert json.loads(inside("config", "get", "serve", "--json").out)["value"][0]["model"] == "atmo-tone"
