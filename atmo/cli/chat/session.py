"""A conversation: what was said, with which wishes it goes on, and how it is written down."""

from __future__ import annotations

import json
from collections.abc import Generator
from dataclasses import dataclass, field
from typing import Any

from atmo.cli.prompts import Prompt
from atmo.client import SyncClient

Json = dict[str, Any]


@dataclass
class Turn:
    """What was asked and what was answered. done: who answered and how fast, None while it was not complete."""

    prompt: Prompt
    answer: str = ""
    done: Json | None = None

    def messages(self) -> list[Json]:
        asked: Json = {"role": "user", "content": self.prompt.text}
        if self.prompt.images:
            asked["images"] = list(self.prompt.images)
        return [asked, {"role": "assistant", "content": self.answer}]


@dataclass
class Session:
    """wishes: as `SyncClient.stream` takes them, changed by /model, /where and /system."""

    client: SyncClient
    wishes: Json
    turns: list[Turn] = field(default_factory=list)

    def ask(self, prompt: Prompt) -> Generator[Json, None, None]:
        """The node's events. What has been said is kept however this ends, but for a question without an answer."""
        turn = Turn(prompt)
        history = [message for said in self.turns for message in said.messages()]
        try:
            for event in self.client.stream(prompt.text, **prompt.wishes({**self.wishes, "history": history})).steps():
                if event["event"] == "text":
                    turn.answer += event["text"]
                elif event["event"] == "done":
                    turn.done = event
                yield event
        finally:
            if turn.answer:
                self.turns.append(turn)

    @property
    def last_request(self) -> str:
        """The id of the last request that was answered whole, empty if there is none."""
        return next((turn.done["request_id"] for turn in reversed(self.turns) if turn.done), "")

    def as_markdown(self) -> str:
        parts = []
        for turn in self.turns:
            parts.append("> " + turn.prompt.text.replace("\n", "\n> "))
            by = f"\n\n*{turn.done['node']}, {turn.done['capability']}*" if turn.done else "\n\n*not complete*"
            parts.append(turn.answer.strip() + by)
        return "\n\n".join(parts) + "\n"

    def as_json(self) -> str:
        turns = [message for turn in self.turns for message in turn.messages()]
        return json.dumps({"messages": turns}, ensure_ascii=False, indent=2) + "\n"
