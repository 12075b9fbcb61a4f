"""Where a saved allocator comes from: the comparison or training run that holds it, and what it scored there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

from hybridalloc.experiments.replay import COMPARISON_TAG
from hybridalloc.experiments.runlog import COMPARISON_FILE, RunRecord, TrackingError, read_comparison, read_run
from hybridalloc.reports.statistics import mean_of

ADDRESS = "runs:/"


class Lineage(NamedTuple):
    """Tags that say where a model was made, and its metrics there; both empty where nobody knows."""

    tags: dict[str, str]
    metrics: dict[str, float]


def lineage_of(source: str | Path | None, client: Any = None) -> Lineage:
    """Of a saved allocator's path or MLflow address; None, an allocator in memory, has none.

    Args:
        client: MLflow's, for an address.
    """
    if source is None:
        return Lineage({}, {})
    if str(source).startswith(ADDRESS):
        run = client.get_run(str(source).removeprefix(ADDRESS).partition("/")[0])
        metrics = {k.removeprefix("final/"): v for k, v in run.data.metrics.items() if k.startswith("final/")}
        kept = {k: v for k, v in run.data.tags.items() if k in (COMPARISON_TAG, "git_commit", "data_digest", "method")}
        return Lineage(kept | {"hybridalloc.source": str(source), "hybridalloc.source_run": run.info.run_id}, metrics)
    path = Path(source)
    told = {"hybridalloc.source": str(path)}
    found = _record(path)
    if found is None:
        return Lineage(told, {})
    try:
        folder, record = found
        comparison = read_comparison(folder)
    except TrackingError:  # damaged: the model is none the worse
        return Lineage(told, {})
    tags = {
        COMPARISON_TAG: str(comparison["id"]), "git_commit": str(comparison.get("git_commit", "")),
        "data_digest": str(comparison.get("data_digest", "")), "method": record.method, "seed": str(record.seed),
    }  # fmt: skip
    return Lineage(told | {k: v for k, v in tags.items() if v}, _metrics(folder, record))


def _record(path: Path) -> tuple[Path, RunRecord] | None:
    """The comparison's folder and the run that hold the very file, or a copy of it beside its training's record."""
    own = path.parent.parent / f"{path.parent.name}.jsonl"  # runs/<id>/<method>-seed<k>/allocator.npz
    if own.is_file() and (own.parent / COMPARISON_FILE).is_file():
        return own.parent, read_run(own)
    content = path.read_bytes() if path.is_file() else b""
    for copy in path.parent.glob(f"{path.name.removesuffix('.npz')}.runs/*/allocator.npz"):  # as train writes it
        runs = list(copy.parent.glob("*.jsonl"))
        if len(runs) == 1 and copy.read_bytes() == content:
            return copy.parent, read_run(runs[0])
    return None


def _metrics(folder: Path, record: RunRecord) -> dict[str, float]:
    path = folder / record.name / "evaluation.json"
    if not path.is_file():
        return {k: v for k, v in record.summary.items() if v == v}
    rows = json.loads(path.read_text(encoding="utf-8"))["metrics"]
    means = {key: mean_of([float("nan") if v is None else v for v in row]) for key, row in rows.items()}
    return {key: mean for key, mean in means.items() if mean == mean}
