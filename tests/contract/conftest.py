"""Every problem that the contract's tests run on: add a line with a new one."""

from __future__ import annotations

import numpy as np
import pytest

from examples.chargers import Chargers
from hybridalloc.problems import make_problem
from hybridalloc.problems.farm import Farm
from tests.hybridalloc.depots import Depots


def shifted(**more):
    problem = make_problem("mec", agents=6, servers=3)
    return problem.shifted(problem.scenarios()[5 if "staleness" in more else 1]._replace(**more))


def table(**settings):
    work, rng = [[1.0, 2.0, 0.5]] * 5, np.random.default_rng(0)
    return make_problem(
        "custom", work=work, capacity=[2.0, 3.0, 1.0], deadline_s=[1.0, 2.0, 1.5, 3.0, 1.0], priority=rng.random(5),
        wait_s=[0.1, 0.0, 0.3], full_power_w=[[50.0, 100.0, 20.0]] * 5, power_limit_w=[60.0] * 5, **settings,
    )  # fmt: skip


PROBLEMS = {
    "mec": lambda: make_problem("mec", agents=9, servers=3),
    "mec, set A": lambda: make_problem("mec", agents=9, servers=3, scenario="A"),
    "mec, channels": lambda: make_problem("mec", agents=6, servers=2, choose_channel=True),
    "mec, one": lambda: make_problem("mec", agents=1, servers=1),
    "mec, settings": lambda: make_problem(
        "mec", agents=7, servers=2, priority_gap=0.1, power_control=False, floors=False, staleness=False, load=0.9,
        bits=(20e3, 60e3), episode=5,
    ),
    "mec, set F": lambda: make_problem("mec", agents=6, servers=2, scenario="F", day=8, episode=16),
    "mec, shifted": lambda: shifted(load=1.5, cpu=2.0),
    "mec, late reports": lambda: shifted(staleness=1.5),
    "custom, farm": lambda: make_problem("custom", transition="hybridalloc.problems.farm:Farm"),
    "custom, settings": lambda: make_problem(
        "custom", transition=Farm(tenants=5, nodes=2, step_s=0.5, load=0.9), episode=4, credit="own", priority_gap=0.2
    ),
    "custom, table": table,
    "custom, two families": lambda: table(options=[[0, 2], [1, 2]], families=["cpu", "cpu", "air"]),
    "custom, held": lambda: make_problem(
        "custom", demand={"gpu": [1, 2, 4, 1, 2], "memory": [64, 8, 100, 64, 30]},
        held={"gpu": [4, 4], "memory": [80, 90]},
    ),
    "custom, held, settings": lambda: make_problem(
        "custom", demand={"gpu": [1, 2, 1, 1, 0, 2]}, held={"gpu": [4, 4, 2], "memory": [80, 90, 10]},
        count=[1, 2, 1, 1, 1, 1], apart=["a", None, "a", "", "a", "b"], team=["x", "y", "x", "x", "", "y"],
        quota={"x": {"gpu": 2}}, priority=[0, 1, 0, 2, 0, 0], previous=[1, 0, 0, 2, 0, 3],
        moving_cost=[0.1, 0, 0, 0, 0, 1e12], servers=["k1", "k2", "k3"],
    ),
    "cluster": lambda: make_problem("cluster", nodes=6),
    "cluster, settings": lambda: make_problem("cluster", nodes=9, until=0.7),
    "cluster, queue": lambda: make_problem("cluster", scenario="seed001", slots=14, hours=1.0, stragglers=0.3),
    "cluster, queue, settings": lambda: make_problem(
        "cluster", scenario="seed001", slots=12, workload="heavy", hours=0.5, teams=2, urgent=0.4, slack=2.0,
        stragglers=0.3, preempt=False, misjudged=0.0,
    ),
    "voltage": lambda: make_problem("voltage"),
    "voltage, mapdn": lambda: make_problem("voltage", variant="mapdn", levels=5, rounds=1),
    "voltage, readings now": lambda: make_problem("voltage", information="now", steepest=10.0),
    "balancer": lambda: make_problem("balancer", requests=80),
    "balancer, settings": lambda: make_problem(
        "balancer", replicas=3, dispatchers=2, requests=60, batch=3, gather_s=0.2, belief="learned", drift=True,
        failures_every_s=3.0, repair_s=2.0, ages="late", prefix_index="own", told_tokens=True,
    ),
    "depots": Depots,
    "chargers": Chargers,
    "chargers, settings": lambda: Chargers(cars=5, speeds_kw=(22.0, 350.0), gap_h=0.2, closes=1.0),
}  # fmt: skip
LEVELS = ("voltage", "voltage, mapdn", "voltage, readings now")  # nobody opts for anything: a game of levels
TABLES = (
    "custom, table",
    "custom, two families",
    "custom, held",
    "custom, held, settings",
)  # they have no world that moves on


@pytest.fixture(params=PROBLEMS)
def problem(request):
    return PROBLEMS[request.param]()


@pytest.fixture(params=[name for name in PROBLEMS if name not in LEVELS])
def chosen(request):
    """A problem whose game is of options."""
    return PROBLEMS[request.param]()


@pytest.fixture(params=LEVELS)
def levelled(request):
    """A problem whose game is of levels."""
    return PROBLEMS[request.param]()


@pytest.fixture(params=[name for name in PROBLEMS if name not in TABLES])
def moving(request):
    """A problem whose worlds go on from decision to decision."""
    return PROBLEMS[request.param]()
