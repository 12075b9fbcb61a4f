r"""Why an agent got what it got, and what would have to change for another answer.

At the joint choice, agent i's option o costs

    total_i(o) = private_i(o) + congestion_i(o) + toll_i(o) + learned_i(o) + hysteresis_i(o)

with learned = -log prior / trust. It took the cheapest. A part *decided* if without it another option would be the
cheapest. For another option o to win, its total has to fall by gap = total(o) - total(taken), and that is all: the
others' best replies do not depend on i's own terms. So the smallest changes have closed forms: gap in private cost,
trust times gap in the log prior, gap / w_ir in the price per unit of load that i pays for a resource r that only
one of the two options uses. Each is checked by solving again, a hair below (nobody moves) and a hair above (i does).

Where places were given, :mod:`coordinator.why_seated` does the same in the game that the floors constrain.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np

from coordinator.tables import html_table, text_table
from games.best_response import best_response_batch
from games.congestion import Bool, CongestionGame, Float, Int

PARTS = ("private", "congestion", "toll", "learned", "hysteresis")
WORDS = {
    "private": "its private costs", "congestion": "congestion", "toll": "the tolls", "learned": "what was learned",
    "hysteresis": "the hysteresis",
}  # fmt: skip
HAIR = 1e-6


class Names(NamedTuple):
    """What an agent, the options and the resources are called; by number where that is empty."""

    agent: str = ""
    options: tuple[str, ...] = ()
    resources: tuple[str, ...] = ()

    def option(self, o: int) -> str:
        return self.options[o] if self.options else f"option {o}"

    def resource(self, r: int) -> str:
        return self.resources[r] if self.resources else f"resource {r}"


NUMBERS = Names()


@dataclass(frozen=True)
class Change:
    """One change that would make the agent take ``option``.

    Attributes:
        kind: "private cost" of the option (cost), "log prior" of the option against the one taken, or "price" of
            ``resource`` (cost per unit of the agent's load).
        amount: what to add; negative makes it cheaper. possible: False where it would leave the permitted range (a
            price below 0, a log prior beyond the clip).
        checked: solved again: a hair less and nobody moves, a hair more and the agent's first reply is ``option``.
        names: what they are called.
    """

    kind: str
    option: int
    amount: float
    resource: int | None = None
    possible: bool = True
    checked: bool = False
    names: Names = field(default=NUMBERS, repr=False, compare=False)

    def __str__(self) -> str:
        what = f"price of {self.names.resource(self.resource)}" if self.resource is not None else self.kind
        whose = "the" if self.resource is not None else "its"
        return f"{self.names.option(self.option)} wins if {whose} {what} changes by {self.amount:+.4g}" + (
            " (checked)" if self.checked else ""
        )


@dataclass(frozen=True)
class Why:
    """An agent's options at the others' choices, cheapest first; iterates over its rows.

    Attributes:
        agent, taken: who, and the option it has.
        rows: one dict an option: option, cost (private + congestion + toll), the parts, total, chosen, allowed, admits
            (by how much it would have to become cheaper to be taken; 0 for the one taken, inf if not allowed), and
            fits: where places were given, whether one of its own fits there; None where none were.
        decided_by: the parts and resources without which it would have taken another option, with that option; where
            places were given also "room" (it would have it if a place fitted), "promise" (opting out would cost less)
            and "acceptance" (alone it costs more than opting out); "improving" where that put it there, with the option
            that costs least; ("refused", 0) where the problem itself says why it gets nothing.
        reason: the same in a sentence.
        changes: what would make it take another option, the smallest first within each kind.
        admission: for an agent whose deadline is not expected to hold, what would admit it, checked by solving again;
            None where the problem cannot say.
        served: whether its deadline is expected to hold. names: what agent, options and resources are called in text.
    """

    agent: int
    taken: int
    rows: list[dict[str, Any]]
    decided_by: tuple[tuple[str, int], ...]
    reason: str
    changes: tuple[Change, ...]
    served: bool = True
    admission: tuple[dict[str, Any], ...] | None = field(default=())
    names: Names = NUMBERS

    @property
    def smallest(self) -> Change | None:
        """The smallest possible change in cost, None where the agent has but one option."""
        return next((c for c in self.changes if c.kind == "private cost"), None)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, k: int) -> dict[str, Any]:
        return self.rows[k]

    def _table(self) -> tuple[list[str], list[list[Any]]]:
        used = [p for p in PARTS if any(row[p] for row in self.rows)] or ["private"]
        fits = ["fits"] if any(row["fits"] is not None for row in self.rows) else []
        names = ["option", *used, "total", "chosen", *fits, "admits"]
        shown = [row for row in self.rows if row["allowed"]]
        called = lambda row: {"option": row["name"]} if self.names.options else {}
        return names, [[(row | called(row))[name] for name in names] for row in shown]

    def _notes(self) -> str:
        refused = self.decided_by[:1] == (("refused", 0),)
        served = "" if self.served or refused else " Its deadline is not expected to hold."
        ways = "; ".join(a["text"] for a in self.admission or ())
        if not self.served and not refused and self.admission is not None:
            served += f" What would admit it: {ways}." if ways else " Nothing that was tried would admit it."
        change = str(self.smallest) if self.smallest else ""
        change = f" {change if self.names.options else change.capitalize()}." if change else ""
        who = f"{self.names.agent} ({self.names.option(self.taken)})" if self.names.agent else ""
        return f"{who or f'agent {self.agent} has option {self.taken}'}: {self.reason}.{change}{served}"

    def __str__(self) -> str:
        return f"{self._notes()}\n{text_table(*self._table())}"

    def _repr_html_(self) -> str:
        names, rows = self._table()
        bold = next((k for k, row in enumerate(rows) if row[names.index("chosen")]), -1)
        return html_table(names, rows, self._notes(), bold)


def explain(
    game: CongestionGame,
    choice: Int,
    agent: int,
    log_prior: Float,
    trust: float,
    limit: float,
    anchor: Float | None = None,
    rule: str | None = None,
    names: Names = NUMBERS,
) -> Why:
    """Why ``agent`` has ``choice[agent]``.

    Args:
        game: as it was played. log_prior: (N, O) as merged. trust: of the step; 0 means that the prior alone decided.
        limit: of the clip. anchor: (N, O) hysteresis that was charged. rule: a heuristic that chose instead.
        names: for the text.
    """
    taken, options = int(choice[agent]), len(game.options)
    charge, toll = _charges(game, choice, agent)
    uses = uses_of(game)
    parts = {
        "private": game.private_cost[agent].copy(),
        "congestion": uses @ charge,
        "toll": uses @ toll,
        "learned": -log_prior[agent] / trust if 0 < trust < np.inf else np.zeros(options),
        "hysteresis": np.zeros(options) if anchor is None else anchor[agent].copy(),
    }
    allowed = game.allowed[agent]
    cost = parts["private"] + parts["congestion"] + parts["toll"]
    total = -log_prior[agent] if trust == 0 and rule is None else cost + parts["learned"] + parts["hysteresis"]
    gap = np.where(allowed, total - total[taken], np.inf)
    rows: list[dict[str, Any]] = [
        {"option": o, "name": names.option(o), "cost": float(cost[o]) if allowed[o] else np.inf}
        | {p: float(parts[p][o]) for p in PARTS}
        | {"total": float(total[o]) if allowed[o] else np.inf, "chosen": o == taken, "allowed": bool(allowed[o]),
           "fits": None, "admits": float(max(gap[o], 0.0))}
        for o in range(options)
    ]  # fmt: skip
    rows.sort(key=lambda row: (row["total"], not row["chosen"]))
    if rule is not None:
        best = int(np.where(allowed, total, np.inf).argmin())
        gain = float(total[taken] - total[best])
        reason = f"the rule {rule!r} chose it" + (
            f"; {names.option(best)} would cost {gain:.4g} less" if best != taken else ""
        )
        return Why(agent, taken, rows, (("rule", taken),), reason, (), names=names)
    if allowed.sum() == 1:
        only = "it is the only option that is allowed"
        return Why(agent, taken, rows, (("reach", taken),), only, (), names=names)
    if trust == 0:
        reach = lambda o: bool(gap[o] <= limit)
        moves = [Change("log prior", o, float(gap[o]), possible=reach(o), names=names) for o in _others(gap)]
        reason = "trust 0: the recommender alone chose it"
        return Why(agent, taken, rows, (("learned", taken),), reason, tuple(moves), names=names)
    paid = uses * (charge + toll)
    decided = parts_that_decided(parts, paid, allowed, taken)
    tilt = tilt_of(log_prior, trust, anchor)
    changes = confirmed(
        least_changes(game, agent, taken, gap, log_prior[agent], trust, limit, paid),
        lambda change: check(game, choice, agent, tilt, trust, change),
    )
    named = tuple(replace(change, names=names) for change in changes)
    return Why(agent, taken, rows, decided, sentence(decided, parts, gap, taken, names), named, names=names)


def tilt_of(log_prior: Float, trust: float, anchor: Float | None) -> Float:
    """(N, O) what prior and hysteresis add to private costs."""
    tilt = -log_prior / trust if 0 < trust < np.inf else np.zeros_like(log_prior)
    return tilt if anchor is None else tilt + anchor


def confirmed(changes: list[Change], holds: Callable[[Change], bool]) -> tuple[Change, ...]:
    """The changes by kind, the smallest first, and of each kind the first tried by ``holds``."""
    out = []
    for kind in ("private cost", "log prior", "price"):
        some = sorted((c for c in changes if c.kind == kind), key=lambda c: (not c.possible, abs(c.amount)))
        for k, change in enumerate(some):
            out.append(replace(change, checked=k == 0 and change.possible and holds(change)))
    return tuple(out)


def check(game: CongestionGame, choice: Int, agent: int, tilt: Float, trust: float, change: Change) -> bool:
    """Solved again: does nobody move a hair short of ``change``, and the agent to its option a hair beyond it?"""
    short = choice[None].copy()
    private = changed_costs(game, agent, tilt, trust, change, -HAIR)
    best_response_batch(game.batch()._replace(private_cost=private[None]), short, 1e-10, 200)
    private = changed_costs(game, agent, tilt, trust, change, HAIR)
    beyond = game.costs(choice)[agent] - game.private_cost[agent] + private[agent]
    return bool((short[0] == choice).all() and np.where(game.allowed[agent], beyond, np.inf).argmin() == change.option)


def changed_costs(
    game: CongestionGame, agent: int, tilt: Float, trust: float, change: Change, hair: float, least: float = 1e-8
) -> Float:
    """(N, O) private costs, tilt included, with a change made and ``hair`` of it more; a hair is at least ``least`` in
    cost, so that it does not drown in rounding."""
    private = game.private_cost + tilt
    per = 1.0 if change.resource is None else float(game.weight[agent, change.resource])
    amount = change.amount * per if change.kind != "log prior" else -change.amount / trust
    amount += np.sign(amount) * np.sign(hair) * max(abs(hair * amount), least)
    touched = uses_of(game)[:, change.resource] > 0 if change.resource is not None else change.option
    private[agent, touched] += amount
    return private


@dataclass(frozen=True)
class WhatIf:
    """The answer to a changed game, from the present one by best responses.

    Attributes:
        choice: (N,). moved: agents that have another option. regret: of the new choice in the changed tilted game.
        cost: social cost before and after, tolls left out, each in the game it is of.
        held: (N,) who holds a place then; None where none are given.
    """

    choice: Int
    moved: tuple[int, ...]
    regret: float
    cost: tuple[float, float]
    held: Bool | None = None

    def __str__(self) -> str:
        return f"{len(self.moved)} agents move; social cost {self.cost[0]:.4g} -> {self.cost[1]:.4g}"


def what_if(
    game: CongestionGame,
    choice: Int,
    tilt: Float,
    capacity: Mapping[int, float] | None = None,
    toll: float | None = None,
    private: Mapping[tuple[int, int], float] | None = None,
    forbid: Mapping[int, int] | None = None,
    without: int | None = None,
) -> WhatIf:
    """Solve a changed game from the present choice.

    Args:
        tilt: (N, O) what prior and hysteresis add to private costs.
        capacity: resource -> factor. toll: for all resources. private: (agent, option) -> cost added.
        forbid: agent -> option it may not take. without: an agent that leaves (its loads are taken away).

    Raises:
        InvalidGameError: a change that is no game, such as a capacity of 0 or an agent left without option.
        IndexError: an agent, option or resource that does not exist.
    """
    changed = changed_game(game, capacity, toll, private, forbid, without)
    tilted = replace(changed, private_cost=changed.private_cost + np.where(changed.allowed, tilt, 0.0))
    found = start_of(tilted, choice)[None]
    best_response_batch(tilted.batch(), found, 1e-10, 200)
    moved = tuple(np.flatnonzero(found[0] != choice).tolist())
    return WhatIf(
        found[0], moved, tilted.regret(found[0]), (game.social_cost(choice), changed.social_cost(found[0]))
    )  # fmt: skip


def changed_game(
    game: CongestionGame,
    capacity: Mapping[int, float] | None,
    toll: float | None,
    private: Mapping[tuple[int, int], float] | None,
    forbid: Mapping[int, int] | None,
    without: int | None,
) -> CongestionGame:
    """The game with the changes of :func:`what_if`."""
    size, cost, allowed, weight = (
        game.capacity.copy(),
        game.private_cost.copy(),
        game.allowed.copy(),
        game.weight.copy(),
    )
    for r, factor in (capacity or {}).items():
        size[r] *= factor
    for (i, o), more in (private or {}).items():
        cost[i, o] += more
    for i, o in (forbid or {}).items():
        allowed[i, o] = False
    if without is not None:
        weight[without] = 0.0
    charge = game.toll if toll is None else np.full(len(size), float(toll))
    return CongestionGame(game.options, weight, size, cost, allowed, charge)


def start_of(tilted: CongestionGame, choice: Int) -> Int:
    """(N,) the choice, where it is allowed still, and the option that is cheapest alone where it is not."""
    kept = tilted.allowed[np.arange(len(choice)), choice]
    return np.where(kept, choice, np.where(tilted.allowed, tilted.private_cost, np.inf).argmin(axis=1))


def uses_of(game: CongestionGame) -> Float:
    """(O, R) 1 where an option uses a resource."""
    out = np.zeros((len(game.options), game.weight.shape[1]))
    for o, resources in enumerate(game.options):
        out[o, resources[resources >= 0]] = 1.0
    return out


def _charges(game: CongestionGame, choice: Int, agent: int) -> tuple[Float, Float]:
    """(R,) what the agent pays on each resource for congestion, and in toll, the others staying."""
    own = game.weight[agent]
    mine = game.options[choice[agent]]
    others = game.loads(choice)
    others[mine[mine >= 0]] -= own[mine[mine >= 0]]
    others = np.maximum(others, 0.0)
    return own * (own + others) / game.capacity, game.toll * own * others / game.capacity


def _others(gap: Float) -> list[int]:
    """Options that are allowed and not taken, nearest first."""
    return [int(o) for o in np.argsort(gap, kind="stable") if np.isfinite(gap[o]) and gap[o] > 0]


def parts_that_decided(parts: dict[str, Float], paid: Float, possible: Bool, taken: int) -> tuple[tuple[str, int], ...]:
    """Parts, then resources, whose removal lets another option win; ``paid`` (O, R) is what each resource charges."""
    total = sum(parts.values())
    found = []
    removed = {p: parts[p] for p in PARTS} | {f"resource {r}": paid[:, r] for r in range(paid.shape[1])}
    for name, part in removed.items():
        rest = np.where(possible, total - part, np.inf)
        best = int(rest.argmin())
        if rest[best] < rest[taken] - 1e-12:
            found.append((name, best))
    return tuple(found)


def sentence(
    decided: tuple[tuple[str, int], ...], parts: dict[str, Float], gap: Float, taken: int, names: Names = NUMBERS
) -> str:  # fmt: skip
    """What decided, in words."""
    if not decided:
        rivals = _others(gap)
        if not rivals:
            return "it costs the least, with a tie"
        ahead = {p: float(v[rivals[0]] - v[taken]) for p, v in parts.items()}
        best = max(ahead, key=lambda p: ahead[p])
        return f"it costs the least, most of all by its {best} cost, and no single part decides"
    charge = lambda name: f"the charge of {names.resource(int(name.removeprefix('resource ')))}"
    said = [f"{names.option(o)} without {WORDS.get(name) or charge(name)}" for name, o in decided[:4]]
    return "it would have " + ", ".join(said)


def least_changes(
    game: CongestionGame, agent: int, taken: int, gap: Float, log_prior: Float, trust: float, limit: float, paid: Float
) -> list[Change]:
    """For each option at a finite ``gap`` (O,) the changes that close it; ``paid`` (O, R) as in
    :func:`parts_that_decided`."""
    found, uses = [], uses_of(game)
    for o in _others(gap):
        found.append(Change("private cost", o, -float(gap[o])))
        if np.isfinite(trust):
            shift = float(trust * gap[o])
            found.append(Change("log prior", o, shift, None, bool(log_prior[o] + shift - log_prior[taken] <= limit)))
        for r in np.flatnonzero((uses[o] != uses[taken]) & (game.weight[agent] > 0)):
            dearer = bool(uses[taken, r] > 0)  # r is what it has: dearer, or what it has not: cheaper
            if int(np.where((uses[:, r] > 0) != dearer, gap, np.inf).argmin()) == o:
                amount = float(gap[o] / game.weight[agent, r])
                possible = dearer or bool(paid[o, r] >= gap[o])
                found.append(Change("price", o, amount if dearer else -amount, int(r), possible))
    return found
