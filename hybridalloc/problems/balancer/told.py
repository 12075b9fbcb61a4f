"""A world's requests and replicas as a state's truth, and a simulator that goes on from it."""

from __future__ import annotations

import numpy as np

from games.congestion import Int
from hybridalloc.problems.balancer.replica import cached
from hybridalloc.problems.balancer.sim import (
    BLOCK,
    JOINING,
    NEVER,
    NEXT_SCRAPE,
    NOW,
    OWN_KV,
    OWN_TOKENS,
    OWN_WAITING,
    PHASES,
    REQUESTS,
    SCRAPES,
    Law,
    Sim,
    Table,
    Trace,
    new_sim,
)
from hybridalloc.problems.balancer.state import JOINS, QUEUES, RUNS, BalancerState, BalancerTruth


def truth_of(sim: Sim, who: Int, d: int) -> BalancerTruth:
    """What is true of a world now; ``who`` (N,) are the requests that wait to be sent, -1 for none, at dispatcher
    ``d``, which a state calls 0."""
    replicas, lines, requests, trace = sim.replicas, sim.lines, sim.requests, sim.trace
    size, rows = lines.queue.shape[1], []
    for r in range(len(replicas.end)):
        rows += [(r, RUNS, int(i)) for i in lines.running[r, : replicas.runs[r]]]
        rows += [(r, JOINS, int(i)) for i in lines.joining[r, : replicas.joins[r]]]
        rows += [(r, QUEUES, int(lines.queue[r, k % size])) for k in range(replicas.head[r], replicas.tail[r])]
    place, stage, i = np.array(rows, np.int64).reshape(-1, 3).T
    made = requests.made[i] + np.where(stage == RUNS, replicas.step[place] - requests.from_step[i], 0)
    left = np.where(stage == QUEUES, -1.0, 0.0)
    begun = (stage == QUEUES) & (replicas.partial[place] == i)
    left[begun] = requests.left[i][begun]
    known = np.array([cached(int(r), int(k), trace, sim.prefixes) for r, k in zip(place, i, strict=True)])
    never = lambda x: np.where(x < NEVER, x, -1.0)
    first, owner = requests.first[i], trace.dispatcher[i]
    owner = np.where(owner == d, 0, np.where(owner == 0, d, owner))
    return BalancerTruth(
        output=np.where(who >= 0, trace.output[np.maximum(who, 0)], 0), up=replicas.up.copy(),
        slow=replicas.slow.copy(), began_s=replicas.begun.copy(), ends_s=never(replicas.end),
        iteration_s=replicas.iteration_s.copy(), news_s=never(replicas.known_at), place=place, stage=stage,
        prompt=trace.prompt[i], length=trace.output[i], made=made, left=left, thought=requests.hit[i],
        cached=known.astype(float), owner=owner, came_s=trace.arrival[i], first_s=np.where(np.isnan(first), -1.0,
    first), )  # fmt: skip


def presumed(state: BalancerState, output: float) -> BalancerTruth:
    """What is true where nobody says: the reports, every request like the mean one, half through."""
    n, r = len(state.prompt), len(state.share)
    rows = []
    for k in range(r):
        many = int(min(state.told_running[k], 1000))
        rows += [(k, RUNS, max(state.told_kv[k] / many - output / 2, 1.0)) for _ in range(many)]
        rows += [(k, QUEUES, max(state.mean_prompt, 1.0)) for _ in range(int(min(state.told_waiting[k], 1000)))]
    place, stage, prompt = np.array(rows, float).reshape(-1, 3).T
    m, whole = len(place), max(int(output), 1)
    runs = stage == RUNS
    busy = np.isin(np.arange(r), place)
    return BalancerTruth(
        output=np.full(n, whole), up=state.up.copy(), slow=np.ones(r), began_s=np.full(r, state.time_s),
        ends_s=np.where(busy, state.time_s + state.told_iteration_s / 2, -1.0),
        iteration_s=state.told_iteration_s.copy(), news_s=np.full(r, -1.0), place=place.astype(int),
        stage=stage.astype(int), prompt=np.round(prompt), length=np.full(m, whole), made=np.where(runs & (whole > 1),
        max(whole // 2, 1), 0).astype(float), left=np.where(runs, 0.0, -1.0), thought=np.zeros(m), cached=np.zeros(m),
        owner=np.zeros(m, int), came_s=np.full(m, state.time_s), first_s=np.where(runs, state.time_s, -1.0),
    )  # fmt: skip


def resume(state: BalancerState, truth: BalancerTruth, law: Law, fleet: Table, future: Trace, output: float) -> Sim:
    """A simulator in which the replicas are as ``truth`` has it and the state's requests wait, and ``future`` comes.

    Requests are numbered: those at the replicas, those that wait (``len(truth.place)`` on), then the future's.
    """
    m, n, r = len(truth.place), len(state.prompt), len(state.share)
    waits = np.where(state.active, state.prompt, 1.0)
    here = np.zeros((m + n, r))
    here[np.arange(m), truth.place] = truth.cached
    here[m:] = state.hit
    known = np.ceil(here / BLOCK).astype(np.int64)  # blocks of its own that each replica has of each request
    blocks = known.max(axis=1, initial=0)
    first = np.concatenate([[0], np.cumsum(blocks)])
    own = int(first[-1])
    trace = Trace(
        np.concatenate([truth.came_s, state.time_s - state.waited_s, future.arrival]),
        np.concatenate([truth.prompt, waits, future.prompt]),
        np.concatenate([truth.length, np.maximum(truth.output, 1), future.output]),
        np.concatenate([truth.owner, np.zeros(n, np.int64), future.dispatcher]),
        np.concatenate([first, own + future.first[1:]]),
        np.concatenate([np.arange(own), own + future.block]).astype(np.int32),
    )  # fmt: skip
    sim = new_sim(law, trace, fleet, np.random.default_rng(0), output=output)
    sim.counts[0] = m + n  # they have come
    sim.clock[NOW] = state.time_s
    if law.scrape_s > 0:  # on with the scrapes
        sim.counts[SCRAPES] = int(np.ceil(state.time_s / law.scrape_s * PHASES))
        sim.clock[NEXT_SCRAPE] = sim.counts[SCRAPES] * law.scrape_s / PHASES
    replicas, requests = sim.replicas, sim.requests
    replicas.up[:], replicas.known_up[:], replicas.slow[:] = truth.up, state.up, truth.slow
    replicas.begun[:], replicas.iteration_s[:] = truth.began_s, truth.iteration_s
    replicas.end[:] = np.where(truth.ends_s < 0, NEVER, truth.ends_s)
    replicas.known_at[:] = np.where(truth.news_s < 0, NEVER, truth.news_s)
    requests.made[:m], requests.hit[:m] = truth.made, truth.thought
    requests.first[:m] = np.where(truth.first_s < 0, np.nan, truth.first_s)
    requests.place[:m], requests.sent[:m] = truth.place, truth.came_s
    for i in range(m):
        _seat(sim, i, int(truth.place[i]), int(truth.stage[i]), float(truth.left[i]))
    _keep(sim, known, first)
    return sim


def _seat(sim: Sim, i: int, r: int, stage: int, left: float) -> None:
    """Request i is where it is at replica r."""
    replicas, lines, requests, trace = sim.replicas, sim.lines, sim.requests, sim.trace
    held = trace.prompt[i] + requests.made[i]
    own = sim.dispatchers.own[trace.dispatcher[i], r]
    own[REQUESTS] += 1
    if np.isnan(requests.first[i]):
        own[OWN_TOKENS] += trace.prompt[i] - requests.hit[i]
        own[OWN_WAITING] += 1
    else:
        own[OWN_KV] += trace.prompt[i]
    if stage == RUNS:
        lines.running[r, replicas.runs[r]] = i
        replicas.runs[r] += 1
        requests.done_step[i] = trace.output[i] - int(requests.made[i])
        replicas.least[r] = min(replicas.least[r], requests.done_step[i])
        replicas.kv[r] += held
    elif stage == JOINS:
        lines.joining[r, min(replicas.joins[r], JOINING - 1)] = i
        replicas.joins[r] += 1
        replicas.kv[r] += held
    else:
        lines.queue[r, replicas.tail[r] % lines.queue.shape[1]] = i
        if left >= 0:
            replicas.partial[r] = i
            replicas.kv[r] += held
            requests.left[i] = left
        replicas.waiting_tokens[r] += left if left >= 0 else held
        replicas.tail[r] += 1


def _keep(sim: Sim, known: Int, first: Int) -> None:
    """Each replica has the first ``known`` (.., R) blocks of each request."""
    prefixes = sim.prefixes
    newest = prefixes.has.shape[1] - 2
    for i, r in zip(*np.nonzero(known), strict=True):
        for k in range(int(first[i]), int(first[i]) + int(known[i, r])):
            prefixes.has[r, k] = True
            prefixes.kept[r] += 1
            follows = prefixes.after[r, newest]
            prefixes.after[r, newest], prefixes.before[r, k] = k, newest
            prefixes.after[r, k], prefixes.before[r, follows] = follows, k


def no_future() -> Trace:
    """Nobody comes."""
    whole = np.zeros(0, np.int64)
    return Trace(np.zeros(0), np.zeros(0), whole, whole, np.zeros(1, np.int64), np.zeros(0, np.int32))
