"""Networks of ``mec`` under a shifted law."""

from __future__ import annotations

import numpy as np

from hybridalloc.problems.mec.arrays import Outcome, Plan
from hybridalloc.problems.mec.belief import remember_plan
from hybridalloc.problems.mec.shift import Shift
from hybridalloc.problems.mec.world import MecWorld


class LateWorld(MecWorld):
    """Networks under a shifted law. Reports get lost in all of them at once; a belief learns nothing in such a slot."""

    @property
    def shift(self) -> Shift:
        assert self.problem.shift is not None
        return self.problem.shift

    def _restart_one(self, e: int) -> None:
        super()._restart_one(e)
        w, s = self.world, self.shift
        for gain in (w.mean_gain, w.reported_gain, w.true_gain):
            gain[e] /= s.path_loss**2
        w.correlation[e] **= s.decorrelation
        w.server_hz[e] /= s.cpu

    def run(self, plan: Plan) -> Outcome:
        draw = np.random.default_rng([*self.stream[0].tolist(), 9]).random()  # the same whatever was executed
        if draw >= 1 - 1 / self.shift.staleness:
            return super().run(plan)
        w, belief = self.world, self.belief
        kept = [(a, a.copy()) for a in (w.reported_gain, w.queue_s, w.air_queue_s, w.noise_rise)]
        self.belief = None
        out = super().run(plan)
        self.belief = belief
        for reports, last in kept:
            reports[:] = last
        if belief is not None:
            remember_plan(self.physics, w, self.history, plan)
        return out
