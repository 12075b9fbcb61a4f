"""Closed forms of the continuous decisions against scipy and brute force."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import lambertw

from coordinator.continuous import best_fraction, best_power, blend, for_option, lambert_w, power_exponent

BRANCH = -1 / np.e


def test_lambert_w_equals_scipys():
    near = BRANCH + np.logspace(-15, np.log10(-BRANCH), 400)  # from the branch point up to 0
    far = np.concatenate([near, [0.0], np.logspace(-300, 12, 2000), [np.e, 2.0, -0.3, 1e300]])
    for x in far:
        want = float(lambertw(x).real)
        # at the branch point W has slope infinity: an error of 1e-16 in x is 1e-8 in W
        loose = 1e-7 if x - BRANCH < 1e-12 else 1e-11 / np.sqrt(min(1.0, x - BRANCH))
        assert lambert_w(x) == pytest.approx(want, rel=1e-12, abs=min(loose, 1e-7) if x < 0 else 1e-300), x


def test_lambert_w_at_its_edges():
    assert lambert_w(BRANCH) == -1.0
    assert lambert_w(-1.0) == -1.0  # outside the domain: the branch point
    assert lambert_w(0.0) == 0.0
    assert lambert_w(np.e) == pytest.approx(1.0, abs=1e-15)
    rng = np.random.default_rng(0)
    for x in rng.uniform(BRANCH, 50, 500):
        w = lambert_w(x)
        assert w * np.exp(w) == pytest.approx(x, rel=1e-12, abs=1e-14)


def test_best_power_equals_brute_force():
    rng = np.random.default_rng(0)
    inside = 0
    for _ in range(400):
        time_price, energy_price = 10 ** rng.uniform(-2, 3), 10 ** rng.uniform(-3, 3)
        gain = 10 ** rng.uniform(-2, 7)
        low, high = 0.001, 1.0
        grid = np.concatenate([np.linspace(low, high, 4000), np.geomspace(low, high, 4000)])
        cost = lambda p, a=time_price, b=energy_price, g=gain: (a + b * p) / np.log1p(g * p)
        power = best_power(time_price, energy_price, gain, low, high)
        assert low <= power <= high
        assert cost(power) <= cost(grid).min() * (1 + 1e-9)
        inside += low < power < high
    assert inside > 100


def test_the_exponent_of_the_best_power_is_the_bits_a_hertz_that_it_sends():
    rng = np.random.default_rng(5)
    for ratio, gain in 10 ** rng.uniform([-3, -2], [6, 5], (500, 2)):
        bits, power = power_exponent(ratio, gain)
        assert bits == pytest.approx(np.log2(1 + gain * power), rel=1e-9, abs=1e-9)
        assert power == pytest.approx(best_power(ratio, gain, gain, 0.0, np.inf), rel=1e-12)


def test_best_power_at_its_edges():
    assert best_power(1.0, 0.0, 1e3, 0.001, 1.0) == 1.0  # energy is free
    assert best_power(1.0, 1.0, 0.0, 0.001, 1.0) == 1.0  # no channel: nothing to choose
    assert best_power(0.0, 1.0, 1e3, 0.001, 1.0) == 0.001  # time is free
    assert best_power(1.0, 1e12, 1e3, 0.001, 1.0) == pytest.approx(0.001, abs=1e-3)


def fraction_cost(rho, delay, energy, local_s, local_j, wait, remote_s, remote_j, deadline, miss):
    remote = np.where(rho > 0, wait + rho * remote_s, 0.0)
    time = np.maximum((1 - rho) * local_s, remote)
    spent = (1 - rho) * local_j + rho * remote_j
    return delay * np.minimum(time, deadline) + energy * spent + miss * (time > deadline * (1 + 1e-9))


def draw_fraction(rng):
    return {
        "delay": 10 ** rng.uniform(-1, 2), "energy": 10 ** rng.uniform(-2, 1), "local_s": rng.uniform(0.005, 0.08),
        "local_j": rng.uniform(0, 0.3), "wait": rng.uniform(0, 0.02), "remote_s": rng.uniform(0.001, 0.08),
        "remote_j": rng.uniform(0, 0.1), "deadline": rng.uniform(0.01, 0.05), "miss": rng.uniform(0.05, 1.5),
    }  # fmt: skip


def answer(case):
    return best_fraction(
        case["delay"], case["energy"], case["local_s"], case["local_j"], case["wait"], case["remote_s"],
        case["remote_j"], case["deadline"], case["miss"],
    )  # fmt: skip


def test_best_fraction_equals_brute_force_where_some_fraction_is_in_time():
    rng = np.random.default_rng(0)
    kinds = {"none": 0, "part": 0, "all": 0}
    tried = 0
    while tried < 1500:
        case = draw_fraction(rng)
        grid = np.linspace(0, 1, 20001)
        remote = np.where(grid > 0, case["wait"] + grid * case["remote_s"], 0.0)
        if not (np.maximum((1 - grid) * case["local_s"], remote) <= case["deadline"]).any():
            continue
        tried += 1
        rho = answer(case)
        assert 0 <= rho <= 1
        assert fraction_cost(np.array(rho), **case) <= fraction_cost(grid, **case).min() + 1e-9
        kinds["none" if rho == 0 else "all" if rho == 1 else "part"] += 1
    assert min(kinds.values()) > 50


def test_best_fraction_where_nothing_is_in_time_is_no_worse_than_sending_all():
    rng = np.random.default_rng(1)
    tried = 0
    while tried < 300:
        case = draw_fraction(rng) | {"deadline": 0.004}
        grid = np.linspace(0, 1, 2001)
        remote = np.where(grid > 0, case["wait"] + grid * case["remote_s"], 0.0)
        if (np.maximum((1 - grid) * case["local_s"], remote) <= case["deadline"]).any():
            continue
        tried += 1
        rho = answer(case)
        assert 0 <= rho <= 1
        assert fraction_cost(np.array(rho), **case) <= fraction_cost(np.array(1.0), **case) + 1e-12


def test_blend_minimises_its_sum_and_has_its_limits():
    rng = np.random.default_rng(0)
    for _ in range(100):
        response, mean = rng.uniform(0, 1, 2)
        curvature, trust, spread = 10 ** rng.uniform(-2, 2, 3)
        x = blend(response, curvature, trust, mean, spread)
        cost = lambda y, r=response, m=mean, c=curvature, t=trust, s=spread: (
            t * c * (y - r) ** 2 / 2 + (y - m) ** 2 / (2 * s**2)
        )
        grid = np.linspace(0, 1, 10001)
        assert cost(x) <= cost(grid).min() + 1e-12
        assert min(response, mean) <= x <= max(response, mean)
    assert blend(0.3, 1.0, 10.0, 0.9, np.inf) == 0.3  # no proposal
    assert blend(0.3, 1.0, 10.0, 0.9, 0.0) == 0.9  # a certain one
    assert blend(0.3, 1.0, 0.0, 0.9, 1.0) == 0.9  # no trust in the game


def test_a_proposal_for_each_option_is_read_at_the_option_taken():
    rng = np.random.default_rng(0)
    option = rng.integers(0, 4, (3, 5))
    every, one = rng.random((3, 5, 4)), rng.random((3, 5))
    got = for_option(every, option)
    assert all(got[e, i] == every[e, i, option[e, i]] for e, i in np.ndindex(3, 5))
    np.testing.assert_array_equal(for_option(one, option), one)
    np.testing.assert_array_equal(for_option(0.5, option), np.full((3, 5), 0.5))
