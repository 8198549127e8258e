"""Models: here, on their way, in the mesh."""

from __future__ import annotations

from typing import Any

import msgspec

from atmo.cli.shapes.shape import Shape


class ModelFacts(Shape, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A model that can be loaded here. context, parameters: 0 where not known; embedded: it comes with atmo."""

    name: str
    type: str
    size_bytes: int
    context: int
    parameters: int
    quantisation: str
    architecture: str
    licence: str
    description: str
    embedded: bool
    path: str


class LocalModel(ModelFacts, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A model on this machine. root: its name by content, empty while nobody reckoned it; source: where it is from."""

    root: str
    pinned: bool
    shared: bool
    source: str


class ModelFile(Shape, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A file of a model."""

    path: str
    size_bytes: int


class StoredModel(Shape, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A model in the store. root: its name by content; done_bytes: what is there of it; used_s: when it was used last;
    only: labels that a node must carry to be given it."""

    name: str
    root: str
    size_bytes: int
    done_bytes: int
    files: list[ModelFile]
    folder: str
    source: str
    added_s: float
    used_s: float
    pinned: bool
    shared: bool
    only: dict[str, str]


class PartialModel(Shape, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A model that is not whole yet; where more is known of it, it is a StoredModel."""

    name: str
    size_bytes: int
    done_bytes: int
    root: str = ""
    files: list[ModelFile] = msgspec.field(default_factory=list)
    folder: str = ""
    source: str = ""
    added_s: float = 0.0
    used_s: float = 0.0
    pinned: bool = False
    shared: bool = False
    only: dict[str, str] = msgspec.field(default_factory=dict)


class ServedModel(Shape, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A capability in the mesh. examples: requests that suit it; nodes: names of those that offer it."""

    id: str
    type: str
    model: str
    description: str
    examples: list[str]
    nodes: list[str]


class SeededModel(Shape, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who gives which model away. complete: all of it; only: labels that a node must carry to be given it;
    source: the file of a hub that it says this is."""

    root: str
    model: str
    size_bytes: int
    complete: bool
    only: dict[str, str]
    source: str
    peer: str
    node: str


class Models(Shape, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """partial: on their way; served: empty where no node runs; problems: files that look like models and cannot be
    used."""

    local: list[LocalModel]
    partial: list[PartialModel]
    served: list[ServedModel]
    problems: list[str]


class Imported(Shape, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """new: it was not there before."""

    model: StoredModel
    new: bool


class Pulled(Imported, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """from: the source, empty where nothing had to be fetched; notes: why those that were asked before it were not."""

    from_: str = msgspec.field(name="from")
    notes: list[str]
    fetched_bytes: int
    seconds: float


class Inspected(Shape, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """stored: null for one that is not in the store; model: null for one that no engine here can run."""

    stored: StoredModel | None
    model: ModelFacts | None


class Removed(Shape, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is gone."""

    removed: list[StoredModel]


class Collected(Shape, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """fits: what is left is within the quota; dry_run: nothing was removed."""

    removed: list[StoredModel]
    freed_bytes: int
    used_bytes: int
    quota_bytes: int
    fits: bool
    dry_run: bool


class VerifiedModel(StoredModel, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """bad: chunks that are not what they were, by number; the exit code is 7 then."""

    bad: list[Any]


class VerifiedModels(Shape, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Each model that was read."""

    verified: list[VerifiedModel]


class Marked(Shape, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The model as it is now."""

    model: StoredModel


class Whereabouts(Shape, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """here: in the store of this machine; seeds: who in the mesh gives it away; loose: a file or embedded model."""

    model: str
    here: list[StoredModel]
    seeds: list[SeededModel]
    loose: ModelFacts | None
