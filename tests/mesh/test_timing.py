"""How fast the mesh talks, by its size."""

from __future__ import annotations

import pytest

from atmo.mesh.rows import Kind
from atmo.mesh.rowstore import OVERDUE_SHARE
from atmo.mesh.timing import EARLY_SHARES, LATE_SHARES, MeshTiming

TIMING = MeshTiming()


@pytest.mark.parametrize("kind", [Kind.NODE, Kind.GRADIENT])
def test_a_small_mesh_renews_early_and_a_large_one_late(kind: Kind) -> None:
    shares = [TIMING.renewal_shares(TIMING.stretched_ttl_s(kind, nodes), nodes) for nodes in (2, 24, 1_000, 10_000)]

    assert shares == [EARLY_SHARES, EARLY_SHARES, LATE_SHARES, LATE_SHARES]


@pytest.mark.parametrize("kind", [Kind.NODE, Kind.GRADIENT])
def test_a_renewal_that_is_lost_comes_by_comparisons_before_the_row_expires_and_is_never_overdue(kind: Kind) -> None:
    """Or, in a small mesh, a second one comes in time."""
    for nodes in range(1, 20_000, 7):
        ttl_s = TIMING.stretched_ttl_s(kind, nodes)
        latest = TIMING.renewal_shares(ttl_s, nodes)[1]

        assert 2 * latest <= 1 or ttl_s * (1 - latest) >= 4 * TIMING.sync_interval_s(nodes)
        assert ttl_s * latest + TIMING.renewal_travel_s(nodes) < ttl_s * OVERDUE_SHARE
