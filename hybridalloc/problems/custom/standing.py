"""E states of a custom problem as arrays: where they start, who is there, what an agent takes by itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import numpy as np

from games.congestion import Bool, Float, Int
from games.errors import InvalidStateError
from hybridalloc.problems.custom.padding import padded, rows_of
from hybridalloc.problems.custom.plan import CustomPlan
from hybridalloc.problems.custom.setting import CustomSetting
from hybridalloc.problems.custom.state import NO_DEADLINE, CustomState, as_state
from hybridalloc.problems.slots import SlotWorld

STEEPNESS = 12.0  # of the smooth deadline: .5 at the deadline, .95 a quarter late
ARRAYS = tuple(
    name for name, f in CustomState.__dataclass_fields__.items() if "spec" in f.metadata
)  # in the order of the state


class CustomStates(SlotWorld):
    """E states side by side.

    Attributes:
        told: the states, of the jobs that are there, as a transition gives them. states: what is decided on, in rows
            where jobs come and go. at: their arrays, (E, ...). rows: (O, S) resources of each option, -1 for none.
    """

    def __init__(
        self, problem: CustomSetting, states: Sequence[CustomState], rngs: list[np.random.Generator],
        rows: list[Int] | None = None,
    ) -> None:  # fmt: skip
        """``rows``: of each world's jobs, where they come and go, see :mod:`.padding`; None where they do not."""
        self.problem, self.rngs = problem, rngs
        none = np.full((1, problem.options.shape[1]), -1)
        self.rows = np.ascontiguousarray(np.concatenate([none, problem.options]), np.int64)
        super().__init__(len(states), problem.episode)
        self.told = [fitting(problem, state) for state in states]  # by the transition: of the jobs that are there
        self.job_rows = rows
        self.states = self.told  # what is decided on
        self.executed: CustomPlan | None = None  # in this step
        self._stack()

    @classmethod
    def fresh(cls, problem: CustomSetting, seeds: Sequence[int]) -> Self:
        world = problem.simulator()
        states = [problem.start if world is None else as_state(world.reset(int(s))) for s in seeds]
        rows = [rows_of(state, problem.most) for state in states] if problem.most else None
        return cls(problem, states, [np.random.default_rng([int(s), 1]) for s in seeds], rows)

    @classmethod
    def of_state(cls, problem: CustomSetting, state: CustomState) -> Self:
        """One world that stands at ``state``."""
        return cls(problem, [state], [np.random.default_rng(0)])

    def _stack(self) -> None:
        """The states' arrays as (E, ...): who is down is allowed nowhere, and leaving what was held is charged."""
        first = self.told[0].work.shape
        if self.job_rows is not None:
            most, wide = self.problem.most, self.problem.start.features.shape[1]
            self.states = [padded(state, row, most, wide) for state, row in zip(self.told, self.job_rows, strict=True)]
        else:
            self.states = self.told
            for e, state in enumerate(self.states):
                if state.work.shape != first:
                    raise InvalidStateError(
                        f"world {e} has work of shape {state.work.shape}, world 0 {first}; where the number of jobs "
                        f"varies give make_problem('custom', ..., most_jobs={max(len(s.work) for s in self.told)}) or "
                        "more"
                    )
        self.at = {name: np.stack([getattr(s, name) for s in self.states]) for name in ARRAYS}
        e, n, o = *self.at["active"].shape, len(self.rows)
        if self.at["private_cost"].shape[2] != o:
            self.at["private_cost"] = np.zeros((e, n, o))
        if self.at["allowed"].shape[2] != o:
            self.at["allowed"] = np.ones((e, n, o), bool)
        self.at["private_cost"] = self.at["private_cost"].copy()
        self.at["private_cost"][..., 0] += self.at["opt_out_cost"]
        up: Bool = self.at["capacity"] > 0
        if not up.all():
            down: Bool = np.asarray((~up[:, np.maximum(self.rows, 0)] & (self.rows >= 0)).any(-1))
            self.at["allowed"] = self.at["allowed"] & ~down[:, None]
            self.at["capacity"] = np.where(up, self.at["capacity"], 1.0)  # of what nobody is put on
        ran = (self.at["previous"] > 0) & (self.at["moving_cost"] > 0)
        if ran.any():
            others = ran[..., None] & (np.arange(o) != self.at["previous"][..., None])
            self.at["private_cost"] += np.where(others, self.at["moving_cost"][..., None], 0.0)
        self.at["stay"] = np.where(ran, self.at["previous"], 0)

    @property
    def active(self) -> Bool:
        """(E, N) who does not sit this step out."""
        return np.asarray(self.at["active"])

    def state(self, e: int) -> CustomState:
        """World ``e`` as a state of its own, in rows where jobs come and go."""
        return self.states[e]

    def priority(self) -> Float:
        """(E, N) as the state gives it."""
        return np.asarray(self.at["priority"])

    def alone(self) -> tuple[Float, Float]:
        """(E, N, O) s of waiting and of work if an agent had the option's resources to itself."""
        wait = np.zeros(self.at["allowed"].shape)
        work = np.zeros(self.at["allowed"].shape)
        for s in range(self.rows.shape[1]):
            used = self.rows[:, s] >= 0
            r = self.rows[used, s]
            own = self.at["work"][:, :, r]
            wait[:, :, used] += np.where(own > 0, self.at["wait_s"][:, None, r], 0.0)
            work[:, :, used] += own / self.at["capacity"][:, None, r]
        return wait, work

    def reseed(self, seeds: Sequence[int]) -> None:
        """Draw from fresh streams from now on."""
        self.rngs = [np.random.default_rng(int(seed)) for seed in seeds]


def fitting(problem: CustomSetting, state: CustomState) -> CustomState:
    """The state, if it has the problem's resources and options."""
    r, o = len(problem.resources), len(problem.options) + 1
    if state.agents and state.previous.max(initial=-1) >= o:
        i = int(state.previous.argmax())
        raise InvalidStateError(f"previous[{i}] = {state.previous[i]}; an option is -1 (new) or 0 to {o - 1}")
    if len(state.capacity) != r:
        raise InvalidStateError(f"capacity has {len(state.capacity)} entries; this problem has {r} resources")
    for name in ("private_cost", "allowed"):
        wide = getattr(state, name).shape[1] if state.agents else 0
        if wide and wide != o:
            raise InvalidStateError(f"{name} has {wide} options; this problem has {o}, opting out first")
    if state.features.shape[1] != problem.start.features.shape[1] and state.agents:
        f, known = state.features.shape[1], problem.start.features.shape[1]
        raise InvalidStateError(f"features has {f} columns; this problem's states have {known}")
    return state


def lateness(time: Float, deadline: Float) -> Float:
    """How late: 0 to 1, smooth in time over deadline; 0 where there is no deadline."""
    z = np.clip(STEEPNESS * (time / deadline - 1), -30, 30)
    return np.asarray(np.where(deadline < NO_DEADLINE, 1 / (1 + np.exp(-z)), 0.0))
