"""The certificate's own reading of ``custom``: from a state and an allocation alone, by code that no solver shares.

Each agent's time, what serving it on each option takes, and what each option costs in the game, written again from the
definitions: a leg of c units on a resource of C units a second takes wait + c / (share C); in the game a second costs
``delay_cost``, a certain miss ``miss``.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from games.certificate import Audit, rank_by


def audit(problem: Any, state: Any, allocation: Any, prices: Any) -> Audit:
    """What the certificate finds; arrays as in :class:`games.certificate.Audit`."""
    n, r = state.work.shape
    span = problem.options.shape[1]
    rows = np.vstack([np.full((1, span), -1), problem.options]).astype(np.int64)
    uses, of = rows >= 0, np.clip(rows, 0, None)  # (O, S)
    private = state.private_cost.copy() if state.private_cost.size else np.zeros((n, len(rows)))
    allowed = state.allowed.copy() if state.allowed.size else np.ones((n, len(rows)), bool)
    allowed &= state.active[:, None]
    allowed[:, 0] = True
    alone = np.where(uses, state.work[:, of] / state.capacity[of], 0.0)  # (N, O, S) s
    wait = np.where(uses & (state.work[:, of] > 0), state.wait_s[of], 0.0).sum(axis=2)
    tau = state.deadline_s[:, None]
    lateness = np.clip(12.0 * ((wait + prices.risk * alone.sum(axis=2)) / tau - 1.0), -30.0, 30.0)
    miss = np.where(tau < 1e9, 1.0 / (1.0 + np.exp(-lateness)), 0.0)
    costs = private + state.delay_cost[:, None] * wait + prices.miss * miss
    costs[:, 0] = private[:, 0] + prices.opt_out * state.opt_out_cost
    costs[~state.active] = 0.0
    draw = np.where(uses & (state.work[:, of] > 0), state.full_power_w[:, of], 0.0).sum(axis=2)
    cap = np.full(draw.shape, np.inf)
    limited = draw > 0
    cap[limited] = (state.power_limit_w[:, None] / np.where(limited, draw, 1.0))[limited]
    acceptable = allowed & state.active[:, None]
    acceptable &= costs + state.delay_cost[:, None] * alone.sum(axis=2) <= costs[:, :1] * (1 + 1e-12)
    acceptable[:, 0] = False
    time = _times(problem, state, allocation)
    in_time = ~state.active | (time <= state.deadline_s * (1 + 1e-9))
    weight = np.sqrt(state.delay_cost[:, None] * state.work)
    return Audit(
        rows, weight, state.capacity, costs, allowed, np.full(r, float(prices.toll)), state.active, in_time, in_time, alone,
        prices.margin * tau - wait, cap, acceptable, np.zeros(n, bool), rank_by(state.priority, problem.priority_gap),
    )  # fmt: skip


def _times(problem: Any, state: Any, allocation: Any) -> Any:
    """(N,) s until each agent's work is done with the shares it has; inf for who opts out or lacks a share it needs."""
    option = np.asarray(allocation.option)
    agents = np.arange(len(option))
    names = list(dict.fromkeys(problem.families_of))
    family = np.array([names.index(name) for name in problem.families_of])
    shares = np.array([np.asarray(allocation.shares[name], float) for name in names]).reshape(len(names), len(option))
    total = np.where(option > 0, 0.0, np.inf)
    for column in problem.options.T:
        r = np.where(option > 0, column[option - 1], -1)
        needs = np.flatnonzero((r >= 0) & (state.work[agents, r] > 0))
        on = r[needs]
        with np.errstate(divide="ignore", invalid="ignore"):
            took = state.work[needs, on] / (shares[family[on], needs] * state.capacity[on])
        total[needs] += state.wait_s[on] + np.where(shares[family[on], needs] > 0, took, np.inf)
    return total
