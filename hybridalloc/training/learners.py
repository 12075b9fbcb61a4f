"""The settings that a run's learner has, by kind and problem, and those of runs that were written without them."""

from __future__ import annotations

from typing import Any

from hybridalloc.problems.contract import AnyProblem
from hybridalloc.training.config import TrainConfig
from rl.registry import resolved, settings_for

DEFAULTS = 2  # which of the learners' defaults a comparison began with; a record that does not say had the first
UNWRITTEN: dict[str, dict[str, Any]] = {
    "": {"limit": 10.0},
    "imappo": {"gamma": 0.9, "gae": 0.9, "epochs": 4, "minibatches": 4, "rate": 3e-3, "entropy": 2e-3},
}  # of runs whose files do not say: every learner's, then one's own
UNWRITTEN_ALONE: dict[str, dict[str, Any]] = {"imappo": {"gae": 0.6}}  # in a comparison


def unwritten(learner: str, kind: str = "hybrid", compared: bool = False) -> dict[str, Any]:
    """Settings of a run whose files do not say, ``compared`` where a comparison made it."""
    own = UNWRITTEN_ALONE.get(learner, {}) if compared and kind == "rl" else {}
    return UNWRITTEN[""] | UNWRITTEN.get(learner, {}) | own


def continuous_settings(problem: AnyProblem, learner: str, settings: dict[str, Any], trust: float) -> dict[str, Any]:
    """A learner's settings, with the problem's ranges of the continuous quantities it is asked to learn.

    Raises:
        ValueError: the learner has options alone, or the problem has no such quantity; those that do are named.
    """
    names = tuple(settings.get("continuous", ()))
    if not names:
        return settings
    if learner != "imappo":
        raise ValueError(f"{learner} proposes options alone; imappo has continuous heads (continuous = {names})")
    known = problem.card.levels
    for name in names:
        if name not in known:
            has = ", ".join(known) or "none"
            raise ValueError(f"{problem.card.name} has no continuous quantity {name!r} as it is set; it has: {has}")
    return {"ranges": tuple(known[n] for n in names), "trust": trust} | settings


def learner_settings(problem: AnyProblem, config: TrainConfig) -> dict[str, Any]:
    """Every setting of the learner that a run trains: its config's defaults, those of its kind, the run's own.

    Raises:
        ValueError: a setting out of range, or continuous quantities that cannot be learned.
    """
    given = dict(config.settings)
    if config.rate_schedule != "linear":
        given = {"schedule": config.rate_schedule} | given
    trust = config.trust if config.kind == "hybrid" else 0.0
    own = continuous_settings(problem, config.learner, settings_for(config.learner, config.kind) | given, trust)
    return resolved(config.learner, own)
