r"""``mec``: devices offload tasks to edge servers over a shared radio (seed 003).

N devices, K servers with M channels of 1.8 MHz. Path loss 128.1 + 37.6 log10 d_km, shadowing 8 dB, Rayleigh
fading with correlation in time, noise -174 dBm/Hz + 5 dB, power up to 30 dBm, amplifier efficiency .35. A task
has d bits, c cycles and a deadline tau; T_local = (1 - rho) c / f, T_remote = queues + rho d / R + rho c / F
+ 1 ms, T is the larger. Option 0 computes on the device (or sheds the task when that cannot be in time or the
battery cannot pay); option 1 + b sends to band b of server b // (bands a server).
Where tasks may be shed by choice, the last option, 1 + B, drops one that could be computed.

Set A is the seed's range without dynamics. Set H (default) has tight deadlines and every dynamic, each a
switch: stale channel and load reports, correlation per device, blockages, interference between servers of
one reuse group, queues that carry over, batteries with harvest, migration, on/off bursts with a moving hot
spot and a drifting load. Devices' admissions are told to nobody.

Set F is where foresight pays: a slot is a synchronised wake-up every 15 minutes, batteries of .4 J hold about a night
and live on the sun (panel, orientation, clouds), a task is worth .3, 1 or 3, most at night, and may be shed.

A :class:`MecState` is what the operator is told, plus ``truth``, which only the simulator reads.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from games.certificate import Audit, CapacityCheck, check_capacity, check_limit
from games.certificate_lists import Findings
from hybridalloc.problems.contract import Card
from hybridalloc.problems.mec.arrays import Plan, Prices
from hybridalloc.problems.mec.audit import Believed, audit, excess
from hybridalloc.problems.mec.belief import BELIEFS, Belief, Memory, copy_history, remember_plan
from hybridalloc.problems.mec.examine import examine
from hybridalloc.problems.mec.late import LateWorld
from hybridalloc.problems.mec.scenario import ADDED, MOST, Dynamics, Scenario, scenario_of
from hybridalloc.problems.mec.setting import AS_PUBLISHED, BASELINES, BOUND
from hybridalloc.problems.mec.shift import SHIFTS, SUN_SHIFTS, Shift
from hybridalloc.problems.mec.state import MecState
from hybridalloc.problems.mec.whatif import WhatIf
from hybridalloc.problems.mec.world import MecWorld
from hybridalloc.problems.metrics import RAW_VIOLATION, Jain, Metric, Ratio
from hybridalloc.problems.settings import alike, described, restored
from hybridalloc.problems.state import whole_number

METRICS = (
    Metric("welfare", "welfare", "a device and slot", "higher", Ratio("reward", "slots")),
    Metric("completion", "completion", "%", "higher", Ratio("done", "generated", 100)),
    Metric("latency", "latency of completed tasks", "ms", "lower", Ratio("latency_s", "done", 1e3)),
    Metric("tasks_per_joule", "tasks per joule of the devices", "1/J", "higher", Ratio("done", "device_j")),
    Metric("tasks_per_joule_all", "tasks per joule with servers", "1/J", "higher", Ratio("done", "joules")),
    Metric("aoi", "age of information", "slots", "lower", Ratio("age", "slots")),
    Metric("outage", "outage", "%", "lower", Ratio("outage", "sent", 100)),
    Metric("jain", "Jain index of completion", "", "higher", Jain("done_by", "generated_by")),
    Metric("migrations", "migrations", "% of tasks", "lower", Ratio("switched", "generated", 100)),
    RAW_VIOLATION,
)
BY_PRIORITY = (  # where a scenario has ``watched`` weights
    Metric("completion_high", "completion of the tasks of high priority", "%", "higher",
           Ratio("done_high", "generated_high", 100)),
    Metric("completion_low", "completion of the others", "%", "higher", Ratio("done_low", "generated_low", 100)),
)  # fmt: skip
PRICE_SPACE = {  # a miss is the unit, as in the reward
    "toll": (0.0, 4.0, False), "delay": (0.02, 1.0, True), "energy": (0.02, 1.0, True), "risk": (0.5, 3.0, False),
    "backlog": (0.0, 0.5, False), "migration": (0.01, 0.5, True), "interference": (1e-4, 1e-1, True),
    "margin": (0.6, 1.0, False), "caution": (0.2, 0.9, False), "leakage": (1e-3, 0.3, True),
}  # fmt: skip
SUN_SPACE = {"energy": (0.2, 20.0, True)}  # where a battery holds a night's few tasks
SUNNY = ("harvest", "battery")  # of a shift: files written before lack them
REFERENCE_PRICES = {"toll 1": Prices(toll=1.0), "toll 0": Prices(toll=0.0)}


@dataclass(frozen=True)
class Mec(WhatIf):
    """The problem with its settings; make it with ``make_problem("mec", ...)``.

    Args:
        agents, servers: N and K of the states that ``reset`` draws (``step`` takes states of any size).
        sites: "synthetic" (near-hexagonal, 9 servers a square km) or "eua" (Melbourne's base stations and users).
        scenario: "H", "A" or a :class:`Scenario`.
        shift: how the simulator's law differs from the scenario's; nobody is told. ``agents`` are those of the shift.
    """

    state_type: ClassVar[type[MecState]] = MecState

    @cached_property
    def card(self) -> Card:
        p, real = self.physics, self.sites == "eua"
        power = {"power": (p.least_w, p.power_w)} if p.power_control else {}
        metrics = METRICS + (BY_PRIORITY if any(self.scenario.watched) else ())
        return Card(
            name="mec", agents=self.agents, epochs=self.scenario.episode, prices=Prices, metrics=metrics,
            headline=("welfare", "completion"), variant=f"set {self.scenario.name}",
            size=f"{self.agents} agents, {self.servers} servers, {self.sites} sites", agent_word="device",
            options=(
                "on the device", *(f"station {o}" for o in range(1, 1 + self.servers * self.bands)),
                *["shed"] * self.scenario.sheds,
            ),
            families=("air", "cpu"), baselines=BASELINES, published=AS_PUBLISHED, bounds={BOUND: BASELINES[BOUND]},
            reference_prices=REFERENCE_PRICES, unpriced={"leakage": 0.0},
            price_space=PRICE_SPACE | (SUN_SPACE if self.scenario.day else {}), beliefs=BELIEFS,
            levels=power | ({"fraction": (0.0, 1.0)} if p.partial else {}), store="battery" if p.batteries else "",
            cycle=max(self.scenario.day, 1), unit_s=self.scenario.slot_s, datasets=("eua",) if real else (),
            tags={"scenario": self.scenario.name, "sites": self.sites}, change_cost="migration",
        )  # fmt: skip

    def worlds(self, seeds: Sequence[int], belief: Belief | None = None) -> MecWorld:
        """E = len(seeds) networks, each with its own stream of randomness."""
        world = (MecWorld if self.shift is None else LateWorld).fresh(self, seeds)
        return world if belief is None else world.attach(belief)

    def world_at(self, state: MecState, memory: Memory | None = None) -> MecWorld:
        """One network that stands at ``state``; where ``truth`` is absent the reports are taken as true.

        ``memory`` (see :meth:`recall`) holds a belief and what it remembers; without, reports are believed.
        """
        world = MecWorld.of_state(self, state)
        return world if memory is None else world.resume(memory)

    def recall(self, belief: Belief, state: MecState, past: tuple[MecWorld, Plan] | None) -> Memory:
        """What ``belief`` remembers of the slots before ``state``; it learns from what the new reports reveal.

        ``past`` is the last slot's world and the plan executed there; where it is not of the slot before, of the same
        devices and servers, the memory begins here.
        """
        new = MecWorld.of_state(self, state)
        if past is None or past[0].world.rate.shape != new.world.rate.shape or past[0].world.slot[0] + 1 != state.slot:
            return Memory(belief, new.history)
        last, plan = past
        new.history = last.history
        belief.reveal(new)
        history = copy_history(last.history)
        remember_plan(self.physics, last.world, history, plan)
        return Memory(belief, history, last.world.attenuation)

    def scenarios(self) -> tuple[Shift, ...]:
        """Worlds that a robust trust must hold against: as trained, and one thing or another worse by 2 x."""
        return SUN_SHIFTS if self.scenario.day else SHIFTS

    def shifted(self, shift: Shift) -> Mec:
        """This problem in the world of ``shift``: another law for its simulator.

        Raises:
            ValueError: a factor below 1.
        """
        return Mec(round(self.agents * shift.load), self.servers, self.sites, self.scenario, shift)

    def check(self, state: MecState, allocation: Any) -> CapacityCheck:
        """Feasibility of an allocation from the definitions, by code that no solver shares."""
        worst = excess(self, state, allocation)
        if worst <= 1e-9:
            return CapacityCheck(worst, ())
        p = self.physics
        n = state.agents
        option = np.asarray(allocation.option)
        shed = np.bool_(self.scenario.sheds) & (option == 1 + state.reported_gain_db.shape[1])
        band = np.where((option > 0) & ~shed, option - 1, -1)
        per = max(state.reported_gain_db.shape[1] // max(len(state.server_hz), 1), 1)
        server = np.where(band >= 0, band // per, -1)
        left = np.where(option > 0, 1 - np.asarray(allocation.fraction), 1.0)  # done on the device
        local_s = left * state.task_cycles / state.device_hz
        local_j = left * p.kappa * state.device_hz**2 * state.task_cycles
        started = (
            state.active & ~shed & (local_s <= state.deadline_s) & (local_j <= state.battery_j if p.batteries else True)
        )
        sent_j = allocation.power * allocation.shares["air"] * state.deadline_s / p.efficiency
        energy = np.where(started, local_j, 0.0) + sent_j
        checks = [
            check_capacity("air", band, allocation.shares["air"], np.ones(state.reported_gain_db.shape[1])),
            check_capacity("cpu", server, allocation.shares["cpu"], np.ones(len(state.server_hz))),
            check_limit("power (W)", allocation.power, np.full(n, p.power_w)),
            check_limit("offloaded fraction", allocation.fraction, np.ones(n)),
        ]
        if p.batteries:
            checks.append(check_limit("energy by the deadline (J)", energy, state.battery_j))
        reached = np.zeros(n, bool)
        known = (server >= 0) & (server < len(state.server_hz))
        reached[known] = state.reachable[known, server[known]]
        lost = np.flatnonzero((option != 0) & ~shed & ~((option > 0) & reached))
        if len(lost):
            lines = tuple(f"reach: agent {i} takes option {option[i]}, which it cannot reach" for i in lost)
            checks.append(CapacityCheck(float("inf"), lines))
        worst = max(c.max_violation for c in checks)
        return CapacityCheck(worst, tuple(v for c in checks for v in c.violations))

    def audit(self, state: MecState, allocation: Any, prices: Prices, believed: Believed | None = None) -> Audit:
        """The certificate's second reading of a state and an allocation; see :mod:`mec_audit`."""
        return audit(self, state, allocation, prices, believed)

    def examine(
        self, state: MecState, allocation: Any, prices: Prices, believed: Believed | None = None
    ) -> Findings | None:
        """The same as far as a certificate needs it; see :mod:`.examine`."""
        return examine(self, state, allocation, prices, believed)

    def picture(self, state: MecState, allocation: Any) -> dict[str, Any]:
        """Stations, devices and which station serves whom, whatever the band, in m; {} where no places are known."""
        if state.truth is None:
            return {}
        bands = state.reported_gain_db.shape[1]
        per = max(bands // max(len(state.server_hz), 1), 1)
        sent = np.where(allocation.option > bands, 0, allocation.option)
        return {
            "stations": state.truth.site.tolist(), "devices": state.truth.position.tolist(),
            "option": (-(-sent // per)).tolist(), "active": state.active.tolist(), "site": "station",
        }  # fmt: skip

    def describe(self) -> dict[str, Any]:
        """Plain settings, enough to make the problem again with :meth:`restore`."""
        scenario = described(self.scenario)
        dynamics = scenario.pop("dynamics")
        for name in ADDED:  # at their defaults they are left out, as files written before they were there have it
            if getattr(self.scenario, name) == getattr(Scenario(), name):
                del scenario[name]
        out = {
            "name": "mec", "agents": self.agents, "servers": self.servers, "sites": self.sites, "scenario": scenario,
            "dynamics": dynamics,
        }  # fmt: skip
        if self.shift is not None:
            shift = described(self.shift)
            out["shift"] = {name: value for name, value in shift.items() if name not in SUNNY or value != 1.0}
        return out

    @classmethod
    def restore(cls, description: Mapping[str, Any]) -> Mec:
        """The problem that :meth:`describe` described.

        Raises:
            ValueError: a setting is missing, unknown, or not of its kind.
        """
        rest = {k: v for k, v in description.items() if k not in ("name", "shift")}
        given = alike({"agents": 50, "servers": 9, "sites": "", "scenario": {}, "dynamics": {}}, rest)
        dynamics = Dynamics(**alike(asdict(Dynamics()), given["dynamics"], "dynamics."))
        known = {name: value for name, value in asdict(Scenario()).items() if name != "dynamics"}
        told = given["scenario"]
        if isinstance(told, Mapping):
            told = {name: known[name] for name in ADDED} | dict(told)
        scenario = Scenario(**alike(known, told, "scenario."), dynamics=dynamics)
        shift = None
        if "shift" in description:
            told = description["shift"]
            if isinstance(told, Mapping):
                told = dict.fromkeys(SUNNY, 1.0) | dict(told)
            shift = restored(Shift(""), told, "shift.")
        return cls(given["agents"], given["servers"], given["sites"], scenario, shift)


def make(agents: int = 50, servers: int = 9, sites: str = "synthetic", scenario: str = "H", **changes: Any) -> Mec:
    """``make_problem("mec", ...)``: a named scenario with fields of :class:`Scenario` or :class:`Dynamics` changed.

    Raises:
        UnknownNameError: no such scenario or setting. ValueError: a setting of another kind or out of range, by name.
    """
    agents, servers = whole_number("agents", agents, 0, MOST), whole_number("servers", servers, 1, MOST)
    return Mec(agents, servers, sites, scenario_of(scenario, changes))
