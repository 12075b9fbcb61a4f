"""Which settings of a learner learn best, in the hybrid and alone: every run paired with the belief game.

    python benchmarks/recipe.py hybrid --out hybrid.jsonl [--agent-steps 400000] [--seeds 3] [--prices tuning.json]
    python benchmarks/recipe.py alone --out alone.jsonl --agent-steps 1000000
    python benchmarks/recipe.py alone --random 20 --out drawn.jsonl --agent-steps 400000
    python benchmarks/recipe.py alone --set 'mine={"limit": 50, "rate": 0.002}' --out mine.jsonl
    python benchmarks/recipe.py alone --set 'defaults={}' --agent-steps 20000000 --checks 20 --keep folder

mec, set H, EUA sites, a learned belief, and prices tuned for the game and for the learner alone (``--prices``, as a
comparison's ``tuning.json`` has them; tuned here without). Beside the settings listed here, ``--random N`` draws N from
``SPACE``: as many for both kinds, so that neither is better searched than the other. Each is trained from training
seeds 0 (``--first``) on and judged on tuning seeds: at its checks on the way (``curve``, their mean), and at the end on
``--networks`` others, paired with the game. An interval is the t-interval over training seeds where there are several.
``drawn`` is what a learner alone earns where its options are drawn, as in training, instead of the most likely. Rows
that are in ``--out`` are not run again. With ``--keep`` each run leaves a folder with its checkpoints, its curve as it
goes (``curve.jsonl``) and its allocator. No reporting seed is touched.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")
sys.path[0] = str(Path(__file__).resolve().parents[1])  # benchmarks/games.py would hide the package games

import numpy as np  # noqa: E402

from coordinator import Coordinator  # noqa: E402
from hybridalloc import Allocator, make_problem  # noqa: E402
from hybridalloc.problems.beliefs import load_belief, save_belief  # noqa: E402
from hybridalloc.problems.contract import AnyProblem, Belief, Float, Prices  # noqa: E402
from hybridalloc.reports.statistics import paired_difference  # noqa: E402
from hybridalloc.saved import saved_prices  # noqa: E402
from hybridalloc.training.beliefs import learn_belief  # noqa: E402
from hybridalloc.training.checkpoints import Checkpoints  # noqa: E402
from hybridalloc.training.config import TUNE_SEEDS, WARMUP_SLOTS, TrainConfig, first_trust  # noqa: E402
from hybridalloc.training.evaluation import evaluate  # noqa: E402
from hybridalloc.training.rollout import Explore, Rollout  # noqa: E402
from hybridalloc.training.trainer import train  # noqa: E402
from hybridalloc.training.tuning import ALONE_STEPS, tune_alone, tune_game  # noqa: E402
from rl.learner import Learner  # noqa: E402

CHECK_SEEDS = 16  # on the way, on the first tuning seeds; the end is judged on those after
FOUR = {"epochs": 4, "minibatches": 4, "rate": 3e-3}
ONE = {"epochs": 1, "minibatches": 8, "rate": 6e-3}
GROUPS: dict[str, dict[str, dict[str, Any]]] = {
    "hybrid": {
        "lambda .9, 4 epochs": {"gae": 0.9, "gamma": 0.9} | FOUR,
        "lambda .3, 4 epochs": {"gae": 0.3, "gamma": 0.9} | FOUR,
        "gamma 0, 4 epochs": {"gae": 0.3, "gamma": 0.0} | FOUR,
        "lambda .9, 1 epoch": {"gae": 0.9, "gamma": 0.9} | ONE,
        "lambda .3, 1 epoch": {"gae": 0.3, "gamma": 0.9} | ONE,
        "gamma 0, 1 epoch": {"gae": 0.3, "gamma": 0.0} | ONE,
        "lambda .3, 2 epochs": {"gae": 0.3, "gamma": 0.9, "epochs": 2, "minibatches": 8, "rate": 4e-3},
    },
    "alone": {
        f"limit {limit:g}": {"limit": limit, "gae": 0.6, "gamma": 0.9} | FOUR for limit in (10.0, 20.0, 40.0, np.inf)
    },
}
SPACE: dict[str, tuple[Any, ...]] = {
    "gamma": (0.0, 0.5, 0.9), "gae": (0.0, 0.3, 0.6, 0.9), "entropy": (1e-3, 2e-3, 4e-3, 8e-3, 1.6e-2),
    "rate": (1.5e-3, 3e-3, 6e-3), "epochs": (1, 2, 4), "minibatches": (4, 8),
}  # fmt: skip
LIMITS: tuple[Any, ...] = (10.0, 20.0, 40.0, np.inf)  # of a learner alone; the hybrid's is its bound's


def drawn(kind: str, count: int, seed: int = 0) -> dict[str, dict[str, Any]]:
    """``count`` settings of ``SPACE`` by name, the same for every run with this seed."""
    rng = np.random.default_rng([seed, 91])
    space = SPACE | ({"limit": LIMITS} if kind == "alone" else {})
    pick = lambda values: values[int(rng.integers(len(values)))]
    return {f"drawn {k}": {name: pick(values) for name, values in space.items()} for k in range(count)}


class Bench:
    """The world that all runs share, its beliefs by training seed, and the game that they are paired with."""

    def __init__(
        self, problem: AnyProblem, prices: dict[str, Prices], folder: Path, seeds: Sequence[int], watched: int
    ) -> None:
        self.problem, self.prices, self.folder, self.seeds, self.watched = problem, prices, folder, seeds, watched
        self.trust = first_trust(problem.card, "learned")
        self._game: dict[int, Float] = {}

    def belief(self, seed: int) -> Belief:
        path = self.folder / f"belief-{self.problem.card.agents}-seed{seed}.npz"
        if not path.exists():
            config = TrainConfig(belief="learned", belief_steps=self.watched, seed=seed)
            learned, _, _ = learn_belief(self.problem, self.prices["game"], config)
            save_belief(str(path), learned)
        return load_belief(self.problem, str(path))

    def earned(self, kind: str, policy: Any, belief: Belief) -> Float:
        prices = self.prices["rl" if kind == "rl" else "game"]
        seen = evaluate(
            self.problem, prices, Coordinator(kind, self.trust), policy, self.seeds, slots=60,
            belief=belief.copy(learning=False),
        )  # fmt: skip
        return seen.metrics[self.problem.card.aim.key]

    def game(self, seed: int) -> Float:
        """(V,) of the game with the belief that training seed ``seed`` begins with."""
        if seed not in self._game:
            self._game[seed] = self.earned("game", None, self.belief(seed))
        return self._game[seed]

    def drawn(self, learner: Learner, belief: Belief, limit: float) -> Float:
        """(V,) of a learner alone whose options are drawn, as in training."""
        run = Rollout(self.problem, self.seeds, belief.copy(learning=False))
        method = Explore(Coordinator("rl", 0.0, limit), self.prices["rl"], np.random.default_rng(5), learner)
        for slot in range(WARMUP_SLOTS + 60):
            if slot == WARMUP_SLOTS:
                run.tally.clear()
            run.step(method, self.prices["rl"])
        return run.tally.summary()[self.problem.card.aim.key]


def measure(
    bench: Bench, learner: str, kind: str, settings: dict[str, Any], steps: int, seed: int, checks: int,
    folder: Path | None = None,
) -> dict[str, Any]:  # fmt: skip
    """One run's figures: what it and the game earn by network at the end, the curve, what the last update said.

    Args:
        folder: where its checkpoints, its curve and its allocator are kept; None keeps nothing.
    """
    began = time.process_time()
    config = TrainConfig(
        learner, kind, steps, trust=bench.trust, belief="learned", belief_steps=0, seed=seed, checks=checks,
        check_seeds=CHECK_SEEDS, settings=tuple(settings.items()),
    )  # fmt: skip
    checkpoints = None if folder is None else Checkpoints(folder)

    def report(done: int, figures: dict[str, float]) -> None:
        if folder is not None and any(key.startswith("check_") for key in figures):
            with (folder / "curve.jsonl").open("a") as file:
                file.write(json.dumps({"agent_steps": done} | figures) + "\n")

    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
    prices = bench.prices["rl" if kind == "rl" else "game"]
    trained = train(bench.problem, prices, config, report, bench.belief(seed), checkpoints)
    if folder is not None:
        policy, trust = trained.learner.policy, bench.trust if kind == "hybrid" else 0.0
        Allocator(bench.problem, kind, policy, trust, prices=prices, belief=trained.belief).save(
            folder / "allocator.npz"
        )
    spent = time.process_time() - began
    check = f"check_{bench.problem.card.aim.key}"
    out = {
        "earned": bench.earned(kind, trained.learner.policy, trained.belief).tolist(),
        "game": bench.game(seed).tolist(), "curve": [[row["agent_steps"], row[check]] for row in trained.curve],
        "cpu_s": spent, "agent_steps": trained.agent_steps, "violations": trained.violations,
        "update_share": trained.seconds["update"] / max(sum(trained.seconds.values()), 1e-9),
        "last": {k: v for k, v in trained.updates[-1].items() if k in ("kl", "clipped", "entropy", "norm")},
    }  # fmt: skip
    if kind == "rl":
        out["drawn"] = bench.drawn(trained.learner, trained.belief, trained.learner.config.limit).tolist()
    return out


def table(rows: list[dict[str, Any]]) -> str:
    """One line a setting, best first: gain over the game at the end, mean of the curve, entropy and speed."""
    by: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        by.setdefault(row["name"], []).append(row)
    lines = []
    for name, some in by.items():
        gain = paired_difference([r["earned"] for r in some], [r["game"] for r in some])
        low, high = gain.conservative or (gain.low, gain.high)
        mean = lambda key, some=some: float(np.mean([np.mean(r[key]) for r in some]))
        curve = float(np.mean([value for r in some for _, value in r["curve"][1:]]))
        speed = sum(r["agent_steps"] for r in some) / sum(r["cpu_s"] for r in some)
        took = f"{mean('drawn'):.4f}" if "drawn" in some[0] else ""
        entropy = np.mean([r["last"].get("entropy", np.nan) for r in some])
        lines.append((
            gain.mean, f"| {name} | {len(some)} | {mean('earned'):.4f} | {gain.mean:+.4f} [{low:+.4f}, {high:+.4f}] | "
            f"{curve:.4f} | {took} | {entropy:.3f} | {speed:,.0f} |",
        ))  # fmt: skip
    head = "| settings | seeds | welfare | less the game | curve | drawn | entropy | agent-steps/s |\n"
    return head + "|---|---:|---:|---|---:|---:|---:|---:|\n" + "\n".join(line for _, line in sorted(lines)[::-1])


def _prices(given: argparse.Namespace, problem: AnyProblem, kind: str) -> dict[str, Prices]:
    """Of the "game" and, where they are needed, of the learner alone ("rl"): from the file given, or tuned here."""
    rows = {"game": "learned"} | ({"rl": f"rl-{given.learner}"} if kind == "rl" else {})
    if given.prices is not None:
        found = json.loads(given.prices.read_text())
        for key in rows.values():
            if key not in found:
                raise SystemExit(f"{given.prices} has no prices {key!r}; it has: {', '.join(found)}")
        return {name: saved_prices(problem, found[key]["best"]) for name, key in rows.items()}
    tuned = {"game": tune_game(problem, "learned", given.tuning, belief_steps=given.watched)}
    if kind == "rl":
        tuned["rl"] = tune_alone(
            problem, given.learner, "learned", given.tuning, belief_steps=given.watched,
            agent_steps=min(given.agent_steps, ALONE_STEPS), start=tuned["game"].prices,
        )  # fmt: skip
    record = {rows[name]: {"best": found.prices._asdict(), "welfare": found.welfare} for name, found in tuned.items()}
    given.out.with_suffix(".prices.json").write_text(json.dumps(record, indent=1))
    return {name: found.prices for name, found in tuned.items()}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("group", choices=list(GROUPS))
    parser.add_argument("--set", nargs="*", default=(), help="settings of one's own, name=JSON, instead of the listed")
    parser.add_argument("--out", type=Path, default=Path("recipe.jsonl"))
    parser.add_argument("--only", nargs="*", default=None, help="of the listed settings, by name")
    parser.add_argument("--random", type=int, default=0, help="settings drawn from the space, instead of the listed")
    parser.add_argument("--learner", default="imappo")
    parser.add_argument("--checks", type=int, default=5, help="on the way")
    parser.add_argument("--keep", type=Path, default=None, help="folder for what is trained")
    parser.add_argument("--agent-steps", type=int, default=400_000)
    parser.add_argument("--seeds", type=int, default=3, help="training seeds, from --first")
    parser.add_argument("--first", type=int, default=0, help="the first training seed")
    parser.add_argument("--networks", type=int, default=48)
    parser.add_argument("--agents", type=int, default=50)
    parser.add_argument("--servers", type=int, default=9)
    parser.add_argument("--sites", default="eua")
    parser.add_argument("--prices", type=Path, default=None)
    parser.add_argument("--tuning", type=int, default=150, help="trials of the price search without --prices")
    parser.add_argument("--watched", type=int, default=262_144, help="agent-steps that a belief watches first")
    given = parser.parse_args(arguments)
    problem = make_problem("mec", agents=given.agents, servers=given.servers, sites=given.sites)
    kind = "hybrid" if given.group == "hybrid" else "rl"
    prices = _prices(given, problem, kind)
    folder = given.out.resolve().parent
    first = CHECK_SEEDS
    bench = Bench(problem, prices, folder, TUNE_SEEDS[first : first + given.networks], given.watched)
    if given.set:
        wanted = {name: json.loads(value) for name, value in (text.split("=", 1) for text in given.set)}
    elif given.random:
        wanted = drawn(given.group, given.random)
    else:
        wanted = {k: v for k, v in GROUPS[given.group].items() if given.only is None or k in given.only}
    rows = [json.loads(line) for line in given.out.read_text().splitlines()] if given.out.exists() else []
    for seed in range(given.first, given.first + given.seeds):
        for name, settings in wanted.items():
            if any(row["name"] == name and row["seed"] == seed for row in rows):
                continue
            kept = None if given.keep is None else given.keep / f"{name}-seed{seed}"
            found = measure(bench, given.learner, kind, settings, given.agent_steps, seed, given.checks, kept)
            rows.append({"name": name, "seed": seed, "kind": kind, "settings": settings} | found)
            with given.out.open("a") as file:
                file.write(json.dumps(rows[-1]) + "\n")
            gain = np.mean(found["earned"]) - np.mean(found["game"])
            print(f"{name}, seed {seed}: {gain:+.4f} in {found['cpu_s']:.0f} s", file=sys.stderr, flush=True)
    print(table(rows))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
