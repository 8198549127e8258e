"""One end of a bare wire: `python -m bench.wires receive KIND FILE` or `... send KIND FILE PORT KEY`.

Frames of 1 MiB over TCP, ZeroMQ, or ZeroMQ with CURVE, from one file into another. No hashing, no mesh: what the best
transfer could reach. The receiver says where it listens, and at the end how fast it was.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import zmq

MIB = 1 << 20
WINDOW = 8  # frames on their way, as the mesh's bulk lane has it


def receive(kind: str, sink: Path) -> None:
    with sink.open("wb", buffering=0) as file:
        count, began_s = 0, 0.0
        for frame in _frames_from(kind):
            began_s = began_s or time.perf_counter()
            file.write(frame)
            count += 1
    _say({"mib_per_s": max(1, count - 1) / (time.perf_counter() - began_s)})


def _frames_from(kind: str) -> Iterator[memoryview]:
    if kind == "tcp":
        yield from _tcp_frames()
        return
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    pull = context.socket(zmq.PULL)
    pull.setsockopt(zmq.RCVHWM, WINDOW)
    public, secret = zmq.curve_keypair()
    if kind == "curve":
        pull.setsockopt(zmq.CURVE_SERVER, 1)
        pull.setsockopt(zmq.CURVE_SECRETKEY, secret)
    port = pull.bind_to_random_port("tcp://127.0.0.1")
    _say({"port": port, "key": public.decode()})
    while True:
        frame = pull.recv(copy=False)
        if not len(frame.buffer):
            break
        yield frame.buffer
    pull.close(0)
    context.term()


def _tcp_frames() -> Iterator[memoryview]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        _say({"port": server.getsockname()[1], "key": "-"})
        connection, _ = server.accept()
        buffer = memoryview(bytearray(MIB))
        with connection:
            while True:
                have = 0
                while have < MIB and (got := connection.recv_into(buffer[have:])):
                    have += got
                if not have:
                    return
                yield buffer[:have]


def send(kind: str, source: Path, port: int, key: str) -> None:
    with source.open("rb", buffering=0) as file:
        if kind == "tcp":
            with socket.create_connection(("127.0.0.1", port)) as connection:
                while frame := file.read(MIB):
                    connection.sendall(frame)
            return
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        push = context.socket(zmq.PUSH)
        push.setsockopt(zmq.SNDHWM, WINDOW)
        if kind == "curve":
            public, secret = zmq.curve_keypair()
            push.setsockopt(zmq.CURVE_SERVERKEY, key.encode())
            push.setsockopt(zmq.CURVE_PUBLICKEY, public)
            push.setsockopt(zmq.CURVE_SECRETKEY, secret)
        push.connect(f"tcp://127.0.0.1:{port}")
        while frame := file.read(MIB):
            push.send(frame, copy=False)
        push.send(b"")
        push.close()
        context.term()


def _say(event: dict[str, object]) -> None:
    os.write(1, json.dumps(event).encode() + b"\n")


if __name__ == "__main__":
    if sys.argv[1] == "receive":
        receive(sys.argv[2], Path(sys.argv[3]))
    else:
        send(sys.argv[2], Path(sys.argv[3]), int(sys.argv[4]), sys.argv[5])
