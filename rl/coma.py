r"""COMA: counterfactual multi-agent policy gradients, the baseline by enumeration of one's own options.

    g = E[ sum_i grad log pi_i(a_i) A_i ],   A_i = Q(s, a) - sum_o pi_i(o) Q(s, (a_-i, o))

The centralised critic scores all options of an agent in one pass, given what the others did (z_-i, see
:mod:`rl.leave_one_out`), and is trained by TD(lambda) on the executed pairs, bootstrapped from a target critic.
In the hybrid pi_i is what is executed. The last slot of a rollout, and the one before a cut, have no executed
successor: they bootstrap the slots before them and are not learned from. After an episode's end nothing follows, and
its last slot is learned from.

Source: Foerster et al. (2018), "Counterfactual multi-agent policy gradients".
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from rl.leave_one_out import Others
from rl.networks import Sizes
from rl.on_policy import Batch, Float, OnPolicy, OnPolicyConfig, by_agent, descend, entropy_of, explained_variance


@dataclass(frozen=True)
class ComaConfig(OnPolicyConfig):
    """Settings of COMA.

    Attributes:
        gae: the lambda of the critic's TD(lambda).
        epochs, minibatches: the critic's passes over a rollout and their parts; the actor takes one step.
        target_period: updates between copies of the critic to its target.
    """

    horizon: int = 16
    gae: float = 0.8
    rate: float = 2e-3
    entropy: float = 1e-2
    epochs: int = 2
    minibatches: int = 4
    target_period: int = 5


class OptionCritic(nn.Module):
    """Q(s, (a_-i, o)) of every option o of every agent, (B, N, O), in normalised units."""

    def __init__(self, sizes: Sizes, hidden: int = 32) -> None:
        super().__init__()
        self.others = Others(sizes, hidden)
        own = sizes.agent + 3 * sizes.pair
        self.pair = nn.Linear(hidden, 64)
        self.rest = nn.Linear(own + 2 * hidden, 64)
        self.body = nn.Sequential(nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 1))

    def forward(self, batch: Batch, part: Tensor) -> Tensor:
        phi = self.others.options(batch, part)
        index = batch.option[part][..., None, None].expand(-1, -1, 1, phi.shape[-1])
        context = self.others(batch, part, phi.gather(2, index)[:, :, 0])
        rest = self.rest(torch.cat([batch.own[part], context], -1))
        return self.body(self.pair(phi) + rest[:, :, None])[..., 0]


class Coma(OnPolicy):
    """The learner; ``policy`` is its actor as arrays, refreshed at each update."""

    name = "coma"
    passes = False
    overlaps = False
    critic: nn.Module

    def __init__(self, sizes: Sizes, config: ComaConfig | None = None, seed: int = 0) -> None:
        self.config = config or ComaConfig()
        super().__init__(sizes, self.config, seed, OptionCritic, partial(torch.optim.RMSprop, alpha=0.99))
        self.target = copy.deepcopy(self.critic)

    def values(self, own: NDArray[Any], resource: NDArray[Any]) -> Float:
        """No value of a state alone is learned: a cut leaves nothing to bootstrap from."""
        return np.zeros(own.shape[:2])

    def learn(self, batch: Batch, progress: float) -> dict[str, float]:
        c = self.config
        rate = self.set_rate(progress)
        every = torch.arange(len(batch.option))
        with torch.no_grad():
            q = self.target(batch, every).gather(-1, batch.option[..., None])[..., 0].numpy()
        q = (self.norm.centre + self.norm.spread * q).reshape(batch.reward.shape)
        returns, learn = td_lambda(batch.reward, q, batch.cut, batch.discount, c.gae, batch.ended)
        logs: dict[str, list[float]] = {k: [] for k in ("policy_loss", "value_loss", "entropy", "kl", "norm")}
        kept = torch.from_numpy(np.flatnonzero(learn))
        if len(kept):
            self.norm.update(returns[learn])
            normal = ((returns - self.norm.centre) / self.norm.spread).reshape(batch.option.shape)
            target = torch.from_numpy(normal).float()
            for _ in range(c.epochs):
                for part in kept[torch.randperm(len(kept), generator=self.generator)].chunk(c.minibatches):
                    taken = self.critic(batch, part).gather(-1, batch.option[part][..., None])[..., 0]
                    loss = (taken - target[part]).square().mean()
                    descend(loss, self.critic_optimizer, self.critic, c.gradient_norm)
                    logs["value_loss"].append(float(loss.detach()))
        if len(kept) and batch.live[kept].any():
            log_pi, mask, row, agent = self.log_pi(batch, kept)
            option = batch.option[kept][row, agent]
            with torch.no_grad():
                a = coma_advantage(self.critic(batch, kept)[row, agent], log_pi.exp(), option)
            gain = (log_pi.gather(1, option[:, None])[:, 0] * a).mean()
            entropy = entropy_of(log_pi, mask)
            logs["norm"].append(descend(-gain - c.entropy * entropy, self.actor_optimizer, self.actor, c.gradient_norm))
            logs["policy_loss"].append(-float(gain.detach()))
            logs["entropy"].append(float(entropy.detach()))
            logs["kl"].append(self.kl(batch, kept))
        if (self.updates + 1) % c.target_period == 0:
            self.target.load_state_dict(self.critic.state_dict())
        return self.finish(logs, explained_variance=explained_variance(returns, q), learning_rate=rate)

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"target": self.target.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.target.load_state_dict(state["target"])


def coma_advantage(q: Tensor, pi: Tensor, option: Tensor) -> Tensor:
    """(M,) Q(a_i) - sum_o pi(o) Q(o), from q and pi (M, O)."""
    return q.gather(1, option[:, None])[:, 0] - (pi * q).sum(1)


def td_lambda(
    reward: Float, q: Float, cut: NDArray[np.bool_], discount: float | Float, lam: float,
    ended: NDArray[np.bool_] | None = None,
) -> tuple[Float, NDArray[np.bool_]]:  # fmt: skip
    """y_t = r_t + d_t ((1 - lam) q_{t+1} + lam y_{t+1}), (T, E, N), on executed pairs; and (T, E) where it exists.

    It does not at the last slot and before a cut: there y_t = q_t. Where it ``ended`` for good y_t = r_t.

    Args:
        discount: (T, E), (T, E, N) or one for all, d_t = gamma^elapsed, 0 past an end. cut: (T, E). ended: (T, E, N).
    """
    d = by_agent(discount, cut.shape)
    past = np.zeros(reward.shape, bool) if ended is None else ended
    over = past.all(axis=-1)
    y = np.where(past, reward, q)
    exists = ~cut
    exists[-1] = False
    for t in range(len(reward) - 2, -1, -1):
        step = reward[t] + d[t] * ((1 - lam) * q[t + 1] + lam * y[t + 1])
        y[t] = np.where(exists[t][:, None], step, y[t])
    return y, exists | over
