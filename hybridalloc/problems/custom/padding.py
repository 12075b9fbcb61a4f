"""Jobs that come and go: a world of one's own with any number of jobs, in a number of rows that stays.

Learners need as many agents in every step. So a world has ``most`` rows: a job keeps its row while it is there (found
again by its name, where it has one), and a row without a job is an agent that is not active. The transition never sees
rows: its states and what it is told of an allocation are of the jobs that are there, in its own order.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import fields
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from games.congestion import Int
from hybridalloc.problems.custom.state import CustomState, as_state

TRIED = 16  # episodes begun to see whether the number of jobs varies
STEPS = 40  # gone in the first of them, to see how many they become
HEADROOM = 1.25  # rows for each job of the most that were seen


def rows_of(state: CustomState, most: int, before: dict[str, int] | None = None) -> Int:
    """(n,) the row of each job: that of its name ``before``, or else the first free ones in the order of the state.

    Where there are more jobs than rows, those of the lowest priorities have none (-1): they sit the step out.
    """
    row = np.full(state.agents, -1, np.int64)
    if state.names is not None and before:
        row[:] = [before.get(name, -1) for name in state.names]
    new = np.flatnonzero(row < 0)
    free = np.setdiff1d(np.arange(most), row)
    if len(new) > len(free):
        warnings.warn(
            f"{state.agents} jobs are there and this problem was made for {most}: {len(new) - len(free)} of the lowest "
            f"priorities sit the step out; give make_problem('custom', ..., most_jobs={state.agents})",
            RuntimeWarning, stacklevel=2,
        )  # fmt: skip
        new = np.sort(new[np.argsort(-state.priority[new], kind="stable")][: len(free)])
    row[new] = free[: len(new)]
    return row


def padded(state: CustomState, row: Int, most: int, features: int) -> CustomState:
    """The state with ``most`` agents, each job in its row, the rest not active; without any job ``features`` is not
    told by the state."""
    arrays: dict[str, Any] = {}
    there = row >= 0
    for f in fields(CustomState):
        value = getattr(state, f.name)
        if "spec" not in f.metadata or f.metadata["spec"].axes[0] != "N":
            arrays[f.name] = value
            continue
        fill = {"work": 0, "active": 0}.get(f.name, f.metadata["spec"].fill)
        shape = value.shape[1:] if state.agents or f.name != "features" else (features,)
        arrays[f.name] = np.full((most, *shape), fill, value.dtype)
        if state.agents:
            arrays[f.name][row[there]] = value[there]
    names = None
    if state.names is not None:
        names = [f"(row {k} is free)" for k in range(most)]
        for i in np.flatnonzero(there):
            names[row[i]] = state.names[i]
    return CustomState(**arrays | {"names": names})


def told(parts: dict[str, Any], time_s: NDArray[np.float64], row: Int) -> SimpleNamespace:
    """What a transition is told of an allocation by rows: of its own jobs, in its order."""
    out = row < 0
    mine = lambda x, none=0: np.where(out, none, x[row])
    whole = {name: {k: mine(x) for k, x in parts[name].items()} for name in ("shares", "floors")}
    flat = {name: mine(parts[name]) for name in ("option", "held", "power", "served")}
    return SimpleNamespace(**flat, **whole, prices=parts["prices"], time_s=mine(time_s, np.inf))


def most_seen(transition: Any, start: CustomState, families: tuple[str, ...], episode: int) -> int:
    """Rows that a transition needs: 0 where all states that were looked at have as many jobs as ``start``.

    The first states of episodes, and those that follow one another while nobody is served, which is when most wait.
    """
    counts = [as_state(transition.reset(seed)).agents for seed in range(TRIED)]
    state, rng = start, np.random.default_rng(0)
    for _ in range(min(STEPS, episode)):
        state = as_state(transition.advance(state, _nobody(state, families), rng))
        counts.append(state.agents)
    if set(counts) == {start.agents}:
        return 0
    return math.ceil(HEADROOM * max(counts)) + 1


def _nobody(state: CustomState, families: tuple[str, ...]) -> SimpleNamespace:
    zero = np.zeros(state.agents)
    by = dict.fromkeys(dict.fromkeys(families), zero)
    prices = {family: np.zeros(families.count(family)) for family in by}
    return SimpleNamespace(
        option=zero.astype(np.int64), shares=by, floors=by, held=zero > 0, power=zero, served=~state.active,
        prices=prices, time_s=np.full(state.agents, np.inf),
    )  # fmt: skip


def names_of(state: CustomState, row: Int) -> dict[str, int]:
    """The row of each name."""
    if state.names is None:
        return {}
    return {name: int(r) for name, r in zip(state.names, row, strict=True) if r >= 0}
