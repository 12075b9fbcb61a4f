"""``mec``: devices offload tasks to edge servers over a shared radio."""

from __future__ import annotations

from hybridalloc.problems.mec.problem import Dynamics, Mec, MecState, MecTruth, Scenario, make

__all__ = ["Dynamics", "Mec", "MecState", "MecTruth", "Scenario", "make"]
