"""MLflow as a mirror: complete, replayable, never doubled, and never in the way."""

from __future__ import annotations

import shutil
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from hybridalloc.experiments import tracking
from hybridalloc.experiments.replay import Replay
from hybridalloc.experiments.tracking import RunLog, how_to_open, mirror, write_comparison

STEPS = 1100  # more than one batch


def make_comparison(folder: Path) -> Path:
    write_comparison(
        folder,
        problem="mec",
        scenario={"name": "H", "agents": 50, "sites": "eua"},
        methods=["hybrid", "dqn"],
        seeds=[0],
        budget={"agent_steps": 1000},
        data_digest="ab" * 32,
        git="c0ffee",
    )
    for method in ("hybrid", "dqn"):
        with RunLog(folder, method, 0, {"net": {"width": 64}, "lr": 0.001}, {"family": method}) as log:
            for step in range(STEPS):
                log.metrics(step * 10, {"welfare": float(step), "loss": float("nan") if step == 0 else 1 / step})
            (folder / "checkpoints").mkdir(exist_ok=True)
            (folder / "checkpoints" / f"{method}.pt").write_text(method)
            log.artifact(f"checkpoints/{method}.pt")
            log.end({"welfare": 0.9})
    (folder / "report.html").write_text("report")
    return folder


@pytest.fixture(scope="module")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow database with its tables, which take seconds to make."""
    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    MlflowClient(f"sqlite:///{path}").search_experiments()
    return path


def runs_of(uri: str) -> dict[str, Any]:
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("hybridalloc")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    named = {run.info.run_name: run for run in runs}
    assert len(named) == len(runs)
    return named


def check_whole(uri: str, folder: Path, parent: str | None) -> None:
    client = MlflowClient(uri)
    runs = runs_of(uri)
    assert set(runs) == {folder.name, "hybrid-seed0", "dqn-seed0"}
    assert runs[folder.name].info.run_id == parent and runs[folder.name].info.status == "FINISHED"
    names = {item.path for item in client.list_artifacts(str(parent))}
    assert names == {"comparison.json", "report.html"}
    for method in ("hybrid", "dqn"):
        run = runs[f"{method}-seed0"]
        assert run.info.status == "FINISHED"
        tags = run.data.tags
        assert tags["mlflow.parentRunId"] == parent and tags["hybridalloc.run_key"] == f"{folder.name}/{method}-seed0"
        wanted = {"method": method, "seed": "0", "scenario": "H", "git_commit": "c0ffee", "family": method}
        assert wanted.items() <= tags.items() and tags["data_digest"] == "ab" * 32
        assert run.data.params["net.width"] == "64" and run.data.params["agents"] == "50"
        assert run.data.metrics["final/welfare"] == 0.9
        history = client.get_metric_history(run.info.run_id, "welfare")
        assert [(point.step, point.value) for point in history] == [(k * 10, float(k)) for k in range(STEPS)]
        assert len(client.get_metric_history(run.info.run_id, "loss")) == STEPS - 1  # the one that is nan is left out
        record = tracking.read_run(folder / f"{method}-seed0.jsonl")
        assert history[5].timestamp == round(record.metrics[5][1] * 1000)
        assert run.inputs.dataset_inputs[0].dataset.digest == ("ab" * 32)[:36]
        assert [item.path for item in client.list_artifacts(run.info.run_id, "checkpoints")] == [
            f"checkpoints/{method}.pt"
        ]


def test_interrupted_replay_is_completed_and_doubles_nothing(
    tmp_path: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = make_comparison(tmp_path / "runs" / "mec-1")
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    calls = 0
    log_batch = MlflowClient.log_batch

    def failing(self: MlflowClient, *arguments: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        log_batch(self, *arguments, **options)
        if calls % 4 == 0:  # MLflow has the batch, and we do not get to know
            raise MlflowException("the disk is full\nat length")
        return None

    monkeypatch.setattr(MlflowClient, "log_batch", failing)
    with pytest.warns(RuntimeWarning, match=r"left to replay: .*\(MlflowException: the disk is full\)"):
        first = mirror(folder, uri)
    assert not first.complete and first.parent_run_id and "hybrid-seed0" in first.left

    monkeypatch.setattr(MlflowClient, "log_batch", log_batch)
    second = mirror(folder, uri)
    assert second.complete and second.parent_run_id == first.parent_run_id
    assert second.experiment_id == runs_of(uri)["dqn-seed0"].info.experiment_id
    assert str(second).startswith("MLflow has all 2 runs")
    check_whole(uri, folder, second.parent_run_id)

    monkeypatch.setattr(MlflowClient, "log_batch", None)  # a replay of a whole mirror sends nothing
    monkeypatch.setattr(MlflowClient, "set_terminated", None)
    assert mirror(folder, uri).complete
    check_whole(uri, folder, second.parent_run_id)
    printed = capfd.readouterr()
    assert printed.err == printed.out == ""  # neither migrations nor retries nor addresses chatter


def test_a_run_that_goes_on_is_followed(tmp_path: Path, empty_store: Path) -> None:
    folder = tmp_path / "runs" / "mec-2"
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    write_comparison(
        folder, problem="mec", scenario={}, methods=["dqn"], seeds=[0, 1], budget={}, data_digest="", git="x"
    )
    with RunLog(folder, "dqn", 0) as log, RunLog(folder, "dqn", 1) as other:
        log.metrics(0, {"welfare": 0.0, "a:b%": 1.0})
        assert mirror(folder, uri, only=["dqn-seed0"]).done == ("dqn-seed0",)
        runs = runs_of(uri)
        assert set(runs) == {"mec-2", "dqn-seed0"}
        assert runs["dqn-seed0"].info.status == runs["mec-2"].info.status == "RUNNING"
        log.metrics(10, {"welfare": 1.0})
        other.end(status="FAILED")
    assert mirror(folder, uri).complete
    runs = runs_of(uri)
    assert {name: run.info.status for name, run in runs.items()} == {
        "mec-2": "FAILED",
        "dqn-seed0": "FINISHED",
        "dqn-seed1": "FAILED",
    }
    history = MlflowClient(uri).get_metric_history(runs["dqn-seed0"].info.run_id, "welfare")
    assert [(point.step, point.value) for point in history] == [(0, 0.0), (10, 1.0)]


def test_runs_are_seen_while_they_run_and_the_parent_has_final_metrics(tmp_path: Path, empty_store: Path) -> None:
    folder = tmp_path / "runs" / "mec-40"
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    scenario = {"name": "mec", "agents": 4, "scenario": {"name": "H", "bits": [1, 2]}, "radio": {"name": "urban"}}
    write_comparison(
        folder, problem="mec", scenario=scenario, methods=["dqn"], seeds=[0, 1], budget={"agent_steps": 9},
        data_digest="", git="x",
    )  # fmt: skip
    store = tracking.Opening(folder, uri, every_s=0.05)
    with RunLog(folder, "dqn", 0) as log, RunLog(folder, "dqn", 1) as other:
        log.metrics(10, {"welfare": 1.0})
        runs, until = {}, time.monotonic() + 600
        while "dqn-seed0" not in runs or "welfare" not in runs["dqn-seed0"].data.metrics:
            assert time.monotonic() < until
            time.sleep(0.05)
            runs = runs_of(uri) if MlflowClient(uri).get_experiment_by_name("hybridalloc") else {}
        assert runs["dqn-seed0"].info.status == runs["mec-40"].info.status == "RUNNING"
        log.end({"welfare": 1.0, "latency": float("nan"), "train_seconds/loss": 3.0})
        other.end({"welfare": 3.0})
    assert store.mirror().complete
    parent = runs_of(uri)["mec-40"].data
    assert parent.metrics == {"welfare/dqn": 2.0}
    assert parent.params == {
        "problem": "mec", "agents": "4", "scenario.name": "H", "bits": "[1, 2]", "radio.name": "urban",
        "budget.agent_steps": "9", "seeds": "[0, 1]",
    }  # fmt: skip


def test_a_store_that_another_process_is_making_is_tried_again(
    tmp_path: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_comparison(tmp_path / "mec-5")
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    find = MlflowClient.get_experiment_by_name
    answers = iter([MlflowException("table already exists"), None])

    def colliding(self: MlflowClient, name: str) -> Any:
        error = next(answers, None)
        if error is not None:
            raise error
        return find(self, name)

    monkeypatch.setattr(MlflowClient, "get_experiment_by_name", colliding)
    monkeypatch.setattr("hybridalloc.experiments.replay.OPEN_AGAIN_S", (0.01,))
    assert mirror(folder, f"sqlite:///{tmp_path}/mlflow.db").complete
    assert next(answers, "both were taken") == "both were taken"


def test_dead_server_costs_seconds_and_says_what_is_left(tmp_path: Path) -> None:
    folder = make_comparison(tmp_path / "mec-3")
    closed = socket.socket()
    closed.bind(("127.0.0.1", 0))  # bound but not listening: refused
    start = time.monotonic()
    with pytest.warns(RuntimeWarning, match="left to replay: dqn-seed0, hybrid-seed0"):
        result = mirror(folder, f"http://127.0.0.1:{closed.getsockname()[1]}")
    assert time.monotonic() - start < 10
    assert result.parent_run_id is None and result.left == ("dqn-seed0", "hybrid-seed0") and result.error
    closed.close()


def test_silent_server_is_left_behind(tmp_path: Path) -> None:
    folder = make_comparison(tmp_path / "mec-4")
    silent = socket.create_server(("127.0.0.1", 0))  # accepts and never answers
    start = time.monotonic()
    with pytest.warns(RuntimeWarning, match="no answer for 1 s"):
        result = mirror(folder, f"http://127.0.0.1:{silent.getsockname()[1]}", stall_s=0.6)
    assert time.monotonic() - start < 3
    assert len(result.left) == 2
    silent.close()


def small_comparison(folder: Path) -> Path:
    write_comparison(
        folder,
        problem="mec",
        scenario={"name": "H"},
        methods=["a", "b"],
        seeds=[0],
        budget={},
        data_digest="ab",
        git="x",
    )
    for method in ("a", "b"):
        with RunLog(folder, method, 0) as log:
            for step in range(5):
                log.metrics(step, {"welfare": float(step)})
            (folder / f"{method}.bin").write_text(method)
            log.artifact(f"{method}.bin")
            log.end({"welfare": 0.9})
    return folder


def check_small(uri: str, folder: Path) -> None:
    client = MlflowClient(uri)
    runs = runs_of_comparison(client, folder.name)
    assert set(runs) == {folder.name, "a-seed0", "b-seed0"}
    for method in ("a", "b"):
        run = runs[f"{method}-seed0"]
        history = client.get_metric_history(run.info.run_id, "welfare")
        assert [(point.step, point.value) for point in history] == [(k, float(k)) for k in range(5)]
        assert run.info.status == "FINISHED" and run.data.metrics["final/welfare"] == 0.9
        assert [item.path for item in client.list_artifacts(run.info.run_id)] == [f"{method}.bin"]


def runs_of_comparison(client: MlflowClient, name: str) -> dict[str, Any]:
    experiment = client.get_experiment_by_name("hybridalloc")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id], f"tags.`hybridalloc.comparison` = '{name}'")
    named = {run.info.run_name: run for run in runs}
    assert len(named) == len(runs)
    return named


@pytest.mark.parametrize("moment", [1, 2, 4, 6, 9, 12, 15])
@pytest.mark.parametrize("before", [True, False])
def test_a_disk_that_fills_at_any_moment_loses_nothing(
    tmp_path: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch, moment: int, before: bool
) -> None:
    folder = small_comparison(tmp_path / "runs" / "mec-9")
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    calls = 0
    real = Replay._call

    def filling(self: Any, function: Any, *arguments: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls >= moment and before:
            raise OSError(28, "No space left on device")
        answer = real(self, function, *arguments, **options)
        if calls >= moment:  # done there, and not told here
            raise OSError(28, "No space left on device")
        return answer

    monkeypatch.setattr(Replay, "_call", filling)
    monkeypatch.setattr("hybridalloc.experiments.replay.OPEN_AGAIN_S", (0.01,))
    with pytest.warns(RuntimeWarning, match="No space left"):
        assert not mirror(folder, uri).complete
    monkeypatch.setattr(Replay, "_call", real)
    assert mirror(folder, uri).complete  # what `hybridalloc sync` does
    check_small(uri, folder)


def test_a_slow_store_is_left_behind_in_time_and_completed_later(
    tmp_path: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = small_comparison(tmp_path / "runs" / "mec-10")
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    MlflowClient(uri).search_experiments()
    real = Replay._call

    def sluggish(self: Any, function: Any, *arguments: Any, **options: Any) -> Any:
        return real(self, lambda: (time.sleep(0.5), function(*arguments, **options))[1])

    monkeypatch.setattr(Replay, "_call", sluggish)
    monkeypatch.setattr("hybridalloc.experiments.replay.FAIR_CALL_S", 0.05)  # a tenth of those in service
    start = time.monotonic()
    with pytest.warns(RuntimeWarning, match="slow: .* calls took"):
        assert not mirror(folder, uri, slow_s=0.7).complete
    assert time.monotonic() - start < 10
    monkeypatch.setattr(Replay, "_call", real)
    time.sleep(0.7)  # its last call ends, and no other follows
    assert mirror(folder, uri).complete
    check_small(uri, folder)


def test_two_comparisons_at_once_on_one_store(tmp_path: Path, empty_store: Path) -> None:
    folders = [small_comparison(tmp_path / "runs" / f"mec-{k}") for k in (20, 21, 22)]
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    with ThreadPoolExecutor(3) as pool:
        results = list(pool.map(lambda folder: mirror(folder, uri), folders))
    assert all(result.complete for result in results), results
    for folder in folders:
        check_small(uri, folder)


def test_how_to_open() -> None:
    assert how_to_open() == (
        "mlflow ui --backend-store-uri sqlite:///mlflow.db   # then open http://127.0.0.1:5000/#/experiments"
    )
    assert how_to_open("http://host:80/", "7") == "open http://host:80/#/experiments/7/runs"


def test_settings_that_come_late_are_sent_once(tmp_path: Path, empty_store: Path) -> None:
    folder, store = small_comparison(tmp_path / "runs" / "mec-31"), tmp_path / "store.db"
    shutil.copy(empty_store, store)
    uri = f"sqlite:///{store}"
    with RunLog(folder, "a", 0, {"lr": 0.1}, resume=True) as log:
        assert mirror(folder, uri).complete
        log.params({"engine": "compiled"})
        assert mirror(folder, uri).complete
        log.params({"engine": "torch"})  # as of a run that another version went on with
    result = mirror(folder, uri)
    assert result.complete, result
    client = MlflowClient(uri)
    found = client.search_runs([str(result.experiment_id)], "tags.`hybridalloc.run_key` = 'mec-31/a-seed0'")
    assert [run.data.params["engine"] for run in found] == ["compiled"]


def test_the_first_contact_is_waited_for_while_it_works_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from hybridalloc.experiments import mirror as module

    monkeypatch.setattr(module, "SLOW_S", 2.0)
    release = threading.Event()
    monkeypatch.setattr(module, "mirror", lambda *_, **__: release.wait())
    start = time.monotonic()
    assert not tracking.Opening(tmp_path, "sqlite:///hanging.db").opened()
    assert 1.5 < time.monotonic() - start < 8  # seconds in which nobody worked; a busy machine adds to them
    release.set()

    def work(*_: object, **__: object) -> tracking.MirrorResult:
        until = time.thread_time() + 0.5
        while time.thread_time() < until:
            sum(range(1000))

        return tracking.MirrorResult(None, None, (), (), "")

    monkeypatch.setattr(module, "mirror", work)
    assert tracking.Opening(tmp_path, "sqlite:///new.db").opened()


def test_a_store_that_never_answered_leaves_every_run_named(tmp_path: Path) -> None:
    folder = small_comparison(tmp_path / "runs" / "mec-30")
    with pytest.warns(RuntimeWarning, match="0 of 2 runs; left to replay: a-seed0, b-seed0 .not answered"):
        result = tracking.left_out(folder, "not answered")
    assert not result.complete and result.left == ("a-seed0", "b-seed0")


@pytest.mark.parametrize(
    ("recorded", "name"),
    [
        ({"datasets": ["openb", "fgd"], "scenario": {"sites": ["a", "b"]}}, "openb, fgd"),
        ({"datasets": [], "scenario": {}}, "synthetic"),
        ({"scenario": {"sites": "eua"}}, "eua"),  # a record without names of data sets
        ({"scenario": {}}, "data"),
    ],
)
def test_data_are_named_by_what_the_problem_says(recorded, name, tmp_path, empty_store) -> None:
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    uri, digests = f"sqlite:///{tmp_path}/mlflow.db", set()
    for k, second in enumerate(("cd" * 32, "ef" * 32)):  # they differ in their second data set
        folder = tmp_path / "runs" / f"own-{k}"
        digest = f"openb {'ab' * 32}, fgd {second}"
        tracking.write_comparison(
            folder, problem="own", methods=["a"], seeds=[0], budget={}, data_digest=digest, git="x", **recorded
        )
        with RunLog(folder, "a", 0) as log:
            log.end({})
        assert mirror(folder, uri).complete
        run = runs_of_comparison(MlflowClient(uri), folder.name)["a-seed0"]
        (given,) = run.inputs.dataset_inputs
        assert given.dataset.name == name and len(given.dataset.digest) <= 36
        digests.add(given.dataset.digest)
    assert len(digests) == 2


def test_without_mlflow_the_record_is_whole_and_the_remedy_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = small_comparison(tmp_path / "runs" / "mec-50")
    monkeypatch.setattr("hybridalloc.experiments.mirror.find_spec", lambda name: None)
    with pytest.warns(RuntimeWarning, match=r"mlflow is not installed; pip install 'hybridalloc\[mlflow\]'"):
        result = tracking.Opening(folder, "sqlite:///nothing.db").mirror()
    assert result.left == ("a-seed0", "b-seed0") and not (tmp_path / "nothing.db").exists()
