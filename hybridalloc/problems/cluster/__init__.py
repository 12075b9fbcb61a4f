"""Jobs on the nodes of a shared GPU cluster; see :mod:`.problem`."""

from hybridalloc.problems.cluster.prices import ClusterPrices as ClusterPrices
from hybridalloc.problems.cluster.problem import Cluster as Cluster
from hybridalloc.problems.cluster.problem import make as make
from hybridalloc.problems.cluster.state import ClusterState as ClusterState
