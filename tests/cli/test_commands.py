"""The command line as a person meets it: quick help, one clear line for each mistake, never a traceback."""

from __future__ import annotations

import json
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster import Cluster, Outcome, atmo, eventually
from tests.inference.gguf_maker import write_parrot

NANO = '[[serve]]\nmodel = "atmo-nano"\n'


@pytest.fixture
def cluster(environ: dict[str, str]) -> Iterator[Cluster]:
    cluster = Cluster(Path(environ["ATMO_HOME"]).parent)
    yield cluster
    cluster.stop_all()


def refused(outcome: Outcome, *words: str, code: int) -> None:
    """One or two lines on standard error: what, why, what to do. Nothing on standard output."""
    said = " ".join(outcome.err.split())
    assert outcome.code == code, said
    assert "Traceback" not in outcome.err
    assert outcome.out == ""
    for word in words:
        assert word in said
    assert len(outcome.err.strip().splitlines()) <= 4


def test_help_names_every_command() -> None:
    outcome = atmo("--help")
    assert outcome.code == 0
    for command in ("node", "ask", "route", "explain", "mesh", "models", "doctor", "version"):
        assert command in outcome.out


def test_a_typo_in_a_command_is_answered_with_a_suggestion() -> None:
    outcome = atmo("aks", "Hello")
    assert outcome.code == 2
    assert "'ask'" in outcome.err


def test_without_a_node_every_command_says_how_to_start_one(environ: dict[str, str]) -> None:
    for command in (("ask", "Hi"), ("route", "Hi"), ("mesh",), ("node", "stop"), ("explain", "00")):
        refused(atmo(*command), "No node is running", "atmo node start", code=3)
    assert atmo("node", "status").code == 3
    assert atmo("node", "stop", "--all").code == 0


def test_errors_are_json_where_json_was_asked_for(environ: dict[str, str]) -> None:
    outcome = atmo("ask", "--json", "Hi")
    assert outcome.json["error"]["code"] == "node_not_running"
    assert outcome.code == 3


def test_an_empty_prompt_is_refused(environ: dict[str, str]) -> None:
    refused(atmo("ask", "  ", given=""), "prompt is empty", code=2)
    refused(atmo("ask", given=""), "prompt is empty", code=2)


def test_a_life_of_a_node(cluster: Cluster, environ: dict[str, str]) -> None:
    """Start, ask in several ways, look around, stop."""
    cluster.start("default")
    answer = atmo("ask", "What is 2+2?")
    assert answer.code == 0
    assert answer.out.strip()
    assert answer.err == "", "who answered is for people at a terminal"

    piped = atmo("ask", "What is", given="2+2?").out
    assert piped.strip()

    whole = atmo("ask", "--json", "What is 2+2?").json
    assert whole["answer"] == answer.out.rstrip("\n")
    assert whole["done"]["node"] == "default"
    explained = atmo("explain", whole["done"]["request_id"])
    assert "atmo:chat:atmo-nano" in explained.out
    assert "path" in atmo("ask", "--explain", "Hello").out

    routed = atmo("route", "What is 2+2?", "--json").json
    assert routed["chosen"]["capability"] == "atmo:chat:atmo-nano"
    assert "service" in atmo("route", "What is 2+2?").out

    alone = atmo("mesh").out
    assert "default" in alone
    assert "listens on 127.0.0.1 only" in alone, "nothing found is said, with the reason"
    assert "default" in atmo("mesh", "watch", "--seconds", "0.3").out
    models = atmo("models", "list", "--json").json
    assert {"atmo-nano", "atmo-tone", "atmo-encoder"} <= {model["name"] for model in models["local"]}
    assert models["served"][0]["nodes"] == ["default"]
    assert atmo("doctor").code == 0

    again = atmo("node", "start")
    refused(again, "runs already", "--name", code=2)
    stopped = atmo("node", "stop")
    assert (stopped.code, stopped.out) == (0, "Stopped default.\n")
    assert not list(Path(environ["ATMO_RUNTIME"]).glob("*.sock"))


def test_secrets_are_private_and_prompts_are_not_logged(cluster: Cluster, environ: dict[str, str]) -> None:
    client = cluster.start("default", "", "--label", "residency=eu")
    assert client.ask("tell me about the zebracanary", timeout_s=30).text
    home = Path(environ["ATMO_HOME"])
    for key in home.rglob("*.key"):
        assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert "started" in (home / "nodes/default/node.log").read_text()
    for file in home.rglob("*"):
        if file.is_file():
            assert b"zebracanary" not in file.read_bytes(), file
    for made in Path(environ["ATMO_RUNTIME"]).glob("*.sock"):
        assert stat.S_IMODE(made.stat().st_mode) == 0o600


def test_a_port_in_use_is_named(environ: dict[str, str]) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        refused(atmo("node", "start", "--port", str(port)), str(port), "taken", "--port", code=4)


def test_a_home_that_cannot_be_written_is_named(environ: dict[str, str], tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("not a folder")
    refused(atmo("node", "start", "--home", str(file / "home")), str(file), "ATMO_HOME", code=2)


def test_a_runtime_folder_open_to_others_is_refused(environ: dict[str, str]) -> None:
    folder = Path(environ["ATMO_RUNTIME"])
    folder.mkdir(mode=0o755)
    folder.chmod(0o755)
    refused(atmo("node", "start"), "open to other", "chmod 700", code=2)


@pytest.mark.parametrize(
    ("text", "words", "code"),
    [
        ("[transprt]\nport = 1\n", ("transprt", "Did you mean 'transport'"), 2),
        ('[[serve]]\nmodel = "atmo-nono"\n', ("atmo-nono", "Did you mean 'atmo-nano'"), 7),
        ('[[serve]]\nmodel = "/nowhere/x.gguf"\n', ("/nowhere/x.gguf", "Check the path"), 7),
        ('[discovery]\nseeds = ["192.168.1.4:4600"]\n', ("not an address", "/ip4/"), 2),
        (NANO + NANO, ("served twice", "another name"), 2),
    ],
)
def test_a_mistake_in_the_configuration_stops_the_start(
    environ: dict[str, str], tmp_path: Path, text: str, words: tuple[str, ...], code: int
) -> None:
    file = tmp_path / "config.toml"
    file.write_text(text)
    refused(atmo("node", "start", "--config", str(file)), *words, code=code)


def test_a_truncated_model_is_refused_before_an_engine_sees_it(environ: dict[str, str], tmp_path: Path) -> None:
    whole = Path(__file__).parents[2] / "atmo/assets/nano/atmo-nano.gguf"
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    refused(atmo("node", "start", "--serve", str(cut)), "cut.gguf", code=7)
    text = tmp_path / "text.gguf"
    text.write_text("hello")
    refused(atmo("node", "start", "--serve", str(text)), "text.gguf", code=7)


def test_a_hostile_model_kills_its_worker_and_not_the_node(cluster: Cluster, tmp_path: Path) -> None:
    hostile = write_parrot(tmp_path / "hostile.gguf", epsilon=-1.0)
    client = cluster.start("default", "", "--serve", str(hostile), "--serve", "atmo-nano")
    states = {served["id"]: served for served in client.status()["capabilities"]}
    bad = states["atmo:chat:hostile"]
    assert bad["state"] == "failed"
    assert "hostile.gguf" in bad["detail"]
    assert client.ask("What is 2+2?", timeout_s=30).finish
    doctor = atmo("doctor")
    assert doctor.code == 1
    assert "hostile" in doctor.out


def test_the_doctor_names_what_is_wrong(environ: dict[str, str], tmp_path: Path) -> None:
    healthy = atmo("doctor", "--json").json
    assert healthy["healthy"]
    bad = atmo("doctor", "--json", ATMO_TRANSPORT_PRT="1")
    assert bad.code == 1
    assert "ATMO_TRANSPORT_PORT" in json.dumps(bad.json)
    file = tmp_path / "file"
    file.write_text("")
    assert atmo("doctor", "--home", str(file / "home")).code == 1


def test_ctrl_c_ends_a_foreground_node_cleanly(environ: dict[str, str]) -> None:
    import signal
    import subprocess
    import sys

    process = subprocess.Popen(
        [sys.executable, "-m", "atmo", "node", "start", "--foreground"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=dict(os.environ),
    )
    try:
        eventually(lambda: atmo("node", "status").code == 0, "the node is up")
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=20)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 0
    assert "Traceback" not in out
    assert "is up" in out
