r"""Deciding on short lists, where options are many: each agent considers its best few, and what was left out is shown
not to matter, or the lists are made longer.

A list holds an agent's options of the least lone cost (:mod:`games.shortlists`). The recommender is asked about these
alone; what is off a list counts as at the clip, the least that a prior can say. So the game that is solved is one over
all options, its bound on regret is that of any merge, and the certificate, which looks at all options again, holds the
answer to it. Where somebody might still gain off its list, or waits for a place that an option off it might hold, all
is done again on lists twice as long.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np

from coordinator.budget import Clock
from coordinator.congestion import _clip, _usable
from coordinator.game import Choice, only_options
from games.admission import Seating
from games.congestion import CongestionBatch, Float, Int
from games.shortlists import SWEEPS, Serving, Shortlists, admit_lists, merge_lists, tempted
from rl.proposal import Proposal, Recommender, proposal_of


@dataclass(frozen=True)
class Lists:
    """How short lists are used.

    Args:
        width: options on each agent's list at first, opting out included. above: options a game has before lists are
            used at all.
    """

    width: int = 16
    above: int = 64

    def __post_init__(self) -> None:
        for name, least in (("width", 2), ("above", 0)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise ValueError(f"lists.{name} = {value!r:.40}; it is a whole number >= {least}")


class Short(NamedTuple):
    """One situation on short lists: the game, what serving takes (None: nothing is promised), what is observed."""

    game: Shortlists
    serving: Serving | None
    observe: Any  # () -> Observation of one network, of the M agents that have something to decide


@runtime_checkable
class Shortlisting(Protocol):
    """Situations that can be read on short lists; None: not as they are."""

    def choices(self) -> int:
        """O, options an agent."""

    def shortlisted(self, prices: Any, width: int) -> Short | None: ...


@runtime_checkable
class ReadsLists(Protocol):
    """Recommenders that may be shown options that are each agent's own."""

    @property
    def lists(self) -> bool: ...


class ListedDecision(NamedTuple):
    """What was decided: all (1, N), seating None without places; the listed game, its clipped log prior (M, T)."""

    choice: Choice
    asked: Choice
    seating: Seating | None
    trust: float
    origin: int
    converged: bool
    stable: bool
    short: Short
    log_prior: Float
    proposes: bool


def listens(recommender: Recommender | None) -> bool:
    """Whether a recommender, or none, can do with lists."""
    return recommender is None or (isinstance(recommender, ReadsLists) and recommender.lists)


def decide_listed(
    situation: Shortlisting, short: Short, recommender: Recommender | None, prices: Any, limit: float, choose: bool,
    clock: Clock, trust_of: Callable[[], float], seen: Callable[[Any], None],
) -> ListedDecision:  # fmt: skip
    """The merged, chosen and seated answer, as :meth:`coordinator.Coordinator.decide` gives it over all options.

    Args:
        short: the situation's lists at first. seen: called with what the recommender was shown. trust_of: the trust of
            this step, asked for after that.
    """
    trust = None
    while True:
        g = short.game
        prior, proposes = np.zeros(g.option.shape), False
        if recommender is not None:
            with clock.stage("observe"):
                observation = short.observe()
            with clock.stage("propose"):
                prior = _clipped(g, proposal_of(recommender.propose(observation)), limit)
                proposes = bool(prior.any())
            if trust is None:
                seen(observation)
        if trust is None:
            trust = trust_of()
        if np.isinf(trust):
            prior = np.zeros(g.option.shape)
        with clock.stage("equilibrate"):
            merged = merge_lists(g, prior, trust, choose, proposes)
            unsure = tempted(g, merged.place, prior, trust, limit)
        place, stable, seating = merged.place, merged.stable, None
        if short.serving is not None and not unsure.any():
            with clock.stage("admit"):
                seats = admit_lists(g, short.serving, place, prior, trust, limit)
                place, stable, unsure = seats.place, stable and seats.stable, seats.unsure
                seating = _whole_seating(g, seats.place, seats.held, seats.floor, seats.stable)
        width = g.option.shape[1]
        if not unsure.any() or width >= g.options:
            break
        with clock.stage("build"):
            longer = situation.shortlisted(prices, min(2 * width, g.options))
        assert longer is not None
        short = longer
    asked = _whole(g, merged.alone) if proposes else _whole(g, place)
    return ListedDecision(
        only_options(_whole(g, place)), only_options(asked), seating, trust, merged.origin, merged.sweeps <= SWEEPS,
        stable, short, prior, proposes,
    )  # fmt: skip


def _clipped(g: Shortlists, proposal: Proposal, limit: float) -> Float:
    """(M, T) the log prior of what is listed, its best at 0 and clipped."""
    listed = (g.option >= 0)[None]
    if proposal.log_prior is None:
        return np.zeros(g.option.shape)
    raw = np.ascontiguousarray(proposal.log_prior, np.float64)
    out = np.empty(listed.shape)
    if raw.shape != listed.shape or not _clip(raw, listed, float(limit), out):
        none = np.zeros((1, len(g.who), 1))
        blank = CongestionBatch(g.option, none, none[0], np.zeros(listed.shape), listed, none[..., 0] == 0, none[0])
        _usable(raw, blank)  # says what is wrong with it
    return np.asarray(out[0])


def _whole(g: Shortlists, place: Int) -> Int:
    """(1, N) options of the whole game."""
    out = np.zeros((1, g.agents), np.int64)
    out[0, g.who] = g.option[np.arange(len(place)), place]
    return out


def _whole_seating(g: Shortlists, place: Int, held: Any, floor: Float, stable: bool) -> Seating:
    wide = Seating(
        _whole(g, place), np.zeros((1, g.agents), bool), np.zeros((1, g.agents, floor.shape[1])), np.array([stable])
    )
    wide.held[0, g.who], wide.floor[0, g.who] = held, floor
    return wide


def whole_prior(g: Shortlists, log_prior: Float, limit: float) -> Float:
    """(1, N, O) the log prior as merged, over all options: what is off a list is at the clip."""
    out = np.zeros((1, g.agents, g.options))
    out[0, g.who] = -limit
    rows, at = np.nonzero(g.option >= 0)
    out[0, g.who[rows], g.option[rows, at]] = log_prior[rows, at]
    return out
