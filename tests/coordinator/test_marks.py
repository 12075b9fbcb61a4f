"""Log-priors over marks of a level, as quadratic games are tilted by them: both ends, the density, who is refused."""

from __future__ import annotations

import numpy as np
import pytest

from coordinator import Coordinator
from coordinator.game import only_levels
from coordinator.marks import Marked
from games.quadratic_batch import quadratic_batch
from rl.proposal import Proposal

SHARES = np.array([0.0, -1.0, -0.5, 0.5, 1.0])


def marked(rng, count=3, agents=4, limits=3):
    factor = rng.normal(size=(count, agents, agents))
    jacobian = factor @ np.swapaxes(factor, 1, 2) / agents + 0.2 * np.eye(agents)
    jacobian = (jacobian + np.swapaxes(jacobian, 1, 2)) / 2
    most = rng.uniform(0.5, 1.0, (count, agents, 1))
    batch = quadratic_batch(
        jacobian, rng.normal(size=most.shape), -most, most, rng.normal(size=(count, limits, agents)),
        rng.uniform(0, 0.5, (count, limits)), give=0.1,
    )  # fmt: skip
    marks = SHARES * most
    return Marked(batch, ("q",), marks=marks, allowed=np.ones(marks.shape, bool))


def test_a_flat_prior_asks_for_nothing_and_trust_runs_from_the_best_mark_to_the_game():
    rng = np.random.default_rng(0)
    game = marked(rng)
    flat = game.clip(Proposal(np.zeros(game.marks.shape)), 10.0)
    assert not game.proposes(flat) and np.isinf(flat.spread).all()
    alone = game.solve().choice.level
    np.testing.assert_allclose(game.tilted(flat, 5.0).solve().choice.level, alone, atol=1e-8)
    sharp = game.clip(Proposal(10 * rng.normal(size=game.marks.shape)), 10.0)
    assert game.proposes(sharp)
    best = np.take_along_axis(game.marks, sharp.log_prior.argmax(-1)[..., None], -1)
    np.testing.assert_array_equal(game.tilted(sharp, 0.0).solve().choice.level, best)
    apart = [np.abs(game.tilted(sharp, t).solve().choice.level - alone).max() for t in (0.01, 1.0, 100.0, 1e4)]
    assert apart == sorted(apart, reverse=True) and apart[-1] < 1e-3 < apart[0]


def test_the_bound_of_a_hybrid_on_marks_holds():
    rng = np.random.default_rng(1)
    game = marked(rng, 10)
    for trust in (0.3, 3.0, 30.0):
        told = Proposal(5 * rng.normal(size=game.marks.shape))
        decision = Coordinator("hybrid", trust).decide_on(game, game.clip(told, 10.0), True)
        assert (game.regret(decision.choice) <= decision.bound + 1e-9).all()
        assert (game.regret(decision.choice) <= 10.0 / trust + 1e-9).all()


def test_draws_follow_the_density_that_is_learned_from():
    """softmax(log prior + bias), the bias -trust times what a mark costs at the others' equilibrium."""
    rng = np.random.default_rng(2)
    one = marked(rng, 1)
    game = Marked(*(type(one.batch)._make(np.repeat(a, 4000, 0) for a in one.batch),), ("q",),
                  marks=np.repeat(one.marks, 4000, 0), allowed=np.repeat(one.allowed, 4000, 0))  # fmt: skip
    proposal = game.clip(Proposal(np.repeat(2 * rng.normal(size=one.marks.shape), 4000, 0)), 10.0)
    sample = game.sample(proposal, 2.0, rng.random(game.draws))
    z = (proposal.log_prior + sample.bias)[0]
    expected = np.exp(z - z.max(-1, keepdims=True))
    expected /= expected.sum(-1, keepdims=True)
    seen = np.stack([(sample.option == o).mean(0) for o in range(len(SHARES))], -1)
    np.testing.assert_allclose(seen, expected, atol=0.03)
    at = np.take_along_axis(game.marks, sample.option[..., None], -1)
    np.testing.assert_array_equal(sample.choice.level, at)
    assert (sample.bias <= 1e-12).all()


def test_a_marks_cost_is_what_its_agent_pays_more():
    rng = np.random.default_rng(3)
    game = marked(rng, 2)
    centre = rng.uniform(-0.3, 0.3, (2, 4))
    costs, here = game._costs(centre), game.value(only_levels(centre[..., None]))
    for i in range(4):
        for o in range(len(SHARES)):
            moved = centre.copy()
            moved[:, i] = game.marks[:, i, o]
            np.testing.assert_allclose(costs[:, i, o], game.value(only_levels(moved[..., None])) - here, atol=1e-9)


def test_a_proposal_of_another_shape_is_named_and_levels_pass_as_they_are():
    game = marked(np.random.default_rng(4))
    with pytest.raises(ValueError, match=r"log_prior has shape \(3, 4, 2\); this state needs \(3, 4, 5\)"):
        game.clip(Proposal(np.zeros((3, 4, 2))), 10.0)
    with pytest.raises(ValueError, match="log_prior holds what is not finite"):
        game.clip(Proposal(np.full(game.marks.shape, np.nan)), 10.0)
    said = game.clip(Proposal(None, np.zeros((3, 4, 1)), np.ones((3, 4, 1)), ("q",)), 10.0)
    assert said.log_prior is None and game.proposes(said)
    drawn = game.sample(said, 1.0, np.random.default_rng(0).random(game.draws))
    assert drawn.drawn is not None and drawn.choice.level.shape == (3, 4, 1)
