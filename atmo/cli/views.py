"""Pure renderables: from the node's JSON to what a person sees. No IO; `python -m atmo.cli.views` shows them all."""

from __future__ import annotations

import time
from typing import Any

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.text import Text

from atmo.cli.output import table

Json = dict[str, Any]

_HEALTH = {"self": "cyan", "linked": "green", "known": "green", "lost": "yellow", "suspect": "yellow", "dead": "red"}
LABELS_SHOWN = 5
_STATES = {"ready": "green", "loading": "yellow", "down": "yellow", "failed": "red"}


def started(status: Json, *, first: bool = False) -> RenderableType:
    """What `atmo node start` says: the node is up, what it serves, what to do next. first: of all in this home."""
    node = status["node"]
    place, _, _ = node["address"].partition("/p2p/")  # the whole address is for other machines: atmo node status
    lines: list[RenderableType] = []
    if first:
        lines.append(Text(f"Welcome. This is a mesh of your own; its keys are in {node['home']}.", "dim"))
    lines.append(Text.from_markup(f"[bold green]●[/] [bold]{escape(node['name'])}[/] is up  [dim]{escape(place)}[/]"))
    if node["api"]:
        lines.append(Text(f"  API     {node['api']}  {node['api_note']}".rstrip()))
    lines += [_served(entry) for entry in status["capabilities"]]
    lines += [Text.from_markup(f"  [yellow]![/] {escape(problem)}") for problem in status["problems"]]
    lines.append(Text('  Next: atmo ask "What is Atmosphere?" | atmo chat | atmo mesh watch', "dim"))
    return Group(*lines)


def status(report: Json) -> RenderableType:
    node = report["node"]
    facts = table("", "")
    facts.show_header = False
    for name, value in (
        ("node", f"{node['name']} (process {node['pid']}, up {duration(node['uptime_s'])})"),
        ("peer id", node["peer"]),
        ("address", node["address"]),
        ("api", " ".join(filter(None, (node["api"] or "on the Unix socket only", node["api_note"])))),
        ("mesh", node["mesh"]),
        ("mode", node["mode"]),
        ("labels", " ".join(f"{k}={v}" for k, v in node["labels"].items()) or "-"),
        ("peers", str(report["peers"])),
        ("memory", f"{report['rss_bytes'] / 1e6:.0f} MB, with workers {report['total_rss_bytes'] / 1e6:.0f} MB"),
        ("log", node["log"]),
    ):
        facts.add_row(Text(name, style="dim"), Text(value, overflow="fold"))
    served = [_served(entry) for entry in report["capabilities"]]
    problems = [Text.from_markup(f"[yellow]![/] {escape(problem)}") for problem in report["problems"]]
    return Group(facts, *served, *problems)


def _served(entry: Json) -> Text:
    colour = _STATES.get(entry["state"], "white")
    line = Text.from_markup(
        f"  [{colour}]{entry['state']:<7}[/] {escape(entry['id'])}  [dim]{escape(entry['model'])}[/]"
    )
    if entry.get("detail"):
        line.append(f"\n          {entry['detail']} {entry.get('hint', '')}".rstrip(), style="yellow")
    return line


def plan(event: Json) -> RenderableType:
    """Which model would come, from whom, where to, how large, how long."""
    sources = ", ".join(escape(source["name"]) for source in event["sources"]) or "this machine"
    moves = f"{size(event['moves_bytes'])} from {sources}" if event["moves_bytes"] else "on disk there already"
    memory = f"memory {size(event['needs_bytes'])} of {size(event['free_bytes'])} free"
    if event["needs_gpu_bytes"]:
        memory += f", GPU memory {size(event['needs_gpu_bytes'])} of {size(event['free_gpu_bytes'])} free"
    why = "Nothing inside the boundary can serve this, but a model can come to the data:"
    if because := event.get("because"):
        why = f"{escape(because)}\nAnother one comes instead:"
    return Text.from_markup(
        f"{why}\n"
        f"  [bold]{escape(event['model'])}[/] {escape(event['quantisation'])} "
        f"to [bold]{escape(event['to']['name'])}[/]: {moves}, about {duration(event['expected_s'])}\n"
        f"  [dim]{escape(event['description'][:200])}[/]\n"
        f"  [dim]{memory}, context {event['context']} tokens, "
        f"relevance {event['relevance']:.2f}[/]"
    )


def transfer_speed(event: Json) -> str:
    """Speed and sources of a transfer."""
    speed = f"{size(event['bytes_per_s'])}/s" if event["bytes_per_s"] else ""
    count = len(event["sources"])
    return " ".join(filter(None, (speed, f"from {count} source{'s' if count != 1 else ''}" if count else "")))


def size(count: float) -> str:
    """Bytes for people."""
    for unit, least in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= least:
            return f"{count / least:.2f} {unit}" if unit == "GB" else f"{count / least:.0f} {unit}"
    return f"{count:.0f} bytes"


def receipt_line(event: Json) -> RenderableType:
    return Text.from_markup(
        f"[dim]receipt {event['id'][:12]}: signed by this node; check it: atmo receipt verify {event['id'][:12]}[/]"
    )


def receipts(found: list[Json]) -> RenderableType:
    view = table("RECEIPT", "WHEN", "NODE", "ANSWERED BY", "MODEL", "CAME|right", "GENUINE")
    for each in found:
        moved = each.get("transfer") or {}
        view.add_row(
            each["id"][:12],
            time.strftime("%Y-%m-%d %H:%M", time.localtime(each["done_at_s"])),
            each["node"]["name"],
            each["answered_by"]["name"],
            each["model"]["name"],
            size(moved["bytes_in"]) if moved.get("bytes_in") else "-",
            Text("yes", style="green") if each["genuine"] else Text("NO", style="bold red"),
        )
    return view


def receipt(says: Json) -> RenderableType:
    facts = table("", "")
    facts.show_header = False
    rule, moved = says["rule"], says.get("transfer")
    homes = " or ".join(rule["data_residency"])
    out = ", ".join(f"{each['name']} {size(each['bytes'])}" for each in says["request_bytes_out"])
    rows = [
        ("receipt", says["id"]),
        ("signed by", f"{says['node']['name']} {says['signer']}"),
        ("mesh", says["mesh"]),
        ("rule", f"data_residency {homes}" if homes else "local_only" if rule["local_only"] else "none"),
        ("answered by", f"{says['answered_by']['name']} {says['answered_by']['peer']}"),
        ("model", says["model"]["name"]),
        ("its root", says["model"]["root"]),
        ("text sent to", out or "no other node"),
    ]
    if moved:
        sources = ", ".join(f"{each['name']} {size(each['bytes'])}" for each in moved["sources"])
        took_s = max(0.0, moved["ended_at_s"] - moved["began_at_s"])
        came = f"{size(moved['bytes_in'])}{f' from {sources}' if sources else ''} in {duration(took_s)}"
        rows.append(("model came", came if moved["bytes_in"] else "was on disk"))
    for name, value in rows:
        facts.add_row(Text(name, style="dim"), Text(value, overflow="fold"))
    return facts


def verified(says: Json) -> RenderableType:
    """named: the mesh was, by whoever verifies."""
    whose = "your mesh" if says["own_mesh"] else f"mesh {says['mesh']}"
    head = Text.assemble(
        ("✓ ", "bold green"),
        f"Signed by {says['node']['name']}, member of {whose}, and unchanged since.",
        overflow="fold",
    )
    notes = []
    if says["revoked_at_s"] is not None:
        notes.append(f"The mesh took that member back on {day(says['revoked_at_s'])}.")
    if not says["own_mesh"] and not says["named"]:
        notes.append("That is not the mesh of this home. Is it the one you mean? Say so: --mesh ID")
    return Group(head, *[Text.from_markup(f"[yellow]![/] {note}") for note in notes], receipt(says))


def mesh(report: Json) -> RenderableType:
    """All nodes with what they offer, one line for each capability. Labels only where some node has any."""
    nodes = report["nodes"]
    labelled = any(node["labels"] for node in nodes)
    heads = ["NODE", "STATE", "OFFERS", "BUSY|right", "TOKENS/S|right", "RTT|right"]
    view = table(*heads, *(["LABELS"] if labelled else []))
    for node in sorted(nodes, key=lambda n: (not n["self"], n["name"])):
        name, state, rtt, labels = _node_cells(node)
        for index, offer in enumerate(node["capabilities"] or [None]):
            first = index == 0
            cells = [name if first else "", state if first else "", *_offer_cells(offer), rtt if first else ""]
            view.add_row(*cells, *([labels if first else ""] if labelled else []))
    for node in report.get("dead", ()):
        dashes = [Text("-", style="dim")] * (5 if labelled else 4)
        view.add_row(Text(node["name"], style="dim"), Text("dead", style=_HEALTH["dead"]), *dashes)
    count = f"{len(nodes)} node{'s' if len(nodes) != 1 else ''}"
    offers = sum(len(node["capabilities"]) for node in nodes)
    offered = f"{offers} capabilit{'ies' if offers != 1 else 'y'}"
    foot = Text(f"{count}, {offered}, mesh {report['mesh'][-8:]}", style="dim")
    problems = [Text.from_markup(f"[yellow]![/] {escape(problem)}") for problem in report["problems"]]
    alone = [Text(report["alone"], style="dim")] if report["alone"] else []
    return Group(view, Text(), foot, *alone, *problems)


def _node_cells(node: Json) -> tuple[Text, Text, Text, Text]:
    state = "this node" if node["self"] else node["state"]
    rtt = f"{node['rtt_ms']:.1f} ms" if node["rtt_ms"] is not None else "-"
    labels = " ".join(f"{k}={v}" for k, v in node["labels"].items()) or "-"
    return Text(node["name"], style="bold"), Text(state, style=_HEALTH[node["state"]]), Text(rtt), Text(labels)


def _offer_cells(offer: Json | None) -> tuple[Text, Text, Text]:
    if offer is None:
        return Text("nothing", style="dim"), Text("-"), Text("-")
    name = Text(offer["id"].removeprefix("atmo:"), style="" if offer["ready"] else "yellow")
    if not offer["ready"]:
        name.append(" (not ready)")
    waiting = f"+{offer['queued']}" if offer["queued"] else ""
    speed = f"{offer['decode_tps']:.0f}" if offer["decode_tps"] else "-"
    return name, Text(f"{offer['in_flight']}/{offer['slots']}{waiting}"), Text(speed)


def members(report: Json) -> RenderableType:
    """Members that this node met, and the invites made here."""
    view = table("MEMBER", "STATE", "UNTIL", "BY INVITE", "PEER")
    for member in sorted(report["members"], key=lambda m: (m["revoked"], m["name"])):
        state, colour = (
            ("revoked", "red") if member["revoked"] else ("linked", "green") if member["linked"] else ("-", "")
        )
        view.add_row(
            Text(member["name"] or "?", style="bold"),
            Text(state, style=colour),
            day(member["until_s"]),
            member["invite"][-8:] or "owner",
            Text(member["id"][-8:], style="dim"),
        )
    parts: list[RenderableType] = [view]
    if report["invites"]:
        invites = table("INVITE", "STATE", "UNTIL", "USED|right")
        for invite in report["invites"]:
            state = "revoked" if invite["revoked"] else "open"
            invites.add_row(invite["id"][-8:], state, day(invite["until_s"]), f"{invite['used']} of {invite['uses']}")
        parts += [Text(), invites]
    return Group(*parts)


def keys(listed: list[Json]) -> RenderableType:
    """API keys, the good ones first."""
    view = table("KEY", "NAME", "STATE", "MADE", "A MINUTE|right", "AT ONCE|right", "MODELS")
    for key in sorted(listed, key=lambda key: (key["revoked_s"] is not None, key["created_s"])):
        good = key["revoked_s"] is None
        view.add_row(
            key["id"],
            Text(key["name"] or "-"),
            Text("good" if good else "revoked", style="green" if good else "red"),
            day(key["created_s"]),
            str(key["per_minute"] or "-"),
            str(key["at_once"] or "-"),
            Text(", ".join(key["models"]) or "all"),
        )
    return view


def settings(found: list[Json], file: str, *, every: bool) -> RenderableType:
    """Settings with their source, then what is as it comes."""
    view = table("SETTING", "VALUE", "FROM")
    for setting in found:
        default = setting["source"] == "default"
        source = "file" if setting["source"] == file else setting["source"]
        view.add_row(
            Text(setting["name"]),
            Text(setting_value(setting["value"]), overflow="fold"),
            Text(source, style="dim" if default else "cyan"),
        )
    more = [] if every else [Text("Everything else is as it comes: atmo config --all", style="dim")]
    parts: list[RenderableType] = [view, Text()] if found else []
    return Group(*parts, Text(f"file  {file}", style="dim", overflow="fold"), *more)


def setting_value(value: Any) -> str:
    """As it would be given to `atmo config set`; tables as they stand in JSON."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return ", ".join(f"{key}={each}" for key, each in value.items()) or "-"
    if isinstance(value, list):
        said = (
            each.get("model") or each.get("url") or each.get("kind", "") if isinstance(each, dict) else str(each)
            for each in value
        )
        return ", ".join(said) or "-"
    return str(value) if value != "" else "-"


def day(at_s: float) -> str:
    """Seconds since 1970 as a local date and time."""
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(at_s))


def decision(report: Json) -> RenderableType:
    """Why a request goes where it goes: the words, then what speaks against every other offer."""
    head, *rest = report["lines"]
    parts: list[RenderableType] = [Text(head, style="bold")]
    parts += [Text(f"  {line}", style="dim") for line in rest]
    others = [offer for offer in report.get("survey", {}).get("offers", []) if offer["reasons"]]
    if others:
        view = table("OTHER OFFERS", "NODE", "OUT OF THE QUESTION BECAUSE IT")
        for offer in others:
            view.add_row(offer["capability"].removeprefix("atmo:"), offer["node"], "; ".join(offer["reasons"]))
        parts += [Text(), view]
    return Group(*parts)


def result(event: Json) -> RenderableType:
    """A vector or labels, short enough to read."""
    if event["event"] == "labels":
        best, rest = event["labels"][:LABELS_SHOWN], len(event["labels"]) - LABELS_SHOWN
        width = max(len(label) for label, _ in best) if best else 0
        lines = [f"{label:<{width}} {share:6.1%}" for label, share in best]
        return Text("\n".join([*lines, *([f"and {rest} more; all with --json"] if rest > 0 else [])]))
    vector = event["vector"]
    return Text(f"[{', '.join(f'{value:.4f}' for value in vector[:8])}, ...]  ({len(vector)} numbers; all with --json)")


def retried(event: Json) -> RenderableType:
    return Text(f"… {event['because']} Asking another node.", style="yellow")


def answered_by(event: Json) -> RenderableType:
    """The line under an answer: who, what, how fast."""
    parts = [event["node"], event["capability"].removeprefix("atmo:")]
    if event["output_tokens"]:
        parts.append(f"{event['output_tokens']} tokens")
    parts.append(f"first after {event['first_s'] * 1000:.0f} ms")
    if event["decode_s"] and event["output_tokens"] > 1:
        parts.append(f"{event['output_tokens'] / event['decode_s']:.0f} tokens/s")
    if event["finish"] == "length":
        parts.append("cut at its length limit")
    return Text("— " + " · ".join(parts), style="dim")


def duration(seconds: float) -> str:
    """90 -> `1m 30s`."""
    whole = int(seconds)
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if whole >= size:
            smaller = {"d": ("h", 3600), "h": ("m", 60), "m": ("s", 1)}[unit]
            return f"{whole // size}{unit} {whole % size // smaller[1]}{smaller[0]}"
    return f"{whole}s"


def count(number: int) -> str:
    """3_000_000 -> `3.0M`."""
    for unit, size in (("B", 1e9), ("M", 1e6), ("K", 1e3)):
        if number >= size:
            return f"{number / size:.1f}{unit}"
    return str(number) if number else "-"
