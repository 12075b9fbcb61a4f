"""A seating looked at afterwards: costs against the certificate's, floors that are the least, nothing moves at rest."""

from __future__ import annotations

import sys
from pathlib import Path

import cvxpy as cp
import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from test_admission import audited, game_of

from games.admission import admit
from games.certificate_places import fitting_costs, measure_envy, measure_fitting_regret
from games.seated import delays, offers, reseat, respond, seats_of, table_of


def lopsided(seed: int, legs: int):
    """A random game whose second leg takes less, so that some moves fit and now and then one leg takes all its room."""
    game, places, wish = game_of(seed, 7, 3, legs, home=0.2 * (seed % 2))
    if legs == 2:
        places = places._replace(seconds=places.seconds * np.array([0.6, 0.18]))
    return game, places, wish


CASES = [(seed, legs) for seed in range(25) for legs in (1, 2)]


@pytest.mark.parametrize(("seed", "legs"), CASES)
def test_what_an_agent_compares_is_what_the_certificate_works_out(seed, legs):
    """Fitting options and their costs by two separate codes; with two legs one is sometimes clamped at its room."""
    game, places, wish = lopsided(seed, legs)
    seating = admit(game, places, wish)
    t = table_of(game, places)
    z = seats_of(t, seating)
    costs = fitting_costs(audited(game, places, seating))  # above the private cost of the option taken
    for i in np.flatnonzero(seating.held[0]):
        found = offers(t, z, int(i))
        assert found.fits.tolist() == np.isfinite(costs[i]).tolist()
        toll = game.toll[0][np.maximum(game.options, 0)]
        paid = (1 + toll) / 2 * found.added + (1 - toll) / 2 * found.own
        total = game.private_cost[0, i] - game.private_cost[0, i, seating.option[0, i]] + paid.sum(axis=1)
        assert total[found.fits] == pytest.approx(costs[i][found.fits], rel=1e-9, abs=1e-9)
    for i in np.flatnonzero(~seating.held[0]):
        assert not offers(t, z, int(i)).fits.any()


def test_floors_of_two_legs_are_those_of_a_convex_solver():
    clamped = 0
    for seed in range(40):
        game, places, wish = lopsided(2 * seed, 2)
        seating = admit(game, places, wish)
        t = table_of(game, places)
        z = seats_of(t, seating)
        for i in np.flatnonzero(seating.held[0]):
            found = offers(t, z, int(i))
            for o in np.flatnonzero(found.fits):
                if o == seating.option[0, i]:
                    continue
                room, seconds = found.room[o], places.seconds[0, i, o]
                f = cp.Variable(2)
                limits = [f <= room, cp.sum(cp.multiply(seconds, cp.inv_pos(f))) <= places.slack[0, i, o]]
                program = cp.Problem(cp.Minimize(cp.sum(cp.multiply(1 / room, f))), limits)
                program.solve(solver=cp.CLARABEL)
                assert found.floor[o] == pytest.approx(f.value, abs=1e-4)
                clamped += bool((np.abs(found.floor[o] - room) < 1e-9).any())
    assert clamped > 3


def test_least_delays_are_those_of_a_convex_solver():
    game, places, wish = game_of(3, 9, 3)
    seating = admit(game, places, wish)
    t = table_of(game, places)
    z = seats_of(t, seating)
    for r, delay in enumerate(delays(t, z)):
        on = np.flatnonzero(seating.held[0] & (game.options[seating.option[0], 0] == r))
        f = cp.Variable(len(on))
        w = game.weight[0, on, r] ** 2 / game.capacity[0, r]
        limits = [cp.sum(f) <= 1, f >= seating.floor[0, on, 0]]
        program = cp.Problem(cp.Minimize(cp.sum(cp.multiply(w, cp.inv_pos(f)))), limits)
        program.solve(solver=cp.CLARABEL)
        assert delay == pytest.approx(program.value, rel=1e-5)


@pytest.mark.parametrize(("seed", "legs"), CASES)
def test_a_seating_is_at_rest(seed, legs):
    game, places, wish = lopsided(seed, legs)
    tilt = np.random.default_rng(seed).uniform(0, 1, game.private_cost.shape)
    seating = admit(game, places, wish, tilt)
    assert seating.stable.all()
    again = respond(game, places, seating, tilt)
    assert (again.option == seating.option).all() and again.stable.all()
    again = reseat(game, places, seating, tilt)
    assert (again.option == seating.option).all() and (again.held == seating.held).all()
    assert again.floor == pytest.approx(seating.floor, abs=1e-12)


def test_from_a_seating_that_no_longer_fits_nobody_envies_and_nothing_overflows():
    out = come = 0
    for seed in range(40):
        game, places, wish = game_of(seed, 10, 3, 1 + seed % 2)
        seating = admit(game, places, wish)
        for factor in (0.6, 1.7):  # all take longer, or less
            now = places._replace(seconds=places.seconds * factor)
            found = reseat(game, now, seating)
            assert measure_envy(audited(game, now, found)) == ()
            assert measure_fitting_regret(audited(game, now, found)) <= 1e-7
            used = np.zeros(3)
            for i in np.flatnonzero(found.held[0]):
                o, legs = found.option[0, i], game.options[found.option[0, i]]
                assert places.acceptable[0, i, o]
                time = sum(now.seconds[0, i, o, s] / found.floor[0, i, s] for s in range(len(legs)))
                assert time <= now.slack[0, i, o] * (1 + 1e-9)
                np.add.at(used, legs, found.floor[0, i])
            assert used.max() <= 1 + 1e-9
            out += int((seating.held & ~found.held).sum())
            come += int((found.held & ~seating.held).sum())
    assert out > 10 and come > 10
