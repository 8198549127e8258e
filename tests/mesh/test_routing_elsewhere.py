"""A node may offer a model that somebody else runs for it. Data that must stay does not go there."""

from __future__ import annotations

from typing import Any

import pytest

from atmo.errors import NoRoute
from atmo.mesh.classes import ELSEWHERE
from tests.mesh.routing_support import Town, capability, load


@pytest.fixture
def town() -> Town:
    """One node in Europe, that asks: its own model, a cloud's, and one of a European cloud."""
    made = Town()
    own = capability("own", "code")
    cloud = capability("cloud", "code", labels=(ELSEWHERE,))
    european = capability("european", "code", labels=(ELSEWHERE, ("residency", "eu")))
    home = made.node("home", own, cloud, european, residency="eu")
    made.tell(home, load("own"), load("cloud"), load("european"))
    return made


@pytest.mark.parametrize(
    ("wanted", "refused"),
    [
        ({}, ()),
        ({"local_only": True}, ("cloud", "european")),
        ({"data_residency": ("eu",)}, ("cloud",)),
        ({"data_residency": ("eu",), "local_only": True}, ("cloud", "european")),
    ],
    ids=str,
)
def test_only_what_stays_may_be_asked(town: Town, wanted: dict[str, Any], refused: tuple[str, ...]) -> None:
    for name in ("own", "cloud", "european"):
        asked = {"model": name, **wanted}
        if name in refused:
            with pytest.raises(NoRoute):
                town.ask("code", **asked)
        else:
            town.ask("code", **asked)
