"""Stackelberg pricing, stochastic-game learners, topologies: against brute force and exact values."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from games import CongestionGame, InvalidGameError, InvalidStateError, best_response_dynamics
from games.certificate import measure_regret
from games.q_learning import friend_or_foe_q, minimax_q, nash_q
from games.stackelberg import congestion_leader, market_leader
from games.stochastic_game import StochasticGame, minimax, shapley_values
from games.topology import network_options

sys.path.insert(0, str(Path(__file__).parent))

seeds = st.integers(0, 2**32 - 1)


# ---- Stackelberg ------------------------------------------------------------------------------------


def test_market_leader_against_a_grid(rng):
    for _ in range(60):
        n = int(rng.integers(1, 8))
        w, a = rng.lognormal(0, 1, n), rng.lognormal(0, 1, n)
        capacity, cost = rng.uniform(0.2, 5), rng.choice([0.0, rng.uniform(0, 2)])
        found = market_leader(w, a, capacity, cost)
        price = np.linspace(max(cost, 1e-6), (w * a).max() * 1.01, 200_001)
        demand = np.maximum(w[:, None] / price - 1 / a[:, None], 0).sum(axis=0)
        profit = np.where(demand <= capacity, (price - cost) * demand, -np.inf)
        assert found.profit >= profit.max() - 1e-9
        assert found.demand.sum() <= capacity * (1 + 1e-9)
        assert found.profit == pytest.approx((found.price - cost) * found.demand.sum(), abs=1e-12)
        if found.status == "optimal":
            # followers: what they buy is best for them
            x = np.linspace(0, 2 * found.demand.max() + 1, 2001)
            for i in range(n):
                own = w[i] * np.log1p(a[i] * x) - found.price * x
                here = w[i] * np.log1p(a[i] * found.demand[i]) - found.price * found.demand[i]
                assert here >= own.max() - 1e-9


def test_market_leader_by_hand():
    # one buyer, free supply: revenue w - p / a falls in p, so the market clears at w / (C + 1 / a)
    found = market_leader([4.0], [1.0], 1.0)
    assert (found.price, found.profit) == pytest.approx((2.0, 2.0))
    assert found.clearing == pytest.approx(2.0)
    # costly supply and much of it: p = sqrt(c w a)
    assert market_leader([4.0], [1.0], 100.0, 1.0).price == pytest.approx(2.0)
    assert market_leader([1.0], [1.0], 1.0, 5.0).status == "no sale"
    assert market_leader([], [], 1.0).status == "no sale"


@given(seeds)
@settings(max_examples=30, deadline=None)
def test_market_leader_invariance(seed):
    rng = np.random.default_rng(seed)
    w, a = rng.lognormal(0, 1, 5), rng.lognormal(0, 1, 5)
    found = market_leader(w, a, 2.0, 0.3)
    who = rng.permutation(5)
    # money in quarters, units in tenths
    again = market_leader(4 * w[who], a[who] / 10, 20.0, 0.12)
    assert again.profit == pytest.approx(4 * found.profit, rel=1e-9)
    assert np.allclose(again.demand, 10 * found.demand[who], rtol=1e-6, atol=1e-9)
    twice = market_leader(np.append(w, w), np.append(a, a), 4.0, 0.3)
    assert twice.price == pytest.approx(found.price)


def test_congestion_leader_takes_all_that_opting_out_leaves():
    # one agent, alone: the server is worth 5 - 1 to it, so the fee is 4
    game = CongestionGame([[-1], [0]], [[1.0]], [1.0], [[5.0, 0.0]])
    found = congestion_leader(game, most_fee=100.0)
    assert found.exact
    assert found.value == pytest.approx(4.0)
    assert found.fee == pytest.approx([4.0])
    assert congestion_leader(game, most_fee=1.5).value == pytest.approx(1.5)


def test_congestion_leader_beats_every_fee_on_a_grid(rng):
    for _ in range(4):
        game = CongestionGame(
            [[-1], [0], [1]], rng.uniform(0.5, 1.5, (3, 2)), rng.uniform(0.5, 2, 2),
            np.column_stack([rng.uniform(2, 5, 3), rng.uniform(0, 1, (3, 2))]),
        )  # fmt: skip
        found = congestion_leader(game, most_fee=6.0)
        assert measure_regret(found.game, found.choice) <= 1e-7
        assert found.value == pytest.approx(game.loads(found.choice) @ found.fee)
        for first in np.linspace(0, 6, 13):
            for second in np.linspace(0, 6, 13):
                fee = np.array([first, second])
                charge = np.column_stack([np.zeros(3), game.weight * fee])
                priced = CongestionGame(game.options, game.weight, game.capacity, game.private_cost + charge)
                settled = best_response_dynamics(priced).choice
                assert game.loads(settled) @ fee <= found.value + 1e-7
        local = congestion_leader(game, most_fee=6.0, enumerate_up_to=1)
        assert not local.exact
        assert local.value <= found.value + 1e-9
        assert local.value >= 0.5 * found.value


def test_welfare_leader_brings_the_optimum_about():
    # Pigou with two unit agents: without fees both may crowd the link
    game = CongestionGame([[0], [1]], [[1.0, 0.0], [1.0, 0.0]], [1.0, 1.0], [[0.0, 1.9], [0.0, 1.9]])
    found = congestion_leader(game, most_fee=10.0, objective="welfare")
    assert found.value == pytest.approx(-2.9)
    assert found.regret <= 1e-9


def test_leader_bad_input():
    with pytest.raises(InvalidStateError, match=re.escape("weight[1] = 0.0; it is finite and > 0")):
        market_leader([1.0, 0.0], [1.0, 1.0], 1.0)
    with pytest.raises(InvalidStateError, match=re.escape("capacity = 0.0; it is finite and > 0")):
        market_leader([1.0], [1.0], 0.0)
    game = CongestionGame([[0]], [[1.0]], [1.0], [[0.0]])
    with pytest.raises(InvalidGameError, match="objective = 'fame'; choose revenue or welfare"):
        congestion_leader(game, most_fee=1.0, objective="fame")
    with pytest.raises(InvalidGameError, match=re.escape("most_fee = -1.0; it is finite and >= 0")):
        congestion_leader(game, most_fee=-1.0)


# ---- stochastic games -------------------------------------------------------------------------------


def random_stochastic(rng, states=3, actions=2, others=2, zero_sum=True, discount=0.6):
    T = rng.dirichlet(np.ones(states), (states, actions, others))
    first = rng.uniform(-1, 1, (states, actions, others))
    second = -first if zero_sum else rng.uniform(-1, 1, (states, actions, others))
    return StochasticGame(T, np.stack([first, second]), discount)


def test_minimax_of_matrices(rng):
    for _ in range(100):
        payoff = rng.normal(size=rng.integers(1, 6, 2)) * 10.0 ** rng.uniform(-3, 3)
        row, column = minimax(payoff)
        assert (row @ payoff).min() == pytest.approx((payoff @ column).max(), rel=1e-9, abs=1e-12)


def test_shapley_values_are_a_fixed_point_that_neither_can_improve(rng):
    game = random_stochastic(rng)
    value, row, column = shapley_values(game)
    stage = game.reward[0] + game.discount * game.transition @ value
    for s in range(3):
        assert (row[s] @ stage[s]).min() == pytest.approx(value[s], abs=1e-8)
        assert (stage[s] @ column[s]).max() == pytest.approx(value[s], abs=1e-8)
    # one state, no future: the matrix game itself
    pennies = StochasticGame(np.ones((1, 2, 2, 1)), [[[[1, -1], [-1, 1]]], [[[-1, 1], [1, -1]]]], 0.0)
    value, row, _ = shapley_values(pennies)
    assert value[0] == pytest.approx(0)
    assert row[0] == pytest.approx([0.5, 0.5])


def test_minimax_q_learns_shapleys_values(rng):
    game = random_stochastic(rng)
    value, _, _ = shapley_values(game)
    learned = minimax_q(game, steps=60_000)
    assert learned.value[0] == pytest.approx(value, abs=0.03)
    assert learned.value[1] == pytest.approx(-value, abs=0.03)


def test_nash_q_equals_minimax_where_interests_are_opposed(rng):
    game = random_stochastic(rng)
    value, _, _ = shapley_values(game)
    learned = nash_q(game, steps=4_000)
    assert learned.value[0] == pytest.approx(value, abs=0.12)


def test_friend_q_learns_the_joint_optimum(rng):
    game = random_stochastic(rng, zero_sum=False)
    game = StochasticGame(game.transition, np.stack([game.reward[0]] * 2), game.discount)
    value = np.zeros(3)
    for _ in range(200):
        value = (game.reward[0] + game.discount * game.transition @ value).reshape(3, -1).max(axis=1)
    learned = friend_or_foe_q(game, friends=True, steps=60_000)
    assert learned.value[0] == pytest.approx(value, abs=0.03)
    assert learned.value[1] == pytest.approx(value, abs=0.03)
    nash = nash_q(game, steps=4_000)
    assert nash.value[0] == pytest.approx(value, abs=0.12)


def test_foe_q_is_each_players_security_level(rng):
    game = random_stochastic(rng, zero_sum=False)
    learned = friend_or_foe_q(game, friends=False, steps=60_000)
    for player in range(2):
        own = game.reward[player] if player == 0 else game.reward[1].transpose(0, 2, 1)
        moves = game.transition if player == 0 else game.transition.transpose(0, 2, 1, 3)
        value, _, _ = shapley_values(StochasticGame(moves, np.stack([own, -own]), game.discount))
        assert learned.value[player] == pytest.approx(value, abs=0.03)


def test_learners_are_reproducible_and_reject_what_they_cannot_do(rng):
    game = random_stochastic(rng)
    assert np.array_equal(minimax_q(game, 500, seed=3).q, minimax_q(game, 500, seed=3).q)
    assert not np.array_equal(minimax_q(game, 500, seed=3).q, minimax_q(game, 500, seed=4).q)
    general = random_stochastic(rng, zero_sum=False)
    with pytest.raises(InvalidGameError, match="minimax-Q needs a zero-sum game"):
        minimax_q(general)
    with pytest.raises(InvalidGameError, match="Shapley's values need a zero-sum game"):
        shapley_values(general)
    with pytest.raises(InvalidGameError, match=re.escape("decay = 0.2; it is in (0.5, 1]")):
        minimax_q(game, decay=0.2)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (
            (np.ones((2, 2, 2, 1)), np.zeros((2, 2, 2, 2)), 0.5),
            "transition has shape (2, 2, 2, 1); it is (S, A, B, S), each at least 1",
        ),
        (
            (np.ones((1, 2, 2, 1)), np.zeros((2, 1, 2, 3)), 0.5),
            "reward has shape (2, 1, 2, 3); transition needs (2, 1, 2, 2)",
        ),
        (
            (np.full((1, 1, 2, 1), 0.5), np.zeros((2, 1, 1, 2)), 0.5),
            "sum of transition[0, 0, 0] = 0.5; probabilities of next states sum to 1",
        ),
        ((np.ones((1, 1, 1, 1)), np.zeros((2, 1, 1, 1)), 1.0), "discount = 1.0; it is in [0, 1)"),
        ((np.ones((1, 1, 1, 1)), np.full((2, 1, 1, 1), np.nan), 0.5), "reward[0, 0, 0, 0] = nan; a reward is finite"),
    ],
)  # fmt: skip
def test_stochastic_bad_input(args, message):
    with pytest.raises(InvalidGameError, match="^" + re.escape(message) + "$"):
        StochasticGame(*args)


# ---- topologies -------------------------------------------------------------------------------------


def braess():
    graph = nx.DiGraph()
    graph.add_edge("s", "u", capacity=1.0)
    graph.add_edge("s", "v", capacity=100.0, delay=1.1)
    graph.add_edge("u", "t", capacity=100.0, delay=1.1)
    graph.add_edge("v", "t", capacity=1.0)
    graph.add_edge("u", "v", capacity=100.0)
    graph.nodes["t"]["cpu"] = 1e9
    return graph


def test_routes_become_options_and_links_resources():
    topology = network_options(braess(), ["s"], routes=5)
    assert topology.routes[:2] == ((), ("s", "u", "v", "t"))
    assert set(topology.routes[2:]) == {("s", "u", "t"), ("s", "v", "t")}
    assert topology.resources[0] == ("link", "s", "u")
    assert topology.resources[-1] == ("server", "t")
    assert topology.options[0].tolist() == [-1, -1, -1, -1]
    by_u = topology.options[topology.routes.index(("s", "u", "t"))]
    assert {topology.resources[r][1:] for r in by_u if r >= 0} == {("s", "u"), ("u", "t"), ("t",)}
    assert topology.delay.tolist() == [0.0, 0.0, 1.1, 1.1]


def test_braess_paradox():
    # removing the shortcut makes everybody's equilibrium cheaper
    def mean_cost(graph):
        game = network_options(graph, ["s"], routes=5).game(["s"] * 4, np.full(4, 0.5), np.zeros(4), np.full(4, 99.0))
        found = best_response_dynamics(game)
        assert found.regret <= 1e-9
        return game.social_cost(found.choice) / 4

    with_shortcut = mean_cost(braess())
    without = braess()
    without.remove_edge("u", "v")
    # by hand: all four on the shortcut pay 2 x 0.5 x 2, plus 0.5 x 2 / 100 on it; split two and two they pay
    # 0.5 x 1 + 1.1, plus 0.5 x 1 / 100
    assert with_shortcut == pytest.approx(2.01)
    assert mean_cost(without) == pytest.approx(1.605)


def test_agents_only_take_routes_from_where_they_are():
    graph = nx.path_graph(4)
    nx.set_edge_attributes(graph, 2.0, "capacity")
    graph.nodes[0]["cpu"], graph.nodes[3]["cpu"] = 5.0, 5.0
    topology = network_options(graph, [1, 3], routes=1)
    game = topology.game([1, 3, 3], [1.0, 1.0, 1.0], [1.0, 2.0, 3.0], [9.0, 9.0, 9.0])
    choice = best_response_dynamics(game).choice
    for agent, node in enumerate([1, 3, 3]):
        route = topology.routes[choice[agent]]
        assert not route or route[0] == node
    # an agent at a server needs no link
    assert (3,) in topology.routes
    undirected = topology.routes.index((1, 0))
    assert topology.resources[topology.options[undirected][0]] == ("link", 0, 1)


def test_topology_bad_input():
    graph = nx.path_graph(2)
    with pytest.raises(InvalidGameError, match="the graph has no server; give at least one node a cpu > 0"):
        network_options(graph, [0])
    graph.nodes[1]["cpu"] = 1.0
    with pytest.raises(InvalidGameError, match=re.escape("link (0, 1) has capacity None; it is > 0")):
        network_options(graph, [0])
    graph.edges[0, 1]["capacity"] = 1.0
    with pytest.raises(InvalidGameError, match="source 7 is not a node of the graph"):
        network_options(graph, [7])
    topology = network_options(graph, [0])
    with pytest.raises(InvalidGameError, match=re.escape("source[0] = 1; it is not one of the topology's sources")):
        topology.game([1], [1.0], [1.0], [1.0])
