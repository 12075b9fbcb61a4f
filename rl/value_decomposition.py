r"""IQL, VDN and QMIX: Q-learning on each agent's utility Q_i(o_i), alone or through a mixer of the team's value.

    IQL    Q_i -> r_i + gamma Q_i'                                   each agent for itself (its own pay)
    VDN    Q_tot = mean_i Q_i                                        additive
    QMIX   Q_tot = |w2(s)| . elu(mean_i |w1_i(s)| Q_i + b1(s)) + b2(s)   monotone in every Q_i

Sums over agents are divided by N, so that one network serves any N. QMIX's w1_i comes from agent i's features and
the pooled state, so agents may be reordered. The greedy joint choice is each agent's own argmax of Q_i (individual
global maximum), which is why a mixer must be monotone, and why no such method can hold a game in which the best
choice of one agent depends on a costly miscoordination (the climbing game). ELU is convex, so QMIX is moreover
supermodular in its utilities at a fixed state: it fits "both needed" exactly and "one is enough" only roughly.

All act on the discretised choice and sample whole joint slots; the next choice is the one that would be executed,
argmax of clipped Q_i / temperature + bias, taken by the online network and valued by the target (double Q).

Sources: Tan (1993), "Multi-agent reinforcement learning: independent vs. cooperative agents"; Sunehag et al.
(2018), "Value-decomposition networks"; Rashid et al. (2018), "QMIX: monotonic value function factorisation".
"""

from __future__ import annotations

import ast
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rl.networks import PairScorer, Sizes
from rl.off_policy import OffPolicy, OffPolicyConfig, follow_slowly
from rl.on_policy import descend
from rl.policy import ArrayPolicy
from rl.proposal import Observation

MIXERS = ("none", "sum", "monotone")


@dataclass(frozen=True)
class IqlConfig(OffPolicyConfig):
    """Settings of IQL, VDN and QMIX.

    Attributes:
        mixer: "none" (IQL), "sum" (VDN) or "monotone" (QMIX).
        temperature: of the prior Q / temperature and of the Boltzmann exploration.
        double: the next choices are the online network's, valued by the target.
        embed: width of QMIX's mixing layer.
    """

    mixer: str = "none"
    temperature: float = 0.1
    double: bool = True
    embed: int = 32

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.mixer not in MIXERS:
            raise ValueError(f"mixer = {self.mixer!r}; it must be one of {', '.join(MIXERS)}")


@dataclass(frozen=True)
class VdnConfig(IqlConfig):
    """Settings of VDN: IQL's with the additive mixer and team pay."""

    mixer: str = "sum"
    credit: str = "team"


@dataclass(frozen=True)
class QmixConfig(IqlConfig):
    """Settings of QMIX: IQL's with the monotone mixer and team pay."""

    mixer: str = "monotone"
    credit: str = "team"


class SumMixer(nn.Module):
    """VDN: the mean of the utilities."""

    def forward(self, q: Tensor, own: Tensor, resource: Tensor) -> Tensor:
        return q.mean(1)


class MonotoneMixer(nn.Module):
    """QMIX: a hypernetwork on the pooled state makes the mixing weights, kept positive by their absolute value."""

    def __init__(self, sizes: Sizes, hidden: int, embed: int) -> None:
        super().__init__()
        own = sizes.agent + 3 * sizes.pair
        state = 2 * hidden
        self.agents = nn.Linear(own, hidden)
        self.resources = nn.Linear(sizes.resource, hidden)
        self.w1 = nn.Sequential(nn.Linear(own + state, hidden), nn.ReLU(), nn.Linear(hidden, embed))
        self.b1 = nn.Linear(state, embed)
        self.w2 = nn.Sequential(nn.Linear(state, hidden), nn.ReLU(), nn.Linear(hidden, embed))
        self.b2 = nn.Sequential(nn.Linear(state, hidden), nn.ReLU(), nn.Linear(hidden, 1))

    def forward(self, q: Tensor, own: Tensor, resource: Tensor) -> Tensor:
        """(B,) from utilities q (B, N), own (B, N, A + 3 P) and resource (B, R, S)."""
        s = torch.cat([torch.relu(self.agents(own)).mean(1), torch.relu(self.resources(resource)).mean(1)], -1)
        w1 = self.w1(torch.cat([own, s[:, None].expand(-1, own.shape[1], -1)], -1)).abs()
        hidden = nn.functional.elu((w1 * q[..., None]).mean(1) + self.b1(s))
        return (self.w2(s).abs() * hidden).sum(-1) + self.b2(s)[..., 0]


class Factored(nn.Module):
    """Utilities and, where there is one, the mixer: what is trained and what its target copies."""

    def __init__(self, sizes: Sizes, config: IqlConfig) -> None:
        super().__init__()
        self.utility = PairScorer(sizes, config.hidden, scale=1.0)
        self.mixer: nn.Module | None = None
        if config.mixer == "sum":
            self.mixer = SumMixer()
        elif config.mixer == "monotone":
            self.mixer = MonotoneMixer(sizes, config.hidden, config.embed)

    def utilities(self, slot: dict[str, Tensor], resource_of: Tensor) -> Tensor:
        """(B, N, O) from a batch of joint slots."""
        b, n = slot["option"].shape
        row = torch.arange(b).repeat_interleave(n)
        flat = self.utility(slot["agent"].flatten(0, 1), slot["pair"].flatten(0, 1), slot["resource"], row, resource_of)
        return flat.view(b, n, -1)

    def mix(self, q: Tensor, slot: dict[str, Tensor]) -> Tensor:
        """(B,) the team's value, or (B, N) the utilities themselves where nothing mixes them."""
        return q if self.mixer is None else self.mixer(q, slot["own"], slot["resource"])


class Iql(OffPolicy):
    """The learner; ``policy`` is its utility network as arrays, refreshed at each update."""

    name = "iql"

    def __init__(self, sizes: Sizes, config: IqlConfig | None = None, seed: int = 0) -> None:
        self.config = config or IqlConfig()
        super().__init__(self.config, seed)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.online = Factored(sizes, self.config)
            self.target = Factored(sizes, self.config)
        self.target.load_state_dict(self.online.state_dict())
        self.optimizer = torch.optim.Adam(self.online.parameters(), self.config.rate)
        self.policy = self._export()

    def _export(self) -> ArrayPolicy:
        weights = self.online.utility.export()
        weights["scale"] = np.array(1.0 / self.config.temperature, np.float32)
        return ArrayPolicy(weights, self.name)

    def update(self, last: Observation, progress: float) -> dict[str, float]:
        """``updates`` gradient steps for each slot that came in since the last call."""
        c = self.config
        rate = self.rate_at(progress)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        of = torch.from_numpy(np.asarray(last.resource_of))
        logs: dict[str, list[float]] = {"value_loss": [], "q": [], "norm": []}
        for _ in range(self.since * c.updates):
            pair = self.replay.sample(self.rng, c.batch)
            if pair is None:  # every kept slot ends an episode
                break
            now, then = pair
            with torch.no_grad():
                slow = self.target.utilities(then, of)
                chooser = self.online.utilities(then, of) if c.double else slow
                follow = executed_greedy(chooser / c.temperature, then["bias"], then["allowed"], c.limit)
                ahead = self.target.mix(slow.gather(-1, follow[..., None])[..., 0], then)
                reward = now["reward"] if self.online.mixer is None else now["reward"].mean(1)
                target = reward + c.gamma * ahead
            q = self.online.utilities(now, of).gather(-1, now["option"][..., None])[..., 0]
            value = self.online.mix(q, now)
            loss = (value - target).square().mean()
            logs["norm"].append(descend(loss, self.optimizer, self.online, c.gradient_norm))
            follow_slowly(self.target, self.online, c.target_rate)
            logs["value_loss"].append(float(loss.detach()))
            logs["q"].append(float(value.detach().mean()))
        self.since = 0
        self.updates += 1
        self.policy = self._export()
        return {k: float(np.mean(v)) for k, v in logs.items() if v} | {"learning_rate": rate}

    def state_dict(self) -> dict[str, Any]:
        """Networks, optimizer, random state and replay; "replay" may be left out of a file, it refills."""
        return {
            "online": self.online.state_dict(), "target": self.target.state_dict(),
            "optimizer": self.optimizer.state_dict(), "rng": repr(self.rng.bit_generator.state),
            "updates": self.updates, "replay": self.replay.state_dict(),
        }  # fmt: skip

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name in ("online", "target", "optimizer"):
            getattr(self, name).load_state_dict(state[name])
        self.rng.bit_generator.state = ast.literal_eval(state["rng"])
        self.updates = state["updates"]
        self.replay.load_state_dict(state.get("replay", {}))
        self.policy = self._export()


class Vdn(Iql):
    """Value-decomposition network: the mixer is the mean."""

    name = "vdn"

    def __init__(self, sizes: Sizes, config: VdnConfig | None = None, seed: int = 0) -> None:
        super().__init__(sizes, config or VdnConfig(), seed)


class Qmix(Iql):
    """QMIX: the mixer is monotone, its weights made from the state."""

    name = "qmix"

    def __init__(self, sizes: Sizes, config: QmixConfig | None = None, seed: int = 0) -> None:
        super().__init__(sizes, config or QmixConfig(), seed)


def executed_greedy(logits: Tensor, bias: Tensor, allowed: Tensor, limit: float) -> Tensor:
    """(...,) the option that would be executed: argmax of the clipped log prior plus the game's part."""
    z = logits.masked_fill(~allowed, -torch.inf)
    z = (z - z.max(dim=-1, keepdim=True).values).clamp(min=-limit)
    return (z + bias).masked_fill(~allowed, -torch.inf).argmax(-1)
