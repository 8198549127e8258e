"""Models on this machine: those that come with Atmosphere, those in the store, GGUF files in `$ATMO_HOME/models`, and
any GGUF file by its path."""

from __future__ import annotations

import difflib
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from importlib.resources import files
from pathlib import Path

from atmo.errors import AtmoError, ModelInvalid, ModelNotFound
from atmo.models.describing import describe
from atmo.models.gguf import GgufInfo, read_gguf, read_text
from atmo.models.records import StoredModel
from atmo.models.shape import is_first, projector_of, whole_name
from atmo.models.store import Store


@dataclass(frozen=True, slots=True)
class LocalModel:
    """A model that can be loaded here. kind: `gguf`, `encoder`, `classifier` or `vision`; type: what it does, as in
    capabilities.

    size_bytes: on disk; info: a GGUF's own description. `description` and `examples` are what the mesh is told, unless
    the configuration says it better. general: it takes what no other capability fits; licence: as the model says;
    root: hex, of a model in the store; projector: a file beside it that turns images into what it reads.
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
    root: str = ""
    projector: Path | None = None


# The file by which an ONNX model of a kind is known.
_MARKS = {"encoder": "encoder.json", "classifier": "tone.json", "vision": "vision.json"}

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
    store = Store(home / "models" / "store")
    found, problems = embedded_models(), store.problems()
    stored = store.models()
    kept = {_identity(model.path) for model in stored}
    makers = [partial(from_store, model) for model in stored]
    makers += [partial(_from_file, path) for path in _loose(home) if _identity(path) not in kept]
    for make in makers:
        try:
            found.append(make())
        except AtmoError as error:
            problems.append(str(error))
    return found, problems


def find_model(name_or_path: str, home: Path) -> LocalModel:
    """Raises ModelNotFound with what is there instead, ModelInvalid for a file that is no usable model."""
    for model in embedded_models():
        if model.name == name_or_path:
            return model
    if Path(name_or_path).expanduser().is_file():
        return _from_file(Path(name_or_path).expanduser())
    with suppress(ModelNotFound):
        return from_store(Store(home / "models" / "store").find(name_or_path))
    for path in _loose(home):
        if name_or_path in (path.name, path.stem, whole_name(path.name).lower()):
            return _from_file(path)
    if "/" in name_or_path or name_or_path.endswith(".gguf"):
        raise ModelNotFound(f"There is no model file {name_or_path}.", hint="Check the path.")
    known = [model.name for model in local_models(home)[0]]
    near = difflib.get_close_matches(name_or_path, known, n=1)
    hint = f"Did you mean {near[0]!r}?" if near else f"Known are: {', '.join(known)}; or give the path of a .gguf file."
    raise ModelNotFound(f"There is no model {name_or_path!r} on this machine.", hint=hint)


def _loose(home: Path) -> list[Path]:
    """GGUF files that a user put into the models' folder, one for each model."""
    return [path for path in sorted((home / "models").glob("*.gguf")) if is_first(path.name)]


def _from_file(path: Path) -> LocalModel:
    beside = projector_of(path.name, (each.name for each in path.parent.glob(f"mmproj-{whole_name(path.name)}.gguf")))
    return _gguf(path, whole_name(path.name).lower(), read_gguf(path), path.with_name(beside) if beside else None)


def from_store(model: StoredModel) -> LocalModel:
    """Raises ModelInvalid for one that is no use to any engine here."""
    is_gguf = model.path != model.folder
    made = _gguf(model.path, model.name, read_gguf(model.path), model.projector) if is_gguf else _folder(model)
    return replace(made, root=model.root.hex(), size_bytes=model.size_bytes)


def _gguf(path: Path, name: str, info: GgufInfo, projector: Path | None) -> LocalModel:
    told = describe(name, info)
    return LocalModel(
        name,
        "gguf",
        told.type,
        path,
        info.size_bytes,
        told.description,
        told.examples,
        told.strength,
        info=info,
        general=told.general,
        licence=_licence(path),
        projector=projector if projector is not None and _projects(projector) else None,
    )


def _folder(model: StoredModel) -> LocalModel:
    """An ONNX model like one of those that come with Atmosphere; told apart by the file that says how to use it."""
    for like in embedded_models():
        if like.kind != "gguf" and _MARKS[like.kind] in model.files:
            return replace(like, name=model.name, path=model.path, version="", embedded=False)
    raise ModelInvalid(
        f"{model.name} is kept and can be fetched by others, but there is no engine for it here.",
        hint="Engines run GGUF files, and ONNX models with an encoder.json, tone.json or vision.json.",
    )


def _projects(path: Path) -> bool:
    """Whether a file is what its name says. llama.cpp calls all projectors by the name of the first."""
    try:
        return read_text(path, "general.architecture") == "clip"
    except (AtmoError, OSError):
        return False


def _identity(path: Path) -> tuple[int, int] | None:
    """Which file it is, whatever it is called; None when it is gone."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _licence(path: Path) -> str:
    """As the file says, such as `apache-2.0`."""
    return "".join(char for char in read_text(path, "general.license") if char.isprintable())[:64]


def _info(path: Path) -> GgufInfo | None:
    return read_gguf(path) if path.exists() else None


def _size(path: Path) -> int:
    if path.is_dir():
        return sum(part.stat().st_size for part in path.iterdir() if part.is_file())
    return path.stat().st_size if path.exists() else 0
