"""Other states of ``mec``: what reports reveal a slot later, nobody served, and what may be turned to admit a device.

Everything here is built from what the operator is told; ``truth`` is never read.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from coordinator.tables import enough
from hybridalloc.problems.contract import Knob
from hybridalloc.problems.knobs import Admitting, changed, ranks_above, words
from hybridalloc.problems.mec.arrays import Plan, Prices
from hybridalloc.problems.mec.setting import MecSetting
from hybridalloc.problems.mec.state import MecState


class WhatIf(MecSetting, Admitting[MecState, Plan, Prices]):
    """Half of the problem."""

    gentle = False  # nobody is moved to make room, so which of two equals has a place is a matter of chance

    def revealed(self, state: Any, following: Any) -> Any:
        """The state as the next one's reports show it to have been: channel and queues, where reports are stale."""
        if not self.scenario.dynamics.staleness:
            return replace(state, truth=None)
        if following.reported_gain_db.shape != state.reported_gain_db.shape:
            raise ValueError(
                f"the next state has gains of shape {following.reported_gain_db.shape}, this one of "
                f"{state.reported_gain_db.shape}; feedback needs the same devices and servers"
            )
        return replace(
            state, truth=None, reported_gain_db=following.reported_gain_db, queue_s=following.queue_s,
            air_queue_s=following.air_queue_s,
        )  # fmt: skip

    def idle(self, state: Any) -> dict[str, Any]:
        """Everyone opts out, as the fields of an allocation: on the device what it can finish, nothing sent."""
        zero = np.zeros(state.agents)
        local_s = state.task_cycles / state.device_hz
        local_j = self.physics.kappa * state.device_hz**2 * state.task_cycles
        paid = ~np.bool_(self.physics.batteries) | (local_j <= state.battery_j)
        bands = state.reported_gain_db.shape[1]
        return {
            "option": zero.astype(np.int64), "shares": {"air": zero, "cpu": zero}, "power": zero, "fraction": zero,
            "served": ~state.active | ((local_s <= state.deadline_s) & paid),
            "prices": {"air": np.zeros(bands), "cpu": np.zeros(len(state.server_hz))},
            "held": np.zeros(state.agents, bool), "floors": {"air": zero, "cpu": zero},
        }  # fmt: skip

    def knobs(self, state: MecState, allocation: Any, agent: int, prices: Prices) -> list[Knob[MecState]]:
        """A later deadline, less work, a faster server, a higher service class; the first three as factors.

        The server is the one that the device has; where it has none and places were given, of those it reaches the
        one that has to be made faster the least.
        """
        told = replace(state, truth=None)
        option, own, bits = int(allocation.option[agent]), float(state.sla[agent]), float(state.task_bits[agent])

        def times(factor: float, at: int, *names: str) -> MecState:
            values = {name: getattr(state, name) for name in names}
            return replace(told, **{name: changed(value, at, value[at] * factor) for name, value in values.items()})

        def larger(name: str, at: int, what: str, unit: str) -> Knob[MecState]:
            now, turned = float(getattr(state, name)[at]), lambda factor: times(factor, at, name)
            said = words(f"{what} {{}} {unit} instead of {{}}", now)
            return Knob(name, 1.0, turned, said, told=lambda factor: now * factor, rivals=name)

        less = Knob(
            "work", 1.0, lambda factor: times(1.0 / factor, agent, "task_bits", "task_cycles"),
            lambda needed: f"{enough(100 * needed / bits, 100.0, 3)[0]} % of its bits and cycles",
            told=lambda factor: bits / factor,
        )  # fmt: skip
        per = max(state.reported_gain_db.shape[1] // max(len(state.server_hz), 1), 1)
        reached = np.flatnonzero(state.reachable[agent]).tolist() if allocation.seated else []
        servers = [(option - 1) // per] if 0 < option <= state.reported_gain_db.shape[1] else reached
        higher = self._classes_above(told, agent) if allocation.seated else [1.0] * (own < 1)
        promoted = lambda sla: replace(told, sla=changed(state.sla, agent, sla))
        return [
            larger("deadline_s", agent, "a deadline", "s"), less,
            *(larger("server_hz", k, f"server {k} at", "Hz") for k in servers),
            Knob("sla", own, promoted, words("service class {} instead of {}", own), values=higher),
        ]  # fmt: skip

    def _classes_above(self, state: MecState, agent: int) -> list[float]:
        """Service classes above the device's own, ascending, one for each class of admission that it could be in."""
        gap = self.scenario.priority_gap
        own, weight = float(state.sla[agent]), float(self.scenario.priority[2])
        others = np.delete(state.sla, agent)[np.delete(state.active, agent)]
        if gap is None:
            return ranks_above(own, others, 0.0, 1.0)
        if weight <= 0:
            return []
        score = self.world_at(state).priority()[0]
        rivals = np.delete(score, agent)[np.delete(state.active, agent)]
        found = ranks_above(float(score[agent]), rivals, gap, float(score[agent]) + weight * (1.0 - own))
        return [min(own + (p - float(score[agent])) / weight, 1.0) for p in found]
