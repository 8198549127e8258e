"""Each tutorial is walked through as it is written, with real nodes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.tutorials import World, steps

PAGES = sorted((Path(__file__).parents[2] / "docs" / "tutorials").glob("*.md"))


@pytest.fixture
def world(environ: dict[str, str]) -> Iterator[World]:
    made = World(Path(environ["ATMO_HOME"]).parent)
    yield made
    made.close()


@pytest.mark.timeout(300)
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_walk_through_the_tutorial_works(page: Path, world: World) -> None:
    story = steps(page)
    assert story, "a tutorial without a step"
    world.play(story)


def test_a_step_that_does_not_show_what_it_should_fails(world: World, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("<!-- here: shows nobody -->\n```sh\natmo version\n```\n")
    with pytest.raises(AssertionError, match=r"line 1, here\$ atmo version"):
        world.play(steps(page))
