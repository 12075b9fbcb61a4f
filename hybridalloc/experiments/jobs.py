"""What a comparison runs in processes of their own, here or on other machines: tuning, learning a belief, training and
evaluating."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from coordinator import Coordinator
from hybridalloc.allocator import Allocator
from hybridalloc.experiments import tracking
from hybridalloc.experiments.executor import tell
from hybridalloc.experiments.methods import method_of
from hybridalloc.experiments.runlog import strict
from hybridalloc.files import write_text
from hybridalloc.places import locked
from hybridalloc.problems import restore_problem
from hybridalloc.problems.beliefs import load_belief, save_belief
from hybridalloc.problems.contract import AnyProblem
from hybridalloc.training.beliefs import learn_belief
from hybridalloc.training.calibration import SEEDS, calibrate
from hybridalloc.training.config import REPORT_SEEDS, REPORT_SLOTS, WARMUP_SLOTS, TrainConfig, first_trust
from hybridalloc.training.evaluation import bounded, evaluate
from hybridalloc.training.trainer import train
from hybridalloc.training.tuning import ALONE_STEPS, tune_alone, tune_game


def _own(description: dict[str, Any]) -> AnyProblem:
    """The problem of the comparison that started this process: its transition is the user's word, not a file's."""
    return restore_problem(description, trust_code=True)


class Job(NamedTuple):
    """One run of one method, for a process of its own."""

    directory: str
    method: str
    seed: int
    problem: dict[str, Any]
    prices: dict[str, float]
    belief: str  # a file, "" for none
    agent_steps: int
    report_seeds: int
    tags: dict[str, str]
    settings: tuple[tuple[str, Any], ...] = ()  # of the learner, beside its defaults


KEEP_EVERY = 250_000  # agent-steps between two checkpoints of a job, as of `hybridalloc train`
WORKERS_LOCK = ".workers.lock"  # held by every job of a comparison


def units(job: Job) -> int:
    """Work of a job in agent-steps of training; an evaluated slot costs about an eighth of a trained one."""
    slots = job.report_seeds * (WARMUP_SLOTS + REPORT_SLOTS)
    card = _own(job.problem).card
    trained = job.agent_steps if method_of(job.method, card).learner else 0
    return trained + slots * card.agents // 8


def tune_job(
    description: dict[str, Any], belief: str, trials: int, steps: int, alone: str = "",
    agent_steps: int = ALONE_STEPS, start: dict[str, float] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """The best prices of a game that believes ``belief``, or of the learner ``alone``, trained for at most
    ``agent_steps``, from ``start`` on; and every trial. Runs in a worker process."""
    problem, tried = _own(description), lambda *_: tell(1)
    if alone:
        least = min(agent_steps, ALONE_STEPS)
        first = None if start is None else problem.card.prices(**start)
        tuned = tune_alone(
            problem, alone, belief, trials, tried, belief_steps=steps, agent_steps=least, start=first
        )  # fmt: skip
    else:
        tuned = tune_game(problem, belief, trials, tried, belief_steps=steps)
    rows = [{"prices": p._asdict(), "welfare": w} for p, w in tuned.trials]
    return strict({"best": tuned.prices._asdict(), "welfare": tuned.welfare, "trials": rows})


def belief_job(
    problem: dict[str, Any], prices: dict[str, float], kind: str, seed: int, path: str, steps: int
) -> tuple[int, int]:
    """Learn one belief and save it; allocations executed, and those that violated a limit."""
    restored = _own(problem)
    config = TrainConfig(belief=kind, belief_steps=steps, seed=seed)
    belief, allocations, violations = learn_belief(restored, restored.card.prices(**prices), config)
    save_belief(path, belief)
    write_text(counts_file(path), json.dumps([allocations, violations]))  # the last thing: it says that all is there
    return allocations, violations


def belief_file(folder: Path, kind: str, seed: int) -> str:
    return str(folder / "beliefs" / f"{kind}-seed{seed}.npz")


def counts_file(path: str) -> Path:
    """Beside a learned belief: how many allocations were executed for it, and how many violated a limit."""
    return Path(path).with_suffix(".json")


def belief_done(path: str) -> tuple[int, int] | None:
    """The counts of a belief that is there in full, None where it must be learned."""
    found = whole_json(counts_file(path)) if Path(path).is_file() else None
    return None if found is None else (int(found[0]), int(found[1]))


def reads_of(job: Job) -> tuple[str, ...]:
    """What of the comparison's folder a job looks at: its belief, its record, and what an earlier try of it left."""
    stem = f"{job.method}-seed{job.seed}"
    belief = [Path(job.belief).relative_to(job.directory).as_posix()] if job.belief else []
    return (*belief, f"{stem}.jsonl", stem)


def job_done(job: Job) -> dict[str, Any] | None:
    """What a job that ended gave, None where it must be run.

    Raises:
        TrackingError: its record is malformed (a torn last line is not).
    """
    path = Path(job.directory) / f"{job.method}-seed{job.seed}.jsonl"
    if not path.is_file() or b"\n" not in path.read_bytes() or tracking.read_run(path).status != "FINISHED":
        return None
    return whole_json(Path(job.directory) / path.stem / "evaluation.json")


def whole_json(path: Path) -> Any:
    """What a file holds, None where it is missing or no JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None


def _checkpoints(job: Job) -> Any:
    """Where a job keeps its state, going on from what an earlier try of it left."""
    from hybridalloc.training.checkpoints import Checkpoints

    class Kept(Checkpoints):
        def judge(self, *_: Any) -> None: ...  # the best on the way is asked for by nobody

    folder = Path(job.directory) / f"{job.method}-seed{job.seed}"
    for torn in folder.glob(".*.partial"):  # of a process that was killed as it wrote
        torn.unlink(missing_ok=True)
    last = folder / "last.pt"
    every = min(KEEP_EVERY, max(job.agent_steps // 4, 1))
    return Kept(folder, every, last if last.is_file() else None)


def run_job(job: Job) -> dict[str, Any]:
    """Train if there is something to train, evaluate on the reporting seeds, log; runs in a worker process.

    A job that was stopped goes on from its last checkpoint; one that ended leaves none.
    """
    with locked(Path(job.directory) / WORKERS_LOCK, shared=True):
        return _run_job(job)


def _run_job(job: Job) -> dict[str, Any]:
    problem = _own(job.problem)
    method = method_of(job.method, problem.card)
    prices = problem.card.prices(**job.prices)
    params = {"method": job.method, "label": method.label, "seed": job.seed} | {
        f"price/{k}": v for k, v in job.prices.items()
    }
    done = 0

    def progress(steps: int) -> None:
        nonlocal done
        tell(steps - done)
        done = steps

    curve: list[dict[str, float]] = []
    allocations = violations = 0
    recommender = None
    belief = load_belief(problem, job.belief) if job.belief else None
    trust = first_trust(problem.card, method.belief)
    config = None
    if method.learner:
        config = TrainConfig(
            method.learner, method.kind, job.agent_steps, trust=trust, belief=method.belief, belief_steps=0,
            seed=job.seed, settings=job.settings,
        )  # fmt: skip
        params |= {f"train/{k}": v for k, v in asdict(config).items() if k not in ("settings",)}
    with tracking.RunLog(job.directory, job.method, job.seed, params, job.tags, resume=True) as log:
        summary: dict[str, float] = {}
        if config is not None:

            def report(steps: int, figures: dict[str, float]) -> None:
                log.metrics(steps, figures)
                progress(steps)

            checkpoints = _checkpoints(job)
            trained = train(problem, prices, config, report, belief, checkpoints)
            belief = trained.belief
            recommender, curve = trained.learner.policy, trained.curve
            allocations, violations = trained.allocations, trained.violations
            log.params({"engine": trained.learner.engine})
            summary |= {f"train_seconds/{k}": v for k, v in trained.seconds.items()}
            summary["trained_agent_steps"] = trained.agent_steps  # at most the budget
        improve = problem.card.improve if method.improve else None
        if recommender is not None and method.kind == "hybrid":
            few = SEEDS[: max(job.report_seeds, 2)]
            calibration = calibrate(problem, prices, recommender, trust, belief=belief, seeds=few, improve=improve)
            summary["prior_weight"] = trust / calibration.trust  # 1: as trained
            trust = calibration.trust
            allocations, violations = allocations + calibration.allocations, violations + calibration.violations
        coordinator = None if method.kind == "heuristic" else Coordinator(method.kind, trust, improve=improve)
        baseline = job.method if method.kind == "heuristic" else None
        seeds = REPORT_SEEDS[: job.report_seeds]
        if method.runs:
            seen = evaluate(problem, prices, coordinator, recommender, seeds, baseline, belief=belief, health=True)
        else:
            seen = bounded(problem, job.method, seeds)
        allocations, violations = allocations + seen.allocations, violations + seen.violations
        kind = method.kind if baseline is None else job.method
        if method.runs and (kind != "rl" or recommender is not None):
            allocator = Allocator(
                problem, kind, recommender, trust, prices=prices, belief=belief, improve=method.improve
            )
            stem = f"{job.method}-seed{job.seed}"
            log.artifact(allocator.save(Path(job.directory) / stem / "allocator.npz"))
        metrics = strict(seen.metrics | {"step_ms": [seen.step_ms] * job.report_seeds})
        out = {"metrics": metrics, "curve": curve, "allocations": allocations, "violations": violations}
        whole = Path(job.directory) / f"{job.method}-seed{job.seed}" / "evaluation.json"
        write_text(whole, json.dumps(out, allow_nan=False))
        log.artifact(whole)  # MLflow has what a table can be made from again
        summary |= seen.means()
        summary |= {"allocations": allocations, "violations": violations}
        summary |= {"step_ms": seen.step_ms} if method.runs else {}
        log.end(summary)
        (whole.parent / "last.pt").unlink(missing_ok=True)
    progress(units(job))
    return out
