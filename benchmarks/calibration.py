"""What it is worth to choose trust after training, on the stored allocators of a comparison.

    python benchmarks/calibration.py runs/mec-20261121-150000-abcd [--seeds 50]

For every hybrid and training seed: welfare on the reporting seeds at the trust of training and at the one that
``hybridalloc.training.calibration`` chooses on tuning seeds, both less the game with the same belief and prices.
Intervals are t-intervals over training and reporting seeds.
"""

from __future__ import annotations

import argparse
import os
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")
sys.path[0] = str(Path(__file__).resolve().parents[1])  # benchmarks/games.py would hide the package games

from coordinator import Coordinator  # noqa: E402
from hybridalloc import Allocator  # noqa: E402
from hybridalloc.reports.statistics import paired_difference  # noqa: E402
from hybridalloc.training.calibration import calibrate  # noqa: E402
from hybridalloc.training.config import REPORT_SEEDS, first_trust  # noqa: E402
from hybridalloc.training.evaluation import evaluate  # noqa: E402


def measure(path: Path, seeds: int) -> tuple[float, list[Any], int]:
    """The trust chosen; welfare (V,) of the game, at the trust of training and at that one; violations."""
    a = Allocator.load(path)
    trained_at = first_trust(a.problem.card, "" if a.belief is None else a.belief.name)
    chosen = calibrate(a.problem, a.prices, a.recommender, trained_at, belief=a.belief)
    out, violations = [], chosen.violations
    for at in (Coordinator("game"), Coordinator("hybrid", trained_at), Coordinator("hybrid", chosen.trust)):
        seen = evaluate(a.problem, a.prices, at, a.recommender, REPORT_SEEDS[:seeds], belief=a.belief)
        out.append(seen.metrics["welfare"].tolist())
        violations += seen.violations
    return chosen.trust, out, violations


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("comparison", type=Path)
    parser.add_argument("--seeds", type=int, default=50)
    given = parser.parse_args()
    found: dict[str, list[Path]] = {}
    for path in sorted(given.comparison.glob("hybrid-*-seed*/allocator.npz")):
        name = path.parent.name.rsplit("-seed", 1)[0]
        if name != "hybrid-untrained":
            found.setdefault(name, []).append(path)
    if not found:
        raise SystemExit(f"{given.comparison} holds no trained hybrid")
    print("| method | trust of training, less the game | trust chosen, less the game | chosen | violations |")
    print("|---|---:|---:|---|---:|", flush=True)
    with ProcessPoolExecutor(os.cpu_count(), get_context("spawn")) as pool:
        jobs = {name: [pool.submit(measure, path, given.seeds) for path in paths] for name, paths in found.items()}
        for name, futures in jobs.items():
            trusts, scores, violations = zip(*(f.result() for f in futures), strict=True)
            game, trained, chosen = zip(*scores, strict=True)
            cells = []
            for values in (trained, chosen):
                d = paired_difference(values, game)
                low, high = d.conservative or (d.low, d.high)
                cells.append(f"{d.mean:+.4f} [{low:+.4f}, {high:+.4f}]")
            shown = ", ".join(f"{t:g}" for t in trusts)
            print(f"| {name} | {cells[0]} | {cells[1]} | {shown} | {sum(violations)} |", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
