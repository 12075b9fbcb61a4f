"""A comparison of a problem of one's own, from its values to the table, and its pictures."""

from __future__ import annotations

import json

import numpy as np
import pytest

from hybridalloc import Allocator, make_problem
from hybridalloc.experiments import assemble
from hybridalloc.experiments.compare import _jobs, _tuned_before
from hybridalloc.experiments.methods import method_of, rows_of
from hybridalloc.experiments.settings import Settings
from hybridalloc.experiments.stored import comparison_from
from hybridalloc.experiments.tracking import RunLog, write_comparison
from hybridalloc.reports.report import write_report
from hybridalloc.reports.summary import markdown_table, text_table
from hybridalloc.training.config import TrainConfig
from hybridalloc.training.learners import CLIPPED, DEFAULTS, learner_settings
from rl.registry import resolved, settings_for

FARM = "hybridalloc.problems.farm:Farm"


@pytest.fixture(scope="module")
def farm():
    return make_problem("custom", transition=FARM)


@pytest.fixture
def folder(farm, tmp_path):
    """The record of a comparison whose every row, the farm's own heuristics too, has ended."""
    rng, names = np.random.default_rng(0), rows_of(farm.card, ("imappo",))
    there = tmp_path / "runs" / "custom-1"
    write_comparison(
        there, problem="custom", scenario=farm.describe(), methods=names,
        seeds={"train": [0], "report": [10000, 10001]}, budget={"agent_steps": 10}, data_digest="synthetic", git="x",
    )  # fmt: skip
    for name in names:
        keys = [m.key for m in farm.card.metrics] + ["step_ms"]
        curve = (
            [{"agent_steps": n, "check_welfare": 0.1 * n} for n in (0, 1)] if method_of(name, farm.card).learner else []
        )
        out = {"metrics": {k: rng.random(2).tolist() for k in keys}, "curve": curve, "allocations": 8, "violations": 0}
        with RunLog(there, name, 0) as log:
            (there / log.name).mkdir()
            (there / log.name / "evaluation.json").write_text(json.dumps(out))
            log.artifact(there / log.name / "evaluation.json")
    return there


def test_the_table_of_a_problem_of_ones_own_has_its_own_heuristics(farm, folder, tmp_path):
    comparison = comparison_from(str(folder.parent))
    assert {"opt_out", "fastest", "balanced", "random"} <= {m["key"] for m in comparison["methods"]}
    assert "note" not in comparison and comparison["counts"] == {
        "allocations": 8 * len(comparison["methods"]),
        "violations": 0,
    }
    assert "hybrid, IMAPPO - IMAPPO alone" in {d["label"] for d in comparison["differences"]}
    assert "balanced" in text_table(comparison) and "balanced" in markdown_table(comparison)
    assert "balanced" in write_report(tmp_path / "report.html", comparison).read_text()
    (folder / "balanced-seed0" / "evaluation.json").unlink()
    assert "balanced" in comparison_from(str(folder.parent))["note"]


def test_the_pictures_count_every_agent_in_every_slot(farm, tmp_path):
    Allocator(farm, "hybrid").save(tmp_path / "hybrid-untrained-seed0" / "allocator.npz")
    shown = assemble.snapshots(farm, tmp_path, ("balanced", "hybrid-untrained"))
    counts = np.array(shown["over_time"]["counts"])
    assert shown["map"] is None and counts.shape == (assemble.SHOWN_SLOTS, len(farm.resources) + 2)
    assert (counts.sum(axis=1) == farm.agents).all() and counts[:, :-2].any()
    state = farm.reset(10000)
    allocation = Allocator.load(tmp_path / "hybrid-untrained-seed0" / "allocator.npz").step(state)
    first = [int((allocation.option == k).sum()) for k in range(1, len(farm.resources) + 1)]
    assert counts[0, :-2].tolist() == first and counts[0, -1] == int((~state.active).sum())
    assert shown["over_time"]["options"][-2:] == ["opted out", "idle"]


def test_where_levels_alone_are_decided_nobody_is_counted_by_option(tmp_path):
    """The report of such a comparison is written all the same."""
    problem = make_problem("voltage", levels=3, rounds=1)
    Allocator(problem, "game").save(tmp_path / "game-tuned-seed0" / "allocator.npz")
    assert assemble.snapshots(problem, tmp_path, ("game-tuned",)) == {"map": None, "over_time": None}


def test_a_band_is_drawn_at_the_station_that_has_it(tmp_path):
    """A comparison whose devices choose channels has more options than stations, and a map all the same."""
    problem = make_problem("mec", agents=20, servers=2, choose_channel=True)
    Allocator(problem, "game").save(tmp_path / "game-tuned-seed0" / "allocator.npz")
    shown = assemble.snapshots(problem, tmp_path, ("game-tuned",))["map"]
    state = problem.reset(10000)
    allocation = Allocator(problem, "game").step(state)
    drawn = np.array(problem.picture(state, allocation)["option"])
    taken = allocation.option > 0
    assert allocation.option.max() > 2 and (drawn[~taken] == 0).all()
    assert (drawn[taken] - 1 == problem.options()[allocation.option[taken], 1] - 2 * problem.bands).all()  # its CPU
    assert max(shown["option"]) <= len(shown["stations"]) == 2 and shown["opting_out"] == "on the device"


def test_a_picture_that_cannot_be_drawn_costs_the_picture_alone(tmp_path):
    class Crooked(type(make_problem("mec"))):
        def picture(self, state, allocation):
            return super().picture(state, allocation) | {"option": [9] * len(allocation.option)}

    problem = Crooked(4, 2)
    Allocator(problem, "game").save(tmp_path / "game-tuned-seed0" / "allocator.npz")
    with pytest.raises(ValueError, match="options lie in 9 to 9; 0 to 2 is required"):  # compare() notes it and goes on
        assemble.snapshots(problem, tmp_path, ("game-tuned",))


def test_a_comparison_goes_on_with_the_learners_defaults_that_it_began_with(tmp_path):
    problem = make_problem("mec", agents=4, servers=2)
    methods = ("hybrid-imappo", "rl-imappo", "rl-dqn")
    settings = Settings("mec", methods=methods, train_seeds=1)
    prices = {belief: problem.card.prices() for belief in ("", "learned")}
    record = {"git_commit": "a", "data_digest": "b"}
    of = lambda record: {j.method: dict(j.settings) for j in _jobs(settings, tmp_path, problem, prices, record)}
    assert of(record | {"defaults": DEFAULTS}) == {name: {} for name in methods}
    fifth = of(record | {"defaults": 5})
    assert fifth == {"hybrid-imappo": {}, "rl-imappo": {"horizon": 32}, "rl-dqn": {}}
    fourth = of(record | {"defaults": 4})
    assert fourth == fifth | {"rl-dqn": {"gamma": 0.9}}
    third = of(record | {"defaults": 3})
    assert third == fourth | {"rl-dqn": {"gamma": 0.9, "span": 0.0}}
    second = of(record | {"defaults": 2})
    central = {"critic": "central"}
    assert second == third | {"hybrid-imappo": central, "rl-imappo": fifth["rl-imappo"] | central}
    begun = of(record)
    assert begun["rl-dqn"] == {"limit": 10.0, "gamma": 0.9, "span": 0.0}
    assert begun["hybrid-imappo"] | {"horizon": 32} == begun["rl-imappo"] | {"gae": 0.9}
    assert begun["rl-imappo"]["gae"] == 0.6


@pytest.mark.parametrize(
    ("name", "kind", "learner", "steps", "horizon"),
    [
        ("mec", "rl", "imappo", 40_000, 2), ("mec", "rl", "ippo", 200_000, 4), ("mec", "rl", "mappo", 2_000_000, 32),
        ("mec", "hybrid", "imappo", 200_000, 32), ("mec", "rl", "ppo", 200_000, 32),
        ("voltage", "rl", "imappo", 40_000, 32), ("balancer", "rl", "imappo", 40_000, 32),
    ],
)  # fmt: skip
def test_a_clipped_learner_alone_has_as_many_updates_as_it_takes(name, kind, learner, steps, horizon):
    """An update moves a probability by a fifth at the most: two in a whole budget are none."""
    problem = make_problem(name)
    assert learner_settings(problem, TrainConfig(learner, kind, steps))["horizon"] == horizon
    own = TrainConfig(learner, kind, steps, settings=(("horizon", 16),))
    assert learner_settings(problem, own)["horizon"] == 16


def test_so_does_one_whose_learners_alone_have_had_settings_of_their_own_since(tmp_path):
    problem = make_problem("cluster", scenario="seed001")
    prices = {name: problem.card.prices() for name in ("", "rl-imappo")}
    settings = Settings("cluster", methods=("rl-imappo",), train_seeds=1)
    record = {"git_commit": "a", "data_digest": "b"}
    used = lambda number: learner_settings(
        problem,
        TrainConfig("imappo", "rl", settings=_jobs(settings, tmp_path, problem, prices, record | number)[0].settings),
    )
    before, now = used({"defaults": 4}), used({"defaults": DEFAULTS})
    alone = resolved("imappo", settings_for("imappo", "rl"))
    assert {name for name in now if now[name] != before[name]} >= {"horizon", "replay", "critic_gain"}
    assert {name: before[name] for name in CLIPPED} == {name: alone[name] for name in CLIPPED}


def test_what_was_tuned_before_a_price_was_there_is_kept(tmp_path):
    card = make_problem("mec", agents=4, servers=2).card
    old = {k: v for k, v in card.prices()._asdict().items() if k != "leakage"}
    path = tmp_path / "tuning.json"
    path.write_text(json.dumps({"reports": {"best": old}, "learned": {"best": {"toll": 1.0}}}))
    assert set(_tuned_before(path, card)) == {"reports"}
