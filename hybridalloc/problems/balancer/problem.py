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
from games.congestion import Float, Int
from hybridalloc.data.requests import DATASET
from hybridalloc.errors import nearest
from hybridalloc.problems.balancer import play as compiled
from hybridalloc.problems.balancer.belief import OWN, VIEWS
from hybridalloc.problems.balancer.card import METRICS, PRICE_SPACE, RULES_BY_NAME, figures_of
from hybridalloc.problems.balancer.chance import Stream, stream_of
from hybridalloc.problems.balancer.rules import GAME, Room, Rule, new_room
from hybridalloc.problems.balancer.scorer import BalancerPrices
from hybridalloc.problems.balancer.sim import Law, Sim, Table, Trace, changed, new_sim
from hybridalloc.problems.balancer.state import BalancerState
from hybridalloc.problems.balancer.workload import (
    SCENARIOS,
    Episode,
    capacity_of,
    changes_of,
    classes_of,
    cut,
    drifting,
    expected_output,
    fleet_of,
    requests_of,
    trace_of,
)
from hybridalloc.problems.balancer.world import FAMILY, BalancerWorld, Routed
from hybridalloc.problems.contract import Card
from hybridalloc.problems.slots import Slots
from hybridalloc.problems.state import whole_number

AGES, MIXES, INDEXES = ("periodic", "fixed", "late"), ("mixed", "equal"), ("exact", "own")
HELD_OUT = 10_000  # seeds from here on are reported on
AHEAD = 64  # requests that are drawn to come after a state


@dataclass(frozen=True)
class Balancer(Slots[BalancerState, Routed, BalancerPrices]):
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

    scenario: str = "synthetic"
    replicas: int = 8
    dispatchers: int = 4
    mix: str = "mixed"
    load: float = 0.85
    report_s: float = 1.0
    ages: str = "periodic"
    told_tokens: bool = False
    belief: str = "blend"
    prefix_index: str = "exact"
    sticky: bool = False
    requests: int = 600
    batch: int = 1
    gather_s: float = 0.0
    hold_s: float = 0.1
    drift: bool = False
    failures_every_s: float = 0.0
    repair_s: float = 20.0
    detect_s: float = 0.5
    reward_first: float = 1.0
    reward_last: float = 0.05
    reward_fair: float = 0.1

    state_type: ClassVar[type[BalancerState]] = BalancerState

    def __post_init__(self) -> None:
        for name, known in (
            ("scenario", SCENARIOS), ("mix", MIXES), ("ages", AGES), ("belief", VIEWS), ("prefix_index", INDEXES),
        ):  # fmt: skip
            if getattr(self, name) not in known:
                raise nearest(f"{name} of balancer", str(getattr(self, name)), known)
        for name, most in (("replicas", 1000), ("dispatchers", 1000), ("requests", 100_000), ("batch", 100)):
            whole_number(name, getattr(self, name), 1, most)
        for name in ("load", "hold_s", "detect_s", "repair_s"):
            if not 0 < getattr(self, name) < 1e6:
                raise ValueError(f"{name} = {getattr(self, name)}; it must be > 0")
        for name in ("report_s", "gather_s", "failures_every_s", "reward_first", "reward_last", "reward_fair"):
            if not 0 <= getattr(self, name) < 1e6:
                raise ValueError(f"{name} = {getattr(self, name)}; it must be >= 0")
        if self.requests > len(requests_of(self.scenario).at) // 2:
            most = len(requests_of(self.scenario).at) // 2
            raise ValueError(f"requests = {self.requests}; half of the trace has {most:,}")

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
            baselines={name: label for name, (label, _) in RULES_BY_NAME.items()}, unit_s=1.0,
            datasets=(DATASET[self.scenario],) if real else (), tags={"scenario": self.scenario}, change_cost=0.0,
            whole_episodes=True, fleeting=True, events=True,
        )  # fmt: skip

    # --- what follows from the settings

    @cached_property
    def kind(self) -> Int:
        """(R,) class of each replica."""
        return classes_of(self.replicas, self.mix)

    @cached_property
    def fleet(self) -> Table:
        return fleet_of(self.scenario, self.kind)

    @cached_property
    def law(self) -> Law:
        period, late = self.report_s, 0.0
        if self.ages == "fixed":  # scraped eight times as often, and so late that the age is a period
            period, late = self.report_s / 8, self.report_s * (1 - 1 / 16)
        elif self.ages == "late":
            late = self.report_s / 2
        return Law(
            self.dispatchers, period, late, self.detect_s, self.hold_s, self.gather_s, self.prefix_index == "exact"
        )

    @property
    def belief_kind(self) -> int:
        return VIEWS.index(self.belief)

    @property
    def rules(self) -> dict[str, Rule]:
        """Routers of the field by name."""
        return {name: rule for name, (_, rule) in RULES_BY_NAME.items()}

    def fleet_like(self, state: BalancerState) -> Table:
        """The replicas of a state: this fleet's where there are as many, otherwise mid ones, strong as their shares."""
        r = len(state.share)
        fleet = self.fleet
        if r != self.replicas:
            fleet = fleet_of(self.scenario, np.ones(r, np.int64))
            fleet = changed(fleet, prefill=fleet.prefill * state.share * r)
        base = state.base_s / fleet.base_s
        return changed(
            fleet, share=state.share, kv=state.kv, base_s=state.base_s, request_s=fleet.request_s * base,
            token_s=fleet.token_s * base,
        )  # fmt: skip

    # --- episodes

    def episode(self, rng: np.random.Generator, held_out: bool) -> Sim:
        """An idle fleet before a stretch of the trace that is drawn, from its second half where ``held_out``."""
        plan = Episode(self.load, self.requests, held_out, float(rng.random()), self.sticky)
        trace = cut(self.scenario, plan, capacity_of(self.scenario, self.kind), self.dispatchers, rng)
        changes = self._changes(float(trace.arrival[-1]), rng)
        return new_sim(self.law, trace, self.fleet, rng, changes, expected_output(self.scenario))

    def _changes(self, until_s: float, rng: np.random.Generator) -> Table:
        rows: list[tuple[float, int, float]] = []
        if self.drift:
            wander = drifting(self.replicas, until_s, rng)
            rows += wander.tolist()
        if self.failures_every_s:
            down = np.zeros(self.replicas)  # until when each is
            t = rng.exponential(self.failures_every_s)
            while t < until_s:
                r = int(rng.integers(self.replicas))
                if down[r] < t:
                    down[r] = t + self.repair_s
                    rows += [(t, r, 0.0), (down[r], r, -1.0)]
                t += rng.exponential(self.failures_every_s)
        return changes_of(rows)

    def future(self, state: BalancerState, rng: np.random.Generator) -> Trace:
        """Requests that may come after a state, drawn from the first half of the trace."""
        q = requests_of(self.scenario)
        picked = rng.integers(0, len(q.at) // 2, AHEAD)
        gap = max(state.gap_s, 1e-3) / state.dispatchers
        at = state.time_s + np.cumsum(rng.exponential(gap, AHEAD))
        return trace_of(q, picked, at, rng.integers(0, state.dispatchers, AHEAD))

    def play(self, prices: BalancerPrices, seeds: Sequence[int]) -> dict[str, Float]:
        """Metrics (V,) by the card's keys of the game on whole episodes, compiled from end to end."""
        rows = []
        for seed in seeds:
            sim = self.episode(np.random.default_rng([int(seed), 1]), int(seed) >= HELD_OUT)
            room, stream = new_room(self.dispatchers, self.fleet.share), stream_of(int(seed), 5)
            self.play_on(sim, prices, room, stream, compiled.NOBODY, compiled.EVERYONE)
            rows.append(figures_of(sim))
        return {key: np.array([row[key] for row in rows]) for key in (rows[0] if rows else ())}

    def play_on(self, sim: Sim, prices: BalancerPrices, room: Room, stream: Stream, who: Int, most: int) -> None:
        """Decide by the game about the requests ``who`` (N,), and about ``most`` that come."""
        compiled.run(
            sim, Rule(GAME, 0.0, OWN), self.belief_kind, BalancerPrices(*map(float, prices)), self.told_tokens, room,
            stream, who, most, np.zeros(len(who), np.int64),
        )  # fmt: skip

    # --- the contract

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
