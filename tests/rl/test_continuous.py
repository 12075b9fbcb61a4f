"""Continuous heads: the density of what is executed, by quadrature and by draws; hybrid games with a known optimum."""

from __future__ import annotations

import sys
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats

from rl.continuous import ContinuousHeads, log_executed, pull, start_spread
from rl.imappo import Imappo, ImappoConfig
from rl.learner import Executed
from rl.networks import Sizes
from rl.policy import ArrayPolicy, centre_and_spread

sys.path.insert(0, str(Path(__file__).parent))
from toys import OPTIONS, game_of, observation_of

from coordinator.continuous import blend, for_option
from coordinator.merge import clip_prior, explore

DENSITIES = ["clipped", "beta", "tanh"]
RAW = torch.tensor([0.3, -0.4], dtype=torch.float64)
START = 0.6


def by_quantile(u, raw, density):
    """The proposal at probability u, (Q,), by scipy, and its spread."""
    value, spread = centre_and_spread(raw.numpy(), density, START)
    if density == "beta":
        return stats.beta.ppf(u, *(1 + np.logaddexp(0, raw.numpy()))), spread
    z = stats.norm.ppf(u)
    if density == "clipped":
        return value + spread * z, spread
    return (1 + np.tanh(float(raw[0]) + 2 * START * np.exp(float(raw[1])) * z)) / 2, spread


def executed(x, spread, response, trust):
    """The coordinator's own blend, then the limits."""
    return np.array([min(max(blend(response, 1.0, trust, v, float(spread)), 0.0), 1.0) for v in x])


# --- the density


def density_of(x, y, trust, density, raw=RAW):
    t = torch.from_numpy
    return log_executed(t(x), t(y), torch.tensor(0.2), torch.tensor(trust), raw.expand(len(x), 2), density, START)


@pytest.mark.parametrize("trust", [0.0, 5.0])
@pytest.mark.parametrize("density", DENSITIES)
def test_what_is_drawn_and_blended_has_the_density_that_is_learned_from(density, trust):
    """20,000 draws against the integral of the density: of y for clipped, ends included, of x for the others."""
    heads = ContinuousHeads(Sizes(1, 1, 1), ("power",), ((0.0, 1.0),), density, START, 4)
    x, spread = heads.draw(RAW.expand(20_000, 1, 1, 2), np.random.default_rng(0))
    x = x.ravel()
    seen = np.sort(executed(x, spread.flat[0], 0.2, trust) if density == "clipped" else x)
    grid = np.linspace(0, 1, 40_001)
    p = density_of(grid, grid, trust, density)[0].exp().numpy()
    low, high = (p[0], p[-1]) if density == "clipped" else (0.0, 0.0)  # the mass of the ends
    p[[0, -1]] = p[[1, -2]]
    cumulative = low + np.concatenate([[0.0], np.cumsum((p[1:] + p[:-1]) / 2 * np.diff(grid))])
    assert cumulative[-1] + high == pytest.approx(1.0, abs=1e-3)
    assert density != "clipped" or trust or min(low, high) > 0.02
    share = np.searchsorted(seen, grid, side="right") / len(seen)
    assert np.abs(share - cumulative)[:-1].max() < 1.63 / np.sqrt(len(seen)) + 1e-3  # Kolmogorov and Smirnov, 1 %


@pytest.mark.parametrize("trust", [0.0, 5.0])
@pytest.mark.parametrize("density", DENSITIES)
def test_the_policy_gradient_is_that_of_what_is_executed(density, trust):
    """E[f(y) grad log p] against the change of E[f(y)] with the weights, by quantiles.

    For clipped with k's own change, for the others with k as it was executed, as the module says.
    """
    u = (np.arange(20_000) + 0.5) / 20_000
    f = lambda y: np.sin(3 * y) + y * y
    held = by_quantile(u, RAW, density)[1]

    def mean(raw):
        x, spread = by_quantile(u, raw, density)
        return f(executed(x, spread if density == "clipped" else held, 0.2, trust)).mean()

    step = 1e-3
    wanted = [(mean(RAW + step * e) - mean(RAW - step * e)) / (2 * step) for e in torch.eye(2, dtype=torch.float64)]
    x = by_quantile(u, RAW, density)[0]
    y = executed(x, held, 0.2, trust)
    raw = RAW.clone().requires_grad_()
    log, _ = density_of(x, y, trust, density, raw)
    got = torch.autograd.grad((log * torch.from_numpy(f(y))).mean(), raw)[0].numpy()
    np.testing.assert_allclose(got, wanted, atol=0.02 * np.abs(wanted).max())
    assert np.abs(wanted).min() > 1e-3


@pytest.mark.parametrize("density", DENSITIES)
def test_entropy_is_that_of_what_is_drawn_and_pulled(density):
    """Minus the mean log-density, where no end is met; for tanh in the mean over draws."""
    raw = torch.tensor([0.0, -2.0 if density == "clipped" else 0.0], dtype=torch.float64)
    u = (np.arange(20_000) + 0.5) / 20_000
    x, spread = by_quantile(u, raw, density)
    y = executed(x, spread, 0.2, 5.0)
    log, entropy = density_of(x, y, 5.0, density, raw)
    assert float(entropy.mean()) == pytest.approx(-float(log.mean()), abs=2e-3)


def test_the_first_spread_leaves_the_game_nearly_as_it_is():
    for trust, wanted in ((5.0, 0.1), (20.0, 0.05), (1.0, 0.3)):
        s = start_spread(wanted, trust)
        k = float(pull(s, trust))
        assert k * s == pytest.approx(wanted) and k < 0.5
    assert start_spread(0.1, 0.0) == 0.1
    s = start_spread(0.4, 5.0)  # more than any spread gives: the most there is
    assert s / (1 + 5 * s * s) == pytest.approx(1 / (2 * np.sqrt(5)))


# --- the heads


def toy_heads(density="clipped", seed=0, **settings):
    toy = PowerGame(4, 0)
    config = ImappoConfig(
        continuous=("power", "fraction"), ranges=((1.0, 3.0), (0.0, 1.0)), density=density, **settings
    )
    learner = Imappo(Sizes.of(toy.observe()), config, seed)
    with torch.no_grad():
        g = torch.Generator().manual_seed(seed)
        learner.heads.out.weight.normal_(0, 0.2, generator=g)
    learner.policy = learner.export()
    return toy, learner


@pytest.mark.parametrize("density", DENSITIES)
def test_arrays_say_what_torch_says_in_each_quantitys_unit(density):
    toy, learner = toy_heads(density)
    view = toy.observe()
    view.live[1, 0] = False
    policy = ArrayPolicy(learner.policy.weights)  # as a saved one comes back
    said = policy.propose(view)
    assert said.levels == ("power", "fraction") and said.mean.shape == said.spread.shape == (4, 2, OPTIONS, 2)
    for o in range(OPTIONS):
        option = np.full((4, 2), o)
        raw = learner._raw(view, option).numpy()
        value, spread = centre_and_spread(raw, density, learner.heads.first)
        for k, (low, width) in enumerate(((1.0, 2.0), (0.0, 1.0))):
            used = view.live & (o > 0)
            mean = said.mean[..., o, k][view.live]
            np.testing.assert_allclose(mean, low + width * value[view.live][:, k], rtol=1e-5)
            wanted = np.where(used, width * spread[..., k], np.inf)
            np.testing.assert_allclose(said.spread[..., o, k], wanted, rtol=1e-5)
    assert np.ptp(said.mean[..., 0]) > 0.1
    plain = Imappo(Sizes.of(view), ImappoConfig())
    assert plain.policy.propose(view)[1:] == (None, None, ())
    assert plain.sample_continuous(view, np.zeros((4, 2), int), np.random.default_rng(0)) is None


def record(learner, view, option, wish, responses, trust):
    zero = np.zeros(view.allowed.shape)
    e = len(option)
    learner.record(Executed(
        view, option, zero, zero, np.zeros(option.shape), np.zeros((*option.shape, 1)), np.zeros(e, bool), None,
        blended={"wish": wish, "responses": responses, "trust": trust},
    ))  # fmt: skip


@pytest.mark.parametrize("density", DENSITIES)
def test_before_any_step_the_ratio_is_1_and_inactive_parts_have_none(density):
    toy, learner = toy_heads(density, credit="own")
    view = toy.observe()
    view.live[0, 1] = False
    rng = np.random.default_rng(0)
    option = np.array([[0, 1], [1, 2], [2, 0], [1, 1]])
    wish = learner.sample_continuous(view, option, rng)
    responses = {"power": np.full((4, 2), 1.5), "fraction": np.full((4, 2), 0.6)}
    responses["fraction"][3] = np.nan  # there the task is sent whole
    record(learner, view, option, wish, responses, 4.0)
    slot = learner.slots[-1]
    active = [[[0, 0], [0, 0]], [[1, 1], [1, 1]], [[1, 1], [0, 0]], [[1, 0], [1, 0]]]
    np.testing.assert_array_equal(slot["active"], np.array(active, bool))
    k = 1 / (1 + 4.0 * (wish.spread[..., 0] / 2) ** 2)
    y = np.clip(((1 - k) * 1.5 + k * wish.mean[..., 0] - 1.0) / 2, 0, 1)
    np.testing.assert_allclose(slot["executed"][slot["active"][..., 0], 0], y[slot["active"][..., 0]])
    batch = learner.batch(view)
    taken = learner.taken(batch, torch.arange(4))
    torch.testing.assert_close(taken.log_density, batch.old[taken.row, taken.agent], atol=1e-5, rtol=0.0)
    options_alone = torch.full((7,), -np.log(3))  # flat over three
    moved = taken.log_density - options_alone
    quiet = torch.tensor([int(option[r, a]) == 0 for r, a in zip(taken.row, taken.agent, strict=True)])
    torch.testing.assert_close(moved[quiet], torch.zeros(int(quiet.sum())), atol=1e-5, rtol=0.0)
    assert (moved[~quiet].abs() > 1e-4).all()
    gradient = torch.autograd.grad(moved[quiet].sum(), learner.heads.out.weight)[0]
    assert not gradient.any()


def test_it_must_be_told_what_was_executed():
    toy, learner = toy_heads()
    view = toy.observe()
    zero = np.zeros(view.allowed.shape)
    with pytest.raises(ValueError, match=r"imappo has continuous heads \(power, fraction\)"):
        learner.record(
            Executed(
                view, np.zeros((4, 2), int), zero, zero, np.zeros((4, 2)), np.zeros((4, 2, 1)), np.zeros(4, bool), None
            )
        )


def test_settings_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match=r"density = 'gauss'; it must be one of beta, tanh, clipped"):
        ImappoConfig(density="gauss")
    with pytest.raises(ValueError, match="ranges has 0 entries for 1 continuous"):
        ImappoConfig(continuous=("power",))
    with pytest.raises(ValueError, match=r"ranges\[0\] = \(1.0, 1.0\); the first must be below"):
        ImappoConfig(continuous=("power",), ranges=((1.0, 1.0),))
    with pytest.raises(ValueError, match="spread = 0; it must be a number > 0"):
        ImappoConfig(spread=0)


# --- a hybrid game with a known optimum


class PowerGame:
    """2 agents, 2 contexts; option 0 needs no power, 1 and 2 are resources with a best power each, shared at a loss.

    own outcome: value[c, i, o] - 2 (u - ideal[c, i, o])^2 - .3 for each other agent on the resource, u in [0, 1] and
    the power 1 + 2 u.
    """

    agents, contexts, curve = 2, 2, 2.0

    def __init__(self, networks, seed):
        self.rng = np.random.default_rng(seed)
        fixed = np.random.default_rng(11)
        self.value = fixed.uniform(0.3, 1.0, (2, 2, OPTIONS))
        self.value[..., 0] = 0.45
        self.ideal = fixed.uniform(0.1, 0.9, (2, 2, OPTIONS))
        self.networks = networks
        self.draw()

    def draw(self):
        self.context = self.rng.integers(0, 2, self.networks)

    def observe(self, context=None):
        context = self.context if context is None else context
        ones = np.ones((len(context), 2), bool)
        return observation_of(context, ones, np.ones((len(context), 2, OPTIONS), bool), 2)

    def outcome(self, context, option, u):
        at = (context[:, None], np.arange(2)[None], option)
        loss = self.curve * (u - self.ideal[at]) ** 2 + 0.3 * (option == option[:, ::-1])
        return self.value[at] - np.where(option > 0, loss, 0.0)

    def best(self):
        joint = np.array(list(product(range(OPTIONS), repeat=2)))
        found = []
        for c in range(2):
            context = np.full(len(joint), c)
            u = self.ideal[context[:, None], np.arange(2)[None], joint]
            found.append(self.outcome(context, joint, u).sum(1).max())
        return float(np.mean(found))

    def response(self, context, option, wrong):
        ideal = self.ideal[context[:, None], np.arange(2)[None], option]
        return (ideal + 0.45) % 1.0 if wrong else ideal

    def score(self, learner, trust, wrong):
        """What is executed without exploration is paid, and the weight of the proposals in it."""
        context = np.arange(2)
        view = self.observe(context)
        option = clip_prior(learner.policy.propose(view).log_prior, view.allowed, 10.0).argmax(-1)
        said = learner.policy.propose(view)
        m, s = ((for_option(x[..., 0], option) - at) / 2 for x, at in ((said.mean, 1.0), (said.spread, 0.0)))
        k = np.where(np.isinf(s), 0.0, 1 / (1 + trust * np.where(np.isinf(s), 0.0, s) ** 2))
        u = np.clip((1 - k) * self.response(context, option, wrong) + k * np.where(option > 0, m, 0), 0, 1)
        return float(self.outcome(context, option, u).sum(1).mean()), k[option > 0]


def drive(learner, toy, updates, trust, wrong, seed=0):
    """Until the score has been at .97 of the optimum three updates running, or ``updates`` are done."""
    rng, good = np.random.default_rng(seed), 0
    view = toy.observe()
    while learner.updates < updates and good < 3:
        game = game_of(np.zeros(OPTIONS), view.allowed, view.live)
        prior = clip_prior(learner.propose(view).log_prior, view.allowed, 10.0)
        merged = explore(game, prior, 0.0, rng.random(view.live.shape))
        wish = learner.sample_continuous(view, merged.option, rng)
        response = toy.response(toy.context, merged.option, wrong)
        u = np.empty(response.shape)
        for i in np.ndindex(u.shape):
            mean, spread = (wish.mean[i][0] - 1) / 2, wish.spread[i][0] / 2
            u[i] = min(max(blend(response[i], 1.0, trust, mean, spread), 0.0), 1.0)
        own = toy.outcome(toy.context, merged.option, u)
        shared = (merged.option == merged.option[:, ::-1]) & (merged.option > 0)
        toy.draw()
        following = toy.observe()
        learner.record(Executed(
            view, merged.option, prior, merged.bias, own - 0.3 * shared, np.zeros((*own.shape, 1)),
            np.zeros(len(own), bool), None,
            blended={"wish": wish, "responses": {"power": 1 + 2 * response}, "trust": trust},
        ))  # fmt: skip
        view = following
        if learner.ready():
            learner.update(view, learner.updates / updates)
            good = good + 1 if toy.score(learner, trust, wrong)[0] >= 0.97 * toy.best() else 0


@pytest.mark.parametrize(
    ("density", "trust", "wrong"),
    [
        ("clipped", 0.0, False),
        ("tanh", 0.0, False),
        ("clipped", 5.0, False),
        ("clipped", 5.0, True),
        ("beta", 5.0, True),
    ],
)
def test_finds_the_optimum_of_a_hybrid_game(density, trust, wrong):
    """.97 of the enumerated optimum: alone; in a game whose best responses are right, or wrong by .45 of the range."""
    toy = PowerGame(32, 2)
    settings = {"horizon": 16, "gamma": 0.0, "carry": 0.0, "density": density, "trust": trust, "spread": 0.15}
    config = ImappoConfig(continuous=("power",), ranges=((1.0, 3.0),), epochs=4, minibatches=4, rate=3e-3, **settings)
    learner = Imappo(Sizes.of(toy.observe()), config, seed=2)
    before, weight = toy.score(learner, trust, wrong)
    if density == "clipped" and trust:
        assert weight.max(initial=0.0) < 0.15  # untrained it leaves the game's responses nearly as they are
    drive(learner, toy, 60, trust, wrong)
    after, weight = toy.score(learner, trust, wrong)
    assert before < 0.9 * toy.best()
    assert after >= 0.97 * toy.best()
