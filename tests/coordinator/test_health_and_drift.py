"""Detectors on cases made to have, and not to have, what they look for."""

from __future__ import annotations

import numpy as np
import pytest

from coordinator.drift import DriftWatch, Ranges
from coordinator.health import FleetWatch, HealthWatch
from games.congestion import CongestionGame
from hybridalloc import make_problem
from rl.proposal import Observation

ALL = np.ones(4, bool)


def run(watch, script, gains=None, priors=None, privates=None, live=None):
    """Feed options (T, N) with costs in which the option taken is ``gain`` cheaper than any other."""
    for t, option in enumerate(script):
        n = len(option)
        costs = np.zeros((n, 3))
        costs += 0.02 if gains is None else gains[t]
        costs[np.arange(n), option] = 0.0
        prior = np.zeros((n, 3)) if priors is None else priors[t]
        private = np.zeros((n, 3)) if privates is None else privates[t]
        watch.see(np.array(option), np.ones(n, bool) if live is None else live[t], costs, prior, private)
    return watch.report()


def test_two_transmitters_that_swap_for_nothing_oscillate():
    seen = run(HealthWatch(window=20, worth=0.1), [[t % 2, 1 - t % 2, 2, 0] for t in range(12)])
    assert seen.oscillating == (0, 1) and seen.wasted == 1.0 and seen.returns > 0.8
    assert seen.moves == pytest.approx(0.5)
    assert seen.status == "2 agents oscillating"


def test_moving_back_and_forth_at_a_gain_is_not_oscillation():
    script = [[t % 2, 1 - t % 2, 2, 0] for t in range(12)]
    seen = run(HealthWatch(window=20, worth=0.1), script, gains=np.full(12, 0.5))
    assert seen.oscillating == () and seen.wasted == 0.0 and seen.returns > 0.8


def test_wandering_without_return_is_not_oscillation():
    seen = run(HealthWatch(window=20, worth=0.1), [[t % 3, 0, 0, 0] for t in range(12)])
    assert seen.oscillating == () and seen.returns == 0.0 and seen.moves == pytest.approx(0.25)


def test_steps_in_which_an_agent_has_nothing_to_decide_are_not_moves():
    script = [[1, 0, 0, 0] if t % 2 else [0, 0, 0, 0] for t in range(12)]
    live = [np.array([t % 2 == 1, True, True, True]) for t in range(12)]
    seen = run(HealthWatch(window=20), script, live=live)
    assert seen.moves == 0.0 and seen.oscillating == ()


def test_the_window_forgets_and_another_size_starts_afresh():
    watch = HealthWatch(window=8)
    assert run(watch, [[t % 2, 0, 0, 0] for t in range(10)]).oscillating == (0,)
    assert run(watch, [[0, 0, 0, 0]] * 9).oscillating == ()
    assert run(watch, [[0, 0]]).steps == 1


def lazy_case(follows):
    watch = HealthWatch(window=20)
    for t in range(10):
        best = t % 3
        costs = np.full((2, 3), 0.5)
        costs[:, best] = 0.0
        option = np.array([best, best if follows else 1])
        watch.see(option, np.ones(2, bool), costs, np.zeros((2, 3)), costs)
    return watch.report()


def test_an_agent_that_never_answers_its_situation_is_lazy():
    assert lazy_case(False).lazy == (1,)
    assert lazy_case(True).lazy == ()
    same = run(HealthWatch(), [[1, 1, 1, 1]] * 12)  # nothing called for a move
    assert same.lazy == () and same.status == "ok"


def test_a_prior_that_never_moves_while_costs_do_is_deaf():
    rng = np.random.default_rng(0)
    privates = rng.random((12, 4, 3))
    priors = rng.normal(size=(12, 4, 3))
    priors[:, 2] = [0.0, -1.0, -2.0]
    seen = run(HealthWatch(), [[0, 1, 2, 0]] * 12, priors=priors, privates=privates)
    assert seen.deaf == (2,) and "1 agent with a still prior" in seen.status
    assert run(HealthWatch(), [[0, 1, 2, 0]] * 12, privates=privates).deaf == ()  # no prior at all: nobody's fault
    still = np.repeat(privates[:1], 12, axis=0)
    assert run(HealthWatch(), [[0, 1, 2, 0]] * 12, priors=priors, privates=still).deaf == ()


def test_the_remedy_charges_an_oscillating_agent_for_leaving_what_it_holds():
    watch = HealthWatch(window=20, worth=0.1)
    run(watch, [[t % 2, 1, 2, 0] for t in range(12)])
    anchor = watch.anchor((4, 3))
    assert anchor[0].tolist() == [0.1, 0.0, 0.1] and not anchor[1:].any()
    assert watch.anchor((5, 3)) is None and HealthWatch().anchor((4, 3)) is None


def test_bad_windows_are_named():
    with pytest.raises(ValueError, match="window = 1"):
        HealthWatch(window=1)
    with pytest.raises(ValueError, match=r"worth = -0\.1"):
        HealthWatch(worth=-0.1)


# --- drift


def look(rng, shift=0.0, live=True, e=4, n=10, o=3):
    pick = lambda *shape: (rng.normal(size=shape) + shift).astype(np.float32)
    flags = np.full((e, n), live)
    allowed, rows = np.ones((e, n, o), bool), np.arange(o) - 1
    return Observation(pick(e, n, 5), pick(e, 2, 4), pick(e, n, o, 6), flags, allowed, rows)


def trained(rng, steps=60):
    ranges = Ranges(keep=2000)
    for _ in range(steps):
        ranges.update(look(rng))
    return ranges


def test_what_was_trained_on_scores_next_to_nothing_and_a_shift_scores():
    rng = np.random.default_rng(0)
    watch = DriftWatch(trained(rng).bounds())
    assert watch.active
    same = np.mean([watch.score(look(rng)) for _ in range(50)])
    assert same < 0.005
    assert watch.score(look(rng, shift=4.0)) > 0.3
    assert watch.score(look(rng, shift=-10.0)) == 1.0
    assert watch.score(look(rng, live=False)) < 0.01  # idle agents' features are not read


def test_trust_rises_by_the_rule_and_comes_back():
    rng = np.random.default_rng(1)
    watch = DriftWatch(trained(rng).bounds())
    for _ in range(30):
        watch.update(look(rng))
    assert watch.trust(5.0) == 5.0
    for _ in range(60):
        watch.update(look(rng, shift=10.0))
    assert watch.trust(5.0) == np.inf and watch.trust(0.0) == 0.0
    watch.level = 0.03  # half way between 1 % and 5 %
    assert watch.distrust() == pytest.approx(0.5) and watch.trust(5.0) == pytest.approx(10.0)
    for _ in range(90):
        watch.update(look(rng))
    assert watch.trust(5.0) == 5.0


def test_the_reservoir_is_a_uniform_sample_of_all_rows():
    """Rows are numbered; quartiles of 400 kept out of 20,000 are where they should be, whatever came last."""
    ranges = Ranges(keep=400, seed=3)
    rng = np.random.default_rng(0)
    for t in range(500):
        base = look(rng, e=1, n=40)
        ranges.update(base._replace(agent=np.full((1, 40, 5), t, np.float32)))
    rows = ranges._rows["agent"][:, 0]
    assert len(rows) == 400
    assert np.allclose(np.quantile(rows, [0.25, 0.5, 0.75]), [125, 250, 375], atol=45)


def test_no_ranges_no_opinion():
    watch = DriftWatch({})
    rng = np.random.default_rng(0)
    assert not watch.active and watch.update(look(rng, shift=50.0)) == 0.0 and watch.trust(5.0) == 5.0
    with pytest.raises(ValueError, match="keep = 0"):
        Ranges(keep=0)


def test_a_feature_that_is_not_a_number_is_out_of_range():
    rng = np.random.default_rng(0)
    watch = DriftWatch(trained(rng).bounds())
    seen = look(rng)
    assert watch.score(seen._replace(agent=np.full_like(seen.agent, np.nan))) > 0.1


def test_a_fleets_figures_are_those_of_its_networks():
    problem = make_problem("mec", agents=8, servers=3)
    batch, prices, rng = problem.worlds([1, 2, 3]), problem.card.prices(), np.random.default_rng(0)
    fleet, alone = FleetWatch(3, window=10, worth=0.3), [HealthWatch(10, 0.3) for _ in range(3)]
    expected = []
    for slot in range(25):
        plan = batch.settle(batch.baseline("greedy" if slot % 2 else "nearest", rng), prices)
        game = batch.game(prices)
        prior = rng.standard_normal(game.private_cost.shape)
        fleet.see(game, plan.option, prior)
        for e, watch in enumerate(alone):
            one = CongestionGame(
                game.options, game.weight[e], game.capacity[e], game.private_cost[e], game.allowed[e], game.toll[e]
            )
            live = game.live[e]
            idle_out = np.where(live, plan.option[e], 0)
            watch.see(plan.option[e], live, one.costs(idle_out), prior[e], game.private_cost[e])
        if slot % 10 == 9:
            expected.append([[len(w.report().oscillating), len(w.report().lazy)] for w in alone])
        batch.execute(plan)
        batch.drift()
    assert np.array(expected).any()
    seen = fleet.summary()
    mean = 100 * np.mean(expected, axis=0) / 8
    assert np.allclose(seen["oscillating"], mean[:, 0]) and np.allclose(seen["lazy"], mean[:, 1])
    assert np.isnan(FleetWatch(2).summary()["lazy"]).all()  # no window is full
