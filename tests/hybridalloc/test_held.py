"""Jobs that hold what they ask for: what can never be, against every joint choice, and what is refused."""

from __future__ import annotations

import itertools
from types import SimpleNamespace

import numpy as np
import pytest

from games.errors import InvalidStateError
from hybridalloc import Allocator, make_problem
from hybridalloc.errors import UnknownNameError

TWO = {"demand": {"gpu": [1, 1], "memory_gb": [64, 64]}, "held": {"gpu": [8], "memory_gb": [80]}}


def decided(method="game", **settings):
    problem = make_problem("custom", **settings)
    allocation = Allocator(problem, method).step(problem.reset())
    c = allocation.certificate
    assert c.feasible and c.status.startswith("ok") and not c.envy
    return allocation.option.tolist()


def test_two_jobs_of_64_gb_never_stand_on_80():
    assert decided(**TWO) == [1, 0] and decided("hybrid", **TWO) == [1, 0]
    problem = make_problem("custom", **TWO)
    both = SimpleNamespace(option=np.array([1, 1]), shares={"gpu": np.full(2, 1 / 8), "memory_gb": np.full(2, 64 / 80)})
    found = problem.check(problem.reset(), both)
    assert not found.feasible and "memory_gb of server 0: 128, there is 80" in found.violations[0]
    half = SimpleNamespace(option=np.array([1, 1]), shares={"gpu": np.full(2, 1 / 8), "memory_gb": np.full(2, 0.5)})
    assert "job 0 has 40 memory_gb, it asks for 64" in problem.check(problem.reset(), half).violations[0]


def test_as_families_of_a_share_they_are_refused():
    """A share of memory is no memory: it would be certified, and the jobs would not start."""
    with pytest.raises(InvalidStateError, match="memory is held, not worked off at a share of a speed"):
        make_problem(
            "custom", work=[[10, 64], [10, 64]], capacity=[100, 80], options=[[0, 1]], families=["gpu", "memory"]
        )  # fmt: skip
    with pytest.raises(InvalidStateError, match="gb is held"):
        make_problem("custom", work=[1, 2], capacity=[80.0], resources=["gpu-gb"])


def test_gangs_apart_quotas_and_priorities():
    servers = {"gpu": [4, 4, 4]}
    assert decided(demand={"gpu": [4, 4, 4]}, held=servers, count=[2, 1, 1], priority=[1, 0, 0])[0] in (1, 2, 3)
    apart = decided(demand={"gpu": [1, 1, 1, 1]}, held=servers, apart=["a"] * 4)
    assert sorted(apart) == [0, 1, 2, 3]
    teams = decided(demand={"gpu": [2, 2, 2]}, held=servers, team=["x", "x", "y"], quota={"x": {"gpu": 3}})
    assert sum(o > 0 for o in teams[:2]) == 1 and teams[2] > 0
    assert decided(demand={"gpu": [4, 4]}, held={"gpu": [4]}, priority=[0, 1]) == [0, 1]
    gang = decided(demand={"gpu": [3, 3]}, held={"gpu": [4, 4]}, count=[2, 1], apart=["a", "a"], priority=[0, 1])
    assert gang[0] == 0 and gang[1] > 0


def test_who_stands_somewhere_stays_unless_that_pays_or_is_never_moved():
    where = {"demand": {"gpu": [2, 1]}, "held": {"gpu": [4, 2]}, "previous": [1, 0]}
    assert decided(**where, moving_cost=[1.0, 0.0]) == [1, 1]
    fixed = {"demand": {"gpu": [3, 4]}, "held": {"gpu": [4]}, "previous": [1, 0], "priority": [0, 1]}
    assert decided(**fixed, moving_cost=[1e12, 0]) == [1, 0] and decided(**fixed, moving_cost=[0, 0]) == [0, 1]


def drawn(seed):
    rng = np.random.default_rng(seed)
    return {
        "demand": {"gpu": rng.integers(0, 4, 5), "gb": rng.integers(1, 60, 5)},
        "held": {"gpu": rng.integers(2, 6, 3), "gb": rng.integers(40, 90, 3)},
        "count": rng.choice([1, 1, 2], 5), "apart": rng.integers(-1, 2, 5), "team": rng.integers(-1, 2, 5),
        "quota": {"0": {"gpu": int(rng.integers(2, 7))}, "1": {"gb": int(rng.integers(50, 150))}},
    }  # fmt: skip


@pytest.mark.parametrize("seed", range(8))
def test_as_many_are_served_as_enumeration_finds_or_one_less(seed):
    """Every joint choice, judged by the problem's own check: the answer is feasible, and nearly the most."""
    problem = make_problem("custom", **drawn(seed))
    state = problem.reset()
    world = problem.world_at(state)
    mine = Allocator(problem, "game").step(state).option
    best = 0
    for option in itertools.product(range(4), repeat=5):
        if sum(o > 0 for o in option) > best:
            share = world._share(state, np.array(option))
            asked = SimpleNamespace(option=np.array(option), shares={"gpu": share[:, 0], "gb": share[:, 1]})
            best = sum(o > 0 for o in option) if problem.check(state, asked).feasible else best
    assert best - 1 <= (mine > 0).sum() <= best


def test_what_cannot_be_read_is_told():
    for settings, message in (
        ({"demand": {"gpu": [1]}}, "held is missing"),
        ({"demand": {"tpu": [1]}, "held": {"gpu": [1]}}, "demand of 'tpu': no server has it; held names gpu"),
        ({"demand": {"gpu": [1]}, "held": {"gpu": [1], "gb": [1, 2]}}, "held: gpu has 1 entries, gb has 2 entries"),
        ({**TWO, "work": [1.0]}, "work= goes with shares of a speed"),
        ({**TWO, "servers": ["a", "b"]}, "servers has 2 names; the arrays have 1"),
        ({**TWO, "quota": {"x": {"tpu": 1}}}, "quota of 'x': 'tpu' is none of gpu, memory_gb"),
        ({**TWO, "demand": {"gpu": [1, -1]}}, "demand[1, 0] = -1"),
    ):
        with pytest.raises(InvalidStateError) as error:
            make_problem("custom", **settings)
        assert message in str(error.value)
    with pytest.raises(UnknownNameError, match="unknown setting of custom 'counts'; did you mean 'count'"):
        make_problem("custom", **TWO, counts=[1, 1])


def test_why_says_what_a_place_lacks_and_what_would_change_it():
    problem = make_problem(
        "custom", demand={"gpu": [2, 2, 3]}, held={"gpu": [4, 2]}, servers=["a", "b"], names=["x", "y", "z"],
        cost=[[0.0, 5.0]] * 3,
    )  # fmt: skip
    allocation = Allocator(problem, "game").step(problem.reset())
    assert allocation.option.tolist() == [1, 1, 0]
    left, held = allocation.why("z"), allocation.why(0)
    assert "a takes 3 of gpu of a, of which 0 is left" in left.reason and left.decided_by == (("room", 0),)
    assert "z (opting out)" in str(left)
    assert held.reason == "of the places that fit beside the others it costs least"
    assert held.smallest.option == 2 and held.smallest.checked and held.smallest.amount < -4
    gone = allocation.what_if(without=0)
    assert gone.choice.tolist() == [0, 2, 1] and gone.moved == (0, 1, 2)  # y goes to b, so that z fits on a
    crowd = Allocator(problem, "first_fit").step(problem.reset()).why(0)
    assert crowd.reason == "the rule 'first_fit' chose it"
