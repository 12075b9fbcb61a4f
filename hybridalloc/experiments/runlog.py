"""Runs on disk: one folder a comparison, one JSON-lines file a method and seed.

    runs/<comparison id>/comparison.json       what is compared: problem, scenario, methods, seeds, ...
    runs/<comparison id>/<method>-seed<k>.jsonl

The lines of a run are, in order of writing,

    {"kind": "start", "method": "...", "seed": 0, "params": {}, "tags": {}, "time": 0.0}
    {"kind": "metrics", "step": 0, "time": 0.0, "values": {"welfare": 0.0}}
    {"kind": "params", "params": {}, "time": 0.0}
    {"kind": "artifact", "path": "relative/to/the/comparison.pt", "time": 0.0}
    {"kind": "end", "status": "FINISHED", "summary": {"welfare": 0.0}, "time": 0.0}

Times are seconds since 1970. Infinite values and NaN, which JSON lacks, stand as the strings "Infinity",
"-Infinity" and "NaN", which `float` reads. Each line is written and flushed whole, so a killed process
leaves at most one torn last line, which the reader drops. These files are the record; MLflow mirrors them.
"""

from __future__ import annotations

import json
import math
import re
import secrets
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from hybridalloc.files import write_text
from hybridalloc.text import printable, quoted

COMPARISON_FILE = "comparison.json"
KINDS = ("start", "metrics", "params", "artifact", "end")  # of a run's lines
STATUSES = ("FINISHED", "FAILED")


class TrackingError(RuntimeError):
    """A run's record is missing, malformed, or would be overwritten."""


@dataclass(frozen=True)
class RunRecord:
    """What a run's file says.

    `status` is "RUNNING" until an end line was written. `metrics` are (step, time in s, values) by step;
    a figure logged twice at a step (by a resumed run) keeps its last value. `lines` are the parsed lines as they lie.
    """

    name: str
    method: str
    seed: int
    params: dict[str, Any]
    tags: dict[str, str]
    started: float
    ended: float | None
    status: str
    summary: dict[str, float]
    metrics: tuple[tuple[int, float, dict[str, float]], ...]
    artifacts: tuple[str, ...]
    lines: tuple[dict[str, Any], ...]

    def series(self, metric: str) -> tuple[list[int], list[float]]:
        """Steps and values of one metric, where it was logged."""
        found = [(step, values[metric]) for step, _, values in self.metrics if metric in values]
        return [step for step, _ in found], [value for _, value in found]


class RunLog:
    """Writes one run, line by line; a context manager that ends the run as FAILED on an exception.

    Args:
        directory: the comparison's folder; made if missing.
        method: letters, digits and ``. _ + = -`` (it becomes part of the file's name).
        seed: training seed, >= 0.
        params: settings of the method; anything JSON holds, numpy numbers included.
        tags: short strings.
        resume: go on with an existing file (a new start line is added) instead of refusing it.

    Raises:
        TrackingError: a name that no file can have, or a run that exists and is not to be resumed.
    """

    def __init__(
        self,
        directory: str | Path,
        method: str,
        seed: int,
        params: Mapping[str, Any] | None = None,
        tags: Mapping[str, str] | None = None,
        *,
        resume: bool = False,
    ) -> None:
        self.directory = Path(directory)
        self.name = run_name(method, seed)
        self.path = self.directory / f"{self.name}.jsonl"
        self.directory.mkdir(parents=True, exist_ok=True)
        if resume and self.path.exists():
            _drop_torn_line(self.path)
        try:
            self._stream = self.path.open("a" if resume else "x", encoding="utf-8")
        except FileExistsError:
            raise TrackingError(
                f"{self.path} exists; pass resume=True to go on with it, or use another directory"
            ) from None
        self._ended = False
        self._write(
            "start",
            method=method,
            seed=int(seed),
            params=dict(params or {}),
            tags={key: str(value) for key, value in (tags or {}).items()},
        )

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Log numbers of one step (agent-steps, iterations: whatever the comparison counts)."""
        self._write("metrics", step=int(step), values={key: float(value) for key, value in values.items()})

    def params(self, values: Mapping[str, Any]) -> None:
        """Add settings that were not known when the run began."""
        self._write("params", params=dict(values))

    def artifact(self, path: str | Path) -> None:
        """Name a file inside the comparison's folder (absolute, or relative to it) as the run's.

        Raises:
            TrackingError: the file does not exist or lies outside the folder.
        """
        full = (self.directory / path).resolve()
        if not full.is_file():
            raise TrackingError(f"{self.name}: artifact {full} does not exist; write it before logging it")
        if not full.is_relative_to(self.directory.resolve()):
            raise TrackingError(f"{self.name}: artifact {full} lies outside {self.directory}; write it inside")
        self._write("artifact", path=full.relative_to(self.directory.resolve()).as_posix())

    def end(self, summary: Mapping[str, float] | None = None, status: str = "FINISHED") -> None:
        """Close the run with its final numbers; status FINISHED or FAILED. Later calls do nothing."""
        if status not in STATUSES:
            raise ValueError(f"status = {status!r}; required is one of {', '.join(STATUSES)}")
        if self._ended:
            return
        self._write("end", status=status, summary={key: float(value) for key, value in (summary or {}).items()})
        self._ended = True
        self._stream.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end(status="FINISHED" if kind is None else "FAILED")

    def _write(self, kind: str, **fields: Any) -> None:
        if self._stream.closed:
            raise TrackingError(f"{self.name}: {kind} after the run's end")
        line = {"kind": kind, **fields, "time": time.time()}
        self._stream.write(json.dumps(plain(line), allow_nan=False, separators=(",", ":")) + "\n")
        self._stream.flush()


def run_name(method: str, seed: int) -> str:
    """`<method>-seed<k>`, the name of a run and of its file."""
    if not isinstance(method, str) or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._+=-]{0,150}", method):
        raise TrackingError(f"method = {quoted(method)}; letters, digits and ._+=- are required, as it names a file")
    if int(seed) < 0:
        raise TrackingError(f"seed = {seed}; >= 0 is required")
    return f"{method}-seed{int(seed)}"


def write_comparison(
    directory: str | Path,
    *,
    problem: str,
    scenario: Mapping[str, Any],
    methods: Sequence[str],
    seeds: Mapping[str, Sequence[int]] | Sequence[int],
    budget: Mapping[str, Any],
    data_digest: str,
    datasets: Sequence[str] | None = None,
    tags: Mapping[str, str] | None = None,
    git: str | None = None,
    settings: Mapping[str, Any] | None = None,
    defaults: int | None = None,
) -> dict[str, Any]:
    """Write `comparison.json` (its id is the folder's name) and return what it holds.

    Args:
        data_digest: of all ``datasets``, names of data sets. tags: by which its runs are told apart in a tracker.
        settings: what was asked for, by name; a comparison that goes on must be asked for the same.
        defaults: which of the learners' defaults hold (:data:`hybridalloc.training.learners.DEFAULTS`).
    """
    folder = Path(directory)
    comparison = plain(
        {
            "id": folder.resolve().name,
            "problem": problem,
            "scenario": dict(scenario),
            "methods": list(methods),
            "seeds": dict(seeds) if isinstance(seeds, Mapping) else list(seeds),
            "budget": dict(budget),
            "git_commit": git_commit() if git is None else git,
            "data_digest": data_digest,
            "created": time.time(),
        }
        | ({} if datasets is None else {"datasets": list(datasets)})
        | ({} if tags is None else {"tags": dict(tags)})
        | ({} if settings is None else {"settings": dict(settings)})
        | ({} if defaults is None else {"defaults": defaults})
    )
    write_text(folder / COMPARISON_FILE, json.dumps(comparison, indent=2, allow_nan=False) + "\n")
    return comparison


def read_comparison(directory: str | Path) -> dict[str, Any]:
    """What `comparison.json` holds.

    Raises:
        TrackingError: no such file (the folders that have one are listed), or not JSON.
    """
    path = Path(directory) / COMPARISON_FILE
    try:
        comparison = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        near = sorted(str(found.parent) for found in path.parent.parent.glob(f"*/{COMPARISON_FILE}"))
        have = f"comparisons beside it: {', '.join(near)}" if near else "make one with `hybridalloc compare`"
        raise TrackingError(f"{path} does not exist; {have}") from None
    except json.JSONDecodeError as error:
        raise TrackingError(f"{path}, line {error.lineno}, column {error.colno}: {error.msg}") from None
    if not isinstance(comparison, dict) or "id" not in comparison:
        raise TrackingError(f"{path}: an object with an id is required")
    return comparison


def read_runs(directory: str | Path) -> tuple[RunRecord, ...]:
    """All runs of a comparison, by method and seed."""
    records = [read_run(path) for path in Path(directory).glob("*-seed*.jsonl")]
    return tuple(sorted(records, key=lambda record: (record.method, record.seed)))


def read_run(path: str | Path) -> RunRecord:
    """Read one run's file.

    Raises:
        TrackingError: a line is not JSON ("..., line 3: ..."; a torn last line is dropped instead), is of
            no known kind, or there is no start line; or a line's field is missing or not of its kind.
    """
    path = Path(path)
    lines = _parse(path)
    try:
        return _record(path, lines)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        reason = printable(f"{type(error).__name__}: {error}", 200)
        raise TrackingError(f"{path} is damaged: a field is missing or not of its kind ({reason})") from None


def _record(path: Path, lines: list[dict[str, Any]]) -> RunRecord:
    if not lines or lines[0]["kind"] != "start":
        raise TrackingError(f"{path}, line 1: a line of kind start is required")
    start = lines[0]
    params = dict(start["params"])
    steps: dict[int, tuple[int, float, dict[str, float]]] = {}
    artifacts: dict[str, None] = {}
    end: dict[str, Any] | None = None
    for line in lines:
        if line["kind"] == "metrics":
            values = {key: float(value) for key, value in line["values"].items()}
            before = steps[line["step"]][2] if line["step"] in steps else {}
            steps[line["step"]] = (line["step"], line["time"], before | values)
        elif line["kind"] == "params":
            params |= line["params"]
        elif line["kind"] == "artifact":
            artifacts[line["path"]] = None
        else:  # a start after an end is a resumed run, which runs again
            end = line if line["kind"] == "end" else None
    return RunRecord(
        name=path.stem,
        method=start["method"],
        seed=start["seed"],
        params=params,
        tags=start["tags"],
        started=start["time"],
        ended=end["time"] if end else None,
        status=end["status"] if end else "RUNNING",
        summary={key: float(value) for key, value in end["summary"].items()} if end else {},
        metrics=tuple(steps[step] for step in sorted(steps)),
        artifacts=tuple(artifacts),
        lines=tuple(lines),
    )


def new_comparison_id(problem: str) -> str:
    """A name for a comparison's folder: problem, UTC time, four random characters."""
    return f"{problem}-{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{secrets.token_hex(2)}"


def git_commit(folder: str | Path | None = None) -> str:
    """Commit of the working tree that holds `folder` (default: this package), or "unknown".

    "-dirty" is appended when a tracked file differs from the commit.
    """
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        answer = subprocess.run(
            command,
            cwd=folder or Path(__file__).parent,
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return answer.stdout.strip() or "unknown"


def plain(value: Any) -> Any:
    """`value` as JSON can hold it: numpy to lists and numbers, paths to strings, NaN to "NaN"."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, str) or value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        if math.isfinite(value):
            return float(value)
        return "NaN" if math.isnan(value) else ("Infinity" if value > 0 else "-Infinity")
    if hasattr(value, "tolist"):  # numpy arrays and numbers
        return plain(value.tolist())
    if isinstance(value, Sequence | set | frozenset):
        return [plain(item) for item in value]
    return str(value)


def strict(value: Any) -> Any:
    """`value` as strict JSON can hold it, for what is read as numbers: NaN, a mean of nothing, becomes null."""
    if isinstance(value, Mapping):
        return {str(key): strict(item) for key, item in value.items()}
    if isinstance(value, list | tuple) or hasattr(value, "tolist"):
        listed = value.tolist() if hasattr(value, "tolist") else value
        return [strict(item) for item in listed] if isinstance(listed, list | tuple) else strict(listed)
    return None if isinstance(value, float) and math.isnan(value) else plain(value)


def _parse(path: Path) -> list[dict[str, Any]]:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise TrackingError(f"{path} does not exist") from None
    rows = text.split("\n")
    rows.pop()  # what follows the last newline: nothing, or a torn line
    lines = []
    for number, row in enumerate(rows, start=1):
        try:
            line = json.loads(row)
        except json.JSONDecodeError as error:
            raise TrackingError(f"{path}, line {number}, column {error.colno}: {error.msg}") from None
        if not isinstance(line, dict) or line.get("kind") not in KINDS:
            raise TrackingError(f"{path}, line {number}: kind {', '.join(KINDS[:-1])} or {KINDS[-1]} is required")
        lines.append(line)
    return lines


def _drop_torn_line(path: Path) -> None:
    """Cut what follows the last newline, so that a resumed run starts on a line of its own."""
    content = path.read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        with path.open("r+b") as stream:
            stream.truncate(whole)
