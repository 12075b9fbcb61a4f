"""Jobs on the nodes of a shared GPU cluster; see :mod:`.problem`."""

from hybridalloc.problems.cluster.prices import ClusterPrices as ClusterPrices
from hybridalloc.problems.cluster.problem import Cluster as Cluster
from hybridalloc.problems.cluster.problem import make as make
from hybridalloc.problems.cluster.problem import restore as restore
from hybridalloc.problems.cluster.queue.prices import QueuePrices as QueuePrices
from hybridalloc.problems.cluster.queue.problem import Queue as Queue
from hybridalloc.problems.cluster.queue.state import QueueState as QueueState
from hybridalloc.problems.cluster.state import ClusterState as ClusterState
