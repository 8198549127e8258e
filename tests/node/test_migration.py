"""The model comes to the data: real nodes, in homes of their own, of which one may not give anything away."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from atmo.client import SyncClient
from atmo.config import Config, DiscoverySection, NodeSection, load
from atmo.errors import EngineUnavailable, NoRoute
from atmo.gateway.handle import AskRequest
from atmo.ids import PeerId
from atmo.mesh.messages import Bring, Brought
from atmo.models.store import Store
from atmo.node import migration
from atmo.node.migration import Migration
from atmo.node.node import Node
from tests.cluster import atmo, eventually
from tests.inference.gguf_maker import png, write_eye, write_parrot
from tests.node.sites import NOTHING, Site, events_of, nano, of_kind, start_both, two_sites
from tests.node.swarm_support import until

CANARY = "Hello! Who are you? zanzibar-4711"


@pytest.fixture
def sites(environ: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Site, Site]]:
    with two_sites(Path(environ["ATMO_HOME"]).parent, monkeypatch) as both:
        yield both


def refusal(client: SyncClient, **wishes: object) -> NoRoute:
    with pytest.raises(NoRoute) as caught:
        events_of(client, "Hello", private=True, **wishes)
    return caught.value


def plan_for(client: SyncClient, root: str) -> dict[str, object] | None:
    """The plan, once the model is known to be had."""
    try:
        plans = of_kind(events_of(client, "Hello", private=True, migrate="ask"), "plan")
    except NoRoute:
        return None
    return next((plan for plan in plans if plan["root"] == root), None)


def test_a_private_question_makes_the_model_come_and_the_receipt_verifies(
    sites: tuple[Site, Site], monkeypatch: pytest.MonkeyPatch
) -> None:
    office, hospital = sites
    asker, ward = start_both(sites, monkeypatch)
    nobody = refusal(ward, migrate="yes")
    assert "no peer gives away" in nobody.message
    assert "atmo models share" in nobody.hint

    root = office.has_model("clinic-chat", nano())
    eventually(lambda: plan_for(ward, root), "there is a plan")
    with hospital.here(monkeypatch):
        told = atmo("ask", "--private", "Hello")
    assert (told.code, "clinic-chat" in told.err, "Nothing was fetched" in told.err) == (2, True, True)
    assert ward.transfers() == []

    events = events_of(ward, CANARY, private=True, migrate="yes")

    (plan,) = of_kind(events, "plan")
    assert (plan["model"], plan["root"], plan["to"]["name"], plan["agreed"]) == ("clinic-chat", root, "ward", True)
    assert of_kind(events, "transfer")[-1]["bytes_done"] == nano().stat().st_size
    (done,) = of_kind(events, "done")
    assert done["local"]
    assert "".join(event["text"] for event in of_kind(events, "text")).strip()
    assert hospital.store.get(bytes.fromhex(root)).path.read_bytes() == nano().read_bytes()
    (transfer,) = ward.transfers()
    assert (transfer["direction"], transfer["state"], transfer["sources"][0]["name"]) == ("in", "done", "office")
    assert eventually(lambda: asker.transfers(), "the origin shows what it gave")[0]["direction"] == "out"

    (receipt,) = of_kind(events, "receipt")
    says = receipt["receipt"]
    assert says["transfer"]["bytes_in"] == nano().stat().st_size
    assert says["request_bytes_out"] == []
    assert says["model"]["root"] == root
    assert CANARY not in json.dumps(says)
    with hospital.here(monkeypatch):
        verified = atmo("receipt", "verify", receipt["id"][:10])
        assert (verified.code, "Signed by ward, member of your mesh" in verified.out) == (0, True)
        listed = atmo("receipt", "list", "--json").json["receipts"]
        assert [(each["id"], each["genuine"]) for each in listed] == [(receipt["id"], True)]
    elsewhere = str(hospital.folder / "auditor")
    judged = atmo("receipt", "verify", receipt["file"], "--mesh", says["mesh"], ATMO_HOME=elsewhere)
    assert (judged.code, f"member of mesh {says['mesh']}" in judged.out, "!" in judged.out) == (0, True, False)
    with hospital.here(monkeypatch):
        forged = Path(receipt["file"])
        forged.write_text(forged.read_text().replace("ward", "bath", 1))
        refused = atmo("receipt", "verify", receipt["id"])
        assert (refused.code, "does not verify" in refused.err) == (2, True)

    again = events_of(ward, "What is 2+2?", private=True, migrate="ask")
    assert not of_kind(again, "plan"), "what came is served on"
    assert of_kind(again, "done")[0]["local"]
    with hospital.here(monkeypatch) as cluster:
        cluster.stop_all()
        reborn = cluster.start("ward", NOTHING, "--label", "residency=hospital")
        (served,) = reborn.status()["capabilities"]
        assert served["id"] == of_kind(again, "done")[0]["capability"], "by the next life of the node, too"
    assert of_kind(events_of(reborn, "What is 2+2?", private=True, migrate="no"), "done")[0]["local"]


def test_the_data_may_be_at_another_node_and_then_that_one_fetches(
    sites: tuple[Site, Site], monkeypatch: pytest.MonkeyPatch
) -> None:
    office, hospital = sites
    office.has_model("bank-chat", nano(), residency="bank")
    asker, ward = start_both(sites, monkeypatch, ward=NOTHING + "[models]\nkeep_migrated = false\n")
    eventually(
        lambda: "for nodes with residency=bank only" in refusal(ward, migrate="yes").message,
        "a private model stays away",
    )

    (model,) = office.store.models()
    office.store.mark(model.root, only={})
    root = model.root.hex()
    eventually(lambda: plan_for(ward, root), "there is a plan")
    alone = events_of(ward, "Hello", private=True, migrate="yes")
    assert of_kind(alone, "receipt")
    eventually(lambda: not hospital.store.has(model.root), "what came for one request went after it")

    with hospital.here(monkeypatch):
        pulled = atmo("models", "pull", "bank-chat", "--json").json
        assert (pulled["from"], pulled["new"], pulled["model"]["root"]) == ("peers", True, root)
        assert [each["node"] for each in atmo("models", "where", root, "--json").json["seeds"]] != []
        assert atmo("models", "rm", "bank-chat").code == 0

    events = events_of(asker, CANARY, constraints={"data_residency": ["hospital"]}, migrate="yes")

    assert of_kind(events, "plan")[0]["to"]["name"] == "ward"
    (done,) = of_kind(events, "done")
    assert (done["node"], done["local"]) == ("ward", False)
    says = of_kind(events, "receipt")[0]["receipt"]
    assert [each["name"] for each in says["request_bytes_out"]] == ["ward"]
    (source,) = says["transfer"]["sources"]
    assert (source["name"], source["bytes"]) == ("office", nano().stat().st_size), "as the ward told"
    assert says["transfer"]["to"]["name"] == "ward"
    assert hospital.store.has(model.root)


@pytest.mark.asyncio
async def test_while_a_model_is_loaded_elsewhere_its_node_says_so_again_and_again(
    environ: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Large ones take minutes, and a node that is silent is not waited for that long."""
    assert 10 * migration.SIGN_S < migration.SILENCE_S
    monkeypatch.setattr(migration, "SIGN_S", 0.01)
    base = load(environ=environ)
    store = Store(base.model_store)
    store.mark(store.import_(nano(), "clinic-chat", copy=True).root, shared=True)
    off = DiscoverySection(lan=False, runtimes=False)
    homes: list[tuple[str, dict[str, str]]] = [("office", {}), ("ward", {"residency": "hospital"})]
    office, ward = (
        Node(
            Config(
                home=base.home,
                runtime=base.runtime,
                node=NodeSection(name=name, labels=labels),
                discovery=off,
                serve=(),
            )
        )
        for name, labels in homes
    )
    load_it, hear_it = Migration._load, Migration._heard
    loaded, signs = asyncio.Event(), list[str]()

    async def slowly(self: Migration, root: bytes) -> str:
        await loaded.wait()
        return await load_it(self, root)

    def hear(self: Migration, peer: PeerId, told: Bring | Brought) -> None:
        signs.append(told.state if isinstance(told, Brought) else "")
        hear_it(self, peer, told)

    monkeypatch.setattr(Migration, "_load", slowly)
    monkeypatch.setattr(Migration, "_heard", hear)
    try:
        for node in (office, ward):
            await node.start()
        await until(lambda: ward.mesh.peer in [peer for peer, _, _ in office.mesh.seeds()], "the model is known")
        wish = AskRequest(text="Hello", constraints={"data_residency": ["hospital"]}, migrate="yes")
        asked = asyncio.create_task(_events(office, wish))
        await until(lambda: signs.count("loading") > 5 or asked.done(), "it says so")
        loaded.set()
        events = await asked
    finally:
        await asyncio.gather(office.stop(), ward.stop())
    assert len(of_kind(events, "loading")) == 1, "people are told once"
    assert of_kind(events, "done")[0]["node"] == "ward"


async def _events(node: Node, wish: AskRequest) -> list[dict[str, object]]:
    return [event async for event in node.ask(wish)]


def test_a_model_that_does_not_load_gives_way_to_the_next_and_one_that_sees_comes_with_its_eye(
    sites: tuple[Site, Site], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    office, hospital = sites
    for name, blocks in (("broken", 9), ("parrot", 1)):  # the larger one is taken for the stronger, and comes first
        folder = tmp_path / name
        folder.mkdir()
        model = write_parrot(folder / f"{name}.gguf", sees=True, blocks=blocks)
        write_eye(folder / "mmproj-f32.gguf")
        if name == "broken":
            model.write_bytes(model.read_bytes().replace(b"tokenizer.ggml.model", b"tokenizer.ggml.mudel"))
    roots = {name: office.has_model(name, tmp_path / name) for name in ("broken", "parrot")}
    office.has_model("blind", nano())
    _, ward = start_both(sites, monkeypatch, ward=NOTHING + "[models]\nkeep_migrated = false\n")
    eventually(lambda: len(ward.models()["seeds"]) == 3, "all three could come")

    picture = "data:image/png;base64," + base64.b64encode(png((255, 0, 0))).decode()
    wishes: dict[str, object] = {"private": True, "migrate": "yes", "images": [picture], "max_tokens": 3}
    events = events_of(ward, "Which colour?", **wishes)

    first, second = of_kind(events, "plan")
    assert (first["model"], second["model"], first.get("because")) == ("broken", "parrot", None)
    assert "broken came and does not load" in second["because"]
    assert "".join(event["text"] for event in of_kind(events, "text")) == "rrr", "what it saw decides"
    assert of_kind(events, "receipt")[0]["receipt"]["transfer"]["root"] == roots["parrot"]
    left = "what came for one request went after it, also what did not load"
    eventually(lambda: not any(hospital.store.has(bytes.fromhex(root)) for root in roots.values()), left)

    office.store.remove(bytes.fromhex(roots["parrot"]))
    eventually(lambda: len(ward.models()["seeds"]) == 2, "only the broken one sees")
    with pytest.raises(EngineUnavailable, match="broken came and does not load"):
        events_of(ward, "Which colour?", **wishes)
