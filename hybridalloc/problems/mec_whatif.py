"""Other worlds for ``mec``: scenarios, what reports reveal a slot later, and what would admit a device.

Everything here is built from what the operator is told; ``truth`` is never read.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

MOST = 64.0  # a knob is turned up to this factor


class Shift(NamedTuple):
    """How a world differs from the one trained in; each a factor >= 1, at 1 nothing changes.

    Attributes:
        path_loss: of amplitudes, 2 is 6 dB. decorrelation: fading forgets in a slot what it did in as many.
        load: devices to the same servers. cpu: servers are slower. staleness: mean age of the reports, in slots:
            all of a slot's are lost with chance 1 - 1/staleness, and the last ones stand.
    """

    name: str
    path_loss: float = 1.0
    decorrelation: float = 1.0
    load: float = 1.0
    cpu: float = 1.0
    staleness: float = 1.0


SHIFTS = (
    Shift("as trained"), Shift("path loss + 6 dB", path_loss=2.0), Shift("correlation squared", decorrelation=2.0),
    Shift("load x 2", load=2.0), Shift("CPU / 2", cpu=2.0), Shift("reports two slots old", staleness=2.0),
)  # fmt: skip


class WhatIf:
    """Mixed into the problem."""

    def scenarios(self) -> tuple[Shift, ...]:
        """Worlds that a robust trust must hold against: as trained, and one thing or another worse by 2 x."""
        return SHIFTS

    def shifted(self, shift: Shift) -> Any:
        """This problem in the world of ``shift``: another law for its simulator, see :mod:`mec_shift`."""
        from hybridalloc.problems.mec_shift import shifted  # which is built on the problem itself

        return shifted(self, shift)  # type: ignore[arg-type]

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
