r"""Trust adapted online: exponential weights over a grid of trusts.

:class:`Hedge` sees every trust's loss after each step (full information: what each would have cost on the state
revealed since). Its rate is AdaHedge's, eta_t = ln K / (Delta_{t-1} + S_{t-1}) with Delta the cumulated mixability gap
and S the largest spread of a step's losses over trusts, which needs neither the number of steps nor the losses' range.
AdaHedge itself has no S; with it the first steps' noise is not followed. With s_t the spread of step t and p_k the
weight that trust k began with,

.. math:: R_T(k) \le (1 + q_k) B + q_k S_T, \quad q_k = \ln(1/p_k) / \ln K,
          \quad B = \tfrac12 \sqrt{\ln K \sum_t s_t^2} + S_T (\tfrac23 \ln K + 1)

for every sequence, an adversary's included: R_T(k) is the expected loss less that of trust k. Uniform weights have
q = 1; nine tenths of the weight on one trust give it q = .05, and the others 2.1, K = 7.

Proof. The mix's -ln(sum_k p_k exp(-eta L_k)) / eta is at most L_k + ln(1/p_k) / eta and falls as eta rises, so
R_T(k) <= Delta_T + q_k (Delta_T + S_T). And Delta_T <= B as without S: a step's gap d has 2 d / eta <= v + 2/3 s d and
d <= s, with v <= s^2 / 4 (source, proof of theorem 6). So Delta_T^2 = sum 2 d_t Delta_{t-1} + d_t^2, in which
Delta_{t-1} <= ln K / eta_t, is at most ln K sum v_t + (2/3 ln K + 1) S_T Delta_T.

:class:`Exp3` sees only the loss of the trust that was played, in [0, 1]; with eta_t = sqrt(ln K / (t K)) its
expected loss is within 2 sqrt(T K ln K) of that of any trust that is fixed beforehand.

Sources: de Rooij, van Erven, Gruenwald and Koolen (2014), "Follow the leader if you can, hedge if you must",
theorem 6 and corollary 9; Auer et al. (2002) and Bubeck and Cesa-Bianchi (2012), theorem 3.1, for Exp3.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from games.congestion import Float

START = 0.9


class Hedge:
    """AdaHedge over K trusts.

    Args:
        grid: (K,) trusts. start: index of the one that begins with nine tenths of the weight; default all alike.

    Attributes:
        loss: (K,) cumulated losses. played: cumulated expected loss. gap: Delta, the cumulated mixability gap.
        squares, widest: sum of squared spreads and the largest spread, for the bound.
    """

    name = "hedge"

    def __init__(self, grid: ArrayLike, start: int | None = None) -> None:
        self.grid = check_grid(grid)
        k = len(self.grid)
        self.first = np.full(k, 1 / k if start is None else (1 - START) / (k - 1))
        if start is not None:
            self.first[start] = START
        self.loss = np.zeros(k)
        self.played, self.gap, self.squares, self.widest = 0.0, 0.0, 0.0, 0.0

    @property
    def weights(self) -> Float:
        """(K,) the mix to draw the next trust from."""
        low = self.loss - self.loss.min()
        w = np.exp(-self.rate * low) if self.rate < np.inf else (low == 0.0).astype(float)
        return np.asarray(self.first * w / (self.first @ w))

    @property
    def rate(self) -> float:
        slow = self.gap + self.widest
        return float(np.log(len(self.loss)) / slow) if slow > 0 else np.inf

    def learn(self, losses: ArrayLike) -> None:
        """One step's loss of every trust (K,), in any unit; smaller is better.

        Raises:
            ValueError: a wrong shape or a loss that is not finite; nothing is learned then.
        """
        given = np.asarray(losses, dtype=float)
        if given.shape != self.grid.shape or not np.isfinite(given).all():
            raise ValueError(f"losses = {given}; one finite number for each of {len(self.grid)} trusts is needed")
        expected, spread = float(self.weights @ given), float(np.ptp(given))
        mixed = self._mix(self.loss + given) - self._mix(self.loss)
        self.gap += max(expected - mixed, 0.0)
        self.loss += given
        self.played += expected
        self.squares += spread**2
        self.widest = max(self.widest, spread)

    def _mix(self, loss: Float) -> float:
        """-log(sum first exp(-rate loss)) / rate at the present rate; the least loss where the rate is infinite."""
        least = float(loss.min())
        if self.rate == np.inf:
            return least
        return float(least - np.log(self.first @ np.exp(-self.rate * (loss - least))) / self.rate)

    @property
    def regret(self) -> float:
        """Expected loss so far less the best trust's."""
        return float(self.played - self.loss.min())

    @property
    def bound(self) -> float:
        """What ``regret`` cannot exceed, whatever the losses were."""
        log_k = np.log(len(self.grid))
        q = -np.log(self.first[self.loss.argmin()]) / log_k
        gap = 0.5 * np.sqrt(log_k * self.squares) + self.widest * (2 / 3 * log_k + 1)
        return float((1 + q) * gap + q * self.widest)

    def state(self) -> dict[str, Any]:
        """Plain numbers, ready for JSON; :meth:`restore` reads them."""
        return {"loss": self.loss.tolist(), "played": self.played, "gap": self.gap, "squares": self.squares,
                "widest": self.widest}  # fmt: skip

    def restore(self, state: dict[str, Any]) -> None:
        self.loss = np.asarray(state["loss"], float)
        self.played, self.gap = state["played"], state["gap"]
        self.squares, self.widest = state["squares"], state["widest"]


class Exp3:
    """Exponential weights on importance-weighted losses of the trust that was played."""

    name = "exp3"

    def __init__(self, grid: ArrayLike) -> None:
        self.grid = check_grid(grid)
        self.loss = np.zeros(len(self.grid))
        self.steps = 0

    @property
    def weights(self) -> Float:
        """(K,) the mix to draw the next trust from."""
        k = len(self.grid)
        w = np.exp(-np.sqrt(np.log(k) / ((self.steps + 1) * k)) * (self.loss - self.loss.min()))
        return np.asarray(w / w.sum())

    def learn(self, played: int, loss: float) -> None:
        """The loss, in [0, 1], of the trust at index ``played``, drawn from ``weights``.

        Raises:
            ValueError: a loss outside [0, 1].
        """
        if not 0.0 <= loss <= 1.0:
            raise ValueError(f"loss = {loss}; Exp3 needs a loss in [0, 1]")
        self.loss[played] += loss / self.weights[played]
        self.steps += 1

    @property
    def bound(self) -> float:
        """What the expected regret against a trust fixed beforehand cannot exceed."""
        k = len(self.grid)
        return float(2 * np.sqrt(self.steps * k * np.log(k)))

    def state(self) -> dict[str, Any]:
        return {"loss": self.loss.tolist(), "steps": self.steps}

    def restore(self, state: dict[str, Any]) -> None:
        self.loss, self.steps = np.asarray(state["loss"], float), state["steps"]


def check_grid(grid: ArrayLike) -> Float:
    """(K,) trusts, each >= 0, at least two; or a ValueError that names the entry."""
    trusts = np.atleast_1d(np.asarray(grid, dtype=float))
    if trusts.ndim != 1 or len(trusts) < 2:
        raise ValueError(f"a grid of trusts has at least two entries; got {trusts.tolist()}")
    bad = ~(trusts >= 0)
    if bad.any():
        k = int(np.argmax(bad))
        raise ValueError(f"grid[{k}] = {trusts[k]}; a trust is >= 0 (0 is pure RL, inf the pure game)")
    return trusts
