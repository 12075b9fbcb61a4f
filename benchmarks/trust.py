"""How trust is found, and what holds when the world is another: studies on trained allocators, one state at a time.

    python benchmarks/trust.py rules runs/<comparison>/hybrid-imappo-seed*/allocator.npz
    python benchmarks/trust.py gap runs/<comparison>/hybrid-imappo-seed*/allocator.npz

*rules*: the parents, trust fixed at several values, learned, hedge, robust, without *choose*, with hysteresis; on the
reporting seeds, paired with the game, averaged over the allocators given (one a training seed). *gap*: the parents,
the hybrid, hedge and robust where path loss, channel correlation, load, CPU or staleness are not as in training, by 1
to 2 x: welfare, and what is lost of it. Every row counts what it executed and how much of it broke a limit. The same
worlds for every method. ``--seeds`` and ``--slots`` set the size.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

sys.path[0] = str(Path(__file__).resolve().parents[1])  # benchmarks/games.py would hide the package games

import numpy as np  # noqa: E402

from hybridalloc import Allocator  # noqa: E402
from hybridalloc.problems.mec import Mec  # noqa: E402
from hybridalloc.statistics import paired_difference  # noqa: E402
from hybridalloc.training import REPORT_SEEDS, WARMUP_SLOTS  # noqa: E402

METHODS: dict[str, dict[str, Any]] = {
    "RL alone": {"method": "rl"},
    "game": {"method": "game", "recommender": None},
    "hybrid, trust 5": {"trust": 5.0},
    "no choose": {"trust": 5.0, "choose": False},
    "hysteresis .1": {"trust": 5.0, "hysteresis": 0.1},
    "trust 1": {"trust": 1.0},
    "trust 2.5": {"trust": 2.5},
    "trust 10": {"trust": 10.0},
    "trust 30": {"trust": 30.0},
    "learned": {"trust": "learned"},
    "hedge": {"trust": "hedge"},
    "robust": {"trust": "robust"},
}
GAP_METHODS = ("RL alone", "game", "hybrid, trust 5", "hedge", "robust")
FACTORS = (1.0, 1.25, 1.5, 2.0)


@dataclass(frozen=True)
class Shifted(Mec):
    """``mec`` with a law other than the one trained on.

    ``shift`` is "path loss" (factor 2 is 6 dB), "correlation" or "staleness" (fading decorrelates as over ``factor``
    slots; staleness also leaves that many slots' backlog unreported), "load" or "CPU".
    """

    shift: str = ""
    factor: float = 1.0

    def batch(self, seeds: Any, belief: Any = None) -> Any:
        batch = super().batch(seeds, belief)
        w = batch.world
        if self.shift == "path loss":
            w.mean_gain[:] /= self.factor**2
            w.reported_gain[:] /= self.factor**2
            w.true_gain[:] /= self.factor**2
        elif self.shift in ("correlation", "staleness"):
            w.correlation[:] **= self.factor
        elif self.shift == "CPU":
            w.server_hz[:] /= self.factor
        return batch


def shifted(problem: Any, shift: str, factor: float) -> Any:
    scenario = problem.scenario
    if shift == "load":
        scenario = replace(scenario, load=min(scenario.load * factor, 1.0))
    return Shifted(problem.agents, problem.servers, problem.sites, scenario, shift, factor)


def follow(problem: Any, path: str, changes: dict[str, Any], seeds: Any, slots: int) -> tuple[Any, int, int]:
    """(V,) welfare of an allocator on V seeds, what it executed, and what broke a limit; worlds as in ``evaluate``."""
    welfare, executed, violations = [], 0, 0
    for seed in seeds:
        allocator = Allocator.load(path, **changes)
        batch = problem.batch([seed])
        late = getattr(problem, "shift", "") == "staleness"
        state = batch.state(0)
        for slot in range(WARMUP_SLOTS + slots):
            if slot == WARMUP_SLOTS:
                batch.clear_tallies()
            told = replace(state, queue_s=np.zeros_like(state.queue_s)) if late and problem.factor >= 2 else state
            allocation = allocator.step(told)
            if "recommender failed" in allocation.certificate.status:  # a study of the game under another name
                raise ValueError(allocation.certificate.status)
            executed += 1
            violations += not allocation.certificate.feasible
            batch.execute(batch.plan_of(allocation))
            batch.drift()
            state = batch.state(0)
            allocator.feedback(state)
        welfare.append(float(batch.summary()["welfare"][0]))
    return np.array(welfare), executed, violations


def averaged(problem: Any, paths: list[str], name: str, seeds: Any, slots: int) -> tuple[Any, int, int] | None:
    """As :func:`follow`, over training seeds: (T, V)."""
    rows, executed, violations = [], 0, 0
    for path in paths:
        try:
            row, n, bad = follow(problem, path, METHODS[name], seeds, slots)
        except ValueError as error:  # "learned" where nothing was learned; a policy of another version
            print(f"{name:20s} left out: {error}")
            return None
        rows.append(row)
        executed, violations = executed + n, violations + bad
    return np.array(rows), executed, violations


def rules(problem: Any, paths: list[str], seeds: Any, slots: int) -> None:
    base = None
    print(f"{'method':20s} {'welfare':>8s} {'less the game, 95 %':>33s} {'executed':>9s} {'violations':>11s}")
    order = ("game", *(name for name in METHODS if name != "game"))
    for name in order:
        found = averaged(problem, paths, name, seeds, slots)
        if found is None:
            continue
        values, executed, violations = found
        base = values if base is None else base
        gap = paired_difference(values.tolist(), base.tolist()) if name != "game" else None
        shown = "" if gap is None else f"{gap.mean:+14.4f} [{gap.low:+.4f}, {gap.high:+.4f}]"
        print(f"{name:20s} {values.mean():8.4f} {shown:33s} {executed:9,d} {violations:11d}", flush=True)


def reality_gap(problem: Any, paths: list[str], seeds: Any, slots: int) -> None:
    heads = "".join(f"{f'x {f:g}':>18s}" for f in FACTORS)
    for shift in ("path loss", "correlation", "load", "CPU", "staleness"):
        print(f"\n{shift}: welfare (change)\n{'method':20s}{heads}{'violations':>12s}")
        for name in GAP_METHODS:
            cells, first, bad = [], None, 0
            for factor in FACTORS:
                found = averaged(shifted(problem, shift, factor), paths, name, seeds, slots)
                if found is None:
                    return
                mean = float(found[0].mean())
                first, bad = mean if first is None else first, bad + found[2]
                cells.append(f"{mean:8.4f} ({mean - first:+.4f})")
            print(f"{name:20s}" + "".join(f"{cell:>18s}" for cell in cells) + f"{bad:12d}", flush=True)


def main() -> None:
    """Run a study."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", choices=("rules", "gap"))
    parser.add_argument("allocators", nargs="+")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--slots", type=int, default=60)
    arguments = parser.parse_args()
    problem = Allocator.load(arguments.allocators[0]).problem
    study = rules if arguments.study == "rules" else reality_gap
    study(problem, arguments.allocators, REPORT_SEEDS[: arguments.seeds], arguments.slots)


if __name__ == "__main__":
    main()
