"""From `[[serve]]` in the configuration to what the mesh is told and what the engine loads."""

from __future__ import annotations

import re
from dataclasses import dataclass

from atmo.config import Config, InferenceSection, ServeSection
from atmo.errors import ConfigError
from atmo.inference.engine import ModelSpec
from atmo.inference.engines import takes_projector
from atmo.mesh.capability import CHAT, MAX_EXAMPLES, MAX_TEXT_CHARS, VISION, Descriptor
from atmo.mesh.classes import GENERAL
from atmo.models.library import LocalModel, find_model

# Description and examples together. A row may have 31 KiB, vectors included, and a character up to four bytes.
MAX_TOLD_CHARS = 4000


@dataclass(frozen=True, slots=True)
class Offer:
    """One capability of this node: its descriptor for the mesh and its model for the engine. root: hex, of a model in
    the store; empty for one whose root is yet to be found."""

    descriptor: Descriptor
    spec: ModelSpec
    root: str = ""


def offers(config: Config) -> list[Offer]:
    """All capabilities the configuration asks for. Raises ModelNotFound, ModelInvalid or ConfigError."""
    made = [_offer(section, config) for section in config.serve]
    seen: set[str] = set()
    for offer in made:
        if offer.descriptor.id in seen:
            raise ConfigError(
                f"{offer.descriptor.id} is served twice.", hint="Give one of them another name in [[serve]]."
            )
        seen.add(offer.descriptor.id)
    return made


def _offer(section: ServeSection, config: Config) -> Offer:
    return offer_of(find_model(section.model, config.home), section, config.inference)


def offer_of(model: LocalModel, section: ServeSection, inference: InferenceSection) -> Offer:
    """A model that is here, as the configuration or nobody describes it. Raises ConfigError."""
    spec = ModelSpec(
        name=model.name,
        kind=model.kind,
        path=str(model.path),
        engine=inference.engine if model.kind == "gguf" else "onnx",
        context=inference.context,
        slots=inference.slots if model.kind == "gguf" else 1,
        threads=inference.threads,
        batch=inference.batch,
        gpu_layers=inference.gpu_layers,
        system_prompt=section.system,
        projector=str(model.projector) if model.projector is not None and takes_projector(inference.engine) else "",
    )
    return Offer(describe_offer(section, model, spec.context, sees=bool(spec.projector)), spec, model.root)


def describe_offer(section: ServeSection, model: LocalModel, context: int, *, sees: bool) -> Descriptor:
    """context: as configured, 0 for the model's own; sees: it takes images beside text. Raises ConfigError."""
    kind = section.type or model.type
    description = section.description or model.description
    examples = section.examples or (() if section.description else model.examples)
    told = len(description) + sum(len(example) for example in examples)
    if len(description) > MAX_TEXT_CHARS or len(examples) > MAX_EXAMPLES or told > MAX_TOLD_CHARS:
        raise ConfigError(
            f"The description of {section.model} is too long.",
            hint=f"Up to {MAX_TEXT_CHARS} characters, {MAX_EXAMPLES} examples and {MAX_TOLD_CHARS} in all are allowed.",
        )
    info = model.info
    labels = dict(section.labels)
    if kind == CHAT and not section.description and model.general:
        labels.setdefault(*GENERAL)  # a chat model that nobody narrowed down takes what fits nothing else
    if model.licence:
        labels.setdefault("licence", model.licence)
    held = min(context or info.context, info.context) if info else 0
    return Descriptor(
        id=f"atmo:{kind}:{slug(section.name or model.name)}",
        type=kind,
        description=description,
        examples=examples,
        model=model.name,
        version=section.version or model.version,
        context=held,
        modalities=("image",) if kind == VISION else ("text", "image") if sees and kind == CHAT else ("text",),
        quantisation=info.quantisation if info else "",
        parameters=info.parameters if info else 0,
        strength=section.strength if section.strength >= 0 else model.strength,
        price=section.price,
        labels=tuple(sorted(labels.items())),
    )


def slug(name: str) -> str:
    """A name as it stands in a capability's id. Raises ConfigError when nothing is left of it."""
    found = re.sub(r"[^a-z0-9.]+", "-", name.lower()).strip("-")
    if not found:
        raise ConfigError(f"{name!r} is not a capability name.", hint="Use letters and digits.")
    return found[:64]
