"""The screens that the live view is compared with: `python -m tests.cli.screens` draws them anew."""

from __future__ import annotations

import os
import time
from pathlib import Path

from atmo.cli.watch import demo
from atmo.cli.watch.frame import frame
from atmo.cli.watch.story import Story
from atmo.cli.watch.view import PAGES, View, press

FOLDER = Path(__file__).parent / "screens"
SIZES = ((80, 24), (140, 40))
MESHES = (3, 200)


def views(story: Story) -> dict[str, View]:
    """Every page, and what one sees after some keys."""
    shown = {page: View(page=page) for page in PAGES}
    shown["a-node"] = press(View(page="nodes"), "enter", story)
    shown["a-request"] = press(press(View(page="requests"), "down", story), "enter", story)
    shown["a-transfer"] = press(View(page="transfers"), "enter", story)
    shown["help"] = View(help=True)
    return shown


def draw() -> dict[str, str]:
    """The texts of all screens by name. In UTC."""
    drawn = {}
    for count in MESHES:
        story = demo.story(count)
        story.decisions["3".zfill(32)] = ["desk serves this with atmo:chat:coder: the lowest potential of those drawn."]
        for width, height in SIZES:
            for name, view in views(story).items():
                drawn[f"{count}-{width}x{height}-{name}"] = frame(story, view, width, height).text + "\n"
    return drawn


if __name__ == "__main__":
    os.environ["TZ"] = "UTC"
    time.tzset()
    FOLDER.mkdir(exist_ok=True)
    for name, text in draw().items():
        (FOLDER / f"{name}.txt").write_text(text)
