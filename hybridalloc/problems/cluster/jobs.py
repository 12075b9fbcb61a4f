"""Training jobs on three kinds of GPUs, as Gavel draws them: measured throughputs, gangs, and how long they take.

A job is a model and a batch size (26 of them), a gang of 1, 2, 4 or 8 GPUs (70, 10, 15 and 5 %; models that do not
train in parallel have 1), and a number of steps: minutes alone on its V100s are 10^U, U uniform on [1.5, 3] for four
jobs in five and on [3, 4] for the fifth. They arrive by a Poisson process.

Source: Narayanan et al. (2020), "Heterogeneity-aware cluster scheduling policies for deep learning workloads", OSDI,
with its measured throughputs.
"""

from __future__ import annotations

import json
from functools import cache
from typing import NamedTuple

import numpy as np
from scipy.optimize import linprog
from scipy.sparse import coo_matrix

from games.congestion import Float, Int
from hybridalloc.data.registry import DataError, fetch, open_text

KINDS = ("v100", "p100", "k80")
GANGS = (1, 2, 4, 8)
GANG_SHARE = (0.70, 0.10, 0.15, 0.05)
PARALLEL = (
    *(f"ResNet-18 (batch size {b})" for b in (16, 32, 64, 128, 256)),
    *(f"ResNet-50 (batch size {b})" for b in (16, 32, 64, 128)),
    *(f"Transformer (batch size {b})" for b in (16, 32, 64, 128, 256)),
    *(f"LM (batch size {b})" for b in (5, 10, 20, 40, 80)),
)
MODELS = (*PARALLEL, *(f"Recommendation (batch size {b})" for b in (512, 1024, 2048, 4096, 8192)), "A3C", "CycleGAN")
SHORT = 0.8  # of the jobs
EXPONENTS = ((1.5, 3.0), (3.0, 4.0))  # of ten, in minutes: of short jobs, of long ones


class Jobs(NamedTuple):
    """J jobs in the order of their arrival, W kinds of GPUs.

    Attributes:
        arrival_s: (J,). model: (J,) of :data:`MODELS`. gang: (J,) GPUs. steps: (J,) to do. speed: (J, W) steps a
            second of the whole gang on each kind, 0 where it does not run.
    """

    arrival_s: Float
    model: Int
    gang: Int
    steps: Float
    speed: Float

    @property
    def alone_s(self) -> Float:
        """(J,) time on the fastest kind."""
        return np.asarray(self.steps / self.speed.max(1))


@cache
def throughputs() -> Float:
    """(26, 4, 3) measured steps a second by model, gang (1, 2, 4, 8) and kind; 0 where nobody measured any.

    Raises:
        DataError: no data, or another file.
    """
    path = fetch("gavel", "simulation_throughputs.json.gz")
    with open_text(path) as stream:
        table = json.load(stream)
    out = np.zeros((len(MODELS), len(GANGS), len(KINDS)))
    for w, kind in enumerate(KINDS):
        if kind not in table:
            raise DataError(f"{path}: no throughputs on {kind}; it has {', '.join(table)}")
        for m, model in enumerate(MODELS):
            for g, gang in enumerate(GANGS):
                found = table[kind].get(f"('{model}', {gang})", {}).get("null")
                out[m, g, w] = found or 0.0
    return out


def draw_jobs(rng: np.random.Generator, many: int, per_hour: float) -> Jobs:
    """The first ``many`` jobs, ``per_hour`` of them an hour; all at once where that is inf. Every draw takes as many
    numbers, so that the jobs are the same at every rate."""
    speed = throughputs()
    parallel = np.arange(len(MODELS)) < len(PARALLEL)
    rows: list[tuple[int, int, float]] = []
    while len(rows) < many:
        model, u = int(rng.integers(len(MODELS))), rng.random(3)
        g = int(np.searchsorted(np.cumsum(GANG_SHARE), u[0], side="right")) if parallel[model] else 0
        low, high = EXPONENTS[0 if u[1] < SHORT else 1]
        if speed[model, g, 0] > 0:  # its length is told in time on V100s
            rows.append((model, g, 60.0 * 10 ** (low + (high - low) * u[2])))
    gap = rng.exponential(1.0, many)
    models, gangs = (np.array([row[k] for row in rows], np.int64) for k in (0, 1))
    steps = np.array([row[2] for row in rows]) * speed[models, gangs, 0]
    arrival = np.zeros(many) if np.isinf(per_hour) else np.concatenate([[0.0], gap[:-1].cumsum()]) * 3600 / per_hour
    return Jobs(arrival, models, np.array(GANGS)[gangs], steps, np.ascontiguousarray(speed[models, gangs]))


def sustainable_rate(jobs: Jobs, pools: Int) -> float:
    """Jobs an hour that ``pools`` (W,) GPUs of each kind can do at most, of this mix: above it queues grow for ever.

    The least time in which fluid jobs, each on whichever kinds serve the whole best, are done: a linear program.
    """
    n, w = jobs.speed.shape
    runs = jobs.speed > 0
    i, k = np.nonzero(runs)
    column = np.arange(len(i))
    share = coo_matrix((jobs.speed[i, k] / jobs.steps[i], (i, column)), shape=(n, len(i) + 1))
    busy = coo_matrix(
        (np.r_[jobs.gang[i].astype(float), -np.asarray(pools, float)],
         (np.r_[k, np.arange(w)], np.r_[column, np.full(w, len(i))])), shape=(w, len(i) + 1),
    )  # fmt: skip
    aim = np.zeros(len(i) + 1)
    aim[-1] = 1.0
    found = linprog(aim, A_ub=busy.tocsr(), b_ub=np.zeros(w), A_eq=share.tocsr(), b_eq=np.ones(n), method="highs")
    return float(n / (found.x[-1] / 3600.0))
