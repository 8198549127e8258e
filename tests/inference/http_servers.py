"""Servers for the tests of runtimes: each answers as the real one was recorded to, or in any broken way."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TypeAlias


@dataclass
class Request:
    method: str
    path: str
    headers: dict[str, str]
    body: Any


@dataclass
class Reply:
    """parts: of the body, each sent by itself; cut: close without saying that the body is over; hang: say nothing more
    until the client is gone."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    parts: list[bytes] = field(default_factory=list)
    cut: bool = False
    hang: bool = False


Answer: TypeAlias = Callable[[Request], Reply]


def as_json(value: Any, status: int = 200, **headers: str) -> Reply:
    return Reply(status, {"content-type": "application/json", **headers}, [json.dumps(value).encode()])


def as_events(*events: Any, done: bool = True) -> Reply:
    """Server-sent events, as OpenAI's API and those like it send them."""
    parts = [b"data: " + json.dumps(event).encode() + b"\n\n" for event in events]
    return Reply(200, {"content-type": "text/event-stream"}, [*parts, *([b"data: [DONE]\n\n"] if done else [])])


def as_lines(*events: Any) -> Reply:
    """One JSON a line, as Ollama sends them."""
    return Reply(
        200, {"content-type": "application/x-ndjson"}, [json.dumps(event).encode() + b"\n" for event in events]
    )


class FakeServer:
    """asked: every request it got; left: set when a client has gone away in the middle of an answer."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.asked: list[Request] = []
        self.left = asyncio.Event()
        self.port = 0
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
            for writer in list(self._open):
                writer.close()
            await self._server.wait_closed()
            self._server = None

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        try:
            while await self._exchange(reader, writer):
                pass
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self._open.discard(writer)
            writer.close()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        method, path, _ = head[0].split(" ")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        request = Request(method, path, headers, json.loads(body) if body else None)
        self.asked.append(request)
        return await self._reply(self.answer(request), reader, writer)

    async def _reply(self, reply: Reply, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        lines = [f"HTTP/1.1 {reply.status} X", *(f"{name}: {value}" for name, value in reply.headers.items())]
        writer.write("\r\n".join([*lines, "transfer-encoding: chunked", "", ""]).encode())
        for part in reply.parts:
            writer.write(f"{len(part):x}\r\n".encode() + part + b"\r\n")
            await writer.drain()
            await asyncio.sleep(0)
        if reply.hang:
            await reader.read(1)
            self.left.set()
        if reply.cut or reply.hang:
            return False
        writer.write(b"0\r\n\r\n")
        await writer.drain()
        return True


@asynccontextmanager
async def fake(answer: Answer) -> AsyncIterator[FakeServer]:
    server = FakeServer(answer)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


Story: TypeAlias = Callable[[FakeServer], Awaitable[None]]
OPENAI_MODELS = {
    "object": "list",
    "data": [
        {"id": "qwen2.5-7b-instruct", "object": "model", "owned_by": "vllm", "max_model_len": 32768},
        {"id": "nomic-embed-text", "object": "model", "owned_by": "vllm"},
        {"id": "whisper-1", "object": "model", "owned_by": "openai"},
    ],
}
# What others that speak OpenAI's API answer to the same question, as they document it.
LISTS: dict[str, list[dict[str, Any]]] = {
    "llama.cpp": [
        {
            "id": "models/qwen2.5-0.5b-instruct-q8_0.gguf",
            "object": "model",
            "owned_by": "llamacpp",
            "meta": {"vocab_type": 2, "n_vocab": 151936, "n_ctx_train": 32768, "n_embd": 896, "n_params": 630167424},
        }
    ],
    "LocalAI": [{"id": "hermes-2-theta-llama-3-8b", "object": "model"}, {"id": "stablediffusion-image"}],
    "LM Studio": [
        {"id": "qwen2-vl-7b-instruct", "object": "model", "owned_by": "organization_owner"},
        {"id": "text-embedding-nomic-embed-text-v1.5", "object": "model", "owned_by": "organization_owner"},
    ],
    "Lemonade": [
        {
            "id": "Gemma-3-4b-it-GGUF",
            "object": "model",
            "owned_by": "lemonade",
            "checkpoint": "ggml-org/gemma-3-4b-it-GGUF:Q4_K_M",
            "recipe": "llamacpp",
            "size": 3.61,
            "max_context_window": 131072,
            "context_length": 8192,
            "downloaded": True,
            "labels": ["hot", "vision"],
        },
        {"id": "bge-m3-GGUF", "object": "model", "owned_by": "lemonade", "labels": ["embeddings"]},
        {"id": "SD-Turbo", "object": "model", "owned_by": "lemonade", "recipe": "sd-cpp", "labels": ["image"]},
    ],
}
OLLAMA_TAGS = {
    "models": [
        {
            "name": "llama3.2:3b",
            "model": "llama3.2:3b",
            "modified_at": "2026-05-04T17:37:44.706015396-07:00",
            "size": 3826793677,
            "digest": "365c0bd3c000a25d28ddbf732fe1c6add414de7275464c4e4d1c3b5fcb5d8ad1",
            "details": {"format": "gguf", "family": "llama", "parameter_size": "3.2B", "quantization_level": "Q4_K_M"},
        },
        {"name": "all-minilm:latest", "digest": "1b226e2802db", "details": {"family": "bert"}},
    ]
}
OLLAMA_SHOW = {
    "llama3.2:3b": {
        "details": {"family": "llama", "quantization_level": "Q4_K_M"},
        "model_info": {"general.parameter_count": 3212749888, "llama.context_length": 131072},
        "capabilities": ["completion", "tools", "vision"],
    },
    "all-minilm:latest": {"model_info": {"bert.context_length": 512}, "capabilities": ["embedding"]},
}
