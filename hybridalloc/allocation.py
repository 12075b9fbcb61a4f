"""What ``Allocator.step`` answers with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from coordinator import Coordinator
from coordinator.congestion import Admits, Congestion
from coordinator.coordinator import game_of
from coordinator.game import only_options
from coordinator.improve import Expects, Regret, marginal_regret, start_of
from coordinator.shortlisted import whole_prior
from coordinator.tables import html_table, text_table
from coordinator.why import NUMBERS, WhatIf, Why, explain, tilt_of, what_if
from coordinator.why_packing import explain_packing, what_if_packing
from coordinator.why_seated import explain_seated, what_if_seated
from games.admission import Seating
from games.congestion import CongestionGame, Float, Int
from games.packing import Packing
from games.places import Places
from games.quadratic import QuadraticGame
from games.shortlists import Shortlists
from games.tree import TreeBatch
from hybridalloc.problems.contract import AnyProblem, Explains, Named, Prices, Refuses
from hybridalloc.problems.stores import valued
from hybridalloc.text import quoted, strict
from rl.proposal import Proposal
from rl.value import Valuer

UNITS = {"power": "power (W)"}  # a level's heading in tables, where it is not its name
SHOWN = 12  # rows of an allocation's table before it is cut


class Improvement(NamedTuple):
    """How a decision was improved on what the problem settles and expects, see docs/coordinator.md.

    Attributes:
        off: why it was not, "" where it was. gain: what the changes added to what is expected of the best start, prior
            included, in the problem's reward. moved, tried: changes of option made and tried.
        rest: whether no change tried would add more; False where it was stopped by its sweeps or the budget.
        bound: what an agent may still gain by any of the changes tried, in the marginal-contribution game and the
            problem's reward, by claim 14 of docs/coordinator.md: limit / trust and what a change must bring; inf where
            it was stopped. Not measured: ``allocation.marginal_regret()`` is.
    """

    off: str = ""
    gain: float = 0.0
    moved: int = 0
    tried: int = 0
    rest: bool = False
    bound: float = float("inf")

    def __str__(self) -> str:
        if self.off:
            return f"no: {self.off}"
        end = "at rest" if self.rest else "stopped"
        return f"by {self.gain:.4g} with {self.moved} of {self.tried} changes tried, {end}"


@dataclass(frozen=True)
class Certificate:
    """What was checked, by code that shares nothing with the solvers.

    Attributes:
        feasible: every capacity, power and energy limit holds.
        max_violation: largest relative excess over a limit. violations: one line for each.
        regret: largest gain of one agent by deviating alone, in costs that the certificate works out again from the
            definitions; where places were given, over moves to places that fit, floors kept (docs/coordinator.md). inf
            where there was no game to measure it in.
        epsilon_bound: what the regret cannot exceed: limit / trust for the hybrid, 0 for the game, inf where
            nothing is promised (pure RL, heuristics, fallback, a solver stopped by the budget).
        source: "hybrid", "rl", "game", a baseline's name, or "fallback". status: "ok", or why it is not.
        elapsed_ms: time of the step, this check included.
        unserved: agents whose deadline does not hold with what they were given, as believed, highest priority first.
        late: agents that were said to be served and are not; doubtful: served as believed, but not by the reports at
            their face value. envy: agents left out while lower classes hold what would serve them.
        trust: what weighed the game's costs in this step. drift: share of the recommender's features out of its
            training range, as averaged so far. stages: ms by stage.
        gap: of an optimum, agents that could be served beyond those that are, at most; nan for any other method.
        listed: options that each agent decided on, opting out included, where a short list was shown to be enough; None
            where all were looked at. The certificate looks at all in any case.
        improvement: of the choice, where the method asks for it; the epsilon bound is inf where it changed anything,
            for it is of the game before.
    """

    feasible: bool
    max_violation: float
    violations: tuple[str, ...]
    regret: float
    epsilon_bound: float
    source: str
    status: str
    elapsed_ms: float
    unserved: tuple[int, ...]
    late: tuple[int, ...] = ()
    doubtful: tuple[int, ...] = ()
    envy: tuple[int, ...] = ()
    trust: float = float("nan")
    drift: float = 0.0
    stages: Mapping[str, float] = field(default_factory=dict)
    gap: float = float("nan")
    improvement: Improvement | None = None
    listed: int | None = None

    def _rows(self) -> list[tuple[str, str]]:
        bound = "none" if np.isinf(self.epsilon_bound) else f"{self.epsilon_bound:.4g}"
        named = ", ".join(map(str, self.unserved[:SHOWN])) + (" ..." if len(self.unserved) > SHOWN else "")
        rows = [
            ("feasible", "yes" if self.feasible else f"NO: {'; '.join(self.violations[:3])}"),
            ("regret", f"{self.regret:.4g} (bound {bound})"),
            ("source", self.source), ("status", self.status), ("unserved", named or "nobody"),
            ("time", f"{self.elapsed_ms:.2f} ms"),
        ]  # fmt: skip
        if self.improvement is not None:
            rows.insert(2, ("improved", str(self.improvement)))
        for name, agents in (("late", self.late), ("envy", self.envy)):
            rows += [(name, ", ".join(map(str, agents[:SHOWN])) + (" ..." if len(agents) > SHOWN else ""))] * bool(
                agents
            )
        return rows + ([("drift", f"{100 * self.drift:.1f} % out of range")] if self.drift > 0 else [])

    def __str__(self) -> str:
        return "\n".join(f"{name:9s} {value}" for name, value in self._rows())

    def _repr_html_(self) -> str:
        return html_table(("certificate", ""), self._rows())


class Short(NamedTuple):
    """The lists that a step was decided on: the listed game, the log prior (M, T) as merged, and the clip, at which
    what is off a list counts."""

    game: Shortlists
    log_prior: Float
    limit: float


class Origin(NamedTuple):
    """Where an allocation comes from, for questions asked afterwards."""

    problem: AnyProblem
    state: Any
    prices: Prices
    proposal: Proposal | None  # the levels that were proposed beside the chosen options, None where none were
    limit: float
    memory: Any = None  # of a belief, as it was
    seating: Seating | None = None  # of the step, where places were given
    coordinator: Coordinator | None = None  # that decided, at the step's trust; None where none did
    against: Any = None  # the plan that its belief was taken to hold under, where it was improved
    value: Valuer | None = None  # of what is left in stores


@dataclass(frozen=True)
class Allocation:
    """A joint allocation that can be executed as it is. N agents.

    Attributes:
        option: (N,) chosen option, 0 = opt out.
        shares: resource family -> (N,) fraction of the chosen resource's capacity.
        levels: (N,) of each continuous quantity that the problem decides, by its name there: for ``mec`` "power" in W
            and "fraction", the part that is offloaded; for ``custom`` "power". Also read as ``allocation.power``. In
            the order of the game's, where a game decides them.
        served: (N,) bool, in time with what it was given, as believed; worked out again by the certificate.
        prices: resource family -> (resources,) marginal price of each.
        held: (N,) bool, holds a place: a promise that it is served. floors: resource family -> (N,) share reserved for
            that. seated: whether places were given at all (the hybrid and the game; not RL alone, not a heuristic).
        certificate: feasibility, regret, source.
        game: as it was played, without a hysteresis; None where the problem could not state one (source "fallback").
        log_prior: (N, O) as merged, (N, 1) zeros in a game without options. trust: of the step. anchor: (N, O)
            hysteresis that was charged, or None.
    """

    option: Int
    shares: dict[str, Float]
    served: NDArray[np.bool_]
    prices: dict[str, Float]
    certificate: Certificate
    game: CongestionGame | QuadraticGame | TreeBatch | Packing | None
    log_prior: Float
    trust: float
    levels: dict[str, Float] = field(default_factory=dict)
    anchor: Float | None = None
    origin: Origin | None = None
    held: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, bool))
    floors: dict[str, Float] = field(default_factory=dict)
    seated: bool = False
    short: Short | None = None

    def __post_init__(self) -> None:
        if self.short is not None:  # what looks at all options is made out when it is asked for
            for name in ("game", "log_prior"):
                if self.__dict__[name] is None:
                    del self.__dict__[name]

    @property
    def played(self) -> bool:
        """Whether there is a game, made out or not."""
        return self.short is not None or self.game is not None

    def __getattr__(self, name: str) -> Any:
        """A level by its name; of a step on short lists the whole game and log prior."""
        short: Short | None = self.__dict__.get("short")
        if short is not None and name == "log_prior":
            made = whole_prior(short.game, short.log_prior, short.limit)[0]
            return self.__dict__.setdefault(name, made)
        origin: Origin | None = self.__dict__.get("origin")
        if short is not None and origin is not None and name == "game":
            world = valued(origin.problem.world_at(origin.state, origin.memory), origin.value)
            return self.__dict__.setdefault(name, game_of(world.game(origin.prices)).single(0))
        levels: dict[str, Float] = self.__dict__.get("levels", {})  # none yet while it is copied or unpickled
        if name not in levels:
            raise AttributeError(f"an allocation has no {name!r}; its levels are: {', '.join(levels) or 'none'}")
        return levels[name]

    def why(self, agent: int | str) -> Why:
        """Why an agent has its option: its options at the others' choices with their parts, cheapest first; what
        decided; the smallest changes that would change the answer, solved again; and for an agent in
        ``certificate.unserved`` what would admit it.

        The answer is a sequence of rows, each a dict with ``option``, ``cost``, ``private``, ``congestion``, ``toll``,
        ``learned`` (what the recommender's prior adds, in cost), ``hysteresis``, ``total``, ``chosen``, ``allowed``,
        ``fits``, ``admits``; see :class:`coordinator.why.Why` for the rest. Where places were given (``seated``) costs
        are those under the floors, and an option on which no place fits has an infinite total; see
        :mod:`coordinator.why_seated`.

        Args:
            agent: its number, or its name where the problem has names; the text then speaks in them.

        Raises:
            IndexError: no such agent. ValueError: a fallback without a game to explain; nobody of that name.
        """
        n, names = len(self.option), NUMBERS
        named = None if self.origin is None or not isinstance(self.origin.problem, Named) else self.origin.problem
        if isinstance(agent, str):
            if named is None or self.origin is None:
                raise ValueError(f"agent {quoted(agent)}: agents have no names here; give a number")
            agent = named.agent(self.origin.state, agent)
        if not -n <= agent < n:
            raise IndexError(f"agent {agent}: this allocation has {n} agents, 0 to {n - 1}")
        agent = int(agent) % n
        if named is not None and self.origin is not None:
            names = named.names(self.origin.state, agent)
        source = self.certificate.source
        rule = None if source in ("hybrid", "rl", "game") else source
        limit = 10.0 if self.origin is None else self.origin.limit
        if isinstance(self.game, Packing):
            why = explain_packing(self.game, self.option, agent, self.log_prior, self.trust, rule, names)
        elif self.seated:
            places, seating = self._places()
            why = explain_seated(
                self._played(), places, seating, agent, self.log_prior, self.trust, limit, self.anchor,
                bool(self.served[agent]), names,
            )  # fmt: skip
        else:
            why = explain(
                self._played(), self.option, agent, self.log_prior, self.trust, limit, self.anchor, rule, names
            )  # fmt: skip
        why = self._improved(why)
        if self.served[agent] or self.origin is None:
            return why
        o, refused = self.origin, self.refusals().get(agent)
        if refused is not None:
            return replace(why, served=False, decided_by=(("refused", 0),), reason=refused, admission=None)
        ways = None
        if isinstance(o.problem, Explains):
            ways = o.problem.admits(o.state, self, agent, o.prices, o.proposal, self.trust, o.memory)
        return replace(why, served=False, admission=ways)

    def refusals(self) -> dict[int, str]:
        """Of each agent that gets nothing, why, where the problem can say so from the state alone (cluster's pods:
        larger than any node, or no node has room now)."""
        o = self.origin
        if o is None or not isinstance(o.problem, Refuses):
            return {}
        found = {i: o.problem.refusal(o.state, i) for i in np.flatnonzero(np.asarray(self.option) == 0).tolist()}
        return {i: reason for i, reason in found.items() if reason is not None}

    def _improved(self, why: Why) -> Why:
        """With the reason why it has an option that another undercuts in the game, where improving put it there."""
        how = self.certificate.improvement
        taken = next(row for row in why.rows if row["chosen"])
        cheapest = min(why.rows, key=lambda row: row["total"])
        gap = taken["total"] - cheapest["total"]
        if how is None or how.off or not how.moved or not gap > 1e-9:
            return why
        reason = (
            f"the game alone would have it on {why.names.option(cheapest['option'])}, {gap:.4g} cheaper; the settled "
            "whole is expected to be worth more so"
        )
        return replace(why, reason=reason, decided_by=(("improving", int(cheapest["option"])),), changes=())

    def what_if(self, **changes: Any) -> WhatIf:
        """The answer to a changed game, from this one: by best responses; where places were given (``seated``) by
        those that fit, under the floors, and who is out is seated where that is possible now. Nothing is improved in
        it: where this choice was, the answer is held against the game's own replies to it.

        Args:
            changes: ``capacity={resource: factor}``, ``toll=``, ``private={(agent, option): cost added}``,
                ``forbid={agent: option}``, ``without=agent``; resources as in ``game.options``. Where places are held
                whole (:class:`games.packing.Packing`) there is no toll, and both games are played afresh.
        """
        how = self.certificate.improvement
        after = self._replied(changes)
        if how is None or not how.moved:
            return after
        base = self._replied({})
        moved = np.flatnonzero(base.choice != after.choice)
        return replace(after, moved=tuple(moved.tolist()), cost=(base.cost[1], after.cost[1]))

    def _replied(self, changes: Mapping[str, Any]) -> WhatIf:
        if isinstance(self.game, Packing):
            return what_if_packing(self.game, self.log_prior, self.trust, **changes)
        game, tilt = self._played(), tilt_of(self.log_prior, self.trust, self.anchor)
        if self.seated:
            return what_if_seated(game, *self._places(), tilt, **changes)
        return what_if(game, self.option, tilt, **changes)

    def marginal_regret(self) -> Regret:
        """The most that one agent gains by changing its option alone, in what the problem settles and expects of the
        whole (the marginal-contribution game), prior included: over all options, each settled and valued afresh, some
        0.2 s for 50 x 9. ``certificate.improvement.bound`` is promised over the changes that were tried.

        Raises:
            ValueError: the choice was not improved.
        """
        o, c = self.origin, self.certificate
        if o is None or o.coordinator is None or o.against is None or c.improvement is None or c.improvement.off:
            raise ValueError(
                f"this choice was not improved: {'nobody asked' if c.improvement is None else c.improvement}"
            )
        world = valued(o.problem.world_at(o.state, o.memory), o.value)
        batch = self._played().batch()
        game = Congestion(batch).tilted(Proposal(self.log_prior[None]), self.trust)
        if self.anchor is not None:
            game = replace(game, tilt=self.anchor[None] if game.tilt is None else game.tilt + self.anchor)
        settle = lambda choice, seats: world.settle(choice, o.prices, o.proposal, self.trust, seats)
        places = world.places(o.prices, batch) if o.seating is not None and isinstance(world, Admits) else None
        start = start_of(only_options(self.option[None]), o.seating, None, np.zeros(1))
        if not isinstance(world, Expects):
            raise ValueError(f"{o.problem.card.name} does not say what it expects of a plan")
        return marginal_regret(world, o.prices, game, start, places, o.against, settle)

    def _places(self) -> tuple[Places, Seating]:
        """What serving takes, as it was read in the step, and who was seated."""
        o = self.origin
        if o is None or o.seating is None:
            raise ValueError("this allocation does not know the step it comes from, so its places cannot be explained")
        situation = valued(o.problem.world_at(o.state, o.memory), o.value)
        batch = self._played().batch()
        if self.anchor is not None:
            batch = batch._replace(private_cost=batch.private_cost + self.anchor)
        places = situation.places(o.prices, batch) if isinstance(situation, Admits) else None
        if places is None:
            raise ValueError(f"{o.problem.card.name} states no places, and this allocation has some")
        return places, o.seating

    def _played(self) -> CongestionGame:
        if self.game is None:
            raise ValueError(f"there is no game to explain: {self.certificate.status}")
        if isinstance(self.game, Packing):
            raise ValueError("places are held whole here; marginal_regret is of games that share")
        if not isinstance(self.game, CongestionGame):
            raise ValueError("there are no options to explain: this game decides levels alone")
        return self.game

    def _table(self) -> tuple[list[str], list[list[Any]]]:
        kept = {f"{name} reserved": floor for name, floor in self.floors.items()} if self.seated else {}
        place = ["place"] if self.seated else []
        names = ["agent", "option", *self.shares, *kept, *(UNITS.get(k, k) for k in self.levels), *place, "served"]
        alone = not self.shares  # levels are decided, and nobody opts out
        busy = np.flatnonzero((self.option > 0) | ~self.served | alone)
        return names, [
            [int(i), int(self.option[i]), *(float(s[i]) for s in (*self.shares.values(), *kept.values())),
             *(float(level[i]) for level in self.levels.values()), *(bool(self.held[i]) for _ in place),
             bool(self.served[i])]
            for i in busy
        ]  # fmt: skip

    def _head(self, shown: int, of: int) -> str:
        c = self.certificate
        cut = f"; {shown} of {of} shown" if shown < of else ""
        places = f", {int((self.held & (self.option > 0)).sum())} with a place" if self.seated else ""
        return (
            f"{len(self.option)} agents, {int((self.option > 0).sum())} on resources{places}, {len(c.unserved)} "
            f"unserved; {c.source}, {'feasible' if c.feasible else 'NOT FEASIBLE'}, regret {c.regret:.3g}{cut}"
        )

    def __str__(self) -> str:
        names, rows = self._table()
        return f"{self._head(min(len(rows), SHOWN), len(rows))}\n{text_table(names, rows[:SHOWN])}"

    def _repr_html_(self) -> str:
        names, rows = self._table()
        return html_table(names, rows[:SHOWN], self._head(min(len(rows), SHOWN), len(rows)))

    def to_dict(self) -> dict[str, Any]:
        """Plain lists and numbers that strict JSON holds (``json.dumps(..., allow_nan=False)``): a number that is not
        finite, such as a bound that promises nothing, is None."""
        c = self.certificate
        lists = lambda parts: {name: np.asarray(values).tolist() for name, values in parts.items()}
        return strict({
            "option": self.option.tolist(), "shares": lists(self.shares), **lists(self.levels),
            "prices": lists(self.prices), "seated": self.seated,
            "held": self.held.tolist(), "floors": lists(self.floors),
            "refused": {str(i): reason for i, reason in self.refusals().items()},
            "certificate": {
                "feasible": c.feasible, "max_violation": c.max_violation, "violations": list(c.violations),
                "regret": c.regret, "epsilon_bound": c.epsilon_bound, "source": c.source, "status": c.status,
                "elapsed_ms": c.elapsed_ms, "unserved": list(c.unserved), "late": list(c.late),
                "doubtful": list(c.doubtful), "envy": list(c.envy), "trust": c.trust, "drift": c.drift,
                "gap": c.gap, "listed": c.listed,
                "improvement": None if c.improvement is None else c.improvement._asdict(),
            },
        })  # fmt: skip


_FIELDS = frozenset(f.name for f in fields(Allocation))


def with_levels(parts: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of an allocation from a problem's parts, which give each level under its own name beside them."""
    levels = {name: value for name, value in parts.items() if name not in _FIELDS}
    return {name: value for name, value in parts.items() if name in _FIELDS} | ({"levels": levels} if levels else {})
