"""`atmo eval routing`."""

from __future__ import annotations

from pathlib import Path

from rich.console import Group
from rich.markup import escape
from rich.text import Text

from atmo import relevance
from atmo.cli import output
from atmo.inference.encoder import Encoder
from atmo.relevance import Answer, Report

LONGEST_SHOWN = 100  # characters of a text that was missed


def routing(capabilities: str, intents: str, *, as_json: bool) -> None:
    offers = relevance.read_offers(Path(capabilities))
    wanted = relevance.read_intents(Path(intents), offers)
    encoder = Encoder.load()
    table = relevance.make_table(offers, encoder)
    found = relevance.report([relevance.answer(table, intent, encoder) for intent in wanted], encoder.encoder_id)
    if as_json:
        output.print_json(relevance.as_json(found))
    else:
        output.console().print(shown(found))


def shown(found: Report) -> Group:
    summary = output.table("", "|right")
    nothing = found.nothing_fits
    for name, value in (
        ("intents", str(found.n)),
        ("right", _percent(found.accuracy)),
        (f"right of the {found.hard_n} hard ones", _percent(found.accuracy_hard)),
        (f'recall of "nothing fits" ({nothing.n})', _percent(nothing.recall)),
        ('precision of "nothing fits"', _percent(nothing.precision)),
        ("calibration error", _percent(found.calibration_error)),
        ("p50 / p95 / p99", " / ".join(f"{found.ms[q]:.1f}" for q in ("p50", "p95", "p99")) + " ms"),
        ("encoder", found.encoder),
    ):
        summary.add_row(name, value)
    if not found.misses:
        return Group(summary)
    misses = output.table("text", "expected", "best, with relevance and probability")
    for miss in found.misses:
        misses.add_row(_short(miss.intent.text), escape(", ".join(miss.intent.expect) or "nothing"), _best(miss))
    return Group(summary, Text(), misses)


def _best(miss: Answer) -> str:
    best = ", ".join(f"{score.id} {score.relevance:.2f} {_percent(score.probability)}" for score in miss.best)
    return escape(best if miss.chosen else f"nothing {_percent(miss.probability)}; {best}")


def _short(text: str) -> str:
    line = " ".join(text.split())
    return escape(line if len(line) <= LONGEST_SHOWN else line[: LONGEST_SHOWN - 1] + "…")


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.1%}"
