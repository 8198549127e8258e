"""atmo-nano as its users run it: llama.cpp on the GGUF, at temperature 0."""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path
from typing import Any

import xllamacpp

from tools.nano.corpus.reader import Message

LONGEST_ANSWER = 200  # tokens; the longest answer of the corpus has fewer


class Runtime:
    """One llama.cpp server in this process, on a loopback port that the kernel gives."""

    def __init__(self, gguf: Path, threads: int = 1) -> None:
        params = xllamacpp.CommonParams()
        params.model.path = str(gguf)
        params.n_ctx = 1024
        params.n_parallel = 1
        params.cpuparams.n_threads = threads
        params.cpuparams_batch.n_threads = threads
        params.n_threads_http = 1
        params.port = 0
        params.warmup = False
        params.verbosity = 0
        self._server = xllamacpp.Server(params)

    def chat(self, messages: list[Message], **more: Any) -> str:
        """The answer to a conversation."""
        body = {
            "messages": [{"role": r, "content": t} for r, t in messages],
            "temperature": 0,
            "max_tokens": LONGEST_ANSWER,
        }
        reply = self._server.handle_chat_completions(body | more)
        reply = json.loads(reply) if isinstance(reply, str) else reply
        return str(reply["choices"][0]["message"]["content"])

    def ask(self, question: str) -> str:
        return self.chat([("user", question)])

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """One call of llama.cpp's own HTTP API, such as `/tokenize`."""
        data = json.dumps(body).encode()
        request = urllib.request.Request(
            self._server.listening_address + path, data, {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            return dict(json.load(answer))
