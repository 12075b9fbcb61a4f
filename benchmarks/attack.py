"""Attacks on the promises: an independent checker, planted faults, extreme states.

    python benchmarks/attack.py                                  # all parts; some minutes
    python benchmarks/attack.py check --steps 30000
    python benchmarks/attack.py plant
    python benchmarks/attack.py extreme --states 20000

*check*: every step of every method on random states of both problems is read again by plain loops, written here from
the definitions alone: limits, who is in time, who has cause to envy, floors, and (where places were given) the gain of
any holder by a move that fits. What differs from the certificate is counted. *plant*: faults put into a solver's
answer; each has to be caught: another candidate is returned, or the certificate says it. *extreme*: valid states with
values at the ends of what floats hold; every answer has to be certified, or opted out with a status. Input that is not
valid is attacked by ``CASES=200000 pytest tests/hybridalloc/test_fuzz_input.py``, files by ``test_files_are_data.py``.
Exit code 1 if anything is found.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
import warnings
from collections import Counter
from dataclasses import fields, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

sys.path[0] = str(Path(__file__).resolve().parents[1])  # benchmarks/games.py would hide the package games

from hybridalloc import Allocator, make_problem  # noqa: E402

NO_DEADLINE = 1e9


class Noise:
    """A recommender that proposes noise."""

    name = "noise"

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)

    def propose(self, observation: Any) -> Any:
        return self.rng.choice([0.3, 3.0, 30.0]) * self.rng.standard_normal(observation.allowed.shape)


# --- what holds of one state and one allocation, by plain loops


def mec_facts(problem: Any, s: Any, a: Any, prices: Any) -> SimpleNamespace:
    """Times, places and costs of every device, from the definitions."""
    p, n = problem.physics, s.agents
    bands, servers = len(s.air_queue_s), len(s.server_hz)
    per = bands // servers if servers else 1
    rate = lambda power, snr: p.band_hz * math.log2(1 + power * snr) + 1e4
    in_time, use, home = [], {}, []
    legs: list[list[Any]] = []  # of each device and option: (resources, seconds, slack, acceptable)
    cost: list[list[Any]] = []  # private cost, weight a resource
    broken = []
    for i in range(n):
        own_s = s.task_cycles[i] / s.device_hz[i]
        own_j = p.kappa * s.device_hz[i] ** 2 * s.task_cycles[i]
        pays = not p.batteries or own_j <= s.battery_j[i]
        o, sent = int(a.option[i]), float(a.fraction[i])
        if o < 0 or o > bands or (o and (not s.active[i] or not s.reachable[i, (o - 1) // per])):
            broken.append(f"option of {i}")
            o = 0
        air, cpu, power = float(a.shares["air"][i]), float(a.shares["cpu"][i]), float(a.power[i])
        if o:
            use["air", o - 1] = use.get(("air", o - 1), 0.0) + air
            use["cpu", (o - 1) // per] = use.get(("cpu", (o - 1) // per), 0.0) + cpu
        elif air or cpu or power or sent:
            broken.append(f"{i} holds something and opted out")
        if not (0 <= power <= p.power_w * (1 + 1e-9) and 0 <= sent <= 1 + 1e-9 and air >= 0 and cpu >= 0):
            broken.append(f"limits of {i}")
        left_j = (1 - sent) * own_j
        spent = power * air * s.deadline_s[i] / p.efficiency
        starts = (1 - sent) * own_s <= s.deadline_s[i] and left_j <= s.battery_j[i]
        if s.active[i] and p.batteries and spent + (left_j if starts else 0.0) > s.battery_j[i] * (1 + 1e-9) + 1e-15:
            broken.append(f"battery of {i}")
        moves = lambda k, i=i: p.migration and s.last_server[i] not in (-1, k)
        wait = lambda b, k, moves=moves: 0.001 + s.queue_s[k] + s.air_queue_s[b] + (0.004 if moves(k) else 0.0)
        snr = [10 ** (s.reported_gain_db[i, b] / 10) / (p.noise_w * (1 + s.noise_rise[b])) for b in range(bands)]
        local = (1 - sent) * own_s if not p.batteries or left_j <= s.battery_j[i] else math.inf
        t = local
        if o and sent > 0:
            b, k = o - 1, (o - 1) // per
            away = math.inf
            if air > 0 and cpu > 0:
                away = wait(b, k) + sent * s.task_bits[i] / (rate(power, snr[b]) * air)
                away += sent * s.task_cycles[i] / (s.server_hz[k] * cpu)
            t = max(t, away)
        in_time.append(not s.active[i] or t <= s.deadline_s[i] * (1 + 1e-9))
        at_home = bool(s.active[i] and pays and own_s <= s.deadline_s[i])
        home.append(at_home)
        tau, omega = s.deadline_s[i], prices.delay / s.deadline_s[i]
        opt = omega * own_s + prices.energy * own_j / 0.1 if at_home else prices.delay + prices.miss
        rows: list[Any] = [((), (), tau, at_home)]
        mine: list[Any] = [(opt, ())]
        least = 0.0 if at_home else (max(1 - prices.margin * tau / own_s, 0.0) if pays and p.partial else 1.0)
        most = p.power_w if p.power_control else p.nominal_w
        if p.batteries:
            most = min(most, max(s.battery_j[i] - (1 - least) * own_j, 0.0) * p.efficiency / tau)
        for b in range(bands):
            k = b // per
            usable = bool(s.active[i] and s.reachable[i, k])
            alone = s.task_bits[i] / rate(p.nominal_w, snr[b])
            air_s, cpu_s, w = min(alone, tau), s.task_cycles[i] / s.server_hz[k], wait(b, k)
            late = 1 / (1 + math.exp(-min(max(12 * ((w + prices.risk * (alone + cpu_s)) / tau - 1), -700), 700)))
            joule = p.nominal_w * air_s / p.efficiency
            c = omega * min(w, tau) + prices.energy * joule / 0.1 + prices.miss * late
            c += prices.backlog * (s.queue_s[k] * cpu_s + s.air_queue_s[b] * air_s) / p.slot_s**2
            c += prices.migration if moves(k) else 0.0
            c += prices.miss if p.batteries and joule > s.battery_j[i] else 0.0
            sq = (omega * air_s, omega * cpu_s)  # squared weight over capacity
            res = (("air", b), ("cpu", k))
            mine.append((c, tuple(zip(res, sq, strict=True))))
            need = (least * s.task_bits[i] / rate(most, snr[b]), least * cpu_s) if most > 0 else (math.inf, 0.0)
            fine = usable and (at_home or (most > 0 and c + sum(sq) <= opt * (1 + 1e-12)))
            rows.append((res, (0.0, 0.0) if at_home else need, tau if at_home else prices.margin * tau - w, fine))
        legs.append(rows)
        cost.append(mine)
    return SimpleNamespace(in_time=in_time, use=use, home=home, legs=legs, cost=cost, broken=broken,
                           cap=[math.inf] * n, rank=[-float(x) for x in s.sla])  # fmt: skip


def custom_facts(problem: Any, s: Any, a: Any, prices: Any) -> SimpleNamespace:
    """The same of a custom state."""
    n, count = s.agents, len(problem.options) + 1
    in_time, use, legs, cost, broken, caps = [], {}, [], [], [], []
    for i in range(n):
        o = int(a.option[i])
        free = lambda q, i=i: bool(s.active[i] and (not s.allowed.size or s.allowed[i, q]))
        if o < 0 or o >= count or (o and not free(o)):
            broken.append(f"option of {i}")
            o = 0
        held = {f: float(a.shares[f][i]) for f in problem.families}
        t, drawn = (0.0 if o else math.inf), 0.0
        for r in problem.options[o - 1] if o else ():
            if r < 0:
                continue
            x = held.pop(problem.families_of[r])
            use[int(r)] = use.get(int(r), 0.0) + x
            if not x >= 0:
                broken.append(f"share of {i}")
            drawn += x * s.full_power_w[i, r]
            if s.work[i, r] > 0:
                t += s.wait_s[r] + (s.work[i, r] / (x * s.capacity[r]) if x > 0 else math.inf)
        if any(held.values()):
            broken.append(f"{i} holds something it does not use")
        if drawn > s.power_limit_w[i] * (1 + 1e-9) or abs(drawn - a.power[i]) > 1e-9 * max(drawn, 1):
            broken.append(f"power of {i}")
        in_time.append(not s.active[i] or t <= s.deadline_s[i] * (1 + 1e-9))
        given = lambda q, i=i: float(s.private_cost[i, q]) if s.private_cost.size else 0.0
        opt = given(0) + prices.opt_out * s.opt_out_cost[i]
        rows: list[Any] = [((), (), s.deadline_s[i], False)]
        mine: list[Any] = [(opt, ())]
        cap = []
        for q in range(1, count):
            res = tuple(int(r) for r in problem.options[q - 1] if r >= 0)
            sec = tuple(float(s.work[i, r] / s.capacity[r]) for r in res)
            w = sum(float(s.wait_s[r]) for r in res if s.work[i, r] > 0)
            x = 12 * ((w + prices.risk * sum(sec)) / s.deadline_s[i] - 1)
            late = 1 / (1 + math.exp(-min(max(x, -30), 30))) if s.deadline_s[i] < NO_DEADLINE else 0.0
            c = given(q) + s.delay_cost[i] * w + prices.miss * late
            sq = tuple(s.delay_cost[i] * y for y in sec)
            mine.append((c, tuple(zip(res, sq, strict=True))))
            fine = free(q) and c + sum(sq) <= opt * (1 + 1e-12)
            rows.append((res, sec, prices.margin * s.deadline_s[i] - w, fine))
            whole = sum(float(s.full_power_w[i, r]) for r in res if s.work[i, r] > 0)
            cap.append(s.power_limit_w[i] / whole if whole > 0 else math.inf)
        legs.append(rows)
        cost.append(mine)
        caps.append([math.inf, *cap])
    order = sorted({float(x) for x in s.priority}, reverse=True)
    heads: list[float] = []
    for x in order:
        if not heads or x < heads[-1] - problem.priority_gap:
            heads.append(x)
    rank = [max(k for k, h in enumerate(heads) if h >= float(x)) for x in s.priority]
    return SimpleNamespace(
        in_time=in_time, use=use, home=[False] * n, legs=legs, cost=cost, broken=broken, cap=caps, rank=rank
    )


def least(sec: Any, slack: float, room: Any) -> Any:
    """Least floors of one place in ``room``, weighed by it; None where it does not fit."""
    if slack <= 0:
        return None
    out, left, free = [0.0] * len(sec), slack, [s for s in range(len(sec)) if sec[s] > 0]
    while free:
        if any(room[s] <= 1e-9 for s in free):
            return None
        root = sum(math.sqrt(sec[s] / room[s]) for s in free)
        if left <= 0:
            return None
        over = [s for s in free if math.sqrt(sec[s] * room[s]) * root / left > room[s]]
        if not over:
            for s in free:
                out[s] = math.sqrt(sec[s] * room[s]) * root / left
            break
        s = over[0]
        out[s], left = room[s], left - sec[s] / room[s]
        free.remove(s)
        if not free and left < -1e-12 * slack:
            return None
    return out


def delay(members: Any) -> float:
    """Least sum of w^2 / f over f >= floor, sum f <= 1, by bisection on the price; members are (w^2, floor)."""
    low, high = 0.0, 1.0
    total = lambda nu: sum(max(f, nu * math.sqrt(q)) for q, f in members)
    if not members:
        return 0.0
    while total(high) < 1 and high < 1e12:
        high *= 4
    for _ in range(80):
        nu = (low + high) / 2
        low, high = (nu, high) if total(nu) <= 1 else (low, nu)
    return float(sum(q / max(f, low * math.sqrt(q), 1e-300) for q, f in members if q > 0))


def read_again(problem: Any, state: Any, a: Any, prices: Any) -> dict[str, Any]:
    """Everything a certificate says, by plain loops."""
    f = (mec_facts if problem.name == "mec" else custom_facts)(problem, state, a, prices)
    broken = list(f.broken) + [f"{r} used to {x}" for r, x in f.use.items() if x > 1 + 1e-9]
    n, live = state.agents, [bool(x) for x in state.active]
    out = {"feasible": not broken, "broken": broken, "unserved": {i for i in range(n) if live[i] and not f.in_time[i]}}
    out["late"] = {i for i in range(n) if live[i] and a.held[i] and not f.in_time[i]}
    if not a.seated:
        return out
    family = (lambda r: r[0]) if problem.name == "mec" else (lambda r: problem.families_of[r])
    floors = [{r: float(a.floors[family(r)][i]) for r in f.legs[i][int(a.option[i])][0]} for i in range(n)]
    reserved: dict[Any, float] = {}
    for i in range(n):
        for r, x in floors[i].items():
            reserved[r] = reserved.get(r, 0.0) + x
    out["overbooked"] = [r for r, x in reserved.items() if x > 1 + 1e-9]
    cap = lambda i, o: f.cap[i][o] if isinstance(f.cap[i], list) else f.cap[i]
    envy = set()
    for i in range(n):
        if not live[i] or f.home[i] or f.in_time[i] or a.held[i]:
            continue
        left: dict[Any, float] = {}
        for j in range(n):
            if a.held[j] and f.rank[j] <= f.rank[i]:
                for r, x in floors[j].items():
                    left[r] = left.get(r, 1.0) - x
        for o, (res, sec, slack, fine) in enumerate(f.legs[i]):
            if fine and o:
                rooms = [min(left.get(r, 1.0), cap(i, o)) for r in res]
                took = sum((s / x if x > 1e-9 else math.inf) for s, x in zip(sec, rooms, strict=True) if s > 0)
                if took < slack * (1 - 1e-9):
                    envy.add(i)
    out["envy"] = envy
    worst = 0.0
    toll = prices.toll
    holders: dict[Any, dict[int, tuple[float, float]]] = {}
    for j in range(n):
        if a.held[j] and live[j]:
            for r, q in f.cost[j][int(a.option[j])][1]:
                holders.setdefault(r, {})[j] = (q, floors[j].get(r, 0.0))
    for i in range(n):
        if not a.held[i] or not live[i]:
            continue
        others = {r: [v for j, v in who.items() if j != i] for r, who in holders.items()}

        def charge(o: int, own: Any, i: int = i, others: Any = others) -> float:
            total = f.cost[i][o][0]
            for (r, q), x in zip(f.cost[i][o][1], own, strict=True):
                there = others.get(r, [])
                total += (1 + toll) / 2 * (delay([*there, (q, x)]) - delay(there)) + (1 - toll) / 2 * q
            return total

        here = int(a.option[i])
        now = charge(here, [floors[i].get(r, 0.0) for r in f.legs[i][here][0]])
        for o, (res, sec, slack, fine) in enumerate(f.legs[i]):
            if o == here or not fine:
                continue
            rooms = [min(1 - sum(x for _, x in others.get(r, [])), cap(i, o)) for r in res]
            own = [0.0] * len(res) if f.home[i] else least(sec, slack, rooms)
            if own is not None:
                worst = max(worst, now - charge(o, own) - 1e-7 * abs(now))
    out["regret"] = worst
    return out


def states(seed: int, rng: np.random.Generator) -> tuple[Any, Any, list[Any]]:
    """A random problem, prices and a few of its states."""
    if seed % 3 == 2:
        sys.modules.setdefault("admission_benchmark", _load("admission"))
        problem = sys.modules["admission_benchmark"].any_table(seed)
        return problem, problem.prices_type(), [problem.reset()]
    settings: dict[str, Any] = [
        {"agents": 12, "servers": 3}, {"agents": 16, "servers": 2, "load": 1.0},
        {"agents": 10, "servers": 3, "scenario": "A"}, {"agents": 12, "servers": 2, "choose_channel": True},
    ][int(rng.integers(4))]  # fmt: skip
    problem = make_problem("mec", **settings)
    low, high = zip(*[b[:2] for b in problem.price_space.values()], strict=True)
    drawn = dict(zip(problem.price_space, rng.uniform(low, high), strict=True))
    prices = problem.prices_type(**drawn) if seed % 2 else problem.prices_type()
    batch = problem.batch(rng.integers(0, 2**31, 4))
    for _ in range(int(rng.integers(0, 4))):
        batch.execute(batch.settle(batch.baseline("random", rng), prices))
        batch.drift()
    batch.world.reachable[:] = rng.random(batch.world.reachable.shape) < rng.choice([0.5, 1.0])
    return problem, prices, [replace(batch.state(e), truth=None) for e in range(batch.size)]


def _load(name: str) -> Any:
    import importlib.util

    spec = importlib.util.spec_from_file_location(f"{name}_benchmark", Path(__file__).with_name(f"{name}.py"))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def check(steps: int, seed: int = 0) -> Counter[str]:
    """Steps of every method read again; a count of each kind of difference."""
    found: Counter[str] = Counter()
    done, number = Counter[str](), seed
    while done.total() < steps:
        rng = np.random.default_rng([7, number])
        problem, prices, some = states(number, rng)
        number += 1
        for method in ("hybrid", "game", "rl", *problem.baselines):
            recommender = Noise(number) if method in ("hybrid", "rl") else None
            trust = float(rng.choice([0.5, 5.0, 50.0])) if method == "hybrid" else None
            allocator = Allocator(problem, method, recommender, trust, prices=prices, seed=number)
            for state in some:
                a = allocator.step(state)
                c = a.certificate
                done[problem.name] += 1
                again = read_again(problem, state, a, prices)
                found["not certified"] += not c.feasible
                found["feasible differs"] += c.feasible != again["feasible"]
                found["served differs"] += len(again["unserved"] ^ set(c.unserved))
                found["holders late"] += len(again["late"])
                found["said late"] += len(c.late)
                json.dumps(a.to_dict(), allow_nan=False)
                if a.seated:
                    found["overbooked"] += len(again["overbooked"])
                    found["justified envy"] += len(again["envy"])
                    found["envy differs"] += again["envy"] != set(c.envy)
                    found["regret above its bound"] += again["regret"] > c.epsilon_bound + 1e-6
                    found["regret differs"] += abs(again["regret"] - c.regret) > 1e-5 + 1e-4 * c.regret
    kinds = ", ".join(f"{count:,} {name}" for name, count in done.items())
    print(f"{done.total():,} steps ({kinds}) of every method read again by plain loops")
    return found


# --- planted faults


def faults() -> dict[str, Any]:
    """Name -> what it does to the fields of a settled allocation (``parts``), in place; ``s`` is the state."""

    def at(kind: str) -> Any:
        def chosen(p: Any) -> int:
            used = [i for i in np.flatnonzero(p["option"] > 0) if p["shares"]["cpu"][i] > 0]
            held = [i for i in used if p["held"][i] and p["floors"]["cpu"][i] > 0]
            return int({"used": used, "held": held, "out": np.flatnonzero(p["option"] == 0)}[kind][0])

        return chosen

    def put(field: str, value: Any, kind: str = "used", part: str | None = None) -> Any:
        def fault(p: Any, s: Any) -> None:
            target = p[field] if part is None else p[field][part]
            i = at(kind)(p)
            target[i] = value(target[i]) if callable(value) else value

        return fault

    def scaled(field: str, factor: float) -> Any:
        def fault(p: Any, s: Any) -> None:
            for name in p[field]:
                p[field][name] *= factor

        return fault

    def swapped(p: Any, s: Any) -> None:
        i, j = at("held")(p), at("out")(p)
        p["shares"]["cpu"][[i, j]] = p["shares"]["cpu"][[j, i]]

    def nobody(p: Any, s: Any) -> None:
        i = at("held")(p)
        for name in p["shares"]:
            p["shares"][name][i] = p["floors"][name][i] = 0.0
        p["option"][i], p["held"][i], p["power"][i], p["fraction"][i] = 0, False, 0.0, 0.0

    def doubled(p: Any, s: Any) -> None:
        k = p["option"][at("used")(p)]
        p["shares"]["air"][p["option"] == k] *= 2

    def crowd(p: Any, s: Any) -> None:
        p["option"][:] = np.where(s.active, 1, 0)

    def all_served(p: Any, s: Any) -> None:
        p["served"][:] = True
        for name in p["shares"]:
            p["shares"][name] *= 0.01

    def short(p: Any, s: Any) -> None:
        p["option"] = p["option"][:-1]

    def real(p: Any, s: Any) -> None:
        p["option"] = p["option"] + 0.5

    def unreachable(p: Any, s: Any) -> None:
        i = at("used")(p)
        k = int(np.flatnonzero(~s.reachable[i])[0])
        p["option"][i] = 1 + k

    def dear(p: Any, s: Any) -> None:
        for name in p["floors"]:
            p["floors"][name] *= 3

    return {
        "all shares 0, everybody said to be served": scaled("shares", 0.0),
        "all shares a hundredth": all_served,
        "an agent that opted out holds a share": put("shares", 0.2, "out", "cpu"),
        "an agent that opted out sends": put("power", 0.1, "out"),
        "an agent that opted out has a fraction": put("fraction", 0.5, "out"),
        "a share is NaN": put("shares", np.nan, part="air"),
        "a share is negative": put("shares", -0.1, part="cpu"),
        "a share is infinite": put("shares", np.inf, part="cpu"),
        "a share above one": put("shares", 1.5, part="air"),
        "shares of a band doubled": doubled,
        "shares swapped with one who opted out": swapped,
        "power is NaN": put("power", np.nan),
        "power above its limit": put("power", 1.5),
        "power is negative": put("power", -0.1),
        "power told 0": put("power", 0.0, "held"),
        "a fraction of 2": put("fraction", 2.0),
        "a fraction is NaN": put("fraction", np.nan),
        "a price is NaN": lambda p, s: p["prices"]["cpu"].__setitem__(0, np.nan),
        "a price is negative": lambda p, s: p["prices"]["air"].__setitem__(0, -1.0),
        "an option out of range": put("option", 99),
        "an option below 0": put("option", -1),
        "an option out of reach": unreachable,
        "options of another length": short,
        "options that are no whole numbers": real,
        "everybody on one server, shares as they were": crowd,
        "floors three times the shares": dear,
        "a floor is NaN": put("floors", np.nan, "held", "cpu"),
        "a floor of one who holds no place": lambda p, s: p["held"].__setitem__(at("held")(p), False),
        "a holder's share a tenth": put("shares", lambda x: 0.1 * x, "held", "cpu"),
        "a holder put out, a lower class kept": nobody,
    }


def plant() -> Counter[str]:
    """Faults planted in a settled answer, in the game, in settling and in admission; those not caught are counted."""
    problem = make_problem("mec", agents=40, servers=2, load=1.0, bursts=False)
    state = problem.reset(3)
    reach = state.reachable.copy()
    reach[:, 1] = np.arange(40) % 4 > 0
    state = replace(state, reachable=reach, sla=np.where(np.arange(40) % 2, 1.0, 0.0))
    found: Counter[str] = Counter()
    batch_type = type(problem.batch([0]))

    def caught(name: str, spoilt: Any, method: str = "hybrid") -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                a = Allocator(problem, method).step(state)
            except Exception as error:
                found[f"raised {type(error).__name__}: {name}"] += 1
                return
            finally:
                spoilt()
        c = a.certificate
        json.dumps(a.to_dict(), allow_nan=False)
        if c.status.startswith("ok") and not c.late and not c.envy:
            found[f"not caught: {name}"] += 1
        elif not c.feasible:
            found[f"acted on: {name}"] += 1

    parts = batch_type.parts
    planted = faults()
    for name, fault in planted.items():

        def spoil(self: Any, plan: Any, fault: Any = fault) -> Any:
            out = parts(self, plan)
            fault(out, state)
            return out

        batch_type.parts = spoil  # type: ignore[method-assign]
        caught(name, lambda: setattr(batch_type, "parts", parts))
    from coordinator import coordinator as module
    from hybridalloc.problems import mec_core as core

    fill, settle, admit = core.fill_game, core.settle, module.admit

    def wrong_game(p: Any, w: Any, prices: Any, weight: Any, capacity: Any, private: Any, allowed: Any) -> None:
        fill(p, w, prices, weight, capacity, private, allowed)
        private[:] = private[..., ::-1]

    def deaf(p: Any, w: Any, *rest: Any) -> None:
        settle(p, w._replace(deadline_s=3 * w.deadline_s), *rest)

    def quiet(p: Any, w: Any, *rest: Any) -> None:
        settle(p, w._replace(cpu_wait_s=0 * w.cpu_wait_s - 0.02), *rest)

    def upside_down(game: Any, places: Any, *rest: Any) -> Any:
        return admit(game, places._replace(rank=places.rank.max() - places.rank), *rest)

    def costly(game: Any, places: Any, *rest: Any) -> Any:
        """Holders moved to the dearest place that fits."""
        z = admit(game, places, *rest)
        for i in np.flatnonzero(z.held[0] & ~places.home[0]):
            room = np.ones(game.weight.shape[2])
            for j in np.flatnonzero(z.held[0]):
                for leg, r in enumerate(game.options[z.option[0, j]]):
                    room[r] -= z.floor[0, j, leg] if r >= 0 and j != i else 0.0
            for o in np.argsort(-game.private_cost[0, i]):
                if o and places.acceptable[0, i, o]:
                    own = least(places.seconds[0, i, o], places.slack[0, i, o], room[game.options[o]])
                    if own is not None:
                        z.option[0, i], z.floor[0, i] = o, own
                        break
        return z

    for name, owner, attribute, wrong in (
        ("another game: private costs reversed", core, "fill_game", wrong_game),
        ("settled for three times the deadline", core, "settle", deaf),
        ("settled without the queues", core, "settle", quiet),
        ("classes upside down", module, "admit", upside_down),
        ("holders where it costs them most", module, "admit", costly),
    ):
        right = getattr(owner, attribute)
        setattr(owner, attribute, wrong)
        undo = lambda owner=owner, attribute=attribute, right=right: setattr(owner, attribute, right)
        caught(name, undo, "game" if wrong is costly else "hybrid")
    print(f"{len(planted) + 5} planted faults")
    return found


# --- extreme states


def extreme(count: int, seed: int = 0) -> Counter[str]:
    """Valid states with values at the ends of what floats hold: nothing raised, everything certified."""
    found: Counter[str] = Counter()
    ends = (5e-324, 1e-320, 1e-300, 1e-150, 1e-30, 1e-9, 1e-3, 1.0, 1e3, 1e9, 1e30, 1e150, 1e300, 1.7e308)
    made = refused = 0
    problems = [
        make_problem("mec", agents=6, servers=2),
        make_problem("custom", work=np.ones((6, 3)), capacity=np.ones(3)),
    ]
    number = seed
    while made < count:
        rng = np.random.default_rng([11, number])
        number += 1
        problem = problems[number % 2]
        state = problem.reset(int(rng.integers(50)))
        data = state.to_dict()
        data.pop("truth", None)
        names = [f.name for f in fields(state) if "spec" in f.metadata and f.metadata["spec"].dtype is float]
        if problem.name == "custom":
            data |= {"deadline_s": [1.0] * 6, "full_power_w": np.ones((6, 3)).tolist(), "power_limit_w": [1.0] * 6}
        for name in rng.choice(names, int(rng.integers(1, 4)), replace=False):
            value = np.array(data.get(name, getattr(state, name)), float)
            if not value.size:
                continue
            some = rng.random(value.shape) < rng.choice([0.2, 1.0])
            value[some] = rng.choice(ends) * (rng.choice([1.0, -1.0]) if "gain_db" in name else 1.0)
            data[str(name)] = value.tolist()
        try:
            state = type(state).from_dict(data)
        except ValueError:
            refused += 1
            continue
        made += 1
        prices = problem.prices_type()
        if rng.random() < 0.3:
            knob = str(rng.choice(list(problem.price_space)))
            prices = prices._replace(**{knob: float(rng.choice([0.0, 1e-300, 1e-9, 1e9]))})
        method = ("hybrid", "game", "rl", *problem.baselines)[number % (3 + len(problem.baselines))]
        recommender = Noise(number) if method in ("hybrid", "rl") else None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                a = Allocator(problem, method, recommender, prices=prices).step(state)
                json.dumps(a.to_dict(), allow_nan=False)
            except Exception as error:
                found[f"raised {type(error).__name__} ({problem.name}, {method})"] += 1
                continue
        if not a.certificate.feasible:
            found[f"not certified ({problem.name}, {method}): {a.certificate.violations[0][:60]}"] += 1
    print(f"{made:,} extreme states stepped, {refused:,} refused by name")
    return found


def main() -> int:
    """Run the parts asked for and print what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", default=["check", "plant", "extreme"])
    parser.add_argument("--steps", type=int, default=30_000)
    parser.add_argument("--states", type=int, default=20_000)
    a = parser.parse_args()
    total = 0
    for part in a.parts:
        began = time.perf_counter()
        found = {"check": lambda: check(a.steps), "plant": plant, "extreme": lambda: extreme(a.states)}[part]()
        bad = {name: count for name, count in found.items() if count}
        total += sum(bad.values())
        print(f"  {sum(bad.values())} found in {time.perf_counter() - began:.0f} s")
        for name, number in sorted(bad.items(), key=lambda pair: -pair[1])[:20]:
            print(f"    {number:6d} {name}", flush=True)
    return 1 if total else 0


if __name__ == "__main__":
    sys.exit(main())
