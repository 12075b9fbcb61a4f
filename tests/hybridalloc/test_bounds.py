"""What knows that nobody is told: bounds that are run, and one that is worked out."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import hybridalloc.experiments.compare as comparing
from coordinator import Coordinator
from hybridalloc.errors import UnknownNameError
from hybridalloc.experiments.compare import Settings, compare
from hybridalloc.problems import make_problem
from hybridalloc.problems.cluster.bound import most_in_use
from hybridalloc.problems.contract import Bounds
from hybridalloc.problems.mec.clairvoyant import BELIEVED, TO_REST
from hybridalloc.problems.mec.heuristics import LEAST_J, selfish
from hybridalloc.training.evaluation import bounded, evaluate
from tests.hybridalloc.test_place import Here, silent

DOMAINS = ("mec", "cluster", "balancer", "voltage")


@pytest.mark.parametrize("name", DOMAINS)
def test_every_domain_of_the_suite_has_a_bound_and_what_others_published(name):
    problem = make_problem(name)
    card = problem.card
    assert card.bounds and all(b in card.baselines or isinstance(problem, Bounds) for b in card.bounds)
    assert card.published and set(card.published) <= set(card.baselines) - set(card.bounds)


# --- cluster: a linear program


def test_no_placement_exceeds_what_the_program_says():
    problem, seeds = make_problem("cluster", nodes=12), range(7000, 7003)
    most = problem.bound("cutting_stock", seeds)
    assert set(most) == {"packed", "used90", "used95", "used100"}
    for rule in ("random", "best_fit", "fgd"):
        found = evaluate(problem, problem.card.prices(), None, None, seeds, rule).metrics
        for key, values in most.items():
            assert np.array_equal(np.isnan(found[key]), np.isnan(values))  # a mark that no pod meets
            assert not (found[key] > values + 1e-9).any(), (rule, key)
    game = problem.play(problem.card.prices(), seeds)
    assert (game["packed"] <= most["packed"] + 1e-9).all() and (game["packed"] > most["packed"] - 10).all()
    with pytest.raises(UnknownNameError, match="unknown bound 'cuting_stock'; did you mean 'cutting_stock'"):
        problem.bound("cuting_stock", seeds)


def test_the_program_knows_what_demand_cannot_fill():
    """Where all that has come fits, no more than that; an 810-milli pod strands the rest of its GPU."""
    problem = make_problem("cluster", nodes=12)
    work = problem.workload
    only = int(np.argmax((work.pods.gpus == 1) & (work.pods.milli > 500) & (work.pods.milli < 1000)))
    milli = int(work.pods.milli[only])
    count = np.zeros(len(work.count), np.int64)
    count[only] = 3 * work.capacity // milli
    alone = work.reweighted("alone", count)
    most = most_in_use(alone, 7000, 1.3)
    assert most["used100"] <= 100 * milli / 1000 + 0.051  # one such pod a GPU
    plain = most_in_use(work, 7000, 1.3)
    assert plain["used90"] <= 90.5 and plain["used90"] == pytest.approx(90, abs=0.5)


@pytest.fixture
def place(monkeypatch, tmp_path):
    import contextlib
    import queue

    opens = lambda _: contextlib.nullcontext((Here(), queue.Queue()))
    monkeypatch.setattr(comparing, "open_pool", opens)
    monkeypatch.setattr(comparing.tracking, "mirror", silent)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_bound_that_is_worked_out_is_a_row_of_the_table(place):
    given = Settings(
        "cluster", settings=(("nodes", 12),), methods=("game-tuned", "fgd", "cutting_stock"), tuning=0, train_seeds=1,
        report_seeds=2, quiet=True, runs=str(place / "runs"), report=str(place / "report.html"),
    )  # fmt: skip
    found = compare(given)
    rows = {m["key"]: m for m in found["methods"]}
    assert rows["cutting_stock"]["bound"] and rows["fgd"]["published"]
    assert "bound" not in rows["fgd"] and "published" not in rows["game-tuned"]
    assert rows["cutting_stock"]["values"]["placed"] == [[None, None]]
    packed = {key: np.array(m["values"]["packed"]) for key, m in rows.items()}
    assert (packed["cutting_stock"] >= packed["fgd"]).all()
    assert "placed" in {m["key"] for m in found["metrics"]}  # what the others have
    assert "cutting-stock bound" in (place / "report.html").read_text()
    again = compare(Settings(quiet=True, report=str(place / "again.html")), Path(found["folder"]))
    assert json.dumps(again["methods"]) == json.dumps(found["methods"])


def test_a_problem_without_a_program_of_its_own_is_told_so():
    with pytest.raises(TypeError, match=r"Mec has no method bound\(\), and 'best' is no baseline of its card"):
        bounded(make_problem("mec"), "best", [0])


# --- mec: the truth of the slot


def test_the_clairvoyant_leaves_what_is_believed_as_it_was_and_earns_more():
    problem, seeds = make_problem("mec", agents=20, servers=4), range(7000, 7006)
    prices = problem.card.prices()
    world = problem.worlds(seeds)
    before = {name: getattr(world.world, name).copy() for name in BELIEVED}
    option, plan = world.rule("clairvoyant", prices, np.random.default_rng(0))
    for name, values in before.items():
        assert np.array_equal(getattr(world.world, name), values), name
    assert (world.excess(plan) <= 1e-9).all() and np.array_equal(option, plan.option)
    told = evaluate(problem, prices, None, None, seeds, "clairvoyant", slots=30).metrics["welfare"]
    game = evaluate(problem, prices, Coordinator("game"), None, seeds, slots=30).metrics["welfare"]
    assert (told > game).all()


def test_where_all_is_told_the_clairvoyant_is_the_game():
    problem = make_problem("mec", agents=12, servers=3, scenario="A")
    assert not problem.physics.interference and not problem.physics.queues
    world, prices = problem.worlds(range(7000, 7004)), problem.card.prices()
    game = Coordinator("game", improve=TO_REST)
    plan = game.settle(world, game.decide(world, None, prices), prices)
    assert np.array_equal(world.rule("clairvoyant", prices, np.random.default_rng(0))[0], plan.option)


# --- mec: everyone's own best reply


def costs(p, w, queue_s, air_queue_s, option, e, i):
    """What each option costs device i of network e where the others stay, from the definitions."""
    per = w.rate.shape[2] // w.server_hz.shape[1]
    tau, cycles = w.deadline_s[e, i], w.task_cycles[e, i]
    own_j = max(p.kappa * w.device_hz[e, i] ** 2 * cycles, LEAST_J)
    found = [0.5 * cycles / w.device_hz[e, i] / tau + 0.5]
    others = [o for j, o in enumerate(option[e]) if j != i and w.active[e, j] and o > 0]
    for b in range(w.rate.shape[2]):
        k = b // per
        if not w.reachable[e, i, k]:
            found.append(np.inf)
            continue
        air_s = w.task_bits[e, i] / w.rate[e, i, b]
        share = 1 / (1 + others.count(b + 1))
        part = 1 / (1 + sum((o - 1) // per == k for o in others))
        time = p.backhaul_s + queue_s[e, k] + air_queue_s[e, b] + air_s / share + cycles / (part * w.server_hz[e, k])
        found.append(0.5 * time / tau + 0.5 * p.nominal_w / p.efficiency * air_s / own_j)
    return np.array(found)


@pytest.mark.parametrize("more", [{}, {"choose_channel": True, "channels": 2}], ids=["a band", "two bands"])
def test_in_the_selfish_game_nobody_gains_alone(more):
    problem = make_problem("mec", agents=60, servers=3, **more)
    world = problem.worlds(range(7000, 7010))
    w = world.world
    option = selfish(world.physics, world.seen, w.queue_s, w.air_queue_s)
    assert (option > 0).any() and (option[w.active] == 0).any() and not option[~w.active].any()
    for e, i in np.argwhere(w.active):
        found = costs(world.physics, w, w.queue_s, w.air_queue_s, option, e, i)
        assert found[option[e, i]] <= found.min() * (1 + 1e-9), (e, i)
