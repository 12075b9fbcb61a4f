"""What is decided where the slot's truth is told: gains, backlogs, and the interference of the plan itself.

It looks at one slot, so it bounds decisions that do; what a slot leaves to the next it knows no better than others.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from coordinator import Coordinator
from coordinator.coordinator import Situation
from coordinator.improve import Improve
from hybridalloc.problems.mec import climb
from hybridalloc.problems.mec.arrays import LEAST_RATE, Physics, Plan, Prices, World

THOUGHTS = 3  # of the plan's interference with itself
TO_REST = Improve(width=9, share=20.0, sweeps=20)
BELIEVED = ("mean_gain", "rate", "rates", "cpu_wait_s", "air_wait_s")


class Networks(climb.Networks, Situation, Protocol):
    """E networks that can be decided."""

    @property
    def world(self) -> World: ...

    @property
    def physics(self) -> Physics: ...

    def moved_on(self) -> None: ...


def clairvoyant(networks: Networks, prices: Prices, improve: Improve | None = TO_REST) -> Plan:
    """The plan of the game that is told the truth, improved until nothing changes; what is believed stays as it was."""
    w, p = networks.world, networks.physics
    coordinator = Coordinator("game", improve=improve)
    kept = {name: getattr(w, name).copy() for name in BELIEVED}
    bands, servers = w.rate.shape[2], w.server_hz.shape[1]
    per = max(bands // max(servers, 1), 1)
    rise = w.noise_rise.copy()
    w.mean_gain[:] = w.true_gain[:, :, ::per]
    w.cpu_wait_s[:], w.air_wait_s[:] = w.backlog_s, w.air_backlog_s
    plan = None
    try:
        for _ in range(THOUGHTS if p.interference else 1):
            gain = p.nominal_w * w.true_gain / (p.noise_w * (1.0 + rise[:, None, :]))
            w.rate[:] = p.band_hz * np.log2(1.0 + gain) + LEAST_RATE
            w.rates[:] = w.rate[..., None]
            networks.moved_on()
            plan = coordinator.settle(networks, coordinator.decide(networks, None, prices), prices)
            rise = climb.rises(networks, plan)
    finally:
        for name, values in kept.items():
            getattr(w, name)[:] = values
        networks.moved_on()
    assert plan is not None
    return plan
