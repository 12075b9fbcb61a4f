r"""A memory for each agent: a gated recurrent unit over the agent's own features, beside them as more features.

    h_t = GRU(x_t, h_{t-1}),   score(i, o) reads (agent_i, h_t,i, pair_io, resource),   h = 0 where an episode begins

A rollout is learned from as whole sequences, one network's slots in order, back through time from the memory that it
began with. The critic reads the memory as it was when the slot was executed.

Sources: Cho et al. (2014), "Learning phrase representations using RNN encoder-decoder", for the unit; Hausknecht and
Stone (2015), "Deep recurrent Q-learning for partially observable MDPs", for its use; Yu et al. (2022) for recurrent
MAPPO.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from rl.networks import Sizes
from rl.on_policy import Batch
from rl.policy import gated
from rl.proposal import Observation, own_features


class Memory:
    """The unit and the state (E, N, H) of the networks that are trained on; None before the first slot."""

    def __init__(self, sizes: Sizes, size: int, seed: int) -> None:
        with torch.random.fork_rng():
            torch.manual_seed(seed + 2)
            self.cell = nn.GRUCell(sizes.agent + 3 * sizes.pair, size)
        self.state: NDArray[np.float32] | None = None

    def of(self, observation: Observation) -> NDArray[np.float32] | None:
        """The state before this slot, or None where it is that of other networks."""
        fits = self.state is not None and self.state.shape[:2] == observation.live.shape
        return self.state if fits else None

    def step(self, observation: Observation) -> dict[str, Any]:
        """Take in an executed slot; what to keep of it: the features and the memory before it."""
        x = own_features(observation)
        before = self.of(observation)
        if before is None:
            before = np.zeros((*x.shape[:2], self.cell.hidden_size), np.float32)
        with torch.no_grad():
            w = [getattr(self.cell, k).numpy() for k in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
        self.state = gated(x, before, *w)
        return {"features": x, "before": before}

    def reset(self, which: NDArray[np.bool_]) -> None:
        if self.state is not None:
            self.state = np.where(which[:, None, None], np.float32(0), self.state)

    def replay(self, batch: Batch, part: Tensor) -> Tensor:
        """(B', N, A + H) agents' features with the memory recomputed along the sequences in ``part``."""
        slots = len(batch.cut)
        x = batch.more["features"][part].unflatten(0, (slots, -1))
        goes_on = torch.from_numpy(~batch.cut).flatten()[part].view(slots, -1, 1, 1)
        h = batch.more["before"][part].unflatten(0, (slots, -1))[0]
        shape, out = h.shape, []
        for t in range(slots):
            h = self.cell(x[t].flatten(0, 1), h.flatten(0, 1)).view(shape)
            out.append(h)
            h = h * goes_on[t]
        bare = batch.agent[part][..., : -self.cell.hidden_size]
        return torch.cat([bare, torch.stack(out).flatten(0, 1)], -1)


def sequences(networks: Sequence[Tensor], slots: int, width: int) -> list[Tensor]:
    """Rows t E + e of every slot of each group of networks."""
    return [(torch.arange(slots)[:, None] * width + group).flatten() for group in networks]
