r"""Decisions at any time: discounting by the time that went by, of which slots of equal length are the special case.

A decision at time t whose successor comes tau later, in the problem's unit, has the discount gamma^tau: the process of
decisions is semi-Markov, and its values obey

    V(s) = max_o E[r(s, o) + gamma^tau V(s')]

with r what the decision is worth at its own time. Lambda counts decisions, gamma counts time: the generalised
advantage weighs the k-th error ahead by lambda^k gamma^(tau_1 + ... + tau_k), so that lambda 0 is the one-decision
error, lambda 1 the discounted return, and a decision that is split in two leaves the latter as it was.

Sources: Bradtke and Duff (1995), "Reinforcement learning methods for continuous-time Markov decision problems"; Sutton,
Precup and Singh (1999), "Between MDPs and semi-MDPs".
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float64]


def discounts(gamma: float, elapsed: Float) -> Float:
    """gamma ** elapsed, of elapsed's shape, as Python computes it: exactly gamma where one unit went by.

    (numpy's vectorised power may be off by the last bit, and a training curve would follow it.)
    """
    if (elapsed == 1.0).all():
        return np.full(elapsed.shape, float(gamma))
    return np.array([float(gamma) ** t for t in elapsed.ravel().tolist()]).reshape(elapsed.shape)


def durations(elapsed: Float | None, networks: int) -> Float:
    """(E,) how long decisions lasted; None is one unit each.

    Raises:
        ValueError: another shape, or one that is negative or not finite, by its index.
    """
    if elapsed is None:
        return np.ones(networks)
    lasted = np.array(elapsed, np.float64)
    if lasted.shape != (networks,):
        raise ValueError(f"elapsed has shape {lasted.shape}; {networks} networks need ({networks},)")
    wrong = ~(np.isfinite(lasted) & (lasted >= 0))
    if wrong.any():
        e = int(np.argmax(wrong))
        raise ValueError(f"elapsed[{e}] = {lasted[e]}; a decision lasts a finite time >= 0, in the problem's unit")
    return lasted


def ends(terminated: NDArray[np.bool_] | None, networks: int) -> NDArray[np.bool_]:
    """(E,) whose episodes ended for good with the decision; None is nobody's.

    Raises:
        ValueError: another shape.
    """
    if terminated is None:
        return np.zeros(networks, bool)
    ended = np.array(terminated, bool)
    if ended.shape != (networks,):
        raise ValueError(f"terminated has shape {ended.shape}; {networks} networks need ({networks},)")
    return ended


def parted(
    ended: NDArray[np.bool_], left: NDArray[np.bool_] | None, agents: int, apart: bool = True
) -> NDArray[np.bool_]:
    """(E, N) for whom nothing follows a decision: their episodes ``ended`` (E,), or they ``left`` (E, N) them.

    Args:
        apart: agents are paid each for itself; who shares its pay goes on when another leaves.

    Raises:
        ValueError: ``left`` has another shape.
    """
    out = np.repeat(ended[:, None], agents, axis=1)
    if left is None or not apart:
        return out
    if np.shape(left) != out.shape:
        raise ValueError(f"left has shape {np.shape(left)}; {len(out)} networks of {agents} agents need {out.shape}")
    return out | left
