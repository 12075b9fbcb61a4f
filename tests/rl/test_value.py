"""A worth is concave in its level whatever was learned, and a fit finds the one behind noisy differences."""

from __future__ import annotations

import numpy as np
import pytest

from rl.value import KNOTS, Samples, StoreValue, Worth, _gradient, linear_pieces, worth_at

RNG = np.random.default_rng(0)


def some_worth(e=2, n=3):
    return Worth(RNG.uniform(0, 2, (e, n, 8)), np.array(KNOTS), RNG.uniform(0.5, 4, (e, n)))


def samples(count=4000, noise=0.1, seed=1):
    """Differences of (1 + x) sqrt-like worths, by hand: gains that go with the first feature."""
    rng = np.random.default_rng(seed)
    x = rng.uniform(-1, 1, (count, 2))
    before, after = rng.random(count), rng.random(count)
    gain = np.stack([(1.5 + x[:, 0]) * k for k in (1.0, 0, 0.5, 0, 1.0, 0, 0, 0.3)], axis=-1)
    basis = np.minimum(after[:, None], KNOTS) - np.minimum(before[:, None], KNOTS)
    return Samples(x, before, after, (gain * basis).sum(1) + noise * rng.standard_normal(count)), gain


def test_a_worth_rises_is_concave_and_its_price_is_its_slope():
    worth = some_worth()
    share = np.linspace(0, 1, 201)
    level = share * worth.capacity[..., None]
    at = worth.at(level)
    assert (at[..., 0] == 0).all()
    assert (np.diff(at) >= 0).all() and (np.diff(at, 2) <= 1e-12).all()
    for s in (0.01, 0.11, 0.5, 0.99):  # between knots
        b, d = s * worth.capacity, 1e-6
        np.testing.assert_allclose(worth.price(b), (worth.at(b + d) - worth.at(b - d)) / (2 * d), rtol=1e-6)
    prices = np.array([worth.price(s * worth.capacity) for s in share])
    assert (np.diff(prices, axis=0) <= 1e-12).all() and (prices[0] > prices[-1]).all()


def test_what_an_option_takes_is_a_difference_of_worths_and_no_store_goes_below_empty():
    worth = some_worth()
    level = 0.3 * worth.capacity
    drawn = np.stack([0 * level, 0.5 * level, level, 3 * level], axis=-1)
    lost = worth.lost(level, drawn)
    np.testing.assert_allclose(lost[..., 0], 0.0)
    np.testing.assert_allclose(lost[..., 1], worth.at(level) - worth.at(0.5 * level))
    np.testing.assert_allclose(lost[..., 2:], np.repeat(worth.at(level)[..., None], 2, axis=2))
    one = worth.one(1)
    np.testing.assert_array_equal(one.at(level[1]), worth.at(level)[1])
    alone = [worth_at(one.gain[i], one.knot, 0.3) for i in range(3)]
    np.testing.assert_allclose(alone, one.at(level[1]))


def test_linear_pieces_go_through_their_points():
    values = np.concatenate([np.zeros((1, 2, 1)), np.cumsum(RNG.random((1, 2, 5)), axis=2)], axis=2)
    capacity = np.array([[2.0, 0.5]])
    worth = linear_pieces(values, capacity)
    for g in range(6):
        np.testing.assert_allclose(worth.at(capacity * g / 5), values[..., g], atol=1e-12)
    np.testing.assert_allclose(worth.at(capacity * 0.3), (values[..., 1] + values[..., 2]) / 2)


def test_a_fit_finds_the_worth_behind_noisy_differences():
    seen, gain = samples()
    value = StoreValue(2, seed=3)
    assert value.fit(seen) > 0.9 and value.fits == [pytest.approx(value.fits[0])]
    found = value.gains(seen.features)
    assert (found >= 0).all()
    whole = lambda g, share: (g * np.minimum(share, KNOTS)).sum(1)
    for share in (0.1, 0.4, 1.0):
        off = whole(found, share) - whole(gain, share)
        assert np.sqrt((off**2).mean()) < 0.1 * np.sqrt((whole(gain, share) ** 2).mean()) + 0.02


def test_the_gradient_is_the_losss():
    seen, _ = samples(50)
    value = StoreValue(2, hidden=4, seed=5)
    basis = np.minimum(seen.after[:, None], KNOTS) - np.minimum(seen.before[:, None], KNOTS)
    loss = lambda: (((value.gains(seen.features) * basis).sum(1) - seen.gained) ** 2).mean()
    gradient = _gradient(value.weights, seen.features, basis, seen.gained)
    for w, g in zip(value.weights, gradient, strict=True):
        at = tuple(0 for _ in w.shape)
        kept, found = w[at], []
        for d in (1e-6, -1e-6):
            w[at] = kept + d
            found.append(loss())
        w[at] = kept
        assert g[at] == pytest.approx((found[0] - found[1]) / 2e-6, rel=1e-4, abs=1e-8)


def test_a_value_goes_on_from_its_state():
    value = StoreValue(2, hidden=4)
    value.fit(samples(200)[0], epochs=2)
    again = StoreValue.of(value.state_dict())
    x = RNG.random((5, 2))
    np.testing.assert_array_equal(again.gains(x), value.gains(x))
    assert again.fits == value.fits
    other = value.copy()
    other.weights[0][:] = 0.0
    np.testing.assert_array_equal(again.gains(x), value.gains(x))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"weight3": None}, "weight3 is missing in a value's state"),
        ({"weight0": None}, "weight0 is missing in a value's state"),
        ({"mean": np.array([0.0, np.nan])}, r"mean has shape \(2,\); this value needs \(2,\), all finite"),
        ({"weight5": np.zeros(3)}, r"weight5 has shape \(3,\); this value needs \(8,\), all finite"),
        ({"weight0": np.zeros(3)}, r"weight0 has shape \(3,\) and knot \(8,\); a value needs \(F, H\) and \(J,\)"),
    ],
)
def test_a_state_that_does_not_fit_is_refused(changed, message):
    state = StoreValue(2).state_dict() | changed
    with pytest.raises(ValueError, match=message):
        StoreValue.of({name: array for name, array in state.items() if array is not None})


def test_what_cannot_be_fitted_is_refused_and_changes_nothing():
    value = StoreValue(2)
    seen, _ = samples(100)
    before = value.gains(seen.features)
    with pytest.raises(ValueError, match="a value needs samples"):
        value.fit(Samples(*(part[:0] for part in seen)))
    with pytest.raises(FloatingPointError, match="not finite"):
        value.fit(seen._replace(gained=np.full(100, np.nan)))
    np.testing.assert_array_equal(value.gains(seen.features), before)
    with pytest.raises(ValueError, match=r"knots = \(0.5, 0.2, 1.0\); they must ascend from above 0 to 1"):
        StoreValue(2, knots=(0.5, 0.2, 1.0))
