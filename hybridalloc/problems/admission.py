"""Who could not be served in a custom problem, and the smallest changes that would admit each.

For every option an unserved agent may take, at the others' choices and with the floors of those who are served kept:
the capacity at which its own floor fits too, the deadline that the room left would meet, the power limit it would
need, or, where it fits already and opting out was cheaper, by how much.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from games.congestion import Float
from hybridalloc.problems.custom import NO_DEADLINE, Custom, CustomState
from hybridalloc.problems.custom_batch import CustomBatch


@dataclass(frozen=True)
class Remedy:
    """One option of one unserved agent, and what would admit it there.

    Attributes:
        capacity: by resource name, units/s at which every floor fits; empty where capacity is not what lacks.
        deadline_s: that the room left would meet; None where there is none. power_limit_w: needed, or None.
        cheaper_by: how much cheaper the option must become for a place that is there already to be taken; None if the
            place is not there.
    """

    agent: int
    option: int
    capacity: dict[str, float]
    deadline_s: float | None
    power_limit_w: float | None
    cheaper_by: float | None

    def text(self, problem: Custom, state: CustomState) -> str:
        """One line, such as "on gpu-1 if its capacity were 12.4 units/s (now 10), or its deadline 3.1 s (now 2.5)"."""
        where = problem.option_name(self.option)
        if self.cheaper_by is not None:
            return f"on {where} if that were {self.cheaper_by:.4g} cheaper (there is room; opting out cost less)"
        ways = []
        for name, value in self.capacity.items():
            now = state.capacity[problem.resources.index(name)]
            ways.append(f"{name} had {value:.4g} units/s (now {now:.4g})")
        ways = [" and ".join(ways)] if ways else []
        if self.power_limit_w is not None:
            ways.append(f"its power limit were {self.power_limit_w:.4g} W (now {state.power_limit_w[self.agent]:.4g})")
        if self.deadline_s is not None:
            ways.append(f"its deadline were {self.deadline_s:.4g} s (now {state.deadline_s[self.agent]:.4g})")
        return f"on {where} if {', or '.join(ways)}" if ways else f"not on {where}: it is full and its wait too long"


def remedies(problem: Custom, state: CustomState, allocation: Any, prices: Any = None) -> dict[int, list[Remedy]]:
    """For each unserved agent, by priority, its options with what would admit it there, the smallest change first.

    An agent that may only opt out has an empty list. Each is checked in the tests by settling again with the change.
    """
    batch = problem.batch_of(state)
    option = np.asarray(allocation.option, np.int64)
    charged = prices if prices is not None else problem.prices_type()
    game = batch.single_game(charged) if allocation.game is None else allocation.game  # a fallback played none
    costs = game.costs(option)
    return {
        i: _for_agent(problem, state, allocation, batch, option, int(i), charged.margin, costs[i])
        for i in allocation.certificate.unserved
    }


def _for_agent(
    problem: Custom, state: CustomState, allocation: Any, batch: CustomBatch, option: Any, i: int, margin: float,
    costs: Float,
) -> list[Remedy]:  # fmt: skip
    found: list[tuple[float, Remedy]] = []
    for o in np.flatnonzero(batch.at["allowed"][0, i]):
        if o == 0:
            continue
        tried = option.copy()
        tried[i] = o
        resource, _, seconds, wait, need = (x[0] for x in batch._floors(tried[None], margin))
        held = np.asarray(allocation.served).copy()
        held[i] = False
        used = np.zeros(len(problem.resources))
        for s in range(resource.shape[1]):
            on = held & (resource[:, s] >= 0)
            np.add.at(used, resource[on, s], need[on, s])
        legs = resource[i] >= 0
        r = resource[i][legs]
        total = used[r] + need[i][legs]
        full = total > 1 + 1e-9
        whole = float(state.full_power_w[i, r].sum())
        hungry = whole > 0 and bool((need[i][legs] * whole > state.power_limit_w[i] * (1 + 1e-9)).any())
        if not full.any() and not hungry:
            gain = float(costs[o] - costs[option[i]])
            found.append((0.0, Remedy(i, int(o), {}, None, None, max(gain, 0.0))))
            continue
        reachable = bool(np.isfinite(total).all())
        capacity = {
            problem.resources[k]: float(state.capacity[k] * t) for k, t in zip(r[full], total[full], strict=True)
        }
        size = float(total[full].max(initial=1.0)) - 1 if reachable else np.inf
        power = float(need[i][legs].max() * whole) if hungry and reachable else None
        deadline = _deadline(
            seconds[i][legs], 1 - used[r], whole, float(state.power_limit_w[i]), float(wait[i]), margin
        )
        if not reachable:
            capacity = {}
        found.append((size, Remedy(i, int(o), capacity if not hungry else {}, deadline, power, None)))
    found.sort(key=lambda pair: (pair[1].cheaper_by is None, pair[0]))
    return [remedy for _, remedy in found]


def _deadline(seconds: Float, room: Float, whole: float, limit: float, wait: float, margin: float) -> float | None:
    """The deadline that an agent would meet with what is left, within its power limit; None if nothing is left."""
    share = np.minimum(room, limit / whole) if whole > 0 else room
    if (share <= 1e-9).any():
        return None
    needed = (wait + float((seconds / share).sum())) / margin
    return needed if needed < NO_DEADLINE else None
