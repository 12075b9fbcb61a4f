r"""MAPPO and IPPO: PPO for many agents with shared weights; the critic is centralised or each agent's own.

Per live agent i, with the ratio r_i = pi(o_i) / pi_old(o_i) of what is executed,

    L = E[min(r_i A_i, clip(r_i, 1 - eps, 1 + eps) A_i)] + entropy H(pi)

MAPPO's critic sees the pooled features of all agents, IPPO's only its own: ``critic`` is the one difference, and
the default pay (the team's, and one's own) follows. The advantage is GAE's, R_lambda - V(s), or with
``baseline="leave_one_out"`` the counterfactual R_lambda - b_i(s, a_-i), see :mod:`rl.leave_one_out`.

Sources: Yu et al. (2022), "The surprising effectiveness of PPO in cooperative multi-agent games" (value
normalisation, clipped Huber value loss); de Witt et al. (2020), "Is independent learning all you need in the
StarCraft multi-agent challenge?" (IPPO); Schulman et al. (2017) for the clipped loss.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from rl.descent import set_gradients
from rl.leave_one_out import LeaveOneOut
from rl.light import LightCritic
from rl.networks import Critic, Sizes, orthogonal
from rl.on_policy import (
    Batch,
    Float,
    OnPolicy,
    OnPolicyConfig,
    descend,
    entropy_of,
    explained_variance,
    head_entropies,
    scaled,
    step,
)
from rl.recall import Lesson, again

CRITICS, BASELINES = ("central", "light", "own"), ("value", "leave_one_out")


@dataclass(frozen=True)
class MappoConfig(OnPolicyConfig):
    """Settings of MAPPO.

    Attributes:
        critic: "central" (MAPPO), "light" (the same, smaller and compiled: :mod:`rl.light`) or "own" (IPPO).
        clip: of the probability ratio. value_clip: of the value, in units of the returns' spread.
        epochs, minibatches: passes over a rollout and its parts.
        huber: width of the value loss's quadratic part, in units of the returns' spread.
        truncation: of the importance weights of what an older policy did (:mod:`rl.recall`).
        baseline: what is taken from the return: "value" or "leave_one_out". ``credit="counterfactual"`` is the
            team's pay with the latter.
    """

    credits: ClassVar[tuple[str, ...]] = (*OnPolicyConfig.credits, "counterfactual")
    critic: str = "central"
    baseline: str = "value"
    clip: float = 0.2
    value_clip: float = 0.2
    epochs: int = 4
    minibatches: int = 4
    huber: float = 10.0
    truncation: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.critic not in CRITICS:
            raise ValueError(f"critic = {self.critic!r}; it must be one of {', '.join(CRITICS)}")
        if self.baseline not in BASELINES:
            raise ValueError(f"baseline = {self.baseline!r}; it must be one of {', '.join(BASELINES)}")
        if self.leave_one_out and self.critic == "own":
            raise ValueError(
                "a leave-one-out baseline reads the other agents, and with critic = 'own' (ippo) nothing of them may "
                "be read; imappo, mappo and counterfactual have it, with critic = 'central'"
            )
        if not self.truncation > 0:
            raise ValueError(f"truncation = {self.truncation}; it must be > 0")

    @property
    def leave_one_out(self) -> bool:
        return self.baseline == "leave_one_out" or self.credit == "counterfactual"


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


class Taken(NamedTuple):
    """What M live agents did, under the present weights: log-densities (M,), mean entropy, row and agent (M,)."""

    log_density: Tensor
    entropy: Tensor
    row: Tensor
    agent: Tensor
    figures: dict[str, float]


class Mappo(OnPolicy):
    """The learner; ``policy`` is its actor as arrays, refreshed at each update."""

    name = "mappo"
    config: MappoConfig

    def __init__(self, sizes: Sizes, config: MappoConfig | None = None, seed: int = 0) -> None:
        self.config = config or MappoConfig()
        critics = {"central": Critic, "light": LightCritic, "own": OwnCritic}
        super().__init__(sizes, self.config, seed, critics[self.config.critic])
        self.without: LeaveOneOut | None = None
        if self.config.leave_one_out:
            with torch.random.fork_rng():
                torch.manual_seed(seed + 1)
                self.without = LeaveOneOut(sizes, self.config.hidden)
            self.without_optimizer = torch.optim.Adam(
                [p for p in self.without.parameters() if p.requires_grad], self.config.rate, eps=1e-5
            )

    def learn(self, batch: Batch, progress: float) -> dict[str, float]:
        c = self.config
        rate = self.set_rate(progress)
        batch, returns, targets, value, weight = self.lesson(batch)
        shape = batch.live.shape
        normal = lambda x: torch.from_numpy(((x - self.norm.centre) / self.norm.spread).reshape(shape)).float()
        a = scaled(returns - self.baseline(batch, value), batch.live)
        if weight is not None:  # what another policy did counts by how likely it is now
            a = a * torch.from_numpy(weight.reshape(shape)).float()
        held = normal(value)  # the critic's own output: in the units it was made in
        self.norm.update(targets)
        target = normal(targets)
        own, resource = batch.own.numpy(), batch.resource.numpy()
        logs: dict[str, list[float]] = {}
        note = lambda name, x: logs.setdefault(name, []).append(float(x))
        for _ in range(c.epochs):
            for part in self.parts(batch):
                if self.engine == "compiled" and batch.live[part].any():
                    figures = set_gradients(self.actor, batch, part, a, c.limit, c.clip, c.entropy)
                    note("norm", step(self.actor_optimizer, self.actor, c.gradient_norm))
                    for name, figure in figures.items():
                        note(name, figure)
                elif batch.live[part].any():
                    taken = self.taken(batch, part)
                    at, agent = part[taken.row], taken.agent
                    log_ratio = taken.log_density - batch.old[at, agent]
                    ratio = log_ratio.exp()
                    gain = torch.min(ratio * a[at, agent], ratio.clamp(1 - c.clip, 1 + c.clip) * a[at, agent]).mean()
                    loss = -gain - c.entropy * taken.entropy
                    note("norm", descend(loss, self.actor_optimizer, self.actor, c.gradient_norm))
                    with torch.no_grad():
                        note("policy_loss", -gain)
                        note("entropy", taken.entropy)
                        note("kl", (ratio - 1 - log_ratio).mean())
                        note("clipped", ((ratio - 1).abs() > c.clip).float().mean())
                        for name, figure in taken.figures.items():
                            note(name, figure)
                if isinstance(self.critic, LightCritic):
                    cost = self.critic.learn(
                        own, resource, part.numpy(), held.numpy(), target.numpy(), c.value_clip, c.huber
                    )
                    note("critic_norm", step(self.critic_optimizer, self.critic, c.gradient_norm))
                    note("value_loss", cost)
                else:
                    predicted = self.critic(batch.own[part], batch.resource[part])
                    missed = clipped_value_loss(predicted, held[part], target[part], c.value_clip, c.huber)
                    note("critic_norm", descend(missed, self.critic_optimizer, self.critic, c.gradient_norm))
                    note("value_loss", missed.detach())
                self.fit_baseline(batch, part, target[part])
        logs |= {k: [0.0] for k in ("policy_loss", "entropy", "kl", "clipped", "norm") if k not in logs}
        return self.finish(logs, explained_variance=explained_variance(returns, value), learning_rate=rate)

    def lesson(self, batch: Batch) -> Lesson:
        """The rollout, its lambda-returns and values."""
        if self.lags:
            return again(self, batch, self.config.truncation)
        _, returns, value = self.advantages(batch)
        return Lesson(batch, returns, returns, value)

    def parts(self, batch: Batch) -> Sequence[Tensor]:
        """One epoch's minibatches, as rows of the batch."""
        order = torch.randperm(len(batch.option), generator=self.generator)
        return order.chunk(self.config.minibatches)

    def taken(self, batch: Batch, part: Tensor) -> Taken:
        log_pi, mask, row, agent = self.log_pi(batch, part)
        chosen = log_pi.gather(1, batch.option[part[row], agent][:, None])[:, 0]
        with torch.no_grad():
            heads = head_entropies(log_pi, mask, batch.resource_of)
        return Taken(chosen, entropy_of(log_pi, mask), row, agent, heads)

    def densities(self, batch: Batch) -> Tensor:
        if self.engine == "compiled":
            return super().densities(batch)
        now = batch.old.clone()
        with torch.no_grad():
            taken = self.taken(batch, torch.arange(len(now)))
        now[taken.row, taken.agent] = taken.log_density
        return now

    def baseline(self, batch: Batch, value: Float) -> Float:
        """(T, E, N) what is taken from the lambda-return: V, so that the advantage is GAE's, or b_i."""
        if self.without is None:
            return value
        with torch.no_grad():
            b = self.without(batch, torch.arange(len(batch.option))).numpy()
        return np.asarray(self.norm.centre + self.norm.spread * b, np.float64).reshape(value.shape)

    def fit_baseline(self, batch: Batch, part: Tensor, target: Tensor) -> None:
        """b_i is regressed on the same returns as V."""
        if self.without is None:
            return
        for group in self.without_optimizer.param_groups:
            group["lr"] = self.critic_optimizer.param_groups[0]["lr"]
        loss = nn.functional.huber_loss(self.without(batch, part), target, delta=self.config.huber)
        descend(loss, self.without_optimizer, self.without, self.config.gradient_norm)

    def state_dict(self) -> dict[str, Any]:
        more = {}
        if self.without is not None:
            more = {"without": self.without.state_dict(), "without_optimizer": self.without_optimizer.state_dict()}
        return super().state_dict() | more

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        if self.without is not None:
            self.without.load_state_dict(state["without"])
            self.without_optimizer.load_state_dict(state["without_optimizer"])


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
