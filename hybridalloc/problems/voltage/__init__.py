"""``voltage``: inverters on a feeder keep its voltages in their band by reactive power."""

from __future__ import annotations

from hybridalloc.problems.voltage.feeder import Feeder, case33, copies
from hybridalloc.problems.voltage.problem import Voltage, make
from hybridalloc.problems.voltage.state import VoltageState, VoltageTruth

__all__ = ["Feeder", "Voltage", "VoltageState", "VoltageTruth", "case33", "copies", "make"]
