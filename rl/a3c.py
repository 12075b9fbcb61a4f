r"""A3C: asynchronous advantage actor-critic; workers that act on stale copies and share one set of weights.

Each of W workers has some of the networks, acts on its own copy theta' of the shared weights theta, and when its
rollout is full adds its gradient, taken at theta', to theta through the shared RMSProp, then copies theta anew. By
then the other workers have moved theta W - 1 times: that staleness is what is asynchronous about A3C.

The environments of a batch step together, so the workers' rollouts end in turn, evenly staggered, in place of
threads that race: the interleaving is fixed, and training is a function of the seed for any W. W = 1 is A2C, to
the last bit.

Source: Mnih et al. (2016), "Asynchronous methods for deep reinforcement learning".
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rl.a2c import A2c, A2cConfig
from rl.elapsed import durations, ends
from rl.learner import Executed
from rl.networks import Sizes
from rl.on_policy import Batch, copied
from rl.policy import ArrayPolicy
from rl.proposal import Observation, Proposal


@dataclass(frozen=True)
class A3cConfig(A2cConfig):
    """Settings of A3C: A2C's, and the number of workers."""

    workers: int = 4


class Applied:
    """An optimizer of the shared weights that takes its gradient from a worker's copy."""

    def __init__(self, copy: nn.Module, shared: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        self.copy, self.shared, self.optimizer = copy, shared, optimizer

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        return self.optimizer.param_groups  # a new list once the optimizer has loaded its state

    def zero_grad(self) -> None:
        self.copy.zero_grad()

    def step(self) -> None:
        for theta, own in zip(self.shared.parameters(), self.copy.parameters(), strict=True):
            theta.grad = own.grad
        self.optimizer.step()


class Worker(A2c):
    """One worker: A2C whose steps go to the shared weights."""

    def __init__(self, sizes: Sizes, config: A3cConfig, shared: A3c, first: int) -> None:
        super().__init__(sizes, config)
        self.shared = shared
        self.due = first  # slots of its present rollout
        self.norm = shared.norm
        applied: Any = Applied(self.actor, shared.actor, shared.actor_optimizer)
        self.actor_optimizer = applied
        applied = Applied(self.critic, shared.critic, shared.critic_optimizer)
        self.critic_optimizer = applied
        self.fetch()

    def fetch(self) -> None:
        """theta' <- theta."""
        self.actor.load_state_dict(self.shared.actor.state_dict())
        self.critic.load_state_dict(self.shared.critic.state_dict())
        self.policy = ArrayPolicy(self.actor.export(), self.name)

    def ready(self, final: bool = False) -> bool:
        return self.full(1 if final else self.due)

    def kl(self, batch: Batch, part: Tensor) -> float:
        """Of the shared weights, which the step moved; the copy follows."""
        own, self.actor = self.actor, self.shared.actor
        try:
            return super().kl(batch, part)
        finally:
            self.actor = own


class A3c(A2c):
    """The learner; ``policy`` is the shared actor as arrays, refreshed at each update."""

    name = "a3c"

    overlaps = False

    def __init__(self, sizes: Sizes, config: A3cConfig | None = None, seed: int = 0) -> None:
        c = config or A3cConfig()
        super().__init__(sizes, c, seed)
        firsts = [max(c.horizon * (w + 1) // c.workers, 1) for w in range(c.workers)]
        self.workers = [Worker(sizes, c, self, first) for first in firsts]

    def shares(self, networks: int) -> Iterator[tuple[Worker, slice]]:
        """Each worker that has networks, and which of the E they are."""
        for w, worker in enumerate(self.workers[:networks]):
            yield worker, slice(w, None, len(self.workers))

    def propose(self, observation: Observation) -> Proposal:
        out = np.zeros(observation.allowed.shape)
        for worker, part in self.shares(len(out)):
            out[part] = worker.propose(portion(observation, part)).log_prior
        return Proposal(out)

    def record(self, done: Executed) -> None:
        """One executed decision of E networks; see :meth:`rl.learner.Learner.record`."""
        e = len(done.option)
        lasted, ended = durations(done.elapsed, e), ends(done.terminated, e)
        for worker, part in self.shares(e):
            worker.record(Executed(
                portion(done.observation, part), done.option[part], done.log_prior[part], done.bias[part],
                done.reward[part], done.carried[part], done.truncated[part],
                None if done.final is None else portion(done.final, part), lasted[part], ended[part],
                None if done.left is None else done.left[part],
            ))  # fmt: skip

    def ready(self, final: bool = False) -> bool:
        return any(worker.ready(final) for worker in self.workers)

    def update(self, last: Observation, progress: float) -> dict[str, float]:
        """The gradient of every worker whose rollout is full, in turn; where none is, of all that have begun one."""
        logs: list[dict[str, float]] = []
        short = not self.ready()
        for worker, part in self.shares(len(last.live)):
            if worker.ready(short):
                logs.append(worker.update(portion(last, part), progress))
                worker.due = self.config.horizon
                worker.fetch()
        names = dict.fromkeys(k for row in logs for k in row)
        figures = self.finish({k: [row[k] for row in logs if k in row] for k in names})
        self.policy = self.export()
        return figures

    def state_dict(self) -> dict[str, Any]:
        """The shared weights, and each worker's copy and unfinished rollout."""
        workers = [
            {
                "actor": w.actor.state_dict(), "critic": w.critic.state_dict(), "due": w.due,
                "slots": [dict(s) for s in w.slots], "held": w.held, "late": w.late,
            }
            for w in self.workers
        ]  # fmt: skip
        return super().state_dict() | {"workers": workers}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        for worker, kept in zip(self.workers, state["workers"], strict=True):
            worker.actor.load_state_dict(kept["actor"])
            worker.critic.load_state_dict(kept["critic"])
            worker.due, worker.held, worker.late = kept["due"], kept["held"], kept["late"]
            worker.slots = [copied(s) for s in kept["slots"]]
            worker.policy = ArrayPolicy(worker.actor.export(), self.name)


def portion(observation: Observation, part: slice) -> Observation:
    """The networks in ``part``."""
    o = observation
    return Observation(o.agent[part], o.resource[part], o.pair[part], o.live[part], o.allowed[part], o.resource_of)
