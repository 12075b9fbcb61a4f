"""A simulator as arrays by name and back, and a future that is drawn anew."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from hybridalloc.problems.balancer.sim import ARRIVED, NOW, Sim, table


def flat(parts: Mapping[str, Any], at: str = "") -> dict[str, Any]:
    """Copies of every array and number of nested named tuples and tables, by path such as "sim/replicas/queue"."""
    out: dict[str, Any] = {}
    for name, value in parts.items():
        if hasattr(value, "_asdict"):
            out |= flat(value._asdict(), f"{at}{name}/")
        elif isinstance(value, np.recarray):
            out |= {f"{at}{name}/{column}": np.array(value[column]) for column in value.dtype.names}
        else:
            out[f"{at}{name}"] = np.array(value)
    return out


def rebuilt(like: Mapping[str, Any], kept: Mapping[str, Any], at: str = "") -> dict[str, Any]:
    """What :func:`flat` gave, as the named tuples of ``like``.

    Raises:
        ValueError: an array is missing or of another kind; names it.
    """
    out: dict[str, Any] = {}
    for name, value in like.items():
        path = f"{at}{name}"
        if hasattr(value, "_asdict"):
            out[name] = type(value)(**rebuilt(value._asdict(), kept, f"{path}/"))
            continue
        if isinstance(value, np.recarray):
            columns = rebuilt({column: np.array(value[column]) for column in value.dtype.names}, kept, f"{path}/")
            out[name] = table(value.dtype, len(columns[value.dtype.names[0]]), **columns)
            continue
        if path not in kept:
            raise ValueError(f"{path!r} is missing in a world's state")
        found, mine = np.array(kept[path]), np.asarray(value)
        if found.dtype != mine.dtype or found.ndim != mine.ndim:
            raise ValueError(f"{path} is of another kind: {found.dtype}, {found.ndim} axes")
        out[name] = found if isinstance(value, np.ndarray) else found.item()
    return out


def redraw(sim: Sim, rng: np.random.Generator) -> None:
    """The requests that have not come yet come in another order, at other times, to other dispatchers."""
    trace, k = sim.trace, int(sim.counts[ARRIVED])
    left = len(trace.arrival) - k
    if left < 1:
        return
    order = k + rng.permutation(left)
    gaps = np.diff(np.concatenate([[max(sim.clock[NOW], trace.arrival[k - 1] if k else 0.0)], trace.arrival[k:]]))
    mean = float(gaps.mean())
    trace.arrival[k:] = trace.arrival[k] - gaps[0] + np.cumsum(rng.exponential(max(mean, 1e-6), left))
    spans = [trace.block[trace.first[i] : trace.first[i + 1]].copy() for i in order]
    trace.prompt[k:], trace.output[k:] = trace.prompt[order], trace.output[order]
    trace.dispatcher[k:] = rng.integers(0, sim.law.dispatchers, left)
    at = int(trace.first[k])
    for j, span in enumerate(spans):
        trace.block[at : at + len(span)] = span
        at += len(span)
        trace.first[k + j + 1] = at
