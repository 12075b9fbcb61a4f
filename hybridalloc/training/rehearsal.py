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
from hybridalloc.problems.contract import AnyProblem, AnyWorld, Belief, Perturbs, Prices, Reveals, Shifts
from hybridalloc.problems.metrics import Metric
from hybridalloc.reports.statistics import mean_of
from hybridalloc.training.evaluation import evaluate
from rl.proposal import Proposal, Recommender
from rl.value import Valuer


class Remembered(NamedTuple):
    """A step's inputs, enough to ask what other trusts would have done."""

    state: Any
    situation: AnyWorld
    game: Game
    proposal: Proposal
    proposes: bool


def candidates(step: Remembered, coordinator: Coordinator, trust: Trust, prices: Prices) -> list[SimpleNamespace]:
    """The allocation at each trust of the grid."""
    out = []
    for value in trust.grid:
        at = replace(coordinator, trust=float(value))
        decision = at.decide_on(step.game, step.proposal, step.proposes)
        decision = at.seat(step.situation, prices, step.game, decision)
        parts = with_levels(step.situation.parts(at.settle(step.situation, decision, prices)))
        out.append(SimpleNamespace(**parts, **parts.get("levels", {})))
    return out


def earned(problem: AnyProblem, state: Any, allocations: list[SimpleNamespace]) -> Float:
    """(K,) what each allocation earns in one decision were ``state`` the truth, by the metric that is tuned for, larger
    is better; equal allocations are run once."""
    aim = problem.card.aim
    seen: dict[bytes, float] = {}
    out = []
    for a in allocations:
        key = b"".join(part.tobytes() for part in (a.option, *getattr(a, "levels", {}).values()))
        if key not in seen:
            seen[key] = aim.sign * problem.evaluate(state, a)[aim.key]
        out.append(seen[key])
    return np.nan_to_num(np.array(out))  # a step of nobody: every trust does alike


def rollouts(
    problem: AnyProblem, trusts: Float, coordinator: Coordinator, recommender: Recommender | None, prices: Prices,
    belief: Belief | None, seeds: Sequence[int], slots: int, value: Valuer | None = None,
) -> Float:  # fmt: skip
    """(K, S) what each trust earns over whole episodes in each of the problem's scenarios, on common networks."""
    assert isinstance(problem, Shifts)
    aim: Metric = problem.card.aim
    worlds = [problem.shifted(scenario) for scenario in problem.scenarios()]
    run = lambda world, trust: evaluate(
        world,
        prices,
        replace(coordinator, trust=float(trust)),
        recommender,
        seeds,
        slots=slots,
        belief=belief,
        value=value,
    )
    found = [[aim.sign * mean_of(run(world, trust).metrics[aim.key]) for world in worlds] for trust in trusts]
    return np.nan_to_num(np.array(found))  # a world of nobody: every trust does alike


def scenario_payoffs(
    problem: AnyProblem, step: Remembered, coordinator: Coordinator, trust: Trust, prices: Prices, seed: int
) -> Float:
    """(K, S) what each trust's allocation earns in one decision in each of the problem's scenarios, at one state."""
    plans = candidates(step, coordinator, trust, prices)
    assert isinstance(problem, Perturbs)
    worlds = [problem.perturbed(step.state, scenario, seed) for scenario in problem.scenarios()]
    return np.stack([earned(problem, w, plans) for w in worlds], axis=1) if worlds else np.zeros((len(plans), 0))


def hindsight_losses(
    problem: AnyProblem, step: Remembered, following: Any, coordinator: Coordinator, trust: Trust, prices: Prices
) -> Float:
    """(K,) what each trust's allocation of a step would have lost, on what the next state reveals of it."""
    plans = candidates(step, coordinator, trust, prices)
    assert isinstance(problem, Reveals)
    return -earned(problem, problem.revealed(step.state, following), plans)
