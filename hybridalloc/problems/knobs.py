"""What would admit an agent that is not served: the least that a quantity of its state has to change, solved again.

A problem says what may be turned (:class:`hybridalloc.problems.contract.Knob`): physics and words. Everything else is
here and the same for all. Where places were given "would it be served" is stable admission solved again from the
present choice; where none were, the shares are settled again, everyone at its option. What is stated holds on both
sides: with it the agent is served, a hair short of it not. A problem may ask for more (``whole``): that a whole new
decision, from an equilibrium of its own, serves it too, and what does in none is not told.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from itertools import pairwise
from typing import Any, ClassVar, Generic, NamedTuple

import numpy as np

from coordinator.congestion import Admits, Congestion
from coordinator.coordinator import game_of
from coordinator.tables import enough
from coordinator.why import tilt_of
from games.admission import admit
from games.congestion import CongestionBatch, Float
from hybridalloc.problems.contract import Knob, P, Q, S, World
from hybridalloc.problems.slots import Slots
from hybridalloc.problems.stores import valued
from hybridalloc.text import printable
from rl.proposal import Observation, Proposal
from rl.value import Valuer

MOST = 64.0  # a knob is turned up to this factor
HAIR = 1e-6  # of a change: so much less than a closed form and the agent is not served
FINE = 1e-4  # the same of what is found by halving
STEP = 0.05  # of a change: the first step away from a guess
EFFORT = 20_000  # places tried in making room, a tenth of what a step may try
NAMED = 4  # of those that lose their places
LONGER = (1 + 1e-9, 1.01, 1.05, 1.2, 1.5, 2.0, 3.0, 5.0)  # of a change, where a new decision asks for more
FURTHER, CLOSE = 8, 1e-3  # ranks tried there, and to what part of the change it is found


class Answer(NamedTuple):
    """What became of one agent when it was solved again.

    Attributes:
        served: in time. option: that it has. lost: agents that had a place and have none now; where no places were
            given there is none to lose. harms: one of those is of its own class or above.
    """

    served: bool
    option: int
    lost: tuple[int, ...] = ()
    harms: bool = False


class Again(Generic[S, P, Q]):
    """One agent of an allocation, asked about other states of the same agents, resources and options.

    With places, the wish of admission is the present choice: holders wish for their places, who holds none for
    nothing; the tilt is the allocation's. ``proposal`` and ``trust`` are of its levels, ``memory`` of its belief.
    """

    def __init__(
        self, problem: Slots[S, P, Q], allocation: Any, agent: int, prices: Q, proposal: Proposal | None = None,
        trust: float = np.inf, memory: Any = None,
    ) -> None:  # fmt: skip
        self.problem, self.allocation, self.agent = problem, allocation, agent
        self.prices, self.proposal, self.trust, self.memory = prices, proposal, trust, memory
        self.value: Valuer | None = None if allocation.origin is None else allocation.origin.value

    def world(self, state: S) -> World[S, P, Q]:
        """At another state, under the belief and the value of the step."""
        return valued(self.problem.world_at(state, self.memory), self.value)

    def solve(self, state: S, option: int | None = None, accept: bool = False) -> Answer:
        """What becomes of the agent in ``state``.

        Args:
            option: where it goes if no places were given; None where it is. accept: where they were, it takes
                ``option`` whatever that costs.
        """
        world = self.world(state)
        choice = np.array(self.allocation.option, np.int64)[None]
        settled = partial(world.settle, prices=self.prices, proposal=self.proposal, trust=self.trust)
        if not self.allocation.seated:
            choice[0, self.agent] = choice[0, self.agent] if option is None else option
            plan: Any = settled(choice)
            return Answer(bool(plan.served[0, self.agent]), int(plan.option[0, self.agent]))
        game, anchor = world.game(self.prices), self.allocation.anchor
        places = None
        if isinstance(world, Admits) and isinstance(game, CongestionBatch):
            extra = 0.0 if anchor is None else anchor[None]
            places = world.places(self.prices, game._replace(private_cost=game.private_cost + extra))
        if places is None or not isinstance(game, CongestionBatch):
            raise ValueError(f"{self.problem.name} states no places, and this allocation has some")
        if accept:
            places.acceptable[0, self.agent, option] = True
        held = np.asarray(self.allocation.held, bool)[None]
        tilt = tilt_of(self.allocation.log_prior, self.allocation.trust, anchor)[None]
        seating = admit(game, places, np.where(held, choice, 0), tilt, EFFORT)
        if np.isnan(places.late).all():  # who is left out stays where it is
            stays = ~seating.held & ~held & np.take_along_axis(game.allowed, choice[..., None], 2)[..., 0]
            seating = seating._replace(option=np.where(stays, choice, seating.option))
        plan = settled(seating.option, seating=seating)
        lost = np.flatnonzero(held[0] & game.live[0] & ~seating.held[0])
        harms = bool((places.rank[0, lost] <= places.rank[0, self.agent]).any())
        served, taken = bool(plan.served[0, self.agent]), int(plan.option[0, self.agent])
        return Answer(served, taken, tuple(lost.tolist()), harms)

    def decided(self, state: S) -> Answer | None:
        """The same of a whole new decision, the recommender saying what it said; None where none can be made: without
        places, or where it is not known who decided."""
        origin, anchor = self.allocation.origin, self.allocation.anchor
        world = self.problem.world_at(state, self.memory)
        game = game_of(world.game(self.prices))
        if origin is None or origin.coordinator is None or not isinstance(game, Congestion):
            return None
        if anchor is not None:
            game = game.charged(anchor[None])
        decision = origin.coordinator.decide(world, _Said(self.allocation.log_prior[None]), self.prices, game=game)
        places = world.places(self.prices, game.batch) if isinstance(world, Admits) else None
        if decision.seating is None or places is None:
            return None
        plan: Any = origin.coordinator.settle(world, decision, self.prices)
        held = np.asarray(self.allocation.held, bool)
        lost = np.flatnonzero(held & game.live[0] & ~decision.seating.held[0])
        harms = bool((places.rank[0, lost] <= places.rank[0, self.agent]).any())
        return Answer(bool(plan.served[0, self.agent]), int(plan.option[0, self.agent]), tuple(lost.tolist()), harms)

    def elsewhere(self, state: S) -> list[int]:
        """Options on which it would be served and that it does not have for what they cost; none in a game without."""
        game = self.world(state).game(self.prices)
        if not isinstance(game, CongestionBatch):
            return []
        allowed = game.allowed[0, self.agent].copy()
        allowed[0 if self.allocation.seated else self.allocation.option[self.agent]] = False
        return [int(o) for o in np.flatnonzero(allowed) if self.solve(state, int(o), accept=True).served]


@dataclass(frozen=True)
class _Said:
    """A recommender that repeats itself."""

    log_prior: Float
    name: str = "as before"

    def propose(self, observation: Observation) -> Proposal:
        return Proposal(self.log_prior)


class Way(NamedTuple):
    """A knob, the value at which the agent is served, and what becomes of it then."""

    knob: Knob[Any]
    value: float
    answer: Answer

    @property
    def option(self) -> int:
        """That it is served on."""
        return self.answer.option if self.knob.option is None else self.knob.option

    @property
    def needed(self) -> Any:
        """The value as it is told."""
        return self.knob.told(self.value)

    @property
    def factor(self) -> float:
        """By which the quantity grows; nan for one that is 0 now, and for a rank."""
        return self.value / self.knob.now if self.knob.now > 0 and self.knob.values is None else np.nan


def _size(knob: Knob[Any], value: float) -> tuple[bool, float]:
    """To sort by: what is 0 now (a cost to be forgone) comes first, by how much; then by the factor."""
    return (knob.now > 0, value / knob.now if knob.now > 0 else value)


class _Trial:
    """A knob that is turned for an agent; what was solved is remembered."""

    def __init__(self, again: Again[S, P, Q], knob: Knob[S]) -> None:
        self.knob, self.answer = knob, cache(lambda value: again.solve(knob.turned(value), knob.option))
        # a closed form that asks for no change knows nothing, unless it is exact
        self.guess = knob.guess if knob.exact or knob.guess > knob.now else np.inf
        self.limit = np.inf  # what it takes, as found so far

    def size(self) -> tuple[bool, float]:
        return _size(self.knob, self.guess)

    def served(self, value: float, harmful: bool = True) -> bool:
        return self.answer(value).served and (harmful or not self.answer(value).harms)

    def turn(self, harmful: bool = True) -> Way | None:
        """The least that serves, if that is less than was found before; ``harmful``: whoever loses a place."""
        knob, served = self.knob, partial(self.served, harmful=harmful)
        if knob.values is not None:
            value = first(served, knob.values)
        elif knob.exact:
            value = self.guess if served(self.guess) else None
        elif knob.option is not None and self.served(knob.now):  # put there it needs nothing
            value = None
        else:
            value = least(served, knob.now, self.guess)
        if value is None or value >= self.limit * (1 - FINE):
            return None
        self.limit = value
        return Way(knob, value, self.answer(value))


def ways_in(again: Again[S, P, Q], knobs: Sequence[Knob[S]], gentle: bool, most: int | None = None) -> list[Way]:
    """Each knob turned as little as serves the agent, the least change first, ranks last.

    Args:
        gentle: what takes a place from its own class or above comes after what does not, and is named only where less
            would do then. most: ways at most, ranks not counted; twice as many knobs are tried, those that by their
            guesses have to be turned the least. None for all.
    """
    trials = sorted((_Trial(again, knob) for knob in knobs if knob.values is None), key=_Trial.size)
    found: list[tuple[tuple[bool, bool, float], Way]] = []  # to be sorted by the first
    for harmful in (False, True) if gentle else (True,):
        for trial in trials[: None if most is None else 2 * most]:
            least_left = (gentle and harmful, *trial.size())
            if most is not None and len(found) >= most and found[most - 1][0] <= least_left:
                break
            if way := trial.turn(harmful):
                found.append(((gentle and way.answer.harms, *_size(way.knob, way.value)), way))
                found.sort(key=lambda pair: pair[0])
    told: list[Way] = []
    for _, way in found:
        if not (way.knob.rivals and any(way.knob.rivals == other.knob.rivals for other in told)):
            told.append(way)
    ranks = (_Trial(again, knob).turn() for knob in knobs if knob.values is not None)
    return told[:most] + [way for way in ranks if way]


def afresh(again: Again[S, P, Q], ways: Iterable[Way], gentle: bool) -> list[Way]:
    """The ways that serve the agent in a new decision too, each turned on until it does, with who loses a place then;
    in the order of :func:`ways_in`. What does in none is left out."""
    kept = [found for way in ways if (found := _afresh(again, way))]
    return sorted(kept, key=lambda w: (w.knob.values is not None, gentle and w.answer.harms, *_size(w.knob, w.value)))


def _afresh(again: Again[S, P, Q], way: Way) -> Way | None:
    """A way that harms nobody of its own class or above keeps to that, if that can be had at all."""
    knob, now = way.knob, way.knob.now
    ask = cache(lambda value: again.decided(knob.turned(value)))
    if ask(way.value) is None:
        return way
    if knob.values is not None:
        further = [value for value in knob.values if value >= way.value][:FURTHER]
    else:
        further = [way.value, *(now + (way.value - now) * k for k in LONGER)]

    def served(value: float, mild: bool) -> bool:
        answer = ask(value)
        if answer is None or (mild and answer.harms):
            return False
        return answer.served and knob.option in (None, answer.option)

    gentle = not way.answer.harms
    for mild in (True, False) if gentle else (False,):
        high = next((value for value in further if served(value, mild)), None)
        if high is None:
            continue
        low = max((value for value in further if value < high), default=high if mild or not gentle else now)
        while knob.values is None and high - low > CLOSE * (high - now):
            middle = (low + high) / 2
            low, high = (low, middle) if served(middle, mild) else (middle, high)
        answer = ask(high)
        return None if answer is None else Way(knob, high, answer)
    return None


class Admitting(Slots[S, P, Q]):
    """A problem's base that answers ``why`` for agents that are not served, from what the problem says in ``knobs``."""

    gentle: ClassVar[bool] = True  # see :func:`ways_in`
    moves: ClassVar[bool] = True  # options that would serve and cost too much are told; False where a knob says it
    whole: ClassVar[bool] = False  # a way is told only if a whole new decision serves the agent too
    solved: ClassVar[str] = "solving again from this answer"

    def knobs(self, state: S, allocation: Any, agent: int, prices: Q) -> Sequence[Knob[S]]:
        """What may be turned for one agent that ``allocation`` does not serve."""
        raise NotImplementedError(f"{type(self).__name__}.knobs")

    def phrase(self, state: S, text: str, option: int, lost: Sequence[int]) -> str:
        """A way in words: ``text``, on which option, and who loses a place."""
        named = f"{', '.join(map(str, lost[:NAMED]))}{' ...' if len(lost) > NAMED else ''}"
        return text + (f", in place of {self.card.agent_word}{'s' * (len(lost) > 1)} {named}" if lost else "")

    def shown(self, allocation: Any) -> int | None:
        """How many ways are told of one agent, ranks not counted; None for all."""
        return None

    def ways(self, again: Again[S, P, Q], state: S, most: int | None = None) -> list[Way]:
        """The least of each knob that would admit an agent in ``state``, see :func:`ways_in`; one way, "again", where
        it is served when solved again as it is."""
        answer, allocation = again.solve(state), again.allocation
        if answer.served:
            return [Way(Knob("again", 0.0, lambda _: state, lambda _: self.solved, told=int, guess=1.0), 1.0, answer)]
        knobs = self.knobs(state, allocation, again.agent, again.prices)
        gentle = self.gentle and allocation.seated
        found = ways_in(again, knobs, gentle, most)
        return afresh(again, found, gentle) if self.whole else found

    def row(self, state: S, way: Way) -> dict[str, Any]:
        """A way as data: ``knob``, ``option``, ``now``, ``needed``, ``factor``, ``text``."""
        text = self.phrase(state, way.knob.words(way.needed), way.option, way.answer.lost)
        now = way.knob.told(way.knob.now)
        return _row(way.knob.name, way.option, now, way.needed, way.factor, text)

    def admits(
        self, state: S, allocation: Any, agent: int, prices: Q, proposal: Proposal | None = None, trust: float = np.inf,
        memory: Any = None,
    ) -> tuple[dict[str, Any], ...]:  # fmt: skip
        """What would admit an agent that is not served, everything else as it is; one row a way.

        Each row: ``knob``, ``option`` that serves it then, ``now``, ``needed``, ``factor``, ``text``; the smallest
        change first, then a rank (the least that admits). A last row ``option`` lists those that would serve it as it
        is: where places were given, those that are not taken because even alone they cost more than opting out.
        ``again``: solved again as it is, it is served.
        """
        again = Again(self, allocation, agent, prices, proposal, trust, memory)
        found = self.ways(again, state, self.shown(allocation))
        rows = [self.row(state, way) for way in found]
        asked = self.moves and not any(way.knob.name == "again" for way in found)
        if others := again.elsewhere(state) if asked else []:
            dear = "which would serve it but even alone costs more than opting out"
            text = f"option {' or '.join(map(str, others))}, {dear if allocation.seated else 'at a higher cost to all'}"
            rows.append(_row("option", others[0], int(allocation.option[agent]), others, np.nan, text))
        return tuple(row | {"text": printable(row["text"], 300)} for row in rows)


def _row(knob: str, option: int, now: Any, needed: Any, factor: float, text: str) -> dict[str, Any]:
    return {"knob": knob, "option": option, "now": now, "needed": needed, "factor": factor, "text": text}


def words(text: str, now: float) -> Callable[[float], str]:
    """What is said of a number: ``text`` with what is needed, rounded away from ``now``, and that, in its braces."""
    return lambda needed: text.format(*enough(needed, now))


def changed(values: Any, at: Any, to: Any) -> Any:
    """A copy of ``values`` with the entries ``at`` set ``to``."""
    out = values.copy()
    out[at] = to
    return out


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
