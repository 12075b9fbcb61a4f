"""One replay of a comparison's JSON lines into MLflow, call by call; :mod:`.mirror` bounds what it may cost.

A replay doubles nothing: runs are found again by their tag ``hybridalloc.run_key``, and the tag ``hybridalloc.lines``
says how many lines of the file MLflow already has.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hybridalloc.experiments.mlflow_store import KIND_TAG, artifact_location, first_line, is_sqlite, quiet_mlflow
from hybridalloc.experiments.naming import finals, flatten, permitted, readable
from hybridalloc.experiments.runlog import COMPARISON_FILE, RunRecord, TrackingError, read_runs

OPEN_AGAIN_S = (1.0, 2.0, 4.0)  # waits before opening an sqlite file again
NO_WAITING = ("disk is full", "No space left", "readonly database", "unable to open", "disk I/O")  # of no use then
FAIR_CALL_S = 0.5  # what a call may take before it counts as waiting
BATCH = 900  # metrics a call; MLflow takes 1,000 entities a batch, tags included
KEY_TAG = "hybridalloc.run_key"
LINES_TAG = "hybridalloc.lines"
FILES_TAG = "hybridalloc.files"
FINAL_TAG = "hybridalloc.final"
COMPARISON_TAG = "hybridalloc.comparison"
SUMMARY_PREFIX = "final/"


@dataclass
class Replay:
    """What the thread of :func:`~hybridalloc.experiments.mirror.mirror` does; `alive` is the time of the last answer,
    `done` the runs MLflow now has."""

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
            self.error = self.error or f"{type(error).__name__}: {first_line(error)}"

    def waited(self, now: float) -> float:
        """Seconds that calls took beyond ``FAIR_CALL_S`` each, the one under way included; 0 between calls."""
        if not self.opened or not self.calling:
            return 0.0
        return self.slow + max(now - self.calling - FAIR_CALL_S, 0.0)

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
        for wait in OPEN_AGAIN_S if is_sqlite(self.tracking_uri) else ():
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


def _short(digest: str) -> str:
    """A digest as MLflow holds it; that of several data sets is taken together, as its beginning is the first one's."""
    return (digest if len(digest) <= 64 else hashlib.sha256(digest.encode()).hexdigest())[:36]


def _there(values: dict[str, Any]) -> list[tuple[str, float]]:
    """The figures that are there: NaN, a mean of nothing, is no figure."""
    return [(key, float(value)) for key, value in values.items() if not math.isnan(float(value))]


def _milliseconds(seconds: float) -> int:
    return round(seconds * 1000)
