"""A seeded simulator that drives the same core as the sockets do."""

from atmo.mesh.sim.network import Conditions
from atmo.mesh.sim.node import SimNode
from atmo.mesh.sim.scenario import Sim, SimTimeout

__all__ = ["Conditions", "Sim", "SimNode", "SimTimeout"]
