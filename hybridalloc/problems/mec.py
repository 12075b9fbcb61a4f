r"""``mec``: devices offload tasks to edge servers over a shared radio (seed 003).

N devices, K servers with M channels of 1.8 MHz. Path loss 128.1 + 37.6 log10 d_km, shadowing 8 dB, Rayleigh
fading with correlation in time, noise -174 dBm/Hz + 5 dB, power up to 30 dBm, amplifier efficiency .35. A task
has d bits, c cycles and a deadline tau; T_local = (1 - rho) c / f, T_remote = queues + rho d / R + rho c / F
+ 1 ms, T is the larger. Option 0 computes on the device (or sheds the task when that cannot be in time or the
battery cannot pay); option 1 + b sends to band b of server b // (bands a server).

Set A is the seed's range without dynamics. Set H (default) has tight deadlines and every dynamic, each a
switch: stale channel and load reports, correlation per device, blockages, interference between servers of
one reuse group, queues that carry over, batteries with harvest, migration, on/off bursts with a moving hot
spot and a drifting load. Devices' admissions are told to nobody.

A :class:`MecState` is what the operator is told, plus ``truth``, which only the simulator reads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cached_property
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from coordinator.continuous import for_option
from coordinator.game import Choice, options_of
from games.admission import Seating
from games.certificate import Audit, CapacityCheck, check_capacity, check_limit, count_excess
from games.congestion import CongestionBatch, CongestionGame, Float, Int
from games.errors import InvalidStateError
from games.places import Places, classes
from hybridalloc.problems import mec_core as core
from hybridalloc.problems import mec_world as world_law
from hybridalloc.problems.base import Metric, State, array, echo, jain, ratio, read_array, whole_number
from hybridalloc.problems.mec_audit import Believed, audit
from hybridalloc.problems.mec_belief import BELIEFS, Belief, Memory, copy_history, new_history, notice, remember_plan
from hybridalloc.problems.mec_core import Outcome, Physics, Plan, Prices, Wish, World
from hybridalloc.problems.mec_whatif import WhatIf
from hybridalloc.problems.mec_world import Law, Stream, streams
from hybridalloc.text import printable, quoted
from rl.proposal import Observation, Proposal, named

MOST = 1_000_000  # agents, servers, channels, steps of an episode
LAST_SLOT = 2**62  # later ones leave no room to count on
SITE_SIDE_M = 1000.0  # synthetic: 9 servers a square kilometre


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
    dynamics: Dynamics = field(default_factory=Dynamics)


SCENARIOS: dict[str, Scenario] = {
    "H": Scenario(),
    "A": Scenario(
        name="A", slot_s=0.1, deadline_s=(0.03, 0.08), server_hz=(20e9, 20e9), channels=10, reuse=1, load=1.0,
        episode=1000, dynamics=Dynamics.none(),
    ),
}  # fmt: skip


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
    reachable: NDArray[np.bool_] = array("N K", dtype=bool, fill=1)
    queue_s: Float = array("K", "s", low=0, fill=0)
    air_queue_s: Float = array("B", "s", low=0, fill=0)
    noise_rise: Float = array("B", low=0, fill=0)
    reuse_group: Int = array("K", dtype=int, low=0, fill=0)
    slot: int = 0
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


class Tallies(NamedTuple):
    """Running sums of one batch, (E,) each unless said otherwise."""

    generated: Float
    done: Float
    latency_s: Float
    device_j: Float
    server_j: Float
    age: Float
    sent: Float
    outage: Float
    switched: Float
    reward: Float
    slots: Float
    overload: Float  # of the raw choices
    generated_by: Float  # (E, N)
    done_by: Float  # (E, N)


METRICS = (
    Metric("welfare", "welfare", "a device and slot", "higher"),
    Metric("completion", "completion", "%", "higher"),
    Metric("latency", "latency of completed tasks", "ms", "lower"),
    Metric("tasks_per_joule", "tasks per joule of the devices", "1/J", "higher"),
    Metric("tasks_per_joule_all", "tasks per joule with servers", "1/J", "higher"),
    Metric("aoi", "age of information", "slots", "lower"),
    Metric("outage", "outage", "%", "lower"),
    Metric("jain", "Jain index of completion", "", "higher"),
    Metric("migrations", "migrations", "% of tasks", "lower"),
    Metric("raw_violation", "resources the raw choice overloads", "%", "lower"),
)


@dataclass(frozen=True)
class Mec(WhatIf):
    """The problem with its settings; make it with ``make_problem("mec", ...)``.

    Args:
        agents, servers: N and K of the states that ``reset`` draws (``step`` takes states of any size).
        sites: "synthetic" (near-hexagonal, 9 servers a square km) or "eua" (Melbourne's base stations and users).
        scenario: "H", "A" or a :class:`Scenario`.
    """

    agents: int = 50
    servers: int = 9
    sites: str = "synthetic"
    scenario: Scenario = SCENARIOS["H"]
    name: ClassVar[str] = "mec"
    state_type: ClassVar[type[MecState]] = MecState
    metrics: ClassVar[tuple[Metric, ...]] = METRICS
    baselines: ClassVar[tuple[str, ...]] = ("local", "nearest", "random", "greedy")
    families: ClassVar[tuple[str, ...]] = ("air", "cpu")
    prices_type: ClassVar[type[Prices]] = Prices
    beliefs: ClassVar[dict[str, Any]] = BELIEFS
    # knobs of the random search: (lowest, highest, logarithmic); a miss is the unit, as in the reward
    price_space: ClassVar[dict[str, tuple[float, float, bool]]] = {
        "toll": (0.0, 4.0, False),
        "delay": (0.02, 1.0, True),
        "energy": (0.02, 1.0, True),
        "risk": (0.5, 3.0, False),
        "backlog": (0.0, 0.5, False),
        "migration": (0.01, 0.5, True),
        "interference": (1e-4, 1e-1, True),
        "margin": (0.6, 1.0, False),
        "caution": (0.2, 0.9, False),
    }

    def __post_init__(self) -> None:
        if self.agents < 0 or self.servers < 1:
            raise ValueError(f"agents = {self.agents}, servers = {self.servers}; need agents >= 0 and servers >= 1")
        if self.sites not in ("synthetic", "eua"):
            raise ValueError(f"sites = {self.sites!r}; choose 'synthetic' or 'eua'")
        if self.scenario.channels < 1 or self.scenario.reuse < 1:
            raise ValueError("a scenario has at least 1 channel and reuse 1")
        if len(self.scenario.priority) != 3 or not all(w >= 0 for w in self.scenario.priority):
            raise ValueError(f"priority = {self.scenario.priority}; three weights >= 0: alpha, beta, gamma")
        if self.scenario.priority_gap is not None and not self.scenario.priority_gap >= 0:
            raise ValueError(f"priority_gap = {self.scenario.priority_gap}; it must be >= 0, or None: by service class")

    @property
    def bands(self) -> int:
        """Bands a server: its channels where devices choose one, otherwise one pooled band."""
        return self.scenario.channels if self.scenario.choose_channel else 1

    @cached_property
    def physics(self) -> Physics:
        s, d = self.scenario, self.scenario.dynamics
        band_hz = s.channel_hz * (1 if s.choose_channel else s.channels)
        noise_dbm = -174.0 + 5.0 + 10 * np.log10(band_hz)
        return Physics(
            slot_s=s.slot_s, band_hz=band_hz, noise_w=float(10 ** ((noise_dbm - 30) / 10)), power_w=1.0,
            nominal_w=0.2, least_w=0.001, efficiency=0.35, kappa=s.kappa, backhaul_s=1e-3, switch_s=4e-3,
            battery_j=1.0, queue_cap_s=3 * s.slot_s, server_j=3e-9, static_w=s.static_w, reward_energy=0.2,
            reward_age=0.05, reward_switch=0.1, interference=d.interference, queues=d.queues,
            batteries=d.batteries, migration=d.migration, power_control=s.power_control, partial=s.partial,
            floors=s.floors,
        )  # fmt: skip

    @cached_property
    def law(self) -> Law:
        """How tasks, batteries and channels change from slot to slot."""
        s, d = self.scenario, self.scenario.dynamics
        pair = lambda span: (float(span[0]), float(span[1]))
        return Law(
            load=float(s.load), bits=pair(s.bits), cycles_per_bit=pair(s.cycles_per_bit),
            deadline_s=pair(s.deadline_s), device_hz=pair(s.device_hz), server_hz=pair(s.server_hz),
            harvest_j=float(s.harvest_j), battery_j=self.physics.battery_j, staleness=d.staleness,
            varied_fading=d.varied_fading, blockage=d.blockage, batteries=d.batteries, bursts=d.bursts,
        )  # fmt: skip

    def options(self, servers: int | None = None) -> Int:
        """(1 + B, 2) resources of each option: none, then band b and the CPU of its server."""
        k = self.servers if servers is None else servers
        b = np.arange(k * self.bands)
        rows = np.stack([b, k * self.bands + b // self.bands], axis=1)
        return np.concatenate([[[-1, -1]], rows]).astype(np.int64)

    def batch(self, seeds: Sequence[int], belief: Belief | None = None) -> MecBatch:
        """E = len(seeds) networks, each with its own stream of randomness."""
        batch = MecBatch.fresh(self, seeds)
        return batch if belief is None else batch.attach(belief)

    def batch_of(self, state: MecState, memory: Memory | None = None) -> MecBatch:
        """A batch of one that stands at ``state``; where ``truth`` is absent the reports are taken as true.

        ``memory`` (see :meth:`recall`) holds a belief and what it remembers; without, reports are believed.
        """
        batch = MecBatch.of_state(self, state)
        return batch if memory is None else batch.resume(memory)

    def recall(self, belief: Belief, state: MecState, past: tuple[MecBatch, Plan] | None) -> Memory:
        """What ``belief`` remembers of the slots before ``state``; it learns from what the new reports reveal.

        ``past`` is the last slot's batch and the plan executed there; where it is not of the slot before, of the same
        devices and servers, the memory begins here.
        """
        new = MecBatch.of_state(self, state)
        if past is None or past[0].world.rate.shape != new.world.rate.shape or past[0].world.slot[0] + 1 != state.slot:
            return Memory(belief, new.history)
        last, plan = past
        new.history = last.history
        belief.reveal(new)
        history = copy_history(last.history)
        remember_plan(self.physics, last.world, history, plan)
        return Memory(belief, history, last.world.attenuation)

    def reset(self, seed: int = 0) -> MecState:
        """The first slot of a new network."""
        return self.batch([seed]).state(0)

    def evaluate(self, state: MecState, allocation: Any) -> dict[str, float]:
        """One slot's metrics of an allocation, without moving on."""
        batch = self.batch_of(state)
        batch.execute(batch.plan_of(allocation))
        return {key: float(value[0]) for key, value in batch.summary().items()}

    def advance(self, state: MecState, allocation: Any, seed: int) -> tuple[MecState, dict[str, float]]:
        """Execute an allocation; the next slot's state, and this slot's metrics."""
        batch = self.batch_of(state)
        batch.stream = streams([seed])
        batch.execute(batch.plan_of(allocation))
        metrics = {key: float(value[0]) for key, value in batch.summary().items()}
        batch.drift()
        return batch.state(0), metrics

    def check(self, state: MecState, allocation: Any) -> CapacityCheck:
        """Feasibility of an allocation from the definitions, by code that no solver shares."""
        p = self.physics
        n = state.agents
        option = np.asarray(allocation.option)
        band = np.where(option > 0, option - 1, -1)
        per = max(state.reported_gain_db.shape[1] // max(len(state.server_hz), 1), 1)
        server = np.where(option > 0, (option - 1) // per, -1)
        left = np.where(option > 0, 1 - np.asarray(allocation.fraction), 1.0)  # done on the device
        local_s = left * state.task_cycles / state.device_hz
        local_j = left * p.kappa * state.device_hz**2 * state.task_cycles
        started = state.active & (local_s <= state.deadline_s) & (local_j <= state.battery_j if p.batteries else True)
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
        lost = np.flatnonzero((option != 0) & ~((option > 0) & reached))
        if len(lost):
            lines = tuple(f"reach: agent {i} takes option {option[i]}, which it cannot reach" for i in lost)
            checks.append(CapacityCheck(float("inf"), lines))
        worst = max(c.max_violation for c in checks)
        return CapacityCheck(worst, tuple(v for c in checks for v in c.violations))

    def audit(self, state: MecState, allocation: Any, prices: Prices, believed: Believed | None = None) -> Audit:
        """The certificate's second reading of a state and an allocation; see :mod:`mec_audit`."""
        return audit(self, state, allocation, prices, believed)

    @property
    def continuous(self) -> dict[str, tuple[float, float]]:
        """Quantities that a learner may propose beside an option, with their least and greatest values."""
        p = self.physics
        power = {"power": (p.least_w, p.power_w)} if p.power_control else {}
        return power | ({"fraction": (0.0, 1.0)} if p.partial else {})

    def describe(self) -> dict[str, Any]:
        """Plain settings, enough to make the problem again with :meth:`restore`."""
        scenario = {f.name: getattr(self.scenario, f.name) for f in fields(Scenario) if f.name != "dynamics"}
        dynamics = {f.name: getattr(self.scenario.dynamics, f.name) for f in fields(Dynamics)}
        return {
            "name": self.name, "agents": self.agents, "servers": self.servers, "sites": self.sites,
            "scenario": {k: list(v) if isinstance(v, tuple) else v for k, v in scenario.items()},
            "dynamics": dynamics,
        }  # fmt: skip

    @classmethod
    def restore(cls, data: dict[str, Any]) -> Mec:
        """The problem that :meth:`describe` described.

        Raises:
            ValueError: a setting is missing, unknown, or not of its kind.
        """
        whole = {"agents": 50, "servers": 9, "sites": "", "scenario": {}, "dynamics": {}}
        given = _like(whole, {k: v for k, v in data.items() if k != "name"}, "")
        scenario, dynamics = asdict(Scenario()), asdict(Dynamics())
        del scenario["dynamics"]
        made = Scenario(
            **_like(scenario, given["scenario"], "scenario."),
            dynamics=Dynamics(**_like(dynamics, given["dynamics"], "dynamics.")),
        )
        return cls(given["agents"], given["servers"], given["sites"], made)


def _like(known: dict[str, Any], given: dict[str, Any], at: str) -> dict[str, Any]:
    """``given`` with lists as tuples, if it has the fields of ``known`` and each is of its kind."""
    out = {}
    for name in (*known, *given):
        if name not in known or name not in given:
            raise ValueError(f"{at}{printable(name)} is {'unknown' if name in given else 'missing'} in a description")
        value, like = given[name], known[name]
        spans = isinstance(like, tuple)
        fits = isinstance(value, list | tuple) and len(value) == len(like) if spans else True
        if not fits or not all(map(_of_kind, value, like) if spans else [_of_kind(value, like)]):
            raise ValueError(f"{at}{name} = {quoted(value)}; it must be like {quoted(like)}, and finite")
        out[name] = tuple(value) if spans else value
    return out


def _of_kind(value: Any, like: Any) -> bool:
    if type(value) in (int, float):
        wanted: tuple[type, ...] = (int, float) if type(like) is float else (int,)
        return type(value) in wanted and (type(like) is not bool or value in (0, 1)) and -1e15 < value < 1e15
    return type(value) is type(like)


class MecBatch:
    """E networks stepped together. The trainer's view of the problem, and the allocator's with E = 1.

    All that the future depends on: ``world``, ``age`` (E,) slots since reset, and ``stream`` (E, 2), the whole state
    of the random numbers (see :mod:`mec_world`). ``tallies`` hold the figures since they were cleared.
    """

    def __init__(self, problem: Mec, world: World, options: Int, stream: Stream) -> None:
        self.problem, self.world, self.options, self.stream = problem, world, options, stream
        self.physics, self.law = problem.physics, problem.law
        e, n = world.active.shape
        self.age = np.zeros(e, np.int64)  # slots since reset
        self.tallies = _tallies(e, n)
        self.belief: Belief | None = None
        self.memory: Memory | None = None  # as it was before this slot's reports
        self.responses: dict[str, Float] = {}
        self.history = new_history(e, n, world.rate.shape[2], world.server_hz.shape[1])
        self.blocked_then: Float = world.attenuation  # the Bayesian oracle's note
        core.believe(self.physics, world, np.ones(e, bool))

    @property
    def size(self) -> int:
        return len(self.world.active)

    def attach(self, belief: Belief | None) -> MecBatch:
        """Believe ``belief`` from now on, instead of the reports at their face value; returns this batch."""
        self.belief = belief
        values = 1 if belief is None else belief.quantiles
        self.world = self.world._replace(rates=np.zeros((*self.world.rate.shape, values)))
        self._believe(np.ones(self.size, bool))
        return self

    def resume(self, memory: Memory) -> MecBatch:
        """Go on with a belief and what it remembers; the memory is left as it was."""
        self.memory, self.history = memory, copy_history(memory.history)
        if memory.blocked_then is not None:
            self.blocked_then = memory.blocked_then
        return self.attach(memory.belief)

    def _believe(self, which: NDArray[np.bool_]) -> None:
        """New reports of the networks ``which`` are in."""
        core.believe(self.physics, self.world, which)
        if self.belief is not None:
            notice(self.physics, self.world, self.history, which)
            self.belief.look(self, which)

    @classmethod
    def fresh(cls, problem: Mec, seeds: Sequence[int]) -> MecBatch:
        e, n, k, per = len(seeds), problem.agents, problem.servers, problem.bands
        batch = cls(problem, _empty_world(e, n, k, k * per), problem.options(), streams(seeds))
        batch.restart(np.ones(e, bool))
        return batch

    @classmethod
    def of_state(cls, problem: Mec, state: MecState) -> MecBatch:
        n, k = state.mean_gain_db.shape
        bands = state.reported_gain_db.shape[1]
        world = _empty_world(1, n, k, bands)
        for name in OBSERVED:
            getattr(world, name)[0] = getattr(state, name)
        world.slot[0] = state.slot
        world.mean_gain[0] = 10 ** (state.mean_gain_db / 10)
        world.reported_gain[0] = 10 ** (state.reported_gain_db / 10)
        if state.truth is None:
            world.backlog_s[0], world.air_backlog_s[0] = state.queue_s, state.air_queue_s
            world.fading[0, :, :, 0] = np.sqrt(
                world.reported_gain[0] / np.repeat(world.mean_gain[0], bands // max(k, 1), axis=1)
            )
            world.correlation[0] = 0.7
            world.attenuation[0] = 1.0
            world.bursting[0] = state.activity >= 0.5
            world.position[0] = SITE_SIDE_M  # the sites stay at 0: nobody is near a hot spot
        else:
            for name in HIDDEN:
                getattr(world, name)[0] = getattr(state.truth, name)
        world_law.gain(world, 0, bands // max(k, 1))
        rows = problem.options(k) if bands == k * problem.bands else _options(k, bands)
        return cls(problem, world, rows, streams([0]))

    def state(self, e: int) -> MecState:
        """Network ``e`` as a state with its truth."""
        w = self.world
        truth = MecTruth(**{name: getattr(w, name)[e] for name in HIDDEN})
        return MecState(
            **{name: getattr(w, name)[e] for name in OBSERVED},
            mean_gain_db=10 * np.log10(w.mean_gain[e]),
            reported_gain_db=10 * np.log10(np.maximum(w.reported_gain[e], 1e-30)),
            slot=int(w.slot[e]),
            truth=truth,
        )

    # --- what the coordinator and the recommenders read

    def observe(self) -> Observation:
        """Features of every network; see :func:`mec_core.observe`."""
        w = self.world
        e, n, b = w.rate.shape
        agent = np.empty((e, n, core.AGENT_FEATURES), np.float32)
        server = np.empty((e, b, core.SERVER_FEATURES), np.float32)
        pair = np.empty((e, n, 1 + b, core.PAIR_FEATURES), np.float32)
        core.observe(self.physics, w, agent, server, pair)
        allowed = np.ones((e, n, 1 + b), bool)
        allowed[:, :, 1:] = np.repeat(w.reachable, b // max(w.server_hz.shape[1], 1), axis=2)
        rows = np.concatenate([[-1], np.arange(b)])
        return Observation(agent, server, pair, w.active.copy(), allowed, rows)

    def game(self, prices: Prices) -> CongestionBatch:
        """The congestion game of each network under ``prices``; agents without a task are not live."""
        w = self.world
        e, n, b = w.rate.shape
        r = b + w.server_hz.shape[1]
        weight = np.zeros((e, n, r))
        capacity = np.ones((e, r))
        private = np.zeros((e, n, 1 + b))
        allowed = np.zeros((e, n, 1 + b), bool)
        allowed[..., 0] = True
        core.fill_game(self.physics, w, prices, weight, capacity, private, allowed)
        return CongestionBatch(self.options, weight, capacity, private, allowed, w.active, np.full((e, r), prices.toll))

    def single_game(self, prices: Prices) -> CongestionGame:
        """The game of a batch of one, for certificates: agents without a task have only option 0, at no cost."""
        g = self.game(prices)
        return CongestionGame(
            g.options,
            g.weight[0],
            g.capacity[0],
            g.private_cost[0],
            g.allowed[0],
            np.full(g.weight.shape[2], prices.toll),
        )

    def places(self, prices: Prices, game: CongestionBatch) -> Places | None:
        """What serving each device on each option takes; see :func:`mec_core.fill_places`. None in a scenario without
        floors: nothing is reserved there. Nobody is moved to make room: being served is a matter of chance here, and a
        move to a worse link costs more than one more place with little to spare brings."""
        if not self.physics.floors:
            return None
        w = self.world
        shape = game.private_cost.shape
        p = Places(
            np.zeros((*shape, 2)), np.zeros(shape), np.full(shape, np.inf), np.zeros(shape, bool), self.classes(),
            np.zeros(shape[:2], bool), np.full(shape[:2], np.nan), effort=0,
        )  # fmt: skip
        core.fill_places(self.physics, w, prices, game, p.seconds, p.slack, p.acceptable, p.home)
        return p

    def classes(self) -> Int:
        """(E, N) class of each device, 0 the highest: by service class, or by priority within the scenario's gap."""
        gap = self.problem.scenario.priority_gap
        return classes(self.world.sla) if gap is None else classes(self.priority(), gap)

    def settle(
        self, choice: Choice | Int, prices: Prices, proposal: Proposal | None = None, trust: float = np.inf,
        seating: Seating | None = None,
    ) -> Plan:  # fmt: skip
        """Shares, power and fractions for a joint choice (E, N), after the safety filter: what is executed.

        A choice of a server out of reach, or of a device without a task, becomes option 0. ``proposal`` gives levels:
        "power" in W and "fraction", either or both, (E, N, D) or, for whichever option is taken, (E, N, O, D); every
        device's best response is pulled towards its mean by its spread, the less the larger ``trust`` is.
        ``responses`` then holds those best responses, nan where there was none to pull.
        ``seating`` is stable admission's answer for ``choice``: its floors are kept, and who holds a place is served.
        """
        w = self.world
        e, n, b = w.rate.shape
        k = w.server_hz.shape[1]
        option = options_of(choice)
        server = np.maximum(option - 1, 0) // max(b // max(k, 1), 1)
        reached = np.take_along_axis(w.reachable, server[..., None], 2)[..., 0] if k else np.zeros((e, n), bool)
        plan = Plan(
            np.where(w.active & reached, option, 0), np.zeros((e, n)), np.zeros((e, n)), np.zeros((e, n)),
            np.zeros((e, n)), np.ones((e, n), bool), np.zeros((e, b)), np.zeros((e, k)), np.zeros((e, n), bool),
            np.zeros((e, n)), np.zeros((e, n)),
        )  # fmt: skip
        if seating is not None:
            plan.held[:] = seating.held & (plan.option == option)
            plan.air_floor[plan.held] = seating.floor[plan.held, 0]
            plan.cpu_floor[plan.held] = seating.floor[plan.held, 1]
        asked = Wish(*(np.full((e, n), fill) for fill in (0.0, np.inf, 0.0, np.inf, np.nan, np.nan)))
        self.responses = {"power": asked.power_response, "fraction": asked.fraction_response}
        if proposal is not None and np.isfinite(trust):
            if unknown := set(proposal.levels) - {"power", "fraction"}:
                raise ValueError(f"a proposal's level is {min(unknown)!r}; mec decides power and fraction")
            levels = named(proposal) or {}
            asked = asked._replace(**{name: for_option(value, plan.option) for name, value in levels.items()})
        core.settle(self.physics, w, prices, self.priority(), self.classes(), asked, trust, seating is not None, plan)
        return plan

    def believed(self) -> Believed | None:
        """What a belief says of network 0, as data for the certificate; None where the reports are believed."""
        w = self.world
        return None if self.belief is None else Believed(w.rates[0], w.cpu_wait_s[0], w.air_wait_s[0])

    def priority(self) -> Float:
        """(E, N) the seed's P = alpha (1 - t_remaining / tau) + beta c / c_max + gamma SLA, terms in [0, 1].

        The weights are the scenario's. A task is decided in the slot it comes in, so what is gone of its time is
        what its queues will take.
        """
        w = self.world
        s = self.problem.scenario
        alpha, beta, gamma = s.priority
        most = s.bits[1] * s.cycles_per_bit[1]
        waited = w.queue_s.min(axis=1, initial=np.inf)[:, None] / w.deadline_s
        return np.asarray(alpha * np.clip(waited, 0, 1) + beta * np.clip(w.task_cycles / most, 0, 1) + gamma * w.sla)

    def baseline(self, name: str, rng: np.random.Generator) -> Int:
        """(E, N) joint choice of a heuristic: local, nearest, random or greedy."""
        w = self.world
        e, n, b = w.rate.shape
        k = w.server_hz.shape[1]
        per = b // k if k else 1
        reach = np.repeat(w.reachable, per, axis=2)
        if name == "local":
            option = np.zeros((e, n), np.int64)
        elif name == "random":
            weight = np.concatenate([np.ones((e, n, 1), bool), reach], axis=2) * rng.random((e, n, 1 + b))
            option = weight.argmax(axis=2)
        elif name == "nearest":
            gain = np.where(reach, np.repeat(w.mean_gain, per, axis=2), -1.0)
            gain = gain + 1e-30 * rng.random(gain.shape) if per > 1 else gain
            option = np.where(reach.any(axis=2), 1 + gain.argmax(axis=2), 0)
        elif name == "greedy":  # fastest by its own reports, as if alone
            time = w.task_bits[..., None] / w.rate + np.repeat(
                w.task_cycles[..., None] / w.server_hz[:, None] + w.queue_s[:, None], per, axis=2
            )
            time = np.where(reach, time + w.air_queue_s[:, None], np.inf)
            local = w.task_cycles / w.device_hz
            option = np.where(local <= time.min(axis=2, initial=np.inf), 0, 1 + time.argmin(axis=2))
        else:
            raise ValueError(f"unknown baseline {name!r}; known: {', '.join(Mec.baselines)}")
        return np.where(w.active, option, 0).astype(np.int64)

    def excess(self, plan: Plan) -> Float:
        """(E,) worst relative excess over any capacity or power limit, by the certificate's own code."""
        w = self.world
        b, k = w.rate.shape[2], w.server_hz.shape[1]
        band = np.where(plan.option > 0, plan.option - 1, -1)
        server = np.where(plan.option > 0, (plan.option - 1) // (b // max(k, 1)), -1)
        worst = np.maximum(count_excess(band, plan.air, b), count_excess(server, plan.cpu, k))
        over = np.maximum(plan.power_w - self.physics.power_w, -plan.power_w) / self.physics.power_w
        return np.asarray(np.maximum(worst, over.max(axis=1, initial=0.0)))

    def overload(self, option: Int, prices: Prices) -> Float:
        """(E,) share of used resources that a raw choice, executed as requested, would overload."""
        out = np.empty(self.size)
        core.overload(self.physics, self.world, prices, np.ascontiguousarray(option, np.int64), out)
        return out

    # --- what the world does

    def execute(self, plan: Plan, raw: Float | None = None) -> Outcome:
        """Run one slot; batteries, queues and ages move on, reports and tasks do not (see :meth:`drift`)."""
        w = self.world
        e, n, b = w.rate.shape
        f = lambda *shape: np.zeros((e, *shape))
        out = Outcome(
            f(n), np.zeros((e, n), bool), f(n), f(n), f(), f(n), np.zeros((e, n), bool), f(n), f(n, core.HORIZON), f(b)
        )
        queue, air_queue = w.backlog_s.copy(), w.air_backlog_s.copy()
        core.execute(self.physics, w, plan, out)
        stale = self.problem.scenario.dynamics.staleness
        w.queue_s[:] = queue if stale else w.backlog_s
        w.air_queue_s[:] = air_queue if stale else w.air_backlog_s
        w.noise_rise[:] = out.rise
        if stale:
            w.reported_gain[:] = w.true_gain
        if self.belief is not None:
            self.belief.reveal(self)
            remember_plan(self.physics, w, self.history, plan)
        self._tally(out, raw)
        return out

    def drift(self) -> None:
        """The next slot: tasks, fading, blockages, harvest. Draws the same numbers whatever was executed."""
        w = self.world
        world_law.drift(self.law, w, self.stream)
        self.age += 1
        if not self.problem.scenario.dynamics.staleness:
            w.reported_gain[:] = w.true_gain
        self._believe(np.ones(self.size, bool))

    def restart(self, which: NDArray[np.bool_]) -> None:
        """New networks where ``which`` (E,) is set, from each one's own stream."""
        if not which.any():
            return
        for e in np.flatnonzero(which):
            self._restart_one(int(e))
        self.age[which] = 0
        self.history.seen[which] = 0
        self._believe(which)

    def _restart_one(self, e: int) -> None:
        w = self.world
        site, position = _places(self.problem, world_law.renew(self.stream, e))
        w.site[e], w.position[e] = site, position
        w.reuse_group[e] = _reuse_groups(site, self.problem.scenario.reuse)
        world_law.restart(self.law, w, self.stream, e)

    def plan_of(self, allocation: Any) -> Plan:
        """An allocation of one network as a plan that :meth:`execute` runs."""
        one = lambda a, t=np.float64: np.ascontiguousarray(a, dtype=t)[None]
        zero = np.zeros(len(allocation.option))
        held, floors = getattr(allocation, "held", zero), getattr(allocation, "floors", {})  # absent: nothing promised
        return Plan(
            one(allocation.option, np.int64), one(allocation.shares["air"]), one(allocation.shares["cpu"]),
            one(allocation.power), one(allocation.fraction), one(allocation.served, np.bool_),
            one(allocation.prices["air"]), one(allocation.prices["cpu"]), one(held, np.bool_),
            one(floors.get("air", zero)), one(floors.get("cpu", zero)),
        )  # fmt: skip

    def parts(self, plan: Plan) -> dict[str, Any]:
        """A plan of one network as the fields of an allocation."""
        return {
            "option": plan.option[0], "shares": {"air": plan.air[0], "cpu": plan.cpu[0]}, "power": plan.power_w[0],
            "fraction": plan.fraction[0], "served": plan.served[0],
            "prices": {"air": plan.air_price[0], "cpu": plan.cpu_price[0]}, "held": plan.held[0],
            "floors": {"air": plan.air_floor[0], "cpu": plan.cpu_floor[0]},
        }  # fmt: skip

    # --- figures

    def clear_tallies(self) -> None:
        self.tallies = _tallies(*self.world.active.shape)

    def _tally(self, out: Outcome, raw: Float | None) -> None:
        world_law.tally(self.tallies, self.world, out)
        if raw is not None:
            self.tallies.overload[:] += raw

    def summary(self) -> dict[str, Float]:
        """(E,) of each metric since the last ``clear_tallies``; nan where it is a mean of nothing."""
        t = self.tallies
        slots = t.slots if self.world.active.shape[1] else np.zeros_like(t.slots)  # in which there was an agent
        return {
            "welfare": ratio(t.reward, slots),
            "completion": 100 * ratio(t.done, t.generated),
            "latency": 1e3 * ratio(t.latency_s, t.done),
            "tasks_per_joule": ratio(t.done, t.device_j),
            "tasks_per_joule_all": ratio(t.done, t.device_j + t.server_j),
            "aoi": ratio(t.age, slots),
            "outage": 100 * ratio(t.outage, t.sent),
            "jain": jain(t.done_by, t.generated_by),
            "migrations": 100 * ratio(t.switched, t.generated),
            "raw_violation": 100 * ratio(t.overload, t.slots),
        }


OBSERVED = (
    "active", "task_bits", "task_cycles", "deadline_s", "device_hz", "battery_j", "age_slots", "last_server",
    "activity", "sla", "reachable", "server_hz", "reuse_group", "queue_s", "air_queue_s", "noise_rise",
)  # fmt: skip
HIDDEN = tuple(f.name for f in fields(MecTruth))


def make(agents: int = 50, servers: int = 9, sites: str = "synthetic", scenario: str = "H", **changes: Any) -> Mec:
    """``make_problem("mec", ...)``: a named scenario with fields of :class:`Scenario` or :class:`Dynamics` changed.

    Raises:
        UnknownNameError: no such scenario or setting. ValueError: a setting of another kind or out of range, by name.
    """
    from hybridalloc.errors import nearest

    agents, servers = whole_number("agents", agents, 0, MOST), whole_number("servers", servers, 1, MOST)
    if not isinstance(scenario, str) or scenario not in SCENARIOS:
        raise nearest("scenario", scenario if isinstance(scenario, str) else echo(scenario), SCENARIOS)
    base = SCENARIOS[scenario]
    switches = {f.name for f in fields(Dynamics)}
    known = switches | {f.name for f in fields(Scenario)}
    for name in changes:
        if name not in known:
            raise nearest("setting of mec", name, known | {"agents", "servers", "sites", "scenario"})
        like = getattr(base.dynamics if name in switches else base, name)
        changes[name] = _setting(name, changes[name], like)
    dynamics = replace(changes.get("dynamics", base.dynamics), **{k: v for k, v in changes.items() if k in switches})
    rest = {k: v for k, v in changes.items() if k not in switches and k != "dynamics"}
    return Mec(agents, servers, sites, replace(base, dynamics=dynamics, **rest))


def _setting(name: str, value: Any, like: Any) -> Any:
    """A setting of the kind of its default: a switch, a whole number, a number (or None), as many numbers, a name."""
    if like is None and value is None:
        return None
    if isinstance(like, bool):
        if not isinstance(value, bool | np.bool_):
            raise InvalidStateError(f"{name} = {echo(value)}; it must be true or false")
        return bool(value)
    if isinstance(like, int):
        return whole_number(name, value, 1, MOST)
    if like is None or isinstance(like, float):
        number = read_array(name, value, "")
        if number.ndim or not np.isfinite(number) or number < 0:
            raise InvalidStateError(f"{name} = {echo(value)}; it must be a finite number >= 0")
        if name in ("slot_s", "channel_hz") and not number > 0:
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


def _options(servers: int, bands: int) -> Int:
    b = np.arange(bands)
    return np.concatenate([[[-1, -1]], np.stack([b, bands + b // (bands // servers)], axis=1)]).astype(np.int64)


def _empty_world(e: int, n: int, k: int, b: int) -> World:
    f = lambda *shape: np.zeros((e, *shape))
    i = lambda *shape: np.zeros((e, *shape), np.int64)
    flag = lambda *shape: np.zeros((e, *shape), bool)
    h = core.HORIZON
    return World(
        active=flag(n), task_bits=f(n), task_cycles=f(n), deadline_s=f(n), device_hz=f(n), battery_j=f(n),
        age_slots=f(n), last_server=i(n), activity=f(n), sla=f(n), mean_gain=f(n, k), reported_gain=f(n, b),
        reachable=flag(n, k), server_hz=f(k), reuse_group=i(k), queue_s=f(k), air_queue_s=f(b), noise_rise=f(b),
        slot=i(), fading=f(n, b, 2), attenuation=f(n, k), true_gain=f(n, b), backlog_s=f(k), air_backlog_s=f(b),
        correlation=f(n), bursting=flag(n), position=f(n, 2), site=f(k, 2), rates=f(n, b, 1), rate=f(n, b),
        cpu_wait_s=f(k), air_wait_s=f(b),
        trail_band=i(n, h) - 1, trail_cpu_s=f(n, h), trail_air_s=f(n, h),
    )  # fmt: skip


def _tallies(e: int, n: int) -> Tallies:
    by_device = ("generated_by", "done_by")
    return Tallies(**{name: np.zeros((e, n) if name in by_device else e) for name in Tallies._fields})


def _places(problem: Mec, rng: np.random.Generator) -> tuple[Float, Float]:
    """Server sites (K, 2) and device positions (N, 2) in m."""
    n, k = problem.agents, problem.servers
    if problem.sites == "synthetic":
        side = SITE_SIDE_M * np.sqrt(k / 9)
        return _hexagonal(k, side), rng.uniform(0, side, (n, 2))
    sites, users = _eua(k)
    if n <= len(users):
        return sites, users[rng.choice(len(users), n, replace=False)]
    return sites, users[rng.integers(0, len(users), n)] + rng.normal(0, 10.0, (n, 2))


_CACHE: dict[Any, Any] = {}


def _hexagonal(k: int, side: float) -> Float:
    """Near-hexagonal sites: Lloyd's algorithm on a fine grid."""
    if (k, side) not in _CACHE:
        rng = np.random.default_rng(0)
        grid = np.stack(np.meshgrid(*[np.linspace(0, side, 40)] * 2), -1).reshape(-1, 2)
        _CACHE[k, side] = _lloyd(grid, grid[rng.choice(len(grid), k, replace=False)])
    return np.asarray(_CACHE[k, side])


def _eua(k: int) -> tuple[Float, Float]:
    """K of the 125 base stations, chosen to be near the users, and all user positions."""
    if ("eua", k) not in _CACHE:
        from hybridalloc.data import eua_sites

        sites, users = eua_sites()
        if k > len(sites):
            raise ValueError(f"servers = {k}; the EUA data has {len(sites)} base stations")
        left = list(range(len(sites)))
        distance = ((users[:, None] - sites[None]) ** 2).sum(-1)
        chosen: list[int] = []
        nearest = np.full(len(users), np.inf)
        for _ in range(k):  # greedy k-median: the station that lowers the users' total squared distance most
            gain = [np.minimum(nearest, distance[:, j]).sum() for j in left]
            best = left.pop(int(np.argmin(gain)))
            chosen.append(best)
            nearest = np.minimum(nearest, distance[:, best])
        _CACHE["eua", k] = sites[chosen], users
    sites, users = _CACHE["eua", k]
    return sites, users


def _lloyd(points: Float, centres: Float) -> Float:
    for _ in range(25):
        owner = ((points[:, None] - centres[None]) ** 2).sum(-1).argmin(1)
        centres = np.array([points[owner == j].mean(0) if (owner == j).any() else c for j, c in enumerate(centres)])
    return centres


def _reuse_groups(site: Float, groups: int) -> Int:
    """Servers in turn take the group whose nearest member is farthest away: neighbours differ."""
    key = ("reuse", site.tobytes(), groups)
    if key not in _CACHE:
        out = np.zeros(len(site), np.int64)
        for j in range(1, len(site) if groups > 1 else 0):
            d = ((site[:j] - site[j]) ** 2).sum(-1)
            out[j] = int(np.argmax([d[out[:j] == g].min(initial=np.inf) for g in range(groups)]))
        _CACHE[key] = out
    return np.asarray(_CACHE[key])
