"""What an on-policy learner learns from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

Float = NDArray[np.float64]


class Batch(NamedTuple):
    """A rollout of T slots of E networks as tensors of B = T E rows, in order of time.

    agent (B, N, A), pair (B, N, O, P), resource (B, R, S), own (B, N, A + 3 P); option (B, N) executed; bias
    (B, N, O) the game's part; allowed (B, N, O); live (B, N); old (B, N) log-density at execution; resource_of
    (O,). What stays an array in time: reward (T, E, N); cut and ended (T, E), the episode's end and whether it was for
    good; discount (T, E) of what came next; after (T, E, N), the value of what came next at a cut. next_own and
    next_resource are the critic's view of what came after the last slot. ``more`` holds what a learner adds to its
    slots, (B, ...).
    """

    agent: Tensor
    pair: Tensor
    resource: Tensor
    own: Tensor
    option: Tensor
    bias: Tensor
    allowed: Tensor
    live: Tensor
    old: Tensor
    resource_of: Tensor
    reward: Float
    cut: NDArray[np.bool_]
    ended: NDArray[np.bool_] = np.zeros(0, bool)
    discount: Float = np.zeros(0)
    after: Float = np.zeros(0)
    next_own: NDArray[Any] = np.zeros(0)
    next_resource: NDArray[Any] = np.zeros(0)
    more: Mapping[str, Tensor] = {}
