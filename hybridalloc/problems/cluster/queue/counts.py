"""What a round counts: what ran, who ended and how long that took, by which metrics are folded."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from games.congestion import Bool, Float, Int
from hybridalloc.problems.cluster.queue.setups import Setup
from hybridalloc.problems.contract import Facts
from hybridalloc.problems.metrics import RAW_VIOLATION, Jain, Last, Metric, Quantile, Ratio

if TYPE_CHECKING:
    from hybridalloc.problems.cluster.queue.world import QueueWorld

JOULES_IN_KWH = 3.6e6


def counts_of(
    world: QueueWorld, ended: Bool, started: Bool, end_s: Float, lost: Float, ran: Float, rate: Float, units: Int
) -> Facts:
    """A round's facts from (E, N): who ended and started, when, s lost and run, at what rate, on how many units."""
    a, round_s = world.at, world.problem.round_s
    elapsed = world.after - world.clock
    stays = np.where(ended, end_s - world.clock[:, None], elapsed[:, None]) * world.there
    measured = ended & a["measured"]
    hours = np.where(measured, (end_s - a["came"]) / 3600, np.nan)
    ratio = hours / np.maximum(a["own"], 1e-9)
    dated = measured & np.isfinite(a["due"])
    total = round_s * world.units.sum(1)
    arrived, outside = world.arrived(), world.outside()
    there = world.there.sum(1).astype(float) + outside
    came = (arrived - world.counted).astype(float)
    world.counted[:] = arrived
    watts = world.watts[world.setup.pool][np.maximum(a["place"] - 1, 0)] if len(world.setup.pool) else 0.0 * ran
    counts = {
        "ended": measured.sum(1).astype(float), "hours": np.nansum(hours, 1), "hours_of": hours, "ratio_of": ratio,
        "ratio": np.nansum(ratio, 1), "own": np.where(measured, a["own"], 0.0), "took": np.nan_to_num(hours),
        "held": (units * round_s).sum(1),
        "used": (units * ran * np.minimum(rate / _best(world), 1.0)).sum(1), "total": total,
        "work": (units * ran * rate).sum(1),
        "started": started.sum(1).astype(float), "done": ended.sum(1).astype(float),
        "there": there, "came": came,
        "job_hours": stays.sum(1) / 3600 + outside * elapsed / 3600,
        "late": (dated & (end_s > a["due"])).sum(1).astype(float),
        "dated": dated.sum(1).astype(float), "joules": (watts * units * (lost + ran)).sum(1),
        "makespan": world.last_end / 3600,
    }  # fmt: skip
    for c in range(len(world.setup.classes)):
        mine = measured & (a["label"] == c)
        counts |= {f"ended_{c}": mine.sum(1).astype(float), f"hours_{c}": np.where(mine, hours, 0.0).sum(1)}
    zero = np.zeros(stays.shape)
    return Facts(-stays / 3600, zero, zero[..., None], elapsed, counts, ended)


def _best(world: QueueWorld) -> Float:
    """(E, N) what a job that runs at full pace at the place it is at does."""
    place = np.maximum(world.at["place"] - 1, 0)
    speed = np.take_along_axis(world.speed, place[..., None], 2)[..., 0] if world.speed.shape[2] else place
    return np.where(speed > 0, speed, 1.0)


def metrics_of(setup: Setup, unit: str, dated: bool) -> tuple[Metric, ...]:
    """A setup's metrics; completion times in ``unit``, h or min."""
    by = 60.0 if unit == "min" else 1.0
    rows = [
        Metric("jct", "completion time", unit, "lower", Ratio("hours", "ended", by)),
        Metric("used", "units that do useful work", "%", "higher", Ratio("used", "total", 100)),
        Metric("work", "work done, of what all units would do at speed 1", "%", "higher", Ratio("work", "total", 100)),
        Metric("held", "units held", "%", "higher", Ratio("held", "total", 100)),
        Metric("jct_p95", "completion time, 95th percentile", unit, "lower", Quantile("hours_of", 0.95, by)),
        Metric("jct_p99", "completion time, 99th percentile", unit, "lower", Quantile("hours_of", 0.99, by)),
        *(
            Metric(f"jct_{c}", f"completion time: {name}", unit, "lower", Ratio(f"hours_{c}", f"ended_{c}", by))
            for c, name in enumerate(setup.classes)
        ),
        Metric("flow", "time there a job that came", unit, "lower", Ratio("job_hours", "came", by)),
        Metric("worst", "worst finish-time ratio", "", "lower", Quantile("ratio_of", 1.0)),
        Metric("ratio", "finish-time ratio", "", "lower", Ratio("ratio", "ended")),
        Metric("jain", "Jain's index of own time over time taken", "", "higher", Jain("own", "took")),
        Metric("makespan", "makespan", "h", "lower", Last("makespan")),
        Metric("there", "jobs there", "", "lower", Ratio("there")),
        Metric("starts", "starts a job", "", "lower", Ratio("started", "done")),
    ]
    if setup.watts.any():
        rows.append(Metric("energy", "energy a job", "kWh", "lower", Ratio("joules", "done", 1 / JOULES_IN_KWH)))
    if dated:
        rows.append(Metric("late", "deadlines missed", "%", "lower", Ratio("late", "dated", 100)))
    return (*rows, RAW_VIOLATION)
