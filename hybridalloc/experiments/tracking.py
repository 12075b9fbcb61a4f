"""Tracking of runs: JSON lines first (:mod:`.runlog`), MLflow a mirror (:mod:`.mirror`)."""

from __future__ import annotations

from hybridalloc.experiments.mirror import MirrorResult, Opening, left_out, mirror
from hybridalloc.experiments.mlflow_store import DEFAULT_URI, check_store, how_to_open
from hybridalloc.experiments.runlog import (
    RunLog,
    RunRecord,
    TrackingError,
    git_commit,
    new_comparison_id,
    read_comparison,
    read_run,
    read_runs,
    run_name,
    write_comparison,
)

__all__ = [
    "DEFAULT_URI",
    "MirrorResult",
    "Opening",
    "RunLog",
    "RunRecord",
    "TrackingError",
    "check_store",
    "git_commit",
    "how_to_open",
    "left_out",
    "mirror",
    "new_comparison_id",
    "read_comparison",
    "read_run",
    "read_runs",
    "run_name",
    "write_comparison",
]
