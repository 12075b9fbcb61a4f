"""A joint choice on its way to an allocation: where it came from, what it promises, what is said of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from coordinator import Coordinator
from coordinator.budget import Clock
from coordinator.coordinator import Decision
from coordinator.game import Choice, Game, only_options
from coordinator.shortlisted import ListedDecision
from games.admission import Seating
from games.congestion import Float
from hybridalloc.allocation import Improvement
from rl.proposal import Proposal

Warn = Callable[[str, str], None]  # what it is about, and the message; each head warns once


@dataclass(frozen=True)
class Draft:
    """A joint choice of one world on its way to an allocation, and how it came about."""

    choice: Choice
    trust: float = float("inf")
    proposal: Proposal | None = None
    anchor: Float | None = None
    source: str = "fallback"
    status: str = "ok"
    bound: float = float("inf")
    seating: Seating | None = None
    game: Game | None = None  # as it is, without the anchor; None where none was built
    gap: float = float("nan")  # of an optimum
    improvement: Improvement | None = None
    plan: Any = None  # the choice as it is settled; None where it is still to be
    listed: ListedDecision | None = None
    against: Any = None  # see Decision


def nobody(agents: int) -> Choice:
    """Everyone opts out."""
    return only_options(np.zeros((1, agents), np.int64))


def drafted(
    decision: Decision, clock: Clock, improvement: Improvement | None, status: str = "ok",
    anchor: Float | None = None, hysteresis: float = 0.0,
) -> Draft:  # fmt: skip
    """A coordinator's decision with what it promises; ``hysteresis`` is what going back and forth was charged."""
    bound = float(decision.bound[0])
    if clock.skipped and status == "ok":
        status = f"budget of {clock.budget_ms:g} ms: stopped in {', '.join(dict.fromkeys(clock.skipped))}"
    elif not decision.converged[0] and status == "ok":
        status = "ok: the mean-field sweeps stopped at their limit, the rounding converged"
    if anchor is not None:
        bound += hysteresis
        status += f"; hysteresis for {int((anchor.max(axis=1) > 0).sum())} agents that go back and forth"
    return Draft(
        decision.choice, decision.trust, decision.proposal, anchor, decision.kind, status, bound, decision.seating,
        decision.game, improvement=improvement, plan=None if decision.proposal.levels else decision.plan,
        against=decision.against, listed=decision.listed,
    )  # fmt: skip


def improvement_of(d: Decision, coordinator: Coordinator, clock: Clock, warn: Warn) -> Improvement | None:
    """How a decision was improved; None where nobody asked for it."""
    if coordinator.improve is None:
        return None
    if d.gain is None or d.moved is None or d.tried is None or d.rest is None or d.least is None:
        if d.unimproved:
            warn("improving failed", f"improving failed ({d.unimproved}); the choice is as it was")
            return Improvement(f"failed ({d.unimproved})")
        if "improve" in clock.skipped or "admit" in clock.skipped:
            return Improvement(f"budget of {clock.budget_ms:g} ms")
        if d.kind == "hybrid" and d.trust == 0:
            return Improvement("trust 0 leaves the proposal as it is")
        return Improvement("the problem does not say what it expects of a plan")
    tilts = d.kind == "hybrid" and (d.proposal.log_prior is not None or d.listed is not None)
    prior = coordinator.limit / d.trust if tilts else 0.0
    rest = bool(d.rest[0])
    bound = float(prior + d.least[0]) if rest else float("inf")
    return Improvement("", float(d.gain[0]), int(d.moved[0]), int(d.tried[0]), rest, bound)
