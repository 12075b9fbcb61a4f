r"""Evolution of a vector by a Gaussian that adapts its mean, its scale and its shape: CMA-ES.

Each generation draws :math:`x_k \sim m + \sigma N(0, C)`; the better half, weighed by rank, moves the mean, and the
steps that were taken shape C (rank one, along the path of the mean, and rank mu, along the steps of this generation);
sigma grows while successive steps of the mean agree and shrinks while they undo each other. Only ranks count, so the
objective may be noisy and of any scale, as long as a generation is judged on the same draws.

Source: Hansen (2016), "The CMA evolution strategy: a tutorial", arXiv:1604.00772, with its default constants.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float64]


class CmaEs:
    """One run in D dimensions; larger is better.

    Args:
        mean: (D,) where it begins. scale: (D,) one standard deviation of the first generation. size: of a generation,
            4 + 3 ln D where it is not given.
    """

    def __init__(self, mean: Float, scale: Float, seed: int = 0, size: int | None = None) -> None:
        self.scale = np.asarray(scale, np.float64)
        self.mean = np.zeros(len(self.scale))  # in units of the scale, from where it begins
        self.origin = np.asarray(mean, np.float64)
        d = len(self.mean)
        self.size = size or 4 + int(3 * np.log(max(d, 1)))
        if d < 1 or self.scale.shape != self.origin.shape or not (self.scale > 0).all() or self.size < 2:
            raise ValueError(
                f"mean {self.origin.shape}, scale {self.scale.shape} > 0, size {self.size} >= 2 do not fit"
            )
        weight = np.log((self.size + 1) / 2) - np.log(np.arange(1, self.size // 2 + 1))
        self.weight = weight / weight.sum()
        self.mass = float(1 / (self.weight**2).sum())
        self.along = (self.mass + 2) / (d + self.mass + 5)
        self.damping = 1 + 2 * max(0.0, np.sqrt((self.mass - 1) / (d + 1)) - 1) + self.along
        self.path_rate = (4 + self.mass / d) / (d + 4 + 2 * self.mass / d)
        self.one = 2 / ((d + 1.3) ** 2 + self.mass)
        self.many = min(1 - self.one, 2 * (self.mass - 2 + 1 / self.mass) / ((d + 2) ** 2 + self.mass))
        self.usual = np.sqrt(d) * (1 - 1 / (4 * d) + 1 / (21 * d**2))  # length of a standard normal step
        self.sigma, self.shape = 1.0, np.eye(d)
        self.path, self.steps = np.zeros(d), np.zeros(d)
        self.generation = 0
        self.rng = np.random.default_rng([seed, 91])
        self._drawn: Float | None = None

    @property
    def best(self) -> Float:
        """(D,) the mean: what the run has learned, which under noise is better than the luckiest draw."""
        return np.asarray(self.origin + self.scale * self.mean)

    def ask(self) -> Float:
        """(size, D) to be judged."""
        values, vectors = np.linalg.eigh(self.shape)
        self._root = np.sqrt(np.maximum(values, 1e-20)), vectors
        normal = self.rng.standard_normal((self.size, len(self.mean)))
        self._drawn = (normal * self._root[0]) @ vectors.T
        return np.asarray(self.origin + self.scale * (self.mean + self.sigma * self._drawn))

    def tell(self, value: Float) -> None:
        """What each of them earned (size,); NaN counts as the least.

        Raises:
            ValueError: nothing was asked, or another number of values.
        """
        earned = np.asarray(value, np.float64)
        if self._drawn is None or earned.shape != (self.size,):
            raise ValueError(f"{earned.shape} values for a generation of {self.size}; ask() comes before tell()")
        order = np.argsort(-np.where(np.isnan(earned), -np.inf, earned), kind="stable")[: len(self.weight)]
        step = self._drawn[order]
        mean = self.weight @ step
        self.mean = self.mean + self.sigma * mean
        values, vectors = self._root
        white = vectors @ ((vectors.T @ mean) / values)
        a, c = self.along, self.path_rate
        self.path = (1 - a) * self.path + np.sqrt(a * (2 - a) * self.mass) * white
        self.generation += 1
        length = np.linalg.norm(self.path)
        steady = length / np.sqrt(1 - (1 - a) ** (2 * self.generation)) < (1.4 + 2 / (len(mean) + 1)) * self.usual
        self.steps = (1 - c) * self.steps + steady * np.sqrt(c * (2 - c) * self.mass) * mean
        kept = 1 - self.one - self.many + (0 if steady else self.one * c * (2 - c))
        self.shape = kept * self.shape + self.one * np.outer(self.steps, self.steps)
        self.shape += self.many * (step.T * self.weight) @ step
        self.sigma *= float(np.exp(min((a / self.damping) * (length / self.usual - 1), 1.0)))
        self._drawn = None

    def state_dict(self) -> dict[str, Any]:
        """Everything that the run goes on from, between two generations."""
        names = ("mean", "sigma", "shape", "path", "steps", "generation")
        return {name: getattr(self, name) for name in names} | {"draws": self.rng.bit_generator.state}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what :meth:`state_dict` gave."""
        for name, value in state.items():
            if name == "draws":
                self.rng.bit_generator.state = value
            else:
                setattr(self, name, value.copy() if isinstance(value, np.ndarray) else value)
