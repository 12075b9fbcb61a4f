"""Tables and worlds that nobody chose: the game and the hybrid against every heuristic, and against the optimum.

    python benchmarks/tables.py                                  # 200 tables, 100 worlds; some twenty minutes
    python benchmarks/tables.py tables --cases 20 --methods game hybrid hybrid:imappo
    python benchmarks/tables.py worlds --allocator trust=30

A case is drawn: sizes, load, deadlines, classes, waits, power limits, reach; a world's queues, failures and rewards.
A *table* is drawn anew ``--each`` times with the same settings, a *world* run with as many seeds, by every method on
the same draws. A method is *below* in a case if its welfare is less than that of the best heuristic there (the best on
these very draws) beyond the paired 95 % t-interval, *above* likewise. Welfare is the problem's own: of a table less
private costs, delay and misses, of a world its reward, an agent and step. *In time* is the share of jobs.

``hybrid`` has no recommender, ``hybrid:imappo`` one that was never trained, ``hybrid:FILE`` a saved one;
``--allocator name=value`` sets an argument of every ``Allocator`` that is no heuristic. The optimum (``optimal``, one
draw of each table) serves the most, class by class; it counts where it was proved within ``--optimum-ms``.
"""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

sys.path[0] = str(Path(__file__).resolve().parents[1])  # benchmarks/games.py would hide the package games

from hybridalloc import Allocator, InvalidStateError, make_problem  # noqa: E402
from hybridalloc.problems.custom import CustomState  # noqa: E402
from hybridalloc.problems.custom.setting import BASELINES  # noqa: E402
from hybridalloc.problems.custom.state import MISSED, NO_DEADLINE, UNSERVED  # noqa: E402
from hybridalloc.reports.statistics import t_quantile  # noqa: E402
from hybridalloc.training.evaluation import evaluate  # noqa: E402

MEASURES = ("welfare", "completion")


# --- what is drawn


def table_settings(case: int) -> dict[str, Any]:
    """The settings of one kind of table."""
    rng = np.random.default_rng([13, case])
    agents, servers = int(np.exp(rng.uniform(np.log(4), np.log(80)))), int(rng.integers(2, 9))
    return {
        "agents": agents, "servers": servers, "load": float(rng.uniform(0.3, 1.5)),
        "classes": int(rng.choice([1, 3, 9])),
        "capacity": rng.uniform(5, 20, servers), "reach": float(rng.choice([0.4, 0.7, 1.0, 1.0])),
        "free": float(rng.choice([0.0, 0.0, 0.2])), "wait_s": rng.uniform(0, 1, servers) * (rng.random() < 0.4),
        "power": bool(rng.random() < 0.25), "two": bool(rng.random() < 0.2), "priced": bool(rng.random() < 0.3),
    }  # fmt: skip


def table(settings: dict[str, Any], case: int, draw: int) -> Any:
    """One table of that kind."""
    rng, s = np.random.default_rng([14, case, draw]), settings
    n, k, air = s["agents"], s["servers"], 2 * s["two"]
    own, deadline = rng.integers(0, k, n), rng.uniform(2, 30, n)
    floor = s["load"] * k / n * rng.gamma(4.0, 0.25, n)
    capacity = np.append(s["capacity"], np.full(air, 40.0))
    work = np.repeat((floor * (deadline - s["wait_s"][own]) * s["capacity"][own])[:, None], k + air, axis=1)
    options = [[r, k + a] for r in range(k) for a in range(2)] if s["two"] else [[r] for r in range(k)]
    reaches = rng.random((n, k)) < s["reach"]
    reaches[np.arange(n), own] = True
    allowed = np.hstack([np.ones((n, 1), bool), np.repeat(reaches, 2 if s["two"] else 1, axis=1)])
    more: dict[str, Any] = {}
    if s["power"]:
        more = {"full_power_w": np.ones((n, k + air)), "power_limit_w": rng.uniform(0.1, 1.5, n)}
    if s["priced"]:
        cost = np.where(allowed, rng.exponential(0.1, allowed.shape), 0.0)
        more["private_cost"] = cost * (np.arange(1 + len(options)) > 0)
    timed = rng.random(n) >= s["free"]
    return make_problem(
        "custom", work=work, capacity=capacity, options=options, allowed=allowed,
        families=["server"] * k + ["air"] * air, wait_s=np.append(s["wait_s"], np.zeros(air)),
        deadline_s=np.where(timed, deadline, NO_DEADLINE), opt_out_cost=np.where(timed, MISSED, UNSERVED),
        priority=rng.integers(0, s["classes"], n).astype(float), **more,
    )  # fmt: skip


@dataclass(frozen=True)
class Works:
    """A world: jobs of some users come, wait where servers are not done, come again where they were not served; servers
    fail and are repaired. A job done is worth 1 and its class, less what it took in deadlines."""

    agents: int
    servers: int
    load: float
    classes: int
    busy: float  # chance that a user has a job
    carry: float  # of what a server has not done within a second, how much the next jobs wait
    again: float  # chance that a job that was not served comes again
    fails: float  # chance a second; a server is down for five on average
    delay: float  # cost of a deadline that a job took

    def reset(self, seed: int) -> CustomState:
        rng = np.random.default_rng([15, seed])
        speed = rng.uniform(5, 20, self.servers).tolist()
        return self._state(rng, {"speed": speed, "up": [True] * self.servers}, np.zeros(self.servers), None)

    def advance(self, state: CustomState, allocation: Any, rng: np.random.Generator) -> CustomState:
        assert state.hidden is not None
        left = np.zeros(self.servers)
        for option, seconds in zip(allocation.option, allocation.time_s, strict=True):
            if option > 0:
                left[option - 1] = max(left[option - 1], self.carry * (seconds - 1.0))
        up = np.where(state.hidden["up"], rng.random(self.servers) >= self.fails, rng.random(self.servers) < 0.2)
        back = state.active & ~allocation.served & (rng.random(self.agents) < self.again)
        return self._state(rng, state.hidden | {"up": up.tolist()}, np.minimum(left, 3.0), (state, back))

    def reward(self, state: CustomState, allocation: Any) -> Any:
        took = np.where(np.isfinite(allocation.time_s), allocation.time_s / state.deadline_s, 0.0)
        done = allocation.served * (1.0 + state.priority) - self.delay * np.minimum(took, 3.0)
        return np.where(state.active, done, 0.0)

    def _state(self, rng: np.random.Generator, hidden: dict[str, Any], wait: Any, past: Any) -> CustomState:
        n, speed = self.agents, np.array(hidden["speed"])
        deadline = rng.uniform(1, 6, n)
        floor = self.load * self.servers / (n * self.busy) * rng.gamma(4.0, 0.25, n)
        work = floor * deadline * speed[rng.integers(0, self.servers, n)]
        active, priority = rng.random(n) < self.busy, rng.integers(0, self.classes, n).astype(float)
        if past is not None:
            before, back = past
            deadline, active = np.where(back, before.deadline_s, deadline), active | back
            work, priority = np.where(back, before.work[:, 0], work), np.where(back, before.priority, priority)
        return CustomState(
            work=np.repeat(work[:, None], self.servers, axis=1), capacity=np.where(hidden["up"], speed, 0.0),
            wait_s=wait, deadline_s=deadline, active=active, priority=priority, hidden=hidden,
        )  # fmt: skip


def world(case: int) -> Works:
    """One world."""
    rng = np.random.default_rng([16, case])
    return Works(
        int(np.exp(rng.uniform(np.log(4), np.log(40)))), int(rng.integers(2, 8)), float(rng.uniform(0.3, 1.4)),
        int(rng.choice([1, 1, 3])), float(rng.choice([0.5, 0.8, 1.0])), float(rng.choice([0.0, 0.5, 1.0])),
        float(rng.choice([0.0, 0.8])), float(rng.choice([0.0, 0.02, 0.05])), float(rng.choice([0.0, 0.1, 0.5])),
    )  # fmt: skip


# --- who decides


def allocator_of(problem: Any, method: str, changes: dict[str, Any]) -> Allocator:
    """``game``, ``hybrid``, ``hybrid:imappo``, ``hybrid:FILE`` or a heuristic."""
    kind, _, recommender = method.partition(":")
    return Allocator(problem, kind, recommender or None, **({} if kind in BASELINES else changes))


def on_table(settings: dict[str, Any], case: int, method: str, each: int, changes: dict[str, Any]) -> dict[str, Any]:
    """(each,) of every measure."""
    seen = []
    for draw in range(each):
        problem = table(settings, case, draw)
        state = problem.reset()
        seen.append(problem.evaluate(state, allocator_of(problem, method, changes).step(state)))
    return {name: np.array([row[name] for row in seen]) for name in MEASURES}


def in_world(case: int, method: str, each: int, slots: int, changes: dict[str, Any]) -> dict[str, Any]:
    """(each,) of every measure."""
    problem = make_problem("custom", transition=world(case), credit="own", episode=1000)
    a = allocator_of(problem, method, changes)
    rule = method if method in BASELINES else None
    found = evaluate(problem, a.prices, a.coordinator, a.recommender, range(each), rule, slots)
    if found.violations:
        raise RuntimeError(f"world {case}: {found.violations} allocations of {method} broke a limit")
    return {name: found.metrics[name] for name in MEASURES}


# --- what is told


def paired(gain: Any) -> tuple[float, float]:
    """Mean and half of the 95 % t-interval."""
    return float(gain.mean()), float(t_quantile(0.975, len(gain) - 1) * gain.std(ddof=1) / len(gain) ** 0.5)


def told(found: list[dict[str, dict[str, Any]]], methods: list[str], heading: str, label: Any) -> None:
    """Above, within and below the best heuristic, by method and measure; and each case that is below."""
    print(f"\n{heading}: cases above the best heuristic, within the interval, below; difference: median, least, most")
    for measure in MEASURES:
        for method in methods:
            verdicts, gains, below = {"above": 0, "within": 0, "below": 0}, [], []
            for case, by in enumerate(found):
                best = max(BASELINES, key=lambda h: by[h][measure].mean())
                mean, half = paired(by[method][measure] - by[best][measure])
                tiny = 1e-9 * (1 + abs(by[best][measure].mean()))
                verdict = "above" if mean > half + tiny else "below" if mean < -half - tiny else "within"
                verdicts[verdict] += 1
                gains.append(mean)
                below += [(case, best, mean, half)] * (verdict == "below")
            counts = ", ".join(f"{count} {verdict}" for verdict, count in verdicts.items())
            worst = int(np.argmin(gains))
            spread = f"{np.median(gains):+.4f}, {gains[worst]:+.4g} in {worst}, {max(gains):+.4g}"
            print(f"  {measure:11s} {method:18s} {counts}; {spread}")
            for case, best, mean, half in below:
                print(f"      below in {case} ({label(case)}): {best} by {-mean:.4f} +- {half:.4f}")


def against_optimum(cases: int, methods: list[str], limit_ms: float, changes: dict[str, Any]) -> None:
    """Of the first draw of each table: who serves as many as the optimum, class by class; jobs served in all."""
    names = [*methods, *BASELINES]
    proved, stopped, beyond, jobs, most, total = 0, 0, 0, 0, 0, dict.fromkeys(names, 0)
    equal, better = dict.fromkeys(names, 0), dict.fromkeys(names, 0)
    for case in range(cases):
        problem = table(table_settings(case), case, 0)
        state = problem.reset()
        try:
            best = Allocator(problem, "optimal", budget_ms=limit_ms).step(state)
        except InvalidStateError:
            beyond += 1
            continue
        if best.certificate.gap > 0:
            stopped += 1
            continue
        levels = np.unique(state.priority)[::-1]
        counts = lambda served, levels=levels, state=state: [int(served[state.priority == p].sum()) for p in levels]
        proved, jobs = proved + 1, jobs + state.agents
        reached = counts(best.served)
        most += sum(reached)
        for name in names:
            mine = counts(allocator_of(problem, name, changes).step(state).served)
            total[name] += sum(mine)
            equal[name] += mine == reached
            better[name] += mine > reached
    print(
        f"\noptimum: proved in {proved} tables within {limit_ms:g} ms, stopped in {stopped}, beyond its reach {beyond}"
    )
    print(f"  {'optimal':18s} serves {most} of {jobs} jobs")
    for name in names:
        print(
            f"  {name:18s} serves {total[name]}; class by class as many in {equal[name]} tables, more in {better[name]}"
        )


def main() -> None:
    """Draw, decide, tell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", default=["tables", "worlds"], help="tables, worlds")
    parser.add_argument("--cases", type=int, help="default 200 tables, 100 worlds")
    parser.add_argument("--each", type=int, default=6, help="draws of a table, seeds of a world")
    parser.add_argument("--slots", type=int, default=30, help="decisions counted in a world")
    parser.add_argument("--methods", nargs="+", default=["game", "hybrid"])
    parser.add_argument("--allocator", nargs="*", default=[], help="name=value of Allocator, JSON or text")
    parser.add_argument("--optimum-ms", type=float, default=1000.0)
    a = parser.parse_args()
    changes: dict[str, Any] = {}
    for word in a.allocator:
        name, _, value = word.partition("=")
        try:
            changes[name] = json.loads(value)
        except json.JSONDecodeError:
            changes[name] = value
    warnings.simplefilter("ignore", RuntimeWarning)
    for part in a.parts:
        if part not in ("tables", "worlds"):
            parser.error(f"unknown part {part!r}; tables or worlds")
        cases = a.cases or (200 if part == "tables" else 100)
        found = []
        for case in range(cases):
            by = {}
            for method in (*a.methods, *BASELINES):
                if part == "tables":
                    by[method] = on_table(table_settings(case), case, method, a.each, changes)
                else:
                    by[method] = in_world(case, method, a.each, a.slots, changes)
            found.append(by)
            print(f"\r{part} {case + 1} of {cases} ", end="", file=sys.stderr, flush=True)
        if part == "tables":
            label = lambda case: ", ".join(f"{k} {v:.3g}" for k, v in table_settings(case).items() if np.ndim(v) == 0)
            told(found, a.methods, f"{cases} tables, {a.each} draws each", label)
            against_optimum(cases, a.methods, a.optimum_ms, changes)
        else:
            told(found, a.methods, f"{cases} worlds, {a.each} seeds of {a.slots} steps each", world)


if __name__ == "__main__":
    main()
