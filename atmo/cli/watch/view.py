"""How a person looks at the story: page, order, filter, what is chosen. A key press turns one view into the next."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from atmo.cli.watch import details
from atmo.cli.watch.pane import Entry, Pane
from atmo.cli.watch.panes import PANES
from atmo.cli.watch.story import Story

PAGES = ("overview", *PANES)
# What the overview shows, in the order in which Tab goes through it.
OVERVIEW = ("nodes", "requests", "events")
PAGE_ROWS = 10
MAX_FILTER = 40


@dataclass(frozen=True, slots=True)
class View:
    """focus: the pane that keys go to, on the overview; orders: for each pane the column it is sorted by (-1: its own
    order) and whether the other way round; chosen: for each pane the key of the chosen entry, "" for the first;
    looking: pane and key of what is looked into; typing: the filter is being typed; left: the person has had enough."""

    page: str = "overview"
    focus: str = "nodes"
    orders: dict[str, tuple[int, bool]] = field(default_factory=dict)
    chosen: dict[str, str] = field(default_factory=dict)
    filter: str = ""
    typing: bool = False
    paused: bool = False
    help: bool = False
    looking: tuple[str, str] | None = None
    scroll: int = 0
    left: bool = False

    @property
    def at(self) -> str:
        """The pane that keys go to."""
        return self.focus if self.page == "overview" else self.page


def listed(name: str, story: Story, view: View) -> list[Entry]:
    """The entries of a pane as they are shown: filtered and sorted."""
    if name != "nodes":
        return _listed(name, story, view)
    state = (story.looks, view.filter, view.orders.get(name))
    return story.keep("nodes listed", state, lambda: _listed(name, story, view))


def _listed(name: str, story: Story, view: View) -> list[Entry]:
    pane = PANES[name]
    entries = pane.entries(story)
    if view.filter:
        wanted = view.filter.lower().split()
        entries = [e for e in entries if all(word in pane.words(e, story).lower() for word in wanted)]
    number, other_way = view.orders.get(name, (-1, False))
    if number >= 0:
        order = pane.orders[number].order
        assert order is not None
        entries = sorted(entries, key=lambda entry: order(entry, story))
    return entries[::-1] if other_way else entries


def place(pane: Pane, entries: list[Entry], chosen: str) -> int:
    """Where the chosen entry stands; the first if it is gone."""
    if not chosen:
        return 0
    return next((number for number, entry in enumerate(entries) if pane.key(entry) == chosen), 0)


def press(view: View, key: str, story: Story) -> View:
    """What follows from a key. Keys are characters and the names that `keys.py` gives to the others."""
    if key == "ctrl-c":
        return replace(view, left=True)
    if view.typing:
        return _type(view, key)
    if view.help:
        return replace(view, help=False, scroll=0)
    if view.looking is not None and key in _IN_DETAIL:
        return _IN_DETAIL[key](view, story)
    if key.isdigit() and 0 < int(key) <= len(PAGES):
        return replace(view, page=PAGES[int(key) - 1], looking=None, scroll=0)
    act = _KEYS.get(key)
    return act(view, story) if act is not None else view


def _type(view: View, key: str) -> View:
    if key == "enter":
        return replace(view, typing=False)
    if key == "escape":
        return replace(view, typing=False, filter="")
    if key == "backspace":
        return replace(view, filter=view.filter[:-1])
    return replace(view, filter=(view.filter + key)[:MAX_FILTER]) if len(key) == 1 and key.isprintable() else view


def _move(steps: int) -> Callable[[View, Story], View]:
    def move(view: View, story: Story) -> View:
        entries, pane = listed(view.at, story, view), PANES[view.at]
        if not entries:
            return view
        to = min(max(place(pane, entries, view.chosen.get(view.at, "")) + steps, 0), len(entries) - 1)
        # The first of what is sorted by time stays the first: new entries are what one watches for.
        key = "" if to == 0 and pane.newest else pane.key(entries[to])
        return replace(view, chosen={**view.chosen, view.at: key})

    return move


def _sort(view: View, story: Story) -> View:
    number, other_way = view.orders.get(view.at, (-1, False))
    number = number + 1 if number + 1 < len(PANES[view.at].orders) else -1
    return replace(view, orders={**view.orders, view.at: (number, other_way)})


def _turn(view: View, story: Story) -> View:
    number, other_way = view.orders.get(view.at, (-1, False))
    return replace(view, orders={**view.orders, view.at: (number, not other_way)})


def _look(view: View, story: Story) -> View:
    entries, pane = listed(view.at, story, view), PANES[view.at]
    if not entries:
        return view
    entry = entries[place(pane, entries, view.chosen.get(view.at, ""))]
    if view.at == "events":
        return replace(view, looking=("nodes", entry["peer"]), scroll=0) if entry.get("peer") else view
    return replace(view, looking=("nodes" if view.at == "links" else view.at, pane.key(entry)), scroll=0)


def _next_page(steps: int) -> Callable[[View, Story], View]:
    return lambda view, story: replace(
        view, page=PAGES[(PAGES.index(view.page) + steps) % len(PAGES)], looking=None, scroll=0
    )


def _next_focus(view: View, story: Story) -> View:
    if view.page != "overview":
        return _next_page(1)(view, story)
    return replace(view, focus=OVERVIEW[(OVERVIEW.index(view.focus) + 1) % len(OVERVIEW)])


def _escape(view: View, story: Story) -> View:
    return replace(view, looking=None, filter="", scroll=0)


def _scroll(steps: int) -> Callable[[View, Story], View]:
    def scroll(view: View, story: Story) -> View:
        assert view.looking is not None
        last = len(details.lines(*view.looking, story)) - 1
        return replace(view, scroll=min(max(0, view.scroll + steps), last))

    return scroll


def _back(view: View, story: Story) -> View:
    return replace(view, looking=None, scroll=0)


_KEYS: dict[str, Callable[[View, Story], View]] = {
    "q": lambda view, story: replace(view, left=True),
    "up": _move(-1),
    "k": _move(-1),
    "down": _move(1),
    "j": _move(1),
    "page-up": _move(-PAGE_ROWS),
    "page-down": _move(PAGE_ROWS),
    "home": _move(-(1 << 30)),
    "g": _move(-(1 << 30)),
    "end": _move(1 << 30),
    "G": _move(1 << 30),
    "left": _next_page(-1),
    "right": _next_page(1),
    "tab": _next_focus,
    "s": _sort,
    "r": _turn,
    "/": lambda view, story: replace(view, typing=True, filter=""),
    "p": lambda view, story: replace(view, paused=not view.paused),
    " ": lambda view, story: replace(view, paused=not view.paused),
    "enter": _look,
    "escape": _escape,
    "?": lambda view, story: replace(view, help=True, scroll=0),
    "h": lambda view, story: replace(view, help=True, scroll=0),
}
_IN_DETAIL: dict[str, Callable[[View, Story], View]] = {
    "escape": _back,
    "enter": _back,
    "backspace": _back,
    "left": _back,
    "up": _scroll(-1),
    "k": _scroll(-1),
    "down": _scroll(1),
    "j": _scroll(1),
    "page-up": _scroll(-PAGE_ROWS),
    "page-down": _scroll(PAGE_ROWS),
    "home": _scroll(-(1 << 30)),
    "g": _scroll(-(1 << 30)),
}
