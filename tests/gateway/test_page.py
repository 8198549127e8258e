"""The web page in a real browser: first over a gateway that plays hostile and broken nodes, then over real ones."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from atmo.client import SyncClient
from atmo.errors import Overloaded
from tests.cluster import Cluster, eventually
from tests.gateway.browser import PHONE, answered, ask, chromium, needs_chromium, opened
from tests.gateway.support import Api, Json, PlayedNode, done, free_port, route, serving, text, world
from tests.inference.gguf_maker import song, write_parrot

pytestmark = needs_chromium
SECTIONS = ("chat", "mesh", "models", "requests")
NASTY = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>\u202egnp"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as running:
        yield running


@dataclass
class Played(PlayedNode):
    """A mesh of two nodes, of which the other has the worst name there is."""

    def mesh_view(self) -> Json:
        offer = {
            "id": f"atmo:chat:{NASTY}", "type": "chat", "model": NASTY, "description": NASTY, "ready": True,
            "in_flight": 1, "slots": 2, "queued": 0, "service_s": 1.0, "decode_tps": 5.0, "ejected_s": 0.0,
        }  # fmt: skip
        about = {
            "linked": True, "neighbour": True, "addresses": [NASTY], "mode": NASTY, "software": NASTY, "cpu": NASTY,
            "labels": {NASTY: NASTY, "residency": NASTY}, "cores": 4, "memory_bytes": 1 << 30, "rtt_ms": 1.5,
            "in_flight": 1, "slots": 2, "queued": 0, "tps": 5.0, "capabilities": [offer],
        }  # fmt: skip
        nodes = [
            {"peer": "own", "name": "laptop", "self": True, "state": "self", **about, "labels": {}},
            {"peer": NASTY, "name": NASTY, "self": False, "state": "linked", **about},
        ]
        return {
            "mesh": "m", "nodes": nodes, "dead": [], "full_mesh": True, "accusations": [{"by": NASTY, "of": NASTY}],
            "seq": 1, "alone": "", "problems": [NASTY],
        }  # fmt: skip

    async def events(self, since: int, *, follow: bool) -> AsyncGenerator[Json, None]:
        for seq, event in enumerate(("joined", "asked", "answered", NASTY), start=1):
            if seq > since:
                yield {
                    "seq": seq, "at_s": 1.0, "event": event, "peer": NASTY, "name": NASTY, "detail": NASTY,
                    "request_id": "00" * 16, "capability": f"atmo:chat:{NASTY}",
                }  # fmt: skip
        while follow:
            yield {"seq": max(since, 4), "at_s": 2.0, "event": "pulse"}
            await asyncio.sleep(0.2)

    def explained(self, request_id: str) -> Json:
        return {"chosen": {"node": NASTY, "capability": NASTY, "why": NASTY}, "lines": [NASTY], "passed": [
            {"capability": NASTY, "why": NASTY}], "excluded": [{"rows": 1, "reason": NASTY}]}  # fmt: skip


@pytest.fixture(scope="module")
def played() -> Iterator[Api]:
    with world() as environ, serving(environ, Played()) as running:
        yield running


@pytest.fixture
def api(played: Api) -> Api:
    played.node.forget()
    return played


def says(api: Api, *words: str) -> None:
    api.node.plays = [route(), *(text(word) for word in words), done()]


def overflow(page: Page) -> int:
    """By how many pixels the page is wider than the screen."""
    return int(page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth"))


def test_nothing_a_model_writes_becomes_markup(browser: Browser, api: Api) -> None:
    attempts = [
        NASTY,
        "[click](javascript:document.title='owned') [data](data:text/html,x) [other](//evil.example) [here](/api/mesh)",
        "![picture](http://evil.example/p.png \"onload='x'\")",
        '<http://evil.example/"onmouseover=alert(1)> `<b>` **<i>bold</i>** | a | b |',
        "```html\" onclick=\"x\n<script>document.title='owned'</script>\n```",
        "| <b>a</b> | b |\n| --- | --- |\n| <svg onload=x> | [x](vbscript:x) |",
    ]
    says(api, "\n\n".join(attempts))
    with opened(browser, api.url) as page:
        ask(page, NASTY)
        shown = answered(page)
        for written in ("<script>", "<img src=x", "onerror", "<b>", "<svg onload=x>"):
            assert written in shown, f"{written} is shown as it was written"
        assert NASTY.replace("\u202e", "") in page.inner_text(".asked .bubble").replace("\u202e", "")
        made = page.evaluate("[...document.querySelectorAll('.turns *')].map((one) => one.localName)")
        assert not {"script", "img", "iframe", "i", "b"} & set(made)
        links = page.evaluate("[...document.querySelectorAll('.prose a')].map((one) => [one.href, one.rel])")
        assert {href for href, _ in links} == {
            "http://evil.example/p.png",
            "http://evil.example/%22onmouseover=alert(1)",
        }
        assert all("noopener" in rel and "noreferrer" in rel for _, rel in links)
        assert page.title() == "Chat · Atmosphere"


def test_names_of_other_nodes_are_text_everywhere(browser: Browser, api: Api) -> None:
    api.node.served = ((f"atmo:chat:{NASTY}", NASTY),)
    try:
        with opened(browser, api.url, expected="404") as page:
            for section in ("mesh", "models", "requests"):
                page.click(f".tabs a[href='#/{section}']")
                page.wait_for_selector(f"#view-{section} :text('<img src=x')")
            page.click("#view-requests tbody a")
            page.wait_for_selector(".detail .why :text('<img src=x')")
            page.click(".tabs a[href='#/mesh']")
            page.click("#view-mesh tbody tr:nth-child(2) button")
            page.wait_for_selector("#drawer :text('<img src=x')")
            assert page.evaluate("document.querySelectorAll('img, body script').length") == 0
            assert "\u202e" not in page.inner_text("body"), "nor do they turn the direction of writing"
            assert page.title() == "Mesh · Atmosphere"
    finally:
        api.node.served = PlayedNode.served


def test_the_browser_refuses_what_the_page_must_not_do(browser: Browser, api: Api) -> None:
    """Even code that got into the page could not run markup, an inline script, or speak to anybody else."""
    tries = """async () => {
        const outcome = {};
        const script = document.createElement("script");
        try { script.textContent = "document.title = 'owned'"; document.head.append(script); } catch { }
        try { document.body.innerHTML = "<b>x</b>"; outcome.markup = true; } catch { outcome.markup = false; }
        outcome.fetch = await fetch("http://localhost:1/").then(() => true, (error) => String(error));
        outcome.title = document.title;
        return outcome;
    }"""
    with opened(browser, api.url, expected="Content Security Policy") as page:
        blocked: list[str] = []
        page.on("console", lambda message: blocked.append(message.text))
        outcome = page.evaluate(tries)
        assert outcome["markup"] is False
        assert outcome["title"] == "Chat · Atmosphere"
        assert any("connect-src" in text for text in blocked)


MARKDOWN = {
    "plain": "<p>plain</p>",
    "a **b** *c* ~~d~~": "<p>a <strong>b</strong> <em>c</em> <del>d</del></p>",
    "`e` ***f***": "<p><code>e</code> <em><strong>f</strong></em></p>",
    "snake_case_name 2*3*4 \\*no\\* **open": "<p>snake_case_name 2<em>3</em>4 *no* **open</p>",
    "one\ntwo": "<p>one<br>two</p>",
    "# A #\n\n###### B": "<h3>A</h3><h6>B</h6>",
    "- a\n- b\n  - c": "<ul><li>a</li><li>b<ul><li>c</li></ul></li></ul>",
    "3. a\n4. b": '<ol start="3"><li>a</li><li>b</li></ol>',
    "> q\nlazy": "<blockquote><p>q<br>lazy</p></blockquote>",
    "---": "<hr>",
    "In 2024. it rained": "<p>In 2024. it rained</p>",
    "<b>": "<p>&lt;b&gt;</p>",
    "[a [b](relative) c](x)": '<p><span class="no-link">a <span class="no-link">b</span> c</span></p>',
    "[] ] ![ x": "<p>[] ] ![ x</p>",
}  # fmt: skip


def test_markdown_becomes_elements(browser: Browser, api: Api) -> None:
    """And whatever a text is made of, to show it takes time in proportion to its length, and no depth without end."""
    html = """async ([base, texts]) => {
        const { render } = await import(`${base}/markdown.js`);
        return texts.map((text) => {
            const place = document.createElement("div");
            for (const part of [text.slice(0, text.length / 2), text]) render(place, part);
            return place.innerHTML.length > 5000 ? "long" : place.innerHTML;
        });
    }"""
    hard = ["*" * 20_000, "[" * 20_000, "](" * 20_000, "`" * 20_000, "> " * 5_000, "- " * 5_000, "**a " * 8_000]
    hard += ["# " + " " * 20_000 + "x", "|" + " " * 20_000 + "\n|" + " " * 20_000 + "-", "``` " + " " * 20_000 + "`"]
    hard += [" " * 20_000 + "x", "http://" * 3_000, "_a" * 10_000, "<http:" * 4_000, "1. " * 5_000, "\\" * 20_000]
    with opened(browser, api.url) as page:
        base = page.get_attribute("script[type=module]", "src")
        assert base is not None
        base = base.rpartition("/")[0]
        assert dict(zip(MARKDOWN, page.evaluate(html, [base, list(MARKDOWN)]), strict=True)) == MARKDOWN
        assert len(page.evaluate(html, [base, hard])) == len(hard)


def test_code_and_tables_of_an_answer_can_be_used(browser: Browser, api: Api) -> None:
    says(api, "Here:\n\n```python\nprint('hi')\n```\n\n| a | b |\n| - | -: |\n| 1 | 2 |\n")
    with opened(browser, api.url) as page:
        page.context.grant_permissions(["clipboard-read", "clipboard-write"])
        ask(page, "code")
        answered(page)
        assert page.inner_text(".code pre") == "print('hi')"
        page.click(".code button")
        assert page.evaluate("navigator.clipboard.readText()") == "print('hi')"
        assert page.locator(".prose td").all_inner_texts() == ["1", "2"]


def test_a_private_conversation_says_so_to_the_mesh(browser: Browser, api: Api) -> None:
    with opened(browser, api.url) as page:
        ask(page, "one")
        answered(page)
        page.click("#private")
        assert page.get_attribute("#private", "aria-checked") == "true"
        ask(page, "two")
        answered(page)
        page.select_option("#where", index=1)
        ask(page, "three")
        answered(page)
    assert [wish.constraints for wish in api.node.wishes] == [{}, {"local_only": True}, {"data_residency": NASTY}]
    assert [turn.content for turn in api.node.tasks[-1].turns] == [
        "one",
        "Hello there.",
        "two",
        "Hello there.",
        "three",
    ]


def test_errors_are_told_in_words_and_can_be_tried_again(browser: Browser, api: Api) -> None:
    api.node.plays = [route(), Overloaded("The engine's queue is full.", retry_after_s=2.0)]
    with opened(browser, api.url, expected="429") as page:
        ask(page, "Hello?")
        answered(page)
        told = page.inner_text(".answered .trouble")
        assert "Too busy. The engine's queue is full." in told
        assert "Try again in 2.00 s." in told
        api.node.forget()
        page.click("text=Try again")
        expect(page.locator(".answered .prose")).to_have_text("Hello there.")
        assert page.locator(".turn").count() == 2


def test_the_page_asks_for_a_key_and_forgets_it_with_the_tab(browser: Browser, environ: dict[str, str]) -> None:
    with serving(environ, Played(), auth=True) as api, opened(browser, api.url, expected="401") as page:
        secret, _ = api.keys.create(0.0, "", 0, 0, ())
        page.wait_for_selector("#key-dialog[open]")
        page.fill("#key", "sk-atmo-wrong")
        page.press("#key", "Enter")
        expect(page.locator("#key-title")).to_have_text("This key is not accepted")
        page.keyboard.press("Escape")
        page.keyboard.press("Escape")
        eventually_open = page.locator("#key-dialog[open]")
        expect(eventually_open).to_be_visible()
        page.fill("#key", secret)
        page.press("#key", "Enter")
        page.wait_for_selector("#key-dialog:not([open])", state="attached")
        ask(page, "Hello?")
        assert answered(page) == "Hello there."
        assert page.evaluate(
            "[localStorage, sessionStorage].map((one) => JSON.stringify(one).includes('sk-atmo-'))"
        ) == [
            False,
            True,
        ]


def test_a_key_for_some_models_is_enough_to_chat(browser: Browser, environ: dict[str, str]) -> None:
    with serving(environ, Played(), auth=True) as api:
        secret, _ = api.keys.create(0.0, "", 0, 0, ("qwen",))
        with opened(browser, api.url, expected="40") as page:
            page.fill("#key", secret)
            page.press("#key", "Enter")
            expect(page.locator("#pulse-text")).to_have_text("Connected")
            page.select_option("#model", "qwen")
            ask(page, "Hello?")
            assert answered(page) == "Hello there."
            page.click("text=Why this node")
            page.wait_for_selector(".why .lead")
            page.click(".tabs a[href='#/mesh']")
            expect(page.locator("#view-mesh .lead")).to_contain_text("for some models only")


def test_a_node_that_stops_is_waited_for(browser: Browser, environ: dict[str, str]) -> None:
    port = free_port()
    with serving(environ, Played(), port=port) as api:
        page_of = opened(browser, api.url, expected="Failed to load")
        page = page_of.__enter__()
        expect(page.locator("#pulse-text")).to_contain_text("laptop")
    expect(page.locator("#banner")).to_have_text("Node not reachable, retrying")
    ask(page, "Anybody?")
    answered(page)
    assert "The node is not reachable." in page.inner_text(".trouble")
    with serving(environ, Played(), port=port):
        expect(page.locator("#banner")).to_be_empty()
        page.click("text=Try again")
        expect(page.locator(".answered .prose")).to_have_text("Hello there.")
        page_of.__exit__(None, None, None)


TRANSFERS = [
    {
        "root": "ab" * 32, "model": "qwen2.5-7b", "direction": "in", "bytes_done": 1_200_000_000,
        "bytes_total": 4_800_000_000, "bytes_per_s": 95_000_000, "state": "running", "eta_s": 38.0, "error": "",
        "sources": [{"peer": "own", "name": "attic", "bytes": 900_000_000}, {"peer": "p", "name": NASTY, "bytes": 1}],
    },
    {
        "root": "cd" * 32, "model": "tiny", "direction": "out", "bytes_done": 5, "bytes_total": 10, "bytes_per_s": 0,
        "state": "failed", "eta_s": None, "error": "The disk is full.", "sources": [],
    },
]  # fmt: skip


def test_transfers_are_shown_with_their_progress(browser: Browser, api: Api) -> None:
    with opened(browser, api.url) as page:
        page.route("**/api/transfers", lambda route: route.fulfill(json={"transfers": TRANSFERS}))
        page.click(".tabs a[href='#/models']")
        first, second = (page.locator(".transfer").nth(at) for at in (0, 1))
        expect(first).to_contain_text("1.2 GB of 4.8 GB · 25% · 95 MB/s · 38.0 s left")
        expect(first).to_contain_text("from attic 900 MB")
        assert first.locator("progress").get_attribute("aria-label") == "qwen2.5-7b: 25%"
        expect(second).to_contain_text("The disk is full.")


# Real nodes

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
            parrot = write_parrot(cluster.folder / "parrot.gguf", context=16_384)
            client = cluster.start("laptop", PLACE.format(parrot=parrot, port=free_port()))
            yield Mesh(cluster, client, client.status()["node"]["api"].removesuffix("/v1"))
        finally:
            cluster.stop_all()


def test_a_question_by_keyboard_alone_is_answered_and_explained(browser: Browser, mesh: Mesh) -> None:
    """The field has the focus; one line more with Shift; the answer says who gave it; why, and the request, at hand."""
    expected = "".join(event.get("text", "") for event in mesh.client.ask("What is\nAtmosphere?", model="atmo-nano"))
    with opened(browser, mesh.url, expected="404") as page:
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


def test_an_answer_is_seen_as_it_is_written_and_can_be_stopped(browser: Browser, mesh: Mesh) -> None:
    with opened(browser, mesh.url) as page:
        page.select_option("#model", "parrot")
        ask(page, "Sing")
        page.wait_for_function("document.querySelector('.prose')?.textContent.length > 200")
        page.click("#stop")
        stopped = page.text_content(".prose") or ""
        assert song(16_000).startswith(stopped)
        expect(page.locator(".told")).to_contain_text("stopped")
        eventually(
            lambda: not sum(one["in_flight"] for one in mesh.client.status()["capabilities"]), "the slot is free"
        )
        page.click("text=Retry")
        page.wait_for_function("document.querySelector('.prose')?.textContent.length > 50")
        page.keyboard.press("Escape")
        expect(page.locator(".told")).to_contain_text("stopped")
        assert page.locator(".turn").count() == 2


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


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_every_section_is_fit_for_everybody(browser: Browser, mesh: Mesh, theme: str) -> None:
    """axe finds nothing to object to, on a wide screen and on a phone, which is never too narrow."""
    for size in ((1200, 800), PHONE):
        with opened(browser, mesh.url, theme=theme, size=size, expected="404") as page:
            page.wait_for_selector(".prompts button")
            ask(page, "What is Atmosphere?")
            answered(page)
            page.click("text=Why this node")
            page.wait_for_selector(".why .lead")
            for section in SECTIONS:
                page.click(f".tabs a[href='#/{section}']")
                page.wait_for_selector(f"#view-{section}")
                if section == "requests":
                    page.locator("#view-requests tbody a").first.click()
                    page.wait_for_selector(".detail .why .lead")
                if section == "models":
                    page.wait_for_selector(".tile")
                found = objections(page)
                assert not found, f"{section}, {theme}, {size[0]} pixels: {found}"
                assert overflow(page) <= 0, f"{section} is no wider than a screen of {size[0]} pixels"


def objections(page: Page) -> list[Any]:
    """What axe finds, as (rule, where). Its code cannot be put into the page's own world, which lets no script in."""
    page.context.new_cdp_session(page).send("Page.setBypassCSP", {"enabled": True})
    found = Axe().run(page).response["violations"]
    return [(one["id"], [node["target"] for node in one["nodes"]]) for one in found]


def test_the_theme_is_the_systems_until_one_is_chosen(browser: Browser, api: Api) -> None:
    ground = "getComputedStyle(document.body).backgroundColor"
    with opened(browser, api.url, theme="dark") as page:
        dark = page.evaluate(ground)
        page.click("#theme")
        light = page.evaluate(ground)
        assert dark == "rgb(11, 16, 22)"
        assert light == "rgb(244, 246, 244)"
        page.reload()
        assert page.evaluate(ground) == light, "and it is remembered"


def test_the_first_tab_leads_past_the_sections(browser: Browser, api: Api) -> None:
    with opened(browser, f"{api.url}/#/mesh") as page:
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.className") == "skip"
        page.keyboard.press("Enter")
        assert page.evaluate("document.activeElement.id") == "main"
        expect(page.locator("#view-mesh")).to_be_visible()
