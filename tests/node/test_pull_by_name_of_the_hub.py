"""`hf://...` comes from peers who claim it, if the bytes are those that the hub names, or by their word alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from atmo.cli.peer_source import PeerSource
from atmo.client import SyncClient
from atmo.config import load
from atmo.errors import TransportError, UsageError
from atmo.models.hub import HubSource
from atmo.models.pulling import Pulled, Source, pull
from atmo.models.reference import parse
from tests.cluster import atmo, eventually
from tests.models.hub_server import Hub, running
from tests.models.stores import noise
from tests.node.sites import Site, start_both, two_sites

FILES = {f"{name}.gguf": noise(seed, 1_500_000) for seed, name in enumerate(("right", "twin", "small"))}
FILES |= {"config.json": b"{}", "readme.gguf": b"no large file, so the hub has no SHA-256 of it"}


@pytest.fixture
def sites(environ: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Site, Site]]:
    with two_sites(Path(environ["ATMO_HOME"]).parent, monkeypatch) as both:
        yield both


@pytest.fixture
def hub() -> Iterator[Hub]:
    with running(Hub()) as server:
        yield server


def pulls(site: Site, text: str, endpoint: str, *, peers_alone: bool = False) -> Pulled:
    """As `atmo models pull` does at that site."""
    config, asked = load(environ=site.environ), HubSource(endpoint)
    sources: list[Source] = [PeerSource(config)] if peers_alone else [PeerSource(config, hub=asked), asked]
    return pull(parse(text), "", site.store, sources, lambda _: None)


def told(ward: SyncClient) -> dict[str, str]:
    return {seed["model"]: seed["source"] for seed in ward.models()["seeds"] if seed["node"] == "office"}


def test_peers_are_asked_first_and_believed_by_hash_or_when_their_user_says_so(
    sites: tuple[Site, Site], hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    office, hospital = sites
    commit = hub.add("org/tiny", FILES)
    for name in ("right", "small"):
        model = pulls(office, f"hf://org/tiny/{name}.gguf", hub.endpoint).model
        office.store.mark(model.root, shared=True)
    office.has_model("liar", _file(office, noise(9, 1_500_000)))
    office.store.mark(office.store.find("liar").root, source=f"hf://org/tiny@{commit}/twin.gguf")
    office.has_model("unnamed", _file(office, b"x" * 5000))  # it came from a file of this machine: nobody's business
    _, ward = start_both(sites, monkeypatch)
    eventually(lambda: len(told(ward)) == 4, "all are known")
    assert told(ward)["right"] == f"hf://org/tiny@{commit}/right.gguf"
    assert told(ward)["unnamed"] == ""
    asked = len(hub.bodies())

    pulled = pulls(hospital, "hf://org/tiny@main/right.gguf", hub.endpoint)
    assert (pulled.source, pulled.model.name, len(hub.bodies())) == ("peers", "right", asked)
    assert pulled.model.path.read_bytes() == FILES["right.gguf"]
    assert pulled.model.record.source == f"hf://org/tiny@{commit}/right.gguf", "which is certain now"
    assert pulls(hospital, "hf://org/tiny/right.gguf", hub.endpoint).source == "", "it is here"

    pulled = pulls(hospital, "hf://org/tiny/twin.gguf", hub.endpoint)
    assert (pulled.source, pulled.model.path.read_bytes()) == ("hub", FILES["twin.gguf"])
    assert "office gave other bytes than those that the hub calls" in pulled.failures[0].message
    assert not hospital.store.has(office.store.find("liar").root)

    nowhere = "http://127.0.0.1:9"
    with pytest.raises(TransportError, match=r"cannot be reached.*office may have it.*--from peers"):
        pulls(hospital, "hf://org/tiny/small.gguf", nowhere)
    with hospital.here(monkeypatch):
        alone = atmo("models", "pull", "hf://org/tiny/small.gguf", "--from", "peers", "--no-share", "--json").json
    assert (alone["from"], alone["model"]["source"], alone["model"]["shared"]) == ("peers", "peers", False)
    assert hospital.store.find("small").path.read_bytes() == FILES["small.gguf"]
    asked = len(hub.bodies())
    known = pulls(hospital, "hf://org/tiny/small.gguf", hub.endpoint)
    assert (known.source, known.model.record.source) == ("", f"hf://org/tiny@{commit}/small.gguf")
    assert len(hub.bodies()) == asked, "the hub only says that these are the bytes"
    with pytest.raises(UsageError, match=f"several that may be meant: hf://org/tiny@{commit}/right.gguf"):
        pulls(hospital, "hf://org/tiny", nowhere, peers_alone=True)


def _file(site: Site, data: bytes) -> Path:
    place = site.folder / "a.bin"
    place.write_bytes(data)
    return place
