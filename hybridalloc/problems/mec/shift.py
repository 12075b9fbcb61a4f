"""``mec`` under another law than the one trained in: what a robust trust rehearses, and the reality gap's test.

Nobody is told of the shift: beliefs, game and prior go on as they are, and see it only as far as reports show it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hybridalloc.problems.mec.belief import Belief, remember_plan
from hybridalloc.problems.mec.core import Outcome, Plan
from hybridalloc.problems.mec.problem import Mec, MecBatch
from hybridalloc.problems.mec.whatif import Shift


@dataclass(frozen=True)
class ShiftedMec(Mec):
    """The problem with its simulator's law shifted; ``shift.load`` is in ``agents`` already."""

    shift: Shift = Shift("as trained")

    def batch(self, seeds: Sequence[int], belief: Belief | None = None) -> MecBatch:
        batch = LateBatch.fresh(self, seeds)
        w, s = batch.world, self.shift
        for gain in (w.mean_gain, w.reported_gain, w.true_gain):
            gain[:] /= s.path_loss**2
        w.correlation[:] **= s.decorrelation
        w.server_hz[:] /= s.cpu
        return batch.attach(belief)


class LateBatch(MecBatch):
    """Networks whose reports get lost, in all of them at once; a belief learns nothing in a slot without reports."""

    def execute(self, plan: Plan, raw: Any = None) -> Outcome:
        staleness = self.problem.shift.staleness  # type: ignore[attr-defined]
        draw = np.random.default_rng([*self.stream[0].tolist(), 9]).random()  # the same whatever was executed
        if draw >= 1 - 1 / staleness:
            return super().execute(plan, raw)
        w, belief = self.world, self.belief
        kept = [(a, a.copy()) for a in (w.reported_gain, w.queue_s, w.air_queue_s, w.noise_rise)]
        self.belief = None
        out = super().execute(plan, raw)
        self.belief = belief
        for reports, last in kept:
            reports[:] = last
        if belief is not None:
            remember_plan(self.physics, w, self.history, plan)
        return out


def shifted(problem: Mec, shift: Shift) -> ShiftedMec:
    """``problem`` in another world.

    Raises:
        ValueError: a factor below 1.
    """
    for name, factor in shift._asdict().items():
        if name != "name" and not factor >= 1:
            raise ValueError(f"{name} = {factor}; a shift is a factor >= 1, at 1 nothing changes")
    agents = round(problem.agents * shift.load)
    return ShiftedMec(agents, problem.servers, problem.sites, problem.scenario, shift)
