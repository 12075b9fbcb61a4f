"""What a fleet of replicas is, at one moment, as plain arrays: what the compiled core reads and writes.

Q requests in order of arrival, R replicas, D dispatchers, B blocks of prefixes, S snapshots kept. Tokens are tokens,
times are s since the trace began. A replica serves by iterations (continuous batching): each takes a chunk of prompts
from the head of its queue and one token of every running request; what it did becomes visible when it ends.

Source of the model: Kwon et al. (2023), "Efficient memory management for large language model serving with
PagedAttention"; Agrawal et al. (2024), "Taming throughput-latency tradeoff in LLM inference with Sarathi-Serve"
(chunked prefill). Its times are affine in what an iteration does; the constants are plausible ones, not measured.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from games.congestion import Bool, Float, Int

Short = NDArray[np.int32]
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
# of the clock and of the counts
NOW, NEXT_SCRAPE, ENDED = range(3)
ARRIVED, EVENT, SCRAPES, WAITS, DONE, PREEMPTED, RETRIED, HELD, REFUSED = range(9)
LATE_AT = 32  # requests whose first tokens a replica remembers, by how many it had then: what a probe is told


class Trace(NamedTuple):
    """Requests. ``block[first[i] : first[i + 1]]`` are the blocks of request i's prompt, in order."""

    arrival: Float  # (Q,)
    prompt: Float  # (Q,) tokens
    output: Int  # (Q,) tokens; nobody knows it beforehand
    dispatcher: Int  # (Q,) whose it is
    first: Int  # (Q + 1,)
    block: Short


class Fleet(NamedTuple):
    """What each replica can do: (R,).

    An iteration with p prompt tokens at mean context c, n running requests and k tokens in KV memory takes
    ``slow (base_s + p (1 + attention c) / prefill + request_s n + token_s k)``.
    """

    prefill: Float  # tokens/s
    base_s: Float
    request_s: Float
    token_s: Float
    attention: Float
    kv: Float  # tokens that fit
    seats: Int  # requests that run together
    chunk: Float  # prompt tokens an iteration, less those that run
    blocks: Int  # of prefixes that are kept, beside the KV memory
    share: Float  # of the fleet's capacity, as operators know it


class Law(NamedTuple):
    """How requests, reports and failures reach whom."""

    dispatchers: int = 1
    scrape_s: float = 0.0  # period of a dispatcher's scrapes; 0: reports are always fresh
    late_s: float = 0.0  # a report is that old when it arrives
    detect_s: float = 0.5  # until dispatchers know that a replica is down, or up again
    hold_s: float = 0.1  # until a request that is held is decided again
    gather_s: float = 0.0  # dispatchers decide at multiples of it; 0: as requests come
    exact_index: bool = True  # what is cached where is told (as by KV events); otherwise each knows what it sent


class Replicas(NamedTuple):
    """(R, ...) what they are at."""

    up: Bool
    known_up: Bool  # as dispatchers have it
    known_at: Float  # when they will hear otherwise; NEVER where there is nothing to hear
    slow: Float
    begun: Float  # of the iteration in progress
    end: Float  # NEVER where none is
    step: Int  # iterations done
    queue: Short  # (R, capacity) ring: from head to tail
    head: Int
    tail: Int
    partial: Int  # the request at the head whose prompt is begun, -1 without
    joining: Short  # (R, JOINING) whose prompts end with this iteration
    joins: Int
    running: Short  # (R, seats)
    runs: Int
    least: Int  # iteration at whose end the next of them is done
    kv: Float  # tokens held
    waiting_tokens: Float  # of prompts, not begun or in part
    iteration_s: Float  # running mean
    busy_s: Float
    first_s: Float  # (R, LATE_AT) running mean of the time to first token, by requests there when it came; 0: none yet


class Requests(NamedTuple):
    """(Q,) what became of them. ``first`` and ``last`` are when the first and the last token came, NaN before."""

    left: Float  # prompt tokens still to do
    made: Float  # tokens made when its run began
    from_step: Int  # its run began at the end of that iteration of its replica
    done_step: Int  # its run ends with that one
    hit: Float  # prompt tokens that were thought to be cached when it was sent
    found: Float  # that were, when it was admitted
    place: Int  # -1: nowhere
    there: Int  # requests at its replica when it came
    tries: Int
    sent: Float
    first: Float
    last: Float


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


class Dispatchers(NamedTuple):
    own: Float  # (D, R, OWNED) in flight: requests, prompt tokens before their first token, prompts after it, before it
    gap_s: Float  # (D,) running mean between two requests
    last_s: Float  # (D,) when the last came
    prompt: Float  # (D,) running mean of prompts
    output: Float  # (D,) of outputs


class Changes(NamedTuple):
    """What happens to replicas: at, which, and what: 0 goes down, -1 comes up, otherwise it is so much slower."""

    at: Float
    replica: Int
    value: Float


class Heap(NamedTuple):
    """Requests that wait at dispatchers, by when they are decided: the least of (due, dispatcher, request) first."""

    due: Float
    owner: Int
    request: Int


class Spare(NamedTuple):
    """Where a replica is kept while it is run ahead; see :func:`hybridalloc.problems.balancer.ahead.foresee`."""

    request: Int
    number: Int  # (Q, 2)
    amount: Float  # (Q, 3)


class Sim(NamedTuple):
    """All of one world."""

    law: Law
    trace: Trace
    fleet: Fleet
    replicas: Replicas
    requests: Requests
    prefixes: Prefixes
    reports: Reports
    dispatchers: Dispatchers
    changes: Changes
    heap: Heap
    spare: Spare
    clock: Float
    counts: Int


NO_CHANGES = Changes(np.zeros(0), np.zeros(0, np.int64), np.zeros(0))


def new_sim(
    law: Law, trace: Trace, fleet: Fleet, rng: np.random.Generator, changes: Changes = NO_CHANGES, output: float = 100.0
) -> Sim:
    """An idle fleet before its first request.

    Args:
        rng: of the moments at which dispatchers scrape. output: tokens that dispatchers expect of a request at first.
    """
    q, r, d = len(trace.arrival), len(fleet.prefill), law.dispatchers
    b = int(trace.block.max(initial=-1)) + 1
    f = lambda *shape: np.zeros(shape)
    whole = lambda *shape: np.zeros(shape, np.int64)
    short = lambda *shape: np.zeros(shape, np.int32)
    capacity, seats = q + 8, int(fleet.seats.max(initial=1)) + JOINING
    replicas = Replicas(
        up=np.ones(r, bool), known_up=np.ones(r, bool), known_at=np.full(r, NEVER), slow=np.ones(r), begun=f(r),
        end=np.full(r, NEVER), step=whole(r), queue=short(r, capacity), head=whole(r) + capacity,
        tail=whole(r) + capacity, partial=whole(r) - 1, joining=short(r, JOINING), joins=whole(r),
        running=short(r, seats), runs=whole(r), least=whole(r) + 2**62, kv=f(r), waiting_tokens=f(r),
        iteration_s=fleet.base_s.copy(), busy_s=f(r), first_s=f(r, LATE_AT),
    )  # fmt: skip
    requests = Requests(
        left=f(q), made=f(q), from_step=whole(q), done_step=whole(q), hit=f(q), found=f(q), place=whole(q) - 1,
        there=whole(q), tries=whole(q), sent=np.full(q, np.nan), first=np.full(q, np.nan), last=np.full(q, np.nan),
    )  # fmt: skip
    after, before = short(r, b + 2), short(r, b + 2)
    after[:, b], before[:, b + 1] = b + 1, b
    index = (d, r, b) if not law.exact_index else (0, 0, 0)
    prefixes = Prefixes(
        np.zeros((r, b + 2), bool), after, before, whole(r), np.full(index, -(2**30), np.int32), whole(d, r)
    )  # fmt: skip
    phase = rng.integers(0, PHASES, (d, r))
    reports = Reports(np.full(SNAPSHOTS, NEVER), f(SNAPSHOTS, r, REPORTED), f(SNAPSHOTS, d, r, OWNED), phase)
    mean = float(trace.prompt.mean()) if q else 0.0
    dispatchers = Dispatchers(f(d, r, OWNED), f(d), f(d), f(d) + mean, f(d) + output)
    spare = Spare(whole(q + seats), whole(q + seats, 2), f(q + seats, 3))
    clock = np.array([0.0, 0.0 if law.scrape_s > 0 else NEVER, 0.0])
    for k in np.flatnonzero((changes.at <= 0) & (changes.value == 0)):  # down from the start, and known to be
        replicas.up[changes.replica[k]] = replicas.known_up[changes.replica[k]] = False
    to_come = changes.at > 0
    later = Changes(changes.at[to_come], changes.replica[to_come], changes.value[to_come])
    heap = Heap(f(q + 1), whole(q + 1), whole(q + 1))
    return Sim(
        law, trace, fleet, replicas, requests, prefixes, reports, dispatchers, later, heap, spare, clock, whole(9)
    )  # fmt: skip
