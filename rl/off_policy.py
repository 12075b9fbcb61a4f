"""What the off-policy learners share: a ring of whole joint slots, and the recording of what was executed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rl.networks import own_features
from rl.on_policy import CREDITS
from rl.policy import ArrayPolicy
from rl.proposal import Observation

Float = NDArray[np.float64]
Slot = dict[str, Tensor]


@dataclass(frozen=True)
class OffPolicyConfig:
    """Settings that every off-policy learner has.

    Attributes:
        capacity: slots kept, each of all E networks.
        horizon: slots between two learning phases. updates: gradient steps a slot in each.
        batch: joint slots a step. warmup: slots before learning starts.
        rate: Adam's learning rate at the start; it falls linearly to ``rate_floor`` of it.
        target_rate: Polyak step of the target networks.
        limit: log-priors are clipped to [-limit, 0]: the coordinator's epsilon bound is limit / trust.
        credit, carry: see :class:`rl.on_policy.OnPolicyConfig`.
    """

    capacity: int = 256
    horizon: int = 32
    updates: int = 1
    batch: int = 64
    warmup: int = 16
    gamma: float = 0.9
    rate: float = 1e-3
    rate_floor: float = 0.1
    target_rate: float = 0.01
    gradient_norm: float = 5.0
    hidden: int = 32
    limit: float = 10.0
    credit: str = "own"
    carry: float = 1.0

    def __post_init__(self) -> None:
        if self.credit not in CREDITS:
            raise ValueError(f"credit = {self.credit!r}; it must be one of {', '.join(CREDITS)}")


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

    def state_dict(self) -> dict[str, Any]:
        """The slots that are kept, oldest first."""
        order = (self.newest + 1 - self.size + np.arange(self.size)) % self.capacity
        return {k: v[order] for k, v in self.arrays.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.size = len(state["cut"]) if state else 0
        self.newest = self.size - 1
        self.arrays = {k: np.zeros((self.capacity, *v.shape[1:]), v.dtype) for k, v in state.items()}
        for k, v in state.items():
            self.arrays[k][: self.size] = v

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


class OffPolicy:
    """Records what was executed in a :class:`JointReplay`; a learner sets ``policy`` and adds ``update``."""

    name = "off-policy"
    policy: ArrayPolicy

    def __init__(self, config: OffPolicyConfig, seed: int) -> None:
        self.settings = config
        self.rng = np.random.default_rng(seed)
        self.replay = JointReplay(config.capacity)
        self.since = 0
        self.updates = 0

    @property
    def credit(self) -> str:
        return self.settings.credit

    def propose(self, observation: Observation) -> Float:
        return self.policy.propose(observation)

    def record(
        self,
        observation: Observation,
        option: NDArray[np.int64],
        log_prior: Float,
        bias: Float,
        reward: Float,
        carried: Float,
        truncated: NDArray[np.bool_],
        final: Observation | None,
    ) -> None:
        """One executed slot of E networks; see :meth:`rl.on_policy.OnPolicy.record`.

        The slot after a cut belongs to another episode: the one before it is left out of the sampling.
        """
        c = self.settings
        reward = np.array(reward, np.float64)
        if c.credit == "team":
            reward[:] = reward.mean(axis=1, keepdims=True)
        self.replay.add(observation, own_features(observation), option, bias, reward, truncated)
        if c.credit == "difference":
            for h in range(min(carried.shape[-1], len(self.replay) - 1)):
                self.replay.add_reward(h + 1, c.carry * c.gamma ** (h + 1) * carried[..., h])
        self.since += 1

    def ready(self) -> bool:
        return self.since >= self.settings.horizon and len(self.replay) > self.settings.warmup

    def rate_at(self, progress: float) -> float:
        return self.settings.rate * (1 - (1 - self.settings.rate_floor) * progress)


def follow_slowly(target: torch.nn.Module, online: torch.nn.Module, rate: float) -> None:
    """Polyak step of a target network."""
    with torch.no_grad():
        for slow, fast in zip(target.parameters(), online.parameters(), strict=True):
            slow.lerp_(fast, rate)
