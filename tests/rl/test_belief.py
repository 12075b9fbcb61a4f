"""Online quantile regression against closed forms, and its gradient against autograd."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from rl.belief import Network, Predictor


def test_gradient_equals_autograd():
    rng = np.random.default_rng(0)
    net = Network(5, 3, 8, rng)
    for w in net.weights:
        w += rng.standard_normal(w.shape).astype(np.float32) * 0.3
    x, y = rng.standard_normal((40, 5)).astype(np.float32), rng.standard_normal((40, 3)).astype(np.float32)
    found = net.gradient(x, lambda out: 2 * (out - y))
    w = [torch.tensor(v, requires_grad=True) for v in net.weights]
    h = torch.relu(torch.relu(torch.tensor(x) @ w[0] + w[1]) @ w[2] + w[3]) @ w[4] + w[5]
    ((h - torch.tensor(y)) ** 2).sum(1).mean().backward()
    for own, other in zip(found, w, strict=True):
        np.testing.assert_allclose(own, other.grad.numpy(), atol=2e-5)


def test_adam_equals_torch():
    rng = np.random.default_rng(1)
    net = Network(3, 2, 4, rng)
    w = [torch.nn.Parameter(torch.tensor(v.copy())) for v in net.weights]
    optimizer = torch.optim.Adam(w, 1e-2)
    for _ in range(20):
        gradient = [rng.standard_normal(v.shape).astype(np.float32) for v in net.weights]
        net.descend(gradient, 1e-2)
        for p, g in zip(w, gradient, strict=True):
            p.grad = torch.tensor(g)
        optimizer.step()
    for own, other in zip(net.weights, w, strict=True):
        np.testing.assert_allclose(own, other.detach().numpy(), atol=1e-5)


def test_an_untrained_predictor_says_the_base():
    p = Predictor(2, 5)
    base = np.array([[1.0], [-2.0]], np.float32)
    assert (p.predict(np.ones((2, 2), np.float32), base) == base).all()


def _feed(p: Predictor, rng: np.random.Generator, slots: int, shift: float = 0.0) -> None:
    for _ in range(slots):  # normal, mean x0, spread exp(x1): the base knows neither
        x = rng.uniform(-1, 1, (256, 2)).astype(np.float32)
        y = x[:, :1] + shift + np.exp(x[:, 1:]) * rng.standard_normal((256, 1))
        p.remember(x, np.zeros((256, 1), np.float32), y.astype(np.float32))
        p.learn(4, 1024)


def test_quantiles_of_a_known_law_and_their_coverage():
    p = Predictor(2, 5, seed=3)
    rng = np.random.default_rng(4)
    _feed(p, rng, 250)
    x = rng.uniform(-0.9, 0.9, (500, 2)).astype(np.float32)
    found = p.predict(x, np.zeros((500, 1), np.float32))
    truth = x[:, :1] + np.exp(x[:, 1:]) * stats.norm.ppf(p.levels)
    assert np.abs(found - truth).mean() < 0.12
    assert np.abs(np.zeros_like(truth) - truth).mean() > 0.5  # what the base alone would miss by
    assert (np.diff(found, axis=1) >= 0).all()
    assert p.miscoverage < 0.02 and p.score[0] < 0.9 * p.score[1]
    best = np.exp(x[:, 1]).mean() * stats.norm.pdf(stats.norm.ppf(p.levels)).mean()  # least pinball loss of the law
    assert best < p.score[0] < 1.1 * best


def test_left_to_learn_it_follows_a_shift_and_frozen_it_does_not():
    rng = np.random.default_rng(5)
    p, still = Predictor(2, 5, seed=3, memory=4096), Predictor(2, 5, seed=3, memory=4096)
    _feed(p, rng, 100)
    still.load_state_dict(p.state_dict())
    _feed(p, rng, 100, shift=3.0)
    x = np.zeros((1, 2), np.float32)
    base = np.zeros((1, 1), np.float32)
    assert abs(p.predict(x, base)[0, 2] - 3.0) < 0.3
    assert abs(still.predict(x, base)[0, 2]) < 0.3


def test_huber_finds_the_mean_within_bounds():
    p = Predictor(1, 2, "huber", low=0.0, high=3.0, width=0.5)
    rng = np.random.default_rng(6)
    for _ in range(200):
        x = rng.uniform(-1, 1, (128, 1)).astype(np.float32)
        y = np.clip(np.concatenate([2 * x, 2 + 2 * x], axis=1) + 0.1 * rng.standard_normal((128, 2)), 0, 3)
        p.remember(x, np.zeros((128, 2), np.float32), y.astype(np.float32))
        p.learn(4, 512)
    found = p.predict(np.array([[-0.8], [0.5], [0.9]], np.float32), np.zeros((3, 2), np.float32))
    np.testing.assert_allclose(found, [[0, 0.4], [1, 3], [1.8, 3]], atol=0.12)
    assert found.min() >= 0 and found.max() <= 3


def test_state_resumes_bit_for_bit_and_refuses_another_shape():
    one, other = Predictor(2, 3, seed=1, memory=512), Predictor(2, 3, seed=9, memory=512)
    _feed(one, np.random.default_rng(7), 3)
    other.load_state_dict({k: np.array(v) for k, v in one.state_dict().items()})
    for p in (one, other):
        _feed(p, np.random.default_rng(8), 3)
    for a, b in zip(one.network.weights, other.network.weights, strict=True):
        assert (a == b).all()
    assert (one.coverage == other.coverage).all()
    with pytest.raises(ValueError, match=r"weight0 has shape \(2, 32\); this predictor needs \(4, 32\)"):
        Predictor(4, 3).load_state_dict(one.state_dict())


def test_a_gradient_that_is_not_finite_leaves_the_weights():
    p = Predictor(2, 3)
    before = [w.copy() for w in p.network.weights]
    p.remember(np.full((8, 2), np.nan, np.float32), np.zeros((8, 1), np.float32), np.ones((8, 1), np.float32))
    with pytest.raises(FloatingPointError, match="weights are as they were"):
        p.learn(1, 8)
    assert all((a == b).all() for a, b in zip(before, p.network.weights, strict=True))


def test_unknown_loss_is_refused():
    with pytest.raises(ValueError, match="pinball, huber"):
        Predictor(2, 3, "square")
