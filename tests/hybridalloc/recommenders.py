"""Recommenders that a step must stand: noise, whatever is asked for, levels that are wished for."""

from __future__ import annotations

import numpy as np

from rl.proposal import Proposal


class Random:
    """A recommender that proposes noise of a given strength."""

    name = "noise"

    def __init__(self, seed: int, strength: float = 5.0) -> None:
        self.rng, self.strength = np.random.default_rng(seed), strength

    def propose(self, observation):
        return self.strength * self.rng.standard_normal(observation.allowed.shape)


class Broken(Random):
    def __init__(self, answer) -> None:
        self.answer = answer

    def propose(self, observation):
        return self.answer(observation)


class Wishful(Random):
    """Proposes options at random, and a power and a fraction with a given spread."""

    def __init__(self, spread: float) -> None:
        super().__init__(2)
        self.spread = spread

    def propose(self, observation):
        mean = np.broadcast_to([0.05, 0.7], (*observation.live.shape, 2)).copy()
        prior = super().propose(observation)
        return Proposal(prior, mean, np.full(mean.shape, self.spread), ("power", "fraction"))
