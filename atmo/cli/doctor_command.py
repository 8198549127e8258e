"""`atmo doctor`: check everything a node needs, one line each, with what to do where something is missing."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from rich.text import Text

from atmo.cli import output
from atmo.cli.doctor.finding import Finding, failed, ok
from atmo.config import load
from atmo.errors import AtmoError

_MARKS = {"ok": ("✓", "green"), "note": ("!", "yellow"), "bad": ("✗", "red")}


def doctor(home: str | None, config_file: str | None, *, as_json: bool) -> None:
    """Exit code 0 if nothing is bad, 1 otherwise."""
    findings = []
    for finding in _examine(home, config_file):
        findings.append(finding)
        if not as_json:
            _show(finding)
    bad = sum(finding.state == "bad" for finding in findings)
    if as_json:
        output.print_json({"healthy": not bad, "findings": [asdict(finding) for finding in findings]})
    else:
        output.console().print("Everything is in order." if not bad else f"{bad} to be mended.", style="bold")
    raise SystemExit(1 if bad else 0)


def _show(finding: Finding) -> None:
    """The remedy on a line of its own: one reads it, and copies commands out of it."""
    mark, colour = _MARKS[finding.state]
    console = output.console()
    console.print(Text(mark, style=colour), Text(output.harmless(finding.what)), soft_wrap=True)
    if finding.remedy:
        console.print(
            Text(f"  {output.harmless(finding.remedy)}", style="bold" if finding.state == "bad" else "dim"),
            soft_wrap=True,
        )


def _examine(home: str | None, config_file: str | None) -> Iterator[Finding]:
    yield ok("python", f"Python {sys.version.split()[0]}")
    try:
        config = load({"home": home}, file=Path(config_file) if config_file else None)
    except AtmoError as error:
        yield failed("config", error)
        return
    yield ok("config", "The configuration is valid.")
    from atmo.cli.doctor import engines, membership, nodes, places

    for room in (places, membership, engines, nodes):
        try:
            yield from room.examine(config)
        except (AtmoError, OSError) as error:  # what keeps one part from being looked at is a finding, too
            told = error if isinstance(error, AtmoError) else AtmoError(f"{error}.", hint="See above.")
            yield failed(room.__name__.rpartition(".")[2], told)
