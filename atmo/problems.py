"""What is wrong around a node, for people: kept until it is over, shown by `atmo node status` and `atmo doctor`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Problem:
    """what: the cause, in a sentence; remedy: what to do, in another. serious: something that should work does not;
    otherwise worth knowing."""

    what: str
    remedy: str = ""
    serious: bool = True

    def __str__(self) -> str:
        return f"{self.what} {self.remedy}".rstrip()
