"""What a recommender sees and what it says."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from rl.pairs import summarise


class Observation(NamedTuple):
    """Features of E joint situations, each of order one.

    agent (E, N, A) is an agent's own; resource (E, R, S) is broadcast; pair (E, N, O, P) is an agent's about an
    option. ``live`` (E, N): has something to decide. ``allowed`` (E, N, O). ``resource_of`` (O,): the row of
    ``resource`` an option stands for, -1 for none; (E, N, O) where options are each agent's own (short lists).
    """

    agent: NDArray[np.float32]
    resource: NDArray[np.float32]
    pair: NDArray[np.float32]
    live: NDArray[np.bool_]
    allowed: NDArray[np.bool_]
    resource_of: NDArray[np.int64]


class Sizes(NamedTuple):
    """Feature counts of an observation."""

    agent: int
    resource: int
    pair: int

    @classmethod
    def of(cls, observation: Observation) -> Sizes:
        return cls(observation.agent.shape[-1], observation.resource.shape[-1], observation.pair.shape[-1])


def lens(observation: Observation) -> Observation:
    """What a learner of levels alone reads: of the options, which may stand for values of a level for those who choose
    among them, the first, and the first resource beside it."""
    stands = np.array([0 if observation.resource.shape[1] else -1])
    one = np.ones((*observation.live.shape, 1), np.bool_)
    return observation._replace(pair=observation.pair[:, :, :1], allowed=one, resource_of=stands)


def own_features(observation: Observation) -> NDArray[np.float32]:
    """(E, N, A + 3 P): an agent's features and the mean, least and greatest of its pairs'."""
    return summary(observation.agent, observation.pair)


def summary(agent: NDArray[Any], pair: NDArray[Any]) -> NDArray[np.float32]:
    """(E, N, A + 3 P) of agents' features (E, N, A) and their pairs' (E, N, O, P); see :func:`own_features`."""
    out = np.empty((*agent.shape[:2], agent.shape[2] + 3 * pair.shape[3]), np.float32)
    summarise(agent, pair, out)
    return out


class Proposal(NamedTuple):
    """What a recommender proposes for E situations of N agents, O options and D continuous quantities.

    ``log_prior`` (E, N, O): unnormalised log-priors of the options; None where there are no options or none is
    preferred. ``mean`` and ``spread`` (E, N, D), or (E, N, O, D) where each option has its own: a Gaussian of each
    quantity in ``levels``, by name and in its own unit; a spread of inf asks for nothing.
    """

    log_prior: NDArray[np.float64] | None
    mean: NDArray[np.float64] | None = None
    spread: NDArray[np.float64] | None = None
    levels: tuple[str, ...] = ()


def proposal_of(said: Proposal | NDArray[np.float64]) -> Proposal:
    """What a recommender said: a proposal, or unnormalised log-priors alone."""
    return said if isinstance(said, Proposal) else Proposal(np.asarray(said, dtype=np.float64))


def named(proposal: Proposal | None) -> dict[str, NDArray[np.float64]] | None:
    """The levels by name, each with its "..._spread"; None where nothing continuous is proposed."""
    if proposal is None or proposal.mean is None or proposal.spread is None:
        return None
    found: dict[str, NDArray[np.float64]] = {}
    for k, name in enumerate(proposal.levels):
        found |= {name: proposal.mean[..., k], f"{name}_spread": proposal.spread[..., k]}
    return found


class Recommender(Protocol):
    """Anything that proposes: observations in, a :class:`Proposal` or its unnormalised log-priors (E, N, O) out."""

    name: str

    def propose(self, observation: Observation) -> Proposal | NDArray[np.float64]: ...
