"""Intervals against closed forms, scipy and simulated truth."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from hybridalloc.reports.statistics import (
    mean_interval,
    mean_of,
    paired_difference,
    t_quantile,
)


@settings(max_examples=60)
@given(st.floats(0.001, 0.999), st.integers(1, 120))
def test_t_quantile_is_scipys(probability: float, degrees: int) -> None:
    assert t_quantile(probability, degrees) == pytest.approx(stats.t.ppf(probability, degrees), rel=1e-7, abs=1e-9)


def test_difference_of_known_numbers() -> None:
    a = np.array([[3.0, 5.0], [4.0, 8.0], [2.0, 2.0]])
    result = paired_difference(a, [1.0, 2.0])
    assert (result.mean, result.training_seeds, result.evaluation_seeds) == (2.5, 3, 2)
    # row means 2.5, 4.5, .5 (variance 4), column means 2, 3 (variance .5), t(.975, 2) = 4.302653
    half = 4.302652730 * math.sqrt(4 / 3 + 0.5 / 2)
    assert result.conservative == pytest.approx((2.5 - half, 2.5 + half))
    assert result.conservative is not None and result.conservative[0] < result.low < 2.5 < result.high


def test_constant_difference_has_no_width_however_noisy_the_seeds() -> None:
    noise = np.random.default_rng(1).normal(size=(5, 40)) * 10
    result = paired_difference(noise + 0.25, noise)
    assert (result.mean, result.low, result.high) == pytest.approx((0.25, 0.25, 0.25))
    swapped = paired_difference(noise, noise + 0.25)
    assert (swapped.low, swapped.high) == pytest.approx((-0.25, -0.25))


def test_one_row_is_broadcast_and_only_evaluation_seeds_are_then_resampled() -> None:
    rng = np.random.default_rng(2)
    a, b = rng.normal(size=(5, 30)), rng.normal(size=30)
    assert paired_difference(a, b) == paired_difference(a, np.tile(b, (5, 1)))
    one = paired_difference(a[0], b, resamples=20000)
    assert one.conservative is None and one.training_seeds == 1
    half = 1.96 * (a[0] - b).std() / math.sqrt(30)  # the bootstrap's normal limit
    assert one.low == pytest.approx(one.mean - half, abs=0.06 * half * 2)
    assert one.high == pytest.approx(one.mean + half, abs=0.06 * half * 2)


def test_crossed_bootstrap_has_the_variance_of_the_pigeonhole_bootstrap() -> None:
    """Owen (2007): resampling rows and columns gives variance close to row + column + 3 cell parts."""
    rng = np.random.default_rng(3)
    rows, columns = 12, 200
    matrix = rng.normal(size=(rows, 1)) * 2 + rng.normal(size=(1, columns)) * 3
    row_variance = matrix.mean(axis=1).var() / rows
    column_variance = matrix.mean(axis=0).var() / columns
    interval = mean_interval(matrix, resamples=20000)
    deviation = (interval.high - interval.low) / (2 * 1.96)
    assert deviation == pytest.approx(math.sqrt(row_variance + column_variance), rel=0.04)


def simulate(rng: np.random.Generator, seeds: int, evaluations: int, effect: float) -> np.ndarray:
    """Differences with a random part of the training seed, of the evaluation seed, and of their pair."""
    return (
        effect + rng.normal(size=(seeds, 1)) + rng.normal(size=(1, evaluations)) + rng.normal(size=(seeds, evaluations))
    )


def test_coverage_of_both_intervals_with_enough_and_with_few_training_seeds() -> None:
    """95 % is what 30 training seeds give; with 5 it covers less, the t-interval still 95 %."""
    rng = np.random.default_rng(4)
    for seeds, low, high in ((30, 0.91, 0.99), (5, 0.78, 0.93)):
        hits = conservative = 0
        for k in range(400):
            result = paired_difference(simulate(rng, seeds, 60, 0.5), 0 * np.ones(60), resamples=400, seed=k)
            hits += result.low <= 0.5 <= result.high
            assert result.conservative is not None
            conservative += result.conservative[0] <= 0.5 <= result.conservative[1]
        assert low <= hits / 400 <= high
        assert 0.93 <= conservative / 400 <= 0.99


def test_same_seed_same_interval_and_scale_and_order_do_not_matter() -> None:
    rng = np.random.default_rng(7)
    a, b = rng.normal(size=(4, 25)), rng.normal(size=(4, 25))
    assert paired_difference(a, b, seed=3) == paired_difference(a, b, seed=3)
    assert paired_difference(a, b, seed=3).low != paired_difference(a, b, seed=4).low
    scaled, plain = paired_difference(10 * a, 10 * b), paired_difference(a, b)
    assert (scaled.low, scaled.high) == pytest.approx((10 * plain.low, 10 * plain.high))


def test_one_observation_has_no_interval() -> None:
    single = paired_difference([2.0], [1.5])
    assert single.mean == 0.5 and math.isnan(single.low) and math.isnan(single.high)


def test_bad_scores_are_named() -> None:
    with pytest.raises(ValueError, match=r"a\[1\] = inf; scores are finite, or NaN where there is none"):
        paired_difference([1.0, float("inf")], [1.0, 2.0])
    with pytest.raises(ValueError, match=r"a is \(2, 3\) and b is \(3, 3\); the same evaluation seeds"):
        paired_difference(np.zeros((2, 3)), np.zeros((3, 3)))
    with pytest.raises(ValueError, match=r"a is \(1, 2\) and b is \(1, 3\)"):
        paired_difference([1.0, 2.0], [1.0, 2.0, 3.0])
    with pytest.raises(ValueError, match=r"level = 95; a number in \(0, 1\)"):
        mean_interval([1.0, 2.0], level=95)
    with pytest.raises(ValueError, match="scores has 3 dimensions"):
        mean_interval(np.zeros((1, 2, 3)))


def test_absent_scores_are_left_out_and_pairs_are_counted():
    nan = float("nan")
    rng = np.random.default_rng(3)
    a, b = rng.normal(1.0, 1.0, (4, 30)), rng.normal(0.0, 1.0, (1, 30))
    whole = paired_difference(a, b)
    assert whole.pairs == 120
    a[1, 3] = a[2] = b[0, 7] = nan
    d = paired_difference(a, b)
    both = ~np.isnan(a - b)
    assert d.pairs == both.sum() == 86 and d.mean == pytest.approx((a - b)[both].mean(), rel=1e-12)
    assert d.low < d.mean < d.high and d.conservative is not None
    rows = (a - b)[[0, 1, 3]]
    half = t_quantile(0.975, 2) * np.sqrt(
        np.nanmean(rows, axis=1).var(ddof=1) / 3 + np.nanmean(rows[:, ~np.isnan(b[0])], axis=0).var(ddof=1) / 29
    )
    assert d.conservative == pytest.approx((d.mean - half, d.mean + half), rel=1e-12)
    # columns that nobody has change nothing: as if their seeds had not been run
    few = mean_interval(np.where(np.arange(30) < 29, b, nan))
    assert few.mean == pytest.approx(np.nanmean(np.where(np.arange(30) < 29, b, nan)))
    assert abs(few.low - mean_interval(b[:, :29][:, ~np.isnan(b[0, :29])]).low) < 0.05


def test_where_nothing_is_there_every_figure_is_absent_without_a_warning():
    nan = float("nan")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        d = paired_difference([1.0, nan], [nan, 2.0])
        interval = mean_interval([[nan, nan], [nan, nan]])
        assert d.pairs == 0 and d.conservative is None and np.isnan([d.mean, d.low, d.high]).all()
        assert np.isnan([interval.mean, interval.low, interval.high, mean_of([]), mean_of([None])]).all()
    assert mean_of([1.0, None, 3.0]) == 2.0
