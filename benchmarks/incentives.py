"""What a lie gains, and what a false observation costs.

    python benchmarks/incentives.py                    # all three; some minutes
    python benchmarks/incentives.py market --draws 200
    python benchmarks/incentives.py tasks --networks 100 --agents 50 --servers 9
    python benchmarks/incentives.py observations --steps 400000

*market*: agents report what resources are worth to them. The best lie found (a search over directions: every resource
alone, 60 distortions of the truth, then two rounds about the best) against the truth, in the Eisenberg-Gale market and
under partial allocation; and what either divides, in the mean of utilities as a part of what each would have alone.

*tasks*: one device of each ``mec`` network claims other cycles, bits, another deadline or the highest class, all others
say the truth; the slot is then run as it truly is. Its own reward gained, what the others lose together, by toll and
with or without stable admission. "Always" is a device that makes one claim whatever comes, the best of those listed;
"at best" one that knows beforehand which of them pays in this very slot, honesty included. 95 % intervals over the
networks.

*observations*: what a recommender sees is moved within a band about the truth (``size`` of each feature's spread) so
that its prior departs most from what it would say (projected gradient; Zhang et al. 2020, "Robust deep reinforcement
learning against adversarial perturbations on state observations"). Game and settling see the truth. Welfare of the
recommender alone and of hybrids, by trust, on tuning seeds.
"""

from __future__ import annotations

import argparse
import copy
import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")
import numpy as np

sys.path[0] = str(Path(__file__).resolve().parents[1])  # benchmarks/games.py would hide the package games

from coordinator import Coordinator  # noqa: E402
from games.market import eisenberg_gale  # noqa: E402
from games.partial_allocation import partial_allocation  # noqa: E402
from hybridalloc import make_problem  # noqa: E402
from hybridalloc.training.config import TUNE_SEEDS, TrainConfig  # noqa: E402
from hybridalloc.training.evaluation import evaluate  # noqa: E402
from hybridalloc.training.rollout import Execute, Rollout  # noqa: E402

FACTORS = (0.25, 0.5, 0.8, 1.25, 2.0, 4.0)


def interval(x: Any) -> str:
    """The mean with its 95 % interval."""
    x = np.asarray(x, float)
    half = 1.96 * x.std(ddof=1) / len(x) ** 0.5
    return f"{x.mean():+.4f} [{x.mean() - half:+.4f}, {x.mean() + half:+.4f}]"


def market(draws: int) -> None:
    """Print what lies gain in either mechanism."""
    print(f"{draws} markets of each size: log-normal values, equal budgets; gain of agent 0 over telling the truth")
    print(
        "\n| agents x resources | mechanism | lies that gain over 1 % | mean gain | largest | divided (part of alone) |"
    )
    print("|---|---|---:|---:|---:|---:|")
    for n, k in ((2, 2), (4, 3), (10, 3), (30, 5)):
        for name, mechanism in (("Eisenberg-Gale", eisenberg_gale), ("partial allocation", partial_allocation)):
            gains, divided = [], []
            for draw in range(draws if n < 30 else max(draws // 10, 1)):
                rng = np.random.default_rng([n, k, draw])
                value, ones = rng.lognormal(0.0, 1.0, (n, k)), (np.ones(n), np.ones(k))

                def worth(lie: Any, value: Any = value, mechanism: Any = mechanism, ones: Any = ones) -> float:
                    told = value.copy()
                    told[0] = lie
                    return float(value[0] @ mechanism(told, *ones, tolerance=1e-8).share[0])

                honest = worth(value[0])
                lies = [row + 1e-4 for row in np.eye(k)]
                lies += [value[0] * rng.lognormal(0.0, s, k) for s in (0.1, 0.5, 1.5) for _ in range(20)]
                found = max((worth(lie), tuple(lie)) for lie in lies)
                for spread in (0.2, 0.05):
                    near = [np.array(found[1]) * rng.lognormal(0.0, spread, k) for _ in range(10)]
                    found = max([found, *((worth(lie), tuple(lie)) for lie in near)])
                gains.append(found[0] / honest - 1.0)
                share = mechanism(value, *ones, tolerance=1e-8).share
                divided.append(((value * share).sum(axis=1) / value.sum(axis=1)).mean())
            g = np.array(gains)
            print(f"| {n} x {k} | {name} | {100 * (g > 0.01).mean():.0f} % | {100 * g.mean():.2f} % | "
                  f"{100 * g.max():.2f} % | {100 * np.mean(divided):.1f} % |", flush=True)  # fmt: skip


def claims(world: Any, who: Any) -> dict[str, Any]:
    """Name -> a world as a lying device of each network would have it seen."""
    e = np.arange(len(who))

    def with_(**fields: Any) -> Any:
        lied = copy.deepcopy(world)
        for name, value in fields.items():
            getattr(lied.world, name)[e, who] = value(getattr(lied.world, name)[e, who])
        lied.world = lied.world  # what was derived of it is worked out again
        return lied

    out = {}
    for factor in FACTORS:
        times = lambda x, factor=factor: factor * x
        out[f"cycles x {factor:g}"] = with_(task_cycles=times)
        out[f"bits x {factor:g}"] = with_(task_bits=times)
        out[f"deadline x {factor:g}"] = with_(deadline_s=times)
    out["the highest class"] = with_(sla=lambda x: np.ones_like(x))
    return out


def tasks(networks: int, agents: int, servers: int, load: float) -> None:
    """Print what a device gains by each claim, by toll and admission."""
    print(f"\nmec, {agents} devices x {servers} servers, load {load:g}; {networks} networks, three slots of each\n")
    heads = "toll", "admission", "own reward, honest", "always", "gains", "others lose", "at best: gains", "others lose"
    print("| " + " | ".join(heads) + " |\n|---:|---|---:|---|---:|---:|---:|---:|")
    for toll in (0.0, 1.0, 2.0):
        for floors in (True, False):
            problem = make_problem("mec", agents=agents, servers=servers, load=load, floors=floors)
            prices = problem.card.prices(toll=toll)
            method = Execute(Coordinator("game", 0.0), None, prices)
            run = Rollout(problem, TUNE_SEEDS[:networks], spread=True)
            rng = np.random.default_rng(0)
            own: dict[str, list[Any]] = {}
            rest: dict[str, list[Any]] = {}
            for slot in range(15):
                if slot in (4, 9, 14):
                    active = run.world.world.active
                    who = np.where(active, rng.random(active.shape), -1.0).argmax(axis=1)
                    e = np.arange(networks)
                    for name, world in {"": run.world, **claims(run.world, who)}.items():
                        plan = method(SimpleNamespace(world=world)).plan
                        reward = copy.deepcopy(run.world).run(plan).reward
                        own.setdefault(name, []).append(reward[e, who])
                        rest.setdefault(name, []).append(reward.sum(axis=1) - reward[e, who])
                run.step(method, prices)
            mine = {k: np.mean(v, axis=0) for k, v in own.items()}
            theirs = {k: np.mean(v, axis=0) for k, v in rest.items()}
            best = max((k for k in mine if k), key=lambda k: mine[k].mean())
            names = list(own)
            each = np.array([own[k] for k in names])  # claims, slots, networks
            at = each.argmax(axis=0)[None]
            gain = np.take_along_axis(each, at, 0)[0] - each[0]
            lost = np.array([rest[k] for k in names])
            cost = lost[0] - np.take_along_axis(lost, at, 0)[0]
            print(f"| {toll:g} | {'stable' if floors else 'none'} | {mine[''].mean():.3f} | {best} | "
                  f"{interval(mine[best] - mine[''])} | {interval(theirs[''] - theirs[best])} | "
                  f"{interval(gain.mean(axis=0))} | {interval(cost.mean(axis=0))} |", flush=True)  # fmt: skip


class Misled:
    """A recommender that sees each feature moved by at most ``size`` of its spread, against its own judgement."""

    def __init__(self, learner: Any, size: float, rounds: int = 3) -> None:
        self.learner, self.size, self.rounds = learner, size, rounds
        self.rng = np.random.default_rng(0)

    def propose(self, observation: Any) -> Any:
        return self.learner.policy.propose(self.moved(observation) if self.size else observation)

    def moved(self, seen: Any) -> Any:
        """The observation within the band from which the prior departs most, by projected gradient."""
        import torch

        live = np.nonzero(seen.live)
        t = lambda x: torch.from_numpy(np.ascontiguousarray(x, np.float32))
        of, mask = torch.from_numpy(np.asarray(seen.resource_of)), torch.from_numpy(seen.allowed[live])
        row = torch.from_numpy(live[0])
        true = t(seen.agent), t(seen.pair), t(seen.resource)
        band = [self.size * x.std(dim=tuple(range(x.ndim - 1)), keepdim=True) for x in true]

        def log_prior(agent: Any, pair: Any, resource: Any) -> Any:
            raw = self.learner.actor(agent[live], pair[live], resource, row, of, mask)
            return torch.log_softmax(raw.masked_fill(~mask, -1e9), -1)

        with torch.no_grad():
            honest = log_prior(*true)
        moved = [x + b * t(self.rng.choice([-1.0, 1.0], x.shape)) for x, b in zip(true, band, strict=True)]
        for _ in range(self.rounds):
            tried = [x.detach().requires_grad_(True) for x in moved]
            apart = (honest.exp() * (honest - log_prior(*tried))).sum()
            slopes = torch.autograd.grad(apart, tried)
            moved = [
                torch.clamp(x + b * g.sign(), y - b, y + b).detach()
                for x, b, g, y in zip(tried, band, slopes, true, strict=True)
            ]
        agent, pair, resource = (x.numpy() for x in moved)
        return seen._replace(agent=agent, pair=pair, resource=resource)


def observations(steps: int, agents: int, servers: int) -> None:
    """Print welfare by the size of the attack, of the recommender alone and inside."""
    from hybridalloc.training.trainer import train

    problem = make_problem("mec", agents=agents, servers=servers)
    prices, seeds = problem.card.prices(), TUNE_SEEDS[16:48]
    kinds = [("rl", 0.0)] + [("hybrid", trust) for trust in (1.0, 5.0, 20.0)]
    print(f"\nIMAPPO, {steps:,} agent-steps, mec {agents} x {servers}; welfare on {len(seeds)} tuning networks\n")
    print(
        "| size of the attack | "
        + " | ".join("alone" if k == "rl" else f"hybrid, trust {t:g}" for k, t in kinds)
        + " | game |"
    )
    print("|---:|" + "---:|" * (len(kinds) + 1))
    trained = {
        kind: train(problem, prices, TrainConfig("imappo", kind, steps, checks=0)).learner for kind in ("rl", "hybrid")
    }
    means = lambda method, who: evaluate(problem, prices, method, who, seeds, slots=60).means()["welfare"]
    game = means(Coordinator("game", 0.0), None)
    for size in (0.0, 0.1, 0.3, 1.0, 3.0):
        row = [means(Coordinator(kind, trust), Misled(trained[kind], size)) for kind, trust in kinds]
        print(f"| {size:g} | " + " | ".join(f"{x:.4f}" for x in row) + f" | {game:.4f} |", flush=True)


def main() -> None:
    """Print the tables asked for."""
    import torch

    torch.set_num_threads(1)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=["market", "tasks", "observations", []], default=[])
    for name, value in (("draws", 100), ("networks", 100), ("agents", 50), ("servers", 9), ("steps", 400_000)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--load", type=float, default=0.6)
    a = parser.parse_args()
    parts = a.parts or ["market", "tasks", "observations"]
    if "market" in parts:
        market(a.draws)
    if "tasks" in parts:
        tasks(a.networks, a.agents, a.servers, a.load)
    if "observations" in parts:
        observations(a.steps, a.agents, a.servers)


if __name__ == "__main__":
    main()
