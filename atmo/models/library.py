"""Models on this machine: those that come with Atmosphere, those in `$ATMO_HOME/models`, and any GGUF file by its
path."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from atmo.errors import AtmoError, ModelNotFound
from atmo.models.describing import describe
from atmo.models.gguf import GgufInfo, read_gguf, read_text


@dataclass(frozen=True, slots=True)
class LocalModel:
    """A model that can be loaded here. kind: `gguf`, `encoder`, `classifier` or `vision`; type: what it does, as in
    capabilities.

    size_bytes: on disk; info: a GGUF's own description. `description` and `examples` are what the mesh is told, unless
    the configuration says it better. general: it takes what no other capability fits; licence: as the model says.
    """

    name: str
    kind: str
    type: str
    path: Path
    size_bytes: int
    description: str
    examples: tuple[str, ...] = ()
    strength: float = 0.0
    version: str = ""
    embedded: bool = False
    info: GgufInfo | None = None
    general: bool = True
    licence: str = ""


_NANO = (
    "General chat with a very small demonstration model: greetings, what Atmosphere is and how to use it, small sums, "
    "short definitions, yes-or-no questions."
)
_NANO_EXAMPLES = (
    "Hello, who are you?",
    "What is Atmosphere?",
    "How do I add a node?",
    "What is 2+2?",
    "Is ice colder than water?",
    "What is a token?",
)
_ENCODER = (
    "Text embedding: turns text into a vector of 384 numbers for semantic search, similarity, clustering and retrieval."
)
_ENCODER_EXAMPLES = (
    "Give me the embedding of this sentence",
    "Turn this text into a vector",
    "Vectorise this paragraph for semantic search",
)
_TONE = "Sentiment classification: says whether a review, message or feedback sounds positive, negative or neutral."
_TONE_EXAMPLES = (
    "Is this review positive or negative: the battery died after a day",
    "Classify the sentiment of this customer message",
    "What is the tone of this feedback?",
)
_SHAPES = (
    "Image classification, a small demonstration: says which shape (circle, square, triangle, cross) in which colour "
    "is in a picture."
)
_SHAPES_EXAMPLES = ("What shape is in this picture?", "Classify this image", "Which colour is the shape in the image?")


def embedded_models() -> list[LocalModel]:
    """What the wheel ships: usable at once, without a network."""
    assets = Path(str(files("atmo"))) / "assets"
    nano, encoder, tone = assets / "nano" / "atmo-nano.gguf", assets / "encoder", assets / "tone"
    shapes = assets / "shapes"
    return [
        LocalModel("atmo-nano", "gguf", "chat", nano, _size(nano), _NANO, _NANO_EXAMPLES, 0.05, "1", True, _info(nano)),
        LocalModel(
            "atmo-encoder", "encoder", "embedding", encoder, _size(encoder), _ENCODER, _ENCODER_EXAMPLES, 0.4, "1", True
        ),
        LocalModel(
            "atmo-tone", "classifier", "classification", tone, _size(tone), _TONE, _TONE_EXAMPLES, 0.3, "1", True
        ),
        LocalModel("atmo-shapes", "vision", "vision", shapes, _size(shapes), _SHAPES, _SHAPES_EXAMPLES, 0.1, "1", True),
    ]


def local_models(home: Path) -> tuple[list[LocalModel], list[str]]:
    """All models found here, and one line for each file that looks like a model and cannot be used."""
    found, problems = embedded_models(), []
    for path in sorted((home / "models").glob("*.gguf")):
        try:
            found.append(from_file(path))
        except AtmoError as error:
            problems.append(str(error))
    return found, problems


def find_model(name_or_path: str, home: Path) -> LocalModel:
    """Raises ModelNotFound with what is there instead, ModelInvalid for a file that is no usable model."""
    for model in embedded_models():
        if model.name == name_or_path:
            return model
    for path in (
        Path(name_or_path).expanduser(),
        home / "models" / name_or_path,
        home / "models" / f"{name_or_path}.gguf",
    ):
        if path.is_file():
            return from_file(path)
    if "/" in name_or_path or name_or_path.endswith(".gguf"):
        raise ModelNotFound(f"There is no model file {name_or_path}.", hint="Check the path.")
    known = [model.name for model in local_models(home)[0]]
    near = difflib.get_close_matches(name_or_path, known, n=1)
    hint = f"Did you mean {near[0]!r}?" if near else f"Known are: {', '.join(known)}; or give the path of a .gguf file."
    raise ModelNotFound(f"There is no model {name_or_path!r} on this machine.", hint=hint)


def from_file(path: Path) -> LocalModel:
    """A GGUF file. Raises ModelNotFound, ModelInvalid."""
    info = read_gguf(path)
    told = describe(path.stem, info)
    return LocalModel(
        path.stem.lower(),
        "gguf",
        told.type,
        path,
        _size(path),
        told.description,
        told.examples,
        told.strength,
        info=info,
        general=told.general,
        licence=_licence(path),
    )


def _licence(path: Path) -> str:
    """As the file says, such as `apache-2.0`."""
    return "".join(char for char in read_text(path, "general.license") if char.isprintable())[:64]


def _info(path: Path) -> GgufInfo | None:
    return read_gguf(path) if path.exists() else None


def _size(path: Path) -> int:
    if path.is_dir():
        return sum(part.stat().st_size for part in path.iterdir() if part.is_file())
    return path.stat().st_size if path.exists() else 0
