r"""Congestion games from a network: links and servers are resources, routes to servers are options.

A networkx graph has links with ``capacity`` and optionally ``delay``, and nodes; servers are nodes with ``cpu``.
An agent at a node may stay local (option 0) or take one of its shortest simple routes to a server: that option
uses the route's links and the server. Agents at other nodes cannot take it, so it is masked for them.

Source: Rosenthal (1973); routes by Yen (1971), as networkx has it.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import networkx as nx
import numpy as np
from numpy.typing import ArrayLike

from games.congestion import Bool, CongestionGame, Float, Int
from games.errors import InvalidGameError, floats


@dataclass(frozen=True)
class Topology:
    """A network as options and resources.

    Attributes:
        options: (O, S) resource ids, -1 for none; option 0 uses nothing.
        routes: the node path of each option; empty for option 0.
        resources: name of each resource: ("link", u, v) or ("server", node).
        capacity: (R,) of links, then servers.
        delay: (O,) s along each route.
        sources: node -> (O,) bool, options open to an agent there.
    """

    options: Int
    routes: tuple[tuple[Any, ...], ...]
    resources: tuple[tuple[Any, ...], ...]
    capacity: Float
    delay: Float
    sources: dict[Any, Bool]

    def game(
        self, source: list[Any], traffic: ArrayLike, work: ArrayLike, local_cost: ArrayLike, toll: float = 0.0
    ) -> CongestionGame:
        """The agents' game.

        Args:
            source: node of each of N agents.
            traffic: (N,) load on each link of its route, in the links' capacity unit, >= 0.
            work: (N,) load on its server, in the servers' capacity unit, >= 0.
            local_cost: (N,) cost of option 0.
            toll: as in :class:`CongestionGame`.

        Raises:
            InvalidGameError: a source with no options known, or what CongestionGame rejects.
        """
        for agent, node in enumerate(source):
            if node not in self.sources:
                raise InvalidGameError(f"source[{agent}] = {node!r}; it is not one of the topology's sources")
        n = len(source)
        links = np.array([name[0] == "link" for name in self.resources], dtype=bool)
        flow, load = floats("traffic", traffic), floats("work", work)
        weight = np.where(links[None], flow[:, None], load[:, None])
        private = np.tile(self.delay, (n, 1))
        private[:, 0] = floats("local_cost", local_cost)
        allowed = np.array([self.sources[node] for node in source]).reshape(n, len(self.options))
        return CongestionGame(self.options, weight, self.capacity, private, allowed, np.full(len(links), toll))


def network_options(graph: nx.Graph, sources: list[Any], routes: int = 2) -> Topology:
    """Options and resources of a network.

    Args:
        graph: directed or not; every link has ``capacity`` > 0 and may have ``delay`` >= 0 (default 0); servers are
            the nodes with ``cpu`` > 0.
        sources: nodes where agents may be.
        routes: simple routes kept for each source and server, by delay and then by hops.

    Raises:
        InvalidGameError: no server, a source that is not a node, or a link without a capacity.
    """
    servers = [node for node, data in graph.nodes(data=True) if data.get("cpu", 0) > 0]
    if not servers:
        raise InvalidGameError("the graph has no server; give at least one node a cpu > 0")
    for u, v, data in graph.edges(data=True):
        if not data.get("capacity", 0) > 0:
            raise InvalidGameError(f"link ({u!r}, {v!r}) has capacity {data.get('capacity')}; it is > 0")
    links = list(graph.edges())
    index = {}
    for r, (u, v) in enumerate(links):
        index[u, v] = r
        if not graph.is_directed():
            index[v, u] = r
    at_server = {node: len(links) + k for k, node in enumerate(servers)}
    paths: list[tuple[Any, ...]] = [()]
    table: list[list[int]] = [[]]
    delays = [0.0]
    owner: list[Any] = [None]

    def length(u: Any, v: Any, data: dict[str, Any]) -> float:
        # hops decide between routes of equal delay
        return float(data.get("delay", 0.0)) + 1e-9

    for node in dict.fromkeys(sources):
        if node not in graph:
            raise InvalidGameError(f"source {node!r} is not a node of the graph")
        for server in servers:
            if not nx.has_path(graph, node, server):
                continue
            found = [[node]] if node == server else nx.shortest_simple_paths(graph, node, server, weight=length)
            for path in itertools.islice(found, routes):
                steps = list(itertools.pairwise(path))
                table.append([index[step] for step in steps] + [at_server[server]])
                paths.append(tuple(path))
                delays.append(sum(float(graph.edges[step].get("delay", 0.0)) for step in steps))
                owner.append(node)
    span = max(1, max(len(row) for row in table))
    options = np.full((len(table), span), -1, dtype=np.int64)
    for o, row in enumerate(table):
        options[o, : len(row)] = row
    open_to = {
        node: np.array([o == 0 or who == node for o, who in enumerate(owner)]) for node in dict.fromkeys(sources)
    }
    names = tuple(("link", u, v) for u, v in links) + tuple(("server", node) for node in servers)
    capacity = np.array([graph.edges[link]["capacity"] for link in links] + [graph.nodes[s]["cpu"] for s in servers])
    return Topology(options, tuple(paths), names, capacity.astype(np.float64), np.array(delays), open_to)
