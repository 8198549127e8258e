"""Capability classes: what is offered, each distinct thing once, however many nodes offer it.

A class is one distinct capability (descriptor and vectors, byte for byte). Everything a decision asks of the descriptor
is asked here once per class: the semantic product, type, model, context, price. Its nodes are the class's members.

The product runs in two steps. `coarse` holds one vector per class, the part of relevance that is linear in the query
(see views.py); one (n_classes, 384) x (384,) product ranks all classes. Only the best few are read again in full.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import ClassVar, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from atmo.mesh.capability import EMBEDDING_DIM, Capability, ClassKey, Descriptor
from atmo.mesh.columns import Columns, IntBag
from atmo.mesh.views import coarse_vector

MAX_PRICE = 1e6  # US dollars a million tokens; a guess: above it only nonsense is advertised

TOKENS_KEPT = 2048  # classes whose token vectors are kept; about 12 kB each
Tokens = NDArray[np.int8]  # (n, width), unit vectors times 127
TOKEN_SCALE = 127.0
Reader = Callable[[Descriptor], Tokens]
"""A capability's text to the vectors of its tokens, for the second reading (views.py)."""

Labels = frozenset[tuple[str, str]]
T = TypeVar("T")


class Interner(Generic[T]):
    """Small numbers for values that repeat. Numbers are never taken back: distinct types and label sets are few."""

    def __init__(self) -> None:
        self._number: dict[T, int] = {}
        self.values: list[T] = []

    def number(self, value: T) -> int:
        """The value's number, given one if it had none."""
        found = self._number.get(value, -1)
        if found < 0:
            found = self._number[value] = len(self.values)
            self.values.append(value)
        return found

    def find(self, value: T) -> int:
        """-1 for a value never seen."""
        return self._number.get(value, -1)


class ClassIndex(Columns):
    """All classes of the table.

    coarse: (capacity, 384) float32; type_id, modality_mask: see `types` and `modalities`; context: tokens, 0 when
    unknown; strength: 0 to 1; price: US dollars a million output tokens; general: serves whatever fits nothing else.
    """

    SPEC: ClassVar[dict[str, tuple[str, float]]] = {
        "present": ("bool", 0),
        "type_id": ("int32", -1),
        "modality_mask": ("uint64", 0),
        "context": ("int64", 0),
        "strength": ("float32", 0),
        "price": ("float32", 0),
        "general": ("bool", 0),
    }
    present: NDArray[np.bool_]
    type_id: NDArray[np.int32]
    modality_mask: NDArray[np.uint64]
    context: NDArray[np.int64]
    strength: NDArray[np.float32]
    price: NDArray[np.float32]
    general: NDArray[np.bool_]

    def __init__(self, capacity: int = 16) -> None:
        super().__init__(capacity)
        self.coarse: NDArray[np.float32] = np.zeros((capacity, EMBEDDING_DIM), dtype=np.float32)
        self.types: Interner[str] = Interner()
        self.modalities: Interner[str] = Interner()
        self.capability: dict[int, Capability] = {}
        self.views: dict[int, NDArray[np.float32]] = {}  # class -> (n_views, 384)
        self.members: dict[int, IntBag] = {}  # class -> rows of the table
        self.labels: dict[int, Labels] = {}
        self._by_key: dict[ClassKey, int] = {}
        self._by_name: dict[str, set[int]] = {}
        self.version = 0  # grows whenever a class comes or goes
        self.reader: Reader | None = None
        self._tokens: OrderedDict[ClassKey, Tokens] = OrderedDict()

    def intern(self, capability: Capability) -> int:
        """The class of this capability, made if it is new. A class without members must be dropped by `release`."""
        key = capability.class_key
        found = self._by_key.get(key)
        if found is not None:
            return found
        place = self.take()
        self.version += 1
        self._by_key[key] = place
        self.capability[place] = capability
        self.members[place] = IntBag()
        self.views[place] = capability.matrix()
        self.coarse[place] = coarse_vector(self.views[place])
        self.labels[place] = frozenset(capability.descriptor.labels)
        self._fill(place, capability.descriptor)
        for name in names_of(capability.descriptor):
            self._by_name.setdefault(name, set()).add(place)
        return place

    def release(self, place: int) -> None:
        """Drop a class whose last member left."""
        if len(self.members[place]):
            raise ValueError(f"class {place} still has {len(self.members[place])} members")
        self.version += 1
        capability = self.capability.pop(place)
        del self._by_key[capability.class_key], self.members[place], self.views[place], self.labels[place]
        for name in names_of(capability.descriptor):
            self._by_name[name].discard(place)
            if not self._by_name[name]:
                del self._by_name[name]
        self.coarse[place] = 0.0
        self.give_back(place)

    def tokens(self, place: int) -> Tokens:
        """The class's token vectors, read now (some milliseconds) unless they still are known. Needs `reader`."""
        capability = self.capability[place]
        key, reader = capability.class_key, self.reader
        if reader is None:
            raise ValueError("nobody can read the capability's text")
        found = self._tokens.get(key)
        if found is None:
            found = self._tokens[key] = reader(capability.descriptor)
            if len(self._tokens) > TOKENS_KEPT:
                self._tokens.popitem(last=False)
        else:
            self._tokens.move_to_end(key)
        return found

    def named(self, model: str) -> set[int]:
        """The classes that answer to this model name: the capability's id, its last part, its model or its root."""
        return self._by_name.get(model, set())

    def names(self) -> list[str]:
        return sorted(self._by_name)

    def _fill(self, place: int, descriptor: Descriptor) -> None:
        self.present[place] = True
        self.type_id[place] = self.types.number(descriptor.type)
        mask = 0
        for modality in descriptor.modalities:
            mask |= 1 << min(self.modalities.number(modality), 63)
        self.modality_mask[place] = mask
        self.context[place] = descriptor.context
        self.strength[place] = bounded(descriptor.strength, 1.0)
        self.price[place] = bounded(descriptor.price, MAX_PRICE)
        self.general[place] = descriptor.type == "chat" and GENERAL in descriptor.labels

    def _grow(self) -> None:
        super()._grow()
        wider = np.zeros((self.capacity, EMBEDDING_DIM), dtype=np.float32)
        wider[: len(self.coarse)] = self.coarse
        self.coarse = wider


GENERAL = ("scope", "general")
"""The label of a chat capability that takes whatever no other capability fits."""
ELSEWHERE = ("hosting", "elsewhere")
"""The label of a capability that a server on another machine runs for its node: what is asked of it leaves the node."""


def names_of(descriptor: Descriptor) -> set[str]:
    names = {descriptor.id, descriptor.id.rsplit(":", 1)[-1], descriptor.model, descriptor.root}
    return names - {""}


def bounded(value: float, most: float) -> float:
    """A number from outside as one to reckon with: not a number or negative is 0, absurdly large is `most`."""
    return min(value, most) if value > 0 else 0.0
