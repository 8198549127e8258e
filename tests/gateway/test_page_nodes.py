"""The web page in a real browser, over real nodes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from atmo.client import SyncClient
from tests.cluster import Cluster
from tests.gateway.browser import PHONE, WIDE, answered, ask, chromium, needs_chromium, opened
from tests.gateway.support import free_port, world
from tests.inference.gguf_maker import write_parrot

pytestmark = needs_chromium
# What a section shows when it has read what it needs.
SHOWN = {"chat": ".why .lead", "mesh": ".graph .node", "models": ".tile", "requests": ".detail .why .lead"}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as running:
        yield running


PLACE = """
[[serve]]
model = "atmo-nano"
[[serve]]
model = "{parrot}"
description = "Sings without end."
[gateway]
port = {port}
"""


@dataclass
class Mesh:
    cluster: Cluster
    client: SyncClient
    url: str


@pytest.fixture(scope="module")
def mesh() -> Iterator[Mesh]:
    """A node with two models."""
    with world() as environ, pytest.MonkeyPatch.context() as patch:
        for name, value in {**environ, "ATMO_DISCOVERY_LAN": "false", "ATMO_DISCOVERY_RUNTIMES": "false"}.items():
            patch.setenv(name, value)
        cluster = Cluster(Path(environ["ATMO_HOME"]).parent)
        try:
            parrot = write_parrot(cluster.folder / "parrot.gguf")
            client = cluster.start("laptop", PLACE.format(parrot=parrot, port=free_port()))
            yield Mesh(cluster, client, client.status()["node"]["api"].removesuffix("/v1"))
        finally:
            cluster.stop_all()


def test_a_question_by_keyboard_alone_is_answered_and_explained(browser: Browser, mesh: Mesh) -> None:
    """The field has the focus; one line more with Shift; the answer says who gave it; why, and the request, at hand."""
    expected = mesh.client.ask("What is\nAtmosphere?", model="atmo-nano").text
    with opened(browser, mesh.url) as page:
        expect(page.locator("#model option")).to_have_count(3)
        page.keyboard.type("What is")
        page.keyboard.press("Shift+Enter")
        page.keyboard.type("Atmosphere?")
        page.keyboard.press("Enter")
        assert answered(page) == expected
        assert page.inner_text(".answered .by") == "atmo-nano\non laptop"
        expect(page.locator(".told")).to_contain_text(re.compile(r"first word .* tokens in .* tokens/s"))
        assert expected.split(".")[0] in page.inner_text("#spoken"), "and it was told to those who listen"
        assert page.evaluate("document.activeElement.id") == "prompt"
        page.locator("text=Why this node").focus()
        page.keyboard.press("Enter")
        expect(page.locator(".why .lead")).to_contain_text("laptop answers with atmo-nano")
        assert page.locator(".why-box th[scope=row]").all_inner_texts() == ["laptop"]

        page.click(".tabs a[href='#/requests']")
        assert page.evaluate("document.activeElement.id") == "requests-title"
        row = page.locator("#view-requests tbody tr").first
        expect(row).to_contain_text("answered")
        page.keyboard.press("Tab")
        while page.evaluate("document.activeElement.closest('tbody')") is None:
            page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        expect(page.locator("#detail-title")).to_be_focused()
        expect(page.locator(".detail")).to_contain_text("laptop answers with atmo-nano")
        expect(page.locator(".detail .why")).to_contain_text("parrot")
        page.fill("#route-text", "Sing me a song")
        page.press("#route-text", "Enter")
        expect(page.locator(".try + div")).to_contain_text("Every offer: 2 of 2 could serve this")


def test_conversations_are_kept_in_this_browser_until_they_are_deleted(browser: Browser, mesh: Mesh) -> None:
    with opened(browser, mesh.url) as page:
        ask(page, "What is 2+2?")
        said = answered(page)
        page.reload()
        page.click("#past-list >> text=What is 2+2?")
        assert page.inner_text(".answered .prose") == said
        ask(page, "And 3+3?")
        answered(page)
        assert page.locator(".turn").count() == 4
        page.click("#new-chat")
        assert page.locator(".turn").count() == 0
        page.on("dialog", lambda dialog: dialog.accept())
        page.click("#forget")
        expect(page.locator("#past-list li")).to_have_count(0)
        assert "2+2" not in page.evaluate("JSON.stringify(localStorage)")


def test_a_node_comes_and_dies_before_ones_eyes(browser: Browser, mesh: Mesh) -> None:
    with opened(browser, mesh.url) as page:
        page.click(".tabs a[href='#/mesh']")
        expect(page.locator("#view-mesh .graph .node")).to_have_count(1)
        mesh.cluster.start("attic", "serve = []\n")
        row = page.locator("#view-mesh tbody tr", has_text="attic")
        expect(row).to_contain_text("linked")
        expect(page.locator(".graph .node")).to_have_count(2)
        expect(page.locator(".graph line.linked")).to_have_count(1)
        mesh.cluster.kill("attic")
        expect(row).to_contain_text("dead")
        expect(page.locator(".graph .node[data-state=dead]")).to_have_count(1)
        expect(page.locator(".events", has_text="dead")).to_contain_text("attic")
        row.locator("button").click()
        expect(page.locator("#drawer-title")).to_have_text("attic")
        page.keyboard.press("Escape")
        expect(row.locator("button")).to_be_focused()


@pytest.mark.parametrize(("theme", "size"), [("light", WIDE), ("dark", PHONE)])
def test_every_section_is_fit_for_everybody(browser: Browser, mesh: Mesh, theme: str, size: tuple[int, int]) -> None:
    """axe finds nothing to object to, and no section is wider than the screen."""
    with opened(browser, mesh.url, theme=theme, size=size) as page:
        page.wait_for_selector(".prompts button")
        ask(page, "What is Atmosphere?")
        answered(page)
        page.click("text=Why this node")
        page.wait_for_selector(".why .lead")
        for section in SHOWN:
            page.click(f".tabs a[href='#/{section}']")
            if section == "requests":
                page.locator("#view-requests tbody a").first.click()
            page.wait_for_selector(SHOWN[section])
            assert objections(page) == [], section
            assert overflow(page) <= 0, section


def objections(page: Page) -> list[Any]:
    """What axe finds, as (rule, where). Its code cannot be put into the page's own world, which lets no script in."""
    page.context.new_cdp_session(page).send("Page.setBypassCSP", {"enabled": True})
    found = Axe().run(page).response["violations"]
    return [(one["id"], [node["target"] for node in one["nodes"]]) for one in found]


def overflow(page: Page) -> int:
    """By how many pixels the page is wider than the screen."""
    return int(page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth"))
