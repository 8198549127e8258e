"""Hosts in network namespaces of their own, for tests and benchmarks. Linux and root only.

A short line is a bridge of the kernel's, on which `tc` can bound what each host sends and gets; a long one, where
packets are late and lost, is carried by long_line.py. Everything lives in the namespaces and goes with them.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

# What a host may send at once beyond its rate: the kernel looks at a line so rarely that less would slow it down.
BURST_BYTES = 256 * 1024


class NoNetwork(Exception):
    """This user or this kernel cannot make one."""


def run(*words: str) -> None:
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise NoNetwork(f"there is no {words[0]}") from error
    if done.returncode != 0:
        raise NoNetwork(f"not permitted or not there: `{' '.join(words)}` said {done.stderr.strip()!r}")


class Network:
    """Hosts by name, each with an address of 10.213.7.0/24."""

    def __init__(self, prefix: str, hosts: Sequence[str]) -> None:
        self._prefix = prefix
        self.addresses = {host: f"10.213.7.{number}" for number, host in enumerate(hosts, 1)}

    def create(self) -> None:
        """Raises NoNetwork."""
        if sys.platform != "linux" or os.geteuid() != 0:
            raise NoNetwork("network namespaces need Linux and root")
        for host in self.addresses:
            run("ip", "netns", "add", self.space(host))
            run("ip", "-n", self.space(host), "link", "set", "lo", "up")

    def bridge(self) -> Callable[[str, str], None]:
        """One cable each into the bridge of the namespace `hub`; `(what, host)` unplugs and plugs. Raises NoNetwork."""
        hub = self.space("hub")
        run("ip", "netns", "add", hub)
        run("ip", "-n", hub, "link", "add", "bridge", "type", "bridge")
        run("ip", "-n", hub, "link", "set", "bridge", "up")
        for host, address in self.addresses.items():
            space = self.space(host)
            run(
                *("ip", "link", "add", "cable", "netns", space),
                *("type", "veth", "peer", "name", f"to-{host}", "netns", hub),
            )
            run("ip", "-n", hub, "link", "set", f"to-{host}", "master", "bridge", "up")
            run("ip", "-n", space, "address", "add", f"{address}/24", "dev", "cable")
            run("ip", "-n", space, "link", "set", "cable", "up")
        state = {"unplug": "down", "plug": "up"}
        return lambda what, host: run("ip", "-n", hub, "link", "set", f"to-{host}", state[what])

    def limit(self, mb_per_s: float) -> None:
        """What each host sends to the bridge, and gets from it. Raises NoNetwork."""
        bounded = ("root", "tbf", "rate", f"{mb_per_s * 8:.3f}mbit", "burst", f"{BURST_BYTES}", "latency", "50ms")
        for host in self.addresses:
            run("tc", "-n", self.space(host), "qdisc", "add", "dev", "cable", *bounded)
            run("tc", "-n", self.space("hub"), "qdisc", "add", "dev", f"to-{host}", *bounded)

    @contextmanager
    def long_line(self, delay_ms: float, jitter_ms: float, loss: float) -> Iterator[Callable[[str, str], None]]:
        """One cable each into a line on which packets are late and lost. Raises NoNetwork."""
        if not Path("/dev/net/tun").exists():
            raise NoNetwork("a long line needs tun devices, and this kernel has none")
        hosts = [f"{self.space(host)}={address}" for host, address in self.addresses.items()]
        weather = [str(delay_ms), str(jitter_ms), str(loss)]
        line = subprocess.Popen(
            [sys.executable, "-m", "tests.node.long_line", *weather, *hosts],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2],
        )  # fmt: skip
        assert line.stdin is not None
        assert line.stdout is not None
        with line, line.stdin as commands:
            assert line.stdout.readline() == "ready\n"
            yield lambda what, host: print(what, self.addresses[host], file=commands, flush=True)

    def where(self, host: str) -> tuple[str, tuple[str, ...]]:
        """The host's address, and the command that runs another one there."""
        return self.addresses[host], ("ip", "netns", "exec", self.space(host))

    def space(self, host: str) -> str:
        return f"{self._prefix}-{host}"

    def destroy(self) -> None:
        for host in (*self.addresses, "hub"):
            subprocess.run(["ip", "netns", "delete", self.space(host)], capture_output=True, check=False)
