"""Payoff tables of two agents, and the best monotone table for one by convex programmes over all orders."""

from __future__ import annotations

import itertools

import cvxpy as cp
import numpy as np

CLIMBING = np.array([[11.0, -30.0, 0.0], [-30.0, 7.0, 6.0], [0.0, 0.0, 5.0]])
MONOTONE = np.array([[0.0, 0.2, 0.3], [0.1, 0.6, 0.9], [0.2, 0.9, 2.0]])


def best_monotone_fit(payoff):
    """Least squares over every order of both agents' options of tables monotone in them: loss and greedy choice."""
    best = None
    n = len(payoff)
    for rows in itertools.permutations(range(n)):
        for columns in itertools.permutations(range(n)):
            f = cp.Variable((n, n))
            error = cp.sum_squares(f - payoff[np.ix_(rows, columns)])
            problem = cp.Problem(cp.Minimize(error), [cp.diff(f, axis=0) >= 0, cp.diff(f, axis=1) >= 0])
            problem.solve(solver=cp.CLARABEL)
            if best is None or problem.value < best[0] - 1e-6:
                best = (problem.value, (rows[-1], columns[-1]))
    return best[0] / n**2, best[1]
