"""Settings of ``mec``: named scenarios and their dynamics, with errors that name what is wrong."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np

from games.errors import InvalidStateError
from hybridalloc.errors import nearest
from hybridalloc.problems.state import echo, read_array, whole_number

MOST = 1_000_000  # agents, servers, channels, steps of an episode


@dataclass(frozen=True)
class Dynamics:
    """What makes the problem hard to see through; each can be switched off."""

    staleness: bool = True  # channel and load are reported one slot late
    varied_fading: bool = True  # correlation .4 to .95 per device; otherwise .7 for all
    blockage: bool = True  # 15 dB, comes and goes per link
    interference: bool = True
    queues: bool = True
    batteries: bool = True
    migration: bool = True
    bursts: bool = True  # on/off activity, a moving hot spot, load that drifts by 35 %

    @classmethod
    def none(cls) -> Dynamics:
        """Everything off: independent slots, fresh reports."""
        return cls(*[False] * len(fields(cls)))


@dataclass(frozen=True)
class Scenario:
    """A setting of the problem; times in s, frequencies in Hz."""

    name: str = "H"
    slot_s: float = 0.02
    bits: tuple[float, float] = (50e3, 150e3)
    cycles_per_bit: tuple[float, float] = (200.0, 400.0)
    deadline_s: tuple[float, float] = (0.02, 0.05)
    device_hz: tuple[float, float] = (0.6e9, 1.2e9)
    server_hz: tuple[float, float] = (6e9, 14e9)
    channels: int = 3
    channel_hz: float = 1.8e6
    choose_channel: bool = False  # a device picks one channel; otherwise its server pools them
    reuse: int = 3  # servers of one group in this many share the spectrum and interfere
    load: float = 0.6
    harvest_j: float = 0.03  # mean a slot
    kappa: float = 5e-27
    static_w: float = 3.5
    episode: int = 200
    power_control: bool = True
    partial: bool = True
    floors: bool = True
    priority: tuple[float, float, float] = (0.4, 0.3, 0.3)  # the seed's alpha, beta, gamma: time, work, service class
    priority_gap: float | None = None  # of the score, within which devices are equals; None: by service class alone
    closeness: bool = False  # of a deadline counts towards the scenario's longest, not towards the task's own
    watched: tuple[float, float, float] = (
        0.0,
        0.0,
        0.0,
    )  # weights of a score by which completion is told apart; 0: not
    nominal_w: float = 0.2  # power at which a device sends where it does not control it
    battery_j: float = 1.0
    reward_energy: float = 0.2  # a tenth of a joule
    reward_age: float = 0.05  # ten slots
    reward_switch: float = 0.1
    sheds: bool = False  # a task may be dropped, as the last option, where it could be computed: what its joules earn
    day: int = 0  # slots of a day; 0: harvest is uniform, and every task worth 1
    panel: tuple[float, float] = (1.0, 1.0)
    orientation_h: float = 0.0  # at most so many hours is a device's sun early or late
    cloudy: float = 0.3  # of the sun; clouds stay 20 slots and are away for 30
    worths: tuple[float, float, float] = (1.0, 1.0, 1.0)
    day_mix: tuple[float, float, float] = (1.0, 0.0, 0.0)  # chances of the worths from 6 to 18 h
    night_mix: tuple[float, float, float] = (1.0, 0.0, 0.0)
    dynamics: Dynamics = field(default_factory=Dynamics)


SCENARIOS: dict[str, Scenario] = {
    "H": Scenario(),
    "A": Scenario(
        name="A", slot_s=0.1, deadline_s=(0.03, 0.08), server_hz=(20e9, 20e9), channels=10, reuse=1, load=1.0,
        episode=1000, dynamics=Dynamics.none(),
    ),
    "S": Scenario(  # the spread over servers that seed 003 reports: hybridalloc reproduce 003-table2
        name="S", slot_s=0.1, deadline_s=(0.015, 0.05), device_hz=(0.4e9, 0.8e9), server_hz=(15e9, 15e9),
        channel_hz=2.4e6, load=0.8, episode=1000,
        dynamics=replace(Dynamics.none(), staleness=True, interference=True),
    ),
    "F": Scenario(
        name="F", slot_s=900.0, deadline_s=(0.06, 0.2), device_hz=(0.3e9, 0.6e9), channel_hz=0.36e6, reuse=1, load=0.9,
        harvest_j=0.0055, battery_j=0.4, episode=384, power_control=False, partial=False, priority=(0.0, 0.0, 1.0),
        reward_energy=0.0, reward_age=0.0, reward_switch=0.05, sheds=True, day=96, panel=(0.1, 1.9), orientation_h=4.0,
        worths=(0.3, 1.0, 3.0), day_mix=(0.75, 0.25, 0.0), night_mix=(0.1, 0.4, 0.5),
        dynamics=Dynamics(staleness=False, interference=False, queues=False, bursts=False),
    ),
}  # fmt: skip
ADDED = (  # settings that files written before may lack: as they were
    "closeness", "watched", "nominal_w", "battery_j", "reward_energy", "reward_age", "reward_switch", "sheds", "day",
    "panel", "orientation_h", "cloudy", "worths", "day_mix", "night_mix",
)  # fmt: skip


def scenario_of(name: str, changes: dict[str, Any]) -> Scenario:
    """A named scenario with fields of :class:`Scenario` or :class:`Dynamics` changed.

    Raises:
        UnknownNameError: no such scenario or setting. ValueError: a setting of another kind or out of range, by name.
    """
    if not isinstance(name, str) or name not in SCENARIOS:
        raise nearest("scenario", name if isinstance(name, str) else echo(name), SCENARIOS)
    base = SCENARIOS[name]
    switches = {f.name for f in fields(Dynamics)}
    known = switches | {f.name for f in fields(Scenario)}
    given = {}
    for key, value in changes.items():
        if key not in known:
            raise nearest("setting of mec", key, known | {"agents", "servers", "sites", "scenario"})
        given[key] = _setting(key, value, getattr(base.dynamics if key in switches else base, key))
    dynamics = replace(given.get("dynamics", base.dynamics), **{k: v for k, v in given.items() if k in switches})
    rest = {k: v for k, v in given.items() if k not in switches and k != "dynamics"}
    return replace(base, dynamics=dynamics, **rest)


def _setting(name: str, value: Any, like: Any) -> Any:
    """A setting of the kind of its default: a switch, a whole number, a number (or None), as many numbers, a name."""
    if like is None and value is None:
        return None
    if isinstance(like, bool):
        if not isinstance(value, bool | np.bool_):
            raise InvalidStateError(f"{name} = {echo(value)}; it must be true or false")
        return bool(value)
    if isinstance(like, int):
        return whole_number(name, value, 0 if name == "day" else 1, MOST)
    if like is None or isinstance(like, float):
        number = read_array(name, value, "")
        if number.ndim or not np.isfinite(number) or number < 0:
            raise InvalidStateError(f"{name} = {echo(value)}; it must be a finite number >= 0")
        if name in ("slot_s", "channel_hz", "battery_j", "nominal_w") and not number > 0:
            raise InvalidStateError(f"{name} = {echo(value)}; it must be > 0")
        return float(number)
    if isinstance(like, tuple):
        numbers = read_array(name, value, str(len(like)))
        if numbers.shape != (len(like),):
            raise InvalidStateError(f"{name} = {echo(value)}; it must be {len(like)} finite numbers >= 0")
        for k, number in enumerate(numbers):
            if not 0 <= number < np.inf:
                raise InvalidStateError(f"{name}[{k}] = {echo(number)}; it must be finite and >= 0")
        if len(like) == 2 and not 0 < numbers[0] <= numbers[1]:
            raise InvalidStateError(f"{name} = {echo(value)}; it is a range: 0 < low <= high")
        return tuple(numbers.tolist())
    if not isinstance(value, type(like)):
        raise InvalidStateError(f"{name} = {echo(value)}; it must be a {type(like).__name__}")
    return value
