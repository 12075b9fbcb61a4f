r"""How long jobs will yet take, as quantiles, learned from those that have ended.

A job says that it takes T; the truth is T exp(m + s Z) with Z normal. Mean m and spread s are those of ln(true / told)
of the jobs that have ended so far, beside a handful that were right within half: what a site's users are wrong by.
After d of it was done the length is known to exceed d, so

.. math:: q_p = T e^{m + s z_p} - d, \qquad 1 - \Phi(z_p) = (1 - p) (1 - \Phi((\ln(d / T) - m) / s))

and who overstays is believed to take longer and longer.
"""

from __future__ import annotations

import numpy as np
from scipy.special import ndtr, ndtri

from games.congestion import Float

QUANTILES = np.array([0.1, 0.5, 0.9])
BEFORE, SPREAD = 6.0, 0.5  # jobs that are taken to have ended before anything was seen, and how far they were misjudged
SURE = 0.01  # the least spread


def judge(judged: Float) -> tuple[Float, Float]:
    """(E,) mean and spread of ln(true / told), from (E, 3) how many have ended, and their mean and spread."""
    many, mean, spread = judged[..., 0], judged[..., 1], judged[..., 2]
    total = many + BEFORE
    centre = many * mean / total
    second = (many * (spread**2 + mean**2) + BEFORE * SPREAD**2) / total
    return centre, np.sqrt(np.maximum(second - centre**2, SURE**2))


def left(told: Float, done: Float, mean: Float, spread: Float) -> Float:
    """(..., 3) quantiles of what jobs have left that were said to take ``told`` (...) and had ``done``."""
    safe = np.maximum(told, 1e-9)
    z = (np.log(np.maximum(done, 1e-9) / safe) - mean) / spread
    beyond = np.maximum(ndtr(-z), 1e-300)[..., None] * (1 - QUANTILES)
    whole = safe[..., None] * np.exp(mean[..., None] - spread[..., None] * ndtri(beyond))
    return np.maximum(np.maximum.accumulate(whole - done[..., None], axis=-1), 1e-3 * safe[..., None])


def seen(judged: Float, ratio: Float) -> Float:
    """(3,) ``judged`` after jobs with these ln(true / told) have ended too."""
    if not len(ratio):
        return judged
    many, mean, spread = judged
    total = many + len(ratio)
    centre = (many * mean + ratio.sum()) / total
    second = (many * (spread**2 + mean**2) + (ratio**2).sum()) / total
    return np.array([total, centre, np.sqrt(max(second - centre**2, 0.0))])
