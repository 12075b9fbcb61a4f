r"""Price of anarchy and of stability, and the toll that does away with them.

Price of anarchy: social cost of the worst pure equilibrium over the optimum; of stability: of the best. With
affine costs and toll 0 the first is at most (3 + sqrt 5) / 2 = 2.618 (weighted agents). With toll 1 an agent
also pays what its presence costs the others, so the potential *is* the social cost: the optimum is an
equilibrium (price of stability 1), and best responses from any choice never raise the social cost. Started
at the selfish equilibrium they can only improve on it; started at the optimum they stay.

Sources: Koutsoupias and Papadimitriou (1999); Awerbuch, Azar and Epstein (2005) and Christodoulou and
Koutsoupias (2005) for 2.618; Anshelevich et al. (2004) for stability; Pigou (1920) for the toll.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from games.best_response import best_response_dynamics
from games.brute_force import brute_force
from games.congestion import CongestionGame, Float, Int
from games.optimum import social_optimum

GOLDEN_BOUND = (3 + np.sqrt(5)) / 2


@dataclass(frozen=True)
class Anarchy:
    """How far equilibria are from the optimum.

    Attributes:
        anarchy: worst equilibrium found over the optimum's bound.
        stability: best equilibrium found over the optimum's bound.
        optimum: least social cost, or its proven bound.
        worst, best: (N,) the two equilibria.
        equilibria: how many distinct pure ones were seen.
        exact: True where all joint choices were enumerated; otherwise ``anarchy`` is a lower estimate of the
            true one and ``stability`` an upper.
    """

    anarchy: float
    stability: float
    optimum: float
    worst: Int
    best: Int
    equilibria: int
    exact: bool


@dataclass(frozen=True)
class TollDesign:
    """The marginal-price toll and what it achieves.

    Attributes:
        game: the game with the toll.
        choice: (N,) its equilibrium.
        selfish: (N,) equilibrium without toll.
        social_cost, selfish_cost: their social costs (tolls are transfers and do not count).
        optimum: least social cost, or its bound; nan if not asked for.
        charge: (N,) toll that each agent pays at ``choice``.
        regret: of ``choice`` in the tolled game.
    """

    game: CongestionGame
    choice: Int
    selfish: Int
    social_cost: float
    selfish_cost: float
    optimum: float
    charge: Float
    regret: float


def price_of_anarchy(
    game: CongestionGame, *, starts: int = 50, seed: int = 0, enumerate_up_to: int = 100_000
) -> Anarchy:
    """Worst and best pure equilibria against the optimum.

    Args:
        game: N >= 1 agents, with its toll.
        starts: random starts of best response where the game is too large to enumerate.
        seed: of the starts.
        enumerate_up_to: joint choices up to which all are tried.

    Returns:
        Anarchy; ratios are nan where the optimum costs 0 or less.
    """
    joint = float(np.prod(game.allowed.sum(axis=1), dtype=float))
    exact = joint <= enumerate_up_to
    if exact:
        _, least, found = brute_force(game, enumerate_up_to)
    else:
        solved = social_optimum(game)
        least = solved.bound
        rng = np.random.default_rng(seed)
        seen = {tuple(best_response_dynamics(game, solved.choice).choice.tolist())}
        for _ in range(starts):
            start = np.where(game.allowed, rng.random(game.allowed.shape), -1.0).argmax(axis=1)
            seen.add(tuple(best_response_dynamics(game, start).choice.tolist()))
        found = sorted(seen)
    costs = np.array([game.social_cost(np.array(choice)) for choice in found])
    worst, best = int(costs.argmax()), int(costs.argmin())
    ratio = costs / least if least > 0 else np.full(len(costs), np.nan)
    return Anarchy(
        float(ratio[worst]), float(ratio[best]), float(least), np.array(found[worst]), np.array(found[best]),
        len(found), exact,
    )  # fmt: skip


def marginal_toll(game: CongestionGame, *, optimum: bool = False) -> TollDesign:
    """Charge marginal prices: best responses from the selfish equilibrium to one that costs all less.

    Args:
        game: any toll it has is set aside.
        optimum: also solve for the social optimum (a mixed-integer program) and start there, so that the
            tolled equilibrium is the optimum itself.

    Returns:
        TollDesign with ``social_cost`` <= ``selfish_cost``.
    """
    none = np.zeros(len(game.capacity))
    free, tolled = replace(game, toll=none), replace(game, toll=none + 1)
    selfish = best_response_dynamics(free)
    start, bound = selfish.choice, np.nan
    if optimum:
        solved = social_optimum(free)
        bound = solved.bound
        if free.social_cost(solved.choice) < free.social_cost(start):
            start = solved.choice
    settled = best_response_dynamics(tolled, start)
    pick = np.arange(game.agents), settled.choice
    charge = tolled.costs(settled.choice)[pick] - free.costs(settled.choice)[pick]
    return TollDesign(
        tolled, settled.choice, selfish.choice, free.social_cost(settled.choice),
        free.social_cost(selfish.choice), float(bound), charge, settled.regret,
    )  # fmt: skip
