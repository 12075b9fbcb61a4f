"""What each part of the hybrid is worth: parts on and off, trust, credit, dynamics in turn, laws that shift.

    python benchmarks/ablation.py parts credit trust dynamics shift improve [--agent-steps 1000000] [--seeds 5]

mec, set H, 50 x 9. Every setting has its own prices (random search on the tuning seeds, ``--tuning`` trials) and its
own belief, unless the line says otherwise; training seeds 0 on, reporting seeds 10000 on, differences paired on both,
with t-intervals that count the few training seeds. Groups:

* parts: belief, prior and prices each on and off; the game with the oracle's belief; merged at execution only.
* credit: what an agent is paid in training.
* trust: at which the prior is trained and executed; a schedule; learned by the policy's gradient.
* dynamics: each switched off in turn; the hybrid against the belief game, both tuned there. alone: IMAPPO alone there.
* shift: the base law (one correlation for all, no blockage, interference or drifting arrivals), then each of these and
  all of them, which is set H; all tuned there. One oracle believes the base law all along, another knows the true one.

* improve: in the worlds of dynamics and shift, the belief game and the hybrid, each also with its choices improved
  (:mod:`coordinator.improve`); the trust of the improved is calibrated with it.

In all other groups hybrids are merged and seated, not improved. In dynamics, shift and alone they are executed at the
trust that ``hybridalloc.training.calibration`` chooses on tuning seeds. ``--out`` keeps every row's figures; a row that
is in it, or in another group, is not run again.
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
from coordinator.improve import Improve  # noqa: E402
from hybridalloc import make_problem  # noqa: E402
from hybridalloc.problems import restore_problem  # noqa: E402
from hybridalloc.problems.mec.scenario import Dynamics  # noqa: E402
from hybridalloc.reports.statistics import paired_difference  # noqa: E402
from hybridalloc.training.beliefs import learn_belief  # noqa: E402
from hybridalloc.training.calibration import calibrate  # noqa: E402
from hybridalloc.training.config import REPORT_SEEDS, TrainConfig, first_trust  # noqa: E402
from hybridalloc.training.evaluation import evaluate  # noqa: E402
from hybridalloc.training.trainer import train  # noqa: E402
from hybridalloc.training.tuning import tune_game  # noqa: E402

BASE = ("varied_fading", "blockage", "interference", "bursts")  # dynamics that the base law has not
SHIFTS = {
    "base law": (), "correlation per device": ("varied_fading",), "blockage": ("blockage",),
    "interference": ("interference",), "drifting arrivals": ("bursts",), "all of these": BASE,
}  # fmt: skip
NAMED = ("staleness", "interference", "queues", "batteries", "migration", "bursts")  # switched off in turn


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
    prices: tuple[tuple[str, float], ...] = ()  # set so

    @property
    def executed_kind(self) -> str:
        return self.executed or self.kind

    @property
    def many(self) -> bool:
        """Whether it learns, so that it is run once a training seed."""
        return self.kind != "game" or self.belief == "learned"


def rows_of(group: str) -> list[Row]:
    if group == "parts":
        return [
            Row("belief, prior, prices: the hybrid"), Row("belief, prior", tuned=False),
            Row("prior, prices", belief=""),
            Row("prior", belief="", tuned=False), Row("belief, prices: the belief game", "game"),
            Row("belief", "game", tuned=False), Row("prices: the tuned game", "game", belief=""),
            Row("none: the game at toll 1", "game", belief="", tuned=False),
            Row("the game at toll 0", "game", belief="", tuned=False, prices=(("toll", 0.0),)),
            Row("the oracle's belief, prices", "game", belief="bayesian"),
            Row("the oracle's belief, prior, prices", belief="bayesian"),
            Row("IMAPPO alone", "rl"),
            Row("IMAPPO alone in training, merged at execution", "rl", executed="hybrid"),
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
        from_5, learned = (("trust_end", 40.0),), (("learn_trust", True),)
        return [*fixed, Row("trust from 5 to 40", trust=5.0, config=from_5), Row("learned, from 5", trust=5.0,
                config=learned), Row("learned, from 20", trust=20.0, config=learned)]  # fmt: skip
    if group in ("dynamics", "alone"):
        worlds = {"all on": ()} | {f"without {name}": (name,) for name in NAMED}
        worlds["all off"] = tuple(f.name for f in fields(Dynamics))
        return [
            row._replace(label=f"{name}: {label}", changes=tuple((d, False) for d in off))
            for name, off in worlds.items() for label, row in _three()
            if label != ("IMAPPO alone" if group == "dynamics" else "belief game")
        ]  # fmt: skip
    if group == "shift":
        hybrid, game, _ = _three()
        oracle = ("oracle of the base law", Row("", "game", belief="base_law"))
        knows = ("oracle of the true law", Row("", "game", belief="bayesian"))
        prior = ("hybrid on that oracle's belief", Row("", belief="bayesian"))
        return [
            row._replace(label=f"{name}: {label}", changes=tuple((d, False) for d in BASE if d not in on))
            for name, on in SHIFTS.items() for label, row in (hybrid, game, oracle, knows, prior)
            if label != prior[0] or name in ("base law", "all of these")
        ]  # fmt: skip
    if group == "improve":
        worlds = {"all on": ()} | {f"without {name}": (name,) for name in NAMED}
        worlds |= {
            f"base law, {name}": tuple(d for d in BASE if d not in on) for name, on in SHIFTS.items() if on != BASE
        }
        worlds["all off"] = tuple(f.name for f in fields(Dynamics))
        hybrid, game, _ = _three()
        return [
            row._replace(label=f"{name}: {label}", changes=tuple((d, False) for d in off))
            for name, off in worlds.items() for label, row in (game, hybrid)
        ]  # fmt: skip
    raise SystemExit(f"unknown group {group!r}; there are parts, credit, trust, dynamics, shift, alone, improve")


def _three() -> tuple[tuple[str, Row], ...]:
    return (("hybrid", Row("")), ("belief game", Row("", "game")), ("IMAPPO alone", Row("", "rl")))


def tune(description: dict[str, Any], belief: str, trials: int) -> dict[str, float]:
    return dict(tune_game(restore_problem(description), belief, trials).prices._asdict())


def measure(
    row: Row,
    description: dict[str, Any],
    prices: dict[str, float],
    steps: int,
    seed: int,
    networks: int,
    more: bool,
    improve: bool,
) -> Any:
    """Figures on the reporting seeds after training with one seed: welfare (V,), completion, violations, trust.

    With ``more`` also at the trust chosen after training, with ``improve`` also improved.
    """
    problem = restore_problem(description)
    charged = problem.card.prices(**prices)
    trust = row.trust or first_trust(problem.card, row.belief)
    config = TrainConfig(
        row.learner, "rl" if row.kind == "rl" else "hybrid", steps, trust=trust, belief=row.belief, seed=seed, checks=0,
        settings=row.settings, **dict(row.config),
    )  # fmt: skip
    policy, violations, trust_now = None, 0, config.final_trust
    if row.kind == "game":
        belief, _, violations = learn_belief(problem, charged, config)
    else:
        trained = train(problem, charged, config)
        policy, belief, violations = trained.learner.policy, trained.belief, trained.violations
        trust_now = trust_now if policy.notes.learned_trust is None else policy.notes.learned_trust
    kind = row.executed or row.kind
    at = Coordinator(kind, trust_now if kind == "hybrid" else 0.0)
    seen = evaluate(problem, charged, at, policy, REPORT_SEEDS[:networks], belief=belief)
    out = {
        "welfare": seen.metrics["welfare"].tolist(), "completion": float(seen.metrics["completion"].mean()),
        "violations": violations + seen.violations, "trust": trust_now,
    }  # fmt: skip
    if more and kind == "hybrid" and policy is not None:
        chosen = calibrate(problem, charged, policy, trust_now, belief=belief)
        again = evaluate(
            problem, charged, Coordinator("hybrid", chosen.trust), policy, REPORT_SEEDS[:networks], belief=belief
        )
        out["calibrated"] = {
            "welfare": again.metrics["welfare"].tolist(), "completion": float(again.metrics["completion"].mean()),
            "violations": chosen.violations + again.violations, "trust": chosen.trust,
        }  # fmt: skip
    if improve:
        how = Improve()
        if kind == "hybrid" and policy is not None:
            trust_now = calibrate(problem, charged, policy, config.final_trust, belief=belief, improve=how).trust
        at = Coordinator(kind, trust_now if kind == "hybrid" else 0.0, improve=how)
        again = evaluate(problem, charged, at, policy, REPORT_SEEDS[:networks], belief=belief)
        out["improved"] = {
            "welfare": again.metrics["welfare"].tolist(), "completion": float(again.metrics["completion"].mean()),
            "violations": again.violations, "trust": trust_now,
        }  # fmt: skip
    return out


def show(label: str, found: list[dict[str, Any]], first: list[list[float]]) -> None:
    """A line of the table: one row's figures by training seed, and less those of the ``first`` of its kind."""
    scores = [f["welfare"] for f in found]
    d = paired_difference(scores, first)
    low, high = d.conservative or (d.low, d.high)
    welfare = sum(map(sum, scores)) / sum(map(len, scores))
    completion = sum(f["completion"] for f in found) / len(found)
    less = " | " if scores == first else f"{d.mean:+.4f} | [{low:+.4f}, {high:+.4f}]"
    violations = sum(f["violations"] for f in found)
    print(f"| {label} | {welfare:.4f} | {completion:.2f} | {less} | {violations} |", flush=True)


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
    kept: dict[str, Any] = json.loads(given.out.read_text()) if given.out and given.out.exists() else {}
    size = (given.sites, given.agents, given.servers, given.networks, given.agent_steps, given.tuning)

    def problem_of(row: Row) -> dict[str, Any]:
        dynamics = Dynamics(**dict(row.changes))
        made = make_problem("mec", agents=given.agents, servers=given.servers, sites=given.sites, dynamics=dynamics)
        return dict(made.describe())

    def key(row: Row, seed: int) -> str:
        return repr((size, row._replace(label=""), seed))

    def prices_key(row: Row) -> str:
        return repr((size, row.changes, row.belief))

    def keep(key: str, figures: Any) -> None:
        kept[key] = figures
        if given.out:
            given.out.write_text(json.dumps(kept))

    def missing(row: Row, seed: int) -> bool:
        at = key(row, seed)
        if at not in kept or (improve and "improved" not in kept[at]):
            return True
        return more and row.kind == row.executed_kind == "hybrid" and "calibrated" not in kept[at]

    groups = {group: rows_of(group) for group in given.groups}
    with ProcessPoolExecutor(os.cpu_count(), get_context("spawn")) as pool:
        waiting: dict[str, Any] = {}
        for group, rows in groups.items():
            more, improve = group in ("dynamics", "shift", "alone", "improve"), group == "improve"
            for row in rows:
                where = prices_key(row)
                if row.tuned and where not in kept and where not in waiting:
                    waiting[where] = pool.submit(tune, problem_of(row), row.belief, given.tuning)
            for row in rows:
                where = prices_key(row)
                if row.tuned and where not in kept:
                    keep(where, waiting[where].result())
                prices = (kept[where] if row.tuned else {}) | dict(row.prices)
                for seed in range(given.seeds if row.many else 1):
                    if missing(row, seed):
                        waiting[key(row, seed)] = pool.submit(
                            measure, row, problem_of(row), prices, given.agent_steps, seed, given.networks, more,
                            improve,
                        )  # fmt: skip
            print(f"\n## {group}: {given.agent_steps:,} agent-steps, {given.seeds} x {given.networks} seeds\n")
            print("| setting | welfare | completion % | less the first of its kind | 95 % t-interval | violations |")
            print("|---|---:|---:|---:|---:|---:|", flush=True)
            first: Any = None
            for k, row in enumerate(rows):
                found = []
                for seed in range(given.seeds if row.many else 1):
                    at = key(row, seed)
                    if missing(row, seed):
                        keep(at, waiting[at].result())
                    found.append(kept[at])
                shipped = [f.get("calibrated", f) if more else f for f in found]
                if k == 0 or row.changes != rows[k - 1].changes:
                    first = [f["welfare"] for f in shipped]
                trusts = ", ".join(f"{f['trust']:.3g}" for f in shipped)
                learned = dict(row.config).get("learn_trust") or (more and "calibrated" in found[0])
                show(row.label + (f" (trust {trusts})" if learned else ""), shipped, first)
                if improve:
                    show(f"{row.label}, improved", [f["improved"] for f in found], first)
                elif more and "calibrated" in found[0]:
                    show(f"{row.label}, at the trust of training", found, first)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
