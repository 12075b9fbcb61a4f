"""What training asks of a learner, in types: it proposes, records what was executed, and learns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol, TypedDict, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from rl.policy import ArrayPolicy
from rl.proposal import Observation, Proposal

Float = NDArray[np.float64]


class Settings(Protocol):
    """What a trainer reads of a learner's settings.

    Attributes:
        limit: log-priors are clipped to [-limit, 0]. horizon: decisions between two updates.
    """

    @property
    def limit(self) -> float: ...

    @property
    def horizon(self) -> int: ...


class Blended(TypedDict):
    """How continuous decisions came about.

    ``wish`` is what :meth:`Learner.sample_continuous` drew; ``responses`` are, by name, the (E, N) best responses that
    it was pulled towards, nan where a quantity was not decided; ``trust`` is the coordinator's.
    """

    wish: Proposal
    responses: Mapping[str, Float]
    trust: float


class Drawn(TypedDict):
    """How levels came about in a game that decides nothing else: ``drawn`` (E, N, D) before they were made feasible,
    and what the game added to their log-density, ``linear`` (E, N, D) and ``curvature`` (E, N, D, D)."""

    drawn: Float
    linear: Float
    curvature: Float


class Executed(NamedTuple):
    """One executed decision of E networks, as a learner is told of it.

    Attributes:
        observation: before it. option: (E, N) executed. log_prior: (E, N, O) clipped, as merged. bias: (E, N, O) the
            game's part.
        reward: (E, N), by ``credit`` an agent's own outcome, with or without what others lost in the decision.
        carried: (E, N, H) what others lost in this decision because of the agent's decision h + 1 earlier, <= 0.
        truncated: (E,) the episode was cut after this decision; ``final`` is then what came next, before resets.
        elapsed: (E,) time from this decision to the next, in the problem's unit; None is one unit each.
        terminated: (E,) the episode ended for good with this decision, and nothing follows; None is none.
        left: (E, N) the agent's part in it did, so that what its place holds next is another's; None is nobody's.
            Nothing is made of it where agents share their pay.
        cost: (E,) the team's in this decision; needed where a learner ``wants_cost``, left alone elsewhere.
        blended: how the continuous levels came about; needed where ``sample_continuous`` gives any, or levels are all
            that is decided: there is one option then.
    """

    observation: Observation
    option: NDArray[np.int64]
    log_prior: Float
    bias: Float
    reward: Float
    carried: Float
    truncated: NDArray[np.bool_]
    final: Observation | None
    elapsed: Float | None = None
    terminated: NDArray[np.bool_] | None = None
    left: NDArray[np.bool_] | None = None
    cost: Float | None = None
    blended: Blended | Drawn | None = None


@runtime_checkable
class Learner(Protocol):
    """A learner of E networks of N agents with O options each.

    Attributes:
        name: in :data:`rl.registry.LEARNERS`. policy: what it would execute now, as arrays. updates: made so far.
        wants_cost: ``record`` must be told the cost of each decision. engine: what computes its gradients, "compiled"
            or "torch".
    """

    name: str
    wants_cost: bool
    engine: str
    config: Settings
    policy: ArrayPolicy
    updates: int

    @property
    def credit(self) -> str:
        """What agents are paid: "difference" asks the trainer for their own outcome less what the others lose."""
        ...

    def propose(self, observation: Observation) -> Proposal:
        """What the present policy proposes."""
        ...

    def sample_continuous(
        self, observation: Observation, option: NDArray[np.int64], rng: np.random.Generator
    ) -> Proposal | None:
        """Drawn levels (E, N, D) and spreads for the chosen options, to execute in training; None: it learns none."""
        ...

    def record(self, done: Executed) -> None:
        """One executed decision of E networks.

        Raises:
            ValueError: a shape or a time that cannot be, a cost or a blend that is missing.
        """
        ...

    def ready(self, final: bool = False) -> bool:
        """Whether there is a rollout to learn from; with ``final``, which no rollout follows, be it a short one."""
        ...

    def update(self, last: Observation, progress: float) -> dict[str, float]:
        """Learn from what was recorded, and say how it went.

        Args:
            last: what came after the last decision. progress: of the whole training, in [0, 1]; it sets the rate.

        Raises:
            FloatingPointError: a gradient is not finite; the weights are left as they were.
        """
        ...

    def state_dict(self) -> dict[str, Any]:
        """Everything: resumed, training goes on as if uninterrupted."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Bring the learner to a state that :meth:`state_dict` gave."""
        ...
