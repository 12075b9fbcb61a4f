"""A search over a learner's settings: Optuna proposes, checks on tuning seeds judge, and what lags is pruned.

Every trial is a training run with a record of its own, as a comparison's runs have them, so MLflow gets each with its
metrics by step. The study itself is a file beside them, so that a search that was killed goes on:

    <out>/comparison.json, trial<k>-seed0.jsonl    the record
    <out>/study.db, prices.json, best.json         Optuna's study; the game's tuned prices; the best settings so far

Seeds: training runs of seed 0, judged on the checks of :class:`~hybridalloc.training.config.TrainConfig`, whose worlds
are tuning seeds. The reporting seeds are never seen.

Source: Akiba et al. (2019), "Optuna", KDD; trials are proposed by its TPE and pruned below the median of the others.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from games.extras import required
from hybridalloc.data.registry import digest_of
from hybridalloc.errors import CheckpointError, PlaceError, nearest
from hybridalloc.experiments import tracking
from hybridalloc.experiments.jobs import whole_json
from hybridalloc.experiments.runlog import COMPARISON_FILE
from hybridalloc.files import write_text
from hybridalloc.limits import Limit, check, check_fields, check_names
from hybridalloc.places import check_folder, locked
from hybridalloc.problems.contract import AnyProblem, Prices
from hybridalloc.saved import saved_prices
from hybridalloc.training.config import BELIEF_STEPS, TrainConfig, first_trust
from hybridalloc.training.learners import learner_settings
from hybridalloc.training.trainer import train
from hybridalloc.training.tuning import tune_game

Range = tuple[float, float, bool]  # lowest, highest, whether on a logarithmic scale; whole where both ends are int
SPACE: dict[str, Range] = {
    "rate": (1e-4, 1e-2, True), "entropy": (1e-4, 5e-2, True), "gamma": (0.0, 0.99, False), "gae": (0.0, 0.98, False),
    "epochs": (1, 8, False), "minibatches": (1, 8, False), "clip": (0.05, 0.4, False), "limit": (2.0, 40.0, True),
    "target": (1e-3, 1e-1, True), "batch": (64, 1024, True),
}  # fmt: skip
METHOD, PRICES, BEST, STUDY, LOCK = "trial{}", "prices.json", "best.json", "study.db", ".study.lock"
DEFAULT = "default"  # mark of the trial of the learner's defaults


@dataclass(frozen=True)
class Search:
    """What is asked for.

    Attributes:
        learner, kind: as of a training run. trials: in all, those of earlier tries included. agent_steps: of each.
        names: of the settings that are searched, default those of SPACE that the learner has.
        tuning: trials of the price search before, for the hybrid and for a learner alone the same.

    Raises:
        UnknownNameError: no such learner or kind. ValueError: a number out of its range.
    """

    learner: str = "imappo"
    kind: str = "hybrid"
    trials: int = 30
    agent_steps: int = 500_000
    names: tuple[str, ...] = ()
    tuning: int = 40
    seed: int = 0

    def __post_init__(self) -> None:
        check_fields(self)
        check("seed", self.seed, Limit(0, 2**32 - 1))  # Optuna's sampler takes no more
        check_names("names", self.names)
        TrainConfig(self.learner, self.kind)


class Found(NamedTuple):
    """The best settings and what they earned; what the defaults did; trials that ended, and those of them pruned."""

    settings: dict[str, Any]
    value: float
    default: float
    trials: int
    pruned: int


def space_of(problem: AnyProblem, search: Search) -> dict[str, Range]:
    """What is searched.

    Raises:
        UnknownNameError: a setting that the learner has not or that nobody gave a range.
    """
    has = learner_settings(problem, TrainConfig(search.learner, search.kind))
    known = {name: bounds for name, bounds in SPACE.items() if type(has.get(name)) in (int, float)}
    for name in search.names:
        if name not in known:
            raise nearest(f"setting of {search.learner}", name, known)
    return {name: bounds for name, bounds in known.items() if not search.names or name in search.names}


def tune(
    problem: AnyProblem, search: Search, out: str | Path, tracking_uri: str = tracking.DEFAULT_URI,
    report: Callable[[int, float | None, float], None] | None = None,
) -> Found:  # fmt: skip
    """Search, or go on with a search that was stopped.

    The first trial is that of the learner's defaults, so that what is found is never worse on these seeds.

    Args:
        out: its folder. report: called after each trial with its number, its value (None: pruned) and the best.

    Raises:
        ImportError: Optuna is not installed. UnknownNameError: see :func:`space_of`. PlaceError: the folder cannot be
            written or another search works in it. CheckpointError: it holds a search of another problem or learner.
    """
    optuna, space = required("optuna"), space_of(problem, search)
    if tracking_uri:
        tracking.check_store(tracking_uri)
    problem.reset(0)  # data that is missing is missed here
    folder = check_folder("--out", out).resolve()
    with locked(folder / LOCK) as ours:
        if not ours:
            raise PlaceError(f"--out {out} is being worked on by another search; wait for it, or give another")
        _record(folder, problem, search)
        prices = _prices(folder, problem, search)
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        direction = "maximize" if problem.card.aim.sign > 0 else "minimize"
        study = optuna.create_study(
            storage=f"sqlite:///{folder / STUDY}", study_name="study", direction=direction, load_if_exists=True,
            sampler=optuna.samplers.TPESampler(seed=search.seed), pruner=optuna.pruners.MedianPruner(n_warmup_steps=1),
        )  # fmt: skip
        _again(optuna, study, space, problem, search)
        store = tracking.Opening(folder, tracking_uri) if tracking_uri else None

        def objective(trial: Any) -> float:
            chosen = {name: _suggest(trial, name, bounds) for name, bounds in space.items()}
            return _trial(optuna, trial, problem, prices, search, chosen, folder)

        def told(study: Any, trial: Any) -> None:
            best = _found(optuna, study)
            if best is not None:
                write_text(folder / BEST, json.dumps(best._asdict(), indent=1) + "\n")
                if report is not None:
                    report(trial.number, trial.value if trial.state.name == "COMPLETE" else None, best.value)

        left = search.trials - sum(t.state.is_finished() and t.state.name != "FAIL" for t in study.trials)
        if left > 0:
            study.optimize(objective, n_trials=left, callbacks=[told])
        if store is not None:
            store.mirror()
        found = _found(optuna, study)
    assert found is not None  # the defaults' trial is never pruned
    return found


def _record(folder: Path, problem: AnyProblem, search: Search) -> None:
    """The search's record: written once, and the same at every later try."""
    asked = {"learner": search.learner, "kind": search.kind, "agent_steps": search.agent_steps}
    if (folder / COMPARISON_FILE).is_file():
        kept = tracking.read_comparison(folder)
        for name, value in ({"scenario": problem.describe()} | asked).items():
            ours = json.loads(json.dumps(value, default=str))
            held = kept.get(name) if name == "scenario" else (kept.get("settings") or {}).get(name)
            if held != ours:
                raise CheckpointError(f"{folder} holds a search whose {name} is another; give another --out")
        return
    tracking.write_comparison(
        folder, problem=problem.card.name, scenario=problem.describe(), methods=[METHOD.format(0)],
        seeds={"train": [search.seed]}, budget={"agent_steps": search.agent_steps},
        data_digest=digest_of(problem.card.datasets),
        datasets=problem.card.datasets, tags=dict(problem.card.tags) | {"study": search.learner}, settings=asked,
    )  # fmt: skip


def _belief(problem: AnyProblem) -> str:
    return next((name for name, belief in problem.card.beliefs.items() if belief.learns), "")


def _prices(folder: Path, problem: AnyProblem, search: Search) -> Prices:
    """The game's prices, tuned once a search."""
    kept = whole_json(folder / PRICES)
    if not isinstance(kept, dict):
        watched = min(BELIEF_STEPS, search.agent_steps)
        kept = tune_game(problem, _belief(problem), search.tuning, belief_steps=watched).prices._asdict()
        write_text(folder / PRICES, json.dumps(kept, indent=1) + "\n")
    return saved_prices(problem, kept)


def _again(optuna: Any, study: Any, space: Mapping[str, Range], problem: AnyProblem, search: Search) -> None:
    """Trials that a killed try left half-way are run again; the first of all is that of the defaults."""
    states = optuna.trial.TrialState
    for trial in study.get_trials(states=(states.RUNNING,)):
        study.tell(trial.number, state=states.FAIL)
    asked = lambda trial: trial.params or trial.system_attrs.get("fixed_params")
    for trial in study.get_trials(states=(states.FAIL,)):
        if not any(later.number > trial.number and asked(later) == trial.params for later in study.trials):
            study.enqueue_trial(trial.params, user_attrs=trial.user_attrs)
    if not study.trials:
        has = learner_settings(problem, TrainConfig(search.learner, search.kind))
        inside = {name: min(max(has[name], low), high) for name, (low, high, _) in space.items()}
        study.enqueue_trial(inside, user_attrs={DEFAULT: True})


def _suggest(trial: Any, name: str, bounds: Range) -> float | int:
    low, high, logarithmic = bounds
    if isinstance(low, int):
        return int(trial.suggest_int(name, low, high, log=logarithmic))
    return float(trial.suggest_float(name, low, high, log=logarithmic))


def _trial(
    optuna: Any, trial: Any, problem: AnyProblem, prices: Prices, search: Search, chosen: dict[str, Any], folder: Path
) -> float:
    """Train with the ``chosen`` settings; what the last check earned."""
    belief, check = _belief(problem), f"check_{problem.card.aim.key}"
    watched = min(BELIEF_STEPS, search.agent_steps)
    config = TrainConfig(
        search.learner, search.kind, search.agent_steps, trust=first_trust(problem.card, belief), belief=belief,
        belief_steps=watched, seed=search.seed, settings=tuple(chosen.items()),
    )  # fmt: skip
    checks: list[float] = []
    with tracking.RunLog(
        folder, METHOD.format(trial.number), search.seed, chosen, {"kind": search.kind}, resume=True
    ) as log:

        def report(steps: int, figures: dict[str, float]) -> None:
            log.metrics(steps, figures)
            if check in figures:
                checks.append(figures[check])
                trial.report(figures[check], len(checks))
                if DEFAULT not in trial.user_attrs and trial.should_prune():
                    raise optuna.TrialPruned

        try:
            train(problem, prices, config, report)
        except optuna.TrialPruned:
            log.end({problem.card.aim.key: checks[-1], "pruned": 1.0})
            raise
        if not checks:
            raise FloatingPointError(f"trial {trial.number}: no check earned anything; give more --agent-steps")
        log.end({problem.card.aim.key: checks[-1], "pruned": 0.0})
    return checks[-1]


def _found(optuna: Any, study: Any) -> Found | None:
    done = [t for t in study.trials if t.state == optuna.trial.TrialState.COMPLETE]
    default = next((float(t.value) for t in done if DEFAULT in t.user_attrs), None)
    if default is None:
        return None
    pruned = sum(t.state == optuna.trial.TrialState.PRUNED for t in study.trials)
    return Found(dict(study.best_params), float(study.best_value), default, len(done) + pruned, pruned)
