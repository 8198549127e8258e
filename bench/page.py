"""The web page of a real node in headless Chromium, each visit with a browser that remembers nothing."""

from __future__ import annotations

import os
import shutil
from typing import Any

import msgspec
from playwright.sync_api import Browser, sync_playwright

from atmo.errors import AtmoError
from bench import processes
from bench.harness import Context, Outcome, Series

NODE = "page"
# The page marks the moment at which its field takes a question; the last of what it loads was fetched before.
LOOK = """() => {
    const loaded = performance.getEntriesByType("resource").filter((one) => one.name.includes("/web/"));
    const sent = [performance.getEntriesByType("navigation")[0], ...loaded];
    const [mark] = performance.getEntriesByName("ready");
    return { ready_ms: mark.startTime, sent_bytes: sent.reduce((sum, one) => sum + one.transferSize, 0) };
}"""


class Sizes(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    visits: int
    warm_up: int


def run(context: Context) -> list[Outcome]:
    sizes = context.sizes(Sizes)
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        raise AtmoError("There is no Chromium.", hint="Install it, or set CHROMIUM to where it is.")
    world = processes.World(context.folder)
    world.command("node", "start", "--name", NODE, "--serve", "atmo-nano")
    try:
        url = world.client(NODE).status()["node"]["api"].removesuffix("/v1")
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=chromium, env=dict(os.environ))
            seen = [_visit(browser, url) for _ in range(sizes.warm_up + sizes.visits)][sizes.warm_up :]
            browser.close()
    finally:
        world.command("node", "stop", "--all")
    note = "headless Chromium without a cache, node and browser on one machine"
    return [
        Series("page interactive", "ms", [one["ready_ms"] for one in seen], note),
        Series("page weight", "kB", [one["sent_bytes"] / 1000 for one in seen], "compressed, heads included"),
    ]


def _visit(browser: Browser, url: str) -> dict[str, Any]:
    context = browser.new_context()
    try:
        page = context.new_page()
        page.goto(url)
        page.wait_for_selector("html[data-ready]")
        page.wait_for_selector(".prompts button")
        seen: dict[str, Any] = page.evaluate(LOOK)
        return seen
    finally:
        context.close()
