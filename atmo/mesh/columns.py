"""Arrays of one length that grow together: the storage of a table that is read far more often than it is written."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray


class Columns:
    """A structure of arrays. `SPEC` names each column with its dtype and the value an unused place holds.

    Columns named in `TOGETHER`, all float64, are views of one array, `block` (capacity, len(TOGETHER)): whoever needs
    most of them for some places takes them with one call, and finds each place's values side by side in memory.

    Places are numbered from 0; a freed place is handed out again before the arrays grow. Growth doubles, so adding is
    O(1) on average. An array must be fetched from the object each time: growing replaces it.
    """

    SPEC: ClassVar[dict[str, tuple[str, float]]] = {}
    TOGETHER: ClassVar[tuple[str, ...]] = ()
    block: NDArray[np.float64]

    def __init__(self, capacity: int = 16) -> None:
        self._free: list[int] = []
        self.used = 0  # places handed out so far, freed ones included: all live places are below it
        self.capacity = capacity
        self.block = np.empty((capacity, len(self.TOGETHER)))
        for name, (dtype, _) in self.SPEC.items():
            if name not in self.TOGETHER:
                setattr(self, name, np.empty(capacity, dtype))
        self._name_block()
        for name, (_, fill) in self.SPEC.items():
            getattr(self, name)[:] = fill

    def __len__(self) -> int:
        return self.used - len(self._free)

    def take(self) -> int:
        """A free place; every column holds its fill value there."""
        if self._free:
            return self._free.pop()
        if self.used == self.capacity:
            self._grow()
        self.used += 1
        return self.used - 1

    def give_back(self, place: int) -> None:
        for name, (_, fill) in self.SPEC.items():
            getattr(self, name)[place] = fill
        self._free.append(place)

    def live(self) -> NDArray[np.int32]:
        """(n,) places in use, ascending."""
        mask = np.ones(self.used, dtype=bool)
        mask[self._free] = False
        return np.flatnonzero(mask).astype(np.int32)

    def _grow(self) -> None:
        held = self.capacity
        self.capacity *= 2
        self.block = np.concatenate((self.block, np.empty_like(self.block)))
        for name in self.SPEC:
            if name not in self.TOGETHER:
                old = getattr(self, name)
                setattr(self, name, np.concatenate((old, np.empty_like(old))))
        self._name_block()
        for name, (_, fill) in self.SPEC.items():
            getattr(self, name)[held:] = fill

    def _name_block(self) -> None:
        for at, name in enumerate(self.TOGETHER):
            setattr(self, name, self.block[:, at])


class IntBag:
    """An unordered set of small integers as one array; adding and removing by position are O(1)."""

    __slots__ = ("_items", "_size")

    def __init__(self) -> None:
        self._items: NDArray[np.int32] = np.empty(4, dtype=np.int32)
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def add(self, item: int) -> int:
        """The position at which the item now stands."""
        if self._size == len(self._items):
            self._items = np.concatenate([self._items, np.empty_like(self._items)])
        self._items[self._size] = item
        self._size += 1
        return self._size - 1

    def remove_at(self, position: int) -> int:
        """Removes by moving the last item there. The moved item, or -1 when none had to move."""
        self._size -= 1
        if position == self._size:
            return -1
        self._items[position] = self._items[self._size]
        return int(self._items[position])

    def view(self) -> NDArray[np.int32]:
        """(n,) int32, valid until the next change; not to be written to."""
        return self._items[: self._size]
