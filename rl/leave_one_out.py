r"""A leave-one-out critic: b_i(s, a_-i), for the advantage R - b_i.

    z_-i = (sum_j phi(o_j, a_j) - phi(o_i, a_i)) / N,    b_i = b(o_i, z_-i, pooled s)

b_i reads what the others did and not what i did, so E_{a_i}[grad log pi_i b_i] = 0: the gradient stays unbiased,
and what the others caused is taken out of i's credit. It costs O(N), where COMA's baseline enumerates the options.
With generalised advantages, A + V(s) - b_i = R_lambda - b_i. The regression target of b_i is the same lambda-return.

Sources: Foerster et al. (2018), "Counterfactual multi-agent policy gradients", for the baseline; Wu et al. (2018),
"Variance reduction for policy gradient with action-dependent factorized baselines", for the estimator.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rl.networks import PairScorer, Sizes, orthogonal
from rl.on_policy import Batch


class Others(nn.Module):
    """phi(o_i, a) of every pair, and what the others did: z_-i."""

    def __init__(self, sizes: Sizes, hidden: int) -> None:
        super().__init__()
        self.pairs = PairScorer(sizes, hidden)  # its embedding is phi; its score is not used
        self.state = nn.Linear(sizes.agent + 3 * sizes.pair, hidden)
        for p in self.pairs.out.parameters():
            p.requires_grad_(False)

    def options(self, batch: Batch, part: Tensor) -> Tensor:
        """phi (B, N, O, H) of every option: what an enumeration needs."""
        b, n = batch.option[part].shape
        row = torch.arange(b).repeat_interleave(n)
        agent, pair = batch.agent[part].flatten(0, 1), batch.pair[part].flatten(0, 1)
        phi = self.pairs.embed(agent, pair, batch.resource[part], row, batch.resource_of)
        return phi.unflatten(0, (b, n))

    def chosen(self, batch: Batch, part: Tensor) -> Tensor:
        """phi (B, N, H) of the executed options alone, O(N)."""
        agent, pair, resource, option = (x[part] for x in (batch.agent, batch.pair, batch.resource, batch.option))
        return self.pairs.chosen(agent, pair, resource, option, batch.resource_of)

    def forward(self, batch: Batch, part: Tensor, chosen: Tensor) -> Tensor:
        """(B, N, 2 H): z_-i from ``chosen`` (B, N, H), beside the pooled state, which no choice enters."""
        chosen = chosen * batch.live[part][..., None]
        others = (chosen.sum(1, keepdim=True) - chosen) / chosen.shape[1]
        pooled = torch.tanh(self.state(batch.own[part])).mean(1, keepdim=True).expand(-1, chosen.shape[1], -1)
        return torch.cat([others, pooled], -1)


class LeaveOneOut(nn.Module):
    """b_i(s, a_-i), (B, N), in normalised units."""

    def __init__(self, sizes: Sizes, hidden: int = 32) -> None:
        super().__init__()
        self.others = Others(sizes, hidden)
        own = sizes.agent + 3 * sizes.pair
        self.body = nn.Sequential(
            nn.Linear(own + 2 * hidden + sizes.resource, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 1)
        )
        orthogonal(self.body)

    def forward(self, batch: Batch, part: Tensor) -> Tensor:
        context = self.others(batch, part, self.others.chosen(batch, part))
        resource = batch.resource[part].mean(1, keepdim=True).expand(-1, context.shape[1], -1)
        return self.body(torch.cat([batch.own[part], context, resource], -1))[..., 0]
