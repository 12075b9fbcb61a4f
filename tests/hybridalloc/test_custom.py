"""A user's own problem: equilibria against enumeration, shares against cvxpy, remedies by settling again."""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import replace

import cvxpy as cp
import numpy as np
import pytest

from coordinator import Coordinator
from coordinator.coordinator import game_of
from games.admission import admit
from hybridalloc import Allocator, InvalidStateError, make_problem
from hybridalloc.problems.custom.remedies import remedies
from hybridalloc.problems.custom.state import CustomPrices, CustomState, default_delay_cost
from hybridalloc.problems.knobs import EFFORT


def drawn(seed: int, agents: int = 5, servers: int = 2, tight: float = 1.0, **more):
    rng = np.random.default_rng(seed)
    return make_problem(
        "custom", work=rng.uniform(1, 3, (agents, servers)), capacity=rng.uniform(2, 6, servers),
        deadline_s=rng.uniform(0.5, 3, agents) * tight, priority=rng.uniform(0, 1, agents),
        private_cost=rng.uniform(0, 1, (agents, servers + 1)), opt_out_cost=np.full(agents, 2.0), **more,
    )  # fmt: skip


@pytest.mark.parametrize("seed", range(8))
def test_the_game_is_an_equilibrium_by_enumeration_of_the_definition(seed):
    """Each agent's cost is what its delay and private cost come to when the square-root rule shares the servers."""
    problem = drawn(seed, wait_s=np.array([0.1, 0.3]))
    state, prices = problem.reset(), CustomPrices(toll=0.0, miss=0.0)
    game = problem.world_at(state).game(prices)
    found = Coordinator("game").decide_on(game, np.zeros_like(game.private_cost), False).option[0]

    def cost(choice, i):
        o = choice[i]
        total = state.private_cost[i, o] + (state.opt_out_cost[i] if o == 0 else 0)
        if o:
            weights = {j: np.sqrt(state.delay_cost[j] * state.work[j, o - 1]) for j, p in enumerate(choice) if p == o}
            share = weights[i] / sum(weights.values())
            seconds = state.wait_s[o - 1] + state.work[i, o - 1] / (share * state.capacity[o - 1])
            total += state.delay_cost[i] * seconds
        return total

    equilibria = {
        choice
        for choice in itertools.product(range(3), repeat=5)
        if all(
            cost(choice, i) <= cost((*choice[:i], o, *choice[i + 1 :]), i) + 1e-9 for i in range(5) for o in range(3)
        )
    }
    assert tuple(found) in equilibria
    costs = game_of(problem.world_at(state).game(prices)).single(0).costs(found)
    for i, row in itertools.product(range(5), range(3)):
        other = (*found[:i], row, *found[i + 1 :])
        assert costs[i, row] == pytest.approx(cost(other, i), rel=1e-9)


@pytest.mark.parametrize("seed", range(12))
def test_shares_with_floors_caps_and_priorities_match_cvxpy(seed):
    rng = np.random.default_rng(100 + seed)
    problem = drawn(seed, 6, 2, full_power_w=np.full((6, 2), 100.0), power_limit_w=rng.uniform(15, 80, 6))
    state = problem.reset()
    option = rng.integers(0, 3, 6)
    batch = problem.world_at(state)
    plan = batch.settle(option[None], problem.card.prices())
    assert batch.excess(plan).max() <= 1e-9
    cap = state.power_limit_w / 100
    for r in range(2):
        on = np.flatnonzero(option == r + 1)
        if not len(on):
            continue
        seconds = state.work[on, r] / state.capacity[r]
        floor = seconds / state.deadline_s[on]
        room, admitted = 1.0, []
        for k in sorted(range(len(on)), key=lambda k: -state.priority[on[k]]):  # by priority, by hand
            if floor[k] <= min(room, cap[on[k]]):
                room -= floor[k]
                admitted.append(k)
        assert set(on[plan.served[0, on]]) >= set(on[admitted])
        low = np.zeros(len(on))
        low[admitted] = floor[admitted]
        f = cp.Variable(len(on))
        limits = [cp.sum(f) <= 1, f >= low, f <= cap[on]]
        program = cp.Problem(cp.Minimize(cp.sum(cp.multiply(state.delay_cost[on] * seconds, cp.inv_pos(f)))), limits)
        program.solve(solver=cp.CLARABEL)
        share = plan.share[0, on, 0]
        value = (state.delay_cost[on] * seconds / np.maximum(share, 1e-300)).sum()
        assert value == pytest.approx(program.value, rel=1e-5)
        assert share == pytest.approx(f.value, abs=2e-4)
        assert plan.price[0, r] == pytest.approx(float(limits[0].dual_value), rel=2e-3, abs=1e-4)
        assert (
            plan.power_w[0, on] == pytest.approx(100 * share) and (plan.power_w[0] <= state.power_limit_w + 1e-9).all()
        )


def test_two_resources_in_turn_meet_the_deadline_together():
    """Air then CPU: at the floors, both legs are stretched alike and the time is the deadline exactly."""
    problem = make_problem(
        "custom", work=[[1.0, 1.0, 4.0, 4.0]] * 2, capacity=[4.0, 2.0, 10.0, 20.0], options=[[0, 2], [1, 3]],
        deadline_s=[1.5, 9.0], families=["air", "air", "cpu", "cpu"], resources=["a1", "a2", "c1", "c2"],
    )  # fmt: skip
    state = problem.reset()
    plan = problem.world_at(state).settle(np.array([[1, 1]]), problem.card.prices())
    assert plan.time_s[0] == pytest.approx(problem.times(state, Parts(problem, plan)))
    assert plan.served.all() and plan.share.sum(1).max() <= 1 + 1e-12
    tight = make_problem(**described(problem, deadline_s=[0.68, 99.0]))
    plan = tight.world_at(tight.reset()).settle(np.array([[1, 1]]), problem.card.prices())
    assert plan.time_s[0, 0] == pytest.approx(0.68) and plan.served.all()
    assert problem.option_name(1) == "a1 + c1" and problem.card.families == ("air", "cpu")
    assert set(Allocator(problem, "game").step(state).shares) == {"air", "cpu"}


def described(problem, **changes):
    start = problem.start.to_dict() | changes
    start.pop("delay_cost"), start.pop("opt_out_cost")
    return {"name": "custom", "options": problem.options, "families": problem.families_of} | start


class Parts:
    def __init__(self, problem, plan):
        self.__dict__ |= problem.world_at(problem.reset()).parts(plan)


@pytest.mark.parametrize("seed", range(10))
def test_without_places_what_would_admit_an_unserved_agent_does(seed):
    """A heuristic gives no places: the floors of those who are served are kept."""
    problem = drawn(seed, 8, 2, tight=0.6, full_power_w=np.full((8, 2), 10.0), power_limit_w=np.full(8, 7.0))
    state = problem.reset()
    allocation = Allocator(problem, "fastest").step(state)
    assert allocation.certificate.feasible and not allocation.seated
    checked = 0
    for i, ways in remedies(problem, state, allocation).items():
        for way in ways:
            assert way.text(problem, state)
            option = allocation.option.copy()
            option[i] = way.option
            for changes in changed(problem, state, allocation, way):
                again = CustomState(**state.to_dict() | changes)
                plan = problem.world_at(again).settle(option[None], problem.card.prices())
                assert plan.served[0, i], (way, changes)
                checked += 1
            if way.cheaper_by is not None:
                before = CustomState(**state.to_dict() | {"private_cost": cheaper(state, i, way, 1e-6)})
                single = game_of(problem.world_at(before).game(problem.card.prices())).single(0)
                after = single.costs(allocation.option)[i]
                assert after[way.option] <= after[allocation.option[i]]
                checked += 1
    assert checked or not allocation.certificate.unserved


def seated_again(problem, state, allocation, agent):
    """Stable admission solved again from the present choice and settled: served?, who lost a place, its option."""
    batch, prices = problem.world_at(state), problem.card.prices()
    game = batch.game(prices)
    tilt = -allocation.log_prior / allocation.trust if np.isfinite(allocation.trust) else None
    places = batch.places(prices, game)
    wish = np.where(allocation.held, allocation.option, 0)[None]
    seating = admit(game, places, wish, None if tilt is None else tilt[None], EFFORT)
    plan = batch.settle(seating.option, prices, seating=seating)
    lost = np.flatnonzero(allocation.held & ~seating.held[0])
    return bool(plan.served[0, agent]), tuple(lost.tolist()), int(plan.option[0, agent])


def decided_again(problem, state, allocation, agent):
    """The same of a whole new step."""
    now = Allocator(problem, allocation.certificate.source).step(state)
    lost = np.flatnonzero(allocation.held & ~now.held)
    return bool(now.served[agent]), tuple(lost.tolist()), int(now.option[agent])


def with_change(problem, state, agent, way, part=1.0):
    """The state with ``part`` of a change of :meth:`Remedy.ways`."""
    knob, now, needed = way["knob"], way["now"], way["needed"]
    if knob == "capacity":
        values = state.capacity.copy()
        for name, value in needed.items():
            values[problem.resources.index(name)] = now[name] + part * (value - now[name])
    elif knob == "private_cost":
        values = np.array(state.private_cost)
        values[agent, way["option"]] += part * needed
    else:
        values = np.array(getattr(state, knob))
        values[agent] = now + part * (needed - now)
    more = {}
    if knob == "deadline_s" and np.array_equal(state.delay_cost, default_delay_cost(state.deadline_s)):
        more = {"delay_cost": default_delay_cost(values)}  # as make_problem would have it
    return replace(state, **{knob: values}, **more)


def crowded(seed):
    """One resource an option, or two; power limits, private costs that make some places not worth it, few classes."""
    rng = np.random.default_rng(seed)
    n = 12
    more = {"options": [[0, 2], [0, 3], [1, 2], [1, 3]], "families": list("aabb")} if seed % 2 else {}
    r = 4 if seed % 2 else 2
    return make_problem(
        "custom", work=rng.uniform(1, 3, (n, r)), capacity=rng.uniform(4, 9, r), deadline_s=rng.uniform(1, 4, n),
        priority=rng.integers(0, 3, n), full_power_w=np.full((n, r), 10.0), power_limit_w=rng.uniform(2, 20, n),
        private_cost=rng.choice([0.0, 0.0, 3.0], (n, 5 if seed % 2 else 3)), opt_out_cost=np.full(n, 2.5), **more,
    )  # fmt: skip


def test_what_would_admit_who_was_left_out_does_on_both_sides():
    """Every way of every remedy: with it a new step serves; a hair short of it not, or not from the present answer, or
    only in place of an equal or a better. The least change comes first."""
    found, hard, more = Counter(), 0, 0
    for seed in range(10):
        problem = crowded(seed)
        state = problem.reset()
        allocation = Allocator(problem, "game" if seed % 3 else "hybrid").step(state)
        assert allocation.seated and allocation.certificate.feasible
        told = remedies(problem, state, allocation)
        assert list(told) == list(allocation.certificate.unserved)
        for i, ways in told.items():
            batch = problem.world_at(state)
            rank = batch.places(CustomPrices(), batch.game(CustomPrices())).rank[0]
            harms = lambda some, rank=rank, i=i: any(rank[j] <= rank[i] for j in some)
            order = []
            for remedy in ways:
                (way,) = remedy.ways(problem, state)
                assert way["text"] == remedy.text(problem, state)
                found[way["knob"]] += 1
                if way["knob"] == "again":
                    assert seated_again(problem, state, allocation, i)[0]
                    continue
                after = with_change(problem, state, i, way)
                served, lost, option = decided_again(problem, after, allocation, i)
                if not served:  # the state's entry was rounded on the way here
                    after = with_change(problem, state, i, way, 1 + 1e-9)
                    served, lost, option = decided_again(problem, after, allocation, i)
                assert served and lost == remedy.instead
                assert option == way["option"] or way["knob"] == "private_cost"
                for j in lost[:3]:
                    assert state.label(j) in way["text"]
                order.append((way["knob"] == "priority", harms(lost), np.nan_to_num(way["factor"])))
                if way["knob"] == "priority":
                    continue
                short = with_change(problem, state, i, way, 1 - 1e-3)
                less, others, _ = seated_again(problem, short, allocation, i)
                if less and not (harms(others) and not harms(lost)):  # what serves from here need not serve anew
                    less, others, _ = decided_again(problem, short, allocation, i)
                    more += not less
                assert not less or (harms(others) and not harms(lost)), (seed, i, way)
                hard += less
            assert order == sorted(order)
    assert all(found[knob] > 2 for knob in ("capacity", "deadline_s", "power_limit_w", "private_cost", "priority"))
    assert hard > 2 and more > 2  # some would do with less, if an equal or a better went; some need more in a new step


def test_without_places_what_is_told_of_options_of_two_resources_and_of_power_serves():
    """Each change is made and the shares settled again, the agent on that option and who is served first; a little
    short of it it is not served."""
    checked = {"capacity": 0, "deadline_s": 0, "power_limit_w": 0}
    for seed in range(8):
        problem = crowded(seed)  # every other one has options of two resources
        state = problem.reset()
        allocation = Allocator(problem, "fastest").step(state)
        assert not allocation.seated
        for i, ways in remedies(problem, state, allocation, most=6).items():
            order = np.where(np.arange(12) == i, 5.0, state.priority + 10.0 * allocation.served)
            for way in (row for remedy in ways for row in remedy.ways(problem, state) if row["knob"] in checked):
                option = np.where(np.arange(12) == i, way["option"], allocation.option)[None]
                for part, served in ((1 + 1e-9, True), (1 - 1e-3, False)):
                    after = replace(with_change(problem, state, i, way, part), priority=order)
                    plan = problem.world_at(after).settle(option, problem.card.prices())
                    assert plan.served[0, i] == served, (seed, i, way, part)
                checked[way["knob"]] += 1
    assert all(count > 4 for count in checked.values()), checked


@pytest.mark.parametrize("method", ["game", "opt_out"])
def test_an_option_with_room_is_told_by_how_much_it_is_too_dear_where_no_costs_were_given(method):
    """Alone 2 units take .2 s at 1 / s, and opting out costs .05: .15 cheaper and it is taken."""
    problem = make_problem("custom", work=[2.0], capacity=[10.0], deadline_s=[1.0], opt_out_cost=[0.05])
    row = Allocator(problem, method).step(problem.reset()).why(0).admission[0]
    assert row["knob"] == "private_cost" and row["needed"] == pytest.approx(-0.15, rel=1e-3)


def test_a_heuristic_that_leaves_room_elsewhere_is_not_told_that_this_room_is_dear():
    """Both jobs go to the faster server, which has room for one; the other would have taken the second."""
    problem = make_problem("custom", work=[[2.0, 2.0]] * 2, capacity=[4.0, 3.9], deadline_s=[0.6, 0.6])
    allocation = Allocator(problem, "fastest").step(problem.reset())
    (left,) = allocation.certificate.unserved
    row = allocation.why(left).admission[0]
    assert row["text"] == "on resource 1 as it is: there is room, and it costs no more than what it has"
    assert row["needed"] == 0


def test_a_whole_new_step_serves_who_was_told_so():
    agree, told, asked = [], 0, 0
    for seed in range(12):
        rng = np.random.default_rng(seed)
        problem = make_problem(
            "custom", work=rng.uniform(1, 3, (12, 3)), capacity=rng.uniform(1.5, 4, 3),
            deadline_s=rng.uniform(1, 4, 12), priority=rng.integers(0, 3, 12),
        )  # fmt: skip
        state, allocator = problem.reset(), Allocator(problem, "game")
        allocation = allocator.step(state)
        for i, ways in remedies(problem, state, allocation, agents=allocation.certificate.unserved[:2], most=3).items():
            told, asked = told + bool(ways), asked + 1
            for way in (way for remedy in ways for way in remedy.ways(problem, state) if way["knob"] != "again"):
                agree.append(bool(allocator.step(with_change(problem, state, i, way, 1 + 1e-9)).served[i]))
    assert len(agree) > 40 and all(agree) and told == asked > 8


def test_the_least_priority_that_admits_is_named_and_who_gives_way():
    problem = make_problem(
        "custom", work=[1.0, 1, 1, 1], capacity=[2.1], deadline_s=[1.0] * 4, priority=[1, 5, 7, 2], names=list("abcd")
    )
    state = problem.reset()
    allocation = Allocator(problem, "game").step(state)
    assert allocation.certificate.unserved == (3, 0)
    last = [ways[-1] for ways in remedies(problem, state, allocation).values()]
    assert [way.priority for way in last] == [6.0, 6.0] and [way.instead for way in last] == [(1,), (1,)]
    assert last[0].text(problem, state) == "on resource 0 if its priority were 6 (now 2), in place of b"
    for agent, way in zip((3, 0), last, strict=True):  # a step decides so too
        for priority, served in ((way.priority, True), (4.9, False)):
            raised = replace(state, priority=np.where(np.arange(4) == agent, priority, state.priority))
            assert Allocator(problem, "game").step(raised).served[agent] == served


def test_closed_forms_are_exact_where_nobody_else_could_move():
    """One server of 12, floors of .37 (a class above) and .52 (an equal): what 60 units by 6 s lack."""
    problem = make_problem(
        "custom", work=[40.0, 25.0, 60.0], capacity=[12.0], deadline_s=[9.0, 4.0, 6.0], priority=[2, 1, 1]
    )
    state = problem.reset()
    allocation = Allocator(problem, "game").step(state)
    assert allocation.held.tolist() == [True, True, False]
    capacity, deadline, later, priority = remedies(problem, state, allocation)[2]
    used = 40 / 9 / 12 + 25 / 4 / 12
    assert capacity.capacity == {"resource 0": pytest.approx(12 * (used + 60 / 6 / 12), rel=1e-12)}
    assert deadline.deadline_s == pytest.approx(60 / 12 / (1 - used), rel=1e-12) and deadline.instead == ()
    assert later.deadline_s == pytest.approx(9.6, rel=1e-5) and later.instead == (1,)  # less than the equal needs
    assert priority.priority == 3.0 and priority.instead == (0, 1)
    assert len(remedies(problem, state, allocation, most=1)[2]) == 2  # and a higher priority
    assert remedies(problem, state, allocation, agents=()) == {}


def test_why_of_a_job_says_what_would_admit_it():
    problem = make_problem(
        "custom", work=[4.0, 4.0, 4.0], capacity=[5.0], deadline_s=[2.0, 2.0, 2.0], names=["a", "b\x1b[2J", "c"]
    )
    state = problem.reset()
    allocation = Allocator(problem, "game").step(state)
    left = int(np.flatnonzero(~allocation.held)[0])
    why = allocation.why(left)
    assert not why.served and why.changes == () and why.reason.startswith("left out: on every option it would accept")
    assert "needs 0.4 of resource 0, 0.2 is left" in why.reason
    assert [way["knob"] for way in why.admission] == ["capacity", "deadline_s", "deadline_s", "priority"]
    assert why.admission[0]["needed"] == {"resource 0": pytest.approx(6.0)}
    assert "in place of" in why.admission[2]["text"]
    assert "What would admit it: on resource 0 if resource 0 had 6 units/s (now 5);" in str(why)
    assert "\x1b" not in str(why)


def cheaper(state, i, way, more):
    private = state.private_cost.copy()
    private[i, way.option] -= way.cheaper_by + more
    return private


def changed(problem, state, allocation, way):
    rank = state.priority + 1e6 * allocation.served  # after all who are served, before the others left out
    rank[way.agent] = 1e5
    first = {"priority": rank}
    if way.capacity:
        grown = state.capacity.copy()
        for name, value in way.capacity.items():
            grown[problem.resources.index(name)] = value * (1 + 1e-9)
        yield first | {"capacity": grown}
    if way.deadline_s is not None:
        later = state.deadline_s.copy()
        later[way.agent] = way.deadline_s * (1 + 1e-9)
        yield first | {"deadline_s": later}


def test_an_agent_that_needs_more_power_is_told_how_much():
    problem = make_problem(
        "custom", work=[1.0], capacity=[1.0], deadline_s=[2.0], full_power_w=[[10.0]], power_limit_w=[3.0]
    )
    allocation = Allocator(problem, "game").step(problem.reset())
    told = remedies(problem, problem.reset(), allocation)[0]
    assert allocation.certificate.unserved == (0,)
    assert {round(way.power_limit_w, 9) for way in told if way.power_limit_w} == {5.0}
    assert any("its power limit were 5 W (now 3)" in way.text(problem, problem.reset()) for way in told)
    assert "with the 0.3 of a resource that its power allows" in allocation.why(0).reason


def test_without_a_deadline_nobody_opts_out_and_priorities_do_not_matter():
    problem = make_problem("custom", work=np.ones(20), capacity=[1.0, 3.0])
    allocation = Allocator(problem).step(problem.reset())
    counts = np.bincount(allocation.option, minlength=3)
    assert counts[0] == 0 and counts[1] == pytest.approx(5, abs=1)  # equal delays: 1 to 3
    assert allocation.certificate.unserved == () and allocation.certificate.source == "hybrid"


def test_a_state_of_another_size_of_agents_is_taken_and_of_other_resources_refused():
    problem = drawn(0)
    grown = problem.state(work=np.ones((9, 2)), deadline_s=np.ones(9))
    assert len(Allocator(problem, "game").step(grown.to_dict()).option) == 9
    with pytest.raises(InvalidStateError, match="capacity has 3 entries; this problem has 2 resources"):
        Allocator(problem, "game").step({"work": [[1.0, 1.0, 1.0]], "capacity": [1.0, 1.0, 1.0]})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"work": [[1.0, -1.0]], "capacity": [1.0, 1.0]}, r"work\[0, 1\] = -1.0; it must be finite and >= 0 units"),
        ({"work": [1.0], "capacity": [-1.0]}, r"capacity\[0\] = -1.0; it must be finite and >= 0 units/s"),
        ({"work": [1.0], "capacity": [1.0], "deadline": [1.0]}, "did you mean 'deadline_s'"),
        ({"work": [1.0]}, "custom needs work= and capacity="),
        ({"work": [1.0], "capacity": [1.0], "options": [[3]]}, r"options\[0, 0\] = 3; a resource is -1"),
        (
            {"work": [1.0], "capacity": [1.0, 1.0], "options": [[0, 1]], "families": ["x", "x"]},
            "two resources of one family",
        ),
        ({"work": [1.0], "capacity": [1.0], "private_cost": [[0.0, 1.0, 1.0]]}, "3 options; there are 2"),
        ({"work": [1.0], "capacity": [1.0], "allowed": [[False, True]]}, r"allowed\[0, 0\] = False; option 0"),
        ({"work": [1.0], "capacity": [1.0], "names": ["a", "b"]}, "names has 2 entries; work has 1 agents"),
        ({"work": [1.0], "capacity": [1.0], "resources": ["a", "b"]}, "resources has 2 names"),
        ({"transition": "no.such:Farm"}, "'no.such:Farm' cannot be loaded"),
        ({"work": [1.0], "jobs": "jobs.csv"}, "either jobs= and servers=, or arrays"),
    ],
)
def test_settings_that_are_wrong_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        make_problem("custom", **settings)


def test_without_a_transition_moving_on_says_what_is_missing():
    problem = drawn(0)
    allocation = Allocator(problem, "game").step(problem.reset())
    with pytest.raises(ValueError, match="has no transition, so it does not move on"):
        problem.advance(problem.reset(), allocation, seed=0)
    assert problem.evaluate(problem.reset(), allocation)["completion"] > 0


def test_states_with_names_and_hidden_parts_are_compared_entry_by_entry():
    state = lambda **more: CustomState(**({"work": [[1.0]], "capacity": [2.0], "names": ("a",)} | more))
    hidden = {"at": np.array([1.0, 2.0]), "list": [{"x": 1}]}
    assert state() == state() != state(names=("b",)) and state() != state(names=None)
    assert state(hidden=hidden) == state(hidden={"at": np.array([1.0, 2.0]), "list": [{"x": 1}]}) != state()
    assert state(hidden=hidden) != state(hidden=hidden | {"at": np.array([1.0, 3.0])})
    assert state(hidden=hidden) != state(hidden=hidden | {"list": [{"x": 1}, 2]})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"names": 5}, "names = 5; it must be a list of names"),
        ({"names": "ab"}, "names = 'ab'; it must be a list of names"),
        ({"names": ["a", None]}, "names[1] = None; a name is text"),
        ({"names": ["a", float("nan")]}, "names[1] = nan; a name is text"),
        ({"names": ["a", ["b"]]}, "names[1] = a list of 1; a name is text"),
        ({"names": ["a"]}, "names has 1 entries; work has 2 agents"),
        ({"work": [[1.0, 2.0], [3.0]]}, "work[1] has 1 entries, work[0] has 2 entries; all need as many: axes (N, R,)"),
        ({"work": [[1.0, 2.0], [3.0, "x"]]}, "work[1, 1] = 'x'; it must be a number, finite"),
        ({"work": "fast"}, "work = 'fast'; it must be a number, finite, with axes (N, R,)"),
        (
            {"capacity": [], "work": [[], []]},
            "capacity is empty; at least one resource is needed",
        ),
        ({"capacity": [1.0, None]}, "capacity[1] = None; it must be a number, finite"),
        ({"options": [[0], [1.5]]}, "options[1, 0] = 1.5; it must be a whole number"),
        ({"options": [[0], [1, 0]]}, "options[1] has 2 entries, options[0] has 1 entries; all need as many: axes"),
        ({"options": [[0], [10**30]]}, f"options[1, 0] = {10**30}; it must be a whole number of 64 bits, finite"),
        ({"options": []}, "options has shape (1, 0); it needs axes (O, S,): the resources of each option"),
        ({"options": "all"}, "options = 'all'; it must be a whole number, finite, with axes (O, S,)"),
        ({"resources": 3}, "resources = 3; it must be a list of names"),
        ({"resources": ["a", "a"]}, "resources[1] = 'a' is used already; names are unique"),
        ({"families": ["a", None]}, "families[1] = None; a name is text"),
        ({"episode": 0}, "episode = 0; it must be a whole number from 1 to 2147483648"),
        ({"episode": "long"}, "episode = 'long'; it must be a whole number from 1 to 2147483648"),
        ({"hidden": [1]}, "hidden is an object with named fields; got list"),
    ],
)
def test_a_wrong_setting_is_named_with_index_and_value(settings, message):
    with pytest.raises(InvalidStateError) as caught:
        make_problem("custom", **({"work": [[1.0, 2.0]] * 2, "capacity": [1.0, 2.0]} | settings))
    assert str(caught.value).startswith(message)


def test_names_may_be_whole_numbers_and_a_deadline_next_to_nothing_has_a_finite_cost():
    problem = make_problem("custom", work=[1.0, 2.0], capacity=[1.0], names=[1, 2.0], deadline_s=[5e-324, 1e-310])
    assert problem.start.names == ("1", "2") and np.isfinite(problem.start.delay_cost).all()
    assert Allocator(problem, "game").step(problem.reset()).certificate.feasible
