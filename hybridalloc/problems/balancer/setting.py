"""Settings of ``balancer``, and what follows from them: the fleet, its law, episodes that are drawn and played."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from games.congestion import Int
from hybridalloc.errors import nearest
from hybridalloc.problems.balancer import play as compiled
from hybridalloc.problems.balancer.belief import OWN, VIEWS
from hybridalloc.problems.balancer.card import RULES_BY_NAME
from hybridalloc.problems.balancer.chance import Stream
from hybridalloc.problems.balancer.rules import GAME, Room, Rule
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
from hybridalloc.problems.state import whole_number

AGES, MIXES, INDEXES = ("periodic", "fixed", "late"), ("mixed", "equal"), ("exact", "own")
HELD_OUT = 10_000  # seeds from here on are reported on
AHEAD = 64  # requests that are drawn to come after a state


@dataclass(frozen=True)
class BalancerSetting:
    """Settings of :class:`hybridalloc.problems.balancer.problem.Balancer`, which says what they mean."""

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

    def play_on(self, sim: Sim, prices: BalancerPrices, room: Room, stream: Stream, who: Int, most: int) -> None:
        """Decide by the game about the requests ``who`` (N,), and about ``most`` that come."""
        compiled.run(
            sim, Rule(GAME, 0.0, OWN), self.belief_kind, BalancerPrices(*map(float, prices)), self.told_tokens, room,
            stream, who, most, np.zeros(len(who), np.int64),
        )  # fmt: skip
