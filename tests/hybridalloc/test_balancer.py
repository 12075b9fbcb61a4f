"""The balancer as a problem: what is believed, charged, refused and counted; the routers of the field."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from coordinator import Coordinator
from games.errors import InvalidStateError
from hybridalloc import Allocator
from hybridalloc.errors import UnknownNameError
from hybridalloc.problems import make_problem
from hybridalloc.problems.balancer import BalancerPrices, BalancerState
from hybridalloc.problems.balancer import rules as R
from hybridalloc.problems.balancer.ahead import foresee
from hybridalloc.problems.balancer.belief import BLEND, CORRECTED, LEARNED, OWN, REPORT, believe, learn, new_knowledge
from hybridalloc.problems.balancer.card import RULES_BY_NAME
from hybridalloc.problems.balancer.chance import stream_of, uniform
from hybridalloc.problems.balancer.core import new_view
from hybridalloc.problems.balancer.play import ASK, EVERYONE, NOBODY, Router, play, run
from hybridalloc.problems.balancer.rules import GAME, Rule
from hybridalloc.problems.balancer.sim import DONE, Law
from hybridalloc.problems.balancer.workload import Episode, changes_of, classes_of, sim_of
from hybridalloc.training.config import TrainConfig
from hybridalloc.training.evaluation import evaluate
from hybridalloc.training.trainer import train

GAMES = Coordinator("game")


def problem(**settings):
    return make_problem("balancer", **{"requests": 120} | settings)


def state(**changes):
    """Two requests at one of four dispatchers, three replicas."""
    given = {
        "prompt": [1000.0, 2000.0], "share": [0.5, 0.3, 0.2], "dispatchers": 4,
        "told_waiting": [2.0, 0.0, 0.0], "told_running": [8.0, 4.0, 3.0], "then_requests": [3.0, 1.0, 1.0],
        "own_requests": [1.0, 2.0, 1.0], "age_s": [0.5, 0.2, 0.1],
    }  # fmt: skip
    return BalancerState.from_dict(given | changes)


# --- states


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"age_s": [0.5, -0.1, 0.1]}, r"age_s\[1\] = -0.1; it must be finite and >= 0 s"),
        ({"replica": [4, 7, 4]}, r"replica\[2\] = 4 appears twice, at \[0\] too; report each replica once"),
        ({"replica": [4, -1, 5]}, r"replica\[1\] = -1; give every replica a number, or none"),
        ({"prompt": [1000.0, 0.0]}, r"prompt\[1\] = 0.0; a request that waits has at least 1 token"),
        (
            {"hit": [[0, 0, 1000], [0, 0, 0]]},
            r"hit\[0, 2\] = 1000.0; of 1000 prompt tokens the last is always computed",
        ),
        ({"share": [0.5, 0.3, 0.0]}, r"share\[2\] = 0.0; it must be finite and > 0"),
        ({"dispatchers": 0}, "dispatchers = 0; it must be a whole number from 1"),
        ({"gap_s": -1.0}, "gap_s = -1.0; it must be a finite number >= 0"),
        ({"told_runing": [1, 1, 1]}, "did you mean 'told_running'"),
    ],
)
def test_what_cannot_be_is_refused_by_field_index_and_value(changes, words):
    with pytest.raises(InvalidStateError, match=words):
        state(**changes)


def test_a_request_goes_to_the_least_load_of_its_own_table():
    """A state as a router of one's own would tell it: nothing else is needed."""
    allocation = Allocator(problem(), "game").step({"prompt": [500.0], "share": [0.5, 0.5], "own_requests": [9.0, 1.0]})
    assert allocation.option.tolist() == [2] and allocation.certificate.feasible
    assert allocation.shares["memory"] == pytest.approx([500 / 100_000])


def test_no_replica_up_requests_wait_and_the_status_says_so():
    for method in ("game", "hybrid", "own_over_capacity"):
        allocation = Allocator(problem(), method).step(state(up=[False] * 3))
        assert allocation.option.tolist() == [0, 0] and allocation.certificate.feasible
        assert "no replica is up; 2 requests wait" in allocation.certificate.status
        assert list(allocation.certificate.unserved) == [0, 1]


def test_none_waits_and_no_replica_is_there():
    nobody = Allocator(problem(), "game").step({"prompt": [], "share": [0.5, 0.5]})
    assert nobody.certificate.feasible and not len(nobody.option)
    nowhere = Allocator(problem(), "game").step({"prompt": [100.0], "share": []})
    assert nowhere.option.tolist() == [0] and nowhere.certificate.feasible


def test_a_prompt_takes_its_part_of_the_memory_and_no_more():
    told = state(prompt=[700.0, 5000.0], kv=[1000.0] * 3, up=[True, False, False])
    allocation = Allocator(problem(), "game").step(told)
    assert allocation.option.tolist() == [1, 1]  # the replica queues what does not fit yet
    assert allocation.shares["memory"].tolist() == [0.7, 1.0] and allocation.certificate.feasible


def test_unknown_settings_are_named():
    with pytest.raises(UnknownNameError, match="unknown scenario of balancer 'azur'"):
        problem(scenario="azur")
    with pytest.raises(UnknownNameError, match="dispatchers"):
        problem(dispatcher=3)
    with pytest.raises(ValueError, match=r"load = 0\.0; it must be > 0"):
        problem(load=0)
    with pytest.raises(ValueError, match="drift = 1; it must be like False"):
        problem(drift=1)
    with pytest.raises(ValueError, match="half of the trace has"):
        problem(requests=50_000)


# --- beliefs


def seen(told, then, own, age, many=4, mean=1000.0):
    view = new_view(len(told))
    view.up[:] = True
    view.told[:, 1], view.then[:, 0], view.own[:, 0], view.age_s[:] = told, then, own, age
    view.about[1], view.about[3] = many, mean
    return view


def believed(kind, view, share, know=None, fade=(2.0, 2.0), alike=0.5):
    load = np.zeros((len(share), 3))
    know = new_knowledge(1, np.asarray(share, float)) if know is None else know
    believe(kind, 0, view, False, np.array(fade), alike, know, load)
    return load[:, 0]


def test_beliefs_are_what_their_formula_says():
    view, share = seen([10, 4, 3], [3, 1, 1], [1, 2, 1], [0.5, 0.2, 0.1]), [0.5, 0.3, 0.2]
    np.testing.assert_allclose(believed(REPORT, view, share), [10, 4, 3])
    np.testing.assert_allclose(believed(CORRECTED, view, share), [7 + 1, 3 + 2, 2 + 1])
    np.testing.assert_allclose(believed(OWN, view, share), [4, 8, 4])
    others, own, age = np.array([7.0, 3, 2]), np.array([1.0, 2, 1]), np.array([0.5, 0.2, 0.1])
    presumed = 0.5 * 12 * np.array(share) + 0.5 * 3 * own
    np.testing.assert_allclose(
        believed(BLEND, view, share), own + presumed + (others - presumed) * np.exp(-age / 2), rtol=1e-12
    )


def test_with_one_dispatcher_or_fresh_reports_every_belief_that_reads_both_knows_all():
    alone = seen([5, 2, 1], [5, 2, 1], [6, 1, 1], [9.0, 3.0, 1.0], many=1)
    for kind in (CORRECTED, OWN, BLEND, LEARNED):
        np.testing.assert_allclose(believed(kind, alone, [0.5, 0.3, 0.2]), [6, 1, 1])
    fresh = seen([5, 2, 1], [2, 1, 1], [2, 1, 1], [0.0, 0.0, 0.0])
    for kind in (REPORT, CORRECTED, BLEND, LEARNED):
        np.testing.assert_allclose(believed(kind, fresh, [0.5, 0.3, 0.2]), [5, 2, 1])


@pytest.mark.parametrize(("rho", "kappa"), [(0.8, 0.2), (0.3, 0.9), (0.05, 0.3)])
def test_what_is_left_of_a_report_is_learned_from_the_next(rho, kappa):
    """Others that truly move so: the coefficients are found again."""
    rng, share, fleet = np.random.default_rng(0), np.full(4, 0.25), problem(replicas=4).fleet
    know, x, now = new_knowledge(1, share), rng.uniform(5, 30, 4), 0.0
    for _ in range(400):
        own = rng.uniform(0, 12, 4)
        usual = know.usual[0, :, 0] * x.sum()
        y = usual + rho * (x - usual) + (1 - rho) * kappa * (3 * own - usual) + rng.normal(0, 0.3, 4)
        x, now = np.maximum(y, 0.0), now + 1.0
        learn(0, now, seen(x + own, own, own, np.zeros(4)), fleet, False, know)
    assert know.left[0, 0] == pytest.approx(rho, abs=0.06) and know.lag_s[0] == pytest.approx(1.0)
    assert know.alike[0, 0] == pytest.approx(kappa, abs=0.08)


def test_learned_speeds_are_the_true_slowness_whatever_prompts_come():
    slow = np.array([0.7, 1.0, 1.5, 2.0])
    changes = changes_of([(1e-6, r, float(x)) for r, x in enumerate(slow)])
    law, kind, episode = Law(2, 0.5), classes_of(4), Episode(0.5, 800, False, 0.0)
    sim = sim_of("synthetic", kind, law, episode, 0, changes=changes)
    room = R.new_room(2, sim.fleet.share)
    run(sim, Rule(GAME), BLEND, BalancerPrices(), False, room, stream_of(0), NOBODY, EVERYONE, NOBODY)
    np.testing.assert_allclose(room.know.speed, [slow, slow], rtol=0.1)


@pytest.mark.parametrize("dispatchers", [1, 4])
def test_what_is_usual_is_a_part_of_all_from_the_first_report_on(dispatchers):
    sim = sim_of("synthetic", classes_of(8), Law(dispatchers, 4.0), Episode(0.7, 400, False, 0.0), 0)
    room, stream = R.new_room(dispatchers, sim.fleet.share), stream_of(0)
    for _ in range(20):
        run(sim, Rule(GAME), BLEND, BalancerPrices(), False, room, stream, NOBODY, 20, NOBODY)
        usual = room.know.usual
        assert usual.min() >= 0 and usual.max() <= 1
    np.testing.assert_allclose(usual[..., 0].sum(1), 1, atol=0.3)


def test_the_game_orders_options_as_the_compiled_router_does():
    """One request at a time both are one, noise included: whole episodes come out the same."""
    for settings in ({}, {"scenario": "synthetic", "belief": "learned", "report_s": 0.3, "prefix_index": "own"}):
        p = problem(requests=60, replicas=3, **settings)  # of three classes: no ties
        prices = BalancerPrices(noise=0.0, memory=5.0, base=0.5, exponent=0.7)
        mine = evaluate(p, prices, GAMES, None, [3, 10_004])
        compiled = p.play(prices, [3, 10_004])
        for key, values in mine.metrics.items():
            if key != "raw_violation":
                np.testing.assert_allclose(values, compiled[key], rtol=1e-6, err_msg=key)
        assert mine.violations == 0


def test_what_is_decided_together_is_an_equilibrium_of_the_requests():
    told = state(prompt=[3000.0, 3000.0], told_waiting=[0, 0, 0], told_running=[0, 0, 0], then_requests=[0, 0, 0],
                 own_requests=[0, 0, 0], share=[0.35, 0.35, 0.3])  # fmt: skip
    prices = BalancerPrices(noise=0.0, memory=0.0, base=0.0, exponent=1.0)
    allocation = Allocator(problem(), "game", prices=prices).step(told)
    assert sorted(allocation.option.tolist()) == [1, 2] and allocation.certificate.regret <= 1e-9


# --- the field's routers


def chosen(rule, times=1, waiting=(0, 0, 0), running=(0, 0, 0), own=(0, 0, 0), gap_s=0.1):
    """What a rule does with one request after another on the same three replicas, reports a second old."""
    world = problem(replicas=3, dispatchers=2).worlds([0])
    view, stream = world.rooms[0].seen, stream_of(1)
    view.up[:], view.age_s[:], view.about[2] = True, 1.0, gap_s
    view.told[:, 0], view.told[:, 1], view.own[:, 0] = waiting, running, own
    rule = Rule(int(rule.kind), float(rule.capacity), int(rule.reads), *map(float, rule[3:]))
    told, picked = (REPORT, BalancerPrices(), False, world.rooms[0], stream), np.zeros(times, np.int64)
    run(world.sim(0), rule, *told, np.full(times, world.who[0, 0]), ASK, picked)
    return picked.tolist()


def test_rules_take_the_least_of_what_they_read():
    told = {"waiting": [0, 3, 1], "running": [9, 2, 1], "own": [0, 2, 5]}
    assert chosen(Rule(R.SHORTEST_QUEUE), **told) == [2]
    assert chosen(Rule(R.OWN_IN_FLIGHT, 0.0, OWN), **told) == [0]
    assert chosen(Rule(R.ROUND_ROBIN), 4, **told) == [0, 1, 2, 0]


def test_two_choices_never_takes_the_worst_of_three_and_takes_each_other_at_its_chance():
    picks = chosen(Rule(R.TWO_CHOICES), 3000, [0, 3, 5])
    share = np.bincount(picks, minlength=3) / 3000
    np.testing.assert_allclose(share, [2 / 3, 1 / 3, 0], atol=0.03)


def test_weighted_round_robin_and_random_follow_capacity():
    share = problem(replicas=3, dispatchers=2).fleet.share
    for rule in (Rule(R.ROUND_ROBIN, 1.0), Rule(R.RANDOM, 1.0)):
        found = np.bincount(chosen(rule, 3000), minlength=3) / 3000
        np.testing.assert_allclose(found, share, atol=0.03)


@pytest.mark.parametrize(("came", "share"), [(4, [1, 0, 0]), (12, [2 / 3, 1 / 3, 0]), (1e6, [1 / 3] * 3)])
def test_load_interpretation_levels_what_is_reported_with_what_came_since(came, share):
    """Two dispatchers of the rate that makes so many requests in a second."""
    picks = chosen(Rule(R.INTERPRETED, 0.0, REPORT, 1.0, 1.0), 3000, [0, 4, 8], gap_s=2 / came)
    np.testing.assert_allclose(np.bincount(picks, minlength=3) / 3000, share, atol=0.03)


def test_the_random_numbers_are_uniform_and_seeded():
    one, again = stream_of(3), stream_of(3)
    x = np.array([uniform(one) for _ in range(4000)])
    assert (x[:50] == [uniform(again) for _ in range(50)]).all()
    assert x.min() >= 0 and x.max() < 1 and abs(x.mean() - 0.5) < 0.02 and abs(x.var() - 1 / 12) < 0.005


def test_every_router_serves_everyone_and_capacities_help():
    p = problem(requests=300)
    found = {}
    for name, (_, rule) in RULES_BY_NAME.items():
        sim = p.episode(np.random.default_rng(0), True)
        found[name] = play(sim, Router(rule))["ttft_mean"]
        assert sim.counts[DONE] == 300, name
    assert found["clairvoyant"] < min(found["own_over_capacity"], found["expected_delay"])
    for name in ("round_robin", "random", "own_in_flight"):
        better = {"round_robin": "weighted_round_robin", "random": "weighted_random"}.get(name, "own_over_capacity")
        assert found[better] < 0.8 * found[name]


def test_failures_lose_nothing_and_are_counted():
    p = problem(failures_every_s=3.0, repair_s=4.0, dispatchers=2, requests=200)
    run = evaluate(p, p.card.prices(), GAMES, None, range(4))
    assert (run.metrics["retried"] > 0).all() and run.violations == 0
    for seed in range(3):
        sim = p.episode(np.random.default_rng([seed, 1]), False)
        play(sim, Router(Rule(GAME), CORRECTED))
        assert sim.counts[DONE] == 200


# --- learning


def enumerated(p, policy, steps=50):
    """Mean cost of what a policy chooses, of the best replica of all, and of one by capacity; each run ahead."""
    world, prices, ahead, rows = p.worlds(range(10_000, 10_006)), p.card.prices(), np.zeros(2), []
    for _ in range(steps):
        option = Coordinator("rl").decide(world, policy, prices).choice.option[:, 0]
        for e in np.flatnonzero(world.active[:, 0]):
            cost = []
            for r in range(p.replicas):
                foresee(world.sim(int(e)), world.who[e, 0], r, ahead)
                cost.append(p.reward_first * ahead[0] + p.reward_last * ahead[1] + p.reward_fair * ahead[0] ** 2)
            usual = np.average(cost, weights=p.fleet.share)
            rows.append((cost[option[e] - 1] if option[e] else usual + p.hold_s, min(cost), usual))
        world.execute(world.settle(option[:, None], prices))
        over = world.drift()
        if over.any():
            world.restart(over)
    return np.mean(rows, 0)


@pytest.mark.parametrize(("learner", "part"), [("imappo", 0.4), ("dqn", 0.1)])
def test_policies_learn_where_to_send(learner, part):
    """From nothing, by rewards of the decision alone: a part of the way from capacities to the best of all that can be
    enumerated, and requests are served sooner."""
    p = problem(requests=100, replicas=4, dispatchers=2, report_s=0.2)
    trained = train(p, p.card.prices(), TrainConfig(learner, "rl", 8_000, networks=16, checks=0))
    assert trained.violations == 0
    mine, best, usual = enumerated(p, trained.learner.policy)
    assert (usual - mine) / (usual - best) > part
    seeds = range(10_000, 10_006)
    random = evaluate(p, p.card.prices(), None, None, seeds, "weighted_random").means()["ttft_mean"]
    found = evaluate(p, p.card.prices(), Coordinator("rl"), trained.learner.policy, seeds).means()["ttft_mean"]
    assert found < 0.9 * random


def test_a_state_and_its_truth_survive_json_and_go_on_alike():
    p = problem(batch=2, gather_s=0.2, dispatchers=3)
    world = p.worlds([1])
    for _ in range(20):
        world.execute(world.settle(GAMES.decide(world, None, p.card.prices()).choice, p.card.prices()))
        world.drift()
    told = world.state(0)
    again = BalancerState.from_dict(json.loads(json.dumps(told.to_dict())))
    assert again == told
    one, two = (
        p.advance(told, Allocator(p, "game").step(told), 3),
        p.advance(again, Allocator(p, "game").step(again), 3),
    )
    assert one[0] == two[0] and one[1] == pytest.approx(two[1], nan_ok=True)
    blind = replace(told, truth=None)
    after, metrics = p.advance(blind, Allocator(p, "game").step(blind), 3)
    assert after.time_s > told.time_s and set(metrics) == {m.key for m in p.card.metrics}
