r"""Stackelberg pricing: a leader sets prices, agents best-respond, the leader foresees it.

*Market*. A server sells capacity C at a unit price p; agent i buys what maximises
:math:`w_i \log(1 + a_i x) - p x`, that is :math:`x_i(p) = [w_i / p - 1 / a_i]_+`. With supply cost c a unit the
leader's profit is :math:`(p - c) \sum_i x_i(p)`. Between the prices :math:`w_i a_i` at which agents leave, it is
concave in 1/p with maximum at :math:`p = \sqrt{c W / A}` (W, A: sums of w and 1/a of those who buy), so the optimum
is exact: the best of each piece's, no lower than the price that clears the market.

*Congestion*. The leader puts a fee :math:`\pi_r` on a unit of load of each resource; agents settle in a pure
equilibrium of the game with those fees, and where several options tie they choose as the leader prefers (the
optimistic convention). For a given choice the best fees that make it an equilibrium are a linear program; the
leader's optimum is the best over choices: all of them in small games (exact), else by local search over single
changes (a stated lower bound).

Sources: von Stackelberg (1934); Basar and Srikant (2002), "Revenue-maximizing pricing and capacity expansion in a
many-users regime", for the market; Labbe, Marcotte and Savard (1998), "A bilevel model of taxation", for fees.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import linprog

from games.best_response import above_least, best_response_dynamics
from games.congestion import CongestionGame, Float, Int
from games.errors import InvalidGameError, InvalidStateError, floats


@dataclass(frozen=True)
class MarketLeader:
    """The leader's price and what follows.

    Attributes:
        price: for a unit.
        demand: (N,) what each agent buys.
        profit: (price - cost) times what is sold.
        clearing: lowest price at which demand fits the capacity.
        status: "optimal", or "no sale" where no price above cost sells anything.
    """

    price: float
    demand: Float
    profit: float
    clearing: float
    status: str


@dataclass(frozen=True)
class CongestionLeader:
    """The leader's fees and the equilibrium that they support.

    Attributes:
        fee: (R,) for a unit of load.
        choice: (N,) equilibrium of the game with the fees.
        value: what the leader gets (its objective).
        regret: of ``choice`` in the game with the fees.
        game: that game.
        exact: whether all choices were tried.
    """

    fee: Float
    choice: Int
    value: float
    regret: float
    game: CongestionGame
    exact: bool


def market_leader(weight: ArrayLike, gain: ArrayLike, capacity: float, cost: float = 0.0) -> MarketLeader:
    """The profit-maximising price of a server that knows its customers.

    Args:
        weight: (N,) w_i > 0, in money.
        gain: (N,) a_i > 0, per unit.
        capacity: units for sale, > 0.
        cost: of supplying a unit, >= 0.

    Raises:
        InvalidStateError: names field, agent, value and what is permitted.
    """
    w, a = floats("weight", weight), floats("gain", gain)
    if w.ndim != 1 or a.shape != w.shape:
        raise InvalidStateError(f"weight has shape {w.shape} and gain {a.shape}; both are (N,)")
    for name, array in (("weight", w), ("gain", a)):
        bad = ~(np.isfinite(array) & (array > 0))
        if bad.any():
            i = int(bad.argmax())
            raise InvalidStateError(f"{name}[{i}] = {array[i]}; it is finite and > 0")
    if not (capacity > 0 and np.isfinite(capacity)):
        raise InvalidStateError(f"capacity = {capacity}; it is finite and > 0")
    if not (cost >= 0 and np.isfinite(cost)):
        raise InvalidStateError(f"cost = {cost}; it is finite and >= 0")
    if not len(w):
        return MarketLeader(cost, np.zeros(0), 0.0, 0.0, "no sale")
    # from the highest exit price down: with the first m agents buying, demand is W_m / p - A_m
    exit_price = w * a
    order = np.argsort(-exit_price)
    W, A = np.cumsum(w[order]), np.cumsum(1 / a[order])
    top = exit_price[order]
    bottom = np.append(top[1:], 0.0)
    clear = W / (capacity + A)
    # demand is the largest W_m / p - A_m, so it fits where every one of them does
    clearing = float(clear.max())
    low, high = np.maximum(np.maximum(bottom, clearing), cost), top
    best = np.clip(np.sqrt(cost * W / A), low, high)
    profit = np.where(low < high, (best - cost) * (W / np.maximum(best, 1e-300) - A), -np.inf)
    m = int(profit.argmax())
    if not profit[m] > 0:
        return MarketLeader(max(cost, float(top[0])), np.zeros(len(w)), 0.0, clearing, "no sale")
    price = float(best[m])
    demand = np.maximum(w / price - 1 / a, 0.0)
    return MarketLeader(price, demand, float((price - cost) * demand.sum()), clearing, "optimal")


def congestion_leader(
    game: CongestionGame,
    *,
    most_fee: float,
    objective: str = "revenue",
    enumerate_up_to: int = 500,
    starts: int = 5,
    seed: int = 0,
) -> CongestionLeader:
    """The leader's fees on a congestion game's resources.

    Args:
        game: N >= 1 agents; its toll stays.
        most_fee: largest fee for a unit of load, >= 0.
        objective: "revenue", fees paid; or "welfare", minus the social cost (fees are transfers), with the least
            total fees that achieve it.
        enumerate_up_to: joint choices up to which all are tried.
        starts: of the local search beyond that.
        seed: of the starts.

    Raises:
        InvalidGameError: an objective that does not exist, or a bad ``most_fee``.
    """
    if objective not in ("revenue", "welfare"):
        raise InvalidGameError(f"objective = {objective!r}; choose revenue or welfare")
    if not (most_fee >= 0 and np.isfinite(most_fee)):
        raise InvalidGameError(f"most_fee = {most_fee}; it is finite and >= 0")
    sign = 1.0 if objective == "revenue" else -1.0

    def worth(choice: Int) -> tuple[float, Float]:
        fee = _supporting_fees(game, choice, most_fee, sign)
        if fee is None:
            return -np.inf, np.zeros(len(game.capacity))
        paid = float(game.loads(choice) @ fee)
        return (paid if sign > 0 else -game.social_cost(choice)), fee

    per_agent = [np.flatnonzero(row) for row in game.allowed]
    joint = float(np.prod([len(o) for o in per_agent], dtype=float))
    exact = joint <= enumerate_up_to
    best = (-np.inf, np.zeros(len(game.capacity)), np.zeros(game.agents, np.int64))
    if exact:
        for joint_choice in itertools.product(*per_agent):
            choice = np.array(joint_choice, dtype=np.int64)
            value, fee = worth(choice)
            if value > best[0]:
                best = (value, fee, choice)
    else:
        rng = np.random.default_rng(seed)
        for turn in range(starts):
            fees = rng.uniform(0, most_fee if turn else 0.0, len(game.capacity))
            choice = best_response_dynamics(_with_fees(game, fees)).choice
            value, fee = worth(choice)
            improved = True
            while improved:
                improved = False
                for i, options in enumerate(per_agent):
                    for option in options:
                        if option == choice[i]:
                            continue
                        other = choice.copy()
                        other[i] = option
                        new, new_fee = worth(other)
                        if new > value and (np.isinf(value) or new - value > 1e-12 * (abs(new) + abs(value))):
                            choice, value, fee, improved = other, new, new_fee, True
            if value > best[0]:
                best = (value, fee, choice)
    value, fee, choice = best
    if not np.isfinite(value):
        # no fees are always within reach, and they leave the game its own equilibrium
        fee = np.zeros(len(game.capacity))
        choice = best_response_dynamics(game).choice
        value = 0.0 if sign > 0 else -game.social_cost(choice)
    priced = _with_fees(game, fee)
    return CongestionLeader(fee, choice, float(value), priced.regret(choice), priced, exact)


def _with_fees(game: CongestionGame, fee: Float) -> CongestionGame:
    charge = np.append(game.weight * fee, np.zeros((game.agents, 1)), axis=1)
    return replace(game, private_cost=game.private_cost + sum(charge[:, column] for column in game.options.T))


def _supporting_fees(game: CongestionGame, choice: Int, most: float, sign: float) -> Float | None:
    """Fees with the most (sign 1) or the least (sign -1) revenue under which no agent would leave ``choice``."""
    n, options = game.private_cost.shape
    resources = len(game.capacity)
    costs = replace(game, private_cost=above_least(game.private_cost, game.allowed)).costs(choice)
    uses = np.zeros((options, resources))
    for o, row in enumerate(game.options):
        uses[o, row[row >= 0]] = 1.0
    rows, right = [], []
    for i in range(n):
        for o in np.flatnonzero(game.allowed[i]).tolist():
            if o != choice[i]:
                # fees in units of the largest, and each comparison in its own unit: the solver's tolerance is absolute
                row = most * game.weight[i] * (uses[choice[i]] - uses[o])
                gap = costs[i, o] - costs[i, choice[i]]
                unit = max(float(np.abs(row).max()), abs(gap))
                if unit > 0:
                    rows.append(row / unit)
                    right.append(gap / unit)
    load = game.loads(choice)
    if not rows or most == 0:
        fee = np.full(resources, most if sign > 0 else 0.0)
    else:
        answer = linprog(
            -sign * load / (load.max() or 1.0), np.array(rows), np.array(right), bounds=(0, 1), method="highs",
            options={"primal_feasibility_tolerance": 1e-10, "dual_feasibility_tolerance": 1e-10},
        )  # fmt: skip
        if answer.status != 0:
            return None
        fee = most * np.clip(answer.x, 0.0, 1.0)
    # as measured, not as the solver says
    gain, size = _with_fees(game, fee).gains(choice)
    return fee if (gain <= 1e-8 * size).all() else None
