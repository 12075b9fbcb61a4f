"""What a cluster consists of and which jobs come: Gavel's three kinds of GPUs, and ten nodes with jobs of two kinds."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import numpy as np

from games.congestion import Float, Int
from hybridalloc.problems.cluster.jobs import GANGS, MODELS, draw_jobs, sustainable_rate, throughputs

WATTS = {"v100": 300.0, "p100": 250.0, "k80": 150.0}  # of a GPU by its data sheet, a K80 board's half
NODES = np.array([50, 55, 60, 65, 70, 80, 85, 90, 95, 100])  # units of seed 001's nodes
NODE_SPEED = np.array([0.7, 1.0, 0.8, 0.9, 1.0, 0.75, 0.95, 0.85, 1.0, 0.9])
WORKLOADS = {"light": (8, 16), "medium": (12, 30), "heavy": (20, 50)}  # units that a job takes, least and most
MINUTES = {"image classification": 10.0, "NLP": 13.0}  # alone on the fastest node, mean
SPREAD = 0.5  # of those minutes, lognormal


class Setup(NamedTuple):
    """W pools of units (GPUs of a kind, or a node's), P places (a pool, and how much of it a job takes there), T types
    of jobs, C classes of them that tables tell apart.

    Attributes:
        pools: names (W,). units, watts: (W,) of each pool, and of each of its units at work. pool: (P,) of each place.
        gang: (T,) units that a job asks for. taken: (T, P) units at each place. speed: (T, P) relative to its fastest
            place, 0 where it does not run. label: (T,) its class. classes: names (C,).
    """

    pools: tuple[str, ...]
    units: Int
    watts: Float
    pool: Int
    gang: Int
    taken: Int
    speed: Float
    label: Int
    classes: tuple[str, ...]


class Arrivals(NamedTuple):
    """J jobs in the order of their arrival: when, of which type, and seconds alone on the fastest place."""

    arrival_s: Float
    type: Int
    alone_s: Float


Draw = Callable[[np.random.Generator], Arrivals]


@cache
def gavel(pools: tuple[int, ...], elastic: bool) -> Setup:
    """Gavel's GPUs and jobs; ``elastic``: a gang may also run as half of it, at the throughput measured for that."""
    table = throughputs()  # (M, G, W)
    measured = np.argwhere(table[..., 0] > 0)  # jobs are drawn by their time on V100s
    model, size = measured.T
    gang, whole = np.array(GANGS)[size], table[model, size]
    half = np.where((size > 0)[:, None], table[model, np.maximum(size - 1, 0)], 0.0)
    speed = np.concatenate([whole, half], 1) if elastic else whole
    taken = np.repeat(gang[:, None], len(pools), 1)
    taken = np.concatenate([taken, np.maximum(taken // 2, 1)], 1) if elastic else taken
    fits = taken <= np.tile(pools, 1 + elastic)
    speed = np.where(fits, speed, 0.0)
    runs = speed.max(1) > 0
    names = tuple(WATTS)
    return Setup(
        names, np.array(pools), np.array(list(WATTS.values())), np.tile(np.arange(3), 1 + elastic), gang[runs],
        taken[runs], (speed / np.maximum(speed.max(1, keepdims=True), 1e-300))[runs],
        np.searchsorted([1, 4], gang[runs] - 0.5), ("one GPU", "2 or 4 GPUs", "8 GPUs"),
    )  # fmt: skip


def gavel_draw(setup: Setup, jobs: int, load: float) -> Draw:
    """The first ``jobs`` of Gavel's at ``load`` of the rate that a linear program says can be sustained; all at once
    where that is 0. Gangs that fit on no pool are left out."""
    table = throughputs()
    kind = {(int(m), int(g)): t for t, (m, g) in enumerate(_measured(setup))}

    def draw(rng: np.random.Generator) -> Arrivals:
        seed = int(rng.integers(2**62))
        many = lambda rate: draw_jobs(np.random.default_rng(seed), jobs, rate)
        at_once = many(np.inf)
        keep = np.array([(m, g) in kind for m, g in zip(at_once.model, at_once.gang, strict=True)])
        rate = np.inf
        if load > 0:
            rate = load * sustainable_rate(type(at_once)(*(part[keep] for part in at_once)), setup.units)
        drawn = many(rate)
        size = {gang: k for k, gang in enumerate(GANGS)}
        best = np.array([
            (table[m, size[g]] * (setup.units >= g)).max() for m, g in zip(drawn.model, drawn.gang, strict=True)
        ])  # fmt: skip
        types = np.array([kind.get((m, g), -1) for m, g in zip(drawn.model, drawn.gang, strict=True)])
        alone = drawn.steps / np.maximum(best, 1e-300)
        return Arrivals(drawn.arrival_s[keep], types[keep], alone[keep])

    return draw


def _measured(setup: Setup) -> list[tuple[int, int]]:
    """(model, gang) of each type of :func:`gavel`."""
    table, units = throughputs(), setup.units
    pairs = [(m, g) for m in range(len(MODELS)) for g in range(len(GANGS)) if table[m, g, 0] > 0]
    fit = lambda m, g: bool(((table[m, g] > 0) & (units >= GANGS[g])).any())
    half = lambda m, g: len(setup.pool) > len(units) and g > 0 and fit(m, g - 1)
    return [(m, GANGS[g]) for m, g in pairs if fit(m, g) or half(m, g)]


@cache
def seed001(workload: str) -> Setup:
    """Ten nodes of 50 to 100 units, and jobs of two kinds that each take a number of units of one node."""
    low, high = WORKLOADS[workload]
    sizes = np.arange(low, high + 1)
    gang, label = np.tile(sizes, 2), np.repeat([0, 1], len(sizes))
    speed = np.where(gang[:, None] <= NODES, NODE_SPEED, 0.0)
    return Setup(
        tuple(f"node {k}" for k in range(len(NODES))), NODES, np.zeros(len(NODES)), np.arange(len(NODES)), gang,
        np.repeat(gang[:, None], len(NODES), 1), speed / speed.max(1, keepdims=True), label, tuple(MINUTES),
    )  # fmt: skip


def seed001_draw(setup: Setup, load: float, hours: float) -> Draw:
    """A Poisson process for ``hours`` such that the work asked for is ``load`` of what all units do at their speeds."""
    minutes = np.array(list(MINUTES.values()))
    can = float((NODES * NODE_SPEED).sum())  # unit-minutes a minute
    per_minute = load * can / float((setup.gang * minutes[setup.label]).mean())
    expected = per_minute * 60 * hours
    longest = int(expected + 6 * expected**0.5 + 10)

    def draw(rng: np.random.Generator) -> Arrivals:
        arrival = 60.0 * rng.exponential(1 / per_minute, longest).cumsum()
        arrival[arrival >= 3600 * hours] = np.inf
        types = rng.integers(len(setup.gang), size=longest)
        factor = np.exp(rng.normal(-(SPREAD**2) / 2, SPREAD, longest))
        return Arrivals(arrival, types, 60.0 * minutes[setup.label[types]] * factor)

    return draw
