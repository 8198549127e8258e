"""From the story and the way it is looked at to a screen of exactly so many lines and columns. Pure."""

from __future__ import annotations

from rich.style import Style

from atmo.cli.watch import cells, details
from atmo.cli.watch.cells import BOLD, CYAN, DIM, GREEN, PLAIN, RED, REVERSE, YELLOW, Frame, Line
from atmo.cli.watch.pane import Column, Entry, Pane, clock
from atmo.cli.watch.panes import NODES, PANES
from atmo.cli.watch.story import Story
from atmo.cli.watch.transfers import TRANSFERS
from atmo.cli.watch.view import PAGES, View, listed, place

HEAD = DIM + BOLD
# From this width on, requests and events stand beside each other.
WIDE = 110
# Looks at the mesh whose tokens a second are shown in the first line.
HEADER_SPARK = 12
# Transfers under way that the overview shows.
MOVING = 3
# Smaller screens show what fits.
LEAST_WIDTH, LEAST_HEIGHT = 20, 5
FOOTER = (
    *((f"1-{len(PAGES)}", "pages"), ("↑↓", "move"), ("⏎", "look"), ("s", "sort"), ("r", "turn"), ("/", "filter")),
    *(("p", "pause"), ("?", "help"), ("q", "quit")),
)
IN_DETAIL = (("↑↓", "scroll"), ("Esc", "back"), ("q", "quit"))
IN_HELP = (("any key:", "back"),)


def frame(story: Story, view: View, width: int, height: int) -> Frame:
    """The whole screen."""
    width, height = max(width, LEAST_WIDTH), max(height, LEAST_HEIGHT)
    body = _body(story, view, width, height - 3)
    blank = cells.plain("", width)
    body += [blank] * (height - 3 - len(body))
    return Frame((_header(story, view, width), _tabs(view, width), *body[: height - 3], _footer(story, view, width)))


def still(story: Story, width: int) -> Frame:
    """Everything of interest once, as high as it gets, for pipes and for `--once`."""
    view = View()
    parts = [_header(story, view, width, at=True)]
    for name, most in (("nodes", 1 << 30), ("requests", 10), ("events", 10)):
        entries = listed(name, story, view)[:most]
        if entries or name == "nodes":
            parts += [cells.plain("", width), *table(PANES[name], story, entries, width, len(entries) + 1, -1)]
    return Frame((*parts, *_notes(story, width)))


def table(pane: Pane, story: Story, entries: list[Entry], width: int, height: int, at: int) -> list[Line]:
    """The head and as many entries as fit around the one at `at`, which is marked; -1 marks none."""
    columns, widths = _widths(pane, width)
    heads = [(cells.fit(column.head, room, column.right), HEAD) for column, room in zip(columns, widths, strict=True)]
    made = [cells.line(_apart(heads), width)]
    rows = height - 1
    top = max(0, min(max(at, 0) - rows // 2, len(entries) - rows))
    for number, entry in enumerate(entries[top : top + rows], top):
        made.append(_row(entry, story, columns, widths, width, REVERSE if number == at else None))
    if not entries and rows > 0:
        made.append(cells.plain(f"no {pane.title.lower()}", width, DIM))
    return made


def _row(entry: Entry, story: Story, columns: list[Column], widths: list[int], width: int, over: Style | None) -> Line:
    parts = []
    for column, room in zip(columns, widths, strict=True):
        cell = column.cell(entry, story, room)
        parts.append((cells.fit(cell.text, room, column.right), cell.style))
    return cells.line(_apart(parts), width, over)


def _apart(parts: list[tuple[str, Style]]) -> list[tuple[str, Style]]:
    """A blank after each but the last."""
    return [*((f"{text} ", style) for text, style in parts[:-1]), parts[-1]]


def _widths(pane: Pane, width: int) -> tuple[list[Column], list[int]]:
    """The columns that are shown and how wide: what is left over is dealt out from the first to the last."""
    columns = [column for column in pane.columns if width >= column.wide]
    while len(columns) > 1 and sum(column.least + 1 for column in columns) - 1 > width:
        columns.pop()
    widths = [column.least for column in columns]
    left = width - sum(widths) - len(widths) + 1
    # First everyone what a name needs, then whatever is left: no column starves the next.
    for number, step in [(n, step) for step in (8, 1 << 30) for n in range(len(columns))]:
        more = min(columns[number].most - widths[number], step, max(left, 0))
        widths[number] += more
        left -= more
    return columns, widths


def _body(story: Story, view: View, width: int, height: int) -> list[Line]:
    if view.help:
        return _block(details.help_lines(), 0, width, height)
    if view.looking is not None:
        return _block(details.lines(*view.looking, story), view.scroll, width, height)
    if not story.report:
        return [cells.plain("", width), cells.plain("Waiting for the node ...", width, DIM)]
    notes = _notes(story, width)[: max(0, height // 4)]
    height -= len(notes)
    made = _overview(story, view, width, height) if view.page == "overview" else _whole(story, view, width, height)
    return [*made, *[cells.plain("", width)] * (height - len(made)), *notes]


def _whole(story: Story, view: View, width: int, height: int) -> list[Line]:
    entries = listed(view.page, story, view)
    last = [cells.plain(_pattern(story), width, DIM)] if view.page == "links" else []
    made = table(PANES[view.page], story, entries, width, height - len(last), _at(view.page, entries, view))
    return [*made, *[cells.plain("", width)] * (height - len(last) - len(made)), *last]


def _pattern(story: Story) -> str:
    """How nodes are linked in a mesh of this size."""
    if story.report.get("full_mesh"):
        return "Every node links to every other one."
    return "Large mesh: a few neighbours each; others hear by gossip, requests make links."


def _at(name: str, entries: list[Entry], view: View) -> int:
    return place(PANES[name], entries, view.chosen.get(name, "")) if view.at == name else -1


def _overview(story: Story, view: View, width: int, height: int) -> list[Line]:
    """Nodes above, as many as there are and half of the screen at most; requests and events below."""
    nodes = listed("nodes", story, view)
    upper = min(len(nodes) + 2, max(height // 2, height - 24))
    state = (story.looks, view.filter, view.orders.get("nodes"), at := _at("nodes", nodes, view), width, upper)
    made = [*story.keep("nodes drawn", state, lambda: table(NODES, story, nodes, width, upper - 1, at))]
    made += _moving(story, width, height // 4)
    made.append(cells.plain("─" * width, width, DIM))
    lower = height - len(made)
    if width >= WIDE:
        left = width * 3 // 5
        blocks = _small("requests", story, view, left, lower), _small("events", story, view, width - left - 2, lower)
        return [*made, *cells.beside(*blocks, left)]
    first = lower // 2
    made += _small("requests", story, view, width, first)
    made += [cells.plain("", width)] * (upper + first - len(made))
    return [*made, cells.plain("─" * width, width, DIM), *_small("events", story, view, width, lower - first - 1)]


def _moving(story: Story, width: int, most: int) -> list[Line]:
    """Models that travel at present, one line each."""
    running = [transfer for transfer in TRANSFERS.entries(story) if transfer["state"] == "running"]
    shown = running[: min(MOVING, most)]
    if not shown:
        return []
    return [cells.plain("─" * width, width, DIM), *table(TRANSFERS, story, shown, width, len(shown) + 1, -1)[1:]]


def _small(name: str, story: Story, view: View, width: int, height: int) -> list[Line]:
    entries = listed(name, story, view)
    made = table(PANES[name], story, entries, width, height, _at(name, entries, view))
    made[0] = cells.plain(f"{name.upper()} {len(entries) or ''}", width, HEAD)
    return made


def _block(words: list[details.Words], scroll: int, width: int, height: int) -> list[Line]:
    """Text that is looked at, from line `scroll` on."""
    top = min(scroll, max(0, len(words) - height))
    return [cells.line(part, width) for part in words[top : top + height]]


def _notes(story: Story, width: int) -> list[Line]:
    """What the node finds wrong, and why it is alone."""
    report = story.report
    notes = [cells.line([("! ", YELLOW), (told, PLAIN)], width) for told in report.get("problems", ())]
    return [*notes, *([cells.plain(report["alone"], width, DIM)] if report.get("alone") else [])]


def _header(story: Story, view: View, width: int, *, at: bool = False) -> Line:
    """Whose view it is, whether it is live, and what there is; the time on the right."""
    report = story.report
    state, style = ("● live", GREEN) if not view.paused else ("‖ paused", YELLOW)
    if story.trouble:
        state, style = f"○ {story.trouble}", RED
    parts = [("atmosphere ", CYAN + BOLD), (f"{story.own} ", BOLD), ("" if at else f"{state}  ", style)]
    if not story.trouble:
        parts += [(f"{text}  ", shown) for text, shown in _counts(story, spark=width >= WIDE)]
        parts.append((f"mesh {report.get('mesh', '')[-8:]}", DIM))
    now = clock(story.at_s) if story.at_s else ""
    room = max(0, width - len(now) - 1)
    head = cells.line(parts, room)
    return [*head, *cells.line([(" " + now, DIM)], width - room)]


def _counts(story: Story, *, spark: bool) -> list[tuple[str, Style]]:
    nodes = story.report.get("nodes", ())
    suspect, dead = sum(node["state"] == "suspect" for node in nodes), len(story.report.get("dead", ()))
    tps = story.total[-1] if story.total else 0.0
    counts = [(f"{len(nodes)} node{'s' if len(nodes) != 1 else ''}", PLAIN)]
    counts += [(f"{suspect} suspect", YELLOW)] if suspect else []
    counts += [(f"{dead} dead", RED)] if dead else []
    if not any(story.total):
        return counts
    lately = f" {cells.spark(story.total, HEADER_SPARK)}" if spark else ""
    return [*counts, (f"{tps:.0f} tok/s{lately}", GREEN)]


def _tabs(view: View, width: int) -> Line:
    """As far apart as there is room."""
    parts: list[tuple[str, Style]] = []
    before, between = (" ", " ") if width >= sum(len(page) + 5 for page in PAGES) else ("", "")
    for number, page in enumerate(PAGES, 1):
        parts += [(f"{before}{number} {page} ", REVERSE if page == view.page else DIM), (between, PLAIN)]
    return cells.line(parts, width)


def _footer(story: Story, view: View, width: int) -> Line:
    if view.typing:
        return cells.line([("/", CYAN + BOLD), (view.filter, PLAIN), ("▏", CYAN), ("   ⏎ keep  Esc clear", DIM)], width)
    parts: list[tuple[str, Style]] = []
    number, other_way = view.orders.get(view.at, (-1, False))
    if number >= 0 or other_way:
        head = PANES[view.at].orders[number].head or "STATE" if number >= 0 else "own order"
        parts.append((f"by {head.lower()}{' ▲' if other_way else ' ▼'}  ", CYAN))
    if view.filter:
        parts.append((f"filter: {view.filter}  ", CYAN))
    for key, does in IN_HELP if view.help else IN_DETAIL if view.looking is not None else FOOTER:
        parts += [(f"{key} ", BOLD), (f"{does}{'  ' if width >= 100 else ' '}", DIM)]
    where = f" {_position(story, view)}" if view.looking is None and not view.help else ""
    room = width - len(where)
    return [*cells.line(parts, room), *cells.line([(where, DIM)], width - room)]


def _position(story: Story, view: View) -> str:
    """Which of how many is chosen."""
    entries = listed(view.at, story, view)
    return f"{place(PANES[view.at], entries, view.chosen.get(view.at, '')) + 1}/{len(entries)}" if entries else ""
