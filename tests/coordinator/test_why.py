"""Explanations: parts that add up, changes in closed form that solving again confirms, what-if."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from coordinator.why import HAIR, check, explain, what_if
from games.best_response import best_response_batch, best_response_dynamics
from games.congestion import CongestionGame
from games.errors import InvalidGameError


def random_game(rng, n=8, o=5, toll=0.7):
    """Options over two resource kinds, some shared; a random prior and the equilibrium of the tilted game."""
    options = np.array([[-1, -1], [0, 3], [1, 3], [2, 4], [0, 4]])[:o]
    allowed = rng.random((n, o)) < 0.85
    allowed[:, 0] = True
    game = CongestionGame(
        options, rng.uniform(0.1, 1, (n, 5)), rng.uniform(0.5, 3, 5), rng.random((n, o)), allowed, toll
    )
    prior = np.where(game.allowed, rng.uniform(-4, 0, (n, o)), 0.0)
    return game, prior


def solved(game, tilt):
    found = best_response_dynamics(replace(game, private_cost=game.private_cost + np.where(game.allowed, tilt, 0.0)))
    assert found.converged
    return found.choice


CASES = [(seed, trust) for seed in range(12) for trust in (2.0, 8.0, np.inf)]


@pytest.mark.parametrize(("seed", "trust"), CASES)
def test_parts_add_up_and_the_smallest_changes_are_confirmed_by_solving_again(seed, trust):
    rng = np.random.default_rng(seed)
    game, prior = random_game(rng)
    tilt = -prior / trust if np.isfinite(trust) else np.zeros_like(prior)
    choice = solved(game, tilt)
    costs = game.costs(choice)
    for agent in range(game.agents):
        why = explain(game, choice, agent, prior, trust, 10.0)
        for row in why:
            if row["allowed"]:
                assert row["cost"] == pytest.approx(costs[agent, row["option"]], rel=1e-12)
                parts = row["private"] + row["congestion"] + row["toll"] + row["learned"]
                assert row["total"] == pytest.approx(parts, abs=1e-12)
        assert why[0]["chosen"] and why.taken == choice[agent]
        if game.allowed[agent].sum() == 1:
            assert why.reason == "it is the only option that is allowed" and why.smallest is None
            continue
        kinds = {c.kind for c in why.changes}
        assert kinds <= {"private cost", "log prior", "price"} and "private cost" in kinds
        assert ("log prior" in kinds) == np.isfinite(trust)
        for kind in kinds:
            first = next(c for c in why.changes if c.kind == kind)
            assert first.checked or not first.possible
        for change in why.changes:  # every one, not only the smallest
            if change.possible:
                assert check(game, choice, agent, tilt, trust, change)


def test_the_stated_change_is_the_least_by_search():
    """Halving on the private cost, solved from scratch each time, against the closed form."""
    rng = np.random.default_rng(5)
    game, prior = random_game(rng)
    tilt = -prior / 4.0
    choice = solved(game, tilt)
    for agent in range(game.agents):
        for change in explain(game, choice, agent, prior, 4.0, 10.0).changes:
            if change.kind != "private cost":
                continue
            low, high = 0.0, 2 * abs(change.amount) + 1.0
            while high - low > 1e-7:
                middle = (low + high) / 2
                private = game.private_cost + tilt
                private[agent, change.option] -= middle
                found = choice[None].copy()
                best_response_batch(game.batch()._replace(private_cost=private[None]), found, 1e-10, 200)
                low, high = (middle, high) if (found[0] == choice).all() else (low, middle)
            assert high == pytest.approx(-change.amount, abs=1e-6)


def test_a_wrong_amount_is_not_confirmed():
    rng = np.random.default_rng(0)
    game, prior = random_game(rng)
    tilt = -prior / 4.0
    choice = solved(game, tilt)
    change = next(explain(game, choice, a, prior, 4.0, 10.0).smallest for a in range(8) if game.allowed[a].sum() > 1)
    agent = next(a for a in range(8) if game.allowed[a].sum() > 1)
    assert check(game, choice, agent, tilt, 4.0, change)
    for factor in (0.9, 1.1, -1.0):
        assert not check(game, choice, agent, tilt, 4.0, replace(change, amount=factor * change.amount))
    assert HAIR < 1e-3


def test_what_decided_is_named():
    """Two servers alike but for one part; the other would win without it."""
    base = dict(options=[[0], [1]], weight=np.ones((2, 2)), capacity=[1.0, 1.0], private_cost=np.zeros((2, 2)))
    none = np.zeros((2, 2))
    why = explain(CongestionGame(**base | {"private_cost": [[0, 5.0], [0, 0]]}), np.array([0, 0]), 0, none, np.inf, 10)
    assert ("private", 1) in why.decided_by and "private" in why.reason
    crowded = CongestionGame(**base | {"private_cost": [[0.5, 0], [0, 0]]})
    why = explain(crowded, np.array([0, 1]), 0, none, np.inf, 10)
    assert dict(why.decided_by)["congestion"] == 1 and dict(why.decided_by)["resource 1"] == 1
    why = explain(CongestionGame(**base, toll=1.0), np.array([0, 1]), 0, none, np.inf, 10)
    assert "toll" not in dict(why.decided_by)  # congestion alone suffices
    tolled = CongestionGame(**base | {"private_cost": [[1.5, 0], [0, 0]]}, toll=1.0)
    assert dict(explain(tolled, np.array([0, 1]), 0, none, np.inf, 10).decided_by)["toll"] == 1
    prior = np.array([[0.0, -5.0], [0.0, 0.0]])
    learned = CongestionGame(**base | {"private_cost": [[0.5, 0], [9, 0]], "capacity": [1.0, 100.0]})
    assert dict(explain(learned, np.array([0, 1]), 0, prior, 2.0, 10).decided_by)["learned"] == 1
    held = explain(learned, np.array([0, 1]), 0, none, np.inf, 10, anchor=np.array([[0, 3.0], [0, 0]]))
    assert dict(held.decided_by)["hysteresis"] == 1
    shut = CongestionGame(**base, allowed=[[True, False], [True, True]])
    assert explain(shut, np.array([0, 1]), 0, none, np.inf, 10).decided_by == (("reach", 0),)


def test_rules_and_pure_rl_are_explained_as_such():
    rng = np.random.default_rng(0)
    game, prior = random_game(rng)
    choice = np.where(game.allowed, prior, -np.inf).argmax(axis=1)
    why = explain(game, choice, 0, prior, 0.0, 10.0)
    assert "the recommender alone" in why.reason and why[0]["chosen"]
    assert all(c.kind == "log prior" for c in why.changes)
    worst = np.where(game.allowed, game.costs(choice), -np.inf).argmax(axis=1)
    why = explain(game, worst, 0, np.zeros_like(prior), np.inf, 10.0, rule="nearest")
    assert why.reason.startswith("the rule 'nearest' chose it; option") and why.changes == ()


# --- what if


def test_what_if_agrees_with_solving_the_changed_game():
    rng = np.random.default_rng(7)
    game, prior = random_game(rng)
    tilt = -prior / 5.0
    choice = solved(game, tilt)
    same = what_if(game, choice, tilt)
    assert same.moved == () and same.cost[0] == same.cost[1]
    for change in (
        {"capacity": {0: 0.3}}, {"toll": 3.0}, {"private": {(2, int(choice[2])): 2.0}}, {"without": 3},
        {"forbid": {int(np.argmax(choice > 0)): int(choice[np.argmax(choice > 0)])}},
    ):  # fmt: skip
        answer = what_if(game, choice, tilt, **change)
        assert answer.regret <= 1e-9
        assert answer.moved == tuple(np.flatnonzero(answer.choice != choice))
    gone = what_if(game, choice, tilt, forbid={0: int(choice[0])} if choice[0] else {})
    assert choice[0] == 0 or gone.choice[0] != choice[0]
    dearer = what_if(game, choice, tilt, private={(2, int(choice[2])): 100.0})
    assert 2 in dearer.moved or game.allowed[2].sum() == 1
    with pytest.raises(InvalidGameError, match="capacity"):
        what_if(game, choice, tilt, capacity={0: 0.0})
    with pytest.raises(IndexError):
        what_if(game, choice, tilt, capacity={99: 2.0})


def test_tables_for_people():
    rng = np.random.default_rng(1)
    game, prior = random_game(rng)
    choice = solved(game, -prior / 4.0)
    why = explain(game, choice, 1, prior, 4.0, 10.0)
    text, page = str(why), why._repr_html_()
    assert text.splitlines()[0].startswith(f"agent 1 has option {choice[1]}")
    assert len(text.splitlines()) == 2 + game.allowed[1].sum()
    assert page.count("<tr>") == 1 + game.allowed[1].sum() and "<table" in page and "font-weight:600" in page
    assert "color:#" not in page and "background:#" not in page  # the page's own colours, light or dark
