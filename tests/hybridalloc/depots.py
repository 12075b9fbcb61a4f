"""A domain whose store is no battery: shops that sell from a shelf. Small enough that its optimum is enumerated.

Each shop holds 0 to 4 units. A customer comes with chance .9 and pays .3, 1 or 3 for a unit; a unit is delivered with
chance .3 a step. Option 0 turns the customer away, option 1 sells. Nobody is in anybody's way.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from coordinator.game import options_of
from games.certificate import CapacityCheck, check_limit
from games.congestion import CongestionBatch
from hybridalloc.problems.contract import Card, Facts, Float, Int
from hybridalloc.problems.metrics import Metric, Ratio
from hybridalloc.problems.slots import StateSlots, StateWorld
from hybridalloc.problems.state import State, array
from hybridalloc.problems.stores import Storing
from rl.proposal import Observation
from rl.value import Stored

ROOM, DELIVERED, COMES = 4, 0.3, 0.9
PAYS, MIX = np.array([0.3, 1.0, 3.0]), np.array([0.5, 0.3, 0.2])


class Prices(NamedTuple):
    unit: float = 0.5  # of a unit, where no value says


@dataclass(frozen=True)
class Morning(State):
    stock: Float = array("N", "units", low=0)
    pays: Float = array("N", "", low=0)
    active: Any = array("N", dtype=bool, fill=1)


class Plan(NamedTuple):
    option: Int
    sold: Float


class Shops(Storing, StateWorld["Depots", Morning, Prices]):
    def following(self, e: int, rng: np.random.Generator) -> Morning:
        self.moved_on()
        more = rng.random(self.problem.shops) < DELIVERED
        return self.problem.customers(rng, np.minimum(self.at["stock"][e] + more, ROOM))

    def restart(self, which: Any) -> None:
        self.moved_on()
        super().restart(which)

    def load_state_dict(self, state: Any) -> None:
        super().load_state_dict(state)
        self.moved_on()

    def stored(self) -> Stored:
        stock = self.at["stock"]
        drawn = np.stack([0 * stock, 1.0 * self.able()], -1)
        return Stored(stock.copy(), 0 * stock + ROOM, np.ones((*stock.shape, 1)), drawn)

    def refill(self, level: Float) -> None:
        self.at["stock"][:] = np.rint(level)
        self.moved_on()

    def able(self) -> Any:
        return self.active & (self.at["stock"] >= 1)

    def game(self, prices: Prices) -> CongestionBatch:
        worth, able = self.worth(), self.able()
        private = np.stack([self.at["pays"] * self.active, np.where(able, prices.unit, 0.0)], -1)
        if worth is not None:
            private[..., 1] = 0.0
            private += self.store_costs(worth)
        rows, e, n = np.array([[-1], [0]]), *able.shape
        allowed = np.stack([np.ones_like(able), able], -1)
        return CongestionBatch(
            rows, np.zeros((e, n, 1)), np.ones((e, 1)), private, allowed, self.active.copy(), np.zeros((e, 1))
        )

    def observe(self) -> Observation:
        x = self.at["stock"] / ROOM
        seen = self.seen([x, self.at["pays"]], [np.zeros((self.size, 1))], [np.stack([x, x], 2)])
        return seen._replace(allowed=np.stack([np.ones_like(self.able()), self.able()], -1))

    def settle(self, choice: Any, prices: Prices, proposal: Any = None, trust: float = 0, seating: Any = None) -> Plan:
        option = options_of(choice) * self.able()
        return Plan(option, 1.0 * option)

    def execute(self, plan: Plan) -> Facts:
        self.moved_on()
        earned = plan.option * self.at["pays"]
        self.at["stock"] -= plan.option
        nothing = np.zeros(earned.shape)
        counts = {"earned": earned.sum(1), "shops": np.full(self.size, float(self.problem.shops))}
        return Facts(earned, nothing, nothing[..., None], np.ones(self.size), counts)

    def baseline(self, name: str, rng: np.random.Generator) -> Int:
        if name not in self.problem.card.baselines:
            self.unknown_baseline(name, self.problem.card.baselines)
        return self.able().astype(np.int64)

    def parts(self, plan: Plan, e: int = 0) -> dict[str, Any]:
        share = {"shelf": plan.sold[e]}
        return {
            "option": plan.option[e],
            "served": plan.option[e] > 0,
            "shares": share,
            "prices": {"shelf": np.zeros(1)},
        }

    def plan_of(self, allocation: Any) -> Plan:
        return Plan(np.asarray(allocation.option)[None], np.asarray(allocation.shares["shelf"])[None])


@dataclass(frozen=True)
class Depots(StateSlots[Morning, Plan, Prices]):
    shops: int = 8
    state_type, world_type = Morning, Shops

    @property
    def card(self) -> Card:
        return Card(
            "depots", self.shops, 1000, Prices, (Metric("earned", "earned", "", "higher", Ratio("earned", "shops")),),
            ("earned",), f"{self.shops} shops", agent_word="shop", families=("shelf",), store="stock",
            baselines={"always": "sells always"},
        )  # fmt: skip

    def first(self, rng: np.random.Generator) -> Morning:
        return self.customers(rng, rng.integers(0, ROOM + 1, self.shops).astype(float))

    def customers(self, rng: np.random.Generator, stock: Float) -> Morning:
        comes = rng.random(self.shops) < COMES
        return Morning(stock, np.where(comes, rng.choice(PAYS, self.shops, p=MIX), 0.0), comes)

    def check(self, state: Morning, allocation: Any) -> CapacityCheck:
        option, share = np.asarray(allocation.option), allocation.shares["shelf"]
        sold = np.maximum(np.where(option < 0, np.inf, option), share)
        return check_limit("stock", sold, 1.0 * (state.active & (state.stock >= 1)))


def optimum() -> tuple[Float, Float]:
    """By enumeration: what 0 to 4 units left after a sale are worth above none, and (5, 3) whether to sell."""
    h = np.zeros(ROOM + 1)
    for _ in range(5000):
        stay = h
        sell = np.concatenate([[-np.inf], h[:-1]])
        met = (MIX * np.maximum(PAYS + sell[:, None], stay[:, None])).sum(1)
        before = COMES * met + (1 - COMES) * stay
        new = DELIVERED * before[np.minimum(np.arange(ROOM + 1) + 1, ROOM)] + (1 - DELIVERED) * before
        h = new - new[0]
    return h, PAYS + np.concatenate([[-np.inf], h[:-1]])[:, None] > h[:, None]
