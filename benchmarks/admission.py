"""Stable admission: who is left out, who has cause to envy, and what it costs.

    python benchmarks/admission.py                # everything; some minutes
    python benchmarks/admission.py packing --tables 100
    python benchmarks/admission.py envy --tables 10000 --states 10000
    python benchmarks/admission.py price --networks 48 --slots 100
    python benchmarks/admission.py lying

*packing*: tables that can be packed in full by construction: each server's floors are a random split of a share of it,
jobs may go anywhere. Left out by the hybrid, the heuristic ``balanced``, and a MILP (HiGHS) that serves the most,
higher classes first. *envy*: random tables of every kind and random ``mec`` states, counted by plain loops here.
*price*: mec with and without admission on the same networks, welfare and completion by service class. *lying*: what an
agent gains, in its true cost, by claiming another deadline or the highest priority.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp

sys.path[0] = str(Path(__file__).resolve().parents[1])  # benchmarks/games.py would hide the package games

from coordinator import Coordinator  # noqa: E402
from games.places import TABLE  # noqa: E402
from hybridalloc import Allocator, make_problem  # noqa: E402
from hybridalloc.problems.custom.state import NO_DEADLINE  # noqa: E402
from hybridalloc.training.rollout import Chosen, Heuristic, Rollout  # noqa: E402


def packable(seed: int, load: float, servers: int = 4, each: int = 5, free: int = 5) -> Any:
    """``each`` timed jobs a server whose floors fill ``load`` of it, and ``free`` jobs without a deadline."""
    rng = np.random.default_rng([seed, round(100 * load)])
    capacity = rng.uniform(5, 20, servers)
    own = np.repeat(np.arange(servers), each)
    floor = np.concatenate([rng.dirichlet(np.ones(each)) * load for _ in range(servers)])
    deadline = rng.uniform(2, 30, len(own))
    work = np.maximum(floor, 0.005) * deadline * capacity[own]
    work = np.append(work, rng.uniform(5, 60, free))
    deadline = np.append(deadline, np.full(free, NO_DEADLINE))
    priority = rng.integers(0, 6, len(work)).astype(float)
    return make_problem("custom", work=work, capacity=capacity, deadline_s=deadline, priority=priority)


def most_served(state: Any, limit_s: float = 30.0) -> list[int]:
    """Served a class, the highest first: the lexicographic optimum by one MILP a class (one resource an option)."""
    n, r = state.work.shape
    floor = state.work / state.capacity / state.deadline_s[:, None]
    index = np.arange(n * r).reshape(n, r)
    rows = np.zeros((n + r, n * r))
    for i in range(n):
        rows[i, index[i]] = 1.0
    for k in range(r):
        rows[n + k, index[:, k]] = floor[:, k]
    top = np.ones(n + r) + np.append(np.zeros(n), np.full(r, 1e-12))
    constraints, counts = [LinearConstraint(rows, -np.inf, top)], []
    for level in np.unique(state.priority)[::-1]:
        mine = np.repeat(state.priority == level, r).astype(float)
        found = milp(-mine, constraints=constraints, integrality=np.ones(n * r), bounds=Bounds(0, 1),
                     options={"time_limit": limit_s})  # fmt: skip
        if found.x is None:
            raise RuntimeError(f"the MILP found nothing in {limit_s:g} s: {found.message}")
        counts.append(round(-found.fun))
        constraints.append(LinearConstraint(mine[None], counts[-1] - 0.5, np.inf))
    return counts


def envious(options: Any, places: Any, option: Any, held: Any, floor: Any, live: Any) -> list[tuple[int, int]]:
    """Justified envy in one game, by plain loops: (agent, option) pairs; ``places`` as one game's."""
    found = []
    for i in range(len(option)):
        if held[i] or places.home[i] or not live[i]:
            continue
        left: dict[int, float] = {}
        for j in range(len(option)):
            if held[j] and places.rank[j] <= places.rank[i]:
                for s, r in enumerate(options[option[j]]):
                    if r >= 0:
                        left[r] = left.get(r, 1.0) - floor[j][s]
        for o in range(1, len(options)):
            if not places.acceptable[i][o]:
                continue
            time = 0.0
            for s, r in enumerate(options[o]):
                if r >= 0 and places.seconds[i][o][s] > 0:
                    room = min(left.get(r, 1.0), places.cap[i][o])
                    time += places.seconds[i][o][s] / room if room > 1e-9 else np.inf
            if time < places.slack[i][o] * (1 - 1e-9):
                found.append((i, o))
    return found


def any_table(seed: int) -> Any:
    """A random custom problem: one or two legs, reach, waits, power limits, classes, deadlines or none, any load."""
    rng = np.random.default_rng([9, seed])
    servers, agents, airs = int(rng.integers(1, 6)), int(rng.integers(1, 21)), int(rng.integers(1, 4))
    two = rng.random() < 0.4
    resources = servers + (airs if two else 0)
    options = [[a, airs + k] for a in range(airs) for k in range(servers)] if two else [[k] for k in range(servers)]
    if two and rng.random() < 0.3:
        options += [[a, -1] for a in range(airs)]
    allowed = np.ones((agents, 1 + len(options)), bool)
    allowed[:, 1:] = rng.random((agents, len(options))) < rng.choice([0.4, 0.7, 1.0])
    deadline = np.where(rng.random(agents) < 0.15, NO_DEADLINE, rng.uniform(1, 10, agents))
    capacity = rng.uniform(5, 20, resources)
    work = rng.uniform(0.05, 1.0, (agents, resources)) * rng.choice([0.2, 0.5, 1.0, 2.0]) * capacity
    work *= np.minimum(deadline, 10)[:, None] * servers / agents * rng.choice([1.0, 2.0])
    work[rng.random(work.shape) < 0.05] = 0.0
    more: dict[str, Any] = {}
    if rng.random() < 0.4:
        more["full_power_w"] = rng.uniform(0, 2, (agents, resources))
        more["power_limit_w"] = rng.uniform(0.2, 2, agents)
    if rng.random() < 0.3:
        more["wait_s"] = rng.uniform(0, 1, resources)
    if rng.random() < 0.3:
        more["opt_out_cost"] = rng.uniform(0.2, 5, agents)
    priority = rng.integers(0, 3, agents).astype(float) if rng.random() < 0.5 else rng.random(agents)
    return make_problem(
        "custom", work=work, capacity=capacity, options=options, deadline_s=deadline, priority=priority,
        families=["a" if two and r < airs else "c" for r in range(resources)], allowed=allowed,
        active=rng.random(agents) < 0.95, priority_gap=float(rng.choice([0.0, 0.0, 0.1, 0.3])), **more,
    )  # fmt: skip


def seat(batch: Any, prices: Any, kind: str, rng: np.random.Generator, effort: int) -> tuple[Any, Any, Any, Any]:
    """One batch decided and seated with a random prior: game, places, seating and the plan."""
    game = batch.game(prices)
    coordinator = Coordinator(kind, float(rng.choice([1.0, 5.0, 20.0])))
    prior = np.where(game.allowed, np.clip(rng.normal(0, 3, game.private_cost.shape), -10, 0), 0.0)
    decision = coordinator.decide_on(game, prior if kind == "hybrid" else np.zeros_like(prior), kind == "hybrid")
    decision = coordinator.seat(batch, prices, game, decision, effort)
    return game, batch.places(prices, game), decision.seating, coordinator.settle(batch, decision, prices)


def faults(batch: Any, prices: Any, kind: str, rng: np.random.Generator, effort: int) -> dict[str, int]:
    """In every game of a batch: pairs with envy, holders late, resources reserved beyond what there is."""
    game, places, seating, plan = seat(batch, prices, kind, rng, effort)
    out = {"games": 0, "agents": 0, "left out": 0, "envious": 0, "holders late": 0, "overbooked": 0}
    for e in range(len(game.live)):
        one = SimpleNamespace(**{name: getattr(places, name)[e] for name in TABLE})
        option, held, floor, live = seating.option[e], seating.held[e], seating.floor[e], game.live[e]
        pairs = envious(game.options, one, option, held, floor, live)
        used = np.zeros(game.weight.shape[2])
        for i in np.flatnonzero(held):
            for s, r in enumerate(game.options[option[i]]):
                used[r] += floor[i, s] if r >= 0 else 0.0
        out["games"] += 1
        out["agents"] += int(live.sum())
        out["left out"] += int((live & ~held).sum())
        out["envious"] += len({i for i, _ in pairs})
        out["holders late"] += int((held & live & ~plan.served[e]).sum())
        out["overbooked"] += int((used > 1 + 1e-9).sum())
    return out


def packing(tables: int, loads: list[float]) -> None:
    """Left out, by load and method."""
    print(f"{tables} tables a load, 4 servers, 20 timed jobs and 5 without a deadline; left out (with envy)")
    print(
        f"{'floors fill':12s}{'jobs':>7s}{'hybrid':>14s}{'balanced':>14s}{'MILP':>8s}{'free job':>10s}{'balanced':>10s}"
    )
    for load in loads:
        count = {"jobs": 0, "hybrid": 0, "balanced": 0, "milp": 0}
        envy, cost = {"hybrid": 0, "balanced": 0}, {"hybrid": 0.0, "balanced": 0.0}
        for seed in range(tables):
            problem = packable(seed, load)
            state = problem.reset()
            count["jobs"] += state.agents
            count["milp"] += state.agents - sum(most_served(state))
            for method in ("hybrid", "balanced"):
                allocation = Allocator(problem, method).step(state)
                count[method] += len(allocation.certificate.unserved)
                envy[method] += len(allocation.certificate.envy)
                took = problem.times(state, allocation)[state.deadline_s >= NO_DEADLINE]
                cost[method] += float((state.delay_cost[state.deadline_s >= NO_DEADLINE] * took).mean()) / tables
        print(f"{load:<12.0%}{count['jobs']:7d}" + "".join(f"{count[m]:8d} ({envy[m]:3d})" for m in envy)
              + f"{count['milp']:8d}" + "".join(f"{cost[m]:10.2f}" for m in cost), flush=True)  # fmt: skip
    print("free job: delay of a job without deadline, in deadlines of the most patient job that has one")


def envy(tables: int, states: int) -> int:
    """The counts of :func:`faults` on random tables and mec states; how many were found."""
    rng = np.random.default_rng(0)
    total: dict[str, dict[str, int]] = {}
    for seed in range(tables):
        problem = any_table(seed)
        found = faults(problem.worlds([0]), problem.card.prices(), ("hybrid", "game")[seed % 2], rng,
                       int(rng.choice([0, 2_000, 200_000])))  # fmt: skip
        row = total.setdefault("custom", dict.fromkeys(found, 0))
        for name, value in found.items():
            row[name] += value
    settings: list[dict[str, Any]] = [
        {"agents": 50, "servers": 9}, {"agents": 50, "servers": 4}, {"agents": 50, "servers": 2, "scenario": "A"},
        {"agents": 30, "servers": 3, "load": 1.0, "priority_gap": 0.1},
    ]  # fmt: skip
    per = 50
    for k in range(-(-states // per)):
        problem = make_problem("mec", **settings[k % len(settings)])
        low, high = zip(*[b[:2] for b in problem.card.price_space.values()], strict=True)
        drawn = dict(zip(problem.card.price_space, rng.uniform(low, high), strict=True))
        prices = problem.card.prices(**drawn) if k % 3 else problem.card.prices()
        run, at_random = Rollout(problem, rng.integers(0, 2**31, per)), Heuristic("random", prices, rng)
        for _ in range(int(rng.integers(0, 4))):
            run.step(at_random, prices)
        found = faults(run.world, prices, ("hybrid", "game")[k % 2], rng, int(rng.choice([0, 2_000, 200_000])))
        row = total.setdefault("mec", dict.fromkeys(found, 0))
        for name, value in found.items():
            row[name] += value
    for name, row in total.items():
        print(f"{name:8s}" + ", ".join(f"{value:,} {what}" for what, value in row.items()), flush=True)
    return sum(row[what] for row in total.values() for what in ("envious", "holders late", "overbooked"))


def price(networks: int, slots: int) -> None:
    """Paired welfare and completion of the game with places and without, on the tuning networks."""
    print(f"{networks} networks x {slots} slots, default prices, the game without beliefs; with places less without")
    for setting in (
        {"agents": 50, "servers": 9, "sites": "eua"}, {"agents": 50, "servers": 4, "sites": "eua"},
        {"agents": 50, "servers": 3, "scenario": "A"}, {"agents": 50, "servers": 2, "scenario": "A"},
    ):  # fmt: skip
        problem = make_problem("mec", **setting)
        prices, results, ms = problem.card.prices(), [], 0.0
        for places in (False, True):
            run = Rollout(problem, range(5000, 5000 + networks))
            done, made = np.zeros((2, networks, 3))
            active, service = np.zeros((2, networks, setting["agents"]), int)

            def choose(run: Rollout, places: bool = places, prices: Any = prices) -> Chosen:
                nonlocal ms
                game, coordinator = run.world.game(prices), Coordinator("game")
                decision = coordinator.decide_on(game, np.zeros_like(game.private_cost), False)
                if places:
                    began = time.perf_counter()
                    decision = coordinator.seat(run.world, prices, game, decision)
                    ms += 1e3 * (time.perf_counter() - began) / (networks * slots)
                return Chosen(decision.option, coordinator.settle(run.world, decision, prices))

            def note(_: Chosen, run: Rollout = run, active: Any = active, service: Any = service) -> None:
                active[:], service[:] = run.world.active, np.round(2 * run.world.world.sla)

            for _ in range(slots):
                facts = run.step(choose, prices, before=note).facts
                for c in range(3):
                    mine = (active > 0) & (service == c)
                    made[:, c] += mine.sum(1)
                    done[:, c] += ((facts.counts["done_by"] > 0) & mine).sum(1)
            results.append((run.tally.summary(), 100 * done.sum(0) / made.sum(0)))
        (before, old), (after, new) = results
        said = " ".join(f"{k}={v}" for k, v in setting.items())
        line = []
        for key in ("welfare", "completion"):
            gain = after[key] - before[key]
            line.append(
                f"{key} {before[key].mean():.4f} {gain.mean():+.4f} +- {1.96 * gain.std(ddof=1) / len(gain) ** 0.5:.4f}"
            )
        by = ", ".join(
            f"{name} {b - a:+.2f}" for name, a, b in zip(("bronze", "silver", "gold"), old, new, strict=True)
        )
        print(f"{said:36s} {'; '.join(line)}; completion by class {by}; {ms:.3f} ms a network", flush=True)


def lying(tables: int = 4) -> None:
    """Mean gain in true cost of an agent that claims another deadline, or the highest priority."""
    print(f"{tables} tables a load, 20 timed jobs; gain in the true cost (delay in deadlines, 2 for opting out)")
    for load in (0.5, 0.9, 1.2):
        gains: dict[str, list[float]] = {}
        for seed in range(tables):
            problem = packable(seed, load, free=0)
            state = problem.reset()
            allocator = Allocator(problem, "hybrid")

            def cost(claimed: dict[str, Any], i: int, problem=problem, state=state, allocator=allocator) -> float:
                claim = type(state)(**({k: v for k, v in state.to_dict().items()} | claimed))
                allocation = allocator.step(claim)
                if allocation.option[i] == 0:
                    return 2.0
                took = problem.times(state, allocation)[i] / state.deadline_s[i]
                return float(min(took, 10.0) + (took > 1 + 1e-9))

            for i in range(state.agents):
                honest = cost({}, i)
                for factor in (0.3, 0.5, 0.8, 1.25):
                    claim = np.where(np.arange(state.agents) == i, factor, 1.0) * state.deadline_s
                    lie = cost({"deadline_s": claim, "delay_cost": 1 / claim}, i)
                    gains.setdefault(f"deadline x {factor:g}", []).append(honest - lie)
                top = np.where(np.arange(state.agents) == i, 9.0, state.priority)
                gains.setdefault("top priority", []).append(honest - cost({"priority": top}, i))
        print(f"floors fill {load:.0%}: " + "; ".join(
            f"{what} {np.mean(g):+.3f} ({100 * np.mean(np.array(g) > 0.02):.0f} % gain)" for what, g in gains.items()
        ), flush=True)  # fmt: skip


def main() -> int:
    """Run the parts asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", default=["packing", "envy", "price", "lying"])
    parser.add_argument("--tables", type=int)
    parser.add_argument("--loads", type=float, nargs="*", default=[0.5, 0.7, 0.9, 1.0, 1.2])
    parser.add_argument("--states", type=int, default=10_000)
    parser.add_argument("--networks", type=int, default=48)
    parser.add_argument("--slots", type=int, default=100)
    a = parser.parse_args()
    found = 0
    for part in a.parts:
        if part == "packing":
            packing(a.tables or 100, a.loads)
        elif part == "envy":
            found += envy(a.tables or 10_000, a.states)
        elif part == "price":
            price(a.networks, a.slots)
        elif part == "lying":
            lying()
        else:
            parser.error(f"unknown part {part!r}; packing, envy, price or lying")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
