"""What a ``voltage`` problem is: its settings, checked, and what follows from them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, NamedTuple

import numpy as np

from games.congestion import Float
from games.errors import InvalidStateError
from hybridalloc.errors import nearest
from hybridalloc.problems.state import echo, read_array, whole_number
from hybridalloc.problems.voltage.core import damping, path_sum, shared_path
from hybridalloc.problems.voltage.feeder import Feeder, feeder_named
from hybridalloc.problems.voltage.profiles import DAY, SOURCES, Year, profiles_of, year_of
from hybridalloc.problems.voltage.reward import REWARDS
from hybridalloc.problems.voltage.state import VoltageState

AGES = {"now": 0, "15 min": 1, "day": DAY}  # steps by which readings of loads are old, by the information
WEEK = 7 * DAY
SEEDS = 2**62


class Prices(NamedTuple):
    """What the game charges and how the inverters react.

    Attributes:
        toll: how much of what its q loses for others it is charged, 0 to 1. wear: kW a Mvar squared. breach: kW a
            square of mpu (.001 p.u.) out of band, halved. margin: p.u. by which a plan stays inside the band. caution:
            believed spreads of a voltage added to it. deadband: p.u. inside the band, from which on an inverter reacts
            to its own voltage, by ``slope`` Mvar a p.u.
    """

    toll: float = 1.0
    wear: float = 0.1
    breach: float = 1e3
    margin: float = 0.003
    caution: float = 0.6
    deadband: float = 0.02
    slope: float = 30.0


SETS: dict[str, dict[str, Any]] = {
    "C": {},
    "mapdn": {"sun_mw": 8.75, "roof_mw": 0.0, "load_scale": 1.0, "information": "now", "held": True, "reward": "bowl"},
}


@dataclass(frozen=True)
class VoltageSetting:
    """Settings of :class:`hybridalloc.problems.voltage.problem.Voltage`, which says what they mean."""

    feeder: str = "case33"
    profiles: str = "synthetic"
    variant: str = "C"
    information: str = "day"
    sun_mw: float = 6.0
    roof_mw: float = 5.0
    load_scale: float = 1.8
    oversize: float = 1.2
    low: float = 0.95
    high: float = 1.05
    steepest: float = 30.0
    held: bool = False
    reward: str = "cost"
    levels: int = 11
    rounds: int = 4
    load_seed: int = 7
    year_seed: int = 0
    table: Feeder | None = None

    def __post_init__(self) -> None:
        named = ("profiles", SOURCES), ("information", AGES), ("reward", REWARDS)
        for name, known in named:
            value = getattr(self, name)
            if value not in known:
                raise nearest(name, str(value), tuple(known))
        for name in ("sun_mw", "roof_mw", "load_scale", "oversize", "low", "high", "steepest"):
            value = getattr(self, name)
            number = read_array(name, value, "")
            if number.ndim or not np.isfinite(number) or number < 0:
                raise InvalidStateError(f"{name} = {echo(value)}; it must be a finite number >= 0")
        if not 0.5 < self.low < self.high < 1.5:
            raise InvalidStateError(f"low = {self.low}, high = {self.high}; a band in p.u.: 0.5 < low < high < 1.5")
        if not self.oversize >= 1:
            raise InvalidStateError(f"oversize = {self.oversize}; a rating is at least the peak: >= 1")
        whole = ("levels", 3, 101), ("rounds", 0, 50), ("load_seed", 0, SEEDS), ("year_seed", 0, SEEDS)
        for name, least, most in whole:
            whole_number(name, getattr(self, name), least, most)
        if self.levels % 2 == 0:
            raise InvalidStateError(f"levels = {self.levels}; an odd number, as many above 0 as below")

    @cached_property
    def net(self) -> Feeder:
        """The feeder."""
        return feeder_named(self.feeder) if self.table is None else self.table

    @cached_property
    def year(self) -> Year:
        """Its year of loads and sun."""
        if self.table is not None:
            return _year(self.table, self)
        return _named_year(
            self.feeder, self.profiles, self.year_seed, self.sun_mw, self.load_scale, self.roof_mw, self.load_seed
        )

    @cached_property
    def rating_mva(self) -> Float:
        """(N,) of each inverter: its peak of sun, oversized."""
        return np.asarray(np.maximum(self.oversize * self.year.peak, 1e-6))

    @cached_property
    def shared_r(self) -> Float:
        """(B, N) resistance that the paths to a bus and an inverter share, p.u."""
        return np.asarray(shared_path(self.net.parent, self.net.r, self.net.inverter))

    @cached_property
    def own_r(self) -> Float:
        """(N,) resistance of the path to each inverter, p.u."""
        return path_sum(self.net.parent, self.net.r)[self.net.inverter]

    @cached_property
    def own_x(self) -> Float:
        """(N,) likewise the reactance."""
        return path_sum(self.net.parent, self.net.x)[self.net.inverter]

    @cached_property
    def between_x(self) -> Float:
        """(N, N) reactance that the paths to two inverters share, p.u."""
        return np.asarray(shared_path(self.net.parent, self.net.x, self.net.inverter)[self.net.inverter])

    @property
    def age(self) -> int:
        """Steps by which readings of loads are old."""
        return AGES[self.information]

    @cached_property
    def marks(self) -> Float:
        """(O,) shares of its room that stand for an inverter's options, 0 first."""
        side = np.linspace(0, 1, self.levels // 2 + 1)[1:]
        return np.concatenate([[0.0], -side[::-1], side])

    def damped(self, slope: float) -> float:
        """See :func:`hybridalloc.problems.voltage.core.damping`."""
        known: dict[float, float] = self.__dict__.setdefault("_damped", {})
        if slope not in known:
            known[slope] = damping(self.net, slope)
        return known[slope]

    def check_state(self, state: VoltageState) -> None:
        """Raises InvalidStateError where a state is of another feeder."""
        n, b = len(self.net.inverter), self.net.size
        for name, given, needed in (("sun_mw", state.sun_mw, n), ("load_mw", state.load_mw, b)):
            if len(given) != needed:
                what = f"{n} inverters" if name == "sun_mw" else f"{b} buses, in the order of problem.net.bus"
                raise InvalidStateError(f"{name} has {len(given)} entries; feeder {self.net.name} has {what}")

    def slope(self, prices: Prices) -> float:
        """Of the local reaction, Mvar a p.u., as far as it is permitted; 0 where q is held between steps."""
        return 0.0 if self.held else float(min(max(prices.slope, 0.0), self.steepest))


@lru_cache(maxsize=8)
def _named_year(
    feeder: str, source: str, seed: int, sun_mw: float, load_scale: float, roof_mw: float, load_seed: int
) -> Year:
    return year_of(feeder_named(feeder), profiles_of(source, seed), sun_mw, load_scale, roof_mw, load_seed)


def _year(net: Feeder, s: VoltageSetting) -> Year:
    return year_of(net, profiles_of(s.profiles, s.year_seed), s.sun_mw, s.load_scale, s.roof_mw, s.load_seed)
