"""Every interleaving, every fault: exhaustive exploration of the very same machine.

``explore("update", cpus=3)`` runs a scenario of :mod:`seamref.explore.scenarios` under every interleaving of its CPUs
and gives a :class:`Result`: what holds, or the shortest run that breaks a property.
"""

from seamref.explore.engine import Counterexample, Result, explore
from seamref.explore.faults import FAULTS
from seamref.explore.properties import PROPERTIES
from seamref.explore.scenarios import SCENARIOS

__all__ = ["FAULTS", "PROPERTIES", "SCENARIOS", "Counterexample", "Result", "explore"]
