"""``balancer``: requests to language models over replicas of unequal speed, on stale reports (seed 000).

D dispatchers each get a part of the traffic and send every request to one of R replicas, or hold it (option 0). A
replica batches continuously: prompts in chunks, one token of each running request an iteration, a KV memory that admits
and preempts, a cache of prefixes. Output lengths nobody knows. Dispatchers know their own requests exactly, of the
others' what replicas report every ``report_s``; capacities are known, speeds may drift, replicas fail.

Scenarios ``azure`` and ``mooncake`` are recorded traffic, ``synthetic`` needs no data. Seeds from 10000 on cut their
episodes from the second half of a trace, all others from the first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from games.certificate import CapacityCheck, check_limit
from games.congestion import Float
from hybridalloc.data.requests import DATASET
from hybridalloc.errors import nearest
from hybridalloc.problems.balancer import play as compiled
from hybridalloc.problems.balancer.card import (
    AS_PUBLISHED,
    BOUND,
    METRICS,
    PRICE_SPACE,
    RULES_BY_NAME,
    figures_of,
)
from hybridalloc.problems.balancer.chance import stream_of
from hybridalloc.problems.balancer.rules import new_room
from hybridalloc.problems.balancer.scorer import BalancerPrices
from hybridalloc.problems.balancer.setting import HELD_OUT, BalancerSetting
from hybridalloc.problems.balancer.state import BalancerState
from hybridalloc.problems.balancer.world import FAMILY, BalancerWorld, Routed
from hybridalloc.problems.contract import Card
from hybridalloc.problems.slots import Slots


@dataclass(frozen=True)
class Balancer(BalancerSetting, Slots[BalancerState, Routed, BalancerPrices]):
    """The problem with its settings; make it with ``make_problem("balancer", ...)``.

    Args:
        scenario: "synthetic", "azure" or "mooncake". replicas, dispatchers: how many. mix: "mixed", of eight two
            fast, four mid and two slow, or "equal". load: of the measured capacity.
        report_s: period of the dispatchers' scrapes, 0 for fresh reports. ages: "periodic" (0 to a period old),
            "fixed" (a period old, always) or "late" (periodic, and half a period late). told_tokens: reports tell
            waiting tokens.
        belief: what dispatchers make of reports: "report", "corrected", "own", "blend" or "learned".
        prefix_index: "exact" (told what is cached where) or "own" (each knows what it sent). sticky: a session's
            requests come to one dispatcher.
        requests: of an episode. batch: requests that one decision may be about. gather_s: dispatchers decide at
            multiples of it, 0: at once. hold_s: until one that is held is decided again.
        drift: speeds wander. failures_every_s: mean time between two failures, 0 for none; repair_s: how long one
            lasts; detect_s: until dispatchers know.
        reward_first, reward_last: cost of a second until the first and the last token; reward_fair: of the first one's
            square, so that a wait is shared.
    """

    state_type: ClassVar[type[BalancerState]] = BalancerState

    @cached_property
    def card(self) -> Card:
        real = self.scenario in DATASET
        space = PRICE_SPACE if self.drift else {name: span for name, span in PRICE_SPACE.items() if name != "speed"}
        return Card(
            "balancer", self.batch, self.requests, BalancerPrices, METRICS, ("ttft_p99", "ttft_mean"),
            variant=f"load {self.load:g}, reports {self.report_s:g} s",
            size=f"{self.replicas} replicas, {self.dispatchers} dispatchers, {self.scenario} requests",
            agent_word="request", families=(FAMILY,), price_space=space,
            options=("wait", *(f"replica {r}" for r in range(1, 1 + self.replicas))),
            baselines={name: label for name, (label, _) in RULES_BY_NAME.items()}, published=AS_PUBLISHED,
            bounds={BOUND: RULES_BY_NAME[BOUND][0]}, unit_s=1.0,
            datasets=(DATASET[self.scenario],) if real else (), tags={"scenario": self.scenario}, change_cost=0.0,
            whole_episodes=True, fleeting=True, events=True,
        )  # fmt: skip

    def play(self, prices: BalancerPrices, seeds: Sequence[int]) -> dict[str, Float]:
        """Metrics (V,) by the card's keys of the game on whole episodes, compiled from end to end."""
        rows = []
        for seed in seeds:
            sim = self.episode(np.random.default_rng([int(seed), 1]), int(seed) >= HELD_OUT)
            room, stream = new_room(self.dispatchers, self.fleet.share), stream_of(int(seed), 5)
            self.play_on(sim, prices, room, stream, compiled.NOBODY, compiled.EVERYONE)
            rows.append(figures_of(sim))
        return {key: np.array([row[key] for row in rows]) for key in (rows[0] if rows else ())}

    def worlds(self, seeds: Sequence[int], belief: None = None) -> BalancerWorld:
        """E = len(seeds) idle fleets before their first requests. What is believed is a setting."""
        if belief is not None:
            raise ValueError("balancer's belief is a setting: make_problem('balancer', belief='learned')")
        return BalancerWorld.fresh(self, seeds)

    def world_at(self, state: BalancerState, memory: None = None) -> BalancerWorld:
        """One fleet that stands at ``state``."""
        return BalancerWorld.of_state(self, state)

    def check(self, state: BalancerState, allocation: Any) -> CapacityCheck:
        """Feasibility from the definitions: to replicas that are up, with no more memory than a prompt takes."""
        option, share = np.asarray(allocation.option), np.asarray(allocation.shares[FAMILY], float)
        r = len(state.share)
        sent = option > 0
        there = np.zeros(len(option), bool)
        known = sent & (option <= r) & state.active
        there[known] = state.up[option[known] - 1]
        lines = []
        for i in np.flatnonzero((option != 0) & ~there):
            why = "it is down" if 0 < option[i] <= r else "there is no such replica"
            lines.append(f"request {i} takes option {option[i]}: {why if state.active[i] else 'it does not wait'}")
        fair = np.zeros(len(option))
        fair[there] = np.minimum(state.prompt[there] / state.kv[option[there] - 1], 1.0)
        own = check_limit("memory of a prompt", share, fair)
        return CapacityCheck(np.inf if lines else own.max_violation, (*lines, *own.violations))


def make(scenario: str = "synthetic", **settings: Any) -> Balancer:
    """``make_problem("balancer", ...)``: a scenario with settings of :class:`Balancer`.

    Raises:
        UnknownNameError: no such scenario or setting. ValueError: a setting out of range. DataError: no trace at hand.
    """
    known = [name for name in Balancer.__dataclass_fields__ if name != "state_type"]
    for name in settings:
        if name not in known:
            raise nearest("setting of balancer", name, known)
    for name, value in settings.items():
        like = Balancer.__dataclass_fields__[name].default
        if isinstance(like, float) and isinstance(value, int) and not isinstance(value, bool):
            settings[name] = float(value)
        elif type(value) is not type(like):
            raise ValueError(f"{name} = {value!r}; it must be like {like!r}")
    return Balancer(scenario, **settings)
