"""What a workload says of a GPU's leftovers: what it will yet be given, and what the linear program pays for it."""

from __future__ import annotations

import os
from contextlib import suppress
from functools import cache
from zipfile import BadZipFile

import numpy as np
from numba import njit

from games.congestion import Float
from games.lean import KEPT
from hybridalloc.data.registry import cache_folder
from hybridalloc.problems.cluster.bound import cutting_stock, expected_demand
from hybridalloc.problems.cluster.core import CORES, Tables
from hybridalloc.problems.cluster.workload import Workload

VERSION = 1  # of the program whose prices are kept


def fill_table(work: Workload) -> tuple[Float, Float]:
    """(CORES + 1, 101) expected milli that one GPU with c cores and r hundredths left is given by pods of one GPU at
    most, drawn from the workload one after the other, those that do not fit passed over; and (CORES + 1, 101) the
    share of such pods that fit at once. Cores and hundredths that a pod takes are rounded up.
    """
    one = work.pods.gpus == 1
    count = work.count[one].astype(np.float64)
    fill, chance = np.zeros((CORES + 1, 101)), np.zeros((CORES + 1, 101))
    if count.sum() > 0:
        _fill(-(-work.pods.cpu[one] // 1000), work.pods.milli[one], count / count.sum(), fill, chance)
    return fill, chance


@njit(**KEPT)
def _fill(cores, milli, share, fill, chance):
    for c in range(fill.shape[0]):
        for r in range(1, fill.shape[1]):
            some, total = 0.0, 0.0
            for m in range(len(share)):
                part = (milli[m] + 9) // 10
                if cores[m] <= c and part <= r:
                    some += share[m]
                    total += share[m] * (milli[m] + fill[c - cores[m], r - part])
            if some > 0.0:
                fill[c, r] = total / some
            chance[c, r] = some


@cache
def priced_tables(work: Workload) -> Tables:
    """As :func:`tables_of`, with the linear program's prices: worked out once and kept beside the data."""
    place = cache_folder() / "cluster" / f"{VERSION}-{work.digest}.npz"
    try:
        with np.load(place, allow_pickle=False) as kept:
            price, bid = kept["price"], kept["bid"]
    except (OSError, ValueError, KeyError, EOFError, BadZipFile):  # not yet, or damaged: it is made again
        bound = cutting_stock(work, expected_demand(work))
        price, bid = bound.price, bound.bid
        with suppress(OSError):  # a home that cannot be written to costs time, no more
            place.parent.mkdir(parents=True, exist_ok=True)
            part = place.with_name(f"{place.stem}.{os.getpid()}.part.npz")
            np.savez(part, price=price, bid=bid)
            os.replace(part, place)
    return tables_of(work, price, bid)


def tables_of(work: Workload, price: Float | None = None, bid: Float | None = None) -> Tables:
    """All that the core reads of a workload; prices of the linear program (C, 1001) and (T, C) where they are known."""
    fill, chance = fill_table(work)
    kinds = int(work.nodes.kind.max(initial=-1)) + 1
    price = np.zeros((kinds, 1001)) if price is None else price
    bid = np.zeros((len(work.count), kinds)) if bid is None else bid
    return Tables(*work.typical, fill, chance, price, bid)
