r"""Who sees what: CTCE, DTDE and CTDE as settings of the same code.

    actor reads                          network     critic reads       critic       paradigm
    its own features                     "pair"      its own            "own"        DTDE (as IPPO)
    its own features                     "pair"      all agents'        "central"    CTDE (as MAPPO)
    all agents', pooled                  "pooled"    all agents'        "central"    CTCE
    its neighbours' on the graph         "graph"     all agents'        "central"    CTCE, and it knows the topology

An agent's own features are its row of ``agent`` and ``pair``, its mask, and the broadcast ``resource``, which is what
the operator tells everyone. "pooled" adds the mean over live agents of a learned embedding (deep sets, Zaheer et al.
2017). Every network scores pairs with shared weights, so all three run at any N and K.

Source: Gronauer and Diepold (2022), "Multi-agent deep reinforcement learning: a survey", section 3.2, for the names.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from rl.graph import GraphScorer
from rl.networks import PairScorer, Sizes

PARADIGMS: dict[str, dict[str, Any]] = {
    "dtde": {"network": "pair", "critic": "own"},
    "ctde": {"network": "pair", "critic": "central"},
    "ctce": {"network": "pooled", "critic": "central"},
}


class PooledScorer(PairScorer):
    """A pair scorer that also reads the mean embedding of all live agents of its network."""

    information = "all"

    def __init__(self, sizes: Sizes, hidden: int = 32, scale: float = 10.0, gain: float = 0.0) -> None:
        super().__init__(sizes, hidden, scale, gain)
        self.pool = nn.Linear(hidden, hidden)
        nn.init.orthogonal_(self.pool.weight, 1.0)
        nn.init.zeros_(self.pool.bias)

    def exchange(self, x: Tensor, row: Tensor, allowed: Tensor, rows: int, resource_of: Tensor) -> Tensor:
        edge = allowed[..., None].to(x.dtype)
        one = (torch.relu(x) * edge).sum(1) / edge.sum(1).clamp(min=1.0)
        count = x.new_zeros(rows).index_add(0, row, x.new_ones(len(x))).clamp(min=1.0)
        mean = x.new_zeros(rows, x.shape[-1]).index_add(0, row, one) / count[:, None]
        return x + self.pool(mean)[row][:, None]


NETWORKS: dict[str, type[PairScorer]] = {"pair": PairScorer, "pooled": PooledScorer, "graph": GraphScorer}


def make_network(name: str, sizes: Sizes, hidden: int, gain: float) -> PairScorer:
    """An untrained actor by the name of what it reads."""
    return NETWORKS[name](sizes, hidden, gain=gain)
