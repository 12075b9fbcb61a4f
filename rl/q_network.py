"""The network of Q-learning, whoever learns it: a pair scorer for all, dueling or plain, and a team's mixer.

Source: Wang et al. (2016), "Dueling network architectures for deep reinforcement learning".
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rl.networks import PairScorer, Sizes
from rl.replay import Slot


class QNetwork(nn.Module):
    """Q_i(s, o) of every agent and option, and the mixer of the team's value where a learner has one.

    Dueling: Q(i, o) = V(i) + A(i, o) - mean over allowed o of A(i, o).
    """

    def __init__(self, sizes: Sizes, hidden: int, dueling: bool, mixer: nn.Module | None = None) -> None:
        super().__init__()
        self.utility = PairScorer(sizes, hidden, scale=1.0)
        self.mixer = mixer
        self.value: nn.Sequential | None = None
        if dueling:
            self.value = nn.Sequential(
                nn.Linear(sizes.agent + 3 * sizes.pair + sizes.resource, hidden), nn.ReLU(),
                nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, 1),
            )  # fmt: skip

    def forward(self, slot: Slot, of: Tensor) -> Tensor:
        """(B, N, O) from a batch of joint slots; ``of`` (O,) is ``resource_of``."""
        b, n = slot["option"].shape
        row = torch.arange(b).repeat_interleave(n)
        flat = self.utility(slot["agent"].flatten(0, 1), slot["pair"].flatten(0, 1), slot["resource"], row, of)
        a = flat.view(b, n, -1)
        if self.value is None:
            return a
        mean = (a * slot["allowed"]).sum(-1, keepdim=True) / slot["allowed"].sum(-1, keepdim=True)
        shared = slot["resource"].mean(1)[:, None].expand(-1, n, -1)
        return self.value(torch.cat([slot["own"], shared], -1)) + a - mean

    def mix(self, q: Tensor, slot: Slot) -> Tensor:
        """(B,) the team's value, or (B, N) the utilities themselves where nothing mixes them."""
        return q if self.mixer is None else self.mixer(q, slot["own"], slot["resource"])
