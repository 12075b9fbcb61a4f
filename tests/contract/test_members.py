"""A problem that misses a member of the contract, or gives what it must not, is refused by the member's name."""

from __future__ import annotations

import re
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from examples.chargers import Chargers
from games.certificate import CapacityCheck
from hybridalloc.errors import ContractError
from hybridalloc.problems import make_problem
from hybridalloc.problems.members import MEMBERS, STATE_MEMBERS, WORLD_MEMBERS, check_problem
from hybridalloc.problems.metrics import Metric, Ratio


class Like:
    """An object with some of another's attributes taken away or replaced."""

    def __init__(self, of, without=(), **instead):
        self.__dict__.update(_of=of, _without=without, **instead)

    def __getattr__(self, name):
        if name in self._without:
            raise AttributeError(name)
        return getattr(self._of, name)


def with_world(change):
    """Chargers whose worlds are changed."""
    problem = Chargers()
    return Like(problem, worlds=lambda seeds, belief=None: change(problem.worlds(seeds, belief)))


def with_card(**changes):
    return Like(Chargers(), card=replace(Chargers().card, **changes))


def refused(problem, message):
    with pytest.raises(ContractError) as error:
        check_problem(problem, "mine")
    assert message in str(error.value)
    assert re.match(r"(a world of |a state of )?problem 'mine' \(", str(error.value))
    assert "\n" not in str(error.value)


def test_a_whole_one_passes():
    assert check_problem(Like(Chargers()), "mine").card == Chargers().card
    assert check_problem(with_world(Like), "mine") is not None


@pytest.mark.parametrize("member", MEMBERS)
def test_a_problem_without_a_member(member):
    refused(Like(Chargers(), [member]), f"has no {member!r}; it needs {MEMBERS[member]}")


@pytest.mark.parametrize("member", WORLD_MEMBERS)
def test_a_world_without_a_member(member):
    problem = with_world(lambda world: Like(world, [member]))
    refused(problem, f"has no {member!r}; it needs {WORLD_MEMBERS[member]}")


@pytest.mark.parametrize("member", STATE_MEMBERS)
def test_a_state_without_a_member(member):
    class Bare:
        def __getattribute__(self, name):
            if name == member:
                raise AttributeError(name)
            return getattr(STATE, name)

    STATE = Chargers().reset(0)
    problem = with_world(lambda world: Like(world, state=lambda e: Bare()))
    problem.__dict__["state_type"] = Bare
    refused(problem, f"has no {member!r}; it needs {STATE_MEMBERS[member]}")


CARDS = {
    "another type": (Like(Chargers(), card={"name": "x"}), "card gave {'name': 'x'}; it needs a hybridalloc"),
    "a headline that is no metric": (with_card(headline=("welfare",)), "headline names ['welfare']; its metrics are "),
    "no headline": (with_card(headline=()), "headline is empty; it names the metrics that matter most, of cost, "),
    "a key twice": (
        with_card(metrics=(*Chargers().card.metrics, Metric("cost", "", "", "lower", Ratio("cost")))),
        "metrics has ['cost'] twice",
    ),
    "a direction that is none": (
        with_card(metrics=(Metric("cost", "", "", "smaller", Ratio("cost")),), headline=("cost",)),
        "'cost' is better 'smaller'; 'higher' or 'lower'",
    ),
    "a metric of what is not counted": (
        with_card(metrics=(Metric("late", "", "", "lower", Ratio("late_cars")),), headline=("late",)),
        "metric 'late' folds 'late_cars', which execute() does not count; it counts cost, cars",
    ),
    "prices that need something": (
        with_card(prices=type("P", (), {"__init__": lambda self, toll: None})),
        "card failed (TypeError: ",
    ),
    "a price that is none": (with_card(price_space={"toll": (0.0, 1.0, False)}), "card.price_space['toll'] = (0.0, "),
    "a scale from 0": (with_card(price_space={"crowd": (0.0, 1.0, True)}), "lowest > 0 on a logarithmic scale"),
    "a heuristic that it has not": (
        with_card(baselines={"best": "best"}),
        "baseline failed (UnknownNameError: unknown baseline 'best'",
    ),
    "families of others": (with_card(families=("cpu",)), "families are cpu; it needs parts(plan, e=0)"),
}  # fmt: skip


@pytest.mark.parametrize("name", CARDS)
def test_a_card_that_is_wrong(name):
    refused(*CARDS[name])


def ones(*shape):
    return np.ones(shape)


def facts(**changes):
    """``execute`` with some of what it says replaced."""
    return lambda world: lambda plan: world.execute(plan)._replace(**changes)


def seen(**changes):
    return lambda world: lambda: world.observe()._replace(**changes)


def parts(**changes):
    return lambda world: lambda plan, e=0: world.parts(plan, e) | changes


WRONG = {  # a member of a world of 8 cars and 3 chargers, what is wrong with it, how it is told
    "epoch": [(lambda world: ones(1), "float64 of shape (1,)")],
    "size": [(lambda world: 2, "size gave 2")],
    "active": [(lambda world: ones(1, 7) > 0, "bool of shape (1, 7)"), (lambda world: ones(1, 8), "float64 of shape")],
    "observe": [
        (lambda world: lambda: (1, 2), "observe gave (1, 2)"),
        (seen(agent=np.ones((1, 7, 3), np.float32)), "agent (1, 7, 3)"),
        (seen(pair=np.ones((1, 8, 3, 3), np.float32)), "pair (1, 8, 3, 3)"),
        (seen(allowed=ones(1, 8) > 0), "allowed (1, 8)"),
        (seen(resource_of=np.array([-1, 0, 1, 3])), "resource (1, 3, 2)"),
        (seen(agent=np.full((1, 8, 3), np.nan, np.float32)), "features that are not finite"),
        (seen(allowed=ones(1, 8, 4) < 0), "an agent without option 0"),
    ],
    "game": [
        (lambda world: lambda p: world.game(p)._replace(private_cost=ones(1, 8, 3)), "costs of shape (1, 8, 3)"),
        (lambda world: lambda p: 1 / 0, "game failed (ZeroDivisionError: division by zero)"),
    ],
    "baseline": [(lambda world: lambda name, rng: ones(1, 8), "float64 of shape (1, 8)")],
    "requested": [
        (lambda world: lambda option, prices: ones(8), "shape (8,)"),
        (lambda world: lambda option, prices: ones(1) * 2, "[2.0]"),
    ],
    "settle": [(lambda world: lambda o, p: None.share, "settle failed (AttributeError")],
    "excess": [
        (lambda world: lambda plan: ones(1) * 0.5, "excess gave [0.5]"),
        (lambda world: lambda plan: ones(1, 8), "shape (1, 8)"),
        (lambda world: lambda plan: ones(1) * np.nan, "[nan]"),
    ],
    "priority": [(lambda world: lambda: ones(8), "float64 of shape (8,)")],
    "parts": [
        (lambda world: lambda plan, e=0: plan, "parts gave Plan("),
        (parts(option=np.zeros((1, 8), np.int64)), "option shape (1, 8)"),
        (parts(shares={}), "shares {}"),
        (lambda world: lambda plan, e=0: {"option": np.zeros(8, np.int64)}, "parts gave option shape (8,)"),
    ],
    "state": [(lambda world: lambda e: {"need_kwh": []}, "state gave {'need_kwh': []}")],
    "state_dict": [(lambda world: lambda: [][0], "state_dict failed (IndexError")],
    "load_state_dict": [(lambda world: lambda state: world.load_state_dict({}), "load_state_dict failed (ValueError")],
    "execute": [
        (lambda world: lambda plan: ones(1, 8), "execute gave shape (1, 8)"),
        (facts(reward=ones(8)), "reward of shape (8,)"),
        (facts(lost=ones(1, 3)), "lost of shape (1, 3)"),
        (facts(carried=ones(1, 8)), "carried of shape (1, 8)"),
        (facts(reward=ones(1, 8) * np.nan), "reward that is not finite"),
        (facts(elapsed_s=ones(1) * 0), "elapsed_s = [0.0]"),
        (facts(elapsed_s=1.0), "elapsed_s = shape ()"),
        (facts(counts={"cost": ones(3)}), "counts['cost'] of shape (3,)"),
        (facts(counts={}), "metric 'cost' folds 'cost', which execute() does not count; it counts nothing"),
    ],
    "drift": [
        (lambda world: lambda: None, "object of shape ()"),
        (lambda world: lambda: ones(1), "float64 of shape (1,)"),
    ],
    "restart": [(lambda world: lambda which: which.what, "restart failed (AttributeError")],
    "reseed": [(lambda world: lambda seeds: seeds["a"], "reseed failed (TypeError")],
}  # fmt: skip


@pytest.mark.parametrize(("member", "change", "told"), [(m, *case) for m, cases in WRONG.items() for case in cases])
def test_a_member_of_a_world_that_gives_something_else(member, change, told):
    problem = with_world(lambda world: Like(world, **{member: change(world)}))
    refused(problem, told)
    if "metric 'cost'" not in told:
        refused(problem, f"it needs {WORLD_MEMBERS[member]}")


def test_a_check_that_refuses_what_was_settled():
    wrong = Like(Chargers(), check=lambda state, allocation: CapacityCheck(1.0, ("charger 0 is overbooked",)))
    refused(wrong, "check gave violations (charger 0 is overbooked); it needs check(state, allocation) -> ")
    refused(
        Like(Chargers(), check=lambda state, allocation: True), "check gave True; it needs check(state, allocation)"
    )


def test_a_description_that_no_file_can_hold():
    refused(Like(Chargers(), describe=lambda: {"speeds": np.ones(2)}), "describe gave {'speeds': array([1., 1.])}")


def test_make_problem_refuses_it_before_anything_runs(tmp_path, monkeypatch):
    (tmp_path / "half_made.py").write_text(
        "from examples.chargers import Chargers\n\nclass Half(Chargers):\n    check = None\n\ndef none(): return 7\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ContractError, match=r"problem 'half_made:Half' \(Half\) has no 'check'; it needs check\("):
        make_problem("half_made:Half")
    with pytest.raises(ContractError, match=r"problem 'half_made:none' \(int\) has no 'card'; it needs a hybridalloc"):
        make_problem("half_made:none")


def test_what_is_built_in_passes_too():
    for name, settings in (("mec", {"agents": 4, "servers": 2}), ("custom", {"transition": "farm"})):
        assert check_problem(make_problem(name, **settings), name).card.name == name


def test_an_allocation_is_seen_as_check_will_see_it():
    """The one decision is settled, told in parts and checked as those parts."""
    told = []
    problem = Chargers()
    watched = Like(problem, check=lambda state, a: told.append(a) or problem.check(state, a))
    check_problem(watched, "mine")
    assert isinstance(told[0], SimpleNamespace) and told[0].option.shape == (8,)
