"""Streams: events become server-sent events in OpenAI's chunks."""

from __future__ import annotations

from typing import Any

import msgspec

from atmo.errors import AtmoError
from atmo.gateway.handle import Json
from atmo.gateway.openai.errors import error_body
from atmo.gateway.openai.reading import Work
from atmo.gateway.openai.replies import chat_scores, label_text, text_scores

DONE = b"data: [DONE]\n\n"
_encode = msgspec.json.encode


def sse(value: Any) -> bytes:
    return b"data: " + _encode(value) + b"\n\n"


def sse_error(error: AtmoError) -> bytes:
    """What is left to say when the status has been sent."""
    return b"data: " + error_body(error) + b"\n\n"


class ChatChunks:
    """Writes the chunks of one reply. head: what every chunk begins with: id, created, model."""

    kind = "chat.completion.chunk"

    def __init__(self, work: Work, head: Json) -> None:
        self._work = work
        self._head = {**head, "object": self.kind}
        if work.usage:
            self._head["usage"] = None
        # Everything of a chunk with text but the text and the choice's number.
        plain = _encode({**self._head, "choices": []})
        self._before = b"data: " + plain[: plain.rindex(b"[]}")] + b'[{"index":'
        self._begun: set[int] = set()

    def of(self, index: int, event: Json, moved: Json) -> bytes:
        """The chunks that an event becomes; nothing for most kinds of event. moved: for the last one."""
        what = event["event"]
        if what == "text":
            return self._begin(index) + self._text(index, event)
        if what == "labels":
            return self._begin(index) + self._text(index, {"text": label_text(event)})
        if what == "done":
            return self._begin(index) + self._chunk(index, {}, finish=event["finish"], moved=moved)
        return b""

    def explained(self, explanation: Json) -> bytes:
        return sse({**self._head, "choices": [], "atmo": explanation})

    def usage(self, used: Any) -> bytes:
        return sse({**self._head, "choices": [], "usage": used})

    def _begin(self, index: int) -> bytes:
        if index in self._begun:
            return b""
        self._begun.add(index)
        return self._chunk(index, {"role": "assistant", "content": "", "refusal": None})

    def _text(self, index: int, event: Json) -> bytes:
        scores, calls = event.get("scores"), event.get("calls")
        if not calls and not scores:
            if not event["text"]:
                return b""  # ids of a character that is not complete yet
            text = _encode(event["text"])
            return b'%s%d,"delta":{"content":%s},"logprobs":null,"finish_reason":null}]}\n\n' % (
                self._before, index, text,
            )  # fmt: skip
        delta: Json = {"content": event["text"]} if event["text"] or not calls else {}
        if calls:
            delta["tool_calls"] = [_call(call) for call in calls]
        return self._chunk(index, delta, scores=chat_scores(scores) if scores else None)

    def _chunk(
        self, index: int, delta: Json, *, finish: str | None = None, scores: Any = None, moved: Json | None = None
    ) -> bytes:
        choice = {"index": index, "delta": delta, "logprobs": scores, "finish_reason": finish}
        return self._of_choice(choice, moved)

    def _of_choice(self, choice: Json, moved: Json | None) -> bytes:
        return sse({**self._head, "choices": [choice], **({"atmo": moved} if moved else {})})


class TextChunks(ChatChunks):
    """The same for completions. echoes: what stands before each choice."""

    kind = "text_completion"

    def __init__(self, work: Work, head: Json, echoes: list[str]) -> None:
        super().__init__(work, head)
        self._echoes = echoes
        self._offsets = [len(echo) for echo in echoes]

    def _begin(self, index: int) -> bytes:
        if index in self._begun:
            return b""
        self._begun.add(index)
        return self._piece(index, self._echoes[index]) if self._echoes[index] else b""

    def _text(self, index: int, event: Json) -> bytes:
        if not event["text"] and not event.get("scores"):
            return b""
        scores = None
        if event.get("scores"):
            scores = text_scores(event["scores"], self._offsets[index])
        self._offsets[index] += len(event["text"])
        return self._piece(index, event["text"], scores=scores)

    def _chunk(
        self, index: int, delta: Json, *, finish: str | None = None, scores: Any = None, moved: Json | None = None
    ) -> bytes:
        return self._piece(index, "", finish=finish, scores=scores, moved=moved)

    def _piece(
        self, index: int, text: str, *, finish: str | None = None, scores: Any = None, moved: Json | None = None
    ) -> bytes:
        return self._of_choice({"index": index, "text": text, "logprobs": scores, "finish_reason": finish}, moved)


def _call(delta: Json) -> Json:
    """More of a call; its id and name come with the first of it."""
    function = {"arguments": delta["arguments"]}
    if delta["name"]:
        function = {"name": delta["name"], **function}
    told: Json = {"index": delta["index"], "function": function}
    return {**told, "id": delta["id"], "type": "function"} if delta["id"] else told
