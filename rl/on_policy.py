r"""What the on-policy learners share: a rollout of what was executed, generalised advantages, one descent step.

In the hybrid the executed strategy is pi(o | i) proportional to exp(clipped log prior + bias), with the game's
part bias = -trust cost held constant; densities, ratios and entropies are those of pi. Alone, the bias is zero.

Sources: Schulman et al. (2016), "High-dimensional continuous control using generalized advantage estimation";
Pardo et al. (2018), "Time limits in reinforcement learning", for the bootstrap at a truncation; van Hasselt et
al. (2016), "Learning values across many orders of magnitude", and Yu et al. (2022) for value normalisation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from rl.batch import TIMED, joined
from rl.batch import Batch as Batch  # read from here too
from rl.descent import engine_of, log_densities
from rl.elapsed import discounts, durations, ends, parted
from rl.information import NETWORKS, make_network
from rl.learner import Executed, Learner
from rl.light import LightCritic
from rl.networks import PairScorer, Sizes
from rl.policy import ArrayPolicy
from rl.proposal import Observation, Proposal, own_features, summary
from rl.schedules import scheduled
from rl.settings import check_numbers

Float = NDArray[np.float64]
CREDITS = ("team", "own", "difference")  # that every learner has
Following = tuple[NDArray[Any], NDArray[Any], NDArray[Any]]  # see OnPolicy.following


@dataclass(frozen=True)
class OnPolicyConfig:
    """Settings that every on-policy learner has.

    Attributes:
        horizon: slots a rollout: decisions, be they equally long or not.
        gamma, gae: discount a unit of time and lambda of the advantage, which counts decisions (:mod:`rl.elapsed`).
        rate: learning rate at the start; by ``schedule`` ("constant", "linear", "cosine") it falls to ``rate_floor``
            of it.
        entropy: weight of the executed strategy's entropy.
        gradient_norm: gradients are scaled down to this norm.
        network: what the actor reads of the agents: "pair" (its own alone), "pooled" (all) or "graph" (those it
            shares a resource with); see :mod:`rl.information`. hidden: width of the networks.
        limit: log-priors are clipped to [-limit, 0]: the coordinator's epsilon bound is limit / trust.
        gain: of the actor's last layer at the start. 0 is a flat prior, with which the hybrid is exactly the game;
            the usual .01 (Huang et al. 2022) is nearly flat, and the hybrid starts a little beside the game.
        credit: what an agent is paid: "team" (mean of all agents' outcomes), "region" (mean of those whose option
            stands for the same resource as its own, itself included; its own outcome where it uses none), "own" or
            "difference" (its own less what the others lose because of it). The trainer reads it.
        carry: weight of what others lose in later slots through an agent ("difference" alone).
        engine: what computes the actor's gradients: "compiled" (:mod:`rl.descent`, of the plain pair scorer alone),
            "torch", or "auto", the first that can.
    """

    credits: ClassVar[tuple[str, ...]] = ("team", "region", "own", "difference")

    horizon: int = 32
    gamma: float = 0.9
    gae: float = 0.9
    rate: float = 3e-3
    rate_floor: float = 0.1
    schedule: str = "linear"
    entropy: float = 2e-3
    gradient_norm: float = 0.5
    network: str = "pair"
    hidden: int = 32
    limit: float = 10.0
    gain: float = 0.0
    credit: str = "team"
    carry: float = 1.0
    engine: str = "auto"

    def __post_init__(self) -> None:
        check_numbers(self)
        if self.network not in NETWORKS:
            raise ValueError(f"network = {self.network!r}; it must be one of {', '.join(NETWORKS)}")
        if self.credit == "counterfactual" and self.credit not in self.credits:
            learner = type(self).__name__.removesuffix("Config").lower()
            raise ValueError(
                f"credit = 'counterfactual' needs a leave-one-out critic, which {learner} lacks; "
                "imappo, mappo and counterfactual have one"
            )
        if self.credit not in self.credits:
            raise ValueError(f"credit = {self.credit!r}; it must be one of {', '.join(self.credits)}")
        scheduled(1.0, 0.0, 0.0, self.schedule)


class ValueNorm:
    """Running mean and spread of the returns: a debiased exponential average; the critic predicts normalised."""

    def __init__(self, keep: float = 0.99999) -> None:
        self.keep, self.weight, self.mean, self.square = keep, 0.0, 0.0, 0.0

    def update(self, returns: NDArray[Any]) -> None:
        for name, value in (("weight", 1.0), ("mean", returns.mean()), ("square", np.square(returns).mean())):
            setattr(self, name, self.keep * getattr(self, name) + (1 - self.keep) * float(value))

    @property
    def centre(self) -> float:
        return self.mean / self.weight if self.weight else 0.0

    @property
    def spread(self) -> float:
        return max(self.square / self.weight - self.centre**2, 1e-4) ** 0.5 if self.weight else 1.0

    def state_dict(self) -> dict[str, float]:
        return {"weight": self.weight, "mean": self.mean, "square": self.square}

    def load_state_dict(self, state: dict[str, float]) -> None:
        self.weight, self.mean, self.square = state["weight"], state["mean"], state["square"]


class OnPolicy(Learner):
    """Records what was executed and keeps actor, critic, optimizers; a learner adds ``update``.

    ``critic(own, resource)`` gives (B, N) values in normalised units. ``lags`` says that who acts is an update
    behind who learns, so that a rollout is an older policy's from the start; who overlaps them sets it.

    With the difference reward an agent is charged up to H slots later for what it leaves behind. The charge belongs
    to the choice that caused it, so a rollout's last H slots are held back and learned from with the next one, when
    all of their charges are in: each is learned from once, with its own executed density. (Charging the slot in which
    it falls due instead would blame choices that had no part in it, and the critic cannot see whose backlog it is.)
    """

    name = "on-policy"
    wants_cost = False
    passes = True  # its loss has a compiled pass
    overlaps = True  # nothing that is learned is read while a rollout is collected, but for the exported policy
    keeps = False  # rollouts, beyond the update that learns from them

    def __init__(
        self,
        sizes: Sizes,
        config: OnPolicyConfig,
        seed: int,
        critic: Callable[[Sizes, int], nn.Module],
        optimizer: Callable[..., torch.optim.Optimizer] = torch.optim.Adam,
    ) -> None:
        self.settings = config
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.actor = self.make_actor(sizes)
            self.critic = critic(sizes, config.hidden)
        self.engine = engine_of(config.engine, self.actor, self.passes)
        self.generator = torch.Generator().manual_seed(seed)
        self.actor_optimizer = optimizer(self.actor.parameters(), config.rate, eps=1e-5)
        self.critic_optimizer = optimizer(self.critic.parameters(), config.rate, eps=1e-5)
        self.norm = ValueNorm()
        self.slots: list[dict[str, Any]] = []
        self.held = self.late = 0  # slots kept from the last rollout; slots until all charges are in
        self.updates = 0
        self.lags = False
        self.policy = self.export()

    def make_actor(self, sizes: Sizes) -> PairScorer:
        return make_network(self.settings.network, sizes, self.settings.hidden, self.settings.gain)

    @property
    def credit(self) -> str:
        return self.settings.credit

    def propose(self, observation: Observation) -> Proposal:
        return self.policy.propose(observation)

    def sample_continuous(
        self, observation: Observation, option: NDArray[np.int64], rng: np.random.Generator
    ) -> Proposal | None:
        return None

    def record(self, done: Executed) -> None:
        """One executed decision of E networks; see :meth:`rl.learner.Learner.record`."""
        c, option, observation, final = self.settings, done.option, done.observation, done.final
        lasted, ended = durations(done.elapsed, len(option)), ends(done.terminated, len(option))
        logits = np.where(observation.allowed, done.log_prior + done.bias, -np.inf)
        top = logits.max(axis=-1, keepdims=True)
        norm = top[..., 0] + np.log(np.exp(logits - top).sum(axis=-1))
        seen = self.seen(observation)
        self.slots.append({
            "agent": seen.agent, "pair": seen.pair, "resource": seen.resource,
            "option": np.array(option), "allowed": seen.allowed, "live": seen.live,
            "bias": np.where(observation.allowed, done.bias, 0.0).astype(np.float32),
            "old": (np.take_along_axis(logits, option[..., None], -1)[..., 0] - norm).astype(np.float32),
            "reward": paid(done.reward, c.credit, option, observation), "elapsed": lasted,
            "cut": done.truncated | ended,
            "ended": parted(ended, done.left, option.shape[1], c.credit in ("own", "difference")),
        } | self.remember(observation))  # fmt: skip
        self.slots[-1]["after"] = np.zeros(done.reward.shape)
        if final is not None and done.truncated.any():
            self.slots[-1]["final"] = own_features(self.seen(final)), final.resource  # valued when it is learned from
        if c.credit == "difference" and c.carry:
            self.late = done.carried.shape[-1]
            since = np.zeros(len(option))
            for h in range(min(self.late, len(self.slots) - 1)):
                earlier = self.slots[-2 - h]
                since = since + earlier["elapsed"]
                earlier["reward"] += (c.carry * discounts(c.gamma, since))[:, None] * done.carried[..., h]

    def seen(self, observation: Observation) -> Observation:
        """What the networks read of an observation."""
        return observation

    def remember(self, observation: Observation) -> dict[str, Any]:
        """More to keep of a slot, (E, ...) by name; it comes back in ``Batch.more``."""
        return {}

    def ready(self, final: bool = False) -> bool:
        return self.full(1 if final else self.settings.horizon)

    def full(self, horizon: int) -> bool:
        """``horizon`` slots are new, and some have all of their charges."""
        return len(self.slots) - self.held >= horizon and len(self.slots) > self.late

    def update(self, last: Observation, progress: float) -> dict[str, float]:
        """See :meth:`rl.learner.Learner.update`."""
        figures = self.learn(self.batch(last), progress)
        self.policy = self.export()
        return figures

    def learn(self, batch: Batch, progress: float) -> dict[str, float]:
        """Learn from a rollout, and say how it went; ``policy`` stays what it was.

        Args:
            progress: of the whole training, in [0, 1]; it sets the rate.

        Raises:
            FloatingPointError: a gradient is not finite; the weights are left as they were.
        """
        raise NotImplementedError(f"{type(self).__name__}.learn(batch, progress) -> figures")

    def values(self, own: NDArray[Any], resource: NDArray[Any]) -> Float:
        """(B, N) the critic's values in units of reward."""
        if isinstance(self.critic, LightCritic):
            value = self.critic.values(own, resource)
        else:
            with torch.no_grad():
                value = self.critic(torch.from_numpy(own), torch.from_numpy(resource)).numpy()
        return np.asarray(self.norm.centre + self.norm.spread * value, np.float64)

    def take(self) -> list[dict[str, Any]]:
        """The slots of the rollout; those that may yet be charged stay."""
        ends = len(self.slots) - self.late
        slots, self.slots = self.slots[:ends], self.slots[ends:]
        self.held = len(self.slots)
        return slots

    def batch(self, last: Observation) -> Batch:
        """The rollout as tensors, and what came after it."""
        slots = self.take()
        return self.batch_of(joined(slots), self.following(last))

    def following(self, last: Observation) -> Following:
        """Own and resource features of what came after the rollout, ``last`` where no slot is held back; each
        option's resource."""
        if self.slots:
            held = self.slots[0]
            return summary(held["agent"], held["pair"]), held["resource"], np.asarray(last.resource_of)
        return own_features(self.seen(last)), last.resource, np.asarray(last.resource_of)

    def batch_of(self, slots: Mapping[str, NDArray[Any]], following: Following) -> Batch:
        """Slots (:func:`rl.batch.joined`) as tensors, which share their memory, and what came after them."""
        next_own, next_resource, resource_of = following
        timed: dict[str, Any] = {k: slots[k] for k in TIMED}
        timed["after"] = timed["after"].copy()
        for k, t in enumerate(slots["final_at"]):
            timed["after"][t] = self.values(slots["final_own"][k], slots["final_resource"][k])
        passed = discounts(self.settings.gamma, timed.pop("elapsed"))
        timed["discount"] = np.where(timed["ended"], 0.0, passed[..., None])
        left = {k: v for k, v in slots.items() if k not in TIMED and not k.startswith("final_")}
        flat: dict[str, Any] = {k: torch.from_numpy(v) for k, v in left.items()}
        flat["own"] = torch.from_numpy(summary(left["agent"], left["pair"]))
        more = {k: flat.pop(k) for k in list(flat) if k not in Batch._fields}
        return Batch(
            **flat, **timed, resource_of=torch.from_numpy(resource_of), next_own=next_own,
            next_resource=next_resource, more=more,
        )  # fmt: skip

    def advantages(self, batch: Batch, weight: Float | None = None) -> tuple[Float, Float, Float]:
        """(T, E, N) generalised advantages, lambda-returns and values."""
        value = self.values(batch.own.numpy(), batch.resource.numpy()).reshape(batch.reward.shape)
        following = self.values(batch.next_own, batch.next_resource)
        c = self.settings
        advantage = generalised_advantage(
            batch.reward, value, following, batch.cut, batch.after, batch.discount, c.gae, weight
        )
        return advantage, value + (advantage if weight is None else weight * advantage), value

    def log_pi(self, batch: Batch, part: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Executed log-densities (M, O) of the M live agents in rows ``part``; also mask, row in part, agent."""
        return executed(self.actor.fused, batch, part, self.settings.limit)

    def densities(self, batch: Batch) -> Tensor:
        """(B, N) log-densities of what was executed, under the present weights; of who is not live, those recorded."""
        now, every = batch.old.clone(), torch.arange(len(batch.old))
        if self.engine == "compiled":
            found, row, agent = log_densities(self.actor, batch, every, self.settings.limit)
            now[row, agent] = torch.from_numpy(found)
        else:
            with torch.no_grad():
                log_pi, _, at, who = self.log_pi(batch, every)
            now[at, who] = log_pi.gather(1, batch.option[at, who][:, None])[:, 0]
        return now

    def kl(self, batch: Batch, part: Tensor) -> float:
        """Approximate KL, E[r - 1 - log r], of what would be executed now from what was in rows ``part``."""
        if self.engine == "compiled":
            now, row, agent = log_densities(self.actor, batch, part, self.settings.limit)
            x = now - batch.old.numpy()[part.numpy()[row], agent]
            return float((np.exp(x) - 1 - x).mean())
        with torch.no_grad():
            log_pi, _, row, agent = self.log_pi(batch, part)
            at = part[row]
            x = log_pi.gather(1, batch.option[at, agent][:, None])[:, 0] - batch.old[at, agent]
            return float((x.exp() - 1 - x).mean())

    def set_rate(self, progress: float) -> float:
        c = self.settings
        rate = scheduled(c.rate, c.rate * c.rate_floor, progress, c.schedule)
        for optimizer in (self.actor_optimizer, self.critic_optimizer):
            for group in optimizer.param_groups:
                group["lr"] = rate
        return rate

    def finish(self, logs: dict[str, list[float]], **figures: float) -> dict[str, float]:
        """After an update: count it, and average the figures of its steps."""
        self.updates += 1
        return {k: float(np.mean(v)) for k, v in logs.items() if v} | figures

    def state_dict(self) -> dict[str, Any]:
        """Networks, optimizers and random state; resumed between updates, training goes on as if uninterrupted."""
        return {
            "actor": self.actor.state_dict(), "critic": self.critic.state_dict(), "norm": self.norm.state_dict(),
            "actor_optimizer": self.actor_optimizer.state_dict(),
            "critic_optimizer": self.critic_optimizer.state_dict(),
            "generator": self.generator.get_state(), "updates": self.updates,
            "slots": [dict(s) for s in self.slots], "held": self.held, "late": self.late,
            "acting": {k: v for k, v in self.policy.weights.items() if v.dtype.kind == "f"},
        }  # fmt: skip

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name in ("actor", "critic", "norm", "actor_optimizer", "critic_optimizer"):
            getattr(self, name).load_state_dict(state[name])
        self.generator.set_state(state["generator"])
        self.updates, self.held, self.late = state["updates"], state["held"], state["late"]
        self.slots = [copied(s) for s in state["slots"]]
        self.policy = self.export()
        if "acting" in state:  # an older one, where a rollout is collected while the last is learned from
            acting = {k: v.copy() for k, v in state["acting"].items()}
            self.policy = ArrayPolicy(dict(self.policy.weights) | acting, self.name)

    def export(self) -> ArrayPolicy:
        """The actor as arrays."""
        return ArrayPolicy(self.actor.export(), self.name)


def copied(slot: Mapping[str, Any]) -> dict[str, Any]:
    """A recorded slot that shares no array with the one given; own features, which older ones hold, are found again."""
    kept = {k: v for k, v in slot.items() if k != "own"}
    if kept["ended"].ndim == 1:  # older ones say it of whole episodes
        kept["ended"] = parted(kept["ended"], None, kept["option"].shape[1])
    return {k: tuple(x.copy() for x in v) if isinstance(v, tuple | list) else v.copy() for k, v in kept.items()}


def paid(reward: Float, credit: str, option: NDArray[np.int64], observation: Observation) -> Float:
    """(E, N) what each agent is paid, from its own outcome; see :class:`OnPolicyConfig`."""
    reward = np.array(reward, np.float64)
    if credit in ("team", "counterfactual"):
        reward[:] = reward.mean(axis=1, keepdims=True)
    elif credit == "region":
        used = np.where(observation.live, np.asarray(observation.resource_of)[option], -1)
        same = (used[:, :, None] == used[:, None, :]) & (used[:, :, None] >= 0)
        same |= np.eye(option.shape[1], dtype=bool)
        reward = (same * reward[:, None, :]).sum(axis=2) / same.sum(axis=2)
    return reward


def generalised_advantage(
    reward: Float, value: Float, following: Float, cut: NDArray[np.bool_], after: Float, discount: float | Float,
    lam: float, weight: Float | None = None,
) -> Float:  # fmt: skip
    r"""A_t = delta_t + d_t lam w_{t+1} A_{t+1},  delta_t = r_t + d_t V(s_{t+1}) - V(s_t), within an episode.

    Args:
        discount: (T, E), (T, E, N) or one for all, d_t = gamma^elapsed, 0 past an end; lam counts decisions, see
            :mod:`rl.elapsed`.
        reward, value: (T, E, N). following: (E, N) value of what came after the last slot. cut: (T, E) the
            episode ended after the slot. after: (T, E, N) value of what came next there.
        weight: (T, E, N) truncated importance weights of what another policy executed; None is 1, the slot's own.
    """
    advantage = np.zeros(reward.shape)
    running = np.zeros(reward.shape[1:])
    d = by_agent(discount, cut.shape)
    for k in range(len(reward) - 1, -1, -1):
        ended = cut[k][:, None]
        ahead = np.where(ended, after[k], following if k == len(reward) - 1 else value[k + 1])
        delta = reward[k] + d[k] * ahead - value[k]
        advantage[k] = delta + d[k] * lam * np.where(ended, 0.0, running)
        running = advantage[k] if weight is None else weight[k] * advantage[k]
    return advantage


def by_agent(discount: float | Float, shape: tuple[int, ...]) -> Float:
    """(T, E, N) or (T, E, 1) from one discount for all, (T, E) = ``shape``, or (T, E, N)."""
    d = np.asarray(discount, np.float64)
    return d if d.ndim == 3 else np.broadcast_to(d, shape)[..., None]


def executed(
    score: Callable[..., Tensor], batch: Batch, part: Tensor, limit: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Log-densities (M, O) under ``score`` of the M live agents in rows ``part``; also mask, row in part, agent."""
    row, agent = torch.nonzero(batch.live[part], as_tuple=True)
    at = part[row]
    mask = batch.allowed[at, agent]
    raw = score(batch.agent[at, agent], batch.pair[at, agent], batch.resource[part], row, batch.resource_of, mask)
    return executed_log_density(raw, batch.bias[at, agent], mask, limit), mask, row, agent


def executed_log_density(raw: Tensor, bias: Tensor, allowed: Tensor, limit: float) -> Tensor:
    """(..., O) log-density of what is executed: the clipped log prior plus the game's part, normalised."""
    z = raw.masked_fill(~allowed, -torch.inf)
    z = (z - z.max(dim=-1, keepdim=True).values.detach()).clamp(min=-limit)
    return torch.log_softmax((z + bias).masked_fill(~allowed, -torch.inf), dim=-1)


def entropy_of(log_pi: Tensor, mask: Tensor) -> Tensor:
    """Mean entropy of (M, O) log-densities."""
    return -(log_pi.exp() * log_pi.masked_fill(~mask, 0.0)).sum(-1).mean()


def head_entropies(log_pi: Tensor, mask: Tensor, resource_of: Tensor) -> dict[str, float]:
    """Mean entropy of the mode (no resource, or any) and of the resource given one is used, of (M, O) densities.

    log pi(option) = log pi(mode) + log pi(server, channel | mode), so H = H(mode) + pi(away) H(server | away), with
    one option that uses no resource. Agents that reach no resource have no second head and are left out of its mean.
    """
    away = mask & (resource_of >= 0)
    able = away.any(-1)
    if not able.any() or away[able].equal(mask[able]):
        return {}
    log_pi, away, mask = log_pi[able], away[able], mask[able]
    part = lambda which: torch.logsumexp(log_pi.masked_fill(~which, -torch.inf), -1)
    log_away, log_home = part(away), part(mask & ~away)
    mode = -(log_away.exp() * log_away + log_home.exp() * log_home.clamp(min=-1e4))
    given = (log_pi - log_away[:, None]).masked_fill(~away, 0.0)
    server = -(given.exp() * given * away).sum(-1)
    return {"entropy_mode": float(mode.detach().mean()), "entropy_server": float(server.detach().mean())}


def scaled(advantage: Float, live: Tensor) -> Tensor:
    """(B, N) advantages, centred and scaled over all live agents of the rollout."""
    flat = torch.from_numpy(advantage.reshape(-1, advantage.shape[-1]))
    if not live.any():
        return flat.float()
    seen = flat[live]
    return ((flat - seen.mean()) / (seen.std(correction=0) + 1e-6)).float()


def descend(loss: Tensor, optimizer: torch.optim.Optimizer, module: nn.Module, limit: float) -> float:
    """One step down ``loss``, its gradient clipped to norm ``limit``; returns the norm before.

    Raises:
        FloatingPointError: the gradient is not finite; the weights are left as they were.
    """
    optimizer.zero_grad()
    loss.backward()
    return step(optimizer, module, limit)


def step(optimizer: torch.optim.Optimizer, module: nn.Module, limit: float) -> float:
    """One step along the gradients that ``module`` has, clipped to norm ``limit``; returns the norm before.

    Raises:
        FloatingPointError: a gradient is not finite; the weights are left as they were.
    """
    norm = float(nn.utils.clip_grad_norm_(module.parameters(), limit))
    if not np.isfinite(norm):
        raise FloatingPointError("a gradient is not finite; the weights are as they were before this step")
    optimizer.step()
    return norm


def explained_variance(returns: Float, values: Float) -> float:
    return float(1 - (returns - values).var() / max(float(returns.var()), 1e-12))
