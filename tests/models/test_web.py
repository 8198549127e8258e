"""Models from any server and from this machine: gone on with where that is safe, and begun anew where it is not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from atmo.errors import ModelDamaged, ModelInvalid, ModelNotFound, UsageError
from atmo.models import downloads
from atmo.models.pulling import Progress, Pulled, pull
from atmo.models.reference import parse
from atmo.models.store import Store
from atmo.models.web import FileSource, UrlSource
from tests.inference.gguf_maker import write_parrot
from tests.models.hub_server import Hub, running


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    monkeypatch.setattr(downloads, "FIRST_PAUSE_S", 0.0)
    with running(Hub()) as server:
        yield server


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store", sync=lambda _: None)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """About 6 MB."""
    return write_parrot(tmp_path_factory.mktemp("parrot") / "parrot.gguf", blocks=3).read_bytes()


Tell = Callable[[Progress], None]


def fetch(text: str, store: Store, tell: Tell = lambda _: None) -> Pulled:
    return pull(parse(text), "", store, [UrlSource(), FileSource()], tell)


def stop_after(size: int) -> Tell:
    def tell(progress: Progress) -> None:
        if progress.done_bytes > size:
            raise KeyboardInterrupt

    return tell


def interrupted(url: str, store: Store, size: int = 3_500_000) -> None:
    with pytest.raises(KeyboardInterrupt):
        fetch(url, store, stop_after(size))


def test_a_file_by_its_address_is_a_model_and_is_not_fetched_twice(hub: Hub, store: Store, model: bytes) -> None:
    hub.add("org/m", {"sub/My Parrot.gguf": model})
    url = hub.url("org/m", "sub/My%20Parrot.gguf")
    pulled = fetch(url, store)
    assert (pulled.source, pulled.model.name, pulled.model.record.source) == ("url", "my parrot", url)
    assert pulled.model.path.read_bytes() == model
    assert fetch(url, store).source == ""
    assert len(hub.bodies()) == 1


def test_what_was_interrupted_goes_on_while_the_server_has_the_same_file(hub: Hub, store: Store, model: bytes) -> None:
    hub.add("org/m", {"p.gguf": model})
    interrupted(hub.url("org/m", "p.gguf"), store)
    assert fetch(hub.url("org/m", "p.gguf"), store).model.path.read_bytes() == model
    assert hub.bodies()[-1].range == f"bytes={3 << 20}-"


def test_two_versions_of_a_file_are_never_put_together(hub: Hub, store: Store, model: bytes) -> None:
    hub.add("org/m", {"p.gguf": bytes(len(model))})
    interrupted(hub.url("org/m", "p.gguf"), store)
    hub.add("org/m", {"p.gguf": model})
    assert fetch(hub.url("org/m", "p.gguf"), store).model.path.read_bytes() == model
    assert hub.bodies()[-1].range == ""


def test_a_server_that_does_not_say_which_version_it_has_sends_all_of_it_again(
    hub: Hub, store: Store, model: bytes
) -> None:
    hub.etags = False
    hub.add("org/m", {"p.gguf": model})
    interrupted(hub.url("org/m", "p.gguf"), store)
    assert fetch(hub.url("org/m", "p.gguf"), store).model.path.read_bytes() == model
    assert [asked.range for asked in hub.bodies()] == ["", ""]


def test_a_file_changes_while_it_comes(hub: Hub, store: Store, model: bytes) -> None:
    hub.add("org/m", {"p.gguf": bytes(len(model))})
    hub.drop_after = [3_000_000]

    def another_comes(progress: Progress) -> None:
        if progress.done_bytes == 3_000_000:
            hub.add("org/m", {"p.gguf": model})

    assert fetch(hub.url("org/m", "p.gguf"), store, another_comes).model.path.read_bytes() == model


def test_a_server_that_does_not_say_how_much_it_sends_is_believed_when_the_model_is_whole(
    hub: Hub, store: Store, model: bytes
) -> None:
    hub.lengths = False
    hub.add("org/m", {"p.gguf": model})
    assert fetch(hub.url("org/m", "p.gguf"), store).model.path.read_bytes() == model
    hub.add("org/m", {"q.gguf": model + b"more"})
    hub.drop_after = [2_000_000]
    with pytest.raises(ModelInvalid, match="no usable model"):
        fetch(hub.url("org/m", "q.gguf"), store)
    assert len(store.models()) == 1


def test_a_page_of_text_is_no_model(hub: Hub, store: Store) -> None:
    hub.add("org/m", {"p.gguf": b"<html>Please log in</html>"})
    with pytest.raises(ModelInvalid, match="does not begin with GGUF"):
        fetch(hub.url("org/m", "p.gguf"), store)
    assert store.models() == []


def test_a_split_model_that_is_not_all_there_is_not_kept(hub: Hub, store: Store, model: bytes) -> None:
    hub.add("org/m", {"p-00001-of-00002.gguf": model})
    with pytest.raises(ModelNotFound, match="p-00002-of-00002"):
        fetch(hub.url("org/m", "p-00001-of-00002.gguf"), store)
    assert store.models() == []


def test_an_address_without_a_file_is_refused(store: Store) -> None:
    with pytest.raises(UsageError, match="names no file"):
        fetch("https://example.org/", store)


def test_a_file_of_this_machine_is_imported_and_tells_how_far_it_is(store: Store, model: bytes, tmp_path: Path) -> None:
    (tmp_path / "p.gguf").write_bytes(model)
    told: list[Progress] = []
    pulled = fetch(str(tmp_path / "p.gguf"), store, told.append)
    assert pulled.source == "file"
    assert (told[-1].done_bytes, told[-1].total_bytes, told[-1].doing) == (len(model), len(model), "checking")


def test_a_source_that_fails_leaves_the_word_to_the_next(store: Store, model: bytes, tmp_path: Path) -> None:
    class Broken:
        label = "broken"

        def fetch(self, *_: object) -> None:
            raise ModelDamaged("It broke.")

    (tmp_path / "p.gguf").write_bytes(model)
    wanted = parse(str(tmp_path / "p.gguf"))
    assert pull(wanted, "", store, [Broken(), FileSource()], lambda _: None).source == "file"
    with pytest.raises(ModelDamaged, match="It broke"):
        pull(parse("nobody-has-it"), "", store, [Broken(), FileSource()], lambda _: None)
