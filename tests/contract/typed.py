"""Nothing runs here: mypy sees that every problem and its worlds keep the contract, type by type."""

from __future__ import annotations

from examples.chargers import Chargers, Harbour, Landing
from examples.chargers import Plan as ChargersPlan
from examples.chargers import Prices as ChargersPrices
from hybridalloc.problems.balancer import Balancer, BalancerPrices, BalancerState
from hybridalloc.problems.balancer.world import BalancerWorld, Routed
from hybridalloc.problems.cluster import Cluster, ClusterPrices, ClusterState
from hybridalloc.problems.cluster.world import ClusterWorld, Placed
from hybridalloc.problems.contract import Ends, Plays, Problem, Spreads, World
from hybridalloc.problems.custom import Custom, CustomPrices, CustomState
from hybridalloc.problems.custom.plan import CustomPlan
from hybridalloc.problems.custom.world import CustomWorld
from hybridalloc.problems.mec.arrays import Plan, Prices
from hybridalloc.problems.mec.problem import Mec
from hybridalloc.problems.mec.state import MecState
from hybridalloc.problems.mec.world import MecWorld


def mec(problem: Mec, world: MecWorld) -> tuple[Problem[MecState, Plan, Prices], World[MecState, Plan, Prices]]:
    return problem, world


def custom(
    problem: Custom, world: CustomWorld
) -> tuple[Problem[CustomState, CustomPlan, CustomPrices], World[CustomState, CustomPlan, CustomPrices]]:
    return problem, world


def chargers(
    problem: Chargers, world: Harbour
) -> tuple[Problem[Landing, ChargersPlan, ChargersPrices], World[Landing, ChargersPlan, ChargersPrices], Ends]:
    return problem, world, world


def balancer(
    problem: Balancer, world: BalancerWorld
) -> tuple[
    Problem[BalancerState, Routed, BalancerPrices], World[BalancerState, Routed, BalancerPrices], Ends, Spreads, Plays
]:
    return problem, world, world, world, problem


def cluster(
    problem: Cluster, world: ClusterWorld
) -> tuple[Problem[ClusterState, Placed, ClusterPrices], World[ClusterState, Placed, ClusterPrices], Ends, Spreads]:
    return problem, world, world, world
