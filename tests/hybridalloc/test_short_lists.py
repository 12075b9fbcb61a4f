"""Deciding on short lists in mec: the certificate looks at all options, so it judges answers on lists of two."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from coordinator.shortlisted import Lists
from games.shortlists import admit_lists
from hybridalloc import Allocator, make_problem
from rl.proposal import Proposal

SETTINGS = {
    "set H": {"agents": 40, "servers": 12},
    "crowded": {"agents": 60, "servers": 5},
    "set A": {"agents": 30, "servers": 9, "scenario": "A"},
    "channels": {"agents": 30, "servers": 6, "choose_channel": True, "channels": 3, "reuse": 2},
    "classes": {"agents": 40, "servers": 6, "priority_gap": 0.1},
    "no floors": {"agents": 30, "servers": 8, "floors": False},
    "no power control": {"agents": 30, "servers": 8, "power_control": False, "partial": False},
    "one server": {"agents": 5, "servers": 1},
    "one device": {"agents": 1, "servers": 9},
    "nobody": {"agents": 0, "servers": 3},
}


def states_of(problem, count):
    for seed in range(count):
        state = problem.reset(seed)
        if seed % 3 == 1 and state.agents:
            reachable = np.random.default_rng(seed).random(state.reachable.shape) < 0.5
            reachable[0] = False  # one device reaches nobody
            state = replace(state, reachable=reachable)
        if seed % 5 == 4:
            state = replace(state, active=np.zeros(state.agents, bool))
        yield state


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("method", ["hybrid", "game"])
def test_an_answer_on_short_lists_keeps_every_promise_over_all_options(name, method):
    problem = make_problem("mec", **SETTINGS[name])
    recommender = {"hybrid": "imappo", "game": None}[method]
    every = Allocator(problem, method, recommender, improve=False, lists=None)
    for width in (2, 3, 99):
        listed = Allocator(problem, method, recommender, improve=False, lists=Lists(width, 0))
        _strong(listed, every)
        for state in states_of(problem, 5):
            one, other = listed.step(state), every.step(state)
            c = one.certificate
            assert c.feasible and c.listed is not None and not c.late and c.source == method
            assert not c.envy or not one.seated
            assert c.status.startswith("ok"), c.status
            assert c.regret <= c.epsilon_bound + 1e-9
            if width == 99:  # all options are on the lists, in another order
                assert c.listed == 1 + problem.servers * problem.bands
                assert np.array_equal(one.log_prior[state.active], other.log_prior[state.active]) or np.allclose(
                    np.where(one.game.allowed, one.log_prior, 0)[state.active],
                    np.where(other.game.allowed, other.log_prior, 0)[state.active], atol=1e-4,
                )  # fmt: skip
            if width == 99 and method == "game" and len(state.active):
                gap = abs(problem.evaluate(state, one)["welfare"] - problem.evaluate(state, other)["welfare"])
                assert gap < 0.1
            for made, whole in zip(_game(one), _game(other), strict=True):  # made out when asked for
                assert np.array_equal(made, whole)


def _strong(*allocators):
    """Untrained policies propose next to nothing: these prefer strongly."""
    for a in allocators:
        if a.recommender is not None:
            weights = a.recommender.weights
            weights["out.weight"][:] = np.random.default_rng(0).normal(size=weights["out.weight"].shape)


def _game(allocation):
    g = allocation.game
    return g.options, g.weight, g.capacity, g.private_cost, g.allowed, g.toll


def test_as_good_as_looking_at_all_options_on_average():
    problem = make_problem("mec", agents=200, servers=30)
    kinds = [Allocator(problem, "hybrid", "imappo", improve=False, lists=x) for x in (Lists(8, 0), None)]
    _strong(*kinds)
    gaps = []
    for state in states_of(problem, 8):
        listed, every = (problem.evaluate(state, a.step(state))["welfare"] for a in kinds)
        gaps.append(listed - every if np.isfinite(every) else 0.0)
    assert np.mean(gaps) > -0.01


def test_lists_that_prove_too_short_are_made_longer_until_they_do():
    problem = make_problem("mec", agents=80, servers=10)
    allocator = Allocator(problem, "game", improve=False, lists=Lists(2, 0))
    widths = {allocator.step(problem.reset(seed)).certificate.listed for seed in range(6)}
    assert max(widths) > 2 and max(widths) <= 11


def test_they_are_used_where_options_are_many_and_nothing_else_has_a_say():
    few, many = make_problem("mec", agents=6, servers=9), make_problem("mec", agents=6, servers=70)
    used = lambda problem, **more: Allocator(problem, "hybrid", **more).step(problem.reset(0)).certificate.listed
    assert used(few) is None and used(many) == 16
    assert used(many, lists=None) is None and used(many, lists=Lists(8, 80)) is None
    assert used(many, hysteresis=0.1) is None and used(many, trust="hedge") is None
    assert used(many, belief=next(iter(many.card.beliefs))) is None and used(many, budget_ms=1e6) is None

    class Own:
        name = "own"

        def propose(self, observation):
            return np.zeros(observation.allowed.shape)

    assert used(many, recommender=Own()) is None  # it is shown all options, as it always was
    assert make_problem("mec", agents=6, servers=70, scenario="F").reset(0).agents == 6
    assert used(make_problem("mec", agents=6, servers=70, scenario="F")) is None  # tasks may be shed


def test_a_recommender_that_fails_is_told_and_leaves_the_game_alone():
    problem = make_problem("mec", agents=10, servers=12)
    allocator = Allocator(problem, "hybrid", "imappo", lists=Lists(4, 0))
    allocator.recommender.weights["out.bias"][:] = np.nan
    with pytest.warns(RuntimeWarning, match="recommender failed"):
        answer = allocator.step(problem.reset(0))
    assert answer.certificate.source == "game" and "recommender failed" in answer.certificate.status


def test_improving_questions_and_files_go_on_as_before(tmp_path):
    problem = make_problem("mec", agents=40, servers=12)
    allocator = Allocator(problem, "hybrid", "imappo", lists=Lists(4, 0))
    state = problem.reset(1)
    answer = allocator.step(state)
    c = answer.certificate
    assert c.listed == 4 and c.feasible and c.improvement.moved > 0 and not c.late
    assert json.dumps(answer.to_dict(), allow_nan=False) and answer.to_dict()["certificate"]["listed"] == 4
    agent = int(np.flatnonzero(state.active)[0])
    assert str(answer.why(agent)) and len(answer.why(agent).rows) == 13
    assert answer.what_if(toll=0.5).cost
    assert answer.log_prior.shape == (40, 13) and answer.marginal_regret().gain >= 0.0
    path = allocator.save(tmp_path / "a.npz")
    again = Allocator.load(path)
    assert again.coordinator.lists == Lists(4, 0)
    assert np.array_equal(again.step(state).option, answer.option)
    assert Allocator.load(path, lists=None).step(state).certificate.listed is None


@pytest.mark.parametrize("wrong", [{"width": 1}, {"width": 2.5}, {"above": -1}, {"above": True}])
def test_a_wrong_setting_is_told_by_name(wrong):
    with pytest.raises(ValueError, match=f"lists.{next(iter(wrong))} = "):
        Lists(**wrong)


def test_health_sees_the_same_on_lists():
    problem = make_problem("mec", agents=30, servers=8)
    listed, every = (Allocator(problem, "game", improve=False, lists=x) for x in (Lists(9, 0), None))
    state = problem.reset(0)
    for seed in range(8):
        a, b = listed.step(state), every.step(state)
        if not np.array_equal(a.option, b.option):
            pytest.skip("two equilibria as good: nothing to compare")
        state, _ = problem.advance(state, b, seed=seed)
    one, other = listed.health(), every.health()
    assert one.moves == pytest.approx(other.moves) and one.wasted == pytest.approx(other.wasted)
    assert (one.oscillating, one.lazy) == (other.oscillating, other.lazy)


def test_a_proposal_of_another_shape_is_named():
    from coordinator.shortlisted import _clipped
    from games.shortlists import shortlists_of

    problem = make_problem("mec", agents=4, servers=3)
    game = Allocator(problem, "game").step(problem.reset(0)).game
    g = shortlists_of(game, 3)
    with pytest.raises(ValueError, match="log-priors have shape"):
        _clipped(g, Proposal(np.zeros((1, 2, 2))), 10.0)
    bad = np.zeros((1, *g.option.shape))
    bad[0, 1, 2] = np.nan
    with pytest.raises(ValueError, match="log-prior of agent 1, option 2 is nan"):
        _clipped(g, Proposal(bad), 10.0)


def test_the_certificate_finds_what_a_list_hides(monkeypatch):
    """Lists of two that claim to be enough: the certificate reads all options, whoever says what of them."""
    problem = make_problem("mec", agents=80, servers=10)
    monkeypatch.setattr("coordinator.shortlisted.tempted", lambda g, *_: np.zeros(len(g.who), bool))
    monkeypatch.setattr(
        "coordinator.shortlisted.admit_lists",
        lambda *given: admit_lists(*given)._replace(unsure=np.zeros(len(given[0].who), bool)),
    )
    allocator = Allocator(problem, "game", improve=False, lists=Lists(2, 0))
    with pytest.warns(RuntimeWarning, match="certificate: "):
        found = [allocator.step(problem.reset(seed)).certificate for seed in range(6)]
    assert any("above its bound" in c.status or "left out while" in c.status for c in found)
