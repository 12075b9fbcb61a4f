"""Attacks on the promises: an independent checker, planted faults, inputs of every kind.

    python benchmarks/attack.py                                  # all parts; some minutes
    python benchmarks/attack.py steps --steps 30000
    python benchmarks/attack.py plant
    python benchmarks/attack.py states extreme tables checkpoints requests --inputs 200000

*steps*: every step of every method on random states of both problems is read again by the plain loops of
``attacks/checker.py``, written from the definitions alone: limits, who is in time, floors, who has cause to envy, what
anybody gains by moving alone. What differs from the certificate is counted. *plant*: faults put into a solver's answer,
its game, its settling or its admission; each has to be caught: another candidate is returned, or the certificate says
it, and what it says of what is returned is true. *states, extreme, tables, checkpoints, requests*: inputs with known
faults, and valid ones at the ends of what floats hold (``attacks/inputs.py``); nothing is raised but a refusal in one
line that names field, index and value, and every answer is certified. Exit code 1 if anything is found.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import time
import warnings
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

sys.path[0] = str(Path(__file__).resolve().parents[1])  # benchmarks/games.py would hide the package games

from benchmarks.attacks.faults import plant  # noqa: E402
from benchmarks.attacks.inputs import KINDS, SHARE, attack_inputs  # noqa: E402
from benchmarks.attacks.steps import WORLDS, attack_world  # noqa: E402

PARTS = ("steps", "plant", *KINDS)
SLICE = 2_500  # inputs of one call


def jobs_of(part: str, steps: int, inputs: int, seed: int) -> list[Any]:
    """What a part consists of: functions without arguments that count what they find."""
    if part == "plant":
        return [plant]
    if part == "steps":
        return [partial(attack_world, world, steps, seed) for world in WORLDS]
    count = max(round(inputs * SHARE[part]), 1)
    return [partial(attack_inputs, part, min(SLICE, count - k), seed + k) for k in range(0, count, SLICE)]


def _run(job: Any) -> Counter[str]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found: Counter[str] = job()
    return found


def attack(parts: Any, steps: int, inputs: int, seed: int = 0, processes: int = 1) -> int:
    """Run the parts asked for and print what was tried and found; how much that is."""
    total = 0
    pool = multiprocessing.get_context("spawn").Pool(processes) if processes > 1 else None
    print(f"{'part':12s} {'tried':>8s} {'found':>6s} {'s':>6s}  what was tried")
    for part in parts:
        began = time.perf_counter()
        jobs = jobs_of(part, steps, inputs, seed)
        found: Counter[str] = Counter()
        for one in pool.imap_unordered(_run, jobs) if pool else map(_run, jobs):
            found.update(one)
        tried = {name[2:]: count for name, count in found.items() if name.startswith("# ")}
        bad = Counter({name: count for name, count in found.items() if count and not name.startswith("# ")})
        total += bad.total()
        words = ", ".join(f"{count:,} {name}" for name, count in tried.items())
        print(f"{part:12s} {sum(tried.values()):8,d} {bad.total():6d} {time.perf_counter() - began:6.0f}  {words}")
        for name, number in bad.most_common(20):
            print(f"    {number:6d} {name[:300]}", flush=True)
    if pool:
        pool.close()
        pool.join()
    return total


def main() -> int:
    """Run the parts asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", default=list(PARTS), metavar="part", help=", ".join(PARTS))
    parser.add_argument("--steps", type=int, default=30_000, help="of all methods and worlds together")
    parser.add_argument("--inputs", type=int, default=200_000, help="of all kinds together")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=1)
    a = parser.parse_args()
    unknown = [part for part in a.parts if part not in PARTS]
    if unknown:
        parser.error(f"unknown part {unknown[0]!r}; known: {', '.join(PARTS)}")
    return 1 if attack(a.parts, a.steps, a.inputs, a.seed, a.processes) else 0


if __name__ == "__main__":
    sys.exit(main())
