"""Jobs that queue: against the compiled rounds, by hand, and what is told of them."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from coordinator import Coordinator
from games.errors import InvalidStateError
from hybridalloc import Allocator, make_problem
from hybridalloc.data.registry import DataError
from hybridalloc.errors import UnknownNameError
from hybridalloc.problems.cluster import QueuePrices, QueueState
from hybridalloc.problems.cluster.jobs import Jobs
from hybridalloc.problems.cluster.queue import durations
from hybridalloc.problems.cluster.queue.prices import FULL_QUEUE, KNOWING
from hybridalloc.problems.cluster.rounds import TRADING, run_rounds
from hybridalloc.problems.cluster.shares import max_min
from hybridalloc.training.evaluation import evaluate

GAME = Coordinator("game")


def gavel(**settings):
    try:
        return make_problem("cluster", scenario="gavel", **settings)
    except DataError as error:
        pytest.skip(str(error))


def told(*jobs, units=(4, 4), **more):
    """A state of jobs given as (gang, expected hours, place), on two pools; half as fast on the second."""
    gang, hours, place = (np.array(column) for column in zip(*jobs, strict=True))
    n = len(jobs)
    return QueueState(
        gang, np.repeat(gang[:, None], 2, 1), np.repeat([[1.0, 0.5]], n, 0), np.repeat(hours[:, None] * 1.0, 3, 1),
        [0, 1], units, place=place, told_h=hours, **more,
    )  # fmt: skip


@pytest.fixture(scope="module")
def nodes():
    return make_problem("cluster", scenario="seed001", slots=16, hours=2.0)


# --- against the compiled rounds


@pytest.mark.parametrize("rule", ["area", "srtf", "attained"])
def test_orders_decide_what_the_compiled_rounds_decide(rule):
    """Job by job, where no start costs anything and durations are known."""
    problem = gavel(jobs=24, misjudged=0.0, restart_s=0.0, load=0.9)
    world = problem.worlds([3])
    kind = world.jobs["type"][0]
    jobs = Jobs(
        world.jobs["arrival"][0], kind, problem.setup.gang[kind], world.jobs["alone"][0], problem.setup.speed[kind]
    )
    run = run_rounds(jobs, problem.setup.units, rule, own_s=world.jobs["alone"][0] * problem.apart[kind])
    mine = evaluate(problem, problem.card.prices(), None, None, [3], baseline=rule)
    middle = slice(6, 18)
    assert mine.metrics["jct"][0] == pytest.approx((run.completion_s[middle] / 3600).mean(), rel=1e-9)
    assert mine.metrics["worst"][0] == pytest.approx(run.ratio[middle].max(), rel=1e-9)
    assert mine.metrics["makespan"][0] == pytest.approx(run.makespan_s / 3600, rel=1e-9)


def test_the_game_trades_as_the_compiled_market_does():
    problem = gavel(jobs=40, misjudged=0.0, restart_s=0.0, load=0.95)
    world = problem.worlds([1])
    kind = world.jobs["type"][0]
    jobs = Jobs(
        world.jobs["arrival"][0], kind, problem.setup.gang[kind], world.jobs["alone"][0], problem.setup.speed[kind]
    )
    own = world.jobs["alone"][0] * problem.apart[kind]
    market = run_rounds(jobs, problem.setup.units, "market", own_s=own, guard=TRADING)
    mine = evaluate(problem, KNOWING, GAME, None, [1])
    assert mine.violations == 0
    assert mine.metrics["jct"][0] == pytest.approx((market.completion_s[10:30] / 3600).mean(), rel=0.02)


def test_a_full_queue_is_done_sooner_when_the_longest_and_largest_go_first():
    """And never before a linear program that needs no rounds, whole gangs or starts says it can be."""
    problem = gavel(jobs=30, load=0.0, pools=(8, 8, 8), misjudged=0.0, round_s=3600.0)
    assert problem.card.headline[0] == "makespan"
    seeds = [5000, 5001]
    jobs, setup = problem.worlds(seeds).jobs, problem.setup
    soonest = []
    for kind, alone_s in zip(jobs["type"], jobs["alone"], strict=True):
        soonest.append(1 / max_min(setup.speed[kind] * 3600 / alone_s[:, None], setup.gang[kind], setup.units)[1])
    took = {p: evaluate(problem, p, GAME, None, seeds).metrics["makespan"] for p in (FULL_QUEUE, KNOWING)}
    assert (took[FULL_QUEUE] >= soonest).all()
    assert took[FULL_QUEUE].mean() < 0.95 * took[KNOWING].mean()
    assert took[FULL_QUEUE].mean() < 1.15 * np.mean(soonest)


# --- by hand


def test_who_is_hardly_slower_elsewhere_leaves_the_fast_pool(nodes):
    speed = np.array([[1.0, 0.9], [1.0, 0.2]])
    state = QueueState([1, 1], np.ones((2, 2), int), speed, np.full((2, 3), 5.0), [0, 1], [1, 1])
    assert Allocator(nodes, "game").step(state).option.tolist() == [2, 1]


def test_a_higher_class_is_served_first_and_a_quota_a_rack_and_a_pool_that_is_down_hold(nodes):
    game = lambda state: Allocator(nodes, "game").step(state)
    first = game(told((4, 1, 0), (4, 9, 0), units=(4, 0), priority=[0.0, 1.0]))
    assert first.option.tolist() == [0, 1] and first.certificate.feasible and not first.certificate.envy
    assert game(told((4, 1, 0), (4, 9, 0), team=[0, 0], quota=[5])).option.tolist() in ([1, 0], [0, 1])
    assert game(told((4, 1, 0), rack=[0, -1], watts=[100.0, 0.0], rack_w=[300.0])).option.tolist() == [2]
    assert game(told((4, 1, 0), down=[True, False])).option.tolist() == [2]


def test_who_may_not_be_moved_stays():
    fixed = make_problem("cluster", scenario="seed001", preempt=False)
    state = told((4, 100, 2), (4, 1, 0), (2, 1, 0))
    for method in ("game", "srtf", "best_fit"):
        assert Allocator(fixed, method).step(state).option[0] == 2
    wrong = SimpleNamespace(option=np.array([1, 0, 0]), shares={"unit": np.array([1.0, 0.0, 0.0])})
    assert "is not to be moved" in fixed.check(state, wrong).violations[0]


def test_what_if_a_round_were_another(nodes):
    allocation = Allocator(nodes, "game").step(told((2, 1.0, 0), (4, 1.0, 0), (4, 2.0, 0)))
    assert allocation.option.tolist() == [2, 1, 0] or sorted(allocation.option.tolist()) == [0, 1, 2]
    out = int(np.flatnonzero(allocation.option == 0)[0])
    same = allocation.what_if()
    assert same.moved == () and same.regret == 0 and same.choice.tolist() == allocation.option.tolist()
    more = allocation.what_if(capacity={0: 2.0, 1: 2.0})
    assert (more.choice > 0).all() and out in more.moved and more.cost[1] < more.cost[0]
    place = int(allocation.option[1 - (out == 1)])
    banned = allocation.what_if(forbid={1 - (out == 1): place})
    assert banned.choice[1 - (out == 1)] != place
    gone = allocation.what_if(without=1 - (out == 1))
    assert gone.choice[1 - (out == 1)] == 0 and gone.choice[out] > 0 and gone.held[out]
    for wrong, error in (({"toll": 1.0}, InvalidStateError), ({"capacity": {0: -1.0}}, InvalidStateError)):
        with pytest.raises(error):
            allocation.what_if(**wrong)
    with pytest.raises(IndexError, match="resource 9: there are 2, 0 to 1"):
        allocation.what_if(capacity={9: 2.0})


def test_a_start_costs_its_time_and_a_straggler_runs_slower(nodes):
    """Two alike but that one has to start: a round of 60 s, 10 of which are lost."""
    state = told((2, 1, 1), (2, 1, 0), (2, 1, 2), pace=[1.0, 1.0, 0.5], true_h=[1.0, 1.0, 1.0])
    world = nodes.world_at(state)
    world.execute(world._plan(np.array([[1, 1, 2]])))
    np.testing.assert_allclose(3600 - world.at["true"][0], [60.0, 50.0, 60 * 0.5 * 0.5])


def test_who_is_done_leaves_and_ends_its_part(nodes):
    """What a place holds next is another job, for whom the one before is not paid."""
    world = nodes.worlds([0, 1])
    ended = 0
    for _ in range(30):
        there, serial = world.there.copy(), world.at["serial"].copy()
        facts = world.execute(world.settle(GAME.decide(world, None, nodes.card.prices()).choice, nodes.card.prices()))
        same = world.there & (world.at["serial"] == serial)
        np.testing.assert_array_equal(facts.left, there & ~same)
        ended += int(facts.left.sum())
        world.drift()
    assert ended > 5


def test_an_order_by_hand(nodes):
    jobs = told((4, 5, 0), (2, 2, 0), (3, 1, 0), age_h=[3.0, 2.0, 1.0], attained=[0.0, 9.0, 1.0], units=(4, 2))
    option = lambda name: nodes.world_at(jobs).baseline(name, np.random.default_rng(0))[0].tolist()
    assert option("fifo") == [1, 2, 0] and option("srtf") == [0, 2, 1] and option("area") == [0, 2, 1]
    assert option("attained") == [1, 2, 0] and option("best_fit") == [1, 2, 0] and option("drf") == [1, 2, 0]
    teams = told((2, 1, 0), (2, 1, 0), (2, 1, 0), age_h=[3.0, 2.0, 1.0], team=[0, 0, 1], quota=[9, 9], units=(4, 0))
    assert nodes.world_at(teams).baseline("drf", np.random.default_rng(0))[0].tolist() == [1, 0, 1]


# --- what is believed


def test_what_is_left_is_the_conditional_quantile_of_a_lognormal():
    draws = 10 * np.exp(0.3 + 0.8 * np.random.default_rng(0).normal(size=400_000))
    for done in (0.0, 5.0, 30.0):
        mine = durations.left(np.array([10.0]), np.array([done]), np.array([0.3]), np.array([0.8]))[0]
        rest = draws[draws > done] - done
        np.testing.assert_allclose(mine, np.quantile(rest, durations.QUANTILES), rtol=0.03)


def test_what_users_are_wrong_by_is_learned_from_jobs_that_ended():
    draws, judged = 0.4 + 0.9 * np.random.default_rng(1).normal(size=(400, 5)), np.zeros(3)
    for ratio in draws:
        judged = durations.seen(judged, ratio)
    np.testing.assert_allclose(judged, [2000, draws.mean(), draws.std()])
    np.testing.assert_allclose(durations.judge(judged), [0.4, 0.9], atol=0.05)
    assert durations.judge(np.zeros(3)) == pytest.approx((0.0, durations.SPREAD))


# --- what is told and refused


def test_states_that_cannot_be_are_refused():
    for change, message in (
        ({"place": [3]}, "place[0] = 3; it must be 0 or 1 + a place, at most 2"),
        ({"team": [0]}, "team[0] = 0; it must be a team with a quota"),
        ({"rack": [0, -1]}, "rack[0] = 0; it must be a rack"),
    ):
        with pytest.raises(InvalidStateError) as error:
            QueueState([1], [[1, 1]], [[1.0, 0.5]], [[1.0, 1.0, 1.0]], [0, 1], [4, 4], **change)
        assert message in str(error.value)
    with pytest.raises(InvalidStateError, match=r"left_h\[0\] = \[2.0, 1.0, 3.0\]; quantiles .1, .5, .9 ascend"):
        QueueState([1], [[1, 1]], [[1.0, 0.5]], [[2.0, 1.0, 3.0]], [0, 1], [4, 4])
    with pytest.raises(InvalidStateError, match="jobs stand on 6 units of pool 0, which has 4"):
        told((3, 1, 1), (3, 1, 1))


def test_settings_that_cannot_be_are_refused():
    for settings, kind, message in (
        ({"workload": "huge"}, UnknownNameError, "unknown workload 'huge'"),
        ({"lod": 1.0}, UnknownNameError, "unknown setting of seed001 'lod'; did you mean 'load'"),
        ({"nodes": 3}, UnknownNameError, "unknown setting of seed001 'nodes'"),
        ({"load": -1.0}, ValueError, "load = -1.0; it must be a number from 0 to 10"),
        ({"load": 0}, ValueError, "load = 0; seed 001's jobs come at a rate"),
        ({"pools": (0, 0, 0)}, ValueError, "at least one GPU"),
    ):
        with pytest.raises(kind) as error:
            make_problem("cluster", scenario="seed001", **settings)
        assert message in str(error.value)


def test_gavels_settings(measured=None):
    """Halves of gangs, racks of limited power, teams with quotas, deadlines, urgent jobs: each is kept to."""
    problem = gavel(jobs=30, elastic=True, power=0.7, teams=3, slack=2.0, urgent=0.3, stragglers=0.1)
    found = evaluate(problem, QueuePrices(), GAME, None, [0])
    assert found.violations == 0 and 0 <= found.metrics["late"][0] <= 100 and found.metrics["energy"][0] > 0
    world = problem.worlds([0])
    assert len(problem.setup.pool) == 6 and len(world.rack_w) == 3 and len(world.quota) == 3
    at_once = gavel(jobs=12, load=0.0)
    assert at_once.worlds([0]).there.sum() == 12 and make_problem("cluster").card.variant == "synthetic"
