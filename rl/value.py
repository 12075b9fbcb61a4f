r"""What is left in a store is worth: a battery, a tank, a queue's room that decisions draw from and time fills.

.. math:: V(b \mid x) = \sum_j softplus(w_j(x)) \min(b / capacity, c_j)

rises with the level b and is concave in it, so the price of the next unit falls as the store fills. x are features of
an agent that do not hold the level; a constant of x would change no decision and is left out. Charged to an option
that draws J it is V(b) - V(b - J): the agent's own option alone, so a congestion game keeps its exact potential.

It is fitted on differences: two copies of the same worlds under the same random numbers, in one of which some agents'
stores were redrawn, run until they are alike again; what an agent earned more is V(b') - V(b), without discount and
almost without noise (a coupling, as in Glasserman and Yao 1992, "Some guidelines and guarantees for common random
numbers"). Numpy from end to end: no torch where an allocator runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np
from numba import njit
from numpy.typing import NDArray

Float = NDArray[np.float64]
KNOTS = (0.03, 0.07, 0.12, 0.2, 0.3, 0.45, 0.65, 1.0)
HELD_OUT = 10  # one sample in so many is not fitted on


class Stored(NamedTuple):
    """The stores of E worlds of N agents, one an agent, before a decision.

    Attributes:
        level, capacity: (E, N) in one unit. features: (E, N, F) of an agent, each of order one, without the level.
        drawn: (E, N, O) what each option is believed to draw.
    """

    level: Float
    capacity: Float
    features: Float
    drawn: Float


class Worth(NamedTuple):
    """What each agent's store is worth by its level, as data: piecewise linear, concave where no gain is negative.

    Attributes:
        gain: (E, N, J) of each part. knot: (J,) share of the capacity up to which the part counts.
        capacity: (E, N).
    """

    gain: Float
    knot: Float
    capacity: Float

    def at(self, level: Float) -> Float:
        """The worth of levels (E, N), or (E, N, O) of several an agent."""
        several = level.ndim > self.capacity.ndim
        capacity = self.capacity[..., None] if several else self.capacity
        share = np.minimum(np.maximum(level / capacity, 0.0)[..., None], self.knot)
        gain = self.gain[..., None, :] if several else self.gain
        return np.asarray((share * gain).sum(axis=-1))

    def price(self, level: Float) -> Float:
        """(E, N) worth of the last unit in the store: what drawing a little costs, a unit."""
        counts = (level / self.capacity)[..., None] <= self.knot
        return np.asarray((counts * self.gain).sum(axis=-1) / self.capacity)

    def lost(self, level: Float, drawn: Float) -> Float:
        """(E, N, O) worth that an option takes which draws ``drawn`` (E, N, O); no store goes below empty."""
        return np.asarray(self.at(level)[..., None] - self.at(level[..., None] - drawn))

    def one(self, e: int) -> Worth:
        """That of world ``e``, without the first axis."""
        return Worth(self.gain[e], self.knot, self.capacity[e])


@njit(cache=True, error_model="numpy")
def worth_at(gain, knot, share):
    """One agent's worth at ``share`` of its capacity, from its gains (J,) and the knots: for compiled code."""
    total = 0.0
    for j in range(len(knot)):
        total += gain[j] * min(max(share, 0.0), knot[j])
    return total


def linear_pieces(values: Float, capacity: Float) -> Worth:
    """The worth that goes through ``values`` (E, N, G + 1) at levels 0, capacity / G, ..., capacity; 0 where empty."""
    slope = np.diff(values, axis=-1) * (values.shape[-1] - 1)
    gain = slope - np.concatenate([slope[..., 1:], np.zeros((*slope.shape[:-1], 1))], axis=-1)
    return Worth(gain, np.arange(1, values.shape[-1]) / (values.shape[-1] - 1), capacity)


class HasStores(Protocol):
    """Worlds whose agents live on stores."""

    def stored(self) -> Stored: ...


class Valuer(Protocol):
    """Anything that says what stores are worth."""

    def worth(self, world: Any) -> Worth:
        """Of every agent's store of worlds that have some (:class:`HasStores`), after the decision at hand."""


class Samples(NamedTuple):
    """What coupled roll-outs saw, M of them: features (M, F), the share of its capacity in an agent's store in either
    copy (M,), and how much more the agent earned in the second (M,)."""

    features: Float
    before: Float
    after: Float
    gained: Float


class StoreValue:
    """The learned worth of a store: a small network from an agent's features to the gains of V's parts.

    Args:
        features: F. hidden: units of each of two layers. knots: c_j, ascending, the last 1.

    Raises:
        ValueError: knots that do not ascend to 1.
    """

    def __init__(self, features: int, hidden: int = 32, knots: tuple[float, ...] = KNOTS, seed: int = 0) -> None:
        self.knot = np.array(knots, float)
        if not len(knots) or (np.diff(self.knot, prepend=0.0) <= 0).any() or knots[-1] != 1.0:
            raise ValueError(f"knots = {knots}; they must ascend from above 0 to 1")
        rng = np.random.default_rng([seed, 41])
        layer = lambda i, o: rng.standard_normal((i, o)) / np.sqrt(i)
        self.weights = [
            layer(features, hidden), np.zeros(hidden), layer(hidden, hidden), np.zeros(hidden),
            layer(hidden, len(knots)), np.zeros(len(knots)),
        ]  # fmt: skip
        self.mean, self.spread = np.zeros(features), np.ones(features)
        self.fits: list[float] = []  # of each fit, the share of held-out squares that it explains

    def gains(self, features: Float) -> Float:
        """(..., J) from features (..., F)."""
        a, a0, b, b0, c, c0 = self.weights
        h = np.tanh((features - self.mean) / self.spread @ a + a0)
        return np.asarray(np.logaddexp(0.0, np.tanh(h @ b + b0) @ c + c0))

    def worth(self, world: HasStores) -> Worth:
        """See :class:`Valuer`.

        Raises:
            ValueError: the worlds' features are not as many as those it was made for.
        """
        stores = world.stored()
        if stores.features.shape[-1] != len(self.mean):
            raise ValueError(
                f"a store has {stores.features.shape[-1]} features here; this value was learned on {len(self.mean)}"
            )
        return Worth(self.gains(stores.features), self.knot, stores.capacity)

    def fit(self, samples: Samples, epochs: int = 60, batch: int = 512, rate: float = 5e-3, seed: int = 0) -> float:
        """Least squares on the differences, by Adam with a rate that falls to nothing; features are scaled anew.

        Returns:
            the share of the squares of held-out samples, one in ten, that it explains; nan where there are none.

        Raises:
            ValueError: no samples. FloatingPointError: a gradient is not finite; the weights are as they were.
        """
        x, y = np.asarray(samples.features, float), np.asarray(samples.gained, float)
        if not len(y):
            raise ValueError("a value needs samples: no store was redrawn")
        basis = np.minimum(samples.after[:, None], self.knot) - np.minimum(samples.before[:, None], self.knot)
        rng = np.random.default_rng([seed, 42])
        order = rng.permutation(len(y))
        out, kept = order[: len(y) // HELD_OUT], order[len(y) // HELD_OUT :]
        weights = [w.copy() for w in self.weights]
        mean, spread = x[kept].mean(axis=0), x[kept].std(axis=0) + 1e-3
        x = (x - mean) / spread
        first, second = [np.zeros_like(w) for w in weights], [np.zeros_like(w) for w in weights]
        turns = max(len(kept) // batch, 1)
        for step in range(epochs * turns):
            if step % turns == 0:
                rng.shuffle(kept)
            at = kept[step % turns * batch :][:batch]
            gradient = _gradient(weights, x[at], basis[at], y[at])
            if not all(np.isfinite(g).all() for g in gradient):
                raise FloatingPointError("a value's gradient is not finite; its weights are as they were")
            size = rate * (1 - step / (epochs * turns)) * np.sqrt(1 - 0.999 ** (step + 1)) / (1 - 0.9 ** (step + 1))
            for w, g, m, v in zip(weights, gradient, first, second, strict=True):
                m += 0.1 * (g - m)
                v += 0.001 * (g * g - v)
                w -= size * m / (np.sqrt(v) + 1e-8)
        self.weights, self.mean, self.spread = weights, mean, spread
        error = (self.gains(samples.features[out]) * basis[out]).sum(axis=1) - y[out]
        squares = (y[out] ** 2).sum()
        self.fits.append(float(1 - (error**2).sum() / squares) if squares > 0 else float("nan"))
        return self.fits[-1]

    def copy(self) -> StoreValue:
        """One that knows the same and goes its own way."""
        other = StoreValue(len(self.mean), self.weights[1].shape[0], tuple(self.knot))
        other.load_state_dict(self.state_dict())
        return other

    def state_dict(self) -> dict[str, Any]:
        arrays = {f"weight{k}": w for k, w in enumerate(self.weights)}
        return arrays | {"mean": self.mean, "spread": self.spread, "knot": self.knot, "fits": np.array(self.fits)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Raises ValueError where an array is missing, not of the shape of this value's, or not finite."""
        own = {name: value for name, value in self.state_dict().items() if name != "fits"}
        found: dict[str, Any] = {}
        for name, value in own.items():
            if name not in state:
                raise ValueError(f"{name} is missing in a value's state")
            given = np.asarray(state[name], float)
            if given.shape != value.shape or not np.isfinite(given).all():
                raise ValueError(f"{name} has shape {given.shape}; this value needs {value.shape}, all finite")
            found[name] = given.copy()
        self.weights = [found[f"weight{k}"] for k in range(len(self.weights))]
        self.mean, self.spread, self.knot = found["mean"], found["spread"], found["knot"]
        self.fits = [float(v) for v in np.asarray(state.get("fits", ()))]

    @classmethod
    def of(cls, state: Mapping[str, Any]) -> StoreValue:
        """The value that :meth:`state_dict` described.

        Raises:
            ValueError: something is missing, of another shape, or not finite.
        """
        for name in ("weight0", "knot"):
            if name not in state:
                raise ValueError(f"{name} is missing in a value's state")
        first, knot = np.asarray(state["weight0"]), np.asarray(state["knot"])
        if first.ndim != 2 or knot.ndim != 1:
            raise ValueError(f"weight0 has shape {first.shape} and knot {knot.shape}; a value needs (F, H) and (J,)")
        made = cls(first.shape[0], first.shape[1], tuple(knot.tolist()))
        made.load_state_dict(state)
        return made


def _gradient(weights: list[Float], x: Float, basis: Float, y: Float) -> list[Float]:
    """Of the mean squared error of sum_j softplus(w_j(x)) basis_j, from scaled features."""
    a, a0, b, b0, c, c0 = weights
    h1 = np.tanh(x @ a + a0)
    h2 = np.tanh(h1 @ b + b0)
    z = h2 @ c + c0
    error = (np.logaddexp(0.0, z) * basis).sum(axis=1) - y
    d = (2.0 / len(y)) * error[:, None] * basis / (1.0 + np.exp(-z))
    d2 = (d @ c.T) * (1 - h2 * h2)
    d1 = (d2 @ b.T) * (1 - h1 * h1)
    return [x.T @ d1, d1.sum(axis=0), h1.T @ d2, d2.sum(axis=0), h2.T @ d, d.sum(axis=0)]
