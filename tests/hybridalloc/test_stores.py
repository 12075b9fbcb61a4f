"""What is left in a store has a value: on shelves whose optimum is enumerated, and on batteries, to the certificate."""

from __future__ import annotations

import numpy as np
import pytest

from coordinator import Coordinator
from coordinator.coordinator import game_of
from games.certificate import measure_regret
from hybridalloc import Allocator, make_problem
from hybridalloc.cli import main
from hybridalloc.errors import CheckpointError
from hybridalloc.problems.contract import Stores
from hybridalloc.problems.members import check_problem
from hybridalloc.problems.stores import valued
from hybridalloc.training.evaluation import evaluate
from hybridalloc.training.stores import coupled, learn_value
from rl.value import StoreValue, Worth
from tests.hybridalloc.depots import PAYS, ROOM, Depots, Prices, optimum

F = make_problem("mec", scenario="F", agents=6, servers=2)
GAME = Coordinator("game")


@pytest.fixture(scope="module")
def shelf():
    """What is learned of a shelf, from a price at which everybody is served."""
    return learn_value(Depots(20), Prices(0.0), networks=6, rounds=3, segments=5, length=50)


def battery_value(seed=3):
    """A value of batteries, not learned: any gains are concave and rising."""
    return StoreValue(F.worlds([0]).stored().features.shape[-1], seed=seed)


# --- a store that is no battery


def test_a_domain_of_ones_own_with_a_store_keeps_the_contract():
    problem = Depots()
    check_problem(problem, "depots")
    assert isinstance(problem.worlds([0]), Stores)


def test_the_value_of_a_shelf_is_the_dynamic_programmes(shelf):
    h, sells = optimum()
    world = valued(Depots(20).worlds([0]), shelf.value)
    worth = world.worth()
    level = np.broadcast_to(np.arange(ROOM + 1.0), (1, 20, ROOM + 1))
    found = worth.at(level)[0, 0]
    np.testing.assert_allclose(found, h, atol=0.06 * h[-1])
    kept = found - np.concatenate([[np.nan], found[:-1]])  # what the unit that is sold would be worth
    assert ((kept[:, None] < PAYS)[1:] == sells[1:]).all()
    assert not sells[1:].all() and sells[1:].any()  # the optimum turns some away


def test_who_goes_by_it_earns_more_than_at_the_best_price(shelf):
    run = lambda unit, value: evaluate(
        Depots(20), Prices(unit), GAME, None, range(5000, 5006), slots=150, value=value
    ).means()["earned"]
    assert run(0.0, shelf.value) > max(run(unit, None) for unit in (0.0, 0.5, 2.0)) + 0.02


def test_samples_hold_what_the_store_took_of_what_was_drawn():
    samples = coupled(Depots(4), Prices(0.0), GAME, [1, 2], segments=2, length=5)
    for share in (samples.before, samples.after):
        np.testing.assert_array_equal(share * ROOM, np.rint(share * ROOM))
    assert np.any(samples.before != samples.after)


def test_copies_that_are_alike_earn_alike():
    samples = coupled(F, F.card.prices(), GAME, [1, 2, 3], segments=2, length=12, part=0.0)
    assert len(samples.gained) == 0
    more = coupled(F, F.card.prices()._replace(energy=5.0), GAME, range(8), segments=2, length=96)
    up = more.after > more.before
    assert more.gained[up].mean() > 0.1 and more.gained[~up].mean() < -0.1


# --- batteries


def test_a_value_takes_the_place_of_the_price_in_private_costs_and_nowhere_else():
    world = F.worlds([1, 2])
    prices = F.card.prices()
    free = world.game(prices._replace(energy=0.0))
    game = world.valuing(battery_value()).game(prices)
    stores, worth = world.stored(), world.worth()
    lost = worth.at(stores.level)[..., None] - worth.at(np.maximum(stores.level[..., None] - stores.drawn, 0.0))
    np.testing.assert_allclose(game.private_cost, free.private_cost + lost, atol=1e-12)
    for name in ("weight", "capacity", "allowed", "live", "toll"):
        np.testing.assert_array_equal(getattr(game, name), getattr(free, name))
    again = world.valuing(None).game(prices)
    np.testing.assert_array_equal(again.private_cost, F.worlds([1, 2]).game(prices).private_cost)


def test_the_potential_stays_exact_under_a_value():
    game = game_of(F.worlds([5]).valuing(battery_value()).game(F.card.prices())).single(0)
    rng = np.random.default_rng(0)
    for _ in range(50):
        option = np.array([rng.choice(np.flatnonzero(row)) for row in game.allowed])
        i = rng.integers(len(option))
        other = option.copy()
        other[i] = rng.choice(np.flatnonzero(game.allowed[i]))
        costs = game.costs(option)[i]
        moved = game.potential(other) - game.potential(option)
        assert moved == pytest.approx(costs[other[i]] - costs[option[i]], abs=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_the_certificate_reads_the_values_costs_for_itself(seed):
    allocator = Allocator(F, "game", value=battery_value(seed))
    state, acted = F.reset(seed), 0
    for t in range(12):
        world = valued(F.world_at(state), allocator.value)
        answer = allocator.step(state)
        audit = F.audit(state, answer, allocator.prices, world.believed())
        np.testing.assert_allclose(
            np.where(audit.allowed, audit.private_cost, 0.0)[state.active],
            np.where(answer.game.allowed, answer.game.private_cost, 0.0)[state.active], atol=1e-9,
        )  # fmt: skip
        assert answer.certificate.feasible and answer.certificate.regret <= 1e-6
        without = F.audit(state, answer, allocator.prices, None)
        acted += measure_regret(without, answer.option) > 1e-3  # by the price of energy somebody would move
        state, _ = F.advance(state, answer, seed=t)
    assert acted


def test_settling_takes_each_devices_own_price_of_a_joule():
    problem = make_problem("mec", scenario="F", agents=2, servers=1, power_control=True, blockage=False)
    world = problem.worlds([4]).valuing(battery_value())
    w = world.world
    for name in ("task_bits", "task_cycles", "deadline_s", "device_hz", "worth", "sla", "age_slots", "last_server"):
        getattr(w, name)[0, 1] = getattr(w, name)[0, 0]
    w.active[:], w.reachable[:] = True, True
    w.rates[0, 1], w.rate[0, 1], w.mean_gain[0, 1] = w.rates[0, 0], w.rate[0, 0], w.mean_gain[0, 0]
    w.battery_j[0] = [0.1, 0.4]  # alike but for this
    world.moved_on()
    price = world.worth().price(w.battery_j)
    assert price[0, 0] > 1.5 * price[0, 1]
    plan = world.settle(np.array([[1, 1]]), problem.card.prices())
    assert plan.power_w[0, 0] < plan.power_w[0, 1]
    level = world.valuing(None).settle(np.array([[1, 1]]), problem.card.prices())
    assert level.power_w[0, 0] == level.power_w[0, 1]


def test_shedding_is_an_option_that_draws_nothing_and_devices_without_a_task_may_name_it():
    world = F.worlds([3])
    world.world.active[0, ::2] = False
    last = len(world.options) - 1
    before = world.world.battery_j.copy()
    plan = world.settle(np.full((1, 6), last), F.card.prices())
    assert (plan.option[0] == np.where(world.world.active[0], last, 0)).all()
    assert not plan.air.any() and not plan.cpu.any()
    facts = world.execute(plan)
    np.testing.assert_array_equal(world.world.battery_j, before)
    assert not facts.reward.any()


def test_a_value_is_saved_loaded_and_trained_with(tmp_path):
    value = battery_value()
    path = Allocator(F, "game", value=value).save(tmp_path / "a.npz")
    state = F.reset(7)
    for other in (Allocator.load(path), Allocator(F, "game", value=path)):
        assert isinstance(other.value, StoreValue)
        ours, theirs = Allocator(F, "game", value=value).step(state), other.step(state)
        np.testing.assert_array_equal(ours.option, theirs.option)
        np.testing.assert_array_equal(ours.game.private_cost, theirs.game.private_cost)
    plain = Allocator(F, "game").save(tmp_path / "b.npz")
    assert Allocator.load(plain).value is None
    with pytest.raises(CheckpointError, match="holds no value of stores"):
        Allocator(F, "game", value=plain)


def test_what_has_no_store_takes_no_value():
    free = make_problem("mec", agents=4, servers=2, batteries=False)
    with pytest.raises(ValueError, match="names no store"):
        Allocator(free, "game", value=battery_value())
    with pytest.raises(ValueError, match="names no store"):
        learn_value(free, free.card.prices(), networks=1, rounds=1, segments=1, length=1)
    with pytest.raises(ValueError, match="has 12 features here; this value was learned on 3"):
        Allocator(F, "game", value=StoreValue(3))
    with pytest.raises(ValueError, match="length = 0"):
        coupled(F, F.card.prices(), GAME, [1], length=0)


def test_whole_days_are_measured():
    assert F.card.cycle == 96 and make_problem("mec").card.cycle == 1
    assert [F.card.whole(k) for k in (1, 96, 97)] == [96, 96, 192]
    seen = evaluate(F, F.card.prices(), GAME, None, [5000], slots=10)
    assert seen.allocations == 2 * 96


def test_the_commands_learn_a_value_go_by_it_and_train_under_it(tmp_path, capsys):
    out = tmp_path / "value.npz"
    small = ["--agents", "3", "--servers", "1", "--settings", "day=4", "episode=12"]
    assert main(["learn-value", "--out", str(out), "--tuning", "1", "--networks", "1", "--rounds", "1", *small]) == 0
    said = capsys.readouterr().out
    assert f"saved {out}: the worth of a battery by its level" in said and "samples" in said and "nan" not in said
    allocator = Allocator.load(out)
    assert allocator.coordinator.kind == "game" and isinstance(allocator.value, StoreValue)
    assert main(["evaluate", str(out), "--seeds", "1"]) == 0
    again = tmp_path / "a.npz"
    words = ["--checkpoint-every", "12", "--agent-steps", "12", "--tuning", "0", "--belief", ""]
    words += ["--sites", "synthetic", "--scenario", "F"]
    assert main(["train", "--value", str(out), "--out", str(again), *words, *small]) == 0
    resumed = tmp_path / "b.npz"
    assert main(["train", "--resume", str(tmp_path / "a.checkpoints" / "last.pt"), "--out", str(resumed)]) == 0
    for path in (again, resumed):
        for name, array in Allocator.load(path).value.state_dict().items():
            np.testing.assert_array_equal(array, allocator.value.state_dict()[name])
    capsys.readouterr()
    off = [*small[:4], "--sites", "synthetic", "--tuning", "1000000"]  # said before that
    off += ["--settings", "batteries=false"]
    for command in (["train", "--value", str(out)], ["train", "--value", "learned"], ["learn-value"]):
        assert main([*command, *off]) == 2
        assert "names no store" in capsys.readouterr().err
    assert main(["learn-value", "--rounds", "0"]) == 2
    assert "--rounds" in capsys.readouterr().err


def test_a_value_that_fails_in_service_is_said_and_what_is_asked_of_the_answer_goes_by_the_price_too():
    problem = make_problem("mec", scenario="F", agents=8, servers=2)

    class Fails:
        able = True

        def worth(self, world):
            if self.able:
                stores = world.stored()
                return Worth(np.ones((*stores.level.shape, 1)), np.ones(1), stores.capacity)
            raise ZeroDivisionError("no value")

    value = Fails()
    allocator = Allocator(problem, "game", value=value, improve=True)
    value.able = False
    with pytest.warns(RuntimeWarning, match="value failed"):
        allocation = allocator.step(problem.reset(3))
    assert "a price instead" in allocation.certificate.status
    assert allocation.origin.value is None
    assert allocation.marginal_regret().gain >= 0
    alone = Allocator(problem, "game", improve=True).step(problem.reset(3))
    np.testing.assert_array_equal(allocation.option, alone.option)
