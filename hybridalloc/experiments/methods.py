"""The rows of a comparison's table: which method, with which learner, belief and prices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from rl.registry import LEARNERS


class Method(NamedTuple):
    """A row of the table.

    ``learner`` is None for what learns no prior. ``belief`` is what it takes the reports for, see the problem's
    ``beliefs``; "" takes them at their face value. ``prices``: "tuned" for its belief, "toll 0" or "toll 1".
    """

    label: str
    kind: str  # "hybrid" | "rl" | "game" | "heuristic"
    learner: str | None = None
    belief: str = ""
    prices: str = "tuned"
    settings: tuple[tuple[str, Any], ...] = ()  # of the learner, where its defaults are not best


LEARNED = {
    f"{kind}-{learner}": Method(label.format(entry.label), kind, learner, "learned")
    for learner, entry in LEARNERS.items()
    for kind, label in (("hybrid", "hybrid, {}"), ("rl", "{} alone"))
}
METHODS: dict[str, Method] = LEARNED | {
    "hybrid-untrained": Method("hybrid, no prior", "hybrid", None, "learned"),
    "hybrid-imappo-reports": Method("hybrid, IMAPPO, no beliefs", "hybrid", "imappo"),
    "rl-imappo": Method("IMAPPO alone", "rl", "imappo", "learned", settings=(("gae", 0.6),)),
    "rl-imappo-reports": Method("IMAPPO alone, no beliefs", "rl", "imappo", settings=(("gae", 0.6),)),
    "game-belief": Method("game, learned beliefs, tuned", "game", None, "learned"),
    "game-bayes": Method("game, Bayesian with the true law, tuned", "game", None, "bayesian"),
    "game-tuned": Method("game, tuned", "game"),
    "game-toll-1": Method("game, toll 1", "game", prices="toll 1"),
    "game-toll-0": Method("game, toll 0", "game", prices="toll 0"),
    "local": Method("local only", "heuristic"),
    "nearest": Method("nearest server", "heuristic"),
    "greedy": Method("greedy", "heuristic"),
    "random": Method("random", "heuristic"),
}
RIVALS = (
    "hybrid-untrained", "game-belief", "game-bayes", "game-tuned", "hybrid-imappo-reports", "rl-imappo-reports",
)  # fmt: skip


def rows_of(problem: Any, learners: Sequence[str]) -> tuple[str, ...]:
    """The table's methods: each learner in the hybrid and alone, what learns no prior, the problem's own heuristics.

    Rows about beliefs are for problems that have them.
    """
    first = [f"{kind}-{learner}" for kind in ("hybrid", "rl") for learner in learners]
    rest = [name for name in METHODS if name not in LEARNED and METHODS[name].kind != "heuristic"]
    if "imappo" not in learners or not getattr(problem, "beliefs", {}):
        rest = [name for name in rest if not name.endswith("-reports")]
    if not getattr(problem, "beliefs", {}):
        rest = [name for name in rest if name not in ("game-belief", "game-bayes")]
    own = [name for name in METHODS if METHODS[name].kind == "heuristic" and name in problem.card.baselines]
    return tuple(first + rest + own + [name for name in problem.card.baselines if name not in own])


def method_of(name: str, problem: Any = None) -> Method:
    """A row of the table; a heuristic that only this problem has goes by its name, and without beliefs it has none."""
    method = METHODS.get(name) or Method(name.replace("_", " "), "heuristic")
    return method if problem is None or getattr(problem, "beliefs", {}) else method._replace(belief="")
