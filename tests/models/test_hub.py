"""Models from the hub: pinned, resumed, checked, and each refusal in one clear line."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from atmo.errors import AtmoError, Forbidden, ModelDamaged, ModelNotFound, TransportError, UsageError
from atmo.models import downloads
from atmo.models.hub import HubSource
from atmo.models.pulling import Progress, Pulled, pull
from atmo.models.reference import parse
from atmo.models.staging import incoming
from atmo.models.store import Store
from tests.models.hub_server import Hub, running
from tests.models.stores import noise

MODEL = noise(1, 5_500_000)
REPO = {"README.md": b"# Tiny", "tiny-q4_k_m.gguf": MODEL, "tiny-q8_0.gguf": noise(2, 9_000), "config.json": b"{}"}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setattr(downloads, "FIRST_PAUSE_S", 0.0)
    with running(Hub()) as server:
        yield server


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store", sync=lambda _: None)


Fetch = Callable[..., Pulled]


@pytest.fixture
def fetch(hub: Hub, store: Store) -> Fetch:
    def run(text: str, tell: Callable[[Progress], None] = lambda _: None, name: str = "") -> Pulled:
        return pull(parse(text), name, store, [HubSource(hub.endpoint)], tell)

    return run


def test_a_file_of_the_hub_is_a_model_of_the_store_pinned_to_its_commit(hub: Hub, store: Store, fetch: Fetch) -> None:
    commit = hub.add("org/tiny", REPO)
    told: list[Progress] = []
    pulled = fetch("hf://org/tiny/tiny-q4_k_m.gguf", told.append)
    assert pulled.source == "hub"
    assert pulled.model.path.read_bytes() == MODEL
    assert pulled.model.name == "tiny-q4_k_m"
    assert pulled.model.record.source == f"hf://org/tiny@{commit}/tiny-q4_k_m.gguf"
    assert (told[-1].done_bytes, told[-1].total_bytes) == (len(MODEL), len(MODEL))
    assert told[-1].sources == ("127.0.0.1",)
    assert store.verify(pulled.model.root) == []
    assert incoming(store.folder) == []


def test_a_model_that_is_here_is_not_fetched_again(hub: Hub, fetch: Fetch) -> None:
    hub.add("org/tiny", REPO)
    fetch("hf://org/tiny:Q4_K_M")
    sent = hub.sent_bytes
    assert fetch("hf://org/tiny/tiny-q4_k_m.gguf").source == ""
    assert len(hub.bodies()) == 1
    assert hub.sent_bytes - sent < 4096


def test_the_token_goes_to_the_hub_and_not_to_whom_it_sends_us_on_to(hub: Hub, fetch: Fetch) -> None:
    hub.add("org/tiny", REPO, token="hf_secret")
    fetch("hf://org/tiny")
    assert {asked.token for asked in hub.asked if asked.host == "127.0.0.1"} == {"hf_secret"}
    assert {asked.token for asked in hub.asked if asked.host == "localhost"} == {""}


def test_the_usual_quantisation_is_taken_and_another_when_it_is_named(hub: Hub, fetch: Fetch) -> None:
    hub.add("org/tiny", REPO)
    assert fetch("hf://org/tiny").model.name == "tiny-q4_k_m"
    assert fetch("hf://org/tiny:q8_0").model.name == "tiny-q8_0"
    with pytest.raises(UsageError, match=r"hf://org/tiny/tiny-q8_0\.gguf"):
        fetch("hf://org/tiny:Q2_K")


def test_a_split_model_comes_with_all_its_parts_and_without_its_folder(hub: Hub, fetch: Fetch) -> None:
    parts = {f"Q4_K_M/big-{number:05}-of-00003.gguf": noise(number, 1_200_000) for number in (1, 2, 3)}
    hub.add("org/big", {**parts, "mmproj-f16.gguf": noise(9, 5000)})
    model = fetch("hf://org/big:q4_k_m").model
    assert model.files == tuple(path.rpartition("/")[2] for path in sorted(parts))
    assert [(model.folder / path).read_bytes() for path in model.files] == [parts[path] for path in sorted(parts)]
    assert model.path.name == "big-00001-of-00003.gguf"
    assert model.name == "big"


def test_a_folder_with_an_onnx_model_comes_as_it_lies(hub: Hub, fetch: Fetch) -> None:
    files = {"onnx/model.onnx": noise(1, 5000), "onnx/model.onnx_data": noise(2, 70_000), "tokenizer.json": b"{}"}
    hub.add("org/emb", files)
    assert fetch("hf://org/emb/", name="all").model.files == tuple(sorted(files))
    assert fetch("hf://org/emb/onnx/model.onnx", name="file").model.files == ("model.onnx", "model.onnx_data")


def test_a_line_that_drops_is_taken_up_again_where_it_broke(hub: Hub, fetch: Fetch) -> None:
    hub.add("org/tiny", REPO)
    hub.drop_after = [0, 3_000_000, 100_000]
    assert fetch("hf://org/tiny").model.path.read_bytes() == MODEL
    assert [asked.range for asked in hub.bodies()] == ["", "", "bytes=3000000-", "bytes=3100000-"]


def test_a_hub_that_is_busy_is_asked_again(hub: Hub, fetch: Fetch) -> None:
    hub.add("org/tiny", REPO)

    def busy_once(progress: Progress) -> None:
        if not told:
            told.append(progress)
            hub.busy, hub.drop_after = 2, []

    told: list[Progress] = []
    hub.drop_after = [2_000_000]
    assert fetch("hf://org/tiny", busy_once).model.path.read_bytes() == MODEL


def test_what_was_interrupted_goes_on_from_the_last_whole_chunk(hub: Hub, store: Store, fetch: Fetch) -> None:
    hub.add("org/tiny", REPO)

    def stop(progress: Progress) -> None:
        if progress.done_bytes > 3_500_000:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch("hf://org/tiny", stop)
    ((about, done_bytes, _),) = incoming(store.folder)
    assert about.total_bytes == len(MODEL)
    assert done_bytes == 3 << 20
    told: list[Progress] = []
    assert fetch("hf://org/tiny", told.append).model.path.read_bytes() == MODEL
    assert told[0].resumed_bytes == 3 << 20
    assert hub.bodies()[-1].range == f"bytes={3 << 20}-"


def test_bytes_that_changed_on_the_disk_meanwhile_are_fetched_again(hub: Hub, store: Store, fetch: Fetch) -> None:
    hub.add("org/tiny", REPO)

    def stop(progress: Progress) -> None:
        if progress.done_bytes > 3_500_000:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch("hf://org/tiny", stop)
    with (incoming(store.folder)[0][2] / "0").open("r+b") as file:
        file.seek(1_500_000)
        file.write(b"rotten")
    assert fetch("hf://org/tiny").model.path.read_bytes() == MODEL
    assert hub.bodies()[-1].range == f"bytes={1 << 20}-"


def test_other_bytes_than_the_hub_names_are_not_kept(hub: Hub, store: Store, fetch: Fetch) -> None:
    hub.add("org/tiny", REPO)
    hub.lies = True
    with pytest.raises(ModelDamaged, match="not what its server says"):
        fetch("hf://org/tiny")
    assert store.models() == []
    hub.lies = False
    assert fetch("hf://org/tiny").model.path.read_bytes() == MODEL


def test_a_server_without_ranges_sends_all_of_it_again(hub: Hub, fetch: Fetch) -> None:
    hub.add("org/tiny", REPO)
    hub.ranges = False
    hub.drop_after = [3_000_000]
    assert fetch("hf://org/tiny").model.path.read_bytes() == MODEL


def test_a_branch_that_moved_gives_the_new_commit_and_a_revision_the_old_one(hub: Hub, fetch: Fetch) -> None:
    old = hub.add("org/tiny", {"tiny.gguf": b"old" * 2000})
    new = hub.add("org/tiny", {"tiny.gguf": b"new" * 2000})
    assert new in fetch("hf://org/tiny", name="new").model.record.source
    assert fetch(f"hf://org/tiny@{old}", name="old").model.path.read_bytes() == b"old" * 2000


@pytest.mark.parametrize(
    ("text", "error", "words"),
    [
        ("hf://org/none", ModelNotFound, "not on the hub"),
        ("hf://org/private", ModelNotFound, "HF_TOKEN"),
        ("hf://org/gated/m.gguf", Forbidden, "accepted its terms"),
        ("hf://org/tiny/none.gguf", ModelNotFound, "tiny-q8_0.gguf"),
        ("hf://org/tiny@v9", ModelNotFound, "no revision 'v9'"),
        ("hf://org/texts", UsageError, "no GGUF model"),
        ("hf://org/tiny/onnx/", ModelNotFound, "no folder onnx/"),
    ],
)
def test_what_cannot_be_had_is_refused_with_what_to_do(
    hub: Hub, fetch: Fetch, text: str, error: type[AtmoError], words: str
) -> None:
    hub.add("org/tiny", REPO)
    hub.add("org/private", REPO, token="another")
    hub.add("org/gated", {"m.gguf": MODEL}, gated=True)
    hub.add("org/texts", {"README.md": b"words"})
    with pytest.raises(error, match=words):
        fetch(text)


def test_without_a_network_what_is_here_is_enough_and_the_rest_says_so(store: Store, hub: Hub, fetch: Fetch) -> None:
    hub.add("org/tiny", REPO)
    model = fetch("hf://org/tiny").model
    unplugged = [HubSource("http://127.0.0.1:1")]
    assert pull(parse("hf://org/tiny"), "", store, unplugged, lambda _: None).model == model
    with pytest.raises(TransportError, match="cannot be reached"):
        pull(parse("hf://org/other"), "", store, unplugged, lambda _: None)
