"""One end of a bare wire: `python -m bench.wires receive KIND FILE ADDRESS` or `... send KIND FILE ADDRESS PORT KEY`.

Frames of 1 MiB over TCP (`tcp`), ZeroMQ (`plain`), or ZeroMQ with CURVE (`curve`), from one file into another. No mesh:
what the best transfer could reach. A KIND with `+hash` behind it also hashes each frame before it is written, in
threads: what the best transfer could reach that keeps nothing unseen. The receiver says where it listens, and at the
end how fast it was; both ends say what it took of the processor.
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
import sys
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import zmq

MIB = 1 << 20
WINDOW = 8  # frames on their way, as the mesh's bulk lane has it
HASHERS = 2


def receive(kind: str, sink: Path, address: str) -> None:
    wire, _, hashed = kind.partition("+")
    with sink.open("wb", buffering=0) as file, ThreadPoolExecutor(HASHERS) as pool:
        count, began_s, began_cpu_s = 0, 0.0, 0.0
        busy: deque[Future[None]] = deque()
        for frame in _frames_from(wire, address):
            began_s, began_cpu_s = began_s or time.perf_counter(), began_cpu_s or time.process_time()
            if hashed:
                busy.append(pool.submit(_keep, file.fileno(), count, frame))
                if len(busy) == WINDOW:
                    busy.popleft().result()
            else:
                file.write(frame)
            count += 1
        for each in busy:
            each.result()
    took_s, cpu_s = time.perf_counter() - began_s, time.process_time() - began_cpu_s
    _say({"mib_per_s": max(1, count - 1) / took_s, "cpu_s": cpu_s})


def _keep(handle: int, number: int, frame: memoryview) -> None:
    hashlib.sha256(frame).digest()
    os.pwrite(handle, frame, number * MIB)


def _frames_from(kind: str, address: str) -> Iterator[memoryview]:
    if kind == "tcp":
        yield from _tcp_frames(address)
        return
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    pull = context.socket(zmq.PULL)
    pull.setsockopt(zmq.RCVHWM, WINDOW)
    public, secret = zmq.curve_keypair()
    if kind == "curve":
        pull.setsockopt(zmq.CURVE_SERVER, 1)
        pull.setsockopt(zmq.CURVE_SECRETKEY, secret)
    port = pull.bind_to_random_port(f"tcp://{address}")
    _say({"port": port, "key": public.decode()})
    while True:
        frame = pull.recv(copy=False)
        if not len(frame.buffer):
            break
        yield frame.buffer
    pull.close(0)
    context.term()


def _tcp_frames(address: str) -> Iterator[memoryview]:
    with socket.create_server((address, 0)) as server:
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


def send(kind: str, source: Path, address: str, port: int, key: str) -> None:
    began_cpu_s = time.process_time()
    _send(kind.partition("+")[0], source, address, port, key)
    _say({"cpu_s": time.process_time() - began_cpu_s})


def _send(kind: str, source: Path, address: str, port: int, key: str) -> None:
    with source.open("rb", buffering=0) as file:
        if kind == "tcp":
            with socket.create_connection((address, port)) as connection:
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
        push.connect(f"tcp://{address}:{port}")
        while frame := file.read(MIB):
            push.send(frame, copy=False)
        push.send(b"")
        push.close()
        context.term()


def _say(event: dict[str, object]) -> None:
    os.write(1, json.dumps(event).encode() + b"\n")


if __name__ == "__main__":
    if sys.argv[1] == "receive":
        receive(sys.argv[2], Path(sys.argv[3]), sys.argv[4])
    else:
        send(sys.argv[2], Path(sys.argv[3]), sys.argv[4], int(sys.argv[5]), sys.argv[6])
