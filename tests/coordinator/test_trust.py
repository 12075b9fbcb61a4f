"""Rules that find trust: regret bounds on adversaries, gradients against differences, the meta-game's guarantee."""

from __future__ import annotations

import json

import numpy as np
import pytest

from coordinator.hedge import Exp3, Hedge
from coordinator.learned_trust import LearnedTrust, trust_score
from coordinator.merge import explore, mixed_strategy
from coordinator.robust import Robust, maximin
from coordinator.trust import DEFAULT_GRID, Trust
from games.normal_form import regret, zero_sum
from hybridalloc import make_problem

# --- Hedge


def adversary(hedge, rng, kind, t):
    """Losses chosen with the learner's present weights in sight."""
    k = len(hedge.grid)
    if kind == "heaviest":  # hits whatever the learner leans on
        return np.where(hedge.weights == hedge.weights.max(), 1.0, 0.0)
    if kind == "follower's trap":  # the leader of the moment always loses
        return np.where(hedge.loss == hedge.loss.min(), 1.0, rng.random(k) * 0.5)
    if kind == "late switch":
        return np.where(np.arange(k) == (0 if t < 400 else 1), 0.0, 1.0)
    if kind == "growing":  # ranges unknown beforehand
        return (1 + t) * rng.normal(size=k)
    return rng.random(k) + np.where(np.arange(k) == 2, -0.1, 0.0)


@pytest.mark.parametrize("start", [None, 3])
@pytest.mark.parametrize("kind", ["heaviest", "follower's trap", "late switch", "growing", "stochastic"])
def test_hedges_regret_is_within_its_bound_on_adversarial_sequences(kind, start):
    rng = np.random.default_rng(3)
    hedge, expected, total = Hedge(DEFAULT_GRID, start), 0.0, np.zeros(len(DEFAULT_GRID))
    for t in range(1000):
        losses = adversary(hedge, rng, kind, t)
        expected += hedge.weights @ losses  # counted here, not by the class
        total += losses
        hedge.learn(losses)
        assert expected - total.min() <= hedge.bound + 1e-9
    assert hedge.regret == pytest.approx(expected - total.min(), rel=1e-9, abs=1e-9)
    if kind != "growing" and start is None:
        assert hedge.bound <= 1.6 * (np.sqrt(1000 * np.log(7)) + 4 / 3 * np.log(7) + 3)  # spreads are at most 1.6


def test_hedge_forgets_neither_scale_nor_shift():
    """Losses times 1,000 plus 7 lead to the same weights: no range has to be known."""
    rng = np.random.default_rng(0)
    a, b = Hedge([1.0, 5.0, np.inf]), Hedge([1.0, 5.0, np.inf])
    for _ in range(200):
        losses = rng.random(3)
        a.learn(losses)
        b.learn(1000 * losses + 7)
        assert np.allclose(a.weights, b.weights, atol=1e-6)


def test_hedge_finds_a_small_constant_advantage_soon():
    rng = np.random.default_rng(1)
    hedge = Hedge(DEFAULT_GRID)
    for _ in range(300):
        hedge.learn(rng.normal(0, 0.02, 7) - 0.01 * (np.arange(7) == 4))
    assert hedge.weights[4] > 0.9


def test_hedge_starts_at_a_trust_and_promises_more_for_it():
    """Nine tenths of the weight at first; the bound for every trust, counted here, on an adversary who sees them."""
    rng = np.random.default_rng(4)
    hedge, expected, total, squares, widest = Hedge(DEFAULT_GRID, 3), 0.0, np.zeros(7), 0.0, 0.0
    assert hedge.weights == pytest.approx([1 / 60] * 3 + [0.9] + [1 / 60] * 3)
    for t in range(600):
        losses = np.where(hedge.weights == hedge.weights.max(), 1.0, rng.random(7)) - 0.2 * (np.arange(7) == t // 200)
        expected += hedge.weights @ losses
        total += losses
        squares, widest = squares + np.ptp(losses) ** 2, max(widest, np.ptp(losses))
        hedge.learn(losses)
        q = np.where(np.arange(7) == 3, np.log(1 / 0.9), np.log(60)) / np.log(7)
        gap = 0.5 * np.sqrt(np.log(7) * squares) + widest * (2 / 3 * np.log(7) + 1)
        assert (expected - total <= (1 + q) * gap + q * widest + 1e-9).all()


def test_hedge_stays_at_its_start_through_noise_and_leaves_it_for_a_reason():
    """Losses as on mec: .02 of noise a slot, .4 for the proposal; nothing else differs, or the start costs .02."""
    rng = np.random.default_rng(6)
    for harm, stays in ((0.0, True), (0.02, False)):
        hedge = Hedge(DEFAULT_GRID, 3)
        for _ in range(300):
            hedge.learn(rng.normal(0, 0.02, 7) + np.array([0.4, 0, 0, harm, 0, 0, 0]))
        assert (hedge.weights[3] > 0.5) == stays and hedge.weights[0] < 1e-9


def test_hedges_state_goes_through_json():
    rng = np.random.default_rng(1)
    a = Hedge(DEFAULT_GRID)
    for _ in range(20):
        a.learn(rng.random(7))
    b = Hedge(DEFAULT_GRID)
    b.restore(json.loads(json.dumps(a.state())))
    assert np.array_equal(a.weights, b.weights) and a.bound == b.bound and a.regret == b.regret


def test_exp3s_mean_regret_is_within_its_bound():
    """On losses fixed beforehand; mean over 60 runs, which is 5 standard errors below the bound."""
    rng = np.random.default_rng(5)
    losses = np.clip(rng.random((800, 4)) + np.array([0, 0.1, -0.2, 0.05]), 0, 1)
    regrets = []
    for run in range(60):
        exp3, draw, paid = Exp3([0.0, 1.0, 5.0, np.inf]), np.random.default_rng(run), 0.0
        for row in losses:
            k = int(draw.choice(4, p=exp3.weights))
            exp3.learn(k, row[k])
            paid += row[k]
        regrets.append(paid - losses.sum(axis=0).min())
    assert np.mean(regrets) + 5 * np.std(regrets) / np.sqrt(60) <= exp3.bound
    assert np.mean(regrets) < 0.5 * (losses.mean(axis=1).sum() - losses.sum(axis=0).min())  # and learns something


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Hedge([5.0]), "at least two entries"),
        (lambda: Hedge([1.0, -2.0]), r"grid\[1\] = -2.0; a trust is >= 0"),
        (lambda: Hedge([1.0, 2.0]).learn([1.0]), "one finite number for each of 2 trusts"),
        (lambda: Hedge([1.0, 2.0]).learn([1.0, np.nan]), "one finite number for each of 2 trusts"),
        (lambda: Exp3([1.0, 2.0]).learn(0, 1.5), r"needs a loss in \[0, 1\]"),
        (lambda: Robust([1.0, 2.0], period=0), "period = 0"),
        (lambda: Robust([1.0, 2.0]).solve(np.zeros((2, 0))), "the scenario set is empty"),
        (lambda: Robust([1.0, 2.0]).solve(np.zeros((3, 2))), "one row for each of 2 trusts"),
        (lambda: Robust([1.0, 2.0]).solve([[1.0, np.nan], [0, 0]]), r"payoff\[0, 1\] = nan"),
        (lambda: Trust("hegde"), "trust = 'hegde'; give a number >= 0 or one of learned, hedge, exp3, robust"),
        (lambda: Trust(-0.1), "trust = -0.1; it must be >= 0"),
        (lambda: Trust(float("nan")), "trust = nan; it must be >= 0"),
        (lambda: Trust("learned"), "needs a recommender that was trained with"),
        (lambda: LearnedTrust(0.0), "a learned trust starts within"),
    ],
)
def test_bad_settings_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


# --- robust


def test_the_meta_games_value_is_at_least_each_parents_worst_case():
    """500 random payoff tables, ties and constant rows among them: both promises, against the linear program."""
    rng = np.random.default_rng(0)
    better, blended = 0, 0
    for trial in range(500):
        rows, columns = rng.integers(2, 8), rng.integers(1, 11)
        payoff = rng.normal(size=(rows, columns)) if trial % 3 else rng.integers(0, 3, (rows, columns)).astype(float)
        rule = Robust(np.linspace(0, 10, rows))
        rule.solve(payoff)
        worst, short = payoff.min(axis=1), payoff.max(axis=0) - payoff
        assert rule.weights.sum() == pytest.approx(1) and (rule.weights >= 0).all()
        assert rule.value == pytest.approx((rule.weights @ payoff).min())
        assert rule.shortfall == pytest.approx((rule.weights @ short).max())
        assert rule.value >= worst[0] - 1e-7 and rule.value >= worst[-1] - 1e-7  # always, both parents
        least, plain = -zero_sum(-short).value, zero_sum(payoff)
        if rule.share == 0:
            assert rule.shortfall == pytest.approx(least, abs=1e-7) and least <= short.max(axis=1).min() + 1e-9
            assert rule.regret == pytest.approx(regret(-short, short, rule.weights, rule.against), abs=1e-12)
        else:  # no more of it than the promise takes
            assert rule.value == pytest.approx(max(worst[0], worst[-1]), abs=1e-7) or rule.share == 1
            assert plain.value >= rule.value - 1e-7 and rule.shortfall >= least - 1e-7
        assert rule.regret <= 1e-7 * max(1, np.ptp(payoff))
        better += rule.shortfall < short.max(axis=1).min() - 1e-6
        blended += rule.share > 0
    assert better > 100  # mixing is worth something
    assert 20 < blended < 480


def test_a_harsh_world_in_which_little_is_at_stake_does_not_decide():
    """Plain maximin gives up .1 in the mild world for .002 in the harsh one; by hand the shortfalls even out at p."""
    payoff = np.array([[0.9, 0.010], [0.8, 0.012], [0.6, 0.010]])
    assert maximin(payoff)[0] == pytest.approx([0, 1, 0])
    rule = Robust([0.0, 20.0, np.inf])
    rule.solve(payoff)
    p = 0.1 / 0.102
    assert rule.weights == pytest.approx([p, 1 - p, 0]) and rule.shortfall == pytest.approx(0.002 * p)
    assert rule.share == 0 and rule.value > 0.010


def test_where_shortfalls_would_break_a_parents_worst_case_it_is_kept():
    """By hand: shortfalls (1, 0) and (0, .1) would mix 1 to 10 and get .909 in the harsh world, less than a parent."""
    rule = Robust([0.0, np.inf])
    rule.solve([[10.0, 1.0], [11.0, 0.9]])
    assert rule.share == pytest.approx(1) and rule.weights == pytest.approx([1, 0]) and rule.value == pytest.approx(1.0)


def test_rock_paper_scissors_is_mixed_evenly():
    row, column, gain = maximin(np.array([[0.0, -1, 1], [1, 0, -1], [-1, 1, 0]]))
    assert np.allclose(row, 1 / 3) and np.allclose(column, 1 / 3) and gain < 1e-12


def test_payoffs_fade_and_the_clock_is_slow():
    rule = Robust([0.0, 5.0, np.inf], period=10, keep=0.75)  # the middle until it is solved
    assert rule.weights.tolist() == [0, 1, 0]
    assert [k for k in range(35) if rule.due()] == [0, 10, 20, 30]
    rule.solve([[0.0, 4.0], [1.0, 1.0], [3.0, 0.0]])
    rule.solve([[0.0, 0.0], [1.0, 5.0], [3.0, 0.0]])
    assert rule.payoff.tolist() == [[0.0, 3.0], [1.0, 2.0], [3.0, 0.0]]
    again = Robust([0.0, 5.0, np.inf])
    again.restore(json.loads(json.dumps(rule.state())))
    assert np.allclose(again.weights, rule.weights) and again.value == pytest.approx(rule.value)


def test_draws_follow_the_mix_and_a_number_stays():
    trust = Trust("robust", grid=(0.0, 5.0, np.inf), seed=1, period=1)
    trust.rule.weights = np.array([0.2, 0.3, 0.5])
    drawn = [trust.draw() for _ in range(4000)]
    assert np.mean(np.isinf(drawn)) == pytest.approx(0.5, abs=0.03)
    assert drawn.count(0.0) / 4000 == pytest.approx(0.2, abs=0.03)
    trust.rule.period, trust.rule.steps = 5, 0  # a robust trust stays for a period
    drawn = np.array([trust.draw() for _ in range(400)]).reshape(80, 5)
    assert (drawn == drawn[:, :1]).all() and len(np.unique(drawn)) == 3
    hedge = Trust("hedge", trained=20.0)
    assert (
        hedge.grid.tolist() == [0, 5, 10, 20, 40, 80, np.inf]
        and hedge.now == 20 == hedge.grid[hedge.rule.first.argmax()]
    )
    assert [Trust(7.0).draw(), Trust(None).draw(), Trust("learned", learned=3.5).draw()] == [7.0, 5.0, 3.5]


# --- learned


def toy(rng, n=6, o=4):
    prior = rng.normal(size=(3, n, o))
    costs = rng.random((3, n, o))
    allowed = rng.random((3, n, o)) < 0.8
    allowed[..., 0] = True
    return prior, costs, allowed


def test_the_score_is_the_derivative_of_the_executed_log_density():
    rng = np.random.default_rng(0)
    prior, costs, allowed = toy(rng)
    option = mixed_strategy(rng.normal(size=prior.shape), allowed).argmax(axis=-1)

    def log_density(log_trust):
        sigma = mixed_strategy(prior - np.exp(log_trust) * costs, allowed)
        return np.log(np.take_along_axis(sigma, option[..., None], -1)[..., 0])

    at, h = np.log(4.0), 1e-6
    score = trust_score(prior, -4.0 * costs, allowed, option)
    assert np.allclose(score, (log_density(at + h) - log_density(at - h)) / (2 * h), atol=1e-8)


@pytest.mark.parametrize(("honest", "rises"), [(True, True), (False, False)])
def test_trust_rises_where_the_game_is_right_and_falls_where_it_misleads(honest, rises):
    """One agent a network, costs told; rewards are what the costs say, or what the prior says against them."""
    rng = np.random.default_rng(2)
    rule = LearnedTrust(trust=3.0, gamma=0.0, rate=0.1)
    e, o = 64, 3
    for _ in range(60):
        for _ in range(4):
            costs, prior = rng.random((e, 1, o)), rng.normal(size=(e, 1, o))
            allowed = np.ones((e, 1, o), bool)
            sigma = mixed_strategy(prior - rule.trust * costs, allowed)
            option = (sigma.cumsum(-1) < rng.random((e, 1, 1))).sum(-1)
            worth = -costs if honest else prior
            reward = np.take_along_axis(worth, option[..., None], -1)[..., 0]
            rule.record(prior, -rule.trust * costs, allowed, np.ones((e, 1), bool), option, reward)
        rule.update()
    assert rule.trust > 10 if rises else rule.trust < 1


def test_a_gradient_that_is_not_finite_leaves_trust_as_it_was():
    rule = LearnedTrust(4.0)
    with pytest.raises(FloatingPointError, match=r"trust stays at 4\.0"):
        rule.step(float("nan"))
    assert rule.trust == 4.0 and rule.update() == 0.0


def test_records_match_what_the_coordinator_explores():
    """The bias that ``explore`` gives is what the score needs: its mean over draws is zero."""
    problem, rng = make_problem("mec", agents=12, servers=3), np.random.default_rng(0)
    game = problem.worlds([0]).game(problem.card.prices())
    prior = rng.normal(size=game.private_cost.shape)
    wide = game._replace(**{k: np.repeat(getattr(game, k), 4000, axis=0) for k in game._fields if k != "options"})
    many = np.repeat(prior, 4000, axis=0)
    merged = explore(wide, many, 5.0, rng.random((4000, prior.shape[1])))
    score = trust_score(many, merged.bias, wide.allowed, merged.option)
    mean, error = score.mean(axis=0), score.std(axis=0) / np.sqrt(4000)
    assert (np.abs(mean) <= 4.5 * error + 1e-9).all()
