"""The pair scorer's compiled forward and backward pass (:mod:`rl.pairs`) as a function that torch can differentiate.

Differentiable once, in all but the pairs' features. For losses that have no pass of their own.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from rl.pairs import LINEAR, no_slopes, scorer_of, scores, slopes


class _Score(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *parts: Tensor) -> Tensor:
        own, pair, shared, row, w_pair, w_mix, b_mix, w_out, b_out = (p.detach().contiguous().numpy() for p in parts)
        w = scorer_of(dict(zip(LINEAR, (w_pair, w_mix, b_mix, w_out, b_out), strict=True)))
        out = np.empty(pair.shape[:2], np.float32)
        scores(own, pair, shared, row, w, out)
        ctx.arrays = (own, pair, shared, row, w)
        return torch.from_numpy(out)

    @staticmethod
    def backward(ctx: Any, *given: Tensor) -> Any:
        own, pair, shared, row, w = ctx.arrays
        d = no_slopes(len(own), len(shared), pair.shape[1], w)
        slopes(given[0].contiguous().numpy(), own, pair, shared, row, w, d)
        t = torch.from_numpy
        return (
            t(d.own), None, t(d.shared), None, t(d.pair.T), t(d.mix), t(d.mix_bias), t(d.out)[None], t(d.out_bias),
        )  # fmt: skip


def score(
    own: Tensor, pair: Tensor, shared: Tensor, row: Tensor, w_pair: Tensor, w_mix: Tensor, b_mix: Tensor,
    w_out: Tensor, b_out: Tensor,
) -> Tensor:  # fmt: skip
    """(M, O) from own (M, H), pair (M, O, P), shared (B, O, H), row (M,); weights as torch's Linear has them."""
    return _Score.apply(own, pair, shared, row, w_pair, w_mix, b_mix, w_out, b_out)
