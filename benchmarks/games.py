"""Speed and quality of games/ against its peers, paired in one run: ``python benchmarks/games.py``.

Every row is measured here and now, ours and the peer's on the same instances, one thread but for the million
agents. Times are medians. ``--only gibbs market`` picks sections; ``--quick`` takes a tenth of the instances.
"""

# ruff: noqa: B023, E402  (closures are called at once; threads are set before numpy loads)
from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("NUMBA_NUM_THREADS", "2")

import argparse
import platform
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
# this file is called games.py: it must not hide the package
sys.path = [p for p in sys.path if Path(p or ".").resolve() != Path(__file__).resolve().parent]

import cvxpy as cp
import numba
import numpy as np

from games import (
    CongestionGame,
    best_response_candidates,
    best_response_dynamics,
    candidate_lists,
    delay_shares,
    eisenberg_gale,
    gibbs_candidates,
    gibbs_equilibrium,
    marginal_toll,
    price_of_anarchy,
    route,
    social_optimum,
    variational_equilibrium,
    water_filling,
)
from games.best_response import best_response_batch
from games.candidates import refresh
from games.certificate import deviations, measure_residual
from games.congestion import CongestionBatch
from games.gibbs import gibbs_batch
from games.normal_form import equilibria, regret
from games.quadratic import QuadraticGame, reference_equilibrium
from games.reference import delay_shares as reference_shares

ROWS: list[tuple[str, str, str, str, str]] = []


def row(what: str, ours: str, peer: str = "", ratio: str = "", target: str = "") -> None:
    ROWS.append((what, ours, peer, ratio, target))
    print(f"{what:58} | {ours:34} | {peer:30} | {ratio:9} | {target}", flush=True)


def clock(call: Callable[[], object], repeat: int, before: Callable[[], object] = lambda: None) -> float:
    """Median seconds of ``call``, ``before`` unclocked each time; the first call warms up."""
    before()
    call()
    times = []
    for _ in range(repeat):
        before()
        begun = time.perf_counter()
        call()
        times.append(time.perf_counter() - begun)
    return float(np.median(times))


def show(seconds: float) -> str:
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds / 1e-6:.3g} us"


def servers(rng: np.random.Generator, agents: int, options: int) -> CongestionGame:
    """Agents choose one of ``options`` servers; congestion and private costs of one size; the mean agent pays 1."""
    weight = np.repeat(rng.uniform(0.5, 1.5, (agents, 1)), options, axis=1)
    capacity = rng.uniform(0.5, 1.5, options) * agents / options
    private = rng.uniform(0, 1, (agents, options))
    game = CongestionGame(np.arange(options)[:, None], weight, capacity, private)
    paid = game.social_cost(best_response_dynamics(game, tolerance=1e-3).choice) / agents
    return CongestionGame(game.options, weight, capacity * paid, private / paid)


def stirred(rng: np.random.Generator, game: CongestionGame) -> tuple[CongestionGame, np.ndarray]:
    """The game after 2 % of the agents changed their private costs, and who did."""
    who = rng.choice(game.agents, max(1, game.agents // 50), replace=False)
    private = game.private_cost.copy()
    private[who] = rng.uniform(0, 1, private[who].shape)
    return CongestionGame(game.options, game.weight, game.capacity, private), who


def best_response(rng: np.random.Generator, share: float) -> None:
    for n, k, target in ((50, 9, "10 us"), (1000, 100, "1 ms")):
        cold, warm, whole = [], [], []
        for _ in range(max(3, int(20 * share))):
            game = servers(rng, n, k)
            start = rng.integers(0, k, (1, n))
            choice, batch = start.copy(), game.batch()
            cold.append(clock(lambda: best_response_batch(batch, choice), 5, lambda: np.copyto(choice, start)))
            settled = choice.copy()
            later, _ = stirred(rng, game)
            batch = later.batch()
            warm.append(clock(lambda: best_response_batch(batch, choice), 5, lambda: np.copyto(choice, settled)))
            assert deviations(later, choice[0])[0].max() <= 1e-9
            whole.append(clock(lambda: best_response_dynamics(later, settled[0]), 5))
        row(
            f"best response {n} x {k}, warm (2 % of agents changed)", show(float(np.median(warm))),
            f"cold {show(float(np.median(cold)))}", "", f"{target}; with checks {show(float(np.median(whole)))}",
        )  # fmt: skip
    _, _, later, renewed, settled, build, update = large(rng)
    warm = clock(lambda: best_response_candidates(later, renewed, settled, check=False), 9)
    found = best_response_candidates(later, renewed, settled, rounds=0)
    check = clock(lambda: deviations(later, found.choice), 3)
    grown = best_response_candidates(later, renewed, settled)
    whole = clock(lambda: best_response_candidates(later, renewed, settled), 3)
    row(
        "best response 10000 x 1000, 16 candidates, warm", show(warm),
        f"lists {show(build)}, 2 % anew {show(update)}", "", "30 ms",
    )  # fmt: skip
    row(
        "  regret over all 1000 options: lists fixed / grown", f"{found.regret:.2g} / {grown.regret:.2g}",
        f"certificate {show(check)}", "", f"grown to a full equilibrium in {show(whole)}",
    )  # fmt: skip


def batch(rng: np.random.Generator, share: float) -> None:
    count, n, k = 1024, 50, 9
    weight = np.repeat(rng.uniform(0.5, 1.5, (count, n, 1)), k, axis=2)
    capacity, private = rng.uniform(0.5, 1.5, (count, k)) * n / k, rng.uniform(0, 1, (count, n, k))
    games = CongestionBatch(
        np.arange(k)[:, None], weight, capacity, private, np.ones((count, n, k), bool), np.ones((count, n), bool),
        np.zeros((count, k)),
    )  # fmt: skip
    start, prior = rng.integers(0, k, (count, n)), rng.uniform(-2, 0, (count, n, k))
    choice, mixed, costs = start.copy(), np.empty((count, n, k)), np.empty((count, n, k))
    for threads in (1, min(2, numba.config.NUMBA_NUM_THREADS)):
        numba.set_num_threads(threads)
        br = clock(
            lambda: best_response_batch(games, choice, parallel=threads > 1), 5, lambda: np.copyto(choice, start)
        )
        gibbs_s = clock(
            lambda: gibbs_batch(games, prior, 10.0, mixed, costs, 1e-4, 30, parallel=threads > 1), 5,
            lambda: mixed.fill(1 / k),
        )  # fmt: skip
        row(
            f"1024 games 50 x 9 in a batch, cold, {threads} thread{'s' * (threads > 1)}, each",
            f"best response {show(br / count)}", f"Gibbs {show(gibbs_s / count)}",
        )  # fmt: skip
    numba.set_num_threads(1)


def large(rng: np.random.Generator) -> tuple:
    game = servers(rng, 10_000, 1000)
    load = game.weight.mean() * game.agents * game.capacity / game.capacity.sum()
    build = clock(lambda: candidate_lists(game, 16, load=load), 1)
    lists = candidate_lists(game, 16, load=load)
    settled = best_response_candidates(game, lists, rounds=0).choice
    later, who = stirred(rng, game)
    update = clock(lambda: refresh(later, lists, who, load=load), 3)
    return game, lists, later, refresh(later, lists, who, load=load), settled, build, update


def mean_field(game: CongestionGame, trust: float) -> tuple[cp.Problem, cp.Parameter, cp.Variable]:
    """The convex program whose optimum is the Gibbs-prior equilibrium, compiled once, for ``linear`` (N, K).

    The expected potential has the concave part -(1 + toll) w^2 s^2 / (2 C), an agent's own; the caller puts its
    slope at the equilibrium into ``linear``, which makes that equilibrium the unique optimum: the peer is told
    what it could not know, and does no more than one convex solve.
    """
    n, k = game.private_cost.shape
    s, linear = cp.Variable((n, k), nonneg=True), cp.Parameter((n, k))
    load = cp.sum(cp.multiply(game.weight, s), axis=0)
    congestion = cp.sum(cp.multiply((1 + game.toll) / (2 * game.capacity), cp.square(load)))
    energy = congestion + cp.sum(cp.multiply(linear, s)) - cp.sum(cp.entr(s)) / trust
    return cp.Problem(cp.Minimize(energy), [cp.sum(s, axis=1) == 1]), linear, s


def gibbs(rng: np.random.Generator, share: float) -> None:
    trust = 10.0
    for n, k, target, least in ((50, 9, "50 us", 300), (300, 18, "", 500), (1000, 100, "5 ms", 0)):
        cold, warm, worst, sweeps = [], [], 0.0, []
        for _ in range(max(3, int((20 if n < 1000 else 5) * share))):
            game = servers(rng, n, k)
            prior = rng.uniform(-2, 0, (n, k))
            flat = np.exp(prior)[None] / np.exp(prior).sum(axis=1)[None, :, None]
            mixed, costs, batch = flat.copy(), np.zeros((1, n, k)), game.batch()

            def solve(to: float = 1e-5) -> object:
                return gibbs_batch(batch, prior[None], trust, mixed, costs, to, 1000)

            # the tolerance on the last change at which the measured residual is below 1e-4
            to = calibrate(solve, game, prior, trust, mixed, lambda: np.copyto(mixed, flat))
            cold.append(clock(lambda: solve(to), 3, lambda: np.copyto(mixed, flat)))
            settled = mixed.copy()
            later, _ = stirred(rng, game)
            batch = later.batch()
            np.copyto(mixed, settled)
            to = calibrate(solve, later, prior, trust, mixed, lambda: np.copyto(mixed, settled))
            warm.append(clock(lambda: solve(to), 3, lambda: np.copyto(mixed, settled)))
            np.copyto(mixed, settled)
            sweeps.append(int(solve(to)[0]))  # type: ignore[index]
            worst = max(worst, measure_residual(later, prior, trust, mixed[0]))
        row(
            f"Gibbs-prior {n} x {k}, trust 10, warm, residual {worst:.0e}", show(float(np.median(warm))),
            f"cold {show(float(np.median(cold)))}", "", f"{target}; {int(np.median(sweeps))} sweeps",
        )  # fmt: skip
        if least:
            exact = gibbs_equilibrium(game, prior, trust, tolerance=1e-11, max_sweeps=100_000)
            problem, linear, s = mean_field(game, trust)
            own = game.weight**2 / game.capacity
            linear.value = game.private_cost + own - own * (1 + game.toll) * exact.mixed - prior / trust
            peer = clock(lambda: problem.solve(solver=cp.CLARABEL), 5)
            apart = float(np.abs(s.value - exact.mixed).max())
            row(
                f"  the same from cold, against cvxpy + Clarabel (apart {apart:.0e})", show(float(np.median(cold))),
                show(peer), f"{peer / float(np.median(cold)):.0f} x", f"{least} x",
            )  # fmt: skip
    _, _, later, lists, settled, _, _ = large(rng)
    prior = rng.uniform(-2, 0, lists.option.shape)
    before = gibbs_candidates(later, lists, prior, trust, tolerance=1e-5, max_sweeps=2000, check=False)
    again, who = stirred(rng, later)
    renewed = refresh(again, lists, who)
    for to in (1e-4, 5e-5, 2e-5, 1e-5, 5e-6):
        found = gibbs_candidates(again, renewed, prior, trust, before.mixed, tolerance=to, max_sweeps=2000, check=False)
        residual = listed_residual(again, renewed, prior, trust, found.mixed)
        if residual <= 1e-4:
            break
    warm = clock(
        lambda: gibbs_candidates(
            again, renewed, prior, trust, before.mixed, tolerance=to, max_sweeps=2000, check=False
        ),
        3,
    )
    row(
        f"Gibbs-prior 10000 x 1000, 16 candidates, warm, residual {residual:.0e}", show(warm), "", "",
        f"100 ms; {found.sweeps} sweeps",
    )  # fmt: skip


def calibrate(solve, game, prior, trust, mixed, reset) -> float:  # type: ignore[no-untyped-def]
    for to in (1e-4, 5e-5, 2e-5, 1e-5, 5e-6, 1e-6):
        reset()
        solve(to)
        if measure_residual(game, prior, trust, mixed[0]) <= 1e-4:
            break
    return to


def listed_residual(game, lists, prior, trust, mixed) -> float:  # type: ignore[no-untyped-def]
    """As measure_residual, over the listed options (one resource each here)."""
    load = np.bincount(lists.option.ravel(), (lists.weight[..., 0] * mixed).ravel(), len(game.capacity))
    own = lists.weight[..., 0]
    others = load[lists.option] - own * mixed
    cost = lists.private + own * (own + (1 + game.toll[lists.option]) * others) / game.capacity[lists.option]
    z = prior - trust * cost
    reply = np.exp(z - z.max(axis=1, keepdims=True))
    return float(np.abs(reply / reply.sum(axis=1, keepdims=True) - mixed).max())


def market(rng: np.random.Generator, share: float) -> None:
    for n, k, least in ((50, 9, 10), (1000, 100, 50)):
        # budgets are the parameter: with all N K values as parameters cvxpy's DPP needs 75 GiB at 1000 x 100
        x, w = cp.Variable((n, k), nonneg=True), cp.Parameter(n, nonneg=True)
        a, c = rng.uniform(0.1, 1, (n, k)), rng.uniform(0.5, 2, k)
        problem = cp.Problem(cp.Maximize(w @ cp.log(cp.sum(cp.multiply(a, x), axis=1))), [cp.sum(x, axis=0) <= c])
        ours, peer, gaps, apart = [], [], [], []
        for trial in range((6 if n < 1000 else 3) + 1):
            w.value = rng.uniform(0.5, 2, n)
            begun = time.perf_counter()
            problem.solve(solver=cp.CLARABEL)
            spent = time.perf_counter() - begun
            budget = np.array(w.value)
            own = clock(lambda: eisenberg_gale(a, budget, c, tolerance=1e-6), 3)
            if trial:  # the first pays for cvxpy's compilation
                found = eisenberg_gale(a, budget, c, tolerance=1e-6)
                peer.append(spent)
                ours.append(own)
                gaps.append(found.gap)
                apart.append((problem.value - budget @ np.log(found.utility)) / budget.sum())
        row(
            f"Eisenberg-Gale {n} x {k}, gap {max(gaps):.0e} (to Clarabel {max(apart):.0e})",
            show(float(np.median(ours))),
            show(float(np.median(peer))), f"{np.median(peer) / np.median(ours):.0f} x", f"{least} x",
        )  # fmt: skip


def million(rng: np.random.Generator, share: float) -> None:
    numba.set_num_threads(min(2, numba.config.NUMBA_NUM_THREADS))
    a, w, c = rng.lognormal(0, 1, (1_000_000, 4)), rng.uniform(0.5, 2, 1_000_000), rng.uniform(0.5, 2, 4)
    spent = clock(lambda: eisenberg_gale(a, w, c, tolerance=1e-4), 3)
    found = eisenberg_gale(a, w, c, tolerance=1e-4)
    row(f"1,000,000 agents x 4, log utility, gap {found.gap:.0e}, 2 threads", show(spent), "", "", "2 s")
    numba.set_num_threads(1)


def shares(rng: np.random.Generator, share: float) -> None:
    worst, infeasible, binding, wrong, ours, peer = 0.0, 0, 0, 0, [], []
    count = int(1000 * share)
    for _ in range(count):
        n = int(rng.integers(2, 9))
        w = rng.uniform(0.1, 3, n)
        floor = rng.dirichlet(np.ones(n)) * rng.uniform(0, 1.15) * (rng.random(n) < 0.8)
        begun = time.perf_counter()
        _, objective = reference_shares(w, floor)
        peer.append(time.perf_counter() - begun)
        where = np.zeros(n, int)
        begun = time.perf_counter()
        found = delay_shares(w, floor, where, 1)
        ours.append(time.perf_counter() - begun)
        if floor.sum() > 1:
            infeasible += 1
            wrong += np.isfinite(objective) or found.status != "infeasible"
            wrong += abs(found.shortfall[0] - (floor.sum() - 1)) > 1e-12
        else:
            wrong += found.status != "optimal"
            binding += bool((found.share <= floor * (1 + 1e-9))[floor > 0].any())
            worst = max(worst, abs((w**2 / found.share).sum() / objective - 1))
    row(
        f"delay shares, {count} instances ({binding} with floors that bind)", f"objective apart {worst:.0e}",
        f"{infeasible} infeasible, {wrong} verdicts wrong", f"{np.median(peer) / np.median(ours):.0f} x", "1e-8",
    )  # fmt: skip


def stress(rng: np.random.Generator, share: float) -> None:
    count, failed, worst, iterations = int(1000 * share), [], 0.0, []
    fresh = int(rng.integers(2**62))
    begun = time.perf_counter()
    for seed in range(count):
        draw = np.random.default_rng([fresh, seed])
        n, k = int(draw.integers(1, 60)), int(draw.integers(1, 40))
        a = draw.lognormal(0, 3, (n, k)) * (draw.random((n, k)) < 0.5) * 10.0 ** draw.uniform(-2, 2, (n, 1))
        w, c = 10.0 ** draw.uniform(-2, 2, n), 10.0 ** draw.uniform(-2, 2, k)
        found = eisenberg_gale(a, w, c)
        if not found.converged:
            failed.append(seed)
        worst = max(worst, found.gap)
        iterations.append(found.iterations)
    spent = time.perf_counter() - begun
    row(
        f"stress, Eisenberg-Gale, {count} markets, fresh seed {fresh}",
        f"{len(failed)} failures, worst gap {worst:.0e}",
        f"{show(spent / count)} each", "", "0 failures",
    )  # fmt: skip


def normal_form(rng: np.random.Generator, share: float) -> None:
    import nashpy

    count, worst, longest, empty, total = int(1000 * share), 0.0, 0.0, 0, 0
    times = []
    for trial in range(count):
        m, k = rng.integers(1, 9, 2)
        A, B = rng.random((2, m, k))
        if trial % 4 == 1:
            A, B = rng.integers(0, 3, (2, m, k)).astype(float)
        elif trial % 4 == 2:
            A[rng.integers(m)], B[:, rng.integers(k)] = A[rng.integers(m)], B[:, rng.integers(k)]
        elif trial % 4 == 3:
            B = -A
        begun = time.perf_counter()
        found = list(equilibria(A, B, budget_s=1.0))
        times.append(time.perf_counter() - begun)
        longest = max(longest, times[-1])
        empty += not found
        total += len(found)
        worst = max([worst, *(regret(A, B, x, y) for x, y, _ in found)])
    row(
        f"normal form, {count} games up to 8 x 8, every 4th each: random,", f"worst regret {worst:.0e}, {empty} empty",
        f"longest {show(longest)}", "", "1e-8, none hangs",
    )  # fmt: skip
    row(
        "  integer, repeated rows and columns, zero-sum",
        f"{total} equilibria",
        f"median {show(float(np.median(times)))}",
    )
    for size in (4, 6):
        ours, peer = [], []
        for _ in range(3):
            A, B = rng.random((2, size, size))
            ours.append(clock(lambda: list(equilibria(A, B)), 3))
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                peer.append(clock(lambda: list(nashpy.Game(A, B).support_enumeration()), 1))
        row(
            f"  all equilibria {size} x {size} against nashpy's support enumeration", show(float(np.median(ours))),
            show(float(np.median(peer))), f"{np.median(peer) / np.median(ours):.1f} x",
        )  # fmt: skip


def anarchy(rng: np.random.Generator, share: float) -> None:
    count, ratios, stable, tolled, worse, proven, spent = int(100 * share), [], [], [], 0, 0, []
    for _ in range(count):
        game = CongestionGame(
            np.arange(3)[:, None], rng.uniform(0.2, 2, (10, 3)), rng.uniform(0.5, 2, 3), rng.uniform(0, 2, (10, 3))
        )
        begun = time.perf_counter()
        best = social_optimum(game)
        spent.append(time.perf_counter() - begun)
        proven += best.converged
        found = price_of_anarchy(game, enumerate_up_to=0, starts=40, seed=1)
        ratios.append(found.anarchy)
        stable.append(found.stability)
        design = marginal_toll(game)
        worse += design.social_cost > design.selfish_cost * (1 + 1e-12)
        tolled.append(design.social_cost / best.bound)
    row(
        f"price of anarchy, {count} games 10 x 3, MILP optimum ({proven} proven)",
        f"median {np.median(ratios):.3f}, worst {max(ratios):.3f}",
        f"stability {np.median(stable):.3f}, {max(stable):.3f}", "", f"MILP {show(float(np.median(spent)))} each",
    )  # fmt: skip
    row(
        "  toll 1 from the selfish equilibrium, over the optimum",
        f"median {np.median(tolled):.4f}, worst {max(tolled):.4f}",
        f"worse than toll 0 in {worse}", "", "never worse",
    )  # fmt: skip


def others(rng: np.random.Generator, share: float) -> None:
    n, k = 50, 9
    g, own, w = rng.lognormal(0, 1, (n, k)), rng.uniform(0.5, 2, n), rng.uniform(0.5, 2, n)
    p, gain = cp.Variable((n, k), nonneg=True), cp.Parameter((n, k), nonneg=True)
    total = 0.5 * own.sum()
    rate = cp.sum(cp.multiply(w[:, None], cp.log1p(cp.multiply(gain, p))))
    problem = cp.Problem(cp.Maximize(rate), [cp.sum(p, axis=1) <= own, cp.sum(p) <= total])
    gain.value = g
    peer = clock(lambda: problem.solve(solver=cp.CLARABEL), 5)
    ours = clock(lambda: water_filling(g, own, weight=w, common=total), 9)
    found = water_filling(g, own, weight=w, common=total)
    apart = abs(float((w[:, None] * np.log1p(g * found.power)).sum()) / problem.value - 1)
    row(
        f"water-filling 50 x 9, own and common budgets (apart {apart:.0e})",
        show(ours),
        show(peer),
        f"{peer / ours:.0f} x",
    )

    mu, d = rng.uniform(1, 5, k), rng.uniform(0, 1, (n, k))
    r = rng.dirichlet(np.ones(n)) * mu.sum() * 0.8
    x, travel = cp.Variable((n, k), nonneg=True), cp.Parameter((n, k), nonneg=True)
    potential = cp.sum(cp.multiply(travel, x)) - cp.sum(cp.log(mu - cp.sum(x, axis=0)))
    problem = cp.Problem(cp.Minimize(potential), [cp.sum(x, axis=1) == r])
    travel.value = d
    peer = clock(lambda: problem.solve(solver=cp.CLARABEL), 5)
    ours = clock(lambda: route(r, mu, d), 9)
    row(f"M/M/1 routing 50 x 9, gap {route(r, mu, d).gap:.0e}", show(ours), show(peer), f"{peer / ours:.0f} x")

    B, S = rng.normal(size=(40, 40)), rng.normal(size=(40, 40))
    game = QuadraticGame(
        B @ B.T / 40 + 0.1 * np.eye(40) + (S - S.T) / 2, 3 * rng.normal(size=40), -1.0, 1.0,
        rng.normal(size=(10, 40)), rng.uniform(0, 1, 10),
    )  # fmt: skip
    found_q = variational_equilibrium(game)
    peer = clock(lambda: reference_equilibrium(game), 3)
    ours = clock(lambda: variational_equilibrium(game), 5)
    row(
        f"variational equilibrium 40, 10 limits, KKT {found_q.residual:.0e}",
        show(ours),
        show(peer),
        f"{peer / ours:.0f} x",
    )


SECTIONS = {
    f.__name__: f for f in (best_response, gibbs, batch, market, million, shares, stress, normal_form, anarchy, others)
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="*", choices=list(SECTIONS), default=list(SECTIONS))
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--seed", type=int, default=None, help="default: fresh")
    arguments = parser.parse_args()
    seed = int(time.time()) if arguments.seed is None else arguments.seed
    print(f"{platform.processor() or platform.machine()}, Python {platform.python_version()}, seed {seed}")
    print(f"{'what':58} | {'ours':34} | {'peer, or more':30} | {'ratio':9} | target")
    numba.set_num_threads(1)
    for name in arguments.only:
        SECTIONS[name](np.random.default_rng([seed, list(SECTIONS).index(name)]), 0.1 if arguments.quick else 1.0)


if __name__ == "__main__":
    main()
