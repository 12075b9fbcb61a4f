"""``custom``: a user's own agents and resources, and a world of one's own."""

from __future__ import annotations

from hybridalloc.problems.custom.problem import Custom, CustomPrices, CustomState, Transition, make

__all__ = ["Custom", "CustomPrices", "CustomState", "Transition", "make"]
