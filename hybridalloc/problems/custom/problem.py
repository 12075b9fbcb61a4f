r"""``custom``: a user's own agents and resources, from arrays, pandas frames or CSV files; no simulator needed.

N agents (jobs), R resources of a stated speed, O options. Option 0 opts out; every other option uses one resource,
or several one after the other (air time, then a CPU). Agent i has :math:`c_{ir}` units of work for resource r,
which runs at :math:`C_r` units a second; with share :math:`f` it takes :math:`c / (f C)` after the resource's
``wait_s``. A second costs agent i :math:`\omega_i` (``delay_cost``), so the square-root rule of ``games.shares``
makes the congestion game affine with weights :math:`\sqrt{\omega_i c_{ir}}`.

Shares have a floor for each deadline, a cap for each power limit, and are admitted by priority. With a transition of
one's own (three methods, see :class:`Transition`) the same learners train and every command works.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Protocol

import numpy as np
from numpy.typing import ArrayLike

from coordinator import Coordinator
from coordinator.why import Names
from games.certificate import Audit, CapacityCheck, check_capacity, check_limit
from games.congestion import Float, Int
from games.errors import InvalidStateError
from hybridalloc.errors import nearest
from hybridalloc.problems.contract import Card, Knob, Optimum
from hybridalloc.problems.custom import padding, transitions
from hybridalloc.problems.custom.audit import audit
from hybridalloc.problems.custom.held import Held, make_held
from hybridalloc.problems.custom.held.tables import held_from_tables, names_held
from hybridalloc.problems.custom.optimum import best_served
from hybridalloc.problems.custom.remedies import knobs_of, ways_shown
from hybridalloc.problems.custom.setting import BASELINES, STARTS, CustomSetting
from hybridalloc.problems.custom.state import CustomPrices, CustomState, as_state
from hybridalloc.problems.custom.tables import placed, read_tables
from hybridalloc.problems.custom.world import CustomWorld
from hybridalloc.problems.metrics import RAW_VIOLATION, Jain, Metric, Ratio
from hybridalloc.problems.state import echo, name_list, read_array, whole_number
from hybridalloc.text import printable, quoted


class Shift(NamedTuple):
    """How a world differs from the one stated: factors on work, on the time a resource takes, on waits."""

    name: str
    work: float = 1.0
    slower: float = 1.0
    wait: float = 1.0


SHIFTS = (
    Shift("as stated"), Shift("work x 1.5", work=1.5), Shift("work x 2", work=2.0),
    Shift("resources / 1.5", slower=1.5), Shift("resources / 2", slower=2.0), Shift("waits x 2", wait=2.0),
)  # fmt: skip


class Transition(Protocol):
    """A user's own world: three methods, no base class. It holds settings alone; what moves is in the state."""

    def reset(self, seed: int) -> CustomState | Mapping[str, Any]:
        """The first state of a new episode."""

    def advance(self, state: CustomState, allocation: Any, rng: np.random.Generator) -> CustomState | Mapping[str, Any]:
        """The next state. ``allocation`` has option, shares, power, served (N,) and ``time_s`` (N,)."""

    def reward(self, state: CustomState, allocation: Any) -> ArrayLike:
        """(N,) each agent's outcome of this step, higher is better."""


METRICS = (
    Metric("welfare", "welfare", "an agent and step", "higher", Ratio("reward")),
    Metric("completion", "served in time", "% of active", "higher", Ratio("served", "active", 100)),
    Metric("latency", "time of those served", "s", "lower", Ratio("time_s", "served")),
    Metric("opted_out", "opted out", "% of active", "lower", Ratio("opted_out", "active", 100)),
    Metric("jain", "Jain index of service", "", "higher", Jain("served_by", "active_by")),
    RAW_VIOLATION,
)
MOST_JOBS = 100_000
HOLDS = {  # words for what is held
    "memory", "mem", "ram", "vram", "hbm", "disk", "gb", "gib", "mb", "mib", "licence", "licences", "license",
    "licenses", "seats",
}  # fmt: skip
PRICE_SPACE = {
    "toll": (0.0, 4.0, False), "miss": (0.1, 3.0, True), "risk": (0.5, 3.0, False), "margin": (0.6, 1.0, False),
    "opt_out": (0.5, 10.0, True),
}  # fmt: skip
REFERENCE_PRICES = {"toll 1": CustomPrices(toll=1.0), "toll 0": CustomPrices(toll=0.0)}


@dataclass(frozen=True, eq=False)
class Custom(CustomSetting):
    """The problem; make it with ``make_problem("custom", ...)``, see :func:`make`.

    Args:
        options: (O - 1, S) resources of each option after opting out, -1 for none.
        resources: R names. families: R names; an option uses at most one resource of a family.
        start: the state that ``reset`` gives where there is no transition.
        transition: an object with the methods of :class:`Transition`, "module:Class", or one that a file named and
            that was not loaded, see :mod:`hybridalloc.problems.custom.transitions`.
        episode: its length in steps. credit: "difference" | "own", see :func:`make`.
        priority_gap: within which agents are equals: of those, as many as possible are served.
        most: rows of a world whose number of jobs varies; 0 where it does not.
    """

    state_type: ClassVar[type[CustomState]] = CustomState
    whole: ClassVar[bool] = True
    moves: ClassVar[bool] = False  # what is there and costs too much is told by how much
    solved: ClassVar[str] = "when solved again from this answer: the search for room had stopped short of it"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Custom) and self.describe() == other.describe()

    def __hash__(self) -> int:
        return hash((self.resources, self.families_of, self.options.tobytes()))

    @cached_property
    def card(self) -> Card:
        n, r = self.most or self.start.agents, len(self.resources)
        kind = transitions.describe(self.transition)
        return Card(
            name="custom", agents=n, epochs=self.episode, prices=CustomPrices, metrics=METRICS,
            headline=("welfare", "completion"), size=f"{n} agents, {r} resources", agent_word="device",
            options=tuple(self.option_name(o) for o in range(1 + len(self.options))),
            families=self.families, baselines=BASELINES, starts=STARTS, price_space=PRICE_SPACE,
            reference_prices=REFERENCE_PRICES, tags={} if kind is None else {"transition": str(kind["class"])},
        )  # fmt: skip

    def example(self, seed: int = 0) -> CustomState:
        """A state to try: a first one, or ``start`` where the transition may not run."""
        return self.start if isinstance(self.transition, transitions.Unloaded) else self.reset(seed)

    def state(self, **arrays: Any) -> CustomState:
        """A state of this problem: ``problem.state(work=..., capacity=...)``."""
        return CustomState(**{"capacity": self.start.capacity} | arrays)

    def reset(self, seed: int = 0) -> CustomState:
        """The first state of an episode, as the transition gives it: of the jobs that are there."""
        return self.worlds([seed]).told[0]

    def worlds(self, seeds: Sequence[int], belief: None = None) -> CustomWorld:
        """E = len(seeds) worlds; without a transition each stands at ``start``. There are no beliefs to attach."""
        if belief is not None:
            raise ValueError("custom has no beliefs: its states are taken as they are; put what is stale in features")
        return CustomWorld.fresh(self, seeds)

    def world_at(self, state: CustomState, memory: None = None) -> CustomWorld:
        """One world that stands at ``state``."""
        return CustomWorld.of_state(self, state)

    def scenarios(self) -> tuple[Shift, ...]:
        """Worlds that a robust trust must hold against: more work than stated, slower resources, longer waits."""
        return SHIFTS

    def knobs(
        self, state: CustomState, allocation: Any, agent: int, prices: CustomPrices
    ) -> list[Knob[CustomState]]:  # fmt: skip
        """What may be turned for an agent that is not served, see :mod:`.remedies`."""
        return knobs_of(self, state, allocation, agent, prices)

    def shown(self, allocation: Any) -> int:
        """How many ways are told of one agent."""
        return ways_shown(self, allocation)

    def phrase(self, state: CustomState, text: str, option: int, lost: Sequence[int]) -> str:
        """A way in words: on which option, and by their names who loses a place."""
        named = ", ".join(state.label(j) for j in lost[:3]) + (" ..." if len(lost) > 3 else "")
        return f"on {self.option_name(option)} {text}{f', in place of {named}' if named else ''}"

    def names(self, state: CustomState, agent: int) -> Names:
        """What an agent, the options and the resources are called, as it prints."""
        options = (self.option_name(o) for o in range(1 + len(self.options)))
        return Names(
            printable(state.label(agent)), tuple(map(printable, options)), tuple(map(printable, self.resources))
        )  # fmt: skip

    def agent(self, state: CustomState, name: str) -> int:
        """The agent of that name."""
        names = state.names or ()
        if name not in names:
            close = difflib.get_close_matches(name[:200], names, n=8)
            raise nearest("agent", name, names if len(names) <= 20 else close)
        return names.index(name)

    def perturbed(self, state: CustomState, shift: Shift, seed: int = 0) -> CustomState:
        """The state as it would truly be if ``shift`` were so."""
        return replace(
            state, work=state.work * shift.work, capacity=state.capacity / shift.slower,
            wait_s=state.wait_s * shift.wait,
        )  # fmt: skip

    def revealed(self, state: CustomState, following: CustomState) -> CustomState:
        """The state as the next one shows it to have been: here it was told as it is."""
        return state

    def optimum(self, state: CustomState, prices: CustomPrices, limit_s: float) -> Optimum:
        """The most that can be served, class by class, see :mod:`.optimum`."""
        world = self.world_at(state)
        start = Coordinator("game").decide(world, None, prices)
        game = world.game(prices)
        assert start.seating is not None
        best = best_served(game, world.places(prices, game), start.seating, limit_s)
        took = f"by HiGHS in {best.seconds:.2g} s"
        if best.gap == 0:
            note = f"no more can be served, class by class: proved {took}"
        else:
            note = f"at most {best.gap} more of priority {state.priority[best.short]:g} can be served, {took}"
        return Optimum(best.option, best.seating, best.gap, note)

    def idle(self, state: CustomState) -> dict[str, Any]:
        """Everyone opts out, as the fields of an allocation: whoever has something to decide is not served."""
        zero = np.zeros(state.agents)
        by_family = dict.fromkeys(self.families, zero)
        return {
            "option": zero.astype(np.int64), "shares": by_family, "floors": by_family, "held": zero > 0, "power": zero,
            "served": ~state.active, "prices": dict.fromkeys(self.families, np.zeros(0)),
        }  # fmt: skip

    def times(self, state: CustomState, allocation: Any) -> Float:
        """(N,) s until each agent's work is done with the shares it has; inf for those that opt out."""
        total = np.zeros(state.agents)
        for i, option in enumerate(np.asarray(allocation.option)):
            if option == 0:
                total[i] = np.inf
                continue
            for r in self.options[option - 1]:
                if r >= 0 and state.work[i, r] > 0:
                    share = allocation.shares[self.families_of[r]][i]
                    speed = share * state.capacity[r]
                    total[i] += state.wait_s[r] + (state.work[i, r] / speed if speed > 0 else np.inf)
        return total

    def check(self, state: CustomState, allocation: Any) -> CapacityCheck:
        """Feasibility of an allocation from the definitions, by code that no solver shares."""
        option, choices = np.asarray(allocation.option), len(self.options) + 1
        checks, power = [], np.zeros(state.agents)
        for family in self.families:
            share = np.asarray(allocation.shares[family])
            where = np.full(state.agents, -1)
            for i, o in enumerate(option):
                for r in self.options[o - 1] if 0 < o < choices else ():
                    if r >= 0 and self.families_of[r] == family:
                        where[i] = r
                        power[i] += share[i] * state.full_power_w[i, r]
            checks.append(check_capacity(family, where, share, (state.capacity > 0) * 1.0))
        checks.append(check_limit("power (W)", np.asarray(allocation.power), state.power_limit_w))
        checks.append(check_limit("power its shares draw (W)", power, state.power_limit_w))
        told = np.asarray(allocation.power, float)
        lines = tuple(
            f"power: {state.label(int(i))} is said to draw {told[i]:.6g} W, its shares draw {power[i]:.6g} W"
            for i in np.flatnonzero(~(np.abs(told - power) <= 1e-9 * np.maximum(told, power)))
        )
        lines += tuple(
            f"reach: {state.label(int(i))} takes option {o}, which it may not"
            for i, o in enumerate(option)
            if o and not (0 < o < choices and state.active[i] and (not state.allowed.size or bool(state.allowed[i, o])))
        )
        down = (np.append(state.capacity, 1.0)[self.options] == 0).any(axis=1)  # the last stands for no resource
        lines += tuple(
            f"down: {state.label(int(i))} takes {self.option_name(int(o))}, of which a part is down"
            for i, o in enumerate(option)
            if 0 < o < choices and down[o - 1]
        )
        if lines:
            checks.append(CapacityCheck(float("inf"), lines))
        return CapacityCheck(max(c.max_violation for c in checks), tuple(v for c in checks for v in c.violations))

    def audit(self, state: CustomState, allocation: Any, prices: CustomPrices, believed: None = None) -> Audit:
        """The certificate's second reading of a state and an allocation; see :mod:`custom_audit`."""
        return audit(self, state, allocation, prices)

    def describe(self) -> dict[str, Any]:
        """Plain settings, enough to make the problem again with :meth:`restore`."""
        return {
            "name": "custom", "options": self.options.tolist(), "resources": list(self.resources),
            "families": list(self.families_of), "start": self.start.to_dict(),
            "transition": transitions.describe(self.transition),
            "episode": self.episode, "credit": self.credit, "priority_gap": self.priority_gap, "most": self.most,
        }  # fmt: skip

    @classmethod
    def restore(cls, data: Mapping[str, Any], trust_code: bool = False) -> Custom:
        """The problem that :meth:`describe` described; its transition only where a file may name it.

        Raises:
            InvalidStateError: the description is not one.
        """
        lacking = [f for f in ("options", "resources", "families", "start", "episode", "credit") if f not in data]
        if lacking:
            raise InvalidStateError(f"a description of custom lacks {', '.join(lacking)}")
        start = CustomState.from_dict(data["start"])
        for name in ("resources", "families"):
            names = data[name]
            if not isinstance(names, list | tuple) or not all(isinstance(n, str) for n in names):
                raise InvalidStateError(f"{name} = {quoted(names)}; it must be a list of names")
            if len(names) != len(start.capacity):
                raise InvalidStateError(f"{name} has {len(names)} names; capacity has {len(start.capacity)} resources")
        if type(data["episode"]) is not int or data["episode"] < 1 or not isinstance(data["credit"], str):
            raise InvalidStateError(f"episode = {quoted(data['episode'])}; it must be a whole number of steps >= 1")
        options = np.array(data["options"])
        if options.size and options.dtype.kind not in "iu":
            raise InvalidStateError(f"options = {quoted(data['options'])}; they must be rows of whole numbers")
        options = options.astype(np.int64).reshape(len(data["options"]), -1)
        names = tuple(data["resources"]), tuple(data["families"])
        transition = transitions.by_file(data.get("transition"), trust_code)
        gap = data.get("priority_gap", 0.0)
        if not isinstance(gap, int | float) or isinstance(gap, bool):
            raise InvalidStateError(f"priority_gap = {quoted(gap)}; it must be a finite number >= 0")
        most = whole_number("most", data.get("most", 0), 0, MOST_JOBS)
        return cls(options, *names, start, transition, data["episode"], data["credit"], float(gap), most)


def make(
    work: ArrayLike | None = None,
    capacity: ArrayLike | None = None,
    *,
    options: ArrayLike | None = None,
    resources: Sequence[str] | None = None,
    families: Sequence[str] | None = None,
    jobs: Any = None,
    servers: Any = None,
    links: Any = None,
    transition: Any = None,
    episode: int = 200,
    credit: str = "difference",
    priority_gap: float = 0.0,
    most_jobs: int | None = None,
    previous: Any = None,
    moving_cost: Any = None,
    **arrays: Any,
) -> Custom | Held:
    """``make_problem("custom", ...)``: from arrays, from tables, or from a transition.

    Args:
        work: (N, R) or (N,) units.
        capacity: (R,) units a second; with these two any other array of :class:`CustomState` by name, such as
            ``deadline_s`` or ``private_cost``.
        options: (O - 1, S) resources of each option after opting out; default one a resource.
        resources: R names.
        families: R names, by which shares and prices come; default one family, "share".
        jobs: a pandas frame, the path of a CSV file or a mapping of columns, instead of arrays; ``servers`` and
            ``links`` likewise, see :func:`hybridalloc.problems.custom.tables.read_tables`; with columns ``held:gpu`` of
            the servers, :mod:`hybridalloc.problems.custom.held.tables`, and ``quota`` a table too.
        arrays: or ``demand`` and ``held``: jobs that hold what they ask for, whole or not at all, see
            :func:`hybridalloc.problems.custom.held.problem.make_held`.
        transition: an object with reset, advance and reward (see :class:`Transition`), or "module:Class".
        episode: its length in steps. credit: "difference" charges a learner's agent what the others lose because
            of it, by settling the step again without it; "own" does not, and is N times cheaper.
        priority_gap: within which priorities are equals; default 0, the higher one always comes first.
        most_jobs: rows of a world whose number of jobs varies; default a quarter more than were seen in a look at it
            (:func:`hybridalloc.problems.custom.padding.most_seen`). Those beyond sit a training step out.
        previous: with tables, where each job was: a file that ``step --out`` or ``--json`` wrote, or a mapping of job
            to option by their names; with arrays (N,) options. moving_cost: of leaving that, one number or (N,); with
            ``previous`` from a file or mapping .3, in deadlines of delay, where it is not given.

    Raises:
        InvalidStateError: names the field or file, where in it, the value and what is permitted.
    """
    if "held" in arrays or "demand" in arrays:
        stands = {k: v for k, v in (("previous", previous), ("moving_cost", moving_cost)) if v is not None}
        others = {"work": work, "capacity": capacity, "jobs": jobs, "transition": transition}
        return _whole(arrays | stands, servers, others)
    if servers is not None and names_held(servers):
        quota = arrays.pop("quota", None)
        if work is not None or capacity is not None or arrays:
            raise InvalidStateError("give either jobs= and servers= with columns of what is held, or arrays, not both")
        return held_from_tables(jobs, servers, links, quota, previous, moving_cost)
    if "quota" in arrays:
        raise InvalidStateError("quota= goes with what is held: held= and demand=, or columns held: of the servers")
    transition = transitions.by_user(transition)
    apart = ("work", "capacity", "previous", "moving_cost")
    known = [name for name in CustomState.__dataclass_fields__ if name not in apart]
    for name in arrays:
        if name not in known:
            rest = ["work", "capacity", "options", "resources", "families", "jobs", "servers", "links", "transition"]
            more = ["episode", "credit", "priority_gap", "most_jobs", "previous", "moving_cost"]
            raise nearest("setting of custom", name, known + rest + more)
    if jobs is not None or servers is not None:
        if work is not None or arrays:
            raise InvalidStateError("give either jobs= and servers=, or arrays (work=, capacity=, ...), not both")
        arrays, resources = read_tables(jobs, servers, links)
        arrays = placed(arrays, resources, previous, moving_cost)
    elif previous is not None and isinstance(previous, str | Path | Mapping):
        raise InvalidStateError(
            "previous= by names goes with jobs= and servers=; beside arrays it is (N,) options, -1 for an agent that "
            "is new"
        )
    elif links is not None:
        raise InvalidStateError(
            "links= goes with jobs= and servers=; beside arrays, allowed= and private_cost= (N, options) say who "
            "reaches what at which cost"
        )
    elif work is not None and capacity is not None:
        rate = np.atleast_1d(read_array("capacity", capacity, "R"))
        given = read_array("work", work, "N R")
        if given.ndim == 1:
            given = np.repeat(given[:, None], len(rate), axis=1)
        arrays |= {"work": given, "capacity": rate}
    elif transition is not None:
        arrays = _first(transition).to_dict() | arrays
    else:
        raise InvalidStateError(
            "custom needs work= and capacity= (arrays), jobs= and servers= (tables), or transition= (your own world)"
        )
    if jobs is None and servers is None:
        if transition is not None and work is None and not (previous is None and moving_cost is None):
            raise InvalidStateError("previous and moving_cost are fields of the states that the transition gives")
        arrays |= {k: v for k, v in (("previous", previous), ("moving_cost", moving_cost)) if v is not None}
    start = CustomState(**arrays)
    count = len(start.capacity)
    table = np.arange(count)[:, None] if options is None else _option_table(options)
    if families is None:
        families = ["share"] * count if table.shape[1] == 1 else _families_by_column(table, count)
    resources = [f"resource {r}" for r in range(count)] if resources is None else resources
    named = name_list("resources", resources), name_list("families", families)
    _refuse_held(named[0] + named[1])
    for label, names in zip(("resources", "families"), named, strict=True):
        if len(names) != count:
            raise InvalidStateError(f"{label} has {len(names)} names; capacity has {count} resources")
    for r, resource in enumerate(named[0]):
        if resource in named[0][:r]:
            raise InvalidStateError(f"resources[{r}] = {echo(resource)} is used already; names are unique")
    length = whole_number("episode", episode, 1, 2**31)
    wide = start.private_cost.shape[1] or start.allowed.shape[1]
    if start.agents and wide and wide != 1 + len(table):
        raise InvalidStateError(
            f"private_cost and allowed have {wide} options; there are {1 + len(table)}: opting out first, then "
            f"{len(table)} in the order of options"
        )
    most = 0 if most_jobs is None else whole_number("most_jobs", most_jobs, 1, MOST_JOBS)
    if most_jobs is None and transition is not None and not isinstance(transition, transitions.Unloaded):
        most = padding.most_seen(transition, start, named[1], length)
    return Custom(table, *named, start, transition, length, credit, priority_gap, most)


def _whole(arrays: dict[str, Any], servers: Any, others: Mapping[str, Any]) -> Held:
    """A problem of what is held, from ``demand`` and ``held``."""
    for name, given in others.items():
        if given is not None:
            raise InvalidStateError(f"{name}= goes with shares of a speed; demand= and held= are of what is held whole")
    for name in ("demand", "held"):
        if name not in arrays:
            raise InvalidStateError(f"{name} is missing: what jobs take (demand=) and what servers have (held=)")
    return make_held(**arrays, servers=servers)


def _refuse_held(names: Sequence[str]) -> None:
    """What is held cannot be worked off at a share of a speed: two jobs of 64 GB never stand on 80."""
    for name in names:
        if words := HOLDS & set(re.split(r"[^a-z]+", name.lower())):
            raise InvalidStateError(
                f"{quoted(name)}: {min(words)} is held, not worked off at a share of a speed, and so jobs would be put "
                'where they do not fit; give make_problem("custom", demand={...}, held={...}) what jobs hold'
            )


def _first(transition: Any) -> CustomState:
    """A first state of a transition, with jobs in it if one of a few has any: it says how wide all are."""
    states = (as_state(transition.reset(seed)) for seed in range(padding.TRIED))
    first = next(states)
    return first if first.agents else next((state for state in states if state.agents), first)


def _option_table(options: Any) -> Int:
    """(O - 1, S) from a table or from a single row; :class:`Custom` checks that its resources are there."""
    table = read_array("options", options, "O S", int)
    table = table[None] if table.ndim == 1 else table
    if table.ndim != 2 or not table.size:
        raise InvalidStateError(f"options has shape {table.shape}; it needs axes (O, S,): the resources of each option")
    return table


def _families_by_column(table: Int, count: int) -> list[str]:
    names: list[str | None] = [None] * count
    for s in range(table.shape[1]):
        for r in table[:, s]:
            if r >= 0:
                if names[r] not in (None, f"share {s}"):
                    raise InvalidStateError(
                        f"resource {r} is in two columns of options; give families=, a name a resource"
                    )
                names[r] = f"share {s}"
    return [name or "share 0" for name in names]
