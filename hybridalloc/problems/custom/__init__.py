"""``custom``: a user's own agents and resources, and a world of one's own."""

from __future__ import annotations

from hybridalloc.problems.custom.held import Held, HeldState
from hybridalloc.problems.custom.problem import Custom, Transition, make
from hybridalloc.problems.custom.state import CustomPrices, CustomState

__all__ = ["Custom", "CustomPrices", "CustomState", "Held", "HeldState", "Transition", "make"]
