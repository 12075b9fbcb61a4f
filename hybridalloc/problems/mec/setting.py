"""What a ``mec`` problem is: its settings, checked, and the constants that follow from them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np

from games.congestion import Int
from hybridalloc.problems.mec.arrays import Physics
from hybridalloc.problems.mec.law import Law
from hybridalloc.problems.mec.scenario import SCENARIOS, Scenario
from hybridalloc.problems.mec.shift import Shift
from hybridalloc.problems.mec.sites import SITES

BASELINES = {
    "local": "local only", "nearest": "nearest server", "greedy": "greedy", "random": "random",
    "selfish": "selfish offloading game", "clairvoyant": "clairvoyant, slot by slot",
}  # fmt: skip
AS_PUBLISHED = ("selfish",)
BOUND = "clairvoyant"


@dataclass(frozen=True)
class MecSetting:
    """Settings of :class:`hybridalloc.problems.mec.problem.Mec`, which says what they mean."""

    agents: int = 50
    servers: int = 9
    sites: str = "synthetic"
    scenario: Scenario = SCENARIOS["H"]
    shift: Shift | None = None

    def __post_init__(self) -> None:
        if self.agents < 0 or self.servers < 1:
            raise ValueError(f"agents = {self.agents}, servers = {self.servers}; need agents >= 0 and servers >= 1")
        if self.sites not in SITES:
            raise ValueError(f"sites = {self.sites!r}; choose {' or '.join(map(repr, SITES))}")
        if self.scenario.channels < 1 or self.scenario.reuse < 1:
            raise ValueError("a scenario has at least 1 channel and reuse 1")
        if len(self.scenario.priority) != 3 or not all(w >= 0 for w in self.scenario.priority):
            raise ValueError(f"priority = {self.scenario.priority}; three weights >= 0: alpha, beta, gamma")
        if self.scenario.priority_gap is not None and not self.scenario.priority_gap >= 0:
            raise ValueError(f"priority_gap = {self.scenario.priority_gap}; it must be >= 0, or None: by service class")
        for name, factor in self.shift._asdict().items() if self.shift is not None else ():
            if name != "name" and not factor >= 1:
                raise ValueError(f"{name} = {factor}; a shift is a factor >= 1, at 1 nothing changes")

    @property
    def bands(self) -> int:
        """Bands a server: its channels where devices choose one, otherwise one pooled band."""
        return self.scenario.channels if self.scenario.choose_channel else 1

    @cached_property
    def physics(self) -> Physics:
        s, d, shift = self.scenario, self.scenario.dynamics, self.shift or Shift("")
        band_hz = s.channel_hz * (1 if s.choose_channel else s.channels)
        noise_dbm = -174.0 + 5.0 + 10 * np.log10(band_hz)
        given = Physics(
            slot_s=s.slot_s, band_hz=band_hz, noise_w=float(10 ** ((noise_dbm - 30) / 10)), power_w=1.0,
            nominal_w=s.nominal_w, least_w=0.001, efficiency=0.35, kappa=s.kappa, backhaul_s=1e-3, switch_s=4e-3,
            battery_j=s.battery_j / shift.battery, queue_cap_s=3 * s.slot_s, server_j=3e-9, static_w=s.static_w,
            reward_energy=s.reward_energy, reward_age=s.reward_age, reward_switch=s.reward_switch,
            certain=not (d.staleness or d.interference), interference=d.interference, queues=d.queues,
            batteries=d.batteries, migration=d.migration, power_control=s.power_control, partial=s.partial,
            floors=s.floors,
        )  # fmt: skip
        # 1 and 1.0 are two types, for each of which every kernel would be compiled
        return Physics._make(x if isinstance(x, bool) else float(x) for x in given)

    @cached_property
    def law(self) -> Law:
        """How tasks, batteries and channels change from slot to slot."""
        s, d, shift = self.scenario, self.scenario.dynamics, self.shift or Shift("")
        pair = lambda span: (float(span[0]), float(span[1]))
        return Law(
            load=float(s.load), bits=pair(s.bits), cycles_per_bit=pair(s.cycles_per_bit),
            deadline_s=pair(s.deadline_s), device_hz=pair(s.device_hz), server_hz=pair(s.server_hz),
            harvest_j=s.harvest_j / shift.harvest, battery_j=self.physics.battery_j, staleness=d.staleness,
            varied_fading=d.varied_fading, blockage=d.blockage, batteries=d.batteries, bursts=d.bursts, day=s.day,
            panel=pair(s.panel), orientation_h=float(s.orientation_h), cloudy=float(s.cloudy), worths=s.worths,
            day_mix=s.day_mix, night_mix=s.night_mix,
        )  # fmt: skip

    def options(self, servers: int | None = None) -> Int:
        """(O, 2) resources of each option: none, then band b and the CPU of its server; in a scenario that sheds
        the last has none again."""
        k = self.servers if servers is None else servers
        return option_rows(k, k * self.bands, self.scenario.sheds)


@cache
def option_rows(servers: int, bands: int, sheds: bool) -> Int:
    """(1 + B, 2), or (2 + B, 2) where tasks may be shed, band and CPU of each option; -1 for none."""
    b, none = np.arange(bands), [[-1, -1]]
    rows = np.stack([b, bands + b // max(bands // max(servers, 1), 1)], axis=1)
    return np.concatenate([none, rows, none if sheds else np.empty((0, 2))]).astype(np.int64)
