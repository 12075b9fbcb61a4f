"""What each part of a decision is worth on mec H: price, improving, prior; beside a learner alone and who sees more.

    python benchmarks/improve.py rows --out folder [--alone "2 M"=a.npz "2 M"=b.npz] [--seeds 5]
    python benchmarks/improve.py settings --out folder [--networks 48]

50 devices, 9 servers, EUA sites. ``rows``: every training seed has a belief and a prior of its own (IMAPPO,
``--agent-steps``), then all rows are judged on the reporting seeds, paired. Prices are tuned twice, with ``leakage``
and without, by as many trials (``--trials``, half with the belief learned again), for the game that is not improved;
``--before`` takes those without from a comparison's ``tuning.json``. ``--alone``: allocators of a learner alone,
by a name of their row, such as ``recipe.py alone --keep`` leaves, with prices of their own. Heuristics are judged at
both sets of prices. ``settings`` varies width, share and sweeps on tuning seeds. Rows that are in the folder are not
made again.

*clairvoyant* is told what is true now (gains and backlogs), knows the interference of its own plan, and improves until
nothing changes: it says how much room there is for one slot's decisions, not over a horizon.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")
sys.path[0] = str(Path(__file__).resolve().parents[1])  # benchmarks/games.py would hide the package games

import numpy as np  # noqa: E402

from coordinator import Coordinator  # noqa: E402
from coordinator.improve import Improve  # noqa: E402
from hybridalloc import Allocator, make_problem  # noqa: E402
from hybridalloc.problems.beliefs import load_belief, make_belief, save_belief  # noqa: E402
from hybridalloc.problems.mec.arrays import Prices  # noqa: E402
from hybridalloc.problems.mec.belief import BayesianBelief  # noqa: E402
from hybridalloc.problems.mec.clairvoyant import TO_REST as FULL  # noqa: E402
from hybridalloc.problems.mec.clairvoyant import clairvoyant  # noqa: E402
from hybridalloc.reports.statistics import paired_difference  # noqa: E402
from hybridalloc.training.beliefs import learn_belief  # noqa: E402
from hybridalloc.training.calibration import calibrate  # noqa: E402
from hybridalloc.training.config import REPORT_SEEDS, REPORT_SLOTS, WARMUP_SLOTS, TrainConfig  # noqa: E402
from hybridalloc.training.evaluation import evaluate  # noqa: E402
from hybridalloc.training.rollout import Chosen, Rollout  # noqa: E402
from hybridalloc.training.trainer import train  # noqa: E402
from hybridalloc.training.tuning import tune_game  # noqa: E402

TRUST, HELD = 20.0, range(5016, 5064)  # of training; tuning seeds that settings are judged on
PROBLEM = make_problem("mec", agents=50, servers=9, sites="eua")


def seeing(run: Rollout, prices: Prices, improve: Improve | None) -> Chosen:
    """The choice of who is told the truth."""
    plan = clairvoyant(run.world, prices, improve)
    return Chosen(plan.option, plan)


def watch(prices: Prices, seeds: Any, improve: Improve | None) -> dict[str, list[float]]:
    """What a method that sees earns on each seed."""
    out: dict[str, list[float]] = {}
    for start in range(0, len(seeds), 25):
        run = Rollout(PROBLEM, seeds[start : start + 25], BayesianBelief(quantiles=1))
        method = partial(seeing, prices=prices, improve=improve)
        for slot in range(WARMUP_SLOTS + REPORT_SLOTS):
            if slot == WARMUP_SLOTS:
                run.tally.clear()
            run.step(method, prices)
        for key, values in run.tally.summary().items():
            out.setdefault(key, []).extend(np.asarray(values).tolist())
    return out


class Folder:
    """Results by name; what is there is not made again."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir(parents=True, exist_ok=True)

    def known(self, name: str, make: Any) -> Any:
        file = self.path / f"{name}.json"
        if not file.exists():
            began = time.time()
            made = make()
            file.write_text(json.dumps(made))
            print(f"{time.strftime('%H:%M:%S')} {name}: {time.time() - began:.0f} s", flush=True)
        return json.loads(file.read_text())


def rows(given: argparse.Namespace) -> None:
    """The table."""
    folder, seeds = Folder(given.out), REPORT_SEEDS[: given.networks]
    now = Prices(**folder.known("prices", lambda: tune_game(PROBLEM, "learned", given.trials).prices._asdict()))
    if given.before is None:
        unpriced = lambda: tune_game(PROBLEM, "learned", given.trials, held={"leakage": 0.0}).prices._asdict()
        before = Prices(**folder.known("prices-before", unpriced))
    else:
        before = Prices(**({"leakage": 0.0} | json.loads(given.before.read_text())["learned"]["best"]))
    scores: dict[str, list[Any]] = {}

    def judged(
        name: str, seed: int, prices: Prices, coordinator: Coordinator | None, belief: Any = None, policy: Any = None,
        rule: str | None = None,
    ) -> None:  # fmt: skip
        def make() -> Any:
            seen = evaluate(PROBLEM, prices, coordinator, policy, seeds, rule, belief=belief)
            kept = {k: np.asarray(v).tolist() for k, v in seen.metrics.items() if k in ("welfare", "completion")}
            return kept | {"violations": seen.violations, "allocations": seen.allocations, "step_ms": seen.step_ms}

        scores.setdefault(name, []).append(folder.known(f"{name}-{seed}", make))

    for seed in range(given.seeds):
        config = TrainConfig("imappo", "hybrid", given.agent_steps, trust=TRUST, belief="learned", seed=seed)
        for label, prices in (("before", before), ("now", now)):
            path = given.out / f"belief-{label}-{seed}.npz"
            if not path.exists():
                save_belief(path, learn_belief(PROBLEM, prices, config)[0])
        held, known = (load_belief(PROBLEM, given.out / f"belief-{label}-{seed}.npz") for label in ("before", "now"))
        judged("belief game", seed, before, Coordinator("game"), held)
        judged("+ price", seed, now, Coordinator("game"), known)
        judged("+ improve", seed, now, Coordinator("game", improve=Improve()), known)
        path = given.out / f"allocator-{seed}.npz"
        if not path.exists():
            began = time.time()
            trained = train(PROBLEM, now, config, belief=known)
            policy = trained.learner.policy
            trust = calibrate(PROBLEM, now, policy, TRUST, belief=trained.belief, improve=Improve()).trust
            Allocator(PROBLEM, "hybrid", policy, trust, prices=now, belief=trained.belief).save(path)
            print(f"{time.strftime('%H:%M:%S')} prior {seed}: trust {trust:g}, {time.time() - began:.0f} s", flush=True)
        a = Allocator.load(path)
        plain = Coordinator("hybrid", a.trust_rule.now)
        judged("+ prior, not improved", seed, now, plain, a.belief, a.recommender)
        judged("+ improve + prior", seed, now, a.coordinator, a.belief, a.recommender)
    judged("oracle + price + improve", 0, now, Coordinator("game", improve=Improve()), make_belief(PROBLEM, "bayesian"))
    for text in given.alone:
        name, path = text.split("=", 1)
        name, a = f"learner alone, {name}", Allocator.load(path)
        judged(name, len(scores.get(name, ())), a.prices, a.coordinator, a.belief, a.recommender)
    for rule in (name for name in PROBLEM.card.baselines if name not in PROBLEM.card.bounds):
        for label, prices in (("before", before), ("now", now)):
            judged(f"{rule}, prices {label}", 0, prices, None, rule=rule)
    for label, improve in (("clairvoyant game", None), ("clairvoyant", FULL)):
        name = f"{label}-0"
        scores[label] = [folder.known(name, lambda improve=improve: watch(now, seeds, improve))]
    show(scores)


def show(scores: dict[str, list[Any]]) -> None:
    """Means, and differences from the belief game with their t-intervals."""
    base = {key: np.array([row[key] for row in scores["belief game"]]) for key in ("welfare", "completion")}
    most = np.mean([row["welfare"] for row in scores["clairvoyant"]])
    print(f"\n{'method':28s} seeds welfare completion  welfare over the belief game       completion      room  ms")
    for name, found in scores.items():
        told = []
        for key in ("welfare", "completion"):
            mine, other = np.array([row[key] for row in found]), base[key]
            if len(mine) not in (1, len(other)):
                other = other.mean(axis=0, keepdims=True)  # other training seeds than those of the base
            d = paired_difference(mine, other)
            low, high = d.conservative or (d.low, d.high)
            told.append(f"{d.mean:+.4f} [{low:+.4f}, {high:+.4f}]" if key == "welfare" else f"{d.mean:+.2f}")
        welfare = np.mean([row["welfare"] for row in found])
        room = (welfare - base["welfare"].mean()) / (most - base["welfare"].mean())
        ms = np.mean([row.get("step_ms", np.nan) for row in found])
        broken = sum(row.get("violations", 0) for row in found)
        done = np.mean([row["completion"] for row in found])
        print(
            f"{name:28s} {len(found):5d}  {welfare:.4f}  {done:7.2f}  {told[0]:34s}  {told[1]:>8s}  "
            f"{100 * room:7.1f} % {ms:.2f}{f'  {broken} VIOLATIONS' if broken else ''}"
        )


def settings(given: argparse.Namespace) -> None:
    """Gain over the game by width, share and sweeps, on tuning seeds, with the time a batched step takes."""
    seeds = HELD[: given.networks]
    prices = Prices(**Folder(given.out).known("prices", lambda: tune_game(PROBLEM, "learned", 150).prices._asdict()))
    belief, _, _ = learn_belief(PROBLEM, prices, TrainConfig(belief="learned"))
    base = evaluate(PROBLEM, prices, Coordinator("game"), None, seeds, slots=60, belief=belief)
    print(f"game {base.metrics['welfare'].mean():.4f}, {base.step_ms:.2f} ms a step, batched")
    tried = [Improve(w, s, k) for w in (1, 2, 3, 6) for s in (0.25, 0.5, 1.0, 2.0) for k in (1, 4)]
    tried += [FULL, Improve(starts=("game", "proposal")), Improve(starts=("greedy", "nearest"))]
    for how in tried:
        seen = evaluate(PROBLEM, prices, Coordinator("game", improve=how), None, seeds, slots=60, belief=belief)
        d = paired_difference(seen.metrics["welfare"], base.metrics["welfare"])
        print(
            f"width {how.width} share {how.share:g} sweeps {how.sweeps:2d} starts {'+'.join(how.starts) or '-':16s} "
            f"{d.mean:+.4f} [{d.low:+.4f}, {d.high:+.4f}]  {seen.step_ms:.2f} ms",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("rows", "settings"))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--before", type=Path)
    parser.add_argument("--alone", nargs="*", default=[])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--networks", type=int, default=100)
    parser.add_argument("--trials", type=int, default=150)
    parser.add_argument("--agent-steps", type=int, default=2_000_000)
    given = parser.parse_args()
    (rows if given.what == "rows" else settings)(given)


if __name__ == "__main__":
    main()
