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

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from rl.descent import set_gradients
from rl.elsewhere import Twins, sent
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
    executed,
    explained_variance,
    head_entropies,
    scaled,
    step,
)
from rl.recall import Lesson, again, join

CRITICS, BASELINES = ("central", "light", "own"), ("value", "leave_one_out")


@dataclass(frozen=True)
class MappoConfig(OnPolicyConfig):
    """Settings of MAPPO.

    Attributes:
        critic: "central" (MAPPO), "light" (the same, smaller and compiled: :mod:`rl.light`) or "own" (IPPO).
        clip: of the probability ratio. value_clip: of the value, in units of the returns' spread.
        epochs, minibatches: passes over a rollout and its parts.
        huber: width of the value loss's quadratic part, in units of the returns' spread.
        critic_gain: times what the critic's last layer is at the start. With 0 it says the same of every state until it
            has learned; otherwise what it happens to say is of the order of the returns' spread, and where a decision
            changes little beside that, the first advantages are of it alone.
        replay: rollouts of recent policies that are learned from again beside the present one (:mod:`rl.recall`).
        truncation: of the importance weights of what an older policy did.
        baseline: what is taken from the return: "value" or "leave_one_out". ``credit="counterfactual"`` is the
            team's pay with the latter.
        device: where torch computes an update's gradients: "cpu" (this program's), or another of torch's, such as
            "cuda" (:mod:`rl.elsewhere`).
    """

    credits: ClassVar[tuple[str, ...]] = (*OnPolicyConfig.credits, "counterfactual")
    critic: str = "central"
    baseline: str = "value"
    clip: float = 0.2
    value_clip: float = 0.2
    epochs: int = 4
    minibatches: int = 4
    huber: float = 10.0
    critic_gain: float = 1.0
    truncation: float = 1.0
    replay: int = 0
    device: str = "cpu"

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
        if self.device != "cpu" and self.engine == "compiled":
            raise ValueError(
                f"device = {self.device!r} with engine = 'compiled', which computes here; set engine = 'torch' or "
                "'auto'"
            )
        if self.device != "cpu" and self.leave_one_out:
            raise ValueError(
                f"device = {self.device!r} with a leave-one-out baseline, which is learned here; set device = 'cpu' or "
                "baseline = 'value'"
            )

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


class Study(NamedTuple):
    """A rollout, and what is learned of it: advantage, values as they were and as they should be, (B, N) normalised."""

    batch: Batch
    advantage: Tensor
    held: Tensor
    target: Tensor

    def on(self, device: torch.device) -> Study:
        """The same on another device."""
        t = lambda x: x.to(device)
        return Study(sent(self.batch, device), t(self.advantage), t(self.held), t(self.target))


class Mappo(OnPolicy):
    """The learner; ``policy`` is its actor as arrays, refreshed at each update."""

    name = "mappo"
    config: MappoConfig

    def __init__(self, sizes: Sizes, config: MappoConfig | None = None, seed: int = 0) -> None:
        self.config = config or MappoConfig()
        critics = {"central": Critic, "light": LightCritic, "own": OwnCritic}
        super().__init__(sizes, self.config, seed, critics[self.config.critic])
        with torch.no_grad():
            last: Any = self.critic.body[-1] if isinstance(self.critic, OwnCritic) else self.critic.out
            last.weight.mul_(self.config.critic_gain)
        self.twins: Twins | None = None
        if self.config.device != "cpu":
            self.engine, self.twins = "torch", Twins(self.actor, self.critic, self.config.device)
            self.overlaps = False  # a device that was begun with is not had by a process forked off
        self.past: list[Batch] = []
        self.keeps = self.config.replay > 0
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
        logs: dict[str, list[float]] = {}
        study = Study(batch, a, held, target)
        if self.twins is not None:
            study = study.on(self.twins.device)
        for _ in range(c.epochs):
            for part in self.parts(batch):
                figures: dict[str, float] = {}
                if batch.live[part].any():
                    figures = self.act(study, part) | {"norm": step(self.actor_optimizer, self.actor, c.gradient_norm)}
                figures["value_loss"] = self.judge(study, part)
                figures["critic_norm"] = step(self.critic_optimizer, self.critic, c.gradient_norm)
                for name, figure in figures.items():
                    logs.setdefault(name, []).append(figure)
                self.fit_baseline(batch, part, target[part])
        logs |= {k: [0.0] for k in ("policy_loss", "entropy", "kl", "clipped", "norm") if k not in logs}
        return self.finish(logs, explained_variance=explained_variance(returns, value), learning_rate=rate)

    def act(self, study: Study, part: Tensor) -> dict[str, float]:
        """Set the actor's gradients of the clipped loss on rows ``part``; say how it stands."""
        c = self.config
        if self.engine == "compiled":
            return set_gradients(self.actor, study.batch, part, study.advantage, c.limit, c.clip, c.entropy)
        if self.twins is None:
            self.actor_optimizer.zero_grad()
            loss, figures = clipped_loss(self.taken(study.batch, part), study, part, c.clip, c.entropy)
            loss.backward()
        else:
            twin, part = self.twins.actor, part.to(self.twins.device)
            twin.fetch()
            loss, figures = clipped_loss(taken(twin.there, study.batch, part, c.limit), study, part, c.clip, c.entropy)
            twin.descend(loss)
        return {name: float(x) for name, x in figures.items()}

    def judge(self, study: Study, part: Tensor) -> float:
        """Set the critic's gradients of the clipped value loss on rows ``part``; the loss."""
        c, (batch, _, held, target) = self.config, study
        if isinstance(self.critic, LightCritic) and self.twins is None:
            n = lambda x: x.numpy()
            return self.critic.learn(
                n(batch.own), n(batch.resource), n(part), n(held), n(target), c.value_clip, c.huber
            )  # fmt: skip
        if self.twins is None:
            self.critic_optimizer.zero_grad()
            predicted = self.critic(batch.own[part], batch.resource[part])
            loss = clipped_value_loss(predicted, held[part], target[part], c.value_clip, c.huber)
            loss.backward()
        else:
            twin, part = self.twins.critic, part.to(self.twins.device)
            twin.fetch()
            predicted = twin.there(batch.own[part], batch.resource[part])
            loss = clipped_value_loss(predicted, held[part], target[part], c.value_clip, c.huber)
            twin.descend(loss)
        return float(loss.detach())

    def lesson(self, batch: Batch) -> Lesson:
        """The rollout, its lambda-returns and values; recent policies' after it."""
        fresh = again(self, batch, self.config.truncation) if self.lags else self.fresh(batch)
        if not self.config.replay:
            return fresh
        older = [again(self, b, self.config.truncation) for b in self.past]
        self.past = [*self.past, batch][-self.config.replay :]
        return join([fresh, *older])

    def fresh(self, batch: Batch) -> Lesson:
        """The lesson of a rollout of the present policy."""
        _, returns, value = self.advantages(batch)
        return Lesson(batch, returns, returns, value)

    def parts(self, batch: Batch) -> Sequence[Tensor]:
        """One epoch's minibatches, as rows of the batch."""
        order = torch.randperm(len(batch.option), generator=self.generator)
        return order.chunk(self.config.minibatches)

    def taken(self, batch: Batch, part: Tensor) -> Taken:
        return taken(self.actor.fused, batch, part, self.config.limit)

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
        more: dict[str, Any] = {"past": [b._asdict() | {"more": dict(b.more)} for b in self.past]}
        if self.without is not None:
            more |= {"without": self.without.state_dict(), "without_optimizer": self.without_optimizer.state_dict()}
        return super().state_dict() | more

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.past = [Batch(**b) for b in state.get("past", [])]  # older ones of MAPPO have none
        if self.without is not None:
            self.without.load_state_dict(state["without"])
            self.without_optimizer.load_state_dict(state["without_optimizer"])


class Ippo(Mappo):
    """MAPPO's code with a decentralised critic: nothing of another agent is read, in training or execution."""

    name = "ippo"

    def __init__(self, sizes: Sizes, config: IppoConfig | None = None, seed: int = 0) -> None:
        super().__init__(sizes, config or IppoConfig(), seed)


def taken(score: Callable[..., Tensor], batch: Batch, part: Tensor, limit: float) -> Taken:
    """What the live agents of rows ``part`` did, under ``score``."""
    log_pi, mask, row, agent = executed(score, batch, part, limit)
    chosen = log_pi.gather(1, batch.option[part[row], agent][:, None])[:, 0]
    with torch.no_grad():
        heads = head_entropies(log_pi, mask, batch.resource_of)
    return Taken(chosen, entropy_of(log_pi, mask), row, agent, heads)


def clipped_loss(
    taken: Taken, study: Study, part: Tensor, clip: float, entropy: float
) -> tuple[Tensor, dict[str, Tensor | float]]:
    """The clipped loss of what was taken in rows ``part``, and figures of it."""
    at, agent = part[taken.row], taken.agent
    a = study.advantage[at, agent]
    log_ratio = taken.log_density - study.batch.old[at, agent]
    ratio = log_ratio.exp()
    gain = torch.min(ratio * a, ratio.clamp(1 - clip, 1 + clip) * a).mean()
    with torch.no_grad():
        figures: dict[str, Tensor | float] = {
            "policy_loss": -gain.detach(), "entropy": taken.entropy.detach(), "kl": (ratio - 1 - log_ratio).mean(),
            "clipped": ((ratio - 1).abs() > clip).float().mean(), **taken.figures,
        }  # fmt: skip
    return -gain - entropy * taken.entropy, figures


def clipped_value_loss(predicted: Tensor, held: Tensor, target: Tensor, clip: float, huber: float) -> Tensor:
    """The larger of the Huber losses of the prediction and of the prediction kept near the one held."""
    near = held + (predicted - held).clamp(-clip, clip)
    loss = lambda x: nn.functional.huber_loss(x, target, reduction="none", delta=huber)
    return torch.max(loss(predicted), loss(near)).mean()
