"""A complete domain in one file: cars come off a ferry and choose a charger, or drive on.

Ferries land at unequal gaps until the harbour closes. Cars at one charger share its power, and what is not charged when
the next ferry lands keeps its cars waiting: crowding costs later cars, which no game of one ferry sees and a learner
can. Try it where this file lies: ``hybridalloc compare --problem chargers:Chargers``.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from coordinator.game import options_of
from games.certificate import CapacityCheck, check_capacity, check_limit
from games.congestion import CongestionBatch
from hybridalloc.problems.contract import Bool, Card, Facts, Float, Int
from hybridalloc.problems.metrics import Metric, Quantile, Ratio
from hybridalloc.problems.slots import StateSlots, StateWorld
from hybridalloc.problems.state import State, array
from rl.proposal import Observation


class Prices(NamedTuple):
    crowd: float = 1.0  # how much of the delay that a car is to the others it is charged
    leave: float = 1.0  # how much dearer than it is driving on is taken to be


@dataclass(frozen=True)
class Landing(State):
    """What is known when a ferry lands: N places for cars, R chargers."""

    need_kwh: Float = array("N", "kWh", above=0)
    leave_h: Float = array("N", "h", low=0)  # what driving on costs, in hours
    detour_h: Float = array("N R", "h", low=0)
    speed_kw: Float = array("R", "kW", above=0)
    wait_h: Float = array("R", "h", low=0)
    active: Bool = array("N", dtype=bool, fill=1)
    hour: float = 0.0


class Plan(NamedTuple):
    option: Int  # (E, N)
    share: Float  # (E, N) of the charger's power


class Harbour(StateWorld["Chargers", Landing, Prices]):
    """E harbours side by side."""

    def fresh(self) -> dict[str, Float]:  # left_h: of a queue, what is due to the car of h + 1 ferries ago
        return {"gap_h": np.zeros(self.size), "left_h": np.zeros((*self.at["detour_h"].shape, 4))}

    def following(self, e: int, rng: np.random.Generator) -> Landing:
        return self.problem.first(rng, self.at["wait_h"][e], self.at["hour"][e] + self.own["gap_h"][e])

    def ended(self) -> Bool:
        return np.asarray(self.at["hour"] >= self.problem.closes)

    terminated = property(ended)  # for good: nobody waits overnight

    def hours(self) -> tuple[Float, Float]:  # (E, N, R) until charging begins, and of charging at full power
        before = self.at["detour_h"] + self.at["wait_h"][:, None]
        return before, self.at["need_kwh"][..., None] / self.at["speed_kw"][:, None]

    def observe(self) -> Observation:
        (before, work), here = self.hours(), self.active[..., None]
        out, wait = self.at["leave_h"][..., None], 0 * work + self.at["wait_h"][:, None]
        agent = [out[..., 0], work.mean(2), 0 * out[..., 0] + here.mean(1)]
        pair = [(out, before + work), (0 * out, before + work - out), (0 * out, wait)]
        return self.seen(agent, [self.at["wait_h"], (here * work).mean(1)], [np.concatenate(row, 2) for row in pair])

    def game(self, prices: Prices) -> CongestionBatch:  # charging takes root_i L / C hours, with shares as of settle
        here, speed = self.active[..., None], self.at["speed_kw"]
        private = here * np.concatenate([prices.leave * self.at["leave_h"][..., None], self.hours()[0]], 2)
        weight = 0 * self.at["detour_h"] + np.sqrt(self.at["need_kwh"])[..., None]
        rows, toll = np.arange(-1, speed.shape[1])[:, None], 0 * speed + prices.crowd
        return CongestionBatch(rows, weight, speed, private, here | (rows[:, 0] < 0), self.active.copy(), toll)

    def on(self, option: Int) -> Float:  # (E, N, R) 1 where a car is at a charger
        return 1.0 * (option[..., None] == 1 + np.arange(self.at["speed_kw"].shape[1]))

    def settle(self, choice: Any, prices: Prices, proposal: Any = None, trust: float = 0, seating: Any = None) -> Plan:
        option = options_of(choice) * self.active
        root = self.on(option) * np.sqrt(self.at["need_kwh"])[..., None]  # shares in proportion: the least total delay
        return Plan(option, (root / np.maximum(root.sum(1, keepdims=True), 1e-9)).sum(2))

    def execute(self, plan: Plan) -> Facts:
        (before, work), on, left = self.hours(), self.on(plan.option), self.own["left_h"]
        hours = (on * (before + work / np.maximum(plan.share, 1e-9)[..., None])).sum(2)
        cost = np.where(plan.option > 0, hours, self.at["leave_h"] * self.active)
        root, wait = on * np.sqrt(self.at["need_kwh"])[..., None], self.at["wait_h"]
        lost = (root * (root - root.sum(1, keepdims=True)) / self.at["speed_kw"][:, None]).sum(2)
        carried = -np.einsum("enrh,er->enh", left, on.sum(1))
        waits, sold = np.where(on.any(2), (on * wait[:, None]).sum(2), np.nan), (root**2).sum((1, 2))
        counts = {"cost": cost.sum(1), "cars": self.active.sum(1), "on": on.sum((1, 2)), "wait_h": waits, "kwh": sold}
        self.own["gap_h"][:] = [self.draws(e).exponential(self.problem.gap_h) for e in range(self.size)]
        wait[:] = np.maximum(wait + (on * work).sum(1) - self.own["gap_h"][:, None], 0.0)
        left[:] = np.minimum(np.concatenate([(on * work)[..., None], left[..., :-1]], 3), wait[:, None, :, None])
        return Facts(-cost, lost, carried, 3600 * self.own["gap_h"], counts)

    def baseline(self, name: str, rng: np.random.Generator) -> Int:
        if name not in self.problem.card.baselines:
            self.unknown_baseline(name, self.problem.card.baselines)
        hours = self.at["detour_h"] if name == "nearest" else np.add(*self.hours())
        return self.active * (1 + hours.argmin(2))

    def parts(self, plan: Plan, e: int = 0) -> dict[str, Any]:
        price = (self.on(plan.option)[e] * np.sqrt(self.at["need_kwh"][e])[:, None]).sum(0) / self.at["speed_kw"][e]
        named = {"shares": {"charger": plan.share[e]}, "prices": {"charger": price}}
        return {"option": plan.option[e], "served": plan.option[e] > 0, **named}

    def plan_of(self, allocation: Any) -> Plan:
        return Plan(np.asarray(allocation.option)[None], np.asarray(allocation.shares["charger"])[None])


@dataclass(frozen=True)
class Chargers(StateSlots[Landing, Plan, Prices]):
    """Cars a ferry, the chargers' speeds, the mean gap between two ferries, and when the harbour closes."""

    cars: int = 8
    speeds_kw: tuple[float, ...] = (50.0, 100.0, 150.0)
    gap_h: float = 0.5
    closes: float = 12.0
    state_type, world_type = Landing, Harbour

    @cached_property
    def card(self) -> Card:
        return Card(
            "chargers", self.cars, round(self.closes / self.gap_h), Prices, (
                Metric("cost", "cost of a car", "h", "lower", Ratio("cost", "cars")),
                Metric("charged", "charged", "% of cars", "higher", Ratio("on", "cars", 100)),
                Metric("wait95", "waiting, 95 % quantile", "min", "lower", Quantile("wait_h", 0.95, 60)),
                Metric("power", "power sold", "kW", "higher", Ratio("kwh", "elapsed_s", 3600)),
            ), ("cost", "charged"), f"{self.cars} cars, {len(self.speeds_kw)} chargers", agent_word="car",
            options=("drive on", *(f"{speed:g} kW" for speed in self.speeds_kw)), families=("charger",),
            baselines={"nearest": "nearest charger", "fastest": "fastest if alone"}, unit_s=3600 * self.gap_h,
            price_space={"crowd": (0.0, 4.0, False), "leave": (0.3, 1.5, True)},
        )  # fmt: skip

    def first(self, rng: np.random.Generator, wait_h: Any = 0.0, hour: float = 0.0) -> Landing:
        n, speed = self.cars, np.array(self.speeds_kw)
        need, leave, detour = rng.uniform(10, 40, n), rng.uniform(0.4, 2, n), rng.uniform(0, 0.2, (n, len(speed)))
        return Landing(need, leave, detour, speed, 0 * speed + wait_h, rng.random(n) < 0.8, float(hour))

    def check(self, state: Landing, allocation: Any) -> CapacityCheck:
        where, share = np.asarray(allocation.option), allocation.shares["charger"]
        taken = check_limit("option", where, len(state.speed_kw) * state.active)
        return check_capacity("charger", where - 1, share, 0 * state.speed_kw + 1) if taken.feasible else taken
