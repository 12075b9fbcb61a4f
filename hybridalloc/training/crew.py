"""One large training whose roll-outs several hands collect, here or on other machines.

The networks are dealt out to the members of a :class:`Crew`, a run of them each. For every rollout each member gets
the policy as it is, and gives back what it saw, decided and earned; the learner gets it joined in the order of the
networks, as if one :class:`~hybridalloc.training.rollout.Rollout` had made it. Nobody runs ahead: what is learned from
was executed by the policy that learns, except with ``overlap``, which is one update behind with and without a crew.

Each network has its own stream of events, and a member draws the choices of all networks to take those of its own, so
that how many members there are and where they are has no part in what happens, with one exception: a belief that learns
does so beside each member's own networks. With such a belief a run depends on the number of its members, and on nothing
else; the belief of the first member is the run's. (A network that pools over agents computes in blocks, whose rounding
may depend on how many networks lie beside each other.)

What a member's future depends on comes back with every rollout. One that is lost is made again elsewhere and goes on
from there: the run is the same to the bit.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from coordinator import Coordinator
from hybridalloc.problems import restore_problem
from hybridalloc.problems.beliefs import belief_arrays, restore_belief
from hybridalloc.problems.contract import AnyProblem, Belief, Bool, Facts, Float, Int, Prices
from hybridalloc.training.checkpoints import put, take
from hybridalloc.training.rollout import Chosen, Explore, Method, Rollout, Step
from rl.learner import Learner
from rl.on_policy import OnPolicy
from rl.policy import ArrayPolicy
from rl.proposal import Observation
from rl.value import StoreValue


class Part(NamedTuple):
    """What makes a member, in plain data: whose networks these are, and which of them.

    Attributes:
        problem, prices: as described and by name. seeds: of all networks. first, last: its own are first to last - 1.
        draws: state of the generator of everyone's choices. belief: as arrays, {} for none. value: of the agents'
            stores, its state. coordinator: that explores; an order says its trust.
    """

    problem: dict[str, Any]
    prices: dict[str, float]
    seeds: tuple[int, ...]
    first: int
    last: int
    draws: str
    belief: dict[str, Any]
    value: dict[str, Any] | None
    coordinator: Coordinator


class Order(NamedTuple):
    """What a member is to do: decide once at each of ``trusts`` by the policy of these weights.

    Attributes:
        clear: forget the counts so far, first. state: stand there, before anything; None where it stands.
    """

    weights: Mapping[str, NDArray[Any]]
    trusts: tuple[float, ...]
    clear: bool = False
    state: dict[str, Any] | None = None


class Slot(NamedTuple):
    """One decision of a member's e networks, as :meth:`rl.learner.Learner.record` takes it; see ``Step``."""

    observation: Observation
    option: Int
    log_prior: Float | None
    bias: Float | None
    allowed: Bool | None
    reward: Float
    lost: Float
    carried: Float
    left: Bool | None
    requested: Float
    elapsed: Float
    over: Bool
    terminated: Bool | None
    final: Observation | None


class Done(NamedTuple):
    """What a member gives back.

    Attributes:
        slots: one a decision. counts: (T, 2) violations and overloads of each. following: what it sees after them.
            state: all that its future depends on. summary: its metrics (e,) since its counts were cleared. seconds:
            spent on proposing, on the game, and on all else.
    """

    slots: list[Slot]
    counts: Int
    following: Observation
    state: dict[str, Any]
    summary: dict[str, Float]
    seconds: tuple[float, float, float]


class Member:
    """Collects what an order asks for."""

    def __init__(self, part: Part) -> None:
        problem = restore_problem(part.problem, trust_code=True)  # of who hired it
        self.prices = problem.card.prices(**part.prices)
        self.belief = restore_belief(problem, part.belief)
        value = None if part.value is None else StoreValue.of(part.value)
        own, every = np.arange(part.first, part.last), len(part.seeds)
        seeds = [part.seeds[k] for k in own]
        self.run = Rollout(problem, seeds, self.belief, spread=(own, every), value=value)
        self.rng = np.random.default_rng()
        put(self.rng, part.draws)
        self.explore = ExploreSome(part.coordinator, self.prices, self.rng, total=every, own=own)

    def collect(self, order: Order) -> Done:
        if order.state is not None:
            self._stand(order.state)
        if order.clear:
            self.run.tally.clear()
        run, slots, spent = self.run, list[Slot](), np.zeros(3)
        counts = [(run.violations, run.overloads)]
        self.explore.learner = Speaker(ArrayPolicy(order.weights)) if order.trusts else None
        for trust in order.trusts:
            self.explore.coordinator = replace(self.explore.coordinator, trust=trust)
            observation = run.observation
            step = run.step(self.explore, self.prices, final=True)
            chosen, facts = step.chosen, step.facts
            slots.append(owned(Slot(
                observation, chosen.option, chosen.log_prior, chosen.bias, chosen.allowed, facts.reward, facts.lost,
                facts.carried, facts.left, step.requested, step.elapsed, step.over, step.terminated, step.final,
            )))  # fmt: skip
            rest = step.deciding_s - chosen.policy_s - chosen.game_s + step.moving_s
            counts.append((run.violations, run.overloads))
            spent += (chosen.policy_s, chosen.game_s, rest)
        started = time.perf_counter()
        following, state, summary = owned(run.observation), owned(self._state()), run.tally.summary()
        spent[2] += time.perf_counter() - started
        seconds = float(spent[0]), float(spent[1]), float(spent[2])
        return Done(slots, np.diff(counts, axis=0), following, state, summary, seconds)

    def _state(self) -> dict[str, Any]:
        belief = None if self.belief is None else take(self.belief)
        return {"rollout": take(self.run), "draws": take(self.rng), "belief": belief}

    def _stand(self, state: Mapping[str, Any]) -> None:
        state = owned(state)
        put(self.run, state["rollout"])
        put(self.rng, state["draws"])
        put(self.belief, state["belief"])


def owned(value: Any) -> Any:
    """Containers whose arrays nobody else reads or writes: worlds fill theirs anew, and what has travelled may be
    written to by nobody."""
    if isinstance(value, np.ndarray):
        return value.copy()
    if isinstance(value, dict):
        return {key: owned(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        parts = [owned(item) for item in value]
        return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
    return value


@dataclass
class Speaker:
    """A policy as exploring asks it."""

    policy: ArrayPolicy

    def propose(self, observation: Observation) -> Any:
        return self.policy.propose(observation)

    def sample_continuous(self, observation: Observation, option: Int, rng: np.random.Generator) -> None:
        """None: who proposes levels has no crew."""


@dataclass
class ExploreSome(Explore):
    """Explores the networks ``own`` of ``total``, by the draws that they have where all are explored together."""

    total: int = 1
    own: Int = field(default_factory=lambda: np.zeros(1, int))

    def uniform(self, shape: tuple[int, ...]) -> Float:
        return super().uniform((self.total, *shape[1:]))[self.own]


class Hand(Protocol):
    """Where a member is: begin what an order asks for, and wait for it."""

    def begin(self, order: Order) -> None: ...

    def wait(self) -> Done:
        """What was begun; a WorkError where that cannot be had."""
        ...

    def close(self) -> None: ...


class Here:
    """A member in this process, which works when it is waited for."""

    def __init__(self, part: Part) -> None:
        self.member, self._order = Member(part), Order({}, ())

    def begin(self, order: Order) -> None:
        self._order = order

    def wait(self) -> Done:
        return self.member.collect(self._order)

    def close(self) -> None:
        """There is nothing to end."""


Hires = Callable[[Part], Hand]


class Counts:
    """The members' metrics as one tally's, since it was cleared."""

    def __init__(self) -> None:
        self.parts: list[dict[str, Float]] = []
        self.clearing = False

    def summary(self) -> dict[str, Float]:
        return {key: np.concatenate([part[key] for part in self.parts]) for key in self.parts[0]}

    def clear(self) -> None:
        self.clearing = True


def check_crew(learner: Learner, members: int, networks: int) -> OnPolicy:
    """The learner, if so many others can act for it.

    Raises:
        ValueError: more members than networks, or a learner of which more than the policy is read meanwhile.
    """
    if not isinstance(learner, OnPolicy) or not learner.overlaps:
        raise ValueError(
            f"{learner.name} as it is set reads more than its policy while it acts, so that others cannot act for "
            "it; leave actors out (mappo, imappo, ippo, ppo and a2c have it, without memory and continuous heads, "
            "on device 'cpu')"
        )
    if members > networks:
        raise ValueError(f"actors = {members}; at most one a network, and there are {networks} networks")
    return learner


class Crew:
    """A :class:`Rollout` that its members collect; the trainer says by :meth:`expect` how much before it asks for it.

    Args:
        members: how many. hires: what makes one; default in this process. rng: of everyone's choices. belief: is
            brought to the first member's after every rollout.

    Raises:
        ValueError: more members than networks, or a learner of which more than the policy is read meanwhile.
    """

    def __init__(
        self, problem: AnyProblem, prices: Prices, seeds: NDArray[np.int64], members: int, explore: Explore,
        learner: Learner, belief: Belief | None, value: StoreValue | None, hires: Hires | None = None,
    ) -> None:  # fmt: skip
        self.learner, self.belief, self.size = check_crew(learner, members, len(seeds)), belief, len(seeds)
        ends = np.linspace(0, len(seeds), members + 1).round().astype(int)
        whole = Part(
            problem.describe(), prices._asdict(), tuple(int(seed) for seed in seeds), 0, len(seeds), take(explore.rng),
            {} if belief is None else belief_arrays(belief), None if value is None else value.state_dict(),
            explore.coordinator,
        )  # fmt: skip
        make = hires or Here
        self.hands = [make(whole._replace(first=int(a), last=int(b))) for a, b in pairwise(ends)]
        self.tally, self.violations, self.overloads = Counts(), 0, 0
        self._slots: deque[tuple[Slot, tuple[float, float, float], Int]] = deque()
        self._state: list[dict[str, Any]] | None = None  # to be stood at, first
        self._ordered = Order({}, ())
        self._collect(self._ordered)

    @property
    def waits(self) -> bool:
        """Whether :meth:`expect` must be called before the next step."""
        return not self._slots

    @property
    def room(self) -> int:
        """Decisions until the learner may have a rollout; one at a time where that waits for what is still charged."""
        new = len(self.learner.slots) - self.learner.held
        return max(self.learner.settings.horizon - new, 1)

    @property
    def observation(self) -> Observation:
        return self._slots[0][0].observation if self._slots else self._following

    def expect(self, trusts: Sequence[float]) -> None:
        """Have a decision collected at each of these trusts, by the learner's present policy."""
        self._collect(Order(self.learner.policy.weights, tuple(trusts)))

    def step(self, method: Method, prices: Prices, final: bool = False) -> Step:
        """The next decision that was collected, see :meth:`Rollout.step`; it has no plan, no counts, no levels."""
        slot, (policy_s, game_s, rest_s), (violations, overloads) = self._slots.popleft()
        self.violations += int(violations)
        self.overloads += int(overloads)
        chosen = Chosen(
            slot.option, None, slot.log_prior, slot.bias, slot.allowed, policy_s=policy_s, game_s=game_s
        )  # fmt: skip
        facts = Facts(slot.reward, slot.lost, slot.carried, slot.elapsed, {}, slot.left)
        return Step(
            chosen, facts, slot.requested, slot.elapsed, slot.over, slot.terminated, slot.final, policy_s + game_s,
            rest_s,
        )  # fmt: skip

    def state_dict(self) -> dict[str, Any]:
        """Where the members stand. Nothing may be collected and not yet stepped through."""
        assert not self._slots
        return {"members": self._stands, "clearing": self.tally.clearing}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Raises a ValueError where it was written by a crew of another size."""
        stands = list(state["members"])
        if len(stands) != len(self.hands):
            raise ValueError(f"it is of {len(stands)} actors, these are {len(self.hands)}")
        self._state, self.tally.clearing = stands, False
        self._collect(Order({}, ()))
        self.tally.clearing = bool(state["clearing"])

    def close(self) -> None:
        for hand in self.hands:
            hand.close()

    def _collect(self, order: Order) -> None:
        began = time.perf_counter()
        order = order._replace(clear=self.tally.clearing)
        for k, hand in enumerate(self.hands):
            hand.begin(order._replace(state=None if self._state is None else self._state[k]))
        done = [hand.wait() for hand in self.hands]
        self._state, self.tally.clearing = None, False
        self.tally.parts = [part.summary for part in done]
        self._following: Observation = merged([part.following for part in done])
        self._stands = [part.state for part in done]
        if self.belief is not None:
            put(self.belief, owned(self._stands[0]["belief"]))
        slots = [self._joined([part.slots[k] for part in done], done) for k in range(len(order.trusts))]
        spent = np.sum([part.seconds for part in done], axis=0)
        share = (time.perf_counter() - began) / max(len(slots), 1) / max(float(spent.sum()), 1e-9)
        each = float(spent[0] * share), float(spent[1] * share), float(spent[2] * share)
        counts = np.sum([part.counts for part in done], axis=0)
        self._slots.extend((slot, each, count) for slot, count in zip(slots, counts, strict=True))

    def _joined(self, parts: Sequence[Slot], done: Sequence[Done]) -> Slot:
        """One decision of all networks. Where some saw an end, those that did not show what they see last: nobody
        reads it."""
        final = None
        if any(slot.final is not None for slot in parts):
            final = merged([s.final if s.final is not None else d.following for s, d in zip(parts, done, strict=True)])
        rest = merged([slot._replace(final=None) for slot in parts])
        return rest._replace(final=final)


def merged(parts: Sequence[Any]) -> Any:
    """Named tuples of arrays, a row a network, as one; what an observation says of the options is everyone's."""
    first, made = parts[0], {}
    for name, value in first._asdict().items():
        values = [getattr(part, name) for part in parts]
        if isinstance(value, tuple):
            made[name] = merged(values)
        elif value is None:
            made[name] = None
        elif name == "resource_of" and value.ndim == 1:
            made[name] = value.copy()
        else:
            made[name] = np.concatenate(values)
    return first._replace(**made)
