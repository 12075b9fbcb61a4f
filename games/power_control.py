r"""Least powers that meet signal-to-interference floors: Foschini and Miljanic, with a verdict.

User i needs :math:`G_{ii} p_i / (n_i + \sum_{j \ne i} G_{ji} p_j) \ge \gamma_i`, that is
:math:`p \ge F p + b` with :math:`F_{ij} = \gamma_i G_{ji} / G_{ii}`, :math:`b_i = \gamma_i n_i / G_{ii}`.
The update :math:`p \leftarrow \min(F p + b, p^{max})` is a standard interference function: from anywhere it
converges to the least powers if floors and limits can be met together. That is decided here without waiting:
without limits if and only if the spectral radius of F is below 1; with limits if and only if
:math:`p^* = (I - F)^{-1} b \le p^{max}`. The largest factor that all floors can be multiplied with is
:math:`1 / \max_i \rho(F + b e_i' / p_i^{max})`.

Sources: Foschini and Miljanic (1993), "A simple distributed autonomous power control algorithm"; Yates (1995),
"A framework for uplink power control"; Tan, Chiang and Srikant (2011) for the factor.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from games.congestion import Bool, Float
from games.errors import InvalidGameError, floats, shaped


@dataclass(frozen=True)
class PowerControl:
    """Powers and what they achieve.

    Attributes:
        power: (N,); the least that meet all floors, or the fixed point under the limits if none do.
        sinr: (N,) reached.
        served: (N,) bool, floor met.
        margin: largest factor by which all floors could be multiplied; below 1 they cannot all hold.
        radius: spectral radius of F; at 1 or above no power whatever meets the floors.
        iterations: updates made.
        status: "optimal", "infeasible: ..." with the reason, or what stopped it.
    """

    power: Float
    sinr: Float
    served: Bool
    margin: float
    radius: float
    iterations: int
    status: str


def foschini_miljanic(
    gain: ArrayLike,
    noise: ArrayLike,
    floor: ArrayLike,
    limit: ArrayLike,
    start: ArrayLike | None = None,
    *,
    tolerance: float = 1e-10,
    max_iterations: int = 100_000,
) -> PowerControl:
    """Least powers for the floors.

    Args:
        gain: (N, N), ``gain[j, i]`` from transmitter j to receiver i, >= 0; own gains > 0.
        noise: (N,) or one number, > 0.
        floor: (N,) SINR needed, >= 0 (a ratio, not dB).
        limit: (N,) largest powers, > 0; inf for none.
        start: (N,) powers to begin from; default 0.
        tolerance: largest relative change of a power at which to stop.
        max_iterations: updates.

    Returns:
        PowerControl; where the floors cannot all hold, ``served`` and ``margin`` say who misses and by how much.

    Raises:
        InvalidGameError: names field, index, value and what is permitted.
    """
    G, gamma = floats("gain", gain), floats("floor", floor)
    if G.ndim != 2 or G.shape[0] != G.shape[1]:
        raise InvalidGameError(f"gain has shape {G.shape}; it is (N, N): transmitter, receiver")
    n = len(G)
    most = floats("limit", limit)
    level = floats("noise", noise)
    if level.shape not in ((), (n,)):
        raise InvalidGameError(f"noise has shape {level.shape}; give one number or ({n},)")
    level = np.broadcast_to(level, (n,))
    own = G.diagonal()
    for name, array, good, rule in (
        ("floor", gamma, np.isfinite(gamma) & (gamma >= 0), "a floor is finite and >= 0"),
        ("limit", most, most > 0, "a limit is > 0"),
    ):
        if array.shape != (n,):
            raise InvalidGameError(f"{name} has shape {array.shape}; {n} users need ({n},)")
        if not good.all():
            i = int(np.argmin(good))
            raise InvalidGameError(f"{name}[{i}] = {array[i]}; {rule}")
    for name, array, good, rule in (
        ("gain", G, np.isfinite(G) & (G >= 0), "a gain is finite and >= 0"),
        ("own gain", own, own > 0, "a user's own gain is > 0"),
        ("noise", level, np.isfinite(level) & (level > 0), "noise is finite and > 0"),
    ):
        if not good.all():
            at = tuple(int(v) for v in np.argwhere(~good)[0])
            raise InvalidGameError(f"{name}[{', '.join(map(str, at))}] = {array[at]}; {rule}")
    if n == 0:
        empty = np.zeros(0)
        return PowerControl(empty, empty, np.zeros(0, bool), np.inf, 0.0, 0, "optimal")
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        F = gamma[:, None] * G.T / own[:, None]
        np.fill_diagonal(F, 0.0)
        b = gamma * level / own
        reach = np.where(np.isinf(most), 0.0, b / most)
    far = ~np.isfinite(F).all(axis=1) | ~np.isfinite(b) | ~np.isfinite(reach)
    if far.any():
        i = int(far.argmax())
        raise InvalidGameError(
            f"gain[{i}, {i}] = {own[i]} and limit[{i}] = {most[i]} ask for a power beyond float64; change a unit"
        )
    radius = _radius(F)
    bound = max((_radius(F + np.outer(b, np.eye(n)[i]) / most[i]) for i in range(n)), default=0.0)
    margin = np.inf if bound == 0 else 1 / bound
    power = np.zeros(n) if start is None else np.minimum(shaped("start", start, (n,), 0.0), most)
    iterations = 0
    diverging = radius >= 1 and np.isinf(most).any()
    if not diverging:
        while iterations < max_iterations:
            iterations += 1
            after = np.minimum(F @ power + b, most)
            change = np.abs(after - power) / np.maximum(after, 1e-300)
            power = after
            if change.max() <= tolerance:
                break
        if radius < 1:
            # the limit of the updates, exactly
            exact = np.linalg.solve(np.eye(n) - F, b)
            if (exact <= most * (1 + 1e-12)).all():
                power = np.minimum(exact, most)
    sinr = own * power / (level + G.T @ power - own * power)
    served = sinr >= gamma * (1 - 1e-9)
    if margin >= 1 - 1e-12 and served.all():
        status = "optimal"
    elif radius >= 1:
        status = f"infeasible: spectral radius {radius:.4g} >= 1, no powers meet all floors"
    elif margin < 1:
        status = f"infeasible: limits, floors could be met at {margin:.4g} of their height"
    else:
        status = f"stopped after {max_iterations} updates"
    return PowerControl(power, sinr, served, float(margin), radius, iterations, status)


def _radius(matrix: Float) -> float:
    return float(np.abs(np.linalg.eigvals(matrix)).max())
