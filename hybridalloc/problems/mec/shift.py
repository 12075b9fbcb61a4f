"""``mec`` under another law than the one trained in: what a robust trust rehearses, and the reality gap's test.

Nobody is told of the shift: beliefs, game and prior go on as they are, and see it only as far as reports show it.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from hybridalloc.problems.mec.belief import remember_plan
from hybridalloc.problems.mec.core import Outcome, Plan
from hybridalloc.problems.mec.world import MecWorld


class Shift(NamedTuple):
    """How a world differs from the one trained in; each a factor >= 1, at 1 nothing changes.

    Attributes:
        path_loss: of amplitudes, 2 is 6 dB. decorrelation: fading forgets in a slot what it did in as many.
        load: devices to the same servers. cpu: servers are slower. staleness: mean age of the reports, in slots:
            all of a slot's are lost with chance 1 - 1/staleness, and the last ones stand.
    """

    name: str
    path_loss: float = 1.0
    decorrelation: float = 1.0
    load: float = 1.0
    cpu: float = 1.0
    staleness: float = 1.0


SHIFTS = (
    Shift("as trained"), Shift("path loss + 6 dB", path_loss=2.0), Shift("correlation squared", decorrelation=2.0),
    Shift("load x 2", load=2.0), Shift("CPU / 2", cpu=2.0), Shift("reports two slots old", staleness=2.0),
)  # fmt: skip


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
