"""Who could not be served in a custom problem, and the smallest changes that would admit each.

Where places were given (the hybrid and the game), an agent is left out because on every option that it accepts too
little is left beside the floors of its own class and those above. So the capacity, the deadline and the power limit
with which it would fit beside them have closed forms. What is stated is the least change with which stable admission,
solved again from the present choice, serves the agent and takes no place from its own class or above; a hair short of
it that is not so. Where less would do if one of those went (an equal that needs more), that is stated too, after the
others. Who loses a place is named. A higher priority is one more way, and comes last.

Where none were given (RL alone, heuristics) the floors of those who are served are kept, and what is said is the
capacity at which its own floor fits too, the deadline that the room left would meet, the power limit it would need, or,
where it fits already and opting out was cheaper, by how much.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from coordinator.coordinator import game_of
from coordinator.tables import enough
from games.congestion import Float, Int
from hybridalloc.problems.custom.state import NO_DEADLINE, CustomPrices, CustomState, default_delay_cost
from hybridalloc.problems.knobs import FINE, Again, Answer, first, least, ranks_above
from hybridalloc.text import printable

if TYPE_CHECKING:
    from hybridalloc.problems.custom.problem import Custom
    from hybridalloc.problems.custom.world import CustomWorld

WAYS = 3  # remedies shown of one agent, a higher priority beside them: each is solved for, so one
LARGE = 30_000  # where there are more pairs of an agent and an option than this


@dataclass(frozen=True)
class Remedy:
    """What would admit one unserved agent, and on which option; each way alone, but capacities together. Where places
    were given a remedy has one way.

    Attributes:
        capacity: by resource name, units/s at which every floor fits; empty where capacity is not what lacks.
        deadline_s: that the room left would meet; None where there is none. power_limit_w: needed, or None.
        cheaper_by: how much cheaper the option must become for a place that is there already to be taken; None if the
            place is not there.
        priority: the least that would admit it. instead: agents that then lose their places.
        again: solved again as it is, it is served there: the search for room had stopped short of it.
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

    def ways(self, problem: Custom, state: CustomState) -> list[dict[str, Any]]:
        """Each way as ``knob``, ``now``, ``needed``, ``factor`` and ``text``, the smallest factor first."""
        where, i = f"on {problem.option_name(self.option)}", self.agent
        rows: list[dict[str, Any]] = []

        def add(knob: str, now: Any, needed: Any, factor: float, text: str) -> None:
            rows.append({"knob": knob, "option": self.option, "now": now, "needed": needed, "factor": factor,
                         "text": f"{where} {text}{instead}"})  # fmt: skip

        named = ", ".join(state.label(j) for j in self.instead[:3]) + (" ..." if len(self.instead) > 3 else "")
        instead = f", in place of {named}" if named else ""
        if self.again:
            text = "when solved again from this answer: the search for room had stopped short of it"
            add("again", 0, 1, np.nan, text)
        if self.cheaper_by is not None:
            text = f"if that were {enough(self.cheaper_by, 0.0)[0]} cheaper (there is room; opting out cost less)"
            add("private_cost", 0.0, -self.cheaper_by, np.nan, text)
        if self.capacity:
            now = {name: float(state.capacity[problem.resources.index(name)]) for name in self.capacity}
            said = {name: enough(value, now[name]) for name, value in self.capacity.items()}
            had = " and ".join(f"{name} had {needed} units/s (now {was})" for name, (needed, was) in said.items())
            add("capacity", now, self.capacity, max(v / now[n] for n, v in self.capacity.items()), f"if {had}")
        for knob, value, what, unit in (
            ("power_limit_w", self.power_limit_w, "power limit", "W"), ("deadline_s", self.deadline_s, "deadline", "s"),
        ):  # fmt: skip
            if value is not None:
                had_now = float(getattr(state, knob)[i])
                needed, was = enough(value, had_now)
                add(knob, had_now, value, value / had_now, f"if its {what} were {needed} {unit} (now {was})")
        if self.priority is not None:
            needed, was = enough(self.priority, float(state.priority[i]))
            text = f"if its priority were {needed} (now {was})"
            add("priority", float(state.priority[i]), self.priority, np.nan, text)
        return sorted(rows, key=lambda row: np.inf if np.isnan(row["factor"]) else row["factor"])

    def text(self, problem: Custom, state: CustomState) -> str:
        """One line, such as "on gpu-1 if its deadline were 3.1 s (now 2.5), or if gpu-1 had 12.4 units/s (now 10)"."""
        where = f"on {problem.option_name(self.option)}"
        ways = [way["text"].removeprefix(f"{where} ") for way in self.ways(problem, state)]
        return f"{where} {', or '.join(ways)}" if ways else f"not {where}: it is full and its wait too long"


def remedies(
    problem: Custom, state: CustomState, allocation: Any, prices: Any = None, agents: Sequence[int] | None = None,
    most: int | None = None,
) -> dict[int, list[Remedy]]:  # fmt: skip
    """For each unserved agent, by priority, what would admit it, the smallest change first.

    Where places were given only what was found to help is named; what takes a place from its own class or above comes
    after the rest, a higher priority last. An agent that nothing was found for has an empty list, as one that may only
    opt out.

    Args:
        agents: of the unserved, those asked about; all by default. most: remedies for each at most, a higher priority
            not counted; twice as many ways are tried, those that by their closed forms change the least. None for all.
    """
    batch = problem.world_at(state)
    option = np.asarray(allocation.option, np.int64)
    charged = prices if prices is not None else CustomPrices()
    asked = [int(i) for i in allocation.certificate.unserved if agents is None or i in agents]
    if allocation.seated:
        return {i: _left_out(problem, state, allocation, batch, i, charged, most) for i in asked}
    game: Any = (
        game_of(batch.game(charged)).single(0) if allocation.game is None else allocation.game
    )  # a fallback played none
    costs = game.costs(option)
    return {i: _for_agent(problem, state, allocation, batch, option, i, charged.margin, costs[i])[:most] for i in asked}


def ways_in(
    problem: Custom, state: CustomState, allocation: Any, agent: int, prices: Any
) -> tuple[dict[str, Any], ...]:
    """What would admit one unserved agent, one row a way: ``knob``, ``option``, ``now``, ``needed``, ``factor``,
    ``text``; as many as are shown and a higher priority, in the order of :func:`remedies`."""
    most = ways_shown(problem, allocation)
    found = remedies(problem, state, allocation, prices, (agent,), most).get(agent, [])
    rows = [way for remedy in found for way in remedy.ways(problem, state)]
    return tuple(row | {"text": printable(row["text"], 300)} for row in rows)


def ways_shown(problem: Custom, allocation: Any) -> int:
    """How many remedies of one agent are worked out for people."""
    return WAYS if len(allocation.option) * (len(problem.options) + 1) <= LARGE else 1


# --- where places were given


@dataclass(frozen=True)
class _Lack:
    """What one agent lacks on one option: S legs with work there."""

    option: int
    resource: Int  # (S,)
    seconds: Float  # (S,) s alone
    used: Float  # (S,) floors of its own class and those above
    draw_w: float  # at full shares
    limit_w: float
    deadline_s: float
    slack: float
    margin: float
    dear: float  # how much more it costs, alone, than opting out

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


def _left_out(
    problem: Custom, state: CustomState, allocation: Any, batch: CustomWorld, i: int, prices: Any, most: int | None
) -> list[Remedy]:
    """Remedies of one agent, each tried by solving again."""
    again = Again(problem, allocation, i, prices)
    answer = again.solve(state)
    if answer.served:
        return [Remedy(i, answer.option, {}, None, None, None, instead=answer.lost, again=True)]
    trials = sorted(_trials(state, _lacks(problem, state, allocation, batch, i, prices), i), key=_Trial.size)
    trials = trials[: None if most is None else 2 * most]
    found: list[tuple[bool, bool, float, int, Remedy]] = []
    enough = lambda key: most is not None and len(found) >= most and sorted(found)[most - 1][:3] <= key
    limit = [np.inf] * len(trials)  # what each takes if it is to harm nobody
    for harmless in (True, False):
        for k, trial in enumerate(trials):
            if enough((not harmless, *trial.size())):
                break
            value = least(partial(_does, problem, state, again, trial, harmless), trial.now, trial.guess)
            if value is None or value >= limit[k] * (1 - FINE):
                continue
            limit[k] = value
            answer = again.solve(trial.state(problem, state, value))
            size = trial._replace(guess=value).size()
            found.append((answer.harms, *size, len(found), trial.remedy(problem, state, i, value, answer)))
    best = [entry[-1] for entry in sorted(found)][:most]
    promoted = lambda p: replace(state, priority=_set(state.priority, i, p))
    others = np.delete(state.priority, i)[np.delete(state.active, i)]
    higher = ranks_above(float(state.priority[i]), others, problem.priority_gap)
    priority = first(lambda p: again.solve(promoted(p)).served, higher)
    if priority is not None:
        answer = again.solve(promoted(priority))
        best.append(Remedy(i, answer.option, {}, None, None, None, priority, answer.lost))
    return best


class _Trial(NamedTuple):
    """One way to try: an entry ``at`` of a ``field`` of the state is set to a value (deadline, power), multiplied by it
    (capacity) or lowered by it (private cost). Delay costs that are the default of the deadlines stay so."""

    field: str
    at: Any
    now: float
    guess: float

    def size(self) -> tuple[bool, float]:
        """To sort by: what only has to be cheaper first, by how much; then by the factor."""
        return (self.now > 0, self.guess / self.now if self.now > 0 else self.guess)

    def state(self, problem: Custom, state: CustomState, value: float) -> CustomState:
        """The state with the change."""
        values = getattr(state, self.field)
        if not values.size:
            values = np.zeros((state.agents, len(problem.options) + 1))
        to: Any = value
        if self.field == "capacity":
            to = values[self.at] * value
        elif self.field == "private_cost":
            to = values[self.at] - value
        change: dict[str, Any] = {self.field: _set(values, self.at, to)}
        if self.field == "deadline_s" and np.array_equal(state.delay_cost, default_delay_cost(state.deadline_s)):
            change["delay_cost"] = default_delay_cost(change["deadline_s"])
        return replace(state, **change)

    def remedy(self, problem: Custom, state: CustomState, i: int, value: float, answer: Answer) -> Remedy:
        """What is said of the change."""
        grown = {problem.resources[r]: float(state.capacity[r] * value) for r in self.at if self.field == "capacity"}
        named = lambda field: value if self.field == field else None
        option = self.at[1] if self.field == "private_cost" else answer.option
        return Remedy(
            i, option, grown, named("deadline_s"), named("power_limit_w"), named("private_cost"), instead=answer.lost
        )  # fmt: skip


def _does(problem: Custom, state: CustomState, again: Again, trial: _Trial, harmless: bool, value: float) -> bool:
    """Whether the agent is served with the change; ``harmless``: and none of its class or above loses a place."""
    answer = again.solve(trial.state(problem, state, value))
    return answer.served and not (harmless and answer.harms)


def _trials(state: CustomState, lacks: list[_Lack], i: int) -> list[_Trial]:
    """The ways to try for agent i, each with its closed form as the guess."""
    full = [lack for lack in lacks if not lack.fits]
    later = min((lack.later() for lack in full), default=np.inf)
    power = min((lack.power() for lack in full), default=np.inf)
    out = [_Trial("private_cost", (i, lack.option), 0.0, lack.dear) for lack in lacks if lack.fits]
    if later < NO_DEADLINE:
        out.append(_Trial("deadline_s", [i], float(state.deadline_s[i]), later))
    if np.isfinite(power):
        out.append(_Trial("power_limit_w", [i], float(state.power_limit_w[i]), power))
    grown: dict[tuple[int, ...], float] = {}
    for lack in full:
        if (growth := lack.growth()) is not None:
            key = tuple(sorted(lack.resource[growth[0]].tolist()))
            grown[key] = min(grown.get(key, np.inf), growth[1])
    return out + [_Trial("capacity", list(resources), 1.0, factor) for resources, factor in grown.items()]


def _lacks(
    problem: Custom, state: CustomState, allocation: Any, batch: CustomWorld, i: int, prices: Any
) -> list[_Lack]:
    """What agent i lacks on each option that it may take."""
    game = batch.game(prices)
    anchor = 0.0 if allocation.anchor is None else allocation.anchor[i]
    private = game.private_cost[0, i] + anchor
    places = batch.places(prices, game)
    floor = batch.plan_of(allocation).floor[0]
    above = np.asarray(allocation.held) & (places.rank[0] <= places.rank[0, i])
    used = np.zeros(len(problem.resources))
    legs = batch.rows[np.asarray(allocation.option, np.int64)]
    for s in range(legs.shape[1]):
        on = above & (legs[:, s] >= 0)
        np.add.at(used, legs[on, s], floor[on, s])
    found = []
    for o in np.flatnonzero(game.allowed[0, i])[1:]:
        busy = (batch.rows[o] >= 0) & (places.seconds[0, i, o] > 0)
        r, seconds = batch.rows[o][busy], places.seconds[0, i, o][busy]
        alone = private[o] + float((game.weight[0, i, r] ** 2 / game.capacity[0, r]).sum())
        found.append(_Lack(
            int(o), r, seconds, used[r], float(state.full_power_w[i, r].sum()), float(state.power_limit_w[i]),
            float(state.deadline_s[i]), float(places.slack[0, i, o]), prices.margin,
            max(alone - float(private[0]), 0.0),
        ))  # fmt: skip
    return found


def _set(values: Float, where: Any, to: Any) -> Float:
    out = values.copy()
    out[where] = to
    return out


# --- where none were given


def _for_agent(
    problem: Custom, state: CustomState, allocation: Any, batch: CustomWorld, option: Any, i: int, margin: float,
    costs: Float,
) -> list[Remedy]:  # fmt: skip
    found: list[tuple[float, Remedy]] = []
    for o in np.flatnonzero(batch.at["allowed"][0, i]):
        if o == 0:
            continue
        tried = option.copy()
        tried[i] = o
        resource, _, seconds, wait, need = (x[0] for x in batch._floors(tried[None], margin))
        held = np.asarray(allocation.served).copy()
        held[i] = False
        used = np.zeros(len(problem.resources))
        for s in range(resource.shape[1]):
            on = held & (resource[:, s] >= 0)
            np.add.at(used, resource[on, s], need[on, s])
        legs = resource[i] >= 0
        r = resource[i][legs]
        total = used[r] + need[i][legs]
        full = total > 1 + 1e-9
        whole = float(state.full_power_w[i, r].sum())
        hungry = whole > 0 and bool((need[i][legs] * whole > state.power_limit_w[i] * (1 + 1e-9)).any())
        if not full.any() and not hungry:
            gain = float(costs[o] - costs[option[i]])
            found.append((0.0, Remedy(i, int(o), {}, None, None, max(gain, 0.0))))
            continue
        reachable = bool(np.isfinite(total).all())
        capacity = {
            problem.resources[k]: float(state.capacity[k] * t) for k, t in zip(r[full], total[full], strict=True)
        }
        size = float(total[full].max(initial=1.0)) - 1 if reachable else np.inf
        power = float(need[i][legs].max() * whole) if hungry and reachable else None
        deadline = _deadline(
            seconds[i][legs], 1 - used[r], whole, float(state.power_limit_w[i]), float(wait[i]), margin
        )
        if not reachable:
            capacity = {}
        found.append((size, Remedy(i, int(o), capacity if not hungry else {}, deadline, power, None)))
    found.sort(key=lambda pair: (pair[1].cheaper_by is None, pair[0]))
    return [remedy for _, remedy in found]


def _deadline(seconds: Float, room: Float, whole: float, limit: float, wait: float, margin: float) -> float | None:
    """The deadline that an agent would meet with what is left, within its power limit; None if nothing is left."""
    share = np.minimum(room, limit / whole) if whole > 0 else room
    if (share <= 1e-9).any():
        return None
    needed = (wait + float((seconds / share).sum())) / margin
    return needed if needed < NO_DEADLINE else None
