"""Compare the hybrid with its parents and the field's heuristics: tune, train, evaluate, log, report.

One parent run a comparison, one child a method and seed. Training seeds x methods run in processes of their
own; each writes its JSON lines as it goes, and MLflow is brought up to date from them.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from hybridalloc.data.registry import digest_of
from hybridalloc.errors import CheckpointError, WorkError
from hybridalloc.experiments import tracking
from hybridalloc.experiments.assemble import assemble, levels, snapshots
from hybridalloc.experiments.executor import Files, Pool, following, open_pool
from hybridalloc.experiments.jobs import (
    WORKERS_LOCK,
    Job,
    belief_done,
    belief_file,
    belief_job,
    job_done,
    reads_of,
    run_job,
    tune_job,
    units,
    whole_json,
)
from hybridalloc.experiments.methods import method_of, rows_of
from hybridalloc.experiments.progress import Stage
from hybridalloc.experiments.resume import go_on, stopped
from hybridalloc.experiments.runlog import strict
from hybridalloc.experiments.settings import FULL as FULL  # read from here too
from hybridalloc.experiments.settings import SAME, Settings, check_alone, check_methods, problem_of
from hybridalloc.files import write_text
from hybridalloc.machines import connected
from hybridalloc.places import check_file, check_folder, locked
from hybridalloc.problems.contract import AnyProblem, Card, Prices
from hybridalloc.saved import saved_prices
from hybridalloc.text import quoted
from hybridalloc.training.config import BELIEF_STEPS, REPORT_SEEDS, REPORT_SLOTS, TRAIN_SEEDS, WARMUP_SLOTS
from hybridalloc.training.learners import DEFAULTS, TUNED_ALONE, unwritten

LOCK = ".comparison.lock"  # held while a comparison runs
Opens = Callable[[int], AbstractContextManager[tuple[Pool, Any]]]  # of an engine: a pool for so many tasks, its queue
LEAVE_S = 15.0  # workers of a killed comparison leave within two seconds, on a loaded machine a little later


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
        UnknownNameError, DataError, ValueError, PlaceError, ImportError: before anything is run.
        TrackingError, CheckpointError: nothing to go on with, it still runs, or it was asked for otherwise.
        WorkError: it stopped on the way; says why and how to go on.
    """
    if getattr(multiprocessing.current_process(), "_inheriting", False):  # multiprocessing's own mark of an import
        raise WorkError(UNGUARDED)
    check_alone(settings)
    if resume is None:
        problem, settings = _begin(settings)
    else:
        folder, record = stopped(Path(resume))
        problem, settings = go_on(folder, record, settings, trust_code)
    digest = digest_of(problem.card.datasets)
    if resume is not None and record["data_digest"] != digest:
        raise CheckpointError(f"{folder} is of other data: {quoted(record['data_digest'])} there, {digest} here")
    with _engine(settings) as opens:
        check_file("--report", settings.report)
        place = check_folder("--runs", settings.runs) if resume is None else check_folder("--resume", folder)
        if resume is None:
            folder = place.resolve() / tracking.new_comparison_id(problem.card.name)
            record = _record(folder, problem, settings, digest)
        return _alone(settings, problem, folder, record, opens)


def _alone(
    settings: Settings, problem: AnyProblem, folder: Path, record: dict[str, Any], opens: Opens
) -> dict[str, Any]:
    """:func:`_work`, while nobody else works in its folder."""
    with locked(folder / LOCK) as ours, _explained(folder):
        if not ours:
            raise tracking.TrackingError(f"{folder} is being worked on by another process; wait for it or end it")
        with locked(folder / WORKERS_LOCK, wait_s=LEAVE_S) as left:
            if not left:
                raise tracking.TrackingError(f"worker processes still write to {folder}; wait for them or end them")
        return _insisting(settings, problem, folder, record, opens)


def _insisting(
    settings: Settings, problem: AnyProblem, folder: Path, record: dict[str, Any], opens: Opens
) -> dict[str, Any]:
    """:func:`_work`, which goes on where a worker process was lost, once, and as long as something ended since."""
    lost: list[str] = []
    ended = -1
    while True:
        try:
            return _work(settings, problem, folder, record, opens, lost)
        except (BrokenProcessPool, BrokenPipeError) as error:  # the latter of a process that is gone as it starts
            now = sum(1 for _ in folder.rglob("*.json"))  # each is written when something has ended
            if now == ended:
                raise
            ended = now
            lost.append(str(error) or "ended without an answer")
            if not settings.quiet:
                Stage._say(f"a worker process was lost ({lost[-1]}); what has not ended is run again")


@contextmanager
def _engine(settings: Settings) -> Iterator[Opens]:
    """What opens the pools of a comparison's stages."""
    if settings.engine == "ray":
        from hybridalloc.experiments import on_ray

        with connected(settings.address) as ray:
            yield lambda tasks: on_ray.open_pool(ray, min(settings.workers or tasks, tasks), settings.quiet)
    else:
        yield lambda tasks: open_pool(min(settings.workers or os.cpu_count() or 1, tasks))


UNGUARDED = (
    "compare() starts processes that import the script which called it, and this one calls it again as it is imported: "
    'put the call under `if __name__ == "__main__":`'
)


def _begin(settings: Settings) -> tuple[AnyProblem, Settings]:
    """The problem of a new comparison, and its settings with the methods named; raises before anything is written."""
    problem = problem_of(settings)
    check_methods(problem, settings.methods)
    problem.reset(0)  # data that is missing is missed here
    return problem, replace(settings, methods=settings.methods or rows_of(problem.card, settings.learners))


def _record(folder: Path, problem: AnyProblem, settings: Settings, digest: str) -> dict[str, Any]:
    seeds = {
        "train": list(TRAIN_SEEDS[: settings.train_seeds]),
        "report": list(REPORT_SEEDS[: settings.report_seeds]),
    }
    budget = {
        "agent_steps": settings.agent_steps, "tuning_trials": settings.tuning, "report_slots": REPORT_SLOTS,
        "warmup_slots": WARMUP_SLOTS,
    }  # fmt: skip
    tags = dict(problem.card.tags) | ({"suite": settings.suite} if settings.suite else {})
    return tracking.write_comparison(
        folder, problem=problem.card.name, scenario=problem.describe(), methods=settings.methods, seeds=seeds,
        budget=budget, data_digest=digest, datasets=problem.card.datasets, tags=tags,
        settings={name: getattr(settings, name) for name in SAME}, defaults=DEFAULTS,
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
            f"a worker process ended without an answer{f' ({error})' if str(error) else ''}: if it was killed, perhaps "
            f"for want of memory (then give fewer --workers); {further}.{script}"
        ) from error
    except OSError as error:
        raise WorkError(f"{error}; {further}") from error


def _work(
    settings: Settings, problem: AnyProblem, folder: Path, record: dict[str, Any], opens: Opens, lost: Sequence[str]
) -> dict[str, Any]:
    """All that a comparison computes and writes, less what is in its folder already; ``lost``: how each worker process
    ended that did so without an answer."""
    began = time.time()
    store = tracking.Opening(folder, settings.tracking_uri)
    prices = _tune(problem, settings, folder, record, opens)
    counts = _learn_beliefs(problem, settings, folder, prices, opens)
    jobs = _jobs(settings, folder, problem, prices, record)
    values, curves, executed = _run(jobs, settings, opens)
    counts = {name: counts[name] + executed[name] for name in counts}
    comparison = assemble(settings.problem, settings.methods, problem, record, values, curves)
    drawn = any(rows for seeds in curves.values() for rows in seeds)
    comparison["levels"] = levels(problem, prices, folder) if drawn else []  # beside learning curves alone
    notes = [f"A worker process was lost ({how}); what it had not ended was run again." for how in lost]
    here = tracking.git_commit()
    if here != record["git_commit"]:
        notes.append(f"Begun with version {str(record['git_commit'])[:16]}, ended with {here[:16]}.")
    try:
        comparison |= snapshots(problem, folder, settings.methods)
    except Exception as error:  # a problem of someone's own: hours of results do not hang on two pictures
        notes.append(f"Without map and allocation over time ({type(error).__name__}: {error}).")
    if notes:
        comparison["note"] = " ".join(notes)
    comparison["counts"] = counts
    comparison["seconds"] = round(time.time() - began, 1)
    comparison["folder"] = str(folder)
    _publish(comparison, settings, folder, store)
    return comparison


def _tune(
    problem: AnyProblem, settings: Settings, folder: Path, record: dict[str, Any], opens: Opens
) -> dict[str, Prices]:
    """Prices of each game by what it believes, and of each row of a learner alone by its name.

    A game's serve every method with its belief but those rows, which have as many trials of their own from there on.
    """
    card = problem.card
    rows = {name: method_of(name, card) for name in settings.methods}
    wanted = {row.belief: (row.belief, "") for row in rows.values()}
    if record.get("defaults", 1) >= TUNED_ALONE:
        wanted |= {name: (row.belief, row.learner or "") for name, row in rows.items() if row.kind == "rl"}
    path = folder / "tuning.json"
    found = _tuned_before(path, card)
    todo = [key for key in wanted if (key or "reports") not in found]
    if todo:
        bar = Stage("tuning prices", settings.tuning * len(todo), "trial", settings.quiet)
        with opens(len(todo)) as (pool, queue), following(queue, bar):
            for some in ([key for key in todo if not wanted[key][1]], [key for key in todo if wanted[key][1]]):
                waiting = []
                for belief, alone in (wanted[key] for key in some):
                    start = found[belief or "reports"]["best"] if alone else None
                    asked = (belief, settings.tuning, _watched(settings), alone, settings.agent_steps, start)
                    waiting.append(pool.submit(tune_job, problem.describe(), *asked))
                for key, future in zip(some, waiting, strict=True):
                    found[key or "reports"] = future.result()
                    write_text(path, json.dumps(found, indent=1))
    tuned = {key: saved_prices(problem, found[key or "reports"]["best"]) for key in wanted}
    return dict(card.reference_prices) | tuned


def _tuned_before(path: Path, card: Card) -> dict[str, Any]:
    """What an earlier try of the comparison tuned, by belief or row; what is not whole is tuned again. Prices that a
    file may lack are not missed."""
    found = whole_json(path)
    return {
        belief: tuned
        for belief, tuned in (found.items() if isinstance(found, dict) else ())
        if isinstance(tuned, dict)
        and isinstance(tuned.get("best"), dict)
        and set(card.unpriced) | set(tuned["best"]) == set(card.prices._fields)
        and all(type(value) in (int, float) for value in tuned["best"].values())
    }


def _watched(settings: Settings) -> int:
    """Agent-steps that a belief watches before anything builds on it; in a small trial no more than the training's."""
    return min(BELIEF_STEPS, settings.agent_steps)


def _learn_beliefs(
    problem: AnyProblem, settings: Settings, folder: Path, prices: dict[str, Prices], opens: Opens
) -> dict[str, int]:
    """A belief for each training seed, under the tuned prices; every method of that seed goes on from it."""
    counts = {"allocations": 0, "violations": 0}
    kinds = {method_of(name, problem.card).belief for name in settings.methods} - {""}
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
    with opens(len(todo)) as (pool, _):
        waiting = [
            pool.submit(
                belief_job, problem.describe(), prices[k]._asdict(), k, seed, belief_file(folder, k, seed), steps,
                files=Files(str(folder)),
            )
            for k, seed in todo
        ]  # fmt: skip
        with Stage("learning beliefs", len(todo), "belief", settings.quiet) as bar:
            for future in as_completed(waiting):
                allocations, violations = future.result()
                counts["allocations"] += allocations
                counts["violations"] += violations
                bar.update()
    return counts


def _jobs(
    settings: Settings, folder: Path, problem: AnyProblem, prices: dict[str, Prices], record: dict[str, Any]
) -> list[Job]:
    card, told = problem.card, {name: str(record[name]) for name in ("git_commit", "data_digest")}
    tags = {**card.tags, **told}
    learns = lambda belief: bool(belief) and card.beliefs[belief].learns
    jobs = []
    for name in settings.methods:
        method = method_of(name, problem.card)
        tuned = name if method.kind == "rl" and name in prices else method.belief
        charged = prices[tuned if method.prices == "tuned" else method.prices]._asdict()
        begun = unwritten(method.learner or "", method.kind, True, record.get("defaults", 1), problem)
        for seed in range(settings.train_seeds) if method.learner or learns(method.belief) else (0,):
            belief = belief_file(folder, method.belief, seed) if method.belief else ""
            jobs.append(
                Job(
                    str(folder), name, seed, problem.describe(), charged, belief, settings.agent_steps,
                    settings.report_seeds, tags | {"kind": method.kind, "belief": method.belief or "reports"},
                    tuple(begun.items()),
                )
            )  # fmt: skip
    return sorted(jobs, key=lambda job: method_of(job.method, card).learner is None)  # the long ones first


def _run(
    jobs: Sequence[Job], settings: Settings, opens: Opens
) -> tuple[dict[str, Any], dict[str, Any], dict[str, int]]:
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
        with opens(len(todo)) as (pool, queue), following(queue, bar):
            waiting = {pool.submit(run_job, job, files=Files(job.directory, reads_of(job))): job for job in todo}
            for future in as_completed(waiting):  # an error ends all: no sense in minutes more for a table with a hole
                take(waiting[future], _result(future, waiting[future]))
    ordered = {m: {k: [rows[s] for s in sorted(rows)] for k, rows in v.items()} for m, v in values.items()}
    return ordered, {m: [rows[s] for s in sorted(rows)] for m, rows in curves.items()}, counts


def _result(future: Future[dict[str, Any]], job: Job) -> dict[str, Any]:
    try:
        return dict(future.result())
    except (BrokenProcessPool, OSError):
        raise
    except Exception as error:
        raise WorkError(
            f"{job.method}, seed {job.seed}: {type(error).__name__}: {error}; record in {job.directory}, with which "
            f"`hybridalloc compare --resume {job.directory}` goes on"
        ) from error


def _publish(comparison: dict[str, Any], settings: Settings, folder: Path, store: tracking.Opening) -> None:
    from hybridalloc.reports.pictures import write_pictures
    from hybridalloc.reports.report import markdown_table, text_table, write_report

    write_text(folder / "results.json", json.dumps(strict(comparison), allow_nan=False))
    write_text(folder / "table.md", markdown_table(comparison) + "\n")
    write_pictures(folder / "figures", comparison)
    inside = write_report(folder / "report.html", comparison)
    failed = _copy_report(inside, settings.report)
    comparison["tables"] = {"text": text_table(comparison), "markdown": markdown_table(comparison)}
    mirrored = store.mirror()
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


def summary_lines(comparison: dict[str, Any]) -> list[str]:
    """What was executed and counted, a line each, for the terminal."""
    counts = comparison["counts"]
    return [
        f"executed allocations, training included: {counts['allocations']:,}; violations of capacity or power, by "
        f"the certificate's count: {counts['violations']}",
        f"took {comparison['seconds']:.0f} s",
    ]
