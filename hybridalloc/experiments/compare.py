"""Compare the hybrid with its parents and the field's heuristics: tune, train, evaluate, log, report.

One parent run a comparison, one child a method and seed. Training seeds x methods run in processes of their
own; each writes its JSON lines as it goes, and MLflow is brought up to date from them.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from coordinator import Coordinator
from hybridalloc.allocator import Allocator
from hybridalloc.data import registry as data
from hybridalloc.errors import CheckpointError, WorkError, nearest
from hybridalloc.experiments import tracking
from hybridalloc.experiments.jobs import (
    WORKERS_LOCK,
    Job,
    belief_done,
    belief_file,
    belief_job,
    follow,
    job_done,
    open_pool,
    run_job,
    tune_job,
    units,
    whole_json,
)
from hybridalloc.experiments.methods import RIVALS, method_of, rows_of
from hybridalloc.experiments.progress import Stage
from hybridalloc.experiments.runlog import plain, strict
from hybridalloc.files import write_text
from hybridalloc.places import check_file, check_folder, locked
from hybridalloc.problems import make_with, restore_problem
from hybridalloc.problems.beliefs import load_belief
from hybridalloc.problems.metrics import Metric
from hybridalloc.reports.statistics import paired_difference
from hybridalloc.text import printable, quoted
from hybridalloc.training.config import (
    BELIEF_STEPS,
    REPORT_SEEDS,
    REPORT_SLOTS,
    TRAIN_SEEDS,
    TUNE_SEEDS,
    WARMUP_SLOTS,
    TrainConfig,
)
from hybridalloc.training.evaluation import evaluate
from rl.registry import LEARNERS, learner_names

LOCK = ".comparison.lock"  # held while a comparison runs
LEAVE_S = 15.0  # workers of a killed comparison leave within two seconds, on a loaded machine a little later
MLFLOW_SLOW_S = 4.5  # what a slow or silent MLflow may cost at the end; `hybridalloc sync` brings the rest
SHOWN_SLOTS = 40  # of one network, in the report
COMMON = (
    Metric("oscillating", "agents that go back and forth", "%", "lower"),
    Metric("lazy", "agents whose choice does not respond", "%", "lower"),
    Metric("step_ms", "decision time, batched", "ms", "lower"),
)  # of every problem, beside its own


@dataclass(frozen=True)
class Settings:
    """A comparison.

    Attributes:
        problem: "mec". agents, servers, scenario: its size and set. sites: "eua" needs the EUA data, "synthetic"
            none. agent_steps: training budget of each learner, alone and in the hybrid alike. train_seeds: how
            many, from 0. report_seeds: how many held-out networks, from 10000. tuning: trials of the price search.
        learners: compared alone and in the hybrid. methods: rows of the table; default those of the learners.
            workers: processes; default the number of cores.
    """

    problem: str = "mec"
    agents: int = 50
    servers: int = 9
    scenario: str = "H"
    sites: str = "eua"
    agent_steps: int = 600_000
    train_seeds: int = 2
    report_seeds: int = 40
    tuning: int = 40
    learners: tuple[str, ...] = ("imappo", "dqn")
    methods: tuple[str, ...] = ()
    workers: int | None = None
    runs: str = "runs"
    report: str = "report.html"
    tracking_uri: str = tracking.DEFAULT_URI
    quiet: bool = False
    settings: tuple[tuple[str, Any], ...] = ()  # of a problem of one's own, by name


FULL = {"agent_steps": 2_000_000, "train_seeds": 5, "report_seeds": 100, "tuning": 150}


def problem_of(settings: Settings) -> Any:
    """The problem, with those of the flags that it has."""
    flags = {name: getattr(settings, name) for name in ("agents", "servers", "sites", "scenario")}
    return make_with(settings.problem, flags, dict(settings.settings))


def compare(settings: Settings, resume: str | Path | None = None, trust_code: bool = False) -> dict[str, Any]:
    """Run a comparison and write its record, table, report and MLflow runs.

    Args:
        resume: the folder of a stopped comparison, or one of such folders (the newest is taken): what ended is taken
            as it is, learners go on from their last checkpoints, and the table is that of a comparison that was never
            stopped. What ``settings`` leave at their defaults is taken from it.
        trust_code: load the transition that the stopped comparison names though it is no installed entry point.

    Returns:
        the comparison as :func:`~hybridalloc.reports.report.write_report` takes it, ``folder`` and ``tables`` added.

    Raises:
        UnknownNameError, DataError, ValueError, PlaceError: before anything is run.
        TrackingError, CheckpointError: nothing to go on with, it still runs, or it was asked for otherwise.
        WorkError: it stopped on the way; says why and how to go on.
    """
    if getattr(multiprocessing.current_process(), "_inheriting", False):  # multiprocessing's own mark of an import
        raise WorkError(UNGUARDED)
    if resume is None:
        problem, settings = _begin(settings)
    else:
        folder, record = _stopped(Path(resume))
        problem, settings = _go_on(folder, record, settings, trust_code)
    digest = data.digest("eua") if getattr(problem, "sites", "") == "eua" else "synthetic"
    check_file("--report", settings.report)
    if resume is None:
        place = check_folder("--runs", settings.runs)
        folder = place.resolve() / tracking.new_comparison_id(problem.name)
        record = _record(folder, problem, settings, digest)
    else:
        check_folder("--resume", folder)
        if record["data_digest"] != digest:
            raise CheckpointError(f"{folder} is of other data: {quoted(record['data_digest'])} there, {digest} here")
    with locked(folder / LOCK) as ours, _explained(folder):
        if not ours:
            raise tracking.TrackingError(f"{folder} is being worked on by another process; wait for it or end it")
        with locked(folder / WORKERS_LOCK, wait_s=LEAVE_S) as left:
            if not left:
                raise tracking.TrackingError(f"worker processes still write to {folder}; wait for them or end them")
        return _work(settings, problem, folder, record)


UNGUARDED = (
    "compare() starts processes that import the script which called it, and this one calls it again as it is imported: "
    'put the call under `if __name__ == "__main__":`'
)


def _begin(settings: Settings) -> tuple[Any, Settings]:
    """The problem of a new comparison, and its settings with the methods named; raises before anything is written."""
    _check_counts(settings)
    for name in settings.learners:
        if name not in LEARNERS:
            raise nearest("learner", name, LEARNERS)
    problem = problem_of(settings)
    _check_methods(problem, settings.methods)
    problem.reset(0)  # data that is missing is missed here
    return problem, replace(settings, methods=settings.methods or rows_of(problem, settings.learners))


def _check_counts(settings: Settings) -> None:
    limits = {
        "agent_steps": (1, 10**12), "train_seeds": (1, len(TRAIN_SEEDS)), "report_seeds": (1, len(REPORT_SEEDS)),
        "tuning": (0, 10**9), "workers": (1, 10_000),
    }  # fmt: skip
    for name, (low, high) in limits.items():
        value = getattr(settings, name)
        if name == "workers" and value is None:
            continue
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise ValueError(f"{name} = {quoted(value)}; it must be a whole number from {low} to {high:,}")


def _check_methods(problem: Any, methods: Sequence[str]) -> None:
    known = rows_of(problem, learner_names())
    for name in methods:
        if name not in known:
            raise nearest("method", name, known)


SAME = (
    "problem",
    "agents",
    "servers",
    "scenario",
    "sites",
    "agent_steps",
    "train_seeds",
    "report_seeds",
    "tuning",
    "methods",
    "settings",
)  # fmt: skip  (what must be the same for a comparison to go on)


def _stopped(path: Path) -> tuple[Path, dict[str, Any]]:
    """The folder of a stopped comparison (of the newest one in ``path``), and its record."""
    from hybridalloc.experiments.stored import _newest

    folder = (_newest(path) if path.is_dir() else path).resolve()
    record = tracking.read_comparison(folder)
    kept = record.get("settings")
    if not isinstance(kept, dict) or any(name not in kept for name in SAME):
        raise CheckpointError(f"{folder} does not say what was asked for, so it cannot go on; start afresh")
    return folder, record


def _go_on(folder: Path, record: dict[str, Any], asked: Settings, trust_code: bool) -> tuple[Any, Settings]:
    """Problem and settings of a stopped comparison.

    Raises:
        CheckpointError: what is asked for differs from what it was asked for, by name.
    """
    from hybridalloc.problems.custom.transitions import Unloaded

    kept, default = record["settings"], Settings()
    pairs = dict(settings_pairs(kept["settings"], folder))
    again = bool(asked.settings) and plain(dict(asked.settings)) == pairs  # given as it was, it is the user's word
    for name in SAME:
        value = getattr(asked, name)
        ours, theirs = (plain(dict(value)), pairs) if name == "settings" else (plain(value), kept[name])
        if value != getattr(default, name) and ours != theirs:
            raise _other(folder, name, theirs, ours)
    try:
        problem = restore_problem(record["scenario"], trust_code or again)
    except Exception as error:  # a forged one may say anything
        reason = printable(f"{type(error).__name__}: {error}", 300)
        raise CheckpointError(f"{folder} names no problem that this version can make ({reason})") from None
    if isinstance(getattr(problem, "transition", None), Unloaded):
        raise problem.transition.refuse()
    settings = replace(
        asked, **{name: kept[name] for name in SAME if name not in ("methods", "settings")},
        methods=tuple(map(str, kept["methods"])), settings=tuple(pairs.items()),
    )  # fmt: skip
    _check_counts(settings)
    _check_methods(problem, settings.methods)
    if asked.learners != default.learners and not asked.methods:
        rows = rows_of(problem, asked.learners)
        if rows != settings.methods:
            raise _other(folder, "methods", kept["methods"], list(rows))
    return problem, settings


def settings_pairs(found: Any, folder: Path) -> Iterator[tuple[str, Any]]:
    """A record's settings of a problem, by name."""
    if not isinstance(found, list) or not all(isinstance(p, list) and len(p) == 2 for p in found):
        raise CheckpointError(f"{folder}: settings = {quoted(found)}; pairs of name and value are required")
    return ((str(name), value) for name, value in found)


def _other(folder: Path, name: str, theirs: Any, ours: Any) -> CheckpointError:
    return CheckpointError(
        f"{folder} is of another comparison: {name} is {quoted(theirs)} there and {quoted(ours)} is asked for; leave "
        "that flag out, or start afresh without --resume"
    )


def _record(folder: Path, problem: Any, settings: Settings, digest: str) -> dict[str, Any]:
    seeds = {
        "train": list(TRAIN_SEEDS[: settings.train_seeds]),
        "report": list(REPORT_SEEDS[: settings.report_seeds]),
    }
    budget = {
        "agent_steps": settings.agent_steps, "tuning_trials": settings.tuning, "report_slots": REPORT_SLOTS,
        "warmup_slots": WARMUP_SLOTS,
    }  # fmt: skip
    return tracking.write_comparison(
        folder, problem=problem.name, scenario=problem.describe(), methods=settings.methods, seeds=seeds,
        budget=budget, data_digest=digest, settings={name: getattr(settings, name) for name in SAME},
    )  # fmt: skip


@contextmanager
def _explained(folder: Path) -> Iterator[None]:
    """What stops a comparison from outside, with what is kept and how to go on."""
    further = f"what was done is kept: `hybridalloc compare --resume {folder}` goes on"
    try:
        yield
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"interrupted; {further}") from None
    except BrokenProcessPool as error:
        main = sys.modules["__main__"]
        script = f" Or else: {UNGUARDED}." if getattr(main, "__file__", None) and main.__spec__ is None else ""
        raise WorkError(
            f"a worker process ended without an answer: killed, perhaps for want of memory (then give fewer --workers);"
            f" {further}.{script}"
        ) from error
    except OSError as error:
        raise WorkError(f"{error}; {further}") from error


def _work(settings: Settings, problem: Any, folder: Path, record: dict[str, Any]) -> dict[str, Any]:
    """All that a comparison computes and writes, less what is in its folder already."""
    began = time.time()
    opener = threading.Thread(target=_open_store, args=(folder, settings.tracking_uri), daemon=True)
    opener.start()  # MLflow's first contact with a new store takes seconds: meanwhile we work
    prices = _tune(problem, settings, folder)
    counts = _learn_beliefs(problem, settings, folder, prices)
    jobs = _jobs(settings, folder, problem, prices, record)
    values, curves, executed = _run(jobs, settings)
    counts = {name: counts[name] + executed[name] for name in counts}
    comparison = _assemble(settings, problem, record, values, curves)
    comparison["levels"] = _levels(problem, prices, folder)
    notes = []
    here = tracking.git_commit()
    if here != record["git_commit"]:
        notes.append(f"Begun with version {str(record['git_commit'])[:16]}, ended with {here[:16]}.")
    try:
        comparison |= _snapshots(problem, folder, settings.methods)
    except Exception as error:  # a problem of someone's own: hours of results do not hang on two pictures
        notes.append(f"Without map and allocation over time ({type(error).__name__}: {error}).")
    if notes:
        comparison["note"] = " ".join(notes)
    comparison["counts"] = counts
    comparison["seconds"] = round(time.time() - began, 1)
    comparison["folder"] = str(folder)
    _publish(comparison, settings, folder, opener)
    return comparison


def _open_store(folder: Path, uri: str) -> None:
    import warnings

    with warnings.catch_warnings(), suppress(tracking.TrackingError, OSError):
        warnings.simplefilter("ignore")  # the mirror at the end says what is missing
        tracking.mirror(folder, uri, only=(), slow_s=MLFLOW_SLOW_S)


def _tune(problem: Any, settings: Settings, folder: Path) -> dict[str, Any]:
    """Prices of each game by what it believes; the tuned ones serve every method with that belief."""
    default = problem.card.prices()
    prices = {"toll 0": default._replace(toll=0.0), "toll 1": default._replace(toll=1.0)}
    beliefs = list(dict.fromkeys(method_of(name, problem).belief for name in settings.methods))
    path = folder / "tuning.json"
    record = _tuned_before(path, default)
    todo = [belief for belief in beliefs if (belief or "reports") not in record]
    if todo:
        bar = Stage("tuning prices", settings.tuning * len(todo), "trial", settings.quiet)
        with open_pool(min(settings.workers or os.cpu_count() or 1, len(todo))) as (pool, queue):
            waiting = [
                pool.submit(tune_job, problem.describe(), belief, settings.tuning, _watched(settings))
                for belief in todo
            ]
            with _following(queue, bar):
                for belief, future in zip(todo, waiting, strict=True):
                    record[belief or "reports"] = future.result()
                    write_text(path, json.dumps(record, indent=1))
    return prices | {belief: problem.card.prices(**record[belief or "reports"]["best"]) for belief in beliefs}


def _tuned_before(path: Path, default: Any) -> dict[str, Any]:
    """What an earlier try of the comparison tuned, by belief; what is not whole is tuned again."""
    found = whole_json(path)
    return {
        belief: tuned
        for belief, tuned in (found.items() if isinstance(found, dict) else ())
        if isinstance(tuned, dict)
        and isinstance(tuned.get("best"), dict)
        and set(tuned["best"]) == set(default._fields)
        and all(type(value) in (int, float) for value in tuned["best"].values())
    }


@contextmanager
def _following(queue: Any, bar: Stage) -> Iterator[None]:
    stop = follow(queue, bar)
    try:
        yield
    finally:
        stop()


def _watched(settings: Settings) -> int:
    """Agent-steps that a belief watches before anything builds on it; in a small trial no more than the training's."""
    return min(BELIEF_STEPS, settings.agent_steps)


def _learn_beliefs(problem: Any, settings: Settings, folder: Path, prices: dict[str, Any]) -> dict[str, int]:
    """A belief for each training seed, under the tuned prices; every method of that seed goes on from it."""
    counts = {"allocations": 0, "violations": 0}
    kinds = {method_of(name, problem).belief for name in settings.methods} - {""}
    if not kinds:
        return counts
    steps = _watched(settings)
    todo = []
    for kind, seed in [(kind, seed) for kind in sorted(kinds) for seed in range(settings.train_seeds)]:
        done = belief_done(belief_file(folder, kind, seed))
        if done is None:
            todo.append((kind, seed))
        else:
            counts = {"allocations": counts["allocations"] + done[0], "violations": counts["violations"] + done[1]}
    if not todo:
        return counts
    with open_pool(min(settings.workers or os.cpu_count() or 1, len(todo))) as (pool, _):
        waiting = [
            pool.submit(
                belief_job, problem.describe(), prices[k]._asdict(), k, seed, belief_file(folder, k, seed), steps
            )
            for k, seed in todo
        ]
        with Stage("learning beliefs", len(todo), "belief", settings.quiet) as bar:
            for future in as_completed(waiting):
                allocations, violations = future.result()
                counts["allocations"] += allocations
                counts["violations"] += violations
                bar.update()
    return counts


def _jobs(settings: Settings, folder: Path, problem: Any, prices: dict[str, Any], record: dict[str, Any]) -> list[Job]:
    tags = {
        "scenario": settings.scenario, "sites": settings.sites, "git_commit": str(record["git_commit"]),
        "data_digest": str(record["data_digest"]),
    }  # fmt: skip
    jobs = []
    for name in settings.methods:
        method = method_of(name, problem)
        charged = prices[method.belief if method.prices == "tuned" else method.prices]._asdict()
        for seed in range(settings.train_seeds) if method.learner or method.belief == "learned" else (0,):
            belief = belief_file(folder, method.belief, seed) if method.belief else ""
            jobs.append(
                Job(
                    str(folder), name, seed, problem.describe(), charged, belief, settings.agent_steps,
                    settings.report_seeds, tags | {"kind": method.kind, "belief": method.belief or "reports"},
                )
            )  # fmt: skip
    return sorted(jobs, key=lambda job: method_of(job.method).learner is None)  # the long ones first


def _run(jobs: Sequence[Job], settings: Settings) -> tuple[dict[str, Any], dict[str, Any], dict[str, int]]:
    """Run all jobs that have not ended; values[method][metric] = [T][V], curves[method] = rows a seed, counts of what
    was executed."""
    values: dict[str, dict[str, dict[int, list[float]]]] = {}
    curves: dict[str, dict[int, list[dict[str, float]]]] = {}
    counts = {"allocations": 0, "violations": 0}

    def take(job: Job, result: dict[str, Any]) -> None:
        for metric, row in result["metrics"].items():
            values.setdefault(job.method, {}).setdefault(metric, {})[job.seed] = row
        curves.setdefault(job.method, {})[job.seed] = result["curve"]
        for name in counts:
            counts[name] += result[name]

    todo = []
    for job in jobs:
        done = job_done(job)
        if done is None:
            todo.append(job)
        else:
            take(job, done)
    if todo:
        bar = Stage("training and evaluating", sum(map(units, todo)), "step", settings.quiet)
        with (
            open_pool(min(settings.workers or os.cpu_count() or 1, len(todo))) as (pool, queue),
            _following(queue, bar),
        ):
            waiting = {pool.submit(run_job, job): job for job in todo}
            for future in as_completed(waiting):  # an error ends all: no sense in minutes more for a table with a hole
                take(waiting[future], _result(future, waiting[future]))
    ordered = {m: {k: [rows[s] for s in sorted(rows)] for k, rows in v.items()} for m, v in values.items()}
    return ordered, {m: [rows[s] for s in sorted(rows)] for m, rows in curves.items()}, counts


def _result(future: Any, job: Job) -> dict[str, Any]:
    try:
        return dict(future.result())
    except (BrokenProcessPool, OSError):
        raise
    except Exception as error:
        raise WorkError(
            f"{job.method}, seed {job.seed}: {type(error).__name__}: {error}; record in {job.directory}, with which "
            f"`hybridalloc compare --resume {job.directory}` goes on"
        ) from error


def _assemble(
    settings: Settings, problem: Any, record: dict[str, Any], values: dict[str, Any], curves: dict[str, Any]
) -> dict[str, Any]:
    told = set.intersection(*(set(values[name]) for name in settings.methods))
    metrics = [m._asdict() for m in (*problem.card.metrics, *COMMON) if m.key in told]
    methods = [
        {"key": name, "label": method_of(name).label, "kind": method_of(name).kind, "values": values[name]}
        for name in settings.methods
    ]
    drawn = [
        {
            "method": name,
            "steps": [row["agent_steps"] for row in curves[name][0]],
            "values": [[row.get("check_welfare") for row in seed] for seed in curves[name]],  # None: of nothing
        }
        for name in settings.methods
        if method_of(name).learner
    ]
    differences = []
    for key in ("welfare", "completion"):
        for name in (m for m in settings.methods if method_of(m).kind == "hybrid" and method_of(m).learner):
            alone = name.replace("hybrid-", "rl-")
            for other in (alone, *(r for r in RIVALS if r not in (name, alone))):
                if other in values:
                    d = paired_difference(values[name][key], values[other][key])
                    differences.append(strict({
                        "label": f"{method_of(name).label} - {method_of(other).label}", "metric": key, "mean": d.mean,
                        "low": d.low, "high": d.high, "conservative": d.conservative, "pairs": d.pairs,
                        "of": d.training_seeds * d.evaluation_seeds,
                    }))  # fmt: skip
    return {
        "title": f"{settings.problem}{_set_of(problem)}: hybrid against its parents",
        "problem": f"{settings.problem}, {problem.agents} agents, {problem.servers} servers{_sites_of(problem)}",
        "scenario": _readable(record["scenario"]), "budget": record["budget"], "git_commit": record["git_commit"],
        "data_digest": record["data_digest"], "seeds": record["seeds"], "metrics": metrics, "methods": methods,
        "curves": drawn, "levels": [], "differences": differences,
    }  # fmt: skip


def _set_of(problem: Any) -> str:
    name = getattr(problem.scenario, "name", None)
    return f", set {name}" if name else ""


def _sites_of(problem: Any) -> str:
    return f", {problem.sites} sites" if hasattr(problem, "sites") else ""


def _readable(scenario: dict[str, Any]) -> dict[str, Any]:
    """The problem's description in one flat line a setting, for the report's head."""
    if "scenario" not in scenario:  # a problem of someone's own: what is short enough to read
        return {key: value for key, value in scenario.items() if isinstance(value, str | int | float)}
    flat: dict[str, Any] = {}
    for key, value in scenario["scenario"].items():
        pair = isinstance(value, list)
        flat[key] = (" to " if len(value) == 2 else ", ").join(f"{v:g}" for v in value) if pair else value
    switches = scenario["dynamics"]
    on = [name.replace("_", " ") for name, value in switches.items() if value]
    return flat | {"dynamics on": ", ".join(on) or "none"}


def _levels(problem: Any, prices: dict[str, Any], folder: Path) -> list[dict[str, Any]]:
    """Welfare of what learns no prior, on the seeds and slots of the learning curves."""
    config = TrainConfig()
    seeds = TUNE_SEEDS[: config.check_seeds]
    rows = []
    games = [("game, learned beliefs", "learned", None), ("game, tuned", "", None), ("game, toll 1", "toll 1", None)]
    rest = [name for name in ("nearest", "random") if name in problem.card.baselines] or list(
        problem.card.baselines[-2:]
    )
    for label, key, baseline in games + [(method_of(name, problem).label, "", name) for name in rest]:
        if key in prices:
            belief = load_belief(problem, belief_file(folder, key, 0)).copy(False) if key == "learned" else None
            seen = evaluate(
                problem, prices[key], Coordinator("game"), None, seeds, baseline, slots=config.check_slots,
                belief=belief,
            )  # fmt: skip
            if "welfare" in seen.means():
                rows.append({"label": label, "value": seen.means()["welfare"]})
    return rows


def _snapshots(problem: Any, folder: Path, methods: Sequence[str]) -> dict[str, Any]:
    """The first method on the first reporting network: agents by option in each slot and, where a problem has places,
    who is served where in the twentieth."""
    best = next((m for m in methods if method_of(m, problem).kind != "heuristic"), methods[0])
    allocator = Allocator.load(folder / f"{best}-seed0" / "allocator.npz", problem=problem)
    state, rows, shown = problem.reset(REPORT_SEEDS[0]), [], None
    label = f"{method_of(best, problem).label}, network {REPORT_SEEDS[0]}"
    for slot in range(SHOWN_SLOTS):
        allocation = allocator.step(state)
        active = np.asarray(getattr(state, "active", np.ones(len(allocation.option), bool)))
        chosen = np.bincount(allocation.option[active], minlength=allocation.log_prior.shape[1])
        rows.append([*chosen[1:].tolist(), int(chosen[0]), int((~active).sum())])
        if slot == 19 and hasattr(getattr(state, "truth", None), "site"):
            shown = {
                "stations": state.truth.site.tolist(), "devices": state.truth.position.tolist(),
                "option": allocation.option.tolist(), "active": state.active.tolist(), "label": f"{label}, slot {slot}",
            }  # fmt: skip
        state, _ = problem.advance(state, allocation, seed=slot)
    named = getattr(problem, "option_name", None)
    options = [named(o) if named else f"station {o}" for o in range(1, len(rows[0]) - 1)]
    over_time = {"counts": rows, "options": [*options, "opted out", "idle"], "label": label}
    return {"map": shown, "over_time": over_time}


def _publish(comparison: dict[str, Any], settings: Settings, folder: Path, opener: threading.Thread) -> None:
    from hybridalloc.reports.pictures import write_pictures
    from hybridalloc.reports.report import markdown_table, text_table, write_report

    write_text(folder / "results.json", json.dumps(strict(comparison), allow_nan=False))
    write_text(folder / "table.md", markdown_table(comparison) + "\n")
    write_pictures(folder / "figures", comparison)
    inside = write_report(folder / "report.html", comparison)
    failed = _copy_report(inside, settings.report)
    comparison["tables"] = {"text": text_table(comparison), "markdown": markdown_table(comparison)}
    if _opened(opener, settings.tracking_uri):
        mirrored = tracking.mirror(folder, settings.tracking_uri, stall_s=MLFLOW_SLOW_S, slow_s=MLFLOW_SLOW_S)
    else:  # two at once would make its runs twice
        mirrored = tracking.left_out(folder, "MLflow has not answered yet")
    comparison["mirror"] = str(mirrored)
    comparison["open"] = tracking.how_to_open(settings.tracking_uri, mirrored.experiment_id)
    if failed:
        raise WorkError(failed)


def _copy_report(inside: Path, path: str) -> str:
    """Copy the report where it was asked for; "", or why not and where it is."""
    try:
        write_text(path, inside.read_text(encoding="utf-8"))
    except OSError as error:  # it could be written when the comparison began
        return f"--report {path} cannot be written ({error.strerror}); all else is done, and the report is {inside}"
    return ""


def _opened(opener: threading.Thread, uri: str) -> bool:
    """Wait for the first contact: while it works, not while it only waits for a store that does not answer."""
    waits = 0  # seconds in which nobody in this process worked
    for _ in range(30 if uri.startswith("sqlite:") else 3):  # a new file's tables: half a minute on a loaded machine
        worked = time.process_time()
        opener.join(1.0)
        waits = 0 if time.process_time() - worked > 0.02 else waits + 1
        if not opener.is_alive() or waits >= MLFLOW_SLOW_S:
            break
    return not opener.is_alive()


def summary_lines(comparison: dict[str, Any]) -> list[str]:
    """What was executed and counted, a line each, for the terminal."""
    counts = comparison["counts"]
    return [
        f"executed allocations, training included: {counts['allocations']:,}; violations of capacity or power, by "
        f"the certificate's count: {counts['violations']}",
        f"took {comparison['seconds']:.0f} s",
    ]
