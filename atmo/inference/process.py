"""Starts a worker process and tells, when it is over, how it ended."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections import deque
from dataclasses import dataclass
from pathlib import Path

import atmo

_STDERR_LINES = 40  # kept of what a worker writes; a guess
_LINE_CHARS = 300
# What an engine may need of the node's environment. Keys and tokens of other services stay out of it.
_PASSED = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "SYSTEMROOT", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")
_PASSED_PREFIXES = ("CUDA_", "NVIDIA_", "HIP_", "ROCR_", "HSA_", "GGML_", "OMP_", "ONEAPI_", "VK_")


@dataclass(frozen=True, slots=True)
class Exit:
    """How a process ended. status: its exit status, negative for the number of a signal; last_line: of its stderr."""

    status: int
    last_line: str

    @property
    def crashed(self) -> bool:
        """By its own fault: a signal that the processor or abort() raised."""
        return -self.status in _CRASHES

    def __str__(self) -> str:
        if self.status >= 0:
            how = f"ended with status {self.status}"
        elif self.status == -signal.SIGKILL:
            how = "was killed (SIGKILL), most likely because memory ran out"
        else:
            how = f"died ({_signal_name(-self.status)})"
        return f"{how}: {self.last_line}" if self.last_line else how


_CRASHES = {signal.SIGABRT, signal.SIGSEGV, signal.SIGILL, signal.SIGFPE, getattr(signal, "SIGBUS", signal.SIGSEGV)}


class WorkerProcess:
    """One worker and the last lines of its stderr, which is read to its end so that the worker never blocks on it."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._lines: deque[str] = deque(maxlen=_STDERR_LINES)
        self._reading = asyncio.ensure_future(self._read_stderr())

    @classmethod
    async def start(cls, nice: int) -> tuple[WorkerProcess, socket.socket]:
        """A new worker and this side's end of the socket pair to it."""
        ours, theirs = socket.socketpair()
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "atmo.inference.worker",
                str(theirs.fileno()),
                str(nice),
                pass_fds=(theirs.fileno(),),
                env=_environment(),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.PIPE,
                start_new_session=True,  # Ctrl-C in the node's terminal is not for the worker
            )
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        ours.setblocking(False)
        return cls(process), ours

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def ended(self) -> bool:
        return self._process.returncode is not None

    @property
    def stderr(self) -> list[str]:
        """The last lines it wrote, for a log."""
        return list(self._lines)

    def kill(self) -> None:
        """End it now. By number, because Process.kill would collect the exit status before asyncio's watcher can."""
        if self._process.returncode is None:
            try:
                os.kill(self._process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass  # it ended between the look and the kill

    async def wait(self) -> Exit:
        await self._reading
        status = await self._process.wait()
        return Exit(status, self._lines[-1] if self._lines else "")

    async def _read_stderr(self) -> None:
        stream = self._process.stderr
        assert stream is not None
        rest = b""
        while data := await stream.read(4096):
            *lines, rest = (rest + data).split(b"\n")
            rest = rest[-_LINE_CHARS:]
            self._lines.extend(line for line in map(_clean, lines) if line)
        if _clean(rest):
            self._lines.append(_clean(rest))


def _clean(line: bytes) -> str:
    text = line[:_LINE_CHARS].decode("utf-8", "replace")
    return "".join(char for char in text if char.isprintable()).strip()


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _environment() -> dict[str, str]:
    """PYTHONPATH names where this very package was found: the worker must be of the same version as the node."""
    chosen = {name: text for name, text in os.environ.items() if name in _PASSED or name.startswith(_PASSED_PREFIXES)}
    home = str(Path(atmo.__file__).resolve().parent.parent)
    # GGML_NO_BACKTRACE: an abort() in llama.cpp would otherwise start a debugger on its own process.
    ours = {"PYTHONPATH": home, "PYTHONSAFEPATH": "1", "PYTHONUNBUFFERED": "1", "GGML_NO_BACKTRACE": "1"}
    return chosen | ours
