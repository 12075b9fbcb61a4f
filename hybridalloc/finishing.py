"""From a draft to an allocation: what the game leaves open is settled, then code that no solver shares certifies it."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from coordinator import Coordinator
from coordinator.budget import Clock
from coordinator.coordinator import game_of
from coordinator.game import levels_beside, renewed
from games.congestion import CongestionGame, Float
from games.packing import Packing
from games.quadratic import QuadraticGame
from games.tree import TreeBatch
from hybridalloc.allocation import Allocation, Certificate, Origin, Short, with_levels
from hybridalloc.certify import certify
from hybridalloc.drafts import Draft, Warn
from hybridalloc.problems.contract import AnyProblem, AnyWorld, Believes, Idles, Prices, Stores, offers

AnyGame = CongestionGame | QuadraticGame | TreeBatch | Packing
PENDING = Certificate(False, float("inf"), (), float("inf"), float("inf"), "fallback", "pending", 0.0, ())


@dataclass(frozen=True)
class Ground:
    """What a draft is finished on.

    Attributes:
        memory: of a belief, None where the reports are believed. valued: what is left in stores has a value that was
            learned. drift: share of features out of range.
    """

    problem: AnyProblem
    state: Any
    prices: Prices
    coordinator: Coordinator
    memory: Any
    valued: bool
    drift: float
    warn: Warn


@dataclass
class Settled:
    """A draft as it is settled in its situation: the plan, its parts as fields of an allocation, the game of it.

    Attributes:
        rank: (N,) by which who is left out is listed. believed: what a belief said, as data for the certificate.
    """

    situation: AnyWorld
    plan: Any
    parts: dict[str, Any]
    levels: Any
    game: AnyGame | None
    rank: Float
    believed: Any


def finish(ground: Ground, situation: AnyWorld | None, draft: Draft, clock: Clock) -> tuple[Allocation, Settled | None]:
    """The allocation with its certificate, and how it was settled; None where everyone opts out, as they do where the
    problem fails here."""
    if situation is not None and not clock.fits():
        status = f"budget of {clock.budget_ms:g} ms: all agents opt out"
        situation, draft = None, Draft(draft.choice, status=status)
    last, settled = "idle" if situation is None else "certify", None
    if situation is not None:
        try:
            settled = _settle(ground, situation, draft, clock)
        except Exception as error:
            draft = Draft(draft.choice, status=f"all agents opt out: {type(error).__name__}: {error}")
            ground.warn("all agents opt out", draft.status)
    if settled is None:
        draft = replace(draft, proposal=None, anchor=None, seating=None)
    with clock.stage(last):
        allocation = _made(ground, settled, draft)
        believed = None if settled is None else settled.believed
        found = certify(ground.problem, ground.state, allocation, ground.prices, believed, ground.warn)
        status = draft.status
        packed = settled is not None and isinstance(settled.game, Packing)
        admits = packed and draft.source in ("hybrid", "game") and draft.trust > 0
        if complaints := found.complaints(draft.bound, allocation.seated or admits):
            status = f"certificate: {'; '.join(complaints)}" + ("" if status == "ok" else f"; {status}")
            ground.warn("certificate", status)
        served = allocation.served if found.in_time is None else found.in_time
        unserved = found.unserved
        if settled is not None and len(unserved) > 1:
            unserved = unserved[np.argsort(-settled.rank[unserved], kind="stable")]
    certificate = Certificate(
        feasible=found.check.feasible,
        max_violation=found.check.max_violation,
        violations=found.check.violations,
        regret=found.regret,
        epsilon_bound=draft.bound,
        source=draft.source,
        status=status,
        elapsed_ms=clock.spent_ms(),
        unserved=tuple(unserved.tolist()),
        late=found.late,
        doubtful=found.doubtful,
        envy=found.envy,
        trust=draft.trust,
        drift=ground.drift,
        stages=clock.stages,
        gap=draft.gap,
        listed=None if allocation.short is None else allocation.short.game.option.shape[1],
        improvement=None if settled is None else draft.improvement,
    )
    return renewed(allocation, served=served, certificate=certificate), settled


def _settle(ground: Ground, situation: AnyWorld, draft: Draft, clock: Clock) -> Settled:
    """What the game leaves open, and the game itself for its certificate."""
    with clock.stage("settle"):
        said, plan = draft.proposal, draft.plan
        levels = None if said is None else levels_beside(said, draft.choice.option)
        if plan is None:
            plan = situation.settle(draft.choice, ground.prices, levels, draft.trust, draft.seating)
        parts = situation.parts(plan)
    with clock.stage("certify"):
        game = None if draft.listed is not None else (draft.game or game_of(situation.game(ground.prices))).single(0)
        rank, believed = situation.priority()[0], None
        if (ground.memory is not None or ground.valued) and isinstance(situation, Believes):
            believed = situation.believed()
    return Settled(situation, plan, parts, levels, game, rank, believed)


def _made(ground: Ground, settled: Settled | None, draft: Draft) -> Allocation:
    """The allocation, its certificate still to come."""
    problem, state, limit = ground.problem, ground.state, ground.coordinator.limit
    situation = None if settled is None else settled.situation
    game = None if settled is None else settled.game
    prior: Any = None if draft.proposal is None else draft.proposal.log_prior
    short = None
    if situation is not None and draft.listed is not None:
        short = Short(draft.listed.short.game, draft.listed.log_prior, limit)
    if prior is None and short is None:
        prior = np.zeros((1, *_shape(game, state.agents)))
    merged: Any = None if prior is None else prior[0]  # of short lists: made out when asked for
    decider = None
    if draft.source in ("hybrid", "rl", "game"):
        decider = ground.coordinator
        if (decider.kind, decider.trust) != (draft.source, draft.trust):
            decider = replace(decider, kind=draft.source, trust=draft.trust)
    value = situation.value if offers(situation, Stores) else None  # type: ignore[type-abstract]
    origin = Origin(
        problem, state, ground.prices, None if settled is None else settled.levels, limit,
        None if settled is None else ground.memory, draft.seating, decider, None if settled is None else draft.against,
        value,
    )  # fmt: skip
    return Allocation(
        **with_levels(opted_out(problem, state) if settled is None else settled.parts), certificate=PENDING, game=game,
        log_prior=merged, trust=draft.trust, anchor=draft.anchor, origin=origin, seated=draft.seating is not None,
        short=short,
    )  # fmt: skip


def _shape(game: AnyGame | None, agents: int) -> tuple[int, ...]:
    """(N, O) of a game of options, (N, 1) of one without."""
    if isinstance(game, Packing):
        return game.private.shape
    return game.private_cost.shape if isinstance(game, CongestionGame) else (agents, 1)


def opted_out(problem: AnyProblem, state: Any) -> dict[str, Any]:
    """Everyone opts out, as the fields of an allocation: the problem's own, or zeros without levels."""
    if isinstance(problem, Idles):
        with suppress(Exception):  # the problem failed before: what is left says nothing about who is served
            return dict(problem.idle(state))
    zero, families = np.zeros(state.agents), problem.card.families
    return {
        "option": zero.astype(np.int64), "shares": dict.fromkeys(families, zero), "held": zero > 0,
        "floors": dict.fromkeys(families, zero), "served": ~state.active,
        "prices": dict.fromkeys(families, np.zeros(0)),
    }  # fmt: skip
