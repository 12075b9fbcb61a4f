"""Whether jobs can hold together what they were given, from the state and the request alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from games.certificate import CapacityCheck
from hybridalloc.problems.custom.held.state import NEVER, HeldState
from hybridalloc.text import printable


def check_held(state: HeldState, allocation: Any, resources: Sequence[str], servers: Sequence[str]) -> CapacityCheck:
    """Every job has all that it asks for on servers it may use, or nothing; servers, quotas and distances hold."""
    lines: list[str] = []
    worst, k = 0.0, len(state.capacity)
    held, had = np.zeros(state.capacity.shape), np.zeros(state.quota.shape)
    near: dict[tuple[int, int], str] = {}

    def wrong(text: str, by: float = float("inf")) -> None:
        nonlocal worst
        worst = max(worst, by)
        lines.append(printable(text, 300))

    for i, option in enumerate(np.asarray(allocation.option).tolist()):
        name = state.label(i)
        fixed = state.active[i] and state.previous[i] > 0 and state.moving_cost[i] >= NEVER
        if fixed and option != state.previous[i]:
            wrong(f"{name} takes option {option}; it stands at {state.previous[i]} and is not to be moved")
        has = np.array([float(np.asarray(allocation.shares[r])[i]) for r in resources])
        if option == 0:
            if (has != 0).any() or not np.isfinite(has).all():
                wrong(f"{name} stands nowhere and has {has.tolist()}")
            continue
        count = int(state.count[i])
        if not (0 < option <= k) or count > k or not state.active[i] or not state.allowed[i, option - 1]:
            wrong(f"{name} takes option {option}, which it may not")
            continue
        on = [(option - 1 + step) % k for step in range(count)]
        least = state.capacity[on].min(0)
        units = np.where(np.isfinite(has), has, np.inf) * np.where(least > 0, least, 1.0)
        for r, resource in enumerate(resources):
            if units[r] < state.demand[i, r] * (1 - 1e-9):
                wrong(f"{name} has {units[r]:.6g} {resource}, it asks for {state.demand[i, r]:.6g}", 1.0)
            elif units[r] > state.demand[i, r] * (1 + 1e-9):
                by = units[r] / state.demand[i, r] - 1 if state.demand[i, r] > 0 else float("inf")
                wrong(f"{name} has {units[r]:.6g} {resource}, it asks for {state.demand[i, r]:.6g}", float(by))
        for server in on:
            held[server] += np.maximum(units, state.demand[i])
            group = (int(state.apart[i]), server)
            if group[0] >= 0 and group in near:
                wrong(f"{name} and {near[group]} are to stand apart and both are on {servers[server]}", 1.0)
            near[group] = name
            if state.team[i] >= 0:
                had[state.team[i]] += np.maximum(units, state.demand[i])
    for what, used, may in (
        (lambda a: servers[a], held, state.capacity), (lambda a: f"the quota of team {a}", had, state.quota)
    ):  # fmt: skip
        for a, r in np.argwhere(used > may * (1 + 1e-9) + 1e-12).tolist():
            by = float(used[a, r] / may[a, r] - 1) if may[a, r] > 0 else float("inf")
            wrong(f"{resources[r]} of {what(a)}: {used[a, r]:.6g}, there is {may[a, r]:.6g}", by)
    return CapacityCheck(float(worst), tuple(lines))
