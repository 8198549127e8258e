"""A model's name by its content, from the files themselves; what a root is stands in `manifest.py`.

Reading a large file takes as long as the disk needs, so what was found is remembered with the file's size and time.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from atmo.models.hashing import hash_file
from atmo.models.manifest import HASH_BYTES, file_root, tree_root


def root_of(path: Path, memory: Path | None = None) -> str:
    """Hex root of a file, or of all files in a folder. memory: a JSON file that spares reading it again.

    Raises OSError. Reads about 1 GB a second.
    """
    if path.is_dir():
        files = [each for each in path.rglob("*") if each.is_file()]
        if len(files) != 1:
            return tree_root(
                (each.relative_to(path).as_posix(), bytes.fromhex(root_of(each, memory))) for each in files
            ).hex()
        path = files[0]
    known = _load(memory)
    state = os.stat(path)
    print_of_file = [state.st_size, state.st_mtime_ns, state.st_ino]
    key = str(path.resolve())
    if key in known and known[key][:3] == print_of_file:
        return str(known[key][3])
    root = _root_of_file(path)
    if memory is not None:
        _save(memory, {**known, key: [*print_of_file, root]})
    return root


def _root_of_file(path: Path) -> str:
    found = hash_file(path)
    leaves = (found.hashes[at : at + HASH_BYTES] for at in range(0, len(found.hashes), HASH_BYTES))
    return file_root(leaves, found.size).hex()


def _load(memory: Path | None) -> dict[str, list[object]]:
    try:
        found = json.loads(memory.read_text()) if memory is not None else {}
    except (OSError, ValueError):
        return {}  # nothing is lost but time
    return found if isinstance(found, dict) and all(_sound(each) for each in found.values()) else {}


def _sound(entry: object) -> bool:
    return isinstance(entry, list) and len(entry) == 4


def _save(memory: Path, known: dict[str, list[object]]) -> None:
    """As a whole or not at all; a memory that cannot be written costs time and nothing else."""
    draft = memory.with_name(f"{memory.name}.{os.getpid()}")
    try:
        draft.write_text(json.dumps(known))
        draft.replace(memory)
    except OSError:
        draft.unlink(missing_ok=True)
