"""What ``hybridalloc train`` leaves: lines of JSON as it goes, and MLflow's copy of them."""

from __future__ import annotations

import json
import time

from hybridalloc.cli import main
from hybridalloc.experiments import progress
from hybridalloc.experiments.progress import Stage
from hybridalloc.experiments.tracking import read_run
from rl.imappo import Imappo

SMALL = [
    "train", "--sites", "synthetic", "--agents", "3", "--servers", "2", "--tuning", "0", "--belief", "",
    "--agent-steps", "6144", "--checkpoint-every", "3072", "--quiet", "--json", "--no-calibrate",
]  # fmt: skip


def test_a_run_leaves_its_curve_in_a_record_and_in_mlflow(tmp_path, capsys, monkeypatch):
    from mlflow.tracking import MlflowClient

    monkeypatch.chdir(tmp_path)
    uri = "sqlite:///store.db"
    assert main([*SMALL, "--out", "a.npz", "--tracking-uri", uri]) == 0
    told = json.loads(capsys.readouterr().out)
    (path,) = (tmp_path / "a.runs").glob("*/hybrid-imappo-seed0.jsonl")
    run = read_run(path)
    assert run.status == "FINISHED" and run.params["engine"] == "compiled" == told["engine"]
    steps, checks = run.series("check_welfare")
    assert steps == [row["agent_steps"] for row in told["curve"]]
    assert checks == [row["welfare"] if "welfare" in row else row["check_welfare"] for row in told["curve"]]
    assert run.series("time/agent_steps_per_second")[1][-1] > 0
    assert main(["sync", str(path.parent), "--tracking-uri", uri]) == 0  # where it lags
    client = MlflowClient(tracking_uri=uri)
    found = client.search_runs([client.get_experiment_by_name("hybridalloc").experiment_id])
    (child,) = [r for r in found if "mlflow.parentRunId" in r.data.tags]
    assert child.data.params["engine"] == "compiled" and child.info.status == "FINISHED"
    history = client.get_metric_history(child.info.run_id, "check_welfare")
    assert [m.step for m in history] == steps and [m.value for m in history] == checks
    assert "allocator.npz" in [f.path for f in client.list_artifacts(child.info.run_id)]

    assert (
        main(
            [
                "train",
                "--resume",
                "a.checkpoints/best.pt",
                "--out",
                "a.npz",
                "--quiet",
                "--no-calibrate",
                "--tracking-uri",
                "",
            ]
        )
        == 0
    )
    assert [p.name for p in (tmp_path / "a.runs").iterdir()] == [path.parent.name]  # gone on with, not begun anew
    again = read_run(path)
    assert again.status == "FINISHED" and again.series("check_welfare") == (steps, checks)
    assert main([*SMALL, "--out", "a.npz", "--tracking-uri", ""]) == 0
    assert len(list((tmp_path / "a.runs").iterdir())) == 2


def test_a_run_that_is_stopped_says_so_in_its_record(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)

    def broken(*_: object, **__: object) -> None:
        raise FloatingPointError("the gradient of actor is not finite")

    monkeypatch.setattr(Imappo, "learn", broken)
    assert main([*SMALL, "--out", "a.npz", "--tracking-uri", ""]) == 2
    assert "not finite" in capsys.readouterr().err
    (path,) = (tmp_path / "a.runs").glob("*/hybrid-imappo-seed0.jsonl")
    assert read_run(path).status == "FAILED"


def test_a_log_is_told_speed_and_time_left_now_and_then(capsys, monkeypatch):
    clock = 100.0
    monkeypatch.setattr(progress, "time", type("T", (), {"monotonic": lambda: clock, "strftime": time.strftime}))
    with Stage("training", 100_000, "step") as stage:
        stage.skip(20_000)
        for _ in range(4):
            clock += 10.0
            stage.note(welfare="0.4000")
            stage.update(10_000)
    lines = [line.split(" ", 1)[1] for line in capsys.readouterr().err.splitlines()]
    assert lines == [
        "training: 100,000 steps",
        "training: 50,000 of 100,000 steps, 1,000 steps/s, 50 s left, welfare 0.4000",
        "training: done in 40 s, 1,000 steps/s, welfare 0.4000",
    ]


def test_slow_work_is_told_by_the_minute(capsys, monkeypatch):
    clock = 0.0
    monkeypatch.setattr(progress, "time", type("T", (), {"monotonic": lambda: clock, "strftime": time.strftime}))
    with Stage("learning a value", 3, "round") as stage:
        clock += 40.0
        stage.update()
    assert "1 of 3 rounds, 1.5 rounds/min, 80 s left" in capsys.readouterr().err
