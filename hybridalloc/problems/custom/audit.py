"""The certificate's own reading of ``custom``: from a state and an allocation alone, by code that no solver shares.

Each agent's time, what serving it on each option takes, and what each option costs in the game, written again from the
definitions: a leg of c units on a resource of C units a second takes wait + c / (share C); in the game a second costs
``delay_cost``, a certain miss ``miss``, leaving the previous option ``moving_cost``. No option of a resource that is
down (C = 0) is allowed.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from games.certificate import Audit, rank_by
from hybridalloc.problems.custom.setting import CustomSetting
from hybridalloc.problems.custom.state import CustomPrices


def audit(problem: CustomSetting, state: Any, allocation: Any, prices: CustomPrices) -> Audit:
    """What the certificate finds; arrays as in :class:`games.certificate.Audit`."""
    n, r = state.work.shape
    span = problem.options.shape[1]
    rows = np.ascontiguousarray(np.vstack([np.full((1, span), -1), problem.options]), np.int64)
    uses, of = rows >= 0, np.clip(rows, 0, None)  # (O, S)
    private = state.private_cost.copy() if state.private_cost.size else np.zeros((n, len(rows)))
    allowed = state.allowed.copy() if state.allowed.size else np.ones((n, len(rows)), bool)
    allowed &= state.active[:, None] & ~(uses & (state.capacity[of] == 0)).any(axis=1)
    allowed[:, 0] = True
    runs = uses & (state.capacity[of] > 0)
    alone = np.where(runs, state.work[:, of] / np.where(runs, state.capacity[of], 1.0), 0.0)  # (N, O, S) s
    wait = np.where(uses & (state.work[:, of] > 0), state.wait_s[of], 0.0).sum(axis=2)
    tau = state.deadline_s[:, None]
    lateness = np.clip(12.0 * ((wait + prices.risk * alone.sum(axis=2)) / tau - 1.0), -30.0, 30.0)
    miss = np.where(tau < 1e9, 1.0 / (1.0 + np.exp(-lateness)), 0.0)
    costs = private + state.delay_cost[:, None] * wait + prices.miss * miss
    costs[:, 0] = private[:, 0] + prices.opt_out * state.opt_out_cost
    ran = np.flatnonzero((state.previous > 0) & (state.moving_cost > 0))
    stayed = costs[ran, state.previous[ran]].copy()
    costs[ran] += state.moving_cost[ran, None]
    costs[ran, state.previous[ran]] = stayed
    costs[~state.active] = 0.0
    draw = np.where(uses & (state.work[:, of] > 0), state.full_power_w[:, of], 0.0).sum(axis=2)
    cap = np.full(draw.shape, np.inf)
    limited = draw > 0
    cap[limited] = (state.power_limit_w[:, None] / np.where(limited, draw, 1.0))[limited]
    acceptable = allowed & state.active[:, None]
    acceptable &= costs + state.delay_cost[:, None] * alone.sum(axis=2) <= costs[:, :1] * (1 + 1e-12)
    acceptable[:, 0] = False
    option = np.asarray(allocation.option, np.int64)
    share, floor = (_by_leg(problem, rows[option], held) for held in (allocation.shares, allocation.floors))
    time = _times(state, rows[option], option, share)
    in_time = ~state.active | (time <= state.deadline_s * (1 + 1e-9))
    capacity = np.where(state.capacity > 0, state.capacity, 1.0)  # of what nobody is put on
    weight = np.sqrt(state.delay_cost[:, None] * state.work)
    return Audit(
        rows, weight, capacity, costs, allowed, np.full(r, float(prices.toll)), state.active, in_time, in_time,
        np.ascontiguousarray(alone), np.ascontiguousarray(prices.margin * tau - wait), cap, acceptable,
        np.zeros(n, bool), rank_by(state.priority, problem.priority_gap), option, np.asarray(allocation.held, bool),
        share, floor,
    )  # fmt: skip


def _by_leg(problem: CustomSetting, legs: Any, held: Any) -> Any:
    """(N, S) what each agent holds of each leg's resource, from (N,) arrays by family."""
    out = np.zeros(legs.shape)
    for name, values in held.items():
        mine = (legs >= 0) & np.array([family == name for family in problem.families_of])[legs]
        out[mine] = np.broadcast_to(np.asarray(values, float)[:, None], legs.shape)[mine]
    return out


def _times(state: Any, legs: Any, option: Any, share: Any) -> Any:
    """(N,) s until each agent's work is done with the shares it has; inf for who opts out or lacks a share it needs."""
    agent = np.arange(len(option))[:, None]
    r = np.clip(legs, 0, None)
    needs = (legs >= 0) & (state.work[agent, r] > 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        took = np.where(share > 0, state.work[agent, r] / (share * state.capacity[r]), np.inf)
    return np.where(option > 0, np.where(needs, state.wait_s[r] + took, 0.0).sum(axis=1), np.inf)
