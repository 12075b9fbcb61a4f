"""The steps of ``attack.py``: every method on both problems, each certificate held against ``attack_checker``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from benchmarks.attack_checker import findings
from hybridalloc import Allocator, make_problem

MEC: dict[str, dict[str, Any]] = {
    "mec H": {"agents": 12, "servers": 3},
    "mec A": {"agents": 12, "servers": 3, "scenario": "A"},
    "mec H, channels chosen": {"agents": 10, "servers": 2, "choose_channel": True},
    "mec H, by score": {"agents": 12, "servers": 2, "priority_gap": 0.1},
    "mec H, no floors, whole tasks": {"agents": 10, "servers": 2, "floors": False, "partial": False},
    "mec H, 50 x 4": {"agents": 50, "servers": 4},
    "mec H, 50 x 2": {"agents": 50, "servers": 2, "load": 1.0},
}
CUSTOM = {"custom, one leg": 1, "custom, two legs": 2}
WORLDS = (*MEC, *CUSTOM)
LARGE = 5  # a world of 50 devices has this many times fewer steps
TRUSTS = (0.3, 2.5, 5.0, 30.0, float("inf"))


class Noise:
    """Proposes noise, also for powers and fractions."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)

    def propose(self, observation: Any) -> Any:
        return self.rng.choice([0.3, 3.0, 30.0]) * self.rng.standard_normal(observation.allowed.shape)

    def propose_continuous(self, observation: Any) -> dict[str, Any]:
        draw = lambda: self.rng.random(observation.live.shape)
        return {"power": 2 * draw() - 0.5, "power_spread": draw(), "fraction": draw(), "fraction_spread": draw()}


def custom_problem(rng: np.random.Generator, legs: int) -> Any:
    """A problem of 2 to 9 agents: deadlines for some, power limits, waits, reach, priorities, some sit out."""
    n, each = int(rng.integers(2, 10)), int(rng.integers(1, 4))
    r = legs * each
    o = 1 + each
    options = np.arange(r).reshape(legs, each).T
    if legs == 2 and rng.random() < 0.3:  # an option that uses one leg alone
        options[0, 1] = -1
    allowed = rng.random((n, o)) < rng.choice([0.5, 0.9, 1.0])
    allowed[:, 0] = True
    deadline = np.exp(rng.uniform(-1, 2, n))
    deadline[rng.random(n) < rng.choice([0.0, 0.3])] = 1e9
    arrays = {
        "work": rng.uniform(0.0, 4.0, (n, r)) * (rng.random((n, r)) < 0.95), "capacity": rng.uniform(1.0, 10.0, r),
        "allowed": allowed, "deadline_s": deadline, "wait_s": rng.uniform(0.0, 0.5, r) * (rng.random() < 0.5),
        "priority": rng.choice([rng.random(n), rng.integers(0, 3, n).astype(float), np.zeros(n)]),
    }  # fmt: skip
    if rng.random() < 0.5:
        arrays |= {"full_power_w": rng.uniform(0.0, 5.0, (n, r)), "power_limit_w": rng.uniform(0.5, 8.0, n)}
    if rng.random() < 0.5:
        arrays |= {"private_cost": rng.uniform(-1, 1, (n, o)), "opt_out_cost": rng.uniform(0, 3, n)}
    if rng.random() < 0.3:
        arrays |= {"delay_cost": rng.uniform(0, 2, n) * (rng.random(n) < 0.8)}
    if rng.random() < 0.5:
        arrays |= {"active": rng.random(n) < 0.8}
    families = ["air"] * each + ["cpu"] * each if legs == 2 else None
    gap = float(rng.choice([0.0, 0.0, 0.3, 2.0]))
    return make_problem("custom", options=options, families=families, priority_gap=gap, **arrays)


def prices_of(problem: Any, rng: np.random.Generator) -> Any:
    """The default prices, or some out of the space that tuning searches."""
    if rng.random() < 0.6:
        return problem.prices_type()
    space = problem.price_space
    return problem.prices_type(**{name: float(rng.uniform(*space[name][:2])) for name in space})


def situations(world: str, seed: int) -> Iterator[tuple[Any, Any, Any]]:
    """Problem, prices and state without end."""
    rng = np.random.default_rng([seed, WORLDS.index(world)])
    while True:
        if world in CUSTOM:
            problem = custom_problem(rng, CUSTOM[world])
            yield problem, prices_of(problem, rng), problem.start
            continue
        problem = make_problem("mec", **MEC[world])
        prices = prices_of(problem, rng)
        state = problem.reset(int(rng.integers(2**31)))
        for _ in range(6):
            some = replace(
                state, sla=rng.choice([0.0, 0.5, 1.0], state.agents),
                reachable=rng.random(state.reachable.shape) < rng.choice([0.5, 1.0]),
            )  # fmt: skip
            yield problem, prices, some
            allocation = Allocator(problem, "game", prices=prices).step(some)
            state, _ = problem.advance(state, allocation, int(rng.integers(2**31)))


def methods(problem: Any) -> list[tuple[str, bool]]:
    """Every method, with or without a recommender."""
    return [("hybrid", True), ("hybrid", False), ("rl", True), ("game", False), *((b, False) for b in problem.baselines)]


def attack_steps(count: int, seed: int = 0) -> Counter[str]:
    """About ``count`` steps; how many ("steps", "steps of <world>"), and each finding by its kind."""
    shares = {w: 1.0 if "50" not in w else 1.0 / LARGE for w in WORLDS}
    found: Counter[str] = Counter()
    for world in WORLDS:
        done = 0
        rng = np.random.default_rng([seed, 77])
        wanted = max(int(count * shares[world] / sum(shares.values())), 8)
        for problem, prices, state in situations(world, seed):
            for method, proposes in methods(problem):
                trust = float(rng.choice(TRUSTS)) if method == "hybrid" else None
                number = int(rng.integers(2**31))
                recommender = Noise(number) if proposes else None
                allocation = Allocator(problem, method, recommender, trust, seed=number, prices=prices).step(state)
                for line in findings(problem, state, allocation, prices):
                    found[f"{line.split(':')[0]} ({world}, {method}): {line}"] += 1
                if not allocation.certificate.status.startswith("ok"):
                    found[f"status ({world}, {method}): {allocation.certificate.status}"] += 1
                done += 1
            if done >= wanted:
                break
        found["steps"] += done
        found[f"steps of {world}"] = done
    return found


def disagreements(found: Counter[str]) -> int:
    """How many of them were not steps."""
    return sum(count for name, count in found.items() if not name.startswith("steps"))


