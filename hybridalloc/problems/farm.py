"""A worked example of a world of one's own for the ``custom`` problem: copy it and change what moves.

Tenants send jobs to the nodes of a small farm, step after step. A node that is not done when the step ends makes the
next step's jobs wait: so crowding a node costs others later, which the one-step game does not see and a learner can.

    problem = make_problem("custom", transition=Farm(tenants=8, nodes=3))
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from hybridalloc.problems.custom.problem import CustomState

SIZES = ((1.0, 4.0), (1.0, 2.0), (4.0, 10.0))  # work, units; deadline, s; a node's speed, units/s


@dataclass(frozen=True)
class Farm:
    """Settings only: what moves is in the state, so many farms can be stepped side by side."""

    tenants: int = 8
    nodes: int = 3
    step_s: float = 1.0
    load: float = 0.8  # chance that a tenant has a job

    def reset(self, seed: int) -> CustomState:
        """Idle nodes and the first jobs."""
        rng = np.random.default_rng(seed)
        return self._jobs(rng, np.zeros(self.nodes), rng.uniform(*SIZES[2], self.nodes))

    def advance(self, state: CustomState, allocation: Any, rng: np.random.Generator) -> CustomState:
        """New jobs; a node's wait is what its last job still takes."""
        wait = np.zeros(self.nodes)
        for option, seconds in zip(allocation.option, allocation.time_s, strict=True):
            if option > 0:
                wait[option - 1] = max(wait[option - 1], seconds - self.step_s)
        return self._jobs(rng, np.minimum(wait, 2 * self.step_s), state.capacity)

    def reward(self, state: CustomState, allocation: Any) -> np.ndarray:
        """1 for a job done in time, less a tenth of the deadlines it took."""
        took = np.where(np.isfinite(allocation.time_s), allocation.time_s / state.deadline_s, 0.0)
        return state.active * (allocation.served - 0.1 * np.minimum(took, 3.0))

    def _jobs(self, rng: np.random.Generator, wait: np.ndarray, speed: np.ndarray) -> CustomState:
        work = rng.uniform(*SIZES[0], self.tenants)
        return CustomState(
            work=np.repeat(work[:, None], self.nodes, axis=1), capacity=speed, wait_s=wait,
            deadline_s=rng.uniform(*SIZES[1], self.tenants), opt_out_cost=np.full(self.tenants, 1.5),
            active=rng.random(self.tenants) < self.load,
        )  # fmt: skip
