r"""PPO as a single agent: the joint choice is one action, factorised over agents, with one value and team pay.

log pi(a | s) = sum over live agents i of log pi(a_i | o_i), and the clipped loss is that of the joint ratio
exp(log pi - log pi_old): with many agents the clip is reached sooner, which is what treating the system as one
agent costs. The critic is one number V(s) from the pooled features.

Source: Schulman et al. (2017), "Proximal policy optimization algorithms".
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from rl.descent import log_densities, set_gradients
from rl.mappo import clipped_value_loss
from rl.networks import Sizes, orthogonal
from rl.on_policy import Batch, OnPolicy, OnPolicyConfig, descend, entropy_of, explained_variance, scaled, step
from rl.pairs import PLAIN
from rl.proposal import Observation


@dataclass(frozen=True)
class PpoConfig(OnPolicyConfig):
    """Settings of PPO; see :class:`rl.mappo.MappoConfig` for the fields."""

    clip: float = 0.2
    value_clip: float = 0.2
    epochs: int = 4
    minibatches: int = 4
    huber: float = 10.0


class JointCritic(nn.Module):
    """V(s): one number for the whole, from the mean and greatest of embedded agents and resources."""

    def __init__(self, sizes: Sizes, hidden: int = 32) -> None:
        super().__init__()
        self.agents = nn.Sequential(
            nn.Linear(sizes.agent + 3 * sizes.pair, hidden), nn.Tanh(), nn.Linear(hidden, hidden), nn.Tanh()
        )
        self.resources = nn.Linear(sizes.resource, hidden)
        self.body = nn.Sequential(nn.Linear(3 * hidden, 64), nn.Tanh(), nn.Linear(64, 1))
        orthogonal(self)

    def forward(self, own: Tensor, resource: Tensor) -> Tensor:
        """(B, N): the same value for each agent, from own (B, N, A + 3 P) and resource (B, R, S)."""
        z = self.agents(own)
        pooled = [z.mean(1), z.amax(1), torch.tanh(self.resources(resource)).mean(1)]
        return self.body(torch.cat(pooled, -1)).expand(-1, own.shape[1])


class Ppo(OnPolicy):
    """The learner; ``policy`` is its actor as arrays, refreshed at each update."""

    name = "ppo"

    def __init__(self, sizes: Sizes, config: PpoConfig | None = None, seed: int = 0) -> None:
        self.config = config or PpoConfig()
        super().__init__(sizes, self.config, seed, JointCritic)

    def update(self, last: Observation, progress: float) -> dict[str, float]:
        """Learn from the rollout; ``last`` is what came after it, ``progress`` in [0, 1] sets the rate."""
        c = self.config
        rate = self.set_rate(progress)
        batch = self.batch(last)
        advantage, returns, value = self.advantages(batch)
        joint = scaled(advantage.mean(axis=2, keepdims=True), batch.live.any(1, keepdim=True))[:, 0]
        normal = lambda x: torch.from_numpy((x - self.norm.centre) / self.norm.spread).reshape(batch.live.shape).float()
        held = normal(value)  # the critic's own output: in the units it was made in
        self.norm.update(returns)
        target = normal(returns)
        logs: dict[str, list[float]] = {
            k: [] for k in ("policy_loss", "value_loss", "entropy", "kl", "clipped", "norm")
        }
        for _ in range(c.epochs):
            for part in torch.randperm(len(joint), generator=self.generator).chunk(c.minibatches):
                if self.engine == "compiled" and batch.live[part].any():
                    for name, figure in self.compiled_step(batch, part, joint).items():
                        logs[name].append(figure)
                elif batch.live[part].any():
                    log_pi, mask, row, agent = self.log_pi(batch, part)
                    at = part[row]
                    change = log_pi.gather(1, batch.option[at, agent][:, None])[:, 0] - batch.old[at, agent]
                    log_ratio = torch.zeros(len(part)).index_add(0, row, change)  # of the joint action
                    ratio = log_ratio.exp()
                    a = joint[part]
                    gain = torch.min(ratio * a, ratio.clamp(1 - c.clip, 1 + c.clip) * a).mean()
                    entropy = entropy_of(log_pi, mask)
                    norm = descend(-gain - c.entropy * entropy, self.actor_optimizer, self.actor, c.gradient_norm)
                    with torch.no_grad():
                        logs["policy_loss"].append(-float(gain))
                        logs["entropy"].append(float(entropy))
                        logs["kl"].append(float((ratio - 1 - log_ratio).mean()))
                        logs["clipped"].append(float(((ratio - 1).abs() > c.clip).float().mean()))
                        logs["norm"].append(norm)
                predicted = self.critic(batch.own[part], batch.resource[part])
                loss = clipped_value_loss(predicted, held[part], target[part], c.value_clip, c.huber)
                descend(loss, self.critic_optimizer, self.critic, c.gradient_norm)
                logs["value_loss"].append(float(loss.detach()))
        return self.finish(logs, explained_variance=explained_variance(returns, value), learning_rate=rate)

    def compiled_step(self, batch: Batch, part: Tensor, joint: Tensor) -> dict[str, float]:
        """One step on ``part``: the slope of a row's joint loss is the advantage of all its agents in a plain one."""
        c, rows = self.config, part.numpy()
        now, row, agent = log_densities(self.actor, batch, part, c.limit)
        log_ratio = np.bincount(row, now - batch.old.numpy()[rows[row], agent], len(rows))
        ratio, a = np.exp(log_ratio), joint.numpy()[rows]
        gain = np.minimum(ratio * a, np.clip(ratio, 1 - c.clip, 1 + c.clip) * a)
        slope = (
            np.where(ratio * a <= gain, ratio * a, 0.0) * len(row) / len(rows)
        )  # a plain step takes the agents' mean
        slopes = np.zeros(batch.live.shape, np.float32)
        slopes[rows] = slope[:, None]
        found = set_gradients(self.actor, batch, part, torch.from_numpy(slopes), c.limit, c.clip, c.entropy, PLAIN)
        return {
            "policy_loss": -float(gain.mean()), "entropy": found["entropy"],
            "kl": float((ratio - 1 - log_ratio).mean()), "clipped": float((abs(ratio - 1) > c.clip).mean()),
            "norm": step(self.actor_optimizer, self.actor, c.gradient_norm),
        }  # fmt: skip
