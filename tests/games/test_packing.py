"""The packing game against a MILP (HiGHS), against every joint choice, and by its own certificate."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy.optimize import LinearConstraint, milp

from games.errors import InvalidGameError
from games.packing import kept_apart, pack, packing_game, seat_asked, serve_in_order, with_quotas
from games.packing_certificate import certify_packing


def cluster(seed, jobs=5, nodes=3, classes=1, curves=False, **more):
    """Jobs of CPU, memory and whole GPUs on nodes: option 1 + k is node k, which three resources stand for."""
    rng = np.random.default_rng(seed)
    rows = np.full((jobs, 1 + nodes, 3), -1)
    rows[:, 1:] = np.arange(3 * nodes).reshape(nodes, 3)
    need = np.stack([rng.integers(1, 9, jobs), rng.integers(1, 65, jobs), rng.integers(0, 5, jobs)], 1)
    demand = np.broadcast_to(need[:, None], rows.shape)
    capacity = np.stack([rng.integers(6, 13, nodes), rng.integers(40, 90, nodes), rng.integers(2, 5, nodes)], 1).ravel()
    private = np.concatenate([np.full((jobs, 1), 5.0), rng.uniform(0, 2, (jobs, nodes))], 1)
    curve = np.cumsum(rng.uniform(-1, 1, (3 * nodes, 5)), 1) if curves else None
    ok = rng.random(private.shape) < 0.9
    return packing_game(
        rows, demand, capacity, private=private, curve=curve, ok=ok, rank=rng.integers(0, classes, jobs), **more
    )


def serving(game):
    """The joint choice that serves most, the highest class first, then is cheapest, by HiGHS; private costs alone."""
    n, o = game.private.shape
    reward = 100.0 ** (1 + game.rank.max() - game.rank)[:, None] * (np.arange(o) > 0)
    use = np.zeros((len(game.capacity), n, o))
    for i, a, s in np.argwhere(game.rows >= 0):
        use[game.rows[i, a, s], i, a] += game.demand[i, a, s]
    allowed = game.ok.copy()
    allowed[:, 0] = True
    found = milp(
        (game.private - reward).ravel(), integrality=np.ones(n * o), bounds=(0, allowed.ravel()),
        options={"mip_rel_gap": 0},
        constraints=[
            LinearConstraint(use.reshape(len(use), -1), -np.inf, game.capacity),
            LinearConstraint(np.kron(np.eye(n), np.ones(o)), 1, 1),
        ],
    )  # fmt: skip
    return found.x.reshape(n, o).argmax(1)


def every(game):
    """All joint choices that fit."""
    places = [[0, *(int(o) for o in np.flatnonzero(row))] for row in game.ok]
    for option in itertools.product(*places):
        found = certify_packing(game, option)
        if found.excess <= 1e-9:
            yield np.array(option), found


@pytest.mark.parametrize("seed", range(30))
def test_it_is_an_equilibrium_without_envy_and_the_milps_answer_is_one_too(seed):
    game = cluster(seed, jobs=8, classes=1 + seed % 3)
    mine, best = pack(game), serving(game)
    assert mine.stable and certify_packing(game, mine.option).holds()
    assert not certify_packing(game, best).envy and certify_packing(game, best).excess <= 1e-9
    top = game.rank == 0
    assert (mine.option[top] > 0).sum() <= (best[top] > 0).sum()


def test_it_serves_nearly_as_many_as_the_milp():
    served = np.array([[(c > 0).sum() for c in (pack(g).option, serving(g))] for g in map(cluster, range(60))])
    assert (served[:, 0] <= served[:, 1]).all()
    assert served[:, 0].sum() >= 0.97 * served[:, 1].sum()


@pytest.mark.parametrize("seed", range(12))
def test_the_least_potential_of_those_who_are_served_is_an_equilibrium(seed):
    """With curves of any shape: every joint choice is enumerated."""
    game = cluster(seed, jobs=4, curves=True)
    mine = pack(game)
    found = certify_packing(game, mine.option)
    assert mine.stable and found.holds()
    alike = [(f.potential, f) for option, f in every(game) if ((option > 0) == (mine.option > 0)).all()]
    least = min(alike, key=lambda pair: pair[0])
    assert least[1].regret <= 1e-9 and least[0] <= found.potential + 1e-9


def test_a_change_of_option_lowers_the_potential_by_what_its_agent_saves():
    game = cluster(4, jobs=4, curves=True)
    for option, found in itertools.islice(every(game), 60):
        for i in np.flatnonzero(option):
            for o in np.flatnonzero(game.ok[i]):
                other = np.where(np.arange(4) == i, o, option)
                after = certify_packing(game, other)
                if after.excess <= 1e-9:
                    assert found.potential - after.potential <= found.regret + 1e-9


def test_two_jobs_of_64_gb_do_not_stand_on_80():
    rows = np.array([[[-1, -1], [0, 1]]] * 2)
    game = packing_game(rows, np.broadcast_to([10.0, 64.0], rows.shape), [100.0, 80.0])
    assert sorted(pack(game).option) == [0, 1]
    assert not certify_packing(game, [1, 1]).holds() and certify_packing(game, [1, 1]).excess == pytest.approx(0.6)


def one_node(need, capacity, **more):
    """Jobs of one resource on one node."""
    rows = np.full((len(need), 2, 1), -1)
    rows[:, 1] = 0
    demand = np.broadcast_to(np.reshape(need, (-1, 1, 1)), rows.shape)
    private = np.repeat([[5.0, 1.0]], len(need), 0)
    return packing_game(rows, demand, [capacity], private=private, **more)


def test_lower_classes_make_room_as_few_as_will_do():
    game = one_node([3.0, 1.0, 2.0, 1.0], 4.0, rank=[0, 1, 1, 2], stay=[0, 1, 1, 1], preempt=np.zeros(4))
    option = pack(game).option
    assert option.tolist() == [1, 1, 0, 0] and certify_packing(game, option).holds()


def test_who_may_not_be_preempted_stays_and_a_cost_is_weighed():
    held = {"rank": [0, 1], "stay": [0, 1]}
    assert pack(one_node([3.0, 3.0], 4.0, **held)).option.tolist() == [0, 1]  # never
    assert pack(one_node([3.0, 3.0], 4.0, preempt=[9.0, 3.9], **held)).option.tolist() == [1, 0]
    dear = one_node([3.0, 3.0], 4.0, preempt=[9.0, 4.1], **held)
    assert pack(dear).option.tolist() == [0, 1] and certify_packing(dear, [0, 1]).holds()
    cheap = one_node([3.0, 3.0], 4.0, preempt=[9.0, 3.9], **held)
    assert certify_packing(cheap, [0, 1]).envy == ((0, 1),)


def test_one_is_moved_to_make_room():
    rows = np.full((2, 3, 1), -1)
    rows[:, 1:, 0] = [0, 1]
    game = packing_game(
        rows, np.broadcast_to([[[2.0]], [[3.0]]], rows.shape), [3.0, 2.0], private=[[9, 0, 1], [9, 0, 0]],
        stay=[1, 0], preempt=np.zeros(2),
    )  # fmt: skip
    assert pack(game).option.tolist() == [2, 1]


def test_a_gang_takes_several_nodes_or_none():
    rows = np.full((2, 3, 2), -1)
    rows[0, 1] = [0, 1]  # one option: both nodes
    rows[1, 1, 0], rows[1, 2, 0] = 0, 1
    game = packing_game(rows, np.full(rows.shape, 2.0), [2.0, 2.0], rank=[1, 0], ok=[[0, 1, 0], [0, 1, 1]])
    assert pack(game).option.tolist() == [0, 1]
    assert pack(game._replace(rank=np.array([0, 1]))).option.tolist() == [1, 0]


def test_quotas_and_jobs_kept_apart():
    rows = np.full((4, 3, 1), -1)
    rows[:, 1:, 0] = [0, 1]
    free = packing_game(rows, np.ones(rows.shape), [9.0, 9.0], private=[[9, 0, 1]] * 4)
    assert pack(free).option.tolist() == [1, 1, 1, 1]
    apart = kept_apart(free, np.array([0, 0, 0, -1]), np.array([-1, 0, 1]))
    assert sorted(pack(apart).option[:3]) == [0, 1, 2] and pack(apart).option[3] == 1
    assert certify_packing(apart, pack(apart).option).holds()
    some = with_quotas(free, np.array([0, 0, 1, -1]), np.full(4, 2.0), np.array([3.0, 5.0]))
    assert (pack(some).option > 0).tolist() == [True, False, True, True]
    assert certify_packing(some, [1, 1, 1, 1]).excess == pytest.approx(1 / 3)


def test_nobody_and_nothing():
    none = packing_game(np.zeros((0, 1, 1), int), np.zeros((0, 1, 1)), [1.0])
    assert pack(none).option.shape == (0,) and certify_packing(none, []).holds()
    full = one_node([1.0], 0.0)
    assert pack(full).option.tolist() == [0] and certify_packing(full, [1]).excess == np.inf


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rows": np.zeros((2, 3))}, "rows has shape"),
        ({"rows": np.full((2, 2, 1), 1)}, r"rows\[0, 0, 0\] = 1; a resource is -1 to 0"),
        ({"rows": np.zeros((2, 2, 1), int)}, "option 0 uses a resource"),
        ({"demand": -np.ones((2, 2, 1))}, r"demand\[0, 0, 0\] = -1"),
        ({"stay": [0, 7]}, r"stay\[1\] = 7; an option is 0 to 1"),
        ({"preempt": [0, -1]}, "preempt has shape"),
    ],
)
def test_what_makes_no_game_is_told(change, message):
    rows = np.array([[[-1], [0]]] * 2)
    given = {"rows": rows, "demand": np.ones(rows.shape), "capacity": [1.0]} | change
    with pytest.raises(InvalidGameError, match=message):
        packing_game(**given)


# --- trades


def market(seed, jobs=7, pools=3, curves=False, classes=1):
    """Gangs on pools of GPUs: a place is worth something, none nothing."""
    rng = np.random.default_rng(seed)
    rows = np.full((jobs, 1 + pools, 1), -1)
    rows[:, 1:, 0] = np.arange(pools)
    gang, value = rng.choice([1, 1, 2, 4], jobs), rng.uniform(0.1, 3, (jobs, pools))
    private = np.concatenate([np.zeros((jobs, 1)), -value], 1)
    demand = np.broadcast_to(gang[:, None, None], rows.shape)
    curve = np.cumsum(rng.uniform(-0.2, 0.2, (pools, 5)), 1) if curves else None
    ok = rng.random(private.shape) < 0.85
    return packing_game(
        rows,
        demand,
        rng.integers(2, 6, pools),
        private=private,
        ok=ok,
        curve=curve,
        rank=rng.integers(0, classes, jobs),
    )


@pytest.mark.parametrize("seed", range(40))
def test_no_two_agents_would_trade_places(seed):
    """Each pair of changes, one by one: a place for another's, who goes elsewhere or, of one class, makes room."""
    game = market(seed, curves=seed % 2 == 1, classes=1 + seed % 3)
    found = pack(game, trade=True)
    at, base = found.option, certify_packing(game, found.option)
    assert found.stable and base.holds()
    n, o = game.private.shape
    for i, j in itertools.permutations(range(n), 2):
        for to, goes in itertools.product(range(1, o), range(o)):
            if at[j] == 0 or not game.ok[i, to] or (goes and not game.ok[j, goes]) or to == at[i]:
                continue
            if goes == 0 and (at[i] or game.rank[i] != game.rank[j]):
                continue
            other = at.copy()
            other[i], other[j] = to, goes
            after = certify_packing(game, other)
            assert after.excess > 1e-9 or after.potential >= base.potential - 1e-9


def test_with_trades_a_market_is_nearly_worth_what_the_best_assignment_is():
    mine, plain, best = 0.0, 0.0, 0.0
    for game in map(market, range(60)):
        n, o = game.private.shape
        use = np.zeros((len(game.capacity), n, o))
        for i, a, s in np.argwhere(game.rows >= 0):
            use[game.rows[i, a, s], i, a] += game.demand[i, a, s]
        found = milp(
            game.private.ravel(), integrality=np.ones(n * o), bounds=(0, (game.ok | (np.arange(o) == 0)).ravel()),
            constraints=[
                LinearConstraint(use.reshape(len(use), -1), -np.inf, game.capacity),
                LinearConstraint(np.kron(np.eye(n), np.ones(o)), 1, 1),
            ],
        )  # fmt: skip
        best += found.fun
        mine += certify_packing(game, pack(game, trade=True).option).potential
        plain += certify_packing(game, pack(game).option).potential
    assert best <= mine < 0.97 * best and mine < plain - 1


def test_who_holds_a_place_for_good_does_not_trade_it():
    rows = np.array([[[-1], [0], [1]]] * 2)
    private = np.array([[0.0, -1.0, -0.9], [0.0, -1.0, -0.1]])
    game = packing_game(rows, np.ones(rows.shape), [1.0, 1.0], private=private, stay=[1, 2], preempt=[0.0, 0.0])
    assert pack(game).option.tolist() == [1, 2] and pack(game, trade=True).option.tolist() == [2, 1]
    held = game._replace(preempt=np.array([np.inf, 0.0]))
    assert pack(held, trade=True).option.tolist() == [1, 2]


def test_agents_are_seated_as_they_ask_and_in_an_order_as_far_as_there_is_room():
    game = one_node([2.0, 3.0, 1.0], 4.0)
    assert seat_asked(game, [1, 1, 1]).option.tolist() == [1, 0, 1]  # the smallest first
    assert seat_asked(game, [0, 1, 7]).option.tolist() == [0, 1, 0]
    assert serve_in_order(game, [0, 1, 2]).option.tolist() == [1, 0, 1]
    assert serve_in_order(game, [0, 1, 2], strict=True).option.tolist() == [1, 0, 0]
    assert serve_in_order(game, [1]).used.tolist() == [3.0]
