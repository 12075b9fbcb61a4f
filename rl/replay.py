"""A ring of whole joint slots: what off-policy learners of a team need of the past."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rl.proposal import Observation

Slot = dict[str, Tensor]


class JointReplay:
    """The last ``capacity`` slots of E networks, as arrays (capacity, E, ...).

    An agent that is not live has option 0 alone, so that a value can pass through the slots it sits out.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity, self.size, self.newest = capacity, 0, -1
        self.arrays: dict[str, NDArray[Any]] = {}

    def __len__(self) -> int:
        return self.size

    def add(
        self,
        observation: Observation,
        own: NDArray[np.float32],
        option: NDArray[np.int64],
        bias: NDArray[np.float64],
        reward: NDArray[np.float64],
        cut: NDArray[np.bool_],
    ) -> None:
        """One executed slot; ``cut`` (E,): the network was reset after it."""
        allowed = observation.allowed & observation.live[..., None]
        allowed[~observation.live, 0] = True
        slot = {
            "agent": observation.agent, "pair": observation.pair, "resource": observation.resource, "own": own,
            "allowed": allowed, "live": observation.live, "option": option,
            "bias": np.where(allowed, bias, 0.0).astype(np.float32), "reward": reward.astype(np.float32), "cut": cut,
        }  # fmt: skip
        if not self.arrays:
            self.arrays = {k: np.zeros((self.capacity, *v.shape), v.dtype) for k, v in slot.items()}
        self.newest = (self.newest + 1) % self.capacity
        self.size = min(self.size + 1, self.capacity)
        for k, v in slot.items():
            self.arrays[k][self.newest] = v

    def add_reward(self, lag: int, amount: NDArray[np.float64]) -> None:
        """Credit that came late: to the slot ``lag`` before the newest."""
        self.arrays["reward"][(self.newest - lag) % self.capacity] += amount.astype(np.float32)

    def sample(self, rng: np.random.Generator, count: int) -> tuple[Slot, Slot] | None:
        """``count`` joint slots (B, N, ...) and their successors, uniformly over those of the same episode.

        None where there is no such slot.
        """
        lag = np.arange(1, self.size)
        here = (self.newest - lag) % self.capacity
        row, network = np.nonzero(~self.arrays["cut"][here])
        if not len(row):
            return None
        pick = rng.integers(0, len(row), count)
        at, e = here[row[pick]], network[pick]
        gather = lambda index: {k: torch.from_numpy(v[index, e]) for k, v in self.arrays.items()}
        return gather(at), gather((at + 1) % self.capacity)
