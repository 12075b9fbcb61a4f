"""Jobs stay where they are, servers go down, jobs come and go: tables and worlds of one's own."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace

import numpy as np
import pytest

from games.certificate import measure_regret
from games.certificate_places import measure_fitting_regret
from hybridalloc import Allocator, InvalidStateError, make_env, make_problem
from hybridalloc.problems.custom import CustomState
from hybridalloc.training import TrainConfig, evaluate, train

METHODS = ("hybrid", "game", "fastest", "balanced")


def drawn(seed: int, agents: int = 40, load: float = 0.9, **more):
    rng = np.random.default_rng(seed)
    capacity = rng.uniform(5, 20, 4)
    deadline = rng.uniform(2, 30, agents)
    floor = load / 10 * rng.gamma(4.0, 0.25, agents)
    work = np.repeat((floor * deadline * capacity[rng.integers(0, 4, agents)])[:, None], 4, axis=1)
    return make_problem(
        "custom", work=work, capacity=capacity, deadline_s=deadline, priority=rng.integers(0, 3, agents), **more
    )


@pytest.mark.parametrize("method", ["hybrid", "game"])
@pytest.mark.parametrize("load", [0.5, 0.9, 1.2])
def test_one_job_replaced_moves_few_others_and_serves_as_many(method, load):
    moved, kept, served, free = [], [], [], []
    for seed in range(6):
        problem = drawn(seed, load=load)
        state, allocator = problem.reset(), Allocator(problem, method)
        before = allocator.step(state)
        other = np.random.default_rng(seed + 99).uniform(0.5, 1.5)
        one = np.arange(40) == seed
        state = replace(state, work=np.where(one[:, None], other, 1.0) * state.work)
        previous = np.where(one, -1, before.option)
        after = allocator.step(state)
        stays = allocator.step(replace(state, previous=previous, moving_cost=np.full(40, 3.0)))
        assert stays.certificate.status == "ok" and not stays.certificate.envy
        moves = lambda a, was=previous: int(((was > 0) & (a.option > 0) & (a.option != was)).sum())
        moved.append(moves(after)), kept.append(moves(stays))
        served.append(stays.served.sum()), free.append(after.served.sum())
    assert np.mean(kept) < 1.6 and np.mean(kept) < np.mean(moved) / 2, (kept, moved)
    assert np.sum(served) >= np.sum(free) - 1


def test_nothing_changed_and_nobody_moves():
    for seed in range(5):
        problem = drawn(seed)
        state, allocator = problem.reset(), Allocator(problem, "game")
        first = allocator.step(state)
        again = allocator.step(replace(state, previous=first.option, moving_cost=np.full(40, 1.0)))
        assert (again.option == first.option).all()


@pytest.mark.parametrize("seed", range(6))
def test_the_auditor_reads_moving_from_the_state_by_itself(seed):
    problem = drawn(seed, 12, wait_s=np.array([0.0, 0.2, 0.0, 0.1]), opt_out_cost=np.linspace(0.5, 3, 12))
    rng = np.random.default_rng(seed)
    state = replace(
        problem.reset(), previous=rng.integers(-1, 5, 12), moving_cost=rng.uniform(0, 2, 12) * (rng.random(12) < 0.8),
        active=rng.random(12) < 0.9,
    )  # fmt: skip
    prices = problem.card.prices(toll=0.7, opt_out=1.5)
    game = problem.world_at(state).game(prices)
    allocation = Allocator(problem, "game", prices=prices).step(state)
    found = problem.audit(state, allocation, prices)
    assert np.allclose(found.private_cost, game.private_cost[0]) and (found.allowed == game.allowed[0]).all()
    plain = problem.world_at(replace(state, moving_cost=np.zeros(12))).game(prices).private_cost[0]
    for i in range(12):
        for o in range(5):
            pays = state.active[i] and state.previous[i] > 0 and o != state.previous[i]
            extra = state.moving_cost[i] if pays else 0.0
            assert game.private_cost[0, i, o] == pytest.approx(plain[i, o] + extra)
    c = allocation.certificate
    assert c.status == "ok" and c.regret <= 1e-9 and measure_fitting_regret(found) <= 1e-9
    assert measure_regret(found, allocation.option) >= 0


def test_a_job_is_moved_where_that_pays_more_than_it_costs():
    """Alone it takes 1 / 2 of its deadline there and 1 / 10 here: .4 + .1 saved in congestion cost."""
    problem = make_problem("custom", work=[10.0], capacity=[10.0, 50.0], deadline_s=[2.0])
    for cost, option in ((0.1, 2), (0.39, 2), (0.41, 1), (5.0, 1)):
        was, halves = {"previous": np.array([1]), "moving_cost": np.array([cost])}, np.array([0.5])
        state = replace(problem.reset(), delay_cost=halves, **was)
        prices = problem.card.prices(miss=0.0)
        assert Allocator(problem, "game", prices=prices).step(state).option[0] == option
        facts = problem.world_at(state).execute(problem.world_at(state).settle(np.array([[2]]), prices))
        assert facts.reward[0, 0] == pytest.approx(-0.1 - cost)  # a fifth of a second, half a cost each, and the move


def test_a_moving_cost_of_one_number_is_everybodys_and_a_wrong_previous_is_told():
    problem = make_problem("custom", work=np.ones((3, 2)), capacity=[1.0, 2.0], moving_cost=0.5, previous=[1, 2, -1])
    assert problem.start.moving_cost.tolist() == [0.5] * 3 and problem.start.previous.tolist() == [1, 2, -1]
    told = {"work": [[1.0, 1.0]], "capacity": [1.0, 1.0], "moving_cost": 0.2, "previous": [3]}
    with pytest.raises(InvalidStateError, match=r"previous\[0\] = 3; an option is -1 \(new\) or 0 to 2"):
        Allocator(problem, "game").step(told)
    with pytest.raises(InvalidStateError, match=r"moving_cost\[0\] = -1.0; it must be finite and >= 0"):
        CustomState(work=[[1.0]], capacity=[1.0], moving_cost=-1.0)
    with pytest.raises(InvalidStateError, match=r"previous\[0\] = -2; it must be finite and >= -1"):
        CustomState(work=[[1.0]], capacity=[1.0], previous=[-2])


# --- servers that are down


@pytest.mark.parametrize("method", METHODS)
def test_nobody_is_put_on_a_server_that_is_down(method):
    for seed in range(4):
        problem = drawn(seed, 20)
        state = problem.reset()
        allocator = Allocator(problem, method)
        before = allocator.step(state)
        fails = 1 + seed % 4
        capacity = np.where(np.arange(4) == fails - 1, 0.0, state.capacity)
        now = replace(state, capacity=capacity, previous=before.option, moving_cost=np.full(20, 0.5))
        with np.errstate(all="raise"):
            after = allocator.step(now)
        c = after.certificate
        assert c.feasible and c.status.startswith("ok") and not (after.option == fails).any()
        assert np.isfinite(after.prices["share"]).all()
        metrics = problem.evaluate(now, after)
        assert np.isfinite(metrics["welfare"])
        out = [i for i in c.unserved if state.deadline_s[i] < 1e9]
        assert all(row["option"] != fails for i in out[:2] for row in after.why(i).admission)


def test_an_allocation_on_a_server_that_is_down_is_refused_by_the_certificate():
    problem = make_problem("custom", work=[1.0], capacity=[1.0, 1.0], resources=["old", "new"], names=["job"])
    state = problem.reset()
    allocation = Allocator(problem, "game").step(state)
    down = replace(state, capacity=np.where(np.arange(2) == allocation.option[0] - 1, 0.0, 1.0))
    check = problem.check(down, allocation)
    assert not check.feasible and any("job takes" in line and "is down" in line for line in check.violations)


def test_where_all_are_down_everyone_is_out_and_it_is_said():
    problem = make_problem(
        "custom", jobs={"name": ["a"], "work": [1], "deadline_s": [2]},
        servers={"name": ["old", "new"], "capacity": [0, 0]},
    )  # fmt: skip
    for method in METHODS:
        allocation = Allocator(problem, method).step(problem.reset())
        assert allocation.option.tolist() == [0] and allocation.certificate.feasible
        assert allocation.certificate.unserved == (0,)


# --- jobs that come and go


@dataclass(frozen=True)
class Street:
    """Shops that open and close: some work arrives, what is served leaves, the rest waits for two more steps."""

    most: int = 5
    named: bool = True

    def reset(self, seed):
        return self._state(np.random.default_rng(seed), [], 0)

    def advance(self, state, allocation, rng):
        assert len(allocation.option) == len(allocation.time_s) == state.agents
        assert {len(x) for x in (*allocation.shares.values(), allocation.served, allocation.power)} == {state.agents}
        jobs = state.hidden["jobs"]
        left = [[k, n - 1, w] for (k, n, w), done in zip(jobs, allocation.served, strict=True) if not done and n > 1]
        return self._state(rng, left, state.hidden["next"])

    def reward(self, state, allocation):
        assert len(allocation.served) == state.agents
        return allocation.served * 1.0

    def _state(self, rng, left, count):
        new = [[count + k, 3, float(rng.uniform(1, 4))] for k in range(int(rng.integers(0, self.most)))]
        jobs = left + new
        order = rng.permutation(len(jobs))  # a user's own order is not ours
        jobs = [jobs[k] for k in order]
        work = np.array([[w, w] for *_, w in jobs]).reshape(len(jobs), 2)
        return CustomState(
            work=work, capacity=[3.0, 4.0], deadline_s=np.full(len(jobs), 1.5),
            names=[f"job {k}" for k, *_ in jobs] if self.named else None,
            hidden={"jobs": jobs, "next": count + len(new)},
        )  # fmt: skip


@pytest.mark.parametrize("learner", ["imappo", "dqn"])
@pytest.mark.parametrize("named", [True, False])
def test_a_world_whose_number_of_jobs_varies_trains_without_padding(learner, named):
    problem = make_problem("custom", transition=Street(named=named), episode=20)
    assert problem.most >= 8 and problem.card.agents == problem.most
    prices = problem.card.prices()
    trained = train(problem, prices, TrainConfig(learner, "hybrid", agent_steps=2000, networks=4, checks=0))
    assert trained.violations == 0
    scores = evaluate(problem, prices, None, None, [10000, 10001], "fastest", slots=15).means()
    assert 0 < scores["completion"] <= 100
    state = problem.reset(seed=3)
    assert state.agents < problem.most and state.active.all()  # a user sees the jobs that are there
    allocator = Allocator(problem, "hybrid", trained.learner.policy)
    for k in range(6):
        allocation = allocator.step(state)
        assert len(allocation.option) == state.agents and allocation.certificate.feasible
        state, _ = problem.advance(state, allocation, seed=k)


def test_a_job_keeps_its_row_and_is_paid_for_what_it_did():
    problem = make_problem("custom", transition=Street(), episode=20)
    world = problem.worlds([1, 2, 3])
    seen: dict[tuple[int, str], int] = {}
    for _ in range(12):
        plan = world.settle(world.baseline("balanced", np.random.default_rng(0)), problem.card.prices())
        facts = world.execute(plan)
        assert facts.reward.shape == (3, problem.most) and (facts.reward <= plan.served * 1.0).all()
        assert (facts.reward == plan.served).all()  # row by row
        for e in range(3):
            state, told = world.state(e), world.told[e]
            assert state.agents == problem.most and state.active.sum() == told.agents
            for row, (name, there) in enumerate(zip(state.names or (), state.active, strict=True)):
                if there:
                    assert seen.setdefault((e, name), row) == row
        kept = json.loads(json.dumps([int(r) for r in world.job_rows[0]]))
        world.drift()
        assert kept is not None
    assert len(seen) > 30


def test_more_jobs_than_rows_are_told_and_the_lowest_priorities_sit_out():
    problem = make_problem("custom", transition=Street(), episode=20, most_jobs=2)
    world = problem.worlds([1, 2])
    with pytest.warns(RuntimeWarning, match=r"jobs are there and this problem was made for 2: .* most_jobs="):
        for _ in range(4):
            world.execute(world.settle(world.baseline("fastest", np.random.default_rng(0)), problem.card.prices()))
            world.drift()


def test_a_world_of_rows_is_stored_whole_and_shown_as_an_environment():
    problem = make_problem("custom", transition=Street(), episode=20)
    assert type(problem).restore(problem.describe(), trust_code=True) == problem
    world, other = problem.worlds([1, 2]), problem.worlds([5, 6])

    def step(w):
        w.execute(w.settle(w.baseline("fastest", np.random.default_rng(0)), problem.card.prices()))
        w.drift()

    for _ in range(5):
        step(world)
    other.load_state_dict(world.state_dict())
    for _ in range(5):
        step(world)
        step(other)
    assert all(world.state(e) == other.state(e) for e in range(2))
    env = make_env(problem, view="pettingzoo")
    env.reset(seed=0)
    for _ in range(5):
        env.step({agent: 1 for agent in env.agents})


def test_a_world_with_as_many_jobs_at_all_times_has_no_rows_to_spare():
    from hybridalloc.problems.farm import Farm

    problem = make_problem("custom", transition=Farm(tenants=4, nodes=2))
    assert problem.most == 0 and problem.worlds([0]).job_rows is None
