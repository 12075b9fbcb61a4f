r"""Pair-scoring networks: one set of weights scores every (agent, option) pair, so any N and any O will do.

score(i, o) = out(relu(mix(relu(agent_i + pair_io + resource_{r(o)})))). Agents may be reordered and options
added without retraining. The actor reads its own features, its pairs and the broadcast resource features;
only the critic pools over agents (deep sets, Zaheer et al. 2017), so execution stays decentralised.

Training runs in torch; :class:`rl.policy.ArrayPolicy` is the same forward pass in numpy, for serving and roll-outs.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from rl.fused import score
from rl.proposal import Sizes as Sizes  # read from here too
from rl.proposal import own_features as own_features

Float32 = NDArray[np.float32]


class PairScorer(nn.Module):
    """Scores (M, O) of M agents' options; untrained they are flat, with a last layer of gain 0.

    The M agents are all the live ones of B situations: networks of :mod:`rl.information` let them hear each other.
    """

    information = "own"  # what an agent's score reads of the agents: "own", "neighbours" or "all"

    def __init__(self, sizes: Sizes, hidden: int = 32, scale: float = 10.0, gain: float = 0.0) -> None:
        super().__init__()
        self.agent = nn.Linear(sizes.agent, hidden)
        self.pair = nn.Linear(sizes.pair, hidden, bias=False)
        self.resource = nn.Linear(sizes.resource, hidden, bias=False)
        self.mix = nn.Linear(hidden, hidden)
        self.out = nn.Linear(hidden, 1)
        self.scale = scale
        for layer in (self.agent, self.pair, self.resource, self.mix):
            nn.init.orthogonal_(layer.weight, 2**0.5)
        for layer in (self.agent, self.mix, self.out):
            nn.init.zeros_(layer.bias)
        nn.init.zeros_(self.out.weight)
        if gain:
            nn.init.orthogonal_(self.out.weight, gain)

    def embed(
        self,
        agent: Tensor,
        pair: Tensor,
        resource: Tensor,
        row: Tensor,
        resource_of: Tensor,
        allowed: Tensor | None = None,
    ) -> Tensor:
        """(M, O, H) from agent (M, A), pair (M, O, P), resource (B, R, S), row (M,) into B, allowed (M, O)."""
        shared = nn.functional.pad(self.resource(resource), (0, 0, 1, 0))[:, resource_of + 1]
        x = self.agent(agent)[:, None] + self.pair(pair) + shared[row]
        if self.information != "own":
            mask = torch.ones(x.shape[:2], dtype=torch.bool) if allowed is None else allowed
            x = self.exchange(x, row, mask, len(resource), resource_of)
        return torch.relu(self.mix(torch.relu(x)))

    def exchange(self, x: Tensor, row: Tensor, allowed: Tensor, rows: int, resource_of: Tensor) -> Tensor:
        """(M, O, H) with what a network that is not decentralised tells agents of each other; of B = ``rows`` rows."""
        return x

    def chosen(self, agent: Tensor, pair: Tensor, resource: Tensor, option: Tensor, resource_of: Tensor) -> Tensor:
        """(B, N, H) embeddings of the pairs with ``option`` (B, N) alone; agent (B, N, A), pair (B, N, O, P)."""
        b, n = option.shape
        own = pair.gather(2, option[..., None, None].expand(-1, -1, 1, pair.shape[-1]))
        rows = nn.functional.pad(resource, (0, 0, 1, 0))  # the row of zeros stands for no resource
        used = rows.gather(1, (resource_of[option] + 1)[..., None].expand(-1, -1, resource.shape[-1]))
        phi = self.embed(
            agent.flatten(0, 1), own.flatten(0, 1), used.flatten(0, 1)[:, None], torch.arange(b * n),
            torch.zeros(1, dtype=torch.int64),
        )  # fmt: skip
        return phi[:, 0].unflatten(0, (b, n))

    def forward(
        self,
        agent: Tensor,
        pair: Tensor,
        resource: Tensor,
        row: Tensor,
        resource_of: Tensor,
        allowed: Tensor | None = None,
    ) -> Tensor:
        return self.scale * self.out(self.embed(agent, pair, resource, row, resource_of, allowed))[..., 0]

    def fused(
        self,
        agent: Tensor,
        pair: Tensor,
        resource: Tensor,
        row: Tensor,
        resource_of: Tensor,
        allowed: Tensor | None = None,
    ) -> Tensor:
        """:meth:`forward`, compiled, for training: several times faster, not differentiable in the pairs' features."""
        if self.information != "own":
            return self(agent, pair, resource, row, resource_of, allowed)
        shared = nn.functional.pad(self.resource(resource), (0, 0, 1, 0))[:, resource_of + 1]
        return self.scale * score(
            self.agent(agent),
            pair,
            shared,
            row,
            self.pair.weight,
            self.mix.weight,
            self.mix.bias,
            self.out.weight,
            self.out.bias,
        )

    def export(self) -> dict[str, Float32]:
        """Weights as arrays, for :class:`ArrayPolicy`."""
        arrays = {k: v.detach().numpy().copy() for k, v in self.state_dict().items()}
        arrays["scale"] = np.array(self.scale, np.float32)
        return arrays


def orthogonal(module: nn.Module) -> None:
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            nn.init.orthogonal_(layer.weight, 1.0)
            nn.init.zeros_(layer.bias)


class Critic(nn.Module):
    """Centralised value of each agent: its own features beside the pooled features of all."""

    def __init__(self, sizes: Sizes, hidden: int = 32) -> None:
        super().__init__()
        own = sizes.agent + 3 * sizes.pair
        self.agents = nn.Linear(own, hidden)
        self.resources = nn.Linear(sizes.resource, hidden)
        self.body = nn.Sequential(
            nn.Linear(own + 2 * hidden + sizes.resource, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh()
        )
        self.out = nn.Linear(64, 1)
        orthogonal(self)

    def forward(self, own: Tensor, resource: Tensor) -> Tensor:
        """(B, N) values from own (B, N, A + 3 P), see :func:`own_features`, and resource (B, R, S)."""
        pooled = torch.cat(
            [
                torch.tanh(self.agents(own)).mean(1),
                torch.tanh(self.resources(resource)).mean(1),
                resource.mean(1),
            ],
            -1,
        )
        # the first layer's two parts apart: what is pooled is the same for all agents of a row
        first: Any = self.body[0]
        size = own.shape[-1]
        x = nn.functional.linear(own, first.weight[:, :size])
        x += nn.functional.linear(pooled, first.weight[:, size:], first.bias)[:, None]
        return self.out(self.body[1:](x))[..., 0]
