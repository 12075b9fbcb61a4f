"""Scores of many domains in one: normalised, with interquartile means, profiles and probabilities of improvement.

A domain's scores come as (T, V): T training seeds by V evaluation seeds, 1 row for what is not trained. They are
normalised so that 0 is a floor (random) and 1 a top (a bound, or the best known), and more is better. Every domain
counts the same, however many training seeds a method has there. All intervals are of a bootstrap that is stratified by
domain: within each, training seeds and evaluation seeds are drawn anew, and the same draw of evaluation seeds serves
both sides of a pair.

Source: Agarwal et al. (2021), "Deep reinforcement learning at the edge of the statistical precipice", NeurIPS 34, whose
runs have no second kind of seed; with V = 1 this is their method.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hybridalloc.reports.statistics import LEVEL, Interval

Array = NDArray[np.float64]
Scores = Mapping[str, Array]  # by domain, (T, V)
RESAMPLES = 2000


class Scale(NamedTuple):
    """What 0 and 1 mean in a domain: the method whose mean it is, and the mean in the metric's own unit."""

    floor_of: str
    floor: float
    top_of: str
    top: float


@dataclass(frozen=True)
class Improvement:
    """How likely one method is above another, ties by half.

    Attributes:
        runs: a training run of the one (its mean over the evaluation seeds) above one of the other.
        worlds: the one above the other on the same evaluation seed.
    """

    runs: Interval
    worlds: Interval


def normalise(scores: ArrayLike, scale: Scale) -> Array:
    """(T, V) scores as shares of the way from the floor to the top, whichever of them is the larger number.

    Raises:
        ValueError: floor and top are the same, or no numbers.
    """
    if not np.isfinite([scale.floor, scale.top]).all() or scale.floor == scale.top:
        raise ValueError(
            f"floor {scale.floor_of} has {scale.floor}, top {scale.top_of} has {scale.top}; two different numbers are "
            "required"
        )
    given = np.atleast_2d(np.asarray(scores, dtype=np.float64))
    return np.asarray((given - scale.floor) / (scale.top - scale.floor))


def interquartile_mean(scores: Scores, seed: int = 0) -> Interval:
    """Mean of the middle half of all runs on all evaluation seeds of all domains."""
    return _interval(scores, _middle, seed)


def mean(scores: Scores, seed: int = 0) -> Interval:
    """Mean over all runs and evaluation seeds of all domains."""
    return _interval(scores, lambda pooled, weight: np.asarray(pooled @ weight), seed)


def profile(scores: Scores, levels: Sequence[float]) -> Array:
    """(len(levels),) share of runs and evaluation seeds above each level, each domain by the same weight."""
    rows = [(values[np.isfinite(values)][:, None] > np.asarray(levels)).mean(axis=0) for values in scores.values()]
    return np.asarray(np.mean(rows, axis=0))


def improvement(ours: ArrayLike, theirs: ArrayLike, seed: int = 0) -> Improvement:
    """How likely ``ours`` (T, V) is above ``theirs`` (T', V) in one domain; more must be better.

    Raises:
        ValueError: other evaluation seeds (columns).
    """
    x, y = (np.atleast_2d(np.asarray(values, dtype=np.float64)) for values in (ours, theirs))
    if x.shape[1] != y.shape[1]:
        raise ValueError(f"ours is {x.shape}, theirs is {y.shape}; the same evaluation seeds (columns) are required")
    there = np.isfinite(x).all(axis=0) & np.isfinite(y).all(axis=0)
    x, y = x[:, there], y[:, there]
    if not x.size or not y.size:
        nothing = Interval(float("nan"), float("nan"), float("nan"))
        return Improvement(nothing, nothing)
    rng = np.random.default_rng(seed)
    many, few, worlds = len(x), len(y), x.shape[1]
    rows = rng.integers(many, size=(RESAMPLES, many)), rng.integers(few, size=(RESAMPLES, few))
    weight = rng.multinomial(worlds, np.full(worlds, 1 / worlds), size=RESAMPLES) / worlds  # of each evaluation seed
    a, b = (np.take_along_axis(weight @ values.T, row, axis=1) for values, row in zip((x, y), rows, strict=True))
    above = _above(x[:, None], y[None])  # (T, T', V)
    by_pair = np.einsum("bv,ijv->bij", weight, above)
    draw = np.arange(RESAMPLES)[:, None, None]
    same = by_pair[draw, rows[0][:, :, None], rows[1][:, None, :]].mean(axis=(1, 2))
    runs = _above(a[:, :, None], b[:, None, :]).mean(axis=(1, 2))
    at = float(_above(x.mean(axis=1)[:, None], y.mean(axis=1)).mean())
    return Improvement(_ends(at, runs), _ends(float(above.mean()), same))


def _above(x: Array, y: Array) -> Array:
    """1 where x is above y, a half where they tie."""
    return np.asarray((x > y) + (x == y) / 2)


def _middle(pooled: Array, weight: Array) -> Array:
    """(B,) mean of the middle half of the weight of (B, runs); ``weight`` (runs,) comes to 1."""
    order = np.argsort(pooled, axis=1)
    sorted_weight = weight[order]
    until = sorted_weight.cumsum(axis=1)
    inside = np.clip(np.minimum(until, 0.75) - np.maximum(until - sorted_weight, 0.25), 0.0, None)
    return np.asarray((inside * np.take_along_axis(pooled, order, axis=1)).sum(axis=1) / inside.sum(axis=1))


def _interval(scores: Scores, measure: Callable[[Array, Array], Array], seed: int) -> Interval:
    """A measure of the pooled scores (B, runs) and their weights (runs,), with its stratified bootstrap; absent scores
    are left out."""
    rng, drawn, whole, weights = np.random.default_rng(seed), [], [], []
    for values in scores.values():
        kept = values[:, np.isfinite(values).all(axis=0)]
        if not kept.size:
            continue
        rows = rng.integers(kept.shape[0], size=(RESAMPLES, kept.shape[0], 1))
        columns = rng.integers(kept.shape[1], size=(RESAMPLES, 1, kept.shape[1]))
        drawn.append(kept[rows, columns].reshape(RESAMPLES, -1))
        whole.append(kept.ravel())
        weights.append(np.full(kept.size, 1.0 / kept.size))
    if not whole:
        return Interval(float("nan"), float("nan"), float("nan"))
    weight = np.concatenate(weights) / len(weights)
    at = float(measure(np.concatenate(whole)[None], weight)[0])
    return _ends(at, measure(np.concatenate(drawn, axis=1), weight))


def _ends(at: float, drawn: Array) -> Interval:
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(at, float(low), float(high))
