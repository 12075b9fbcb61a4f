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

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from games.certificate import Audit, CapacityCheck, check_capacity, check_limit
from games.congestion import Float, Int
from games.errors import InvalidStateError
from hybridalloc.errors import nearest
from hybridalloc.problems import transitions
from hybridalloc.problems.base import Metric, State, array, echo, name_list, read_array, whole_number
from hybridalloc.text import quoted

if TYPE_CHECKING:
    from hybridalloc.problems.custom_batch import CustomBatch

NO_DEADLINE = 1e9  # s: this or more is none
NO_LIMIT = 1e9  # W
SHORTEST = 1e-100  # s: a deadline below counts as this much where costs are made of it, so that they stay finite
MISSED, UNSERVED = 2.0, 1e6  # default cost of opting out with and without a deadline; a missed deadline costs 1


class CustomPrices(NamedTuple):
    """What the game charges beside the agents' own costs."""

    toll: float = 1.0
    miss: float = 1.0  # a certain miss, before any load
    risk: float = 1.0  # how much longer than stated the work is taken to be when misses are judged
    margin: float = 1.0  # of the deadline that floors aim at
    opt_out: float = 1.0  # how much dearer than stated opting out is


@dataclass(frozen=True)
class CustomState(State):
    """One step's agents and resources. N agents, R resources, O options (0 opts out), F features of one's own.

    Attributes:
        work: (N, R) units of work an agent has for each resource. capacity: (R,) units a second.
        deadline_s: (N,) default none. delay_cost: (N,) cost of a second, default 1 / deadline_s; without a deadline
            that of the most patient agent that has one, or 1 where none has.
        private_cost: (N, O) cost of each option whatever the others do, default 0. opt_out_cost: (N,) added for
            option 0; default 2 (a full deadline of delay and a miss), without a deadline 1e6, and 0 where
            ``private_cost`` is given.
        allowed: (N, O). priority: (N,) who is admitted first, highest first. wait_s: (R,) before work begins.
        full_power_w: (N, R) what an agent draws at a full share. power_limit_w: (N,).
        features: (N, F) anything of order one that a recommender should see.
        active: (N,) False for an agent that sits this step out. names: N strings. hidden: what only the
            transition reads, a mapping that JSON holds.
    """

    work: Float = array("N R", "units", low=0)
    capacity: Float = array("R", "units/s", above=0)
    deadline_s: Float = array("N", "s", above=0, fill=NO_DEADLINE)
    delay_cost: Float = array("N", "1/s", low=0, fill=0)
    private_cost: Float = array("N O", fill=0)
    opt_out_cost: Float = array("N", fill=0)
    allowed: NDArray[np.bool_] = array("N O", dtype=bool, fill=1)
    priority: Float = array("N", fill=0)
    wait_s: Float = array("R", "s", low=0, fill=0)
    full_power_w: Float = array("N R", "W", low=0, fill=0)
    power_limit_w: Float = array("N", "W", above=0, fill=NO_LIMIT)
    features: Float = array("N F", fill=0)
    active: NDArray[np.bool_] = array("N", dtype=bool, fill=1)
    names: tuple[str, ...] | None = None
    hidden: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        given = {name: getattr(self, name) is not None for name in ("delay_cost", "opt_out_cost", "private_cost")}
        super().__post_init__()
        timed = self.deadline_s < NO_DEADLINE
        if not given["delay_cost"]:
            object.__setattr__(self, "delay_cost", default_delay_cost(self.deadline_s))
        if not (given["opt_out_cost"] or given["private_cost"]):
            object.__setattr__(self, "opt_out_cost", np.where(timed, MISSED, UNSERVED))

    def validate(self) -> None:
        n = self.agents
        if not len(self.capacity):
            raise InvalidStateError("capacity is empty; at least one resource is needed")
        if self.private_cost.size and self.allowed.size and not self.allowed[:, 0].all():
            i = int(np.argmin(self.allowed[:, 0]))
            raise InvalidStateError(
                f"allowed[{i}, 0] = False; option 0 (opting out) is always allowed: price it instead"
            )
        if self.names is not None:
            object.__setattr__(self, "names", name_list("names", self.names))
            if len(self.names) != n:
                raise InvalidStateError(f"names has {len(self.names)} entries; work has {n} agents")
        if self.hidden is not None and not isinstance(self.hidden, Mapping):
            raise InvalidStateError(f"hidden is an object with named fields; got {type(self.hidden).__name__}")

    @property
    def agents(self) -> int:
        return len(self.work)

    def label(self, agent: int) -> str:
        """The agent's name, or "agent 3"."""
        return self.names[agent] if self.names else f"agent {agent}"


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


@dataclass(frozen=True)
class Length:
    """Steps of an episode, under the name that the trainer looks for."""

    episode: int = 200


METRICS = (
    Metric("welfare", "welfare", "an agent and step", "higher"),
    Metric("completion", "served in time", "% of active", "higher"),
    Metric("latency", "time of those served", "s", "lower"),
    Metric("opted_out", "opted out", "% of active", "lower"),
    Metric("jain", "Jain index of service", "", "higher"),
    Metric("raw_violation", "resources the raw choice overloads", "%", "lower"),
)


@dataclass(frozen=True, eq=False)
class Custom:
    """The problem; make it with ``make_problem("custom", ...)``, see :func:`make`.

    Args:
        options: (O - 1, S) resources of each option after opting out, -1 for none.
        resources: R names. families: R names; an option uses at most one resource of a family.
        start: the state that ``reset`` gives where there is no transition.
        transition: an object with the methods of :class:`Transition`, "module:Class", or one that a file named and
            that was not loaded, see :mod:`hybridalloc.problems.transitions`.
        priority_gap: within which agents are equals: of those, as many as possible are served.
    """

    options: Int
    resources: tuple[str, ...]
    families_of: tuple[str, ...]
    start: CustomState
    transition: Any = None
    scenario: Length = field(default_factory=Length)
    credit: str = "difference"
    priority_gap: float = 0.0
    name: ClassVar[str] = "custom"
    state_type: ClassVar[type[CustomState]] = CustomState
    metrics: ClassVar[tuple[Metric, ...]] = METRICS
    beliefs: ClassVar[dict[str, Any]] = {}
    baselines: ClassVar[tuple[str, ...]] = ("opt_out", "fastest", "balanced", "random")
    prices_type: ClassVar[type[CustomPrices]] = CustomPrices
    price_space: ClassVar[dict[str, tuple[float, float, bool]]] = {
        "toll": (0.0, 4.0, False), "miss": (0.1, 3.0, True), "risk": (0.5, 3.0, False), "margin": (0.6, 1.0, False),
        "opt_out": (0.5, 10.0, True),
    }  # fmt: skip

    def __post_init__(self) -> None:
        r = len(self.resources)
        bad = (self.options < -1) | (self.options >= r)
        if bad.any():
            o, s = map(int, np.argwhere(bad)[0])
            raise InvalidStateError(
                f"options[{o}, {s}] = {self.options[o, s]}; a resource is -1 (none) or 0 to {r - 1}"
            )
        for o, row in enumerate(self.options):
            used = [self.families_of[k] for k in row if k >= 0]
            if len(set(used)) < len(used):
                raise InvalidStateError(
                    f"options[{o}] = {row.tolist()} uses two resources of one family; give families=[...], one name a "
                    "resource, so that those which an option combines differ"
                )
        if self.credit not in ("difference", "own"):
            raise nearest("credit", self.credit, ("difference", "own"))
        if not 0 <= self.priority_gap < float("inf"):
            raise InvalidStateError(f"priority_gap = {self.priority_gap}; it must be a finite number >= 0")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Custom) and self.describe() == other.describe()

    def __hash__(self) -> int:
        return hash((self.resources, self.families_of, self.options.tobytes()))

    @property
    def agents(self) -> int:
        return self.start.agents

    @property
    def servers(self) -> int:
        return len(self.resources)

    @property
    def families(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(self.families_of))

    def option_name(self, option: int) -> str:
        """Such as "opt out", "gpu-2" or "air-1 + cpu-1"."""
        if option == 0:
            return "opt out"
        return " + ".join(self.resources[r] for r in self.options[option - 1] if r >= 0)

    def simulator(self) -> Any:
        """The transition; None without one.

        Raises:
            CheckpointError: a file names it and nobody allowed it; says how.
        """
        if isinstance(self.transition, transitions.Unloaded):
            raise self.transition.refuse()
        if isinstance(self.transition, str | Mapping):
            object.__setattr__(self, "transition", transitions.by_user(self.transition))
        return self.transition

    def example(self, seed: int = 0) -> CustomState:
        """A state to try: a first one, or ``start`` where the transition may not run."""
        return self.start if isinstance(self.transition, transitions.Unloaded) else self.reset(seed)

    def state(self, **arrays: Any) -> CustomState:
        """A state of this problem: ``problem.state(work=..., capacity=...)``."""
        return CustomState(**{"capacity": self.start.capacity} | arrays)

    def batch(self, seeds: Sequence[int], belief: None = None) -> CustomBatch:
        """E = len(seeds) worlds; without a transition each stands at ``start``. There are no beliefs to attach."""
        from hybridalloc.problems.custom_batch import CustomBatch

        if belief is not None:
            raise ValueError("custom has no beliefs: its states are taken as they are; put what is stale in features")
        return CustomBatch.fresh(self, seeds)

    def batch_of(self, state: CustomState) -> CustomBatch:
        """A batch of one that stands at ``state``."""
        from hybridalloc.problems.custom_batch import CustomBatch

        return CustomBatch(self, [state], [np.random.default_rng(0)])

    def reset(self, seed: int = 0) -> CustomState:
        """The first state of an episode; without a transition always the same."""
        return self.batch([seed]).state(0)

    def evaluate(self, state: CustomState, allocation: Any) -> dict[str, float]:
        """One step's metrics of an allocation, without moving on."""
        batch = self.batch_of(state)
        batch.execute(batch.plan_of(allocation))
        return {key: float(value[0]) for key, value in batch.summary().items()}

    def scenarios(self) -> tuple[Shift, ...]:
        """Worlds that a robust trust must hold against: more work than stated, slower resources, longer waits."""
        return SHIFTS

    def admits(
        self, state: CustomState, allocation: Any, agent: int, prices: CustomPrices, wish: None = None,
        trust: float = np.inf, memory: None = None,
    ) -> tuple[dict[str, Any], ...]:  # fmt: skip
        """What would admit an agent that is not served, one row a way; see :mod:`hybridalloc.problems.admission`."""
        from hybridalloc.problems.admission import ways_in

        return ways_in(self, state, allocation, agent, prices)

    def perturbed(self, state: CustomState, shift: Shift, seed: int = 0) -> CustomState:
        """The state as it would truly be if ``shift`` were so."""
        return replace(
            state, work=state.work * shift.work, capacity=state.capacity / shift.slower,
            wait_s=state.wait_s * shift.wait,
        )  # fmt: skip

    def revealed(self, state: CustomState, following: CustomState) -> CustomState:
        """The state as the next one shows it to have been: here it was told as it is."""
        return state

    def advance(self, state: CustomState, allocation: Any, seed: int) -> tuple[CustomState, dict[str, float]]:
        """Execute an allocation; the next state by the transition, and this step's metrics.

        Raises:
            ValueError: there is no transition.
        """
        batch = self.batch_of(state)
        batch.rngs = [np.random.default_rng(seed)]
        batch.execute(batch.plan_of(allocation))
        metrics = {key: float(value[0]) for key, value in batch.summary().items()}
        batch.drift()
        return batch.state(0), metrics

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
            checks.append(check_capacity(family, where, share, np.ones(len(self.resources))))
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
        if lines:
            checks.append(CapacityCheck(float("inf"), lines))
        return CapacityCheck(max(c.max_violation for c in checks), tuple(v for c in checks for v in c.violations))

    def audit(self, state: CustomState, allocation: Any, prices: CustomPrices, believed: None = None) -> Audit:
        """The certificate's second reading of a state and an allocation; see :mod:`custom_audit`."""
        from hybridalloc.problems.custom_audit import audit

        return audit(self, state, allocation, prices)

    def describe(self) -> dict[str, Any]:
        """Plain settings, enough to make the problem again with :meth:`restore`."""
        return {
            "name": self.name, "options": self.options.tolist(), "resources": list(self.resources),
            "families": list(self.families_of), "start": self.start.to_dict(),
            "transition": transitions.describe(self.transition),
            "episode": self.scenario.episode, "credit": self.credit, "priority_gap": self.priority_gap,
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
        return cls(options, *names, start, transition, Length(data["episode"]), data["credit"], float(gap))


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
    **arrays: Any,
) -> Custom:
    """``make_problem("custom", ...)``: from arrays, from tables, or from a transition.

    Args:
        work, capacity: (N, R) or (N,) units and (R,) units a second; with them any other array of
            :class:`CustomState` by name, such as ``deadline_s`` or ``private_cost``.
        options: (O - 1, S) resources of each option after opting out; default one a resource.
        resources, families: R names each. Shares and prices come by family; default one family, "share".
        jobs, servers, links: pandas frames, paths of CSV files or mappings of columns, instead of arrays; see
            :func:`hybridalloc.problems.tables.read_tables`.
        transition: an object with reset, advance and reward (see :class:`Transition`), or "module:Class".
        episode: its length in steps. credit: "difference" charges a learner's agent what the others lose because
            of it, by settling the step again without it; "own" does not, and is N times cheaper.
        priority_gap: within which priorities are equals; default 0, the higher one always comes first.

    Raises:
        InvalidStateError: names the field or file, where in it, the value and what is permitted.
    """
    transition = transitions.by_user(transition)
    known = [name for name in CustomState.__dataclass_fields__ if name not in ("work", "capacity")]
    for name in arrays:
        if name not in known:
            others = ["work", "capacity", "options", "resources", "families", "jobs", "servers", "links", "transition"]
            raise nearest("setting of custom", name, known + others + ["episode", "credit", "priority_gap"])
    if jobs is not None or servers is not None:
        from hybridalloc.problems.tables import read_tables

        if work is not None or arrays:
            raise InvalidStateError("give either jobs= and servers=, or arrays (work=, capacity=, ...), not both")
        arrays, resources = read_tables(jobs, servers, links)
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
        arrays = as_state(transition.reset(0)).to_dict() | arrays
    else:
        raise InvalidStateError(
            "custom needs work= and capacity= (arrays), jobs= and servers= (tables), or transition= (your own world)"
        )
    start = CustomState(**arrays)
    count = len(start.capacity)
    table = np.arange(count)[:, None] if options is None else _option_table(options)
    if families is None:
        families = ["share"] * count if table.shape[1] == 1 else _families_by_column(table, count)
    resources = [f"resource {r}" for r in range(count)] if resources is None else resources
    named = name_list("resources", resources), name_list("families", families)
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
    return Custom(table, *named, start, transition, Length(length), credit, priority_gap)


def default_delay_cost(deadline_s: Float) -> Float:
    """(N,) cost of a second: 1 a deadline; who has none counts as the most patient of those who do."""
    timed = deadline_s < NO_DEADLINE
    longest = deadline_s[timed].max(initial=0.0) or 1.0
    return np.asarray(1 / np.maximum(np.where(timed, deadline_s, longest), SHORTEST))


def as_state(given: Any) -> CustomState:
    """What a transition's reset or advance gave, as a state."""
    if isinstance(given, CustomState):
        return given
    if isinstance(given, Mapping):
        return CustomState.from_dict(given)
    raise InvalidStateError(
        f"a transition's state is a CustomState or a mapping of its fields; got {type(given).__name__}"
    )


def allocation_of(parts: dict[str, Any], time_s: Float) -> SimpleNamespace:
    """What a transition's methods get to see of an allocation."""
    return SimpleNamespace(**parts, time_s=time_s)


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
