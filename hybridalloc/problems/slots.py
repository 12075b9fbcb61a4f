"""What every domain has, once: first states, one decision and its metrics, descriptions, whole states of worlds.

A problem derives from :class:`Slots` and a world from :class:`SlotWorld`; a domain writes physics and nothing of this.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Generic, NoReturn

import numpy as np

from hybridalloc.errors import nearest
from hybridalloc.problems.contract import Bool, Card, P, Prices, Q, S, World
from hybridalloc.problems.metrics import Tally


class Slots(Generic[S, P, Q]):
    """Half of a :class:`hybridalloc.problems.contract.Problem`; the other half is ``card``, ``state_type``, ``worlds``,
    ``world_at``, ``check`` and ``describe``."""

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

    def unknown_baseline(self, name: str, known: Mapping[str, str]) -> NoReturn:
        """For a heuristic that is none of the card's."""
        raise nearest("baseline", name, known)


def named(head: str, arrays: Any) -> dict[str, Any]:
    """A named tuple's arrays, their names under ``head``."""
    return {f"{head}/{name}": value for name, value in arrays._asdict().items()}
