r"""DQN: independent Q-learning with shared weights; double, dueling, prioritised and n-step are switches.

The prior is Q / temperature. The target follows what would be executed next: in the hybrid argmax of clipped
Q / temperature + bias, with the game's part bias = -trust cost stored beside each transition; alone the bias is
zero. Exploration is Boltzmann, drawn by the coordinator from the same merged strategy.

    Q_i(s, o_i) -> r_i + gamma^t1 r_i' + ... + gamma^tm Q_target(s^(m), o*),   m <= n slots, never across a cut,

with tk the time till the k-th slot after (k where each lasts a unit). Nothing is added past the end of an episode, or
of an agent's part in it: what a place holds next is another's. Where m decisions fit in a unit of time, each changes Q
by some 1 / m of what a unit does, and with a backup a decision to look as far ahead takes m times as many. So a return
goes on until it lasts ``span``, and the dueling network learns a rate of advantage, which counts for as long as a
decision lasts in the mean, d <= 1:

    Q_i(s, o) = V_i(s) + d A_i(s, o),    the prior A / temperature.

The gap between options is then of order one however often is decided. Slots of a unit have d = 1 and m = n.

It acts on the discretised choice alone: power and fractions are the coordinator's best responses.

Sources: Mnih et al. (2015), "Human-level control through deep reinforcement learning"; van Hasselt et al. (2016) for
double, Wang et al. (2016) for dueling, Schaul et al. (2016) for priorities; Sutton (1988) and Hessel et al. (2018) for
n steps; Tan (1993) for independent learners; Baird (1993), "Advantage updating", and Tallec, Blier and Ollivier (2019),
"Making deep Q-learning methods robust to time discretization", for the rate of advantage.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rl.descent import engine_of
from rl.networks import Sizes
from rl.off_policy import OffPolicy, OffPolicyConfig, change, executed_greedy, explained, follow_slowly
from rl.on_policy import entropy_of, executed_log_density, step
from rl.policy import ArrayPolicy
from rl.proposal import Observation
from rl.q_descent import Lesson, Passes
from rl.q_network import QNetwork
from rl.replay import Replay, Slot


@dataclass(frozen=True)
class DqnConfig(OffPolicyConfig):
    """Settings of DQN.

    Attributes:
        agents: a batch is of single agents' transitions, not of joint slots.
        temperature: of the prior Q / temperature and of the Boltzmann exploration, for a decision that lasts a unit of
            time; for shorter ones it is as much less as they are, as what hangs on them is.
        double: the next choice is the online network's, valued by the target.
        dueling: Q = V + A - mean A.
        prioritised: draw by |delta|^alpha, with importance weights whose exponent grows from ``beta`` to 1.
        steps: of the n-step return, at least. span: units of time that it lasts, at least.
        huber: width of the loss's quadratic part.
    """

    updates: int = 4
    batch: int = 1024
    credit: str = "difference"
    agents: bool = True
    temperature: float = 0.1
    double: bool = True
    dueling: bool = True
    prioritised: bool = False
    alpha: float = 0.6
    beta: float = 0.4
    steps: int = 1
    span: float = 1.0
    huber: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.steps >= self.capacity:
            raise ValueError(f"steps = {self.steps}; it must be below capacity = {self.capacity}")


class Dqn(OffPolicy):
    """The learner; ``policy`` is its utility (advantage) network as arrays, refreshed at each update."""

    name = "dqn"
    PARTS = ("online", "target", "optimizer")

    def __init__(self, sizes: Sizes, config: DqnConfig | None = None, seed: int = 0) -> None:
        self.config = config or DqnConfig()
        c = self.config
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.online, self.target = self.network(sizes), self.network(sizes)
        own = self.online.value is not None or self.online.mixer is not None  # who reads an agent's summary
        super().__init__(c, seed, Replay(c.capacity, c.agents, c.alpha if c.prioritised else None, own))
        self.engine = engine_of(c.engine, self.online.utility)
        self.passes = Passes(self.online, self.target)
        self.pace = 1.0  # d
        self.target.load_state_dict(self.online.state_dict())
        self.optimizer = torch.optim.Adam(self.online.parameters(), c.rate, fused=True)
        self.policy = self.export()

    def network(self, sizes: Sizes) -> QNetwork:
        return QNetwork(sizes, self.config.hidden, self.config.dueling)

    @property
    def apart(self) -> bool:
        return super().apart and self.online.mixer is None

    @property
    def temperature(self) -> float:
        """Of the prior Q / temperature, for decisions as long as they are."""
        return self.config.temperature * self.pace

    def set_pace(self, pace: float) -> None:
        """What an advantage counts: decisions last ``pace`` units of time, 1 at the most."""
        self.pace = min(pace, 1.0)
        if self.online.value is not None:
            self.online.utility.scale = self.target.utility.scale = self.pace

    def export(self) -> ArrayPolicy:
        weights = self.online.utility.export()
        weights["scale"] = np.array(self.online.utility.scale / self.temperature, np.float32)
        return ArrayPolicy(weights, self.name)

    def update(self, last: Observation, progress: float) -> dict[str, float]:
        """``updates`` gradient steps for each slot that came in since the last call.

        Raises:
            FloatingPointError: a gradient is not finite; the weights are left as they were.
        """
        c = self.config
        rate = self.set_rate(progress, {"optimizer": 1.0})
        beta = c.beta + (1 - c.beta) * progress
        of = torch.from_numpy(np.asarray(last.resource_of))
        self.set_pace(self.replay.pace)
        logs: dict[str, list[float]] = {
            k: [] for k in ("value_loss", "q", "norm", "entropy", "kl", "explained_variance")
        }
        first: tuple[Slot, Tensor] | None = None  # a batch and what would have been executed before this update
        for _ in range(self.since * c.updates):
            drawn = self.replay.sample(self.rng, c.batch, c.gamma, c.steps, beta, c.span)
            if drawn is None:  # every kept slot ends an episode
                break
            now, then, reward, discount, weight, index = drawn
            if first is None:
                kept = {k: v.clone() for k, v in now.items()}  # the batch's room is used again
                first = kept, self.executed(kept, of)
            following = self.ahead(then, of)
            each = following.ndim > 1  # and not the team's
            goal = reward + discount * following if each else reward.mean(1) + discount.amax(1) * following
            self.optimizer.zero_grad()
            loss, value, delta = self.set_gradients(now, of, goal, weight)
            logs["norm"].append(step(self.optimizer, self.online, c.gradient_norm))
            follow_slowly(self.target, self.online, c.target_rate)
            if c.prioritised:
                self.replay.prioritise(index, delta.abs().flatten(1).mean(1).numpy().astype(np.float64))
            logs["value_loss"].append(loss)
            logs["q"].append(float(value.mean()))
            logs["explained_variance"].append(explained(goal, delta))
        if first is not None:
            now, before = first
            after = self.executed(now, of)
            logs["kl"].append(change(before, after, now["live"]))
            logs["entropy"].append(float(entropy_of(after, now["allowed"])))
        return self.finish(logs, learning_rate=rate)

    def ahead(self, then: Slot, of: Tensor) -> Tensor:
        """(B, N) or, mixed, (B,) the target network's value of what would be executed next."""
        c = self.config
        if self.engine == "compiled":
            return self.passes.ahead(then, of, c.double, self.temperature, c.limit)
        with torch.no_grad():
            slow = self.target(then, of)
            chooser = self.online(then, of) if c.double else slow
            follow = executed_greedy(chooser / self.temperature, then["bias"], then["allowed"], c.limit)
            return self.target.mix(slow.gather(-1, follow[..., None])[..., 0], then)

    def set_gradients(self, now: Slot, of: Tensor, goal: Tensor, weight: Tensor) -> Lesson:
        """Set the online network's gradients of the weighted Huber loss of the value of what was taken.

        Args:
            goal: (B, N) or, mixed, (B,) what the value moves to. weight: (B,).
        """
        huber = self.config.huber
        if self.engine == "compiled":
            return self.passes.set_gradients(now, of, goal, weight, huber)
        value = self.online.mix(self.online(now, of).gather(-1, now["option"][..., None])[..., 0], now)
        wide = (slice(None),) + (None,) * (value.ndim - 1)
        loss = (weight[wide] * nn.functional.huber_loss(value, goal, reduction="none", delta=huber)).mean()
        loss.backward()
        return Lesson(float(loss.detach()), value.detach(), goal - value.detach())

    def executed(self, slot: Slot, of: Tensor) -> Tensor:
        """(B, N, O) log-density of what is executed with the online network's Q."""
        with torch.no_grad():
            q = self.online(slot, of) / self.temperature
            return executed_log_density(q, slot["bias"], slot["allowed"], self.config.limit)

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"pace": self.pace}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.set_pace(state.get("pace", 1.0))
        super().load_state_dict(state)
