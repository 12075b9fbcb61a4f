r"""IQL, VDN and QMIX: Q-learning on each agent's utility Q_i(o_i), alone or through a mixer of the team's value.

    IQL    Q_i -> r_i + gamma Q_i'                                   each agent for itself (its own pay)
    VDN    Q_tot = mean_i Q_i                                        additive
    QMIX   Q_tot = |w2(s)| . elu(mean_i |w1_i(s)| Q_i + b1(s)) + b2(s)   monotone in every Q_i

Sums over agents are divided by N, so that one network serves any N. QMIX's w1_i comes from agent i's features and
the pooled state, so agents may be reordered. The greedy joint choice is each agent's own argmax of Q_i (individual
global maximum), which is why a mixer must be monotone, and why no such method can hold a game in which the best
choice of one agent depends on a costly miscoordination (the climbing game). ELU is convex, so QMIX is moreover
supermodular in its utilities at a fixed state: it fits "both needed" exactly and "one is enough" only roughly.

They are :class:`rl.dqn.Dqn` on whole joint slots, with its switches (double, dueling, prioritised, n-step), and act
on the discretised choice alone.

Sources: Tan (1993), "Multi-agent reinforcement learning: independent vs. cooperative agents"; Sunehag et al.
(2018), "Value-decomposition networks"; Rashid et al. (2018), "QMIX: monotonic value function factorisation".
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from rl.dqn import Dqn, DqnConfig
from rl.networks import Sizes
from rl.q_network import QNetwork

MIXERS = ("none", "sum", "monotone")


@dataclass(frozen=True)
class IqlConfig(DqnConfig):
    """Settings of IQL, VDN and QMIX: DQN's, and

    Attributes:
        mixer: "none" (IQL), "sum" (VDN) or "monotone" (QMIX).
        embed: width of QMIX's mixing layer.
    """

    batch: int = 64
    credit: str = "own"
    agents: bool = False
    dueling: bool = False
    huber: float = float("inf")  # the papers' squared error
    mixer: str = "none"
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


class Iql(Dqn):
    """The learner; ``policy`` is its utility network as arrays, refreshed at each update."""

    name = "iql"
    config: IqlConfig

    def __init__(self, sizes: Sizes, config: IqlConfig | None = None, seed: int = 0) -> None:
        super().__init__(sizes, config or IqlConfig(), seed)

    def network(self, sizes: Sizes) -> QNetwork:
        c = self.config
        mixer: nn.Module | None = None
        if c.mixer == "sum":
            mixer = SumMixer()
        elif c.mixer == "monotone":
            mixer = MonotoneMixer(sizes, c.hidden, c.embed)
        return QNetwork(sizes, c.hidden, c.dueling, mixer)


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
