"""What a dispatcher sees when requests wait at it, and (``truth``) what the replicas truly are at."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from games.congestion import Bool, Float, Int
from games.errors import InvalidStateError
from hybridalloc.problems.state import State, array, echo, whole_number

RUNS, JOINS, QUEUES = range(3)  # stages of a request at a replica
MOST = 10_000  # dispatchers


@dataclass(frozen=True)
class BalancerTruth(State):
    """The replicas as they are, and the M requests at them in the order of each one's seats and queue.

    Attributes:
        output: of those that wait to be sent. slow: times as long as its constants say. began_s, ends_s: of the
            iteration in progress, ends_s < 0 where there is none. news_s: when dispatchers will hear that it is up or
        down, < 0: they know. place, stage: replica and stage of each request there. made, left: tokens, and prompt
            tokens still to do, < 0 where it is not admitted. thought, cached: prompt tokens that were thought to be
            cached when it was sent, and that are.
        owner: its dispatcher. came_s, first_s: when it came, and its first token, < 0 before.
    """

    output: Int = array("N", "token", dtype=int, low=0)
    up: Bool = array("R", dtype=bool)
    slow: Float = array("R", above=0)
    began_s: Float = array("R", "s")
    ends_s: Float = array("R", "s")
    iteration_s: Float = array("R", "s", low=0)
    news_s: Float = array("R", "s")
    place: Int = array("M", dtype=int, low=0)
    stage: Int = array("M", dtype=int, low=0, high=QUEUES)
    prompt: Float = array("M", "token", low=1)
    length: Int = array("M", "token", dtype=int, low=1)
    made: Float = array("M", "token", low=0)
    left: Float = array("M", "token")
    thought: Float = array("M", "token", low=0)
    cached: Float = array("M", "token", low=0)
    owner: Int = array("M", dtype=int, low=0)
    came_s: Float = array("M", "s")
    first_s: Float = array("M", "s")


@dataclass(frozen=True)
class BalancerState(State):
    """N places for requests that wait at one dispatcher, R replicas.

    Attributes:
        prompt, waited_s: of each request. hit: prompt tokens that are cached at each replica, as far as is known.
        share: of the fleet's capacity. kv: tokens that fit into its memory. base_s: least time of an iteration.
        replica: a number by which each is known; each once. up: as far as is known.
        age_s: of the last report of each, and what it told: requests that waited and ran, tokens in KV memory, prompt
            tokens that waited, the running mean of the time of iterations without prompts.
        own_...: requests of this dispatcher in flight there now: how many, their prompt tokens before the first token,
            their prompts after it, how many had none yet. then_...: the same when the report was taken.
        usual: part of all that others have which is at each replica, as a rule, by its share where it is not told: of
            requests, waiting tokens, tokens in KV memory. kept, alike: what this dispatcher learned of requests and of
            tokens: how much of a report is left after ``lag_s``, and how much the others do as it does. speed: how much
            slower than nominal each replica is.
        coin: uniform numbers, for mixed choices. dispatchers: how many there are. gap_s: between two requests here.
        mean_prompt: tokens. time_s: now.
    """

    prompt: Float = array("N", "token", low=0)
    share: Float = array("R", above=0)
    own_requests: Float = array("R", low=0, fill=0)
    own_tokens: Float = array("R", "token", low=0, fill=0)
    own_kv: Float = array("R", "token", low=0, fill=0)
    own_waiting: Float = array("R", low=0, fill=0)
    age_s: Float = array("R", "s", low=0, fill=0)
    told_waiting: Float = array("R", low=0, fill=0)
    told_running: Float = array("R", low=0, fill=0)
    told_kv: Float = array("R", "token", low=0, fill=0)
    told_tokens: Float = array("R", "token", low=0, fill=0)
    told_iteration_s: Float = array("R", "s", low=0, fill=0.03)
    then_requests: Float = array("R", low=0, fill=0)
    then_tokens: Float = array("R", "token", low=0, fill=0)
    then_kv: Float = array("R", "token", low=0, fill=0)
    then_waiting: Float = array("R", low=0, fill=0)
    kv: Float = array("R", "token", above=0, fill=100_000)
    base_s: Float = array("R", "s", above=0, fill=0.03)
    up: Bool = array("R", dtype=bool, fill=1)
    replica: Int = array("R", dtype=int, low=-1, fill=-1)
    active: Bool = array("N", dtype=bool, fill=1)
    waited_s: Float = array("N", "s", low=0, fill=0)
    hit: Float = array("N R", "token", low=0, fill=0)
    coin: Float = array("N R", low=0, high=1, fill=0.5)
    kept: Float = array("2", low=0, high=1, fill=0.5)
    usual: Float = array("R 3", low=0, fill=0)
    alike: Float = array("2", low=0, high=1, fill=0.5)
    speed: Float = array("R", above=0, fill=1)
    lag_s: float = 0.0
    dispatchers: int = 1
    gap_s: float = 0.1
    mean_prompt: float = 1000.0
    time_s: float = 0.0
    truth: BalancerTruth | None = field(default=None, metadata={"nested": BalancerTruth})

    same_size: ClassVar[dict[str, str]] = {}

    def validate(self) -> None:
        bad = self.active & (self.prompt < 1)
        for i in np.flatnonzero(bad)[:1]:
            raise InvalidStateError(f"prompt[{i}] = {self.prompt[i]}; a request that waits has at least 1 token")
        beyond = self.active[:, None] & (self.hit > np.maximum(self.prompt - 1, 0)[:, None])
        for i, r in np.argwhere(beyond)[:1]:
            raise InvalidStateError(
                f"hit[{i}, {r}] = {self.hit[i, r]}; of {self.prompt[i]:g} prompt tokens the last is always computed"
            )
        if not self.usual.any():
            object.__setattr__(self, "usual", np.repeat((self.share / self.share.sum())[:, None], 3, axis=1))
        named = self.replica[self.replica >= 0]
        if len(named) not in (0, len(self.replica)):
            r = int(np.argmin(self.replica))
            raise InvalidStateError(f"replica[{r}] = {self.replica[r]}; give every replica a number, or none")
        for r in range(len(named)):
            if self.replica[r] in self.replica[:r]:
                first = int(np.argmax(self.replica == self.replica[r]))
                raise InvalidStateError(
                    f"replica[{r}] = {self.replica[r]} appears twice, at [{first}] too; report each replica once"
                )
        for name in ("lag_s", "gap_s", "mean_prompt", "time_s"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float | np.floating) or not 0 <= value < np.inf:
                raise InvalidStateError(f"{name} = {echo(value)}; it must be a finite number >= 0")
            object.__setattr__(self, name, float(value))
        object.__setattr__(self, "dispatchers", whole_number("dispatchers", self.dispatchers, 1, MOST))
        if self.truth is not None:
            if not isinstance(self.truth, BalancerTruth):
                raise InvalidStateError(f"truth is an object with named fields; got {type(self.truth).__name__}")
            for name, size in (("output", len(self.prompt)), ("up", len(self.share))):
                if len(getattr(self.truth, name)) != size:
                    raise InvalidStateError(
                        f"truth.{name} has {len(getattr(self.truth, name))} entries; this state needs {size}"
                    )
            for name, most in (("place", len(self.share)), ("owner", self.dispatchers)):
                value = getattr(self.truth, name)
                for m in np.flatnonzero(value >= most)[:1]:
                    raise InvalidStateError(f"truth.{name}[{m}] = {value[m]}; it must be from 0 to {most - 1}")
