"""The search over a learner's settings, with training that is made up: it earns most at a rate of .003."""

from __future__ import annotations

import json
import math

import pytest

from hybridalloc import make_problem
from hybridalloc.cli import main
from hybridalloc.errors import CheckpointError, UnknownNameError
from hybridalloc.experiments import hyper
from hybridalloc.experiments.hyper import Search, space_of, tune
from hybridalloc.experiments.tracking import read_runs
from hybridalloc.training.config import TrainConfig
from hybridalloc.training.learners import learner_settings

optuna = pytest.importorskip("optuna", reason="Optuna (extra tune) is not installed")


@pytest.fixture
def problem():
    return make_problem("mec", agents=4, servers=2)


@pytest.fixture
def trained(monkeypatch, problem):
    """Settings of the trainings that were asked for; one to be killed after its first check, by number."""
    asked, killed = [], set()

    def train(problem, prices, config, report):
        asked.append(dict(config.settings))
        worth = -abs(math.log10(asked[-1]["rate"] / 3e-3))
        for check in range(4):
            report(100 * check, {"loss": 1.0, "check_welfare": worth + 0.01 * check})
            if len(asked) - 1 in killed:
                raise KeyboardInterrupt

    monkeypatch.setattr(hyper, "train", train)
    monkeypatch.setattr(
        hyper, "tune_game", lambda problem, *_, **__: type("T", (), {"prices": problem.card.prices(toll=0.25)})
    )
    return asked, killed


def test_the_defaults_come_first_the_best_is_kept_and_laggards_are_pruned(problem, trained, tmp_path):
    asked, _ = trained
    seen = []
    found = tune(problem, Search(trials=25, names=("rate",)), tmp_path, "", lambda *row: seen.append(row))
    default = learner_settings(problem, TrainConfig())["rate"]
    assert asked[0] == {"rate": default} and found.default == pytest.approx(-abs(math.log10(default / 3e-3)) + 0.03)
    assert found.value >= found.default and found.value == pytest.approx(0.03, abs=0.15)
    assert found.trials == len(asked) == len(seen) == 25 and found.pruned > 0
    assert sum(value is None for _, value, _ in seen) == found.pruned
    assert json.loads((tmp_path / "best.json").read_text())["settings"] == found.settings
    runs = read_runs(tmp_path)
    assert len(runs) == 25 and all(run.status == "FINISHED" and run.params.keys() == {"rate"} for run in runs)
    assert sum(run.summary["pruned"] for run in runs) == found.pruned


def test_a_search_that_was_killed_goes_on_and_runs_what_was_cut_again(problem, trained, tmp_path):
    asked, killed = trained
    killed.add(0)
    search = Search(trials=4, names=("rate", "epochs"))
    with pytest.raises(KeyboardInterrupt):
        tune(problem, search, tmp_path, "")
    found = tune(problem, search, tmp_path, "")
    assert asked[0] == asked[1] and found.trials == 4 and len(asked) == 5
    assert found.default == pytest.approx(-abs(math.log10(asked[0]["rate"] / 3e-3)) + 0.03)
    assert isinstance(asked[2]["epochs"], int)
    tune(problem, search, tmp_path, "")
    assert len(asked) == 5  # all trials are done
    with pytest.raises(CheckpointError, match="a search whose learner is another"):
        tune(problem, Search("dqn"), tmp_path, "")
    with pytest.raises(CheckpointError, match="a search whose scenario is another"):
        tune(make_problem("mec", agents=5, servers=2), search, tmp_path, "")


def test_only_settings_that_the_learner_has_are_searched(problem, capsys):
    assert {"rate", "entropy", "gamma", "gae"} <= space_of(problem, Search()).keys()
    assert "gae" not in space_of(problem, Search("dqn"))
    with pytest.raises(UnknownNameError, match="unknown setting of imappo 'rat'; did you mean 'rate'"):
        space_of(problem, Search(names=("rat",)))
    with pytest.raises(UnknownNameError, match="did you mean 'imappo'"):
        space_of(problem, Search("imapo"))
    assert main(["train", "--sites", "synthetic", "--learner-settings", "rat=1"]) == 2
    assert "unknown setting of imappo 'rat'; did you mean 'rate'" in capsys.readouterr().err
