"""A domain of one file, from a command to a report, MLflow and a served model, without a line outside that file."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from examples.chargers import Chargers, Landing
from hybridalloc import Allocator, make_problem
from hybridalloc.cli import main
from hybridalloc.environments import make_env
from hybridalloc.errors import CheckpointError
from hybridalloc.problems import restore_problem

HOUSE = Path(__file__).resolve().parents[2]
ADDRESS = "examples.chargers:Chargers"
TINY = (
    "--agent-steps", "600", "--train-seeds", "1", "--report-seeds", "2", "--tuning", "1", "--learners", "imappo",
    "--methods", "hybrid-imappo", "game-tuned", "fastest", "--workers", "1", "--quiet",
)  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder in which a tiny comparison was made by a command, and what it printed."""
    folder = tmp_path_factory.mktemp("chargers")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        assert main(["compare", "--problem", ADDRESS, "--settings", "cars=4", *TINY]) == 0
    return folder


def run_of(place):
    return next((place / "runs").glob("chargers-*"))


def test_it_is_short_and_named_nowhere_else():
    assert len((HOUSE / "examples" / "chargers.py").read_text().splitlines()) <= 150
    for wing in ("hybridalloc", "coordinator", "games", "rl"):
        for path in (HOUSE / wing).rglob("*.py"):
            assert not re.search(r"\bchargers?\b|\bferr(y|ies)\b", path.read_text(), re.I), path


def test_the_table_and_report_speak_its_words(place):
    table = (run_of(place) / "table.md").read_text()
    for word in ("cost of a car", "% of cars", "waiting, 95 % quantile", "kW", "fastest if alone", "hybrid, IMAPPO"):
        assert word in table, word
    page = (place / "report.html").read_text()
    text = re.sub(r"<(style|script).*?</\1>|<[^>]+>", " ", page, flags=re.S)
    assert "4 cars, 3 chargers" in text and "150 kW" in text and "cost of a car" in text
    for word in ("completion", "welfare", "device", "server", "toll", "EUA", "synthetic sites"):
        assert word not in text, word


def test_mlflow_has_its_metrics_and_says_which_problem(place):
    from mlflow.tracking import MlflowClient

    uri = f"sqlite:///{place / 'mlflow.db'}"
    assert main(["sync", str(run_of(place)), "--tracking-uri", uri]) == 0  # where it lags
    client = MlflowClient(uri)
    found = client.search_experiments(filter_string="name = 'hybridalloc'")[0]
    runs = client.search_runs([found.experiment_id])
    assert len(runs) == 4  # a comparison and its three methods
    hybrid = next(run for run in runs if run.data.params.get("method") == "hybrid-imappo")
    assert {f"final/{key}" for key in ("cost", "charged", "wait95", "power")} <= set(hybrid.data.metrics)
    assert "chargers" in {run.data.tags.get("problem", run.data.params.get("problem")) for run in runs}
    assert not any("sites" in run.data.tags or run.data.tags.get("scenario") == "H" for run in runs)  # those are mec's


def test_what_a_file_names_is_loaded_by_the_users_word_alone(place, monkeypatch):
    monkeypatch.chdir(place)
    saved = run_of(place) / "hybrid-imappo-seed0" / "allocator.npz"
    with pytest.raises(
        CheckpointError, match=r"problem 'examples.chargers:Chargers' is named by a file and is no entry"
    ):
        Allocator.load(saved)
    for loaded in (Allocator.load(saved, trust_code=True), Allocator.load(saved, problem=Chargers(cars=4))):
        assert loaded.problem == Chargers(cars=4) and loaded.recommender is not None
        state = loaded.problem.reset(3)
        allocation = loaded.step(json.loads(json.dumps(state.to_dict())))
        assert allocation.certificate.feasible and allocation.certificate.source == "hybrid"
        assert set(allocation.shares) == {"charger"} and not allocation.levels
        assert list(allocation.why(0)) and json.dumps(allocation.to_dict(), allow_nan=False)
    with pytest.raises(CheckpointError, match="named by a file"):
        restore_problem({"name": "chargers", "class": "os:system"})
    assert main(["compare", "--from-runs", "runs"]) == 2
    assert main(["compare", "--from-runs", "runs", "--allow-code"]) == 0
    assert main(["compare", "--resume", "runs", "--quiet"]) == 2
    assert main(["compare", "--resume", "runs", "--problem", ADDRESS, "--quiet"]) == 0  # as it was typed
    assert main(["report", str(run_of(place))]) == 0


def test_it_is_served_by_mlflow(place):
    import mlflow

    from hybridalloc.serving.models import log_model

    saved = run_of(place) / "hybrid-imappo-seed0" / "allocator.npz"
    uri, mine = f"sqlite:///{place / 'mlflow.db'}", Allocator.load(saved, trust_code=True)
    log_model(mine, "ferry", uri, alias="champion")
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(uri)
    try:
        model = mlflow.pyfunc.load_model("models:/ferry@champion")
    finally:
        mlflow.set_tracking_uri(before)
    state = Chargers(cars=4).reset(5).to_dict()
    assert model.predict([{"state": state}])[0]["option"] == mine.step(state).option.tolist()


def test_a_command_trains_and_steps_it(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = [
        "--problem",
        ADDRESS,
        "--settings",
        "cars=3",
        "--agent-steps",
        "200",
        "--tuning",
        "0",
        "--quiet",
        "--no-calibrate",
    ]
    assert main(["train", *words, "--out", "a.npz"]) == 0
    assert main(["evaluate", "a.npz", "--seeds", "1"]) == 2
    assert "named by a file" in capsys.readouterr().err
    assert main(["evaluate", "a.npz", "--seeds", "1", "--allow-code"]) == 0
    assert "cost of a car" in capsys.readouterr().out
    assert main(["train", "--resume", "a.checkpoints/last.pt", "--out", "b.npz", "--quiet"]) == 2
    assert (
        main(
            [
                "train",
                "--resume",
                "a.checkpoints/last.pt",
                "--out",
                "b.npz",
                "--quiet",
                "--no-calibrate",
                "--allow-code",
            ]
        )
        == 0
    )
    assert main(["step", "--example", "--problem", ADDRESS]) == 0
    assert Landing.from_dict(json.loads(capsys.readouterr().out.splitlines()[-1])).agents == 8


def test_its_episodes_end_when_the_day_is_over_in_both_views():
    zoo = make_env(Chargers(cars=3, closes=2.0), "pettingzoo")
    joint = make_env(ADDRESS, cars=3, closes=2.0)
    assert zoo.possible_agents == ["car_0", "car_1", "car_2"]
    zoo.reset(seed=1), joint.reset(seed=1)
    elapsed, lengths = [], []
    for _ in range(6):
        count, over = 0, False
        while not over:
            *_, over, cut, info = joint.step(joint.action_space.sample())
            elapsed.append(info["elapsed"])
            count += 1
            assert not cut and set(info["metrics"]) <= {"cost", "charged", "wait95", "power"}
        lengths.append(count)
        joint.reset()
    assert len(set(lengths)) > 1 and len(set(elapsed)) == len(elapsed)  # no two decisions last alike
    assert np.mean(elapsed) == pytest.approx(1.0, abs=0.5)  # in the problem's unit, the mean gap
    while zoo.agents:
        _, _, ended, cut, infos = zoo.step(dict.fromkeys(zoo.agents, 1))
    assert all(ended.values()) and not any(cut.values()) and infos["car_0"]["elapsed"] > 0


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("examples.chargers:Charger", {}, "problem 'examples.chargers:Charger' cannot be loaded (AttributeError"),
        ("examples.charger:Chargers", {}, "cannot be loaded (ModuleNotFoundError: No module named 'examples.charger')"),
        ("examples.chargers:np", {}, "is a module; it must be a class or a function"),
        ("examples.chargers:Plan", {}, "cannot be made: missing a required argument: 'option'"),
        (ADDRESS, {"car": 3}, "unknown setting of examples.chargers:Chargers 'car'; did you mean 'cars'?"),
        ("chargers", {}, "unknown problem 'chargers'"),
    ],
)
def test_an_address_that_leads_nowhere_is_told(name, settings, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        make_problem(name, **settings)
