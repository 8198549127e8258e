"""What `--json` prints is what docs/json.md says: every command is run with real nodes, and what it prints is read into
the types of atmo/cli/shapes, which know no other field."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from atmo.cli import shapes
from tests.cli.inside import inside, leaves, options
from tests.cluster import Cluster, Outcome, atmo
from tests.inference.gguf_maker import write_parrot

# A model that classifies, beside the one that chats.
TWO = '[[serve]]\nmodel = "atmo-nano"\n[[serve]]\nmodel = "atmo-tone"\n'


def shaped(command: str, outcome: Outcome) -> Any:
    """Its one object, as its type."""
    assert outcome.code == 0, outcome.err + outcome.out
    return msgspec.convert(json.loads(outcome.out), shapes.COMMANDS[command])


def said(command: str, *more: str, given: str = "") -> Any:
    return shaped(command, inside(*command.split(), *more, "--json", given=given))


def test_every_command_has_json_and_a_described_shape() -> None:
    commands = leaves()
    assert {name for name, command in commands.items() if "--json" not in options(command)} == set()
    described = {*shapes.COMMANDS, *shapes.ELSEWHERE}
    assert described - set(commands) == set(), "described, but not there"
    assert set(commands) - described == set(), "there, but not described in atmo/cli/shapes"


def test_every_option_and_argument_says_what_it_takes() -> None:
    for name, command in leaves().items():
        for parameter in command.params:
            flag = parameter.param_type_name == "option" and parameter.is_flag
            assert flag or re.fullmatch(r"[][A-Z.= ]+", parameter.metavar or ""), f"atmo {name}: {parameter.opts}"


def test_every_command_fits_into_the_list_of_commands() -> None:
    """In the terminal that everybody has: no description breaks off."""
    groups = {name.rpartition(" ")[0] for name in leaves()} | {"eval", "receipt"}
    cut = [line for group in sorted(groups) for line in inside(*group.split(), "--help", COLUMNS="80").out.splitlines()]
    assert [line for line in cut if line.endswith("...") and "Usage" not in line] == []


@pytest.fixture
def cluster(environ: dict[str, str]) -> Iterator[Cluster]:
    cluster = Cluster(Path(environ["ATMO_HOME"]).parent)
    yield cluster
    cluster.stop_all()


def test_what_real_nodes_say_has_the_described_shape(cluster: Cluster, environ: dict[str, str]) -> None:
    started = atmo("node", "start", "--json")
    assert shaped("node start", started).node.name == "default"
    cluster.pids["default"] = started.json["node"]["pid"]
    cluster.start("second", TWO)
    cluster.together()

    assert said("node").running
    assert said("node status", "--node", "second").node.name == "second"
    assert len(said("mesh").nodes) == 2
    assert said("models").served
    assert said("models list").local
    assert said("mesh members").owner
    answer = said("ask", "What is 2+2?", "--model", "atmo-nano")
    assert isinstance(answer.answer, str)
    labels = said("ask", "It broke after a day.", "--model", "atmo-tone")
    assert labels.answer[0][0] == "negative"
    assert isinstance(said("ask", "Hello", "--type", "classification").answer, list)
    assert said("explain", answer.done.request_id).lines
    assert said("route", "What is 2+2?").survey.known == 3
    talk = inside("chat", "--json", given="Hello\n\nWhat is 2+2?\n")
    lines = [msgspec.convert(json.loads(line), shapes.Said) for line in talk.out.splitlines()]
    assert [line.question for line in lines] == ["Hello", "What is 2+2?"]

    private = said("ask", "What is 2+2?", "--private", "--model", "atmo-nano")
    assert private.receipt["receipt"]["id"] == private.done.request_id
    assert said("receipt list").receipts[0].genuine
    assert said("receipt show", private.done.request_id).rule["local_only"]
    assert said("receipt verify", private.done.request_id).problems == []

    measured = said("bench", "--requests", "2", "--max-tokens", "8", "--model", "atmo-nano")
    assert [row.node for row in measured.nodes] == ["default", "second"]
    assert measured.hop.to == "second"
    invited = said("mesh invite")
    assert any(member.id for member in said("mesh members").invites)
    assert said("mesh revoke", said("mesh members").invites[0].id).kind == "invite"
    assert invited.token
    log = inside("node", "logs", "--json", "-n", "2")
    assert len([msgspec.convert(json.loads(line), shapes.LogLine) for line in log.out.splitlines()]) == 2
    assert sorted(said("node stop", "--all").stopped) == ["default", "second"]

    old = said("node rotate")
    assert old.revoked
    assert old.old != old.new


def test_what_needs_no_node_has_the_described_shape(environ: dict[str, str], tmp_path: Path) -> None:
    key = said("keys create", "--name", "app", "--model", "atmo-nano")
    assert [each.id for each in said("keys").keys] == [key.id]
    assert said("keys revoke", "app").revoked.revoked_s
    assert said("keys list").keys[0].revoked_s
    made = said("mesh create")
    assert made.mesh.startswith("12D3KooW")
    assert said("mesh leave").left is False
    token = said("mesh invite").token
    assert shaped("mesh join", inside("mesh", "join", token, "--json", "--home", str(tmp_path))).mesh == made.mesh
    assert said("version").version
    assert said("config path").exists is False
    assert said("config set", "transport.port", "4700").value == 4700
    assert said("config get", "transport.port").source.endswith("config.toml")
    assert said("config unset", "transport.port").source == "default"
    assert said("config check").serve == ["atmo-nano"]
    for command in ("config", "config show"):
        assert {setting.name for setting in said(command).settings} >= {"home", "serve", "gateway.port"}
    assert said("doctor").findings[0].check == "python"
    offers, texts = tmp_path / "offers.json", tmp_path / "texts.jsonl"
    offers.write_text('[{"id": "sums", "type": "chat", "description": "Adds numbers."}]')
    texts.write_text('{"text": "What is 2+2?", "expect": ["sums"]}\n{"text": "What is rain?", "expect": ["sums"]}\n')
    assert said("eval routing", "--capabilities", str(offers), "--intents", str(texts)).n == 2


def test_what_is_said_of_models_has_the_described_shape(environ: dict[str, str], tmp_path: Path) -> None:
    file = tmp_path / "parrot.gguf"
    write_parrot(file)
    assert said("models import", str(file)).new
    assert [model.name for model in said("models").local if model.shared is False]
    assert said("models inspect", "parrot").stored.name == "parrot"
    assert said("models inspect", "atmo-nano").stored is None
    assert said("models pin", "parrot").model.pinned
    assert said("models share", "parrot", "--only", "residency=eu").model.only == {"residency": "eu"}
    assert said("models where", "parrot").here
    assert said("models where", "atmo-nano").loose.embedded
    assert said("models verify").verified[0].bad == []
    assert said("models gc", "--dry-run").dry_run
    assert said("models pull", "parrot").from_ == ""
    assert [model.name for model in said("models rm", "parrot").removed] == ["parrot"]
    assert said("receipt list").receipts == []


def test_a_failure_has_the_described_shape(environ: dict[str, str]) -> None:
    failed = msgspec.convert(inside("ask", "hello", "--json").json, shapes.Failed)
    assert (failed.error.code, failed.error.hint) == ("node_not_running", "Start one: atmo node start")
    assert inside("node", "--json").json == {"running": False}
