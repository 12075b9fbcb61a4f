r"""Oscillation and laziness: two ways in which a multi-agent allocation goes wrong, watched over a window of steps.

*Oscillation*: agents fight over a resource and go back and forth. A move is a change of option between two steps in
which the agent had something to decide; it *returns* if it goes back to the option before the last. Its gain is what
the agent would lose by having stayed: cost of the option left less cost of the one taken, both at this step's joint
choice. An agent oscillates if at least ``RETURNS`` of its moves in the window returned and these gained, on average,
less than a change is worth (``worth``: the migration cost). Going back and forth because the world does, at a gain,
is not oscillation.

*Laziness*: an agent whose choice does not respond although its situation does: its cheapest option (at the others'
choices) moved at least ``CALLS`` times in the window, its own choice never did. The same for a recommender's prior:
the agent's private costs moved, its log prior did not.

The remedy for the first is hysteresis: an oscillating agent is charged ``worth`` for every option but the one it
holds, until its window is calm. That is a private cost, so the potential stays exact, and no one can gain more than
the epsilon bound plus ``worth``.

Source: the survey's failure signatures (seed 002: oscillations, lazy agents).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from games.congestion import Bool, CongestionBatch, CongestionGame, Float, Int, costs_at
from games.lean import KEPT
from games.shortlists import Shortlists

RETURNS, CALLS = 3, 3
STILL = 1e-6  # a prior or a cost that varies less does not respond


class Health(NamedTuple):
    """What was seen over the window.

    Attributes:
        moves: moves an agent and step in which it could move. returns: share of the moves that went back.
        wasted: share of the moves that gained less than ``worth``.
        oscillating, lazy, deaf: agents that go back and forth for little, whose choice does not respond, whose prior
            does not respond. steps: in the window so far.
    """

    moves: float
    returns: float
    wasted: float
    oscillating: tuple[int, ...]
    lazy: tuple[int, ...]
    deaf: tuple[int, ...]
    steps: int

    @property
    def status(self) -> str:
        """ "ok", or what was found."""
        said = [
            f"{len(found)} agent{'s' if len(found) > 1 else ''} {what}"
            for found, what in (
                (self.oscillating, "oscillating"),
                (self.lazy, "lazy"),
                (self.deaf, "with a still prior"),
            )
            if found
        ]
        return ", ".join(said) or "ok"


class HealthWatch:
    """Watches N agents over ``window`` steps; a state of another size starts afresh.

    Args:
        window: steps looked back on. worth: gain below which a move is not worth its change, in cost.
    """

    def __init__(self, window: int = 30, worth: float = 0.1) -> None:
        if window < 2 or not worth >= 0:
            raise ValueError(f"window = {window}, worth = {worth}; need a window of at least 2 steps and worth >= 0")
        self.window, self.worth = window, worth
        self._start(0)

    def _start(self, agents: int) -> None:
        w, n = self.window, agents
        self.steps = 0
        self.held: Int = np.full(n, -1)  # option of the last step in which the agent was live
        self.before: Int = np.full(n, -1)  # the one it had before it last moved
        self.best: Int = np.full(n, -1)
        self._could, self._moved, self._back, self._called, self._live = (np.zeros((w, n), bool) for _ in range(5))
        self._gain = np.zeros((w, n))
        self._prior, self._cost = np.full((w, n), np.nan), np.full((w, n), np.nan)

    def see(self, option: Int, live: Bool, costs: Float, log_prior: Float, private: Float) -> None:
        """One executed step.

        Args:
            option: (N,) executed. live: (N,) had something to decide. costs: (N, O) of each option at the others'
                choices, inf where not allowed. log_prior, private: (N, O), all zero where there is no prior.
        """
        if len(option) != len(self.held):
            self._start(len(option))
        k = self.steps % self.window
        agents = np.arange(len(option))
        known = live & (self.held >= 0)
        known[known] &= np.isfinite(costs[agents[known], self.held[known]])  # what was held may be out of reach now
        moved = known & (option != self.held)
        gain = np.zeros(len(option))
        gain[moved] = costs[agents[moved], self.held[moved]] - costs[agents[moved], option[moved]]
        best = np.where(live, costs.argmin(axis=1) if costs.size else 0, -1)
        self._could[k], self._moved[k], self._live[k] = known, moved, live
        self._back[k] = moved & (option == self.before)
        self._gain[k] = gain
        self._called[k] = known & (self.best >= 0) & (best != self.best)
        # one number each that moves when the row does; forbidden options are 0 in both
        mark = 1.0 + np.sqrt(2.0 + np.arange(costs.shape[1]))
        self._prior[k] = np.where(live, log_prior @ mark, np.nan)
        self._cost[k] = np.where(live, private @ mark, np.nan)
        self.before = np.where(moved, self.held, self.before)
        self.held = np.where(live, option, self.held)
        self.best = np.where(live, best, self.best)
        self.steps += 1

    def see_game(self, game: CongestionGame, option: Int, live: Bool, log_prior: Float) -> None:
        """:meth:`see` of one step in ``game``, whose costs of all options are worked out and compared in passing."""
        if len(option) != len(self.held):
            self._start(len(option))
        k = self.steps % self.window
        _watch(
            game.options, game.weight, game.capacity, game.private_cost, game.allowed, game.toll,
            np.ascontiguousarray(option, np.int64), np.ascontiguousarray(live, np.bool_), log_prior, self.held,
            self.before, self.best, self._could[k], self._moved[k], self._live[k], self._back[k], self._called[k],
            self._gain[k], self._prior[k], self._cost[k],
        )  # fmt: skip
        self.steps += 1

    def see_lists(self, game: Shortlists, option: Int, log_prior: Float) -> None:
        """:meth:`see` of one step decided on short lists: option (N,), log_prior (M, T). What an agent held before and
        is not on its list any more is not compared; costs and priors are those of what is listed."""
        if len(option) != len(self.held):
            self._start(len(option))
        k = self.steps % self.window
        for rows in (self._could, self._moved, self._live, self._back, self._called):
            rows[k] = False
        self._gain[k], self._prior[k], self._cost[k] = 0.0, np.nan, np.nan
        _watch_lists(
            game.who, game.option, game.slot, game.weight, game.private, game.capacity, game.toll,
            np.ascontiguousarray(option, np.int64), log_prior, self.held, self.before, self.best, self._could[k],
            self._moved[k], self._live[k], self._back[k], self._called[k], self._gain[k], self._prior[k], self._cost[k],
        )  # fmt: skip
        self.steps += 1

    def oscillating(self) -> NDArray[np.bool_]:
        """(N,) agents that go back and forth for less than a change is worth."""
        count = self._back.sum(axis=0)
        mean = (self._gain * self._back).sum(axis=0) / np.maximum(count, 1)
        return np.asarray((count >= RETURNS) & (mean < self.worth))

    def lazy(self) -> NDArray[np.bool_]:
        """(N,) agents whose choice did not respond though their cheapest option moved."""
        return np.asarray((self._called.sum(axis=0) >= CALLS) & ~self._moved.any(axis=0))

    def report(self) -> Health:
        """What the window shows."""
        moves = int(self._moved.sum())
        deaf = np.zeros(len(self.held), bool)
        if np.nan_to_num(self._prior).any():  # a flat prior is nobody's fault
            seen = self._live.sum(axis=0) >= CALLS
            deaf = seen & (_spread(self._prior) < STILL) & (_spread(self._cost) > STILL)
        small = self._moved & (self._gain < self.worth)
        return Health(
            moves=moves / max(int(self._could.sum()), 1),
            returns=int(self._back.sum()) / max(moves, 1),
            wasted=int(small.sum()) / max(moves, 1),
            oscillating=tuple(np.flatnonzero(self.oscillating()).tolist()),
            lazy=tuple(np.flatnonzero(self.lazy()).tolist()),
            deaf=tuple(np.flatnonzero(deaf).tolist()),
            steps=min(self.steps, self.window),
        )

    def anchor(self, shape: tuple[int, int]) -> Float | None:
        """(N, O) cost added to private costs: ``worth`` off what an oscillating agent holds; None if all are calm."""
        n, options = shape
        if n != len(self.held) or not self.worth:
            return None
        which = np.flatnonzero(self.oscillating() & (self.held < options))
        if not len(which):
            return None
        out = np.zeros(shape)
        out[which] = self.worth
        out[which, self.held[which]] = 0.0
        return out


@njit(**KEPT)
def _watch(
    options, weight, capacity, private, allowed, toll, option, live, log_prior, held, before, best, could, moved,
    was_live, back, called, gain, prior, cost,
):  # fmt: skip
    """One row of what :meth:`HealthWatch.see` notes; ``held``, ``before`` and ``best`` (N,) move on."""
    n, resources = weight.shape
    count, span = options.shape
    load, price, total = np.zeros(resources), np.empty(resources), np.empty(count)
    for i in range(n):
        for s in range(span):
            r = options[option[i], s]
            if r >= 0:
                load[r] += weight[i, r]
    for i in range(n):
        for s in range(span):
            if options[option[i], s] >= 0:
                load[options[option[i], s]] -= weight[i, options[option[i], s]]
        for r in range(resources):
            w = weight[i, r]
            price[r] = w * (w + (1.0 + toll[r]) * load[r]) / capacity[r]
        mine, least, marks, costs = 0, np.inf, 0.0, 0.0
        for o in range(count):
            c = private[i, o]
            for s in range(span):
                if options[o, s] >= 0:
                    c += price[options[o, s]]
            total[o] = c if allowed[i, o] else np.inf
            if total[o] < least:
                mine, least = o, total[o]
            mark = 1.0 + np.sqrt(2.0 + o)
            marks += log_prior[i, o] * mark
            costs += private[i, o] * mark
        for s in range(span):
            if options[option[i], s] >= 0:
                load[options[option[i], s]] += weight[i, options[option[i], s]]
        stood = held[i]
        could[i] = live[i] and 0 <= stood < count and total[stood] < np.inf
        moved[i] = could[i] and option[i] != stood
        back[i] = moved[i] and option[i] == before[i]
        gain[i] = total[stood] - total[option[i]] if moved[i] else 0.0
        called[i] = could[i] and best[i] >= 0 and live[i] and mine != best[i]
        was_live[i] = live[i]
        prior[i] = marks if live[i] else np.nan
        cost[i] = costs if live[i] else np.nan
        if moved[i]:
            before[i] = stood
        if live[i]:
            held[i], best[i] = option[i], mine


@njit(**KEPT)
def _watch_lists(
    who, listed, slot, weight, private, capacity, toll, option, log_prior, held, before, best, could, moved, was_live,
    back, called, gain, prior, cost,
):  # fmt: skip
    """:func:`_watch` on short lists."""
    agents, count, span = weight.shape
    load = np.zeros(len(capacity) + 1)
    place = np.full(agents, -1)
    for m in range(agents):
        for t in range(count):
            if listed[m, t] == option[who[m]]:
                place[m] = t
        for s in range(span):
            if place[m] >= 0:
                load[slot[m, place[m], s]] += weight[m, place[m], s]
    for m in range(agents):
        i, p = who[m], place[m]
        mine, least, stood, now = -1, np.inf, np.inf, np.inf
        marks, costs = 0.0, 0.0
        for t in range(count):
            if listed[m, t] < 0:
                continue
            c = private[m, t]
            for s in range(span):
                r, w = slot[m, t, s], weight[m, t, s]
                others = load[r]
                for q in range(span):
                    if p >= 0 and slot[m, p, q] == r:
                        others -= weight[m, p, q]
                if r < len(capacity):
                    c += w * (w + (1.0 + toll[r]) * others) / capacity[r]
            if c < least:
                mine, least = listed[m, t], c
            stood = c if listed[m, t] == held[i] else stood
            now = c if t == p else now
            mark = 1.0 + np.sqrt(2.0 + listed[m, t])
            marks += log_prior[m, t] * mark
            costs += private[m, t] * mark
        was_live[i] = True
        could[i] = held[i] >= 0 and stood < np.inf
        moved[i] = could[i] and option[i] != held[i]
        back[i] = moved[i] and option[i] == before[i]
        gain[i] = stood - now if moved[i] and now < np.inf else 0.0
        called[i] = could[i] and best[i] >= 0 and mine != best[i]
        prior[i], cost[i] = marks, costs
        if moved[i]:
            before[i] = held[i]
        held[i], best[i] = option[i], mine


class FleetWatch:
    """The same for E networks stepped together: a comparison's metrics.

    Args:
        networks: E. window, worth: as of :class:`HealthWatch`; a window's figures are taken when it is full.
    """

    def __init__(self, networks: int, window: int = 30, worth: float = 0.1) -> None:
        self.networks, self.watch = networks, HealthWatch(window, worth)
        self.windows: list[Float] = []

    def see(self, game: CongestionBatch, option: Int, log_prior: Float) -> None:
        """One executed slot: option (E, N), log_prior (E, N, O)."""
        g, flat = game, (option.size, game.private_cost.shape[2])
        costs = np.empty(g.private_cost.shape)
        for e in range(self.networks):
            costs_at(
                g.options, g.weight[e], g.capacity[e], g.private_cost[e], g.allowed[e], g.live[e], g.toll[e], option[e],
                costs[e],
            )  # fmt: skip
        live = g.live.ravel()
        self.watch.see(option.ravel(), live, *(a.reshape(flat) for a in (costs, log_prior, g.private_cost)))
        if self.watch.steps % self.watch.window == 0:
            found = np.stack([self.watch.oscillating(), self.watch.lazy()]).reshape(2, *option.shape)
            share = found.sum(axis=2) / option.shape[1] if option.shape[1] else np.full((2, self.networks), np.nan)
            self.windows.append(100.0 * share)

    def summary(self) -> dict[str, Float]:
        """(E,) % of the agents that oscillate, and that are lazy; the mean over windows, nan before one is full
        and where there are no agents."""
        mean = np.mean(self.windows, axis=0) if self.windows else np.full((2, self.networks), np.nan)
        return {"oscillating": mean[0], "lazy": mean[1]}


def _spread(values: Float) -> Float:
    """(N,) range of each column's numbers, 0 where there are none."""
    low = np.where(np.isnan(values), np.inf, values).min(axis=0, initial=np.inf)
    high = np.where(np.isnan(values), -np.inf, values).max(axis=0, initial=-np.inf)
    return np.asarray(np.where(high >= low, high - low, 0.0))
