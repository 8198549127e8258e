"""A long line between hosts: every packet is late, some are lost.

`python -m tests.node.long_line DELAY_MS JITTER_MS LOSS NAMESPACE=ADDRESS...` puts a tun device `cable` into each
network namespace and carries packets between them, each DELAY_MS late, give or take JITTER_MS, and lost with a chance
of LOSS. Packets keep their order, as on a real line. It says `ready` on a line of its own; `unplug ADDRESS` and
`plug ADDRESS` on its input do what they say, and the end of its input ends it. Linux and root only.
"""

from __future__ import annotations

import ctypes
import fcntl
import heapq
import os
import random
import selectors
import struct
import subprocess
import sys
import time
from pathlib import Path

CLONE_NEWNET = 0x40000000
TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 0x0001, 0x1000
DESTINATION = slice(16, 20)  # of an IPv4 header
MAX_PACKET_BYTES = 65_535
MAX_WAITING = 4096  # packets on the line; a queue that is full drops


def cable(namespace: str, address: str) -> int:
    """A tun device in the namespace; its descriptor, which works from here."""
    libc = ctypes.CDLL(None, use_errno=True)
    with Path(f"/run/netns/{namespace}").open() as there:
        if libc.setns(there.fileno(), CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), f"cannot enter {namespace}")
    device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(device, TUNSETIFF, struct.pack("16sH", b"cable", IFF_TUN | IFF_NO_PI))
    for words in (("address", "add", f"{address}/24", "dev", "cable"), ("link", "set", "cable", "up")):
        subprocess.run(["ip", *words], check=True)
    return device


class Line:
    def __init__(self, cables: dict[bytes, int], delay_s: float, jitter_s: float, loss: float) -> None:
        self._cables = cables
        self._delay_s, self._jitter_s, self._loss = delay_s, jitter_s, loss
        self._unplugged: set[int] = set()
        self._chance = random.Random(1)
        self._waiting: list[tuple[float, int, int, bytes]] = []
        self._arrives_s = dict.fromkeys(cables.values(), 0.0)
        self._count = 0

    def take(self, source: int) -> None:
        """All that is ready to leave a host."""
        while True:
            try:
                packet = os.read(source, MAX_PACKET_BYTES)
            except BlockingIOError:
                return
            target = self._cables.get(packet[DESTINATION]) if packet[0] >> 4 == 4 else None
            cut = source in self._unplugged or target in self._unplugged
            if target is None or cut or self._chance.random() < self._loss or len(self._waiting) >= MAX_WAITING:
                continue
            late_s = self._delay_s + self._chance.uniform(-self._jitter_s, self._jitter_s)
            self._arrives_s[target] = max(self._arrives_s[target], time.monotonic() + late_s)
            self._count += 1
            heapq.heappush(self._waiting, (self._arrives_s[target], self._count, target, packet))

    def deliver(self) -> float | None:
        """What is due; seconds until the next is."""
        while self._waiting:
            wait_s = self._waiting[0][0] - time.monotonic()
            if wait_s > 0:
                return wait_s
            *_, target, packet = heapq.heappop(self._waiting)
            if target not in self._unplugged:
                os.write(target, packet)
        return None

    def obey(self, command: str) -> None:
        what, address = command.split()
        device = self._cables[_packed(address)]
        (self._unplugged.add if what == "unplug" else self._unplugged.discard)(device)


def _packed(address: str) -> bytes:
    return bytes(map(int, address.split(".")))


def main(delay_ms: str, jitter_ms: str, loss: str, *hosts: str) -> None:
    cables = {}
    for host in hosts:
        namespace, address = host.split("=")
        cables[_packed(address)] = cable(namespace, address)
    line = Line(cables, float(delay_ms) / 1e3, float(jitter_ms) / 1e3, float(loss))
    selector = selectors.DefaultSelector()
    selector.register(sys.stdin, selectors.EVENT_READ)
    for device in cables.values():
        selector.register(device, selectors.EVENT_READ)
    print("ready", flush=True)
    while True:
        for key, _ in selector.select(line.deliver()):
            if isinstance(key.fileobj, int):
                line.take(key.fileobj)
            elif command := sys.stdin.readline():
                line.obey(command)
            else:
                return


if __name__ == "__main__":
    main(*sys.argv[1:])
