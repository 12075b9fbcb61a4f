"""A trained pair scorer as a numpy forward pass: no torch to import, and faster on one state."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rl.proposal import Observation

Float32 = NDArray[np.float32]


@dataclass
class ArrayPolicy:
    """The pair scorer as a numpy forward pass; equal to torch's to 1e-5."""

    weights: dict[str, Float32]
    name: str = "policy"

    def propose(self, observation: Observation) -> NDArray[np.float64]:
        """Scores (E, N, O) as unnormalised log-priors; 0 for agents that are not live."""
        w = self.weights
        e, n, o, _ = observation.pair.shape
        out = np.zeros((e, n, o))
        row, agent = np.nonzero(observation.live)
        if not len(row):
            return out
        own = observation.agent[row, agent] @ w["agent.weight"].T + w["agent.bias"]
        shared = np.concatenate(
            [np.zeros((e, 1, own.shape[1]), np.float32), observation.resource @ w["resource.weight"].T],
            axis=1,
        )[:, observation.resource_of + 1]
        z = observation.pair[row, agent].reshape(-1, observation.pair.shape[3]) @ w["pair.weight"].T
        z = z.reshape(len(row), o, -1)
        z += own[:, None]
        z += shared[row]
        np.maximum(z, 0, out=z)
        z = z.reshape(len(row) * o, -1) @ w["mix.weight"].T
        z += w["mix.bias"]
        np.maximum(z, 0, out=z)
        score = (z @ w["out.weight"][0] + w["out.bias"][0]) * w["scale"]
        out[row, agent] = score.reshape(len(row), o)
        return out
