"""A trained actor as plain arrays: numpy alone, so serving needs no torch and starts at once."""

from __future__ import annotations

import string
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from rl.pairs import propose, scorer_of
from rl.proposal import Observation, Proposal, own_features

Float = NDArray[np.float64]
Float32 = NDArray[np.float32]
DENSITIES = ("beta", "tanh", "clipped")
RANGES = "ranges/"  # a note's name in a file is this and the kind of feature


@dataclass(frozen=True)
class Notes:
    """What training and calibration left beside a policy's weights, for the allocator that serves it.

    Attributes:
        trained_trust: at which its prior is to be merged. learned_trust: what training moved trust to, of a trust that
            was learned. ranges: (2, F) lowest and highest of each feature in training, by kind: "agent", "resource",
            "pair"; empty where none were noted.
    """

    trained_trust: float | None = None
    learned_trust: float | None = None
    ranges: Mapping[str, Float32] = field(default_factory=dict)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """The notes by their names in a file, beside the weights."""
        found: dict[str, NDArray[Any]] = {}
        if self.trained_trust is not None:
            found["trained_trust"] = np.array(self.trained_trust)
        found |= {RANGES + kind: np.asarray(bounds) for kind, bounds in self.ranges.items()}
        if self.learned_trust is not None:
            found["trust"] = np.array(self.learned_trust)
        return found

    @classmethod
    def split(cls, arrays: Mapping[str, NDArray[Any]]) -> tuple[dict[str, NDArray[Any]], Notes]:
        """The weights and the notes of a file's arrays, which :func:`wrong_weights` has passed."""
        weights = {k: v for k, v in arrays.items() if k not in NOTED and not k.startswith(RANGES)}
        number = lambda name: float(arrays[name]) if name in arrays else None
        ranges = {k.removeprefix(RANGES): v for k, v in arrays.items() if k.startswith(RANGES)}
        return weights, cls(number("trained_trust"), number("trust"), ranges)


NOTED = ("trust", "trained_trust")


@dataclass
class ArrayPolicy:
    """The pair scorer, its memory and its continuous heads as a numpy forward pass; equal to torch's to 1e-5.

    ``memory`` (E, N, H), where there is one, is what :meth:`remember` gave for the slot before; None is the first
    slot's, so that a policy with a memory also answers for one situation alone. :meth:`carrying` keeps it.
    """

    weights: Mapping[str, NDArray[Any]]
    name: str = "policy"
    notes: Notes = Notes()

    def propose(self, observation: Observation, memory: Float32 | None = None) -> Proposal:
        """Log-priors (E, N, O), 0 for agents that are not live, and levels (E, N, O, D) where it has such heads.

        A level's spread is inf for an option without a resource, and for agents that are not live: nothing is asked.
        """
        log_prior = self._scores(observation, memory)
        if "continuous.names" not in self.weights:
            return Proposal(log_prior)
        mean, spread = self._levels(observation, memory)
        return Proposal(log_prior, mean, spread, tuple(str(n) for n in self.weights["continuous.names"]))

    def _scores(self, observation: Observation, memory: Float32 | None) -> Float:
        out: Float = np.zeros(observation.pair.shape[:3])
        if not observation.live.any():
            return out
        w, seen = self.weights, self.seen(observation, memory)
        if "node.weight" not in w and "pool.weight" not in w:
            return self._plain_scores(seen, out)
        row, agent = np.nonzero(observation.live)
        z = self._embed(seen, row, agent, "")
        score = (z @ w["out.weight"][0] + w["out.bias"][0]).reshape(len(row), -1)
        out[row, agent] = score * w["scale"]
        return out

    def _plain_scores(self, seen: Observation, out: Float) -> Float:
        """Fill ``out`` with the scores of a network that knows pairs alone, in one compiled call."""
        w, scorer = self.weights, scorer_of(self.weights)
        f = lambda x: np.ascontiguousarray(x, np.float32)
        own, bias, shared = f(w["agent.weight"]), f(w["agent.bias"]), f(w["resource.weight"])
        agent, resource, pair = f(seen.agent), f(seen.resource), f(seen.pair)
        sizes = (own.shape, shared.shape, scorer.pair.shape)
        if sizes != ((len(bias), agent.shape[2]), (len(bias), resource.shape[2]), (pair.shape[3], len(bias))):
            raise ValueError(f"agents have {own.shape[0]}, resources {shared.shape[0]} hidden units; pairs have "
                             f"{len(scorer.mix)}; features are {agent.shape[2]}, {resource.shape[2]} and "
                             f"{pair.shape[3]}")  # fmt: skip
        of = np.ascontiguousarray(seen.resource_of, np.int64)
        if len(of) != pair.shape[2] or of.max(initial=-1) >= resource.shape[1]:
            raise ValueError(f"resource_of has {len(of)} entries up to {of.max(initial=-1)}; the observation has "
                             f"{pair.shape[2]} options and {resource.shape[1]} resources")  # fmt: skip
        propose(
            agent, resource, pair, np.ascontiguousarray(seen.live), of, own, bias, shared, scorer,
            np.float32(w["scale"]), out,
        )  # fmt: skip
        return out

    def _levels(self, observation: Observation, memory: Float32 | None) -> tuple[Float, Float]:
        """(E, N, O, D) value and spread of each quantity for each option, in its own unit."""
        w = self.weights
        shape = (*observation.pair.shape[:3], len(w["continuous.names"]))
        row, agent = np.nonzero(observation.live)
        mean, wide = np.zeros(shape), np.full(shape, np.inf)
        if len(row):
            z = self._embed(self.seen(observation, memory), row, agent, "continuous.pairs.")
            raw = (z @ w["continuous.out.weight"].T + w["continuous.out.bias"]).reshape(len(row), shape[2], -1, 2)
            value, spread = centre_and_spread(raw, DENSITIES[int(w["continuous.density"])], w["continuous.start"])
            low, high = w["continuous.low"], w["continuous.high"]
            used = np.asarray(observation.resource_of) >= 0
            mean[row, agent] = low + (high - low) * value
            wide[row, agent] = np.where(used[:, None], (high - low) * spread, np.inf)
        return mean, wide

    def remember(self, observation: Observation, memory: Float32 | None = None) -> Float32 | None:
        """(E, N, H) the memory after this slot, from each agent's own features; None for a policy without one."""
        w = self.weights
        if "memory.weight_ih" not in w:
            return None
        x = own_features(observation)
        hidden = w["memory.weight_hh"].shape[1]
        h = np.zeros((*x.shape[:2], hidden), np.float32) if memory is None else memory
        if h.shape[:2] != x.shape[:2]:
            raise ValueError(f"memory has shape {h.shape}; this situation needs {(*x.shape[:2], hidden)}")
        return gated(x, h, *(w[f"memory.{k}"] for k in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")))

    def seen(self, observation: Observation, memory: Float32 | None = None) -> Observation:
        """What the networks read: the observation, with the memory beside each agent's features."""
        h = self.remember(observation, memory)
        if h is None:
            return observation
        return observation._replace(agent=np.concatenate([observation.agent, h], axis=2))

    def carrying(self) -> ArrayPolicy | Carried:
        """A recommender for slots that follow each other: itself, or one that keeps this policy's memory."""
        return Carried(self) if "memory.weight_ih" in self.weights else self

    def _embed(self, observation: Observation, row: Any, agent: Any, prefix: str) -> Float32:
        """(M O, H) of M live agents' pairs."""
        w = {k: self.weights[prefix + k] for k in WEIGHTS}
        o = observation.pair.shape[2]
        own = observation.agent[row, agent] @ w["agent.weight"].T + w["agent.bias"]
        none = np.zeros((len(observation.pair), 1, own.shape[1]), np.float32)
        shared = np.concatenate([none, observation.resource @ w["resource.weight"].T], axis=1)
        z = observation.pair[row, agent].reshape(len(row) * o, -1) @ w["pair.weight"].T
        z = z.reshape(len(row), o, -1)
        z += own[:, None]
        z += shared[:, observation.resource_of + 1][row]
        if not prefix:
            z = exchange(self.weights, z, row, observation.allowed[row, agent], len(shared), observation.resource_of)
        np.maximum(z, 0, out=z)
        z = z.reshape(len(row) * o, -1) @ w["mix.weight"].T
        z += w["mix.bias"]
        np.maximum(z, 0, out=z)
        return np.asarray(z)


WEIGHTS = ("agent.weight", "agent.bias", "resource.weight", "pair.weight", "mix.weight", "mix.bias")
_PAIRS = {
    "agent.weight": "H A", "agent.bias": "H", "resource.weight": "H S", "pair.weight": "H P", "mix.weight": "M H",
    "mix.bias": "M",
}  # fmt: skip
SHAPES = _PAIRS | {"out.weight": "1 M", "out.bias": "1", "scale": ""}  # axes by letter; those of one name agree
OPTIONAL = {
    "memory.weight_ih": "3G X", "memory.weight_hh": "3G G", "memory.bias_ih": "3G", "memory.bias_hh": "3G",
    "node.weight": "H Y", "node.bias": "H", "back.weight": "H H", "rounds": "", "pool.weight": "H H", "pool.bias": "H",
    "trust": "", "trained_trust": "", "ranges/agent": "2 *", "ranges/resource": "2 *", "ranges/pair": "2 *",
    "continuous.density": "", "continuous.start": "", "continuous.names": "Q", "continuous.low": "Q",
    "continuous.high": "Q", "continuous.out.weight": "2Q c", "continuous.out.bias": "2Q",
    "continuous.pairs.out.weight": "1 c", "continuous.pairs.out.bias": "1",
} | {f"continuous.pairs.{k}": v.translate(str.maketrans("HM", "hc")) for k, v in _PAIRS.items()}  # fmt: skip


def wrong_weights(weights: Mapping[str, NDArray[Any]]) -> str:
    """What is wrong with a policy's weights by name, shape or value; "" where nothing is."""
    heads = any(name.startswith("continuous.") for name in weights)
    for name in (*SHAPES, *(k for k in OPTIONAL if heads and k.startswith("continuous."))):
        if name not in weights:
            return f"{name} is missing"
    sizes: dict[str, int] = {}
    for name, value in weights.items():
        axes = (SHAPES | OPTIONAL).get(name)
        if axes is None:
            return f"{name[:60]!r} is unknown"
        if (value.dtype.kind == "U") != (name == "continuous.names"):
            return f"{name} is of dtype {value.dtype}"
        if value.dtype.kind == "f" and name not in NOTED and not np.isfinite(value).all():
            return f"{name} holds what is not finite"
        if len(axes.split()) != value.ndim or not all(map(partial(_agrees, sizes), axes.split(), value.shape)):
            return f"{name} has shape {value.shape}; it needs axes ({axes})"
    if not 0 <= int(weights.get("rounds", np.int64(0))) <= 100:
        return f"rounds = {weights['rounds']}; 0 to 100 are served"
    return ""


def _agrees(sizes: dict[str, int], axis: str, size: int) -> bool:
    """Whether an axis such as "H", "3G", "2" or "*" (any) is ``size`` long, where a letter stands for one number."""
    times, letter = int(axis.rstrip(string.ascii_letters + "*") or 1), axis.lstrip(string.digits)
    if letter == "*":
        return True
    return size == times * (sizes.setdefault(letter, size // times) if letter else 1)


class Carried:
    """A policy with its memory from slot to slot; call :meth:`propose` once a slot, in order."""

    def __init__(self, policy: ArrayPolicy) -> None:
        self.policy, self.name = policy, policy.name
        self.after: Float32 | None = None

    def propose(self, observation: Observation) -> Proposal:
        """As the policy's, with what it remembers; another number of networks or agents starts it afresh."""
        if self.after is not None and self.after.shape[:2] != observation.live.shape:
            self.after = None
        before, self.after = self.after, self.policy.remember(observation, self.after)
        return self.policy.propose(observation, before)

    def reset(self, which: NDArray[np.bool_]) -> None:
        """Forget in the networks ``which`` (E,): another episode begins."""
        if self.after is not None:
            self.after = np.where(which[:, None, None], np.float32(0), self.after)


@runtime_checkable
class Has(Protocol):
    """What serves or trains a policy: a learner, a policy with its memory."""

    policy: ArrayPolicy


def notes_of(recommender: object) -> Notes:
    """The notes of a policy, or of the policy that a recommender has; none of any other recommender."""
    policy = recommender.policy if isinstance(recommender, Has) else recommender
    return policy.notes if isinstance(policy, ArrayPolicy) else Notes()


def gated(x: Float32, h: Float32, w_x: Float32, w_h: Float32, b_x: Float32, b_h: Float32) -> Float32:
    """One step of a gated recurrent unit (Cho et al. 2014), as ``torch.nn.GRUCell``: (E, N, H)."""
    size = h.shape[-1]
    a, b = x @ w_x.T + b_x, h @ w_h.T + b_h
    sigmoid = lambda u: 1.0 / (1.0 + np.exp(-u))
    reset, keep = np.split(sigmoid(a[..., : 2 * size] + b[..., : 2 * size]), 2, axis=-1)
    new = np.tanh(a[..., 2 * size :] + reset * b[..., 2 * size :])
    return np.asarray((1 - keep) * new + keep * h, np.float32)


def centre_and_spread(raw: NDArray[Any], density: str, start: Any) -> tuple[Float, Float]:
    """Value and spread in units of the range, (...,), from raw heads (..., 2); see :mod:`rl.continuous`."""
    first, second = raw[..., 0].astype(np.float64), raw[..., 1].astype(np.float64)
    if density == "beta":
        a, b = 1 + np.logaddexp(0, first), 1 + np.logaddexp(0, second)
        return a / (a + b), np.sqrt(a * b / (a + b + 1)) / (a + b)
    spread = start * np.exp(np.clip(second, -5.0, 3.0))
    if density == "clipped":
        return 0.5 + first, spread
    slope = 1 - np.tanh(first) ** 2
    return (1 + np.tanh(first)) / 2, np.maximum(spread * slope, 1e-3)


def exchange(
    w: Mapping[str, NDArray[Any]], x: Float32, row: Any, allowed: NDArray[np.bool_], rows: int, resource_of: Any
) -> Float32:
    """(M, O, H) what :mod:`rl.graph` and :mod:`rl.information` add to the pairs of agents that hear each other."""
    if "node.weight" in w:
        used = allowed & (resource_of >= 0)
        edge = used[..., None].astype(np.float32)
        stands = np.eye(resource_of.max(initial=-1) + 2, dtype=np.float32)[resource_of + 1].T  # (1 + R, O)
        degree = stands @ _total(edge, row, rows)
        own = np.maximum(edge.sum(axis=1), 1)
        heard = x
        for _ in range(int(w["rounds"])):
            message = np.maximum(heard, 0) * edge
            mean = stands @ _total(message, row, rows) / np.maximum(degree, 1)
            node = np.concatenate([mean, np.log1p(degree)], axis=2) @ w["node.weight"].T + w["node.bias"]
            back = message.sum(axis=1) / own @ w["back.weight"].T
            heard = x + edge * (node[:, resource_of + 1][row] + back[:, None])
        return heard
    if "pool.weight" in w:
        edge = allowed[..., None].astype(np.float32)
        one = (np.maximum(x, 0) * edge).sum(axis=1) / np.maximum(edge.sum(axis=1), 1)
        count = np.maximum(np.bincount(row, minlength=rows), 1)
        mean = _total(one, row, rows) / count[:, None].astype(np.float32)
        return x + (mean @ w["pool.weight"].T + w["pool.bias"])[row][:, None]
    return x


def _total(x: Float32, row: Any, rows: int) -> Float32:
    """(rows, ...) sums of x (M, ...) by ``row`` (M,), which is in order."""
    out = np.zeros((rows, *x.shape[1:]), np.float32)
    some, first = np.unique(row, return_index=True)
    out[some] = np.add.reduceat(x, first, axis=0)
    return out
