"""The two servers of the gateway scenario, each in a process of its own.

`python -m bench.upstream direct` is a fake upstream: an HTTP server that answers every chat with the same bytes.
`python -m bench.upstream node` is a node with a capability whose service says the same, at once. Both print one line of
JSON with their port and end when their input does. The node has a second capability, which never comes to an end.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import socket
import sys
import time
from collections.abc import AsyncGenerator
from typing import Any

import msgspec
import structlog
import uvicorn

from atmo.config import load
from atmo.gateway.asgi import EVENT_STREAM, Receive, Scope, Send, reply
from atmo.generation import Finish, Piece
from atmo.mesh.capability import Descriptor, Load
from atmo.mesh.service import Answer, Question
from atmo.node import Node

MODEL, ENDLESS = "upstream", "endless"
WORDS = 16
_NO_LOAD = Load(f"atmo:chat:{MODEL}", 0, 64, 0, 0.001, 0.0, 0.0, True)


class AtOnce:
    """A service that has its answer ready: WORDS words."""

    async def answer(self, question: Question) -> AsyncGenerator[Answer, None]:
        for number in range(WORDS):
            yield Piece(" word", (number,))
        yield Finish(reason="stop", prompt_tokens=8, output_tokens=WORDS)

    def load(self) -> Load:
        return _NO_LOAD


class Endless:
    """A service that says a word and then works until it is told to stop; it tells the parent when that was."""

    async def answer(self, question: Question) -> AsyncGenerator[Answer, None]:
        try:
            yield Piece(" word", (0,))
            await asyncio.Event().wait()
        finally:
            _say({"freed_ns": time.monotonic_ns()})

    def load(self) -> Load:
        return msgspec.structs.replace(_NO_LOAD, capability=f"atmo:chat:{ENDLESS}")


async def upstream(scope: Scope, receive: Receive, send: Send) -> None:
    """As little as an OpenAI-compatible server can do."""
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    if scope["method"] != "POST":
        await reply(send, 200, b"{}", [(b"content-type", b"application/json")])
        return
    if not json.loads(body).get("stream"):
        await reply(send, 200, _WHOLE, [(b"content-type", b"application/json")])
        return
    await send({"type": "http.response.start", "status": 200, "headers": EVENT_STREAM})
    for chunk in _CHUNKS:
        await send({"type": "http.response.body", "body": chunk, "more_body": True})
    await send({"type": "http.response.body", "body": b"data: [DONE]\n\n"})


def _chunk(delta: dict[str, str], finish: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
    head = {"id": "chatcmpl-0", "object": "chat.completion.chunk", "created": 0, "model": MODEL}
    return b"data: " + msgspec.json.encode({**head, "choices": [choice]}) + b"\n\n"


_CHUNKS = [_chunk({"role": "assistant", "content": ""})] + [_chunk({"content": " word"})] * WORDS + [_chunk({}, "stop")]
_WHOLE = msgspec.json.encode(
    {
        "id": "chatcmpl-0",
        "object": "chat.completion",
        "created": 0,
        "model": MODEL,
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": " word" * WORDS},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": {"prompt_tokens": 8, "completion_tokens": WORDS, "total_tokens": 8 + WORDS},
    }
)


async def serve_upstream() -> None:
    bound = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(upstream, log_config=None, access_log=False, lifespan="off", http="httptools", ws="none")
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve([bound]))
    _ready(bound.getsockname()[1])
    await _input_ended()
    server.should_exit = True
    await serving


async def serve_node() -> None:
    """Configured by the environment, as any node; it serves no model of its own."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))  # errors only
    node = Node(load({"serve": []}))
    await node.start()
    try:
        # Apart in meaning, so that whoever leaves the choice to the mesh gets an answer with an end.
        for service, does in ((AtOnce(), "Says words, please, and then some more."), (Endless(), "Tax law in Latin.")):
            descriptor = Descriptor(id=service.load().capability, type="chat", description=does)
            node.mesh.offer(node._meaning.capability(descriptor), service)
        assert node.gateway is not None
        gc.collect()
        gc.freeze()  # as atmo.cli.foreground does
        _ready(int(node.gateway.url.rpartition(":")[2].partition("/")[0]))
        await _input_ended()
    finally:
        await node.stop()


def _ready(port: int) -> None:
    _say({"port": port, "pid": os.getpid()})


def _say(told: dict[str, Any]) -> None:
    os.write(1, json.dumps(told).encode() + b"\n")


async def _input_ended() -> None:
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    import uvloop

    uvloop.run(serve_upstream() if sys.argv[1] == "direct" else serve_node())
