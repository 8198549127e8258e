"""`atmo mesh create | invite | join | leave | members | revoke`, `atmo node rotate`."""

from __future__ import annotations

import time

from atmo.cli import output, views
from atmo.client import SyncClient, running_nodes
from atmo.config import Config, load
from atmo.errors import ConfigError
from atmo.ids import format_peer
from atmo.keys import YEAR_S
from atmo.node import membership
from atmo.transport.hosts import is_loopback


def create(home: str | None, *, as_json: bool) -> None:
    config = _with_no_node_running(home)
    mesh = membership.create(config)
    if as_json:
        output.print_json({"mesh": format_peer(mesh)})
    else:
        output.console().print(f"This is a new mesh, {format_peer(mesh)}. Start a node: atmo node start")


def invite(home: str | None, *, uses: int, hours: float, days: float | None, qr: bool, as_json: bool) -> None:
    from atmo.invitation import write_token

    config = load({"home": home})
    addresses = [card.address for card in running_nodes(config) if card.address is not None]
    mesh = membership.open_mesh(config)
    token = mesh.invite(
        [str(address) for address in addresses],
        time.time(),
        int(hours * 3600),
        uses,
        YEAR_S if days is None else int(days * 86400),
        renewable=days is None,
    )
    text = write_token(token)
    warnings = _warnings([address.host for address in addresses])
    if as_json:
        output.print_json({"token": text, "until_s": token.terms.not_after_s, "uses": uses, "warnings": warnings})
        return
    output.console().print(text, soft_wrap=True)
    if qr:
        output.console().print(_qr(text))
    until = views.day(token.terms.not_after_s)
    output.aside().print(
        f"\nOn the other machine:  atmo mesh join TOKEN   ({uses} to join, until {until})", style="dim"
    )
    for warning in warnings:
        output.aside().print(f"[yellow]![/] {warning}")


def _warnings(hosts: list[str]) -> list[str]:
    """What will keep the other machine from finding anybody."""
    if not hosts:
        return ["No node is running, so the token names nobody to dial. Start one first: atmo node start"]
    if all(is_loopback(host) for host in hosts):
        return [
            "Your nodes listen on this machine only. For others: atmo node stop --all; atmo node start --host 0.0.0.0"
        ]
    return []


def _qr(text: str) -> str:
    import io

    import segno

    out = io.StringIO()
    segno.make(text, error="l").terminal(out=out, compact=True)
    return out.getvalue()


def join(token: str, home: str | None, *, as_json: bool) -> None:
    config = _with_no_node_running(home)
    joined = membership.join(config, token, time.time())
    mesh = format_peer(joined.terms.mesh)
    if as_json:
        output.print_json({"mesh": mesh, "addresses": joined.addresses})
    else:
        output.console().print(f"Joined mesh {mesh[-8:]}. Start a node: atmo node start")


def leave(home: str | None, *, as_json: bool) -> None:
    config = _with_no_node_running(home)
    left = membership.leave(config)
    if as_json:
        output.print_json({"left": left})
    else:
        output.console().print("Back in your own mesh." if left else "You were in your own mesh already.")


def members(node: str, *, as_json: bool) -> None:
    report = SyncClient(node=node).members()
    if as_json:
        output.print_json(report)
    else:
        output.console().print(views.members(output.harmless(report)))


def revoke(whom: str, node: str, *, as_json: bool) -> None:
    report = SyncClient(node=node).revoke(whom)
    if as_json:
        output.print_json(report)
    else:
        output.console().print(f"Revoked the {report['kind']} {report['revoked'][-8:]}; the mesh is being told.")


def rotate(name: str | None, home: str | None, *, as_json: bool) -> None:
    from atmo.node.home import rotate as new_keys

    config = load({"node.name": name, "home": home})
    old, new, revoked = new_keys(config, time.time())
    if as_json:
        output.print_json({"old": format_peer(old), "new": format_peer(new), "revoked": revoked})
        return
    gone = format_peer(old)[-8:]
    output.console().print(f"The node {config.node.name} is now {format_peer(new)}.")
    if revoked:
        output.console().print(f"The old key {gone} is revoked; the mesh is told when the node starts.")
    else:
        output.console().print(
            f"Ask the owner of the mesh to revoke the old key (atmo mesh revoke {gone}) and for a new "
            "token, and join with it: atmo mesh join TOKEN"
        )


def _with_no_node_running(home: str | None) -> Config:
    """A node that runs keeps the mesh it started with, which would surprise. Raises ConfigError."""
    config = load({"home": home})
    running = [card.name for card in running_nodes(config)]
    if running:
        raise ConfigError(f"Nodes are running: {', '.join(running)}.", hint="Stop them first: atmo node stop --all")
    return config
