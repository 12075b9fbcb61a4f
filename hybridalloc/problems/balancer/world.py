"""E fleets side by side, stopped wherever requests wait at a dispatcher to be decided."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from coordinator.game import Choice, options_of
from games.congestion import Bool, CongestionBatch, Float, Int
from hybridalloc.problems.balancer import decide
from hybridalloc.problems.balancer.belief import LOAD
from hybridalloc.problems.balancer.chance import Stream, stream_of
from hybridalloc.problems.balancer.core import DISPATCHERS, GAP_S, MEAN_PROMPT, PROMPT
from hybridalloc.problems.balancer.decide import new_seen
from hybridalloc.problems.balancer.kept import flat, rebuilt, redraw
from hybridalloc.problems.balancer.play import ASK, WARM, run
from hybridalloc.problems.balancer.rules import new_room
from hybridalloc.problems.balancer.scorer import BalancerPrices
from hybridalloc.problems.balancer.setting import BalancerSetting
from hybridalloc.problems.balancer.sim import Sim, Table
from hybridalloc.problems.balancer.state import BalancerState
from hybridalloc.problems.balancer.told import no_future, presumed, resume, truth_of
from hybridalloc.problems.balancer.turn import TOLD_NAMES, go_on, turn
from hybridalloc.problems.contract import Facts
from hybridalloc.problems.slots import SlotWorld
from rl.proposal import Observation

FAMILY = "memory"
OUTCOMES = 256  # requests whose end one decision can tell; more are told by the next ones
SLOWEST_S = 60.0  # a first token that takes longer costs no more
PRESUMED = 128  # tokens of an output where nothing is known


class Routed(NamedTuple):
    """Where the requests of E worlds go: option (E, N), 1 + the replica, 0 to wait; the part of its KV memory that each
    prompt takes (E, N); the believed share of capacity that is in use, as a price, (E, R)."""

    option: Int
    share: Float
    price: Float


class BalancerWorld(SlotWorld):
    """E fleets.

    Args:
        sims: one a world; None where a world stands at a told state, until it has to move. rooms: what its routers
        remember.

    Attributes:
        who: (E, N) requests that are to be decided, -1 for none. seen: what their dispatchers see.
    """

    def __init__(self, problem: BalancerSetting, size: int, n: int, replicas: int, seeds: Sequence[int]) -> None:
        super().__init__(size, problem.requests)
        self.problem = problem
        self.who, self.over = np.full((size, n), -1), np.zeros(size, bool)
        self.seen, self.replica = new_seen(size, n, replicas), np.arange(replicas)
        self.coins: list[Stream] = [stream_of(0) for _ in range(size)]
        self.stream = np.zeros((size, 2), np.int64)
        self.sims: list[Sim | None] = [None] * size
        self.rooms: list[Any] = [None] * size
        self.ended_at = [np.zeros(0, bool)] * size  # requests whose end was told
        self.newly = [np.zeros(0, np.int64)] * size  # scratch
        self.told: BalancerState | None = None
        self._load = np.zeros((size, replicas, LOAD))
        self.stream[:] = [[int(seed), 0] for seed in seeds]

    # --- made

    @classmethod
    def fresh(cls, problem: BalancerSetting, seeds: Sequence[int]) -> BalancerWorld:
        """Idle fleets before their first requests."""
        world = cls(problem, len(seeds), problem.batch, problem.replicas, seeds)
        world.restart(np.ones(len(seeds), bool))
        return world

    @classmethod
    def of_state(cls, problem: BalancerSetting, state: BalancerState) -> BalancerWorld:
        """One fleet as it is told."""
        n, r = state.hit.shape
        world = cls(problem, 1, n, r, [0])
        seen, know = world.seen, world.seen.know
        world.told, world.replica = state, state.replica
        one = lambda *names: np.stack([getattr(state, name) for name in names], -1)
        told = ("told_waiting", "told_running", "told_kv", "told_tokens", "told_iteration_s")
        parts = ("requests", "tokens", "kv", "waiting")
        for mine, given in (
            (seen.up, state.up), (seen.age_s, state.age_s), (seen.share, state.share), (seen.kv, state.kv),
            (seen.base_s, state.base_s), (seen.prompt, np.where(state.active, state.prompt, 0.0)),
            (seen.waited_s, state.waited_s), (seen.hit, state.hit), (seen.coin, state.coin),
            (seen.time_s, state.time_s), (seen.told, one(*told)), (seen.then, one(*(f"then_{p}" for p in parts))),
            (seen.own, one(*(f"own_{p}" for p in parts))), (know.left, state.kept), (know.alike, state.alike),
            (know.usual, state.usual), (know.lag_s, state.lag_s), (know.speed, state.speed),
        ):  # fmt: skip
            mine[0] = given
        about = seen.about[0]
        about[DISPATCHERS], about[GAP_S], about[MEAN_PROMPT] = state.dispatchers, state.gap_s, state.mean_prompt
        return world

    def sim(self, e: int) -> Sim:
        """The simulator of world ``e``; where it was told as a state, one that goes on from there."""
        made = self.sims[e]
        if made is None:
            assert self.told is not None
            state, problem = self.told, self.problem
            truth = presumed(state, PRESUMED) if state.truth is None else state.truth
            future = problem.future(state, self._draws(e)) if len(state.share) else no_future()
            fleet = problem.fleet_like(state)
            law = problem.law._replace(dispatchers=state.dispatchers)
            made = resume(state, truth, law, fleet, future, PRESUMED)
            self.sims[e], here = made, len(truth.place)
            self.rooms[e] = new_room(state.dispatchers, state.share)
            self.who[e] = np.where(state.active, here + np.arange(len(state.active)), -1)
            self._untold(e, made)
        return made

    def _untold(self, k: int, sim: Sim) -> None:
        """Of none of its requests was told that it ended."""
        self.ended_at[k] = np.zeros(len(sim.trace.arrival), bool)
        self.newly[k] = np.zeros(len(sim.trace.arrival), np.int64)

    @property
    def active(self) -> Bool:
        return self.seen.prompt > 0

    # --- what is seen and played

    def _believed(self, prices: BalancerPrices) -> Float:
        """(E, R, LOAD) at each replica now, as believed."""
        fade = np.array([prices.fade_requests, prices.fade_tokens], float)
        belief, told = self.problem.belief_kind, self.problem.told_tokens
        decide.fill_loads(self.seen, belief, told, fade, float(prices.alike), self._load)
        return self._load

    def observe(self) -> Observation:
        """Of each request and the traffic; of each replica; of a request at a replica."""
        seen, load = self.seen, self._believed(BalancerPrices())
        e, n = seen.prompt.shape
        r = seen.up.shape[1]
        per = np.maximum(seen.share * r, 1e-9)
        gap, many = seen.about[:, GAP_S], seen.about[:, DISPATCHERS]
        traffic = np.stack([np.log1p(many) / 4, _squash(100 * gap / np.maximum(many, 1)), seen.up.mean(1)], -1)
        hit = seen.hit.max(2, initial=0.0) / np.maximum(seen.prompt, 1.0)
        busy = load[..., 0].sum(1, keepdims=True) / np.maximum(32.0 * r, 1.0)
        wait = load[..., 1].sum(1, keepdims=True) / np.maximum(2000.0 * r, 1.0)
        alike = lambda x: np.broadcast_to(x, (e, n))
        agent = np.stack([
            _squash(seen.prompt / 2000.0), _squash(seen.waited_s), hit, alike(_squash(busy)), alike(_squash(wait)),
            *(alike(traffic[:, k : k + 1]) for k in range(3)),
        ], -1)  # fmt: skip
        told, own = seen.told[..., 0] + seen.told[..., 1], seen.own[..., 0]
        resource = np.stack([
            _squash(load[..., 0] / (32 * per)), _squash(load[..., 1] / (2000 * per)), load[..., 2] / seen.kv,
            _squash(told / (32 * per)), _squash(own / (32 * per)), np.log(per), 10 * seen.base_s,
            _squash(seen.age_s), seen.know.speed - 1.0, 1.0 * seen.up,
        ], -1)  # fmt: skip
        work = (load[:, None, :, 1] + seen.prompt[..., None] - seen.hit) / (2000 * per[:, None])
        least = work.min(2, keepdims=True, initial=np.inf) if r else work
        full = (load[:, None, :, 2] + seen.prompt[..., None]) / seen.kv[:, None]
        pair = np.zeros((e, n, 1 + r, 5), np.float32)
        pair[..., 0, 0] = 1.0
        told_pair = [_squash(work), _squash(4 * (work - least)), seen.hit / np.maximum(seen.prompt, 1.0)[..., None]]
        for k, part in enumerate((*told_pair, np.minimum(full, 4.0))):
            pair[..., 1:, 1 + k] = part
        allowed = np.ones((e, n, 1 + r), bool)
        allowed[..., 1:] = seen.up[:, None] & self.active[..., None]
        clip = lambda x: np.clip(x, -8, 8).astype(np.float32)
        return Observation(clip(agent), clip(resource), clip(pair), self.active, allowed, np.arange(1 + r) - 1)

    def game(self, prices: BalancerPrices) -> CongestionBatch:
        """Requests that wait at one dispatcher on replicas; see :func:`.decide.fill_game`."""
        e, n, r = self.seen.hit.shape
        weight, capacity = np.zeros((e, n, r)), np.ones((e, r))
        private, allowed = np.zeros((e, n, 1 + r)), np.zeros((e, n, 1 + r), bool)
        allowed[..., 0] = True
        floats = BalancerPrices(*map(float, prices))
        decide.fill_game(self.seen, self._believed(prices), floats, weight, capacity, private, allowed)
        rows = np.arange(-1, r)[:, None]
        return CongestionBatch(rows, weight, capacity, private, allowed, self.active, np.zeros((e, r)))

    def settle(
        self, choice: Choice | Int, prices: BalancerPrices, proposal: Any = None, trust: float = np.inf,
        seating: Any = None,
    ) -> Routed:  # fmt: skip
        """Each request where it chose; it waits where that replica is down. What it takes of the memory is its prompt's
        part, when it is admitted: replicas queue what does not fit yet."""
        seen = self.seen
        option, r = np.where(self.active, options_of(choice), 0), seen.up.shape[1]
        known = (option > 0) & (option <= r)
        if r:
            known &= np.take_along_axis(seen.up, np.clip(option - 1, 0, r - 1), 1)
        option = np.where(known, option, 0)
        share = self._fair(option)
        load = self._believed(prices)
        price = load[..., 0] / np.maximum(seen.share * max(r, 1), 1e-9)
        return Routed(option.astype(np.int64), share, price)

    def _fair(self, option: Int) -> Float:
        """(E, N) the part of its replica's KV memory that each prompt takes."""
        r = self.seen.up.shape[1]
        if not r:
            return np.zeros(option.shape)
        kv = np.take_along_axis(self.seen.kv, np.clip(option - 1, 0, r - 1), 1)
        return np.where((option > 0) & (option <= r), np.minimum(self.seen.prompt / kv, 1.0), 0.0)

    def baseline(self, name: str, rng: np.random.Generator) -> Int:
        """(E, N) where a router of the field's sends each request, by itself."""
        rules = self.problem.rules
        if name not in rules:
            self.unknown_baseline(name, rules)
        option = np.zeros(self.who.shape, np.int64)
        prices, told = BalancerPrices(), self.problem.told_tokens
        for e in np.flatnonzero(self.active.any(1)):
            stream = stream_of(int(rng.integers(2**62)))
            sim = self.sim(int(e))
            for j in np.flatnonzero(self.active[e]):
                self._show(int(e), int(j))
                asked, picked = self.who[e, j : j + 1], option[e, j : j + 1]
                run(sim, rules[name], 0, prices, told, self.rooms[e], stream, asked, ASK, picked)
        return np.where(self.active, 1 + option, 0)

    def _show(self, e: int, j: int) -> None:
        """What is seen of request j of world ``e``, told or simulated, is what its router looks at."""
        seen, view = self.seen, self.rooms[e].seen
        for name in ("up", "age_s", "told", "then", "own", "about"):
            getattr(view, name)[...] = getattr(seen, name)[e]
        view.hit[:], view.about[PROMPT] = seen.hit[e, j], seen.prompt[e, j]

    def requested(self, option: Int, prices: BalancerPrices) -> Float:
        """(E,) share of the requests that ask for a replica which is down, or none."""
        asked = (option > 0) & self.active
        r = self.seen.up.shape[1]
        up = np.zeros(option.shape, bool)
        if r:
            up = np.take_along_axis(self.seen.up, np.clip(option - 1, 0, r - 1), 1) & (option <= r)
        return np.asarray((asked & ~up).sum(1) / np.maximum(asked.sum(1), 1))

    def excess(self, plan: Routed) -> Float:
        """(E,) worst relative excess of the memory that a prompt takes over what it asks for."""
        fair = self._fair(plan.option)
        over = np.where(fair > 0, plan.share / np.where(fair > 0, fair, 1.0) - 1.0, np.where(plan.share > 0, np.inf, 0))
        return np.asarray(over.max(1, initial=0.0))

    def remark(self) -> str:
        """Where no replica is up, those that wait go on waiting."""
        if self.seen.up[0].any() or not self.active[0].any():
            return ""
        return f"no replica is up; {int(self.active[0].sum())} requests wait"

    def priority(self) -> Float:
        """Who has waited longest is named first."""
        return self.seen.waited_s.copy()

    # --- what the world does

    def execute(self, plan: Routed) -> Facts:
        """Send and hold; then on to the next moment at which someone is to be decided. What ends until then counts."""
        e, n = self.who.shape
        times, refused = np.zeros((e, n, 2)), np.zeros((e, n), bool)
        samples, told = np.full((e, 2, OUTCOMES), np.nan), np.zeros((e, len(TOLD_NAMES)))
        by = np.zeros((e, 2, max(self.problem.dispatchers, self._dispatchers())))
        who, option, elapsed = self.who.copy(), np.ascontiguousarray(plan.option, np.int64), np.zeros(e)
        for k in range(e):
            sim = self.sim(k)
            who[k] = self.who[k]  # a told state's are known once it moves
            counted = int(WARM * len(sim.trace.arrival)) if self.told is None else 0
            elapsed[k] = turn(
                sim, k, self.who[k], option[k], self.problem.told_tokens, counted, self.rooms[k], self.coins[k],
                self.ended_at[k], self.newly[k], self.seen, times[k], refused[k], samples[k], told[k], by[k],
            )  # fmt: skip
        self.over[:] = elapsed < 0
        counts = dict(zip(TOLD_NAMES, told.T, strict=True)) | {"first_s": samples[:, 0], "last_s": samples[:, 1]}
        counts |= {"tokens_by": by[:, 0], "time_by": by[:, 1]}
        zero = np.zeros((e, n))
        reward = self._earned(times, who, option, refused)
        # the reward is all that the decision costs its request: what the router decides next is another's, or paid anew
        return Facts(reward, zero, zero[..., None].copy(), np.abs(elapsed), counts, who >= 0)

    def _dispatchers(self) -> int:
        return 1 if self.told is None else self.told.dispatchers

    def _earned(self, times: Float, who: Int, option: Int, refused: Bool) -> Float:
        """(E, N) reward: less the weighed times to the first and the last token, and what a late first token is beyond
        that; of one that waits, as long as it waits and then what a replica by capacity would give now."""
        p = self.problem
        later = p.hold_s * (option <= 0) + p.detect_s * refused
        first = np.minimum(times[..., 0] + later, SLOWEST_S)
        last = np.minimum(times[..., 1] + later, 10 * SLOWEST_S)
        cost = p.reward_first * first + p.reward_last * last + p.reward_fair * first**2
        return np.where(who >= 0, -cost, 0.0)

    def _next(self, k: int) -> None:
        """On to the next decision of world ``k``; over where all are done, or nobody can be served any more."""
        self.over[k] = go_on(
            self.sim(k), k, self.who[k], self.problem.told_tokens, self.rooms[k], self.coins[k], self.seen
        )

    def drift(self) -> Bool:
        """The next decision is at hand already; (E,) whether the episode is over there."""
        self.epoch += 1
        return self.ended()

    def ended(self) -> Bool:
        """(E,) nobody waits any more, and every end was told."""
        out = self.over.copy()
        for k in np.flatnonzero(out):
            out[k] = not (~self.ended_at[k] & np.isfinite(self.sim(int(k)).requests.last)).any()
        return out

    @property
    def terminated(self) -> Bool:
        """For good: nobody comes after the last request."""
        return self.ended()

    def restart(self, which: Bool) -> None:
        """Idle fleets where ``which`` (E,) is set, and other requests to come."""
        for e in np.flatnonzero(which):
            k = int(e)
            rng = self._draws(k)
            sim = self.problem.episode(rng, bool(self.stream[k, 0] >= 10_000))
            self.sims[k], self.rooms[k] = sim, new_room(self.problem.dispatchers, sim.fleet.share)
            self.coins[k] = stream_of(int(rng.integers(2**62)))
            self._untold(k, sim)
            for mine, given in zip((self.seen.share, self.seen.kv, self.seen.base_s), _known(sim.fleet), strict=True):
                mine[k] = given
            self.epoch[k] = 0
            self._next(k)
        self.told = None if which.all() else self.told

    def spread(self, share: Float) -> None:
        """Bring each world so far along its episode (E,), 0 to 1, by its game at the prices' defaults."""
        prices = BalancerPrices()
        for k in range(self.size):
            most = int(share[k] * self.problem.requests) - 1
            if most >= 0 and not self.over[k]:
                self.problem.play_on(self.sim(k), prices, self.rooms[k], self.coins[k], self.who[k], most)
                self._next(k)
                self.epoch[k] += 1 + most
            q = self.sim(k).requests
            self.ended_at[k] = np.isfinite(q.last)

    # --- told and kept

    def state(self, e: int) -> BalancerState:
        seen, know = self.seen, self.seen.know
        sim, d = self.sim(e), 0
        if self.who[e, 0] >= 0:
            d = int(sim.trace.dispatcher[self.who[e, 0]])
        names = ("requests", "tokens", "kv", "waiting")
        told = ("waiting", "running", "kv", "tokens", "iteration_s")
        columns = {f"told_{name}": seen.told[e, :, k].copy() for k, name in enumerate(told)}
        columns |= {f"own_{name}": seen.own[e, :, k].copy() for k, name in enumerate(names)}
        columns |= {f"then_{name}": seen.then[e, :, k].copy() for k, name in enumerate(names)}
        return BalancerState(
            **columns, prompt=seen.prompt[e].copy(), share=seen.share[e].copy(), age_s=np.maximum(seen.age_s[e], 0.0),
            kv=seen.kv[e].copy(), base_s=seen.base_s[e].copy(), up=seen.up[e].copy(), replica=self.replica.copy(),
            active=self.active[e].copy(), waited_s=np.maximum(seen.waited_s[e], 0.0), hit=seen.hit[e].copy(),
            coin=seen.coin[e].copy(), kept=know.left[e].copy(), alike=know.alike[e].copy(),
            usual=know.usual[e].copy(), speed=know.speed[e].copy(), lag_s=float(know.lag_s[e]),
            dispatchers=sim.law.dispatchers, gap_s=float(seen.about[e, GAP_S]),
            mean_prompt=float(seen.about[e, MEAN_PROMPT]), time_s=float(seen.time_s[e]),
            truth=truth_of(sim, self.who[e], d),
        )  # fmt: skip

    def parts(self, plan: Routed, e: int = 0) -> dict[str, Any]:
        return {
            "option": plan.option[e], "served": plan.option[e] > 0, "shares": {FAMILY: plan.share[e]},
            "prices": {FAMILY: plan.price[e]},
        }  # fmt: skip

    def plan_of(self, allocation: Any) -> Routed:
        price = np.zeros(self.seen.up.shape)
        if len(allocation.prices.get(FAMILY, ())):
            price[0] = allocation.prices[FAMILY]
        return Routed(np.asarray(allocation.option, np.int64)[None], np.asarray(allocation.shares[FAMILY])[None], price)

    def _draws(self, e: int) -> np.random.Generator:
        """The next random numbers of world ``e``: the same at its k-th call, whatever was executed."""
        self.stream[e, 1] += 1
        return np.random.default_rng(self.stream[e])

    def reseed(self, seeds: Sequence[int]) -> None:
        """Draw from fresh streams from now on; the requests that are still to come do so in another order."""
        self.stream[:] = [[int(seed), 0] for seed in seeds]
        for k in range(self.size):
            rng = self._draws(k)
            self.coins[k] = stream_of(int(rng.integers(2**62)))
            made = self.sims[k]
            if made is not None:
                redraw(made, rng)

    def state_dict(self) -> dict[str, Any]:
        """The fleets with all that their routers remember, who waits, the random streams."""
        worlds = [
            flat({"sim": self.sim(k), "room": self.rooms[k], "coin": self.coins[k], "ended": self.ended_at[k]})
            for k in range(self.size)
        ]
        own = {
            "epoch": self.epoch.copy(),
            "who": self.who.copy(),
            "over": self.over.copy(),
            "stream": self.stream.copy(),
        }
        return own | {"seen": flat({"seen": self.seen}), "worlds": worlds}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what :meth:`state_dict` gave.

        Raises:
            ValueError: it is of another number of worlds, or something is missing.
        """
        missing = {"epoch", "who", "over", "stream", "seen", "worlds"} - set(state)
        if missing or len(state["worlds"]) != self.size or np.shape(state["who"]) != self.who.shape:
            what = f"{min(missing)!r} is missing" if missing else f"{len(state['worlds'])} worlds are stored"
            raise ValueError(f"{what}; this has {self.size} worlds of {self.who.shape[1]} requests")
        for name in ("epoch", "who", "over", "stream"):
            getattr(self, name)[...] = state[name]
        self.seen = rebuilt({"seen": self.seen}, state["seen"])["seen"]
        for k, kept in enumerate(state["worlds"]):
            like = {"sim": self.sim(k), "room": self.rooms[k], "coin": self.coins[k], "ended": self.ended_at[k]}
            found = rebuilt(like, kept)
            self.sims[k], self.rooms[k] = found["sim"], found["room"]
            self.coins[k], self.ended_at[k] = found["coin"], found["ended"]
            self.newly[k] = np.zeros(len(found["ended"]), np.int64)


def _known(fleet: Table) -> tuple[Float, Float, Float]:
    return fleet.share, fleet.kv, fleet.base_s


def _squash(x: Any) -> Float:
    return np.asarray(x / (1 + np.abs(x)))
