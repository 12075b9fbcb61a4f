"""The settings that a run's learner has, by kind and problem, and those of runs that were written without them."""

from __future__ import annotations

from typing import Any

from hybridalloc.problems.contract import AnyProblem
from hybridalloc.training.config import TrainConfig
from rl.registry import learner_names, resolved, settings_for

DEFAULTS = 6  # which of the learners' defaults a comparison began with; a record that does not say had the first
TUNED_ALONE = 2  # since when a learner alone has prices of its own
# where a game decides levels alone: an untrained value of what comes next swamps what a level changes now
ON_LEVELS: dict[str, Any] = {"gamma": 0.0}  # of every learner
OF_LEVELS: dict[str, Any] = {"rate": 1e-3, "entropy": 0.0, "epochs": 4, "gae": 0.0}
LEVELS_ALONE = dict.fromkeys(("imappo", "mappo", "ippo"), OF_LEVELS) | {"maddpg": {}}  # who learns levels themselves
UNWRITTEN: dict[int, dict[str, dict[str, Any]]] = {
    1: {
        "": {"limit": 10.0},
        "imappo": {"gamma": 0.9, "gae": 0.9, "epochs": 4, "minibatches": 4, "rate": 3e-3, "entropy": 2e-3},
    },
    2: {"imappo": {"critic": "central"}},
    3: {name: {"span": 0.0} for name in ("dqn", "iql", "vdn", "qmix")},
    4: {name: {"gamma": 0.9} for name in learner_names() if name not in LEVELS_ALONE},
    5: {},  # but for :data:`SHORT`
}  # what each of them had otherwise than the next: every learner's, then one's own
UNWRITTEN_ALONE: dict[str, dict[str, Any]] = {"imappo": {"gae": 0.6}}  # of the first, in a comparison
EVENTS: dict[str, dict[str, Any]] = {"dqn": {"horizon": 8, "rate": 3e-3, "span": 0.2}}
# Where decisions are many in a unit of time: what one of them changes is little beside the noise of its return.
LATE: dict[str, dict[str, Any]] = {"dqn": {"updates": 8}}  # and agents stay, so that it shows some decisions later
# Of who learns alone by a clipped ratio there: an update moves a probability by a fifth at the most, so that many are
# needed, each after few decisions, which are gone through again as they are weak evidence; and the critic's next value
# has less noise than a long return, if it begins with none of its own.
CLIPPED: dict[str, Any] = {
    "horizon": 2, "replay": 8, "epochs": 4, "minibatches": 4, "rate": 1e-2, "gamma": 0.9, "gae": 0.5, "entropy": 8e-3,
    "critic_gain": 0.0,
}  # fmt: skip
LATE_ALONE = dict.fromkeys(("imappo", "mappo", "ippo"), CLIPPED)
CLIPPED_SINCE = 5  # of DEFAULTS
# Who learns alone by a clipped ratio where all decide in every slot: a rollout is no longer than leaves so many updates
# within the budget, and no shorter than two slots, in which too little is seen.
SHORT, LEAST_UPDATES, LEAST_HORIZON = ("imappo", "mappo", "ippo"), 40, 2
SHORT_SINCE = 6  # of DEFAULTS
AHEAD: dict[str, dict[str, Any]] = {"imappo": {"horizon": 8, "minibatches": 4}}  # one update behind is a little behind


def unwritten(
    learner: str, kind: str = "hybrid", compared: bool = False, defaults: int = 1, problem: AnyProblem | None = None
) -> dict[str, Any]:
    """Settings of a run whose files say only which ``defaults`` held, ``compared`` where a comparison made it.

    Args:
        problem: what is learned, where settings of its kind are to be told too.
    """
    found: dict[str, Any] = {}
    for version in range(max(defaults, 1), DEFAULTS):
        found = UNWRITTEN[version].get("", {}) | UNWRITTEN[version].get(learner, {}) | found
    if problem is not None and defaults < CLIPPED_SINCE and (late := _late_alone(problem, learner, kind)):
        then = resolved(learner, settings_for(learner, kind))
        found = {name: then[name] for name in late} | found
    if problem is not None and defaults < SHORT_SINCE and _shortened(problem, learner, kind):
        found = {"horizon": resolved(learner, settings_for(learner, kind))["horizon"]} | found
    return found | (UNWRITTEN_ALONE.get(learner, {}) if compared and kind == "rl" and defaults < 2 else {})


def _late_alone(problem: AnyProblem, learner: str, kind: str) -> dict[str, Any]:
    """What is a clipped learner's own where it learns alone, decisions are many and agents stay; else nothing."""
    there = kind == "rl" and problem.card.events and not problem.card.fleeting
    return LATE_ALONE.get(learner, {}) if there else {}


def _shortened(problem: AnyProblem, learner: str, kind: str) -> bool:
    """Whether a learner's rollouts are as short as its budget asks for."""
    return kind == "rl" and learner in SHORT and not problem.card.events and problem.card.decides == "options"


def _horizon(problem: AnyProblem, config: TrainConfig, usual: int) -> int:
    """Slots a rollout, ``usual`` or as few as :data:`LEAST_UPDATES` ask for."""
    slots = config.extent_on(problem.card)[1]
    return min(usual, max(-(-slots // LEAST_UPDATES), LEAST_HORIZON))


def continuous_settings(problem: AnyProblem, learner: str, settings: dict[str, Any], trust: float) -> dict[str, Any]:
    """A learner's settings, with the problem's ranges of the continuous quantities it is asked to learn.

    Raises:
        ValueError: the learner has options alone, or the problem has no such quantity; those that do are named.
    """
    names = tuple(settings.get("continuous", ()))
    if not names:
        return settings
    decided = problem.card.decides == "levels"
    if learner != "imappo" and not (decided and learner in LEVELS_ALONE):
        also = f", and where levels are all that is decided {', '.join(list(LEVELS_ALONE)[1:])} too"
        raise ValueError(f"{learner} proposes options alone; imappo has continuous heads (continuous = {names}){also}")
    known = problem.card.levels
    for name in names:
        if name not in known:
            has = ", ".join(known) or "none"
            raise ValueError(f"{problem.card.name} has no continuous quantity {name!r} as it is set; it has: {has}")
    alone = {"alone": True} if decided else {}
    return {"ranges": tuple(known[n] for n in names), "trust": trust} | alone | settings


def learner_settings(problem: AnyProblem, config: TrainConfig) -> dict[str, Any]:
    """Every setting of the learner that a run trains: its config's defaults, those of its kind, the run's own.

    Raises:
        ValueError: a setting out of range, or continuous quantities that cannot be learned.
    """
    given = dict(config.settings)
    if config.rate_schedule != "linear":
        given = {"schedule": config.rate_schedule} | given
    trust = config.trust if config.kind == "hybrid" else 0.0
    usual = settings_for(config.learner, config.kind)
    if problem.card.decides == "levels":
        usual = usual | ON_LEVELS
        if config.learner in LEVELS_ALONE:
            usual = usual | {"continuous": tuple(problem.card.levels)} | LEVELS_ALONE[config.learner]
    if problem.card.events:
        usual = usual | EVENTS.get(config.learner, {})
        usual = usual if problem.card.fleeting else usual | LATE.get(config.learner, {})
        usual = usual | _late_alone(problem, config.learner, config.kind)
    if _shortened(problem, config.learner, config.kind):
        usual = usual | {"horizon": _horizon(problem, config, resolved(config.learner, usual)["horizon"])}
    if config.overlap:
        usual = usual | AHEAD.get(config.learner, {})
    own = continuous_settings(problem, config.learner, usual | given, trust)
    return resolved(config.learner, own)
