"""Which requests come to which fleet: a scenario's traces cut into episodes and brought to a load.

A load is a share of the fleet's capacity, which is measured: each kind of replica is given a queue that never ends, and
its steady completions a second count. Times between requests are scaled to it, so bursts are as deep as in the trace
but shorter or longer. What is tuned is tuned on the first half of a trace, and reported on the second.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np

from games.congestion import Float, Int
from hybridalloc.data import requests as traces
from hybridalloc.data.requests import Requests
from hybridalloc.problems.balancer.core import advance, send
from hybridalloc.problems.balancer.sim import CHANGE, Law, Sim, Table, Trace, changed, new_fleet, new_sim, table

SCENARIOS = ("synthetic", "azure", "mooncake")
CLASSES = ("fast", "mid", "slow")
PREFILL, BASE_S = (16_000.0, 8_000.0, 4_000.0), (0.018, 0.028, 0.040)  # tokens/s; s: plausible, not measured
MEMORY = {"long": (600e3, 400e3, 300e3), "short": (160e3, 100e3, 60e3)}  # tokens of KV memory by what prompts are
MIX = (0, 0, 1, 1, 1, 1, 2, 2)  # of eight replicas: two fast, four mid, two slow
SEATS, CHUNK = 128, 2048.0
DRIFT_S, DRIFT_SIZE, DRIFT_STAYS = 20.0, 0.35, 0.8  # speeds drift as an AR(1) process of log slowness


@cache
def requests_of(scenario: str) -> Requests:
    """A scenario's requests."""
    if scenario == "azure":
        return traces.azure()
    return traces.mooncake() if scenario == "mooncake" else traces.synthetic(count=20_000)


def classes_of(replicas: int, mix: str = "mixed") -> Int:
    """(R,) class of each replica: eight by eight two fast, four mid, two slow; or all mid."""
    pattern = np.array(MIX, np.int64)
    if mix == "equal":
        return np.ones(replicas, np.int64)
    return pattern[np.linspace(0, 7.999, replicas).astype(int)] if replicas < 8 else np.resize(pattern, replicas)


def fleet_of(scenario: str, kind: Int) -> Table:
    """Replicas of the classes ``kind`` (R,), their shares of the capacity as measured on the scenario's requests."""
    fleet = _constants(scenario, kind)
    rate = np.array([rate_of(scenario, int(k)) for k in kind])
    return changed(fleet, share=rate / rate.sum())


def _constants(scenario: str, kind: Int) -> Table:
    base = np.array(BASE_S)[kind]
    memory = np.array(MEMORY["long" if scenario == "mooncake" else "short"])[kind]
    blocks = (memory * 4 / 512 if scenario == "mooncake" else memory / 512).astype(np.int64)
    whole = np.full(len(kind), SEATS, np.int64)
    return new_fleet(
        prefill=np.array(PREFILL)[kind], base_s=base, request_s=0.004 * base, token_s=2e-6 * base,
        attention=np.full(len(kind), 1 / 53_000), kv=memory, seats=whole, chunk=np.full(len(kind), CHUNK),
        blocks=blocks, share=np.full(len(kind), 1.0 / max(len(kind), 1)),
    )  # fmt: skip


@cache
def rate_of(scenario: str, kind: int, count: int = 1500) -> float:
    """Requests/s that one replica of a class completes when there is always another: of every eighth of the trace."""
    q = requests_of(scenario)
    picked = np.arange(0, len(q.at), 8)[:count]
    trace = trace_of(q, picked, np.zeros(len(picked)), np.zeros(len(picked), np.int64))
    sim = new_sim(Law(), trace, _constants(scenario, np.array([kind])), np.random.default_rng(0))
    while (i := advance(sim)) >= 0:
        send(sim, i, 0)
    done, n = np.sort(sim.requests.last), len(picked)
    return float(0.8 * n / (done[int(0.9 * n)] - done[int(0.1 * n)]))


def trace_of(q: Requests, picked: Int, at: Float, dispatcher: Int) -> Trace:
    """Some of the requests, in order, as a simulator's trace; their blocks numbered from 0."""
    spans = [q.block[q.first[i] : q.first[i + 1]] for i in picked]
    first = np.concatenate([[0], np.cumsum([len(s) for s in spans])]).astype(np.int64)
    block = np.concatenate(spans) if spans else np.zeros(0, np.int64)
    _, numbered = np.unique(block, return_inverse=True)
    return Trace(
        at.astype(np.float64), q.prompt[picked].astype(np.float64), q.output[picked].copy(),
        dispatcher.astype(np.int64), first, numbered.astype(np.int32),
    )  # fmt: skip


class Episode(NamedTuple):
    """What an episode is made of.

    Attributes:
        load: of the fleet's capacity. requests: how many. held_out: from the second half of the trace, not the first.
        start: where in its half it is cut, from 0 to 1. sticky: a session's requests come to one dispatcher; otherwise
        any.
    """

    load: float
    requests: int
    held_out: bool
    start: float
    sticky: bool = False


def cut(scenario: str, episode: Episode, capacity: float, dispatchers: int, rng: np.random.Generator) -> Trace:
    """An episode's trace; ``capacity`` in requests/s."""
    q, n = requests_of(scenario), episode.requests
    half = len(q.at) // 2
    low, high = (half, len(q.at) - n) if episode.held_out else (0, half - n)
    k = low + int(max(high - low, 0) * episode.start)
    picked = np.arange(k, min(k + n, len(q.at)))
    at = q.at[picked] - q.at[k]
    at = at * (len(picked) / max(at[-1], 1e-9)) / (episode.load * capacity)
    whose = rng.integers(0, dispatchers, len(picked))
    if episode.sticky and len(q.block):
        second = np.minimum(q.first[picked] + 1, np.maximum(q.first[picked + 1] - 1, 0))
        named = np.where(q.first[picked + 1] > q.first[picked], q.block[second], picked)
        whose = (named * 2654435761 % 97) % dispatchers
    return trace_of(q, picked, at, whose)


def capacity_of(scenario: str, kind: Int) -> float:
    """Requests/s of a whole fleet, as measured."""
    return float(sum(rate_of(scenario, int(k)) for k in kind))


def drifting(replicas: int, until_s: float, rng: np.random.Generator) -> Table:
    """Speeds that wander: a new slowness every 20 s, e to the power of an AR(1) process of size .35."""
    rows: list[tuple[float, int, float]] = []
    for r in range(replicas):
        x, t = rng.normal() * DRIFT_SIZE, 1e-6
        while t < until_s:
            rows.append((t, r, float(np.exp(x))))
            x = DRIFT_STAYS * x + np.sqrt(1 - DRIFT_STAYS**2) * DRIFT_SIZE * rng.normal()
            t += DRIFT_S
    return changes_of(rows)


def changes_of(rows: list[tuple[float, int, float]]) -> Table:
    """(when, which replica, what) as a table, in order."""
    rows = sorted(rows)
    columns = zip(*rows, strict=True) if rows else ((), (), ())
    return table(CHANGE, len(rows), **dict(zip(("at", "replica", "value"), columns, strict=True)))


@cache
def expected_output(scenario: str) -> float:
    """Tokens that a request makes on average, by the first half of the trace."""
    q = requests_of(scenario)
    return float(q.output[: len(q.output) // 2].mean())


def sim_of(
    scenario: str, kind: Int, law: Law, episode: Episode, seed: int, changes: Table | None = None, drift: bool = False
) -> Sim:
    """A fleet before the first request of an episode."""
    rng = np.random.default_rng([seed, 7])
    fleet = fleet_of(scenario, kind)
    trace = cut(scenario, episode, capacity_of(scenario, kind), law.dispatchers, rng)
    if changes is None:
        changes = drifting(len(kind), float(trace.arrival[-1]), rng) if drift else changes_of([])
    return new_sim(law, trace, fleet, rng, changes, expected_output(scenario))
