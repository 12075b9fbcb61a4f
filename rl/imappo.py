r"""IMAPPO: multi-agent PPO with a centralised critic, trained on what is executed.

In the hybrid the executed mixed strategy is the Gibbs-prior equilibrium sigma, so the log-density, the ratio
and the entropy are those of log_softmax(log prior + bias), where bias = -trust cost is the game's part and is
held constant. Alone, the bias is zero. The advantage is generalised (Schulman et al. 2016) on the difference
reward: an agent's own outcome less what others lose because of it, in the slot and in the next few.

Sources: Yu et al. (2022), "The surprising effectiveness of PPO in cooperative multi-agent games"; Schulman et
al. (2017) for the clipped loss; Huang et al. (2022), "The 37 implementation details of PPO", for the details;
Wolpert and Tumer (2001) for the difference reward.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from rl.networks import Critic, PairScorer, Sizes, own_features
from rl.on_policy import (
    descend,
    entropy_of,
    executed_log_density,
    explained_variance,
    generalised_advantage,
    scaled,
)
from rl.policy import ArrayPolicy
from rl.proposal import Observation

Float = NDArray[np.float64]


@dataclass(frozen=True)
class ImappoConfig:
    """Settings of IMAPPO.

    Attributes:
        horizon: slots a rollout.
        gamma, gae: discount and lambda of the advantage.
        clip: of the probability ratio. value_clip: of the value, in units of the returns' spread.
        epochs, minibatches: passes over a rollout and its parts.
        rate: Adam's learning rate at the start; it falls linearly to ``rate_floor`` of it.
        entropy: weight of the executed strategy's entropy.
        limit: log-priors are clipped to [-limit, 0]: the coordinator's epsilon bound is limit / trust.
        carry: weight of what others lose in later slots through the backlog an agent leaves.
    """

    horizon: int = 32
    gamma: float = 0.9
    gae: float = 0.9
    clip: float = 0.2
    value_clip: float = 0.2
    epochs: int = 4
    minibatches: int = 4
    rate: float = 3e-3
    rate_floor: float = 0.1
    entropy: float = 2e-3
    gradient_norm: float = 0.5
    hidden: int = 32
    limit: float = 10.0
    carry: float = 1.0


class Rollout:
    """T slots of E networks, written in order; arrays (T, E, ...)."""

    def __init__(self) -> None:
        self.observations: list[Observation] = []
        self.own: list[Any] = []
        self.option: list[Any] = []
        self.bias: list[Any] = []
        self.log_density: list[Any] = []
        self.reward: list[Float] = []
        self.ended: list[Any] = []
        self.bootstrap: list[Any] = []

    def __len__(self) -> int:
        return len(self.option)


class Imappo:
    """The learner; ``policy`` is its actor as arrays, refreshed at each update."""

    name = "imappo"

    def __init__(self, sizes: Sizes, config: ImappoConfig | None = None, seed: int = 0) -> None:
        self.config = config or ImappoConfig()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.actor = PairScorer(sizes, self.config.hidden)
            self.critic = Critic(sizes, self.config.hidden)
        self.generator = torch.Generator().manual_seed(seed)
        self.actor_optimizer = torch.optim.Adam(self.actor.parameters(), self.config.rate, eps=1e-5)
        self.critic_optimizer = torch.optim.Adam(self.critic.parameters(), self.config.rate, eps=1e-5)
        self.rollout = Rollout()
        self.updates = 0
        self.policy = ArrayPolicy(self.actor.export(), self.name)

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
        """One executed slot of E networks.

        Args:
            option: (E, N) executed. log_prior: (E, N, O) clipped, as merged. bias: (E, N, O) the game's part.
            reward: (E, N) own outcome less what others lost in this slot.
            carried: (E, N, H) what others lost in this slot because of the agent's slot h + 1 earlier, <= 0.
            truncated: (E,) the episode was cut after this slot; ``final`` is then what came next, before resets.
        """
        r = self.rollout
        r.observations.append(observation)
        r.own.append(own_features(observation))
        r.option.append(option)
        r.bias.append(np.where(observation.allowed, bias, 0.0).astype(np.float32))
        logits = np.where(observation.allowed, log_prior + bias, -np.inf)
        top = logits.max(axis=-1, keepdims=True)
        norm = top[..., 0] + np.log(np.exp(logits - top).sum(axis=-1))
        r.log_density.append(np.take_along_axis(logits, option[..., None], -1)[..., 0] - norm)
        r.reward.append(np.array(reward))
        r.ended.append(truncated.copy())
        value = np.zeros(reward.shape, np.float32)
        if final is not None and truncated.any():
            value = self._values(own_features(final), final.resource)
        r.bootstrap.append(value)
        for h in range(min(carried.shape[-1], len(r) - 1)):
            r.reward[-2 - h] += self.config.carry * self.config.gamma ** (h + 1) * carried[..., h]

    def ready(self) -> bool:
        return len(self.rollout) >= self.config.horizon

    def update(self, last: Observation, progress: float) -> dict[str, float]:
        """Learn from the rollout; ``last`` is what came after it, ``progress`` in [0, 1] sets the rate.

        Raises:
            FloatingPointError: a gradient is not finite; the weights are left as they were.
        """
        c, r = self.config, self.rollout
        rate = c.rate * (1 - (1 - c.rate_floor) * progress)
        for optimizer in (self.actor_optimizer, self.critic_optimizer):
            for group in optimizer.param_groups:
                group["lr"] = rate
        resource = np.stack([o.resource for o in r.observations])
        own = np.stack(r.own)
        t, e, n = own.shape[:3]
        flat_values = self._values(own.reshape(t * e, n, -1), resource.reshape(t * e, *resource.shape[2:]))
        values = flat_values.reshape(t, e, n).astype(np.float64)
        following = self._values(own_features(last), last.resource).astype(np.float64)
        reward = np.stack(r.reward)
        advantage = generalised_advantage(
            reward, values, following, np.stack(r.ended), np.stack(r.bootstrap), c.gamma, c.gae
        )
        returns = advantage + values
        live = np.stack([o.live for o in r.observations])
        flat = lambda a: torch.from_numpy(np.ascontiguousarray(a.reshape(t * e, *a.shape[2:]), np.float32))
        data = {
            "agent": flat(np.stack([o.agent for o in r.observations])), "resource": flat(resource), "own": flat(own),
            "pair": flat(np.stack([o.pair for o in r.observations])), "bias": flat(np.stack(r.bias)),
            "old": flat(np.stack(r.log_density)), "returns": flat(returns),
            "values": flat(values),
        }  # fmt: skip
        option = torch.from_numpy(np.stack(r.option).reshape(t * e, n))
        alive = torch.from_numpy(live.reshape(t * e, n))
        data["advantage"] = scaled(advantage, alive)
        allowed = torch.from_numpy(np.stack([o.allowed for o in r.observations]).reshape(t * e, n, -1))
        resource_of = torch.from_numpy(np.asarray(last.resource_of))
        logs: dict[str, list[float]] = {
            k: [] for k in ("policy_loss", "value_loss", "entropy", "kl", "clipped", "norm")
        }
        value_spread = float(returns.std()) + 1e-6
        for _ in range(c.epochs):
            for part in torch.randperm(t * e, generator=self.generator).chunk(c.minibatches):
                row, agent = torch.nonzero(alive[part], as_tuple=True)
                at = part[row]
                raw = self.actor(
                    data["agent"][at, agent],
                    data["pair"][at, agent],
                    data["resource"][part],
                    row,
                    resource_of,
                )
                mask = allowed[at, agent]
                log_pi = executed_log_density(raw, data["bias"][at, agent], mask, c.limit)
                chosen = log_pi.gather(1, option[at, agent][:, None])[:, 0]
                log_ratio = chosen - data["old"][at, agent]
                ratio = log_ratio.exp()
                a = data["advantage"][at, agent]
                policy_loss = -torch.min(ratio * a, ratio.clamp(1 - c.clip, 1 + c.clip) * a).mean()
                entropy = entropy_of(log_pi, mask)
                if len(row):  # nobody to decide in these slots: only the critic learns
                    loss = policy_loss - c.entropy * entropy
                    norm = descend(loss, self.actor_optimizer, self.actor, c.gradient_norm)
                value = self.critic(data["own"][part], data["resource"][part])
                held = data["values"][part]
                near = held + (value - held).clamp(-c.value_clip * value_spread, c.value_clip * value_spread)
                target = data["returns"][part]
                error = torch.max(
                    nn.functional.huber_loss(value, target, reduction="none", delta=5.0),
                    nn.functional.huber_loss(near, target, reduction="none", delta=5.0),
                )
                value_loss = error.mean()
                descend(value_loss, self.critic_optimizer, self.critic, c.gradient_norm)
                logs["value_loss"].append(float(value_loss.detach()))
                if not len(row):
                    continue
                with torch.no_grad():
                    logs["policy_loss"].append(float(policy_loss))
                    logs["entropy"].append(float(entropy))
                    logs["kl"].append(float((ratio - 1 - log_ratio).mean()))
                    logs["clipped"].append(float(((ratio - 1).abs() > c.clip).float().mean()))
                    logs["norm"].append(norm)
        self.rollout = Rollout()
        self.updates += 1
        self.policy = ArrayPolicy(self.actor.export(), self.name)
        out = {k: float(np.mean(v)) if v else 0.0 for k, v in logs.items()}
        out["explained_variance"] = explained_variance(returns, values)
        out["learning_rate"] = rate
        return out

    def _values(self, own: Any, resource: Any) -> NDArray[np.float32]:
        with torch.no_grad():
            return np.asarray(self.critic(torch.from_numpy(own), torch.from_numpy(resource)).numpy())

    def state_dict(self) -> dict[str, Any]:
        """Networks, optimizers and random state; resumed between updates, training goes on as if uninterrupted."""
        return {
            "actor": self.actor.state_dict(), "critic": self.critic.state_dict(),
            "actor_optimizer": self.actor_optimizer.state_dict(),
            "critic_optimizer": self.critic_optimizer.state_dict(),
            "generator": self.generator.get_state(), "updates": self.updates,
        }  # fmt: skip

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.actor.load_state_dict(state["actor"])
        self.critic.load_state_dict(state["critic"])
        self.actor_optimizer.load_state_dict(state["actor_optimizer"])
        self.critic_optimizer.load_state_dict(state["critic_optimizer"])
        self.generator.set_state(state["generator"])
        self.updates = state["updates"]
        self.policy = ArrayPolicy(self.actor.export(), self.name)
