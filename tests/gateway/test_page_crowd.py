"""The web page over a mesh of two hundred nodes."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from itertools import combinations

from playwright.sync_api import expect

from atmo.cli.watch import demo
from tests.gateway.browser import PHONE, WIDE, chromium, needs_chromium, opened
from tests.gateway.support import Json, PlayedNode, serving, world

pytestmark = needs_chromium
COUNT = 200


@dataclass
class Crowd(PlayedNode):
    report: Json = field(default_factory=lambda: demo.report(COUNT, random.Random(1)))

    def mesh_view(self) -> Json:
        return self.report

    async def events(self, since: int, *, follow: bool) -> AsyncGenerator[Json, None]:
        while not self.stopped:
            yield {"seq": 1, "at_s": demo.AT_S, "event": "pulse"}
            await asyncio.sleep(0.05)


def test_two_hundred_nodes_are_told_apart_and_hide_nothing() -> None:
    """No circle covers another one, all are within the picture, and the table of them scrolls in its place."""
    with world() as environ, serving(environ, Crowd()) as api, chromium() as browser:
        for size in (WIDE, PHONE):
            with opened(browser, f"{api.url}/#/mesh", size=size) as page:
                expect(page.locator(".graph .node")).to_have_count(COUNT + 1)
                expect(page.locator(".graph .label", has_text="node")).to_have_count(0)
                shown = page.eval_on_selector_all(
                    ".graph .body", "all => all.map((one) => one.getBoundingClientRect())"
                )
                circles = [(box["x"], box["y"], box["width"]) for box in shown]
                near = [(one, two) for one, two in combinations(circles, 2) if covers(*one, *two)]
                assert not near
                frame = page.locator(".graph").bounding_box()
                assert frame is not None
                for x, y, wide in circles:
                    assert frame["x"] <= x <= frame["x"] + frame["width"] - wide
                    assert frame["y"] <= y <= frame["y"] + frame["height"] - wide
                table = page.locator("#view-mesh .tall")
                assert table.evaluate("it => it.scrollHeight > 5 * it.clientHeight && it.clientHeight < innerHeight")
                page.locator("#view-mesh button", has_text="node-199").click()
                expect(page.locator("#drawer")).to_contain_text("node-199")
        api.node.want_stop()


def covers(x: float, y: float, wide: float, other_x: float, other_y: float, other_wide: float) -> bool:
    apart = ((x + wide / 2 - other_x - other_wide / 2) ** 2 + (y + wide / 2 - other_y - other_wide / 2) ** 2) ** 0.5
    return bool(apart < (wide + other_wide) / 2)
