r"""Continuous decisions of an agent's chosen option, such as power and fraction, learned as they are executed.

In units of a quantity's range, a proposal x is drawn from a density with spread s, and the coordinator executes

    y = (1 - k) r + k x,   k = 1 / (1 + trust s^2),

the least of trust (y - r)^2 / 2 + (y - x)^2 / (2 s^2), with r the agent's best response in the game, held constant as
the bias of the options is. Alone, trust = 0 and y = x. What enters the policy gradient:

- "clipped": x ~ N(m, s), and y is clipped to [0, 1]. The density of y is exact, N((1 - k) r + k m, (k s)^2) inside and
  the mass of a tail at an end (Fujita and Maeda 2018), with k a function of s: how far an agent relies on the game is
  learned too. s starts where y strays from r by ``spread`` and k is small, so an untrained hybrid is nearly the game.
- "beta": x ~ Beta(1 + softplus, 1 + softplus) (Chou et al. 2017), "tanh": x = (1 + tanh z) / 2, z ~ N(m, 2 s0) with
  s0 the raw spread and s that of x to first order about m. The density is that of x: k is held constant as it was
  executed. (Were it not, the ends of y's support would move with the weights, where the score's variance is not
  finite.) So reliance on the game follows the spread that exploration and entropy leave, and as s is at most about
  .3 for beta, an untrained hybrid at trust 5 follows its proposal by .7 and more: it is not the game.

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
EDGE = 1e-6  # keeps a draw that rounds to an end inside


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
    x: Tensor, y: Tensor, response: Tensor, trust: Tensor, raw: Tensor, density: str, start: float
) -> tuple[Tensor, Tensor]:
    """Log-density (...,) of what was executed, and the entropy of it before clipping, in units of the range.

    Args:
        x: (...,) drawn. y: executed. response: r. trust: broadcastable. raw: (..., 2) from :class:`ContinuousHeads`.
    """
    x, y, response, trust, first, second = (v.double() for v in (x, y, response, trust, raw[..., 0], raw[..., 1]))
    flat = 0.5 * math.log(2 * math.pi)
    if density == "clipped":
        s = _scale(second, start)
        k = 1 / (1 + trust * s.square())
        mean, sd = (1 - k) * response + k * (0.5 + first), k * s
        z = (y - mean) / sd
        inside = -0.5 * z.square() - sd.log() - flat
        below, above = torch.special.log_ndtr(z), torch.special.log_ndtr(-z)
        return torch.where(y <= 0, below, torch.where(y >= 1, above, inside)), 0.5 + flat + sd.log()
    x = x.clamp(EDGE, 1 - EDGE)
    if density == "beta":
        beta = torch.distributions.Beta(
            1 + nn.functional.softplus(first), 1 + nn.functional.softplus(second), validate_args=False
        )
        return beta.log_prob(x), beta.entropy()
    sd = 2 * _scale(second, start)
    z, slope = torch.atanh(2 * x - 1), (1 - (2 * x - 1).square()) / 2  # slope: dx / dz
    log = -0.5 * ((z - first) / sd).square() - sd.log() - flat - slope.log()
    return log, 0.5 + flat + sd.log() + slope.log()
