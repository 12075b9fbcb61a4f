r"""What a step pays, the same to every inverter: what it costs, or one of MAPDN's rewards.

- "cost": line loss, a charge for a step with a bus outside the band and one for each mpu outside, in 100 kW.
- "l1", "l2", "bowl": :math:`-mean_k f(v_k) - 0.1\, mean_i |q_i|` with Wang et al.'s barriers f, which know neither the
  loss nor which band is kept: :math:`|v - 1|`; :math:`2 (v - 1)^2`; or a bowl, inside :math:`1 \pm 0.05` a Gaussian
  upside down and :math:`2 |v - 1| - 0.095` outside. -200 where there is no flow.

Source: Wang et al. (2021), "Multi-agent reinforcement learning for active voltage control on power distribution
networks" (MAPDN), section 4 and its ``voltage_barrier``.
"""

from __future__ import annotations

import numpy as np

from games.congestion import Bool, Float

OUTSIDE_KW, MPU_KW = 300.0, 20.0  # a step with a bus outside, and a mpu of the worst excess, in kW of loss
INSIDE = 1e-6  # p.u. over a limit that counts as inside
UNSOLVED_MPU, UNSOLVED_KW = 200.0, 2e3  # what a step counts as whose flow has no solution
REWARDS = ("cost", "l1", "l2", "bowl")
Q_WEIGHT, COLLAPSE = 0.1, -200.0
HALF, WIDTH = 0.05, 0.1  # of the bowl, p.u.


def cost_kw(loss_kw: Float, inside: Bool, worst_mpu: Float) -> Float:
    """(E,) kW: loss, with what leaving the band costs."""
    return np.asarray(loss_kw + OUTSIDE_KW * ~inside + MPU_KW * worst_mpu)


def outside(voltage: Float, low: float, high: float) -> Float:
    """(...,) p.u. by which the worst of voltages (..., B), the substation's aside, is outside the band."""
    over = np.maximum(np.maximum(low - voltage, voltage - high), 0.0)
    return np.asarray(over[..., 1:].max(-1, initial=0.0))


def counted(loss_mw: Float, over: Float, solved: Bool) -> tuple[Float, Bool, Float]:
    """Loss in kW, whether all buses are inside, and the worst excess in mpu, as a step counts them; ``over`` in p.u."""
    worst, loss_kw = np.where(solved, 1e3 * over, UNSOLVED_MPU), np.where(solved, 1e3 * loss_mw, UNSOLVED_KW)
    return loss_kw, solved & (over <= INSIDE), worst


def paid(kind: str, cost: Float, voltage: Float, level: Float, solved: Bool) -> Float:
    """(E,) reward of a step that cost (E,) kW with voltages (E, B) and reactive power (E, N)."""
    if kind == "cost":
        return np.asarray(-cost / 100.0)
    size = np.abs(voltage - 1.0)
    if kind == "l1":
        barrier = size
    elif kind == "l2":
        barrier = 2 * size**2
    else:
        normal = np.exp(-0.5 * (size / WIDTH) ** 2) / np.sqrt(2 * np.pi * WIDTH**2)
        barrier = np.where(size > HALF, 2 * size - 0.095, 0.04 - 0.01 * normal)
    used = np.abs(level).mean(1) if level.shape[1] else np.zeros(len(level))
    return np.where(solved, -barrier.mean(1) - Q_WEIGHT * used, COLLAPSE)
