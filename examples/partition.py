"""A partition, seen live: `python -m examples.partition`.

Three nodes run on this machine, `atmo mesh watch` shows them in this terminal, and a script makes things happen: a
fourth node joins, requests flow, then `desk` is cut off from one moment to the next. The others notice, doubt, give it
up, and take it back when it returns. All of it is real. A process that is stopped (SIGSTOP) looks to the others like
one whose cable was pulled: its connections stay open and nothing comes.

Where there is no terminal the events are printed instead. Ends by itself, within a minute; exit code 0 only if the
members' view went joined, suspect, dead, back.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import Any

from atmo.cli.watch.story import MEMBERS
from atmo.client import SyncClient, running_nodes
from atmo.config import load
from atmo.errors import AtmoError

ATMO = (sys.executable, "-m", "atmo")
WATCHER, VICTIM, LATE = "laptop", "desk", "attic"
FIRST = (WATCHER, "library", VICTIM)
# What the watcher has to see of the victim, in this order, with anything in between.
EXPECTED = ("joined", "suspect", "dead", "refuted")
STEP_S = 30.0
# Who asks whom.
ERRANDS = ((WATCHER, VICTIM), (WATCHER, LATE), ("library", WATCHER))
# So that a person can read each picture.
PAUSE_S = 2.0
PROMPTS = ("What is 2+2?", "Hello, who are you?", "What is a token?", "What is Atmosphere?")


class Play:
    """The script. `run` returns when it is over or went wrong; `trouble` says what went wrong."""

    def __init__(self) -> None:
        self.trouble = ""
        self._over = threading.Event()

    def end(self) -> None:
        """The person has seen enough."""
        self._over.set()

    def run(self) -> None:
        asking = threading.Thread(target=self._ask)
        asking.start()
        try:
            self._steps()
        except AtmoError as error:
            self.trouble = str(error)
        finally:
            self._over.set()
            asking.join()

    def _steps(self) -> None:
        self._pause()
        begin(LATE)
        self._wait(f"{LATE} to be linked", lambda: state(LATE) == "linked")
        self._pause()
        pid = next(card.pid for card in running_nodes(load()) if card.name == VICTIM)
        os.kill(pid, signal.SIGSTOP)
        try:
            self._wait(f"{VICTIM} to be dead", lambda: state(VICTIM) == "dead")
            self._pause()
        finally:
            os.kill(pid, signal.SIGCONT)
        self._wait(f"{VICTIM} to be back", lambda: state(VICTIM) == "linked")
        self._pause()

    def _pause(self) -> None:
        if self._over.wait(PAUSE_S):
            raise AtmoError("It was left before its end.")

    def _wait(self, what: str, true: Callable[[], bool]) -> None:
        wait(what, lambda: self._over.is_set() or true())

    def _ask(self) -> None:
        """Requests from two nodes to three. Those to the victim fail while it is away."""
        number = 0
        while not self._over.wait(0.7):
            asker, to = ERRANDS[number % len(ERRANDS)]
            try:
                SyncClient(node=asker).ask(PROMPTS[number % len(PROMPTS)], allow_nodes=to, timeout_s=5, max_tokens=40)
            except AtmoError:
                pass
            number += 1


def main() -> int:
    folder = Path(tempfile.mkdtemp(prefix="atmo-partition-"))
    os.environ.update(ATMO_HOME=str(folder / "home"), ATMO_RUNTIME=str(folder / "run"), ATMO_DISCOVERY_LAN="false")
    for number in (signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, lambda number, frame: sys.exit(128 + number))  # nodes are stopped whatever happens
    play = Play()
    events: list[dict[str, Any]] = []
    try:
        begin(FIRST[0])
        with ThreadPoolExecutor(len(FIRST)) as pool:
            list(pool.map(begin, FIRST[1:]))
        wait("the nodes to be linked", lambda: all(state(name) in ("self", "linked") for name in FIRST))
        (_in_terminal if sys.stdout.isatty() else _in_lines)(play)
        events = list(SyncClient(node=WATCHER).events(follow=False))
    except AtmoError as error:
        play.trouble = play.trouble or str(error)
    finally:
        stop_nodes()
        shutil.rmtree(folder, ignore_errors=True)
    return _summary(play.trouble, events)


def _in_terminal(play: Play) -> None:
    """The live view has the terminal; when the script is over, or the person quits, all ends."""
    view = subprocess.Popen([*ATMO, "mesh", "watch", "--node", WATCHER])
    script = threading.Thread(target=play.run)
    script.start()
    try:
        while script.is_alive() and view.poll() is None:
            script.join(0.1)
    finally:
        play.end()
        view.terminate()
        view.wait()
        script.join()


def _in_lines(play: Play) -> None:
    play.run()
    names = {node["peer"]: node["name"] for node in SyncClient(node=WATCHER).mesh()["nodes"]}
    for event in SyncClient(node=WATCHER).events(follow=False):
        if event["event"] in MEMBERS:
            at = datetime.fromtimestamp(event["at_s"]).strftime("%H:%M:%S.%f")[:-4]
            print(f"{at}  {MEMBERS[event['event']][0]:<12} {names.get(event['peer'], '?'):<10} {event['detail']}")


def _summary(trouble: str, events: list[dict[str, Any]]) -> int:
    victim = next((event["peer"] for event in events if event.get("name") == VICTIM), "")
    told = iter(event for event in events if event.get("peer") == victim)
    seen = [next((event for event in told if event["event"] == wanted), None) for wanted in EXPECTED]
    missing = [wanted for wanted, event in zip(EXPECTED, seen, strict=True) if event is None]
    if trouble or missing:
        print(f"Not everything worked. {trouble} Never seen of {VICTIM}: {', '.join(missing) or 'nothing'}.")
        return 1
    _, suspect, dead, back = (event["at_s"] for event in seen if event is not None)
    lost = next(event["at_s"] for event in events if event["event"] == "lost" and event.get("peer") == victim)
    print(
        f"{VICTIM} was cut off. Its link was given up, {suspect - lost:.1f} s later it was a suspect, "
        f"{dead - lost:.1f} s later dead, and {back - lost:.1f} s later back."
    )
    return 0


def begin(name: str) -> None:
    atmo("node", "start", "--name", name)


def atmo(*words: str) -> None:
    done = subprocess.run([*ATMO, *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise AtmoError(f"`atmo {' '.join(words)}` failed: {done.stderr.strip() or done.stdout.strip()}")


def state(name: str) -> str:
    """How the watcher sees a node."""
    report = SyncClient(node=WATCHER).mesh()
    return next((node["state"] for node in (*report["nodes"], *report["dead"]) if node["name"] == name), "unknown")


def wait(what: str, true: Callable[[], bool]) -> None:
    ends_s = time.monotonic() + STEP_S
    while not true():
        if time.monotonic() > ends_s:
            raise AtmoError(f"Waited {STEP_S:.0f} s in vain for {what}.")
        time.sleep(0.05)


def stop_nodes() -> None:
    for card in running_nodes(load()):
        os.kill(card.pid, signal.SIGTERM)
    ends_s = time.monotonic() + STEP_S
    while running_nodes(load()) and time.monotonic() < ends_s:
        time.sleep(0.05)
    for card in running_nodes(load()):
        os.kill(card.pid, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main())
