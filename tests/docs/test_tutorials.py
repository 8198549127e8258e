"""Each tutorial, and each how-to that can be followed here, is walked through as it is written, with real nodes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.tutorials import ROOT, Step, World, steps

TUTORIALS = sorted((ROOT / "docs" / "tutorials").glob("*.md"))
HOW_TOS = [page for page in sorted((ROOT / "docs" / "how-to").glob("*.md")) if steps(page)]
# What the README's first commands show; those not here need a person at a terminal, or a fresh machine.
FIRST = {
    "atmo node start": "is up",
    'atmo ask "What': "Atmosphere turns the machines",
    'atmo ask "Summarise': "",
    'atmo ask "Is this review': "negative",
    "atmo mesh ": "second",
    "atmo route": "serves this",
    "atmo bench": "first token",
    "atmo doctor": "Everything is in order",
    "atmo node stop": "Stopped",
}
ELSEWHERE = ("make ", "source ", "atmo chat", "atmo mesh watch")


@pytest.fixture
def world(environ: dict[str, str]) -> Iterator[World]:
    made = World(Path(environ["ATMO_HOME"]).parent)
    yield made
    made.close()


@pytest.mark.timeout(900)  # some seconds where the machine is not busy with other things
@pytest.mark.parametrize("page", [*TUTORIALS, *HOW_TOS], ids=lambda page: page.stem)
def test_a_walk_through_the_page_works(page: Path, world: World) -> None:
    story = steps(page)
    assert story, "a page without a step"
    world.play(story)


@pytest.mark.timeout(900)
def test_what_the_readme_begins_with_works(world: World) -> None:
    _, _, rest = (ROOT / "README.md").read_text().partition("\n## Use it\n\n")
    written = [line[4:] for line in rest.partition("\n\n")[0].splitlines() if not line[4:].startswith(ELSEWHERE)]
    assert {begin for begin in FIRST if any(line.startswith(begin) for line in written)} == FIRST.keys()
    world.play([Step("here", "echo 'Rain falls from clouds.' > report.md", 0, "", 0)])
    for number, line in enumerate(written):
        shows = next(shows for begin, shows in FIRST.items() if line.startswith(begin))
        # Two nodes of one home cannot have the one port that the test was given.
        script = line.replace("atmo node start --name", "ATMO_GATEWAY_PORT=-1 atmo node start --name")
        world.play([Step("here", script, 0, shows, number)])


def test_a_step_that_does_not_show_what_it_should_fails(world: World, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("<!-- here: shows nobody -->\n```sh\natmo version\n```\n")
    with pytest.raises(AssertionError, match=r"line 1, here\$ atmo version"):
        world.play(steps(page))
