"""`atmo node start | stop | status`."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from atmo.cli import output, views
from atmo.client import SyncClient, running_nodes
from atmo.config import Config, load
from atmo.errors import AtmoError, NodeNotRunning, by_code

# A node answers within two seconds; a large model may take minutes to load, and then the node says so itself.
START_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 15.0


def start(flags: Mapping[str, Any], config_file: str | None, *, foreground: bool, as_json: bool) -> None:
    file = Path(config_file) if config_file else None
    config = load(flags, file=file)
    if foreground:
        from atmo.cli.foreground import run

        raise SystemExit(run(config))
    first = not config.home.exists()
    with output.busy(f"Starting {config.node.name}, loading {_models(config)}"):
        report = _start_in_background(config, flags, file)
    if as_json:
        output.print_json(report)
    else:
        output.console().print(views.started(output.harmless(report), first=first))


def _models(config: Config) -> str:
    return ", ".join(Path(section.model).name for section in config.serve) or "nothing"


def _start_in_background(config: Config, flags: Mapping[str, Any], file: Path | None) -> dict[str, Any]:
    """Start a process of its own and wait for the line it writes when it is ready, or for its last words."""
    reader, writer = os.pipe()
    handover = json.dumps(
        {"flags": {k: v for k, v in flags.items() if v is not None}, "file": str(file) if file else None}
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}  # the encoder is quick enough on one thread
    try:
        config.node_home.mkdir(parents=True, exist_ok=True, mode=0o700)
        log = config.log_file.open("ab")
    except OSError as exc:
        raise _unusable(config, exc) from exc
    with log:
        process = subprocess.Popen(
            [sys.executable, "-m", "atmo.cli.foreground", str(writer), handover],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=(writer,),
            start_new_session=True,
            env=environment,
        )
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        line = _read_line(pipe, START_TIMEOUT_S)
    if not line:
        code = _exit_code(process)
        raise AtmoError(
            "The node did not start." if code is None else f"The node ended at once (exit code {code}).",
            hint=f"See {config.log_file}.",
        )
    report: dict[str, Any] = json.loads(line)
    if "error" in report:
        process.wait()
        raise by_code(report["error"]["code"], report["error"]["message"], hint=report["error"]["hint"])
    return report


def _unusable(config: Config, exc: OSError) -> AtmoError:
    from atmo.errors import ConfigError

    return ConfigError(
        f"The home folder {config.home} cannot be used: {exc.strerror}.",
        hint="Set ATMO_HOME or --home to a folder that you may write to.",
    )


def _read_line(pipe: Any, timeout_s: float) -> bytes:
    ready, _, _ = select.select([pipe], [], [], timeout_s)
    return bytes(pipe.readline()) if ready else b""


def _exit_code(process: subprocess.Popen[bytes]) -> int | None:
    """Of a process that closed its pipe without a word; None if it lives on in silence."""
    try:
        return process.wait(timeout=1.0)
    except subprocess.TimeoutExpired:
        return None


def stop(node: str, *, every: bool, as_json: bool) -> None:
    config = load()
    names = [card.name for card in running_nodes(config)] if every else [node]
    with output.busy("Stopping: what has begun is answered first"):
        stopped = [_stop_one(config, name) for name in names]
    if as_json:
        output.print_json({"stopped": stopped})
    else:
        for name in stopped:
            output.console().print(f"Stopped {name}.")
        if not stopped:
            output.console().print("No node was running.")


def _stop_one(config: Config, name: str) -> str:
    headless = next((card for card in running_nodes(config) if not card.api_socket and card.name == name), None)
    if headless is not None:
        os.kill(headless.pid, signal.SIGTERM)
        return _wait_for_end(headless.name, headless.pid)
    client = SyncClient(config, node=name)
    answer = client.stop()
    return _wait_for_end(str(answer["name"]), int(answer["pid"]))


def _wait_for_end(name: str, pid: int) -> str:
    deadline = time.monotonic() + STOP_TIMEOUT_S
    while _alive(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    if _alive(pid):
        raise AtmoError(f"The node {name} (process {pid}) does not stop.", hint="See its log.")
    return name


def _alive(pid: int) -> bool:
    """A zombie is as good as gone: only its parent, which is us in scripts, has not looked yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        pass
    try:
        os.kill(pid, 0)
    except OSError:
        return False
    return not Path("/proc/self").exists()


def status(node: str, *, as_json: bool) -> None:
    config = load()
    if not node and not running_nodes(config):
        if as_json:
            output.print_json({"running": False})
        else:
            output.console().print("No node is running on this machine. Start one: atmo node start")
        raise SystemExit(NodeNotRunning.exit_code)
    report = SyncClient(config, node=node).status()
    if as_json:
        output.print_json({"running": True, **report})
    else:
        output.console().print(views.status(output.harmless(report)))
