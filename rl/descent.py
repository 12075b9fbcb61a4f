"""Actor gradients by the compiled pass of :mod:`rl.pairs`, for the pair scorer alone.

Weights and optimizers stay torch's. What torch does with other actors (graph, pooled, with continuous heads or a
memory) is the reference; the gradients agree to float32's rounding.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from rl.batch import Batch
from rl.networks import PairScorer
from rl.pairs import CLIPPED, FIGURES, Scorer, densities, learn, no_slopes, scorer_of

ENGINES = ("auto", "compiled", "torch")
LAYERS = {"agent", "pair", "resource", "mix", "out"}


def engine_of(wanted: str, actor: nn.Module, passes: bool = True) -> str:
    """ "compiled" or "torch": what computes the gradients of an actor, where "auto" takes the first that can.

    Raises:
        ValueError: "compiled" is wanted, and the actor has more than a pair scorer's layers or the learner's loss has
            no pass (``passes``); or a name that is none.
    """
    if wanted not in ENGINES:
        raise ValueError(f"engine = {wanted!r}; it must be one of {', '.join(ENGINES)}")
    more = {name for name, _ in actor.named_children()} - LAYERS
    more |= set() if passes else {"a loss of another kind"}
    if isinstance(actor, PairScorer) and actor.information != "own":
        more.add(f"network {actor.information!r}")
    if wanted == "compiled" and more:
        raise ValueError(
            f"engine = 'compiled' knows the plain pair scorer alone, and here there is {', '.join(sorted(more))}; "
            "engine = 'torch' or 'auto' learns it"
        )
    return "torch" if more or wanted == "torch" else "compiled"


class Part(NamedTuple):
    """K live agents of some rows of a rollout, as :func:`rl.pairs.learn` reads them."""

    at: NDArray[np.int64]
    agent: NDArray[np.int64]
    row: NDArray[np.int64]
    features: NDArray[np.float32]  # (K, A)
    own: NDArray[np.float32]  # (K, H)
    shared: NDArray[np.float32]  # (b, O, H)
    weights: Scorer


def part_of(actor: PairScorer, batch: Batch, rows: NDArray[np.int64]) -> Part:
    """The live agents of ``rows`` under the actor's present weights."""
    n = lambda p: p.detach().numpy()
    row, agent = map(np.ascontiguousarray, np.nonzero(batch.live.numpy()[rows]))
    at = rows[row]
    features = batch.agent.numpy()[at, agent]
    own = features @ n(actor.agent.weight).T + n(actor.agent.bias)
    resource = batch.resource.numpy()[rows] @ n(actor.resource.weight).T
    none = np.zeros((len(rows), 1, own.shape[1]), np.float32)
    shared = np.ascontiguousarray(np.concatenate([none, resource], axis=1)[:, batch.resource_of.numpy() + 1])
    w = scorer_of({name: n(p) for name, p in actor.named_parameters()}, actor.scale)
    return Part(at, agent, row, features, own, shared, w)


def set_gradients(
    actor: PairScorer, batch: Batch, rows: Tensor, advantage: Tensor, limit: float, clip: float, entropy: float,
    kind: int = CLIPPED,
) -> dict[str, float]:  # fmt: skip
    """Set the actor's gradients of the mean loss -gain - ``entropy`` H over the live agents of ``rows``.

    Args:
        advantage: (B, N) of the whole rollout. kind: what is ascended, see :func:`rl.pairs.learn`. clip: of the ratio.

    Returns:
        the means of what :mod:`rl.mappo` says of a step: policy_loss, entropy, kl, clipped, and of the two heads.
    """
    part = part_of(actor, batch, rows.numpy())
    options = batch.allowed.shape[2]
    w, d = part.weights, no_slopes(len(part.at), len(rows), options, part.weights)
    sums, f = np.zeros(len(FIGURES)), np.float32
    a = lambda name: getattr(batch, name).numpy()
    of = a("resource_of")
    learn(
        part.own, a("pair"), part.shared, part.at, part.agent, part.row, a("bias"), a("allowed"), a("option"), a("old"),
        advantage.numpy(), of >= 0, w, kind, f(limit), f(clip), f(entropy), d, sums,
    )  # fmt: skip
    resource = a("resource")[rows.numpy()]
    by_resource = np.zeros((len(rows), resource.shape[1] + 1, part.own.shape[1]), f)
    for o in range(options):
        by_resource[:, of[o] + 1] += d.shared[:, o]
    flat = lambda x: x.reshape(-1, x.shape[-1])
    t: Any = torch.from_numpy
    actor.agent.weight.grad, actor.agent.bias.grad = t(d.own.T @ part.features), t(d.own.sum(axis=0))
    actor.pair.weight.grad = t(np.ascontiguousarray(d.pair.T))
    actor.resource.weight.grad = t(flat(by_resource[:, 1:]).T @ flat(resource))
    actor.mix.weight.grad, actor.mix.bias.grad = t(d.mix), t(d.mix_bias)
    actor.out.weight.grad, actor.out.bias.grad = t(d.out)[None], t(d.out_bias)
    return _means(sums, len(part.at))


def _means(sums: NDArray[np.float64], agents: int) -> dict[str, float]:
    told = dict(zip(FIGURES, (sums / max(agents, 1)).tolist(), strict=True))
    able, home = sums[6], sums[7]
    found = {"policy_loss": -told["gain"], "entropy": told["entropy"], "kl": told["kl"], "clipped": told["clipped"]}
    if able and home:
        found |= {"entropy_mode": float(sums[4] / able), "entropy_server": float(sums[5] / able)}
    return found


def log_densities(actor: PairScorer, batch: Batch, rows: Tensor, limit: float) -> tuple[Any, Any, Any]:
    """(K,) executed log-densities, as of now, of what the live agents of ``rows`` did; their rows in it, and agents."""
    part = part_of(actor, batch, rows.numpy())
    out = np.empty(len(part.at), np.float32)
    a = lambda name: getattr(batch, name).numpy()
    densities(
        part.own, a("pair"), part.shared, part.at, part.agent, part.row, a("bias"), a("allowed"), a("option"),
        part.weights, np.float32(limit), out,
    )  # fmt: skip
    return out, part.row, part.agent
