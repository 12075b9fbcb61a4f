r"""Step 5: improve the choice on what the problem settles and expects.

The game that is solved is a model: affine costs before power, fractions and floors are settled. A problem that can say
what a *settled* choice is worth in expectation, W(s), is asked here: from the best of some starts one agent after the
other tries its cheapest other options, everything that depends on it settled again, and keeps what raises

.. math:: W(s) + \frac1t \sum_i \ell_i(s_i)

Its game is the marginal-contribution game, in which each agent is charged what it takes from that sum: the sum is its
exact potential, so every change raises it by what its agent gains, and at rest nobody gains more than what a change
must bring by any of the changes tried; without the prior, limit / t more. See docs/coordinator.md.

Source: Vetta (2002), "Nash equilibria in competitive societies"; Wolpert and Tumer (2002) for marginal contributions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple, Protocol, cast, runtime_checkable

import numpy as np
from numba import njit

from coordinator.budget import Clock
from coordinator.congestion import Congestion
from coordinator.game import Choice
from games.admission import Seating
from games.changes import candidates, queue, weigh
from games.congestion import Bool, Float, Int
from games.lean import KEPT
from games.places import Places, Table
from games.seated import offers, seats_of, table_of

GAIN = 1e-6  # what a change must bring, where a world does not say
ROUNDING = 1e-12
Seat = Callable[[Int], tuple[Choice, Seating | None]]
Settle = Callable[[Choice, Seating | None], Any]


@runtime_checkable
class Expects(Protocol):
    """Worlds that say what a settled plan is worth in one decision, as believed."""

    def expected(self, plan: Any, prices: Any, against: Any = None) -> Float:
        """(E,) expected sum of rewards of the decision and of what it leaves behind, under the belief.

        Args:
            prices: of the game, of which those count that stand for what is left behind.
            against: the plan under which the belief is taken to hold, where it tells what depends on others' choices
                (interference); None: the plan itself.
        """


@runtime_checkable
class Climbs(Expects, Protocol):
    """Worlds that work out a change of one agent's option without the rest, compiled."""

    def climb(self, start: Start, game: Congestion, task: Task) -> Start:
        """``start`` with single changes that raise the expected worth, tilt included; its plan is None where it is left
        to settle, otherwise settled, and its worth worked out as a whole."""


class Start(NamedTuple):
    """A joint choice of E worlds on its way.

    Attributes:
        choice, seating, plan: with who holds a place, settled. worth: (E,) tilt included.
        moved: (E,) changes made since the first start. tried: (E,) changes tried.
        rest: (E,) whether the last visit to every agent changed nothing. least: (E,) what a change had to bring.
    """

    choice: Choice
    seating: Seating | None
    plan: Any
    worth: Float
    moved: Int
    tried: Int
    rest: Bool
    least: Float


def start_of(choice: Choice, seating: Seating | None, plan: Any, worth: Float) -> Start:
    """A start from which nothing was tried."""
    none = np.zeros(len(worth), np.int64)
    return Start(choice, seating, plan, worth, none, none, none > 0, np.full(len(worth), GAIN))


class Task(NamedTuple):
    """What a climb is to do: prices, levels beside the options, trust, the plan that the belief is taken to hold
    under, the places if any; as in :class:`Improve`; the clock."""

    prices: Any
    levels: Any
    trust: float
    against: Any
    places: Places | None
    width: int
    share: float
    sweeps: int
    clock: Clock
    after_ms: float = 0.0  # what settling the answer takes


@dataclass(frozen=True)
class Improve:
    """How a decision is improved.

    Args:
        width: options that an agent tries in a visit, the cheapest in the game first. share: changes tried in a sweep
            by the number of agents, those that cost least more than what the agent has first. sweeps: at most.
        starts: tried beside the equilibrium: the problem's heuristics, "proposal", "game".
    """

    width: int = 3
    share: float = 1.0
    sweeps: int = 4
    starts: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        number = isinstance(self.share, int | float) and not isinstance(self.share, bool)
        if not (number and 0 < self.share < float("inf")):
            raise ValueError(f"improve.share = {self.share!r:.40}; it is a number > 0 of changes tried for each agent")
        for name in ("width", "sweeps"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"improve.{name} = {value!r:.40}; it is a whole number >= 1")


def tilt_worth(game: Congestion, choice: Choice) -> Float:
    """(E,) sum of log priors over trust at a joint choice; 0 where nothing is tilted."""
    worth = np.zeros(len(choice.option))
    if game.tilt is not None:
        _add_tilts(game.tilt, game.live, choice.option, worth)
    return worth


@njit(**KEPT)
def _add_tilts(tilt, live, option, worth):
    for e in range(len(worth)):
        for i in range(option.shape[1]):
            if live[e, i]:
                worth[e] -= tilt[e, i, option[e, i]]


def best_of(starts: Sequence[Start], places: Places | None = None) -> tuple[Start, Int]:
    """In each world the start that serves most, by class, the highest first; of as many the one of most worth, the
    first where they are equal; (E,) its index. Its plan is None where it is not one of theirs."""
    winner = np.zeros(len(starts[0].worth), np.int64)
    for e in range(len(winner)) if len(starts) > 1 else ():
        able = [0]
        for k in range(1, len(starts)):
            more = _serves_more(starts[k], starts[able[0]], places, e)
            able = [k] if more > 0 else [*able, k] if more == 0 else able
        worth = [float(starts[k].worth[e]) for k in able]
        top = worth.index(max(worth))
        winner[e] = able[top] if worth[top] > worth[0] + ROUNDING * abs(worth[0]) else able[0]
    picked = set(winner.tolist())
    if len(picked) == 1:
        return starts[picked.pop()], winner
    return _picked(starts, winner), winner


def _serves_more(one: Start, other: Start, places: Places | None, e: int) -> int:
    """1 where the first serves more of the highest class in which the two differ, -1 the second; 0 where they differ in
    none, or there are no places."""
    if one.seating is None or other.seating is None or places is None:
        return 0
    return int(_compared(places.rank[e], one.seating.held[e], other.seating.held[e]))


@njit(**KEPT)
def _compared(rank, one, other):
    """:func:`_serves_more` of who holds a place, (N,) each."""
    more = np.zeros(rank.max() + 1 if len(rank) else 0, np.int64)
    for i in range(len(rank)):
        more[rank[i]] += np.int64(one[i]) - np.int64(other[i])
    for c in range(len(more)):
        if more[c] != 0:
            return 1 if more[c] > 0 else -1
    return 0


def _picked(starts: Sequence[Start], winner: Int) -> Start:
    every = np.arange(len(winner))
    pick = lambda parts: np.stack(parts)[winner, every]
    choice = Choice(pick([s.choice.option for s in starts]), pick([s.choice.level for s in starts]))
    seats = [s.seating for s in starts if s.seating is not None]
    seating = None
    if len(seats) == len(starts):
        seating = Seating(*(pick([getattr(seat, name) for seat in seats]) for name in Seating._fields))
    numbers = (pick([getattr(s, name) for s in starts]) for name in ("worth", "moved", "tried", "rest", "least"))
    return Start(choice, seating, None, *numbers)


def improve(
    situation: Expects, game: Congestion, starts: Sequence[Start], task: Task, seat: Seat, settle: Settle
) -> tuple[Start, Float, Int]:
    """The best start after single changes, never below it.

    Args:
        starts: settled and valued. seat: options (E, N) as wishes to a choice and its seating. settle: those to a plan.

    Returns:
        the choice, its plan settled; (E,) the worth of the best start, and which it was.
    """
    best, origin = best_of(starts, task.places)
    if best.plan is None:
        best = best._replace(plan=settle(best.choice, best.seating))
    if _climbs(type(situation)):
        found = cast(Climbs, situation).climb(best, game, task)
    else:
        found = climb_slowly(situation, game, best, task, seat, settle)
    if not found.moved.any():
        return found._replace(plan=best.plan, choice=best.choice, seating=best.seating), best.worth, origin
    if found.plan is None:
        plan = settle(found.choice, found.seating)
        worth = situation.expected(plan, task.prices, task.against) + tilt_worth(game, found.choice)
        found = found._replace(plan=plan, worth=worth)
    kept, which = best_of([best, found], task.places)  # seats that were left free have been taken since, or rounding
    if not which.any():
        return kept._replace(tried=found.tried, rest=found.rest, least=found.least), best.worth, origin
    if kept.plan is None:
        kept = kept._replace(plan=settle(kept.choice, kept.seating))
    return kept._replace(tried=found.tried, rest=found.rest, least=found.least), best.worth, origin


@cache  # in every step: what a class offers does not change
def _climbs(kind: type) -> bool:
    return issubclass(kind, Climbs)


def climb_slowly(situation: Expects, game: Congestion, start: Start, task: Task, seat: Seat, settle: Settle) -> Start:
    """As :meth:`Climbs.climb` for worlds that say only what a plan is worth: each change is seated, settled and valued
    as a whole, in all worlds at once.
    """
    wish = start.choice.option.copy()
    worth, moved, tried = start.worth.copy(), start.moved.copy(), start.tried.copy()
    rest = np.zeros(len(wish), bool)
    here = Start(start.choice, start.seating, None, worth, moved, tried, rest, np.full(len(wish), GAIN))
    tables = [table_of(game.batch, None, game.tilt, e) for e in range(len(wish))]
    best = np.empty(min(task.width, game.batch.private_cost.shape[2]), np.int64)
    for _ in range(task.sweeps):
        before, reach = moved.copy(), np.zeros(len(wish))
        for e, t in enumerate(tables):
            most = max(round(task.share * int(game.live[e].sum())), 1)
            _, reach[e] = queue(
                t, _load(t, game.live[e], wish[e]), game.batch.allowed[e], game.live[e], wish[e], most, best
            )
        for i in range(wish.shape[1]):
            if task.clock.limited and task.clock.left_ms() <= task.after_ms:
                task.clock.skipped.append("improve")
                return here
            options, regret = _tries(game, tables, wish, i, best)
            for o, more in zip(options.T, regret.T, strict=True):
                able = game.live[:, i] & (o >= 0) & (more <= reach)
                if not able.any():
                    continue
                other = wish.copy()
                other[:, i] = np.where(able, o, wish[:, i])
                seated, places = seat(other)
                value = situation.expected(settle(seated, places), task.prices, task.against) + tilt_worth(game, seated)
                tried += able
                up = able & (value > worth + GAIN)
                if up.any():
                    wish = np.where(up[:, None], other, wish)
                    worth[up] = value[up]
                    moved += up
                    there = here._replace(choice=seated, seating=places)
                    here = here._replace(**_picked([here, there], up.astype(np.int64))._asdict() | {
                        "worth": worth, "moved": moved, "tried": tried, "rest": rest
                    })  # fmt: skip
        rest[:] = moved == before
        if rest.all():
            break
    return here


def _load(t: Table, live: Bool, option: Int) -> Float:
    """(R,) sum of the live agents' weights on each resource."""
    load = np.zeros(len(t.capacity))
    for i in np.flatnonzero(live):
        weigh(t, load, i, option[i], 1.0)
    return load


def _tries(game: Congestion, tables: Sequence[Table], option: Int, i: int, best: Int) -> tuple[Int, Float]:
    """(E, W) other options of agent i that cost least in the game, and what they cost more than its own."""
    options, regret = np.empty((len(option), len(best)), np.int64), np.empty((len(option), len(best)))
    for e, t in enumerate(tables):
        load = _load(t, game.live[e], option[e])
        candidates(t, load, game.batch.allowed[e], i, option[e, i], options[e], regret[e])
    return options, regret


class Regret(NamedTuple):
    """The most that one agent gains by one change of option in the marginal-contribution game; ``agent`` and ``option``
    say which, -1 where no change gains anything."""

    gain: float
    agent: int
    option: int


def marginal_regret(
    situation: Expects, prices: Any, game: Congestion, start: Start, places: Places | None, against: Any, settle: Settle
) -> Regret:
    """Every single change of option in one world, each settled and valued as a whole.

    An agent that holds a place changes to options on which a place fits beside the others' floors; who holds none to
    any option, without one; the others keep what they have. Nothing is shared with what improved the choice but the
    problem's own settling and ``expected``.
    """
    o = game.batch.private_cost.shape[2]

    def of(choice: Choice, seats: Seating | None) -> float:
        return float(situation.expected(settle(choice, seats), prices, against)[0] + tilt_worth(game, choice)[0])

    worth = of(start.choice, start.seating)
    best = Regret(0.0, -1, -1)
    t = table_of(game.batch, places, game.tilt)
    z = None if start.seating is None else seats_of(t, start.seating)
    for i in np.flatnonzero(game.live[0]):
        given = None if z is None or not z.held[i] else offers(t, z, int(i))
        for option in range(o):
            here = option == start.choice.option[0, i]
            if here or not game.batch.allowed[0, i, option] or (given is not None and not given.fits[option]):
                continue
            picked = start.choice.option.copy()
            picked[0, i] = option
            seats = start.seating
            if seats is not None:
                floor = seats.floor.copy()
                floor[0, i] = 0.0 if given is None else given.floor[option]
                seats = seats._replace(option=picked, floor=floor)
            choice = start.choice._replace(option=picked)
            gain = of(choice, seats) - worth
            if gain > best.gain:
                best = Regret(gain, int(i), option)
    return best
