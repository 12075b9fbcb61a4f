"""The balancer: requests to language models over replicas, on stale reports."""

from __future__ import annotations

from hybridalloc.problems.balancer.problem import Balancer as Balancer
from hybridalloc.problems.balancer.problem import make as make
from hybridalloc.problems.balancer.scorer import BalancerPrices as BalancerPrices
from hybridalloc.problems.balancer.state import BalancerState as BalancerState
