"""What an on-policy learner learns from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

Float = NDArray[np.float64]
TIMED = ("reward", "elapsed", "cut", "ended", "after")  # of a slot: kept by time, as arrays


class Batch(NamedTuple):
    """A rollout of T slots of E networks as tensors of B = T E rows, in order of time.

    agent (B, N, A), pair (B, N, O, P), resource (B, R, S), own (B, N, A + 3 P); option (B, N) executed; bias
    (B, N, O) the game's part; allowed (B, N, O); live (B, N); old (B, N) log-density at execution; resource_of
    (O,). What stays an array in time: reward (T, E, N); cut (T, E), the episode's end; ended (T, E, N), for whom
    nothing follows; discount (T, E, N) of what came next, 0 where nothing does; after (T, E, N), the value of what came
    next at a cut. next_own and next_resource are the critic's view of what came after the last slot. ``more`` holds
    what a learner adds to its slots, (B, ...).
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


def joined(
    slots: Sequence[Mapping[str, Any]],
    place: Callable[[str, tuple[int, ...], np.dtype[Any]], NDArray[Any]] = lambda _, shape, kind: np.empty(shape, kind),
) -> dict[str, NDArray[Any]]:
    """T recorded slots as arrays by name: what is kept by time (T, E, ...), the rest (T E, ...), rows in order of time.

    What the critic sees at a cut, a slot's ``final``, is there as ``final_at`` (F,), the slots that have one, and
    ``final_own``, ``final_resource`` (F, E, ...).

    Args:
        place: gives the array of a name, shape and type to be filled; default a new one.
    """
    found: dict[str, NDArray[Any]] = {}

    def fill(name: str, parts: list[NDArray[Any]], stack: bool) -> None:
        first = parts[0]
        shape = (len(parts), *first.shape) if stack else (sum(map(len, parts)), *first.shape[1:])
        found[name] = place(name, shape, first.dtype)
        (np.stack if stack else np.concatenate)(parts, out=found[name])

    for name in slots[0]:
        if name != "final":
            fill(name, [s[name] for s in slots], name in TIMED)
    at = [k for k, s in enumerate(slots) if "final" in s]
    for k, name in enumerate(("final_own", "final_resource") if at else ()):
        fill(name, [slots[t]["final"][k] for t in at], True)
    found["final_at"] = np.array(at, np.int64)
    return found
