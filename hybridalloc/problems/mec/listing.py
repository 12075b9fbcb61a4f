"""A network at a state on short lists of options, as the coordinator asks for it."""

from __future__ import annotations

import numpy as np

from coordinator.shortlisted import Short
from games.congestion import Int
from hybridalloc.problems.mec.arrays import Physics, Prices, Seen
from hybridalloc.problems.mec.shortlist import features, put_rates, shortlist, told_of
from hybridalloc.problems.mec.standing import linear, plain, shown
from hybridalloc.problems.mec.state import MecState
from rl.proposal import Observation


def listed(physics: Physics, state: MecState, prices: Prices, classes: Int, width: int) -> tuple[Short, Seen]:
    """The lists, and what settling reads of the network: its rates are written on the links that were listed."""
    told = told_of(state)
    lists, serving, made = shortlist(physics, told, prices, classes, width)
    rate = np.zeros((1, *state.reported_gain_db.shape))  # of what is not listed nothing is written, nor kept
    put_rates(lists.who, lists.option, made.rate, rate[0])
    harms = physics.interference and physics.power_control and prices.interference > 0.0
    mean = linear(state.mean_gain_db) if harms else np.zeros((1, *state.mean_gain_db.shape))
    slim = Seen(
        **shown(state), mean_gain=mean, rates=rate[..., None], rate=rate, cpu_wait_s=plain(state.queue_s)[None],
        air_wait_s=plain(state.air_queue_s)[None],
    )  # fmt: skip

    def observe() -> Observation:
        agent, server, pair = features(physics, told, lists, made)
        live = np.ones((1, len(lists.who)), bool)
        return Observation(
            agent[None], server[None], pair[None], live, (lists.option >= 0)[None],
            np.maximum(lists.option - 1, -1)[None],
        )  # fmt: skip

    return Short(lists, serving if physics.floors else None, observe), slim
