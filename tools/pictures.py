"""docs/images/web-*.png: the web page of nodes on this machine. It needs Chromium and the dev packages.

`python -m tools.pictures` starts the nodes in a home of their own, asks them, takes the pictures and stops them.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

IMAGES = Path(__file__).parents[1] / "docs" / "images"
MAX_BYTES = 150_000
NODES = {
    "laptop": "",
    "kitchen": "serve = []\n",
    "office": '[[serve]]\nmodel = "atmo-nano"\n[[serve]]\nmodel = "atmo-tone"\n',
    "attic": '[node]\nlabels = { residency = "eu" }\n[[serve]]\nmodel = "atmo-nano"\n',
}
QUESTIONS = ("What is Atmosphere?", "What is 2+2?", "Hello, who are you?")


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="atmo-pictures-") as name:
        folder = Path(name)
        os.environ |= {"ATMO_HOME": str(folder / "home"), "ATMO_RUNTIME": str(folder / "run")}
        os.environ |= {"ATMO_DISCOVERY_LAN": "false", "ATMO_DISCOVERY_RUNTIMES": "false"}
        try:
            pids = {node: start(folder, node) for node in NODES}
            url = json.loads(atmo("node", "status", "--node", "laptop", "--json"))["node"]["api"].removesuffix("/v1")
            with sync_playwright() as playwright:
                browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), env=dict(os.environ))
                take(browser, url, lambda: os.kill(pids["kitchen"], signal.SIGKILL))
                browser.close()
        finally:
            atmo("node", "stop", "--all")


def start(folder: Path, node: str) -> int:
    """Its process."""
    file = folder / f"{node}.toml"
    file.write_text(NODES[node])
    told = json.loads(atmo("node", "start", "--name", node, "--config", str(file), "--json"))
    return int(told["node"]["pid"])


def atmo(*words: str) -> str:
    command = [sys.executable, "-m", "atmo", *words]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def take(browser: Browser, url: str, kill: Callable[[], None]) -> None:
    page = visit(browser, url, "dark")
    for question in QUESTIONS:
        page.click("#new-chat")
        ask(page, question)
    page.click("#past-list >> text=What is Atmosphere?")
    page.click("text=Why this node")
    page.wait_for_selector(".why .lead")
    keep(page, "web-chat")
    page = visit(browser, f"{url}/#/mesh", "light")
    page.wait_for_selector(".graph .node >> nth=3")
    kill()
    page.wait_for_selector(".graph .node[data-state=dead]")
    keep(page, "web-mesh")
    page = visit(browser, f"{url}/#/requests", "dark")
    page.fill("#route-text", "What is Atmosphere?")
    page.press("#route-text", "Enter")
    page.wait_for_selector(".try + div .why")
    keep(page, "web-requests")


def visit(browser: Browser, url: str, theme: str) -> Page:
    shape = {"width": 1200, "height": 800}
    page = browser.new_context(viewport=shape, color_scheme="dark" if theme == "dark" else "light").new_page()
    page.goto(url)
    page.wait_for_selector("html[data-ready]")
    return page


def ask(page: Page, question: str) -> None:
    page.fill("#prompt", question)
    page.press("#prompt", "Enter")
    page.wait_for_selector(".answered .told >> text=tokens/s")


def keep(page: Page, name: str) -> None:
    path = IMAGES / f"{name}.png"
    Image.open(io.BytesIO(page.screenshot(animations="disabled"))).convert("RGB").save(path, optimize=True)
    assert path.stat().st_size < MAX_BYTES, path
    print(f"{path.name}: {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
