"""Every trust of a grid, scored on worlds other than the one believed: what adapts trust.

The problem provides the worlds (:mod:`hybridalloc.problems.contract`): itself under another law (``Shifts``), or where
it has no simulator one state under it (``Perturbs``); and the state as the next one's reports show it to have been, of
which no truth is read (``Reveals``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np

from coordinator import Coordinator
from coordinator.game import Game
from coordinator.trust import Trust
from games.congestion import Float
from hybridalloc.allocation import with_levels
from hybridalloc.reports.statistics import mean_of
from hybridalloc.training.evaluation import evaluate
from rl.proposal import Proposal


class Remembered(NamedTuple):
    """A step's inputs, enough to ask what other trusts would have done."""

    state: Any
    situation: Any
    game: Game
    proposal: Proposal
    proposes: bool


def candidates(step: Remembered, coordinator: Coordinator, trust: Trust, prices: Any) -> list[SimpleNamespace]:
    """The allocation at each trust of the grid."""
    out = []
    for value in trust.grid:
        at = replace(coordinator, trust=float(value))
        decision = at.decide_on(step.game, step.proposal, step.proposes)
        decision = at.seat(step.situation, prices, step.game, decision)
        parts = with_levels(step.situation.parts(at.settle(step.situation, decision, prices)))
        out.append(SimpleNamespace(**parts, **parts.get("levels", {})))
    return out


def welfare(problem: Any, state: Any, allocations: list[SimpleNamespace]) -> Float:
    """(K,) one-slot welfare of each allocation were ``state`` the truth; equal allocations are run once."""
    seen: dict[bytes, float] = {}
    out = []
    for a in allocations:
        key = b"".join(part.tobytes() for part in (a.option, *getattr(a, "levels", {}).values()))
        if key not in seen:
            seen[key] = problem.evaluate(state, a)["welfare"]
        out.append(seen[key])
    return np.nan_to_num(np.array(out))  # a step of nobody: every trust does alike


def rollouts(
    problem: Any, trusts: Float, coordinator: Coordinator, recommender: Any, prices: Any, belief: Any,
    seeds: Sequence[int], slots: int,
) -> Float:  # fmt: skip
    """(K, S) welfare of each trust over whole episodes in each of the problem's scenarios, on common networks."""
    worlds = [problem.shifted(scenario) for scenario in problem.scenarios()]
    run = lambda world, trust: evaluate(
        world, prices, replace(coordinator, trust=float(trust)), recommender, seeds, slots=slots, belief=belief
    )
    found = [[mean_of(run(world, trust).metrics["welfare"]) for world in worlds] for trust in trusts]
    return np.nan_to_num(np.array(found))  # a world of nobody: every trust does alike


def scenario_payoffs(
    problem: Any, step: Remembered, coordinator: Coordinator, trust: Trust, prices: Any, seed: int
) -> Float:
    """(K, S) one-slot welfare of each trust's allocation in each of the problem's scenarios, at one state."""
    plans = candidates(step, coordinator, trust, prices)
    worlds = [problem.perturbed(step.state, scenario, seed) for scenario in problem.scenarios()]
    return np.stack([welfare(problem, w, plans) for w in worlds], axis=1) if worlds else np.zeros((len(plans), 0))


def hindsight_losses(
    problem: Any, step: Remembered, following: Any, coordinator: Coordinator, trust: Trust, prices: Any
) -> Float:
    """(K,) what each trust's allocation of a step would have lost, on what the next state reveals of it."""
    plans = candidates(step, coordinator, trust, prices)
    return -welfare(problem, problem.revealed(step.state, following), plans)
