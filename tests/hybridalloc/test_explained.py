"""What an allocation says of itself: why each agent is where it is, what would admit it, tables and JSON."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from games.admission import admit
from games.certificate_places import fitting_costs
from hybridalloc import Allocator, make_problem
from tests.hybridalloc.recommenders import Random


@pytest.fixture(scope="module")
def problem():
    return make_problem("mec", agents=12, servers=3)


def test_why_explains_every_agent_of_an_allocation(problem):
    state = problem.reset(2)
    allocation = Allocator(problem, "hybrid", Random(4), improve=False).step(state)
    for agent in np.flatnonzero(state.active):
        why = allocation.why(int(agent))
        assert [r["total"] for r in why] == sorted(r["total"] for r in why)
        chosen = next(r for r in why if r["chosen"])
        assert chosen["option"] == allocation.option[agent] and chosen["admits"] == 0
        assert why[0]["total"] == pytest.approx(chosen["total"], abs=1e-9)  # nobody wants to move
        assert str(allocation.option[agent]) in str(why)
        if sum(row["fits"] for row in why) > 1:
            assert why.smallest.checked
        else:
            said = "only option with a place that fits" if allocation.held[agent] else "left out: "
            assert why.smallest is None and said in why.reason
    idle = int(np.flatnonzero(~state.active)[0])
    assert allocation.why(idle).reason == "it is the only option that is allowed"
    with pytest.raises(IndexError, match="agent 12: this allocation has 12 agents"):
        allocation.why(12)
    rule = Allocator(problem, "nearest").step(state).why(0)
    assert rule.reason.startswith("the rule 'nearest' chose it") and rule.changes == ()


def test_why_says_what_would_admit_the_unserved():
    """Each stated change is made and the state settled again: served with it, not a little short of it."""
    problem = make_problem("mec", agents=24, servers=2, load=1.0, bursts=False)
    found = {"deadline_s": 0, "work": 0, "server_hz": 0, "sla": 0, "option": 0}
    for seed in range(8):
        state = problem.reset(seed)
        allocator = Allocator(problem, "random", seed=seed)
        allocation = allocator.step(state)
        assert not allocation.seated
        priority = problem.world_at(state).priority()[0]
        unserved = allocation.certificate.unserved
        assert set(unserved) == set(np.flatnonzero(~allocation.served & state.active))
        assert (np.diff(priority[list(unserved)]) <= 0).all()

        def served(changed, agent, option=allocation.option, allocator=allocator):
            plan = problem.world_at(changed).settle(option[None], allocator.prices)
            return bool(plan.served[0, agent])

        for agent in unserved[:4]:
            why = allocation.why(agent)
            assert not why.served and why.admission == problem.admits(state, allocation, agent, allocator.prices)
            assert "not expected to hold" in str(why)
            for way in why.admission:
                found[way["knob"]] += 1
                for share, holds in ((1.0, True), (1 - 1e-3, False)):
                    factor = 1 + (way["factor"] - 1) * share
                    if way["knob"] == "deadline_s":
                        value = state.deadline_s.copy()
                        value[agent] *= factor
                        assert served(replace(state, deadline_s=value), agent) == holds
                    elif way["knob"] == "server_hz":
                        value = state.server_hz.copy()
                        value[allocation.option[agent] - 1] *= factor
                        assert served(replace(state, server_hz=value), agent) == holds
                if way["knob"] == "option":
                    for other in way["needed"]:
                        moved = allocation.option.copy()
                        moved[agent] = other
                        assert served(state, agent, moved)
    assert all(count > 0 for count in found.values()), found


def solved_again(problem, state, allocation, agent, wish=None, accept=None):
    """Whether stable admission, solved again from the present choice and settled, serves a device; who lost a place."""
    batch, prices = problem.world_at(replace(state, truth=None)), problem.card.prices()
    game = batch.game(prices)
    places = batch.places(prices, game)
    if accept is not None:
        places.acceptable[0, agent, accept] = True
    tilt = -allocation.log_prior[None] / allocation.trust if np.isfinite(allocation.trust) else None
    seating = admit(game, places, np.where(allocation.held, allocation.option, 0)[None], tilt)
    option = np.where(seating.held[0] | allocation.held, seating.option[0], allocation.option)[None]
    plan = batch.settle(option, prices, wish, allocation.trust, seating=seating._replace(option=option))
    return bool(plan.served[0, agent]), np.flatnonzero(allocation.held & state.active & ~seating.held[0]).tolist()


@pytest.mark.parametrize("more", [{}, {"priority_gap": 0.1}])
def test_what_would_admit_a_device_without_a_place_does_on_both_sides(more):
    """Each change is made and stable admission solved again: served at what is needed, not a little short of it."""
    problem = make_problem("mec", agents=40, servers=2, load=1.0, bursts=False, **more)
    found = Counter()
    for seed in range(8):
        state = problem.reset(seed)
        slow = replace(state, server_hz=state.server_hz / 3, truth=None)
        allocator = Allocator(problem, "hybrid" if seed % 2 else "game", Random(4) if seed % 2 else None, improve=False)
        allocation = allocator.step(slow)
        wish = allocation.origin.proposal
        for agent in allocation.certificate.unserved[:3]:
            assert not allocation.held[agent]
            why = allocation.why(agent)
            assert not why.served and why.changes == () and why.reason.startswith("left out: ")
            assert why.admission == problem.admits(slow, allocation, agent, allocator.prices, wish, allocation.trust)
            factors = [way["factor"] for way in why.admission if np.isfinite(way["factor"])]
            assert factors == sorted(factors)
            for way in why.admission:
                knob, needed = way["knob"], way["needed"]
                found[knob] += 1
                if knob == "option":
                    assert all(solved_again(problem, slow, allocation, agent, wish, o)[0] for o in needed)
                    continue
                for part in (1.0, 1 - 1e-3):
                    changed = turned(slow, agent, way, 1 + (way["factor"] - 1) * part, needed)
                    served, lost = solved_again(problem, changed, allocation, agent, wish)
                    assert served == (part == 1.0), way
                    if served:
                        assert ("in place of" in way["text"]) == bool(lost)
                        assert all(str(j) in way["text"] for j in lost[:4])
                    if knob == "sla":  # the least: the class below it would not do
                        lower = [v for v in (0.0, 0.5) if slow.sla[agent] < v < needed - 0.1]
                        for value in lower if not more else ():
                            changed = turned(slow, agent, way, np.nan, value)
                            assert not solved_again(problem, changed, allocation, agent, wish)[0]
                        break
    assert all(found[knob] > 2 for knob in ("deadline_s", "work", "server_hz", "sla")), found


def turned(state, agent, way, factor, needed):
    """The state with a knob of ``admits`` turned."""
    knob, one = way["knob"], np.arange(state.agents) == agent
    if knob == "work":
        task = np.where(one, 1 / factor, 1.0)
        return replace(state, task_bits=state.task_bits * task, task_cycles=state.task_cycles * task)
    if knob == "sla":
        return replace(state, sla=np.where(one, needed, state.sla))
    if knob == "server_hz":
        server = int(re.search(r"server (\d+)", way["text"]).group(1))
        return replace(
            state, server_hz=np.where(np.arange(len(state.server_hz)) == server, factor, 1) * state.server_hz
        )
    return replace(state, deadline_s=np.where(one, factor, 1) * state.deadline_s)


def test_why_of_a_place_is_in_the_game_that_the_floors_constrain(problem):
    """What an option costs is what the certificate works out, and the question without a change moves nobody."""
    for seed in range(4):
        allocation = Allocator(problem, "hybrid", Random(seed), hysteresis=0.1, improve=False).step(problem.reset(seed))
        o = allocation.origin
        costs = fitting_costs(problem.audit(o.state, allocation, o.prices))
        assert allocation.seated and allocation.what_if().moved == ()
        assert (allocation.what_if().held == allocation.held).all()
        for agent in np.flatnonzero(allocation.held & o.state.active):
            base = allocation.game.private_cost[agent, allocation.option[agent]]
            for row in allocation.why(int(agent)):
                assert row["fits"] == np.isfinite(costs[agent, row["option"]])
                if row["fits"]:
                    assert row["cost"] - base == pytest.approx(costs[agent, row["option"]], rel=1e-6, abs=1e-8)


def test_an_allocation_is_strict_json_whatever_is_in_it(problem):
    for method in ("hybrid", "rl", "game", "nearest"):
        allocation = Allocator(problem, method, Random(0) if method in ("hybrid", "rl") else None).step(
            problem.reset(3)
        )
        told = json.loads(json.dumps(allocation.to_dict(), allow_nan=False))
        assert told["held"] == allocation.held.tolist() and told["seated"] == (method in ("hybrid", "game"))
        assert told["floors"] == {name: floor.tolist() for name, floor in allocation.floors.items()}
        assert {"late", "doubtful", "envy"} <= set(told["certificate"])
    certificate = replace(allocation.certificate, max_violation=np.inf, regret=np.float64("nan"), late=(3,), envy=(1,))
    power, air = np.array([np.nan, np.inf] + [0.0] * 10), np.full(12, -np.inf)
    broken = replace(allocation, levels={"power": power}, shares={"air": air}, certificate=certificate)
    told = json.loads(json.dumps(broken.to_dict(), allow_nan=False))
    assert told["power"][:3] == [None, None, 0.0] and told["shares"]["air"] == [None] * 12
    assert told["certificate"]["max_violation"] is None and told["certificate"]["regret"] is None
    assert told["certificate"]["late"] == [3] and told["certificate"]["envy"] == [1]


def test_heads_and_tables_say_who_holds_a_place(problem):
    state = problem.reset(2)
    allocation = Allocator(problem, "game").step(state)
    some = int((allocation.held & (allocation.option > 0)).sum())
    assert f"{some} with a place" in str(allocation) and "air reserved" in str(allocation)
    assert "place" not in str(Allocator(problem, "nearest").step(state))


def test_admission_follows_the_weights_of_priority():
    """The seed's weights are settings: by class and by work other devices are left out, and named in that order."""
    by_class = make_problem("mec", agents=30, servers=2, load=1.0, bursts=False, priority=(0.0, 0.0, 1.0))
    state = by_class.reset(1)
    np.testing.assert_allclose(by_class.world_at(state).priority()[0], state.sla)
    by_work = make_problem("mec", agents=30, servers=2, load=1.0, bursts=False, priority=(0.0, 1.0, 0.0))
    assert (by_work.world_at(state).priority()[0] <= 1).all()
    a, b = (Allocator(p, "random", seed=1).step(state) for p in (by_class, by_work))
    np.testing.assert_array_equal(a.option, b.option)
    assert set(a.certificate.unserved) != set(b.certificate.unserved)
    assert (np.diff(state.sla[list(a.certificate.unserved)]) <= 0).all()
    assert (np.diff(state.task_cycles[list(b.certificate.unserved)]) <= 0).all()
    with pytest.raises(ValueError, match=r"priority\[1\] = -1.0; it must be finite and >= 0"):
        make_problem("mec", priority=(1.0, -1.0, 0.0))
    restored = type(by_class).restore(json.loads(json.dumps(by_class.describe())))
    assert restored == by_class


def test_tables_in_jupyter(problem):
    allocation = Allocator(problem, "hybrid", Random(4), improve=False).step(problem.reset(2))
    for thing in (allocation, allocation.certificate, allocation.why(0)):
        page = thing._repr_html_()
        assert page.count("<table") == 1 and page.count("<tr>") > 2 and "nan" not in page
        assert len(str(thing).splitlines()) > 2
    assert "feasible" in str(allocation) and "bound 2" in str(allocation.certificate)
    assert allocation.what_if(toll=1.0).moved == ()  # the toll it has
    with pytest.raises(ValueError, match="does not know the step it comes from"):
        replace(allocation, origin=None).why(0)
