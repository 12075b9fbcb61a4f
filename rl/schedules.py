"""How a rate or a trust moves over training."""

from __future__ import annotations

import math

SCHEDULES = ("constant", "linear", "cosine")


def scheduled(start: float, end: float, progress: float, shape: str) -> float:
    """The value at ``progress`` in [0, 1]: constant at ``start``, or moving to ``end`` by a line or half a cosine.

    Raises:
        ValueError: the shape is unknown; names those there are.
    """
    if shape not in SCHEDULES:
        raise ValueError(f"schedule = {shape!r}; it must be one of {', '.join(SCHEDULES)}")
    share = {"constant": 0.0, "linear": progress, "cosine": (1 - math.cos(math.pi * progress)) / 2}[shape]
    return start + (end - start) * share
