"""A picture of a command's output for the docs: `python -m tools.capture OUTPUT.svg COMMAND...` (colours kept)."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from rich.console import Console
from rich.text import Text

COLUMNS = 100


def main(output: str, *command: str) -> int:
    environ = {**os.environ, "FORCE_COLOR": "1", "COLUMNS": str(COLUMNS), "TERM": "xterm-256color"}
    done = subprocess.run(command, env=environ, stdout=subprocess.PIPE, text=True, check=False)
    with Path(os.devnull).open("w") as nowhere:
        console = Console(record=True, width=COLUMNS, file=nowhere, force_terminal=True)
        console.print(Text.from_ansi(done.stdout.rstrip()))
        svg = console.export_svg(title=" ".join(command[-2:]))
    Path(output).write_text(re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL))  # no font from a CDN
    return done.returncode


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
