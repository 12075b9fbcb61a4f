r"""Trust learned by the policy's gradient, one number trained beside the network.

What is executed in training has log-density log sigma(o) = log_softmax(log prior + bias), bias = -trust cost with
the cost held constant. So

.. math:: \partial \log\sigma(o) / \partial \log trust = bias(o) - \sum_p \sigma(p)\, bias(p),

which needs nothing but what the learner records anyway. REINFORCE (Williams 1992) climbs the advantage along it:
where cheap options turn out better than the prior says, trust rises; where the game is wrong, it falls. The
advantage here is the discounted return of the rollout less its mean over networks in the same slot.

The equilibrium's own dependence on trust (the cost moves a little as all trust more) is left out, as the costs'
is in the policy's gradient.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coordinator.merge import mixed_strategy
from games.congestion import Bool, Float, Int
from rl.elapsed import discounts, durations


@dataclass
class LearnedTrust:
    """One trust, moved by REINFORCE with a normalised step.

    Attributes:
        trust: present value, in [lowest, highest]. rate: change of log trust an update, at most (the gradient is
            divided by its own running size). gamma: discount of the returns, a unit of time.
    """

    trust: float = 5.0
    rate: float = 0.05
    gamma: float = 0.9
    lowest: float = 0.1
    highest: float = 1000.0
    _size: float = 0.0
    _seen: float = 0.0
    _scores: list[Float] = field(default_factory=list)
    _rewards: list[Float] = field(default_factory=list)
    _live: list[Bool] = field(default_factory=list)
    _discounts: list[Float] = field(default_factory=list)

    def __post_init__(self) -> None:
        if not 0 < self.lowest <= self.trust <= self.highest < np.inf:
            raise ValueError(
                f"trust = {self.trust}; a learned trust starts within [lowest, highest] = "
                f"[{self.lowest}, {self.highest}], which are > 0 and finite"
            )

    def record(
        self, log_prior: Float, bias: Float, allowed: Bool, live: Bool, option: Int, reward: Float,
        elapsed: Float | None = None,
    ) -> None:  # fmt: skip
        """One executed decision: arrays (E, N, O), (E, N) and (E,) as the learner's own ``record`` takes them."""
        self._discounts.append(discounts(self.gamma, durations(elapsed, len(option))))
        self._scores.append(trust_score(log_prior, bias, allowed, option))
        self._rewards.append(np.array(reward, dtype=float))
        self._live.append(np.array(live, dtype=bool))

    def update(self) -> float:
        """One step on what was recorded; returns the gradient in d reward / d log trust."""
        if not self._scores:
            return 0.0
        reward, live, score = np.stack(self._rewards), np.stack(self._live), np.stack(self._scores)
        discount = np.stack(self._discounts)[..., None]
        self._scores, self._rewards, self._live, self._discounts = [], [], [], []
        for t in range(len(reward) - 2, -1, -1):
            reward[t] += discount[t] * reward[t + 1]
        advantage = reward - reward.mean(axis=(1, 2), keepdims=True)
        gradient = float((advantage * score)[live].mean()) if live.any() else 0.0
        self.step(gradient)
        return gradient

    def step(self, gradient: float) -> None:
        """Move log trust along a gradient by at most ``rate`` (Adam without momentum).

        Raises:
            FloatingPointError: the gradient is not finite; trust is left as it was.
        """
        if not np.isfinite(gradient):
            raise FloatingPointError(f"the gradient of log trust is {gradient}; trust stays at {self.trust}")
        self._size = 0.9 * self._size + 0.1 * gradient**2
        self._seen = 0.9 * self._seen + 0.1
        move = self.rate * np.clip(gradient / (np.sqrt(self._size / self._seen) + 1e-12), -1, 1)
        self.trust = float(np.clip(self.trust * np.exp(move), self.lowest, self.highest))

    def state_dict(self) -> dict[str, Any]:
        """All of it, slots not yet learned from included."""
        lists = {
            "scores": list(self._scores), "rewards": list(self._rewards), "live": list(self._live),
            "discounts": list(self._discounts),
        }  # fmt: skip
        return {"trust": self.trust, "size": self._size, "seen": self._seen} | lists

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.trust, self._size, self._seen = state["trust"], state["size"], state["seen"]
        self._scores, self._rewards, self._live, self._discounts = (
            list(state[k]) for k in ("scores", "rewards", "live", "discounts")
        )


def trust_score(log_prior: Float, bias: Float, allowed: Bool, option: Int) -> NDArray[np.float64]:
    """(E, N) d log sigma(option) / d log trust of what was executed."""
    bias = np.where(allowed, bias, 0.0)
    sigma = mixed_strategy(log_prior + bias, allowed)
    taken = np.take_along_axis(bias, option[..., None], -1)[..., 0]
    return np.asarray(taken - (sigma * bias).sum(axis=-1))
