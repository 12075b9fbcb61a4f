"""E worlds of a custom problem side by side: what the coordinator, the recommenders and the trainer read.

Everything but the user's own transition is done for all worlds at once; the transition is called a world at a time.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import fields
from types import SimpleNamespace
from typing import Any, NamedTuple, Self

import numpy as np
from numba import njit
from numpy.typing import NDArray

from coordinator.congestion import Congestion
from coordinator.game import Choice, options_of
from coordinator.improve import Start, Task
from games.admission import Seating
from games.certificate import count_excess
from games.congestion import Bool, CongestionBatch, Float, Int
from games.errors import InvalidStateError
from games.places import Places, classes
from games.shares import capped_shares
from hybridalloc.problems.contract import Facts
from hybridalloc.problems.custom.climb import climb
from hybridalloc.problems.custom.expected import LATE
from hybridalloc.problems.custom.padding import names_of, padded, rows_of, told
from hybridalloc.problems.custom.setting import BASELINES, CustomSetting
from hybridalloc.problems.custom.state import NO_DEADLINE, CustomPrices, CustomState, as_state
from hybridalloc.problems.metrics import ratio
from hybridalloc.problems.slots import SlotWorld
from rl.proposal import Observation, Proposal

STEEPNESS = 12.0  # of the smooth deadline: .5 at the deadline, .95 a quarter late
ARRAYS = tuple(
    name for name, f in CustomState.__dataclass_fields__.items() if "spec" in f.metadata
)  # in the order of the state


class CustomPlan(NamedTuple):
    """What is executed in E worlds; S legs (resources in turn) of each agent's option."""

    option: Int  # (E, N)
    resource: Int  # (E, N, S), -1 for none
    share: Float  # (E, N, S) of that resource
    power_w: Float  # (E, N)
    served: Bool  # (E, N) expected to be done by the deadline
    time_s: Float  # (E, N), inf for who opts out
    price: Float  # (E, R) cost that one more resource like it would save, at the margin
    held: Bool  # (E, N) holds a place: a promise
    floor: Float  # (E, N, S) share reserved for it


class CustomWorld(SlotWorld):
    """E worlds stepped together; the allocator's view with E = 1."""

    def __init__(
        self, problem: CustomSetting, states: Sequence[CustomState], rngs: list[np.random.Generator],
        rows: list[Int] | None = None,
    ) -> None:  # fmt: skip
        """``rows``: of each world's jobs, where they come and go, see :mod:`.padding`; None where they do not."""
        self.problem, self.rngs = problem, rngs
        self.rows = np.concatenate([np.full((1, problem.options.shape[1]), -1), problem.options]).astype(np.int64)
        super().__init__(len(states), problem.episode)
        self.told = [_fits(problem, state) for state in states]  # by the transition: of the jobs that are there
        self.job_rows = rows
        self.states = self.told  # what is decided on
        self.executed: CustomPlan | None = None  # in this step
        self._stack()

    @classmethod
    def fresh(cls, problem: CustomSetting, seeds: Sequence[int]) -> Self:
        world = problem.simulator()
        states = [problem.start if world is None else as_state(world.reset(int(s))) for s in seeds]
        rows = [rows_of(state, problem.most) for state in states] if problem.most else None
        return cls(problem, states, [np.random.default_rng([int(s), 1]) for s in seeds], rows)

    @classmethod
    def of_state(cls, problem: CustomSetting, state: CustomState) -> Self:
        """One world that stands at ``state``."""
        return cls(problem, [state], [np.random.default_rng(0)])

    def _stack(self) -> None:
        """The states' arrays as (E, ...): who is down is allowed nowhere, and leaving what was held is charged."""
        first = self.told[0].work.shape
        if self.job_rows is not None:
            most, wide = self.problem.most, self.problem.start.features.shape[1]
            self.states = [padded(state, row, most, wide) for state, row in zip(self.told, self.job_rows, strict=True)]
        else:
            self.states = self.told
            for e, state in enumerate(self.states):
                if state.work.shape != first:
                    raise InvalidStateError(
                        f"world {e} has work of shape {state.work.shape}, world 0 {first}; where the number of jobs "
                        f"varies give make_problem('custom', ..., most_jobs={max(len(s.work) for s in self.told)}) or "
                        "more"
                    )
        self.at = {name: np.stack([getattr(s, name) for s in self.states]) for name in ARRAYS}
        e, n, o = *self.at["active"].shape, len(self.rows)
        if self.at["private_cost"].shape[2] != o:
            self.at["private_cost"] = np.zeros((e, n, o))
        if self.at["allowed"].shape[2] != o:
            self.at["allowed"] = np.ones((e, n, o), bool)
        self.at["private_cost"] = self.at["private_cost"].copy()
        self.at["private_cost"][..., 0] += self.at["opt_out_cost"]
        up: Bool = self.at["capacity"] > 0
        if not up.all():
            down: Bool = np.asarray((~up[:, np.maximum(self.rows, 0)] & (self.rows >= 0)).any(-1))
            self.at["allowed"] = self.at["allowed"] & ~down[:, None]
            self.at["capacity"] = np.where(up, self.at["capacity"], 1.0)  # of what nobody is put on
        ran = (self.at["previous"] > 0) & (self.at["moving_cost"] > 0)
        if ran.any():
            others = ran[..., None] & (np.arange(o) != self.at["previous"][..., None])
            self.at["private_cost"] += np.where(others, self.at["moving_cost"][..., None], 0.0)
        self.at["stay"] = np.where(ran, self.at["previous"], 0)

    @property
    def active(self) -> Bool:
        """(E, N) who does not sit this step out."""
        return np.asarray(self.at["active"])

    def state(self, e: int) -> CustomState:
        """World ``e`` as a state of its own, in rows where jobs come and go."""
        return self.states[e]

    # --- what the coordinator and the recommenders read

    def _alone(self) -> tuple[Float, Float]:
        """(E, N, O) s of waiting and of work if an agent had the option's resources to itself."""
        wait = np.zeros(self.at["allowed"].shape)
        work = np.zeros(self.at["allowed"].shape)
        for s in range(self.rows.shape[1]):
            used = self.rows[:, s] >= 0
            r = self.rows[used, s]
            own = self.at["work"][:, :, r]
            wait[:, :, used] += np.where(own > 0, self.at["wait_s"][:, None, r], 0.0)
            work[:, :, used] += own / self.at["capacity"][:, None, r]
        return wait, work

    def game(self, prices: CustomPrices) -> CongestionBatch:
        """The congestion game of each world; agents that are not active are not live."""
        at = self.at
        wait, work = self._alone()
        late = _late(wait + prices.risk * work, at["deadline_s"][..., None])
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
        at = self.at
        wait, work = self._alone()
        allowed = at["allowed"] & at["active"][..., None]
        allowed[..., 0] = True
        tau = np.where(at["deadline_s"] < NO_DEADLINE, at["deadline_s"], 1 / np.maximum(at["delay_cost"], 1e-12))
        ratio = np.clip((wait + work) / tau[..., None], 0, 3)
        able = allowed[..., 1:]
        few = np.maximum(able.sum(-1), 1)
        own = ratio[..., 1:]
        agent = np.stack([
            at["deadline_s"] < NO_DEADLINE, np.where(able, own, 3).min(-1, initial=3),
            np.where(able, own, 0).sum(-1) / few, few / max(len(self.rows) - 1, 1),
            _squash(at["private_cost"][..., 0]), _squash(at["priority"]),
        ], axis=-1)  # fmt: skip
        agent = np.concatenate([agent, np.clip(at["features"], -20, 20)], axis=-1)
        need = np.where(able, work[..., 1:] / tau[..., None], 0) / few[..., None]
        pressure = need.sum(axis=1)  # deadlines' floors, were all to spread evenly
        known = able & (work[..., 1:] > 0)
        mean = np.where(known, work[..., 1:], 0).sum(axis=1) / np.maximum(known.sum(axis=1), 1)  # (E, O - 1)
        typical = np.maximum(mean.mean(axis=1, keepdims=True), 1e-12)
        slower = np.log(np.maximum(mean, 1e-12) / typical)
        resource = np.stack([
            np.clip(pressure, 0, 10), _squash(slower),
            _squash((wait[..., 1:] / tau[..., None]).sum(axis=1) / max(wait.shape[1], 1)),
        ], axis=-1)  # fmt: skip
        late = _late(wait + work, at["deadline_s"][..., None])
        pair = np.stack([
            np.broadcast_to(np.arange(len(self.rows)) == 0, ratio.shape), ratio, _squash(at["private_cost"]), late,
            _squash(at["delay_cost"][..., None] * work),
        ], axis=-1)  # fmt: skip
        rows = np.arange(len(self.rows)) - 1
        f32 = lambda x: np.ascontiguousarray(x, dtype=np.float32)
        return Observation(f32(agent), f32(resource), f32(pair), at["active"].copy(), allowed, rows)

    def priority(self) -> Float:
        """(E, N) as the state gives it."""
        return np.asarray(self.at["priority"])

    # --- shares

    def _legs(self, option: Int) -> tuple[Int, Float, Float, Float]:
        """(E, N, S) resource of each leg that has work, its square-root weight, its work in s alone; (E, N) waiting."""
        resource = self.rows[option]
        at = np.maximum(resource, 0)
        work = np.take_along_axis(self.at["work"], at, 2)
        resource = np.where((work > 0) & self.at["active"][..., None], resource, -1)
        on = resource >= 0
        e = np.arange(self.size)[:, None, None]
        seconds = np.where(on, work / self.at["capacity"][e, at], 0.0)
        weight = np.where(on, np.sqrt(self.at["delay_cost"][..., None] * seconds), 0.0)
        wait = np.where(on, self.at["wait_s"][e, at], 0.0).sum(-1)
        return resource, weight, seconds, wait

    def _floors(self, option: Int, margin: float) -> tuple[Int, Float, Float, Float, Float]:
        """Legs and the share (E, N, S) each needs, stretching its square-root shares alike until the deadline holds."""
        resource, weight, seconds, wait = self._legs(option)
        e, n, s = resource.shape
        r = self.at["capacity"].shape[1]
        flat = np.where(resource >= 0, resource + r * np.arange(e)[:, None, None], e * r).ravel()
        base = np.where(resource >= 0, np.maximum(weight, 1e-150), 0.0)
        total = np.bincount(flat, base.ravel(), e * r + 1).astype(np.float64)  # counts where there is no leg at all
        total[-1] = np.inf
        even = base / total[flat].reshape(e, n, s)
        time = np.where(resource >= 0, seconds / np.where(even > 0, even, 1.0), 0.0).sum(-1)
        slack = margin * self.at["deadline_s"] - wait
        stretch = np.where(slack > 0, time / np.where(slack > 0, slack, 1.0), np.inf)
        need = np.where(resource >= 0, even * stretch[..., None], 0.0)
        return resource, weight, seconds, wait, need

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
        return Places(seconds, slack, cap, acceptable, rank, np.zeros(shape, bool), late, stay=at["stay"])

    def settle(
        self, choice: Choice | Int, prices: CustomPrices, proposal: Proposal | None = None, trust: float = np.inf,
        seating: Seating | None = None,
    ) -> CustomPlan:  # fmt: skip
        """Shares for a joint choice (E, N), after the safety filter. A choice that is not allowed becomes option 0.

        ``proposal`` and ``trust`` have no effect: no levels are proposed here. ``seating`` is stable admission's
        answer for ``choice``: its floors are kept, and who holds a place is served.
        """
        at = self.at
        option = options_of(choice)
        may = np.take_along_axis(at["allowed"], option[..., None], 2)[..., 0]
        kept = np.where(at["active"] & may, option, 0)
        held = np.zeros(option.shape, bool) if seating is None else seating.held & (kept == option)
        option = kept
        resource, weight, seconds, wait, need = self._floors(option, prices.margin)
        e, n, s = resource.shape
        r = at["capacity"].shape[1]
        flat = np.where(resource >= 0, resource + r * np.arange(e)[:, None, None], -1)
        draw = np.where(resource >= 0, np.take_along_axis(at["full_power_w"], np.maximum(resource, 0), 2), 0.0)
        whole = draw.sum(-1, keepdims=True)
        # exact for one leg; with several each is capped as if all ran at that share
        cap = np.where(whole > 0, at["power_limit_w"][..., None] / np.where(whole > 0, whole, 1.0), np.inf)
        cap = np.broadcast_to(cap, need.shape)
        if seating is None:
            admitted = np.empty(e * n, bool)
            hopeless = (need > np.minimum(cap, 1.0) * (1 + 1e-12)).any(-1)
            order = np.lexsort((need.sum(-1).ravel(), -at["priority"].ravel()))
            room = np.full(e * r, 1 + 1e-12)
            _admit(flat.reshape(-1, s), need.reshape(-1, s), hopeless.ravel(), order, room, admitted)
            promised = np.zeros(need.shape)
            floor = np.where(admitted.reshape(e, n, 1), need, 0.0)
        else:
            floor = promised = np.where(held[..., None] & (resource >= 0), seating.floor, 0.0)
        share, price = _split(flat.ravel(), weight.ravel(), floor.ravel(), cap.ravel(), e * r)
        share = share.reshape(e, n, s)
        speed = np.where(share > 0, share, 1.0)
        leg_s = np.where(resource >= 0, np.where(share > 0, seconds / speed, np.inf), 0.0)
        time = np.where(option > 0, wait + leg_s.sum(-1), np.inf)
        served = at["active"] & (option > 0) & (time <= at["deadline_s"] * (1 + 1e-9))
        power = (share * draw).sum(-1)
        return CustomPlan(option, resource, share, power, served, time, price.reshape(e, r), held, promised)

    def expected(self, plan: CustomPlan, prices: CustomPrices, against: CustomPlan | None = None) -> Float:
        """(E,) the model's reward of a settled plan: what the state says is taken as it is."""
        return np.asarray(self._model_reward(plan).sum(axis=1))

    def climb(self, start: Start, game: Congestion, task: Task) -> Start:
        """Single changes of option that raise what the model expects, prior included."""
        return climb(self, start, game, task)

    def baseline(self, name: str, rng: np.random.Generator) -> Int:
        """(E, N) joint choice of a heuristic: opt_out, fastest (as if alone), balanced (least use, in turn), random."""
        wait, work = self._alone()
        able = self.at["allowed"] & self.at["active"][..., None]
        able[..., 0] = False
        time = np.where(able, wait + work, np.inf)
        none = ~able.any(-1)
        if name == "opt_out":
            option = np.zeros(none.shape, np.int64)
        elif name == "fastest":
            option = time.argmin(-1)
        elif name == "random":
            option = np.where(able, rng.random(able.shape), -1.0).argmax(-1)
        elif name == "balanced":
            option = np.zeros(none.shape, np.int64)
            for e in range(self.size):
                busy = np.zeros(self.at["capacity"].shape[1] + 1)  # s of work given so far; the last stands for none
                for i in np.argsort(-self.at["priority"][e], kind="stable"):
                    if not none[e, i]:
                        o = int((time[e, i] + busy[self.rows].max(axis=1)).argmin())
                        option[e, i] = o
                        used = self.rows[o][self.rows[o] >= 0]
                        busy[used] += self.at["work"][e, i, used] / self.at["capacity"][e, used]
        else:
            self.unknown_baseline(name, BASELINES)
        return np.where(none, 0, option).astype(np.int64)

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
        resource, *_, need = self._floors(option, 1.0)
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
        following = [_fits(self.problem, as_state(world.advance(s, a, rng))) for s, a, rng in together]
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
            self.told[e] = self.problem.start if world is None else _fits(self.problem, as_state(world.reset(seed)))
            if self.job_rows is not None:
                self.job_rows[e] = rows_of(self.told[e], self.problem.most)
        self.epoch[which] = 0
        self.executed = None
        self._stack()

    def reseed(self, seeds: Sequence[int]) -> None:
        """Draw from fresh streams from now on."""
        self.rngs = [np.random.default_rng(int(seed)) for seed in seeds]

    def plan_of(self, allocation: Any) -> CustomPlan:
        """An allocation of one world as a plan."""
        option = np.asarray(allocation.option, np.int64)[None]
        resource, _, seconds, wait = self._legs(option)
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
        given = [_fits(self.problem, CustomState(**told)) for told in state["states"]]
        if not len(given) == len(state["rngs"]) == len(state["epoch"]) == self.size:
            raise ValueError(f"{len(given)} worlds are stored; this has {self.size}")
        self.told, self.epoch[:] = given, state["epoch"]
        kept = state.get("rows")  # a file of before has none, and no need of any
        self.job_rows = None if kept is None else [np.array(row, np.int64) for row in kept]
        self.executed = None if state["executed"] is None else CustomPlan(**state["executed"])
        for rng, numbers in zip(self.rngs, state["rngs"], strict=True):
            rng.bit_generator.state = json.loads(numbers)
        self._stack()


def _fits(problem: CustomSetting, state: CustomState) -> CustomState:
    """The state, if it has the problem's resources and options."""
    r, o = len(problem.resources), len(problem.options) + 1
    if state.agents and state.previous.max(initial=-1) >= o:
        i = int(state.previous.argmax())
        raise InvalidStateError(f"previous[{i}] = {state.previous[i]}; an option is -1 (new) or 0 to {o - 1}")
    if len(state.capacity) != r:
        raise InvalidStateError(f"capacity has {len(state.capacity)} entries; this problem has {r} resources")
    for name in ("private_cost", "allowed"):
        wide = getattr(state, name).shape[1] if state.agents else 0
        if wide and wide != o:
            raise InvalidStateError(f"{name} has {wide} options; this problem has {o}, opting out first")
    if state.features.shape[1] != problem.start.features.shape[1] and state.agents:
        f, known = state.features.shape[1], problem.start.features.shape[1]
        raise InvalidStateError(f"features has {f} columns; this problem's states have {known}")
    return state


def _what(given: NDArray[Any]) -> str:
    return f"shape {given.shape}" if given.ndim != 1 or np.isfinite(given).all() else f"{given.tolist()}"


def _squash(x: Any) -> Float:
    return np.asarray(x / (1 + np.abs(x)))


def _late(time: Float, deadline: Float) -> Float:
    z = np.clip(STEEPNESS * (time / deadline - 1), -30, 30)
    return np.asarray(np.where(deadline < NO_DEADLINE, 1 / (1 + np.exp(-z)), 0.0))


@njit(cache=True)
def _admit(resource, need, hopeless, order, room, admitted):
    """By priority, an agent is admitted if what its deadline needs is left on all of its resources."""
    for i in order:
        fits = not hopeless[i]
        for s in range(resource.shape[1]):
            if resource[i, s] >= 0 and need[i, s] > room[resource[i, s]]:
                fits = False
        admitted[i] = fits
        if fits:
            for s in range(resource.shape[1]):
                if resource[i, s] >= 0:
                    room[resource[i, s]] -= need[i, s]


@njit(cache=True)
def _split(resource, weight, floor, cap, count):
    """Delay shares with floors (which fit) and caps of M legs on ``count`` resources, and each one's dual."""
    share, price = np.zeros(len(resource)), np.zeros(count)
    order = np.argsort(resource, kind="mergesort")
    at = 0
    while at < len(order):
        r, begin = resource[order[at]], at
        while at < len(order) and resource[order[at]] == r:
            at += 1
        if r >= 0:
            here = order[begin:at]
            part = np.empty(len(here))
            price[r] = capped_shares(weight[here], floor[here], cap[here], part)
            share[here] = part
    return share, price
