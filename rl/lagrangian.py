r"""MAPPO under a constraint on a cost, by a Lagrange multiplier or a fixed penalty: RL alone, without a safety filter.

    maximise  E[r]  subject to  E[c] <= d,    L(pi, lambda) = E[r] - lambda (E[c] - d),  lambda >= 0

The policy ascends L by MAPPO's clipped step on the advantage A_r - lambda A_c, each with its own critic, so that a
change of lambda leaves the critics true; lambda ascends the dual on each rollout's mean cost J,

    lambda = [K_P (J - d) + I + K_D [J - J_before]_+]_+,   I <- [I + K_I (J - d)]_+

with K_P = K_D = 0 plain dual ascent. The cost is the team's, a slot's: of a learner whose ``wants_cost`` is True the
trainer passes the share of resources that its own choice would have overloaded. A multiplier meets the limit on
average and once learned, a filter in every slot from the first; that is what ``benchmarks/constraints.py`` compares.

Both act on the discretised choice alone.

Sources: Gu et al. (2021), "Multi-agent constrained policy optimisation" (MAPPO-Lagrangian); Ray et al. (2019),
"Benchmarking safe exploration in deep reinforcement learning" (PPO-Lagrangian); Stooke et al. (2020), "Responsive
safety in reinforcement learning by PID Lagrangian methods".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from rl.learner import Blended, Drawn
from rl.mappo import Mappo, MappoConfig
from rl.networks import Critic, Sizes, own_features
from rl.on_policy import Batch, Float, ValueNorm, descend, generalised_advantage
from rl.proposal import Observation


@dataclass(frozen=True)
class LagrangianConfig(MappoConfig):
    """Settings of MAPPO-Lagrangian.

    Attributes:
        cost_limit: d, of the mean cost a slot.
        multiplier: lambda at the start, in reward per cost. most: its bound.
        proportional, integral, derivative: K_P, K_I and K_D; the default is plain dual ascent.
    """

    cost_limit: float = 0.05
    multiplier: float = 0.0
    most: float = 100.0
    proportional: float = 0.0
    integral: float = 0.1
    derivative: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.replay:
            raise ValueError(
                f"replay = {self.replay}; the cost's critic learns from the present policy alone: set it to 0"
            )


class Lagrangian(Mappo):
    """The learner; ``policy`` is its actor as arrays, refreshed at each update."""

    name = "mappo_lagrangian"
    wants_cost = True
    overlaps = False
    config: LagrangianConfig

    def __init__(self, sizes: Sizes, config: LagrangianConfig | None = None, seed: int = 0) -> None:
        super().__init__(sizes, config or LagrangianConfig(), seed)
        c = self.config
        with torch.random.fork_rng():
            torch.manual_seed(seed + 2)
            self.cost_critic = Critic(sizes, c.hidden)
        self.cost_optimizer = torch.optim.Adam(self.cost_critic.parameters(), c.rate, eps=1e-5)
        self.cost_norm = ValueNorm()
        self.cost_target = torch.zeros(0)  # (B, N) of the present rollout, normalised
        self.multiplier = self.memory = c.multiplier  # lambda and I
        self.cost = c.cost_limit  # J of the last rollout

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
        *,
        elapsed: Float | None = None,
        terminated: NDArray[np.bool_] | None = None,
        left: NDArray[np.bool_] | None = None,
        cost: Float | None = None,
        blended: Blended | Drawn | None = None,
    ) -> None:
        """One executed decision; ``cost`` (E,) is the team's in it. See :meth:`rl.learner.Learner.record`."""
        paid = needed(cost, self.name)
        super().record(
            observation, option, log_prior, bias, reward, carried, truncated, final, elapsed=elapsed,
            terminated=terminated, left=left,
        )  # fmt: skip
        after = np.zeros(reward.shape)
        if final is not None and truncated.any():
            seen = self.seen(final)
            after = self.cost_values(own_features(seen), seen.resource)
        self.slots[-1] |= {"cost": paid, "cost_after": after}

    def cost_values(self, own: NDArray[Any], resource: NDArray[Any]) -> Float:
        """(B, N) the cost critic's values in units of cost."""
        with torch.no_grad():
            value = self.cost_critic(torch.from_numpy(own), torch.from_numpy(resource)).numpy()
        return np.asarray(self.cost_norm.centre + self.cost_norm.spread * value, np.float64)

    def learn(self, batch: Batch, progress: float) -> dict[str, float]:
        """MAPPO's on A_r - lambda A_c."""
        return super().learn(batch, progress) | {"multiplier": self.multiplier, "cost": self.cost}

    def baseline(self, batch: Batch, value: Float) -> Float:
        """(T, E, N) with which the return less this is A_r - lambda A_c; lambda takes its step before."""
        c, shape = self.config, batch.reward.shape
        cost = batch.more["cost"].numpy().reshape(shape[:2])
        self.ascend(float(cost.mean()))
        held = self.cost_values(batch.own.numpy(), batch.resource.numpy()).reshape(shape)
        following = self.cost_values(batch.next_own, batch.next_resource)
        after = batch.more["cost_after"].numpy().reshape(shape)
        each = np.broadcast_to(cost[..., None], shape)
        passed = batch.discount.max(axis=-1)  # the team goes on when an agent's part has ended
        advantage = generalised_advantage(each, held, following, batch.cut, after, passed, c.gae)
        self.cost_norm.update(advantage + held)
        normal = (advantage + held - self.cost_norm.centre) / self.cost_norm.spread
        self.cost_target = torch.from_numpy(normal.reshape(batch.live.shape)).float()
        return super().baseline(batch, value) + self.multiplier * advantage

    def ascend(self, cost: float) -> None:
        """One step of the multiplier on a rollout's mean cost."""
        c = self.config
        error, rise = cost - c.cost_limit, max(cost - self.cost, 0.0)
        self.memory = float(np.clip(self.memory + c.integral * error, 0.0, c.most))
        self.multiplier = float(np.clip(c.proportional * error + self.memory + c.derivative * rise, 0.0, c.most))
        self.cost = cost

    def fit_baseline(self, batch: Batch, part: Tensor, target: Tensor) -> None:
        """The cost critic is regressed on the costs' lambda-returns."""
        super().fit_baseline(batch, part, target)
        for group in self.cost_optimizer.param_groups:
            group["lr"] = self.critic_optimizer.param_groups[0]["lr"]
        predicted = self.cost_critic(batch.own[part], batch.resource[part])
        loss = nn.functional.huber_loss(predicted, self.cost_target[part], delta=self.config.huber)
        descend(loss, self.cost_optimizer, self.cost_critic, self.config.gradient_norm)

    def state_dict(self) -> dict[str, Any]:
        numbers = {"multiplier": self.multiplier, "memory": self.memory, "cost": self.cost}
        parts = {name: getattr(self, name).state_dict() for name in ("cost_critic", "cost_optimizer", "cost_norm")}
        return super().state_dict() | {"lagrangian": numbers | parts}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        own = state["lagrangian"]
        for name in ("cost_critic", "cost_optimizer", "cost_norm"):
            getattr(self, name).load_state_dict(own[name])
        self.multiplier, self.memory, self.cost = own["multiplier"], own["memory"], own["cost"]


@dataclass(frozen=True)
class PenaltyConfig(MappoConfig):
    """Settings of MAPPO with a fixed penalty: ``penalty`` is taken from every agent's reward per unit of cost."""

    penalty: float = 1.0


class Penalty(Mappo):
    """MAPPO on r - penalty c: what the multiplier would be, guessed beforehand."""

    name = "mappo_penalty"
    wants_cost = True
    config: PenaltyConfig

    def __init__(self, sizes: Sizes, config: PenaltyConfig | None = None, seed: int = 0) -> None:
        super().__init__(sizes, config or PenaltyConfig(), seed)

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
        *,
        elapsed: Float | None = None,
        terminated: NDArray[np.bool_] | None = None,
        left: NDArray[np.bool_] | None = None,
        cost: Float | None = None,
        blended: Blended | Drawn | None = None,
    ) -> None:
        """One executed decision; ``cost`` (E,) is the team's in it. See :meth:`rl.learner.Learner.record`."""
        reward = np.asarray(reward) - self.config.penalty * needed(cost, self.name)[:, None]
        super().record(
            observation, option, log_prior, bias, reward, carried, truncated, final, elapsed=elapsed,
            terminated=terminated, left=left,
        )  # fmt: skip


def needed(cost: Float | None, learner: str) -> Float:
    """(E,) the cost of a decision.

    Raises:
        ValueError: a learner under a constraint was not told.
    """
    if cost is None:
        raise ValueError(f"{learner} learns under a cost and must be told it: record(..., cost=(E,) of this decision)")
    return np.array(cost, np.float64)
