"""Which files make a model, from the one path that a person gives."""

from __future__ import annotations

from pathlib import Path

from atmo.errors import ModelInvalid, ModelNotFound, RemoteProtocolError
from atmo.models.manifest import MAX_FILES, Entry, Manifest
from atmo.models.onnx import external_files
from atmo.models.shape import parts_of

# What lies beside a model and is none of it.
_SKIPPED = {".git", ".cache", "__pycache__", ".DS_Store", ".gitattributes"}


def files_of(path: Path) -> dict[str, Path]:
    """The files by their paths in the model: those of a folder, all parts of a split GGUF, an ONNX file with its data.

    Raises ModelNotFound when one is missing, ModelInvalid for what is no tree of files.
    """
    if path.is_dir():
        found = _folder(path)
    elif not path.is_file():
        raise ModelNotFound(f"There is no file or folder {path}.", hint="Check the path.")
    elif path.suffix.lower() == ".onnx":
        found = _together(path, [path.name, *external_files(path)])
    else:
        found = _together(path, parts_of(path.name))
    _check(path, found)
    return found


def _folder(path: Path) -> dict[str, Path]:
    found = {}
    for place in sorted(path.rglob("*")):
        relative = place.relative_to(path)
        if place.is_file() and not _SKIPPED & set(relative.parts):
            found[relative.as_posix()] = place
        if len(found) > MAX_FILES:
            raise ModelInvalid(f"{path} has more than {MAX_FILES} files.", hint="Give the folder of one model.")
    if not found:
        raise ModelNotFound(f"There is no file in {path}.", hint="Give the folder of a model.")
    return found


def _together(path: Path, names: list[str]) -> dict[str, Path]:
    missing = [name for name in names if not (path.parent / name).is_file()]
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise ModelNotFound(
            f"{path.name} needs {missing[0]}{more}, which is not beside it.", hint="A model comes whole or not at all."
        )
    return {name: path.parent / name for name in names}


def _check(path: Path, found: dict[str, Path]) -> None:
    try:
        Manifest(tuple(Entry(name, 0) for name in sorted(found)), b"")
    except RemoteProtocolError as error:
        raise ModelInvalid(f"{path} cannot be taken in. {error.message}", hint="Rename what is odd.") from error
