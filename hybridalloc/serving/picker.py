"""Which replica for a request, in a router of one's own: the balancer's game on what this router knows.

A :class:`Picker` counts its own requests exactly, takes in what replicas report, and picks by the compiled path that
the simulator runs. It knows nothing of sockets: ``hybridalloc route`` and every other bridge hold one.

    picker = Picker([Replica("a", capacity=4), Replica("b", capacity=1)], dispatchers=2)
    picker.report("a", waiting=3, running=20, kv=0.4)
    name = picker.pick(prompt=800)
    flight = picker.sent(name, prompt=800)
    flight.first_token()
    flight.done()
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numba import njit

from games.lean import LEAN
from hybridalloc.errors import nearest
from hybridalloc.problems.balancer.belief import VIEWS
from hybridalloc.problems.balancer.chance import stream_of
from hybridalloc.problems.balancer.core import DISPATCHERS, GAP_S, MEAN_PROMPT, PROMPT
from hybridalloc.problems.balancer.rules import game_costs, least, new_room
from hybridalloc.problems.balancer.scorer import BalancerPrices
from hybridalloc.problems.balancer.sim import (
    KV,
    OWN_KV,
    OWN_TOKENS,
    OWN_WAITING,
    REQUESTS,
    RUNNING,
    WAITING,
    new_fleet,
)

NEVER_S = -1e9  # when nothing was reported yet
FUTURE_S = 1.0  # a report may be so much ahead of this clock
PACE = 0.02  # of running means of prompts and gaps


@dataclass(frozen=True)
class Replica:
    """A replica as its operator knows it.

    Attributes:
        name: such as its URL; each once. capacity: how fast it is, in any unit, the same for all. kv: tokens that fit
            into its KV memory. base_s: time of an iteration that does next to nothing.
    """

    name: str
    capacity: float = 1.0
    kv: float = 100_000.0
    base_s: float = 0.03

    def __post_init__(self) -> None:
        for field in ("capacity", "kv", "base_s"):
            if not 0 < getattr(self, field) < np.inf:
                raise ValueError(f"replica {self.name!r}: {field} = {getattr(self, field)}; it must be finite and > 0")


class Flight:
    """One request that was sent: tell it what comes back, each once."""

    __slots__ = ("_ended", "_first", "_picker", "name", "prompt", "work")

    def __init__(self, picker: Picker, name: str, prompt: float, work: float) -> None:
        self._picker, self.name, self.prompt, self.work = picker, name, prompt, work
        self._first = self._ended = False

    def first_token(self) -> None:
        """Its first token came."""
        if not (self._first or self._ended):
            self._first = True
            self._picker._count(self.name, 0.0, -self.work, self.prompt, -1.0)

    def done(self) -> None:
        """It ended, for whatever reason."""
        if not self._ended:
            self._ended = True
            if self._first:
                self._picker._count(self.name, -1.0, 0.0, -self.prompt, 0.0)
            else:
                self._picker._count(self.name, -1.0, -self.work, 0.0, -1.0)


class Picker:
    """Picks replicas for one dispatcher's requests.

    Args:
        replicas: at first. dispatchers: routers like this one in front of the same replicas. belief: of
            :data:`hybridalloc.problems.balancer.belief.VIEWS`. prices: of the game, default those of the balancer.
        clock: seconds, monotonic. seed: of ties and of the mixed strategy.

    Raises:
        ValueError: a replica twice, or no such belief.
    """

    def __init__(
        self, replicas: Iterable[Replica] = (), dispatchers: int = 1, belief: str = "blend",
        prices: BalancerPrices | None = None, clock: Callable[[], float] = time.monotonic, seed: int = 0,
    ) -> None:  # fmt: skip
        if belief not in VIEWS:
            raise nearest("belief", belief, VIEWS)
        if dispatchers < 1:
            raise ValueError(f"dispatchers = {dispatchers}; this router is one of them")
        self.dispatchers, self.belief, self.clock = dispatchers, VIEWS.index(belief), clock
        self.prices = BalancerPrices(*map(float, BalancerPrices() if prices is None else prices))
        self._stream = stream_of(seed)
        self._replicas: dict[str, Replica] = {}
        self._index: dict[str, int] = {}
        self._told_at, self._last, self._gap, self._prompt = np.zeros(0), 0.0, 0.0, 0.0
        self._rebuild({})
        for replica in replicas:
            self.add(replica)

    @property
    def names(self) -> tuple[str, ...]:
        """Replicas that are known, up or not."""
        return tuple(self._replicas)

    def add(self, replica: Replica) -> None:
        """One more, idle until it reports otherwise."""
        if replica.name in self._replicas:
            raise ValueError(f"replica {replica.name!r} appears twice; each has a name of its own")
        self._rebuild(self._replicas | {replica.name: replica})

    def put(self, replica: Replica) -> None:
        """One more, or one that is known by other figures from now on; what it has in flight stays counted."""
        if self._replicas.get(replica.name) != replica:
            self._rebuild(self._replicas | {replica.name: replica})

    def remove(self, name: str) -> None:
        """One less; what it has in flight is no longer counted."""
        self._known(name)
        self._rebuild({k: v for k, v in self._replicas.items() if k != name})

    def mark(self, name: str, up: bool) -> None:
        """Whether requests may go there: health, or draining."""
        self._room.seen.up[self._known(name)] = up

    def up(self, name: str) -> bool:
        return bool(self._room.seen.up[self._known(name)])

    def in_flight(self, name: str) -> int:
        """Own requests there."""
        return int(self._room.seen.own[self._known(name), REQUESTS])

    def report(
        self, name: str, waiting: float, running: float, kv: float = 0.0, iteration_s: float | None = None,
        at: float | None = None,
    ) -> None:  # fmt: skip
        """What a replica says of itself.

        Args:
            waiting, running: requests, everybody's. kv: part of its KV memory in use, 0 to 1. iteration_s: time of its
                iterations of late that had no prompt in them, such as a low quantile of the times between two tokens.
                at: when it said so, by this picker's clock; now by default.

        Raises:
            ValueError: a number out of range, or a report from the future.
        """
        r, now = self._known(name), self.clock()
        at = now if at is None else at
        if at > now + FUTURE_S:
            raise ValueError(
                f"report of {name!r} is from {at - now:.1f} s in the future; mend the clocks, or leave `at` out"
            )
        for field, value, most in (("waiting", waiting, np.inf), ("running", running, np.inf), ("kv", kv, 1.0 + 1e-6)):
            if not (0 <= value <= most and np.isfinite(value)):
                raise ValueError(f"report of {name!r}: {field} = {value}; it must be from 0 to {most:g}")
        if at < self._told_at[r]:
            return  # an older one that was overtaken
        seen = self._room.seen
        seen.told[r, WAITING], seen.told[r, RUNNING] = waiting, running
        seen.told[r, KV] = kv * self._fleet.kv[r]
        if iteration_s is not None:
            seen.told[r, 4] = iteration_s
        seen.then[r] = seen.own[r]
        self._told_at[r] = at

    def pick(self, prompt: float, cached: Mapping[str, float] | None = None) -> str | None:
        """The replica for a request; None where none is up.

        Args:
            prompt: tokens, or a guess of them. cached: prompt tokens that a replica is known to have, by name.
        """
        now, seen = self.clock(), self._room.seen
        self._notice(now, max(float(prompt), 1.0))
        seen.hit[:] = 0.0
        for name, tokens in (cached or {}).items():
            if name in self._index:
                seen.hit[self._index[name]] = min(max(tokens, 0.0), max(prompt - 1.0, 0.0))
        seen.age_s[:] = np.maximum(now - self._told_at, 0.0)
        never = self._told_at <= NEVER_S
        if never.any():  # nothing was reported yet: nobody else is known of
            seen.told[never, RUNNING], seen.told[never, WAITING] = seen.own[never, REQUESTS], 0.0
            seen.then[never], seen.age_s[never] = seen.own[never], 0.0
        r = _pick(now, self._fleet, self.belief, self.prices, self._room, self._stream)
        return None if r < 0 else self.names[r]

    def sent(self, name: str, prompt: float, cached: float = 0.0) -> Flight:
        """A request went to a replica; tell the flight what comes back."""
        self._known(name)
        work = max(float(prompt) - cached, 0.0)
        self._count(name, 1.0, work, 0.0, 1.0)
        return Flight(self, name, float(prompt), work)

    def counted(self, name: str, waiting: int, running: int) -> None:
        """Own requests there, where someone else counts them: before and after their first token."""
        own = self._room.seen.own[self._known(name)]
        own[REQUESTS], own[OWN_WAITING] = waiting + running, waiting
        own[OWN_TOKENS], own[OWN_KV] = waiting * self._prompt, running * self._prompt

    # --- its arrays

    def _known(self, name: str) -> int:
        if name not in self._index:
            raise nearest("replica", name, self._index)
        return self._index[name]

    def _count(self, name: str, requests: float, tokens: float, kv: float, waiting: float) -> None:
        if name in self._index:  # it may have been removed meanwhile
            own = self._room.seen.own[self._index[name]]
            own[REQUESTS] = max(own[REQUESTS] + requests, 0.0)
            own[OWN_TOKENS], own[OWN_KV] = max(own[OWN_TOKENS] + tokens, 0.0), max(own[OWN_KV] + kv, 0.0)
            own[OWN_WAITING] = max(own[OWN_WAITING] + waiting, 0.0)

    def _notice(self, now: float, prompt: float) -> None:
        about = self._room.seen.about
        if self._last:
            gap = now - self._last
            self._gap = gap if self._gap == 0.0 else self._gap + PACE * (gap - self._gap)
        self._prompt = prompt if self._prompt == 0.0 else self._prompt + PACE * (prompt - self._prompt)
        self._last = now
        about[PROMPT], about[DISPATCHERS], about[GAP_S], about[MEAN_PROMPT] = (
            prompt,
            self.dispatchers,
            self._gap,
            self._prompt,
        )

    def _rebuild(self, replicas: dict[str, Replica]) -> None:
        """Arrays for other replicas; those that stay keep what is known of them."""
        before, names = self._index, list(replicas)
        capacity = np.array([replica.capacity for replica in replicas.values()])
        kv = np.array([replica.kv for replica in replicas.values()])
        base = np.array([replica.base_s for replica in replicas.values()])
        n = len(names)
        share = capacity / capacity.sum() if n else capacity
        self._fleet = new_fleet(
            prefill=np.ones(n), base_s=base, request_s=0.004 * base, token_s=2e-6 * base, kv=kv, share=share
        )
        room, old, told_at = new_room(1, share), getattr(self, "_room", None), np.full(n, NEVER_S)
        room.seen.up[:], room.seen.told[:, 4] = True, base
        for k, name in enumerate(names):
            if name in before and old is not None:
                b = before[name]
                told_at[k] = self._told_at[b]
                for mine, theirs in zip(room.seen[:6], old.seen[:6], strict=True):
                    mine[k] = theirs[b]
                room.know.speed[0, k] = old.know.speed[0, b]
        if old is not None:
            room.know.left[:], room.know.alike[:], room.know.lag_s[:] = old.know.left, old.know.alike, old.know.lag_s
        self._room, self._told_at, self._replicas = room, told_at, replicas
        self._index = {name: k for k, name in enumerate(names)}


@njit(**LEAN)
def _pick(now, fleet, belief, prices, room, stream):
    game_costs(0, now, room.seen, fleet.share, fleet, belief, prices, False, room, stream)
    return least(room.cost, room.seen.up, stream)
