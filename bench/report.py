"""Results for people. Pure views; run as a demo over the committed results: `python -m bench.report`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from bench import harness, stats


def view(result: harness.Result) -> RenderableType:
    """One scenario: what was measured, what was compared, what was to be reached."""
    title = Text.assemble((result.scenario, "bold"), f"  {result.what}")
    parts: list[RenderableType] = [title, _measures(result)]
    if result.comparisons:
        parts.append(_comparisons(result))
    parts.extend(_verdict(verdict, quick=result.quick) for verdict in result.verdicts)
    parts.extend(Text(f"  {warning}", style="yellow") for warning in _warnings(result))
    parts.append(Text())
    return Group(*parts)


def summary(results: Sequence[harness.Result], failed: Sequence[str]) -> Text:
    """The last line: how many targets were met, and which were not."""
    verdicts = [verdict for result in results for verdict in result.verdicts if not result.quick]
    missed = [verdict.target.says for verdict in verdicts if not verdict.met]
    if verdicts:
        text = Text(f"{len(verdicts) - len(missed)} of {len(verdicts)} targets met", style="red" if missed else "green")
    else:
        text = Text(f"{len(results)} scenarios ran, no target was judged")
    if missed:
        text.append(f". MISSED: {'; '.join(missed)}")
    if failed:
        text.append(f". FAILED TO RUN: {', '.join(failed)}", style="red")
    return text.append(".")


def _measures(result: harness.Result) -> Table:
    table = Table(box=None, pad_edge=True, header_style="dim")
    table.add_column("measure", no_wrap=True)
    for heading in ("n", "p50", "p95", "p99", "most", "unit"):
        table.add_column(heading, justify="left" if heading == "unit" else "right", no_wrap=True)
    table.add_column("note", style="dim", overflow="fold")
    for measure in result.measures:
        found = measure.summary
        cells = [_estimate(found.p50), _estimate(found.p95), _estimate(found.p99), number(found.most)]
        table.add_row(measure.name, str(found.samples), *cells, measure.unit, measure.note)
    return table


def _comparisons(result: harness.Result) -> Table:
    table = Table(box=None, pad_edge=True, header_style="dim")
    for heading in ("paired", "difference of medians", "ratio", "of", "against"):
        table.add_column(heading)
    for pair in result.comparisons:
        difference = f"{_estimate(pair.difference)} {pair.unit}"
        table.add_row(pair.name, difference, number(pair.ratio), pair.ours, pair.baseline)
    return table


def _verdict(verdict: harness.Verdict, *, quick: bool) -> Text:
    target = verdict.target
    found = "not measured" if verdict.estimate is None else f"{_estimate(verdict.estimate)} {target.unit}"
    judged = ("  met     ", "green") if verdict.met else ("  MISSED  ", "bold red")
    mark = ("  (quick) ", "dim") if quick else judged
    limit = f"{target.statistic} of {target.measure} < {number(target.below)} {target.unit}"
    return Text.assemble(mark, f"{target.says}: {found} ({limit})")


def _warnings(result: harness.Result) -> Iterator[str]:
    if result.quick:
        yield "A quick run: small sizes, to see that it works. Not to be cited."
    if not result.conditions.quiet:
        yield f"The machine was not quiet: {result.conditions.busy_share:.0%} of it was busy before this scenario."


def _estimate(estimate: stats.Estimate | None) -> str:
    if estimate is None:
        return "-"
    if estimate.low == estimate.high:
        return number(estimate.value)
    return f"{number(estimate.value)} [{number(estimate.low)}, {number(estimate.high)}]"


def number(value: float) -> str:
    """Three digits that mean something."""
    if value == 0 or not abs(value) < 1e15:
        return f"{value:g}"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


if __name__ == "__main__":
    console = Console()
    for file in sorted(harness.RESULTS.glob("*.json")):
        console.print(view(harness.read(file)))
