"""Which of a model's files is which: the weights to load, the parts of a split one, a projector for images."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

# llama.cpp's own naming, src/llama.cpp: llama_split_path
_PART = re.compile(r"^(?P<stem>.*)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf$", re.IGNORECASE)


def is_projector(path: str) -> bool:
    """A projector turns images into what the model beside it reads."""
    name = path.rsplit("/", 1)[-1].lower()
    return name.endswith(".gguf") and "mmproj" in name


def is_first(name: str) -> bool:
    """Whether a GGUF file stands for a model: no projector, and of a split one the first part."""
    return not is_projector(name) and parts_of(name)[0] == name


def parts_of(name: str) -> list[str]:
    """All file names of a split GGUF, from any one of them; the name itself where it is not split."""
    found = _PART.match(name)
    if found is None:
        return [name]
    count = int(found["count"])
    return [f"{found['stem']}-{number:05}-of-{count:05}{name[-5:]}" for number in range(1, count + 1)]


def whole_name(name: str) -> str:
    """What a file calls its model: without its folder, ending and number of part."""
    name = name.rstrip("/").rsplit("/", 1)[-1]
    found = _PART.match(name)
    return found["stem"] if found else re.sub(r"\.(gguf|onnx)$", "", name, flags=re.IGNORECASE)


def main_file(sizes: Mapping[str, int]) -> str:
    """The GGUF to load, "" when there is none. sizes: of the files by path. Of several, the largest; of parts, the
    first."""
    models = {path: size for path, size in sizes.items() if path.lower().endswith(".gguf") and not is_projector(path)}
    if not models:
        return ""
    largest = max(sorted(models), key=lambda path: models[path])
    folder, _, name = largest.rpartition("/")
    first = f"{folder}/{parts_of(name)[0]}".lstrip("/")
    return first if first in models else largest


def projector_of(main: str, paths: Iterable[str]) -> str:
    """The projector that lies beside a model's main file, "" when there is none. Of several, which differ in precision
    alone, the first by name."""
    folder = main.rpartition("/")[0]
    return min((path for path in paths if is_projector(path) and path.rpartition("/")[0] == folder), default="")
