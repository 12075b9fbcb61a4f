r"""Beliefs: what is not observed, learned online by regression on what is revealed a slot later, and never frozen.

A :class:`Predictor` is a small network that corrects a base, the best guess without learning (the stale reading
itself): its last layer starts at zero, so an untrained belief is the naive one. It answers with Q quantiles at
the levels (q + .5) / Q, equally likely values of which the mean of any cost is the expected cost, or with a mean.
Examples are kept in a ring of recent ones. Coverage and score are prequential: each example is scored by the
predictor before it is learned from (Dawid 1984), so they are honest without a held-out set.

Prediction, gradient and judgement are compiled passes in float32, some rows at a time all the way; no torch where an
allocator runs and goes on learning.

Sources: Koenker and Bassett (1978), "Regression quantiles", for the pinball loss; Chernozhukov et al. (2010),
"Quantile and probability curves without crossing", for the sorting; Kingma and Ba (2015), "Adam"; Huber (1964).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from rl.pairs import RULES, ZERO
from rl.perceptron import TOGETHER, backward, hidden

Float32 = NDArray[np.float32]
LOSSES = ("pinball", "huber")


class Loss(NamedTuple):
    """What a prediction is measured by.

    levels: (O,) of the quantiles for "pinball", empty for "huber", which is quadratic within ``width`` of the target.
    low, high: bounds of what is predicted.
    """

    levels: Float32
    low: np.float32
    high: np.float32
    width: np.float32


class Network:
    """relu(relu(x A + a) B + b) C + c in float32, with Adam; the last layer starts at zero.

    ``flat``, ``first`` and ``second`` (P,) are the weights and Adam's two moments of them, layer after layer.
    """

    def __init__(self, inputs: int, outputs: int, hidden: int, rng: np.random.Generator) -> None:
        self.shapes = ((inputs, hidden), (hidden,), (hidden, hidden), (hidden,), (hidden, outputs), (outputs,))
        size = sum(int(np.prod(shape)) for shape in self.shapes)
        self.flat, self.first, self.second = (np.zeros(size, np.float32) for _ in range(3))
        for w in self.weights[:4:2]:
            w[:] = rng.standard_normal(w.shape) * np.sqrt(2.0 / len(w))
        self.steps = 0

    @property
    def weights(self) -> tuple[Float32, ...]:
        """A, a, B, b, C, c: views of ``flat``."""
        return self.layers(self.flat)

    def layers(self, flat: Float32) -> tuple[Float32, ...]:
        """Views of ``flat`` (P,) in the weights' shapes."""
        found, start = [], 0
        for shape in self.shapes:
            end = start + int(np.prod(shape))
            found.append(flat[start:end].reshape(shape))
            start = end
        return tuple(found)

    def gradient(self, x: Float32, base: Float32, y: Float32, rows: NDArray[np.int64], loss: Loss) -> Float32:
        """(P,) of the mean over ``rows`` (M,) of what ``loss`` says of base + the output, summed over outputs.

        Args:
            x: (K, F). base, y: (K, 1) or (K, O), the truth of which the output is a correction to the base.
        """
        found = np.zeros_like(self.flat)
        differentiate(x, base, y, rows, self.weights, loss, self.layers(found))
        return found

    def descend(self, gradient: Float32, rate: float) -> None:
        """One step of Adam.

        Raises:
            FloatingPointError: the gradient is not finite; the weights are left as they were.
        """
        step = self.steps + 1
        size = np.float32(rate * np.sqrt(1 - 0.999**step) / (1 - 0.9**step))
        if not adam(self.flat, gradient, self.first, self.second, size):
            raise FloatingPointError("a belief's gradient is not finite; its weights are as they were")
        self.steps = step


def _rows(x: Any) -> Float32:
    """As compiled code reads it: float32, row after row."""
    return np.ascontiguousarray(x, np.float32)


@njit(cache=True, error_model="numpy", nogil=True)
def predict(x, base, w, loss, out):
    """Fill ``out`` (M, O) from features (M, F) and base (M, 1) or (M, O): quantiles ascending, all within bounds."""
    outputs = out.shape[1]
    room = np.empty((2, TOGETHER, w[1].shape[0]), np.float32)
    wide = base.shape[1] > 1
    for first in range(0, len(x), TOGETHER):
        last = min(first + TOGETHER, len(x))
        one, two = room[0, : last - first], room[1, : last - first]
        hidden(x[first:last], w, one, two)
        np.dot(two, w[4], out[first:last])
        for r in range(first, last):
            here = out[r]
            for o in range(outputs):
                here[o] += w[5][o] + base[r, o if wide else 0]
            if len(loss.levels):
                for o in range(1, outputs):  # nearly in order: by insertion
                    value, k = here[o], o
                    while k > 0 and here[k - 1] > value:
                        here[k] = here[k - 1]
                        k -= 1
                    here[k] = value
            for o in range(outputs):
                here[o] = min(max(here[o], loss.low), loss.high)


@njit(cache=True, error_model="numpy", fastmath=RULES, nogil=True)
def differentiate(x, base, y, rows, w, loss, d):
    """Add to ``d``, arrays as the weights ``w``, the gradient of the mean loss over ``rows`` (M,) of x (K, F)."""
    features, outputs = x.shape[1], w[5].shape[0]
    x_room, s_room = np.empty((TOGETHER, features), np.float32), np.empty((TOGETHER, outputs), np.float32)
    room = np.empty((3, TOGETHER, w[1].shape[0]), np.float32)
    turned = np.ascontiguousarray(w[2].T), np.ascontiguousarray(w[4].T)
    wide, share = base.shape[1] > 1, np.float32(1.0) / np.float32(max(len(rows), 1))
    quantiles = len(loss.levels) > 0
    for first in range(0, len(rows), TOGETHER):
        many = min(TOGETHER, len(rows) - first)
        x_here, s, one, two, spare = x_room[:many], s_room[:many], room[0, :many], room[1, :many], room[2, :many]
        for r in range(many):
            for f in range(features):
                x_here[r, f] = x[rows[first + r], f]
        hidden(x_here, w, one, two)
        np.dot(two, w[4], s)
        for r in range(many):
            at = rows[first + r]
            for o in range(outputs):
                k = o if wide else 0
                said, truth = s[r, o] + w[5][o] + base[at, k], y[at, k]
                if quantiles:
                    slope = (np.float32(1.0) if said > truth else ZERO) - loss.levels[o]
                elif (said < loss.low and truth <= loss.low) or (said > loss.high and truth >= loss.high):
                    slope = ZERO
                else:
                    slope = min(max((said - truth) / loss.width, np.float32(-1.0)), np.float32(1.0))
                s[r, o] = slope * share
        backward(x_here, one, two, s, w, turned, spare, d)


@njit(cache=True, error_model="numpy", nogil=True)
def adam(weight, gradient, first, second, size):
    """One step of all (P,), in place; False, and nothing is changed, where the gradient is not finite."""
    for k in range(len(gradient)):
        if not np.isfinite(gradient[k]):
            return False
    for k in range(len(weight)):
        g = gradient[k]
        first[k] += np.float32(0.1) * (g - first[k])
        second[k] += np.float32(0.001) * (g * g - second[k])
        weight[k] -= size * first[k] / (np.sqrt(second[k]) + np.float32(1e-8))
    return True


@njit(cache=True, error_model="numpy", nogil=True)
def judge(out, base, y, loss, covered):
    """Mean losses of predictions ``out`` (M, O) and of the base alone; ``covered`` (O,) gets the share of targets below
    each."""
    rows, outputs = out.shape
    wide, quantiles = base.shape[1] > 1, len(loss.levels) > 0
    covered[:] = 0.0
    mine = theirs = 0.0
    for r in range(rows):
        for o in range(outputs):
            k = o if wide else 0
            level = loss.levels[o] if quantiles else ZERO
            covered[o] += y[r, k] <= out[r, o]
            mine += _measure(y[r, k] - out[r, o], level, quantiles, loss.width)
            plain = min(max(base[r, k], loss.low), loss.high)
            theirs += _measure(y[r, k] - plain, level, quantiles, loss.width)
    covered /= rows
    return mine / (rows * outputs), theirs / (rows * outputs)


@njit(cache=True)
def _measure(error, level, quantiles, width):
    if quantiles:
        return max(level * error, (level - np.float32(1.0)) * error)
    size = abs(error)
    return np.float32(0.5) * size * size / width if size < width else size - np.float32(0.5) * width


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
        self.loss = loss
        self.rate, self.floor, self.settled = rate, floor, settled
        self.rng = np.random.default_rng([seed, 31])
        self.network = Network(features, outputs, hidden, self.rng)
        self.levels = ((np.arange(outputs) + 0.5) / outputs).astype(np.float32)
        quantiles = self.levels if loss == "pinball" else np.zeros(0, np.float32)
        self._by = Loss(quantiles, np.float32(low), np.float32(high), np.float32(width))
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
        """(M, O) from features (M, F) and base (M, 1) or (M, O); quantiles ascend.

        Raises:
            ValueError: shapes that are not these; compiled code would read beyond them.
        """
        wanted = (len(x), self._x.shape[1]), (len(x), self._base.shape[1])
        if (x.shape, base.shape) != wanted:
            raise ValueError(f"features and base have shapes {x.shape} and {base.shape}; they must have {wanted}")
        out = np.empty((len(x), len(self.levels)), np.float32)
        predict(_rows(x), _rows(base), self.network.weights, self._by, out)
        return out

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
            rows = self.rng.integers(0, kept, min(batch, kept))
            rate = max(self.rate / (1 + self.network.steps / self.settled), self.floor)
            self.network.descend(self.network.gradient(self._x, self._base, self._y, rows, self._by), rate)
        self.new = 0

    def _judge(self, out: Float32, base: Float32, y: Float32) -> None:
        """Fold one batch into the running figures; old ones fade over about 100,000 examples."""
        keep = np.exp(-len(y) / 1e5)
        self._weight = keep * self._weight + 1 - keep
        part = (1 - keep) / self._weight
        covered = np.empty(len(self.levels))
        now = judge(out, _rows(base), _rows(y), self._by, covered)
        if self.loss == "pinball":
            self.coverage += part * (covered - self.coverage)
        self.score += part * (np.array(now) - self.score)

    @property
    def miscoverage(self) -> float:
        """Largest gap between a quantile's level and the share of targets found below it."""
        return float(np.abs(self.coverage - self.levels).max()) if self.loss == "pinball" else 0.0

    def state_dict(self) -> dict[str, Any]:
        """Everything: restored by :meth:`load_state_dict`, learning goes on as if uninterrupted."""
        import json

        arrays = {f"weight{k}": w for k, w in enumerate(self.network.weights)}
        arrays |= {f"first{k}": w for k, w in enumerate(self.network.layers(self.network.first))}
        arrays |= {f"second{k}": w for k, w in enumerate(self.network.layers(self.network.second))}
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

        net = self.network
        for name, flat in (("weight", net.flat), ("first", net.first), ("second", net.second)):
            for k, own in enumerate(net.layers(flat)):
                given = np.asarray(state[f"{name}{k}"])
                if given.shape != own.shape:
                    raise ValueError(f"{name}{k} has shape {given.shape}; this predictor needs {own.shape}")
                own[:] = given
        self.network.steps, self.seen, self.new, kept = (int(c) for c in state["counts"])
        for own, name in ((self._x, "x"), (self._base, "base"), (self._y, "y")):
            own[:kept] = state[name]
        self.coverage[:], self.score[:], self._weight = state["coverage"], state["score"], float(state["judged"])
        self.rng.bit_generator.state = json.loads(str(state["rng"]))
