"""What the value of what is left in a battery is worth on set F, beside its honest rivals.

    python benchmarks/foresight.py rivals shift clairvoyant --out folder [--decide improved]
    python benchmarks/foresight.py rivals prior --out folder --decide improved
    python benchmarks/foresight.py rl --out folder --agent-steps 2000000 8000000 --learner imappo

``mec``, set F, 12 devices, 3 servers: a slot is a wake-up every 15 minutes, three days are measured after one. Rows:

* constant: one price of a joule, tuned with the game's other prices, which are everybody's.
* planning: every device plans ahead by its own harvest log, its last tasks' joules and the known worths (certainty
  equivalent, nobody else in it), and charges what it would leave by that plan. No learning; three numbers tuned.
* table: the price of a joule by battery level and hour, 7 numbers. formula: by what is known of the device too, 14.
* value: learned from coupled roll-outs (:mod:`rl.value`), ``--training`` seeds.
* prior: a hybrid trained under the value of its training seed, calibrated. rl: RL alone, without a game.
* clairvoyant: a feasible plan that knows all to come, its own best reply device by device, planned a day longer than
  is measured; on the first ``--foreseen`` of the networks.

Each rival that is tuned has ``--trials`` evaluations on tuning seeds by CMA-ES (Hansen 2016, "The CMA evolution
strategy: a tutorial"). *shift*: harvest and batteries halved, nothing tuned again. Reporting seeds, paired, 95 %
intervals over networks, where there are several training seeds over both. ``--decide`` picks how a choice is made from
prices, of ``DECIDE``. ``--tuning`` reports on tuning seeds that no trial has seen. What is in ``--out`` is not run
again.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")
sys.path[0] = str(Path(__file__).resolve().parents[1])  # benchmarks/games.py would hide the package games

import numpy as np  # noqa: E402
from numba import njit  # noqa: E402

from coordinator import Coordinator  # noqa: E402
from coordinator.improve import Improve  # noqa: E402
from hybridalloc import make_problem  # noqa: E402
from hybridalloc.problems.contract import Float, Int, Prices  # noqa: E402
from hybridalloc.problems.mec.arrays import ENERGY_UNIT  # noqa: E402
from hybridalloc.problems.mec.law import streams  # noqa: E402
from hybridalloc.problems.mec.problem import Mec  # noqa: E402
from hybridalloc.problems.mec.shift import Shift  # noqa: E402
from hybridalloc.problems.mec.world import MecWorld  # noqa: E402
from hybridalloc.reports.statistics import paired_difference  # noqa: E402
from hybridalloc.training.calibration import calibrate  # noqa: E402
from hybridalloc.training.config import REPORT_SEEDS, TUNE_SEEDS, WARMUP_SLOTS, TrainConfig  # noqa: E402
from hybridalloc.training.evaluation import evaluate  # noqa: E402
from hybridalloc.training.rollout import Chosen, Execute, Rollout  # noqa: E402
from hybridalloc.training.stores import learn_value  # noqa: E402
from hybridalloc.training.trainer import train  # noqa: E402
from hybridalloc.training.tuning import tune_prices  # noqa: E402
from rl.value import StoreValue, Valuer, Worth, linear_pieces  # noqa: E402

DECIDE = {
    "game": Coordinator("game"),
    "improved": Coordinator("game", improve=Improve()),
}  # how a choice is made from prices and values
DAYS = 3
SEARCHED, UNSEEN = TUNE_SEEDS[:64], TUNE_SEEDS[64:]  # tuned on; looked at with --tuning
SHIFTS = {
    "as trained": None,
    "harvest / 2": Shift("harvest / 2", harvest=2.0),
    "battery / 2": Shift("battery / 2", battery=2.0),
}
KNOBS = ("energy", "toll", "delay", "risk", "migration", "margin")  # of the game's prices, tuned with the constant
PIECES = 32  # of a table's worth
LEVELS = 121  # of a battery in the clairvoyant's plan


# --- rivals that need no learning


class Table:
    """The price of a joule as exp of a quadratic in the battery level, whose terms go with the hour (7 numbers), or
    with what is known of the device too (14). ``theta``: of the features, then 3 of the slope, 1 of the bend."""

    def __init__(self, theta: Float) -> None:
        self.theta = theta

    def worth(self, world: MecWorld) -> Worth:
        stores = world.stored()
        x = stores.features
        known = [np.ones(x.shape[:2]), x[..., 0], x[..., 1]]
        if len(self.theta) == 14:
            known += [x[..., 4] - 0.3, x[..., 5] - 0.5, x[..., 6] - 0.8, x[..., 7] - 1.5, x[..., 8] - 0.5]
            known += [x[..., 9], x[..., 11]]
        f = np.stack(known, axis=-1)
        p = f.shape[-1]
        level = (np.arange(PIECES) + 0.5) / PIECES - 0.5
        log = (f @ self.theta[:p])[..., None] + (f[..., :3] @ self.theta[p : p + 3])[..., None] * level
        price = np.exp(np.clip(log + self.theta[p + 3] * (level**2 - 0.08), -3.0, 6.0))
        values = np.cumsum(price, axis=-1) * stores.capacity[..., None] / PIECES
        return linear_pieces(np.concatenate([np.zeros((*x.shape[:2], 1)), values], axis=-1), stores.capacity)


class Planner:
    """Every device's plan for its own days to come; see the head. ``theta``: log of a factor on the worth, how sure it
    is that what it pays for is done, log of how far it plans."""

    def __init__(self, theta: Float, problem: Mec, every: int = 8, tasks: int = 12) -> None:
        self.factor = float(np.exp(np.clip(theta[0], -2.0, 2.0)))
        self.sure = float(np.clip(0.95 + 0.2 * theta[1], 0.2, 1.0))
        self.horizon = max(int(problem.scenario.day * np.clip(1.5 * np.exp(0.5 * theta[2]), 0.25, 3.0)), every)
        self.problem, self.every, self.tasks = problem, every, tasks
        self.world: MecWorld | None = None

    def worth(self, world: MecWorld) -> Worth:
        w, s = world.world, self.problem.scenario
        e, n = w.active.shape
        if self.world is not world:
            self.world, self.at = world, -1
            self.joules, self.noted = np.full((e, n, self.tasks), 0.02), np.zeros((e, n), int)
            self.values = np.zeros((e, n, self.every, PIECES + 1))
        if self.at != world.epoch[0]:
            self._note(world)
            if self.at < 0 or world.epoch[0] % self.every == 0:
                log = w.harvest_log_j.reshape(e * n, -1)
                mixes = np.array([s.night_mix, s.day_mix])
                mixes /= mixes.sum(axis=1, keepdims=True)
                out = np.zeros((e * n, self.every, PIECES + 1))
                plan_ahead(
                    log, mixes, np.array(s.worths), self.joules.reshape(e * n, -1), s.load, world.physics.battery_j,
                    np.repeat(w.slot % s.day, n), self.horizon, self.sure, out,
                )  # fmt: skip
                self.values, self.planned = self.factor * out.reshape(self.values.shape), world.epoch[0]
            self.at = world.epoch[0]
        return linear_pieces(self.values[:, :, self.at - self.planned], np.full((e, n), world.physics.battery_j))

    def _note(self, world: MecWorld) -> None:
        """What the task at hand takes by the cheapest option that is likely in time."""
        w, p = world.world, world.physics
        drawn = world.drawn()
        own = np.where(w.task_cycles <= w.deadline_s * w.device_hz, drawn[..., 0], np.inf)
        seconds = w.task_bits[..., None] / w.rate + w.task_cycles[..., None] / w.server_hz[:, None]
        in_time = p.backhaul_s + 1.5 * seconds < w.deadline_s[..., None]
        best = np.minimum(own, np.where(in_time, drawn[..., 1:-1], np.inf).min(axis=2))
        rows, columns = np.nonzero(w.active & np.isfinite(best))
        self.joules[rows, columns, self.noted[rows, columns] % self.tasks] = best[rows, columns]
        self.noted[rows, columns] += 1


@njit(cache=True)
def plan_ahead(log, mixes, worths, joules, load, capacity, now, horizon, sure, out):
    """Fill ``out`` (D, S, G + 1): what D devices' batteries are worth after slot ``now`` and the S - 1 after it, by
    level, on a harvest as logged and tasks like the last ones, by dynamic programming over ``horizon`` >= S slots."""
    devices, day = log.shape
    tasks, soon, levels = joules.shape[1], out.shape[1], out.shape[2]
    step = capacity / (levels - 1)
    for i in range(devices):
        v = np.zeros(levels)
        later = np.empty(levels)
        for ahead in range(horizon, -1, -1):
            h = (now[i] + ahead) % day
            for g in range(levels):
                b = min(g * step + log[i, h], capacity) / step
                k = min(int(b), levels - 2)
                later[g] = v[k] + (b - k) * (v[k + 1] - v[k])
            if ahead < soon:
                out[i, ahead] = later - later[0]
            mix = mixes[1 if 4 * h >= day and 4 * h < 3 * day else 0]
            for g in range(levels):
                gain = 0.0
                for m in range(tasks):
                    b = g - joules[i, m] / step
                    if b < 0:
                        continue
                    k = min(int(b), levels - 2)
                    left = later[k] + (b - k) * (later[k + 1] - later[k])
                    for c in range(len(worths)):
                        gain += mix[c] * max(0.0, sure * worths[c] + left - later[g])
                v[g] = later[g] + load * gain / tasks


def cma(score: Callable[[Float, Sequence[int]], float], start: Float, trials: int, sigma: float, seed: int) -> Float:
    """The better of ``start`` and the last mean of an evolution strategy that maximises ``score(x, seeds)``; every
    generation has 16 tuning seeds of its own, common to it."""
    rng = np.random.default_rng([seed, 56])
    n, pop = len(start), 12
    weight = np.log(pop // 2 + 0.5) - np.log(np.arange(1, pop // 2 + 1))
    weight /= weight.sum()
    eff = 1 / (weight**2).sum()
    cc, cs = (4 + eff / n) / (n + 4 + 2 * eff / n), (eff + 2) / (n + eff + 5)
    c1 = 2 / ((n + 1.3) ** 2 + eff)
    cm = min(1 - c1, 2 * (eff - 2 + 1 / eff) / ((n + 2) ** 2 + eff))
    damp = 1 + cs + 2 * max(0.0, np.sqrt((eff - 1) / (n + 1)) - 1)
    usual = np.sqrt(n) * (1 - 1 / (4 * n) + 1 / (21 * n * n))
    mean, cov, path, path_s = np.array(start, float), np.eye(n), np.zeros(n), np.zeros(n)
    for g in range(max((trials - 4) // pop, 1)):
        d, b = np.linalg.eigh(cov)
        d = np.sqrt(np.maximum(d, 1e-12))
        y = rng.standard_normal((pop, n)) * d @ b.T
        seeds = rng.choice(SEARCHED, 16, replace=False).tolist()
        best = np.argsort([-score(mean + sigma * row, seeds) for row in y])[: pop // 2]
        step = weight @ y[best]
        mean = mean + sigma * step
        path_s = (1 - cs) * path_s + np.sqrt(cs * (2 - cs) * eff) * (b @ ((b.T @ step) / d))
        length = np.linalg.norm(path_s)
        on = length / np.sqrt(1 - (1 - cs) ** (2 * (g + 1))) < (1.4 + 2 / (n + 1)) * usual
        path = (1 - cc) * path + on * np.sqrt(cc * (2 - cc) * eff) * step
        cov = (1 - c1 - cm) * cov + c1 * np.outer(path, path) + cm * (weight * y[best].T) @ y[best]
        sigma *= float(np.exp(cs / damp * (length / usual - 1)))
    return max(np.array(start, float), mean, key=lambda x: score(x, SEARCHED))


# --- who knows all that is to come


class Trace(NamedTuple):
    """T slots of E networks as one policy met them; nothing that comes from outside depends on what is decided.

    Attributes:
        option: (T, E, N) decided. joules: (T, E, N, O) that each option takes, inf where it is not open. harvest:
            (T, E, N). battery: (E, N) at first. worlds: each network's slots side by side.
    """

    option: Int
    joules: Float
    harvest: Float
    battery: Float
    worlds: list[MecWorld]


def trace(problem: Mec, prices: Prices, decide: Coordinator, seeds: Sequence[int], value: Valuer, slots: int) -> Trace:
    run = Rollout(problem, seeds, value=value)
    world: Any = run.world
    policy = Execute(decide, None, prices)
    kept: list[Any] = []
    option, joules, harvest = [], [], []
    battery = world.world.battery_j.copy()
    for _ in range(slots):
        w = world.world
        open_ = np.ones((*w.active.shape, len(world.options)), bool)
        open_[..., 0] = w.task_cycles <= w.deadline_s * w.device_hz
        open_[..., 1:-1] = w.reachable
        drawn = world.drawn()
        drawn[..., 0] = world.physics.kappa * w.device_hz**2 * w.task_cycles
        joules.append(np.where(open_, drawn, np.inf))
        kept.append(type(w)(*(x.copy() for x in w)))
        before, hour = w.harvest_log_j.copy(), w.slot % problem.scenario.day
        step = run.step(policy, prices)
        option.append(np.where(kept[-1].active, step.chosen.plan.option, len(world.options) - 1))
        at = (np.arange(len(seeds)), slice(None), hour)
        harvest.append(2 * world.world.harvest_log_j[at] - before[at])
    worlds = []
    for e in range(len(seeds)):
        stacked = type(kept[0])(*(np.stack([getattr(k, f)[e] for k in kept]) for f in kept[0]._fields))
        n = stacked.active.shape
        alone = stacked._replace(battery_j=np.full(n, 1e3), last_server=np.full(n, -1))
        worlds.append(MecWorld(problem, alone, world.options, streams(range(slots))))
    return Trace(np.array(option), np.array(joules), np.array(harvest), battery, worlds)


def foresee(seen: Trace, prices: Prices, switch: float, capacity: float, sweeps: int = 2) -> Int:
    """(T, E, N) options: each device in turn plans its days by dynamic programming over battery and last server, all to
    come known and the others' plans held, every alternative settled exactly; so often for all."""
    option = seen.option.copy()
    slots, networks, n = option.shape
    count = seen.joules.shape[3]
    for e in range(networks):
        world = seen.worlds[e]
        active = world.world.active.copy()
        for _ in range(sweeps):
            for i in range(n):
                earned = np.zeros((slots, count))
                for o in range(count):
                    tried = option[:, e].copy()
                    tried[:, i] = np.where(active[:, i], o, count - 1)
                    earned[:, o] = _apart(world, tried, prices)
                option[:, e, i] = best_days(
                    earned, seen.joules[:, e, i], seen.harvest[:, e, i], active[:, i], capacity, seen.battery[e, i],
                    switch,
                )  # fmt: skip
    return option


def _apart(world: MecWorld, option: Int, prices: Prices) -> Float:
    """(T,) reward of all devices in each slot, batteries full and nobody anywhere before; the world is as it was."""
    w = world.world
    kept = type(w)(*(x.copy() for x in w))
    facts = world.execute(world.settle(option, prices))
    for now, before in zip(w, kept, strict=True):
        now[...] = before
    return np.asarray(facts.reward.sum(axis=1))


@njit(cache=True)
def best_days(earned, joules, harvest, active, capacity, battery, switch):
    """(T,) options of one device, the last of which sheds."""
    slots, count = joules.shape
    servers = count - 2
    step = capacity / (LEVELS - 1)
    v = np.zeros((servers + 1, LEVELS))
    best = np.zeros((slots, servers + 1, LEVELS), np.int64)
    for t in range(slots - 1, -1, -1):
        now = np.empty((servers + 1, LEVELS))
        for last in range(servers + 1):
            for g in range(LEVELS):
                top, arg = -np.inf, count - 1
                for o in range(count):
                    if o < count - 1 and (not active[t] or joules[t, o] > g * step):
                        continue
                    x = earned[t, o]
                    to = last
                    if 0 < o < count - 1:
                        to = o
                        if last > 0 and last != o:
                            x -= switch
                    drawn = joules[t, o] if o < count - 1 else 0.0
                    b = min(g * step - drawn + harvest[t], capacity) / step
                    k = min(int(b), LEVELS - 2)
                    x += v[to, k] + (b - k) * (v[to, k + 1] - v[to, k])
                    if x > top + 1e-12:
                        top, arg = x, o
                now[last, g], best[t, last, g] = top, arg
        v = now
    out = np.empty(slots, np.int64)
    b, last = battery, 0
    for t in range(slots):
        o = best[t, last, min(round(b / step), LEVELS - 1)]
        if o < count - 1 and joules[t, o] > b:
            o = count - 1
        out[t] = o
        b = min(b - (joules[t, o] if o < count - 1 else 0.0) + harvest[t], capacity)
        if 0 < o < count - 1:
            last = o
    return out


def replay(problem: Mec, prices: Prices, seeds: Sequence[int], option: Int) -> Float:
    """(E,) welfare of a plan that is carried out, over the days that ``evaluate`` measures."""
    run = Rollout(problem, seeds)
    warmup = problem.card.whole(WARMUP_SLOTS)
    for t in range(warmup + DAYS * problem.scenario.day):
        if t == warmup:
            run.tally.clear()
        run.step(lambda run, o=option[t]: Chosen(o, run.world.settle(o, prices)), prices)
    return np.asarray(run.tally.summary()["welfare"])


# --- the study


class Study:
    """Everything found so far, in a folder."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args, self.folder = args, Path(args.out)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.problem = make_problem("mec", scenario="F", agents=12, servers=3)
        self.decide = DECIDE[args.decide]
        self.seeds = (UNSEEN if args.tuning else REPORT_SEEDS)[: args.networks]
        self.file = self.folder / f"{args.decide}-{'tuning' if args.tuning else 'reporting'}.json"
        self.rows: dict[str, Any] = json.loads(self.file.read_text()) if self.file.exists() else {}
        self.day = self.problem.scenario.day

    def row(self, name: str, made: Callable[[], Float]) -> Float:
        """(T, V) welfare, measured once."""
        if name not in self.rows:
            started = time.perf_counter()
            self.rows[name] = np.atleast_2d(made()).tolist()
            self.file.write_text(json.dumps(self.rows))
            print(f"{time.strftime('%H:%M:%S')} {name}: {np.mean(self.rows[name]):.4f}, "
                  f"{time.perf_counter() - started:.0f} s", flush=True)  # fmt: skip
        return np.array(self.rows[name])

    def found(self, name: str, made: Callable[[], Any]) -> Any:
        """Settings that were searched for, once."""
        path = self.folder / f"{name}.json"
        if not path.exists():
            started = time.perf_counter()
            path.write_text(json.dumps(made()))
            print(f"{time.strftime('%H:%M:%S')} {name} tuned, {time.perf_counter() - started:.0f} s", flush=True)
        return json.loads(path.read_text())

    def prices(self) -> Prices:
        """Of the game, and of a joule where no value says."""
        kind = self.problem.card.prices
        space = self.problem.card.price_space
        low, high, logs = (np.array(x, float) for x in zip(*(space[k] for k in KNOBS), strict=True))
        on = logs > 0
        low[on], high[on] = np.log(low[on]), np.log(high[on])

        def of(x: Float, base: Prices) -> Prices:
            y = low + np.clip(x, 0.0, 1.0) * (high - low)
            y[on] = np.exp(y[on])
            return base._replace(**dict(zip(KNOBS, y.tolist(), strict=True)))

        def search() -> Any:
            base = tune_prices(self.problem, self.decide, 80, slots=2 * self.day).prices
            y = np.array([getattr(base, k) for k in KNOBS])
            y[on] = np.log(y[on])
            score = lambda x, seeds: self.score(None, of(x, base), seeds)
            x = cma(score, (y - low) / (high - low), self.args.trials, 0.15, 0)
            return of(x, base)._asdict()

        return kind(**self.found(f"prices-{self.args.decide}", search))

    def score(self, value: Valuer | None, prices: Prices, seeds: Sequence[int]) -> float:
        seen = evaluate(self.problem, prices, self.decide, None, seeds, slots=2 * self.day, value=value)
        return float(np.nanmean(seen.metrics["welfare"]))

    def tuned(self, name: str, made: Callable[[Float], Valuer], start: Float, sigma: float, prices: Prices) -> Valuer:
        score = lambda x, seeds: self.score(made(x), prices, seeds)
        search = lambda: cma(score, start, self.args.trials, sigma, 1).tolist()
        return made(np.array(self.found(f"{name}-{self.args.decide}", search)))

    def rivals(self, prices: Prices) -> dict[str, list[Valuer | None]]:
        log_price = float(np.log(prices.energy / ENERGY_UNIT))
        table = self.tuned("table", Table, np.array([log_price, *[0.0] * 6]), 0.5, prices)
        assert isinstance(table, Table)
        begin = np.concatenate([table.theta[:3], np.zeros(7), table.theta[3:]])
        return {
            "constant": [None],
            "planning": [self.tuned("planning", lambda x: Planner(x, self.problem), np.zeros(3), 0.3, prices)],
            "table": [table], "formula": [self.tuned("formula", Table, begin, 0.3, prices)],
            "value": [self.learned(seed, prices) for seed in range(self.args.training)],
        }  # fmt: skip

    def learned(self, seed: int, prices: Prices) -> StoreValue:
        path = self.folder / f"value-{self.args.decide}-{seed}.npz"
        if not path.exists():
            started = time.perf_counter()
            found = learn_value(self.problem, prices, self.decide, seed=seed)
            np.savez(path, **found.value.state_dict())
            print(f"value {seed}: {found.samples} samples, explained {found.explained}, {found.decisions} decisions, "
                  f"{time.perf_counter() - started:.0f} s", flush=True)  # fmt: skip
        with np.load(path) as state:
            return StoreValue.of(state)

    def measure(self, values: list[Valuer | None], prices: Prices, shift: Shift | None) -> Float:
        world = self.problem if shift is None else self.problem.shifted(shift)
        slots = DAYS * self.day
        run = lambda v: evaluate(world, prices, self.decide, None, self.seeds, slots=slots, value=v)
        return np.array([run(v).metrics["welfare"] for v in values])

    def prior(self, seed: int, prices: Prices) -> Float:
        """A hybrid under the value of its training seed."""
        value = self.learned(seed, prices)
        config = TrainConfig(self.args.learner, "hybrid", self.args.agent_steps[0], trust=20.0, seed=seed, checks=2)
        policy = train(self.problem, prices, config, value=value).learner.policy
        improve = self.decide.improve
        found = calibrate(self.problem, prices, policy, 20.0, slots=self.day, improve=improve, value=value)
        print(f"prior {seed}: trust {found.trust:g}", flush=True)
        at = Coordinator("hybrid", found.trust, improve=improve)
        seen = evaluate(self.problem, prices, at, policy, self.seeds, slots=DAYS * self.day, value=value)
        return seen.metrics["welfare"]

    def alone(self, steps: int, gamma: float, seed: int, prices: Prices) -> Float:
        """RL without a game, at its own recipe but for gamma."""
        config = TrainConfig(self.args.learner, "rl", steps, seed=seed, checks=2, settings=(("gamma", gamma),))
        policy = train(self.problem, prices, config).learner.policy
        at = Coordinator("rl", 0.0)
        seen = evaluate(self.problem, prices, at, policy, self.seeds, slots=DAYS * self.day)
        return seen.metrics["welfare"]

    def clairvoyant(self, prices: Prices, value: Valuer) -> Float:
        longer = make_problem("mec", scenario="F", agents=12, servers=3, episode=10 * self.day)
        slots = self.problem.card.whole(WARMUP_SLOTS) + (DAYS + 1) * self.day
        seeds = self.seeds[: self.args.foreseen]
        seen = trace(longer, prices, self.decide, seeds, value, slots)
        ideal = foresee(seen, prices, longer.scenario.reward_switch, longer.physics.battery_j)
        return replay(longer, prices, seeds, ideal)


def told(name: str, a: Float, b: Float) -> str:
    """A line: the mean, and what it is above another with a 95 % interval."""
    d = paired_difference(a, b)
    low, high = d.conservative or (d.low, d.high)
    return f"| {name} | {a.mean():.4f} | {d.mean:+.4f} [{low:+.4f}, {high:+.4f}] | {100 * d.mean / b.mean():+.1f} % |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="+", choices=("rivals", "shift", "clairvoyant", "prior", "rl"))
    parser.add_argument("--out", required=True)
    parser.add_argument("--trials", type=int, default=240)
    parser.add_argument("--networks", type=int, default=48)
    parser.add_argument("--foreseen", type=int, default=12)
    parser.add_argument("--training", type=int, default=3)
    parser.add_argument("--decide", choices=tuple(DECIDE), default="game")
    parser.add_argument("--learner", default="imappo")
    parser.add_argument("--agent-steps", type=int, nargs="+", default=[2_000_000, 8_000_000])
    parser.add_argument("--tuning", action="store_true")
    args = parser.parse_args()
    study = Study(args)
    prices = study.prices()
    print({k: round(v, 3) for k, v in prices._asdict().items()}, flush=True)
    rivals = study.rivals(prices) if set(args.parts) - {"rl"} else {"constant": [None]}
    worlds = {name: shift for name, shift in SHIFTS.items() if shift is None or "shift" in args.parts}
    for world, shift in worlds.items():
        rows = {
            n: study.row(f"{world}/{n}", lambda v=v, s=shift: study.measure(v, prices, s)) for n, v in rivals.items()
        }
        if "prior" in args.parts and shift is None:
            rows["prior"] = study.row(
                f"{world}/prior", lambda: np.array([study.prior(seed, prices) for seed in range(args.training)])
            )
        if "rl" in args.parts and shift is None:
            for steps in args.agent_steps:
                for gamma in (0.0, 0.99):
                    name = f"{args.learner} alone, gamma {gamma:g}, {steps / 1e6:g} M"
                    rows[name] = study.row(
                        f"{world}/{name}",
                        lambda s=steps, g=gamma: np.array([study.alone(s, g, k, prices) for k in range(args.training)]),
                    )
        print(f"\n| {world} | welfare | above the constant | |\n|---|---|---|---|")
        for name, values in rows.items():
            print(told(name, values, rows["constant"]))
        for rival in ("table", "formula") if "value" in rows else ():
            print(told(f"value, above the {rival}", rows["value"], rows[rival]))
        if "clairvoyant" in args.parts and shift is None:
            best = rivals["value"][0]
            assert best is not None
            ideal = study.row("as trained/clairvoyant", lambda v=best: study.clairvoyant(prices, v))
            few = {name: values[:, : ideal.shape[1]] for name, values in rows.items()}
            print(f"\n| first {ideal.shape[1]} networks | welfare | above the constant | |\n|---|---|---|---|")
            for name, values in (few | {"clairvoyant": ideal}).items():
                print(told(name, values, few["constant"]))
            room = ideal.mean() - few["constant"].mean()
            for name, values in few.items():
                print(f"{name}: {(values.mean() - few['constant'].mean()) / room:.0%} of the room")


if __name__ == "__main__":
    main()
