"""The IO thread's loop: sockets with handlers, one tick, and a way to wake it from another thread.

Waking is coalesced: however many commands are queued while it sleeps, one byte goes through the pipe. The flag is
lowered before the queue is read, so a command that is queued after the flag is lowered raises it again.
"""

from __future__ import annotations

import socket
from collections.abc import Callable

import zmq

from atmo.transport.sockets import Socket


class Reactor:
    """All methods but `wake` and `close` belong to the IO thread."""

    def __init__(self) -> None:
        self._poller = zmq.Poller()
        self._handlers: dict[Socket | int, Callable[[], None]] = {}
        self._wake_out, self._wake_in = socket.socketpair()
        self._wake_out.setblocking(False)
        self._wake_in.setblocking(False)
        self._woken = False
        self._poller.register(self._wake_out.fileno(), zmq.POLLIN)
        self._handlers[self._wake_out.fileno()] = self._on_woken

    def watch(self, source: Socket | int, on_ready: Callable[[], None], *, writable: bool = False) -> None:
        """Call `on_ready` in each round with something to read, or with room to write. Replaces an earlier watch.

        `source` is a ZeroMQ socket or a file descriptor.
        """
        self._poller.register(source, zmq.POLLOUT if writable else zmq.POLLIN)
        self._handlers[source] = on_ready

    def forget(self, source: Socket | int) -> None:
        if self._handlers.pop(source, None) is not None:
            self._poller.unregister(source)

    def wake(self) -> None:
        """From the loop's thread: end the current wait. After `close`, which that thread calls too, it does nothing."""
        if not self._woken and self._wake_in.fileno() >= 0:
            self._woken = True
            try:
                self._wake_in.send(b"\0")
            except BlockingIOError:
                pass  # the pipe is full of wakings already

    def run_once(self, timeout_s: float) -> None:
        for source, _ in self._poller.poll(max(0, int(timeout_s * 1000 + 0.999))):
            handler = self._handlers.get(source)  # an earlier handler of this round may have closed it
            if handler is not None:
                handler()

    def _on_woken(self) -> None:
        self._wake_out.recv(256)
        self._woken = False

    def close(self) -> None:
        self._wake_in.close()
        self._wake_out.close()
