"""What a step answers where a part fails: the game, or everyone opted out, certified and said once."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import pytest

from coordinator import Coordinator
from hybridalloc import Allocator, make_problem
from tests.hybridalloc.recommenders import Broken, Random, Wishful


@pytest.fixture(scope="module")
def problem():
    return make_problem("mec", agents=12, servers=3)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (lambda o: np.full(o.allowed.shape, np.nan), "log-prior of agent 0, option 0 is nan"),
        (lambda o: np.where(np.arange(4) == 2, np.inf, np.zeros(o.allowed.shape)), "option 2 is inf"),
        (lambda o: np.zeros((1, 2, 2)), "log-priors have shape (1, 2, 2); this state needs (1, 12, 4)"),
        (lambda o: np.full(o.allowed.shape, -np.inf), "agent 0 is left without an allowed option"),
        (lambda o: np.where(o.allowed, -np.inf, 0.0), "agent 0 is left without an allowed option"),
        (lambda o: None, "ValueError"),
        (lambda o: "no", "ValueError"),
        (lambda o: 1 / 0, "ZeroDivisionError"),
    ],
)
@pytest.mark.parametrize("method", ["hybrid", "rl"])
def test_a_broken_recommender_leaves_the_game_and_says_so_once(problem, answer, reason, method):
    """At any step: it works, fails, works, fails; certified throughout, one warning in all."""
    recommender = Random(0)
    allocator = Allocator(problem, method, recommender)
    works = recommender.propose
    state = problem.reset(0)
    state = replace(state, reachable=np.tile([True, False, True], (12, 1)))  # so that something is forbidden
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for step in range(6):
            recommender.propose = answer if step % 2 else works
            c = allocator.step(state).certificate
            assert c.feasible
            if step % 2:
                assert c.source == "game" and reason in c.status and c.regret <= 1e-9
            else:
                assert c.source == method and c.status.startswith("ok")
    assert ["recommender failed" in str(w.message) for w in caught] == [True]


def test_all_mass_on_a_forbidden_option_is_no_mass_at_all(problem):
    """The rest is what counts: as if the forbidden option had not been named."""
    state = replace(problem.reset(0), reachable=np.tile([True, False, True], (12, 1)))
    base = np.random.default_rng(0).normal(size=(1, 12, 4))
    heavy = base.copy()
    heavy[..., 2] = 1e9
    a = Allocator(problem, "hybrid", Broken(lambda o: base)).step(state)
    b = Allocator(problem, "hybrid", Broken(lambda o: heavy)).step(state)
    np.testing.assert_array_equal(a.option, b.option)
    assert b.certificate.source == "hybrid" and not (b.option == 2).any()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda p: p._replace(mean=np.full_like(p.mean, np.nan)), "power = nan; it must be finite"),
        (lambda p: p._replace(spread=p.spread * [1, -10]), "fraction_spread = -1.0; a spread is >= 0"),
        (lambda p: p._replace(mean=np.zeros((3, 3, 2))), "power has shape (3, 3)"),
        (lambda p: p._replace(levels=("power", "charm")), "charm"),
        (lambda p: p._replace(levels=("power",)), "mean has shape (1, 12, 2); levels names 1: power"),
        (lambda p: p._replace(spread=None), "a proposal of levels has a mean and a spread; the spread is None"),
    ],
)
def test_continuous_parts_that_cannot_be_used_leave_the_game(problem, change, reason):
    recommender = Wishful(0.1)
    good = recommender.propose
    recommender.propose = lambda o: change(good(o))
    with pytest.warns(RuntimeWarning):
        c = Allocator(problem, "hybrid", recommender).step(problem.reset(0)).certificate
    assert c.feasible and c.source in ("game", "fallback") and reason in c.status


def test_a_broken_game_leaves_the_fallback(problem, monkeypatch):
    allocator = Allocator(problem)
    monkeypatch.setattr("coordinator.coordinator.merge_at_once", lambda *_, **__: 1 / 0)
    with pytest.warns(RuntimeWarning, match="all agents opt out"):
        c = allocator.step(problem.reset(0)).certificate
    assert c.source == "fallback" and "ZeroDivisionError" in c.status and c.feasible


@pytest.mark.parametrize("part", ["world_at", "game", "settle", "parts", "priority"])
@pytest.mark.parametrize("method", ["hybrid", "nearest"])
def test_a_problem_that_raises_leaves_everyone_opted_out(problem, monkeypatch, part, method):
    """Whatever part of the problem fails, its own check certifies the answer, or the certificate says why not."""
    where = type(problem) if part == "world_at" else type(problem.worlds([0]))
    allocator, state = Allocator(problem, method), problem.reset(0)
    monkeypatch.setattr(where, part, lambda *_, **__: 1 / 0)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        allocation = allocator.step(state)
        allocator.step(state)
    c = allocation.certificate
    assert c.source == "fallback" and "ZeroDivisionError" in c.status
    assert not allocation.option.any() and not allocation.power.any()
    assert c.feasible and c.max_violation == 0 and c.epsilon_bound == np.inf
    heads = [str(w.message).split(":")[0].split(" (")[0] for w in caught]  # each part that failed, once
    assert heads[-1] == "all agents opt out" and heads[:-1] in ([], ["improving failed"])
    assert set(c.unserved) == set(np.flatnonzero(~allocation.served & state.active))
    if allocation.game is None:
        with pytest.raises(ValueError, match="there is no game to explain: all agents opt out"):
            allocation.why(0)


def test_a_check_that_raises_certifies_nothing(problem, monkeypatch):
    monkeypatch.setattr(type(problem), "check", lambda *_: 1 / 0)
    with pytest.warns(RuntimeWarning, match="not checked"):
        c = Allocator(problem).step(problem.reset(0)).certificate
    assert not c.feasible and c.violations == ("not checked: ZeroDivisionError: division by zero",)


def test_a_recommender_that_fails_half_way_leaves_nothing_behind(problem):
    """Options that can be used beside levels that cannot: the game alone, and `why` speaks of it alone."""
    recommender = Wishful(-0.1)
    with pytest.warns(RuntimeWarning, match="recommender failed"):
        allocation = Allocator(problem, "hybrid", recommender).step(problem.reset(7))
    assert allocation.certificate.source == "game"
    assert not allocation.log_prior.any()
    np.testing.assert_array_equal(
        allocation.option, Allocator(problem, "game", improve=True).step(problem.reset(7)).option
    )


def test_a_recommender_that_proposes_levels_apart_is_told_to_return_a_proposal(problem):
    class Apart(Random):
        def propose_continuous(self, observation):
            return {"power": 0.1, "power_spread": 0.1}

    with pytest.raises(ValueError, match=r"Apart has propose_continuous.* return rl.proposal.Proposal\(log"):
        Allocator(problem, "hybrid", Apart(0))
    with pytest.raises(ValueError, match="Apart has propose_continuous"):
        Coordinator().decide(problem.worlds([0]), Apart(0), problem.card.prices())
