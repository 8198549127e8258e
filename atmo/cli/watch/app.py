"""`atmo mesh watch`: the loop that waits for keys and news and draws. The only place that owns the screen."""

from __future__ import annotations

import json
import os
import select
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace

from rich.console import Console
from rich.text import Text

from atmo.cli import output
from atmo.cli.watch import keys
from atmo.cli.watch.canvas import Canvas
from atmo.cli.watch.feed import Feed, finder
from atmo.cli.watch.frame import frame, still
from atmo.cli.watch.story import Story
from atmo.cli.watch.view import View, press
from atmo.client import SyncClient
from atmo.config import load

# News is drawn at most ten times a second; a key at once.
FRAME_S = 0.1
# An escape that nothing follows within this is the Escape key. A guess: one slow round trip of a remote terminal.
ESCAPE_S = 0.05
# With neither key nor news it is looked at the clock so often.
IDLE_S = 1.0
# A node pulses each second: one that says nothing for so long is silent.
SILENT_S = 3.0


def watch(node: str, *, interval_s: float, for_s: float, once: bool, as_json: bool) -> None:
    """for_s: seconds until it ends by itself, 0 for never."""
    connect = finder(load(), node)
    if as_json:
        _print_events(connect(), for_s, follow=not once)
    elif once:
        _print_once(connect())
    elif not _is_terminal(output.console()):
        output.aside().print("Standard output is no terminal that can be drawn on: one picture, as with --once.")
        _print_once(connect())
    else:
        _live(connect, interval_s, for_s)


def _is_terminal(console: Console) -> bool:
    return console.is_terminal and not console.is_dumb_terminal and sys.stdout.isatty()


def _print_events(client: SyncClient, for_s: float, *, follow: bool) -> None:
    """One JSON object a line. A pulse is no news, but a moment to see whether it is time to end."""
    ends_s = time.monotonic() + for_s if for_s else float("inf")
    for event in client.events(follow=follow):
        if event["event"] != "pulse":
            sys.stdout.write(json.dumps(event, ensure_ascii=False) + "\n")
            sys.stdout.flush()
        if time.monotonic() >= ends_s:
            return


def _print_once(client: SyncClient) -> None:
    story = Story()
    story.seen(client.mesh())
    for event in client.events(follow=False):
        story.happened(event)
    story.at_s = max(story.at_s, time.time())
    console = output.console()
    picture = still(story, console.width)
    console.print(picture if console.is_terminal else Text(picture.text), soft_wrap=True)
    if console.is_terminal:
        console.print()


def _live(connect: Callable[[], SyncClient], interval_s: float, for_s: float) -> None:
    with ExitStack() as stack:
        wake, woken = stack.enter_context(_pipe())
        keyboard = stack.enter_context(keys.raw_keyboard()) if sys.stdin.isatty() else None
        feed = Feed(connect, wake, max(interval_s, FRAME_S))
        stack.callback(feed.close)
        screen = _Screen(feed, keyboard, woken)
        stack.enter_context(_signals(screen, wake))
        stack.enter_context(output.console().screen(hide_cursor=True))
        feed.start()
        screen.run(output.console(), time.monotonic() + for_s if for_s else float("inf"))


class _Screen:
    """The story, the view of it, and what is on the screen."""

    def __init__(self, feed: Feed, keyboard: int | None, woken: int) -> None:
        self.story = Story()
        self.view = View()
        self._feed = feed
        self._keyboard = keyboard
        self._woken = woken
        self._reader = keys.Reader()
        self._drawn_s = self._heard_s = time.monotonic()

    def run(self, console: Console, ends_s: float) -> None:
        """Until the person leaves or the time is over."""
        canvas, news = Canvas(console), True
        while not self.view.left and time.monotonic() < ends_s:
            wait_s = self._drawn_s + FRAME_S - time.monotonic() if news else IDLE_S
            pressed = self._wait(max(0.0, min(wait_s, ends_s - time.monotonic())), for_news=not news)
            news = news or not pressed
            if pressed or time.monotonic() >= self._drawn_s + FRAME_S:
                self._take()
                self._drawn_s = time.monotonic()
                size = console.size
                canvas.draw(frame(self.story, self.view, size.width, size.height), size)
                news = False

    def _wait(self, timeout_s: float, *, for_news: bool) -> bool:
        """Wait for a key, or for news where there are none yet. True if it was a key."""
        sources = [self._keyboard] if self._keyboard is not None else []
        sources += [self._woken] if for_news else []
        ready, _, _ = select.select(sources, [], [], ESCAPE_S if self._reader.pending else timeout_s)
        if self._woken in ready:
            os.read(self._woken, 4096)
        pressed: list[str] = []
        if self._keyboard is not None and self._keyboard in ready:
            data = keys.read(self._keyboard)
            if not data:  # the terminal is gone
                self.view = replace(self.view, left=True)
            pressed = self._reader.feed(data)
        elif self._reader.pending and not ready:
            pressed = self._reader.flush()
        for key in pressed:
            self._press(key)
        return bool(pressed)

    def _press(self, key: str) -> None:
        before, self.view = self.view.looking, press(self.view, key, self.story)
        looking = self.view.looking
        if looking is not None and looking != before and looking[0] == "requests":
            request = self.story.requests.get(looking[1])
            if request is not None and request.ours and request.id not in self.story.decisions:
                self._feed.want_decision(request.id)

    def _take(self) -> None:
        """What the feed has. While paused it stays there, but for the answer to what a person wants to see now."""
        if self.view.paused:
            return
        for kind, value in self._feed.take():
            if kind == "event":
                self._heard_s = time.monotonic()
                self.story.happened(value)
            elif kind == "mesh":
                self.story.seen(value)
            elif kind == "transfers":
                self.story.moved(value)
            elif kind == "decision":
                self.story.decisions[value[0]] = value[1]
            else:
                self.story.trouble = f"{value} Reconnecting." if kind == "lost" else ""
        silent_s = time.monotonic() - self._heard_s
        if silent_s > SILENT_S and not self.story.trouble:
            self.story.trouble = f"The node says nothing for {silent_s:.0f} s."
        elif silent_s < SILENT_S and self.story.trouble.startswith("The node says nothing"):
            self.story.trouble = ""


@contextmanager
def _pipe() -> Iterator[tuple[Callable[[], None], int]]:
    """A way for threads and signals to wake the loop: what to call, and what to wait for."""
    woken, waker = os.pipe()
    os.set_blocking(waker, False)

    def wake() -> None:
        try:
            os.write(waker, b"!")
        except OSError:
            pass  # full: it will wake; closed: nobody sleeps any more

    try:
        yield wake, woken
    finally:
        os.close(waker)
        os.close(woken)


@contextmanager
def _signals(screen: _Screen, wake: Callable[[], None]) -> Iterator[None]:
    """Ctrl-C and whoever ends this process end the loop, so that the terminal is put right; a resize draws anew."""

    def leave(number: int, stack: object) -> None:
        screen.view = replace(screen.view, left=True)
        wake()

    def redraw(number: int, stack: object) -> None:
        wake()

    handlers = {signal.SIGINT: leave, signal.SIGTERM: leave, signal.SIGHUP: leave, signal.SIGWINCH: redraw}
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    before[signal.SIGTSTP] = signal.signal(signal.SIGTSTP, signal.SIG_IGN)  # the shell would get half a terminal
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
