"""Draw the three figures of docs/games.md: ``python docs/figures/games.py`` (writes SVG beside itself)."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
# this file is called games.py: it must not hide the package
sys.path = [p for p in sys.path if Path(p or ".").resolve() != Path(__file__).resolve().parent]

import matplotlib.pyplot as plt  # noqa: E402
import numpy as np  # noqa: E402

from games import (  # noqa: E402
    CongestionGame,
    best_response_dynamics,
    gibbs_equilibrium,
    marginal_toll,
    social_optimum,
)

HERE = Path(__file__).resolve().parent
plt.rcParams.update({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "svg.hashsalt": "games"})


def servers(rng: np.random.Generator, agents: int, options: int) -> CongestionGame:
    weight = np.repeat(rng.uniform(0.5, 1.5, (agents, 1)), options, axis=1)
    capacity = rng.uniform(0.5, 1.5, options) * agents / options
    return CongestionGame(np.arange(options)[:, None], weight, capacity, rng.uniform(0, 1, (agents, options)))


def potential() -> None:
    """The potential falls at every accepted move, by what the mover gains; the sum of costs need not."""
    rng = np.random.default_rng(2)
    game = servers(rng, 30, 5)
    fig, (left, right) = plt.subplots(1, 2, figsize=(7.2, 2.8))
    for run in range(5):
        choice = rng.integers(0, 5, 30)
        falls, social = [game.potential(choice)], [game.social_cost(choice)]
        gains, drops = [], []
        moved = True
        while moved:
            moved = False
            for i in range(30):
                costs = game.costs(choice)[i]
                best = int(costs.argmin())
                if costs[best] < costs[choice[i]] - 1e-10:
                    gains.append(costs[choice[i]] - costs[best])
                    choice[i] = best
                    drops.append(falls[-1] - game.potential(choice))
                    falls.append(game.potential(choice))
                    social.append(game.social_cost(choice))
                    moved = True
        left.plot(falls, color="C0", lw=1, label="potential" if run == 0 else None)
        left.plot(social, color="C1", lw=1, alpha=0.7, label="social cost" if run == 0 else None)
        right.loglog(gains, drops, ".", color="C0", ms=4)
    left.set(xlabel="accepted moves", title="five random starts")
    left.legend(frameon=False)
    ends = np.array(right.get_xlim())
    right.loglog(ends, ends, color="0.6", lw=0.8, zorder=0)
    right.set(xlabel="mover's gain", ylabel="fall of the potential", title="the same number, every time")
    save(fig, "potential")


def epsilon() -> None:
    """Measured regret under the bound L / trust, over trust, for 40 games."""
    rng = np.random.default_rng(3)
    trusts = np.logspace(-1, 2.5, 22)
    reach = 6.0
    fig, ax = plt.subplots(figsize=(4.8, 3.0))
    for k in range(40):
        game = servers(rng, 30, 5)
        prior = rng.uniform(-reach, 0, (30, 5))
        found = [gibbs_equilibrium(game, prior, t, max_sweeps=300).regret for t in trusts]
        ax.loglog(
            trusts, np.maximum(found, 1e-6), color="C0", lw=0.6, alpha=0.5, label=None if k else "measured regret"
        )
    ax.loglog(trusts, reach / trusts, color="C3", label="bound: L / trust")
    ax.set(xlabel="trust", ylabel="regret in the unmodified game", ylim=(1e-4, 1e2))
    ax.legend(frameon=False)
    save(fig, "epsilon")


def toll() -> None:
    """Social cost by toll, few heavy agents and many light ones; ten random starts, and one from the selfish end."""
    tolls = np.linspace(0, 2, 9)
    fig, axes = plt.subplots(1, 2, figsize=(7.2, 2.9), sharey=True)
    for ax, (agents, options, games) in zip(axes, ((10, 3, 40), (300, 5, 15)), strict=True):
        rng = np.random.default_rng(4)
        ratio, designed = np.empty((games, len(tolls))), np.empty(games)
        for k in range(games):
            weight = rng.uniform(0.2, 2, (agents, options))
            capacity = rng.uniform(0.5, 2, options) * agents / 10
            game = CongestionGame(np.arange(options)[:, None], weight, capacity, rng.uniform(0, 2, (agents, options)))
            starts = rng.integers(0, options, (10, agents))
            costs = np.empty((len(tolls), 10))
            for j, t in enumerate(tolls):
                tolled = replace(game, toll=np.full(options, t))
                costs[j] = [game.social_cost(best_response_dynamics(tolled, s).choice) for s in starts]
            own = marginal_toll(game).social_cost
            # small games against the proven optimum, large ones against the least cost seen
            least = social_optimum(game).social_cost if agents == 10 else min(costs.min(), own)
            ratio[k], designed[k] = costs.mean(axis=1) / least, own / least
        quarters = np.quantile(ratio, [0.25, 0.75], axis=0)
        ax.fill_between(tolls, *quarters, color="C0", alpha=0.3, lw=0, label="middle half of the games")
        ax.plot(tolls, np.median(ratio, axis=0), color="C0", label="median, random starts")
        ax.plot([1], [np.median(designed)], "o", color="C3", label="toll 1, from the selfish equilibrium")
        against = "the proven optimum" if agents == 10 else "the least cost seen"
        ax.set(xlabel="toll", ylabel="social cost over reference", title=f"{agents} x {options}, over {against}")
        medians = dict(zip(tolls.round(2).tolist(), np.median(ratio, axis=0).round(4).tolist(), strict=True))
        print(f"toll, {agents} x {options}: median ratio {medians}; designed {np.median(designed):.4f}")
    axes[0].legend(frameon=False, fontsize=8)
    save(fig, "toll")


def save(fig: plt.Figure, name: str) -> None:
    fig.tight_layout()
    fig.savefig(HERE / f"games_{name}.svg", metadata={"Date": None})
    fig.savefig(HERE / f"games_{name}.png", dpi=120)
    plt.close(fig)


if __name__ == "__main__":
    potential()
    epsilon()
    toll()
