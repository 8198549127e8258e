"""`atmo models ...` as a person meets it, without a node and with one."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gguf
import msgspec
import pytest

from atmo.cli import shapes
from atmo.models.manifest import CHUNK_BYTES
from atmo.models.partial import WINDOW_CHUNKS
from atmo.models.staging import incoming
from atmo.models.store import Store
from tests.cli.inside import inside
from tests.cli.test_commands import refused
from tests.cluster import Cluster, Outcome, atmo, eventually
from tests.inference.gguf_maker import song, write_parrot
from tests.models.hub_server import Hub, running
from tests.models.stores import noise

LARGE = noise(1, 1 << 16) * 16 * 80  # two windows and a half


@pytest.fixture
def hub(environ: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with running(Hub()) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.endpoint)
        monkeypatch.setenv("HF_HUB_DISABLE_TELEMETRY", "1")
        yield server


@pytest.fixture
def cluster(environ: dict[str, str]) -> Iterator[Cluster]:
    cluster = Cluster(Path(environ["ATMO_HOME"]).parent)
    yield cluster
    cluster.stop_all()


def told(run: Callable[..., Outcome], command: str, *more: str) -> Any:
    """What a command says as JSON, which is of the type that docs/json.md describes."""
    outcome = run("models", command, *more, "--json")
    assert outcome.code == 0, outcome.err + outcome.out
    msgspec.convert(outcome.json, shapes.COMMANDS[f"models {command}"])
    return outcome.json


def home_store(environ: dict[str, str]) -> Store:
    return Store(Path(environ["ATMO_HOME"]) / "models" / "store")


def split(path: Path) -> list[Path]:
    """A GGUF file in two parts, as llama.cpp's gguf-split makes them: all keys in the first, its tensors in both."""
    reader = gguf.GGUFReader(path)
    names = [path.with_name(f"{path.stem}-{number:05}-of-00002.gguf") for number in (1, 2)]
    half = len(reader.tensors) // 2
    for number, tensors in enumerate((reader.tensors[:half], reader.tensors[half:])):
        writer = gguf.GGUFWriter(names[number], "llama")
        for key, field in reader.fields.items() if number == 0 else ():
            if not key.startswith("GGUF.") and key != "general.architecture":
                kind = field.types[0]
                inner = field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None
                writer.add_key_value(key, field.contents(), kind, inner)
        writer.add_uint16("split.no", number)
        writer.add_uint16("split.count", 2)
        writer.add_int32("split.tensors.count", len(reader.tensors))
        for tensor in tensors:
            writer.add_tensor(tensor.name, tensor.data)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
    return names


def test_a_split_model_is_imported_served_by_name_and_safe_while_it_is(
    environ: dict[str, str], cluster: Cluster, tmp_path: Path
) -> None:
    first, _ = split(write_parrot(tmp_path / "Parrot.gguf"))
    taken = told(atmo, "import", str(first), "--name", "Polly")
    assert taken["new"]
    root = taken["model"]["root"]
    assert [file["path"] for file in taken["model"]["files"]] == [
        "Parrot-00001-of-00002.gguf",
        "Parrot-00002-of-00002.gguf",
    ]
    client = cluster.start("a", "", "--serve", "polly")
    (served,) = client.mesh()["nodes"][0]["capabilities"]
    assert served["model"] == "Polly"
    assert client.ask("sing", max_tokens=26, type="chat").text == song(26)
    refused(atmo("models", "rm", "polly"), "in use by another process", code=8)
    shown = told(atmo, "list")
    assert [model["root"] for model in shown["local"] if model["name"] == "Polly"] == [root]
    assert shown["served"][0]["model"] == "Polly"
    assert told(inside, "where", "polly")["here"][0]["root"] == root
    here = inside("models", "where", "polly").out
    assert "this machine" in here
    cluster.stop_all()
    assert "Removed Polly" in atmo("models", "rm", "polly").out
    assert first.exists()


def test_files_that_a_user_put_into_the_models_folder_are_simply_usable(environ: dict[str, str]) -> None:
    folder = Path(environ["ATMO_HOME"]) / "models"
    folder.mkdir(parents=True)
    split(write_parrot(folder / "parts.gguf"))
    (folder / "parts.gguf").unlink()
    write_parrot(folder / "Whole.gguf")
    (folder / "mmproj-whole.gguf").write_bytes(b"no model of its own")
    (folder / "broken.gguf").write_bytes(b"GGUF")
    shown = told(inside, "list")
    mine = {model["name"]: model for model in shown["local"] if not model["embedded"]}
    assert set(mine) == {"parts", "whole"}
    assert mine["parts"]["parameters"] == mine["whole"]["parameters"]
    assert "broken.gguf" in shown["problems"][0]
    shared = told(inside, "share", "whole", "--only", "residency=eu")["model"]
    assert (shared["shared"], shared["only"]) == (True, {"residency": "eu"})
    again = told(inside, "list")["local"]
    assert [(model["name"], model["shared"]) for model in again if model["name"] == "whole"] == [("whole", True)]


def test_the_life_of_a_model_in_the_store(environ: dict[str, str], tmp_path: Path) -> None:
    source = write_parrot(tmp_path / "Parrot.gguf")
    assert "is in the store" in inside("models", "import", str(source)).out
    assert "already" in inside("models", "import", str(source)).out
    facts = inside("models", "inspect", "parrot").out
    assert "llama" in facts
    assert str(source) in facts
    assert told(inside, "inspect", "parrot")["stored"]["source"] == str(source)
    assert told(inside, "inspect", "atmo-nano")["stored"] is None
    assert "right" in inside("models", "verify").out
    assert told(inside, "verify", "parrot")["verified"][0]["bad"] == []
    assert told(inside, "where", "atmo-nano")["loose"]["embedded"]
    assert told(inside, "pin", "parrot", "--off")["model"]["pinned"] is False
    assert "stays" in inside("models", "pin", "parrot").out
    kept = told(inside, "gc", "--quota-gb", "0")
    assert (kept["removed"], kept["fits"]) == ([], False) or kept["used_bytes"] == 0
    assert "may go" in inside("models", "pin", "parrot", "--off").out
    home_store(environ).find("parrot").path.write_bytes(b"rotten")
    bad = inside("models", "verify", "--json")
    assert bad.code == 8
    assert bad.json["verified"][0]["bad"] == ["Parrot.gguf"]
    assert [model["name"] for model in told(inside, "rm", "parrot")["removed"]] == ["parrot"]


def test_mistakes_are_one_clear_line(environ: dict[str, str], tmp_path: Path) -> None:
    write_parrot(tmp_path / "parrot.gguf")
    inside("models", "import", str(tmp_path / "parrot.gguf"))
    refused(inside("models", "rm", "parot"), "no model 'parot'", "Did you mean 'parrot'", code=7)
    refused(inside("models", "import", str(tmp_path / "none.gguf")), "no file or folder", code=7)
    refused(inside("models", "pull", "org/repo"), "hf://org/repo", code=2)
    refused(inside("models", "pull", "nobody-has-this"), "Nobody has the model", code=7)
    refused(inside("models", "pull", "x", "--from", "mars"), "hub, url, file", code=2)
    refused(inside("models", "share", "atmo-nano"), "every node has it", code=2)
    assert inside("models", "where", "parot", "--json").json["error"]["code"] == "model_not_found"


def test_without_a_network_it_is_said_that_the_hub_cannot_be_reached(
    environ: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # and does not listen
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{closed.getsockname()[1]}")
        refused(atmo("models", "pull", "hf://org/repo"), "hub cannot be reached", "Check the network", code=4)


def test_a_model_is_pulled_from_the_hub_and_can_be_asked_for_by_name(environ: dict[str, str], hub: Hub) -> None:
    parrot = write_parrot(Path(environ["ATMO_HOME"]).parent / "p.gguf").read_bytes()
    commit = hub.add("org/parrot", {"parrot-q4_k_m.gguf": parrot})
    pulled = told(atmo, "pull", "hf://org/parrot", "--name", "parrot")
    assert (pulled["new"], pulled["from"], pulled["fetched_bytes"]) == (True, "hub", len(parrot))
    assert pulled["model"]["source"] == f"hf://org/parrot@{commit}/parrot-q4_k_m.gguf"
    assert pulled["model"]["shared"]
    assert "was here already" in atmo("models", "pull", "hf://org/parrot:Q4_K_M").out
    listed = told(inside, "list")["local"]
    assert "parrot" in [model["name"] for model in listed]


def pulling(environ: dict[str, str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "atmo", "models", "pull", "hf://org/large"],
        env={**os.environ, **environ},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def has_come(store: Store, chunks: int) -> Any:
    return [done for _, done, _ in incoming(store.folder) if done >= chunks * CHUNK_BYTES]


def test_ctrl_c_keeps_what_came_and_says_how_to_go_on(environ: dict[str, str], hub: Hub) -> None:
    hub.add("org/large", {"large-q4_k_m.gguf": LARGE})
    hub.drop_after = [40 * CHUNK_BYTES]
    hub.hang = True  # after what it drops, it says nothing for as long as somebody listens
    store = home_store(environ)
    pull = pulling(environ)
    eventually(lambda: has_come(store, 40), "40 chunks have come")
    pull.send_signal(signal.SIGINT)
    out, err = pull.communicate(timeout=30)
    assert pull.returncode == 130
    assert out == ""
    assert "Stopped at 50%" in err
    assert "atmo models pull hf://org/large" in err
    assert "Traceback" not in err
    ((_, kept, _),) = incoming(store.folder)
    assert kept == 40 * CHUNK_BYTES
    assert "50%" in inside("models", "list").out
    hub.hang = False
    again = told(atmo, "pull", "hf://org/large")
    # A chunk that was on the disk and not yet written down when Ctrl-C came may come again.
    assert again["fetched_bytes"] - (len(LARGE) - kept) in (0, CHUNK_BYTES)
    assert store.verify(bytes.fromhex(again["model"]["root"])) == []


def test_kill_9_while_a_model_comes_costs_at_most_the_window(environ: dict[str, str], hub: Hub) -> None:
    hub.add("org/large", {"large-q4_k_m.gguf": LARGE})
    hub.drop_after = [40 * CHUNK_BYTES, 20 * CHUNK_BYTES]
    hub.hang = True
    store = home_store(environ)
    for chunks in (40, 50):
        pull = pulling(environ)
        eventually(lambda chunks=chunks: has_come(store, chunks), f"{chunks} chunks have come")  # type: ignore[misc]
        os.kill(pull.pid, signal.SIGKILL)
        pull.communicate()
    hub.hang = False
    again = told(atmo, "pull", "hf://org/large")
    assert store.verify(bytes.fromhex(again["model"]["root"])) == []
    assert hub.sent_bytes <= len(LARGE) + 2 * WINDOW_CHUNKS * CHUNK_BYTES + 8192


def test_while_one_pulls_another_is_told_to_wait(environ: dict[str, str], hub: Hub) -> None:
    hub.add("org/large", {"large-q4_k_m.gguf": LARGE})
    hub.drop_after = [2 * CHUNK_BYTES]
    hub.hang = True
    pull = pulling(environ)
    try:
        eventually(lambda: has_come(home_store(environ), 2), "two chunks have come")
        refused(atmo("models", "pull", "hf://org/large"), "being fetched by another process", code=8)
    finally:
        pull.kill()
        pull.communicate()
