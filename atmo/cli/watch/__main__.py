"""Every page with an invented mesh: `python -m atmo.cli.watch [NODES]`."""

from __future__ import annotations

import sys

from rich.console import Console

from atmo.cli.watch import demo, frame
from atmo.cli.watch.view import PAGES, View, press


def main(count: int) -> None:
    console, story = Console(highlight=False), demo.story(count)
    width, height = console.size.width, min(console.size.height, 40)
    views = [View(page=page) for page in PAGES]
    views += [press(View(page=page), "enter", story) for page in ("nodes", "requests")]
    for view in (*views, View(help=True)):
        console.print(frame.frame(story, view, width, height))
        console.print()


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 3)
