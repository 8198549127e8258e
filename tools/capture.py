"""A picture of a command's output for the docs, colours kept.

`python -m tools.capture OUTPUT.svg COMMAND...` shows what it printed; `python -m tools.capture OUTPUT.svg --screen
100x30 COMMAND...` runs it in a terminal of that size (tmux) and shows the last full-screen picture that it drew.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.text import Text

COLUMNS = 100
LOOK_S = 0.1


def main(output: str, *words: str) -> int:
    if words[0] == "--screen":
        columns, rows = (int(number) for number in words[1].split("x"))
        command = words[2:]
        code, shown = screen(command, columns, rows)
    else:
        columns, command = COLUMNS, words
        code, shown = printed(command)
    with Path(os.devnull).open("w") as nowhere:
        console = Console(record=True, width=columns, file=nowhere, force_terminal=True)
        console.print(Text.from_ansi(shown))
        svg = console.export_svg(title=" ".join([Path(command[0]).name, *command[1:]]))
    Path(output).write_text(re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL))  # no font from a CDN
    return code


def printed(command: tuple[str, ...]) -> tuple[int, str]:
    """Exit code and output, as a terminal would get it."""
    environ = {**os.environ, "FORCE_COLOR": "1", "COLUMNS": str(COLUMNS), "TERM": "xterm-256color"}
    done = subprocess.run(command, env=environ, stdout=subprocess.PIPE, text=True, check=False)
    return done.returncode, done.stdout.rstrip()


def screen(command: tuple[str, ...], columns: int, rows: int) -> tuple[int, str]:
    """Exit code, and the last picture on the alternate screen."""
    shown = ""
    with tempfile.TemporaryDirectory() as folder:
        environ = {**os.environ, "TMUX_TMPDIR": folder}
        ended = Path(folder) / "ended"
        line = f"{shlex.join(command)}; echo $? > {ended}.new; mv {ended}.new {ended}; sleep 60"

        def tmux(*words: str) -> str:
            told = ["tmux", "-f", "/dev/null", *words]
            return subprocess.run(told, env=environ, capture_output=True, text=True, check=True).stdout

        tmux("new-session", "-d", "-x", str(columns), "-y", str(rows), line)
        try:
            while not ended.exists():
                picture = tmux("capture-pane", "-e", "-N", "-p")
                if tmux("display-message", "-p", "#{alternate_on}").strip() == "1":
                    shown = picture
                time.sleep(LOOK_S)
            return int(ended.read_text()), shown.rstrip("\n")
        finally:
            tmux("kill-server")


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
