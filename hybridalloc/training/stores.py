"""What is left in a store, learned from coupled roll-outs of the policy that will use it; see :mod:`rl.value`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy
from typing import Any, NamedTuple

import numpy as np

from coordinator import Coordinator
from hybridalloc.limits import check_values
from hybridalloc.problems.contract import AnyProblem, Belief, Prices, Stores
from hybridalloc.problems.stores import check_stores
from hybridalloc.training.rollout import Execute, Rollout
from rl.policy import ArrayPolicy, Carried
from rl.proposal import Recommender
from rl.value import Samples, StoreValue, Valuer

NETWORKS, ROUNDS, SEGMENTS, LENGTH = 96, 3, 8, 120


class LearnedValue(NamedTuple):
    """A value and how it was come by.

    Attributes:
        samples, explained: of each round, how many it was fitted on, and the share of the squares of those held out
            that it explains. decisions: of one world, executed in all.
    """

    value: StoreValue
    samples: tuple[int, ...]
    explained: tuple[float, ...]
    decisions: int


class _Copies:
    """Two copies of the same worlds under one policy and the same random numbers."""

    def __init__(
        self, problem: AnyProblem, prices: Prices, coordinator: Coordinator, seeds: Sequence[int],
        recommender: Recommender | None, belief: Belief | None, value: Valuer | None, part: float, seed: int,
    ) -> None:  # fmt: skip
        run = lambda: Rollout(problem, seeds, None if belief is None else belief.copy(False), value=value)
        self.first, self.second = run(), run()
        one, two = self.first.world, self.second.world
        check_stores(problem)
        assert isinstance(one, Stores) and isinstance(two, Stores)
        self.stores: tuple[Stores, Stores] = (one, two)
        self.prices, self.part, self.rng = prices, part, np.random.default_rng([seed, 43])
        speakers = (recommender.carrying() if isinstance(recommender, ArrayPolicy) else recommender for _ in "ab")
        self.policies = [Execute(coordinator, speaker, prices) for speaker in speakers]
        self._left: dict[str, Any] = {}

    def segment(self, length: int) -> tuple[Any, tuple[Any, Any, Any, Any]]:
        """Run on; in the last decision, once it is executed, the copies become alike but for the stores redrawn.

        Returns:
            (E, N) how much more was earned in the second copy; and of the new beginning who was redrawn (E, N), the
            features (E, N, F), and the shares in the stores of either copy (E, N).
        """
        gained: Any = 0.0
        alive = np.ones((self.first.world.size, 1), bool)
        self.first.world.epoch[:] = self.second.world.epoch[:] = 0
        redrawn: list[Any] = []
        features: Any = None

        def leave() -> None:
            self._left = self.first.world.state_dict()

        def part_ways() -> None:
            self.second.world.load_state_dict(self._left)
            self.policies[1].recommender = copy(self.policies[0].recommender)
            at = self.stores[1].stored()
            hit = self.rng.random(at.level.shape) < self.part
            level = np.where(hit, self.rng.random(at.level.shape) * at.capacity, at.level)
            self.stores[1].refill(level)
            after = self.stores[1].stored().level  # a store may hold whole units alone
            redrawn.extend((hit, features, at.level / at.capacity, after / at.capacity))

        for slot in range(length):
            last = slot == length - 1
            if last:
                features = self.stores[0].stored().features
            one = self.first.step(self.policies[0], self.prices, after=leave if last else None)
            two = self.second.step(self.policies[1], self.prices, after=part_ways if last else None)
            gained = gained + np.where(alive, two.facts.reward - one.facts.reward, 0.0)
            over = one.over | two.over
            alive &= ~over[:, None]
            for policy in self.policies:
                if over.any() and isinstance(policy.recommender, Carried):
                    policy.recommender.reset(over)
        hit, seen, before, after = redrawn
        return gained, (hit, seen, before, after)


def coupled(
    problem: AnyProblem, prices: Prices, coordinator: Coordinator, seeds: Sequence[int], *,
    recommender: Recommender | None = None, belief: Belief | None = None, value: Valuer | None = None,
    segments: int = SEGMENTS, length: int = LENGTH, part: float = 0.5, seed: int = 0,
) -> Samples:  # fmt: skip
    """Run two copies of the same worlds under one policy and the same random numbers; at the beginning of each segment
    the second becomes the first, but for the stores of some agents, which are redrawn between empty and full.

    Args:
        seeds: one a world. value: that the policy goes by; None: a price of the problem's own. segments: after a first
            one in which the worlds settle. length: decisions of a segment: what the copies earn apart later is not
            seen. part: chance that an agent's store is redrawn.

    Returns:
        one sample of every agent whose store was redrawn, a segment; up to the end of an episode where one ends.

    Raises:
        ValueError: the worlds have no stores; ``length`` or ``segments`` < 1.
    """
    check_values(length=length, segments=segments, seed=seed)
    copies = _Copies(problem, prices, coordinator, seeds, recommender, belief, value, part, seed)
    found: list[Samples] = []
    _, begun = copies.segment(length)
    for _ in range(segments):
        hit, features, before, after = begun
        gained, begun = copies.segment(length)
        found.append(Samples(features[hit], before[hit], after[hit], gained[hit]))
    return together(found)


def together(samples: Sequence[Samples]) -> Samples:
    """All of them, in turn."""
    return Samples(*(np.concatenate(parts) for parts in zip(*samples, strict=True)))


def learn_value(
    problem: AnyProblem, prices: Prices, coordinator: Coordinator | None = None, *,
    recommender: Recommender | None = None, belief: Belief | None = None, networks: int = NETWORKS,
    rounds: int = ROUNDS, segments: int = SEGMENTS, length: int = LENGTH, seed: int = 0,
    report: Callable[[int, int, float], None] | None = None,
) -> LearnedValue:  # fmt: skip
    """The value of what is left under the policy that goes by it: a round under the problem's own constant price, then
    rounds under the value found so far, each fitted on its own samples, from the third on also on the last round's.

    Args:
        coordinator: that decides; None: the game alone. networks: worlds of a round, fresh in each. report: called
            with the round, the samples fitted on, and the share of held-out squares explained.

    Raises:
        ValueError: the problem has no stores, or a count is out of its range.
    """
    check_stores(problem)
    check_values(networks=networks, rounds=rounds, segments=segments, length=length, seed=seed)
    played = Coordinator("game") if coordinator is None else coordinator
    rng = np.random.default_rng([seed, 44])
    value: StoreValue | None = None
    samples: Samples | None = None
    counts, explained = [], []
    for k in range(rounds):
        seeds = rng.integers(0, 2**31, networks).tolist()
        new = coupled(
            problem, prices, played, seeds, recommender=recommender, belief=belief, value=value, segments=segments,
            length=length, seed=seed + 1000 * k,
        )  # fmt: skip
        samples = new if samples is None or k < 2 else together([samples, new])
        value = StoreValue(new.features.shape[-1], seed=seed + k)
        counts.append(len(samples.gained))
        explained.append(value.fit(samples, seed=seed + k))
        if report is not None:
            report(k + 1, counts[-1], explained[-1])
    assert value is not None  # of at least one round
    decisions = 2 * rounds * networks * length * (segments + 1)
    return LearnedValue(value, tuple(counts), tuple(explained), decisions)
