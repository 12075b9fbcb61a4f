"""What a slot of ``mec`` looks like: to the operator, and (``truth``) to the simulator."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from games.congestion import Float, Int
from games.errors import InvalidStateError
from hybridalloc.problems.state import State, array, echo, whole_number

LAST_SLOT = 2**62  # later ones leave no room to count on


@dataclass(frozen=True)
class MecTruth(State):
    """What only the simulator knows."""

    same_size: ClassVar[dict[str, str]] = {"B": "K"}

    fading: Float = array("N B 2")  # real and imaginary part
    attenuation: Float = array("N K", low=0)  # blockage, linear
    backlog_s: Float = array("K", "s", low=0)
    air_backlog_s: Float = array("B", "s", low=0)
    correlation: Float = array("N", low=0, high=1)
    bursting: NDArray[np.bool_] = array("N", dtype=bool)
    position: Float = array("N 2", "m")
    site: Float = array("K 2", "m")
    panel: Float = array("N", low=0, fill=1)
    orientation_h: Float = array("N", "h", fill=0)


@dataclass(frozen=True)
class MecState(State):
    """One slot as the operator sees it. N devices, K servers, B bands (B = K unless channels are chosen)."""

    same_size: ClassVar[dict[str, str]] = {"B": "K"}

    active: NDArray[np.bool_] = array("N", dtype=bool)
    task_bits: Float = array("N", "bit", low=0)
    task_cycles: Float = array("N", "cycle", low=0)
    deadline_s: Float = array("N", "s", above=0)
    device_hz: Float = array("N", "Hz", above=0)
    mean_gain_db: Float = array("N K", "dB", high=0)
    reported_gain_db: Float = array("N B", "dB", high=60)
    server_hz: Float = array("K", "Hz", above=0)
    battery_j: Float = array("N", "J", low=0, fill=1.0)
    age_slots: Float = array("N", "slot", low=0, fill=1)
    last_server: Int = array("N", dtype=int, low=-1, fill=-1)
    activity: Float = array("N", low=0, high=1, fill=0.5)
    sla: Float = array("N", low=0, high=1, fill=0)
    worth: Float = array("N", low=0, fill=1)
    harvest_log_j: Float = array("N D", "J", low=0, fill=0)  # D slots a day; 0 where nothing is logged
    reachable: NDArray[np.bool_] = array("N K", dtype=bool, fill=1)
    queue_s: Float = array("K", "s", low=0, fill=0)
    air_queue_s: Float = array("B", "s", low=0, fill=0)
    noise_rise: Float = array("B", low=0, fill=0)
    reuse_group: Int = array("K", dtype=int, low=0, fill=0)
    slot: int = 0
    cloudy: bool = False  # in the slot before
    truth: MecTruth | None = field(default=None, metadata={"nested": MecTruth})

    def validate(self) -> None:
        n, k = self.mean_gain_db.shape
        bands = self.reported_gain_db.shape[1]
        if bool(k) != bool(bands) or (k and bands % k) or (n and not k):
            raise InvalidStateError(
                f"reported_gain_db has {bands} bands for {k} servers; give one a server, or as many to each"
            )
        for name in ("task_bits", "task_cycles"):
            value = getattr(self, name)
            bad = self.active & (value <= 0)
            if bad.any():
                i = int(np.argmax(bad))
                raise InvalidStateError(f"{name}[{i}] = {value[i]}; an active device's task must be > 0")
        bad = self.last_server >= max(k, 1)
        if bad.any():
            i = int(np.argmax(bad))
            raise InvalidStateError(f"last_server[{i}] = {self.last_server[i]}; servers are 0 to {k - 1}, -1 is none")
        object.__setattr__(self, "slot", whole_number("slot", self.slot, 0, LAST_SLOT))
        if not isinstance(self.cloudy, bool | np.bool_):
            raise InvalidStateError(f"cloudy = {echo(self.cloudy)}; it must be true or false")
        object.__setattr__(self, "cloudy", bool(self.cloudy))
        if self.truth is not None:
            if not isinstance(self.truth, MecTruth):
                raise InvalidStateError(f"truth is an object with named fields; got {type(self.truth).__name__}")
            for name, shape in (("fading", (n, bands)), ("attenuation", (n, k)), ("position", (n,)), ("site", (k,))):
                given = getattr(self.truth, name).shape[: len(shape)]
                if given != shape:
                    raise InvalidStateError(f"truth.{name} has shape {given}; this state needs {shape}")

    @property
    def agents(self) -> int:
        return len(self.active)


OBSERVED = (  # by the operator, under the same name in a world
    "active", "task_bits", "task_cycles", "deadline_s", "device_hz", "battery_j", "age_slots", "last_server",
    "activity", "sla", "worth", "reachable", "server_hz", "reuse_group", "queue_s", "air_queue_s", "noise_rise",
)  # fmt: skip
HIDDEN = tuple(f.name for f in fields(MecTruth))
