"""Pure renderables of what the commands on models report."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, TypeAlias

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.text import Text

from atmo.cli.output import table
from atmo.cli.views import count, day, duration

Json = dict[str, Any]
View: TypeAlias = Callable[[Json], RenderableType]


def size(number: float) -> str:
    """In the units of makers of disks, as quotas are: 4_700_000_000 -> `4.7 GB`."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if number >= scale:
            return f"{number / scale:.1f} {unit}"
    return f"{number:.0f} bytes"


def models(report: Json) -> RenderableType:
    here = table("MODEL", "TYPE", "SIZE|right", "CONTEXT|right", "PARAMETERS|right", "WHERE")
    for model in report["local"]:
        here.add_row(
            Text(model["name"], style="bold"),
            model["type"],
            size(model["size_bytes"]),
            str(model["context"] or "-"),
            count(model["parameters"]),
            Text(_where(model), overflow="fold"),
        )
    parts: list[RenderableType] = [here]
    if report["partial"]:
        begun = table("ON ITS WAY", "SIZE|right", "HERE|right")
        for model in report["partial"]:
            total, done = model["size_bytes"], model["done_bytes"]
            begun.add_row(
                Text(model["name"]), size(total) if total else "-", f"{done / total:.0%}" if total else size(done)
            )
        parts += [Text(), begun]
    if report["served"]:
        there = table("SERVED AS", "MODEL", "BY")
        for entry in report["served"]:
            there.add_row(entry["id"], entry["model"], ", ".join(entry["nodes"]))
        parts += [Text(), there]
    parts += [Text.from_markup(f"[yellow]![/] {escape(problem)}") for problem in report["problems"]]
    return Group(*parts)


def taken(report: Json) -> RenderableType:
    model = report["model"]
    head = "is in the store" if report["new"] else "was in the store already"
    return Group(_headline(model, head), *_next(model))


def pulled(report: Json) -> RenderableType:
    model = report["model"]
    notes = [Text.from_markup(f"[yellow]![/] {escape(note)}") for note in report["notes"]]
    if not report["new"]:
        return Group(*notes, _headline(model, "was here already"), *_next(model))
    how = f"came from {_SOURCES.get(report['from'], report['from'])}"
    if report["fetched_bytes"] and report["seconds"] > 0:
        speed = size(report["fetched_bytes"] / report["seconds"])
        how += f": {size(report['fetched_bytes'])} in {_seconds(report['seconds'])}, {speed}/s"
    return Group(*notes, _headline(model, how), *_next(model))


def inspected(report: Json) -> RenderableType:
    kept, model = report["stored"], report["model"]
    facts = table("", "")
    facts.show_header = False
    for name, value in ((*_of_model(model),) if model else ()) + ((*_of_stored(kept),) if kept else ()):
        if value:
            facts.add_row(Text(name, style="dim"), Text(value, overflow="fold"))
    if kept is None or len(kept["files"]) == 1:
        return facts
    listed = table("FILE", "SIZE|right")
    for file in kept["files"]:
        listed.add_row(Text(file["path"]), size(file["size_bytes"]))
    return Group(facts, Text(), listed)


def removed(report: Json) -> RenderableType:
    return Group(*[Text(f"Removed {model['name']} ({size(model['done_bytes'])}).") for model in report["removed"]])


def collected(report: Json) -> RenderableType:
    verb = "Would remove" if report["dry_run"] else "Removed"
    lines = [
        Text(f"{verb} {model['name']} ({size(model['done_bytes'])}, unused for {_ago(model['used_s'])}).")
        for model in report["removed"]
    ]
    quota = f" of {size(report['quota_bytes'])}" if report["quota_bytes"] else ", and there is no quota"
    lines.append(Text(f"{size(report['freed_bytes'])} freed; the store takes {size(report['used_bytes'])}{quota}."))
    if not report["fits"]:
        lines.append(Text("! That is above the quota: what is left is pinned or in use.", style="yellow"))
    return Group(*lines)


def verified(report: Json) -> RenderableType:
    view = table("MODEL", "SIZE|right", "STATE")
    for model in report["verified"]:
        bad = model["bad"]
        state = Text(f"damaged: {', '.join(bad)}", style="red") if bad else Text("right", style="green")
        view.add_row(Text(model["name"], style="bold"), size(model["size_bytes"]), state)
    if any(model["bad"] for model in report["verified"]):
        return Group(view, Text("Remove what is damaged and fetch it again: atmo models rm NAME", style="dim"))
    return view if report["verified"] else Text("The store holds no models.")


def shared(report: Json) -> RenderableType:
    model = report["model"]
    if not model["shared"]:
        return Text(f"{model['name']} is given away no more.")
    only = " and ".join(f"{key}={value}" for key, value in model["only"].items())
    return Text(
        f"{model['name']} is given to {f'nodes with {only}' if only else 'every member of the mesh'} that asks."
    )


def pinned(report: Json) -> RenderableType:
    model = report["model"]
    return Text(f"{model['name']} {'stays, whatever the quota says' if model['pinned'] else 'may go to make room'}.")


def where(report: Json) -> RenderableType:
    view = table("WHERE", "MODEL", "SIZE|right", "HAS|right")
    for model in report["here"]:
        share = model["done_bytes"] / model["size_bytes"] if model["size_bytes"] else 1.0
        flags = "this machine, shared" if model["shared"] else "this machine"
        view.add_row(flags, Text(model["name"]), size(model["size_bytes"]), f"{share:.0%}")
    for seed in report["seeds"]:
        has = "all" if seed["complete"] else "a part"
        view.add_row(Text(seed["node"], style="bold"), Text(seed["model"]), size(seed["size_bytes"]), has)
    loose = report["loose"]
    if loose is None:
        return view
    if loose["embedded"]:
        return Text(f"{loose['name']} comes with Atmosphere: every node has it.")
    return Text(f"{loose['path']} is no part of the store. Give it away: atmo models share {_quoted(report['model'])}")


_SOURCES = {"peers": "peers", "hub": "the hub", "url": "its server", "file": "this machine"}


def _where(model: Json) -> str:
    if model["embedded"]:
        return "comes with atmo"
    if not model["root"]:
        return str(model["path"])
    flags = [flag for flag in ("pinned", "shared") if model[flag]]
    return ", ".join(["store", *flags]) + f" {model['root'][:12]}"


def _headline(model: Json, what: str) -> Text:
    line = Text.assemble((model["name"], "bold"), f" {what}  ")
    return line.append(f"{size(model['size_bytes'])}  {model['root'][:12]}", style="dim")


def _next(model: Json) -> list[RenderableType]:
    lines = [f"  Serve it:  atmo node start --serve {_quoted(model['name'])}"]
    if not model["shared"]:
        lines.append(f"  Let peers fetch it:  atmo models share {_quoted(model['name'])}")
    return [Text(line, style="dim") for line in lines]


def _quoted(name: str) -> str:
    return f'"{name}"' if " " in name else name


def _of_model(model: Json) -> tuple[tuple[str, str], ...]:
    return (
        ("name", model["name"]),
        ("type", model["type"]),
        ("says", model["description"]),
        ("architecture", model["architecture"]),
        ("quantisation", model["quantisation"]),
        ("parameters", count(model["parameters"]) if model["parameters"] else ""),
        ("context", f"{model['context']} tokens" if model["context"] else ""),
        ("licence", model["licence"]),
        ("size", size(model["size_bytes"])),
        ("path", model["path"]),
    )


def _of_stored(kept: Json) -> tuple[tuple[str, str], ...]:
    only = " ".join(f"{key}={value}" for key, value in kept["only"].items())
    return (
        ("stored as", kept["name"]),
        ("root", kept["root"]),
        ("in all", f"{size(kept['size_bytes'])} in {len(kept['files'])} files" if len(kept["files"]) > 1 else ""),
        ("from", kept["source"]),
        ("came", day(kept["added_s"])),
        ("last used", f"{_ago(kept['used_s'])} ago"),
        ("pinned", "yes" if kept["pinned"] else "no"),
        ("shared", ("with nodes that have " + only if only else "yes") if kept["shared"] else "no"),
    )


def _ago(at_s: float) -> str:
    return duration(max(0.0, time.time() - at_s))


def _seconds(number: float) -> str:
    return f"{number:.1f} s" if number < 60 else duration(number)
