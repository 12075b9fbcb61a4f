"""``voltage``: inverters on a radial feeder keep its voltages in their band by reactive power (seed 002).

N inverters with sun p and rating s feed in q within sqrt(s^2 - p^2), every 15 minutes; between, they react to their own
voltage beyond a deadband, as IEEE 1547-2018 permits. Voltages of all buses are to stay in [low, high], at the least
line loss. The operator knows its inverters now and a step ago, and loads as late as ``information`` says ("day":
yesterday's readings; net of rooftop plants, which nobody controls).

Set C (default) is 6 MW of inverters, oversized 1.2, and 5 MW of rooftop plants on a feeder with loads x 1.8; set mapdn
has MAPDN's sizing and reward, loads known now and q held between steps.

There are no options: a game of levels, see :mod:`hybridalloc.problems.voltage.core`. Recommenders of options choose
among marks, shares of an inverter's room (:mod:`coordinator.marks`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from functools import cached_property
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np

from games.certificate import CapacityCheck
from hybridalloc.errors import nearest
from hybridalloc.problems.contract import Card
from hybridalloc.problems.metrics import Metric, Ratio
from hybridalloc.problems.settings import alike
from hybridalloc.problems.slots import Slots
from hybridalloc.problems.voltage.audit import check
from hybridalloc.problems.voltage.belief import BELIEFS, RidgeBelief
from hybridalloc.problems.voltage.feeder import Feeder, feeder_named
from hybridalloc.problems.voltage.plan import Plan
from hybridalloc.problems.voltage.profiles import DAY, STEP_S
from hybridalloc.problems.voltage.rules import AS_PUBLISHED, BASELINES, BOUND
from hybridalloc.problems.voltage.setting import SETS, Prices, VoltageSetting
from hybridalloc.problems.voltage.state import VoltageState, most_mvar
from hybridalloc.problems.voltage.world import LEVEL, VoltageWorld

METRICS = (
    Metric("cost", "loss, with what leaving the band costs", "kW", "lower", Ratio("cost_kw")),
    Metric("cr", "steps with all buses inside (CR)", "%", "higher", Ratio("inside", scale=100)),
    Metric("violation", "worst voltage outside", "mpu", "lower", Ratio("worst_mpu")),
    Metric("loss", "line loss", "kW", "lower", Ratio("loss_kw")),
    Metric("q_loss", "reactive power an inverter", "Mvar", "lower", Ratio("q_mvar")),
    Metric("unsolved", "steps whose plan has no flow", "%", "lower", Ratio("unsolved", scale=100)),
)
PRICE_SPACE = {
    "toll": (0.0, 1.0, False), "margin": (1e-4, 0.02, True), "caution": (0.0, 3.0, False),
    "deadband": (0.002, 0.03, True), "breach": (30.0, 3e4, True),
}  # fmt: skip


class Memory(NamedTuple):
    """A belief and what it was told before this state, whose truth has not come in."""

    belief: RidgeBelief
    world: VoltageWorld | None


class Voltage(VoltageSetting, Slots[VoltageState, Plan, Prices]):
    """The problem with its settings; make it with ``make_problem("voltage", ...)``.

    Args:
        feeder: "case33" or "copies-k". table: a :class:`Feeder` of one's own, instead; see
            :func:`hybridalloc.problems.voltage.grid.feeder_from`.
        profiles: "synthetic" (seeded by ``year_seed``, no download) or "simbench" (from the data folder).
        variant: "C" or "mapdn", a set whose other settings may be changed.
        information: "now", "15 min" or "day", how late loads are read.
        sun_mw, roof_mw: peaks of the inverters' sun together and of rooftop plants, for a nominal load of 3.715 MW.
        load_scale: of the nominal loads. oversize: rating over peak of sun. load_seed: of what is drawn of the year.
        low, high: p.u. steepest: Mvar a p.u. that a local reaction may have. held: there is none.
        reward: what a step pays learners, "cost" or MAPDN's "l1", "l2" or "bowl"; see
            :mod:`hybridalloc.problems.voltage.reward`.
        levels: marks for recommenders of options. rounds: of the game on the exact flow in a step.
    """

    state_type: ClassVar[type[VoltageState]] = VoltageState

    @cached_property
    def card(self) -> Card:
        n = len(self.net.inverter)
        most = float(self.rating_mva.max(initial=1.0))
        real = self.profiles == "simbench"
        return Card(
            name="voltage", agents=n, epochs=DAY, prices=Prices, metrics=METRICS, headline=("cost", "cr"),
            variant=f"set {self.variant}", size=f"{n} inverters, {self.net.size} buses, {self.profiles} profiles",
            agent_word="inverter", options=("0", *(f"{100 * share:+.0f} %" for share in self.marks[1:])),
            families=("voltage",), baselines=BASELINES, published=AS_PUBLISHED, bounds={BOUND: BASELINES[BOUND]},
            price_space=PRICE_SPACE,
            reference_prices={"toll 1": Prices(toll=1.0), "toll 0": Prices(toll=0.0)},
            beliefs=BELIEFS if self.age else {}, levels={LEVEL: (-most, most)}, decides="levels",
            unit_s=STEP_S, cycle=DAY,
            datasets=("simbench",) if real else (), tags={"set": self.variant, "profiles": self.profiles},
        )  # fmt: skip

    def worlds(self, seeds: Sequence[int], belief: RidgeBelief | None = None) -> VoltageWorld:
        """E = len(seeds) feeders; seeds 5,000 to 5,099 and 10,000 to 10,099 take days of their own."""
        return VoltageWorld.fresh(self, seeds, belief)

    def world_at(self, state: VoltageState, memory: Memory | None = None) -> VoltageWorld:
        """One feeder that stands at ``state``; where ``truth`` is absent the readings are taken as true."""
        world = VoltageWorld.of_state(self, state)
        if memory is not None:
            world.belief = memory.belief
            if memory.world is not None:
                world.late, world.surprise = memory.world.late, memory.world.surprise
        return world

    def recall(self, belief: RidgeBelief, state: VoltageState, past: tuple[VoltageWorld, Plan] | None) -> Memory:
        """What ``belief`` was told before ``state``; it learns from the reading that has come in."""
        world = VoltageWorld.of_state(self, state)
        if past is not None and past[0].step[0] + 1 == state.step and past[0].late.feature.shape[2]:
            world.belief, world.late = belief, past[0].late
            world.surprise = past[0].off_by(world.told["voltage_last"], world.told["reactive_last_mvar"])
            world._remember()
        else:
            world.attach(belief)
        return Memory(belief, world)

    def check(self, state: VoltageState, allocation: Any) -> CapacityCheck:
        """Ratings kept and a power flow found, by code that no solver shares."""
        return check(self.net, state, np.asarray(getattr(allocation, LEVEL), np.float64))

    def idle(self, state: VoltageState) -> dict[str, Any]:
        """The previous set-points held, as far as there is room beside the sun."""
        most = most_mvar(state)
        none = np.zeros(state.agents)
        return {
            "option": none.astype(np.int64), "shares": {}, "held": none > 0, "floors": {}, "served": ~state.active,
            "prices": {"voltage": np.zeros(len(state.load_mw))},
            LEVEL: np.clip(state.reactive_last_mvar, -most, most),
        }  # fmt: skip

    def describe(self) -> dict[str, Any]:
        """Plain settings, enough to make the problem again with :meth:`restore`."""
        told = {f.name: getattr(self, f.name) for f in fields(VoltageSetting)}
        return {"name": "voltage"} | told | {"table": None if self.table is None else self.table.to_dict()}

    @classmethod
    def restore(cls, description: Mapping[str, Any]) -> Self:
        """The problem that :meth:`describe` described.

        Raises:
            ValueError: a setting is missing, unknown, or not of its kind.
        """
        rest = {k: v for k, v in description.items() if k not in ("name", "table")}
        known = {f.name: f.default for f in fields(VoltageSetting) if f.name != "table"}
        table = description.get("table")
        if table is not None and not isinstance(table, Mapping):
            raise ValueError("table of a description is a feeder as Feeder.to_dict() gives it, or null")
        return cls(**alike(known, rest), table=None if table is None else Feeder.from_dict(table))


def make(variant: str = "C", feeder: str | Feeder = "case33", **changes: Any) -> Voltage:
    """``make_problem("voltage", ...)``: a named set with settings of :class:`Voltage` changed.

    Raises:
        UnknownNameError: no such set or setting. InvalidStateError: a value out of range, a feeder that is not there.
    """
    if variant not in SETS:
        raise nearest("variant", str(variant), tuple(SETS))
    known = [f.name for f in fields(VoltageSetting) if f.name not in ("variant", "feeder", "table")]
    for name in changes:
        if name not in known:
            raise nearest("setting of voltage", name, known)
    given = SETS[variant] | changes
    if isinstance(feeder, Feeder):
        return Voltage(feeder=feeder.name, table=feeder, variant=variant, **given)
    feeder_named(feeder)
    return Voltage(feeder=feeder, variant=variant, **given)
