r"""Message passing on the bipartite graph of agents and resources: an agent hears those it shares a resource with.

Agent i and resource r are joined where i may take an option that stands for r. With x_io the pair scorer's sum of
agent, pair and resource terms, a round is

    m_io = relu(x_io + h_io)                              along the edge, from the agent
    n_r  = W [mean of m over r's edges, log(1 + edges)]   at the resource
    b_i  = U  mean of m_i over i's edges                  at the agent
    h_io = n_{r(o)} + b_i                                 back along the edge

and score(i, o) = out(relu(mix(relu(x_io + h_io)))) after ``rounds`` rounds with the same W and U. Opting out uses no
resource: nothing passes there, and agents in separate components of the graph do not hear each other. Means and a
logarithm of the degree let weights trained at one N and K run at any other.

Execution is not decentralised: an agent's score reads its neighbours' features (:mod:`rl.information`).

Sources: Gilmer et al. (2017), "Neural message passing for quantum chemistry"; Scarselli et al. (2009), "The graph
neural network model"; Gasse et al. (2019), "Exact combinatorial optimization with graph convolutional neural
networks", for the two half-steps on a bipartite graph.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from rl.networks import PairScorer, Sizes
from rl.proposal import Observation

if TYPE_CHECKING:
    import networkx


class GraphScorer(PairScorer):
    """A pair scorer whose agents have exchanged ``rounds`` messages through the resources they share."""

    information = "neighbours"
    rounds: Tensor

    def __init__(self, sizes: Sizes, hidden: int = 32, scale: float = 10.0, gain: float = 0.0, rounds: int = 2) -> None:
        super().__init__(sizes, hidden, scale, gain)
        self.node = nn.Linear(hidden + 1, hidden)
        self.back = nn.Linear(hidden, hidden, bias=False)
        for layer in (self.node, self.back):
            nn.init.orthogonal_(layer.weight, 1.0)
        nn.init.zeros_(self.node.bias)
        self.register_buffer("rounds", torch.tensor(rounds))

    def exchange(self, x: Tensor, row: Tensor, allowed: Tensor, rows: int, resource_of: Tensor) -> Tensor:
        used = allowed & (resource_of >= 0)
        edge = used[..., None].to(x.dtype)
        stands = nn.functional.one_hot(resource_of + 1).to(x.dtype)  # (O, 1 + R)
        total = lambda y: torch.einsum("bo...,or->br...", y.new_zeros(rows, *y.shape[1:]).index_add(0, row, y), stands)
        degree = total(edge)
        own = edge.sum(1).clamp(min=1.0)
        heard = x
        for _ in range(int(self.rounds)):
            message = torch.relu(heard) * edge
            mean = total(message) / degree.clamp(min=1.0)
            node = self.node(torch.cat([mean, torch.log1p(degree)], -1))[:, resource_of + 1][row]
            heard = x + edge * (node + self.back(message.sum(1) / own)[:, None])
        return heard


def graph_of(observation: Observation, network: int = 0) -> networkx.Graph:
    """The graph that messages pass on: nodes ("agent", i) and ("resource", r), an edge where i may use r."""
    import networkx

    graph = networkx.Graph()
    live, allowed = observation.live[network], observation.allowed[network]
    graph.add_nodes_from((("agent", i) for i in range(len(live))), bipartite=0)
    graph.add_nodes_from((("resource", r) for r in range(observation.resource.shape[1])), bipartite=1)
    for i, o in zip(*np.nonzero(allowed & live[:, None] & (observation.resource_of >= 0)), strict=True):
        graph.add_edge(("agent", int(i)), ("resource", int(observation.resource_of[o])))
    return graph


def allowed_of(
    graph: networkx.Graph, agents: Sequence[Hashable], resources: Sequence[Hashable]
) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """What an observation needs of a topology, for agents and resources in the order given.

    Returns:
        allowed (N, 1 + R): option 0 opts out and is always there, option 1 + r uses resource r; resource_of (1 + R,).

    Raises:
        ValueError: a node that the graph lacks, or an edge between two agents or two resources.
    """
    place: dict[Any, int] = {r: k for k, r in enumerate(resources)}
    for node in (*agents, *resources):
        if node not in graph:
            raise ValueError(f"{node!r} is not a node of the graph; it has {graph.number_of_nodes()}")
    allowed = np.zeros((len(agents), 1 + len(resources)), bool)
    allowed[:, 0] = True
    for side in (set(agents), set(resources)):
        for one, other in graph.subgraph(side).edges:
            raise ValueError(f"an edge joins {one!r} and {other!r}; edges run between an agent and a resource")
    for i, agent in enumerate(agents):
        allowed[i, [1 + place[r] for r in graph.neighbors(agent) if r in place]] = True
    return allowed, np.arange(-1, len(resources))
