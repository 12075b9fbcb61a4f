"""What a recommender sees and what it says."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray


class Observation(NamedTuple):
    """Features of E joint situations, each of order one.

    agent (E, N, A) is an agent's own; resource (E, R, S) is broadcast; pair (E, N, O, P) is an agent's about an
    option. ``live`` (E, N): has something to decide. ``allowed`` (E, N, O). ``resource_of`` (O,): the row of
    ``resource`` an option stands for, -1 for none.
    """

    agent: NDArray[np.float32]
    resource: NDArray[np.float32]
    pair: NDArray[np.float32]
    live: NDArray[np.bool_]
    allowed: NDArray[np.bool_]
    resource_of: NDArray[np.int64]


def own_features(observation: Observation) -> NDArray[np.float32]:
    """(E, N, A + 3 P): an agent's features and the mean, least and greatest of its pairs'."""
    pair = observation.pair
    parts = [observation.agent, pair.mean(axis=2), pair.min(axis=2), pair.max(axis=2)]
    return np.concatenate(parts, axis=2)


class Recommender(Protocol):
    """Anything that proposes: observations in, unnormalised log-priors (E, N, O) out.

    One that also has ``propose_continuous(observation)`` may answer with arrays (E, N), or (E, N, O) for each option
    an agent may be given, by name, such as "power" and "power_spread" (W), "fraction" and "fraction_spread": the best
    responses are pulled towards them. None proposes nothing.
    """

    name: str

    def propose(self, observation: Observation) -> NDArray[np.float64]: ...
