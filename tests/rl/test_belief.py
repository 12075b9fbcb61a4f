"""Online quantile regression against closed forms, and its gradient against autograd."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from rl.belief import Loss, Network, Predictor


def by_torch(net, x):
    """The network's own layers by torch: (M, O), and the weights as leaves."""
    w = [torch.tensor(v, requires_grad=True) for v in net.weights]
    h = torch.relu(torch.relu(torch.tensor(x) @ w[0] + w[1]) @ w[2] + w[3])
    return h @ w[4] + w[5], w


def random_network(seed, inputs=5, outputs=3):
    rng = np.random.default_rng(seed)
    net = Network(inputs, outputs, 8, rng)
    net.flat += 0.3 * rng.standard_normal(net.flat.shape).astype(np.float32)
    f = lambda *shape: rng.standard_normal(shape).astype(np.float32)
    return net, rng, f


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("kind", ["pinball", "huber"])
def test_the_pass_gives_the_gradient_of_autograd(kind, seed):
    net, rng, f = random_network(seed)
    wide = 1 if kind == "pinball" else 3
    x, base, y = f(700, 5), f(700, wide), f(700, wide)
    rows = rng.integers(0, 700, 600 if seed else 1)  # with what is drawn twice, and a last block that is not full
    levels = np.array([0.1, 0.5, 0.9], np.float32)
    loss = Loss(levels if kind == "pinball" else levels[:0], *map(np.float32, (-1.0, 1.5, 0.7)))
    out, w = by_torch(net, x[rows])
    said, truth = out + torch.tensor(base[rows]), torch.tensor(y[rows])
    if kind == "pinball":
        error = truth - said
        per = torch.maximum(torch.tensor(levels) * error, (torch.tensor(levels) - 1) * error)
    else:  # what lies beyond a bound is right where the truth does too
        per = torch.nn.functional.huber_loss(said, truth, reduction="none", delta=0.7) / 0.7
        per = per * ~(((said < -1.0) & (truth <= -1.0)) | ((said > 1.5) & (truth >= 1.5)))
    per.sum(1).mean().backward()
    found = net.layers(net.gradient(x, base, y, rows, loss))
    for own, other in zip(found, w, strict=True):
        np.testing.assert_allclose(own, other.grad.numpy(), atol=1e-5 * max(float(other.grad.abs().max()), 1.0))


def test_what_is_predicted_is_the_networks_own_sorted_and_within_bounds():
    p = Predictor(5, 3, low=-1.0, high=2.0)
    p.network, _, f = random_network(2)
    x, base = f(513, 5), f(513, 1)
    out, _ = by_torch(p.network, x)
    wanted = np.clip(np.sort(out.detach().numpy() + base, axis=1), -1.0, 2.0)
    np.testing.assert_allclose(p.predict(x, base), wanted, atol=1e-5)
    with pytest.raises(ValueError, match=r"shapes \(513, 4\) and \(513, 1\); they must have \(\(513, 5\), \(513, 1"):
        p.predict(x[:, :4], base)


@pytest.mark.parametrize("kind", ["pinball", "huber"])
def test_predictions_are_judged_by_their_loss_before_they_are_learned_from(kind):
    rng = np.random.default_rng(3)
    wide = 1 if kind == "pinball" else 3
    p = Predictor(4, 3, kind, low=-0.5, high=0.5, width=0.3)
    x, base, y = (rng.standard_normal((50, k)).astype(np.float32) for k in (4, wide, wide))
    p.remember(x, base, y)
    out = np.clip(np.repeat(base, 3 // wide, axis=1), -0.5, 0.5)  # untrained, it says the base
    error = y - out
    if kind == "pinball":
        wanted = np.maximum(p.levels * error, (p.levels - 1) * error).mean()
        np.testing.assert_allclose(p.coverage, (y <= out).mean(axis=0), rtol=1e-6)
    else:
        wanted = np.where(np.abs(error) < 0.3, error**2 / 0.6, np.abs(error) - 0.15).mean()
    np.testing.assert_allclose(p.score, wanted, rtol=1e-5)


def test_adam_equals_torch():
    rng = np.random.default_rng(1)
    net = Network(3, 2, 4, rng)
    w = torch.nn.Parameter(torch.tensor(net.flat.copy()))
    optimizer = torch.optim.Adam([w], 1e-2)
    for _ in range(20):
        gradient = rng.standard_normal(net.flat.shape).astype(np.float32)
        net.descend(gradient, 1e-2)
        w.grad = torch.tensor(gradient)
        optimizer.step()
    np.testing.assert_allclose(net.flat, w.detach().numpy(), atol=1e-5)


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
