"""The next rollout is collected while the last is learned from, in a thread of its own.

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
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from hybridalloc.errors import WorkError
from rl.learner import Learner
from rl.on_policy import Following, OnPolicy
from rl.proposal import Observation


class Ahead:
    """One learner's updates, each in a thread until the next is due.

    Raises:
        ValueError: a learner whose actor or critics are read while a rollout is collected.
    """

    def __init__(self, learner: Learner) -> None:
        if not isinstance(learner, OnPolicy) or not learner.overlaps or learner.engine != "compiled":
            raise ValueError(
                f"{learner.name} as it is set cannot learn while it acts: its networks are read in both; "
                "leave overlap out (mappo, imappo, ippo, ppo and a2c have it, without memory and continuous heads)"
            )
        self.learner: OnPolicy = learner
        learner.lags = True
        self._pool = ThreadPoolExecutor(1, "learner")
        self._running: Future[dict[str, float]] | None = None
        self._told: dict[str, float] | None = None  # of an update that is done and not told yet

    def turn(self, last: Observation, progress: float) -> dict[str, float] | None:
        """The rollout is full: act by what the last update left, and learn from it. What that update said; None first.

        Raises:
            FloatingPointError: a gradient of that update was not finite. WorkError: the update before failed otherwise.
        """
        told = self.finish()
        slots, following = self.learner.take(), self.learner.following(last)
        self._running = self._pool.submit(self._learn, slots, following, progress)
        return told

    def _learn(self, slots: list[dict[str, Any]], following: Following, progress: float) -> dict[str, float]:
        return self.learner.learn(self.learner.batch_of(slots, following), progress)

    def settle(self) -> None:
        """Wait until nothing is being learned; whoever acts stays who it is."""
        if self._running is not None:
            running, self._running = self._running, None
            try:
                self._told = running.result()
            except FloatingPointError:
                raise
            except Exception as error:
                reason = f"{type(error).__name__}: {error}"
                raise WorkError(f"the learner's thread ended ({reason})") from error

    def finish(self) -> dict[str, float] | None:
        """Wait, and act by what was learned. What the update said; None where there was none."""
        self.settle()
        told, self._told = self._told, None
        if told is not None:
            self.learner.policy = self.learner.export()
        return told

    def state_dict(self) -> dict[str, Any]:
        """What was said and is not told yet."""
        self.settle()
        return {"told": self._told}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        told = state["told"]
        self._told = None if told is None else {str(k): float(v) for k, v in told.items()}
