"""Replay a comparison's JSON lines into MLflow: one parent run, one child a method and seed.

The files of `hybridalloc.experiments.runlog` are the record and MLflow is a copy of it, so nothing here may stop or
long delay a comparison: the work (`hybridalloc.experiments.replay`) is done on a thread that the caller leaves behind
when it stalls, and whatever MLflow did not take is named in the result and taken up by the next replay.
"""

from __future__ import annotations

import threading
import time
import warnings
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from games.extras import missing
from hybridalloc.experiments.mlflow_store import DEFAULT_URI, is_sqlite
from hybridalloc.experiments.replay import Replay
from hybridalloc.experiments.runlog import TrackingError, read_comparison, read_runs

SLOW_S = 4.5  # what a slow or silent MLflow may cost at the end of other work; `hybridalloc sync` brings the rest
PATIENCE = 3  # times that a store may be in trouble while runs go on
FOLLOW_S = 10.0  # between two looks at what the runs have written


@dataclass(frozen=True)
class MirrorResult:
    """What MLflow has after a replay: `done` and `left` name runs; `error` is empty when all is well."""

    parent_run_id: str | None
    experiment_id: str | None
    done: tuple[str, ...]
    left: tuple[str, ...]
    error: str

    @property
    def complete(self) -> bool:
        return not self.left and not self.error

    def __str__(self) -> str:
        if self.complete:
            return f"MLflow has all {len(self.done)} runs (parent {self.parent_run_id})"
        count = len(self.done) + len(self.left)
        left = ", ".join(self.left) or "the parent"
        return (
            f"MLflow has {len(self.done)} of {count} runs; left to replay: {left} ({self.error}). "
            "The record in the run folder is whole; `hybridalloc sync` completes MLflow."
        )


def mirror(
    directory: str | Path,
    tracking_uri: str = DEFAULT_URI,
    experiment: str = "hybridalloc",
    only: Collection[str] | None = None,
    *,
    budget_s: float = 300.0,
    stall_s: float = 60.0,
    slow_s: float = float("inf"),
    warn: bool = True,
) -> MirrorResult:
    """Bring MLflow up to date with a comparison's folder; call it again to complete what was left.

    Args:
        directory: the comparison's folder.
        tracking_uri: MLflow's store. For ``sqlite:///<file>`` artifacts go to ``mlruns`` beside the file.
        experiment: MLflow's experiment, made if missing.
        only: names of runs ("<method>-seed<k>") to bring up to date now; None for all.
        budget_s: longest stay in all.
        stall_s: longest wait for one call to MLflow (the first, on a new sqlite file, takes 3 to 8 s on a
            free machine and 25 s on a loaded one).
        slow_s: stop once what calls took beyond ``FAIR_CALL_S`` each adds up to this: a store that takes seconds a
            call would take hours for a comparison.
        warn: of what is left, once.

    Returns:
        MirrorResult. Trouble with MLflow never raises: it warns once and is in `error`.

    Raises:
        TrackingError: the folder holds no comparison, or a malformed file.
    """
    folder = Path(directory)
    comparison = read_comparison(folder)
    if find_spec("mlflow") is None:
        return left_out(folder, missing("mlflow"), warn)
    records = [record for record in read_runs(folder) if only is None or record.name in only]
    work = Replay(folder, comparison, records, tracking_uri, experiment, opened=not is_sqlite(tracking_uri))
    thread = threading.Thread(target=work.run, name="hybridalloc-mirror", daemon=True)
    began = time.monotonic()
    thread.start()
    while thread.is_alive():
        now = time.monotonic()
        if now - began > budget_s or now - work.alive > stall_s:
            work.stop.set()
            work.error = f"no answer for {now - work.alive:.0f} s, {now - began:.0f} s in all"
            break
        if work.waited(now) > slow_s:
            work.stop.set()
            work.error = f"slow: {work.calls} calls took {now - began:.0f} s"
            break
        thread.join(0.05)
    done = tuple(work.done)
    left = tuple(record.name for record in records if record.name not in done)
    result = MirrorResult(work.parent, work.experiment_id, done, left, work.error)
    if warn and not result.complete:
        warnings.warn(str(result), RuntimeWarning, stacklevel=2)
    return result


def left_out(directory: str | Path, reason: str, warn: bool = True) -> MirrorResult:
    """The result where MLflow was not asked at all: everything is left, for that reason."""
    result = MirrorResult(None, None, (), tuple(record.name for record in read_runs(directory)), reason)
    if warn:
        warnings.warn(str(result), RuntimeWarning, stacklevel=2)
    return result


class Opening:
    """MLflow's first contact with a new store takes seconds: it is had on a thread, while the caller works.

    From then on the thread brings there what the runs write, while they write it, until :meth:`mirror`, or until a
    store is away or slow for the third time in a row: it is left alone then, and gets everything at the end.

    Args:
        directory: the folder to bring there in the end. every_s: between two looks at it.
    """

    def __init__(self, directory: str | Path, tracking_uri: str, every_s: float = FOLLOW_S) -> None:
        self.folder, self.uri, self.every_s = Path(directory), tracking_uri, every_s
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._open, name="hybridalloc-opening", daemon=True)
        self._thread.start()

    def _open(self) -> None:
        with suppress(TrackingError, OSError):  # the mirror at the end says what is missing
            result, trouble = mirror(self.folder, self.uri, only=(), slow_s=SLOW_S, warn=False), 0
            while trouble < PATIENCE and not self._end.wait(self.every_s * 3**trouble):
                trouble = 0 if result.complete else trouble + 1
                result = mirror(self.folder, self.uri, stall_s=SLOW_S, slow_s=SLOW_S, warn=False)

    def opened(self) -> bool:
        """End the thread's work and wait for it, the first contact above all: while it works, not while it only waits
        for a store that does not answer."""
        self._end.set()
        waits = 0  # seconds in which nobody in this process worked
        for _ in range(30 if is_sqlite(self.uri) else 3):  # a new file's tables: half a minute on a loaded machine
            worked = time.process_time()
            self._thread.join(1.0)
            waits = 0 if time.process_time() - worked > 0.02 else waits + 1
            if not self._thread.is_alive() or waits >= SLOW_S:
                break
        return not self._thread.is_alive()

    def mirror(self) -> MirrorResult:
        """Bring MLflow up to date, at a bounded cost; see :func:`mirror`."""
        if self.opened():
            return mirror(self.folder, self.uri, stall_s=SLOW_S, slow_s=SLOW_S)
        return left_out(self.folder, "MLflow has not answered yet")  # two at once would make its runs twice
