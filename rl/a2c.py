r"""A2C: the advantage actor-critic, n-step, synchronous and unclipped; one step a rollout.

    d theta = grad [sum_i log pi(a_i) A + entropy H(pi)],   A = sum_k gamma^k r_{t+k} + gamma^n V(s_{t+n}) - V(s_t)

The joint choice is one agent's action, factorised over the live agents, so its log-density is their sum, and V(s)
is one number. RMSProp as in the paper.

Source: Mnih et al. (2016), "Asynchronous methods for deep reinforcement learning", of which this is the
synchronous form.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch

from rl.descent import set_gradients
from rl.networks import Sizes
from rl.on_policy import Batch, OnPolicy, OnPolicyConfig, descend, entropy_of, explained_variance, step
from rl.pairs import PLAIN
from rl.ppo import JointCritic
from rl.recall import weights


@dataclass(frozen=True)
class A2cConfig(OnPolicyConfig):
    """Settings of A2C: the on-policy ones, a short rollout, and lambda 1, which is the n-step return."""

    horizon: int = 8
    gae: float = 1.0
    rate: float = 2e-3
    entropy: float = 1e-2


class A2c(OnPolicy):
    """The learner; ``policy`` is its actor as arrays, refreshed at each update."""

    name = "a2c"

    def __init__(self, sizes: Sizes, config: A2cConfig | None = None, seed: int = 0) -> None:
        self.config = config or A2cConfig()
        super().__init__(sizes, self.config, seed, JointCritic, partial(torch.optim.RMSprop, alpha=0.99))

    def learn(self, batch: Batch, progress: float) -> dict[str, float]:
        c = self.config
        rate = self.set_rate(progress)
        weight = weights(self.densities(batch), batch, 1.0) if self.lags else None
        advantage, returns, value = self.advantages(batch, weight)
        advantage = advantage if weight is None else weight * advantage
        self.norm.update(returns)
        shape = batch.live.shape
        # in units of the returns' spread, so that one entropy weight suits any reward
        a = torch.from_numpy(advantage / self.norm.spread).reshape(shape).float()
        target = torch.from_numpy((returns - self.norm.centre) / self.norm.spread).reshape(shape).float()
        every = torch.arange(len(a))
        logs: dict[str, list[float]] = {k: [] for k in ("policy_loss", "value_loss", "entropy", "kl", "norm")}
        if self.engine == "compiled" and batch.live.any():
            figures = set_gradients(self.actor, batch, every, a, c.limit, 0.0, c.entropy, PLAIN)
            logs["norm"].append(step(self.actor_optimizer, self.actor, c.gradient_norm))
            for name in ("policy_loss", "entropy"):
                logs[name].append(figures[name])
            logs["kl"].append(self.kl(batch, every))
        elif batch.live.any():
            log_pi, mask, row, agent = self.log_pi(batch, every)
            chosen = log_pi.gather(1, batch.option[row, agent][:, None])[:, 0]
            gain = (chosen * a[row, agent]).mean()
            entropy = entropy_of(log_pi, mask)
            logs["norm"].append(descend(-gain - c.entropy * entropy, self.actor_optimizer, self.actor, c.gradient_norm))
            logs["policy_loss"].append(-float(gain.detach()))
            logs["entropy"].append(float(entropy.detach()))
            logs["kl"].append(self.kl(batch, every))
        loss = (self.critic(batch.own, batch.resource) - target).square().mean() / 2
        descend(loss, self.critic_optimizer, self.critic, c.gradient_norm)
        logs["value_loss"].append(float(loss.detach()))
        return self.finish(logs, explained_variance=explained_variance(returns, value), learning_rate=rate)
