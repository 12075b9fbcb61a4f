"""The steps of ``attack.py``: every method on both problems, each certificate held against ``checker``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from benchmarks.attacks.checker import findings
from coordinator.shortlisted import Lists
from hybridalloc import Allocator, make_problem
from rl.proposal import Proposal

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

    def propose(self, observation: Any) -> Proposal:
        log_prior = self.rng.choice([0.3, 3.0, 30.0]) * self.rng.standard_normal(observation.allowed.shape)
        mean, spread = self.rng.random((2, *observation.live.shape, 2))
        mean[..., 0] = 2 * mean[..., 0] - 0.5
        return Proposal(log_prior, mean, spread, ("power", "fraction"))


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


def custom_example(n: int, seed: int) -> tuple[Any, Any]:
    """A problem of two legs with power limits, which has room for some 12 agents, and its state."""
    rng = np.random.default_rng(seed)
    allowed = np.ones((n, 4), bool)
    allowed[::3, 3] = False
    problem = make_problem(
        "custom", work=rng.uniform(1, 4, (n, 6)), capacity=rng.uniform(2, 8, 6), options=[[0, 3], [1, 4], [2, 5]],
        families=["air"] * 3 + ["cpu"] * 3, deadline_s=np.exp(rng.uniform(-0.5, 2.5, n)), allowed=allowed,
        priority=np.arange(n) % 3, wait_s=np.full(6, 0.1), full_power_w=rng.uniform(1, 5, (n, 6)),
        power_limit_w=np.where(np.arange(n) % 3 == 0, 0.5, 8.0),
    )  # fmt: skip
    return problem, problem.start


def prices_of(problem: Any, rng: np.random.Generator) -> Any:
    """The default prices, or some out of the space that tuning searches."""
    if rng.random() < 0.6:
        return problem.card.prices()
    space = problem.card.price_space
    return problem.card.prices(**{name: float(rng.uniform(*space[name][:2])) for name in space})


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
    plain = ("hybrid", "game", *problem.card.baselines)
    return [("hybrid", True), ("rl", True), *((name, False) for name in plain)]


def attack_world(world: str, count: int, seed: int = 0) -> Counter[str]:
    """One world's part of ``count`` steps; each finding by its kind, and "# <world>": the steps."""
    part = {w: 1.0 if "50" not in w else 1.0 / LARGE for w in WORLDS}
    wanted = max(round(count * part[world] / sum(part.values())), 8)
    found: Counter[str] = Counter()
    done = 0
    rng = np.random.default_rng([seed, 77])
    for problem, prices, state in situations(world, seed):
        for method, proposes in methods(problem):
            trust = float(rng.choice(TRUSTS)) if method == "hybrid" else None
            number = int(rng.integers(2**31))
            recommender = Noise(number) if proposes else None
            short = Lists(int(rng.integers(2, 5)), 0)  # lists that are too short at first, where there are any
            for lists in (None, short) if method in ("hybrid", "game") and not proposes else (None,):
                made = Allocator(problem, method, recommender, trust, seed=number, prices=prices, lists=lists)
                allocation = made.step(state)
                name = f"{world}, {method}" + (" on short lists" if lists else "")
                for line in findings(problem, state, allocation, prices):
                    found[f"{name}: {line}"] += 1
                if not allocation.certificate.status.startswith("ok"):
                    found[f"{name}: status {allocation.certificate.status}"] += 1
                done += 1
        if done >= wanted:
            break
    found[f"# {world}"] = done
    return found
