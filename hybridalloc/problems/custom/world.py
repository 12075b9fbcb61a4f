"""E worlds of a custom problem side by side: what the coordinator, the recommenders and the trainer read.

Everything but the user's own transition is done for all worlds at once; the transition is called a world at a time.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coordinator.congestion import Congestion
from coordinator.game import Choice, options_of
from coordinator.improve import Start, Task
from games.admission import Seating
from games.certificate import count_excess
from games.congestion import Bool, CongestionBatch, Float, Int
from games.places import Places, classes
from hybridalloc.problems.contract import Facts
from hybridalloc.problems.custom.climb import climb
from hybridalloc.problems.custom.expected import LATE
from hybridalloc.problems.custom.heuristics import ruled
from hybridalloc.problems.custom.observation import observed
from hybridalloc.problems.custom.padding import names_of, rows_of, told
from hybridalloc.problems.custom.plan import CustomPlan
from hybridalloc.problems.custom.shares import floors_of, legs_of, settled
from hybridalloc.problems.custom.standing import CustomStates, fitting, lateness
from hybridalloc.problems.custom.state import NO_DEADLINE, CustomPrices, CustomState, as_state
from hybridalloc.problems.metrics import ratio
from rl.proposal import Observation, Proposal


class CustomWorld(CustomStates):
    """E worlds stepped together; the allocator's view with E = 1."""

    # --- what the coordinator and the recommenders read

    def game(self, prices: CustomPrices) -> CongestionBatch:
        """The congestion game of each world; agents that are not active are not live."""
        at = self.at
        wait, work = self.alone()
        late = lateness(wait + prices.risk * work, at["deadline_s"][..., None])
        private = at["private_cost"] + at["delay_cost"][..., None] * wait + prices.miss * late
        private[..., 0] = at["private_cost"][..., 0] + (prices.opt_out - 1) * at["opt_out_cost"]
        weight = np.sqrt(at["delay_cost"][..., None] * at["work"])
        allowed = at["allowed"] & at["active"][..., None]
        allowed[..., 0] = True
        private[~at["active"]] = 0.0
        live = at["active"].copy()
        toll = np.full(at["capacity"].shape, prices.toll)
        return CongestionBatch(self.rows, weight, at["capacity"].copy(), private, allowed, live, toll)

    def observe(self) -> Observation:
        """Features of order one: 6 + F an agent, 3 an option's resources, 5 a pair."""
        return observed(self)

    def places(self, prices: CustomPrices, game: CongestionBatch) -> Places:
        """What serving each agent on each option takes. Priority counts: a higher one is a class of its own."""
        at = self.at
        on = self.rows >= 0  # (O, S)
        r = np.maximum(self.rows, 0)
        seconds = np.where(on, at["work"][:, :, r] / at["capacity"][:, None, r], 0.0)
        busy = on & (seconds > 0)
        wait = np.where(busy, at["wait_s"][:, None, r], 0.0).sum(-1)
        draw = np.where(busy, at["full_power_w"][:, :, r], 0.0).sum(-1)
        alone = game.private_cost + at["delay_cost"][..., None] * seconds.sum(-1)
        acceptable = game.allowed & game.live[..., None] & (alone <= game.private_cost[..., :1])
        acceptable[..., 0] = False
        with np.errstate(divide="ignore"):
            cap = np.where(draw > 0, at["power_limit_w"][..., None] / draw, np.inf)
        slack = prices.margin * at["deadline_s"][..., None] - wait
        rank = classes(at["priority"], self.problem.priority_gap)
        shape = game.live.shape
        late = np.where(at["deadline_s"] < NO_DEADLINE, prices.miss, 0.0)
        seconds, slack, cap = map(np.ascontiguousarray, (seconds, slack, cap))
        return Places(seconds, slack, cap, acceptable, rank, np.zeros(shape, bool), late, stay=at["stay"])

    def settle(
        self, choice: Choice | Int, prices: CustomPrices, proposal: Proposal | None = None, trust: float = np.inf,
        seating: Seating | None = None,
    ) -> CustomPlan:  # fmt: skip
        """Shares for a joint choice (E, N), after the safety filter. A choice that is not allowed becomes option 0.

        ``proposal`` and ``trust`` have no effect: no levels are proposed here. ``seating`` is stable admission's
        answer for ``choice``: its floors are kept, and who holds a place is served.
        """
        return settled(self, options_of(choice), prices.margin, seating)

    def expected(self, plan: CustomPlan, prices: CustomPrices, against: CustomPlan | None = None) -> Float:
        """(E,) the model's reward of a settled plan: what the state says is taken as it is."""
        return np.asarray(self._model_reward(plan).sum(axis=1))

    def climb(self, start: Start, game: Congestion, task: Task) -> Start:
        """Single changes of option that raise what the model expects, prior included."""
        return climb(self, start, game, task)

    def baseline(self, name: str, rng: np.random.Generator) -> Int:
        """(E, N) joint choice of a heuristic, see :mod:`.heuristics`."""
        return ruled(self, name, rng)

    def excess(self, plan: CustomPlan) -> Float:
        """(E,) worst relative excess over any capacity or power limit, by the certificate's own code."""
        count = self.at["capacity"].shape[1]
        e, n, s = plan.resource.shape
        worst = count_excess(plan.resource.reshape(e, n * s), plan.share.reshape(e, n * s), count)
        over = plan.power_w / self.at["power_limit_w"] - 1
        return np.asarray(np.maximum(worst, over.max(axis=1, initial=0.0)))

    def requested(self, option: Int, prices: CustomPrices) -> Float:
        """(E,) share of used resources on which a raw choice's deadlines ask for more than there is."""
        option = np.where(self.at["active"], np.asarray(option, np.int64), 0)
        resource, *_, need = floors_of(self, option, 1.0)
        e, r = self.at["capacity"].shape
        flat = np.where(resource >= 0, resource + r * np.arange(e)[:, None, None], e * r).ravel()
        asked = np.bincount(flat, np.minimum(need, 1e3).ravel(), e * r + 1)[:-1].reshape(e, r)
        used = np.bincount(flat, minlength=e * r + 1)[:-1].reshape(e, r) > 0
        return np.asarray((used & (asked > 1 + 1e-9)).sum(1) / np.maximum(used.sum(1), 1))

    # --- what the world does

    def execute(self, plan: CustomPlan) -> Facts:
        """The step's rewards, by the transition or the model; :meth:`drift` moves on."""
        self.executed = plan
        reward = self._reward(plan)
        lost = np.zeros_like(reward)
        if self.problem.transition is not None and self.problem.credit == "difference":
            self._charge(plan, reward, lost)
        active = self.at["active"]
        counts = {
            "reward": ratio(reward.sum(axis=1), reward.shape[-1]), "active": active.sum(1),
            "served": plan.served.sum(1), "opted_out": (active & (plan.option == 0)).sum(1),
            "time_s": np.where(plan.served, plan.time_s, 0.0).sum(1), "active_by": active, "served_by": plan.served,
        }  # fmt: skip
        return Facts(reward, lost, np.zeros((*reward.shape, 1)), np.ones(self.size), counts)

    def _allocations(self, plan: CustomPlan) -> list[Any]:
        """What a transition's methods get to see of each world's plan."""
        worlds = range(len(plan.option))
        if self.job_rows is not None:
            return [told(self.parts(plan, e), plan.time_s[e], self.job_rows[e]) for e in worlds]
        return [SimpleNamespace(**self.parts(plan, e), time_s=plan.time_s[e]) for e in worlds]

    def _reward(self, plan: CustomPlan) -> Float:
        world = self.problem.simulator()
        if world is None:
            return self._model_reward(plan)
        out = np.zeros(self.at["active"].shape)
        for e, (state, allocation) in enumerate(zip(self.told, self._allocations(plan), strict=True)):
            given = np.asarray(world.reward(state, allocation), dtype=np.float64)
            if given.shape != (state.agents,) or not np.isfinite(given).all():
                raise ValueError(
                    f"{type(world).__name__}.reward gave {_what(given)}; it must give ({state.agents},) finite numbers"
                )
            if self.job_rows is None:
                out[e] = given
            else:
                there = self.job_rows[e] >= 0
                out[e, self.job_rows[e][there]] = given[there]
        return out

    def _model_reward(self, plan: CustomPlan) -> Float:
        """Less what the game's model charges: private cost, delay, 1 for a missed deadline."""
        at = self.at
        cost = np.take_along_axis(at["private_cost"], plan.option[..., None], 2)[..., 0]
        late = (plan.option > 0) & ~plan.served
        delay = np.where(plan.option > 0, np.minimum(plan.time_s, LATE * at["deadline_s"]), 0.0)
        return -np.where(at["active"], cost + at["delay_cost"] * delay + late, 0.0)

    def _charge(self, plan: CustomPlan, reward: Float, lost: Float) -> None:
        """Fill ``lost``: the others' rewards with the agent less those without it, everything settled again."""
        e, i = np.nonzero(plan.option > 0)
        if not len(e):
            return
        without = plan.option[e].copy()
        without[np.arange(len(e)), i] = 0
        rows = None if self.job_rows is None else [self.job_rows[k] for k in e]
        aside = CustomWorld(self.problem, [self.told[k] for k in e], [], rows)
        alone = aside._reward(aside.settle(without, CustomPrices()))
        with_it = reward[e].sum(1) - reward[e, i]
        lost[e, i] = with_it - (alone.sum(1) - alone[np.arange(len(e)), i])

    def drift(self) -> Bool:
        """The next step, by the transition; (E,) whether the episode's length is reached.

        Raises:
            ValueError: there is none, or nothing was executed.
        """
        world = self.problem.simulator()
        if world is None:
            raise ValueError(
                "this custom problem has no transition, so it does not move on: give make_problem('custom', ..., "
                "transition=...) an object with reset(seed), advance(state, allocation, rng) and "
                "reward(state, allocation)"
            )
        if self.executed is None:
            raise ValueError("nothing was executed in this step: call execute(plan) before drift()")
        together = zip(self.told, self._allocations(self.executed), self.rngs, strict=True)
        following = [fitting(self.problem, as_state(world.advance(s, a, rng))) for s, a, rng in together]
        if self.job_rows is not None:
            before = [names_of(state, row) for state, row in zip(self.told, self.job_rows, strict=True)]
            self.job_rows = [
                rows_of(state, self.problem.most, known) for state, known in zip(following, before, strict=True)
            ]
        self.told = following
        self.executed = None
        self.epoch += 1
        self._stack()
        return self.ended()

    def restart(self, which: Bool) -> None:
        """New episodes where ``which`` (E,) is set, from each world's own stream."""
        if not which.any():
            return
        world = self.problem.simulator()
        for e in np.flatnonzero(which):
            seed = int(self.rngs[e].integers(2**31))
            self.told[e] = self.problem.start if world is None else fitting(self.problem, as_state(world.reset(seed)))
            if self.job_rows is not None:
                self.job_rows[e] = rows_of(self.told[e], self.problem.most)
        self.epoch[which] = 0
        self.executed = None
        self._stack()

    # --- as allocations

    def plan_of(self, allocation: Any) -> CustomPlan:
        """An allocation of one world as a plan."""
        option = np.asarray(allocation.option, np.int64)[None]
        resource, _, seconds, wait = legs_of(self, option)
        share, floor = np.zeros(resource.shape), np.zeros(resource.shape)
        floors = getattr(allocation, "floors", {})  # absent: nothing promised
        for i, k in zip(*np.nonzero(resource[0] >= 0), strict=True):
            family = self.problem.families_of[resource[0, i, k]]
            share[0, i, k] = allocation.shares[family][i]
            floor[0, i, k] = floors[family][i] if family in floors else 0.0
        with np.errstate(divide="ignore", invalid="ignore"):
            leg_s = np.where(resource >= 0, seconds / share, 0.0)
        time = np.where(option > 0, wait + leg_s.sum(-1), np.inf)
        price = np.zeros(self.at["capacity"].shape)
        for family, values in allocation.prices.items():
            if len(values):  # a fallback has none
                price[0, [r for r, f in enumerate(self.problem.families_of) if f == family]] = values
        power, served = np.asarray(allocation.power, float)[None], np.asarray(allocation.served, bool)[None]
        held = np.asarray(getattr(allocation, "held", np.zeros(option.shape[1])), bool)[None]
        return CustomPlan(option, resource, share, power, served, time, price, held, floor)

    def parts(self, plan: CustomPlan, e: int = 0) -> dict[str, Any]:
        """World ``e`` of a plan as the fields of an allocation; a family's prices are in the resources' order."""
        family = np.array(self.problem.families_of)
        of = np.where(plan.resource[e] >= 0, family[plan.resource[e]], "")
        spread = lambda x: {f: np.where(of == f, x[e], 0.0).sum(-1) for f in self.problem.families}
        return {
            "option": plan.option[e],
            "shares": spread(plan.share), "floors": spread(plan.floor), "held": plan.held[e],
            "power": plan.power_w[e], "served": plan.served[e],
            "prices": {f: plan.price[e][family == f] for f in self.problem.families},
        }  # fmt: skip

    # --- its whole state

    def state_dict(self) -> dict[str, Any]:
        """The states with what only their transition reads, the random streams, and the plan where it was executed."""
        told = [{f.name: getattr(state, f.name) for f in fields(CustomState)} for state in self.told]
        plan = None if self.executed is None else self.executed._asdict()
        rngs = [json.dumps(rng.bit_generator.state) for rng in self.rngs]
        rows = None if self.job_rows is None else [row.copy() for row in self.job_rows]
        return {"epoch": self.epoch.copy(), "states": told, "rngs": rngs, "executed": plan, "rows": rows}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        given = [fitting(self.problem, CustomState(**told)) for told in state["states"]]
        if not len(given) == len(state["rngs"]) == len(state["epoch"]) == self.size:
            raise ValueError(f"{len(given)} worlds are stored; this has {self.size}")
        self.told, self.epoch[:] = given, state["epoch"]
        kept = state.get("rows")  # a file of before has none, and no need of any
        self.job_rows = None if kept is None else [np.array(row, np.int64) for row in kept]
        self.executed = None if state["executed"] is None else CustomPlan(**state["executed"])
        for rng, numbers in zip(self.rngs, state["rngs"], strict=True):
            rng.bit_generator.state = json.loads(numbers)
        self._stack()


def _what(given: NDArray[Any]) -> str:
    return f"shape {given.shape}" if given.ndim != 1 or np.isfinite(given).all() else f"{given.tolist()}"
