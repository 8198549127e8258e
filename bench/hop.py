"""What a hop costs until the first token: two nodes, one model, the same kind of question to both in turns."""

from __future__ import annotations

import time

import msgspec

from atmo.client import SyncClient
from atmo.errors import AtmoError
from bench import processes
from bench.harness import Context, Outcome, Pair, Series

MODEL = "atmo-nano"
LINK_LIMIT_S = 15.0
SERVING, ASKING = "serving", "asking"
DIRECT, HOP, AGAIN = "direct", "hop", "direct, again"


class Sizes(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """rounds: each asks over the hop once and directly twice."""

    rounds: int
    warm_up: int
    max_tokens: int


def run(context: Context) -> list[Outcome]:
    sizes = context.sizes(Sizes)
    world = processes.World(context.folder)
    bare = context.folder / "bare.toml"
    bare.write_text("serve = []\n")
    try:
        world.command("node", "start", "--name", SERVING, "--serve", MODEL)
        world.command("node", "start", "--name", ASKING, "--config", str(bare))
        clients = {DIRECT: world.client(SERVING), HOP: world.client(ASKING), AGAIN: world.client(SERVING)}
        processes.wait_until(lambda: _sees_model(clients[HOP]), LINK_LIMIT_S, f"{MODEL} of {SERVING} seen by {ASKING}")
        context.say("two nodes linked")
        return _measure(context, sizes, clients)
    finally:
        world.command("node", "stop", "--all")


def _sees_model(client: SyncClient) -> bool:
    offers = [offer for node in client.mesh()["nodes"] if node["linked"] for offer in node["capabilities"]]
    return any(offer["model"] == MODEL and offer["ready"] for offer in offers)


def _measure(context: Context, sizes: Sizes, clients: dict[str, SyncClient]) -> list[Outcome]:
    """No question is asked twice, so the engine's memory of prompts helps none of the ways more than another."""
    asked = len(clients) * (sizes.warm_up + sizes.rounds)
    sums = context.chance.sample([(a, b) for a in range(10, 100) for b in range(10, 100)], asked)
    taken_ms: dict[str, list[float]] = {way: [] for way in clients}
    for _ in range(sizes.warm_up + sizes.rounds):
        for way in context.chance.sample(list(clients), len(clients)):
            a, b = sums.pop()
            taken_ms[way].append(_first_token_ms(clients[way], f"What is {a}+{b}?", sizes.max_tokens))
    note = "at the API socket, client included"
    series = {way: Series(f"first token, {way}", "ms", taken[sizes.warm_up :], note) for way, taken in taken_ms.items()}
    return [
        Pair("hop against direct", series[HOP], series[DIRECT]),
        Pair("direct against itself", series[AGAIN], series[DIRECT]),
    ]


def _first_token_ms(client: SyncClient, text: str, max_tokens: int) -> float:
    begun_ns = time.perf_counter_ns()
    first_ns = 0
    served_by = ""
    for event in client.stream(text, model=MODEL, max_tokens=max_tokens).steps():
        if event["event"] == "text" and not first_ns:
            first_ns = time.perf_counter_ns()
        elif event["event"] == "done":
            served_by = event["node"]
    if served_by != SERVING or not first_ns:
        raise AtmoError(f"{text!r} was answered by {served_by or 'nobody'}, not by {SERVING}, or without text.")
    return (first_ns - begun_ns) / 1e6
