"""The voltage domain on its 61 held-out days: every method with the same care, its front, its bound, its speed.

    python benchmarks/voltage.py table --seeds 7 8 9 --out folder [--profiles simbench] [--prior 300000]
    python benchmarks/voltage.py front --seeds 7 --out folder
    python benchmarks/voltage.py speed
    python benchmarks/voltage.py bound --seeds 7

Days d with d % 6 == 3 are reported on and by nothing else looked at; prices and the droop's deadband are tuned on those
with 0, which no belief has seen, ``--trials`` each, for loss, ``--outside`` kW a step with a bus outside and 20 a mpu.
A belief watches ``--watched`` agent-steps of the game's own exploration on days of its own, and learns no more.
Seeds are of loads, rooftop plants and sites. Intervals: 95 %, bootstrap over days, paired.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")
sys.path[0] = str(Path(__file__).resolve().parents[1])  # benchmarks/games.py would hide the package games

import numpy as np  # noqa: E402
from scipy.stats import binom  # noqa: E402

from coordinator import Coordinator  # noqa: E402
from hybridalloc import Allocator  # noqa: E402
from hybridalloc.problems import make_problem  # noqa: E402
from hybridalloc.problems.voltage.bound import Relaxation  # noqa: E402
from hybridalloc.problems.voltage.flow import flows  # noqa: E402
from hybridalloc.problems.voltage.profiles import DAY, days  # noqa: E402
from hybridalloc.problems.voltage.rules import droop  # noqa: E402
from hybridalloc.problems.voltage.setting import Prices  # noqa: E402
from hybridalloc.training.beliefs import learn_belief  # noqa: E402
from hybridalloc.training.calibration import calibrate  # noqa: E402
from hybridalloc.training.config import TrainConfig  # noqa: E402
from hybridalloc.training.trainer import train  # noqa: E402

COUNTS = ("inside", "worst_mpu", "loss_kw", "q_mvar", "cost_kw", "unsolved")
Plans = Callable[[Any], Any]  # a world's plan
SURE, RISK = 0.9, 0.001  # how sure caution is to make it that no more than this share of steps leaves the band
SPACE = {"margin": (1e-3, 0.015), "caution": (0.0, 2.0), "deadband": (0.003, 0.03), "breach": (100.0, 1e4)}


def run(problem: Any, which: Any, plans: Plans, belief: Any = None) -> dict[str, Any]:
    """A method's counts by day, (days,) means over its steps."""
    world = problem.worlds(range(len(which)), None if belief is None else belief.copy(learning=False))
    world.stand(np.asarray(which) * DAY)
    total = dict.fromkeys(COUNTS, np.zeros(len(which)))
    for _ in range(DAY):
        facts = world.execute(plans(world))
        total = {name: total[name] + facts.counts[name] / DAY for name in COUNTS}
        world.drift()
    return total


def worth(found: dict[str, Any], outside: float) -> float:
    """What is tuned for, kW: loss, ``outside`` a step with a bus outside, 20 a mpu."""
    return float((found["loss_kw"] + outside * (1 - found["inside"]) + 20 * found["worst_mpu"]).mean())


def playing(prices: Prices, coordinator: Coordinator | None = None, recommender: Any = None) -> Plans:
    who = Coordinator("game") if coordinator is None else coordinator
    return lambda world: who.settle(world, who.decide(world, recommender, prices), prices)


def ruling(name: str) -> Plans:
    return lambda world: world.rule(name, Prices(), np.random.default_rng(0))[1]


def drooping(deadband: float) -> Plans:
    return lambda world: droop(world, deadband)


def drawing(factor: float) -> Plans:
    def plan(world: Any) -> Any:
        drawn = -world.told["sun_mw"] * np.tan(np.arccos(factor))
        return world._local(Prices(slope=0.0))._replace(level=np.clip(drawn, -world.most, world.most))

    return plan


def tuned(
    problem: Any, which: Any, trials: int, belief: Any, held: bool, outside: float, seed: int = 0
) -> tuple[Prices, float]:
    """Random search, half of it about the best so far; of what is held the slope is 0."""
    rng = np.random.default_rng(seed)
    best = Prices(slope=0.0) if held else Prices()
    score = lambda prices: worth(run(problem, which, playing(prices), belief), outside)
    top = score(best)
    for k in range(trials):
        drawn = {}
        for name, (low, high) in SPACE.items():
            log = low > 0
            a, b = (np.log(low), np.log(high)) if log else (low, high)
            here = getattr(best, name)
            x = rng.uniform(a, b)
            if k >= trials // 2:
                centre = np.log(max(here, low)) if log else here
                x = (
                    float(np.clip(centre + 0.15 * (b - a) * rng.standard_normal(), a, b))
                    if rng.random() < 0.6
                    else centre
                )
            drawn[name] = float(np.exp(x)) if log else float(x)
        if belief is None:
            drawn.pop("caution")
        prices = best._replace(**drawn)
        value = score(prices)
        if value < top:
            best, top = prices, value
    return best, top


def outside(problem: Any, which: Any, plans: Plans, belief: Any = None) -> Any:
    """(days, steps) whether a bus leaves the band."""
    world = problem.worlds(range(len(which)), None if belief is None else belief.copy(learning=False))
    world.stand(np.asarray(which) * DAY)
    out = np.zeros((len(which), DAY), bool)
    for step in range(DAY):
        out[:, step] = world.execute(plans(world)).counts["inside"] < 1
        world.drift()
    return out


def careful(problem: Any, which: Any, prices: Prices, belief: Any) -> tuple[Prices, list[int], int]:
    """The least caution, a quarter more at a time, at which it is 90 % sure that at most one step in a thousand leaves
    the band where the bound does not, were steps independent: by the binomial tail of those on the tuning days (Bates
    et al. 2021, "Distribution-free, risk-controlling prediction sets"). With what was counted on the way, and how many
    steps are permitted."""
    lost = outside(problem, which, ruling("opf_now"))
    permitted = int(binom.ppf(1 - SURE, lost.size, RISK))
    while permitted >= 0 and binom.cdf(permitted, lost.size, RISK) > 1 - SURE:
        permitted -= 1
    counted: list[int] = []
    for more in np.arange(0.0, 3.01, 0.25):
        tried = prices._replace(caution=prices.caution + float(more))
        counted.append(int((outside(problem, which, playing(tried), belief) & ~lost).sum()))
        if counted[-1] <= permitted:
            break
    return tried, counted, permitted


def believing(problem: Any, prices: Prices, watched: int) -> Any:
    return learn_belief(problem, prices, TrainConfig(belief="learned", belief_steps=watched))[0]


def made(args: argparse.Namespace, seed: int) -> Any:
    return make_problem(
        "voltage", variant=args.variant, profiles=args.profiles, load_seed=seed, steepest=args.steepest
    )  # fmt: skip


def table(args: argparse.Namespace) -> None:
    for seed in args.seeds:
        problem = made(args, seed)
        reported, some = days().report, days().tune
        began = time.time()
        note = lambda text, began=began: print(f"[{time.time() - began:5.0f} s] {text}", flush=True)
        rows: dict[str, Plans | tuple[Plans, Any]] = {name: ruling(name) for name in problem.card.baselines}
        rows["power factor .90"] = drawing(0.9)
        cost = lambda plans, problem=problem, some=some: worth(run(problem, some, plans), args.outside)
        dead = min(np.linspace(0.004, 0.04, 10), key=lambda d: cost(drooping(float(d))))
        rows[f"droop, tuned (deadband {dead:.3f})"] = drooping(float(dead))
        known_by: list[tuple[Any, str]] = [(None, "readings")] if args.readings or not problem.age else []
        if problem.age:
            belief = believing(problem, Prices(), args.watched)
            note(f"belief {belief.figures()}")
            known_by.append((belief, "belief"))
        for held in (True,) if problem.held else (False, True):
            for known, word in known_by:
                prices, top = tuned(problem, some, args.trials, known, held, args.outside)
                name = f"game, {word}, {'held' if held else 'reacting'}"
                note(f"{name}: {top:.2f} kW on tuning days with {prices}")
                rows[name] = playing(prices), known
                if known is not None:
                    more, counted, permitted = careful(problem, some, prices, known)
                    note(f"{name}: caution {more.caution:.2f}; tuning steps outside {counted}, permitted {permitted}")
                    rows[f"{name}, by risk control"] = playing(more), known
                if args.prior and known is not None:
                    rows |= prior(problem, prices, known, args, held, note)
        results: dict[str, Any] = {}
        for name, plans in rows.items():
            doing, known = plans if isinstance(plans, tuple) else (plans, None)
            results[name] = {k: v.tolist() for k, v in run(problem, reported, doing, known).items()}
        path = Path(args.out) / f"table-{args.variant}-{args.profiles}-{seed}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(results))
        show(results, seed)


def prior(problem: Any, prices: Prices, belief: Any, args: argparse.Namespace, held: bool, note: Any) -> dict[str, Any]:
    """A hybrid with a recommender trained inside it, calibrated on tuning seeds."""
    config = TrainConfig(args.learner, "hybrid", args.prior, belief="learned", belief_steps=0, checks=0)
    trained = train(problem, prices, config, belief=belief.copy(learning=False))
    policy = trained.learner.policy
    found = calibrate(problem, prices, policy, config.trust, belief=belief.copy(learning=False))
    at = Coordinator("hybrid", found.trust)
    note(f"prior {args.learner}: {sum(trained.seconds.values()):.0f} s, calibrated trust {found.trust:g}")
    word = "held" if held else "reacting"
    rows = {f"hybrid, {args.learner}, {word} (trust {found.trust:g})": (playing(prices, at, policy), belief)}
    return rows | {
        f"hybrid, {args.learner}, {word} (as trained)": (
            playing(prices, Coordinator("hybrid", config.trust), policy),
            belief,
        )
    }


def show(results: dict[str, Any], seed: int) -> None:
    """Every method, and its cost and loss less the tuned droop's."""
    base = next(name for name in results if name.startswith("droop, tuned"))
    rng = np.random.default_rng(0)
    print(f"\nload seed {seed}: 61 held-out days")
    print("| method | CR % | worst, mpu | loss kW | Q Mvar | loss - tuned droop | of the way to the bound |")
    print("|---|---|---|---|---|---|---|")
    bound = np.mean(results["opf_now"]["loss_kw"])
    far = np.mean(results[base]["loss_kw"]) - bound
    for name, found in results.items():
        x = np.array(found["loss_kw"]) - np.array(results[base]["loss_kw"])
        draws = x[rng.integers(0, len(x), (4000, len(x)))].mean(1)
        low, high = np.quantile(draws, [0.025, 0.975])
        way = 100 * (np.mean(results[base]["loss_kw"]) - np.mean(found["loss_kw"])) / far
        print(
            f"| {name} | {100 * np.mean(found['inside']):.2f} | {np.mean(found['worst_mpu']):.3f} | "
            f"{np.mean(found['loss_kw']):.2f} | {np.mean(found['q_mvar']):.3f} | {x.mean():+.2f} "
            f"[{low:+.2f}, {high:+.2f}] | {way:.0f} % |"
        )


def front(args: argparse.Namespace) -> None:
    """CR against loss: the game with a belief, and the droop, over their margins."""
    for seed in args.seeds:
        problem = made(args, seed)
        reported = days().report
        belief = believing(problem, Prices(), args.watched)
        for margin in (0.001, 0.003):
            for caution in (0.0, 0.6, 1.0, 1.5, 2.0, 3.0):
                prices = Prices(margin=margin, caution=caution)
                line(
                    f"game, belief, margin {margin}, caution {caution}", run(problem, reported, playing(prices), belief)
                )
        for deadband in (0.005, 0.01, 0.015, 0.02, 0.025, 0.03, 0.035, 0.04):
            line(f"droop, deadband {deadband}", run(problem, reported, drooping(deadband)))


def line(name: str, found: dict[str, Any]) -> None:
    print(
        f"{name:48s} CR {100 * found['inside'].mean():7.3f} %  worst {found['worst_mpu'].mean():.4f} mpu  loss "
        f"{found['loss_kw'].mean():.2f} kW", flush=True,
    )  # fmt: skip


def bound(args: argparse.Namespace) -> None:
    """How tight the relaxation is, and what the rounds' optimum is above it."""
    for seed in args.seeds:
        problem = made(args, seed)
        rng = np.random.default_rng(0)
        which = rng.choice(days().report, 40) * DAY + rng.integers(0, DAY, 40)
        world = problem.worlds(range(40))
        world.stand(which)
        plan = world.rule("opf_now", Prices(), rng)[1]
        _, loss, _ = world._flow(world.truth, plan.level)
        relaxed = Relaxation(problem.net, problem.low + 1e-4, problem.high - 1e-4)
        above, slack = [], []
        for e in range(40):
            found = relaxed.solve(*world.truth[:, e], world.told["sun_mw"][e], world.most[e])
            slack.append(found.slack)
            above.append((loss[e] + 1e-4 * (plan.level[e] ** 2).sum()) / found.objective - 1)
        print(
            f"load seed {seed}: 40 held-out steps; cones tight to {max(slack):.1e} relative (tight below 1e-3 on "
            f"{sum(s < 1e-3 for s in slack)}); optimum above the bound: mean {100 * np.mean(above):.4f} %, max "
            f"{100 * max(above):.4f} %"
        )


def speed(args: argparse.Namespace) -> None:
    """A step by stage and flows a second, on one core: the fastest is what no other work slows; beside
    power-grid-model where it is installed."""
    for feeder in ("case33", "copies-17", "copies-167"):
        problem = make_problem("voltage", feeder=feeder, information="now")
        world = problem.worlds([3])
        world.stand(np.array([150 * DAY + 50]))
        allocator = Allocator(problem, "game")
        spent, stages = [], []
        for _ in range(args.steps if feeder == "case33" else max(args.steps // 10, 3)):
            state = world.state(0)
            began = time.perf_counter()
            allocation = allocator.step(state)
            spent.append(1e3 * (time.perf_counter() - began))
            stages.append(allocation.certificate.stages)
            world.execute(world.plan_of(allocation))
            world.drift()
        mean = {k: round(float(np.median([s.get(k, 0) for s in stages])), 3) for k in stages[-1]}
        print(
            f"{feeder}: {problem.card.agents} inverters, {problem.net.size} buses: step median "
            f"{np.median(spent):.2f} ms, fastest {min(spent):.2f} ms; stages {mean}", flush=True,
        )  # fmt: skip
    net = make_problem("voltage").net
    rng = np.random.default_rng(0)
    for count in (1, 32):
        p = net.load_mw * rng.uniform(0, 1.2, (count, net.size))
        q = net.load_mvar * rng.uniform(0, 1.2, (count, net.size))
        p[:, net.inverter] -= rng.uniform(0, 1.6, (count, 6))
        print(f"flows, batches of {count}: {count / fastest(lambda p=p, q=q: flows(net, p, q)):,.0f} a second")
    try:
        import power_grid_model as pgm
    except ImportError:
        print("power-grid-model: not installed")
    else:
        beside(pgm, net, p, q)


def fastest(work: Callable[[], Any], repeats: int = 300) -> float:
    """Seconds."""
    spent = []
    for _ in range(repeats):
        began = time.perf_counter()
        work()
        spent.append(time.perf_counter() - began)
    return min(spent)


def beside(pgm: Any, net: Any, p: Any, q: Any) -> None:
    """The same flows by power-grid-model, and how far apart they are."""
    n, count = net.size, len(p)
    node, line, load = (
        pgm.initialize_array("input", kind, size) for kind, size in (("node", n), ("line", n - 1), ("sym_load", n))
    )
    node["id"], node["u_rated"], base = np.arange(n), 12.66e3, 12.66**2
    line["id"], line["from_node"], line["to_node"] = 1000 + np.arange(n - 1), net.parent[1:], np.arange(1, n)
    line["from_status"] = line["to_status"] = 1
    line["r1"], line["x1"], line["c1"], line["tan1"], line["i_n"] = net.r[1:] * base, net.x[1:] * base, 0, 0, 1e4
    load["id"], load["node"], load["status"], load["type"] = (
        2000 + np.arange(n),
        np.arange(n),
        1,
        pgm.LoadGenType.const_power,
    )
    load["p_specified"], load["q_specified"] = 0.0, 0.0
    source = pgm.initialize_array("input", "source", 1)
    source["id"], source["node"], source["status"], source["u_ref"], source["sk"], source["rx_ratio"] = (
        3000,
        0,
        1,
        net.slack,
        1e20,
        0.1,
    )
    model = pgm.PowerGridModel({"node": node, "line": line, "sym_load": load, "source": source})
    update = pgm.initialize_array("update", "sym_load", (count, n))
    update["id"], update["p_specified"], update["q_specified"] = load["id"], p * 1e6, q * 1e6
    solve = lambda: model.calculate_power_flow(update_data={"sym_load": update}, error_tolerance=1e-10, threading=-1)
    found, rate = solve(), count / fastest(solve)
    apart = np.abs(found["node"]["u_pu"] - flows(net, p, q).voltage).max()
    print(f"power-grid-model, batch of {count}: {rate:,.0f} a second, within {apart:.1e} p.u.")


def main(words: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("table", "front", "bound", "speed"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[7])
    parser.add_argument("--profiles", default="synthetic")
    parser.add_argument("--variant", default="C", help="a set: C or mapdn")
    parser.add_argument("--out", default="runs/voltage")
    parser.add_argument("--trials", type=int, default=40)
    parser.add_argument("--outside", type=float, default=3000.0)
    parser.add_argument("--watched", type=int, default=262_144)
    parser.add_argument("--steepest", type=float, default=30.0)
    parser.add_argument("--prior", type=int, default=0, help="agent-steps of a recommender; 0 trains none")
    parser.add_argument("--learner", default="imappo")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--readings", action="store_true", help="the game on old readings too, without a belief")
    args = parser.parse_args(words)
    {"table": table, "front": front, "bound": bound, "speed": speed}[args.what](args)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
