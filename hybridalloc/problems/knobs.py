"""Would it be served? Stable admission solved again on a changed state, and the least change with which an agent is."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from coordinator.why import tilt_of
from games.admission import admit

MOST = 64.0  # a knob is turned up to this factor
HAIR = 1e-6  # of a change: so much less than a closed form and the agent is not served
FINE = 1e-4  # the same of what is found by halving
STEP = 0.05  # of a change: the first step away from a guess
EFFORT = 20_000  # places tried in making room, a tenth of what a step may try


class Answer(NamedTuple):
    """What became of one agent when admission was solved again.

    Attributes:
        served: in time. option: that it has. lost: agents that had a place and have none now. harms: one of those is of
            its own class or above.
    """

    served: bool
    option: int
    lost: tuple[int, ...]
    harms: bool


class Again:
    """One agent of an allocation with places, asked about other states of the same agents, resources and options.

    The wish is the present choice: holders wish for their places, who holds none for nothing; the tilt is the
    allocation's. ``wish`` are its continuous parts, ``memory`` is of its belief.
    """

    def __init__(
        self, problem: Any, allocation: Any, agent: int, prices: Any, wish: Any = None, memory: Any = None
    ) -> None:
        self.problem, self.allocation, self.agent = problem, allocation, agent
        self.prices, self.wish, self.memory = prices, wish, memory
        self.tilt = tilt_of(allocation.log_prior, allocation.trust, allocation.anchor)[None]
        self.anchor = 0.0 if allocation.anchor is None else allocation.anchor[None]

    def solve(self, state: Any, accept: int | None = None) -> Answer:
        """What becomes of the agent in ``state``; with ``accept`` it takes that option whatever it costs."""
        batch = self.problem.world_at(state, *([self.memory] if self.memory else []))
        game = batch.game(self.prices)
        places = batch.places(self.prices, game._replace(private_cost=game.private_cost + self.anchor))
        if accept is not None:
            places.acceptable[0, self.agent, accept] = True
        present = np.asarray(self.allocation.option, np.int64)[None]
        held = np.asarray(self.allocation.held, bool)[None]
        seating = admit(game, places, np.where(held, present, 0), self.tilt, EFFORT)
        if np.isnan(places.late).all():  # who is left out stays where it is
            stays = ~seating.held & ~held & np.take_along_axis(game.allowed, present[..., None], 2)[..., 0]
            seating = seating._replace(option=np.where(stays, present, seating.option))
        plan = batch.settle(seating.option, self.prices, self.wish, self.allocation.trust, seating=seating)
        lost = np.flatnonzero(held[0] & game.live[0] & ~seating.held[0])
        harms = bool((places.rank[0, lost] <= places.rank[0, self.agent]).any())
        served, option = bool(plan.served[0, self.agent]), int(plan.option[0, self.agent])
        return Answer(served, option, tuple(lost.tolist()), harms)


def least(served: Callable[[float], bool], now: float, guess: float = np.inf) -> float | None:
    """The least value above ``now`` (>= 0, not served) that serves; None where none up to ``MOST`` times now, or four
    times the guess, does.

    Exactly the ``guess`` if that serves and ``HAIR`` of the change less does not. Otherwise by halving, from the guess
    on: so much that ``FINE`` of the change less does not serve.
    """
    last = max(MOST * now, 4 * guess if np.isfinite(guess) else 0.0)
    if not np.isfinite(guess):
        low, high, step = now, last, 0.0
        if not served(high):
            return None
    else:
        step = STEP * (guess - now)
        works = next((value for value in (guess, guess * (1 + 1e-9)) if served(value)), None)
        if works is not None:
            if not served(now + (works - now) * (1 - HAIR)):
                return works
            low, high = max(works - step, now), works
            while low > now and served(low):
                step *= 2
                low, high = max(low - step, now), low
        else:
            low, high = guess, min(guess + step, last)
            while not served(high):
                if high >= last:
                    return None
                step *= 2
                low, high = high, min(high + step, last)
    while high - low > FINE * (high - now):
        middle = (low * high) ** 0.5 if low > 0 else high / 2
        low, high = (low, middle) if served(middle) else (middle, high)
    return high


def ranks_above(own: float, others: Iterable[float], gap: float, most: float = np.inf) -> list[float]:
    """Priorities above ``own``, ascending, at most ``most``: one for every class that an agent could be in by them."""
    edges = sorted({float(v) for p in others for v in (p - gap, p, p + gap) if own <= v <= most})
    between = [(a + b) / 2 for a, b in pairwise(edges)]
    last = [min(edges[-1] + max(1.0, gap), most)] if edges else []
    return sorted({v for v in (*edges, *between, *last) if v > own})


def first(served: Callable[[float], bool], values: Sequence[float]) -> float | None:
    """The first of ascending ``values`` that serves, the one before it does not; None if the last does not."""
    if not values or not served(values[-1]):
        return None
    low, high = -1, len(values) - 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if served(values[middle]) else (middle, high)
    return values[high]
