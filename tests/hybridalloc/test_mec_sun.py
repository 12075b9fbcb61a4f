"""Set F: what the sun brings, what tasks are worth by the hour, and what files written before there were days lack."""

from __future__ import annotations

import json

import numpy as np
import pytest

from hybridalloc import Allocator, make_problem
from hybridalloc.errors import InvalidStateError
from hybridalloc.problems import restore_problem
from hybridalloc.problems.mec.scenario import ADDED
from hybridalloc.problems.mec.shift import SHIFTS, SUN_SHIFTS, Shift
from hybridalloc.problems.mec.state import MecState

DAY = 96


def followed(problem, networks=24, slots=4 * DAY):
    """Harvest (T, E, N) in J, worths (T, E, N) and hours (T, E) of a world in which nothing is sent."""
    world = problem.worlds(range(networks))
    harvest, worth, hour = [], [], []
    shed = np.full(world.active.shape, len(world.options) - 1)
    for _ in range(slots):
        world.refill(np.zeros(world.active.shape))
        hour.append(24 * (world.world.slot % DAY) / DAY)
        worth.append(world.world.worth.copy())
        world.execute(world.settle(shed, problem.card.prices()))
        world.drift()
        harvest.append(world.world.battery_j.copy())
    return np.array(harvest), np.array(worth), np.array(hour)


@pytest.fixture(scope="module")
def days():
    return followed(make_problem("mec", scenario="F", agents=12, servers=2, panel=(1.0, 1.0)))


def test_the_sun_brings_the_mean_harvest_by_day_alone(days):
    harvest, _, hour = days
    assert harvest.mean() == pytest.approx(0.0055, rel=0.1)
    night = (hour < 2) | (hour >= 22)  # the earliest sun is at 2 h, the latest goes at 22 h
    assert not harvest[night].any() and harvest[(hour > 10.1) & (hour < 13.9)].all()


def test_half_the_harvest_and_half_the_battery_are_that(days):
    problem = make_problem("mec", scenario="F", agents=12, servers=2, panel=(1.0, 1.0))
    half, _, _ = followed(problem.shifted(Shift("", harvest=2.0)))
    np.testing.assert_allclose(half, days[0] / 2)
    small = problem.shifted(Shift("", battery=2.0))
    assert small.physics.battery_j == problem.physics.battery_j / 2
    assert (small.worlds([1]).world.battery_j <= small.physics.battery_j).all()
    assert [s.name for s in problem.scenarios()] == [s.name for s in SUN_SHIFTS]
    assert make_problem("mec").scenarios() == SHIFTS


def test_worth_goes_by_the_hour(days):
    _, worth, hour = days
    light = (hour >= 6) & (hour < 18)
    for at, mix in ((light, (0.75, 0.25, 0.0)), (~light, (0.1, 0.4, 0.5))):
        shares = [(worth[at] == value).mean() for value in (0.3, 1.0, 3.0)]
        np.testing.assert_allclose(shares, mix, atol=0.01)


def test_a_log_is_half_forgotten_a_day_and_a_state_keeps_it():
    problem = make_problem("mec", scenario="F", agents=3, servers=1)
    world = problem.worlds([5])
    before, h = world.world.harvest_log_j.copy(), int(world.world.slot[0] % DAY)
    world.refill(np.zeros((1, 3)))
    world.drift()
    after = world.world.harvest_log_j
    np.testing.assert_allclose(after[0, :, h], 0.5 * before[0, :, h] + 0.5 * world.world.battery_j[0])
    kept = np.arange(DAY) != h
    np.testing.assert_array_equal(after[..., kept], before[..., kept])
    state = MecState.from_dict(json.loads(json.dumps(world.state(0).to_dict())))
    again = problem.world_at(state)
    np.testing.assert_allclose(again.outlook(), world.outlook(), rtol=1e-12, atol=1e-12)
    short = MecState.from_dict(state.to_dict() | {"harvest_log_j": [[0.0] * 4] * 3})
    with pytest.raises(InvalidStateError, match="harvest_log_j has 4 slots a device; a day of this problem has 96"):
        problem.world_at(short)


def test_a_completed_task_earns_its_worth():
    problem = make_problem("mec", scenario="F", agents=4, servers=2)
    world = problem.worlds(range(6))
    for _ in range(5):
        worth, active = world.world.worth.copy(), world.active.copy()
        out = world.run(world.settle(np.zeros(active.shape, np.int64), problem.card.prices()))
        np.testing.assert_allclose(out.reward, np.where(active & out.done, worth, 0.0))
        world.drift()


def test_sets_without_a_day_are_described_as_before_and_files_without_the_new_settings_are_read():
    for name in "HA":
        problem = make_problem("mec", scenario=name, agents=4, servers=2)
        told = problem.describe()
        assert not set(ADDED) & set(told["scenario"]) and restore_problem(told) == problem
    sunny = make_problem("mec", scenario="F", agents=4, servers=2)
    assert restore_problem(json.loads(json.dumps(sunny.describe()))) == sunny
    shifted = sunny.shifted(Shift("x", harvest=2.0))
    assert restore_problem(json.loads(json.dumps(shifted.describe()))) == shifted


def test_shedding_is_told_and_certified():
    problem = make_problem("mec", scenario="F", agents=8, servers=2)
    allocator = Allocator(problem, "game", prices=problem.card.prices(energy=8.0))
    state = allocator.problem.reset(1)
    shed = 0
    for t in range(20):
        answer = allocator.step(state)
        assert answer.certificate.feasible and answer.certificate.regret <= 1e-9
        away = answer.option == 3
        shed += (away & state.active).sum()
        assert not answer.served[away & state.active].any() and not answer.shares["air"][away].any()
        state, _ = allocator.problem.advance(state, answer, seed=t)
    assert shed > 0
