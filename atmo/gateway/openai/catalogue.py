"""Which models the mesh serves, under the names by which OpenAI's clients ask for them."""

from __future__ import annotations

import difflib
from collections import Counter
from dataclasses import dataclass

from atmo.errors import AtmoError, BadParameter, Forbidden, ModelCouldCome, ModelNotFound, NoRoute
from atmo.gateway.handle import NodeHandle
from atmo.gateway.openai.reading import Work
from atmo.gateway.openai.replies import Model
from atmo.gateway.trace import Trace

AUTO = "auto"


@dataclass(frozen=True, slots=True)
class Entry:
    """A capability that somebody serves. name: the shortest that means it alone; examples: requests that suit it."""

    name: str
    id: str
    type: str
    model: str
    description: str
    examples: tuple[str, ...]
    nodes: tuple[str, ...]

    def called(self, name: str) -> bool:
        return name in (self.id, self.model, self.id.rpartition(":")[2])


def catalogue(node: NodeHandle) -> list[Entry]:
    """O(offers of the mesh): for lists and for errors, not for requests."""
    served = node.models_view()["served"]
    shorts = Counter(entry["id"].rpartition(":")[2] for entry in served)
    entries = []
    for entry in served:
        short = entry["id"].rpartition(":")[2]
        kind = entry["id"].split(":")[1] if entry["id"].count(":") >= 2 else ""
        name = short if shorts[short] == 1 else entry["id"]
        nodes = tuple(sorted(set(entry["nodes"])))
        told = entry["description"], tuple(entry["examples"])
        entries.append(Entry(name, entry["id"], kind, entry["model"], *told, nodes))
    return entries


def models(node: NodeHandle, created_s: int, allowed: frozenset[str]) -> list[Model]:
    """What a client may name, `auto` first. allowed: the models of its key, empty for all."""
    seen = [entry for entry in catalogue(node) if not allowed or any(entry.called(name) for name in allowed)]
    auto = [] if allowed else [Model(id=AUTO, created=created_s, owned_by="atmosphere")]
    return auto + [
        Model(
            id=entry.name,
            created=created_s,
            owned_by="atmosphere",
            atmo={
                "capability": entry.id,
                "type": entry.type,
                "model": entry.model,
                "description": entry.description,
                "examples": entry.examples,
                "nodes": entry.nodes,
            },
        )
        for entry in seen
    ]


def may_use(trace: Trace, named: str) -> str:
    """The model to ask for with this key: the named one, or the only one it may use. Raises Forbidden."""
    allowed = trace.key_models
    if not allowed:
        return named
    if not named and len(allowed) == 1:
        return next(iter(allowed))
    if named not in allowed and named.rpartition(":")[2] not in allowed:
        which = f"the model '{named}'" if named else "every model"
        raise Forbidden(f"This API key may not use {which}.", hint=f"It may use: {', '.join(sorted(allowed))}.")
    return named


def no_model(node: NodeHandle, name: str) -> ModelNotFound:
    """In OpenAI's words, with what comes near."""
    names = [entry.name for entry in catalogue(node)]
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    hint = f"Did you mean {' or '.join(near)}?" if near else f"There are: {', '.join([AUTO, *names[:20]])}."
    return ModelNotFound(f"The model `{name}` does not exist or you do not have access to it.", hint=hint)


def clearer(error: AtmoError, node: NodeHandle, work: Work) -> AtmoError:
    """Of a request that found no route: is it the model's name, or what it was asked for?"""
    if not isinstance(error, NoRoute) or isinstance(error, ModelCouldCome) or not work.named:
        return error
    called = [entry for entry in catalogue(node) if entry.called(work.named)]
    if not called:
        return no_model(node, work.named)
    if not any(entry.type == work.wish.type for entry in called):
        return BadParameter(
            f"The model `{work.named}` is for {called[0].type}, not for {work.wish.type}.",
            param="model",
            hint="See /v1/models.",
        )
    return error
