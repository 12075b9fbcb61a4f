"""What is executed in E worlds of a custom problem."""

from __future__ import annotations

from typing import NamedTuple

from games.congestion import Bool, Float, Int


class CustomPlan(NamedTuple):
    """What is executed in E worlds; S legs (resources in turn) of each agent's option."""

    option: Int  # (E, N)
    resource: Int  # (E, N, S), -1 for none
    share: Float  # (E, N, S) of that resource
    power_w: Float  # (E, N)
    served: Bool  # (E, N) expected to be done by the deadline
    time_s: Float  # (E, N), inf for who opts out
    price: Float  # (E, R) cost that one more resource like it would save, at the margin
    held: Bool  # (E, N) holds a place: a promise
    floor: Float  # (E, N, S) share reserved for it
