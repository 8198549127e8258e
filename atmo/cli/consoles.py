"""Where rich draws. Imported with the first thing that is drawn: see output.py."""

from __future__ import annotations

from rich.console import Console


class _Console(Console):
    """Rich ends the program with 1 when whoever reads has enough; that is for `running` to decide."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


OUT = _Console(highlight=False)
ASIDE = _Console(stderr=True, highlight=False)
