"""Half of a world whose agents live on stores; see :class:`hybridalloc.problems.contract.Stores`."""

from __future__ import annotations

from typing import Self, TypeVar

from games.congestion import Float
from hybridalloc.problems.contract import AnyProblem, Stores
from rl.value import Stored, Valuer, Worth

W = TypeVar("W")
V = TypeVar("V", bound=Valuer | None)


class Storing:
    """What a world with stores does with their value. The domain gives ``stored`` and ``refill``, adds
    :meth:`store_costs` to its game's private costs in the place of any price of its own for what is drawn, and calls
    :meth:`moved_on` whenever its state changes."""

    value: Valuer | None = None
    _worth: Worth | None = None

    def stored(self) -> Stored:
        """Every agent's store, as it is before the decision at hand."""
        raise NotImplementedError(f"{type(self).__name__}.stored() -> rl.value.Stored")

    def valuing(self, value: Valuer | None) -> Self:
        """Let ``value`` say what is left is worth, from now on; None: nobody does. Returns this world."""
        self.value = value
        self.moved_on()
        return self

    def worth(self) -> Worth | None:
        """What every agent's store is worth after the decision at hand, by its level; None where nobody says."""
        if self._worth is None and self.value is not None:
            self._worth = self.value.worth(self)
        return self._worth

    def store_costs(self, worth: Worth) -> Float:
        """(E, N, O) what each option's draw takes from an agent's store, in worth: a cost of the agent's own."""
        stores = self.stored()
        return worth.lost(stores.level, stores.drawn)

    def moved_on(self) -> None:
        """The state has changed."""
        self._worth = None


def check_stores(problem: AnyProblem) -> None:
    """Raises ValueError where the problem names no store that could be given a value."""
    if not problem.card.store:
        raise ValueError(f"{problem.card.name} as it is set names no store, so nothing in it can be given a value")


def check_value(problem: AnyProblem, value: V) -> V:
    """The value, where it says what the problem's stores are worth.

    Raises:
        ValueError: the problem names none, or the value was learned on other features.
    """
    if value is not None:
        check_stores(problem)
        value.worth(problem.worlds([0]))
    return value


def valued(world: W, value: Valuer | None) -> W:
    """The world with a value for its stores, or without where that is None.

    Raises:
        ValueError: it has none.
    """
    if isinstance(world, Stores):
        world.valuing(value)
    elif value is not None:
        raise ValueError(f"a {type(world).__name__} has no stores that could be given a value")
    return world
