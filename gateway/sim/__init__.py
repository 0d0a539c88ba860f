"""The simulated provider: for the demo, the tests and the benchmarks.

May import ``gateway.core``, nothing else of the gateway; nothing but commands and tests imports it. Start reading in
:mod:`gateway.sim.server`; the settings are in :mod:`gateway.sim.behaviour`.
"""

from gateway.sim.behaviour import Behaviour
from gateway.sim.server import Simulator
from gateway.sim.stats import Statistics

__all__ = ["Behaviour", "Simulator", "Statistics"]
