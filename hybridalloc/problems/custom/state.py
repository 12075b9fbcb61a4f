"""One step of a ``custom`` problem: agents, resources and what they cost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from games.congestion import Float, Int
from games.errors import InvalidStateError
from hybridalloc.problems.state import State, array, name_list

NO_DEADLINE = 1e9  # s: this or more is none
NO_LIMIT = 1e9  # W
OUT = "opt out"  # the name of option 0
SHORTEST = 1e-100  # s: a deadline below counts as this much where costs are made of it, so that they stay finite
MISSED, UNSERVED = 2.0, 1e6  # default cost of opting out with and without a deadline; a missed deadline costs 1


class CustomPrices(NamedTuple):
    """What the game charges beside the agents' own costs."""

    toll: float = 1.0
    miss: float = 1.0  # a certain miss, before any load
    risk: float = 1.0  # how much longer than stated the work is taken to be when misses are judged
    margin: float = 1.0  # of the deadline that floors aim at
    opt_out: float = 1.0  # how much dearer than stated opting out is


@dataclass(frozen=True)
class CustomState(State):
    """One step's agents and resources. N agents, R resources, O options (0 opts out), F features of one's own.

    Attributes:
        work: (N, R) units of work an agent has for each resource. capacity: (R,) units a second; 0: the resource is
            down, and nobody is put on an option that uses it.
        deadline_s: (N,) default none. delay_cost: (N,) cost of a second, default 1 / deadline_s; without a deadline
            that of the most patient agent that has one, or 1 where none has.
        private_cost: (N, O) cost of each option whatever the others do, default 0. opt_out_cost: (N,) added for
            option 0; default 2 (a full deadline of delay and a miss), without a deadline 1e6, and 0 where
            ``private_cost`` is given.
        allowed: (N, O). priority: (N,) who is admitted first, highest first. wait_s: (R,) before work begins.
        full_power_w: (N, R) what an agent draws at a full share. power_limit_w: (N,).
        features: (N, F) anything of order one that a recommender should see.
        active: (N,) False for an agent that sits this step out.
        previous: (N,) the option that an agent had in the step before, -1 where it is new; 0 is to have had none.
            moving_cost: (N,) or one number for all, charged for every option but the previous one (opting out too: who
            is stopped loses its place), where there was one. Where that is down, all options cost it alike.
        names: N strings. hidden: what only the transition reads, a mapping that JSON holds.
    """

    work: Float = array("N R", "units", low=0)
    capacity: Float = array("R", "units/s", low=0)
    deadline_s: Float = array("N", "s", above=0, fill=NO_DEADLINE)
    delay_cost: Float = array("N", "1/s", low=0, fill=0)
    private_cost: Float = array("N O", fill=0)
    opt_out_cost: Float = array("N", fill=0)
    allowed: NDArray[np.bool_] = array("N O", dtype=bool, fill=1)
    priority: Float = array("N", fill=0)
    wait_s: Float = array("R", "s", low=0, fill=0)
    full_power_w: Float = array("N R", "W", low=0, fill=0)
    power_limit_w: Float = array("N", "W", above=0, fill=NO_LIMIT)
    features: Float = array("N F", fill=0)
    active: NDArray[np.bool_] = array("N", dtype=bool, fill=1)
    previous: Int = array("N", dtype=int, low=-1, fill=-1)
    moving_cost: Float = array("N", low=0, fill=0)
    names: tuple[str, ...] | None = None
    hidden: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        given = {name: getattr(self, name) is not None for name in ("delay_cost", "opt_out_cost", "private_cost")}
        if isinstance(self.moving_cost, int | float) and isinstance(self.work, np.ndarray | list | tuple):
            object.__setattr__(self, "moving_cost", np.full(len(self.work), self.moving_cost))
        super().__post_init__()
        timed = self.deadline_s < NO_DEADLINE
        if not given["delay_cost"]:
            object.__setattr__(self, "delay_cost", default_delay_cost(self.deadline_s))
        if not (given["opt_out_cost"] or given["private_cost"]):
            object.__setattr__(self, "opt_out_cost", np.where(timed, MISSED, UNSERVED))

    def validate(self) -> None:
        n = self.agents
        if not len(self.capacity):
            raise InvalidStateError("capacity is empty; at least one resource is needed")
        if self.private_cost.size and self.allowed.size and not self.allowed[:, 0].all():
            i = int(np.argmin(self.allowed[:, 0]))
            raise InvalidStateError(
                f"allowed[{i}, 0] = False; option 0 (opting out) is always allowed: price it instead"
            )
        if self.names is not None:
            object.__setattr__(self, "names", name_list("names", self.names))
            if len(self.names) != n:
                raise InvalidStateError(f"names has {len(self.names)} entries; work has {n} agents")
        if self.hidden is not None and not isinstance(self.hidden, Mapping):
            raise InvalidStateError(f"hidden is an object with named fields; got {type(self.hidden).__name__}")

    @property
    def agents(self) -> int:
        return len(self.work)

    def label(self, agent: int) -> str:
        """The agent's name, or "agent 3"."""
        return self.names[agent] if self.names else f"agent {agent}"


def default_delay_cost(deadline_s: Float) -> Float:
    """(N,) cost of a second: 1 a deadline; who has none counts as the most patient of those who do."""
    timed = deadline_s < NO_DEADLINE
    longest = deadline_s[timed].max(initial=0.0) or 1.0
    return np.asarray(1 / np.maximum(np.where(timed, deadline_s, longest), SHORTEST))


def as_state(given: Any) -> CustomState:
    """What a transition's reset or advance gave, as a state."""
    if isinstance(given, CustomState):
        return given
    if isinstance(given, Mapping):
        return CustomState.from_dict(given)
    raise InvalidStateError(
        f"a transition's state is a CustomState or a mapping of its fields; got {type(given).__name__}"
    )
