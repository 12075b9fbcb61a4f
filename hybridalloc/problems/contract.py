"""The one stated contract of a domain: what the house asks of a problem, and what a problem may offer beside.

E worlds side by side (E = 1 serves a step), N agents, O options (0 opts out), R resources, D levels (continuous
quantities an agent), H decisions over which a leftover is charged. S is the problem's state, P its plan, Q its prices.

A domain writes physics: a card, worlds, a game, settling, observation and a check. :mod:`hybridalloc.problems.slots`
has what every domain has. :mod:`hybridalloc.problems.members` names what a domain misses.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, NamedTuple, Protocol, Self, TypeGuard, TypeVar, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from coordinator.coordinator import Situation
from coordinator.improve import Improve
from coordinator.why import Names
from games.admission import Seating
from games.certificate import Audit, CapacityCheck
from games.certificate_lists import Findings
from hybridalloc.problems.metrics import Metric
from rl.value import Stored, Valuer, Worth

Float = NDArray[np.float64]
Int = NDArray[np.int64]
Bool = NDArray[np.bool_]
A = TypeVar("A")
S = TypeVar("S")
P = TypeVar("P")
Q = TypeVar("Q", contravariant=True)
S_co = TypeVar("S_co", covariant=True)
Seen = TypeVar("Seen", contravariant=True)


class Prices(Protocol):
    """What a problem's game charges: a NamedTuple of floats with defaults."""

    @property
    def _fields(self) -> tuple[str, ...]: ...

    def _asdict(self) -> dict[str, Any]: ...

    def _replace(self, **changes: Any) -> Self: ...


class Belief(Protocol):
    """What an operator takes for true of what it is not told; learned from step to step or known."""

    name: str
    label: str  # "learned beliefs", as tables say it
    default_trust: float  # of a hybrid that believes it, before anything is calibrated
    learns: bool  # whether there is anything to learn
    learning: bool

    def copy(self, learning: bool = True) -> Self:
        """One that knows the same and goes its own way."""

    def figures(self) -> dict[str, float]:
        """How good it is, running, for the tracker."""

    def settings(self) -> dict[str, Any]:
        """Arguments that make it again, whole numbers and flags."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


@dataclass(frozen=True)
class Card:
    """What tables, commands, tuning and reports read of a problem.

    Attributes:
        name: of the domain. agents: N of the worlds that it draws. epochs: decisions of an episode.
        prices: the type of its prices, whose defaults are charged where nothing else is said.
        metrics: with their folds. headline: keys of those that matter most; the first is what is tuned for.
        size: in words, such as "50 devices, 9 servers, EUA sites". variant: of the problem, such as "set H".
        agent_word: one agent, such as "device". options: a name for each option, opting out first; () for numbers.
        families: of resources; an option uses at most one resource of each, and shares and prices come by them. Where
            nothing is shared, as in a game of levels, of limits, and prices alone come by them.
        baselines: heuristics with their labels. starts: of them those from which a choice is improved too, where that
            is cheap and they serve well. published: of them those that stand here as others have published or shipped
            them. bounds: what knows that nobody is told, with labels: no rivals. One that is among the baselines is
            run as they are, any other is worked out (:class:`Bounds`).
        price_space: of the random search over prices, by name (lowest, highest, whether on a logarithmic scale).
            reference_prices: rows of a comparison beside the tuned ones.
        beliefs: by name. levels: continuous quantities that a recommender may propose, (lowest, highest) by name.
        decides: what its game is of, "options" or "levels".
        unit_s: seconds by which discounting counts: a reward in ``elapsed_s`` is worth gamma ** (elapsed_s / unit_s).
        datasets: whose digests a run records. tags: by which its runs are told apart in a tracker.
        unpriced: what a price is worth to a file that does not name it, by name: of those that a file may lack.
        cycle: decisions after which the world's law repeats, such as a day's: whole ones are measured.
        whole_episodes: what counts is an episode from its beginning to its end, however many decisions that takes:
            worlds that fill up, arrivals one by one. Otherwise a number of decisions is measured wherever they fall.
        fleeting: every decision is about other agents, so that none of them can go back and forth.
        events: decisions come when something happens, and when depends on what was decided before: what a decision
            counts is what ended until the next one.
        store: the word for what its agents live on and decisions draw from, such as "battery"; "" where there is none.
        change_cost: what a change of option costs, below which it is not worth it: a number, or the name of the price
            that says so.
        notes: what holds whatever is decided, in sentences for who reads a report, such as that a job fits nowhere.
    """

    name: str
    agents: int
    epochs: int
    prices: type[Any]
    metrics: tuple[Metric, ...]
    headline: tuple[str, ...]
    size: str = ""
    variant: str = ""
    agent_word: str = "agent"
    options: tuple[str, ...] = ()
    families: tuple[str, ...] = ("share",)
    baselines: Mapping[str, str] = field(default_factory=dict)
    starts: tuple[str, ...] = ()
    published: tuple[str, ...] = ()
    bounds: Mapping[str, str] = field(default_factory=dict)
    price_space: Mapping[str, tuple[float, float, bool]] = field(default_factory=dict)
    reference_prices: Mapping[str, Any] = field(default_factory=dict)
    beliefs: Mapping[str, type[Any]] = field(default_factory=dict)
    levels: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    decides: str = "options"
    unit_s: float = 1.0
    datasets: tuple[str, ...] = ()
    tags: Mapping[str, str] = field(default_factory=dict)
    change_cost: float | str = 0.1
    unpriced: Mapping[str, float] = field(default_factory=dict)
    store: str = ""
    cycle: int = 1
    whole_episodes: bool = False
    fleeting: bool = False
    events: bool = False
    notes: tuple[str, ...] = ()

    @property
    def improve(self) -> Improve:
        """How choices are improved where nothing else is said."""
        return Improve(starts=self.starts)

    def metric(self, key: str) -> Metric:
        """A metric by its key."""
        return next(metric for metric in self.metrics if metric.key == key)

    def whole(self, decisions: int) -> int:
        """So many decisions, rounded up to whole cycles."""
        return -(-decisions // self.cycle) * self.cycle

    @property
    def aim(self) -> Metric:
        """The metric that is tuned for."""
        return self.metric(self.headline[0])

    def cost_of_change(self, prices: Prices) -> float:
        """What a change of option costs under ``prices``."""
        cost = self.change_cost
        return float(prices._asdict()[cost] if isinstance(cost, str) else cost)


class Facts(NamedTuple):
    """What happened in one decision of E worlds.

    ``lost`` and ``carried`` are <= 0 as a rule: what others lose because of the agent in this decision, and because of
    what it left h + 1 decisions ago. Where all are paid the same, ``lost`` may take off what would have been paid
    without the agent, which leaves its own difference. ``elapsed_s``: until the next decision, a slot or the time to
    the next event. ``left``: whose part in the episode ended with it for good, where agents come and go: what its place
    holds next is another's, and no part of what its own decisions brought; None where nobody leaves.
    """

    reward: Float  # (E, N)
    lost: Float  # (E, N)
    carried: Float  # (E, N, H)
    elapsed_s: Float  # (E,)
    counts: Mapping[str, NDArray[Any]]  # (E,), (E, N) or samples (E, any) by name: what the metrics' folds read
    left: Bool | None = None  # (E, N)


class World(Situation, Protocol[S_co, P, Q]):
    """E worlds stepped together: observe, game and settle (see :class:`Situation`), and what follows.

    ``epoch`` (E,) counts decisions since each world began and may be written; ``active`` (E, N): has something to
    decide.
    """

    epoch: Int

    @property
    def size(self) -> int: ...

    @property
    def active(self) -> Bool: ...

    def execute(self, plan: P) -> Facts:
        """Carry the plan out. Randomness is the same whatever is executed."""

    def drift(self) -> Bool:
        """On to the next decision; (E,) whether the episode is over there."""

    def restart(self, which: Bool) -> None:
        """New episodes where ``which`` (E,) is set."""

    def reseed(self, seeds: Sequence[int]) -> None:
        """Draw from fresh streams, one a world, from now on."""

    def baseline(self, name: str, rng: np.random.Generator) -> Int:
        """(E, N) joint choice of a heuristic of the card."""

    def excess(self, plan: P) -> Float:
        """(E,) worst relative excess over any limit, by code that settling does not share."""

    def requested(self, option: Int, prices: Q) -> Float:
        """(E,) share of the used resources that a raw choice, executed as asked, would overload."""

    def priority(self) -> Float:
        """(E, N) who is named first where not all can be served."""

    def state(self, e: int) -> S_co:
        """World ``e`` as a state of its own."""

    def parts(self, plan: P, e: int = 0) -> dict[str, Any]:
        """World ``e`` of a plan as the fields of an allocation."""

    def plan_of(self, allocation: Any) -> P:
        """An allocation of one world as a plan."""

    def state_dict(self) -> dict[str, Any]:
        """Everything that the future depends on: arrays, text and plain containers of them."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what :meth:`state_dict` gave; a ValueError names what does not fit."""


class Problem(Protocol[S, P, Q]):
    """A domain with its settings: frozen, equal by value, described by plain data."""

    @property
    def card(self) -> Card: ...

    @property
    def state_type(self) -> type[S]: ...

    def worlds(self, seeds: Sequence[int], belief: Any = None) -> World[S, P, Q]:
        """E = len(seeds) worlds, each with its own stream of randomness, all under one belief."""

    def world_at(self, state: S, memory: Any = None) -> World[S, P, Q]:
        """One world that stands at ``state``, as far as it is told."""

    def check(self, state: S, allocation: Any) -> CapacityCheck:
        """Feasibility of an allocation from the definitions, by code that no solver shares."""

    def describe(self) -> dict[str, Any]:
        """Plain data from which the problem can be made again, exactly."""

    def reset(self, seed: int = 0) -> S:
        """The first state of an episode."""

    def evaluate(self, state: S, allocation: Any) -> dict[str, float]:
        """One decision's metrics of an allocation, without moving on."""

    def advance(self, state: S, allocation: Any, seed: int) -> tuple[S, dict[str, float]]:
        """Execute an allocation; the next state, and this decision's metrics."""


AnyProblem = Problem[Any, Any, Any]  # where it does not matter which
AnyWorld = World[Any, Any, Any]


# --- what a problem or a world may offer beside; asked for by isinstance


_OFFERED: dict[tuple[type, type], bool] = {}


def offers(thing: object, ability: type[A]) -> TypeGuard[A]:
    """``isinstance`` of an optional ability, remembered by class: asked in every step, where looking up each name of
    a protocol takes longer than the answer is worth. A class that finds names at run time is asked each time."""
    kind = type(thing)
    if hasattr(kind, "__getattr__"):
        return isinstance(thing, ability)
    key = (kind, ability)
    if key not in _OFFERED:
        _OFFERED[key] = isinstance(thing, ability)
    return _OFFERED[key]


@runtime_checkable
class Audits(Protocol):
    """Can read its own states and allocations a second time, for the certificate."""

    def audit(self, state: Any, allocation: Any, prices: Any, believed: Any = None) -> Audit: ...


@runtime_checkable
class Examines(Audits, Protocol):
    """Can also read of them what a certificate needs, and no more; None where only the whole will do."""

    def examine(self, state: Any, allocation: Any, prices: Any, believed: Any = None) -> Findings | None: ...


@runtime_checkable
class Remembers(Protocol):
    """Has beliefs that are served step by step."""

    def recall(self, belief: Any, state: Any, past: Any) -> Any:
        """What a belief remembers before ``state``; ``past`` is the last world and the plan executed there, or None."""


@runtime_checkable
class Believes(Protocol):
    """A world that says what it believes of its state, as data for the certificate; None: the reports."""

    def believed(self) -> Any: ...


@runtime_checkable
class Stores(Protocol):
    """A world whose agents each live on a store that their options draw from and time fills: a battery, a tank, a
    queue's room. :class:`hybridalloc.problems.stores.Storing` has what is the same for all."""

    value: Valuer | None  # that says what is left is worth; None: nobody does

    def stored(self) -> Stored:
        """Level, capacity, features and what each option is believed to draw, before the decision at hand."""

    def refill(self, level: Float) -> None:
        """Set every level (E, N)."""

    def valuing(self, value: Valuer | None) -> Self:
        """Let ``value`` say what is left is worth, from now on: its game charges an option V(b) - V(b - J), its
        settling takes V's slope for the price of a unit. None: nobody does. Returns this world."""

    def worth(self) -> Worth | None:
        """What every agent's store is worth after the decision at hand, by its level; None where nobody says."""


@runtime_checkable
class Rules(Protocol):
    """A world whose heuristics do more than choose options: each says its whole plan."""

    def rule(self, name: str, prices: Any, rng: np.random.Generator) -> tuple[Int, Any]:
        """Choice (E, N) and plan of a heuristic of the card."""


@runtime_checkable
class Responds(Protocol):
    """A world that says which best responses its last settling pulled towards a proposal, (E, N) by level."""

    responses: dict[str, Float]


@runtime_checkable
class Ends(Protocol):
    """A world whose episodes may end for good, so that nothing follows, and are not merely cut off."""

    @property
    def terminated(self) -> Bool:
        """(E,) of those that the last drift said are over; before they are begun anew."""


@runtime_checkable
class Spreads(Protocol):
    """A world that can be brought part of the way along its episode, where that depends on what was decided before."""

    def spread(self, share: Float) -> None:
        """Each world so far along (E,), 0 at its beginning, 1 at its end, by its own game at the prices' defaults."""


@runtime_checkable
class Plays(Protocol):
    """Can run whole episodes of its game without the loop over decisions: what evolution searches prices by."""

    def play(self, prices: Any, seeds: Sequence[int]) -> dict[str, Float]:
        """Metrics (V,) by the card's keys, of the episodes that its worlds of these seeds would have."""


@runtime_checkable
class Bounds(Protocol):
    """A problem that can work out what no decisions exceed, where nothing is there to be executed."""

    def bound(self, name: str, seeds: Sequence[int]) -> dict[str, Float]:
        """Metrics (V,) by the card's keys that no decisions can better, in the episodes that its worlds of these seeds
        have. ``name``: of the card's bounds. What is left out has no bound."""


@runtime_checkable
class Shifts(Protocol):
    """Can be put under other laws than its own: what a robust trust rehearses, and the reality gap's test."""

    def scenarios(self) -> tuple[Any, ...]: ...

    def shifted(self, shift: Any) -> Any: ...


@runtime_checkable
class Perturbs(Protocol):
    """Can tell one state as it would be under another law, where it has no simulator."""

    def scenarios(self) -> tuple[Any, ...]: ...

    def perturbed(self, state: Any, shift: Any, seed: int = 0) -> Any: ...


@runtime_checkable
class Reveals(Protocol):
    """Can tell what the next state shows of the last: what adapts a trust of "hedge"."""

    def revealed(self, state: Any, following: Any) -> Any: ...


@runtime_checkable
class Refuses(Protocol):
    """Can say why an agent gets nothing, from the state alone."""

    def refusal(self, state: Any, agent: int) -> str | None:
        """The reason in a sentence; None where none is known."""


@runtime_checkable
class Explains(Protocol):
    """Can say what would admit an agent that is not served, one row a way; :mod:`hybridalloc.problems.knobs` does it
    for whoever offers :class:`Knobs`."""

    def admits(
        self, state: Any, allocation: Any, agent: int, prices: Any, proposal: Any = None, trust: float = np.inf,
        memory: Any = None,
    ) -> tuple[dict[str, Any], ...]: ...  # fmt: skip


@dataclass(frozen=True)
class Knob(Generic[S]):
    """One quantity of a state that may be turned up for an agent that is not served.

    Attributes:
        name: of the quantity, such as "deadline_s". now: its value, >= 0; 1 where what is turned is a factor.
        turned: the state with another value.
        words: what is said of a value as ``told``, see :func:`hybridalloc.problems.knobs.words`.
        told: a value as rows state it under ``now`` and ``needed``.
        guess: the value that a closed form says is needed; inf where there is none. It is tried first.
        exact: nothing but the guess is tried, as what settles does not read the quantity.
        values: where only these can make a difference, ascending: the least is named, after all other ways (a rank).
        option: the one that it is for; where no places were given the agent is put there. None: as it is.
        rivals: of the knobs that share this word only the one that has to be turned the least is told.

    Raises:
        ValueError: ``now`` is no number that a factor could turn, or ``values`` do not ascend.
    """

    name: str
    now: float
    turned: Callable[[float], S]
    words: Callable[[Any], str]
    told: Callable[[float], Any] = lambda value: value
    guess: float = np.inf
    exact: bool = False
    values: Sequence[float] | None = None
    option: int | None = None
    rivals: str = ""

    def __post_init__(self) -> None:
        if self.values is not None:
            if list(self.values) != sorted(self.values):
                raise ValueError(f"knob {self.name!r}: values = {list(self.values)[:6]}; they must ascend")
        elif not 0 <= self.now < np.inf or (self.now == 0 and self.guess == np.inf):
            raise ValueError(
                f"knob {self.name!r}: now = {self.now}; it must be finite and > 0, or 0 with a guess of what is needed"
            )


@runtime_checkable
class Knobs(Protocol):
    """Can say what may be turned for an agent that is not served."""

    def knobs(self, state: Any, allocation: Any, agent: int, prices: Any) -> Sequence[Knob[Any]]: ...


@runtime_checkable
class Named(Protocol):
    """Has names of its own for agents, options and resources."""

    def names(self, state: Any, agent: int) -> Names: ...

    def agent(self, state: Any, name: str) -> int:
        """Who is called so. Raises InvalidStateError: nobody; says who is nearest."""


@runtime_checkable
class Remarks(Protocol):
    """A world that says what whoever reads an allocation's status should know of its state."""

    def remark(self) -> str:
        """In a few words, "" where there is nothing to say."""


@runtime_checkable
class Idles(Protocol):
    """Can say what becomes of everyone when nobody is given anything, as the fields of an allocation."""

    def idle(self, state: Any) -> dict[str, Any]: ...


class Optimum(NamedTuple):
    """A joint choice that was held against what can be reached at all.

    Attributes:
        option: (1, N). seating: who holds a place. gap: agents that could be served beyond those that are, at most, of
            the first class for which that is not proved to be 0. note: the same in words.
    """

    option: Int
    seating: Seating | None
    gap: int
    note: str


@runtime_checkable
class Optimises(Protocol):
    """Can work out an optimum to hold decisions against: the method "optimal"."""

    def optimum(self, state: Any, prices: Any, limit_s: float) -> Optimum:
        """Within ``limit_s``; raises InvalidStateError for what is beyond its reach."""


@runtime_checkable
class Exemplifies(Protocol):
    """Has a state to show and to warm up with that need not be the first of an episode."""

    def example(self, seed: int = 0) -> Any: ...


@runtime_checkable
class Restores(Protocol):
    """A maker of problems that reads its own descriptions."""

    def restore(self, description: dict[str, Any]) -> Any: ...


@runtime_checkable
class Drawn(Protocol):
    """Has a picture: sites and agents in the plane, for the report's map."""

    def picture(self, state: Any, allocation: Any) -> dict[str, Any]:
        """``stations`` (K, 2) and ``devices`` (N, 2) in m east and north; ``option`` (N,): 0, or 1 + the site that
        serves the agent; ``active`` (N,); and ``site``, the word for one. {} where no places are known."""


@runtime_checkable
class Simulates(Protocol):
    """Runs a world that its user wrote, named by a file or given as an object; see ``custom``."""

    def simulator(self) -> Any:
        """It, None where there is none; a CheckpointError where a file names it and nobody allowed that."""


def example_of(problem: AnyProblem, seed: int = 0) -> Any:
    """A state of ``problem`` to try, without running what nobody allowed."""
    return problem.example(seed) if isinstance(problem, Exemplifies) else problem.reset(seed)
