"""The cluster as a problem: worlds and the stream agree, what is told is checked, what does not fit is said."""

from __future__ import annotations

import json
import re
from types import SimpleNamespace

import numpy as np
import pytest

from coordinator import Coordinator
from games.errors import InvalidStateError
from hybridalloc import Allocator, make_problem
from hybridalloc.errors import UnknownNameError
from hybridalloc.problems.cluster import ClusterPrices, ClusterState
from hybridalloc.problems.cluster.prices import PUBLISHED
from hybridalloc.training.evaluation import evaluate
from hybridalloc.training.rollout import Execute, Rollout

GAME = Coordinator("game")


@pytest.fixture(scope="module")
def small():
    return make_problem("cluster", nodes=10)


def told(*nodes, cpu=4000, memory=8192, gpus=1, milli=1000, **more):
    """A state of one job and nodes given as (free CPU, free memory, free milli of each GPU), full sizes (64 cores)."""
    slots = [[*free, *[0] * (8 - len(free))] for _, _, free in nodes]
    return ClusterState(
        [cpu], [memory], [gpus], [milli], [64_000] * len(nodes), [262_144] * len(nodes), [len(n[2]) for n in nodes],
        [n[0] for n in nodes], [n[1] for n in nodes], slots, **more,
    )  # fmt: skip


@pytest.mark.parametrize("prices", [PUBLISHED, ClusterPrices(fill=3.0, gpu_square=2.0, closed=0.4, order=0.2)])
def test_worlds_decide_what_the_stream_decides(small, prices):
    """Whole episodes by the loop and compiled, metric by metric; batched or not."""
    seeds = [3, 4, 5]
    loop, played = evaluate(small, prices, GAME, None, seeds), small.play(prices, seeds)
    assert loop.violations == 0
    for key, values in played.items():
        np.testing.assert_allclose(loop.metrics[key], values, rtol=1e-12, equal_nan=True, err_msg=key)
    alone = evaluate(small, prices, GAME, None, seeds[1:2])
    np.testing.assert_array_equal(alone.metrics["packed"], loop.metrics["packed"][1:2])


def test_an_episode_is_counted_from_its_beginning_to_its_end(small):
    """Worlds end at different times; what a world does after its end is another episode."""
    run = Rollout(small, [0, 1, 2])
    ends = [int((row >= 0).sum()) for row in run.world.sequence]
    assert len(set(ends)) > 1
    came = 0
    while run.counted.any():
        step = run.step(Execute(GAME, None, PUBLISHED), PUBLISHED)
        came += 1
        run.counted &= ~step.over
    assert came == max(ends)
    np.testing.assert_array_equal(run.tally.sums["decided"], ends)


def test_a_world_that_is_spread_stands_where_playing_brings_it(small):
    played, brought = small.worlds([7]), small.worlds([7])
    brought.spread(np.array([0.5]))
    prices = small.card.prices()
    while played.epoch[0] < brought.epoch[0]:
        played.execute(GAME.settle(played, GAME.decide(played, None, prices), prices))
        played.drift()
    assert played.state(0) == brought.state(0) and brought.epoch[0] > 10
    assert played.used[0] == brought.used[0] and played.came[0] == brought.came[0]


def test_a_share_goes_beside_a_share_and_a_whole_job_on_whole_gpus():
    nodes = [(64_000, 262_144, [1000, 1000, 500, 0])]
    allocator = Allocator(make_problem("cluster"), "game")
    share = allocator.step(told(*nodes, milli=500))
    assert share.gpus[0] == 0b100 and share.certificate.feasible
    pair = allocator.step(told(*nodes, gpus=2))
    assert pair.gpus[0] == 0b011 and pair.shares["gpu"][0] == 0.5
    assert allocator.step(told(*nodes, gpus=0, milli=0)).gpus[0] == 0
    three = allocator.step(told(*nodes, gpus=3))
    assert three.option[0] == 0 and three.certificate.unserved == (0,) and three.certificate.regret == 0


def test_memory_and_nodes_that_are_down_are_heeded():
    allocator = Allocator(make_problem("cluster"), "game")
    nodes = [(64_000, 8191, [1000]), (3999, 262_144, [1000]), (64_000, 262_144, [1000]), (64_000, 262_144, [999])]
    assert allocator.step(told(*nodes)).option[0] == 3
    assert allocator.step(told(*nodes, down=[False, False, True, False])).option[0] == 0


def test_a_heuristic_puts_it_where_its_rule_says():
    """Best fit leaves least, worst fit most; of a node's GPUs the tightest."""
    problem = make_problem("cluster")
    nodes = [(64_000, 262_144, [1000] * 4), (20_000, 262_144, [600, 1000]), (30_000, 262_144, [1000] * 2)]
    state = told(*nodes, milli=500)
    where = lambda name: Allocator(problem, name).step(state)
    assert where("best_fit").option[0] == 2 and where("best_fit").gpus[0] == 1
    assert where("worst_fit").option[0] == where("least_loaded").option[0] == where("first_fit").option[0] == 1
    assert {int(Allocator(problem, "random", seed=s).step(state).option[0]) for s in range(30)} == {1, 2, 3}


def test_a_round_robin_goes_round():
    problem = make_problem("cluster", nodes=6, until=0.2)
    world, went = problem.worlds([0]), []
    for _ in range(5):
        plan = world.settle(world.baseline("round_robin", np.random.default_rng(0)), problem.card.prices())
        world.execute(plan)
        world.drift()
        went.append(int(plan.option[0, 0]))
    assert went == sorted(set(went))


def test_whoever_fits_is_placed(small):
    """Refusing pods that fit would raise allocation at their expense."""
    world = small.worlds([0])
    plan = world.settle(np.zeros((1, 1), np.int64), small.card.prices())
    assert plan.option[0, 0] > 0
    assert world.game(small.card.prices()).private_cost[0, 0, 0] > 10


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"option": np.array([2])}, "node is down"),
        ({"option": np.array([9])}, "no such node"),
        ({"gpus": np.array([0.0])}, r"names \[\]; it asks for 1"),
        ({"gpus": np.array([2.0])}, "GPU 1 of node 0: 500, there is 0"),
        ({"gpus": np.array([4.0])}, "asks for 1 of node 0's"),
        ({"shares": {"cpu": 0.0, "memory": 0.03125, "gpu": 0.25}}, "cpu of job 0 on node 0: 0, it asks for 0.0625"),
        ({"shares": {"cpu": 0.9, "memory": 0.03125, "gpu": 0.25}}, "cpu of job 0 on node 0 against its request: 0.9"),
    ],
)
def test_the_check_names_what_cannot_be(change, line):
    state = told((8000, 262_144, [700, 0]), (64_000, 262_144, [1000]), milli=500, down=[False, True])
    right = {
        "option": np.array([1]),
        "gpus": np.array([1.0]),
        "shares": {"cpu": 0.0625, "memory": 0.03125, "gpu": 0.25},
    }
    listed = lambda parts: SimpleNamespace(**parts | {"shares": {k: np.array([v]) for k, v in parts["shares"].items()}})
    problem = make_problem("cluster")
    assert problem.check(state, listed(right)).feasible
    found = problem.check(state, listed(right | change))
    assert not found.feasible
    with pytest.raises(AssertionError, match=line):
        raise AssertionError("; ".join(found.violations))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"request_cpu": [-1]}, r"request_cpu\[0\] = -1; it must be finite and >= 0 milli"),
        ({"request_milli": [1200]}, r"request_milli\[0\] = 1200; it must be"),
        ({"request_gpus": [2], "request_milli": [500]}, r"request_milli\[0\] = 500 of each of 2 GPUs"),
        ({"free_cpu": [65_000]}, r"free_cpu\[0\] = 65000; node 0 has 64000 in all"),
        ({"free_gpu": [[0, 0, 7, 0, 0, 0, 0, 0]]}, r"free_gpu\[0, 2\] = 7; node 0 has 2 GPUs"),
        ({"gpus": [9]}, r"gpus\[0\] = 9; it must be"),
        ({"arrived": -2.0}, "arrived = -2.0; it must be finite"),
        ({"node_name": ["a"]}, "unknown field 'node_name'"),
    ],
)
def test_a_state_that_cannot_be_is_told(change, message):
    state = told((64_000, 262_144, [1000, 1000])).to_dict()
    with pytest.raises(InvalidStateError, match=message):
        ClusterState.from_dict(json.loads(json.dumps(state)) | change)


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        (told((64_000, 262_144, [1000] * 4), gpus=9), "larger than any node: .*9 GPUs; the largest has 4 GPUs"),
        (told((0, 0, []), cpu=70_000, gpus=0, milli=0), "no GPU; the largest has 64,000 milli of cores"),
        (
            told((64_000, 10, [1000]), (64_000, 262_144, [600, 400]), (1, 262_144, [1000]), milli=700),
            "no node has room now: it asks for 4,000 milli of cores, 8,192 MiB, 700 milli of a GPU; of 3 that are up "
            "and large enough, too little is free on: 1 cores, 1 memory, 1 GPUs",
        ),
        (
            told((64_000, 262_144, [1000]), down=[True]),
            r"1 GPU; of the nodes that are large enough \(1\) all are down",
        ),
    ],
)
def test_a_pod_that_is_turned_away_is_told_why(small, state, reason):
    allocation = Allocator(small, "game").step(state)
    assert allocation.option.tolist() == [0] and re.search(reason, allocation.refusals()[0])
    why = allocation.why(0)
    assert why.decided_by == (("refused", 0),) and not why.served and re.search(reason, str(why))
    assert "deadline" not in str(why) and re.search(reason, allocation.to_dict()["refused"]["0"])


def test_nobody_who_is_placed_has_a_refusal_and_nobody_who_is_not_lacks_one(small):
    rng, problem = np.random.default_rng(0), small
    for _ in range(40):
        free = [
            (int(rng.integers(0, 9000)), int(rng.integers(0, 16_000)), list(rng.integers(0, 1001, 2))) for _ in "abc"
        ]
        state = told(*free, milli=int(rng.integers(1, 1001)), down=list(rng.random(3) < 0.3))
        allocation = Allocator(problem, "game").step(state)
        assert (allocation.option[0] == 0) == (problem.refusal(state, 0) is not None)


def test_two_jobs_at_once_are_told_to_come_one_after_the_other():
    state = told((64_000, 262_144, [1000])).to_dict()
    twice = {key: value * 2 for key, value in state.items() if key.startswith("request")}
    with pytest.raises(InvalidStateError, match="active: jobs 0 and 1 wait"):
        ClusterState.from_dict(state | twice | {"active": [True, True]})
    one = ClusterState.from_dict(state | twice | {"active": [False, True]})
    assert Allocator(make_problem("cluster"), "game").step(one).option.tolist() == [0, 1]


def test_no_nodes_and_no_jobs():
    empty = {key: [] for key in ("cpu", "memory", "gpus", "free_cpu", "free_memory", "free_gpu")}
    state = ClusterState.from_dict(told((1, 1, [1])).to_dict() | empty | {"model": [], "down": []})
    allocation = Allocator(make_problem("cluster"), "game").step(state)
    assert allocation.option.tolist() == [0] and allocation.certificate.feasible
    nobody = {f"request_{key}": [] for key in ("cpu", "memory", "gpus", "milli")} | {"active": []}
    state = ClusterState.from_dict(told((64_000, 262_144, [1000])).to_dict() | nobody)
    assert Allocator(make_problem("cluster"), "best_fit").step(state).certificate.feasible


@pytest.mark.parametrize("settings", [{"nodes": -1}, {"until": 0.0}, {"nodes": 2.5}])
def test_settings_out_of_range(settings):
    with pytest.raises(ValueError, match=next(iter(settings))):
        make_problem("cluster", **settings)


def test_an_unknown_scenario_is_told_with_the_nearest():
    with pytest.raises(UnknownNameError, match="did you mean 'openb'"):
        make_problem("cluster", scenario="opnb")
