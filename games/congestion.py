r"""Weighted congestion games with affine costs, player-specific weights and an exact potential.

Agents i choose one option each; an option uses a few resources r. With load
:math:`L_r` = sum of :math:`w_{ir}` over the agents whose option uses r,

.. math::
    cost_i(o) = private_i(o) + \sum_{r \in o} w_{ir} (L_r + toll_r (L_r - w_{ir})) / C_r

    potential = \sum_r \frac{(1 + toll_r) L_r^2 + (1 - toll_r) \sum_i w_{ir}^2}{2 C_r}
                + \sum_i private_i(o_i)

A deviation changes the deviator's cost and the potential by the same amount, for every toll >= 0.
toll 0 is the selfish game (price of anarchy at most (3 + sqrt 5) / 2); toll 1 charges the marginal price,
and its potential is the social cost up to terms that no deviation changes.

Sources: Rosenthal (1973), "A class of games possessing pure-strategy Nash equilibria"; Monderer and
Shapley (1996), "Potential games"; Fotakis, Kontogiannis and Spirakis (2005) for affine weighted games;
Pigou (1920) and Beckmann et al. (1956) for the toll.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import ArrayLike, NDArray

from games.errors import InvalidGameError, floats
from games.lean import KEPT

Float = NDArray[np.float64]
Int = NDArray[np.int64]
Bool = NDArray[np.bool_]


class CongestionBatch(NamedTuple):
    """E games of one shape as plain arrays: what the compiled solvers read. Nothing is checked here.

    options (O, S) resource ids, -1 for none; weight (E, N, R); capacity (E, R) > 0;
    private_cost (E, N, O); allowed (E, N, O) bool; live (E, N) bool, False for an agent that sits this
    step out (it takes option 0 and loads nothing); toll (E, R) >= 0.
    """

    options: Int
    weight: Float
    capacity: Float
    private_cost: Float
    allowed: Bool
    live: Bool
    toll: Float


@dataclass(frozen=True)
class Equilibrium:
    """What a solver found, and how good it is.

    Attributes:
        choice: (N,) option of each agent.
        mixed: (N, O) mixed strategies, or None where the solver works on pure ones.
        regret: largest gain that one agent has by deviating alone from ``choice``.
        potential: exact potential at ``choice``.
        sweeps: passes over all agents.
        residual: largest change of a probability that one more best reply would make (0 if pure).
        converged: whether the stated tolerance was met.
        status: "converged", or what stopped the solver.
    """

    choice: Int
    mixed: Float | None
    regret: float
    potential: float
    sweeps: int
    residual: float
    converged: bool
    status: str


@dataclass(frozen=True)
class CongestionGame:
    """One weighted affine congestion game; see the module for its mathematics.

    Args:
        options: (O, S) resource ids used by each option, -1 for none; a resource at most once an option.
        weight: (N, R) load that agent i puts on resource r, >= 0.
        capacity: (R,) > 0.
        private_cost: (N, O) cost that does not depend on the others.
        allowed: (N, O) bool; every agent needs at least one option. None allows all.
        toll: one number or (R,), >= 0.

    Raises:
        InvalidGameError: names the array, index, value and what is permitted.
    """

    options: Int
    weight: Float
    capacity: Float
    private_cost: Float
    allowed: Bool = None  # type: ignore[assignment]
    toll: Float = 0.0  # type: ignore[assignment]

    def __post_init__(self) -> None:
        if self._is_sound():
            return
        options = whole_numbers("options", self.options)
        if options.ndim != 2:
            raise InvalidGameError(f"options has shape {options.shape}; it needs two axes, options first")
        weight = _matrix("weight", self.weight)
        capacity = np.atleast_1d(floats("capacity", self.capacity))
        private = _matrix("private_cost", self.private_cost)
        n, r = weight.shape
        o = len(options)
        if capacity.shape != (r,):
            raise InvalidGameError(f"capacity has shape {capacity.shape}; weight has {r} resources, so ({r},)")
        if private.shape != (n, o):
            raise InvalidGameError(
                f"private_cost has shape {private.shape}; {n} agents and {o} options need ({n}, {o})"
            )
        _reject("options", options, (options < -1) | (options >= r), f"a resource id is -1 or 0 to {r - 1}")
        ordered = np.sort(options, axis=1)
        twice = (ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0)
        _reject("options", ordered[:, 1:], twice, "an option uses a resource at most once")
        _reject("weight", weight, ~(np.isfinite(weight) & (weight >= 0)), "a weight is finite and >= 0")
        _reject("capacity", capacity, ~(np.isfinite(capacity) & (capacity > 0)), "a capacity is finite and > 0")
        allowed = np.ones((n, o), bool) if self.allowed is None else np.asarray(self.allowed, dtype=bool)
        if allowed.shape != (n, o):
            raise InvalidGameError(f"allowed has shape {allowed.shape}; it must be ({n}, {o})")
        if n and not allowed.any(axis=1).all():
            agent = int(np.argmin(allowed.any(axis=1)))
            raise InvalidGameError(f"allowed[{agent}] has no option; allow at least one, such as opting out")
        _reject("private_cost", private, ~np.isfinite(private) & allowed, "a permitted option's cost is finite")
        toll = floats("toll", self.toll)
        if toll.ndim > 1 or (toll.ndim == 1 and toll.shape != (r,)):
            raise InvalidGameError(f"toll has shape {toll.shape}; give one number or ({r},)")
        toll = np.broadcast_to(toll, (r,)).copy()
        _reject("toll", toll, ~(np.isfinite(toll) & (toll >= 0)), "a toll is finite and >= 0")
        for name, value in (
            ("options", options), ("weight", weight), ("capacity", capacity),
            ("private_cost", np.where(allowed, private, 0.0)), ("allowed", allowed), ("toll", toll),
        ):  # fmt: skip
            object.__setattr__(self, name, np.ascontiguousarray(value))

    def _is_sound(self) -> bool:
        """Whether the arrays are as they should be, in one compiled look; what is not is then told in words."""
        given = (self.options, self.weight, self.capacity, self.private_cost, self.allowed, self.toll)
        for value, (kind, axes) in zip(given, KINDS, strict=True):
            right = type(value) is np.ndarray and value.dtype == kind and value.ndim == axes
            if not (right and value.flags.c_contiguous and value.flags.writeable):
                return False
        n, r = self.weight.shape
        if self.private_cost.shape != (n, len(self.options)) or self.allowed.shape != self.private_cost.shape:
            return False
        if self.capacity.shape != (r,) or self.toll.shape != (r,):
            return False
        private = np.empty(self.private_cost.shape)
        if not _sound(*given, private):
            return False
        for name, value in (
            ("options", self.options.copy()), ("private_cost", private), ("toll", self.toll.copy()),
        ):  # fmt: skip
            object.__setattr__(self, name, value)
        return True

    @property
    def agents(self) -> int:
        return len(self.weight)

    def batch(self) -> CongestionBatch:
        """This game as a batch of one, for the compiled solvers."""
        live = np.ones((1, self.agents), bool)
        return CongestionBatch(
            self.options, self.weight[None], self.capacity[None], self.private_cost[None], self.allowed[None],
            live, self.toll[None],
        )  # fmt: skip

    def check_choice(self, choice: ArrayLike) -> Int:
        """(N,) options as integers, or an InvalidGameError that names the agent."""
        chosen = whole_numbers("choice", choice)
        n, o = self.private_cost.shape
        if chosen.shape != (n,):
            raise InvalidGameError(f"choice has shape {chosen.shape}; {n} agents need ({n},)")
        _reject("choice", chosen, (chosen < 0) | (chosen >= o), f"an option is 0 to {o - 1}")
        taken = self.allowed[np.arange(n), chosen]
        _reject("choice", chosen, ~taken, "that option is not allowed for this agent")
        return chosen

    def loads(self, choice: ArrayLike) -> Float:
        """(R,) load of each resource at ``choice``."""
        return _loads(self.options, self.weight, self.check_choice(choice))

    def costs(self, choice: ArrayLike) -> Float:
        """(N, O) cost of each option to each agent while the others stay; inf where not allowed."""
        chosen = self.check_choice(choice)
        out = np.empty(self.private_cost.shape)
        live = np.ones(self.agents, bool)
        costs_at(
            self.options,
            self.weight,
            self.capacity,
            self.private_cost,
            self.allowed,
            live,
            self.toll,
            chosen,
            out,
        )
        return out

    def potential(self, choice: ArrayLike) -> float:
        """Exact potential: a deviation changes it by the deviator's change of cost."""
        chosen = self.check_choice(choice)
        load = _loads(self.options, self.weight, chosen)
        square = _loads(self.options, self.weight**2, chosen)
        own = self.private_cost[np.arange(self.agents), chosen].sum()
        return float((((1 + self.toll) * load**2 + (1 - self.toll) * square) / (2 * self.capacity)).sum() + own)

    def social_cost(self, choice: ArrayLike) -> float:
        """Sum of the agents' costs without toll (tolls are transfers): sum_r L_r^2 / C_r + private costs."""
        chosen = self.check_choice(choice)
        load = _loads(self.options, self.weight, chosen)
        return float((load**2 / self.capacity).sum() + self.private_cost[np.arange(self.agents), chosen].sum())

    def gains(self, choice: ArrayLike) -> tuple[Float, Float]:
        """(N,) what each agent gains by deviating alone, in cost, and (N,) the size of the costs it compares.

        Costs are taken above each agent's least private cost, which no gain depends on: a constant in all of an
        agent's costs takes no digits.
        """
        chosen = self.check_choice(choice)
        least = np.where(self.allowed, self.private_cost, np.inf).min(axis=1, initial=np.inf, keepdims=True)
        costs = np.empty(self.private_cost.shape)
        costs_at(
            self.options, self.weight, self.capacity, self.private_cost - np.where(np.isfinite(least), least, 0.0),
            self.allowed, np.ones(self.agents, bool), self.toll, chosen, costs,
        )  # fmt: skip
        present = costs[np.arange(self.agents), chosen]
        lowest = costs.min(axis=1, initial=np.inf)
        return present - lowest, np.abs(present) + np.abs(lowest)

    def regret(self, choice: ArrayLike) -> float:
        """Largest gain that one agent has by deviating alone, in cost; 0 at a pure Nash equilibrium."""
        return float(self.gains(choice)[0].max(initial=0.0))

    def prices(self, choice: ArrayLike) -> Float:
        """(R,) marginal price L_r / C_r, what one more unit of load costs those who are there."""
        return self.loads(choice) / self.capacity


KINDS = ((np.int64, 2), (np.float64, 2), (np.float64, 1), (np.float64, 2), (np.bool_, 2), (np.float64, 1))


@njit(**KEPT)
def _sound(options, weight, capacity, private, allowed, toll, out):
    """Whether six arrays of fitting shapes make a game; ``out`` (N, O) gets the private costs, 0 where not allowed."""
    n, resources = weight.shape
    count, span = options.shape
    for o in range(count):
        for s in range(span):
            if options[o, s] < -1 or options[o, s] >= resources:
                return False
            for q in range(s):
                if options[o, s] >= 0 and options[o, q] == options[o, s]:
                    return False
    for r in range(resources):
        if not (0.0 < capacity[r] < np.inf and 0.0 <= toll[r] < np.inf):
            return False
    for i in range(n):
        wrong = False
        for r in range(resources):
            wrong |= not (0.0 <= weight[i, r] < np.inf)
        some = False
        for o in range(count):
            some |= allowed[i, o]
            wrong |= allowed[i, o] and not np.isfinite(private[i, o])
            out[i, o] = private[i, o] if allowed[i, o] else 0.0
        if wrong or not some:
            return False
    return True


def _matrix(name: str, value: Any) -> Float:
    array = floats(name, value)
    if array.ndim != 2:
        raise InvalidGameError(f"{name} has shape {array.shape}; it needs two axes, agents first")
    return array


def whole_numbers(name: str, value: Any) -> Int:
    """``value`` as integers, or an InvalidGameError that names the entry that is none."""
    array = np.asarray(value)
    if array.dtype.kind in "iu":
        return array.astype(np.int64)
    if array.dtype.kind == "b" or not array.size:
        return array.astype(np.int64)
    real = floats(name, value)
    with np.errstate(invalid="ignore"):
        _reject(name, real, ~(np.isfinite(real) & (real == np.round(real))), "a whole number is needed")
    return real.astype(np.int64)


def _reject(name: str, values: NDArray[Any], bad: NDArray[Any], rule: str) -> None:
    if bad.any():
        index = tuple(int(k) for k in np.argwhere(bad)[0])
        where = ", ".join(map(str, index))
        raise InvalidGameError(f"{name}[{where}] = {values[index]}; {rule}")


@njit(**KEPT)
def _loads(options: Int, weight: Float, choice: Int) -> Float:
    load = np.zeros(weight.shape[1])
    for i in range(weight.shape[0]):
        for s in range(options.shape[1]):
            r = options[choice[i], s]
            if r >= 0:
                load[r] += weight[i, r]
    return load


@njit(**KEPT)
def costs_at(options, weight, capacity, private, allowed, live, toll, choice, out):
    """Fill ``out`` (N, O) with every agent's cost of every option at the others' pure ``choice``."""
    n, resources = weight.shape
    load = np.zeros(resources)
    for i in range(n):
        if live[i]:
            for s in range(options.shape[1]):
                r = options[choice[i], s]
                if r >= 0:
                    load[r] += weight[i, r]
    marginal = np.empty(resources)
    uses = np.zeros(resources)
    for i in range(n):
        for s in range(options.shape[1]):
            r = options[choice[i], s]
            if r >= 0 and live[i]:
                uses[r] = 1.0
        for r in range(resources):
            w = weight[i, r]
            marginal[r] = w * (w + (1 + toll[r]) * (load[r] - uses[r] * w)) / capacity[r]
        for o in range(options.shape[0]):
            cost = private[i, o]
            for s in range(options.shape[1]):
                r = options[o, s]
                if r >= 0:
                    cost += marginal[r]
            out[i, o] = cost if allowed[i, o] else np.inf
        for s in range(options.shape[1]):
            r = options[choice[i], s]
            if r >= 0:
                uses[r] = 0.0
