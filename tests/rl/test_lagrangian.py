"""A constrained game of two agents whose optimum and multiplier a linear program knows."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import linprog

from rl.lagrangian import Lagrangian, LagrangianConfig, Penalty, PenaltyConfig
from rl.learner import Executed
from rl.networks import Sizes
from rl.proposal import Observation

VALUE = np.array([0.25, 0.5, 0.75, 1.0])[None] * np.array([1.0, 0.6])[:, None]  # (agent, context) of using
LIMIT = 3.5 / 8  # of the mean share of agents that use
EVERY = np.array([(a, b) for a in range(4) for b in range(4)])  # contexts are drawn independently
SIZES = Sizes(6, 1, 2)
FAST = {"horizon": 8, "gamma": 0.0, "gae": 0.0, "minibatches": 1, "rate": 5e-3}


def view(context):
    e = len(context)
    agent = np.zeros((e, 2, 6), np.float32)
    agent[:, :, :2] = np.eye(2)
    agent[np.arange(e)[:, None], np.arange(2), 2 + context] = 1
    pair = np.tile(np.eye(2, dtype=np.float32), (e, 2, 1, 1))
    ones = np.ones((e, 2), bool)
    return Observation(agent, np.zeros((e, 1, 1), np.float32), pair, ones, np.ones((e, 2, 2), bool), np.full(2, -1))


def use_of(learner):
    """(16, 2) chance of using in every joint context."""
    raw = learner.policy.propose(view(EVERY)).log_prior
    return 1 / (1 + np.exp(raw[..., 0] - raw[..., 1]))


def play(learner, updates, seed=0, networks=32):
    """Rows of multiplier, mean cost and mean payment of the policy after each update."""
    rng, rows = np.random.default_rng(seed), []
    context = rng.integers(0, 4, (networks, 2))
    late, whole = np.zeros((networks, 2, 0)), np.zeros(networks, bool)
    for update in range(updates):
        while not learner.ready():
            seen = view(context)
            prior = np.maximum((z := learner.propose(seen).log_prior) - z.max(-1, keepdims=True), -10)
            option = (prior + rng.gumbel(size=prior.shape)).argmax(-1)
            paid = option * VALUE[np.arange(2), context]
            context = rng.integers(0, 4, (networks, 2))
            cost = option.mean(1)
            learner.record(Executed(seen, option, prior, np.zeros_like(prior), paid, late, whole, None, cost=cost))
        learner.update(view(context), update / updates)
        use = use_of(learner)
        rows.append((getattr(learner, "multiplier", 0.0), use.mean(), (use * VALUE[np.arange(2), EVERY]).mean()))
    return np.array(rows)


def test_the_multiplier_and_the_constrained_optimum_are_the_linear_programs():
    """Chances x of using: max sum x v / 8 subject to sum x / 8 <= d; its dual is the price of the limit."""
    program = linprog(-VALUE.ravel() / 8, A_ub=np.full((1, 8), 1 / 8), b_ub=[LIMIT], bounds=(0, 1))
    known, best = -program.ineqlin.marginals[0], -program.fun
    assert (known, best) == (pytest.approx(0.5), pytest.approx(0.325))
    learner = Lagrangian(SIZES, LagrangianConfig(cost_limit=LIMIT, proportional=0.5, integral=0.1, **FAST), 0)
    rows = play(learner, 80)
    multiplier, cost, paid = rows[40:].mean(0)
    print(f"multiplier {multiplier:.3f} [{known:.3f}], cost {cost:.3f} [{LIMIT:.3f}], payment {paid:.4f} [{best:.4f}]")
    assert rows[0, 0] < 0.1 and multiplier == pytest.approx(known, abs=0.08)
    assert cost == pytest.approx(LIMIT, abs=0.03)
    assert paid == pytest.approx(best, abs=0.015)
    use = np.array([[use_of(learner)[EVERY[:, i] == k, i].mean() for k in range(4)] for i in range(2)])
    assert use[VALUE > 0.55].min() > 0.8 and use[VALUE < 0.4].max() < 0.2


def test_a_penalty_uses_what_is_worth_more_than_it():
    learner = Penalty(SIZES, PenaltyConfig(penalty=0.5, **FAST), 0)
    play(learner, 30)
    use = np.array([[use_of(learner)[EVERY[:, i] == k, i].mean() for k in range(4)] for i in range(2)])
    assert use[VALUE > 0.55].min() > 0.8 and use[VALUE < 0.4].max() < 0.2


def test_dual_ascent_and_pid_by_hand():
    plain = Lagrangian(SIZES, LagrangianConfig(cost_limit=0.2, integral=0.5, multiplier=0.1), 0)
    got = []
    for cost in (0.4, 0.1, 0.0, 0.0):
        plain.ascend(cost)
        got.append(plain.multiplier)
    assert got == pytest.approx([0.2, 0.15, 0.05, 0.0])
    pid = Lagrangian(
        SIZES, LagrangianConfig(cost_limit=0.2, integral=0.5, proportional=2.0, derivative=1.0, most=0.6), 0
    )
    got = []
    for cost in (0.4, 0.3, 0.9, 0.0):  # I: .1, .15, .5, .4
        pid.ascend(cost)
        got.append(pid.multiplier)
    assert got == pytest.approx([0.6, 0.35, 0.6, 0.0])  # the first and third at their bound


def test_with_nothing_to_pay_for_the_limit_it_is_mappo():
    """While the limit does not bind and lambda is 0, the policy moves as without it."""
    from rl.mappo import Mappo, MappoConfig

    free, bound = Mappo(SIZES, MappoConfig(**FAST), 0), Lagrangian(SIZES, LagrangianConfig(cost_limit=1.0, **FAST), 0)
    for learner in (free, bound):
        play(learner, 4)
    for name, array in free.policy.weights.items():
        np.testing.assert_array_equal(array, bound.policy.weights[name])


def test_settings_out_of_range_are_named():
    with pytest.raises(ValueError, match=r"cost_limit = -0\.1; it must be a number >= 0"):
        LagrangianConfig(cost_limit=-0.1)
