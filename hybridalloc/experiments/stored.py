"""A comparison's table and report again, from what was stored: a folder of JSON lines, or an MLflow store.

Runs that did not end are left out and named, so a comparison that was killed half-way still gives a table.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from games.extras import required
from hybridalloc.errors import CheckpointError
from hybridalloc.experiments import tracking
from hybridalloc.experiments.assemble import assemble
from hybridalloc.experiments.mlflow_store import sqlite_file
from hybridalloc.experiments.replay import COMPARISON_TAG, KEY_TAG
from hybridalloc.experiments.resume import HOW, newest
from hybridalloc.experiments.runlog import COMPARISON_FILE, TrackingError, run_name
from hybridalloc.problems import restore_problem
from hybridalloc.text import printable, quoted


def comparison_from(source: str, tracking_uri: str = tracking.DEFAULT_URI, trust_code: bool = False) -> dict[str, Any]:
    """The comparison, as :func:`hybridalloc.reports.report.write_report` takes it.

    Args:
        source: a comparison's folder, a folder of such folders (the newest is taken), or, in MLflow, an
            experiment's name (the newest comparison in it) or a comparison's id.
        tracking_uri: MLflow's store, for the latter two. trust_code: load the problem's class though it is no installed
            entry point.

    Raises:
        TrackingError: nothing is stored there; the message says what is and how to make runs.
    """
    path = Path(source)
    if path.is_dir():
        folder = newest(path)
        return rebuild(folder, trust_code) | {"source": printable(folder, 300)}
    with tempfile.TemporaryDirectory(prefix="hybridalloc-") as place:
        folder, told = _fetch(source, tracking_uri, Path(place))
        return rebuild(folder, trust_code) | {"source": told}


def rebuild(folder: Path, trust_code: bool = False) -> dict[str, Any]:
    """A comparison from its folder: every run that ended, and what was made at the end if it is there.

    Raises:
        TrackingError: a file is missing, or damaged: says which folder and what of it.
    """
    try:
        return _rebuild(folder, trust_code)
    except TrackingError:
        raise
    except CheckpointError as error:
        raise TrackingError(f"{printable(folder, 300)}: {error}") from None
    except Exception as error:  # the folder may come from anywhere, and say anything
        reason = printable(f"{type(error).__name__}: {error}", 200)
        raise TrackingError(f"{printable(folder, 300)} is damaged or of another version ({reason}); {HOW}") from None


def _rebuild(folder: Path, trust_code: bool) -> dict[str, Any]:
    record = tracking.read_comparison(folder)
    if isinstance(record["seeds"], list):  # as write_comparison takes them too
        record["seeds"] = {"report": record["seeds"]}
    values: dict[str, dict[str, dict[int, list[float]]]] = {}
    curves: dict[str, dict[int, list[dict[str, float]]]] = {}
    counts = {"allocations": 0, "violations": 0}
    left = []
    for run in tracking.read_runs(folder):
        path = folder / run.name / "evaluation.json"
        if run.status != "FINISHED" or not path.is_file():
            left.append(run.name)
            continue
        seen = json.loads(path.read_text(encoding="utf-8"))
        for metric, row in seen["metrics"].items():
            values.setdefault(run.method, {}).setdefault(metric, {})[run.seed] = row
        curves.setdefault(run.method, {})[run.seed] = seen["curve"]
        counts = {name: counts[name] + seen[name] for name in counts}
    if not values:
        raise TrackingError(f"{folder} holds no run that ended; {HOW}")
    methods = tuple(name for name in record["methods"] if name in values)
    problem = restore_problem(record["scenario"], trust_code)
    ordered = {m: {k: [rows[s] for s in sorted(rows)] for k, rows in v.items()} for m, v in values.items()}
    whole = {m: [rows[s] for s in sorted(rows)] for m, rows in curves.items()}
    told = record.get("problem", problem.card.name)
    comparison = assemble(told, methods, problem, record, ordered, whole)
    results = folder / "results.json"
    if results.is_file():
        stored = json.loads(results.read_text(encoding="utf-8"))
        comparison |= {name: stored[name] for name in ("levels", "map", "over_time", "seconds") if name in stored}
    comparison |= {"counts": counts, "folder": str(folder)}
    missing = left + [f"{name} (never begun)" for name in record["methods"] if name not in values]
    missing = [name for k, name in enumerate(missing) if name not in missing[:k]]
    if missing:
        comparison["note"] = f"Incomplete: without {', '.join(missing)}, which did not end."
    return comparison


def _fetch(source: str, uri: str, place: Path) -> tuple[Path, str]:
    """Download a comparison's record and its runs' evaluations into ``place``."""
    file = sqlite_file(uri)
    if file is not None and not file.is_file():
        raise TrackingError(f"no folder {source}, and no file {file}, which is the MLflow store {uri}; {HOW}")
    import logging
    import os

    required("mlflow")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")  # one bar a file
    logging.getLogger("alembic").setLevel(logging.WARNING)
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    from mlflow.exceptions import MlflowException
    from mlflow.tracking import MlflowClient

    client = MlflowClient(uri)
    try:
        named = client.get_experiment_by_name(source)
        experiments = [named] if named is not None else client.search_experiments()
        filters = f"tags.`{COMPARISON_TAG}` != ''" if named is not None else f"tags.`{COMPARISON_TAG}` = '{source}'"
        runs = [
            run
            for experiment in experiments
            for run in _pages(client, experiment.experiment_id, filters)
            if KEY_TAG in run.data.tags
        ]
        parents = [run for run in runs if run.data.tags[KEY_TAG] == run.data.tags[COMPARISON_TAG]]
        if not parents:
            there = ", ".join(quoted(e.name) for e in client.search_experiments() if e.name != "Default") or "none"
            raise TrackingError(
                f"no folder {source}, and no comparison in an experiment or by the id {source!r} in {uri}; experiments "
                f"there: {there}. {HOW}"
            )
        parent = max(parents, key=lambda run: run.info.start_time)
        key = parent.data.tags[COMPARISON_TAG]
        folder = place / "comparison"  # not by a name of the store's: it may say anything
        folder.mkdir()
        for name in (COMPARISON_FILE, "results.json"):
            if any(item.path == name for item in client.list_artifacts(parent.info.run_id)):
                client.download_artifacts(parent.info.run_id, name, str(folder))
        for run in runs:
            name = run.data.tags[KEY_TAG].removeprefix(f"{key}/")
            if run.data.tags[COMPARISON_TAG] == key and name != key:
                _write_run(client, run, folder, name)
    except MlflowException as error:
        raise TrackingError(f"MLflow at {uri}: {printable(str(error).splitlines()[0], 300)}") from None
    return folder, f"{printable(key)} in {uri}"


def _pages(client: Any, experiment_id: str, text: str) -> list[Any]:
    runs: list[Any] = []
    token = None
    while True:
        page = client.search_runs([experiment_id], text, max_results=1000, page_token=token)
        runs += page
        token = page.token
        if not token:
            return runs


def _write_run(client: Any, run: Any, folder: Path, name: str) -> None:
    """A run's file as far as a table needs it: that it began, and that it ended.

    Raises:
        TrackingError: its tags name no method and seed, or another run than its key: nothing is written by them.
    """
    tags = run.data.tags
    method, seed = tags.get("method", ""), tags.get("seed", "")
    if not seed.isdecimal() or len(seed) > 9 or name != run_name(method, int(seed)):
        raise TrackingError(
            f"run {run.info.run_id} has method {quoted(method)} and seed {quoted(seed)}, and is called {quoted(name)}; "
            "a run is called <method>-seed<number>: nothing was made of it"
        )
    with tracking.RunLog(folder, method, int(seed)) as log:
        if any(item.path == f"{name}/evaluation.json" for item in client.list_artifacts(run.info.run_id, name)):
            (folder / name).mkdir(exist_ok=True)
            client.download_artifacts(run.info.run_id, f"{name}/evaluation.json", str(folder / name))
        log.end(status="FINISHED" if run.info.status == "FINISHED" else "FAILED")
