"""Compare the hybrid with its parents and the field's heuristics: tune, train, evaluate, log, report.

One parent run a comparison, one child a method and seed. Training seeds x methods run in processes of their
own; each writes its JSON lines as it goes, and MLflow is brought up to date from them.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from coordinator import Coordinator
from hybridalloc import data, tracking
from hybridalloc.allocator import Allocator
from hybridalloc.errors import nearest
from hybridalloc.problems import make_with, restore_problem
from hybridalloc.problems.base import Metric
from hybridalloc.progress import Stage
from hybridalloc.statistics import paired_difference
from hybridalloc.training import (
    REPORT_SEEDS,
    REPORT_SLOTS,
    TRAIN_SEEDS,
    TUNE_SEEDS,
    WARMUP_SLOTS,
    Evaluation,
    TrainConfig,
    evaluate,
    train,
)
from hybridalloc.tuning import tune_prices


class Method(NamedTuple):
    """A row of the table. ``learner`` is None for what is not trained; ``prices`` names which it uses."""

    label: str
    kind: str  # "hybrid" | "rl" | "game" | "heuristic"
    learner: str | None
    prices: str  # "tuned" | "toll 0" | "toll 1"


METHODS: dict[str, Method] = {
    "hybrid-imappo": Method("hybrid, IMAPPO", "hybrid", "imappo", "tuned"),
    "hybrid-dqn": Method("hybrid, DQN", "hybrid", "dqn", "tuned"),
    "hybrid-untrained": Method("hybrid, untrained", "hybrid", None, "tuned"),
    "rl-imappo": Method("IMAPPO alone", "rl", "imappo", "tuned"),
    "rl-dqn": Method("DQN alone", "rl", "dqn", "tuned"),
    "game-tuned": Method("game, tuned toll and prices", "game", None, "tuned"),
    "game-toll-1": Method("game, toll 1", "game", None, "toll 1"),
    "game-toll-0": Method("game, toll 0", "game", None, "toll 0"),
    "local": Method("local only", "heuristic", None, "tuned"),
    "nearest": Method("nearest server", "heuristic", None, "tuned"),
    "greedy": Method("greedy", "heuristic", None, "tuned"),
    "random": Method("random", "heuristic", None, "tuned"),
}
STEP_TIME = Metric("step_ms", "decision time, batched", "ms", "lower")
DIFFERENCES = (
    ("hybrid-imappo", ("rl-imappo", "rl-dqn", "hybrid-untrained", "game-tuned")),
    ("hybrid-dqn", ("rl-dqn", "rl-imappo", "hybrid-untrained", "game-tuned")),
)


@dataclass(frozen=True)
class Settings:
    """A comparison.

    Attributes:
        problem: "mec". agents, servers, scenario: its size and set. sites: "eua" needs the EUA data, "synthetic"
            none. agent_steps: training budget of each learner, alone and in the hybrid alike. train_seeds: how
            many, from 0. report_seeds: how many held-out networks, from 10000. tuning: trials of the price search.
        methods: rows of the table; default all. workers: processes; default the number of cores.
    """

    problem: str = "mec"
    agents: int = 50
    servers: int = 9
    scenario: str = "H"
    sites: str = "eua"
    agent_steps: int = 1_000_000
    train_seeds: int = 2
    report_seeds: int = 40
    tuning: int = 40
    methods: tuple[str, ...] = tuple(METHODS)
    workers: int | None = None
    runs: str = "runs"
    report: str = "report.html"
    tracking_uri: str = tracking.DEFAULT_URI
    quiet: bool = False
    settings: tuple[tuple[str, Any], ...] = ()  # of a problem of one's own, by name


FULL = {"agent_steps": 2_000_000, "train_seeds": 5, "report_seeds": 100, "tuning": 150}


def method_of(name: str) -> Method:
    """A row of the table; a heuristic that only this problem has goes by its name."""
    return METHODS.get(name) or Method(name.replace("_", " "), "heuristic", None, "tuned")


def methods_of(problem: Any) -> list[str]:
    """The rows that a problem's table may have: the trained ones and the games, then its own heuristics."""
    own = [name for name in METHODS if METHODS[name].kind == "heuristic" and name in problem.baselines]
    own += [name for name in problem.baselines if name not in own]
    return [name for name in METHODS if METHODS[name].kind != "heuristic"] + own


def problem_of(settings: Settings) -> Any:
    """The problem, with those of the flags that it has."""
    flags = {name: getattr(settings, name) for name in ("agents", "servers", "sites", "scenario")}
    return make_with(settings.problem, flags, dict(settings.settings))


class Job(NamedTuple):
    """One run of one method, for a process of its own."""

    directory: str
    method: str
    seed: int
    problem: dict[str, Any]
    prices: dict[str, float]
    agent_steps: int
    report_seeds: int
    tags: dict[str, str]


def compare(settings: Settings) -> dict[str, Any]:
    """Run a comparison and write its record, table, report and MLflow runs.

    Returns:
        the comparison as :func:`hybridalloc.report.write_report` takes it, with ``folder`` and ``tables`` added.

    Raises:
        UnknownNameError, DataError: before anything is run or written.
    """
    problem = problem_of(settings)
    known = methods_of(problem)
    for name in settings.methods:
        if name not in known and (name not in METHODS or settings.methods != tuple(METHODS)):
            raise nearest("method", name, known)
    settings = replace(settings, methods=tuple(known) if settings.methods == tuple(METHODS) else settings.methods)
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
    jobs = _jobs(settings, folder, problem, prices, record)
    values, curves, counts = _run(jobs, settings)
    comparison = _assemble(settings, problem, record, values, curves)
    comparison["levels"] = _levels(problem, prices)
    comparison["map"] = _snapshot(problem, folder, prices["tuned"], settings.methods)
    comparison["counts"] = counts
    comparison["seconds"] = round(time.time() - began, 1)
    comparison["folder"] = str(folder)
    _publish(comparison, settings, folder, opener)
    return comparison


def _open_store(folder: Path, uri: str) -> None:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the mirror at the end says what is missing
        tracking.mirror(folder, uri, only=())


def _tune(problem: Any, settings: Settings, folder: Path) -> dict[str, Any]:
    """Prices of the three games; the tuned ones serve every method that is not a plain game."""
    plain = problem.prices_type()
    prices = {"toll 0": plain._replace(toll=0.0), "toll 1": plain._replace(toll=1.0), "tuned": plain}
    bar = Stage("tuning prices", settings.tuning, "trial", settings.quiet)

    def step(_trial: int, best: float) -> None:
        bar.note(welfare=f"{best:.4f}")
        bar.update()

    tuned = tune_prices(problem, Coordinator("game"), settings.tuning, report=step)
    bar.close()
    rows = [{"prices": p._asdict(), "welfare": w} for p, w in tuned.trials]
    (folder / "tuning.json").write_text(json.dumps({"best": tuned.prices._asdict(), "trials": rows}, indent=1))
    return prices | {"tuned": tuned.prices}


def _jobs(settings: Settings, folder: Path, problem: Any, prices: dict[str, Any], record: dict[str, Any]) -> list[Job]:
    tags = {
        "scenario": settings.scenario, "sites": settings.sites, "git_commit": str(record["git_commit"]),
        "data_digest": str(record["data_digest"]),
    }  # fmt: skip
    jobs = []
    for name in settings.methods:
        method = method_of(name)
        for seed in range(settings.train_seeds) if method.learner else (0,):
            jobs.append(
                Job(
                    str(folder), name, seed, problem.describe(), prices[method.prices]._asdict(), settings.agent_steps,
                    settings.report_seeds, tags | {"kind": method.kind},
                )
            )  # fmt: skip
    return sorted(jobs, key=lambda job: method_of(job.method).learner is None)  # the long ones first


_QUEUE: Any = None


def _start_worker(queue: Any) -> None:
    global _QUEUE
    _QUEUE = queue
    os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1", NUMBA_NUM_THREADS="1")
    parent = os.getppid()

    def leave_with_parent() -> None:  # a killed comparison leaves no training behind
        while os.getppid() == parent:
            time.sleep(2)
        os._exit(1)

    threading.Thread(target=leave_with_parent, daemon=True).start()


def _units(job: Job) -> int:
    """Work of a job in agent-steps of training; an evaluated slot costs about an eighth of a trained one."""
    slots = job.report_seeds * (WARMUP_SLOTS + REPORT_SLOTS)
    trained = job.agent_steps if method_of(job.method).learner else 0
    return trained + slots * restore_problem(job.problem).agents // 8


def _run(jobs: Sequence[Job], settings: Settings) -> tuple[dict[str, Any], dict[str, Any], dict[str, int]]:
    """Run all jobs; values[method][metric] = [T][V], curves[method] = rows a seed, counts of what was executed."""
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    workers = min(settings.workers or os.cpu_count() or 1, len(jobs))
    bar = Stage("training and evaluating", sum(map(_units, jobs)), "step", settings.quiet)
    stop = threading.Event()

    def watch() -> None:
        while not stop.is_set() or not queue.empty():
            try:
                bar.update(queue.get(timeout=0.2))
            except Exception:
                continue

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    values: dict[str, dict[str, dict[int, list[float]]]] = {}
    curves: dict[str, dict[int, list[dict[str, float]]]] = {}
    counts = {"allocations": 0, "violations": 0}
    try:
        with ProcessPoolExecutor(workers, context, _start_worker, (queue,)) as pool:
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
        stop.set()
        watcher.join(timeout=2)
        bar.close()
    ordered = {m: {k: [rows[s] for s in sorted(rows)] for k, rows in v.items()} for m, v in values.items()}
    return ordered, {m: [rows[s] for s in sorted(rows)] for m, rows in curves.items()}, counts


def run_job(job: Job) -> dict[str, Any]:
    """Train if there is something to train, evaluate on the reporting seeds, log; runs in a worker process."""
    method = method_of(job.method)
    problem = restore_problem(job.problem)
    prices = problem.prices_type(**job.prices)
    params = {"method": job.method, "label": method.label, "seed": job.seed} | {
        f"price/{k}": v for k, v in job.prices.items()
    }
    done = 0

    def progress(steps: int) -> None:
        nonlocal done
        if _QUEUE is not None:
            _QUEUE.put(steps - done)
        done = steps

    curve: list[dict[str, float]] = []
    allocations = violations = 0
    recommender = None
    config = TrainConfig(method.learner or "", method.kind, job.agent_steps, seed=job.seed)
    if method.learner:
        params |= {f"train/{k}": v for k, v in asdict(config).items() if k not in ("settings",)}
    with tracking.RunLog(job.directory, job.method, job.seed, params, job.tags) as log:
        summary: dict[str, float] = {}
        if method.learner:

            def report(steps: int, figures: dict[str, float]) -> None:
                log.metrics(steps, figures)
                progress(steps)

            trained = train(problem, prices, config, report)
            recommender, curve = trained.learner.policy, trained.curve
            allocations, violations = trained.allocations, trained.violations
            summary |= {f"train_seconds/{k}": v for k, v in trained.seconds.items()}
        coordinator = None if method.kind == "heuristic" else Coordinator(method.kind, config.trust)
        baseline = job.method if method.kind == "heuristic" else None
        seen: Evaluation = evaluate(
            problem, prices, coordinator, recommender, REPORT_SEEDS[: job.report_seeds], baseline
        )
        allocations, violations = allocations + seen.allocations, violations + seen.violations
        kind = method.kind if baseline is None else job.method
        if kind != "rl" or recommender is not None:
            allocator = Allocator(problem, kind, recommender, config.trust, prices=prices)
            stem = f"{job.method}-seed{job.seed}"
            log.artifact(allocator.save(Path(job.directory) / stem / "allocator.npz"))
        metrics = {k: [float(x) for x in v] for k, v in seen.metrics.items()}
        metrics["step_ms"] = [seen.step_ms] * len(seen.metrics["welfare"])
        out = {"metrics": metrics, "curve": curve, "allocations": allocations, "violations": violations}
        whole = Path(job.directory) / f"{job.method}-seed{job.seed}" / "evaluation.json"
        whole.parent.mkdir(exist_ok=True)
        whole.write_text(json.dumps(out))
        log.artifact(whole)  # MLflow has what a table can be made from again
        summary |= {k: float(v.mean()) for k, v in seen.metrics.items()}
        summary |= {"step_ms": seen.step_ms, "allocations": allocations, "violations": violations}
        log.end(summary)
    progress(_units(job))
    return out


def _assemble(
    settings: Settings, problem: Any, record: dict[str, Any], values: dict[str, Any], curves: dict[str, Any]
) -> dict[str, Any]:
    metrics = [m._asdict() for m in (*problem.metrics, STEP_TIME)]
    methods = [
        {"key": name, "label": method_of(name).label, "kind": method_of(name).kind, "values": values[name]}
        for name in settings.methods
    ]
    drawn = [
        {
            "method": name,
            "steps": [row["agent_steps"] for row in curves[name][0]],
            "values": [[row["check_welfare"] for row in seed] for seed in curves[name]],
        }
        for name in settings.methods
        if method_of(name).learner
    ]
    differences = []
    for key in ("welfare", "completion"):
        for name, others in DIFFERENCES:
            for other in others:
                if name in values and other in values:
                    d = paired_difference(values[name][key], values[other][key])
                    differences.append({
                        "label": f"{method_of(name).label} - {method_of(other).label}", "metric": key, "mean": d.mean,
                        "low": d.low, "high": d.high, "conservative": d.conservative,
                    })  # fmt: skip
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
        flat[key] = f"{value[0]:g} to {value[1]:g}" if isinstance(value, list) else value
    switches = scenario["dynamics"]
    on = [name.replace("_", " ") for name, value in switches.items() if value]
    return flat | {"dynamics on": ", ".join(on) or "none"}


def _levels(problem: Any, prices: dict[str, Any]) -> list[dict[str, Any]]:
    """Welfare of what is not trained, on the seeds and slots of the learning curves."""
    config = TrainConfig()
    seeds = TUNE_SEEDS[: config.check_seeds]
    rows = []
    rest = [name for name in ("nearest", "random") if name in problem.baselines] or list(problem.baselines[-2:])
    games = [("game, tuned", "tuned", None), ("game, toll 1", "toll 1", None)]
    for label, key, baseline in games + [(method_of(name).label, "tuned", name) for name in rest]:
        seen = evaluate(problem, prices[key], Coordinator("game"), None, seeds, baseline, slots=config.check_slots)
        rows.append({"label": label, "value": float(seen.metrics["welfare"].mean())})
    return rows


def _snapshot(problem: Any, folder: Path, prices: Any, methods: Sequence[str]) -> dict[str, Any] | None:
    """Who is served where, in the twentieth slot of the first reporting network; None for a problem without places."""
    if not hasattr(getattr(problem.reset(REPORT_SEEDS[0]), "truth", None), "site"):
        return None
    best = next((m for m in ("hybrid-imappo", "hybrid-dqn") if m in methods), None)
    path = folder / f"{best}-seed0" / "allocator.npz"
    allocator = Allocator.load(path) if best else Allocator(problem, "game", prices=prices)
    state = problem.reset(REPORT_SEEDS[0])
    for slot in range(20):
        allocation = allocator.step(state)
        if slot < 19:
            state, _ = problem.advance(state, allocation, seed=slot)
    return {
        "stations": state.truth.site.tolist(), "devices": state.truth.position.tolist(),
        "option": allocation.option.tolist(), "active": state.active.tolist(),
        "label": f"{method_of(best).label if best else 'game'}, one slot of network {REPORT_SEEDS[0]}",
    }  # fmt: skip


def _publish(comparison: dict[str, Any], settings: Settings, folder: Path, opener: threading.Thread) -> None:
    from hybridalloc.pictures import write_pictures
    from hybridalloc.report import markdown_table, text_table, write_report

    (folder / "results.json").write_text(json.dumps(comparison))
    (folder / "table.md").write_text(markdown_table(comparison) + "\n")
    write_pictures(folder / "figures", comparison)
    inside = write_report(folder / "report.html", comparison)
    shutil.copyfile(inside, settings.report)
    comparison["tables"] = {"text": text_table(comparison), "markdown": markdown_table(comparison)}
    opener.join(timeout=30)
    mirrored = tracking.mirror(folder, settings.tracking_uri)
    comparison["mirror"] = str(mirrored)
    comparison["open"] = tracking.how_to_open(settings.tracking_uri, mirrored.experiment_id)


def summary_lines(comparison: dict[str, Any]) -> list[str]:
    """What was executed and counted, a line each, for the terminal."""
    counts = comparison["counts"]
    return [
        f"executed allocations, training included: {counts['allocations']:,}; violations of capacity or power, by "
        f"the certificate's count: {counts['violations']}",
        f"took {comparison['seconds']:.0f} s",
    ]
