r"""Beliefs: what is not observed, learned online by regression on what is revealed a slot later, and never frozen.

A :class:`Predictor` is a small network that corrects a base, the best guess without learning (the stale reading
itself): its last layer starts at zero, so an untrained belief is the naive one. It answers with Q quantiles at
the levels (q + .5) / Q, equally likely values of which the mean of any cost is the expected cost, or with a mean.
Examples are kept in a ring of recent ones. Coverage and score are prequential: each example is scored by the
predictor before it is learned from (Dawid 1984), so they are honest without a held-out set.

Networks are numpy from end to end: no torch where an allocator runs and goes on learning.

Sources: Koenker and Bassett (1978), "Regression quantiles", for the pinball loss; Chernozhukov et al. (2010),
"Quantile and probability curves without crossing", for the sorting; Kingma and Ba (2015), "Adam"; Huber (1964).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]
LOSSES = ("pinball", "huber")


class Network:
    """relu(relu(x A + a) B + b) C + c in float32, with Adam; the last layer starts at zero."""

    def __init__(self, inputs: int, outputs: int, hidden: int, rng: np.random.Generator) -> None:
        layer = lambda i, o: (rng.standard_normal((i, o)) * np.sqrt(2.0 / i)).astype(np.float32)
        zeros = lambda *shape: np.zeros(shape, np.float32)
        self.weights = [
            layer(inputs, hidden), zeros(hidden), layer(hidden, hidden), zeros(hidden), zeros(hidden, outputs),
            zeros(outputs),
        ]  # fmt: skip
        self.first = [np.zeros_like(w) for w in self.weights]
        self.second = [np.zeros_like(w) for w in self.weights]
        self.steps = 0

    def __call__(self, x: Float32) -> Float32:
        a, a0, b, b0, c, c0 = self.weights
        h = x @ a
        h += a0
        np.maximum(h, 0, out=h)
        h = h @ b
        h += b0
        np.maximum(h, 0, out=h)
        out = h @ c
        out += c0
        return np.asarray(out)

    def gradient(self, x: Float32, slope: Any) -> list[Float32]:
        """Of the mean over rows of a loss whose slope with respect to the output (M, O) ``slope(output)`` gives."""
        a, a0, b, b0, c, c0 = self.weights
        h1 = np.maximum(x @ a + a0, 0)
        h2 = np.maximum(h1 @ b + b0, 0)
        d = slope(h2 @ c + c0) / np.float32(len(x))
        d2 = (d @ c.T) * (h2 > 0)
        d1 = (d2 @ b.T) * (h1 > 0)
        return [x.T @ d1, d1.sum(0), h1.T @ d2, d2.sum(0), h2.T @ d, d.sum(0)]

    def descend(self, gradient: list[Float32], rate: float) -> None:
        """One step of Adam.

        Raises:
            FloatingPointError: the gradient is not finite; the weights are left as they were.
        """
        if not all(np.isfinite(g).all() for g in gradient):
            raise FloatingPointError("a belief's gradient is not finite; its weights are as they were")
        self.steps += 1
        size = np.float32(rate * np.sqrt(1 - 0.999**self.steps) / (1 - 0.9**self.steps))
        for w, g, m, v in zip(self.weights, gradient, self.first, self.second, strict=True):
            m += np.float32(0.1) * (g - m)
            v += np.float32(0.001) * (g * g - v)
            w -= size * m / (np.sqrt(v) + np.float32(1e-8))


class Predictor:
    """One predicted quantity.

    Args:
        features: F of an example. outputs: quantiles Q for "pinball", predicted numbers for "huber".
        loss: "pinball" or "huber" (quadratic within ``width`` of the target).
        low, high: bounds of what is predicted, applied after the network.
        rate, floor: Adam's learning rate at the start and once ``settled`` steps are long past; it never reaches 0.
        memory: examples kept.
    """

    def __init__(
        self,
        features: int,
        outputs: int,
        loss: str = "pinball",
        *,
        hidden: int = 32,
        low: float = -np.inf,
        high: float = np.inf,
        width: float = 0.1,
        rate: float = 3e-3,
        floor: float = 5e-4,
        settled: int = 500,
        memory: int = 1 << 16,
        seed: int = 0,
    ) -> None:
        if loss not in LOSSES:
            raise ValueError(f"loss = {loss!r}; it must be one of {', '.join(LOSSES)}")
        self.loss, self.low, self.high, self.width = loss, np.float32(low), np.float32(high), np.float32(width)
        self.rate, self.floor, self.settled = rate, floor, settled
        self.rng = np.random.default_rng([seed, 31])
        self.network = Network(features, outputs, hidden, self.rng)
        self.levels = ((np.arange(outputs) + 0.5) / outputs).astype(np.float32)
        answers = 1 if loss == "pinball" else outputs
        self._x = np.zeros((memory, features), np.float32)
        self._base = np.zeros((memory, answers), np.float32)
        self._y = np.zeros((memory, answers), np.float32)
        self.seen = 0  # examples ever remembered
        self.new = 0  # of them, since the last learning
        self.coverage = np.zeros(outputs)  # running share of targets below each quantile
        self.score = np.zeros(2)  # running loss of the prediction, and of the base alone
        self._weight = 0.0

    def predict(self, x: Float32, base: Float32) -> Float32:
        """(M, O) from features (M, F) and base (M, 1) or (M, O); quantiles ascend."""
        out = self.network(x)
        out += base
        if self.loss == "pinball":
            out.sort(axis=1)
        return np.clip(out, self.low, self.high, out=out)

    def remember(self, x: Float32, base: Float32, y: Float32) -> None:
        """Examples whose truth is now known: (M, F), (M, 1 or O), (M, 1 or O). They are scored, then kept."""
        count = len(x)
        if not count:
            return
        self._judge(self.predict(x, base), base, y)
        at = (self.seen + np.arange(count)) % len(self._x)
        self._x[at], self._base[at], self._y[at] = x, base, y
        self.seen += count
        self.new += count

    def learn(self, steps: int, batch: int) -> None:
        """``steps`` descents on random batches of the examples kept."""
        kept = min(self.seen, len(self._x))
        if not kept:
            return
        for _ in range(steps):
            at = self.rng.integers(0, kept, min(batch, kept))
            base, y = self._base[at], self._y[at]
            slope = lambda out, base=base, y=y: self._slope(out + base, y)
            rate = max(self.rate / (1 + self.network.steps / self.settled), self.floor)
            self.network.descend(self.network.gradient(self._x[at], slope), rate)
        self.new = 0

    def _slope(self, out: Float32, y: Float32) -> Float32:
        if self.loss == "pinball":
            return (out > y).astype(np.float32) - self.levels
        error = out - y
        beyond = ((out < self.low) & (y <= self.low)) | ((out > self.high) & (y >= self.high))
        return np.where(beyond, np.float32(0), np.clip(error / self.width, -1, 1))

    def _judge(self, out: Float32, base: Float32, y: Float32) -> None:
        """Fold one batch into the running figures; old ones fade over about 100,000 examples."""
        keep = np.exp(-len(y) / 1e5)
        self._weight = keep * self._weight + 1 - keep
        part = (1 - keep) / self._weight
        if self.loss == "pinball":
            self.coverage += part * ((y <= out).mean(axis=0) - self.coverage)
        now = [self._loss(out, y), self._loss(np.clip(np.broadcast_to(base, out.shape), self.low, self.high), y)]
        self.score += part * (np.array(now) - self.score)

    def _loss(self, out: Float32, y: Float32) -> float:
        error = y - out
        if self.loss == "pinball":
            return float(np.maximum(self.levels * error, (self.levels - 1) * error).mean())
        size = np.abs(error)
        return float(np.where(size < self.width, 0.5 * size**2 / self.width, size - 0.5 * self.width).mean())

    @property
    def miscoverage(self) -> float:
        """Largest gap between a quantile's level and the share of targets found below it."""
        return float(np.abs(self.coverage - self.levels).max()) if self.loss == "pinball" else 0.0

    def state_dict(self) -> dict[str, Any]:
        """Everything: restored by :meth:`load_state_dict`, learning goes on as if uninterrupted."""
        import json

        arrays = {f"weight{k}": w for k, w in enumerate(self.network.weights)}
        arrays |= {f"first{k}": w for k, w in enumerate(self.network.first)}
        arrays |= {f"second{k}": w for k, w in enumerate(self.network.second)}
        kept = min(self.seen, len(self._x))
        counts = np.array([self.network.steps, self.seen, self.new, kept])
        return arrays | {
            "x": self._x[:kept], "base": self._base[:kept], "y": self._y[:kept], "counts": counts,
            "coverage": self.coverage, "score": self.score, "judged": np.array(self._weight),
            "rng": np.array(json.dumps(self.rng.bit_generator.state)),
        }  # fmt: skip

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Raises ValueError where the shapes are not this predictor's."""
        import json

        for name, arrays in (("weight", self.network.weights), ("first", self.network.first),
                             ("second", self.network.second)):  # fmt: skip
            for k, own in enumerate(arrays):
                given = np.asarray(state[f"{name}{k}"])
                if given.shape != own.shape:
                    raise ValueError(f"{name}{k} has shape {given.shape}; this predictor needs {own.shape}")
                own[:] = given
        self.network.steps, self.seen, self.new, kept = (int(c) for c in state["counts"])
        for own, name in ((self._x, "x"), (self._base, "base"), (self._y, "y")):
            own[:kept] = state[name]
        self.coverage[:], self.score[:], self._weight = state["coverage"], state["score"], float(state["judged"])
        self.rng.bit_generator.state = json.loads(str(state["rng"]))
