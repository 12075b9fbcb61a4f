"""What must hold of every allocation, on fresh random states of every problem: ``python benchmarks/properties.py``.

Of each executed allocation: capacity, power and energy limits by the certificate's count; regret at most the epsilon
bound; options allowed; idle agents opted out; trust 0 the filtered proposal, trust inf a Nash equilibrium (regret <=
1e-9); on the model (the tilted potential at that trust) never above either filtered parent. Recommenders are noise of
a random strength, so that priors pull in every direction. Prints counts a setting, and ends with exit code 1 if
anything was violated. ``--allocations`` sets how many (default 100,000), ``--steps`` how many go one by one through
``Allocator.step`` instead of the batch.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path[0] = str(Path(__file__).resolve().parents[1])  # benchmarks/games.py would hide the package games

import numpy as np  # noqa: E402

from coordinator import Coordinator, clip_prior  # noqa: E402
from coordinator.congestion import model_cost  # noqa: E402
from coordinator.merge import equilibrate  # noqa: E402
from games.certificate import deviations, measure_regret  # noqa: E402
from games.congestion import CongestionGame  # noqa: E402
from hybridalloc import Allocator, make_problem  # noqa: E402
from hybridalloc.problems.custom.state import CustomState  # noqa: E402
from hybridalloc.problems.farm import Farm  # noqa: E402
from hybridalloc.training.rollout import Heuristic, Rollout  # noqa: E402
from rl.proposal import Proposal  # noqa: E402


@dataclass(frozen=True)
class Disorder:
    """A custom problem in which everything is drawn anew: two families, what is allowed, deadlines, power, waits."""

    agents: int = 12
    pairs: int = 3

    def reset(self, seed: int) -> CustomState:
        return self._drawn(np.random.default_rng(seed))

    def advance(self, state: CustomState, allocation: Any, rng: np.random.Generator) -> CustomState:
        return self._drawn(rng)

    def reward(self, state: CustomState, allocation: Any) -> Any:
        return allocation.served.astype(float)

    def _drawn(self, rng: np.random.Generator) -> CustomState:
        n, r, o = self.agents, 2 * self.pairs, 1 + self.pairs
        allowed = rng.random((n, o)) < 0.7
        allowed[:, 0] = True
        return CustomState(
            work=rng.uniform(0.0, 4.0, (n, r)), capacity=rng.uniform(1.0, 10.0, r), allowed=allowed,
            deadline_s=rng.uniform(0.2, 4.0, n), private_cost=rng.uniform(-1.0, 1.0, (n, o)), priority=rng.random(n),
            wait_s=rng.uniform(0.0, 0.5, r), full_power_w=rng.uniform(0.0, 5.0, (n, r)),
            power_limit_w=rng.uniform(0.5, 8.0, n), active=rng.random(n) < 0.9, opt_out_cost=rng.uniform(0.0, 3.0, n),
        )  # fmt: skip


OFF = dict.fromkeys(
    ("staleness", "varied_fading", "blockage", "interference", "queues", "batteries", "migration", "bursts"), False
)
SETTINGS: dict[str, dict[str, Any]] = {
    "H": {"agents": 24, "servers": 5},
    "H, nothing moves": {"agents": 24, "servers": 5, **OFF},
    "A": {"agents": 24, "servers": 4, "scenario": "A"},
    "one channel chosen": {"agents": 15, "servers": 3, "choose_channel": True},
    "half out of reach": {"agents": 24, "servers": 5, "reach": 0.5},
    "no server in reach": {"agents": 10, "servers": 3, "reach": 0.0},
    "one device": {"agents": 1, "servers": 3},
    "one server": {"agents": 12, "servers": 1},
    "no device": {"agents": 0, "servers": 2},
    "crowded": {"agents": 60, "servers": 3, "load": 1.0},
    "no floors, no power control": {"agents": 24, "servers": 5, "floors": False, "power_control": False},
    "custom, a farm": {"transition": Farm(tenants=16, nodes=4)},
    "custom, two legs, drawn anew": {"transition": Disorder(), "options": [[0, 3], [1, 4], [2, 5]]},
}
TRUSTS = (0.0, 0.3, 2.5, 5.0, 30.0, np.inf)
NETWORKS = 50


class Noise:
    """Proposes noise, also for powers and fractions."""

    name = "noise"

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)

    def propose(self, observation: Any) -> Proposal:
        log_prior = self.rng.choice([0.3, 3.0, 30.0]) * self.rng.standard_normal(observation.allowed.shape)
        mean, spread = self.rng.random((2, *observation.live.shape, 2))
        mean[..., 0] = 2 * mean[..., 0] - 0.5
        return Proposal(log_prior, mean, spread, ("power", "fraction"))


@dataclass
class Count:
    """What was executed, and how often each promise was broken; ``worst`` are the largest excesses."""

    allocations: int = 0
    broken: dict[str, int] = field(default_factory=dict)
    worst: dict[str, float] = field(default_factory=dict)

    def note(self, promise: str, excess: float, tolerance: float) -> None:
        self.broken.setdefault(promise, 0)
        self.worst[promise] = max(self.worst.get(promise, -np.inf), excess)
        self.broken[promise] += not excess <= tolerance


def states(name: str, seed: int, count: int = NETWORKS) -> tuple[Any, Any, Any, Any]:
    """A batch of networks some random slots in, its prices and a generator."""
    settings = dict(SETTINGS[name])
    reach = settings.pop("reach", 1.0)
    problem = make_problem("mec" if "servers" in settings else "custom", **settings)
    rng = np.random.default_rng([seed, len(name)])
    run = Rollout(problem, rng.integers(0, 2**31, count))
    low, high = zip(*[problem.card.price_space[k][:2] for k in problem.card.price_space], strict=True)
    drawn = dict(zip(problem.card.price_space, rng.uniform(low, high), strict=True))
    prices = problem.card.prices(**drawn)
    for _ in range(rng.integers(0, 4)):
        run.step(Heuristic("random", prices, rng), prices)
    batch = run.world
    if problem.name == "mec":
        batch.world.reachable[:] = rng.random(batch.world.reachable.shape) < reach
    return problem, batch, prices, rng


def one(game: Any, e: int) -> CongestionGame:
    return CongestionGame(
        game.options, game.weight[e], game.capacity[e], game.private_cost[e], game.allowed[e], game.toll[e]
    )


def check_batch(name: str, seed: int, count: Count, networks: int = NETWORKS) -> None:
    """One round: every trust on ``networks`` fresh states."""
    _, batch, prices, rng = states(name, seed, networks)
    game = batch.game(prices)
    limit = float(rng.choice([1.0, 10.0]))
    raw = rng.choice([0.3, 3.0, 30.0]) * rng.standard_normal(game.private_cost.shape)
    prior = clip_prior(raw, game.allowed, limit)
    wish = Proposal(None, rng.random((*game.live.shape, 1)), rng.random((*game.live.shape, 1)), ("power",))
    proposal, alone = (equilibrate(game, prior, t).option for t in (0.0, np.inf))
    wanted = np.where(game.live, np.where(game.allowed, raw, -np.inf).argmax(axis=-1), 0)
    count.note("trust 0 is the filtered proposal", float((proposal != wanted).sum()), 0)
    singles = [one(game, e) for e in range(networks)]
    for trust in TRUSTS:
        coordinator = Coordinator("hybrid", trust, limit)
        option = coordinator.decide_on(game, prior, True).option
        plan = batch.settle(option, prices, wish, trust)
        excess = batch.excess(plan)
        tilt = -prior / trust if 0 < trust < np.inf else np.zeros_like(prior)
        mine, theirs, games = (model_cost(game, o, tilt) for o in (option, proposal, alone))
        taken = np.take_along_axis(game.allowed, plan.option[..., None], -1)[..., 0]
        for e in range(networks):
            count.allocations += 1
            count.note("capacity and power", float(excess[e]), 1e-9)
            count.note("options allowed, idle agents out", float((~taken[e]).sum()), 0)
            gain = float(deviations(singles[e], option[e])[0].max(initial=0.0))
            if trust > 0:
                count.note("regret within the bound", gain - coordinator.epsilon_bound, 1e-9)
            if np.isinf(trust):
                count.note("trust inf is Nash", gain, 1e-9)
            elif trust > 0:
                count.note("no worse than either parent", float(mine[e] - min(theirs[e], games[e])), 1e-9)
            else:
                count.note("trust 0 is the filtered proposal", float((option[e] != proposal[e]).sum()), 0)


def check_steps(name: str, seed: int, count: Count, steps: int) -> None:
    """The same of ``Allocator.step``, one state at a time, by the certificate and beside it."""
    problem, batch, prices, rng = states(name, seed, steps)
    trusts = (*TRUSTS, "hedge", *(("robust",) if problem.scenarios() else ()))
    for e in range(steps):
        state, trust = batch.state(e), trusts[int(rng.integers(len(trusts)))]
        method = ("hybrid", "hybrid", "rl", "game", *problem.card.baselines)[
            int(rng.integers(4 + len(problem.card.baselines)))
        ]
        recommender = Noise(seed + e) if method in ("hybrid", "rl") else None
        allocation = Allocator(problem, method, recommender, trust, prices=prices, seed=e).step(state)
        c = allocation.certificate
        count.allocations += 1
        count.note("capacity and power", c.max_violation if c.feasible else np.inf, 1e-9)
        idle = allocation.option[~state.active].any()
        taken = np.take_along_axis(allocation.game.allowed, allocation.option[:, None], -1)
        count.note("options allowed, idle agents out", float(idle + (~taken).sum()), 0)
        count.note(
            "regret within the bound", c.regret - c.epsilon_bound if np.isfinite(c.epsilon_bound) else -1.0, 1e-9
        )
        if not allocation.seated:  # where places were given, regret is over moves that fit
            affine = measure_regret(allocation.game, allocation.option)
            count.note("regret as certified", abs(c.regret - affine), 1e-9 * (1 + affine))
        else:
            count.note("no justified envy", float(len(c.envy)), 0)
            count.note("who holds a place is served", float((allocation.held & ~allocation.served).sum()), 0)
        count.note("who is said to be served is", float(len(c.late)), 0)
        count.note("nothing failed", float(not c.status.startswith("ok")), 0)


def main() -> int:
    """Run all settings and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--allocations", type=int, default=100_000)
    parser.add_argument("--steps", type=int, default=2_000)
    arguments = parser.parse_args()
    began = time.perf_counter()
    per = -(-(arguments.allocations - arguments.steps) // len(SETTINGS))
    rounds, steps = -(-per // (NETWORKS * len(TRUSTS))), -(-arguments.steps // len(SETTINGS))
    total, bad = 0, 0
    promises: dict[str, float] = {}
    print(f"{'setting':30s} {'allocations':>12s} {'violations':>11s}")
    for name in SETTINGS:
        count = Count()
        for seed in range(rounds):
            check_batch(name, seed, count)
        check_steps(name, 10_000, count, steps)
        broken = sum(count.broken.values())
        print(f"{name:30s} {count.allocations:12,d} {broken:11d}", flush=True)
        for promise, worst in count.worst.items():
            promises[promise] = max(promises.get(promise, -np.inf), worst)
        total, bad = total + count.allocations, bad + broken
    print(f"{'all':30s} {total:12,d} {bad:11d}   in {time.perf_counter() - began:.0f} s")
    for promise, worst in promises.items():
        print(f"  {promise:40s} worst excess {worst:9.2e}")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
