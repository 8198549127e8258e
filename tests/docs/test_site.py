"""The documentation as a site: it builds without a warning, asks nobody else for anything, and can be searched."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

pytestmark = pytest.mark.timeout(300)
ROOT = Path(__file__).parents[2]
FETCHED = re.compile(
    r"<(?:script|img|link|iframe|source)\b[^>]*\b(?:src|href)=\"?((?:https?:)?//[^\" >]+)", re.IGNORECASE
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built strictly: a link or an anchor that leads nowhere is an error."""
    pytest.importorskip("material", reason="mkdocs-material is not installed")
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict", "--site-dir", folder],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_every_page_is_there_and_in_the_navigation(site: Path) -> None:
    front = (site / "index.html").read_text()
    pages = {page.relative_to(ROOT / "docs").with_suffix(".html") for page in (ROOT / "docs").rglob("*.md")}
    assert {page for page in pages if not (site / page).exists()} == set()
    assert {str(page) for page in pages if f'href="{page}"' not in front} <= {"index.html"}


def test_no_page_fetches_anything_from_elsewhere(site: Path) -> None:
    fetched = {found for page in site.rglob("*.html") for found in FETCHED.findall(page.read_text())}
    assert fetched == set()
    assert "fonts.g" not in "".join(page.read_text() for page in site.rglob("*.css"))


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *words: object) -> None:
        pass


@pytest.fixture
def address(site: Path) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(site)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}/index.html"
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_reader_finds_a_page_by_a_word(address: str) -> None:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("no Chromium: install it (apt-get install chromium), or set CHROMIUM to where it is")
    asked: list[str] = []
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page()
        page.on("request", lambda request: asked.append(request.url))
        page.goto(address)
        found = page.locator(".md-search-result__link").first
        for patience_ms in (10_000, 20_000, 60_000):  # what is typed before the page's script has loaded is not heard
            page.get_by_placeholder("Search").fill("")
            page.get_by_placeholder("Search").press_sequentially("launchd")
            try:
                found.wait_for(timeout=patience_ms)
                break
            except playwright.TimeoutError:
                continue
        # A variable is found as it is typed, and what to do before why it is so.
        page.get_by_placeholder("Search").fill("")
        page.get_by_placeholder("Search").press_sequentially("ATMO_N_CTX")
        page.locator('.md-search-result__link[href*="how-to/containers"]').first.wait_for(timeout=90_000)
        assert page.locator('.md-search-result__link[href*="decisions/"]').count() == 0
        page.get_by_placeholder("Search").fill("")
        page.get_by_placeholder("Search").press_sequentially("launchd")
        page.locator('.md-search-result__link[href*="how-to/services"]').first.click()
        page.wait_for_url("**/how-to/services.html*", timeout=90_000)
        browser.close()
    assert {url for url in asked if "127.0.0.1" not in url} == set()
