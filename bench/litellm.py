"""LiteLLM's proxy, for comparison: installed on request into a virtual environment of its own, kept between runs."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench import processes
from bench.harness import Context
from bench.upstream import MODEL

# Set by `python -m bench --with-litellm`.
WANTED = "BENCH_WITH_LITELLM"
INSTALL_LIMIT_S = 600.0
START_LIMIT_S = 60.0

_PERMIT = "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY"
_CONFIG = """
model_list:
  - model_name: {model}
    litellm_params:
      model: openai/{model}
      api_base: http://127.0.0.1:{port}/v1
      api_key: none
litellm_settings:
  telemetry: false
"""


@dataclass(frozen=True)
class Proxy:
    port: int
    pid: int


def wanted() -> bool:
    return bool(os.environ.get(WANTED))


@contextmanager
def proxy(context: Context, upstream_port: int) -> Iterator[Proxy | None]:
    """The proxy with one worker before the upstream; None, said aloud, where it cannot be installed or started."""
    program = _installed(context)
    if program is None:
        yield None
        return
    config = context.folder / "litellm.yaml"
    config.write_text(_CONFIG.format(model=MODEL, port=upstream_port))
    port = _free_port()
    words = [str(program), "--config", str(config), "--host", "127.0.0.1", "--port", str(port), "--num_workers", "1"]
    # Quiet, offline, and without a key, as the node beside it is asked.
    quiet = {"LITELLM_LOG": "ERROR", "LITELLM_LOCAL_MODEL_COST_MAP": "True", _PERMIT: "true"}
    marked = {processes.MARK: str(context.folder / "home")}
    with (context.folder / "litellm.log").open("wb") as log:
        process = subprocess.Popen(words, stdout=log, stderr=log, env=processes.environment({**quiet, **marked}))
    try:
        started = _answers(port, process)
        if not started:
            _say(context, f"LiteLLM did not start ({_last_words(context.folder / 'litellm.log')})")
        yield Proxy(port, process.pid) if started else None
    finally:
        process.terminate()
        try:
            process.wait(processes.GRACE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _last_words(log: Path) -> str:
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1][:200] if lines else "it said nothing"


def _say(context: Context, text: str) -> None:
    context.say(f"{text}: the comparison with it is left out")


def _installed(context: Context) -> Path | None:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    folder = cache / "atmo-bench" / "litellm"
    program = folder / "bin" / "litellm"
    if program.exists():
        return program
    context.say(f"installing LiteLLM's proxy into {folder}, once")
    try:
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True, capture_output=True)
        subprocess.run(
            [str(folder / "bin" / "pip"), "install", "--quiet", "litellm[proxy]"],
            check=True,
            capture_output=True,
            timeout=INSTALL_LIMIT_S,
        )
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired, OSError) as exc:
        _say(context, f"LiteLLM could not be installed ({type(exc).__name__})")
        return None
    return program


def _answers(port: int, process: subprocess.Popen[bytes]) -> bool:
    ends_s = time.monotonic() + START_LIMIT_S
    while time.monotonic() < ends_s and process.poll() is None:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health/liveliness", timeout=2.0) as reply:
                return bool(reply.status == 200)
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
