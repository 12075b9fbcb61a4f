r"""What value decomposition can say of a payoff table of two agents, whatever it is trained with.

VDN's team value is a sum of the agents' own, QMIX's grows in each of them. Of a table M (O, P) of the team's payoffs
the best additive fit is that of row and column means; the best monotone one is the isotonic table of least squares over
all orders of either agent's actions, which is looked for by swaps from the order of the means. What is then played is
each agent's own best, and its regret is how much the table pays at its best beyond that. IQL under uniform exploration
sees the means, and so plays as VDN does.

QMIX's own mixer can say less than any monotone table (:mod:`rl.value_decomposition`); this is what no training mends.

Sources: Rashid et al. (2018), "QMIX"; Rashid et al. (2020), "Weighted QMIX", for fit and greedy choice; Barlow et al.
(1972), "Statistical inference under order restrictions"; Dykstra and Robertson (1982), "An algorithm for isotonic
regression for two or more independent variables".
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

Float = NDArray[np.float64]
Int = NDArray[np.int64]
TURNS, STILL = 400, 1e-10  # of the projections in turn; of the table's span
PLAIN: dict[str, Any] = {"cache": True, "error_model": "numpy", "nogil": True}


class Fit(NamedTuple):
    """Of T tables: what each agent plays, ``first`` and ``second`` (T,); what is lost by it, ``regret`` (T,) in the
    tables' unit; and the fit's root mean squared ``error`` (T,)."""

    first: Int
    second: Int
    regret: Float
    error: Float


def additive(tables: Float) -> Fit:
    """The best sums of two agents' own values for tables (T, O, P)."""
    rows, columns = tables.mean(2), tables.mean(1)
    fit = rows[:, :, None] + columns[:, None, :] - tables.mean((1, 2))[:, None, None]
    return _fit(tables, rows.argmax(1), columns.argmax(1), ((fit - tables) ** 2).mean((1, 2)))


def monotone(tables: Float) -> Fit:
    """The best tables (T, O, P) that grow in either agent's own value, as far as swaps of two actions find them."""
    tables = np.ascontiguousarray(tables, np.float64)
    first, second = np.zeros((2, len(tables)), np.int64)
    error = np.zeros(len(tables))
    _orders(tables, first, second, error)
    return _fit(tables, first, second, error / tables[0].size if len(tables) else error)


def _fit(tables: Float, first: Int, second: Int, square: Float) -> Fit:
    best = tables.max((1, 2), initial=-np.inf)
    return Fit(first, second, best - tables[np.arange(len(tables)), first, second], np.sqrt(square))


@njit(**PLAIN)
def _orders(tables, first, second, error):
    o, p = tables.shape[1], tables.shape[2]
    for t in range(len(tables)):
        table = tables[t]
        means, others = np.zeros(o), np.zeros(p)
        for i in range(o):
            for j in range(p):
                means[i] += table[i, j] / p
                others[j] += table[i, j] / o
        a, b = np.argsort(means), np.argsort(others)
        least = off(table, a, b)
        better = True
        while better:
            better = False
            for order in (a, b):
                for i in range(len(order)):
                    for j in range(i):
                        order[i], order[j] = order[j], order[i]
                        now = off(table, a, b)
                        if now < least * (1.0 - 1e-9) - 1e-15:
                            least, better = now, True
                        else:
                            order[i], order[j] = order[j], order[i]
        first[t], second[t], error[t] = a[-1], b[-1], least


@njit(**PLAIN)
def off(table, a, b):
    """Squared error of the isotonic fit of a table (O, P) whose rows and columns are taken in orders ``a``, ``b``."""
    o, p = table.shape
    x, lean, tilt = np.empty((o, p)), np.zeros((o, p)), np.zeros((o, p))
    for i in range(o):
        for j in range(p):
            x[i, j] = table[a[i], b[j]]
    given = x.copy()
    span = given.max() - given.min()
    for _ in range(TURNS):
        before = x.copy()
        y = x + lean
        for i in range(o):
            pool(y[i])
        lean = x + lean - y
        x = y + tilt
        for j in range(p):
            pool(x[:, j])
        tilt = y + tilt - x
        if np.abs(x - before).max() <= STILL * span:
            break
    return ((x - given) ** 2).sum()


@njit(**PLAIN)
def pool(y):
    """Overwrite ``y`` by the nearest sequence that does not fall: adjacent violators are pooled."""
    n = len(y)
    value, count = np.empty(n), np.empty(n, np.int64)
    blocks = 0
    for k in range(n):
        value[blocks], count[blocks] = y[k], 1
        blocks += 1
        while blocks > 1 and value[blocks - 2] > value[blocks - 1]:
            both = count[blocks - 2] + count[blocks - 1]
            value[blocks - 2] = (value[blocks - 2] * count[blocks - 2] + value[blocks - 1] * count[blocks - 1]) / both
            count[blocks - 2] = both
            blocks -= 1
    k = 0
    for block in range(blocks):
        for _ in range(count[block]):
            y[k] = value[block]
            k += 1
