"""Explanations of places: parts against the certificate, changes solved again under floors, what options lack."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

from coordinator.tables import apart, enough
from coordinator.why import PARTS, explain
from coordinator.why_seated import check, explain_seated, what_if_seated
from games.admission import admit
from games.certificate import Audit
from games.certificate_places import fitting_costs, measure_envy
from games.congestion import CongestionGame
from games.errors import InvalidGameError
from games.places import Places, classes
from games.seated import respond

CASES = [(seed, legs, trust) for seed in range(8) for legs in (1, 2) for trust in (3.0, np.inf)]


def drawn(seed, legs=1, trust=np.inf, agents=9, home=0.15, slack=None, toll=0.7):
    """A game with places, a prior and the seating of the tilted game."""
    rng = np.random.default_rng(seed)
    slack = slack or ((0.6, 3.0) if legs == 1 else (3.0, 9.0))
    options = np.array([[-1], [0], [1], [2]] if legs == 1 else [[-1, -1], [0, 2], [0, 3], [1, 2], [1, 3]])
    o, r = len(options), options.max() + 1
    allowed = rng.random((agents, o)) < 0.85
    allowed[:, 0] = True
    private = rng.uniform(0, 1, (agents, o))
    private[:, 0] = 2.0
    game = CongestionGame(options, rng.uniform(0.2, 1.0, (agents, r)), rng.uniform(0.8, 2.0, r), private, allowed, toll)
    at_home = rng.random(agents) < home
    work = rng.uniform(0.1, 1.0, (agents, r)) / game.capacity
    seconds = np.where(options >= 0, work[:, np.maximum(options, 0)], 0.0)
    seconds[at_home] = 0.0
    left = np.repeat(rng.uniform(*slack, (agents, 1)), o, axis=1)
    alone = private + np.where(options >= 0, (game.weight**2 / game.capacity)[:, np.maximum(options, 0)], 0.0).sum(-1)
    acceptable = allowed & ((alone <= private[:, :1]) | at_home[:, None])
    acceptable[:, 0] = at_home
    places = Places(
        seconds[None], left[None], np.full((1, agents, o), np.inf), acceptable[None],
        classes(rng.integers(0, 3, (1, agents))), at_home[None], np.full((1, agents), np.nan),
    )  # fmt: skip
    prior = np.where(allowed, rng.uniform(-3, 0, (agents, o)), 0.0)
    tilt = -prior / trust if np.isfinite(trust) else np.zeros_like(prior)
    seating = admit(game.batch(), places, np.zeros((1, agents), np.int64), tilt[None])
    assert seating.stable.all()
    return game, places, seating, prior, tilt


def audit_of(game, places, seating):
    p = {name: getattr(places, name)[0] for name in ("seconds", "slack", "cap", "acceptable", "home", "rank")}
    held, floor = seating.held[0], seating.floor[0]
    return Audit(
        game.options, game.weight, game.capacity, game.private_cost, game.allowed, game.toll,
        np.ones(game.agents, bool), held, held, p["seconds"], p["slack"], p["cap"], p["acceptable"], p["home"],
        p["rank"], seating.option[0], held, floor, floor,
    )  # fmt: skip


@pytest.mark.parametrize(("seed", "legs", "trust"), CASES)
def test_parts_are_the_costs_under_the_floors_and_changes_are_solved_again(seed, legs, trust):
    game, places, seating, prior, tilt = drawn(seed, legs, trust)
    costs = fitting_costs(audit_of(game, places, seating))
    seen = 0
    for i in range(game.agents):
        why = explain_seated(game, places, seating, i, prior, trust, 10.0)
        taken = int(seating.option[0, i])
        assert why.taken == taken and [r["total"] for r in why] == sorted(r["total"] for r in why)
        chosen = next(row for row in why if row["chosen"])
        assert chosen["option"] == taken and chosen["admits"] == 0 and np.isfinite(chosen["total"])
        for row in why:
            o = row["option"]
            assert row["fits"] == np.isfinite(costs[i, o]) and row["allowed"] == game.allowed[i, o]
            if row["allowed"]:
                assert row["cost"] == pytest.approx(row["private"] + row["congestion"] + row["toll"], abs=1e-12)
            if row["fits"]:
                assert row["cost"] - game.private_cost[i, taken] == pytest.approx(costs[i, o], rel=1e-9, abs=1e-9)
                assert row["total"] == pytest.approx(sum(row[p] for p in PARTS), abs=1e-12)
                assert row["learned"] == pytest.approx(tilt[i, o], abs=1e-12)
            elif not row["chosen"]:
                assert row["total"] == np.inf and row["admits"] == np.inf
        if not seating.held[0, i]:
            assert why.changes == () and why.reason.startswith("left out: ")
            continue
        assert why[0]["total"] >= chosen["total"] - 1e-8  # nobody wants to move
        able = {row["option"] for row in why if row["fits"]}
        assert {c.option for c in why.changes} <= able - {taken}
        for kind in {c.kind for c in why.changes}:
            first = next(c for c in why.changes if c.kind == kind)
            assert first.checked or not first.possible
        for change in why.changes:  # every one, not only the smallest
            if change.possible:
                assert check(game, places, seating, i, tilt, trust, change)
                for factor in (0.9, 1.1, -1.0):
                    wrong = replace(change, amount=factor * change.amount)
                    assert abs(change.amount) < 1e-5 or not check(game, places, seating, i, tilt, trust, wrong)
                seen += 1
    assert seen


def test_the_stated_change_is_the_least_by_search():
    """Halving on the private cost, replies under the floors each time, against the closed form."""
    game, places, seating, prior, tilt = drawn(5, 1, 4.0)
    seen = 0
    for i in range(game.agents):
        for change in explain_seated(game, places, seating, i, prior, 4.0, 10.0).changes:
            if change.kind != "private cost":
                continue
            low, high = 0.0, 2 * abs(change.amount) + 1.0
            while high - low > 1e-7:
                middle = (low + high) / 2
                private = game.private_cost + tilt
                private[i, change.option] -= middle
                found = respond(game.batch()._replace(private_cost=private[None]), places, seating)
                still = (found.option == seating.option).all()
                low, high = (middle, high) if still else (low, middle)
            assert high == pytest.approx(-change.amount, abs=1e-6)
            seen += 1
    assert seen > 3


def test_while_no_floor_binds_the_parts_are_those_of_the_game_without_floors():
    game, places, seating, prior, _ = drawn(2, 2, 3.0, home=0.0, slack=(1e8, 1e9))
    holders = np.flatnonzero(seating.held[0])
    assert len(holders) == game.agents
    for i in holders:
        there = {row["option"]: row for row in explain_seated(game, places, seating, i, prior, 3.0, 10.0)}
        for row in explain(game, seating.option[0], i, prior, 3.0, 10.0):
            if row["allowed"]:
                for part in (*PARTS, "cost"):
                    assert there[row["option"]][part] == pytest.approx(row[part], rel=1e-6, abs=1e-7)
            if there[row["option"]]["fits"]:
                assert there[row["option"]]["total"] == pytest.approx(row["total"], rel=1e-6)


def test_an_option_without_room_is_named_with_what_it_needs_and_what_is_left():
    """One leg: the floor is work over slack, the room what the others' floors leave."""
    seen = left_out = 0
    for seed in range(30):
        game, places, seating, prior, _ = drawn(seed, 1, home=0.0, agents=10)
        for i in range(game.agents):
            why = explain_seated(game, places, seating, i, prior, np.inf, 10.0)
            held = bool(seating.held[0, i])
            pattern = r"option (\d): it needs ([\d.e-]+) of resource (\d), ([\d.e-]+) is left"
            if held:
                pattern = r"option (\d) would cost less but has no room: " + pattern.split(": ")[1]
            for o, need, r, left in re.findall(pattern, why.reason):
                o, r = int(o), int(r)
                assert float(need) == pytest.approx(places.seconds[0, i, o, 0] / places.slack[0, i, o], rel=5e-3)
                others = seating.held[0] & (seating.option[0] == o) & (np.arange(game.agents) != i)
                if not held:  # lower classes would have to give way
                    others &= places.rank[0] <= places.rank[0, i]
                assert r == o - 1 and float(left) == pytest.approx(1 - seating.floor[0, others, 0].sum(), abs=5e-3)
                assert float(need) > float(left)
                row = next(row for row in why if row["option"] == o)
                assert not row["fits"]
                if held:
                    assert row["cost"] < next(row for row in why if row["chosen"])["cost"]
                    assert ("room", o) in why.decided_by
                    seen += 1
                else:
                    left_out += 1
    assert seen > 5 and left_out > 5


def test_two_legs_that_lack_room_together_are_told_by_time():
    """Each leg would do if the other had all; beside what is held of both it does not."""
    game = CongestionGame([[-1, -1], [0, 1]], np.ones((3, 2)), [1.0, 1.0], [[5.0, 0.0]] * 3)
    seconds = np.zeros((1, 3, 2, 2))
    seconds[0, :, 1] = [[0.5, 0.01], [0.01, 0.5], [0.3, 0.3]]
    slack = np.array([[[1.0, 1.0], [1.0, 1.0], [1.3, 1.3]]])
    ok = np.array([[[False, True]] * 3])
    places = Places(
        seconds,
        slack,
        np.full((1, 3, 2), np.inf),
        ok,
        np.array([[0, 0, 1]]),
        np.zeros((1, 3), bool),
        np.full((1, 3), np.nan),
    )
    seating = admit(game.batch(), places, np.zeros((1, 3), np.int64))
    assert seating.held[0].tolist() == [True, True, False]
    why = explain_seated(game, places, seating, 2, np.zeros((3, 2)), np.inf, 10.0)
    took, left = map(float, re.search(r"it takes ([\d.]+) s, ([\d.]+) s are left", why.reason).groups())
    room = 1 - seating.floor[0, :2].sum(axis=0)
    assert took == pytest.approx((0.3 / room).sum(), rel=5e-3) and left == 1.3 and took > left


def test_what_is_told_of_those_that_no_room_would_serve():
    game = CongestionGame([[-1], [0]], np.ones((4, 1)), [1.0], [[9.0, 0.0], [9.0, 0.0], [9.0, 0.0], [0.5, 0.0]])
    seconds = np.array([[[[0.0], [2.0]], [[0.0], [0.2]], [[0.0], [0.5]], [[0.0], [0.1]]]])
    slack = np.array([[[1.0] * 2, [-0.1] * 2, [1.0] * 2, [1.0] * 2]])
    cap = np.full((1, 4, 2), np.inf)
    cap[0, 2] = 0.3
    ok = np.array([[[False, True], [False, True], [False, True], [False, False]]])
    places = Places(
        seconds, slack, cap, ok, np.zeros((1, 4), np.int64), np.zeros((1, 4), bool), np.full((1, 4), np.nan)
    )
    seating = admit(game.batch(), places, np.zeros((1, 4), np.int64))
    said = [explain_seated(game, places, seating, i, np.zeros((4, 2)), np.inf, 10.0).reason for i in range(4)]
    assert "even alone it takes 2 s there, 1 s are left" in said[0]
    assert "its deadline ends before work there could begin" in said[1]
    assert "with the 0.3 of a resource that its power allows" in said[2]
    assert said[3] == "left out: even alone, every option costs it more than opting out; it opts out"


def test_a_promise_comes_before_opting_out_and_a_device_at_home_may():
    game = CongestionGame([[-1], [0]], [[1.0], [1.0]], [1.0], [[1.5, 0.0], [1.5, 0.0]], toll=1.0)
    seconds = np.array([[[[0.0], [0.4]], [[0.0], [0.4]]]])
    for home in (False, True):
        ok = np.array([[[home, True], [home, True]]])
        places = Places(
            np.where(home, 0.0, seconds), np.ones((1, 2, 2)), np.full((1, 2, 2), np.inf), ok,
            np.zeros((1, 2), np.int64), np.full((1, 2), home), np.full((1, 2), np.nan),
        )  # fmt: skip
        seating = admit(game.batch(), places, np.array([[1, 1]]))
        whys = [explain_seated(game, places, seating, i, np.zeros((2, 2)), np.inf, 10.0) for i in (0, 1)]
        if home:  # one of the two goes
            assert sorted(why.taken for why in whys) == [0, 1] and all(row["fits"] for why in whys for row in why)
        else:
            assert [why.taken for why in whys] == [1, 1] and ("promise", 0) in whys[0].decided_by
            assert "opting out would cost 1.5 less, but a place that serves it comes first" in whys[0].reason


def test_of_home_devices_every_change_is_confirmed_too():
    seen = 0
    for seed in range(6):
        game, places, seating, prior, tilt = drawn(seed, 1, 2.0, home=0.6)
        for i in np.flatnonzero(places.home[0]):
            why = explain_seated(game, places, seating, i, prior, 2.0, 10.0)
            assert all(row["fits"] == row["allowed"] for row in why)
            for change in why.changes:
                seen += change.possible and check(game, places, seating, i, tilt, 2.0, change)
    assert seen > 20


# --- what if


def test_a_question_without_a_change_moves_nobody():
    for seed, legs, trust in CASES:
        game, places, seating, _, tilt = drawn(seed, legs, trust)
        same = what_if_seated(game, places, seating, tilt)
        assert same.moved == () and same.cost[0] == same.cost[1] and same.regret <= 1e-7
        assert (same.held == seating.held[0]).all()


def test_a_changed_game_is_answered_under_the_floors():
    come = gone = 0
    for seed in range(20):
        slack = ((0.5, 2.0), (1.5, 5.0))[seed % 2]
        game, places, seating, _, tilt = drawn(seed, 1 + seed % 2, 3.0, agents=10, slack=slack)
        held, option = seating.held[0], seating.option[0]
        leaving = int(np.flatnonzero(held & ~places.home[0])[0])
        for change in (
            {"capacity": {0: 3.0}}, {"capacity": {0: 0.3}}, {"toll": 3.0}, {"without": leaving},
            {"private": {(leaving, int(option[leaving])): 0.5}}, {"forbid": {leaving: int(option[leaving])}},
        ):  # fmt: skip
            answer = what_if_seated(game, places, seating, tilt, **change)
            assert answer.regret <= 1e-7
            moved = np.flatnonzero(answer.choice != option).tolist()
            assert [i for i in answer.moved if i != leaving] == [i for i in moved if i != leaving]
            came, went = answer.held & ~held, held & ~answer.held
            if "capacity" in change and change["capacity"][0] > 1:
                come += came.sum()
            if "capacity" in change and change["capacity"][0] < 1:
                gone += went.sum()
            if "without" in change:
                assert not answer.held[leaving] and answer.choice[leaving] == 0 and leaving not in answer.moved
                come += came.sum()
            if "forbid" in change:
                assert answer.choice[leaving] != option[leaving]
            if "toll" in change:
                assert (answer.held == held).all()
    assert come > 10 and gone > 10
    game, places, seating, _, tilt = drawn(0)
    with pytest.raises(InvalidGameError, match="capacity"):
        what_if_seated(game, places, seating, tilt, capacity={0: 0.0})
    with pytest.raises(IndexError):
        what_if_seated(game, places, seating, tilt, capacity={99: 2.0})


def test_faster_resources_leave_nobody_with_cause_to_envy():
    for seed in range(10):
        game, places, seating, _, tilt = drawn(seed, 1, agents=10)
        answer = what_if_seated(game, places, seating, tilt, capacity={0: 0.5, 1: 2.0})
        now = places._replace(seconds=places.seconds.copy())
        now.seconds[0, :, 1] /= 0.5
        now.seconds[0, :, 2] /= 2.0
        after = seating._replace(option=answer.choice[None], held=answer.held[None])
        floor = np.zeros_like(seating.floor)
        for i in np.flatnonzero(answer.held & ~places.home[0]):
            floor[0, i] = now.seconds[0, i, answer.choice[i]] / now.slack[0, i, answer.choice[i]]
        size = game.capacity * np.array([0.5, 2.0, 1.0])
        changed = CongestionGame(game.options, game.weight, size, game.private_cost, game.allowed, game.toll)
        alone = changed.private_cost[:, 1:] + (changed.weight**2 / changed.capacity)
        acceptable = now.acceptable.copy()
        acceptable[0, :, 1:] = game.allowed[:, 1:] & ((alone <= game.private_cost[:, :1]) | places.home[0][:, None])
        now = now._replace(acceptable=acceptable)
        assert measure_envy(audit_of(changed, now, after._replace(floor=floor))) == ()


def test_tables_for_people():
    game, places, seating, prior, _ = drawn(1, 1, 4.0)
    agent = int(np.flatnonzero(seating.held[0] & ~places.home[0])[0])
    why = explain_seated(game, places, seating, agent, prior, 4.0, 10.0)
    text, page = str(why), why._repr_html_()
    assert text.splitlines()[0].startswith(f"agent {agent} has option {seating.option[0, agent]}")
    assert "fits" in text.splitlines()[1] and page.count("<tr>") == 1 + game.allowed[agent].sum()
    assert "nan" not in text and "font-weight:600" in page


def test_numbers_that_are_told_are_enough_and_can_be_told_apart():
    assert enough(20.694, 12.0) == ("20.7", "12") and enough(6.000000000000001, 5.0) == ("6", "5")
    assert enough(77.56, 100.0, 3) == ("77.5", "100") and enough(2.00000003, 2.0) == ("2.001", "2")
    assert apart(0.31204, 0.31198) == ("0.31204", "0.31198") and apart(0.3, 0.1) == ("0.3", "0.1")
    rng = np.random.default_rng(0)
    for needed, now in np.exp(rng.normal(0, 8, (2000, 2))):
        told, was = enough(needed, now)
        assert told != was and (float(told) >= needed * (1 - 1e-12) if needed > now else float(told) <= needed)
