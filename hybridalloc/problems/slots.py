"""What every domain has, once: first states, one decision and its metrics, descriptions, whole states of worlds.

A problem derives from :class:`Slots` and a world from :class:`SlotWorld`; a domain writes physics and nothing of this.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, ClassVar, Generic, NoReturn, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from games.certificate import CapacityCheck
from hybridalloc.errors import nearest
from hybridalloc.problems.contract import Bool, Card, Float, Int, P, Prices, Q, S, World
from hybridalloc.problems.metrics import Tally
from hybridalloc.problems.settings import described, restored
from hybridalloc.problems.state import State
from rl.proposal import Observation

T = TypeVar("T", bound=State)
D = TypeVar("D", bound="StateSlots[Any, Any, Any]")
NAMES = ("name", "class")  # of a description: which problem it is, beside the settings


class Slots(Generic[S, P, Q]):
    """Half of a :class:`hybridalloc.problems.contract.Problem`; the other half is ``card``, ``state_type``, ``worlds``,
    ``world_at`` and ``check``. Of a dataclass whose settings have defaults, :meth:`describe` and :meth:`restore` too.
    """

    if TYPE_CHECKING:  # the domain's half, as far as it is called here; what it lacks is lacking

        @property
        def card(self) -> Card: ...

        def worlds(self, seeds: Sequence[int], belief: Any = None) -> World[S, P, Q]: ...

        def world_at(self, state: S, memory: Any = None) -> World[S, P, Q]: ...

    @property
    def name(self) -> str:
        """Of the domain."""
        return self.card.name

    @property
    def prices_type(self) -> type[Prices]:
        """What its game charges; made without arguments, the defaults."""
        return self.card.prices

    def describe(self) -> dict[str, Any]:
        """Plain data from which :meth:`restore` makes the problem again: name, class and settings."""
        kind = type(self)
        return {"name": self.name, "class": f"{kind.__module__}:{kind.__qualname__}", **described(self)}

    @classmethod
    def restore(cls, description: Mapping[str, Any]) -> Self:
        """The problem that :meth:`describe` described.

        Raises:
            ValueError: a setting is missing, unknown, or not of the kind of its default.
        """
        made: Self = restored(cls(), {name: value for name, value in description.items() if name not in NAMES})
        return made

    def reset(self, seed: int = 0) -> S:
        """The first state of an episode."""
        return self.worlds([seed]).state(0)

    def evaluate(self, state: S, allocation: Any) -> dict[str, float]:
        """One decision's metrics of an allocation, without moving on."""
        return self._decide(self.world_at(state), allocation)

    def advance(self, state: S, allocation: Any, seed: int) -> tuple[S, dict[str, float]]:
        """Execute an allocation; the next state, and this decision's metrics."""
        world = self.world_at(state)
        world.reseed([seed])
        metrics = self._decide(world, allocation)
        world.drift()
        return world.state(0), metrics

    def _decide(self, world: World[S, P, Q], allocation: Any) -> dict[str, float]:
        facts = world.execute(world.plan_of(allocation))
        tally = Tally(self.card.metrics, 1)
        tally.add(facts.counts, facts.elapsed_s)
        return {key: float(value[0]) for key, value in tally.summary().items()}


class SlotWorld:
    """Half of a :class:`hybridalloc.problems.contract.World`: a clock of decisions, and its whole state.

    Args:
        size: E. epochs: decisions of an episode.
    """

    def __init__(self, size: int, epochs: int) -> None:
        self.epoch = np.zeros(size, np.int64)
        self._epochs = epochs

    @property
    def size(self) -> int:
        return len(self.epoch)

    def ended(self) -> Bool:
        """(E,) whether the episode's length is reached."""
        return self.epoch >= self._epochs

    def arrays(self) -> dict[str, Any]:
        """All that the future depends on, by name: the world's own arrays, not copies; ``epoch`` is among them."""
        return {"epoch": self.epoch}

    def state_dict(self) -> dict[str, Any]:
        """Copies of :meth:`arrays`."""
        return {name: value.copy() for name, value in self.arrays().items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Fill :meth:`arrays` from what :meth:`state_dict` gave.

        Raises:
            ValueError: an array is missing, unknown, or has another shape or dtype.
        """
        own = self.arrays()
        for name in (*own, *state):
            if name not in own or name not in state:
                raise ValueError(f"{name[:60]!r} is {'unknown' if name in state else 'missing'} in a world's state")
            value, given = own[name], state[name]
            if not isinstance(given, np.ndarray) or (given.shape, given.dtype) != (value.shape, value.dtype):
                raise ValueError(f"{name} has another shape or dtype than {value.shape}, {value.dtype}")
        for name, value in own.items():
            value[...] = state[name]

    def unknown_baseline(self, name: str, known: Iterable[str]) -> NoReturn:
        """For a heuristic that is none of the card's."""
        raise nearest("baseline", name, known)


class StateSlots(Slots[T, P, Q]):
    """:class:`Slots` whose worlds are a :class:`StateWorld`; a domain gives ``world_type`` and :meth:`first`."""

    world_type: ClassVar[type[Any]]

    if TYPE_CHECKING:

        def check(self, state: T, allocation: Any) -> CapacityCheck: ...

    def first(self, rng: np.random.Generator) -> T:
        """The first state of an episode."""
        raise NotImplementedError(f"{type(self).__name__}.first(rng) -> the first state of an episode")

    def worlds(self, seeds: Sequence[int], belief: None = None) -> World[T, P, Q]:
        """E = len(seeds) worlds, each with its own stream of randomness. There are no beliefs to attach."""
        if belief is not None:
            raise ValueError(f"{self.name} has no beliefs: its states are taken as they are")
        states = [self.first(np.random.default_rng([int(seed), 0])) for seed in seeds]
        made: World[T, P, Q] = self.world_type(self, states, seeds)
        return made

    def world_at(self, state: T, memory: None = None) -> World[T, P, Q]:
        """One world that stands at ``state``."""
        made: World[T, P, Q] = self.world_type(self, [state], [0])
        return made


class StateWorld(SlotWorld, Generic[D, T, Q]):
    """A :class:`SlotWorld` of E states of one kind and shape, each with a stream of random numbers.

    A domain gives :meth:`following`, :meth:`fresh` where its future depends on more than its states, and ``ended``
    where an episode's length is no number of decisions.

    Args:
        problem: a :class:`StateSlots`. states: where the worlds stand. seeds: one a world.

    Attributes:
        at: the states' fields by name, stacked (E, ...). own: what :meth:`fresh` gave, as it is now.
        stream: (E, 2) seed, and how often it was drawn from.
    """

    def __init__(self, problem: D, states: Sequence[T], seeds: Sequence[int]) -> None:
        super().__init__(len(states), problem.card.epochs)
        self.problem, self.kind = problem, type(states[0])
        self.at = {f.name: np.array([getattr(state, f.name) for state in states]) for f in fields(self.kind)}
        self.own = self.fresh()
        self.stream = np.zeros((len(states), 2), np.int64)
        self.reseed(seeds)

    @property
    def active(self) -> Bool:
        """(E, N) who has something to decide."""
        return np.asarray(self.at["active"])

    def seen(self, agent: Sequence[Any], resource: Sequence[Any], pair: Sequence[Any]) -> Observation:
        """An observation of features of order one: of an agent (E, N), of a resource (E, R) and of an agent and an
        option (E, N, O). Option 0 stands for no resource, option o for the row o - 1; all are allowed."""
        told = [np.stack(parts, -1).astype(np.float32) for parts in (agent, resource, pair)]
        options = told[2].shape[2]
        allowed = np.ones((*self.active.shape, options), bool)
        return Observation(told[0], told[1], told[2], self.active.copy(), allowed, np.arange(options) - 1)

    def fresh(self) -> dict[str, NDArray[Any]]:
        """Arrays of the domain's own by name, (E, ...), as an episode begins."""
        return {}

    def priority(self) -> Float:
        """(E, N) who is named first where not all can be served; nobody, unless a domain says so."""
        return np.zeros(self.active.shape)

    def requested(self, option: Int, prices: Q) -> Float:
        """(E,) share of the used resources that a raw choice would overload; none, unless a domain says so."""
        return np.zeros(self.size)

    def following(self, e: int, rng: np.random.Generator) -> T:
        """What follows in world ``e`` after what was executed."""
        raise NotImplementedError(f"{type(self).__name__}.following(e, rng) -> the state after what was executed")

    def drift(self) -> Bool:
        """On to the next decision; (E,) whether the episode is over there."""
        for e in range(self.size):
            self._become(e, self.following(e, self.draws(e)))
        self.epoch += 1
        return self.ended()

    def restart(self, which: Bool) -> None:
        """New episodes where ``which`` (E,) is set."""
        for e in np.flatnonzero(which):
            self._become(int(e), self.problem.first(self.draws(int(e))))
        self.epoch[which] = 0
        for name, values in self.fresh().items():
            self.own[name][which] = values[which]

    def _become(self, e: int, state: T) -> None:
        for name, values in self.at.items():
            values[e] = getattr(state, name)

    def state(self, e: int) -> T:
        """World ``e`` as a state of its own."""
        return self.kind(**{name: value[e] if value.ndim > 1 else value[e].item() for name, value in self.at.items()})

    def draws(self, e: int) -> np.random.Generator:
        """The next random numbers of world ``e``: the same at its k-th call, whatever was executed."""
        self.stream[e, 1] += 1
        return np.random.default_rng(self.stream[e])

    def reseed(self, seeds: Sequence[int]) -> None:
        """Draw from fresh streams, one a world, from now on."""
        self.stream[:] = [[int(seed), 0] for seed in seeds]

    def excess(self, plan: Any) -> Float:
        """(E,) worst relative excess over any limit, by the problem's own check of each world."""
        allocations = (SimpleNamespace(**self.parts(plan, e)) for e in range(self.size))
        return np.array([self.problem.check(self.state(e), a).max_violation for e, a in enumerate(allocations)])

    def parts(self, plan: Any, e: int = 0) -> dict[str, Any]:
        """World ``e`` of a plan as the fields of an allocation."""
        raise NotImplementedError(f"{type(self).__name__}.parts(plan, e=0) -> fields of an allocation")

    def arrays(self) -> dict[str, Any]:
        return super().arrays() | {"stream": self.stream} | named("at", self.at) | named("own", self.own)


def named(head: str, arrays: Any) -> dict[str, Any]:
    """The arrays of a named tuple or a mapping, their names under ``head``."""
    return {f"{head}/{k}": value for k, value in (arrays if isinstance(arrays, Mapping) else arrays._asdict()).items()}
