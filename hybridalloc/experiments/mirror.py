"""Replay a comparison's JSON lines into MLflow: one parent run, one child a method and seed.

The files of `hybridalloc.experiments.runlog` are the record and MLflow is a copy of it, so nothing here may stop or
long delay a comparison: the work is done on a thread that the caller leaves behind when it stalls, and
whatever MLflow did not take is named in the result and taken up by the next replay. A replay doubles
nothing: runs are found again by their tag ``hybridalloc.run_key``, and the tag ``hybridalloc.lines`` says
how many lines of the file MLflow already has.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import re
import threading
import time
import warnings
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from games.extras import missing
from hybridalloc.experiments.naming import finals, flatten, permitted, readable
from hybridalloc.experiments.runlog import COMPARISON_FILE, RunRecord, TrackingError, read_comparison, read_runs

DEFAULT_URI = "sqlite:///mlflow.db"
OPEN_AGAIN_S = (1.0, 2.0, 4.0)  # waits before opening an sqlite file again
NO_WAITING = ("disk is full", "No space left", "readonly database", "unable to open", "disk I/O")  # of no use then
FAIR_CALL_S = 0.5  # what a call may take before it counts as waiting
SLOW_S = 4.5  # what a slow or silent MLflow may cost at the end of other work; `hybridalloc sync` brings the rest
BATCH = 900  # metrics a call; MLflow takes 1,000 entities a batch, tags included
KEY_TAG = "hybridalloc.run_key"
LINES_TAG = "hybridalloc.lines"
FILES_TAG = "hybridalloc.files"
FINAL_TAG = "hybridalloc.final"
KIND_TAG = {"mlflow.experimentKind": "custom_model_development"}  # else MLflow opens on its pages for traces
PATIENCE = 3  # times that a store may be in trouble while runs go on
FOLLOW_S = 10.0  # between two looks at what the runs have written
COMPARISON_TAG = "hybridalloc.comparison"
SUMMARY_PREFIX = "final/"

# MLflow's defaults hold one call to a dead server for 247 s, and print
_SETTINGS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_BACKOFF_JITTER": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "5",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # two lines a run
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",  # one bar a file
}
_CHATTER = ("alembic", "mlflow.store.db.utils", "mlflow.store.tracking", "mlflow.tracking", "mlflow.pyfunc", "urllib3")


def default_uri() -> str:
    """MLflow's store where none is named: what ``MLFLOW_TRACKING_URI`` says, or else a file in this folder."""
    return os.environ.get("MLFLOW_TRACKING_URI") or DEFAULT_URI


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
    work = _Replay(folder, comparison, records, tracking_uri, experiment, opened=not _is_sqlite(tracking_uri))
    thread = threading.Thread(target=work.run, name="hybridalloc-mirror", daemon=True)
    began = time.monotonic()
    thread.start()
    while thread.is_alive():
        now = time.monotonic()
        if now - began > budget_s or now - work.alive > stall_s:
            work.stop.set()
            work.error = f"no answer for {now - work.alive:.0f} s, {now - began:.0f} s in all"
            break
        if work.opened and work.calling and work.slow + max(now - work.calling - FAIR_CALL_S, 0.0) > slow_s:
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


def how_to_open(tracking_uri: str = DEFAULT_URI, experiment_id: str | None = None) -> str:
    """How to see the mirrored runs: a command, and the address of the experiment's runs.

    MLflow 3.17 opens on its pages for traces, where training runs are not to be seen; so name the
    experiment (`MirrorResult.experiment_id`) for an address that shows them.
    """
    page = f"/#/experiments/{experiment_id}/runs" if experiment_id else "/#/experiments"
    if tracking_uri.startswith(("http://", "https://")):
        return f"open {tracking_uri.rstrip('/')}{page}"
    return f"mlflow ui --backend-store-uri {tracking_uri}   # then open http://127.0.0.1:5000{page}"


@dataclass
class _Replay:
    """The thread's work; `alive` is the time of the last answer, `done` the runs MLflow now has."""

    folder: Path
    comparison: dict[str, Any]
    records: list[RunRecord]
    tracking_uri: str
    experiment: str
    done: list[str] = field(default_factory=list)
    parent: str | None = None
    experiment_id: str | None = None
    error: str = ""
    alive: float = field(default_factory=time.monotonic)
    calling: float = 0.0  # since when a call is under way, 0 between calls
    calls: int = 0
    slow: float = 0.0
    opened: bool = False
    stop: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        try:
            with quiet_mlflow():
                self._replay()
        except Exception as error:  # MLflow's trouble, of whatever kind, must not reach the comparison
            self.error = self.error or f"{type(error).__name__}: {_first_line(error)}"

    def _replay(self) -> None:
        self.alive = time.monotonic()  # importing mlflow took its seconds
        client, experiment_id = self._open()
        self.experiment_id = experiment_id
        known = self._known_runs(client, experiment_id)
        self.parent = self._parent(client, experiment_id, known)
        for record in self.records:
            self._child(client, experiment_id, known, record)
            self.done.append(record.name)
        self._parent_metrics(client, known)
        self._parent_files(client, known)
        self._close_parent(client, known)

    def _call(self, function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        """Call MLflow, unless the caller has gone; note that it answered."""
        if self.stop.is_set():
            raise TimeoutError("left behind")
        self.calling = time.monotonic()
        answer = function(*arguments, **options)
        self.alive = time.monotonic()
        if self.opened:
            self.slow += max(self.alive - self.calling - FAIR_CALL_S, 0.0)
        self.calling, self.calls = 0.0, self.calls + 1
        return answer

    def _open(self) -> tuple[Any, str]:
        """Client and experiment. Two processes that make the tables of one sqlite file collide: wait then."""
        for wait in OPEN_AGAIN_S if _is_sqlite(self.tracking_uri) else ():
            try:
                return self._open_once()
            except TrackingError:
                raise
            except Exception as error:
                if any(words in str(error) for words in NO_WAITING) or self.stop.wait(wait):
                    raise
        return self._open_once()

    def _open_once(self) -> tuple[Any, str]:
        from mlflow.exceptions import MlflowException
        from mlflow.tracking import MlflowClient

        client = self._call(MlflowClient, tracking_uri=self.tracking_uri)
        found = self._call(client.get_experiment_by_name, self.experiment)
        self.opened = True  # a new file's tables, which take long, are there
        if found is None:
            try:
                place = artifact_location(self.tracking_uri)
                return client, self._call(
                    client.create_experiment, self.experiment, artifact_location=place, tags=KIND_TAG
                )
            except MlflowException:  # another process was faster
                found = self._call(client.get_experiment_by_name, self.experiment)
                if found is None:
                    raise
        if found.lifecycle_stage != "active":
            raise TrackingError(f"experiment {self.experiment!r} was deleted in MLflow; restore it or name another")
        return client, found.experiment_id

    def _known_runs(self, client: Any, experiment_id: str) -> dict[str, Any]:
        """Runs of this comparison that MLflow has, by key."""
        text = f"tags.`{COMPARISON_TAG}` = '{self.comparison['id']}'"
        known: dict[str, Any] = {}
        token = None
        while True:
            page = self._call(client.search_runs, [experiment_id], text, max_results=1000, page_token=token)
            known.update({run.data.tags.get(KEY_TAG, ""): run for run in page})
            token = page.token
            if not token:
                return known

    def _tags(self, key: str, record: RunRecord | None) -> dict[str, str]:
        scenario, given = self.comparison.get("scenario") or {}, self.comparison.get("tags")
        if given is None:  # a record without tags says its problem's name
            given = {"scenario": scenario.get("name") or json.dumps(scenario, sort_keys=True)}
        commit = str(self.comparison.get("git_commit", "unknown"))
        tags = {
            **{permitted(name): str(value) for name, value in given.items()},
            "problem": str(self.comparison.get("problem", "")),
            "git_commit": commit,
            "data_digest": str(self.comparison.get("data_digest", "")),
            "mlflow.source.name": "hybridalloc",
            "mlflow.source.type": "LOCAL",
            "mlflow.source.git.commit": commit,
            COMPARISON_TAG: self.comparison["id"],
            KEY_TAG: key,
        }
        if record is not None:
            tags |= {permitted(name): value for name, value in record.tags.items()}
            tags |= {"method": record.method, "seed": str(record.seed), LINES_TAG: "0"}
            tags["mlflow.parentRunId"] = str(self.parent)
        return {name: value[:5000] for name, value in tags.items()}

    def _parent(self, client: Any, experiment_id: str, known: dict[str, Any]) -> str:
        key = self.comparison["id"]
        if key not in known:
            created = self.comparison.get("created")
            known[key] = self._call(
                client.create_run,
                experiment_id,
                start_time=_milliseconds(created) if created else None,
                tags=self._tags(key, None),
                run_name=key,
            )
        run = known[key]
        if FILES_TAG not in run.data.tags:  # the last thing that a replay sets
            self._params(client, run.info.run_id, self._shared_params())
            self._dataset(client, run.info.run_id)
        return run.info.run_id

    def _shared_params(self) -> dict[str, str]:
        shared = {name: self.comparison.get(name) for name in ("problem", "budget", "seeds")}
        return flatten(shared) | readable(self.comparison.get("scenario") or {})

    def _child(self, client: Any, experiment_id: str, known: dict[str, Any], record: RunRecord) -> None:
        key = f"{self.comparison['id']}/{record.name}"
        if key not in known:
            known[key] = self._call(
                client.create_run,
                experiment_id,
                start_time=_milliseconds(record.started),
                tags=self._tags(key, record),
                run_name=record.name,
            )
        run = known[key]
        run_id = run.info.run_id
        have = int(run.data.tags.get(LINES_TAG, 0))
        told = set(run.data.params)
        if have == 0:
            params = self._shared_params() | flatten(record.params)
            self._params(client, run_id, params)
            self._dataset(client, run_id)
            told |= set(params)
        self._lines(client, run_id, record, have, told)
        if record.status != "RUNNING" and (run.info.status != record.status or have < len(record.lines)):
            end = _milliseconds(record.ended or record.started)
            self._call(client.set_terminated, run_id, status=record.status, end_time=end)

    def _lines(self, client: Any, run_id: str, record: RunRecord, have: int, told: set[str]) -> None:
        """Send the lines after the first `have`, each batch with the count of lines it completes; parameters but those
        that it was `told`, since MLflow takes one value of each."""
        from mlflow.entities import Metric, RunTag

        waiting: list[Any] = []
        sent = have

        def send(through: int) -> None:
            nonlocal sent
            if waiting or through > sent:
                self._call(client.log_batch, run_id, metrics=waiting, tags=[RunTag(LINES_TAG, str(through))])
                waiting.clear()
                sent = through

        step = max((line["step"] for line in record.lines[:have] if line["kind"] == "metrics"), default=0)
        for number, line in enumerate(record.lines[have:], start=have + 1):
            stamp = _milliseconds(line["time"])
            points: list[Any] = []
            if line["kind"] == "metrics":
                step = max(step, line["step"])
                points = [Metric(permitted(k), v, stamp, line["step"]) for k, v in _there(line["values"])]
            elif line["kind"] == "end":
                points = [Metric(permitted(SUMMARY_PREFIX + k), v, stamp, step) for k, v in _there(line["summary"])]
            elif line["kind"] == "params":
                fresh = {k: v for k, v in flatten(line["params"]).items() if k not in told}
                self._params(client, run_id, fresh)
                told |= set(fresh)
            elif line["kind"] == "artifact":
                send(number - 1)
                self._artifact(client, run_id, line["path"])
            if len(waiting) + len(points) > BATCH:
                send(number - 1)
            for first in range(0, len(points) - BATCH, BATCH):  # a line of very many values
                self._call(client.log_batch, run_id, metrics=points[first : first + BATCH])
            waiting += points[(max(len(points) - 1, 0) // BATCH) * BATCH :]
        send(len(record.lines))

    def _artifact(self, client: Any, run_id: str, relative: str) -> None:
        path = (self.folder / relative).resolve()
        if not path.is_relative_to(self.folder.resolve()):  # a line of a run's file is data: it names no other place
            name = re.sub(r"[^\w-]+", "_", relative)
            self._call(client.set_tag, run_id, f"hybridalloc.missing.{name}"[:250], "outside the folder")
        elif path.is_file():
            inside = Path(relative).parent.as_posix()
            self._call(client.log_artifact, run_id, str(path), None if inside == "." else inside)
        else:  # deleted since: said in MLflow, and no reason to stop
            self._call(client.set_tag, run_id, f"hybridalloc.missing.{permitted(relative)}"[:250], "deleted")

    def _params(self, client: Any, run_id: str, params: dict[str, str]) -> None:
        from mlflow.entities import Param

        entries = [Param(name, value) for name, value in params.items()]
        for first in range(0, len(entries), 100):
            self._call(client.log_batch, run_id, params=entries[first : first + 100])

    def _dataset(self, client: Any, run_id: str) -> None:
        """Name the data as MLflow's dataset input, whose digest holds 36 characters: of ours, or of theirs together."""
        from mlflow.entities import Dataset, DatasetInput
        from mlflow.exceptions import MlflowException

        digest = str(self.comparison.get("data_digest") or "")
        if not digest:
            return
        names = self.comparison.get("datasets")  # a record without them says its data by its sites
        old = str((self.comparison.get("scenario") or {}).get("sites") or "data")
        name = old if names is None else ", ".join(map(str, names)) or "synthetic"
        source = json.dumps({"sha256": digest, "command": "hybridalloc data verify"})
        dataset = Dataset(name=name, digest=_short(digest), source_type="hybridalloc", source=source)
        try:
            self._call(client.log_inputs, run_id, datasets=[DatasetInput(dataset)])
        except MlflowException as error:  # another comparison named the same data in this moment: it is there now
            if "UNIQUE" not in str(error).upper():
                raise
            self._call(client.log_inputs, run_id, datasets=[DatasetInput(dataset)])

    def _parent_metrics(self, client: Any, known: dict[str, Any]) -> None:
        """The methods' final metrics, so that the parent has something to show; sent where they changed."""
        from mlflow.entities import Metric, RunTag

        values = finals(read_runs(self.folder))
        digest = hashlib.sha256(json.dumps(values).encode()).hexdigest()
        if not values or known[self.comparison["id"]].data.tags.get(FINAL_TAG) == digest:
            return
        stamp = _milliseconds(time.time())
        points = [Metric(key, value, stamp, 0) for key, value in values.items()]
        for first in range(0, len(points), BATCH):
            self._call(client.log_batch, self.parent, metrics=points[first : first + BATCH])
        self._call(client.log_batch, self.parent, tags=[RunTag(FINAL_TAG, digest)])

    def _parent_files(self, client: Any, known: dict[str, Any]) -> None:
        """The comparison's own files: its JSON, the report, the figures; sent when they changed."""
        files = [*self.folder.glob("*.json"), *self.folder.glob("*.html"), *self.folder.glob("*.md")]
        files += [*self.folder.glob("*.csv")]
        files += [path for path in (self.folder / "figures").rglob("*") if path.is_file()]
        files = sorted(path for path in files if path.name != COMPARISON_FILE + ".part")
        total = hashlib.sha256()
        for path in files:
            total.update(path.relative_to(self.folder).as_posix().encode() + b"\0" + path.read_bytes())
        if known[self.comparison["id"]].data.tags.get(FILES_TAG) == total.hexdigest():
            return
        for path in files:
            inside = path.parent.relative_to(self.folder).as_posix()
            self._call(client.log_artifact, self.parent, str(path), None if inside == "." else inside)
        self._call(client.set_tag, self.parent, FILES_TAG, total.hexdigest())

    def _close_parent(self, client: Any, known: dict[str, Any]) -> None:
        """End the parent when every method has its runs and all have ended."""
        records = read_runs(self.folder)
        begun = {record.method for record in records}
        expected = set(self.comparison.get("methods", ()))
        if any(record.status == "RUNNING" for record in records) or not begun >= expected:
            return
        status = "FAILED" if any(record.status == "FAILED" for record in records) else "FINISHED"
        if known[self.comparison["id"]].info.status == status:
            return
        end = max((record.ended or 0.0 for record in records), default=0.0)
        self._call(client.set_terminated, self.parent, status=status, end_time=_milliseconds(end))


@contextmanager
def quiet_mlflow() -> Iterator[None]:
    """MLflow's environment for a replay: short waits (unless the user set them), no chatter, no telemetry."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # read when mlflow is imported
    added = {name: value for name, value in _SETTINGS.items() if name not in os.environ}
    os.environ.update(added)
    import mlflow  # noqa: F401  (sets up its loggers, so their levels are changed after it)

    loggers = {name: logging.getLogger(name) for name in _CHATTER}
    levels = {name: logger.level for name, logger in loggers.items()}
    for logger in loggers.values():
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for name, logger in loggers.items():
            logger.setLevel(levels[name])
        for name in added:
            os.environ.pop(name, None)


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
        for _ in range(30 if _is_sqlite(self.uri) else 3):  # a new file's tables: half a minute on a loaded machine
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


def _short(digest: str) -> str:
    """A digest as MLflow holds it; that of several data sets is taken together, as its beginning is the first one's."""
    return (digest if len(digest) <= 64 else hashlib.sha256(digest.encode()).hexdigest())[:36]


def _there(values: dict[str, Any]) -> list[tuple[str, float]]:
    """The figures that are there: NaN, a mean of nothing, is no figure."""
    return [(key, float(value)) for key, value in values.items() if not math.isnan(float(value))]


def _is_sqlite(uri: str) -> bool:
    return uri.startswith("sqlite:")


def sqlite_file(tracking_uri: str) -> Path | None:
    """The file of an sqlite store, read from the address as MLflow reads it ("%20" is a space); None of another one."""
    if not _is_sqlite(tracking_uri):
        return None
    from sqlalchemy import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        name = make_url(tracking_uri).database
    except ArgumentError as error:
        raise TrackingError(f"{tracking_uri} is no address of a store ({_first_line(error)})") from None
    return Path(name).resolve() if name and name != ":memory:" else None


def artifact_location(tracking_uri: str) -> str | None:
    """`mlruns` beside an sqlite file (MLflow's own default is beside the caller's folder of the day)."""
    file = sqlite_file(tracking_uri)
    return (file.parent / "mlruns").as_uri() if file else None


def _milliseconds(seconds: float) -> int:
    return round(seconds * 1000)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [""])[0][:300]
