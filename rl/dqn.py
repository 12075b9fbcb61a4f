r"""DQN: independent double, dueling Q-learning with shared weights; the prior is Q / temperature.

The target follows what would be executed next: in the hybrid argmax of Q / temperature + bias, with the game's
part bias = -trust cost stored beside each transition; alone the bias is zero. Exploration is Boltzmann, drawn
by the coordinator from the same merged strategy.

Sources: Mnih et al. (2015), "Human-level control through deep reinforcement learning"; van Hasselt et al.
(2016) for double, Wang et al. (2016) for dueling; Tan (1993) for independent learners.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from rl.networks import PairScorer, Sizes, own_features
from rl.on_policy import descend
from rl.policy import ArrayPolicy
from rl.proposal import Observation

Float = NDArray[np.float64]


@dataclass(frozen=True)
class DqnConfig:
    """Settings of DQN.

    Attributes:
        capacity: slots kept, each of all E networks.
        horizon: slots between two learning phases, as many updates as slots in each.
        updates: gradient steps a slot. batch: agents' transitions a step.
        temperature: of the prior Q / temperature and of the Boltzmann exploration.
        target_rate: Polyak step of the target network.
        warmup: slots before learning starts.
        carry: weight of what others lose in later slots through the backlog an agent leaves.
    """

    capacity: int = 256
    horizon: int = 32
    updates: int = 1
    batch: int = 1024
    gamma: float = 0.9
    temperature: float = 0.1
    rate: float = 1e-3
    rate_floor: float = 0.1
    target_rate: float = 0.01
    warmup: int = 16
    gradient_norm: float = 5.0
    hidden: int = 32
    limit: float = 10.0
    carry: float = 1.0


class DuelingScorer(nn.Module):
    """Q(i, o) = V(i) + A(i, o) - mean over allowed o of A(i, o)."""

    def __init__(self, sizes: Sizes, hidden: int) -> None:
        super().__init__()
        self.advantage = PairScorer(sizes, hidden, scale=1.0)
        self.value = nn.Sequential(
            nn.Linear(sizes.agent + 3 * sizes.pair + sizes.resource, hidden), nn.ReLU(), nn.Linear(hidden, hidden),
            nn.ReLU(), nn.Linear(hidden, 1),
        )  # fmt: skip

    def forward(
        self, agent: Tensor, pair: Tensor, resource: Tensor, own: Tensor, allowed: Tensor, of: Tensor
    ) -> Tensor:
        row = torch.arange(len(agent))
        a = self.advantage(agent, pair, resource, row, of)
        mean = (a * allowed).sum(1, keepdim=True) / allowed.sum(1, keepdim=True)
        return self.value(torch.cat([own, resource.mean(1)], 1)) + a - mean


class Replay:
    """A ring of slots; everything that is needed to learn from any agent's transition in it."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.slots: list[dict[str, Any]] = []
        self.head = 0  # where the next slot goes
        self.newest = -1

    def add(self, slot: dict[str, Any]) -> None:
        if len(self.slots) < self.capacity:
            self.slots.append(slot)
        else:
            self.slots[self.head] = slot
        self.newest = self.head
        self.head = (self.head + 1) % self.capacity

    def back(self, lag: int) -> dict[str, Any]:
        """The slot ``lag`` before the newest."""
        return self.slots[(self.newest - lag) % len(self.slots)]

    def __len__(self) -> int:
        return len(self.slots)


class Dqn:
    """The learner; ``policy`` is its advantage network as arrays, refreshed at each update."""

    name = "dqn"

    def __init__(self, sizes: Sizes, config: DqnConfig | None = None, seed: int = 0) -> None:
        self.config = config or DqnConfig()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.online = DuelingScorer(sizes, self.config.hidden)
            self.target = DuelingScorer(sizes, self.config.hidden)
        self.target.load_state_dict(self.online.state_dict())
        self.rng = np.random.default_rng(seed)
        self.optimizer = torch.optim.Adam(self.online.parameters(), self.config.rate)
        self.replay = Replay(self.config.capacity)
        self.since = 0
        self.updates = 0
        self.policy = self._export()

    def _export(self) -> ArrayPolicy:
        weights = self.online.advantage.export()
        weights["scale"] = np.array(1.0 / self.config.temperature, np.float32)
        return ArrayPolicy(weights, self.name)

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
        """One executed slot of E networks; see :meth:`rl.imappo.Imappo.record`.

        The slot after a cut is another episode: the transition before it is left out of the sampling, which
        neither bootstraps from the wrong state nor treats the cut as an end.
        """
        allowed = observation.allowed.copy()
        allowed[~observation.live] = False
        allowed[~observation.live, 0] = True
        self.replay.add({
            "agent": observation.agent, "resource": observation.resource, "pair": observation.pair,
            "own": own_features(observation), "allowed": allowed, "option": option,
            "bias": np.where(allowed, bias, 0.0).astype(np.float32), "reward": np.array(reward, np.float32),
            "cut": truncated.copy(), "resource_of": observation.resource_of,
        })  # fmt: skip
        since_reset = carried.shape[-1]
        for h in range(min(since_reset, len(self.replay) - 1)):
            self.replay.back(h + 1)["reward"] += (self.config.carry * self.config.gamma ** (h + 1)) * carried[..., h]
        self.since += 1

    def ready(self) -> bool:
        return self.since >= self.config.horizon and len(self.replay) > self.config.warmup

    def update(self, last: Observation, progress: float) -> dict[str, float]:
        """As many gradient steps as slots came in since the last call.

        Raises:
            FloatingPointError: a gradient is not finite; the weights are left as they were.
        """
        c = self.config
        rate = c.rate * (1 - (1 - c.rate_floor) * progress)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        logs: dict[str, list[float]] = {"value_loss": [], "q": [], "norm": []}
        for _ in range(self.since * c.updates):
            now, then = self._sample()
            of = torch.from_numpy(np.asarray(last.resource_of))
            q = self.online(now["agent"], now["pair"], now["resource"], now["own"], now["allowed"], of)
            with torch.no_grad():
                inputs = (then["agent"], then["pair"], then["resource"], then["own"], then["allowed"], of)
                ahead = self.online(*inputs) / c.temperature
                ahead = (ahead - ahead.masked_fill(~then["allowed"], -torch.inf).max(1, keepdim=True).values).clamp(
                    min=-c.limit
                )
                follow = (ahead + then["bias"]).masked_fill(~then["allowed"], -torch.inf).argmax(1, keepdim=True)
                target = now["reward"] + c.gamma * self.target(*inputs).gather(1, follow)[:, 0]
            taken = q.gather(1, now["option"][:, None])[:, 0]
            loss = nn.functional.smooth_l1_loss(taken, target)
            norm = descend(loss, self.optimizer, self.online, c.gradient_norm)
            with torch.no_grad():
                for slow, fast in zip(self.target.parameters(), self.online.parameters(), strict=True):
                    slow.lerp_(fast, c.target_rate)
                logs["value_loss"].append(float(loss.detach()))
                logs["q"].append(float(taken.mean()))
                logs["norm"].append(norm)
        self.since = 0
        self.updates += 1
        self.policy = self._export()
        return {k: float(np.mean(v)) for k, v in logs.items()} | {"learning_rate": rate}

    def _sample(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Agents' transitions, uniformly over slots whose successor is kept and of the same episode."""
        c = self.config
        size = len(self.replay)
        n = self.replay.slots[0]["option"].shape[1]
        steps, each = 8, c.batch // 8  # a few slots a batch: gathers stay contiguous
        parts: list[tuple[dict[str, Any], dict[str, Any]]] = []
        usable = [lag for lag in range(1, size) if not self.replay.back(lag)["cut"].all()]
        for lag in self.rng.choice(usable, steps):
            now, then = self.replay.back(int(lag)), self.replay.back(int(lag) - 1)
            e = self.rng.choice(np.flatnonzero(~now["cut"]), each)
            i = self.rng.integers(0, n, len(e))
            pick = lambda s, e=e, i=i: {
                k: s[k][e] if k == "resource" else s[k][e, i]
                for k in ("agent", "resource", "pair", "own", "allowed", "option", "bias", "reward")
            }
            parts.append((pick(now), pick(then)))
        join = lambda side: {k: torch.from_numpy(np.concatenate([p[side][k] for p in parts])) for k in parts[0][side]}
        return join(0), join(1)

    def state_dict(self) -> dict[str, Any]:
        """Networks, optimizer and random state (not the replay: it refills within ``capacity`` slots)."""
        return {
            "online": self.online.state_dict(), "target": self.target.state_dict(),
            "optimizer": self.optimizer.state_dict(), "rng": repr(self.rng.bit_generator.state),
            "updates": self.updates,
        }  # fmt: skip

    def load_state_dict(self, state: dict[str, Any]) -> None:
        import ast

        self.online.load_state_dict(state["online"])
        self.target.load_state_dict(state["target"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.rng.bit_generator.state = ast.literal_eval(state["rng"])
        self.updates = state["updates"]
        self.policy = self._export()
