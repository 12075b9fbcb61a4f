"""Beliefs learned beside a game that explores, before anything is trained on them."""

from __future__ import annotations

from typing import Any

import numpy as np

from coordinator import Coordinator
from hybridalloc.problems.beliefs import make_belief
from hybridalloc.problems.contract import AnyProblem, Belief, Prices
from hybridalloc.training.config import TrainConfig
from hybridalloc.training.rollout import Explore, Rollout


def learn_belief(
    problem: AnyProblem, prices: Prices, config: TrainConfig, prior: Belief | None = None
) -> tuple[Any, int, int]:
    """A belief that has watched ``config.belief_steps`` of the game's own exploration; None where none is asked for.

    Args:
        prior: a belief to go on from, instead of a fresh one; it is left as it is.

    Returns:
        the belief, and how many allocations were executed and violated a limit.
    """
    if not config.belief:
        return None, 0, 0
    belief = prior.copy() if prior is not None else make_belief(problem, config.belief, config.seed)
    if not belief.learns or not config.belief_steps:
        return belief, 0, 0
    rng = np.random.default_rng([config.seed, 78])
    run = Rollout(problem, rng.integers(0, 2**31, config.networks), belief, spread=True)
    explore = Explore(Coordinator("hybrid", config.trust), prices, rng)
    for _ in range(-(-config.belief_steps // (config.networks * max(problem.card.agents, 1)))):
        run.step(explore, prices)
    return belief, run.allocations, run.violations
