"""The pictures of docs/gallery.md: what the game, untrained, makes of one world of each domain, beside a usual rule.

Run: ``make gallery`` or ``python docs/figures/gallery.py [domain ...]``; no data, no network. Each picture goes to
``docs/figures/gallery-<domain>.png`` and its figures to ``gallery.json``, with which a test compares the page.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path[0] = str(HERE.parents[1])  # docs/figures/games.py would hide the package games

from matplotlib.figure import Figure  # noqa: E402

from coordinator import Coordinator  # noqa: E402
from hybridalloc import Allocator, make_problem  # noqa: E402
from hybridalloc.training.rollout import Execute, Heuristic, Rollout  # noqa: E402

SEED, MILLI = 0, 1000.0
COLOURS = ("#1d4ed8", "#6b7280")  # the game, the rule


def run(problem: Any, rule: str, steps: int, look: Any) -> tuple[list[Any], dict[str, float]]:
    """``look(state)`` before each of ``steps`` decisions of one world, by the game ("") or a rule, and the metrics."""
    rollout, prices = Rollout(problem, [SEED]), problem.card.prices()
    game = Execute(Coordinator("game"), None, prices)
    method = Heuristic(rule, prices, np.random.default_rng(SEED)) if rule else game
    seen = []
    for _ in range(steps):
        seen.append(look(rollout.world.state(0)))
        if rollout.step(method, prices).over.any():
            break
    return seen, {key: float(np.asarray(value).mean()) for key, value in rollout.tally.summary().items()}


def mec(figure: Figure) -> dict[str, float]:
    """Who is served where, in one slot."""
    problem = make_problem("mec", agents=50, servers=9, sites="synthetic")
    state, allocator = problem.reset(SEED), Allocator(problem, "game")
    for slot in range(20):
        allocation = allocator.step(state)
        if slot < 19:
            state, _ = problem.advance(state, allocation, seed=slot)
    picture, axes = problem.picture(state, allocation), figure.subplots()
    stations, devices = np.asarray(picture["stations"]), np.asarray(picture["devices"])
    option, active = np.asarray(picture["option"]), np.asarray(picture["active"], dtype=bool)
    for i in np.flatnonzero(active & (option > 0)):
        axes.plot(*np.stack([devices[i], stations[option[i] - 1]]).T, color=f"C{(option[i] - 1) % 10}", lw=1)
    axes.scatter(*devices[~active].T, s=9, color="#d1d5db", label="idle")
    axes.scatter(
        *devices[active & (option == 0)].T, s=28, facecolors="none", edgecolors="#374151", label="on the device"
    )
    axes.scatter(*devices[active & (option > 0)].T, s=18, color="#111827", label="served by a station")
    axes.scatter(*stations.T, s=110, marker="s", c=[f"C{k % 10}" for k in range(len(stations))], edgecolors="black")
    axes.set(aspect="equal", xlabel="east, m", ylabel="north, m")
    axes.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
    return {"served": int((active & (option > 0)).sum()), "own": int((active & (option == 0)).sum())}


def cluster(figure: Figure) -> dict[str, float]:
    """How much of each GPU is taken once all that was asked for has come."""
    problem, told = make_problem("cluster"), {}
    grids = figure.subplots(1, 2, sharey=True)
    for axes, rule, name in zip(grids, ("", "random"), ("the game", "random"), strict=True):
        seen, metrics = run(problem, rule, 10_000, lambda state: (state.free_gpu.copy(), state.gpus.copy()))
        free, gpus = seen[-1]
        taken = np.where(np.arange(free.shape[1]) < gpus[:, None], 1 - free / MILLI, np.nan)
        axes.set_facecolor("#d1d5db")  # no such GPU
        shown = axes.imshow(taken, cmap="Blues", vmin=0, vmax=1, aspect="auto", interpolation="nearest")
        axes.set(title=f"{name}: {metrics['used100']:.1f} % allocated", xlabel="GPU")
        axes.title.set_fontsize(9)
        told[rule or "game"] = round(metrics["used100"], 1)
    grids[0].set_ylabel("node")
    figure.colorbar(shown, ax=grids, label="share of the GPU that is taken")
    return told


def balancer(figure: Figure) -> dict[str, float]:
    """What each replica runs, as it was last told."""
    problem, told = make_problem("balancer"), {}
    rows = figure.subplots(2, 1, sharex=True, sharey=True)
    for axes, rule, name in zip(rows, ("", "round_robin"), ("the game", "round robin"), strict=True):
        seen, metrics = run(
            problem, rule, 10_000, lambda state: (state.time_s, state.told_running + state.told_waiting)
        )
        times = np.array([time for time, _ in seen])
        axes.plot(times - times[0], np.stack([load for _, load in seen]), lw=1)
        axes.set_xlim(0, 21)  # by then all requests have come
        axes.set_title(f"{name}: 99th percentile of the time to first token {metrics['ttft_p99']:.2f} s", fontsize=9)
        axes.set_ylabel("requests at a replica")
        told[rule or "game"] = round(metrics["ttft_p99"], 2)
    rows[1].set_xlabel("s")
    return told


def voltage(figure: Figure) -> dict[str, float]:
    """The voltages at the inverters through a day."""
    problem, told = make_problem("voltage"), {}
    rows = figure.subplots(2, 1, sharex=True, sharey=True)
    for axes, rule, name in zip(rows, ("", "none"), ("the game", "no reactive power"), strict=True):
        seen, metrics = run(problem, rule, 96, lambda state: state.voltage_last.copy())
        axes.plot(np.arange(len(seen)) / 4, np.stack(seen), lw=1)
        for limit in (0.95, 1.05):
            axes.axhline(limit, color="#b42318", lw=1, ls=":")
        axes.set_title(f"{name}: {metrics['cr']:.1f} % of the steps within the band", fontsize=9)
        axes.set_ylabel("voltage, p.u.")
        told[rule or "game"] = round(metrics["cr"], 1)
    rows[1].set_xlabel("hour of the day")
    return told


def custom(figure: Figure) -> dict[str, float]:
    """The README's four jobs on its two servers: shares given, and what of each is reserved for a deadline."""
    jobs = {"name": ["render", "encode", "index", "transcode"], "work": [40, 25, 10, 60],
            "deadline_s": [9, 4, None, 6], "priority": [2, 1, 0, 1]}  # fmt: skip
    servers = {"name": ["old", "new"], "capacity": [4, 12], "wait_s": [0.5, None]}
    problem = make_problem("custom", jobs=jobs, servers=servers)
    allocation, axes = Allocator(problem, "hybrid").step(problem.reset()), figure.subplots()
    share, left = np.asarray(allocation.shares["share"]), np.zeros(2)
    for i, name in enumerate(jobs["name"]):
        server = int(allocation.option[i]) - 1
        if server >= 0:
            axes.barh(server, share[i], left=left[server], color=f"C{i}", edgecolor="white")
            axes.text(
                left[server] + share[i] / 2, server, f"{name} {share[i]:.0%}", ha="center", va="center", color="w"
            )
            left[server] += share[i]
    axes.set_yticks([0, 1], servers["name"])
    axes.set(xlabel="share of the server", xlim=(0, 1))
    return {"served": int((allocation.option > 0).sum()), "of": len(jobs["name"])}


PICTURES = {"mec": mec, "cluster": cluster, "balancer": balancer, "voltage": voltage, "custom": custom}


def main(wanted: list[str]) -> None:
    path = HERE / "gallery.json"
    told = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    for name in wanted or list(PICTURES):
        figure = Figure(figsize=(7.2, 2.0 if name == "custom" else 4.0), layout="constrained")
        told[name] = PICTURES[name](figure)
        for axes in figure.axes:
            axes.spines[["top", "right"]].set_visible(False)
        figure.savefig(HERE / f"gallery-{name}.png", dpi=110)
        print(name, told[name])
    path.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
