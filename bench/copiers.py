"""What people copy files with today, over loopback: rsync's daemon, curl from nginx, aria2c from several nginx at once.

None of them encrypts here, and only aria2c checks what came against a hash. One that is not installed is left out.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from atmo.errors import AtmoError
from bench import processes

MIB = 1 << 20
READY_S, COPY_S = 30.0, 600.0
NEEDED = {"rsync": ("rsync",), "curl from nginx": ("nginx", "curl"), "aria2c from nginx": ("nginx", "aria2c")}


def installed() -> dict[str, bool]:
    """Which of the copiers can be run here."""
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    return {name: all(shutil.which(tool, path=path) for tool in tools) for name, tools in NEEDED.items()}


async def copy(name: str, model: Path, folder: Path, sources: int) -> float:
    """MiB/s from `model` into a new file, which is compared by size and removed."""
    target = _new(folder) / "copy.bin"
    ways: dict[str, Callable[[Path, Path, int], Awaitable[float]]] = {
        "rsync": _rsync,
        "curl from nginx": _curl,
        "aria2c from nginx": _aria2c,
    }
    took_s = await ways[name](model, target, sources)
    size_bytes = os.path.getsize(model)  # noqa: ASYNC240
    if os.path.getsize(target) != size_bytes:  # noqa: ASYNC240
        raise AtmoError(f"{name} did not copy all of the file.")
    shutil.rmtree(folder)
    return size_bytes / MIB / took_s


def _new(folder: Path) -> Path:
    folder.mkdir()
    return folder


async def _rsync(model: Path, target: Path, sources: int) -> float:
    port, config = _free_port(), target.with_name("rsyncd.conf")
    who = f"uid = {os.getuid()}\ngid = {os.getgid()}\n"
    config.write_text(f"use chroot = no\n{who}[models]\npath = {model.parent}\nread only = yes\n")
    daemon = ("rsync", "--daemon", "--no-detach", "--address=127.0.0.1", f"--port={port}", f"--config={config}")
    async with _server(daemon, port):
        return await _timed("rsync", "--whole-file", f"rsync://127.0.0.1:{port}/models/{model.name}", str(target))


async def _curl(model: Path, target: Path, sources: int) -> float:
    async with _nginx(model, target.parent, 1) as (url,):
        return await _timed("curl", "--silent", "--fail", "--output", str(target), url)


async def _aria2c(model: Path, target: Path, sources: int) -> float:
    with model.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    async with _nginx(model, target.parent, sources) as urls:
        return await _timed(
            "aria2c", "--quiet", f"--split={sources}", "--min-split-size=1M", "--file-allocation=none",
            f"--checksum=sha-256={digest}", f"--dir={target.parent}", f"--out={target.name}", *urls,
        )  # fmt: skip


@asynccontextmanager
async def _nginx(model: Path, folder: Path, servers: int) -> AsyncIterator[list[str]]:
    ports = [_free_port() for _ in range(servers)]
    user = "user root;" if os.getuid() == 0 else ""
    listen = "".join(f"server {{ listen 127.0.0.1:{port}; root {model.parent}; }}\n" for port in ports)
    temporary = "".join(
        f"{kind}_temp_path {folder};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    config = folder / "nginx.conf"
    config.write_text(
        f"{user} daemon off; pid {folder}/nginx.pid; error_log stderr crit;\n"
        f"events {{}}\nhttp {{ access_log off; sendfile on;\n{temporary}{listen}}}\n"
    )
    async with _server(("nginx", "-e", "stderr", "-p", str(folder), "-c", str(config)), ports[-1]):
        yield [f"http://127.0.0.1:{port}/{model.name}" for port in ports]


@asynccontextmanager
async def _server(words: tuple[str, ...], port: int) -> AsyncIterator[None]:
    process = await _start(*words)
    try:
        ends_s = time.monotonic() + READY_S
        while not _listens(port):
            if process.returncode is not None or time.monotonic() > ends_s:
                raise AtmoError(f"{words[0]} does not listen ({process.returncode}).")
            await asyncio.sleep(0.01)
        yield
    finally:
        process.terminate()
        try:
            await asyncio.wait_for(process.wait(), processes.GRACE_S)
        except TimeoutError:
            process.kill()
            await process.wait()


async def _timed(*words: str) -> float:
    began_s = time.perf_counter()
    process = await _start(*words)
    code = await asyncio.wait_for(process.wait(), COPY_S)
    if code:
        raise AtmoError(f"{words[0]} ended with {code}.")
    return time.perf_counter() - began_s


async def _start(*words: str) -> asyncio.subprocess.Process:
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    program = shutil.which(words[0], path=path) or words[0]
    return await asyncio.create_subprocess_exec(program, *words[1:], stdin=asyncio.subprocess.DEVNULL)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
