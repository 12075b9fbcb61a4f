"""What a step of ``voltage`` looks like: to the operator, and (``truth``) to the simulator."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from games.congestion import Float
from games.errors import InvalidStateError
from hybridalloc.problems.state import State, array, whole_number

LAST_STEP = 2**62


@dataclass(frozen=True)
class VoltageTruth(State):
    """What only the simulator knows: net loads now."""

    load_mw: Float = array("B", "MW")
    load_mvar: Float = array("B", "Mvar")


@dataclass(frozen=True)
class VoltageState(State):
    """One step as the operator sees it. N inverters, B buses in the feeder's order, the substation first.

    Loads are net of rooftop plants, which nobody reads apart. ``*_last`` and ``*_before`` are readings of one and two
    steps ago; loads are as old as the problem's information says, ``load_before_*`` a step older.
    """

    sun_mw: Float = array("N", "MW", low=0)  # now; what the inverters feed in
    rating_mva: Float = array("N", "MVA", above=0)
    load_mw: Float = array("B", "MW")
    load_mvar: Float = array("B", "Mvar")
    voltage_last: Float = array("N", "p.u.", above=0, fill=1)
    voltage_before: Float = array("N", "p.u.", above=0, fill=1)
    reactive_last_mvar: Float = array("N", "Mvar", fill=0)  # fed in
    reactive_before_mvar: Float = array("N", "Mvar", fill=0)
    sun_last_mw: Float = array("N", "MW", low=0, fill=0)
    sun_before_mw: Float = array("N", "MW", low=0, fill=0)
    sun_day_mw: Float = array("N", "MW", low=0, fill=0)  # at this time a day ago
    sun_day_before_mw: Float = array("N", "MW", low=0, fill=0)
    load_before_mw: Float = array("B", "MW", fill=0)
    load_before_mvar: Float = array("B", "Mvar", fill=0)
    load_week_mw: Float = array("B", "MW", fill=0)
    load_week_mvar: Float = array("B", "Mvar", fill=0)
    active: NDArray[np.bool_] = array("N", dtype=bool, fill=1)
    step: int = 0  # of 15 minutes, since the year began
    truth: VoltageTruth | None = field(default=None, metadata={"nested": VoltageTruth})

    def validate(self) -> None:
        over = self.sun_mw > self.rating_mva * (1 + 1e-9)
        if over.any():
            i = int(np.argmax(over))
            raise InvalidStateError(
                f"sun_mw[{i}] = {self.sun_mw[i]}; an inverter feeds in its rating_mva at most, {self.rating_mva[i]:g}"
            )
        object.__setattr__(self, "step", whole_number("step", self.step, 0, LAST_STEP))
        if self.truth is not None:
            if not isinstance(self.truth, VoltageTruth):
                raise InvalidStateError(f"truth is an object with named fields; got {type(self.truth).__name__}")
            if self.truth.load_mw.shape != self.load_mw.shape:
                raise InvalidStateError(
                    f"truth.load_mw has shape {self.truth.load_mw.shape}; this state needs {self.load_mw.shape}"
                )

    @property
    def agents(self) -> int:
        return len(self.sun_mw)


BY_INVERTER = (
    "sun_mw", "rating_mva", "voltage_last", "voltage_before", "reactive_last_mvar", "reactive_before_mvar",
    "sun_last_mw", "sun_before_mw", "sun_day_mw", "sun_day_before_mw",
)  # fmt: skip
BY_BUS = ("load_mw", "load_mvar", "load_before_mw", "load_before_mvar", "load_week_mw", "load_week_mvar")


def most_mvar(state: Any) -> Float:
    """Reactive power that an inverter can feed in or draw beside its sun: sqrt(s^2 - p^2), 0 of one that is out."""
    room = np.sqrt(np.maximum(np.square(state.rating_mva) - np.square(state.sun_mw), 0.0))
    return np.asarray(np.where(state.active, room, 0.0))
