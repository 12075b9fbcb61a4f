"""The experiments of the survey of learning for voltage control, one command each, on the days that are held out.

    python benchmarks/voltage_survey.py iql             # the baseline: IQL on levels of q, by its budget
    python benchmarks/voltage_survey.py ctde            # centralised training against independent learners
    python benchmarks/voltage_survey.py scale           # about 10, 100 and 1,000 agents: time, memory, return
    python benchmarks/voltage_survey.py monotonicity    # where value decomposition breaks, on exact payoff tables

``iql`` and ``ctde`` are on set mapdn with the reward named by ``--reward``; learners of options choose among 11 shares
of an inverter's room, imappo, mappo, ippo and maddpg the level itself. Each learner has ``--agent-steps``, its own
defaults and ``--seeds``, alone and, with ``--inside``, in the hybrid; a table's spread is over seeds.
Return: mean reward of a step over the 61 held-out days, what is learned for. Seeds of training share one year.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import time
from pathlib import Path
from typing import Any

os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")
sys.path[0] = str(Path(__file__).resolve().parents[1])  # benchmarks/games.py would hide the package games

import numpy as np  # noqa: E402

from coordinator import Coordinator  # noqa: E402
from hybridalloc.problems import make_problem  # noqa: E402
from hybridalloc.problems.voltage.payoffs import closeness, payoffs, two_inverters  # noqa: E402
from hybridalloc.problems.voltage.profiles import DAY, days  # noqa: E402
from hybridalloc.problems.voltage.setting import Prices  # noqa: E402
from hybridalloc.training.config import TrainConfig  # noqa: E402
from hybridalloc.training.trainer import train  # noqa: E402
from rl.expressible import additive, monotone  # noqa: E402
from rl.registry import label  # noqa: E402

PARADIGM = {
    "iql": "DTDE", "dqn": "DTDE", "ippo": "DTDE", "mappo": "CTDE", "imappo": "CTDE", "maddpg": "CTDE", "vdn": "CTDE",
    "qmix": "CTDE", "ppo": "CTCE",
}  # fmt: skip
COUNTS = ("inside", "worst_mpu", "loss_kw", "q_mvar")


# --- learners


def measured(problem: Any, decide: Any, prices: Prices, step: int = 1) -> dict[str, float]:
    """Means over the held-out days, every ``step``-th, of what is decided by ``decide(world)``."""
    which = days().report[::step]
    world = problem.worlds(range(len(which)))
    world.stand(which * DAY)
    total = dict.fromkeys((*COUNTS, "reward"), 0.0)
    for _ in range(DAY):
        facts = world.execute(decide(world))
        for name in COUNTS:
            total[name] += float(facts.counts[name].mean()) / DAY
        total["reward"] += float(facts.reward.mean()) / DAY
        world.drift()
    return total


def executing(policy: Any, prices: Prices, who: Coordinator) -> Any:
    return lambda world: who.settle(world, who.decide(world, policy, prices), prices)


def ruling(name: str) -> Any:
    return lambda world: world.rule(name, Prices(), np.random.default_rng(0))[1]


def trained(
    problem: Any, learner: str, kind: str, steps: int, seed: int, settings: list[str], networks: int = 32
) -> tuple[Any, float]:
    """A recommender trained, with ``settings`` such as "gamma=0.9", and the seconds that took."""
    given = tuple((name, float(value)) for name, value in (word.split("=") for word in settings))
    config = TrainConfig(learner, kind, steps, seed=seed, checks=0, networks=networks, settings=given)
    began = time.perf_counter()
    made = train(problem, Prices(slope=0.0), config)
    return made.learner.policy, time.perf_counter() - began


def row(name: str, found: list[dict[str, float]], seconds: float) -> str:
    """A line of the table: means over seeds, with the spread of the return."""
    mean = {k: float(np.mean([f[k] for f in found])) for k in found[0]}
    apart = float(np.std([f["reward"] for f in found], ddof=1)) if len(found) > 1 else float("nan")
    spread = f" ± {apart:.4f}" if np.isfinite(apart) else ""
    return (
        f"| {name} | {mean['reward']:.4f}{spread} | {100 * mean['inside']:.2f} | {mean['worst_mpu']:.3f} | "
        f"{mean['loss_kw']:.2f} | {mean['q_mvar']:.3f} | {f'{seconds:.0f}' if seconds else ''} |"
    )


HEAD = "| method | return | CR % | worst, mpu | loss kW | Q Mvar | s to train |\n|---|---|---|---|---|---|---|"


def mapdn(args: argparse.Namespace) -> Any:
    return make_problem(
        "voltage", variant="mapdn", profiles=args.profiles, load_seed=args.load_seed, reward=args.reward
    )


def references(problem: Any) -> None:
    for name in ("none", "droop", "mapdn_droop", "mapdn_droop_run", "opf_now"):
        print(row(problem.card.baselines[name], [measured(problem, ruling(name), Prices())], 0.0), flush=True)
    game = executing(None, Prices(slope=0.0), Coordinator("game"))
    print(row("game", [measured(problem, game, Prices())], 0.0), flush=True)


def learners(problem: Any, names: list[str], args: argparse.Namespace, budgets: list[int]) -> None:
    prices = Prices(slope=0.0)
    for name in names:
        for steps in budgets:
            for kind in ("rl", *(("hybrid",) if args.inside else ())):
                who = Coordinator("rl") if kind == "rl" else Coordinator("hybrid", TrainConfig().trust)
                found, spent = [], []
                for seed in args.seeds:
                    policy, seconds = trained(problem, name, kind, steps, seed, args.settings)
                    found.append(measured(problem, executing(policy, prices, who), prices))
                    spent.append(seconds)
                word = f"{label(name)} ({PARADIGM[name]}), {'alone' if kind == 'rl' else 'inside'}, {steps:,}"
                print(row(word, found, float(np.mean(spent))), flush=True)


def iql(args: argparse.Namespace) -> None:
    """Independent Q-learning at three budgets beside the heuristics."""
    problem = mapdn(args)
    print(f"{problem.card.size}, reward {args.reward}, {len(args.seeds)} seeds\n{HEAD}")
    references(problem)
    learners(problem, ["iql"], args, [args.agent_steps // 16, args.agent_steps // 4, args.agent_steps])


def ctde(args: argparse.Namespace) -> None:
    """Centralised training, decentralised execution against independent learners and one joint agent."""
    problem = mapdn(args)
    print(f"{problem.card.size}, reward {args.reward}, {len(args.seeds)} seeds\n{HEAD}")
    references(problem)
    names = [name for name in args.learners or PARADIGM if name != "game"]  # that is among the references
    learners(problem, names, args, [args.agent_steps])


def scale(args: argparse.Namespace) -> None:
    """The same budget of decisions an agent at about 10, 100 and 1,000 agents, each in a process of its own."""
    import subprocess

    print("| agents | buses | learner | s to train | peak memory, MB | return | return, none | step ms |")
    print("|---|---|---|---|---|---|---|---|", flush=True)
    inside = ["--inside"] if args.inside else []
    for copies in args.copies:
        for name in args.learners or ["iql", "mappo", "imappo", "game"]:
            words = ["one", "--copies", str(copies), "--learners", name, "--decisions", str(args.decisions), *inside]
            words += ["--settings", *args.settings]
            done = subprocess.run(
                [sys.executable, __file__, *words, "--profiles", args.profiles], capture_output=True, text=True
            )
            print(done.stdout.strip() or f"| {6 * copies} | | {name}: {done.stderr.strip()[-200:]} |", flush=True)


def one(args: argparse.Namespace) -> None:
    """One row of ``scale``."""
    copies, name = args.copies[0], args.learners[0]
    feeder = "case33" if copies == 1 else f"copies-{copies}"
    settings = {"variant": "mapdn", "profiles": args.profiles, "reward": args.reward}
    settings |= {} if args.inside or name == "game" else {"rounds": 0}  # a learner alone plays no game
    problem = make_problem("voltage", feeder=feeder, **settings)
    agents, policy, seconds, word, step = problem.card.agents, None, 0.0, "game", 10
    who = Coordinator("game")
    if name != "game":
        kind, networks = "hybrid" if args.inside else "rl", max(1, min(32, 200 // agents))
        policy, seconds = trained(problem, name, kind, args.decisions * agents, 0, args.settings, networks)
        word = label(name) + (", inside" if args.inside else "")
        who = Coordinator("hybrid", TrainConfig().trust) if args.inside else Coordinator("rl")
    decide = executing(policy, Prices(slope=0.0), who)
    found = measured(problem, decide, Prices(), step)
    world = problem.worlds([0])
    world.stand(np.array([150 * DAY + 40]))
    spent = []
    for _ in range(5):
        began = time.perf_counter()
        plan = decide(world)
        spent.append(1e3 * (time.perf_counter() - began))
        world.execute(plan)
        world.drift()
    none = measured(problem, ruling("none"), Prices(), step)["reward"]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"| {agents:,} | {problem.net.size:,} | {word} | {seconds:.0f} | {peak:.0f} | {found['reward']:.4f} | "
        f"{none:.4f} | {np.median(spent):.2f} |"
    )


# --- exact payoff tables of two inverters


def monotonicity_rows(
    pairs: list[tuple[int, int]], bands: list[float], rewards: list[str], states: int, levels: int = 5,
    profiles: str = "synthetic",
) -> list[dict[str, Any]]:  # fmt: skip
    """Regret of the best additive and monotone fit by pair of buses, band and reward, over best less median."""
    rows = []
    for a, b in pairs:
        for band in bands:
            problem = two_inverters(a, b, band, levels=levels, profiles=profiles)
            near = closeness(problem)
            for reward in rewards:
                table = payoffs(problem, reward, states)
                if not len(table):
                    continue
                span = float((table.max((1, 2)) - np.median(table, axis=(1, 2))).mean())
                shares = {
                    k: float(fit(table).regret.mean()) / span for k, fit in (("VDN", additive), ("QMIX", monotone))
                }
                rows.append(
                    {"pair": (a, b), "closeness": near, "band": band, "reward": reward, "states": len(table)} | shares
                )
    return rows


PAIRS = [(16, 17), (14, 17), (12, 17), (30, 32), (8, 17), (28, 32), (12, 32), (17, 32), (24, 32), (21, 32)]
BANDS = [0.01, 0.015, 0.02, 0.03, 0.05]


def monotonicity(args: argparse.Namespace) -> None:
    rows = monotonicity_rows(PAIRS, BANDS, ["loss", "cr", "l1", "bowl"], args.states, profiles=args.profiles)
    path = Path(args.out) / "monotonicity.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(rows, indent=1))
    print("regret in % of (best - median): VDN / QMIX; rows: pairs of buses with their closeness")
    for reward in ("loss", "cr", "l1", "bowl"):
        print(f"\n| reward {reward} | closeness | {' | '.join(f'± {band:g}' for band in BANDS)} |")
        print("|---" * (2 + len(BANDS)) + "|")
        for pair in sorted(PAIRS, key=lambda p: -next(r["closeness"] for r in rows if r["pair"] == p)):
            mine = {r["band"]: r for r in rows if r["pair"] == pair and r["reward"] == reward}
            cells = [f"{100 * mine[b]['VDN']:.0f} / {100 * mine[b]['QMIX']:.0f}" if b in mine else "" for b in BANDS]
            near = next(iter(mine.values()))["closeness"]
            print(f"| {pair[0]}, {pair[1]} | {near:.2f} | {' | '.join(cells)} |")


def main(words: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = {"iql": iql, "ctde": ctde, "scale": scale, "one": one, "monotonicity": monotonicity}
    parser.add_argument("what", choices=tuple(what))
    parser.add_argument("--profiles", default="synthetic")
    parser.add_argument("--load-seed", type=int, default=7)
    parser.add_argument("--reward", default="cost")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--agent-steps", type=int, default=400_000)
    parser.add_argument("--learners", nargs="+", choices=(*PARADIGM, "game"))
    parser.add_argument("--settings", nargs="*", default=[], help="of each learner, such as gamma=0.9")
    parser.add_argument("--inside", action="store_true", help="in the hybrid: too in iql and ctde, instead in scale")
    parser.add_argument("--copies", type=int, nargs="+", default=[2, 17, 167], help="of the feeder, 6 inverters each")
    parser.add_argument("--decisions", type=int, default=2_000, help="of each agent, in scale")
    parser.add_argument("--states", type=int, default=40)
    parser.add_argument("--out", default="runs/voltage")
    args = parser.parse_args(words)
    what[args.what](args)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
