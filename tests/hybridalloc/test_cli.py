"""The commands as a user runs them."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest

from hybridalloc import Allocator, make_problem
from hybridalloc.cli import main


def test_step_reads_a_state_and_writes_an_allocation(capsys, monkeypatch):
    assert main(["step", "--example"]) == 0
    state = capsys.readouterr().out
    monkeypatch.setattr("sys.stdin", io.StringIO(state))
    assert main(["step", "--method", "game"]) == 0
    allocation = json.loads(capsys.readouterr().out)
    assert len(allocation["option"]) == 6
    assert allocation["certificate"]["feasible"] is True
    assert allocation["certificate"]["source"] == "game"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"deadline_s": [0.03, 0.0, 0.03, 0.03, 0.03, 0.03]}, "deadline_s[1] = 0.0; it must be finite and > 0 s"),
        ({"server_hz": [1e10, -1.0, 1e10]}, "server_hz[1] = -1.0; it must be finite and > 0 Hz"),
        ({"task_bit": [1.0] * 6}, "unknown field 'task_bit'; did you mean 'task_bits'"),
    ],
)
def test_step_names_what_is_wrong_with_a_state(capsys, monkeypatch, change, message):
    main(["step", "--example"])
    state = json.loads(capsys.readouterr().out) | change
    monkeypatch.setattr("sys.stdin", io.StringIO(json.dumps(state)))
    assert main(["step"]) == 2
    assert message in capsys.readouterr().err


def test_step_says_where_json_breaks(capsys, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO('{"active": [tru]}'))
    assert main(["step"]) == 2
    assert "standard input is not JSON: line 1, column 13" in capsys.readouterr().err


@pytest.mark.parametrize("problem", ["mec", "custom"])
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("null", "got NoneType"),
        ("[1, 2]", "got list"),
        ("5", "got int"),
        ("[" * 100_000 + "]" * 100_000, "standard input is nested too deep; a state's lists have 3 levels at most"),
        ('{"a":' * 100_000 + "1" + "}" * 100_000, "standard input is nested too deep"),
        ('{"slot": ' + "9" * 5000 + "}", "standard input holds a number that cannot be read"),
    ],
)
def test_what_is_no_state_is_refused_in_one_line(capsys, monkeypatch, problem, text, message):
    monkeypatch.setattr("sys.stdin", io.StringIO(text))
    assert main(["step", "--problem", problem]) == 2
    out, err = capsys.readouterr()
    assert not out and err.count("\n") == 1 and err.startswith("hybridalloc: ") and message in err and len(err) < 300


def test_evaluate_shows_a_mean_of_nothing_as_a_dash_and_leaves_it_out_of_json(capsys, tmp_path):
    path = str(Allocator(make_problem("mec", agents=0, servers=2), "game").save(tmp_path / "a.npz"))
    assert main(["evaluate", path, "--seeds", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("latency of completed tasks") and line.endswith("–") for line in lines)
    assert main(["evaluate", path, "--seeds", "2", "--json"]) == 0
    told = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert "latency" not in told and "welfare" not in told and told["violations"] == 0


def test_without_data_or_network_the_user_is_told_what_to_do(capsys, monkeypatch, tmp_path):
    monkeypatch.delenv("HYBRIDALLOC_DATA", raising=False)
    monkeypatch.setenv("HYBRIDALLOC_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("pooch.HTTPDownloader.__call__", _offline)
    monkeypatch.setattr("hybridalloc.problems.mec.sites._CACHE", {})
    assert main(["compare", "--runs", str(tmp_path / "runs")]) == 2
    told = capsys.readouterr().err
    assert "HYBRIDALLOC_DATA" in told and "--sites synthetic" in told
    assert not (tmp_path / "runs").exists()


def _offline(*_args, **_kwargs):
    raise OSError("no network in this test")


def test_an_unknown_method_lists_the_nearest(capsys):
    assert main(["compare", "--sites", "synthetic", "--methods", "hybrid-imapo"]) == 2
    assert "unknown method 'hybrid-imapo'; did you mean 'hybrid-imappo'" in capsys.readouterr().err


def test_values_are_read_as_people_write_them():
    from hybridalloc.commands.terminal import pairs

    words = (
        "a=.85",
        "b=3.",
        "c=+2",
        "d=-.5e3",
        "e=False",
        "f=true",
        "g=[1, 2]",
        "h=16-48",
        "i=.",
        "j=1.2.3",
        "k=",
        "l=7",
    )
    assert pairs(words) == {
        "a": 0.85, "b": 3.0, "c": 2.0, "d": -500.0, "e": False, "f": True, "g": [1, 2], "h": "16-48", "i": ".",
        "j": "1.2.3", "k": "", "l": 7,
    }  # fmt: skip


def test_compare_from_tuning_to_mlflow(capsys, tmp_path, monkeypatch):
    """The whole main job on a small network: record, table, report, MLflow, checkpoints."""
    import mlflow

    monkeypatch.chdir(tmp_path)
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    methods = ["hybrid-imappo", "hybrid-untrained", "rl-dqn", "game-tuned", "nearest"]
    code = main([
        "compare", "--sites", "synthetic", "--agents", "6", "--servers", "2", "--agent-steps", "20000", "--train-seeds",
        "2", "--report-seeds", "4", "--tuning", "1", "--runs", "runs", "--report", "report.html", "--tracking-uri", uri,
        "--quiet", "--methods", *methods,
    ])  # fmt: skip
    out = capsys.readouterr().out
    assert code == 0
    assert "violations of capacity or power, by the certificate's count: 0" in out
    assert "mlflow ui --backend-store-uri" in out
    page = (tmp_path / "report.html").read_text()
    assert "<svg" in page and "hybrid, IMAPPO" in page
    mlflow.set_tracking_uri(uri)
    assert main(["sync", str(next((tmp_path / "runs").iterdir())), "--tracking-uri", uri]) == 0  # where MLflow lags
    runs = mlflow.search_runs(experiment_names=["hybridalloc"], output_format="list")
    children = {r.data.tags["mlflow.runName"]: r for r in runs if "mlflow.parentRunId" in r.data.tags}
    assert len(runs) == len(children) + 1
    assert len(children) == 3 * 2 + 2  # two that train, and one that learns a belief alone, on two seeds
    run = children["hybrid-imappo-seed1"]
    assert run.data.tags["method"] == "hybrid-imappo" and run.data.tags["scenario"] == "H"
    assert all(r.data.tags["scenario"] == "H" for r in runs)
    assert run.data.tags["data_digest"] == "synthetic"
    assert run.data.params["price/toll"] == children["hybrid-imappo-seed0"].data.params["price/toll"]
    history = mlflow.MlflowClient().get_metric_history(run.info.run_id, "welfare")
    assert len(history) >= 2 and history[-1].step > history[0].step
    loaded = Allocator.load(f"runs:/{run.info.run_id}/hybrid-imappo-seed1/allocator.npz")
    certificate = loaded.step(loaded.problem.reset(0)).certificate
    assert certificate.feasible and certificate.source == "hybrid"
    parent = next(r for r in runs if "mlflow.parentRunId" not in r.data.tags)
    figures = {f.path for f in mlflow.MlflowClient().list_artifacts(parent.info.run_id, "figures")}
    assert figures == {"figures/learning_curves.png", "figures/map.png", "figures/welfare.png"}
    folder = next((tmp_path / "runs").iterdir())
    results = json.loads((folder / "results.json").read_text())
    by_name = {m["key"]: m["values"] for m in results["methods"]}
    assert np.shape(by_name["hybrid-imappo"]["welfare"]) == (2, 4)
    assert np.shape(by_name["nearest"]["welfare"]) == (1, 4)
    assert main(["report", str(folder), "--out", "again.html"]) == 0
    assert "hybrid, IMAPPO" in capsys.readouterr().out
    assert (tmp_path / "again.html").read_text() == page
    assert main(["sync", str(folder), "--tracking-uri", uri]) == 0
    assert len(mlflow.search_runs(experiment_names=["hybridalloc"], output_format="list")) == len(runs)
    assert main(["report", "runs/none"]) == 2
    assert f"no results.json in runs/none; there are runs/{folder.name}" in capsys.readouterr().err
    assert main(["evaluate", str(folder / "rl-dqn-seed0" / "allocator.npz"), "--seeds", "2"]) == 0
    assert "violations of capacity or power" in capsys.readouterr().out


def test_a_run_is_resumed_and_its_recommender_exported(capsys, tmp_path):
    world = ["--sites", "synthetic", "--agents", "4", "--servers", "2"]
    small = ["train", *world, "--agent-steps", "1", "--tuning", "1", "--kind", "rl"]
    assert main([*small, "--out", str(tmp_path / "a.npz")]) == 0
    assert "; 4 of 1 agent-steps; " in capsys.readouterr().out  # one decision of all agents is the least
    kept = tmp_path / "a.checkpoints"
    assert sorted(p.name for p in kept.iterdir()) == ["best.pt", "last.pt"]
    assert main(["train", "--resume", str(kept / "best.pt"), "--out", str(tmp_path / "b.npz")]) == 0
    first, again = (Allocator.load(tmp_path / f"{name}.npz") for name in "ab")
    assert first.method == again.method == "rl" and first.prices == again.prices
    for name, array in first.recommender.weights.items():
        np.testing.assert_array_equal(array, again.recommender.weights[name])
    capsys.readouterr()
    assert main(["train", "--resume", str(kept / "last.pt"), "--agents", "5"]) == 2
    assert "agents is 4 there and 5 is asked for; leave that flag out" in capsys.readouterr().err
    assert main(["train", "--resume", str(tmp_path / "a.npz")]) == 2
    assert "is truncated or not a checkpoint of a training run" in capsys.readouterr().err
    pytest.importorskip("onnx")
    assert main(["export", str(tmp_path / "a.npz"), "--onnx", str(tmp_path / "a.onnx")]) == 0
    assert (tmp_path / "a.onnx").stat().st_size > 5000


def test_a_pipe_that_breaks_elsewhere_is_not_taken_for_a_reader_that_has_left(monkeypatch):
    def broken(self):
        raise BrokenPipeError(32, "a worker's pipe")

    monkeypatch.setattr("hybridalloc.commands.evaluate.Evaluate.run", broken)
    with pytest.raises(BrokenPipeError, match="a worker's pipe"):
        main(["evaluate", "a.npz"])
