r"""Candidate lists: at large N x O each agent considers its T best options only.

The lists hold the game once more in compact form (N, T), so a sweep touches N T cells rather than N O.
:mod:`games.candidate_games` solves on them; the certificate of its answers still checks all O options.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import ArrayLike, NDArray

from games.congestion import CongestionGame, Float, Int
from games.errors import InvalidGameError, floats
from games.lean import KEPT


@dataclass(frozen=True)
class Candidates:
    """Each agent's short list, and the part of the game that it needs.

    Attributes:
        option: (N, T) option ids, distinct in a row, -1 where an agent has fewer.
        private: (N, T) private costs, inf where ``option`` is -1.
        resource: (N, T, S) resources of each option; R, one past the last, for none.
        weight: (N, T, S) load that choosing it puts there.
    """

    option: Int
    private: Float
    resource: NDArray[np.uint32]
    weight: Float


def candidate_lists(
    game: CongestionGame, count: int, load: ArrayLike | None = None, keep: ArrayLike | None = None
) -> Candidates:
    """The ``count`` options that cost each agent least, by private cost and a guess of the loads.

    Args:
        game: N agents, O options.
        count: T >= 1; at most O are kept.
        load: (R,) loads at which options are ranked, such as last step's; default 0.
        keep: (N,) an option that must be on each list, such as the present choice.

    Raises:
        InvalidGameError: count < 1, or a bad ``keep``.
    """
    if count < 1:
        raise InvalidGameError(f"count = {count}; a list holds at least one option")
    kept = np.full(game.agents, -1, np.int64) if keep is None else game.check_choice(keep)
    at = np.zeros(len(game.capacity)) if load is None else floats("load", load)
    if at.shape != game.capacity.shape:
        raise InvalidGameError(f"load has shape {at.shape}; the game needs {game.capacity.shape}")
    return _lists(game, min(count, len(game.options)), at, kept, np.arange(game.agents))


def refresh(game: CongestionGame, lists: Candidates, agents: ArrayLike, load: ArrayLike | None = None) -> Candidates:
    """New lists for ``agents`` (M,) whose costs or weights changed; the other rows are taken over."""
    who = np.asarray(agents, dtype=np.int64)
    at = np.zeros(len(game.capacity)) if load is None else floats("load", load)
    fresh = _lists(game, lists.option.shape[1], at, np.full(game.agents, -1, np.int64), who)
    names = ("option", "private", "resource", "weight")
    merged = {name: getattr(lists, name).copy() for name in names}
    for name in names:
        merged[name][who] = getattr(fresh, name)
    return Candidates(**merged)


def _lists(game: CongestionGame, count: int, load: Float, keep: Int, agents: Int) -> Candidates:
    rows = len(agents)
    span = game.options.shape[1]
    option = np.empty((rows, count), np.int64)
    private = np.empty((rows, count))
    resource = np.empty((rows, count, span), np.uint32)
    weight = np.empty((rows, count, span))
    _select(
        game.options, game.weight, game.capacity, game.private_cost, game.allowed, game.toll, load, keep,
        agents, option, private, resource, weight,
    )  # fmt: skip
    return Candidates(option, private, resource, weight)


def admit_option(game: CongestionGame, lists: Candidates, agents: Int, better: Int, place: Int) -> Candidates:
    """Put option ``better`` on each agent's list, in the last place that is not its present one."""
    last = lists.option.shape[1] - 1
    if last == 0:
        lists = Candidates(
            np.repeat(lists.option, 2, axis=1),
            np.repeat(lists.private, 2, axis=1),
            np.repeat(lists.resource, 2, axis=1),
            np.repeat(lists.weight, 2, axis=1),
        )
        lists.option[:, 1], lists.private[:, 1] = -1, np.inf
        last = 1
    where = np.where(place == last, last - 1, last)
    option, private = lists.option.copy(), lists.private.copy()
    resource, weight = lists.resource.copy(), lists.weight.copy()
    option[agents, where] = better
    private[agents, where] = game.private_cost[agents, better]
    uses = game.options[better]
    resource[agents, where] = np.where(uses >= 0, uses, len(game.capacity))
    weight[agents, where] = np.where(uses >= 0, game.weight[agents[:, None], uses], 0.0)
    return Candidates(option, private, resource, weight)


@njit(**KEPT)
def _select(
    options, weight, capacity, private, allowed, toll, load, keep, agents, option_out, private_out,
    resource_out, weight_out,
):  # fmt: skip
    count, span = options.shape
    resources = len(capacity)
    size = option_out.shape[1]
    cost = np.empty(count)
    price = np.empty(resources)
    for row in range(len(agents)):
        i = agents[row]
        for r in range(resources):
            w = weight[i, r]
            price[r] = w * (w + (1.0 + toll[r]) * load[r]) / capacity[r]
        for o in range(count):
            c = private[i, o]
            for s in range(span):
                if options[o, s] >= 0:
                    c += price[options[o, s]]
            cost[o] = c if allowed[i, o] else np.inf
        if keep[i] >= 0:
            cost[keep[i]] = -np.inf
        # insertion into a sorted list of ``size``: few enter once it is full
        held = 0
        worst = np.inf
        for o in range(count):
            c = cost[o]
            if c == np.inf or (held == size and not c < worst):
                continue
            t = held if held < size else size - 1
            while t > 0 and cost[option_out[row, t - 1]] > c:
                option_out[row, t] = option_out[row, t - 1]
                t -= 1
            option_out[row, t] = o
            held = min(held + 1, size)
            worst = cost[option_out[row, held - 1]]
        for t in range(size):
            if t >= held:
                option_out[row, t] = -1
            o = option_out[row, t]
            private_out[row, t] = private[i, o] if o >= 0 else np.inf
            for s in range(span):
                r = options[o, s] if o >= 0 else -1
                resource_out[row, t, s] = r if r >= 0 else resources
                weight_out[row, t, s] = weight[i, r] if r >= 0 else 0.0
