"""``mec``: devices offload tasks to edge servers over a shared radio."""

from __future__ import annotations

from hybridalloc.problems.mec.problem import Mec, make
from hybridalloc.problems.mec.scenario import Dynamics, Scenario
from hybridalloc.problems.mec.state import MecState, MecTruth

__all__ = ["Dynamics", "Mec", "MecState", "MecTruth", "Scenario", "make"]
