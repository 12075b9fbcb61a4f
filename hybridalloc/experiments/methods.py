"""The rows of a comparison's table: which method, with which learner, belief and prices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from hybridalloc.problems.contract import Card
from rl.registry import LEARNERS


class Method(NamedTuple):
    """A row of the table.

    ``learner`` is None for what learns no prior. ``belief`` is what it takes the reports for, a name of the card's
    ``beliefs``; "" takes them at their face value. ``prices``: "tuned" for its belief (of a learner alone, for itself),
    or one of the card's ``reference_prices``.
    """

    label: str
    kind: str  # "hybrid" | "rl" | "game" | "heuristic"
    learner: str | None = None
    belief: str = ""
    prices: str = "tuned"
    improve: bool = False  # see coordinator.improve
    published: bool = False  # a heuristic as others have published or shipped it
    bound: bool = False  # it knows what nobody is told: a limit to hold methods against, and no rival
    runs: bool = True  # a bound that does not is worked out, see :class:`hybridalloc.problems.contract.Bounds`


KINDS = {"hybrid": "hybrid, {}", "rl": "{} alone"}  # of a learner's rows
BELIEF_ROWS = {"learned": "game-belief", "bayesian": "game-bayes"}
RIVALS = (
    "hybrid-untrained", "game-belief", "game-bayes", "game-tuned", "hybrid-imappo-reports", "rl-imappo-reports",
)  # fmt: skip


def learning_belief(card: Card) -> str:
    """The first of the card's beliefs that learns, "" where none does: what every learner has."""
    return next((name for name, belief in card.beliefs.items() if belief.learns), "")


def methods_of(card: Card) -> dict[str, Method]:
    """Every row that a table of this problem can have, by name and in order; rows about beliefs where it has some."""
    learned, reports = learning_belief(card), ", no beliefs"
    rows = {
        f"{kind}-{name}": Method(label.format(entry.label), kind, name, learned, improve=kind == "hybrid")
        for kind, label in KINDS.items()
        for name, entry in LEARNERS.items()
    }
    rows["hybrid-untrained"] = Method("hybrid, no prior", "hybrid", None, learned, improve=True)
    if card.beliefs:
        for kind in KINDS:
            row = rows[f"{kind}-imappo"]
            rows[f"{kind}-imappo-reports"] = row._replace(label=row.label + reports, belief="")
    for name, belief in card.beliefs.items():
        if name in BELIEF_ROWS:
            rows[BELIEF_ROWS[name]] = Method(f"game, {belief.label}, tuned", "game", None, name)
    rows["game-tuned"] = Method("game, tuned", "game")
    for name in card.reference_prices:
        rows[f"game-{name.replace(' ', '-')}"] = Method(f"game, {name}", "game", prices=name)
    for name, label in (dict(card.baselines) | dict(card.bounds)).items():
        rows[name] = Method(
            label, "heuristic", published=name in card.published, bound=name in card.bounds,
            runs=name in card.baselines,
        )  # fmt: skip
    return rows


def rows_of(card: Card, learners: Sequence[str]) -> tuple[str, ...]:
    """The table's methods: each learner in the hybrid and alone, what learns no prior, the problem's own heuristics."""
    first = [f"{kind}-{learner}" for kind in KINDS for learner in learners]
    every = methods_of(card)
    rest = [name for name, row in every.items() if row.learner is None or name.endswith("-reports")]
    return tuple(first + [name for name in rest if "imappo" in learners or not name.endswith("-reports")])


def method_of(name: str, card: Card) -> Method:
    """A row of this problem's table.

    Raises:
        KeyError: the table cannot have it.
    """
    return methods_of(card)[name]
