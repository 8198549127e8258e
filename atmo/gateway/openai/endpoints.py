"""The endpoints under `/v1`, as plain ASGI: they are asked thousands of times a second, and a framework's share of
that would be larger than theirs. Errors before the first word are replies with their own status; afterwards they are
the stream's last event."""

from __future__ import annotations

import base64
import time
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
import numpy as np

from atmo.errors import AtmoError, BadParameter
from atmo.gateway.asgi import (
    BODY_KEY,
    JSON,
    App,
    Receive,
    Scope,
    Send,
    reply,
    trace_of,
    while_client_listens,
)
from atmo.gateway.handle import Json, NodeHandle
from atmo.gateway.openai import catalogue, reading, shapes
from atmo.gateway.openai.chunks import DONE, ChatChunks, TextChunks, sse_error
from atmo.gateway.openai.reading import Work
from atmo.gateway.openai.replies import (
    ChatReply,
    Embedding,
    EmbeddingReply,
    Gathered,
    ModelList,
    TextReply,
    Usage,
    chat_choice,
    text_choice,
    usage,
)
from atmo.gateway.openai.running import running
from atmo.gateway.openai.streaming import EventStream
from atmo.gateway.trace import Trace

_encode = msgspec.json.encode


class Endpoints:
    """`/v1/...` for one node. Every method is an ASGI app; all raise AtmoError before they have replied."""

    def __init__(self, node: NodeHandle) -> None:
        self._node = node
        self._started_s = int(time.time())
        self._read_chat = reading.decoder(shapes.ChatRequest)
        self._read_completion = reading.decoder(shapes.CompletionRequest)
        self._read_embedding = reading.decoder(shapes.EmbeddingRequest)

    async def models(self, scope: Scope, receive: Receive, send: Send) -> None:
        trace = trace_of(scope)
        listed = ModelList(data=catalogue.models(self._node, self._started_s, trace.key_models))
        await reply(send, 200, _encode(listed), [JSON])

    async def model(self, scope: Scope, receive: Receive, send: Send) -> None:
        trace, name = trace_of(scope), scope["path"].removeprefix("/v1/models/")
        for model in catalogue.models(self._node, self._started_s, trace.key_models):
            told: Json = model.atmo if isinstance(model.atmo, dict) else {}
            if name in (model.id, told.get("capability"), told.get("model")):
                return await reply(send, 200, _encode(model), [JSON])
        raise catalogue.no_model(self._node, name)

    async def chat(self, scope: Scope, receive: Receive, send: Send) -> None:
        trace = trace_of(scope)
        work = self._permitted(trace, reading.read_chat(self._read_chat(scope[BODY_KEY]), _headers(scope)))
        async with while_client_listens(receive):
            if work.stream:
                await self._stream(send, trace, work, lambda head: ChatChunks(work, head))
            else:
                gathered = await self._gather(trace, work)
                choices = [chat_choice(at, one, scored=work.scored) for at, one in enumerate(gathered)]
                await self._whole(send, trace, work, ChatReply, choices)

    async def completions(self, scope: Scope, receive: Receive, send: Send) -> None:
        trace, request = trace_of(scope), self._read_completion(scope[BODY_KEY])
        work = self._permitted(trace, reading.read_completion(request, _headers(scope)))
        echoes = [task.turns[0].content if request.echo else "" for task in work.tasks]
        async with while_client_listens(receive):
            if work.stream:
                await self._stream(send, trace, work, lambda head: TextChunks(work, head, echoes))
            else:
                gathered = await self._gather(trace, work)
                choices = [text_choice(at, one, echoes[at], scored=work.scored) for at, one in enumerate(gathered)]
                await self._whole(send, trace, work, TextReply, choices)

    async def embeddings(self, scope: Scope, receive: Receive, send: Send) -> None:
        trace, request = trace_of(scope), self._read_embedding(scope[BODY_KEY])
        work = self._permitted(trace, reading.read_embedding(request, _headers(scope)))
        async with while_client_listens(receive):
            vectors = await self._vectors(trace, work)
            width = len(vectors[0]) if vectors else 0
            if request.dimensions not in (None, width):
                raise BadParameter(
                    f"The vectors of {trace.model} have {width} dimensions and cannot be cut.", param="dimensions"
                )
            in_base64 = request.encoding_format == "base64"
            data = [
                Embedding(index=at, embedding=_base64(vector) if in_base64 else vector)
                for at, vector in enumerate(vectors)
            ]
            tokens = Usage(prompt_tokens=trace.prompt_tokens, total_tokens=trace.prompt_tokens)
            told = self._explanation(trace, work)
            body = _encode(EmbeddingReply(data=data, model=trace.model, usage=tokens, atmo=told))
            await reply(send, 200, body, [JSON])

    def _permitted(self, trace: Trace, work: Work) -> Work:
        """Note what is asked, and see that the key may. Raises Forbidden."""
        trace.asked = work.named or catalogue.AUTO
        named = catalogue.may_use(trace, work.named)
        if named == work.named:
            return work
        wish = work.wish.model_copy(update={"model": named})
        return Work(
            wish, work.tasks, work.timeout_s, named, work.per_prompt, work.stream, work.usage, work.explain, work.scored
        )

    def _explanation(self, trace: Trace, work: Work) -> Json | msgspec.UnsetType:
        """What a client is told of the decision, if it asked for that, of an answer that moved, and of a receipt."""
        asked = work.explain and trace.mesh_id
        told = {
            **({"decision": self._node.explained(trace.mesh_id)} if asked else {}),
            **trace.moved,
            **trace.proof,
        }
        return told or msgspec.UNSET

    async def _gather(self, trace: Trace, work: Work) -> list[Gathered]:
        gathered = [Gathered() for _ in work.tasks]
        try:
            async with running(self._node, work, trace) as events:
                async for index, event in events:
                    gathered[index].add(event)
        except AtmoError as error:
            raise catalogue.clearer(error, self._node, work) from error
        return gathered

    async def _whole(
        self, send: Send, trace: Trace, work: Work, kind: type[ChatReply] | type[TextReply], choices: list[Any]
    ) -> None:
        body = kind(
            **_head(trace, kind is ChatReply),
            choices=choices,
            usage=usage(trace),
            atmo=self._explanation(trace, work),
        )
        await reply(send, 200, _encode(body), [JSON])

    async def _vectors(self, trace: Trace, work: Work) -> list[list[float]]:
        vectors = []
        try:
            async with running(self._node, work, trace) as events:
                async for _, event in events:
                    if event["event"] == "vector":
                        vectors.append(event["vector"])
        except AtmoError as error:
            raise catalogue.clearer(error, self._node, work) from error
        return vectors

    async def _stream(self, send: Send, trace: Trace, work: Work, chunks_of: Callable[[Json], ChatChunks]) -> None:
        """Errors after the stream has begun are its last event."""
        chunks: ChatChunks | None = None
        async with EventStream(send) as stream:
            try:
                async with running(self._node, work, trace) as events:
                    async for index, event in events:
                        if chunks is None:
                            if event["event"] in _TRAVELS:
                                await stream.travels(event)
                            if event["event"] not in _WORDS:
                                continue
                            chunks = chunks_of(_head(trace, "chat" in trace.endpoint))
                            told = self._explanation(trace, work)
                            if isinstance(told, dict):
                                await stream.write(chunks.explained(told))
                        if chunk := chunks.of(index, event, trace.moved):
                            await stream.write(chunk)
            except AtmoError as error:
                clear = catalogue.clearer(error, self._node, work)
                if not stream.begun:
                    raise clear from error
                trace.code = clear.code
                last = sse_error(clear)
            else:
                assert chunks is not None, "an answer has an end at least"
                last = chunks.explained(trace.proof) if trace.proof else b""
                last += (chunks.usage(usage(trace)) if work.usage else b"") + DONE
            await stream.write(last, last=True)


# Events that a client sees something of, and those of a model that comes first.
_WORDS = frozenset(("text", "labels", "done"))
_TRAVELS = frozenset(("transfer", "loading"))


def endpoints(node: NodeHandle) -> list[tuple[str, str, App]]:
    """(method, path, app) of every endpoint."""
    made = Endpoints(node)
    return [
        ("GET", "/v1/models", made.models),
        ("GET", "/v1/models/{model:path}", made.model),
        ("POST", "/v1/chat/completions", made.chat),
        ("POST", "/v1/completions", made.completions),
        ("POST", "/v1/embeddings", made.embeddings),
    ]


def _headers(scope: Scope) -> Mapping[str, str]:
    """Of all headers only those that are for the mesh."""
    return {
        name.decode("latin-1"): value.decode("latin-1")
        for name, value in scope["headers"]
        if name.startswith(b"x-atmo-")
    }


def _head(trace: Trace, chat: bool) -> dict[str, Any]:
    prefix = "chatcmpl" if chat else "cmpl"
    return {"id": f"{prefix}-{trace.mesh_id}", "created": int(time.time()), "model": trace.model}


def _base64(vector: list[float]) -> str:
    """float32, little-endian: what OpenAI's clients ask for unless told otherwise."""
    return base64.b64encode(np.asarray(vector, dtype="<f4").tobytes()).decode()
