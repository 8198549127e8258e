"""What the gateway needs of a node, and the words in which its own API is asked."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any, Protocol

from pydantic import BaseModel, ConfigDict, Field

from atmo.generation import MAX_IMAGES, Task

Json = dict[str, Any]


class Message(BaseModel):
    """One turn of a conversation. `images`: PNG or JPEG as data: URLs."""

    model_config = ConfigDict(extra="forbid")
    role: str = Field(pattern="^(system|user|assistant)$")
    content: str
    images: list[str] = Field(default_factory=list, max_length=MAX_IMAGES)


class RouteRequest(BaseModel):
    """What is asked for, without asking it. `constraints` as in docs/routing.md."""

    model_config = ConfigDict(extra="forbid")
    text: str
    model: str = ""
    type: str = ""
    constraints: Json = Field(default_factory=dict)


class Wish(RouteRequest):
    """What is asked for, and what may happen for its sake.

    private: the text stays where this node is: at nodes with its `residency`, or at this node where it has none.
    migrate: what to do when nobody inside the boundary can serve it and a model could come: `ask` tells the plan and
    ends, `yes` carries it out, `no` fails; empty is `ask` for private requests and `no` for others.
    """

    private: bool = False
    migrate: str = Field(default="", pattern="^(|ask|yes|no)$")


class AskRequest(Wish):
    """`intent`: what is to be done with the text, and decides alone where it goes; `images`: PNG or JPEG as data: URLs;
    `max_tokens` 0: no limit; `seed` -1: any; `timeout_s`: seconds until the request is given up, without those in which
    a model comes."""

    intent: str = ""
    system: str = ""
    history: list[Message] = Field(default_factory=list)
    images: list[str] = Field(default_factory=list, max_length=MAX_IMAGES)
    max_tokens: int = Field(default=0, ge=0, lt=1 << 31)
    temperature: float = Field(default=0.0, ge=0.0, le=5.0)
    top_p: float = Field(default=1.0, gt=0.0, le=1.0)
    seed: int = Field(default=-1, ge=-1, lt=1 << 53)
    stop: list[str] = Field(default_factory=list, max_length=16)
    timeout_s: float = Field(default=120.0, gt=0.0, le=86400.0)


class RevokeRequest(BaseModel):
    """whom: a node's name, a peer id or the end of one, or the end of an invite's id."""

    model_config = ConfigDict(extra="forbid")
    whom: str = Field(min_length=1, max_length=100)


class FetchRequest(BaseModel):
    """model: a name, a capability or a root that peers give away."""

    model_config = ConfigDict(extra="forbid")
    model: str = Field(min_length=1, max_length=200)


class NodeHandle(Protocol):
    """A node as the gateway sees it. All raise AtmoError."""

    def status(self) -> Json: ...

    def mesh_view(self) -> Json: ...

    def events(self, since: int, *, follow: bool) -> AsyncIterator[Json]: ...

    def models_view(self) -> Json: ...

    def members_view(self) -> Json: ...

    def counters(self) -> Json: ...

    def transfers_view(self) -> Json: ...

    def fetch(self, wanted: str) -> Json: ...

    def stop_fetch(self, root: str) -> Json: ...

    def revoke(self, whom: str) -> Json: ...

    def route(self, request: RouteRequest) -> Json: ...

    def explained(self, request_id: str) -> Json: ...

    def ask(self, request: AskRequest) -> AsyncIterator[Json]: ...

    def answer(self, wish: Wish, task: Task, timeout_s: float) -> AsyncGenerator[Json, None]:
        """For OpenAI's API. Raises ModelCouldCome where a plan is not agreed to."""

    def want_stop(self) -> None: ...
