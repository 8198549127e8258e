"""The demo's last act: a hospital whose data may not leave, and that has no model. So the model goes to the data.

The hospital is an organisation of its own: another home, another user's keys, in the mesh by an invite. Its private
question makes a model stream over from the other organisation's nodes, load and answer at the hospital; the receipt
that its node signed is verified at the end.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

from atmo.cli import views
from atmo.cli.arrival import Arrival
from atmo.client import SyncClient
from atmo.errors import AtmoError, NoRoute
from atmo.models.library import embedded_models

MODEL, NODE = "clinic-chat", "hospital"
# The small model with so much behind it that its way can be watched: engines do not read past a GGUF's last tensor.
PADDING_BYTES = 160 << 20
QUESTION = "Hello! Who are you?"

Run = Callable[..., str]


def act(folder: Path, console: Console, atmo: Run, wait: Callable[[str, Callable[[], bool]], None]) -> list[str]:
    """What went wrong, nothing if all is as it should be. atmo: runs a command and returns what it says."""
    console.rule("[bold]A hospital joins. Its data may not leave it, and it has no model", align="left")
    file = _model(folder)
    console.print(f"[dim]$ atmo models import {file.name} --name {MODEL} --share[/]")
    atmo("models", "import", str(file), "--name", MODEL, "--share")
    token = atmo("mesh", "invite").split()[0]
    with _home(folder):
        console.print("[dim]hospital$ atmo mesh join TOKEN[/]")
        atmo("mesh", "join", token)
        (folder / "hospital.toml").write_text("serve = []\n")
        console.print(f"[dim]hospital$ atmo node start --name {NODE} --label residency=hospital[/]")
        atmo(
            "node", "start", "--name", NODE, "--label", "residency=hospital", "--config", str(folder / "hospital.toml")
        )
        client = SyncClient(node=NODE)
        wait("the hospital to hear of the model", lambda: _planned(client))
        return _ask(client, console, atmo)


def stop(folder: Path, stop_nodes: Callable[[], None]) -> None:
    with _home(folder):
        stop_nodes()


@contextmanager
def _home(folder: Path) -> Iterator[None]:
    """Everything in here is done by the hospital."""
    before = {name: os.environ[name] for name in ("ATMO_HOME", "ATMO_RUNTIME")}
    os.environ.update(ATMO_HOME=str(folder / "hospital"), ATMO_RUNTIME=str(folder / "hrun"))
    try:
        yield
    finally:
        os.environ.update(before)


def _model(folder: Path) -> Path:
    nano = next(model.path for model in embedded_models() if model.name == "atmo-nano")
    file = folder / f"{MODEL}.gguf"
    with file.open("wb") as out:
        out.write(nano.read_bytes())
        for _ in range(PADDING_BYTES >> 20):
            out.write(os.urandom(1 << 20))
    return file


def _planned(client: SyncClient) -> bool:
    try:
        with client.stream(QUESTION, private=True, migrate="ask") as answer:
            return any(step.kind == "plan" for step in answer.steps())
    except NoRoute:
        return False


def _ask(client: SyncClient, console: Console, atmo: Run) -> list[str]:
    console.print(f"[dim]hospital$ atmo ask --private --yes[/] [bold]{QUESTION!r}[/]")
    arrival, text, receipt, failures = Arrival(console), "", "", []
    with client.stream(QUESTION, private=True, migrate="yes", timeout_s=60) as answer:
        for step in answer.steps():
            if step.kind == "plan":
                console.print(views.plan(step))
            elif step.kind in ("transfer", "loading"):
                arrival.show(step)
            elif step.kind == "text":
                text += step.text
                console.print(step.text, end="", markup=False)
            elif step.kind == "done":
                console.print()
                console.print(views.answered_by(step))
                if not step["local"]:
                    failures.append(f"The private question was answered at {step['node']}.")
            elif step.kind == "receipt":
                receipt = step["id"]
    if "atmo" not in text.lower():
        failures.append(f"The hospital's answer was {text!r}.")
    console.print(f"[dim]hospital$ atmo receipt verify {receipt[:12]}[/]")
    try:
        console.print(atmo("receipt", "verify", receipt).rstrip(), markup=False)
    except AtmoError as error:
        failures.append(error.message)
    return failures
