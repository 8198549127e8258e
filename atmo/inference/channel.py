"""Frames over one end of a socket pair, on an asyncio loop."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any

from atmo.errors import ProtocolError
from atmo.inference.protocol import Frame, FrameBuffer, encode


class Channel(asyncio.Protocol):
    """on_frame gets the body of each frame as it arrives; on_end is called once, when the other side is gone, with what
    was wrong when it sent nonsense and "" otherwise.

    A body that on_frame refuses with ProtocolError ends the channel: after one bad frame no other can be trusted.
    """

    def __init__(self, on_frame: Callable[[bytes], None], on_end: Callable[[str], None]) -> None:
        self._on_frame = on_frame
        self._on_end = on_end
        self._buffer = FrameBuffer()
        self._transport: asyncio.Transport | None = None
        self._broken = ""

    @classmethod
    async def open(
        cls, sock: socket.socket, on_frame: Callable[[bytes], None], on_end: Callable[[str], None]
    ) -> Channel:
        _, channel = await asyncio.get_running_loop().create_connection(lambda: cls(on_frame, on_end), sock=sock)
        return channel

    def send(self, frame: Frame) -> None:
        """Hand a frame to the socket; when the other side is gone it is dropped, as on_end will have told."""
        data = encode(frame)
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        try:
            for body in self._buffer.feed(data):
                self._on_frame(body)
        except ProtocolError as error:
            self._broken = error.message
            self.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._on_end(self._broken)  # a reset is an end like any other: how the process ended says more
