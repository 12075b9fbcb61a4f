"""CMA-ES on functions whose optimum is known, at the pace that its author's tutorial gives, and resumed."""

from __future__ import annotations

import numpy as np
import pytest

from rl.cma_es import CmaEs


def run(run, value, generations):
    for _ in range(generations):
        run.tell(np.array([value(x) for x in run.ask()]))
    return run


def test_a_long_valley_turned_askew_is_followed_to_its_end():
    """An ellipsoid whose axes differ by 1e3, rotated: where steps of one length in all directions crawl."""
    turn, _ = np.linalg.qr(np.random.default_rng(0).standard_normal((8, 8)))
    stretch, at = 10.0 ** np.linspace(0, 3, 8), np.arange(8.0)
    found = run(CmaEs(np.zeros(8), np.ones(8), seed=1), lambda x: -((stretch * (turn @ (x - at))) ** 2).sum(), 500)
    np.testing.assert_allclose(found.best, at, atol=1e-6)


def test_rosenbrocks_curved_valley():
    value = lambda x: -(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2).sum()
    found = run(CmaEs(np.zeros(5), np.full(5, 0.3), seed=0), value, 500)
    np.testing.assert_allclose(found.best, 1.0, atol=1e-5)


def test_the_mean_sees_through_noise_and_only_ranks_count():
    rng = np.random.default_rng(0)
    noisy = run(CmaEs(np.full(6, 3.0), np.ones(6), size=20), lambda x: -(x**2).sum() + rng.normal(0, 0.5), 150)
    assert np.abs(noisy.best).max() < 0.5
    plain, bent = (CmaEs(np.ones(4), np.ones(4), seed=3) for _ in range(2))
    run(plain, lambda x: -(x**2).sum(), 20), run(bent, lambda x: np.exp(-(x**2).sum()), 20)
    np.testing.assert_array_equal(plain.best, bent.best)


def test_a_resumed_run_is_the_uninterrupted_one():
    value = lambda x: -np.abs(x - 2).sum()
    whole = run(CmaEs(np.zeros(3), np.ones(3)), value, 12)
    half = run(CmaEs(np.zeros(3), np.ones(3)), value, 6)
    on = CmaEs(np.zeros(3), np.ones(3), seed=9)
    on.load_state_dict(half.state_dict())
    np.testing.assert_array_equal(run(on, value, 6).best, whole.best)


def test_what_cannot_be_judged_comes_last_and_what_does_not_fit_is_told():
    found = run(CmaEs(np.zeros(2), np.ones(2)), lambda x: np.nan if x[0] < 1 else -x[0], 80)
    assert found.best[0] == pytest.approx(1.0, abs=0.05)
    with pytest.raises(ValueError, match=r"ask\(\) comes before tell\(\)"):
        found.tell(np.zeros(3))
    with pytest.raises(ValueError, match="do not fit"):
        CmaEs(np.zeros(2), np.zeros(2))
