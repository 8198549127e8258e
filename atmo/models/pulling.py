"""Bringing a model here: from whichever source has it first.

A `Source` is one way a model can come: peers, the hub, a server, a file of this machine. They are asked in order; one
that has nothing says so with None, one that fails is remembered, and the next is tried.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from atmo.errors import AtmoError, ModelDamaged, ModelNotFound, StorageError
from atmo.models.records import StoredModel
from atmo.models.reference import Reference
from atmo.models.store import Store


@dataclass(frozen=True, slots=True)
class Progress:
    """done_bytes of total_bytes are here, total 0 while it is unknown; resumed_bytes of them were here before; sources:
    who sends at this moment, in words; doing: `fetching` or `checking`."""

    done_bytes: int
    total_bytes: int
    resumed_bytes: int = 0
    sources: tuple[str, ...] = ()
    doing: str = "fetching"


Tell: TypeAlias = Callable[[Progress], None]


class Source(Protocol):
    """label: in words, such as `peers` or `hub`.

    `fetch` returns when the model is in the store, whole and verified, or None when this source does not have it; it
    keeps what came so far when it is interrupted (KeyboardInterrupt) or fails (AtmoError), and goes on from there when
    it is called again. It tells its progress a few times a second at most.
    """

    label: str

    def fetch(self, wanted: Reference, name: str, store: Store, tell: Tell) -> StoredModel | None: ...


@dataclass(frozen=True, slots=True)
class Pulled:
    """source: the label of where it came from, "" when it was here already; failures: of the sources before it."""

    model: StoredModel
    source: str
    failures: tuple[AtmoError, ...] = ()


def pull(wanted: Reference, name: str, store: Store, sources: Sequence[Source], tell: Tell) -> Pulled:
    """name: for the model here, "" for its own. Raises the error of the last source that had something to say, or
    ModelNotFound."""
    if (wanted.pinned or wanted.kind == "url") and (here := find_here(wanted, store)) is not None:
        return Pulled(here, "")
    failures: list[AtmoError] = []
    before = {model.root for model in store.models()}
    for source in sources:
        try:
            model = source.fetch(wanted, name, store, tell)
        except AtmoError as error:
            if isinstance(error, StorageError) and not isinstance(error, ModelDamaged):
                raise  # the next source would meet the same disk
            failures.append(error)
            continue
        if model is not None:
            return Pulled(model, "" if model.root in before else source.label, tuple(failures))
    if not failures and wanted.kind == "name" and (here := find_here(wanted, store)) is not None:
        return Pulled(here, "")
    if failures:  # the last one says it, with what each of them advises
        failures[-1].hint = " ".join(dict.fromkeys(failure.hint for failure in reversed(failures) if failure.hint))
        raise failures[-1]
    raise ModelNotFound(
        f"Nobody has the model {wanted.text!r}.",
        hint="Look at what there is: atmo models list; or say where it is: hf://org/repo, https://..., a path.",
    )


def find_here(wanted: Reference, store: Store) -> StoredModel | None:
    for model in store.models():
        if wanted.means(model.name, model.root, model.record.source):
            return model
    return None
