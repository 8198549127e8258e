"""Real nodes on loopback sockets, too many to be all linked to all: the overlay without a simulator.

Several of them share a process, so that it costs seconds and not minutes; four share the one that is killed. Four that
die at once leave each of the dead at least two living neighbours, which is what it takes to be believed.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

import pytest

from atmo.mesh.overlay import ViewSizes
from tests.node.crowd import Crowd, crowds

THIRTY_SIX = (8, 8, 8, 8, 4)
SIXTY = (8, 8, 8, 8, 8, 8, 8, 4)
VIEW = ViewSizes()


@pytest.mark.parametrize("sizes", [THIRTY_SIX, pytest.param(SIXTY, marks=pytest.mark.soak)], ids=["36", "60"])
@pytest.mark.timeout(600)  # half a minute where the machine is not busy with other things
def test_nodes_that_are_not_all_linked_are_one_mesh(sizes: tuple[int, ...]) -> None:
    assert sum(sizes) > VIEW.everyone * 5 // 4, "so many that no more neighbours are kept than the view holds"
    asyncio.run(_story(sizes))


async def _story(sizes: tuple[int, ...]) -> None:
    async with crowds(*sizes) as all_of_them:
        everyone = {name for crowd in all_of_them for name in crowd.names}
        await eventually(lambda: _all_know(all_of_them, everyone), "all know all", 120.0)
        await eventually(lambda: _thinned_out(all_of_them), "nobody has more neighbours than its view holds", 60.0)

        first, *others, doomed = all_of_them
        await first.call("offer", node=0, number=1)
        await eventually(lambda: _all_hold(all_of_them, 1), "a published row is everywhere")

        await _ask_a_stranger(first, others)

        await doomed.kill()
        left = [first, *others]
        await eventually(lambda: _all_know(left, everyone - set(doomed.names)), "the dead are forgotten", 120.0)
        await others[0].call("offer", node=3, number=2)
        await eventually(lambda: _all_hold(left, 2), "a row reaches all who are left")


async def _ask_a_stranger(asker: Crowd, others: list[Crowd]) -> None:
    """A link is made for a request, and given up when nobody has used it for a while."""
    strangers = set(await asker.call("strangers", node=0))
    crowd, number = next((c, n) for c in others for n, name in enumerate(c.names) if name in strangers)
    await crowd.call("offer", node=number, number=9)
    await eventually(lambda: _all_hold([asker], 9), "the asker knows what the stranger offers")

    answer = await asker.call("ask", node=0, number=9, timeout_s=20.0)

    assert answer == {"text": f"I am {crowd.names[number]}."}
    assert await asker.call("linked_to", node=0, address=crowd.addresses[number])


async def _all_know(some: list[Crowd], names: set[str]) -> bool:
    wanted = sorted(names)
    found = await asyncio.gather(*(crowd.call("known") for crowd in some))
    return all(known == wanted for each in found for known in each)


async def _all_hold(some: list[Crowd], number: int) -> bool:
    holding = await asyncio.gather(*(crowd.call("holders", number=number) for crowd in some))
    return holding == [crowd.nodes for crowd in some]


async def _thinned_out(some: list[Crowd]) -> bool:
    found = await asyncio.gather(*(crowd.call("links") for crowd in some))
    return all(not node["everyone"] and 0 < node["neighbours"] <= VIEW.active for each in found for node in each)


async def eventually(true: Callable[[], Awaitable[bool]], what: str, patience_s: float = 60.0) -> None:
    """Wait until it is so."""
    began_s = time.monotonic()
    while not await true():
        assert time.monotonic() < began_s + patience_s, f"waited {patience_s:g} s in vain: {what}"
        await asyncio.sleep(0.5)
    print(f"{what}: after {time.monotonic() - began_s:.1f} s")
