"""Short lists: an answer on them is one of the whole game where nobody is tempted, and the certificate's measures over
lists are those over all options."""

from __future__ import annotations

import numpy as np
import pytest

from coordinator.at_once import merge_at_once
from coordinator.congestion import Congestion
from coordinator.game import only_options
from coordinator.merge import clip_prior
from games.brute_force import brute_force
from games.certificate import deviations, measure_regret
from games.congestion import CongestionGame
from games.shortlists import merge_lists, shortlists_of, tempted
from rl.proposal import Proposal


def game_of(rng, agents, resources, allowed=0.9):
    """Options none, then each resource with one of a second family."""
    options = np.array([[-1, -1], *([r, resources + r % 3] for r in range(resources))])
    ok = rng.random((agents, len(options))) < allowed
    ok[:, 0] = True
    return CongestionGame(
        options, rng.uniform(0.1, 1.0, (agents, resources + 3)), rng.uniform(0.5, 3.0, resources + 3),
        rng.uniform(0.0, 2.0, (agents, len(options))), ok, rng.uniform(0, 1.5),
    )  # fmt: skip


def whole(g, place):
    out = np.zeros(g.agents, np.int64)
    out[g.who] = g.option[np.arange(len(place)), place]
    return out


@pytest.mark.parametrize("agents", [1, 2, 5, 30])
@pytest.mark.parametrize("width", [2, 4, 9])
def test_where_nobody_is_tempted_an_answer_on_lists_is_an_equilibrium_of_the_whole_game(agents, width):
    rng, settled = np.random.default_rng(agents), 0
    for _ in range(40):
        game = game_of(rng, agents, 12)
        g = shortlists_of(game, width)
        place = merge_lists(g, np.zeros(g.option.shape), np.inf, False, False).place
        off = tempted(g, place, np.zeros(g.option.shape), np.inf, 10.0)
        gain = deviations(game, whole(g, place))[0]
        assert (gain[~off] <= 1e-9).all()  # who is not tempted gains nothing anywhere
        settled += not off.any()
    assert settled or agents == 30 or width == 2  # many on few resources go where they would not alone
    everything = shortlists_of(game, 99)
    assert np.isinf(everything.off).all() and everything.option.shape[1] == len(game.options)


def test_under_a_prior_what_is_off_a_list_counts_as_at_the_clip():
    rng, trust, limit = np.random.default_rng(0), 5.0, 10.0
    for _ in range(40):
        game = game_of(rng, 20, 10)
        g = shortlists_of(game, 5)
        prior = np.maximum(-rng.exponential(3.0, g.option.shape), -limit)
        prior -= np.where(g.option >= 0, prior, -np.inf).max(axis=1, keepdims=True)
        merged = merge_lists(g, prior, trust, True, True)
        off = tempted(g, merged.place, prior, trust, limit)
        tilt = np.full(game.private_cost.shape, limit / trust)
        rows, at = np.nonzero(g.option >= 0)
        tilt[g.who[rows], g.option[rows, at]] = -prior[rows, at] / trust
        tilted = CongestionGame(
            game.options, game.weight, game.capacity, game.private_cost + tilt, game.allowed, game.toll
        )
        assert merged.stable and (deviations(tilted, whole(g, merged.place))[0][~off] <= 1e-9).all()
        if not off.any():
            assert measure_regret(game, whole(g, merged.place)) <= limit / trust + 1e-9


def test_lists_of_all_options_are_merged_as_the_whole_game_is():
    rng, trust = np.random.default_rng(3), 5.0
    for _ in range(30):
        game = game_of(rng, 12, 8, allowed=1.0)
        batch = game.batch()
        prior = clip_prior(rng.normal(size=batch.private_cost.shape) * 4, batch.allowed, 10.0)
        dense = merge_at_once(Congestion(batch), prior, trust, True, True)
        g = shortlists_of(game, 99)
        at = np.take_along_axis(prior[0], g.option, axis=1)
        merged = merge_lists(g, at, trust, True, True)
        values = [
            Congestion(batch).tilted(Proposal(prior), trust).value(choice)[0]
            for choice in (only_options(dense.option), only_options(whole(g, merged.place)[None]))
        ]
        assert merged.stable and dense.stable.all()
        assert values[1] == pytest.approx(values[0], rel=0.02)  # another order of play, as good an answer


def test_a_game_small_enough_to_enumerate():
    rng = np.random.default_rng(5)
    for _ in range(20):
        game = game_of(rng, 3, 3, allowed=1.0)
        g = shortlists_of(game, 3)
        place = merge_lists(g, np.zeros(g.option.shape), np.inf, False, False).place
        if not tempted(g, place, np.zeros(g.option.shape), np.inf, 1.0).any():
            assert tuple(whole(g, place).tolist()) in {tuple(map(int, e)) for e in brute_force(game)[2]}
