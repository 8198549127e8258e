"""Each failure that keeps a node from starting or a model from answering is made for real; `atmo doctor` names cause
and remedy. Those between several nodes stand in test_doctor.py."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import pytest

from atmo.cli.doctor import engines, membership, nodes, places
from atmo.cli.doctor.finding import Finding
from atmo.client import calls, running_nodes
from atmo.clock import SystemClock
from atmo.config import load
from atmo.invitation import write_token
from atmo.node import membership as mesh_membership
from atmo.node.home import open_home
from tests.cli.inside import inside
from tests.cluster import Cluster, eventually
from tests.cluster import atmo as run
from tests.inference.http_servers import FakeServer, Reply, as_json, fake

NANO = Path(__file__).parents[2] / "atmo/assets/nano/atmo-nano.gguf"


def found(room: ModuleType, check: str, state: str = "bad") -> str:
    """What one room finds, cause and remedy in one line; a remedy there is."""
    config = load()
    rows: list[Finding] = list(room.examine(config, nodes.ask_all(config)))
    told = [row for row in rows if (row.check, row.state) == (check, state)]
    assert told, f"no {state} finding about {check} in {rows}"
    assert all(row.remedy for row in told)
    return " | ".join(f"{row.what} {row.remedy}" for row in told)


def configure(text: str) -> None:
    home = Path(os.environ["ATMO_HOME"])
    home.mkdir(exist_ok=True)
    (home / "config.toml").write_text(text)


@contextmanager
def taken() -> Iterator[int]:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        yield other.getsockname()[1]


# Folders, disk, ports


def test_ports_that_another_program_has(environ: dict[str, str]) -> None:
    with taken() as port, taken() as api_port:
        configure(f"[transport]\nport = {port}\n[gateway]\nport = {api_port}\n")
        assert f"Port {port} on 127.0.0.1 cannot be used: Address already in use. Choose another" in found(
            places, "port"
        )
        assert "atmo config set gateway.port" in found(places, "api-port")


def test_an_address_that_is_not_this_machines(environ: dict[str, str]) -> None:
    configure('[transport]\nhost = "203.0.113.7"\n')
    assert "203.0.113.7 is no address of this machine" in found(places, "port")


def test_a_home_within_a_file(environ: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("ATMO_HOME", str(tmp_path / "file" / "home"))
    assert "cannot be written: Not a directory. Set ATMO_HOME" in found(places, "home")


def test_a_full_disk(environ: dict[str, str], tmp_path: Path) -> None:
    """A file system of its own, of 64 KiB, in a mount namespace that nobody else sees."""
    probe = (
        subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False)
        if shutil.which("unshare")
        else None
    )
    if probe is None or probe.returncode != 0:
        pytest.skip("mount namespaces need Linux and root")
    script = f"mount -t tmpfs -o size=64k none {tmp_path} && {sys.executable} -m atmo doctor --json --home {tmp_path}"
    done = subprocess.run(["unshare", "--mount", "sh", "-c", script], capture_output=True, text=True, check=False)
    told = [row for row in json.loads(done.stdout)["findings"] if row["check"] == "disk" and row["state"] == "bad"]
    assert f"The disk of the home folder {tmp_path} is full." in told[0]["what"]
    assert "Free some space" in told[0]["remedy"]
    assert done.returncode == 1


def test_files_that_root_made(environ: dict[str, str]) -> None:
    if os.getuid() != 0:
        pytest.skip("only root can give files away")
    folder = Path(environ["ATMO_HOME"]) / "nodes" / "default"
    folder.mkdir(parents=True)
    (folder / "identity.key").touch()
    os.chown(folder / "identity.key", 1, 1)
    assert "belongs to another user. Take it over: sudo chown" in found(places, "home")


def test_a_node_that_was_killed_leaves_a_socket_that_does_no_harm(environ: dict[str, str]) -> None:
    cluster = Cluster(Path(environ["ATMO_HOME"]).parent)
    try:
        cluster.start("default", "serve = []\n")
        cluster.kill("default")
        eventually(lambda: not running_nodes(load()), "it is gone")
        assert "of a node that was killed" in found(places, "runtime", "note")
        cluster.start("default", "serve = []\n")
        config = load()
        told = list(places.examine(config, nodes.ask_all(config)))
        assert all("killed" not in finding.what for finding in told)
    finally:
        cluster.stop_all()


# The configuration


@pytest.mark.parametrize(
    ("text", "what", "remedy"),
    [
        ("[transprot]\n", "Unknown key 'transprot' in", "Did you mean 'transport'?"),
        ("port = [", "is not valid TOML", "atmo config edit"),
        ("[transport]\nport = 'a'\n", "transport.port", ""),
        ("[transport]\nport = 70000\n", "70000", ""),
    ],
)
def test_a_mistake_in_the_configuration(environ: dict[str, str], text: str, what: str, remedy: str) -> None:
    configure(text)
    told = inside("doctor", "--json")
    (mistake,) = [row for row in told.json["findings"] if row["state"] == "bad"]
    assert (mistake["check"], told.code) == ("config", 1)
    assert what in mistake["what"]
    assert mistake["remedy"]
    assert remedy in mistake["remedy"]


# Keys, tokens, clock


def test_a_token_that_expired_before_a_node_was_started_with_it(environ: dict[str, str], tmp_path: Path) -> None:
    past_s = time.time() - 2 * 86_400
    owner = mesh_membership.open_mesh(load({"home": str(tmp_path / "owner")}))
    ticket = owner.invite([], past_s, 86_400, 1, 86_400)
    mesh_membership.join(load(), write_token(ticket), past_s)
    assert "expired before a node was started with it. Ask for a new one: atmo mesh join TOKEN" in found(
        membership, "token"
    )
    refused = run("node", "start")
    assert refused.code == 2
    assert "The invite to this mesh has expired" in refused.err


def test_a_token_of_the_configuration_that_is_none_or_too_old(
    environ: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner = mesh_membership.open_mesh(load({"home": str(tmp_path / "owner")}))
    old = write_token(owner.invite([], time.time() - 2 * 86_400, 86_400, 1, 86_400))
    monkeypatch.setenv("ATMO_MESH_TOKEN", "rubbish")
    assert "This is not a whole token. Copy all of what" in found(membership, "mesh")
    monkeypatch.setenv("ATMO_MESH_TOKEN", old)
    assert "The token in the configuration has expired. Ask for a new one: atmo mesh invite" in found(
        membership, "mesh"
    )


def test_a_clock_that_was_a_day_ahead(environ: dict[str, str]) -> None:
    class Tomorrow(SystemClock):
        def wall(self) -> float:
            return super().wall() + 86_400

    open_home(load(), Tomorrow()).close()
    assert "The clock was 24.0 h ahead when the node default started" in found(membership, "clock", "note")
    (Path(environ["ATMO_HOME"]) / "nodes/default/generation").write_text("x")
    assert "is damaged. Delete it" in found(membership, "clock")


def test_api_keys_that_others_can_read_or_that_are_damaged(environ: dict[str, str]) -> None:
    assert inside("keys", "create").code == 0
    file = Path(environ["ATMO_HOME"]) / "api-keys.json"
    file.chmod(0o644)
    assert f"can be read by others. Run: chmod 600 {file}" in found(membership, "api-keys")
    file.write_text("{")
    assert "are damaged. Delete the file and make new keys." in found(membership, "api-keys")


def test_an_api_that_would_be_open_to_everybody(environ: dict[str, str]) -> None:
    configure('[gateway]\nhost = "0.0.0.0"\n')
    assert "for everybody: there is no API key. Make one: atmo keys create" in found(membership, "api-keys")


# Engines, models, memory


def test_an_engine_that_is_installed_and_cannot_be_loaded(
    environ: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "xllamacpp.py").write_text('raise ImportError("libcuda.so.1: cannot open shared object file")')
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    said = found(engines, "engines")
    assert "xllamacpp cannot be loaded: ImportError: libcuda.so.1" in said
    assert "pip install --force-reinstall xllamacpp" in said


def test_models_that_are_missing_or_cut_off(environ: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "_ENGINES", {})  # theirs is another test, and takes a second
    folder = Path(environ["ATMO_HOME"]) / "models"
    folder.mkdir(parents=True)
    (folder / "cut.gguf").write_bytes(NANO.read_bytes()[: NANO.stat().st_size // 2])
    configure('[[serve]]\nmodel = "cut"\n[[serve]]\nmodel = "atmo-nono"\n')
    assert "Did you mean 'atmo-nano'?" in found(engines, "models")
    assert "cut.gguf" in found(engines, "models")
    assert "Put the whole file there, or delete it." in found(engines, "models", "note")


def test_too_little_memory(environ: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "_ENGINES", {})
    configure("[inference]\nslots = 500_000\n")
    said = found(engines, "memory")
    assert "atmo-nano needs about" in said
    assert "are free" in said
    assert "inference.slots" in said


def test_no_engine_for_llama_cpp(environ: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "_ENGINES", {"onnxruntime": "onnxruntime"})
    assert "No engine for llama.cpp." in found(engines, "engines")
    assert "pip install xllamacpp" in found(engines, "engines")


# Nodes


def test_a_node_that_hangs(environ: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls, "CONNECT_TIMEOUT_S", 0.2)
    cluster = Cluster(Path(environ["ATMO_HOME"]).parent)
    cluster.start("default", "serve = []\n")
    pid = cluster.pids["default"]
    os.kill(pid, signal.SIGSTOP)
    try:
        said = found(nodes, "nodes")
        assert f"The node default (process {pid}) does not answer" in said
        assert f"kill -9 {pid}; atmo node start --name default" in said
    finally:
        os.kill(pid, signal.SIGCONT)
        cluster.stop_all()


def test_servers_and_models_that_a_node_cannot_use(environ: dict[str, str]) -> None:
    """A server that fails, one that is something else, one that is not there; a model of an unknown architecture."""
    folder = Path(environ["ATMO_HOME"]) / "models"
    folder.mkdir(parents=True)
    begin, kind, rest = NANO.read_bytes().partition(b"llama")
    (folder / "odd.gguf").write_bytes(begin + kind[::-1] + rest)

    async def story() -> list[Finding]:
        async with fake(lambda _: Reply(500)) as failing, fake(lambda _: Reply(parts=[b"Hello!"])) as other:
            ports = [failing.port, other.port, nobody]
            tables = [f'[[runtimes]]\nkind = "openai"\nurl = "http://127.0.0.1:{port}"\n' for port in ports]
            return await asyncio.to_thread(told, '[[serve]]\nmodel = "odd"\n' + "".join(tables))

    def told(configured: str) -> list[Finding]:
        cluster = Cluster(Path(environ["ATMO_HOME"]).parent)
        try:
            cluster.start("default", configured)
            return list(nodes.examine(load(), nodes.ask_all(load())))
        finally:
            cluster.stop_all()

    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))  # without listening: connections are refused, and nobody else gets the port
        nobody = deaf.getsockname()[1]
        said = [f"{finding.what} {finding.remedy}" for finding in asyncio.run(story()) if finding.state == "bad"]
    assert len(said) == 4
    for wanted in (
        "cannot serve atmo:chat:odd: llama.cpp cannot load .*odd.gguf. Its architecture may be too new",
        "answered with status 500. Look into its log.",
        "sent something that is no JSON object. Is it what the configuration says it is?",
        f"The server 127.0.0.1:{nobody} cannot be used: .* takes no connections. Is its server running?",
    ):
        assert [line for line in said if re.search(wanted, line)], (wanted, said)


def test_a_runtime_that_is_there_and_has_no_models(environ: dict[str, str]) -> None:
    """Ollama as it is after its installation."""

    async def story() -> str:
        async with fake(lambda request: as_json({"models": []} if "tags" in request.path else {})) as server:
            return await asyncio.to_thread(told, server)

    def told(server: FakeServer) -> str:
        cluster = Cluster(Path(environ["ATMO_HOME"]).parent)
        try:
            url = f"http://127.0.0.1:{server.port}"
            cluster.start("default", f'serve = []\n[[runtimes]]\nkind = "ollama"\nurl = "{url}"\n')
            return found(nodes, "runtimes", "note")
        finally:
            cluster.stop_all()

    said = asyncio.run(story())
    assert "has no models" in said
    assert "ollama pull" in said
