r"""Continuous decisions of an agent's chosen option, such as power and fraction, learned as they are executed.

In units of a quantity's range, a proposal x is drawn from a density with spread s, and the coordinator executes

    y = (1 - k) r + k x,   k = 1 / (1 + trust s^2),

the least of trust (y - r)^2 / 2 + (y - x)^2 / (2 s^2), with r the agent's best response in the game. What enters the
policy gradient is the density of y. r is the game's part and held constant, as the bias of the options is; k is not:
s also says how far an agent relies on the game, and that is learned with it. Alone, trust = 0 and y = x.

- "clipped": x ~ N(m, s), and y is clipped to [0, 1]. Its density is exact: N((1 - k) r + k m, (k s)^2) inside, and the
  mass of a tail at an end (Fujita and Maeda 2018). s starts where y strays from r by ``spread`` and k is small, so an
  untrained proposal leaves the game nearly as it is.
- "beta": x ~ Beta(1 + softplus, 1 + softplus) (Chou et al. 2017). log p(y) = log Beta((y - (1 - k) r) / k) - log k.
- "tanh": x = (1 + tanh z) / 2, z ~ N(m, 2 s0) with s0 the raw spread; s is the spread of x to first order about m.

Under changed weights k changes, and x with it; for beta and tanh it may then leave its support, and is moved back to
within .001 of it. Their s cannot pass about .3 (beta) or vanish from the ends (tanh), so with either an untrained
hybrid is not the game. In any density the first update's ratio is 1 to rounding, since both sides use this code.

Sources: Fujita and Maeda (2018), "Clipped action policy gradient"; Chou, Maturana and Scherer (2017), "Improving
stochastic policy gradients in continuous control with deep reinforcement learning using the Beta distribution";
Haarnoja et al. (2018), "Soft actor-critic", appendix C, for the squashed Gaussian.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from rl.networks import PairScorer, Sizes
from rl.policy import DENSITIES, centre_and_spread

Float = NDArray[np.float64]
EDGE = 1e-3


class ContinuousHeads(nn.Module):
    """Raw heads (B, N, C, 2) of C quantities for the chosen pairs; the last layer starts at zero."""

    def __init__(
        self, sizes: Sizes, names: tuple[str, ...], ranges: tuple[tuple[float, float], ...], density: str,
        start: float, hidden: int,
    ) -> None:  # fmt: skip
        super().__init__()
        self.names, self.density = names, density
        self.pairs = PairScorer(sizes, hidden)  # its embedding is read; its score is not used
        for p in self.pairs.out.parameters():
            p.requires_grad_(False)
        self.out = nn.Linear(hidden, 2 * len(names))
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)
        low, high = torch.tensor(ranges, dtype=torch.float64).T
        self.register_buffer("low", low)
        self.register_buffer("high", high)
        self.register_buffer("start", torch.tensor(start, dtype=torch.float64))

    def forward(self, agent: Tensor, pair: Tensor, resource: Tensor, option: Tensor, resource_of: Tensor) -> Tensor:
        phi = self.pairs.chosen(agent, pair, resource, option, resource_of)
        return self.out(phi).unflatten(-1, (len(self.names), 2))

    @property
    def first(self) -> float:
        """The raw spread at the start."""
        return float(self.get_buffer("start"))

    def arrays(self) -> dict[str, NDArray]:
        """What serving needs beside the weights."""
        return {
            "continuous.names": np.array(self.names),
            "continuous.density": np.array(DENSITIES.index(self.density)),
        }

    def draw(self, raw: Tensor, rng: np.random.Generator) -> tuple[Float, Float]:
        """(B, N, C) a proposal in units of the range, drawn, and its spread."""
        values = raw.numpy()
        start = self.first
        value, spread = centre_and_spread(values, self.density, start)
        if self.density == "clipped":
            return value + spread * rng.standard_normal(value.shape), spread
        if self.density == "beta":
            a, b = 1 + np.logaddexp(0, values.astype(np.float64))[..., 0], 1 + np.logaddexp(0, values[..., 1])
            return rng.beta(a, b), spread
        z = values[..., 0] + 2 * _scale(raw[..., 1], start).numpy() * rng.standard_normal(value.shape)
        return (1 + np.tanh(z)) / 2, spread


def _scale(raw: Tensor, start: float) -> Tensor:
    return start * raw.clamp(-5.0, 3.0).exp()


def pull(spread: Float, trust: float) -> Float:
    """k, the weight of a proposal beside the best response."""
    return np.asarray(1.0 / (1.0 + trust * spread * spread))


def start_spread(executed: float, trust: float) -> float:
    """The spread with which what is executed strays by ``executed`` from the best response, and follows that more.

    k s = s / (1 + trust s^2) = executed, the larger root; above its greatest value, 1 / (2 sqrt(trust)), the s there.
    """
    if trust <= 0:
        return executed
    inside = 1.0 - 4.0 * trust * executed * executed
    return (1.0 + math.sqrt(inside)) / (2.0 * trust * executed) if inside > 0 else trust**-0.5


def log_executed(
    y: Tensor, response: Tensor, trust: Tensor, raw: Tensor, density: str, start: float
) -> tuple[Tensor, Tensor]:
    """Log-density of the executed y (...,) in units of the range, and the entropy of what was drawn and pulled.

    Args:
        response: (...,) r. trust: broadcastable. raw: (..., 2) as :class:`ContinuousHeads` gives.
    """
    y, response, trust, first, second = (x.double() for x in (y, response, trust, raw[..., 0], raw[..., 1]))
    gauss = 0.5 * math.log(2 * math.pi * math.e)
    if density == "clipped":
        s = _scale(second, start)
        k = 1 / (1 + trust * s.square())
        mean, sd = (1 - k) * response + k * (0.5 + first), k * s
        z = (y - mean) / sd
        inside = -0.5 * z.square() - sd.log() - 0.5 * math.log(2 * math.pi)
        below, above = torch.special.log_ndtr(z), torch.special.log_ndtr(-z)
        return torch.where(y <= 0, below, torch.where(y >= 1, above, inside)), gauss + sd.log()
    if density == "beta":
        a, b = 1 + nn.functional.softplus(first), 1 + nn.functional.softplus(second)
        beta = torch.distributions.Beta(a, b, validate_args=False)
        k = 1 / (1 + trust * beta.variance)
        x = ((y - (1 - k) * response) / k).clamp(EDGE, 1 - EDGE)
        return beta.log_prob(x) - k.log(), beta.entropy() + k.log()
    s0 = _scale(second, start)
    k = 1 / (1 + trust * (s0 * (1 - first.tanh().square())).clamp(min=1e-3).square())
    x = ((y - (1 - k) * response) / k).clamp(EDGE, 1 - EDGE)
    z = torch.atanh(2 * x - 1)
    slope = (1 - (2 * x - 1).square()) / 2  # dx / dz
    sd = 2 * s0
    log = -0.5 * ((z - first) / sd).square() - sd.log() - 0.5 * math.log(2 * math.pi) - slope.log() - k.log()
    return log, gauss + sd.log() + slope.log().detach() + k.log()
