r"""Levels alone, where there are no options: a Gaussian of an agent's own levels, learned as it is executed.

In the hybrid a draw x has the density that the proposal N(m, s^2) and the game make together,

.. math:: \log p(x) = -\tfrac12 \sum_d (x_d - m_d)^2 / s_d^2 + b' x - \tfrac12 x' C x + const,

with b and C the game's part (:mod:`coordinator.quadratic`), held constant: Gaussian with precision
:math:`P = diag(1/s^2) + C` and mean :math:`P^{-1}(m/s^2 + b)`. Alone both are zero and it is the proposal's own. What
is executed is the draw made feasible; the density is of the draw.

What it reads is :func:`rl.proposal.lens` of an observation.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def log_drawn(
    drawn: Tensor, linear: Tensor, curvature: Tensor, raw: Tensor, low: Tensor, high: Tensor, start: float
) -> tuple[Tensor, Tensor]:
    """Log-density (...,) of what was drawn, and its entropy.

    Args:
        drawn, linear: (..., D). curvature: (..., D, D). raw: (..., D, 2) from :class:`rl.continuous.ContinuousHeads`.
            low, high: (D,) of the levels' ranges.
    """
    drawn, linear, curvature, first, second = (
        v.double() for v in (drawn, linear, curvature, raw[..., 0], raw[..., 1])
    )  # fmt: skip
    mean = low + (high - low) * (0.5 + first)
    spread = (high - low) * start * second.clamp(-5.0, 3.0).exp()
    own = spread.square().reciprocal()
    root = torch.linalg.cholesky(curvature + torch.diag_embed(own))
    centre = torch.cholesky_solve((own * mean + linear)[..., None], root)[..., 0]
    off = (root.transpose(-1, -2) @ (drawn - centre)[..., None])[..., 0]
    half = root.diagonal(dim1=-2, dim2=-1).log().sum(-1)  # half the log-determinant of the precision
    flat = 0.5 * math.log(2 * math.pi) * drawn.shape[-1]
    return half - flat - 0.5 * off.square().sum(-1), flat + 0.5 * drawn.shape[-1] - half
