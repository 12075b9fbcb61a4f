"""What the off-policy learners share: settings, the recording of what was executed, the greedy choice, targets.

A learner keeps its replay in its state, so that resumed training equals uninterrupted training.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rl.elapsed import discounts, durations, ends
from rl.learner import Executed, Learner
from rl.on_policy import CREDITS
from rl.policy import ArrayPolicy
from rl.proposal import Observation, Proposal
from rl.replay import Replay
from rl.schedules import scheduled
from rl.settings import check_numbers

Float = NDArray[np.float64]


@dataclass(frozen=True)
class OffPolicyConfig:
    """Settings that every off-policy learner has.

    Attributes:
        gamma: discount a unit of time.
        capacity: slots kept, each of all E networks.
        horizon: slots between two learning phases. updates: gradient steps a slot in each.
        batch: joint slots (DQN: agents' transitions) a step. warmup: slots before learning starts.
        rate: Adam's learning rate at the start; by ``schedule`` ("constant", "linear", "cosine") it falls to
            ``rate_floor`` of it.
        target_rate: Polyak step of the target networks.
        limit: log-priors are clipped to [-limit, 0]: the coordinator's epsilon bound is limit / trust.
        credit, carry: see :class:`rl.on_policy.OnPolicyConfig`.
        engine: what computes targets and gradients: "compiled" (:mod:`rl.q_descent`, of Q-learning with the plain pair
            scorer), "torch", or "auto", the first that can.
    """

    capacity: int = 256
    horizon: int = 32
    updates: int = 1
    batch: int = 64
    warmup: int = 16
    gamma: float = 0.9
    rate: float = 1e-3
    rate_floor: float = 0.1
    schedule: str = "linear"
    target_rate: float = 0.01
    gradient_norm: float = 5.0
    hidden: int = 32
    limit: float = 10.0
    credit: str = "own"
    carry: float = 1.0
    engine: str = "auto"

    def __post_init__(self) -> None:
        check_numbers(self)
        if self.credit not in CREDITS:
            raise ValueError(f"credit = {self.credit!r}; it must be one of {', '.join(CREDITS)}")
        scheduled(1.0, 0.0, 0.0, self.schedule)


class OffPolicy(Learner):
    """Records what was executed in a :class:`Replay`; a learner names its ``PARTS`` and adds ``update``."""

    name = "off-policy"
    wants_cost = False
    engine = "torch"
    policy: ArrayPolicy
    PARTS: tuple[str, ...] = ()  # networks and optimizers, by attribute

    def __init__(self, config: OffPolicyConfig, seed: int, replay: Replay) -> None:
        self.settings = config
        self.rng = np.random.default_rng(seed)
        self.replay = replay
        self.since = 0
        self.updates = 0

    @property
    def credit(self) -> str:
        return self.settings.credit

    @property
    def apart(self) -> bool:
        """Whether agents are paid each for itself, so that one's part may end before the others'."""
        return self.settings.credit != "team"

    def export(self) -> ArrayPolicy:
        """The present policy as arrays."""
        raise NotImplementedError

    def propose(self, observation: Observation) -> Proposal:
        return self.policy.propose(observation)

    def sample_continuous(
        self, observation: Observation, option: NDArray[np.int64], rng: np.random.Generator
    ) -> Proposal | None:
        return None

    def record(self, done: Executed) -> None:
        """One executed decision of E networks; see :meth:`rl.learner.Learner.record`.

        The slot after a cut belongs to another episode: the one before it is left out of the sampling, which
        neither bootstraps from the wrong state nor treats the cut as an end. A real end is a transition to nothing.
        Paid by difference, a slot is drawn when what it is charged later is in.
        """
        c, e, carried = self.settings, len(done.option), done.carried
        lasted, ended = durations(done.elapsed, e), ends(done.terminated, e)
        reward = np.array(done.reward, np.float64)
        if c.credit == "team":
            reward[:] = reward.mean(axis=1, keepdims=True)
        charged = c.credit == "difference" and bool(c.carry)
        self.replay.add(
            done.observation, done.option, done.bias, reward, done.truncated & ~ended, lasted, ended,
            carried.shape[-1] if charged else 0, done.left if self.apart else None,
        )  # fmt: skip
        if charged:
            since = np.zeros(e)
            for h in range(min(carried.shape[-1], len(self.replay) - 1)):
                since = since + self.replay.elapsed(h + 1)
                self.replay.add_reward(h + 1, (c.carry * discounts(c.gamma, since))[:, None] * carried[..., h])
        self.since += 1

    def ready(self, final: bool = False) -> bool:
        c = self.settings
        since, kept = (1, 1) if final else (c.horizon, c.warmup)  # the last chance to learn waits for no warm-up
        return self.since >= since and len(self.replay) > max(kept, self.replay.wait)

    def set_rate(self, progress: float, shares: dict[str, float]) -> float:
        """Set each optimizer's learning rate, ``shares`` of the scheduled one, which is returned."""
        c = self.settings
        rate = scheduled(c.rate, c.rate * c.rate_floor, progress, c.schedule)
        for name, share in shares.items():
            for group in getattr(self, name).param_groups:
                group["lr"] = share * rate
        return rate

    def finish(self, logs: dict[str, list[float]], **figures: float) -> dict[str, float]:
        """After an update: export the policy, and average the figures of its steps."""
        self.since = 0
        self.updates += 1
        self.policy = self.export()
        return {k: float(np.mean(v)) for k, v in logs.items() if v} | figures

    def state_dict(self) -> dict[str, Any]:
        """Networks, optimizers, random state and replay: resumed, training goes on as if uninterrupted."""
        out: dict[str, Any] = {name: getattr(self, name).state_dict() for name in self.PARTS}
        numbers = {"rng": repr(self.rng.bit_generator.state), "updates": self.updates, "since": self.since}
        return out | numbers | {"replay": self.replay.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name in self.PARTS:
            getattr(self, name).load_state_dict(state[name])
        self.rng.bit_generator.state = ast.literal_eval(state["rng"])
        self.updates, self.since = state["updates"], state["since"]
        self.replay.load_state_dict(state["replay"])
        self.policy = self.export()


def executed_greedy(logits: Tensor, bias: Tensor, allowed: Tensor, limit: float) -> Tensor:
    """(...,) the option that would be executed: argmax of the clipped log prior plus the game's part."""
    z = logits.masked_fill(~allowed, -torch.inf)
    z = (z - z.max(dim=-1, keepdim=True).values).clamp(min=-limit)
    return (z + bias).masked_fill(~allowed, -torch.inf).argmax(-1)


def change(before: Tensor, after: Tensor, live: Tensor) -> float:
    """Mean KL(before || after) of executed log-densities (..., O) over the live (...)."""
    ratio = (before - after).nan_to_num(0.0, 0.0, 0.0)  # -inf less -inf: an option that is not allowed
    # never below 0, but by rounding
    return max(float((before.exp() * ratio).sum(-1)[live].mean()), 0.0) if live.any() else 0.0


def note_critic(logs: dict[str, list[float]], value_loss: Tensor, q: Tensor, target: Tensor) -> None:
    """Add one batch's loss of the critic, its mean value and the share of its targets' variance that it explains."""
    logs["value_loss"].append(float(value_loss.detach()))
    logs["q"].append(float(q.detach().mean()))
    logs["explained_variance"].append(explained(target, (target - q).detach()))


def explained(target: Tensor, error: Tensor) -> float:
    """Share of the targets' variance that the values explain."""
    return float(1 - error.var(correction=0) / target.var(correction=0).clamp(min=1e-12))


def follow_slowly(target: torch.nn.Module, online: torch.nn.Module, rate: float) -> None:
    """Polyak step of a target network."""
    with torch.no_grad():
        torch._foreach_lerp_(list(target.parameters()), list(online.parameters()), rate)
