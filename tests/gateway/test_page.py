"""The web page in a real browser: first over a gateway that plays hostile and broken nodes, then over real ones."""

from __future__ import annotations

import asyncio
import urllib.error
import urllib.request
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from playwright.sync_api import Browser, expect

from atmo.errors import Overloaded
from atmo.generation import Task
from tests.cluster import eventually
from tests.gateway.browser import answered, ask, chromium, needs_chromium, opened
from tests.gateway.support import Api, Json, PlayedNode, done, free_port, route, serving, text, world

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
        while follow and not self.stopped:
            yield {"seq": max(since, 4), "at_s": 2.0, "event": "pulse"}
            await asyncio.sleep(0.05)

    def explained(self, request_id: str) -> Json:
        return {"chosen": {"node": NASTY, "capability": NASTY, "why": NASTY}, "lines": [NASTY], "passed": [
            {"capability": NASTY, "why": NASTY}], "excluded": [{"rows": 1, "reason": NASTY}]}  # fmt: skip


@contextmanager
def playing(environ: dict[str, str], **section: Any) -> Iterator[Api]:
    """Its stream of events ends before it stops, as a node's does."""
    with serving(environ, Played(), **section) as running:
        yield running
        running.node.want_stop()


@pytest.fixture(scope="module")
def played() -> Iterator[Api]:
    with world() as environ, playing(environ) as running:
        yield running


@pytest.fixture
def api(played: Api) -> Api:
    played.node.forget()
    return played


def says(api: Api, *words: str) -> None:
    api.node.plays = [route(), *(text(word) for word in words), done()]


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
        with opened(browser, api.url) as page:
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
    with opened(browser, api.url, expected="Content Security Policy|requires 'Trusted") as page:
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
        page.click("button >> text=Try again")
        expect(page.locator(".answered .prose")).to_have_text("Hello there.")
        assert page.locator(".turn").count() == 2


async def endless(task: Task) -> AsyncGenerator[Json, None]:
    """Sings until nobody listens."""
    yield route()
    while True:
        yield text("la ")
        await asyncio.sleep(0.01)


def test_an_answer_is_seen_as_it_is_written_and_can_be_stopped(browser: Browser, api: Api) -> None:
    api.node.plays = endless
    with opened(browser, api.url) as page:
        ask(page, "Sing")
        expect(page.locator(".prose")).to_contain_text("la la la la")
        page.click("#stop")
        expect(page.locator(".told")).to_contain_text("stopped")
        eventually(lambda: api.node.open == 0, "the node has stopped, too")
        page.click("text=Retry")
        expect(page.locator(".prose")).to_contain_text("la la la la")
        page.keyboard.press("Escape")
        expect(page.locator(".told")).to_contain_text("stopped")
        assert page.locator(".turn").count() == 2


def known(api: Api, secret: str) -> None:
    """A node looks for new keys once a second."""
    wanted = urllib.request.Request(f"{api.url}/v1/models", headers={"Authorization": f"Bearer {secret}"})

    def admitted() -> bool:
        try:
            with urllib.request.urlopen(wanted, timeout=10) as reply:
                return bool(reply.status == 200)
        except urllib.error.HTTPError:
            return False

    eventually(admitted, "the node knows the key")


def test_the_page_asks_for_a_key_and_forgets_it_with_the_tab(browser: Browser, environ: dict[str, str]) -> None:
    with playing(environ, auth=True) as api, opened(browser, api.url, expected="401") as page:
        secret, _ = api.keys.create(0.0, "", 0, 0, ())
        known(api, secret)
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
    with playing(environ, auth=True) as api:
        secret, _ = api.keys.create(0.0, "", 0, 0, ("qwen",))
        known(api, secret)
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
    with playing(environ, port=port) as api:
        page_of = opened(browser, api.url, expected="Failed to load")
        page = page_of.__enter__()
        expect(page.locator("#pulse-text")).to_contain_text("laptop")
    expect(page.locator("#banner")).to_have_text("Node not reachable, retrying")
    ask(page, "Anybody?")
    answered(page)
    assert "The node is not reachable." in page.inner_text(".trouble")
    with playing(environ, port=port):
        expect(page.locator("#banner")).to_be_empty()
        page.click("button >> text=Try again")
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


def test_transfers_are_shown_with_their_progress(browser: Browser, api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api.node, "transfers_view", lambda: {"transfers": TRANSFERS}, raising=True)
    with opened(browser, api.url) as page:
        page.click(".tabs a[href='#/models']")
        first, second = (page.locator(".transfer").nth(at) for at in (0, 1))
        expect(first).to_contain_text("1.2 GB of 4.8 GB · 25% · 95 MB/s · 38.0 s left")
        expect(first).to_contain_text("from attic 900 MB")
        assert first.locator("progress").get_attribute("aria-label") == "qwen2.5-7b: 25%"
        expect(second).to_contain_text("The disk is full.")


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
