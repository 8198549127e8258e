"""One scenario in a process of its own: fresh memory, one computing thread, and an end that the parent can enforce.

`python -m bench.one NAME FOLDER RESULT [--quick]`: FOLDER is empty and for the scenario's files, RESULT gets the JSON.
Started by `python -m bench`.
"""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from types import FrameType

import msgspec

from atmo.errors import AtmoError
from bench import harness


def main(words: list[str]) -> int:
    name, folder, file = words[:3]
    signal.signal(signal.SIGTERM, _leave)  # so that `finally` is reached
    try:
        result = harness.measure(name, harness.load(name), Path(folder), quick="--quick" in words[3:])
    except AtmoError as error:
        print(f"  {error}", file=sys.stderr)
        return error.exit_code
    Path(file).write_bytes(msgspec.json.encode(result))
    return 0


def _leave(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
