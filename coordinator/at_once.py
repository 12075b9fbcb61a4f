"""Merging and choosing in one compiled call: what :meth:`coordinator.Coordinator.decide_on` does with congestion games
stage by stage where a budget may cut it short, done in one go where none can."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

from coordinator.congestion import Congestion, _potential
from coordinator.merge import MAX_REPLIES
from games.best_response import _settle, slots_of
from games.congestion import Bool, Float, Int
from games.gibbs_sweeps import _fixed_point
from games.lean import KEPT

SWEEPS, TOLERANCE, GAIN, TIE = 12, 1e-3, 1e-10, 1e-12


class Merge(NamedTuple):
    """What E games were merged to: the choice, the proposal's own (both (E, N)), which start the choice came from, by
    its index in :data:`coordinator.coordinator.ORIGINS`, and, (E,) each, sweeps used and whether replies came to
    rest."""

    option: Int
    alone: Int
    origin: Int
    sweeps: Int
    stable: Bool


def merge_at_once(game: Congestion, log_prior: Float, trust: float, choose: bool, prefers: bool) -> Merge:
    """The merged equilibrium of a clipped log prior (E, N, O) at 0 < trust < inf; with ``choose`` the best, on the
    model, of what replies make of it, of the game's own answer and, where the proposal ``prefers`` anything, of that.
    """
    b = game.batch
    shape = b.live.shape
    made = Merge(
        np.empty(shape, np.int64), np.empty(shape, np.int64), np.zeros(shape[0], np.int64),
        np.empty(shape[0], np.int64), np.empty(shape[0], bool),
    )  # fmt: skip
    _merge(
        b.options, b.weight, b.capacity, b.private_cost, b.allowed, b.live, b.toll, log_prior, float(trust), choose,
        prefers, *made,
    )  # fmt: skip
    return made


@njit(**KEPT, error_model="numpy", nogil=True)
def _merge(
    options, weight, capacity, private, allowed, live, toll, log_prior, trust, choose, prefers, option, alone, origin,
    sweeps, stable,
):  # fmt: skip
    games, n, count = private.shape
    slots, most = slots_of(options, weight.shape[2]), np.int64(MAX_REPLIES)  # no literal: compiled once for all
    mixed, costs, tilt = np.empty((n, count)), np.zeros((n, count)), np.empty((1, n, count))
    charged, score = np.empty((n, count)), np.empty((n, count))
    trial, value = np.empty((1, n), np.int64), np.empty(1)
    for e in range(games):
        ok, prior = allowed[e], log_prior[e]
        for i in range(n):
            total, low = 0.0, np.inf
            for o in range(count):
                mixed[i, o] = np.exp(prior[i, o]) if ok[i, o] else 0.0
                total += mixed[i, o]
                low = private[e, i, o] if ok[i, o] and private[e, i, o] < low else low
            low = low if low < np.inf else 0.0
            for o in range(count):
                mixed[i, o] /= total
                tilt[0, i, o] = -prior[i, o] / trust
                charged[i, o] = (private[e, i, o] - low) + tilt[0, i, o]
        _best(prior, ok, live[e], alone[e])
        sweeps[e] = _fixed_point(
            slots, weight[e], capacity[e], private[e], ok, live[e], toll[e], prior, trust, mixed, costs, TOLERANCE,
            np.int64(SWEEPS),
        )  # fmt: skip
        for i in range(n):
            for o in range(count):
                score[i, o] = prior[i, o] - trust * costs[i, o]
        _best(score, ok, live[e], option[e])
        rest = _settle(slots, weight[e], capacity[e], charged, ok, live[e], toll[e], option[e], GAIN, most)
        stable[e] = rest <= MAX_REPLIES
        origin[e] = 0
        if not choose:
            continue
        if not stable[e]:  # goes on, as from any start
            rest = _settle(slots, weight[e], capacity[e], charged, ok, live[e], toll[e], option[e], GAIN, most)
            stable[e] = rest <= MAX_REPLIES
        part = weight[e : e + 1], capacity[e : e + 1], private[e : e + 1], live[e : e + 1], toll[e : e + 1]
        _potential(options, *part, tilt, option[e : e + 1], value)
        found = np.array([value[0], np.inf, np.inf])
        kept, still = np.empty((3, n), np.int64), np.array([stable[e], False, False])
        kept[0] = option[e]
        for start in range(1, 3):
            if start == 1:
                if not prefers:
                    continue
                trial[0] = alone[e]
            else:
                for i in range(n):
                    for o in range(count):
                        score[i, o] = -private[e, i, o]
                _best(score, ok, live[e], trial[0])
                _settle(
                    slots, weight[e], capacity[e], private[e], ok, live[e], toll[e], trial[0], GAIN, most
                )  # fmt: skip
            rest = _settle(slots, weight[e], capacity[e], charged, ok, live[e], toll[e], trial[0], GAIN, most)
            still[start] = rest <= MAX_REPLIES
            kept[start] = trial[0]
            _potential(options, *part, tilt, trial, value)
            found[start] = value[0]
        least = found.min()
        for start in range(3):
            if not found[start] > least + TIE:
                option[e], stable[e], origin[e] = kept[start], still[start], start
                break


@njit(**KEPT)
def _best(score, allowed, live, option):
    """Fill ``option`` (N,) with the first of the allowed options of the highest score; 0 for who is not live."""
    for i in range(len(option)):
        best, most = 0, -np.inf
        for o in range(score.shape[1]):
            if allowed[i, o] and score[i, o] > most:
                best, most = o, score[i, o]
        option[i] = best if live[i] else 0
