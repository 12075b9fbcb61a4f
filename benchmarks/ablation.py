"""What each part of the hybrid is worth: parts on and off, trust, credit, dynamics in turn, laws that shift.

    python benchmarks/ablation.py parts credit trust dynamics shift [--agent-steps 1000000] [--seeds 5] [--networks 50]

mec, set H, 50 x 9. Every setting has its own prices (random search on the tuning seeds, ``--tuning`` trials) and its
own belief, unless the line says otherwise; training seeds 0 on, reporting seeds 10000 on, differences paired on both,
with t-intervals that count the few training seeds. Groups:

* parts: belief, prior and prices each on and off; the game with the oracle's belief; merged at execution only.
* credit: what an agent is paid in training.
* trust: at which the prior is trained and executed; schedules and learned trust where the learner has them.
* dynamics: each switched off in turn; the hybrid against the belief game and IMAPPO alone, all of them tuned there.
* shift: laws other than the oracle's; all tuned there, the oracle still believes the base law.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import fields
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")
sys.path[0] = str(Path(__file__).resolve().parents[1])  # benchmarks/games.py would hide the package games

from coordinator import Coordinator  # noqa: E402
from hybridalloc import make_problem  # noqa: E402
from hybridalloc.problems import restore_problem  # noqa: E402
from hybridalloc.problems.mec import Dynamics  # noqa: E402
from hybridalloc.statistics import paired_difference  # noqa: E402
from hybridalloc.training import BEST_TRUST, REPORT_SEEDS, TrainConfig, evaluate, learn_belief, train  # noqa: E402
from hybridalloc.tuning import tune_game  # noqa: E402

SHIFTS: dict[str, dict[str, Any]] = {
    "base law": {}, "one correlation (.7) for all": {"varied_fading": False},
    "no reuse: all servers interfere": {"reuse": 1},
    "load x 1.4": {"load": 0.84}, "servers x .7": {"server_hz": (4.2e9, 9.8e9)},
    "all of these": {"varied_fading": False, "reuse": 1, "load": 0.84, "server_hz": (4.2e9, 9.8e9)},
}  # fmt: skip


class Row(NamedTuple):
    """One setting: how it is made, and the key of the row it is compared with."""

    label: str
    kind: str = "hybrid"  # "hybrid" | "rl" | "game"
    learner: str = "imappo"
    belief: str = "learned"
    tuned: bool = True
    trust: float = 0.0  # 0: the best for its belief
    settings: tuple[tuple[str, Any], ...] = ()
    config: tuple[tuple[str, Any], ...] = ()
    executed: str = ""  # kind at execution, where it is not that of training
    changes: tuple[tuple[str, Any], ...] = ()  # of the problem


def rows_of(group: str) -> list[Row]:
    alone = (("gae", 0.6),)
    if group == "parts":
        return [
            Row("belief, prior, prices: the hybrid"), Row("belief, prior", tuned=False),
            Row("prior, prices", belief=""),
            Row("prior", belief="", tuned=False), Row("belief, prices: the belief game", "game"),
            Row("belief", "game", tuned=False), Row("prices: the tuned game", "game", belief=""),
            Row("none: the game at toll 1", "game", belief="", tuned=False),
            Row("the oracle's belief, prices", "game", belief="bayesian"),
            Row("the oracle's belief, prior, prices", belief="bayesian"),
            Row("IMAPPO alone", "rl", settings=alone),
            Row("IMAPPO alone in training, merged at execution", "rl", settings=alone, executed="hybrid"),
            Row("the hybrid in training, its prior alone at execution", executed="rl"),
        ]  # fmt: skip
    if group == "credit":
        return [
            Row("difference, five slots"), Row("difference, this slot only", settings=(("carry", 0.0),)),
            Row("own outcome", settings=(("credit", "own"),)), Row("region", settings=(("credit", "region"),)),
            Row("team", settings=(("credit", "team"),)),
            Row("difference, leave-one-out baseline", settings=(("baseline", "leave_one_out"),)),
        ]  # fmt: skip
    if group == "trust":
        fixed = [Row(f"trust {t:g}", trust=t) for t in (20.0, 5.0, 10.0, 40.0, 80.0)]
        return [*fixed, Row("trust from 5 to 40", trust=5.0, config=(("trust_end", 40.0),))]
    if group == "dynamics":
        out = []
        for name in ("all on", *(f.name for f in fields(Dynamics)), "all off"):
            off = {} if name == "all on" else {f.name: False for f in fields(Dynamics) if name in ("all off", f.name)}
            for label, row in _three(alone):
                out.append(row._replace(label=f"{name if name.startswith('all') else 'without ' + name}: {label}",
                                        changes=tuple(off.items())))  # fmt: skip
        return out
    if group == "shift":
        oracle = ("Bayesian game", Row("", "game", belief="bayesian"))
        return [
            row._replace(label=f"{name}: {label}", changes=tuple(changes.items()))
            for name, changes in SHIFTS.items() for label, row in (*_three(alone), oracle)
        ]  # fmt: skip
    raise SystemExit(f"unknown group {group!r}; there are parts, credit, trust, dynamics, shift")


def _three(alone: tuple[tuple[str, Any], ...]) -> tuple[tuple[str, Row], ...]:
    return (("hybrid", Row("")), ("belief game", Row("", "game")), ("IMAPPO alone", Row("", "rl", settings=alone)))


def tune(description: dict[str, Any], belief: str, trials: int) -> dict[str, float]:
    return dict(tune_game(restore_problem(description), belief, trials).prices._asdict())


def measure(
    row: Row, description: dict[str, Any], prices: dict[str, float], steps: int, seed: int, networks: int
) -> Any:
    """Welfare, completion (V,) on the reporting seeds after training with one seed; and violations."""
    problem = restore_problem(description)
    charged = problem.prices_type(**prices)
    trust = row.trust or BEST_TRUST[row.belief]
    config = TrainConfig(
        row.learner, "rl" if row.kind == "rl" else "hybrid", steps, trust=trust, belief=row.belief, seed=seed, checks=0,
        settings=row.settings, **dict(row.config),
    )  # fmt: skip
    policy, violations = None, 0
    if row.kind == "game":
        belief, _, violations = learn_belief(problem, charged, config)
    else:
        trained = train(problem, charged, config)
        policy, belief, violations = trained.learner.policy, trained.belief, trained.violations
    at = Coordinator(row.executed or row.kind, config.final_trust if (row.executed or row.kind) == "hybrid" else 0.0)
    seen = evaluate(problem, charged, at, policy, REPORT_SEEDS[:networks], belief=belief)
    return seen.metrics["welfare"], seen.metrics["completion"], violations + seen.violations


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("groups", nargs="+")
    parser.add_argument("--agent-steps", type=int, default=1_000_000)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--networks", type=int, default=50)
    parser.add_argument("--tuning", type=int, default=80)
    parser.add_argument("--sites", default="eua")
    parser.add_argument("--agents", type=int, default=50)
    parser.add_argument("--servers", type=int, default=9)
    parser.add_argument("--out", type=Path, help="JSON of every row's figures")
    given = parser.parse_args()
    kept: dict[str, Any] = {}
    with ProcessPoolExecutor(os.cpu_count(), get_context("spawn")) as pool:
        known: dict[Any, Any] = {}
        for group in given.groups:
            rows = rows_of(group)
            described = {
                row.changes: make_problem(
                    "mec", agents=given.agents, servers=given.servers, sites=given.sites, **dict(row.changes)
                ).describe()
                for row in rows
            }
            for row in rows:
                key = (row.changes, row.belief)
                if row.tuned and key not in known:
                    known[key] = pool.submit(tune, described[row.changes], row.belief, given.tuning)
            plain = restore_problem(described[rows[0].changes]).prices_type()._asdict()
            waiting = []
            for row in rows:
                prices = known[row.changes, row.belief].result() if row.tuned else plain
                many = range(given.seeds) if row.kind != "game" or row.belief == "learned" else (0,)
                waiting.append([
                    pool.submit(measure, row, described[row.changes], prices, given.agent_steps, seed, given.networks)
                    for seed in many
                ])  # fmt: skip
            first: Any = None
            print(f"\n## {group}: {given.agent_steps:,} agent-steps, {given.seeds} x {given.networks} seeds\n")
            print("| setting | welfare | completion % | less the first of its kind | 95 % t-interval | violations |")
            print("|---|---:|---:|---:|---:|---:|", flush=True)
            for k, (row, futures) in enumerate(zip(rows, waiting, strict=True)):
                found = [f.result() for f in futures]
                scores = [f[0] for f in found]
                if k == 0 or row.changes != rows[k - 1].changes:
                    first = scores
                d = paired_difference(scores, first)
                low, high = d.conservative or (d.low, d.high)
                mean = lambda j, found=found: sum(float(f[j].mean()) for f in found) / len(found)
                less = "" if scores is first else f"{d.mean:+.4f} | [{low:+.4f}, {high:+.4f}]"
                print(
                    f"| {row.label} | {mean(0):.4f} | {mean(1):.2f} | {less or ' | '} | {sum(f[2] for f in found)} |",
                    flush=True,
                )
                kept[f"{group}/{row.label}"] = {"welfare": [s.tolist() for s in scores]}
    if given.out:
        given.out.write_text(json.dumps(kept))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
