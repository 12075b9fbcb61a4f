r"""MADDPG for discrete options, by Gumbel-softmax: centralised critics Q_i(s, a_1, ..., a_N), decentralised actors.

The options are discrete, so the deterministic policy gradient passes through a relaxed sample: forward the one-hot
option drawn from what is executed, backward the gradient of softmax((log pi + Gumbel noise) / relaxation)
(straight-through). It acts on the discretised choice alone.

    critic   Q_i(s, a) -> r_i + gamma Q_i'(s', a'),  a' drawn from the target actors
    actor    max E Q_i(s, a_1, ..., mu_i(o_i), ..., a_N) - regulariser |log prior_i|^2,  the others' a from the replay

Weights are shared over agents, and a critic pools what the others did, so that any N will do: the papers have one
network an agent.

Sources: Lowe et al. (2017), "Multi-agent actor-critic for mixed cooperative-competitive environments"; Jang et al.
(2017) and Maddison et al. (2017) for the relaxation.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rl.descent import engine_of
from rl.networks import PairScorer, Sizes
from rl.off_policy import OffPolicy, OffPolicyConfig, change, follow_slowly, note_critic
from rl.on_policy import descend, entropy_of, executed_log_density
from rl.policy import ArrayPolicy
from rl.proposal import Observation
from rl.replay import Replay, Slot


@dataclass(frozen=True)
class MaddpgConfig(OffPolicyConfig):
    """Settings of MADDPG.

    Attributes:
        actor_rate: the actor's learning rate, as a share of the critic's.
        relaxation: temperature of the Gumbel-softmax's gradient.
        regulariser: weight of the squared log prior, which keeps the actor from settling too early.
    """

    rate: float = 3e-3
    target_rate: float = 0.02
    actor_rate: float = 0.1
    relaxation: float = 1.0
    regulariser: float = 1e-3


class JointCritic(nn.Module):
    """Q_i(s, a), linear in a_i: what it says of a relaxed action is the mean of what it says of options.

    A critic that bends between the options has slopes there that no data ever corrected.
    """

    def __init__(self, sizes: Sizes, hidden: int = 32) -> None:
        super().__init__()
        self.pairs = PairScorer(sizes, hidden)  # its embedding phi(o_i, a) stands for an action; no score is used
        for p in self.pairs.out.parameters():
            p.requires_grad_(False)
        own = sizes.agent + 3 * sizes.pair
        self.state = nn.Linear(own, hidden)
        self.option = nn.Linear(hidden, 64)
        self.rest = nn.Linear(own + 2 * hidden, 64)
        self.body = nn.Sequential(nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 1))

    def forward(self, slot: Slot, mine: Tensor, others: Tensor, resource_of: Tensor) -> Tensor:
        """(B, N) from one-hot actions (B, N, O): each agent's own in its Q_i, and those the others see of it."""
        b, n, _ = mine.shape
        row = torch.arange(b).repeat_interleave(n)
        agent, pair = slot["agent"].flatten(0, 1), slot["pair"].flatten(0, 1)
        phi = self.pairs.embed(agent, pair, slot["resource"], row, resource_of).unflatten(0, (b, n))
        seen = (phi * others[..., None]).sum(2) * slot["live"][..., None]
        z = (seen.sum(1, keepdim=True) - seen) / n  # what the others did
        pooled = torch.tanh(self.state(slot["own"])).mean(1, keepdim=True).expand(-1, n, -1)
        rest = self.rest(torch.cat([slot["own"], z, pooled], -1))
        q = self.body(self.option(phi) + rest[:, :, None])[..., 0]
        return (q * mine).sum(-1)


class Maddpg(OffPolicy):
    """The learner; ``policy`` is its actor as arrays, refreshed at each update."""

    name = "maddpg"
    PARTS = ("actor", "critic", "target_actor", "target_critic", "actor_optimizer", "critic_optimizer")

    def __init__(self, sizes: Sizes, config: MaddpgConfig | None = None, seed: int = 0) -> None:
        self.config = config or MaddpgConfig()
        super().__init__(self.config, seed, Replay(self.config.capacity))
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.actor = PairScorer(sizes, self.config.hidden)
            self.critic = JointCritic(sizes, self.config.hidden)
        self.engine = engine_of(self.config.engine, self.actor, passes=False)
        self.target_actor, self.target_critic = copy.deepcopy(self.actor), copy.deepcopy(self.critic)
        self.generator = torch.Generator().manual_seed(seed)
        self.actor_optimizer = torch.optim.Adam(self.actor.parameters(), self.config.rate)
        learned = [p for p in self.critic.parameters() if p.requires_grad]
        self.critic_optimizer = torch.optim.Adam(learned, self.config.rate)
        self.policy = self.export()

    def export(self) -> ArrayPolicy:
        return ArrayPolicy(self.actor.export(), self.name)

    def update(self, last: Observation, progress: float) -> dict[str, float]:
        """``updates`` gradient steps for each slot that came in since the last call."""
        c = self.config
        rate = self.set_rate(progress, {"actor_optimizer": c.actor_rate, "critic_optimizer": 1.0})
        of = torch.from_numpy(np.asarray(last.resource_of))
        names = ("policy_loss", "value_loss", "q", "norm", "entropy", "kl", "explained_variance")
        logs: dict[str, list[float]] = {k: [] for k in names}
        first: tuple[Slot, Tensor] | None = None  # a batch and what would have been executed before this update
        for _ in range(self.since * c.updates):
            drawn = self.replay.sample(self.rng, c.batch, c.gamma)
            if drawn is None:  # every kept slot ends an episode
                break
            now, then, reward, discount = drawn[:4]
            taken = nn.functional.one_hot(now["option"], now["allowed"].shape[-1]).float()
            with torch.no_grad():
                chosen = self.draw(self.log_pi(self.target_actor, then, of)[0])
                target = reward + discount * self.target_critic(then, chosen, chosen, of)
            q = self.critic(now, taken, taken, of)
            value_loss = (q - target).square().mean()
            descend(value_loss, self.critic_optimizer, self.critic, c.gradient_norm)
            log_pi, log_prior = self.log_pi(self.actor, now, of)
            if first is None:
                first = {k: v.clone() for k, v in now.items()}, log_pi.detach()  # the batch's room is used again
            gain = self.critic(now, self.draw(log_pi), taken, of)[now["live"]]
            if len(gain):
                penalty = log_prior[now["live"]].square().mean()
                policy_loss = -gain.mean() + c.regulariser * penalty
                logs["norm"].append(descend(policy_loss, self.actor_optimizer, self.actor, c.gradient_norm))
                logs["policy_loss"].append(float(policy_loss.detach()))
            follow_slowly(self.target_actor, self.actor, c.target_rate)
            follow_slowly(self.target_critic, self.critic, c.target_rate)
            note_critic(logs, value_loss, q, target)
        if first is not None:
            now, before = first
            with torch.no_grad():
                after = self.log_pi(self.actor, now, of)[0]
            logs["kl"].append(change(before, after, now["live"]))
            logs["entropy"].append(float(entropy_of(after, now["allowed"])))
        return self.finish(logs, learning_rate=rate)

    def log_pi(self, actor: PairScorer, slot: Slot, resource_of: Tensor) -> tuple[Tensor, Tensor]:
        """(B, N, O) log-density of what is executed, and the clipped log prior (0 where not allowed)."""
        b, n = slot["option"].shape
        row = torch.arange(b).repeat_interleave(n)
        raw = actor.fused(slot["agent"].flatten(0, 1), slot["pair"].flatten(0, 1), slot["resource"], row, resource_of)
        raw, allowed = raw.view(b, n, -1), slot["allowed"]
        top = raw.masked_fill(~allowed, -torch.inf).amax(-1, keepdim=True).detach()
        log_prior = (raw - top).clamp(min=-self.config.limit).masked_fill(~allowed, 0.0)
        return executed_log_density(raw, slot["bias"], allowed, self.config.limit), log_prior

    def draw(self, log_pi: Tensor) -> Tensor:
        """One-hot (B, N, O) samples, differentiable through their relaxation."""
        uniform = torch.rand(log_pi.shape, generator=self.generator).clamp(1e-10, 1 - 1e-7)
        soft = torch.softmax((log_pi - torch.log(-torch.log(uniform))) / self.config.relaxation, -1)
        hard = nn.functional.one_hot(soft.argmax(-1), soft.shape[-1]).float()
        return hard + soft - soft.detach()

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"generator": self.generator.get_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.generator.set_state(state["generator"])
