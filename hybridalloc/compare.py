"""Compare the hybrid with its parents and the field's heuristics: tune, train, evaluate, log, report.

One parent run a comparison, one child a method and seed. Training seeds x methods run in processes of their
own; each writes its JSON lines as it goes, and MLflow is brought up to date from them.
"""

from __future__ import annotations

import json
import os
import shutil
import threading
import time
from collections.abc import Sequence
from concurrent.futures import as_completed
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from coordinator import Coordinator
from hybridalloc import data, tracking
from hybridalloc.allocator import Allocator
from hybridalloc.beliefs import load_belief
from hybridalloc.errors import nearest
from hybridalloc.files import write_text
from hybridalloc.jobs import Job, belief_file, belief_job, follow, open_pool, run_job, tune_job, units
from hybridalloc.methods import RIVALS, method_of, rows_of
from hybridalloc.problems import make_with
from hybridalloc.problems.base import Metric
from hybridalloc.progress import Stage
from hybridalloc.runlog import strict
from hybridalloc.statistics import paired_difference
from hybridalloc.training import (
    BELIEF_STEPS,
    LEARNERS,
    REPORT_SEEDS,
    REPORT_SLOTS,
    TRAIN_SEEDS,
    TUNE_SEEDS,
    WARMUP_SLOTS,
    TrainConfig,
    evaluate,
)

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


def compare(settings: Settings) -> dict[str, Any]:
    """Run a comparison and write its record, table, report and MLflow runs.

    Returns:
        the comparison as :func:`hybridalloc.report.write_report` takes it, with ``folder`` and ``tables`` added.

    Raises:
        UnknownNameError, DataError: before anything is run or written.
    """
    for name in settings.learners:
        if name not in LEARNERS:
            raise nearest("learner", name, LEARNERS)
    problem = problem_of(settings)
    known = rows_of(problem, tuple(LEARNERS))
    for name in settings.methods:
        if name not in known:
            raise nearest("method", name, known)
    settings = replace(settings, methods=settings.methods or rows_of(problem, settings.learners))
    problem.reset(0)  # data that is missing is missed here
    digest = data.digest("eua") if getattr(problem, "sites", "") == "eua" else "synthetic"
    began = time.time()
    folder = Path(settings.runs).resolve() / tracking.new_comparison_id(problem.name)
    seeds = {
        "train": list(TRAIN_SEEDS[: settings.train_seeds]),
        "report": list(REPORT_SEEDS[: settings.report_seeds]),
    }
    budget = {
        "agent_steps": settings.agent_steps, "tuning_trials": settings.tuning, "report_slots": REPORT_SLOTS,
        "warmup_slots": WARMUP_SLOTS,
    }  # fmt: skip
    record = tracking.write_comparison(
        folder, problem=problem.name, scenario=problem.describe(), methods=settings.methods, seeds=seeds,
        budget=budget, data_digest=digest,
    )  # fmt: skip
    opener = threading.Thread(target=_open_store, args=(folder, settings.tracking_uri), daemon=True)
    opener.start()  # MLflow's first contact with a new store takes seconds: meanwhile we work
    prices = _tune(problem, settings, folder)
    counts = _learn_beliefs(problem, settings, folder, prices)
    jobs = _jobs(settings, folder, problem, prices, record)
    values, curves, executed = _run(jobs, settings)
    counts = {name: counts[name] + executed[name] for name in counts}
    comparison = _assemble(settings, problem, record, values, curves)
    comparison["levels"] = _levels(problem, prices, folder)
    try:
        comparison |= _snapshots(problem, folder, settings.methods)
    except Exception as error:  # a problem of someone's own: hours of results do not hang on two pictures
        comparison["note"] = f"Without map and allocation over time ({type(error).__name__}: {error})."
    comparison["counts"] = counts
    comparison["seconds"] = round(time.time() - began, 1)
    comparison["folder"] = str(folder)
    _publish(comparison, settings, folder, opener)
    return comparison


def _open_store(folder: Path, uri: str) -> None:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the mirror at the end says what is missing
        tracking.mirror(folder, uri, only=(), slow_s=MLFLOW_SLOW_S)


def _tune(problem: Any, settings: Settings, folder: Path) -> dict[str, Any]:
    """Prices of each game by what it believes; the tuned ones serve every method with that belief."""
    plain = problem.prices_type()
    prices = {"toll 0": plain._replace(toll=0.0), "toll 1": plain._replace(toll=1.0)}
    beliefs = list(dict.fromkeys(method_of(name, problem).belief for name in settings.methods))
    bar = Stage("tuning prices", settings.tuning * len(beliefs), "trial", settings.quiet)
    record: dict[str, Any] = {}
    with open_pool(min(settings.workers or os.cpu_count() or 1, len(beliefs))) as (pool, queue):
        waiting = [
            pool.submit(tune_job, problem.describe(), belief, settings.tuning, _watched(settings)) for belief in beliefs
        ]
        stop = follow(queue, bar)
        for belief, future in zip(beliefs, waiting, strict=True):
            prices[belief], record[belief or "reports"] = problem.prices_type(**future.result()[0]), future.result()[1]
        stop()
    write_text(folder / "tuning.json", json.dumps(record, indent=1))
    return prices


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
    todo = [(kind, seed) for kind in sorted(kinds) for seed in range(settings.train_seeds)]
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
    """Run all jobs; values[method][metric] = [T][V], curves[method] = rows a seed, counts of what was executed."""
    bar = Stage("training and evaluating", sum(map(units, jobs)), "step", settings.quiet)
    values: dict[str, dict[str, dict[int, list[float]]]] = {}
    curves: dict[str, dict[int, list[dict[str, float]]]] = {}
    counts = {"allocations": 0, "violations": 0}
    with open_pool(min(settings.workers or os.cpu_count() or 1, len(jobs))) as (pool, queue):
        stop = follow(queue, bar)
        try:
            waiting = {pool.submit(run_job, job): job for job in jobs}
            for future in as_completed(waiting):
                job = waiting[future]
                try:
                    result = future.result()
                except Exception as error:
                    pool.shutdown(wait=False, cancel_futures=True)  # no sense in minutes more for a table with a hole
                    raise RuntimeError(f"{job.method}, seed {job.seed}: {error}; record in {job.directory}") from error
                for metric, row in result["metrics"].items():
                    values.setdefault(job.method, {}).setdefault(metric, {})[job.seed] = row
                curves.setdefault(job.method, {})[job.seed] = result["curve"]
                for name in counts:
                    counts[name] += result[name]
        finally:
            stop()
    ordered = {m: {k: [rows[s] for s in sorted(rows)] for k, rows in v.items()} for m, v in values.items()}
    return ordered, {m: [rows[s] for s in sorted(rows)] for m, rows in curves.items()}, counts


def _assemble(
    settings: Settings, problem: Any, record: dict[str, Any], values: dict[str, Any], curves: dict[str, Any]
) -> dict[str, Any]:
    told = set.intersection(*(set(values[name]) for name in settings.methods))
    metrics = [m._asdict() for m in (*problem.metrics, *COMMON) if m.key in told]
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
    rest = [name for name in ("nearest", "random") if name in problem.baselines] or list(problem.baselines[-2:])
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
    from hybridalloc.pictures import write_pictures
    from hybridalloc.report import markdown_table, text_table, write_report

    write_text(folder / "results.json", json.dumps(strict(comparison), allow_nan=False))
    write_text(folder / "table.md", markdown_table(comparison) + "\n")
    write_pictures(folder / "figures", comparison)
    inside = write_report(folder / "report.html", comparison)
    shutil.copyfile(inside, settings.report)
    comparison["tables"] = {"text": text_table(comparison), "markdown": markdown_table(comparison)}
    if _opened(opener, settings.tracking_uri):
        mirrored = tracking.mirror(folder, settings.tracking_uri, stall_s=MLFLOW_SLOW_S, slow_s=MLFLOW_SLOW_S)
    else:  # two at once would make its runs twice
        mirrored = tracking.left_out(folder, "MLflow has not answered yet")
    comparison["mirror"] = str(mirrored)
    comparison["open"] = tracking.how_to_open(settings.tracking_uri, mirrored.experiment_id)


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
