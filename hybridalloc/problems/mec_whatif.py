"""Other worlds for ``mec``: perturbed scenarios, what reports reveal a slot later, and what would admit a device.

Everything here is built from what the operator is told; ``truth`` is never read.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

CORRELATION = 0.7  # of the fading from slot to slot, taken where nothing is known
MOST = 64.0  # a knob is turned up to this factor


@dataclass(frozen=True)
class Shift:
    """How a world differs from the one believed.

    Attributes:
        loss_db: more path loss. work: factor on tasks' bits and cycles. cpu: servers are slower by this factor.
        backlog_slots: queues longer by this many slots than reported. staleness: slots by which reports are staler.
    """

    name: str
    loss_db: float = 0.0
    work: float = 1.0
    cpu: float = 1.0
    backlog_slots: float = 0.0
    staleness: int = 0


SHIFTS = (
    Shift("as believed"),
    Shift("path loss + 3 dB", loss_db=3.0),
    Shift("path loss + 6 dB", loss_db=6.0),
    Shift("work x 1.5", work=1.5),
    Shift("work x 2", work=2.0),
    Shift("CPU / 1.5", cpu=1.5),
    Shift("CPU / 2", cpu=2.0),
    Shift("half a slot's backlog unreported", backlog_slots=0.5),
    Shift("a slot staler", staleness=1),
    Shift("two slots staler", staleness=2),
)


class WhatIf:
    """Mixed into the problem."""

    def scenarios(self) -> tuple[Shift, ...]:
        """Worlds that a robust trust must hold against: each of what is believed, shifted by up to 2 x."""
        return SHIFTS

    def perturbed(self, state: Any, shift: Shift, seed: int = 0) -> Any:
        """The state as it would truly be if ``shift`` were so; its reports are the truth."""
        gain = state.reported_gain_db - shift.loss_db
        if shift.staleness:
            rng = np.random.default_rng([seed, state.slot])
            per = max(gain.shape[1] // max(len(state.server_hz), 1), 1)
            mean = np.repeat(state.mean_gain_db, per, axis=1) - shift.loss_db
            rho = CORRELATION**shift.staleness
            noise = rng.standard_normal((*gain.shape, 2)) * np.sqrt((1 - rho**2) / 2)
            amplitude = rho * 10 ** ((gain - mean) / 20) + noise[..., 0]
            gain = mean + 10 * np.log10(np.maximum(amplitude**2 + noise[..., 1] ** 2, 1e-12))
        slot_s = self.scenario.slot_s  # type: ignore[attr-defined]
        return replace(
            state, truth=None, reported_gain_db=np.minimum(gain, 60.0), task_bits=state.task_bits * shift.work,
            task_cycles=state.task_cycles * shift.work, server_hz=state.server_hz / shift.cpu,
            queue_s=state.queue_s + shift.backlog_slots * slot_s,
        )  # fmt: skip

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

        Each row: ``knob``, ``now``, ``needed``, ``factor``, ``text``. Found by bisection on the settling itself, so
        each is solved again on both sides: at ``needed`` the device is served, a millionth less far it is not. For
        options, those with which it would be served.
        """
        option = np.array(allocation.option)[None]

        def served(changed: Any, choice: Any = option) -> bool:
            batch = self.batch_of(replace(changed, truth=None), memory)  # type: ignore[attr-defined]
            return bool(batch.settle(choice, prices, wish, trust).served[0, agent])

        def knob(name: str, factor: float) -> Any:
            if name == "work":
                task = np.where(np.arange(state.agents) == agent, 1.0 / factor, 1.0)
                return replace(state, task_bits=state.task_bits * task, task_cycles=state.task_cycles * task)
            values = getattr(state, name).copy()
            values[where[name]] *= factor
            return replace(state, **{name: values})

        rows: list[dict[str, Any]] = []
        if served(state):
            return ()
        where = {"deadline_s": agent}
        bands, servers = state.reported_gain_db.shape[1], len(state.server_hz)
        if allocation.option[agent] > 0:
            where["server_hz"] = int((allocation.option[agent] - 1) // max(bands // max(servers, 1), 1))
        for name in ("deadline_s", "work", *([] if len(where) == 1 else ["server_hz"])):
            low, high = 1.0, MOST
            if not served(knob(name, high)):
                continue
            while high / low > 1 + 1e-6:
                middle = (low * high) ** 0.5
                low, high = (low, middle) if served(knob(name, middle)) else (middle, high)
            if name == "work":
                now, needed = float(state.task_bits[agent]), float(state.task_bits[agent] / high)
                text = f"{100 / high:.3g} % of its bits and cycles"
            else:
                now = float(getattr(state, name)[where[name]])
                needed = now * high
                what = "a deadline" if name == "deadline_s" else f"server {where[name]} at"
                text = f"{what} {needed:.4g} {'s' if name == 'deadline_s' else 'Hz'} instead of {now:.4g}"
            rows.append({"knob": name, "now": now, "needed": needed, "factor": high, "text": text})
        if state.sla[agent] < 1 and served(
            replace(state, sla=np.where(np.arange(state.agents) == agent, 1, state.sla))
        ):
            rows.append({"knob": "sla", "now": float(state.sla[agent]), "needed": 1.0, "factor": np.nan,
                         "text": "service class 1: admitted before others"})  # fmt: skip
        others = []
        for o in range(1 + bands):
            moved = option.copy()
            moved[0, agent] = o
            reached = o == 0 or state.reachable[agent, (o - 1) // max(bands // max(servers, 1), 1)]
            if o != allocation.option[agent] and reached and served(state, moved):
                others.append(o)
        if others:
            rows.append({"knob": "option", "now": int(allocation.option[agent]), "needed": others, "factor": np.nan,
                         "text": f"option {' or '.join(map(str, others))}, at a higher cost to all"})  # fmt: skip
        return tuple(rows)
