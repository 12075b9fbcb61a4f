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


class Recommender(Protocol):
    """Anything that proposes: observations in, unnormalised log-priors (E, N, O) out.

    One that also has ``propose_continuous(observation)`` may answer with (E, N) arrays by name, such as "power" and
    "power_spread" (W), "fraction" and "fraction_spread": the coordinator pulls the best responses towards them.
    """

    name: str

    def propose(self, observation: Observation) -> NDArray[np.float64]: ...
