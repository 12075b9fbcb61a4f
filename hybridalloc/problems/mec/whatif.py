"""Other states of ``mec``: what reports reveal a slot later, nobody served, and what would admit a device.

Everything here is built from what the operator is told; ``truth`` is never read.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from coordinator.tables import enough
from hybridalloc.problems.knobs import Again, first, least, ranks_above


class WhatIf:
    """Mixed into the problem."""

    def revealed(self, state: Any, following: Any) -> Any:
        """The state as the next one's reports show it to have been: channel and queues, where reports are stale."""
        if not self.scenario.dynamics.staleness:  # type: ignore[attr-defined]
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
        local_j = self.physics.kappa * state.device_hz**2 * state.task_cycles  # type: ignore[attr-defined]
        paid = ~np.bool_(self.physics.batteries) | (local_j <= state.battery_j)  # type: ignore[attr-defined]
        bands = state.reported_gain_db.shape[1]
        return {
            "option": zero.astype(np.int64), "shares": {"air": zero, "cpu": zero}, "power": zero, "fraction": zero,
            "served": ~state.active | ((local_s <= state.deadline_s) & paid),
            "prices": {"air": np.zeros(bands), "cpu": np.zeros(len(state.server_hz))},
            "held": np.zeros(state.agents, bool), "floors": {"air": zero, "cpu": zero},
        }  # fmt: skip

    def admits(
        self,
        state: Any,
        allocation: Any,
        agent: int,
        prices: Any,
        wish: Any = None,
        trust: float = np.inf,
        memory: Any = None,
    ) -> tuple[dict[str, Any], ...]:
        """What would admit a device whose deadline is not expected to hold, everything else as it is.

        Each row: ``knob``, ``now``, ``needed``, ``factor``, ``text``; the smallest factor first. Where places were
        given stable admission is solved again from the present choice, otherwise the shares are settled again; found
        by halving, so each is solved on both sides: at ``needed`` the device is served, with a ten-thousandth of the
        change less it is not. ``sla`` is the least service class that admits it. ``option``: those with which it would
        be served; where places were given, those that would serve it and are not taken because even alone they cost
        more than opting out. ``again``: solved again as it is, it is served.
        """
        option = np.array(allocation.option)[None]
        again = Again(self, allocation, agent, prices, wish, memory) if allocation.seated else None

        def served(changed: Any, choice: Any = option) -> bool:
            if again is not None:
                return again.solve(replace(changed, truth=None)).served
            batch = self.world_at(replace(changed, truth=None), memory)  # type: ignore[attr-defined]
            return bool(batch.settle(choice, prices, wish, trust).served[0, agent])

        def knob(name: str, where: int, factor: float) -> Any:
            if name == "work":
                task = np.where(np.arange(state.agents) == agent, 1.0 / factor, 1.0)
                return replace(state, task_bits=state.task_bits * task, task_cycles=state.task_cycles * task)
            values = getattr(state, name).copy()
            values[where] *= factor
            return replace(state, **{name: values})

        def turned(name: str, where: int, factor: float) -> bool:
            return served(knob(name, where, factor))

        def instead(changed: Any) -> str:
            lost = again.solve(replace(changed, truth=None)).lost if again is not None else ()
            named = f"{', '.join(map(str, lost[:4]))}{' ...' if len(lost) > 4 else ''}"
            return f", in place of device{'s' if len(lost) > 1 else ''} {named}" if lost else ""

        if served(state):
            text = "solving again from this answer"
            return ({"knob": "again", "now": 0, "needed": 1, "factor": np.nan, "text": text},) if again else ()
        per = max(state.reported_gain_db.shape[1] // max(len(state.server_hz), 1), 1)
        reached = np.flatnonzero(state.reachable[agent])
        if option[0, agent] > 0:
            servers = [int(option[0, agent] - 1) // per]
        else:  # it has none: the one that has to be made faster the least
            servers = reached.tolist() if again is not None else []
        rows: list[dict[str, Any]] = []
        faster: list[dict[str, Any]] = []
        for name, where in (("deadline_s", agent), ("work", agent), *(("server_hz", k) for k in servers)):
            factor = least(partial(turned, name, where), 1.0)
            if factor is None:
                continue
            if name == "work":
                now, needed = float(state.task_bits[agent]), float(state.task_bits[agent] / factor)
                text = f"{enough(100 / factor, 100.0, 3)[0]} % of its bits and cycles"
            else:
                now = float(getattr(state, name)[where])
                needed = now * factor
                what = "a deadline" if name == "deadline_s" else f"server {where} at"
                said, was = enough(needed, now)
                text = f"{what} {said} {'s' if name == 'deadline_s' else 'Hz'} instead of {was}"
            text += instead(knob(name, where, factor))
            kept = faster if name == "server_hz" else rows
            kept.append({"knob": name, "now": now, "needed": needed, "factor": factor, "text": text})
        rows = sorted(rows + sorted(faster, key=lambda row: row["factor"])[:1], key=lambda row: row["factor"])
        own = float(state.sla[agent])
        promoted = lambda sla: replace(state, sla=np.where(np.arange(state.agents) == agent, sla, state.sla))
        higher = self._classes_above(state, agent) if again else [1.0] * (own < 1)
        sla = first(lambda value: served(promoted(value)), higher)
        if sla is not None:
            text = "service class {} instead of {}".format(*enough(sla, own)) + instead(promoted(sla))
            rows.append({"knob": "sla", "now": own, "needed": sla, "factor": np.nan, "text": text})
        others: list[int] = []
        for o in (o for k in reached for o in range(1 + k * per, 1 + (k + 1) * per)):
            moved = option.copy()
            moved[0, agent] = o
            if again is not None:
                others += [int(o)] * again.solve(replace(state, truth=None), accept=int(o)).served
            elif o != option[0, agent] and served(state, moved):
                others.append(int(o))
        if again is None and option[0, agent] > 0:
            moved = np.where(np.arange(state.agents) == agent, 0, option)
            others = [0] * served(state, moved) + others
        if others:
            named = " or ".join(map(str, others))
            text = f"option {named}, at a higher cost to all"
            if again is not None:
                text = f"option {named}, which would serve it but even alone costs more than opting out"
            rows.append(
                {"knob": "option", "now": int(option[0, agent]), "needed": others, "factor": np.nan, "text": text}
            )
        return tuple(rows)

    def _classes_above(self, state: Any, agent: int) -> list[float]:
        """Service classes above the device's own, ascending, one for each class of admission that it could be in."""
        gap = self.scenario.priority_gap  # type: ignore[attr-defined]
        own, weight = float(state.sla[agent]), float(self.scenario.priority[2])  # type: ignore[attr-defined]
        others = np.delete(state.sla, agent)[np.delete(state.active, agent)]
        if gap is None:
            return ranks_above(own, others, 0.0, 1.0)
        if weight <= 0:
            return []
        score = self.world_at(replace(state, truth=None)).priority()[0]  # type: ignore[attr-defined]
        rivals = np.delete(score, agent)[np.delete(state.active, agent)]
        found = ranks_above(float(score[agent]), rivals, gap, float(score[agent]) + weight * (1.0 - own))
        return [min(own + (p - float(score[agent])) / weight, 1.0) for p in found]
