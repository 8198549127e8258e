"""`make demo`: three nodes on this machine, four prompts that go where they belong, one death, an answer all the same,
and a model that goes to data which may not leave.

Everything is real: three node processes, each with a model in a worker process, find each other, gossip signed rows
over encrypted sockets and route by meaning. Each prompt is asked at a node that does *not* serve it, so every answer
crosses a socket. Ends by itself, within a minute; exit code 0 only if every step did what it says.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.text import Text

from atmo.cli import views
from atmo.client import SyncClient, running_nodes
from atmo.config import load
from atmo.errors import AtmoError
from examples import hospital

console = Console(highlight=False)

NODES = {
    "laptop": """
[[serve]]
model = "atmo-nano"
description = "General chat: greetings, small talk, small sums, short definitions, everyday questions."
examples = ["Hello, who are you?", "Thank you!", "What is 2+2?", "Is ice colder than water?", "What is a token?"]
labels = { scope = "general" }
""",
    "library": """
[[serve]]
model = "atmo-nano"
name = "handbook"
description = "Answers questions about Atmosphere itself: nodes, mesh, gossip, routing, commands, setting up."
examples = [
  "How do I add a node to my Atmosphere mesh?",
  "What does atmo doctor do?",
  "Which command shows the mesh?",
  "How does Atmosphere route a prompt?",
  "What is a gradient table?",
]
""",
    "desk": """
[[serve]]
model = "atmo-tone"
""",
}


@dataclass(frozen=True)
class Errand:
    """A prompt, where it is asked, who should answer, and a word the answer must contain."""

    prompt: str
    asked_at: str
    expected: str
    word: str


ERRANDS = (
    Errand("Hello! Who are you?", "desk", "laptop", "atmo"),
    Errand("How do I add a node?", "laptop", "library", "atmo node start"),
    Errand("Is this review positive or negative: it broke after one day", "library", "desk", "negative"),
    Errand("What is 2+2?", "desk", "laptop", "4"),
)
LINK_TIMEOUT_S = 10.0


def main() -> int:
    folder = Path(tempfile.mkdtemp(prefix="atmo-demo-"))
    os.environ.update(ATMO_HOME=str(folder / "home"), ATMO_RUNTIME=str(folder / "run"))
    failures: list[str] = []
    began_s = time.monotonic()
    try:
        _start_nodes(folder)
        _show_mesh()
        for errand in ERRANDS:
            _run(errand, failures)
        _kill_and_ask_again(failures)
        failures += hospital.act(folder, console, _atmo, _wait)
    except AtmoError as error:
        failures.append(str(error))
    finally:
        hospital.stop(folder, _stop_nodes)
        _stop_nodes()
        shutil.rmtree(folder, ignore_errors=True)
    return _summary(failures, time.monotonic() - began_s)


def _start_nodes(folder: Path) -> None:
    console.rule("[bold]Three nodes start, each a process of its own", align="left")
    for name, serve in NODES.items():
        file = folder / f"{name}.toml"
        file.write_text(serve)
        console.print(f"[dim]$ atmo node start --name {name} --config {name}.toml[/]")
        said = _atmo("node", "start", "--name", name, "--config", str(file)).splitlines()
        console.print(Text.from_ansi(next(line for line in said if "●" in line)))
    _wait("the nodes to find each other", lambda: all(len(_linked(name)) == len(NODES) for name in NODES))


def _show_mesh() -> None:
    console.rule("[bold]They found each other, with no configuration", align="left")
    console.print("[dim]$ atmo mesh[/]")
    console.print(views.mesh(_client("laptop").mesh()))
    console.print()


def _run(errand: Errand, failures: list[str]) -> None:
    console.rule(f"[bold]Asked at {errand.asked_at}", align="left")
    console.print(f"[dim]$ atmo ask --node {errand.asked_at}[/] [bold]{errand.prompt!r}[/]")
    answer, node = _ask(errand.asked_at, errand.prompt)
    if node != errand.expected:
        failures.append(f"{errand.prompt!r} went to {node}, not to {errand.expected}.")
    if errand.word.lower() not in answer.lower():
        failures.append(f"The answer to {errand.prompt!r} does not mention {errand.word!r}.")


def _ask(at: str, prompt: str) -> tuple[str, str]:
    """Ask, print the answer as it streams and why it came from where. Returns the answer and the node's name."""
    pieces: list[str] = []
    node = why = ""
    for event in _client(at).stream(prompt, timeout_s=30).steps():
        if event["event"] == "route":
            why = _why(event)
        elif event["event"] == "text":
            pieces.append(event["text"])
            console.print(event["text"], end="", markup=False)
        elif event["event"] == "labels":
            pieces.append(event["labels"][0][0])
            console.print(views.result(event))
        elif event["event"] == "retry":
            console.print(views.retried(event))
        elif event["event"] == "done":
            node = event["node"]
            console.print("" if event["output_tokens"] == 0 else "\n", end="")
            console.print(views.answered_by(event))
            console.print(f"[dim]  {why}[/]\n")
    return "".join(pieces), node


def _why(decision: views.Json) -> str:
    chosen = decision["chosen"]
    others = [*decision["classes"][1:], *decision["passed"]]
    next_best = max(others, key=lambda other: float(other["relevance"]), default=None)
    against = ""
    if next_best and next_best["relevance"] > chosen["relevance"]:
        against = (
            f"; {next_best['capability']} would fit better with {next_best['relevance']:.2f}, but nobody has it now"
        )
    elif next_best:
        against = f" against {next_best['relevance']:.2f} for {next_best['capability']}"
    return (
        f"why: relevance {chosen['relevance']:.2f}{against}; decided in {decision['elapsed_s'] * 1000:.2f} ms "
        f"from {decision['rows_known']} offers"
    )


def _kill_and_ask_again(failures: list[str]) -> None:
    victim, prompt = "library", "What is Atmosphere?"
    console.rule(f"[bold]{victim} dies (kill -9), and the next question still gets its answer", align="left")
    pid = next(card.pid for card in running_nodes(load()) if card.name == victim)
    os.kill(pid, signal.SIGKILL)
    console.print(f"[dim]$ kill -9 {pid}\n$ atmo ask --node desk[/] [bold]{prompt!r}[/]")
    answer, node = _ask("desk", prompt)
    if node in ("", victim) or "mesh" not in answer.lower():
        failures.append(f"After the death of {victim} the answer from {node!r} was {answer!r}.")


def _summary(failures: list[str], seconds: float) -> int:
    steps = len(ERRANDS) + 1
    if failures:
        console.rule("[bold red]Not everything worked", align="left")
        for failure in failures:
            console.print(f"[red]✗[/] {failure}", markup=True)
        return 1
    console.rule("[bold green]All as it should be", align="left")
    console.print(
        f"{len(NODES)} nodes, {steps} of {steps} prompts answered by the right node, one death survived, a model that "
        f"came to the data, {seconds:.0f} seconds, no download, no network."
    )
    console.print(
        "Now yours:  [bold].venv/bin/atmo node start[/]  and  [bold].venv/bin/atmo ask 'What is Atmosphere?'[/]"
    )
    return 0


def _atmo(*arguments: str) -> str:
    """Run a command; what it says. Raises AtmoError."""
    done = subprocess.run([sys.executable, "-m", "atmo", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise AtmoError(f"`atmo {' '.join(arguments[:4])}` failed: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def _client(node: str) -> SyncClient:
    return SyncClient(node=node)


def _linked(node: str) -> list[str]:
    return [view["name"] for view in _client(node).mesh()["nodes"] if view["linked"] or view["self"]]


def _wait(what: str, true: Callable[[], bool]) -> None:
    ends_s = time.monotonic() + LINK_TIMEOUT_S
    while not true():
        if time.monotonic() > ends_s:
            raise AtmoError(f"Waited {LINK_TIMEOUT_S:.0f} s in vain for {what}.", hint="Run: atmo doctor")
        time.sleep(0.05)


def _stop_nodes() -> None:
    for card in running_nodes(load()):
        try:
            _client(card.name).stop()
        except AtmoError:
            os.kill(card.pid, signal.SIGTERM)
    ends_s = time.monotonic() + LINK_TIMEOUT_S
    while running_nodes(load()) and time.monotonic() < ends_s:
        time.sleep(0.05)
    for card in running_nodes(load()):
        os.kill(card.pid, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main())
