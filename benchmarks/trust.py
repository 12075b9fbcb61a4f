"""How trust is found, and what holds when the world is another: studies on the allocators of a comparison.

    python benchmarks/trust.py rules runs/<comparison> --out trust.json
    python benchmarks/trust.py gap runs/<comparison> --out trust.json --figure docs/figures/reality-gap.svg

*rules*: the parents, trust fixed at multiples of the one trained at, learned, hedge, robust, without *choose*, with
hysteresis. *gap*: RL, game, hybrid, hedge and robust where path loss, channel correlation, load, CPU or the reports'
staleness are not as in training, by 1 to 2 x; how flat each is, by its worst loss from its own welfare as trained and
by its worst shortfall from the best method of a world.

On the reporting seeds (``--tuning``: on tuning seeds after those that robust rehearsed on), every method in the same
worlds, paired over training seeds and networks, with t-intervals. RL alone is ``rl-imappo``, the game ``game-belief``
with its own learned belief, the rest ``hybrid-imappo`` of the same training seed. Beliefs go on learning, but where
"frozen" is said. Robust rehearses on tuning seeds before; hedge starts afresh in every network. ``--out`` keeps every
figure: what is in it is not run again.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

sys.path[0] = str(Path(__file__).resolve().parents[1])  # benchmarks/games.py would hide the package games

import numpy as np  # noqa: E402
from scipy.stats import t as student  # noqa: E402

from coordinator import Coordinator  # noqa: E402
from coordinator.health import HealthWatch  # noqa: E402
from coordinator.merge import clip_prior  # noqa: E402
from coordinator.trust import MULTIPLES, Trust  # noqa: E402
from games.congestion import CongestionGame  # noqa: E402
from hybridalloc import Allocator  # noqa: E402
from hybridalloc.problems.mec.law import streams  # noqa: E402
from hybridalloc.problems.mec.shift import SHIFTS, Shift  # noqa: E402
from hybridalloc.reports.statistics import paired_difference  # noqa: E402
from hybridalloc.training.config import REPORT_SEEDS, TUNE_SEEDS, WARMUP_SLOTS  # noqa: E402
from hybridalloc.training.evaluation import evaluate  # noqa: E402
from hybridalloc.training.rollout import Chosen, Rollout  # noqa: E402


class Method(NamedTuple):
    """A row: whose allocator, and how trust is found; ``multiple`` is of the trust trained at."""

    row: str = "hybrid-imappo"
    kind: str = "hybrid"
    multiple: float = 1.0
    rule: str = ""  # "learned" | "hedge" | "robust"
    choose: bool = True
    hysteresis: float = 0.0
    frozen: bool = False


METHODS = {
    "belief game": Method("game-belief", "game"), "RL alone": Method("rl-imappo", "rl"), "hybrid": Method(),
    "hedge": Method(rule="hedge"), "robust": Method(rule="robust"), "hybrid, belief frozen": Method(frozen=True),
    "the hybrid's proposal alone": Method(kind="rl"), "learned": Method(rule="learned"),
    "without choose": Method(choose=False), "hysteresis .1": Method(hysteresis=0.1),
} | {f"trust x {m:g}": Method(multiple=m) for m in MULTIPLES if m not in (0.0, 1.0)}  # fmt: skip
GAP = ("belief game", "RL alone", "hybrid", "hedge", "robust", "hybrid, belief frozen")
RULES = [name for name in METHODS if "frozen" not in name]
FACTORS = (1.5, 2.0)
AXES = {
    "path loss": "path_loss", "correlation": "decorrelation", "load": "load", "CPU": "cpu", "staleness": "staleness",
}  # fmt: skip


def measure(allocator: Allocator, method: Method, world: Any, seeds: Sequence[int], slots: int) -> dict[str, Any]:
    """Welfare (V,) and violations of one allocator in one world; {} where it has learned no trust."""
    a, rule = allocator, allocator.trust_rule.rule
    trained = a.recommender.notes.trained_trust if a.recommender is not None else 0.0
    at = Coordinator(method.kind, trained * method.multiple if method.kind == "hybrid" else 0.0, choose=method.choose)
    if method.rule == "learned":
        if a.recommender.notes.learned_trust is None:
            return {}
        at = replace(at, trust=a.recommender.notes.learned_trust)
    if method.rule == "hedge" or method.hysteresis:
        return follow(a, at, method, world, seeds, slots, trained)
    belief = a.belief.copy(not method.frozen)
    trusts = np.full(len(seeds), at.trust)
    if rule is not None:  # drawn once a network: payoffs are those of a trust that stays
        trusts = rule.grid[np.random.default_rng(seeds[0]).choice(len(rule.grid), len(seeds), p=rule.weights)]
    out, bad = np.zeros(len(seeds)), 0
    for trust in np.unique(trusts):  # all networks at each, so that beliefs learn from as many as everybody's
        at = replace(at, trust=trust)
        seen = evaluate(world, a.prices, at, a.recommender, seeds, None, slots, len(seeds), belief)
        out = np.where(trusts == trust, seen.metrics["welfare"], out)
        bad += seen.violations
    return {"welfare": out.tolist(), "violations": bad}


def follow(
    a: Allocator, at: Coordinator, method: Method, world: Any, seeds: Sequence[int], slots: int, trained: float
) -> dict[str, Any]:
    """As ``evaluate``, with a rule, or a watch for hysteresis, of its own for each network; as ``Allocator.step``."""
    run = Rollout(world, seeds, a.belief.copy())
    rules = [Trust("hedge" if method.rule else trained, trained=trained, seed=int(seed)) for seed in seeds]
    watches = [HealthWatch(worth=method.hysteresis) for _ in seeds]
    grid, each, told = rules[0].grid, range(len(seeds)), Told()

    def choose(run: Rollout) -> Chosen:
        batch = run.world
        game = batch.game(a.prices)
        if method.hysteresis:
            held = [w.anchor(game.private_cost.shape[1:]) for w in watches]
            added = np.stack([np.zeros(game.private_cost.shape[1:]) if h is None else h for h in held])
            game = game._replace(private_cost=game.private_cost + added)
        log_prior = clip_prior(a.recommender.propose(run.observation).log_prior, game.allowed, at.limit)
        options = np.stack([replace(at, trust=float(t)).decide_on(game, log_prior, True).option for t in grid])
        drawn = [int(np.flatnonzero(grid == rule.draw())[0]) for rule in rules]
        chosen = Chosen(options[drawn, each], batch.settle(options[drawn, each], a.prices))
        if method.rule:
            told.plans = [batch.settle(option, a.prices) for option in options]
            told.before = [deepcopy(replace(batch.state(e), truth=None)) for e in each]  # the world moves on in place
        for e in each if method.hysteresis else ():
            g = CongestionGame(game.options, *(x[e] for x in game[1:5]), toll=game.toll[e])
            watches[e].see(options[0][e], game.live[e], g.costs(options[0][e]), log_prior[e], g.private_cost)
        return chosen

    for slot in range(WARMUP_SLOTS + slots):
        if slot == WARMUP_SLOTS:
            run.tally.clear()
        run.step(choose, a.prices)
        if method.rule:
            known = [world.world_at(world.revealed(told.before[e], run.world.state(e))) for e in each]
            losses = np.array([-outcomes(known, p) for p in told.plans])
            for e in each:
                rules[e].rule.learn(losses[:, e])
    return {"welfare": run.tally.summary()["welfare"].tolist(), "violations": run.violations}


@dataclass
class Told:
    """What a rule learns from once a slot is over: each trust's plan, and the states in which they were made."""

    plans: list[Any] = field(default_factory=list)
    before: list[Any] = field(default_factory=list)


def outcomes(networks: list[Any], plan: Any) -> Any:
    """(E,) one-slot welfare of a plan on networks, each a batch of one that is left as it is."""
    stacked = type(networks[0].world)(*map(np.concatenate, zip(*(n.world for n in networks), strict=True)))
    batch = type(networks[0])(networks[0].problem, stacked, networks[0].options, streams(range(len(networks))))
    return batch.execute(plan).reward.mean(axis=1)


class Study:
    """The allocators of a comparison, and what was measured of them, by training seed."""

    def __init__(self, run: Path, training: int, seeds: Sequence[int], slots: int, out: Path | None) -> None:
        self.run, self.training, self.seeds, self.slots, self.out = run, training, seeds, slots, out
        self.kept: dict[str, Any] = json.loads(out.read_text()) if out and out.exists() else {}
        self.loaded: dict[str, Allocator] = {}

    def allocator(self, method: Method, seed: int) -> Allocator:
        rule = "robust" if method.rule == "robust" else ""
        key = f"{method.row}-seed{seed}"
        if key + rule not in self.loaded:
            made = Allocator.load(self.run / key / "allocator.npz", **({"trust": rule} if rule else {}))
            if rule:
                payoff = self.keep(f"payoff {key}", lambda: rehearsed(made))
                made.trust_rule.rule.solve(payoff)
            self.loaded[key + rule] = made
        return self.loaded[key + rule]

    def keep(self, key: str, make: Any) -> Any:
        if key not in self.kept:
            self.kept[key] = make()
            if self.out:
                self.out.write_text(json.dumps(self.kept))
        return self.kept[key]

    def of(self, name: str, shift: Shift) -> Any:
        """(T, V) welfare, None where a trust was not learned."""
        method, found = METHODS[name], []
        for seed in range(self.training):
            a = self.allocator(method, seed)
            world = a.problem.shifted(shift)
            key = repr((name, tuple(shift)[1:], seed, self.seeds[0], len(self.seeds), self.slots))
            found.append(self.keep(key, lambda: measure(a, method, world, self.seeds, self.slots)))  # noqa: B023
        if not all(found):
            return None
        if sum(f["violations"] for f in found):
            print(f"{name}: {sum(f['violations'] for f in found)} allocations broke a limit")
        return np.array([f["welfare"] for f in found])


def rehearsed(allocator: Allocator) -> Any:
    allocator.rehearse()
    return allocator.trust_rule.rule.payoff.tolist()


def interval(a: Any, b: Any) -> str:
    """a - b with its 95 % t-interval over training seeds and networks."""
    d = paired_difference(a, b)
    low, high = d.conservative or (d.low, d.high)
    return f"{d.mean:+.4f} [{low:+.4f}, {high:+.4f}]"


def few(values: Any) -> str:
    """Mean of one number a training seed, with its t-interval."""
    half = (
        student.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / len(values) ** 0.5 if len(values) > 1 else np.nan
    )
    return f"{np.mean(values):.4f} [{np.mean(values) - half:.4f}, {np.mean(values) + half:.4f}]"


def rules(study: Study) -> None:
    print("| trust | welfare | less the belief game | less the trust trained at |\n|---|---:|---:|---:|")
    base, fixed = study.of("belief game", SHIFTS[0]), study.of("hybrid", SHIFTS[0])
    for name in RULES:
        values = study.of(name, SHIFTS[0])
        if values is None:
            print(f"| {name} | was not learned | | |")
        else:
            print(
                f"| {name} | {values.mean():.4f} | {interval(values, base)} | {interval(values, fixed)} |", flush=True
            )
    show_mix(study)


def show_mix(study: Study) -> None:
    for seed in range(study.training):
        rule = study.allocator(METHODS["robust"], seed).trust_rule.rule
        mix = ", ".join(f"{w:.2f} at {t:g}" for w, t in zip(rule.weights, rule.grid, strict=True) if w > 0.005)
        worst = rule.payoff.min(axis=1)
        print(
            f"robust, training seed {seed}: {mix}; worst shortfall {rule.shortfall:.4f}, "
            f"worst case {rule.value:.4f} (proposal {worst[0]:.4f}, game {worst[-1]:.4f})"
        )


def reality_gap(study: Study, figure: Path | None) -> None:
    worlds = [SHIFTS[0], *(Shift(f"{name} x {f:g}", **{a: f}) for name, a in AXES.items() for f in FACTORS)]
    found = {}
    for world in worlds:  # every method before the next world: a run that is stopped leaves whole columns
        for name in GAP:
            found[name, world] = study.of(name, world)
        print(f"{world.name}: " + ", ".join(f"{n} {found[n, world].mean():.4f}" for n in GAP), flush=True)
    print("\n| world | " + " | ".join(GAP) + " |\n|---|" + "---:|" * len(GAP))
    for world in worlds:
        print(f"| {world.name} | " + " | ".join(f"{found[n, world].mean():.4f}" for n in GAP) + " |")
    print("\n| world | " + " | ".join(f"{n} less the belief game" for n in GAP[1:5]) + " |\n|---|" + "---:|" * 4)
    for world in worlds:
        print(
            f"| {world.name} | " + " | ".join(interval(found[n, world], found[GAP[0], world]) for n in GAP[1:5]) + " |"
        )
    by_seed = {key: values.mean(axis=1) for key, values in found.items()}
    best = {world: np.max([by_seed[n, world] for n in GAP[:5]], axis=0) for world in worlds}
    loss = {n: np.max([by_seed[n, worlds[0]] - by_seed[n, w] for w in worlds], axis=0) for n in GAP}
    short = {n: np.max([best[w] - by_seed[n, w] for w in worlds], axis=0) for n in GAP}
    print("\n| method | worst loss | robust's less | worst shortfall | robust's less |\n|---|---:|---:|---:|---:|")
    for n in GAP:
        less = [few(table["robust"] - table[n]) for table in (loss, short)]
        print(f"| {n} | {few(loss[n])} | {less[0]} | {few(short[n])} | {less[1]} |")
    show_mix(study)
    if figure:
        draw({key: values.mean() for key, values in found.items()}, worlds, figure)


def draw(found: dict[Any, float], worlds: list[Shift], path: Path) -> None:
    """Welfare against the factor, and what it is above the belief game's, one column an axis."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 5.2), layout="constrained")
    axes = figure.subplots(2, len(AXES), sharex=True, sharey="row")
    colours = {
        "belief game": "#777777",
        "RL alone": "#d95f02",
        "hybrid": "#1b6ca8",
        "hedge": "#7fb069",
        "robust": "#111111",
    }
    for column, name in enumerate(AXES):
        along = [worlds[0], *(w for w in worlds if w.name.startswith(f"{name} x"))]
        factors = [1.0, *FACTORS]
        for method, colour in colours.items():
            y = np.array([found[method, w] for w in along])
            style = {
                "color": colour,
                "marker": "o",
                "ms": 3,
                "ls": "--" if method == "robust" else "-",
                "label": method,
            }
            axes[0, column].plot(factors, y, **style)
            axes[1, column].plot(factors, y - [found["belief game", w] for w in along], **style)
        axes[0, column].set_title(name)
        axes[1, column].set_xlabel("worse by a factor of")
    axes[0, 0].set_ylabel("welfare a device and slot")
    axes[1, 0].set_ylabel("less the belief game's")
    axes[1, 0].legend(fontsize=7, frameon=False)
    for axis in axes.flat:
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "gap"}):
        figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)


def main() -> None:
    """Run a study."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", choices=("rules", "gap"))
    parser.add_argument("run", type=Path, help="folder of a comparison's allocators")
    parser.add_argument("--training-seeds", type=int, default=5)
    parser.add_argument("--networks", type=int, default=20)
    parser.add_argument("--slots", type=int, default=40)
    parser.add_argument("--tuning", action="store_true", help="on tuning seeds, for design")
    parser.add_argument("--out", type=Path, help="JSON of every figure")
    parser.add_argument("--figure", type=Path, help="of the gap, SVG or PNG")
    given = parser.parse_args()
    seeds = (TUNE_SEEDS[50:] if given.tuning else REPORT_SEEDS)[: given.networks]
    study = Study(given.run, given.training_seeds, seeds, given.slots, given.out)
    if given.study == "rules":
        rules(study)
    else:
        reality_gap(study, given.figure)


if __name__ == "__main__":
    main()
