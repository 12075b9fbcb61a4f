"""Speed of mec's batched core by stage: agent-steps a second on one core, all dynamics on, set H.

    python benchmarks/environment.py

An agent-step is one device in one slot. The environment core is what the world does: ``execute`` (true physics,
every agent's credit, running figures), ``drift`` (random numbers, tasks, fading, blockages, harvest) and
``restart`` (a new network every episode of 200 slots), as called from Python, without what the operator reads of it.
The operator's part of a slot is timed beside it: believe (part of the drift call, taken out of the core), observe,
game, settle. Slots are played with half the devices' choices greedy, half random, restarts staggered as in training.
Seconds are the core's (CPU time of the thread), so that waiting for a neighbour on the machine does not count.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np

sys.path[0] = str(Path(__file__).resolve().parents[1])  # benchmarks/games.py would hide the package games

from hybridalloc import make_problem  # noqa: E402
from hybridalloc.problems.mec.build import believe  # noqa: E402

TARGET = 2e6


def measure(agents: int, servers: int, networks: int, slots: int) -> dict[str, float]:
    """Seconds of the core a slot of all networks takes, by stage: the mean over ``slots`` after a warm-up."""
    problem = make_problem("mec", agents=agents, servers=servers)
    prices = problem.card.prices()
    batch = problem.worlds(range(networks))
    batch.epoch[:] = problem.card.epochs * np.arange(networks) // networks
    rng = np.random.default_rng(0)
    spent = dict.fromkeys(("execute", "drift", "restart", "believe", "observe", "game", "settle"), 0.0)

    def timed(stage, call, *args):
        began = time.thread_time()
        out = call(*args)
        spent[stage] += time.thread_time() - began
        return out

    for slot in range(-20, slots):
        if slot == 0:
            spent = dict.fromkeys(spent, 0.0)
        timed("observe", batch.observe)
        timed("game", batch.game, prices)
        greedy, blind = batch.baseline("greedy", rng), batch.baseline("random", rng)
        plan = timed("settle", batch.settle, np.where(rng.random(greedy.shape) < 0.5, greedy, blind), prices)
        timed("execute", batch.execute, plan)
        timed("drift", batch.drift)
        timed("restart", batch.restart, batch.epoch >= problem.card.epochs)
        timed("believe", believe, batch.physics, batch.world, np.ones(networks, bool))
    spent["drift"] -= spent["believe"]  # drift ends by believing the new reports
    return {stage: seconds / slots for stage, seconds in spent.items()}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--agents", type=int, default=50)
    parser.add_argument("--servers", type=int, default=9)
    parser.add_argument("--networks", type=int, default=32)
    parser.add_argument("--slots", type=int, default=1000)
    a = parser.parse_args()
    seconds = measure(a.agents, a.servers, a.networks, a.slots)
    print(f"mec set H, {a.agents} devices x {a.servers} servers, {a.networks} networks, {a.slots} slots, one thread")
    print(f"{'stage':36s} {'us a slot':>10s} {'agent-steps/s':>14s}")
    core = ("execute", "drift", "restart")
    rows = [(stage, seconds[stage]) for stage in core]
    rows.append(("environment core", sum(seconds[s] for s in core)))
    rows += [(stage, seconds[stage]) for stage in seconds if stage not in core]
    rows.append(("all", sum(seconds.values())))
    for label, value in rows:
        print(f"{label:36s} {1e6 * value / a.networks:10.2f} {a.agents * a.networks / value:14,.0f}")
    rate = a.agents * a.networks / sum(seconds[s] for s in core)
    print(f"environment core: {rate / 1e6:.2f} million agent-steps a second a core, {rate / TARGET:.2f} of the target")


if __name__ == "__main__":
    main()
