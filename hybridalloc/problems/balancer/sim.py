"""What a fleet of replicas is, at one moment, as plain arrays: what the compiled core reads and writes.

Q requests in order of arrival, R replicas, D dispatchers, B blocks of prefixes, S snapshots kept. Tokens are tokens,
times are s since the trace began. A replica serves by iterations (continuous batching): each takes a chunk of prompts
from the head of its queue and one token of every running request; what it did becomes visible when it ends.

Source of the model: Kwon et al. (2023), "Efficient memory management for large language model serving with
PagedAttention"; Agrawal et al. (2024), "Taming throughput-latency tradeoff in LLM inference with Sarathi-Serve"
(chunked prefill). Its times are affine in what an iteration does; the constants are plausible ones, not measured.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from games.congestion import Bool, Float, Int

Short = NDArray[np.int32]
Table = Any  # np.recarray: a column is an attribute
NEVER = 1e18  # s: what does not come
BLOCK = 512  # tokens of a prefix block
JOINING = 64  # prompts that one iteration can finish
SNAPSHOTS = 64  # of the fleet that are kept: how late a report may be, in scrapes by PHASES
PHASES = 4  # a scrape period has so many moments; each dispatcher scrapes each replica at one of them
# what a replica reports, and what a dispatcher knows of its own at a replica
WAITING, RUNNING, KV, TOKENS, ITERATION_S = range(5)
REPORTED = 5
REQUESTS, OWN_TOKENS, OWN_KV, OWN_WAITING = range(4)
OWNED = 4
# of the clock and of the counts; AHEAD is 1 while a replica is run ahead
NOW, NEXT_SCRAPE, ENDED = range(3)
ARRIVED, EVENT, SCRAPES, WAITS, DONE, PREEMPTED, RETRIED, HELD, REFUSED, AHEAD = range(10)
LATE_AT = 32  # requests whose first tokens a replica remembers, by how many it had then: what a probe is told


class Trace(NamedTuple):
    """Requests. ``block[first[i] : first[i + 1]]`` are the blocks of request i's prompt, in order."""

    arrival: Float  # (Q,)
    prompt: Float  # (Q,) tokens
    output: Int  # (Q,) tokens; nobody knows it beforehand
    dispatcher: Int  # (Q,) whose it is
    first: Int  # (Q + 1,)
    block: Short


def rows_of(**kinds: Any) -> np.dtype[Any]:
    """The kind of a table, one record a row. One table is one argument of a compiled function where its columns, each
    an array, would be many: they are most of the time that compiling takes."""
    return np.dtype((np.record, np.dtype(list(kinds.items()), align=True)))


def table(kind: np.dtype[Any], size: int, **columns: Any) -> Table:
    """So many rows, 0 where no column is given."""
    out = np.zeros(size, kind).view(np.recarray)
    for name, values in columns.items():
        out[name] = values
    return out


def changed(rows: Table, **columns: Any) -> Table:
    """A copy with other columns."""
    out = rows.copy()
    for name, values in columns.items():
        out[name] = values
    return out


# What each replica can do, (R,): prefill tokens/s; s of an iteration at least, by running request, by token in KV
# memory; attention; tokens that fit into KV memory; requests that run together; prompt tokens an iteration, less those
# that run; blocks of prefixes that are kept beside the KV memory; its share of the fleet's capacity, as is known.
#
# An iteration with p prompt tokens at mean context c, n running requests and k tokens in KV memory takes
# slow (base_s + p (1 + attention c) / prefill + request_s n + token_s k).
FLEET = rows_of(
    prefill=float, base_s=float, request_s=float, token_s=float, attention=float, kv=float, seats=int, chunk=float,
    blocks=int, share=float,
)  # fmt: skip


def new_fleet(**columns: Any) -> Table:
    """Replicas by their columns."""
    return table(FLEET, len(columns["prefill"]), **columns)


class Law(NamedTuple):
    """How requests, reports and failures reach whom."""

    dispatchers: int = 1
    scrape_s: float = 0.0  # period of a dispatcher's scrapes; 0: reports are always fresh
    late_s: float = 0.0  # a report is that old when it arrives
    detect_s: float = 0.5  # until dispatchers know that a replica is down, or up again
    hold_s: float = 0.1  # until a request that is held is decided again
    gather_s: float = 0.0  # dispatchers decide at multiples of it; 0: as requests come
    exact_index: bool = True  # what is cached where is told (as by KV events); otherwise each knows what it sent


# What each replica is at, (R,): whether it is up, and as dispatchers have it, who hear of it at known_at (NEVER where
# there is nothing to hear); the iteration in progress, end NEVER where none is; iterations done; its queue from head to
# tail; the request at the head whose prompt is begun, -1 without; how many prompts end with this iteration and how many
# requests run, and the iteration at whose end the next of them is done; tokens held, and of prompts that wait, in part
# or whole; the running mean of an iteration's time; s of work.
REPLICAS = rows_of(
    up=bool, known_up=bool, known_at=float, slow=float, begun=float, end=float, step=int, head=int, tail=int,
    partial=int, joins=int, runs=int, least=int, kv=float, waiting_tokens=float, iteration_s=float, busy_s=float,
)  # fmt: skip


class Lines(NamedTuple):
    """(R, ...) who is at each replica."""

    queue: Short  # (R, capacity) ring: from head to tail
    joining: Short  # (R, JOINING) whose prompts end with this iteration
    running: Short  # (R, seats)
    first_s: Float  # (R, LATE_AT) running mean of the time to first token, by requests there when it came; 0: none yet


# What became of each request, (Q,): prompt tokens still to do; tokens made when its run began, at the end of that
# iteration of its replica, and the one that it ends with; prompt tokens that were thought to be cached when it was
# sent, and that were when it was admitted; its replica, -1 without; requests there when it came; when it was sent, and
# when its first and its last token came, NaN before.
REQUEST = rows_of(
    left=float, made=float, from_step=int, done_step=int, hit=float, found=float, place=int, there=int, tries=int,
    sent=float, first=float, last=float,
)  # fmt: skip


class Prefixes(NamedTuple):
    """(R, B + 2) what each replica keeps: a list from the newest (after B) to the oldest (before B + 1)."""

    has: Bool
    after: Short
    before: Short
    kept: Int  # (R,)
    sent: Short  # (D, R, B) when a dispatcher last sent a block there, by its own count; of shape 0 with an exact index
    sends: Int  # (D, R) blocks it sent


class Reports(NamedTuple):
    at: Float  # (S,) when a snapshot was taken, NEVER before
    told: Float  # (S, R, REPORTED)
    own: Float  # (S, D, R, OWNED) what a dispatcher had there then
    phase: Int  # (D, R) at which it scrapes it


# What each dispatcher sees of its traffic, (D,): running mean of s between two requests, when the last came, running
# means of prompts and of outputs.
TRAFFIC = rows_of(gap_s=float, last_s=float, prompt=float, output=float)


class Dispatchers(NamedTuple):
    own: Float  # (D, R, OWNED) in flight: requests, prompt tokens before their first token, prompts after it, before it
    traffic: Table  # (D,) TRAFFIC


# What happens to replicas: at, which, and what: 0 goes down, -1 comes up, otherwise it is so much slower.
CHANGE = rows_of(at=float, replica=int, value=float)
# Requests that wait at dispatchers, a heap by when they are decided: the least of (due, dispatcher, request) first.
WAIT = rows_of(due=float, owner=int, request=int)
# Where a replica's requests are kept while it is run ahead; see :func:`hybridalloc.problems.balancer.ahead.foresee`.
KEPT = rows_of(request=int, from_step=int, done_step=int, left=float, made=float, found=float)


class Sim(NamedTuple):
    """All of one world."""

    law: Law
    trace: Trace
    fleet: Table  # (R,) FLEET
    replicas: Table  # (R,) REPLICAS
    lines: Lines
    requests: Table  # (Q,) REQUEST
    prefixes: Prefixes
    reports: Reports
    dispatchers: Dispatchers
    changes: Table  # CHANGE
    heap: Table  # (Q + 1,) WAIT
    spare: Table  # KEPT
    clock: Float
    counts: Int


NO_CHANGES = table(CHANGE, 0)


def new_sim(
    law: Law, trace: Trace, fleet: Table, rng: np.random.Generator, changes: Table = NO_CHANGES, output: float = 100.0
) -> Sim:
    """An idle fleet before its first request.

    Args:
        rng: of the moments at which dispatchers scrape. output: tokens that dispatchers expect of a request at first.
    """
    q, r, d = len(trace.arrival), len(fleet), law.dispatchers
    b = int(trace.block.max(initial=-1)) + 1
    f = lambda *shape: np.zeros(shape)
    whole = lambda *shape: np.zeros(shape, np.int64)
    short = lambda *shape: np.zeros(shape, np.int32)
    capacity, seats = q + 8, int(fleet.seats.max(initial=1)) + JOINING
    replicas = table(
        REPLICAS, r, up=True, known_up=True, known_at=NEVER, slow=1.0, end=NEVER, head=capacity, tail=capacity,
        partial=-1, least=2**62, iteration_s=fleet.base_s,
    )  # fmt: skip
    lines = Lines(short(r, capacity), short(r, JOINING), short(r, seats), f(r, LATE_AT))
    requests = table(REQUEST, q, place=-1, sent=np.nan, first=np.nan, last=np.nan)
    after, before = short(r, b + 2), short(r, b + 2)
    after[:, b], before[:, b + 1] = b + 1, b
    index = (d, r, b) if not law.exact_index else (0, 0, 0)
    prefixes = Prefixes(
        np.zeros((r, b + 2), bool), after, before, whole(r), np.full(index, -(2**30), np.int32), whole(d, r)
    )  # fmt: skip
    phase = rng.integers(0, PHASES, (d, r))
    reports = Reports(np.full(SNAPSHOTS, NEVER), f(SNAPSHOTS, r, REPORTED), f(SNAPSHOTS, d, r, OWNED), phase)
    mean = float(trace.prompt.mean()) if q else 0.0
    dispatchers = Dispatchers(f(d, r, OWNED), table(TRAFFIC, d, prompt=mean, output=output))
    clock = np.array([0.0, 0.0 if law.scrape_s > 0 else NEVER, 0.0])
    for k in np.flatnonzero((changes.at <= 0) & (changes.value == 0)):  # down from the start, and known to be
        replicas.up[changes.replica[k]] = replicas.known_up[changes.replica[k]] = False
    later = changes[changes.at > 0]
    return Sim(
        law, trace, fleet, replicas, lines, requests, prefixes, reports, dispatchers, later, table(WAIT, q + 1),
        table(KEPT, q + seats), clock, whole(10),
    )  # fmt: skip
