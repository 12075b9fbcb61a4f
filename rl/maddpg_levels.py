r"""MADDPG where levels are all that is decided: deterministic actors of an agent's own levels, centralised critics.

    critic   Q_i(s, x_1, ..., x_N) -> r_i + gamma Q_i'(s', x'),  x' what the target actors would have executed
    actor    max E Q_i(s, x_1, ..., mu_i(o_i), ..., x_N),  the others' x from the replay

The critic predicts in units of the targets' running mean and spread, as MAPPO's does: rewards of a large scale would
otherwise be fitted by their median alone, past the loss's quadratic part. The actor waits until the critic has learned
from the first rollouts: one that follows an untrained critic goes to an end of its range, with full steps of Adam, and
the replay then holds little else.

The proposal is N(m_i(o_i), s^2) with m learned and s fixed: it is the exploration of the papers, drawn by the
coordinator. In the hybrid what is executed of m is the mean of the tilted game (:mod:`coordinator.quadratic`),

.. math:: \mu = P^{-1} (m / s^2 + b), \qquad P = s^{-2} I + C,

with b and C the game's part, held constant, so that the gradient passes through it; alone both are zero and mu = m.
Weights are shared over agents, and a critic pools what the others did, so that any N will do.

Sources: Lowe et al. (2017), "Multi-agent actor-critic for mixed cooperative-competitive environments"; van Hasselt et
al. (2016), "Learning values across many orders of magnitude", for the units.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from rl.continuous import ContinuousHeads
from rl.learner import Drawn, Executed
from rl.networks import PairScorer, Sizes
from rl.off_policy import OffPolicy, OffPolicyConfig, follow_slowly, note_critic
from rl.on_policy import ValueNorm, descend
from rl.policy import ArrayPolicy
from rl.proposal import Observation, lens
from rl.replay import Replay, Slot
from rl.schedules import scheduled

Float = NDArray[np.float64]


@dataclass(frozen=True)
class MaddpgLevelsConfig(OffPolicyConfig):
    """Settings of MADDPG on levels.

    Attributes:
        actor_rate: the actor's learning rate, as a share of the critic's.
        continuous, ranges, alone, trust: the levels' names, least and greatest, and that nothing else is decided, as
            the trainer says; a trust is the coordinator's and is not read here.
        wait: updates in which the critic learns alone.
        spread: s at the start, in units of the range; it falls by a line to ``spread_floor`` of that.
        huber: width of the critic's loss's quadratic part, in units of the targets' spread. regulariser: weight of what
            an actor asks for beyond its range, squared.
    """

    updates: int = 8
    rate: float = 3e-3
    target_rate: float = 0.02
    actor_rate: float = 0.1
    continuous: tuple[str, ...] = ()
    ranges: tuple[tuple[float, float], ...] = ()
    alone: bool = True
    trust: float = 0.0
    wait: int = 1
    spread: float = 0.1
    spread_floor: float = 0.3
    huber: float = 1.0
    regulariser: float = 10.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.continuous or len(self.ranges) != len(self.continuous) or not self.alone:
            raise ValueError(
                f"continuous = {self.continuous}, ranges = {self.ranges}, alone = {self.alone}; MADDPG on levels needs "
                "names, a range of each, and a game that decides nothing else"
            )


class LevelCritic(nn.Module):
    """Q_i of everyone's levels, in units of their ranges about the middle."""

    def __init__(self, sizes: Sizes, levels: int, hidden: int = 64) -> None:
        super().__init__()
        own = sizes.agent + 3 * sizes.pair
        self.other = nn.Linear(own + levels, hidden)
        self.body = nn.Sequential(
            nn.Linear(own + levels + hidden + sizes.resource, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(),
            nn.Linear(hidden, 1),
        )  # fmt: skip

    def forward(self, slot: Slot, mine: Tensor, others: Tensor) -> Tensor:
        """(B, N) from levels (B, N, D): each agent's own in its Q_i, and those the others see of it."""
        n = mine.shape[1]
        seen = torch.relu(self.other(torch.cat([slot["own"], others], -1))) * slot["live"][..., None]
        rest = (seen.sum(1, keepdim=True) - seen) / n  # what the others did
        whole = slot["resource"].mean(1, keepdim=True).expand(-1, n, -1)
        q: Tensor = self.body(torch.cat([slot["own"], mine, rest, whole], -1))[..., 0]
        return q


def inside(level: Tensor) -> Tensor:
    """Levels in units of their ranges, cut off at the ends."""
    return level.clamp(-0.5, 0.5)


class MaddpgLevels(OffPolicy):
    """The learner; ``policy`` is its actor as arrays, refreshed at each update."""

    name = "maddpg"
    PARTS = ("actor", "critic", "target_actor", "target_critic", "actor_optimizer", "critic_optimizer")

    def __init__(self, sizes: Sizes, config: MaddpgLevelsConfig, seed: int = 0) -> None:
        self.config = c = config
        super().__init__(c, seed, Replay(c.capacity))
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            scorer = PairScorer(sizes, c.hidden)  # a file of a policy has one; nothing is scored
            self.actor = ContinuousHeads(sizes, c.continuous, c.ranges, "clipped", c.spread, c.hidden)
            self.critic = LevelCritic(sizes, len(c.continuous))
        scorer.add_module("continuous", self.actor)
        self.scorer = scorer
        self.target_actor, self.target_critic = copy.deepcopy(self.actor), copy.deepcopy(self.critic)
        learned = [p for p in self.actor.parameters() if p.requires_grad]
        self.actor_optimizer = torch.optim.Adam(learned, c.rate)
        self.critic_optimizer = torch.optim.Adam(self.critic.parameters(), c.rate)
        self.norm = ValueNorm()
        self.policy = self.export()

    def export(self) -> ArrayPolicy:
        alone = {"continuous.alone": np.array(True)}
        return ArrayPolicy({**self.scorer.export(), **self.actor.arrays(), **alone}, self.name)

    def record(self, done: Executed) -> None:
        """One executed decision of E networks; see :meth:`rl.learner.Learner.record`."""
        if done.blended is None:
            raise ValueError("maddpg on levels must be told what was drawn: Executed(..., blended={'drawn': ..., ...})")
        told = cast(Drawn, done.blended)
        flat = told["curvature"].reshape(*told["drawn"].shape[:2], -1)
        kept = np.concatenate([told["drawn"], told["linear"], flat], -1)  # in the place of the options' bias
        super().record(done._replace(observation=lens(done.observation), bias=kept))

    def update(self, last: Observation, progress: float) -> dict[str, float]:
        """``updates`` gradient steps for each slot that came in since the last call."""
        c = self.config
        rate = self.set_rate(progress, {"actor_optimizer": c.actor_rate, "critic_optimizer": 1.0})
        spread = scheduled(c.spread, c.spread * c.spread_floor, progress, "linear")
        for actor in (self.actor, self.target_actor):
            actor.get_buffer("start").fill_(spread)
        of = torch.from_numpy(np.asarray(lens(last).resource_of))
        logs: dict[str, list[float]] = {
            k: [] for k in ("policy_loss", "value_loss", "q", "norm", "kl", "explained_variance")
        }
        first: tuple[Slot, Tensor] | None = None  # a batch and what would have been executed before this update
        for _ in range(self.since * c.updates):
            drawn = self.replay.sample(self.rng, c.batch, c.gamma)
            if drawn is None:  # every kept slot ends an episode
                break
            now, then, reward, discount = drawn[:4]
            taken = inside(self.units(now["bias"][..., : len(c.continuous)].double()))
            with torch.no_grad():
                follows = inside(self.executed(self.target_actor, then, of))
                ahead = self.norm.centre + self.norm.spread * self.target_critic(then, follows, follows)
                target = reward + discount * ahead
                if now["live"].any():
                    self.norm.update(target[now["live"]].numpy())
                target = ((target - self.norm.centre) / self.norm.spread).float()
            q = self.critic(now, taken, taken)
            value_loss = nn.functional.huber_loss(q[now["live"]], target[now["live"]], delta=c.huber)
            if now["live"].any():
                descend(value_loss, self.critic_optimizer, self.critic, c.gradient_norm)
            follow_slowly(self.target_critic, self.critic, c.target_rate)
            note_critic(logs, value_loss, q, target)
            if self.updates < c.wait:
                continue
            mine = self.executed(self.actor, now, of)
            if first is None:
                first = {k: v.clone() for k, v in now.items()}, mine.detach()  # the batch's room is used again
            # as if nothing were cut off: who asks for too much is called back where less is better
            gain = self.critic(now, mine + (inside(mine) - mine).detach(), taken)[now["live"]]
            if len(gain):
                beyond = (mine.abs() - 0.5).clamp(min=0.0)[now["live"]]  # where nothing changes but the critic's guess
                policy_loss = -gain.mean() + c.regulariser * beyond.square().sum(-1).mean()
                logs["norm"].append(descend(policy_loss, self.actor_optimizer, self.actor, c.gradient_norm))
                logs["policy_loss"].append(float(policy_loss.detach()))
            follow_slowly(self.target_actor, self.actor, c.target_rate)
        logs["kl"].append(0.0)
        if first is not None:
            now, before = first
            with torch.no_grad():
                moved = (self.executed(self.actor, now, of) - before)[now["live"]]
            # of two Gaussians of the spread that is explored with
            logs["kl"][0] = float((moved / spread).square().sum(-1).mean() / 2) if len(moved) else 0.0
        return self.finish(logs, learning_rate=rate)

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"norm": self.norm.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.norm.load_state_dict(state["norm"])

    def executed(self, actor: ContinuousHeads, slot: Slot, resource_of: Tensor) -> Tensor:
        """(B, N, D) what is executed of the actor's mean, in units of the range; see the module."""
        raw = actor(slot["agent"], slot["pair"], slot["resource"], slot["option"], resource_of).double()
        low, high, d = actor.get_buffer("low"), actor.get_buffer("high"), raw.shape[2]
        _, linear, curvature = slot["bias"].double().split([d, d, d * d], -1)
        mean, own = low + (high - low) * (0.5 + raw[..., 0]), ((high - low) * actor.first).square().reciprocal()
        whole = curvature.unflatten(-1, (d, d)) + torch.diag_embed(own.expand_as(mean))
        level = torch.linalg.solve(whole, (own * mean + linear)[..., None])[..., 0]
        return self.units(level)

    def units(self, level: Tensor) -> Tensor:
        """Levels about the middle of their ranges, -1/2 to 1/2 inside."""
        low, high = self.actor.get_buffer("low"), self.actor.get_buffer("high")
        return ((level - low) / (high - low) - 0.5).float()
