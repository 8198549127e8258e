"""What the mesh is told of a model that is given away: what it would be offered as, and how much memory it takes."""

from __future__ import annotations

import msgspec
import structlog

from atmo.config import ServeSection
from atmo.errors import AtmoError, ModelInvalid, UsageError
from atmo.mesh.capability import EMBEDDING, Descriptor
from atmo.mesh.rows import Seed, Shape
from atmo.models.gguf import GgufInfo
from atmo.models.library import LocalModel, from_store
from atmo.models.records import StoredModel
from atmo.models.reference import parse
from atmo.node.offers import describe_offer, slug

# As a SEED row has room for.
MAX_SOURCE_CHARS = 300

log = structlog.get_logger("atmo.seeds")


def local_model(stored: StoredModel) -> LocalModel | None:
    """A stored model as one that can be loaded here; None for files that no engine here knows."""
    try:
        return from_store(stored)
    except ModelInvalid:
        return None


def seed_of(stored: StoredModel) -> Seed | None:
    """None for a model whose own description cannot be read."""
    try:
        model = local_model(stored)
        if model is None:
            told = Descriptor(id=f"atmo:model:{slug(stored.name)}", type="model", description=stored.name)
            descriptor, kind, shape = _named(told, stored), "", Shape()
        else:
            sees = model.projector is not None
            descriptor = _named(describe_offer(ServeSection(model=model.name), model, 0, sees=sees), stored)
            kind, shape = model.kind, shape_of(model.info)
    except AtmoError as error:
        log.warning("a model is not given away", model=stored.name, why=error.message)
        return None
    only = tuple(sorted(stored.record.only.items()))
    return Seed(stored.size_bytes, kind, descriptor, shape, only, stored.whole, source_told(stored.record.source))


def source_told(source: str) -> str:
    """Of where a model came from only what others can make use of: a file of a hub, at a commit. An address may hold a
    password, and a path is nobody's business."""
    try:
        wanted = parse(source)
    except UsageError:
        return ""
    return source if wanted.kind == "hub" and wanted.pinned and len(source) <= MAX_SOURCE_CHARS else ""


def _named(told: Descriptor, stored: StoredModel) -> Descriptor:
    return msgspec.structs.replace(told, root=stored.root.hex(), model=stored.name)


def shape_of(info: GgufInfo | None) -> Shape:
    if info is None:
        return Shape()
    return Shape(info.layers, info.width, info.vocabulary, info.context, info.kv_bytes_per_token)


def info_of(seed: Seed) -> GgufInfo:
    """As far as sizing and memory need it, for a model whose file is not here yet."""
    shape = seed.shape
    return GgufInfo(
        architecture="",
        name=seed.descriptor.model,
        parameters=seed.descriptor.parameters,
        context=shape.context,
        quantisation=seed.descriptor.quantisation,
        vocabulary=shape.vocabulary,
        has_chat_template=False,
        kv_bytes_per_token=shape.kv_bytes_per_token,
        size_bytes=seed.size_bytes,
        embeds=seed.descriptor.type == EMBEDDING,
        layers=shape.layers,
        width=shape.width,
    )
