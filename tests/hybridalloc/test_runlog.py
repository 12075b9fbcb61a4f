"""Runs on disk: what is written can be read, a torn file is mended, nothing is overwritten."""

from __future__ import annotations

import json
import math
import multiprocessing
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from hybridalloc.experiments import tracking
from hybridalloc.experiments.tracking import RunLog, TrackingError


def test_lines_are_as_documented_and_read_back(tmp_path: Path) -> None:
    with RunLog(tmp_path / "c", "hybrid-imappo", 3, {"trust": np.float32(10), "hidden": (64, 64)}, {"a": "b"}) as log:
        log.metrics(0, {"welfare": np.float64(0.5), "loss": math.inf})
        log.metrics(np.int64(50), {"welfare": 0.75, "loss": math.nan})
        (tmp_path / "c" / "checkpoints").mkdir()
        (tmp_path / "c" / "checkpoints" / "x.pt").write_text("x")
        log.artifact(tmp_path / "c" / "checkpoints" / "x.pt")
        log.end({"welfare": 0.7})
    path = tmp_path / "c" / "hybrid-imappo-seed3.jsonl"
    lines = [json.loads(row, parse_constant=pytest.fail) for row in path.read_text().splitlines()]
    assert [line["kind"] for line in lines] == ["start", "metrics", "metrics", "artifact", "end"]
    assert lines[0]["params"] == {"trust": 10.0, "hidden": [64, 64]} and lines[0]["tags"] == {"a": "b"}
    assert lines[1]["values"] == {"welfare": 0.5, "loss": "Infinity"} and lines[2]["values"]["loss"] == "NaN"
    assert lines[3]["path"] == "checkpoints/x.pt"
    times = [line["time"] for line in lines]
    assert times == sorted(times)

    record = tracking.read_run(path)
    assert (record.method, record.seed, record.status) == ("hybrid-imappo", 3, "FINISHED")
    assert record.series("welfare") == ([0, 50], [0.5, 0.75])
    assert record.metrics[0][2]["loss"] == math.inf and math.isnan(record.metrics[1][2]["loss"])
    assert record.summary == {"welfare": 0.7} and record.artifacts == ("checkpoints/x.pt",)


def test_each_line_is_on_disk_at_once_and_an_exception_ends_as_failed(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), RunLog(tmp_path, "dqn", 0) as log:
        log.metrics(1, {"welfare": 1.0})
        running = tracking.read_run(log.path)
        assert running.status == "RUNNING" and running.series("welfare") == ([1], [1.0])
        log.metrics(2, {"welfare": 1 / 0})
    record = tracking.read_run(log.path)
    assert record.status == "FAILED" and record.ended is not None and record.series("welfare") == ([1], [1.0])


def test_torn_last_line_is_dropped_and_a_resumed_run_goes_on(tmp_path: Path) -> None:
    log = RunLog(tmp_path, "dqn", 0, {"lr": 1})
    log.metrics(1, {"welfare": 1.0})
    log.metrics(2, {"welfare": 2.0})
    with log.path.open("a") as stream:
        stream.write('{"kind":"metr')
    assert tracking.read_run(log.path).series("welfare") == ([1, 2], [1.0, 2.0])
    with RunLog(tmp_path, "dqn", 0, resume=True) as again:
        again.metrics(2, {"welfare": 2.5})
        again.metrics(3, {"welfare": 3.0})
    record = tracking.read_run(log.path)
    assert record.series("welfare") == ([1, 2, 3], [1.0, 2.5, 3.0])
    assert record.status == "FINISHED" and record.params == {"lr": 1}


def test_nothing_is_overwritten_or_written_late(tmp_path: Path) -> None:
    with RunLog(tmp_path, "dqn", 0) as log:
        pass
    with pytest.raises(TrackingError, match=r"dqn-seed0\.jsonl exists; pass resume=True"):
        RunLog(tmp_path, "dqn", 0)
    with pytest.raises(TrackingError, match="dqn-seed0: metrics after the run's end"):
        log.metrics(1, {})
    with pytest.raises(ValueError, match="status = 'DONE'; required is one of FINISHED, FAILED"):
        RunLog(tmp_path, "dqn", 1).end(status="DONE")


@pytest.mark.parametrize("method", ["a/b", "", "../x", "a b", ".hidden"])
def test_method_must_be_able_to_name_a_file(method: str, tmp_path: Path) -> None:
    with pytest.raises(TrackingError, match="letters, digits"):
        RunLog(tmp_path, method, 0)


def test_artifact_outside_or_missing_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("x")
    log = RunLog(tmp_path / "c", "dqn", 0)
    with pytest.raises(TrackingError, match="lies outside"):
        log.artifact("../x")
    with pytest.raises(TrackingError, match="does not exist; write it before"):
        log.artifact("nothing.pt")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1: a line of kind start is required"),
        ('{"kind":"end"}\n', "line 1: a line of kind start is required"),
        ('{"kind":"start"}\n{"kind"\n{}\n', "line 2, column 8: Expecting"),
        ('{"kind":"start"}\n{"kind":"stop"}\n', "line 2: kind start, metrics, params, artifact or end is required"),
        ('{"kind":"start"}\n7\n', "line 2: kind start"),
    ],
)
def test_malformed_file_names_its_line(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "a-seed0.jsonl"
    path.write_text(text)
    with pytest.raises(TrackingError, match=r"a-seed0\.jsonl, " + message):
        tracking.read_run(path)


def _write_run(folder: Path, seed: int) -> None:
    with RunLog(folder, "m", seed) as log:
        for step in range(200):
            log.metrics(step, {"welfare": seed + step})


def test_many_processes_write_one_comparison(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_write_run, args=(tmp_path, seed)) for seed in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    records = tracking.read_runs(tmp_path)
    assert [record.seed for record in records] == [0, 1, 2, 3]
    assert all(record.series("welfare")[1] == [r + record.seed for r in range(200)] for record in records)


def test_comparison_file(tmp_path: Path) -> None:
    identity = tracking.new_comparison_id("mec")
    assert identity.startswith("mec-20") and identity != tracking.new_comparison_id("mec")
    written = tracking.write_comparison(
        tmp_path / identity,
        problem="mec",
        scenario={"agents": np.int64(50)},
        methods=["a"],
        seeds={"train": range(5)},
        budget={"agent_steps": 1000},
        data_digest="",
    )
    assert tracking.read_comparison(tmp_path / identity) == written
    assert written["id"] == identity and written["seeds"] == {"train": [0, 1, 2, 3, 4]}
    with pytest.raises(TrackingError, match=f"does not exist; comparisons beside it: .*{identity}"):
        tracking.read_comparison(tmp_path / "other")
    (tmp_path / identity / "comparison.json").write_text("{")
    with pytest.raises(TrackingError, match=r"comparison\.json, line 1, column 2"):
        tracking.read_comparison(tmp_path / identity)


def test_git_commit_is_that_of_the_folder(tmp_path: Path) -> None:
    assert tracking.git_commit(tmp_path) == "unknown"
    git = ["git", "-C", str(tmp_path), "-c", "user.name=n", "-c", "user.email=e@e"]
    subprocess.run([*git, "init", "-q"], check=True)
    (tmp_path / "a").write_text("1")
    subprocess.run([*git, "add", "a"], check=True)
    subprocess.run([*git, "commit", "-qm", "one"], check=True)
    head = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    assert tracking.git_commit(tmp_path) == head
    (tmp_path / "a").write_text("2")
    assert tracking.git_commit(tmp_path) == head + "-dirty"


def test_importing_the_tracking_imports_no_mlflow() -> None:
    code = "import sys, hybridalloc.experiments.tracking; print('mlflow' in sys.modules)"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "False"


def test_strict_json_has_null_for_a_mean_of_nothing(tmp_path: Path) -> None:
    from hybridalloc.experiments import tracking
    from hybridalloc.experiments.jobs import Job, run_job
    from hybridalloc.experiments.runlog import strict
    from hybridalloc.problems import make_problem

    nan = math.nan
    told = strict(
        {"a": [1.0, nan], "b": np.array([[nan, 2.0]]), "c": (np.float64(nan), np.int64(3), "x", True), 4: None}
    )
    assert told == {"a": [1.0, None], "b": [[None, 2.0]], "c": [None, 3, "x", True], "4": None}
    problem = make_problem("mec", agents=0, servers=2)
    job = Job(str(tmp_path), "nearest", 0, problem.describe(), problem.card.prices()._asdict(), "", 100, 2, {})
    metrics = run_job(job)["metrics"]
    text = (tmp_path / "nearest-seed0" / "evaluation.json").read_text(encoding="utf-8")
    assert json.loads(text, parse_constant=pytest.fail)["metrics"] == metrics
    assert metrics["latency"] == metrics["welfare"] == [None, None]
    summary = tracking.read_run(tmp_path / "nearest-seed0.jsonl").summary
    assert "latency" not in summary and "welfare" not in summary and summary["violations"] == 0
