"""What can be made of what a router sees, at best? ``python benchmarks/balancer_seen.py``.

A network learns, from episodes of the first half of the trace, how long a request would wait for its first token at
each replica, by the truth (the replica run ahead as it is) and from all that its router sees: reports, their age, own
requests now and when a report was taken, what is believed, what the game would charge. It learns what is expected, by
the loss of the exponential law, in three rounds: of the game's episodes, then of its own as well. Then it routes, each
request where it expects the least, on the suite's episodes: what a proposer could bring who sees no more than the game.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import nn

sys.path[0] = str(Path(__file__).resolve().parents[1])  # benchmarks/games.py would hide the package games

from hybridalloc import make_problem  # noqa: E402
from hybridalloc.problems.balancer.ahead import foresee  # noqa: E402
from hybridalloc.problems.balancer.belief import BLEND, believe, learn  # noqa: E402
from hybridalloc.problems.balancer.card import figures_of  # noqa: E402
from hybridalloc.problems.balancer.core import GAP_S, MEAN_PROMPT, PROMPT, advance, look, send  # noqa: E402
from hybridalloc.problems.balancer.rules import new_room  # noqa: E402
from hybridalloc.problems.balancer.scorer import BalancerPrices  # noqa: E402
from hybridalloc.problems.balancer.sim import NOW  # noqa: E402

PRICES, HELD_OUT, LONGEST_S, ROUNDS = BalancerPrices(), 10_000, 30.0, 3
EXPLORE = 0.1  # of the requests of an episode that is learned from go to a replica drawn by capacity
KEYS = ("ttft_p99", "ttft_mean", "e2e_p99")
Expects = Callable[[np.ndarray], np.ndarray]


class Eyes:
    """What the router of a request sees of each replica, as the game believes and charges it."""

    def __init__(self, sim, dispatchers: int) -> None:
        self.sim, self.room = sim, new_room(dispatchers, sim.fleet.share)
        self.fade = np.array([PRICES.fade_requests, PRICES.fade_tokens])

    def look(self, i: int) -> np.ndarray:
        """(R, F); the game's costs before noise are in ``room.cost``."""
        sim, room, fleet = self.sim, self.room, self.sim.fleet
        view, load, d = room.seen, room.load, int(sim.trace.dispatcher[i])
        look(sim, i, view)
        learn(d, sim.clock[NOW], view, fleet, False, room.know)
        believe(BLEND, d, view, False, self.fade, PRICES.alike, room.know, load)
        per = fleet.share * len(fleet)
        work = PRICES.tokens * (load[:, 1] + view.about[PROMPT] - view.hit) / 1000
        room.cost[:] = (work + PRICES.requests * (load[:, 0] + 1)) / per**PRICES.exponent
        told, own, then = view.told, view.own, view.then
        each = np.column_stack([
            np.log(per), 10 * fleet.base_s, fleet.kv / 1e5, view.age_s, told[:, 0] / 10, told[:, 1] / 30,
            told[:, 2] / fleet.kv, told[:, 4] * 10, own / [10, 2e3, 2e4, 1], then / [10, 2e3, 2e4, 1],
            load / [30, 2e3, 1e5] / per[:, None], own[:, 1] / 2e3 / per, told[:, 0] / 5 / per, room.cost,
            room.cost - room.cost.min(), room.know.usual[d] * len(fleet), room.know.speed[d] - 1,
        ])  # fmt: skip
        about = view.about
        common = [about[PROMPT] / 2e3, np.log1p(about[PROMPT]) / 8, 5 * about[GAP_S], about[MEAN_PROMPT] / 2e3]
        common = np.concatenate([each.mean(0), common])
        return np.column_stack([each, np.tile(common, (len(fleet), 1))]).astype(np.float32)


def episode(seed: int, expects: Expects | None, teach: bool = False) -> tuple[dict[str, float], list, list]:
    """One episode, by the game where nothing is expected yet: its metrics, and what was seen and true if it teaches."""
    problem = make_problem("balancer", scenario="azure")
    sim = problem.episode(np.random.default_rng([seed, 1]), seed >= HELD_OUT)
    eyes, rng, out = Eyes(sim, problem.dispatchers), np.random.default_rng([seed, 3]), np.zeros(1)
    seen, true = [], []
    while (i := advance(sim)) >= 0:
        x = eyes.look(i)
        if teach:
            seen.append(x)
            waits = np.zeros(len(x))
            for r in range(len(x)):
                foresee(sim, i, r, out)
                waits[r] = min(out[0], LONGEST_S)
            true.append(waits)
        noise = PRICES.noise * (rng.gumbel(size=len(x)) + np.log(sim.fleet.share))
        cost = eyes.room.cost - noise if expects is None else expects(x)
        astray = teach and rng.random() < EXPLORE
        send(sim, i, int(rng.choice(len(x), p=sim.fleet.share)) if astray else int(np.argmin(cost)))
    return figures_of(sim), seen, true


def fitted(seen: np.ndarray, true: np.ndarray, epochs: int = 6, size: int = 1024) -> Expects:
    """Two layers of 64 for the logarithm of what is expected."""
    x, y = torch.tensor(seen.reshape(-1, seen.shape[-1])), torch.tensor(true.reshape(-1), dtype=torch.float32)
    middle, width = x.mean(0), x.std(0) + 1e-6
    net = nn.Sequential(nn.Linear(x.shape[1], 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 1))
    adam, batches = torch.optim.Adam(net.parameters()), len(y) // size
    rate = torch.optim.lr_scheduler.OneCycleLR(adam, 4e-3, total_steps=epochs * batches)
    for _ in range(epochs):
        for some in torch.randperm(len(y))[: batches * size].view(-1, size):
            z = net((x[some] - middle) / width)[:, 0]
            adam.zero_grad()
            (y[some] * torch.exp(-z) + z).mean().backward()
            adam.step()
            rate.step()

    def expects(rows: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return net((torch.tensor(rows) - middle) / width)[:, 0].numpy()

    return expects


def show(label: str, seeds: range, expects: Expects | None) -> None:
    rows = [episode(seed, expects)[0] for seed in seeds]
    print(f"{label:32s}" + "".join(f" | {key} {np.mean([row[key] for row in rows]):.3f} s" for key in KEYS), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--episodes", type=int, default=30, help="a round that is learned from, of 600 requests each")
    parser.add_argument("--seeds", type=int, default=20)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    halves = {"first half": range(5000, 5000 + args.seeds), "second half": range(HELD_OUT, HELD_OUT + args.seeds)}
    for half, seeds in halves.items():
        show(f"game, {half}", seeds, None)
    expects: Expects | None = None
    seen: list = []
    true: list = []
    for k in range(ROUNDS):
        for seed in range(100 * k, 100 * k + args.episodes):
            _, more, truth = episode(seed, expects, teach=True)
            seen, true = seen + more, true + truth
        expects = fitted(np.array(seen), np.array(true))
        show(f"learned from {len(seen):,}, first half", halves["first half"], expects)
    show("the last, second half", halves["second half"], expects)


if __name__ == "__main__":
    main()
