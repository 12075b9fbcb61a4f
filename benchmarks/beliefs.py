"""Learned beliefs: how soon, how well calibrated, and what happens when the law shifts.

    python benchmarks/beliefs.py [--steps 262144] [--figure docs/figures/belief_reliability.svg]

mec, set H, 50 x 9, EUA sites, default prices, toll 1; the game alone, on the first 32 tuning seeds. Prints (1) the
game's welfare after so many agent-steps of learning, beside the reports' and the Bayesian oracle's; (2) coverage of
each quantile on networks never seen; (3) under a shifted law: frozen, left to learn, the oracle of the old law.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

sys.path[0] = str(Path(__file__).resolve().parents[1])  # benchmarks/games.py would hide the package games

from coordinator import Coordinator  # noqa: E402
from hybridalloc import make_problem  # noqa: E402
from hybridalloc.problems.mec.belief import BayesianBelief, LearnedBelief  # noqa: E402
from hybridalloc.training.beliefs import learn_belief  # noqa: E402
from hybridalloc.training.config import TUNE_SEEDS, TrainConfig  # noqa: E402
from hybridalloc.training.evaluation import evaluate  # noqa: E402


def welfare(problem: Any, belief: Any) -> float:
    seen = evaluate(problem, problem.card.prices(), Coordinator("game"), None, TUNE_SEEDS[:32], slots=60, belief=belief)
    return float(seen.metrics["welfare"].mean())


def shifted(problem: Any, **changes: Any) -> Any:
    return replace(problem, scenario=replace(problem.scenario, **changes))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=262_144)
    parser.add_argument("--sites", default="eua")
    parser.add_argument("--figure", type=Path)
    given = parser.parse_args()
    problem = make_problem("mec", agents=50, servers=9, sites=given.sites)
    prices = problem.card.prices()
    oracle = welfare(problem, BayesianBelief())
    print(f"reports at their face value {welfare(problem, None):.4f}, Bayesian oracle {oracle:.4f}\n")
    print("| agent-steps | welfare | pinball | the reports' | largest gap of coverage | queue loss | the reports' |")
    print("|---:|---:|---:|---:|---:|---:|---:|")
    belief, done = LearnedBelief(), 0
    for part in (1 / 16, 1 / 8, 1 / 4, 1 / 2, 1):
        more = round(part * given.steps) - done
        belief, _, _ = learn_belief(
            problem, prices, TrainConfig(belief="learned", belief_steps=more, seed=done), belief
        )
        done += more
        f = belief.figures()
        print(
            f"| {done:,} | {welfare(problem, belief.copy(learning=False)):.4f} | {f['belief_pinball']:.3f} | "
            f"{f['reports_pinball']:.3f} | {f['belief_miscoverage']:.3f} | {f['belief_queue']:.4f} | "
            f"{f['reports_queue']:.4f} |",
            flush=True,
        )
    coverage = covered(problem, belief)
    print("\n| nominal | " + " | ".join(f"{level:.3f}" for level in belief.channel.levels) + " |")
    print("|---|" + "---:|" * len(coverage))
    print("| covered, networks never seen | " + " | ".join(f"{c:.3f}" for c in coverage) + " |")
    if given.figure:
        draw(given.figure, belief.channel.levels, coverage)
    print("\n| law | reports | Bayesian, old law | frozen | left to learn |")
    print("|---|---:|---:|---:|---:|")
    laws = {
        "as learned": problem, "no reuse of spectrum (no interference)": shifted(problem, reuse=9),
        "all servers share the spectrum": shifted(problem, reuse=1), "load .6 to .9": shifted(problem, load=0.9),
        "slower servers (x .7)": shifted(problem, server_hz=(4.2e9, 9.8e9)),
    }  # fmt: skip
    for name, law in laws.items():
        known, _, _ = learn_belief(law, prices, TrainConfig(belief="learned", belief_steps=given.steps // 4), belief)
        row = [None, BayesianBelief(), belief.copy(learning=False), known.copy(learning=False)]
        print(f"| {name} | " + " | ".join(f"{welfare(law, b):.4f}" for b in row) + " |", flush=True)
    return 0


def covered(problem: Any, belief: Any) -> np.ndarray:
    """Share of true rates below each quantile, over the tuning networks from the 51st, in service."""
    prices, frozen = problem.card.prices(), belief.copy(learning=False)
    batch = problem.worlds(TUNE_SEEDS[50:82], frozen)
    below, count = np.zeros(frozen.quantiles), 0
    for slot in range(40):
        w, p = batch.world, batch.physics
        rates, active = w.rates.copy(), w.active.copy()
        out = batch.run(batch.settle(Coordinator("game").decide(batch, None, prices).option, prices))
        sinr = p.nominal_w * w.true_gain / (p.noise_w * (1 + out.rise[:, None]))
        truth = p.band_hz * np.log2(1 + sinr) + 1e4
        if slot >= 10:
            below += (truth[..., None] <= rates)[active].sum(axis=(0, 1))
            count += truth[active].size
        batch.drift()
    return below / count


def draw(path: Path, levels: np.ndarray, coverage: np.ndarray) -> None:
    """The reliability diagram."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(3.6, 3.4), constrained_layout=True)
    axes.plot([0, 1], [0, 1], color="0.7", linewidth=1)
    axes.plot(levels, coverage, "o-", color="#2a6f97")
    axes.set(xlabel="nominal level of the quantile", ylabel="share of true rates below it", xlim=(0, 1), ylim=(0, 1))
    axes.set_title("learned belief, networks never seen", fontsize=10)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


if __name__ == "__main__":
    raise SystemExit(main())
