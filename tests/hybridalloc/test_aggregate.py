"""Aggregates over domains, held against scipy and against counting by hand."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import mannwhitneyu, trim_mean

from hybridalloc.reports.aggregate import (
    Scale,
    improvement,
    interquartile_mean,
    mean,
    normalise,
    profile,
)

RNG = np.random.default_rng(3)
SCORES = {"mec": RNG.normal(0.8, 0.1, (5, 20)), "voltage": RNG.normal(0.5, 0.2, (5, 20))}


def test_scores_are_shares_of_the_way_whichever_end_is_larger():
    assert normalise([[10.0, 4.0, 1.0]], Scale("random", 10.0, "clairvoyant", 1.0)).tolist() == [[0.0, 2 / 3, 1.0]]
    with pytest.raises(ValueError, match=r"floor random has 2\.0, top best has 2\.0; two different numbers"):
        normalise([1.0], Scale("random", 2.0, "best", 2.0))


def test_the_interquartile_mean_is_scipys_and_its_interval_covers_it():
    found = interquartile_mean(SCORES)
    assert found.mean == pytest.approx(trim_mean(np.concatenate([s.ravel() for s in SCORES.values()]), 0.25))
    assert found.low < found.mean < found.high and found == interquartile_mean(SCORES)
    assert mean(SCORES).mean == pytest.approx(np.mean([s.mean() for s in SCORES.values()]))


@pytest.mark.parametrize("measure", [interquartile_mean, mean])
def test_a_domain_counts_no_more_for_its_training_seeds(measure):
    """What is not trained has one row in a domain, and five where its belief is learned."""
    thrice = SCORES | {"mec": np.repeat(SCORES["mec"], 3, axis=0)}
    assert measure(thrice).mean == pytest.approx(measure(SCORES).mean)
    four = {
        name: np.full((rows, 4), level) for name, rows, level in zip("abcd", (1, 5, 1, 2), (0, 1, 2, 7), strict=True)
    }
    assert measure(four).mean == pytest.approx(1.5 if measure is interquartile_mean else 2.5)


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    """Runs that differ by training seed alone, many of them: the spread of the mean is known."""
    hits = 0
    for trial in range(60):
        rng = np.random.default_rng(trial)
        scores = {"a": rng.normal(size=(12, 1)), "b": rng.normal(size=(12, 1)) + 3}
        found = mean(scores, seed=trial)
        hits += found.low < 1.5 < found.high
    assert hits >= 50


def test_absent_scores_are_left_out_and_nothing_has_no_mean():
    holed = {"mec": np.array([[1.0, np.nan, 3.0]])}
    assert mean(holed).mean == 2.0
    assert np.isnan(interquartile_mean({"mec": np.full((2, 3), np.nan)}).mean)


def test_the_probability_of_improvement_is_mann_whitneys_over_runs_and_a_count_over_worlds():
    x, y = RNG.normal(0.3, 1, (5, 8)), RNG.normal(0.0, 1, (4, 8))
    found = improvement(x, y)
    u = mannwhitneyu(x.mean(axis=1), y.mean(axis=1)).statistic
    assert found.runs.mean == pytest.approx(u / (5 * 4))
    count = sum(x[i, v] > y[j, v] for i in range(5) for j in range(4) for v in range(8))
    assert found.worlds.mean == pytest.approx(count / (5 * 4 * 8))
    assert 0 <= found.runs.low <= found.runs.mean <= found.runs.high <= 1
    assert improvement(x, x[:1]).worlds.mean == pytest.approx((x[:, None] > x[None, :1]).mean() + 0.1)  # a tie, half
    with pytest.raises(ValueError, match="the same evaluation seeds"):
        improvement(x, y[:, :3])


def test_a_profile_falls_from_one_to_nothing_and_weighs_domains_alike():
    levels = [-10.0, 0.6, 10.0]
    told = profile(SCORES | {"mec": np.repeat(SCORES["mec"], 3, axis=0)}, levels)
    by_hand = np.mean([(s > 0.6).mean() for s in SCORES.values()])
    assert told.tolist() == pytest.approx([1.0, by_hand, 0.0])
