"""Who could not be served in a custom problem, and the smallest changes that would admit each.

An agent is left out because on every option that it accepts too little is left beside the floors that come before its
own: where places were given (the hybrid and the game) those of its own class and those above, where none were (RL
alone, heuristics) those of all who are served. So the capacity, the deadline and the power limit with which it would
fit beside them have closed forms, and they are what is tried first; :mod:`hybridalloc.problems.knobs` solves again.

Where places were given what is stated is the least change with which the agent is served and takes no place from its
own class or above, both from the present answer and in a whole new decision, which may pack otherwise. Where less
would do if one of those went (an equal that needs more), that is stated too, after the others. Who loses a place is
named. A higher priority is one more way, and comes last.

Where none were given everyone keeps its option, who is served comes first, and each change is of one option: the agent
is served if it takes that one. Where there is room already it is told by how much that option is the dearer. With
options of several resources a newcomer may make another late all the same: nobody holds a place there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from coordinator.congestion import Congestion
from coordinator.tables import enough
from games.congestion import Float, Int
from hybridalloc.problems.contract import Knob
from hybridalloc.problems.custom.setting import CustomSetting
from hybridalloc.problems.custom.shares import floors_of
from hybridalloc.problems.custom.state import NO_DEADLINE, CustomPrices, CustomState, default_delay_cost
from hybridalloc.problems.custom.world import CustomWorld
from hybridalloc.problems.knobs import Again, Way, changed, ranks_above, words

WAYS = 3  # remedies shown of one agent, a higher priority beside them, and twice as many where each is of one option
LARGE = 30_000  # pairs of an agent and an option: where there are more only one is shown, as each is solved for


@dataclass(frozen=True)
class Remedy:
    """One change that would admit one unserved agent, and on which option.

    Attributes:
        capacity: by resource name, units/s at which its floors fit, together; empty where capacity is not the change.
        deadline_s: that the room left would meet, or None. power_limit_w: needed, or None.
        cheaper_by: how much cheaper the option must become for a place that is there already to be taken, or None.
        priority: the least that would admit it, or None. instead: agents that then lose their places.
        again: solved again as it is, it is served there: the search for room had stopped short of it.
        row: the same as ``why`` tells it: ``knob``, ``option``, ``now``, ``needed``, ``factor`` and ``text``.
    """

    agent: int
    option: int
    capacity: dict[str, float]
    deadline_s: float | None
    power_limit_w: float | None
    cheaper_by: float | None
    priority: float | None = None
    instead: tuple[int, ...] = ()
    again: bool = False
    row: dict[str, Any] = field(default_factory=dict, repr=False)

    def ways(self, problem: CustomSetting, state: CustomState) -> list[dict[str, Any]]:
        """The change as rows of ``knob``, ``now``, ``needed``, ``factor`` and ``text``: one."""
        return [self.row]

    def text(self, problem: CustomSetting, state: CustomState) -> str:
        """One line, such as "on gpu-1 if its deadline were 3.1 s (now 2.5)"."""
        return str(self.row["text"])


def remedies(
    problem: CustomSetting, state: CustomState, allocation: Any, prices: CustomPrices | None = None,
    agents: Sequence[int] | None = None, most: int | None = None,
) -> dict[int, list[Remedy]]:  # fmt: skip
    """For each unserved agent, by priority, what would admit it, the smallest change first.

    Only what was found to help is named, where places were given by a whole new decision; what takes a place from its
    own class or above comes after the rest, a higher priority last. An agent that nothing was found for has an empty
    list, as one that may only opt out.

    Args:
        agents: of the unserved, those asked about; all by default. most: remedies for each at most, a higher priority
            not counted; twice as many ways are tried, those that by their closed forms change the least. None for all.
    """
    charged = prices if prices is not None else CustomPrices()
    asked = [int(i) for i in allocation.certificate.unserved if agents is None or i in agents]
    ways = {i: problem.ways(Again(problem, allocation, i, charged), state, most) for i in asked}
    return {i: [_remedy(problem, state, i, way) for way in found] for i, found in ways.items()}


def _remedy(problem: CustomSetting, state: CustomState, i: int, way: Way) -> Remedy:
    name = way.knob.name
    named = lambda knob: float(way.value) if name == knob else None
    return Remedy(
        i, way.option, way.needed if name == "capacity" else {}, named("deadline_s"), named("power_limit_w"),
        named("private_cost"), named("priority"), way.answer.lost, name == "again", problem.row(state, way),
    )  # fmt: skip


def ways_shown(problem: CustomSetting, allocation: Any) -> int:
    """How many remedies of one agent are worked out for people."""
    large = len(allocation.option) * (len(problem.options) + 1) > LARGE
    return 1 if large else WAYS if allocation.seated else 2 * WAYS


@dataclass(frozen=True)
class _Lack:
    """What one agent lacks on one option: S legs with work there."""

    option: int
    resource: Int  # (S,)
    seconds: Float  # (S,) s alone
    used: Float  # (S,) floors that it leaves alone
    draw_w: float  # at full shares
    limit_w: float
    deadline_s: float
    slack: float
    margin: float
    dear: float  # how much more it costs than opting out, alone; where no places were given, than what it has

    @property
    def cap(self) -> float:
        """Largest share of any leg that its power allows."""
        return self.limit_w / self.draw_w if self.draw_w > 0 else np.inf

    @property
    def share(self) -> Float:
        """(S,) what it could get."""
        return np.minimum(1.0 - self.used, self.cap)

    @property
    def fits(self) -> bool:
        return self.slack > 0 and bool((self.share > 1e-9).all()) and self.time(self.share) <= self.slack

    def time(self, share: Float) -> float:
        """s that the legs take with ``share`` (S,)."""
        return float((self.seconds / share).sum())

    def growth(self) -> tuple[Int, float] | None:
        """Legs whose resources would have to grow, and by what factor: the leg that alone would have to grow the least;
        where no leg alone will do, all alike.

        With the capacity times k a leg takes seconds / k, and the others' floors there shrink to used / k: so its time
        is seconds / min(k - used, k cap), and of one leg alone the least k is max(used + need, need / cap), need =
        seconds over what the slack leaves for it.
        """
        every, able = np.arange(len(self.resource)), self.share > 1e-9
        if self.slack <= 0:
            return None
        times = np.where(able, self.seconds / np.where(able, self.share, 1.0), np.inf)
        alone = []
        for s in range(len(every)):
            left = self.slack - float(np.delete(times, s).sum())
            if left > 0:
                need = float(self.seconds[s]) / left
                alone.append((max(float(self.used[s]) + need, need / self.cap), s))
        if alone:
            factor, s = min(alone)
            return every[s : s + 1], factor
        time = lambda k: self.time(np.maximum(np.minimum(k - self.used, k * self.cap), 1e-300))
        low, high = 1.0, 2.0
        while time(high) > self.slack and high < 1e12:
            low, high = high, 2 * high
        while low < (low + high) / 2 < high:
            middle = (low + high) / 2
            low, high = (low, middle) if time(middle) <= self.slack else (middle, high)
        return every, high

    def later(self) -> float:
        """The deadline that it would meet with what is left, within its power limit; inf where nothing is left."""
        if (self.share <= 1e-9).any():
            return np.inf
        return self.deadline_s + (self.time(self.share) - self.slack) / self.margin

    def power(self) -> float:
        """The power limit with which the room would do; inf where power is not what lacks."""
        room = 1.0 - self.used
        if self.slack <= 0 or self.draw_w <= 0 or (room <= 1e-9).any() or self.time(room) > self.slack:
            return np.inf
        cap, order = 0.0, np.argsort(room)
        for k in range(len(order)):  # the narrowest legs keep their room, the rest are limited alike
            left = self.slack - float((self.seconds[order[:k]] / room[order[:k]]).sum())
            cap = float(self.seconds[order[k:]].sum()) / left
            if cap <= room[order[k]]:
                break
        return cap * self.draw_w


def knobs_of(
    problem: CustomSetting, state: CustomState, allocation: Any, i: int, prices: CustomPrices
) -> list[Knob[CustomState]]:  # fmt: skip
    """What may be turned for agent i, each with its closed form: where places were given the least over all options,
    and the priority; where none were, on each option."""
    lacks = _lacks(problem, state, allocation, i, prices)
    if not allocation.seated:
        rank = np.unique(state.priority, return_inverse=True)[1]
        order = np.where(allocation.served, rank + state.agents + 1.0, rank)  # who is served, the agent, the rest
        kept = replace(state, priority=changed(order, i, state.agents))
        cheaper = "what it has costs less" if allocation.option[i] else "opting out cost less"
        out = [_cheaper(problem, kept, i, lack, cheaper, exact=True) for lack in lacks if lack.fits]
        return out + [knob for lack in lacks for knob in _turns(problem, kept, i, [lack], lack.option)]
    out = [_cheaper(problem, state, i, lack) for lack in lacks if lack.fits]
    others = np.delete(state.priority, i)[np.delete(state.active, i)]
    own = float(state.priority[i])
    promoted = lambda priority: replace(state, priority=changed(state.priority, i, priority))
    return out + _turns(problem, state, i, [lack for lack in lacks if not lack.fits]) + [
        Knob(
            "priority", own, promoted, words("if its priority were {} (now {})", own),
            values=ranks_above(own, others, problem.priority_gap),
        )
    ]  # fmt: skip


def _cheaper(
    problem: CustomSetting,
    state: CustomState,
    i: int,
    lack: _Lack,
    cheaper: str = "opting out cost less",
    exact: bool = False,
) -> Knob[CustomState]:
    """The option that has room made cheaper; ``cheaper``: what is so now; ``exact``: settling does not read costs."""

    def turned(by: float) -> CustomState:
        shape = state.agents, 1 + len(problem.options)
        private = state.private_cost if state.private_cost.size else np.zeros(shape)
        allowed = state.allowed if state.allowed.size else np.ones(shape, bool)
        less = changed(private, (i, lack.option), private[i, lack.option] - by)
        return replace(state, private_cost=less, allowed=allowed)

    def said(needed: float) -> str:
        if needed == 0:
            return "as it is: there is room, and it costs no more than what it has"
        return f"if that were {enough(-needed, 0.0)[0]} cheaper (there is room; {cheaper})"

    return Knob(
        "private_cost", 0.0, turned, said, lambda by: 0.0 - by, guess=lack.dear, exact=exact, option=lack.option
    )


def _turns(
    problem: CustomSetting, state: CustomState, i: int, lacks: list[_Lack], option: int | None = None
) -> list[Knob[CustomState]]:
    """A later deadline, more power, more capacity: the least that any of ``lacks`` takes."""
    tau, limit = float(state.deadline_s[i]), float(state.power_limit_w[i])
    later = min((lack.later() for lack in lacks), default=np.inf)
    power = min((lack.power() for lack in lacks), default=np.inf)
    out = []
    if later < NO_DEADLINE:
        timed = words("if its deadline were {} s (now {})", tau)
        out.append(Knob("deadline_s", tau, lambda value: _later(state, i, value), timed, guess=later, option=option))
    if power < np.inf:
        more = lambda value: replace(state, power_limit_w=changed(state.power_limit_w, i, value))
        said = words("if its power limit were {} W (now {})", limit)
        out.append(Knob("power_limit_w", limit, more, said, guess=power, option=option))
    grown: dict[tuple[int, ...], float] = {}
    for lack in lacks:
        if (growth := lack.growth()) is not None:
            key = tuple(sorted(lack.resource[growth[0]].tolist()))
            grown[key] = min(grown.get(key, np.inf), growth[1])
    return out + [_larger(problem, state, list(resources), by, option) for resources, by in grown.items()]


def _later(state: CustomState, i: int, deadline: float) -> CustomState:
    """With another deadline; delay costs that are the default of the deadlines stay so."""
    deadlines, cost = changed(state.deadline_s, i, deadline), state.delay_cost
    if np.array_equal(cost, default_delay_cost(state.deadline_s)):
        cost = default_delay_cost(deadlines)
    return replace(state, deadline_s=deadlines, delay_cost=cost)


def _larger(
    problem: CustomSetting, state: CustomState, resources: list[int], guess: float, option: int | None
) -> Knob[CustomState]:
    """Resources that grow by one factor."""
    had = {problem.resources[r]: float(state.capacity[r]) for r in resources}

    def said(needed: dict[str, float]) -> str:
        pairs = {name: enough(value, had[name]) for name, value in needed.items()}
        return "if " + " and ".join(f"{name} had {much} units/s (now {was})" for name, (much, was) in pairs.items())

    grown = lambda by: replace(state, capacity=changed(state.capacity, resources, state.capacity[resources] * by))
    told = lambda by: {name: float(value * by) for name, value in had.items()}
    return Knob("capacity", 1.0, grown, said, told, guess, option=option)


def _lacks(problem: CustomSetting, state: CustomState, allocation: Any, i: int, prices: CustomPrices) -> list[_Lack]:
    """What agent i lacks on each option that it may take."""
    batch = CustomWorld.of_state(problem, state)
    game = batch.game(prices)
    places = batch.places(prices, game)
    option = np.asarray(allocation.option, np.int64)
    anchor = 0.0 if allocation.anchor is None else allocation.anchor[i]
    if allocation.seated:
        cost = game.private_cost[0, i] + anchor
        first = np.asarray(allocation.held) & (places.rank[0] <= places.rank[0, i])
        floor = batch.plan_of(allocation).floor[0]
    else:
        cost = Congestion(game).single(0).costs(option)[i]
        first = changed(np.asarray(allocation.served), i, False)
        floor = floors_of(batch, option[None], prices.margin)[4][0]
    has = float(cost[0 if allocation.seated else option[i]])
    used = np.zeros(len(problem.resources))
    legs = batch.rows[option]
    for s in range(legs.shape[1]):
        on = first & (legs[:, s] >= 0)
        np.add.at(used, legs[on, s], floor[on, s])
    found = []
    for o in np.flatnonzero(game.allowed[0, i])[1:]:
        busy = (batch.rows[o] >= 0) & (places.seconds[0, i, o] > 0)
        r, seconds = batch.rows[o][busy], places.seconds[0, i, o][busy]
        alone = float((game.weight[0, i, r] ** 2 / game.capacity[0, r]).sum()) if allocation.seated else 0.0
        found.append(_Lack(
            int(o), r, seconds, used[r], float(state.full_power_w[i, r].sum()), float(state.power_limit_w[i]),
            float(state.deadline_s[i]), float(places.slack[0, i, o]), prices.margin,
            max(float(cost[o]) + alone - has, 0.0),
        ))  # fmt: skip
    return found
