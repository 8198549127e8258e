"""Who may speak in tests that are about something else: everyone."""

from __future__ import annotations

from atmo.ids import PeerId
from atmo.keys import Certificate, Standing
from atmo.mesh.roll import Roll
from atmo.mesh.verdict import Reason


def _nobody(certificate: Certificate) -> Standing:
    raise AssertionError("no certificate is read here")


class OpenRoll(Roll):
    """Every origin counts, with a certificate or without, until it is struck off."""

    def __init__(self) -> None:
        super().__init__(_nobody, lambda standing: True)

    def show(self, origin: PeerId, certificate: Certificate | None, wall_s: float) -> Reason | None:
        return self.bars(origin, wall_s)

    def bars(self, origin: PeerId, wall_s: float) -> Reason | None:
        return Reason.REVOKED if self.is_struck(origin) else None

    def strike(self, key: bytes) -> list[PeerId]:
        super().strike(key)
        return [PeerId(key)]
