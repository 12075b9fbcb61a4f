r"""MAPPO and IPPO: PPO for many agents with shared weights; the critic is centralised or each agent's own.

Per live agent i, with the ratio r_i = pi(o_i) / pi_old(o_i) of what is executed,

    L = E[min(r_i A_i, clip(r_i, 1 - eps, 1 + eps) A_i)] + entropy H(pi)

MAPPO's critic sees the pooled features of all agents, IPPO's only its own: ``critic`` is the one difference, and
the default pay (the team's, and one's own) follows. Nothing here is counterfactual.

Sources: Yu et al. (2022), "The surprising effectiveness of PPO in cooperative multi-agent games" (value
normalisation, clipped Huber value loss); de Witt et al. (2020), "Is independent learning all you need in the
StarCraft multi-agent challenge?" (IPPO); Schulman et al. (2017) for the clipped loss.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from rl.networks import Critic, Sizes
from rl.on_policy import (
    Batch,
    Float,
    OnPolicy,
    OnPolicyConfig,
    descend,
    entropy_of,
    explained_variance,
    scaled,
)
from rl.proposal import Observation

CRITICS = ("central", "own")


@dataclass(frozen=True)
class MappoConfig(OnPolicyConfig):
    """Settings of MAPPO.

    Attributes:
        critic: "central" (MAPPO) or "own" (IPPO).
        clip: of the probability ratio. value_clip: of the value, in units of the returns' spread.
        epochs, minibatches: passes over a rollout and its parts.
        huber: width of the value loss's quadratic part, in units of the returns' spread.
    """

    critic: str = "central"
    clip: float = 0.2
    value_clip: float = 0.2
    epochs: int = 4
    minibatches: int = 4
    huber: float = 10.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.critic not in CRITICS:
            raise ValueError(f"critic = {self.critic!r}; it must be one of {', '.join(CRITICS)}")


@dataclass(frozen=True)
class IppoConfig(MappoConfig):
    """Settings of IPPO: MAPPO's with a critic and a pay of one's own."""

    critic: str = "own"
    credit: str = "own"


class OwnCritic(nn.Module):
    """Decentralised value: an agent's own features and the broadcast resources, nothing of other agents."""

    def __init__(self, sizes: Sizes, hidden: int = 32) -> None:
        super().__init__()
        self.resources = nn.Linear(sizes.resource, hidden)
        self.body = nn.Sequential(
            nn.Linear(sizes.agent + 3 * sizes.pair + hidden, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(),
            nn.Linear(64, 1),
        )  # fmt: skip
        orthogonal(self)

    def forward(self, own: Tensor, resource: Tensor) -> Tensor:
        """(B, N) values from own (B, N, A + 3 P) and resource (B, R, S)."""
        shared = torch.tanh(self.resources(resource)).mean(1)
        return self.body(torch.cat([own, shared[:, None].expand(-1, own.shape[1], -1)], -1))[..., 0]


def orthogonal(module: nn.Module) -> None:
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            nn.init.orthogonal_(layer.weight, 1.0)
            nn.init.zeros_(layer.bias)


class Mappo(OnPolicy):
    """The learner; ``policy`` is its actor as arrays, refreshed at each update."""

    name = "mappo"

    def __init__(self, sizes: Sizes, config: MappoConfig | None = None, seed: int = 0) -> None:
        self.config = config or MappoConfig()
        super().__init__(sizes, self.config, seed, Critic if self.config.critic == "central" else OwnCritic)

    def update(self, last: Observation, progress: float) -> dict[str, float]:
        """Learn from the rollout; ``last`` is what came after it, ``progress`` in [0, 1] sets the rate."""
        c = self.config
        rate = self.set_rate(progress)
        after = self.bootstraps()
        batch = self.batch(last)
        _, returns, value = self.advantages(batch, last, after)
        a = scaled(returns - self.baseline(batch, value), batch.live)
        normal = lambda x: torch.from_numpy(((x - self.norm.centre) / self.norm.spread).reshape(a.shape)).float()
        held = normal(value)  # the critic's own output: in the units it was made in
        self.norm.update(returns)
        target = normal(returns)
        logs: dict[str, list[float]] = {
            k: [] for k in ("policy_loss", "value_loss", "entropy", "kl", "clipped", "norm")
        }
        for _ in range(c.epochs):
            for part in torch.randperm(len(a), generator=self.generator).chunk(c.minibatches):
                if batch.live[part].any():
                    log_pi, mask, row, agent = self.log_pi(batch, part)
                    at = part[row]
                    log_ratio = log_pi.gather(1, batch.option[at, agent][:, None])[:, 0] - batch.old[at, agent]
                    ratio = log_ratio.exp()
                    gain = torch.min(ratio * a[at, agent], ratio.clamp(1 - c.clip, 1 + c.clip) * a[at, agent]).mean()
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
                self.fit_baseline(batch, part, target[part])
        return self.finish(logs, explained_variance=explained_variance(returns, value), learning_rate=rate)

    def baseline(self, batch: Batch, value: Float) -> Float:
        """(T, E, N) what is taken from the lambda-return: V, so that the advantage is GAE's."""
        return value

    def fit_baseline(self, batch: Batch, part: Tensor, target: Tensor) -> None:
        """Nothing more to learn: the baseline is the critic."""


class Ippo(Mappo):
    """MAPPO's code with a decentralised critic: nothing of another agent is read, in training or execution."""

    name = "ippo"

    def __init__(self, sizes: Sizes, config: IppoConfig | None = None, seed: int = 0) -> None:
        super().__init__(sizes, config or IppoConfig(), seed)


def clipped_value_loss(predicted: Tensor, held: Tensor, target: Tensor, clip: float, huber: float) -> Tensor:
    """The larger of the Huber losses of the prediction and of the prediction kept near the one held."""
    near = held + (predicted - held).clamp(-clip, clip)
    loss = lambda x: nn.functional.huber_loss(x, target, reduction="none", delta=huber)
    return torch.max(loss(predicted), loss(near)).mean()
