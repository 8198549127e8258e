"""A real browser for tests: headless Chromium, and pages that notice what goes wrong in them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

CHROMIUM = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
needs_chromium = pytest.mark.skipif(
    CHROMIUM is None, reason="no Chromium: install it (apt-get install chromium), or set CHROMIUM to where it is"
)
WAIT_MS = 20_000
WIDE, PHONE = (1200, 800), (375, 720)


@contextmanager
def chromium() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, timeout=60_000)
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def opened(
    browser: Browser, url: str, *, size: tuple[int, int] = WIDE, theme: Any = "light", expected: str = ""
) -> Iterator[Page]:
    """The page at `url` in a browser that remembers nothing. Whatever its console calls an error fails the test, but
    for those that contain `expected`."""
    context = browser.new_context(viewport={"width": size[0], "height": size[1]}, color_scheme=theme)
    context.set_default_timeout(WAIT_MS)
    page = context.new_page()
    wrong: list[str] = []
    page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    try:
        page.goto(url)
        page.wait_for_selector("html[data-ready]")
        yield page
        seen = [text for text in wrong if not expected or expected not in text]
        assert not seen, "the browser's console is free of errors"
    finally:
        context.close()


def ask(page: Page, text: str) -> None:
    page.fill("#prompt", text)
    page.press("#prompt", "Enter")


def answered(page: Page) -> str:
    """Wait for the end of the last answer; its text."""
    page.wait_for_selector("#stop", state="hidden")
    page.wait_for_selector(".answered:last-child .told", state="attached")
    return page.inner_text(".answered:last-child .prose")
