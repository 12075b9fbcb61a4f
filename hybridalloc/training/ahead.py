"""The next rollout is collected while another process (:mod:`hybridalloc.training.apart`) learns from the last.

Whoever acts is one update behind whoever learns: the rollout k + 1 is collected by the policy after update k - 1,
whatever the machine does, so that a run is the same on any. What was executed keeps its own density; what the update
between has changed is corrected by truncated importance weights, in the advantages, the values' targets and the gain,
and the ratio is clipped about the policy that the update starts from (:mod:`rl.recall`). PPO of all agents as one keeps
its ratio to who acted, as the weight of a joint action is next to nothing.

Sources: Espeholt et al. (2018), "IMPALA", for actors that lag behind the learner, and V-trace; Hilton et al. (2022),
"Batch size invariance for policy optimization", for a ratio about another policy than the one that acted.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hybridalloc.training.apart import Apart
from rl.learner import Learner
from rl.on_policy import OnPolicy
from rl.policy import ArrayPolicy
from rl.proposal import Observation


def check_ahead(learner: Learner) -> OnPolicy:
    """The learner, if it can learn while it acts.

    Raises:
        ValueError: more of it than the policy is read while a rollout is collected.
    """
    if not isinstance(learner, OnPolicy) or not learner.overlaps:
        raise ValueError(
            f"{learner.name} as it is set cannot learn while it acts: its networks are read in both; "
            "leave overlap out (mappo, imappo, ippo, ppo and a2c have it, without memory and continuous heads, "
            "on device 'cpu')"
        )
    return learner


class Ahead:
    """One learner's updates, each in another process until the next is due.

    Raises:
        ValueError: a learner of which more than the policy is read while a rollout is collected.
    """

    def __init__(self, learner: Learner) -> None:
        self.learner = check_ahead(learner)
        self.learner.lags = True
        self.apart = Apart(self.learner)
        self._running = False
        self._told: dict[str, float] | None = None  # of an update that is done and not told yet
        self._after: ArrayPolicy | None = None  # who acts from then on

    def turn(self, last: Observation, progress: float) -> dict[str, float] | None:
        """The rollout is full: act by what the last update left, and learn from it. What that update said; None first.

        Raises:
            FloatingPointError: a gradient of that update was not finite. WorkError: the process ended, or the update
                did, otherwise.
        """
        slots, following = self.learner.take(), self.learner.following(last)
        put = self.apart.put(slots, following)
        told = self._tell()
        self.apart.learn(put, following, progress)
        self._running = True
        return told

    def settle(self) -> None:
        """Wait until nothing is being learned, and have it here; whoever acts stays who it is."""
        self._wait()
        self.apart.fetch()

    def finish(self) -> dict[str, float] | None:
        """Wait, have it here, and act by what was learned. What the update said; None where there was none."""
        self.settle()
        return self._tell()

    def close(self) -> None:
        """End the process; what it has learned since the last :meth:`settle` is lost."""
        self.apart.close()

    def _wait(self) -> None:
        if self._running:
            self._running = False
            self._told, weights = self.apart.learned()
            self._after = ArrayPolicy(weights, self.learner.name)

    def _tell(self) -> dict[str, float] | None:
        self._wait()
        told, self._told = self._told, None
        if told is not None:
            self.learner.policy, self._after = self._after or self.learner.export(), None
        return told

    def state_dict(self) -> dict[str, Any]:
        """What was said and is not told yet."""
        self.settle()
        return {"told": self._told}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        told = state["told"]
        self._told = None if told is None else {str(k): float(v) for k, v in told.items()}
