"""The balancer's compiled simulator: event by event what a plain one does, and nothing is lost or served twice."""

from __future__ import annotations

import numpy as np
import pytest

from hybridalloc.problems.balancer.ahead import foresee
from hybridalloc.problems.balancer.core import advance, gathered, hold, look, new_view, send
from hybridalloc.problems.balancer.sim import DONE, PREEMPTED, RETRIED, Law, Trace, new_fleet, new_sim
from hybridalloc.problems.balancer.workload import changes_of
from tests.hybridalloc.balancer_reference import Reference, close


def small(law, seed, changes=None, requests=60, kv=4000.0, spread=0.12, shared=True):
    """A small fleet in which memory is short, prompts share prefixes and replicas are unequal."""
    rng = np.random.default_rng(seed)
    q, r = requests, 3
    whole = lambda x: np.asarray(x, np.int64)
    blocks = rng.integers(0, 3, q) * shared
    session = rng.integers(0, 6, q)
    block = np.concatenate([4 * session[i] + np.arange(blocks[i]) for i in range(q)])
    prompt, output = np.round(rng.uniform(20, 400, q)) + 512.0 * blocks, whole(rng.integers(1, 300, q))
    output[::9] = 1
    at = np.cumsum(rng.exponential(spread, q))
    at[5:9] = at[5]  # four at once
    trace = Trace(
        at, prompt, output, whole(rng.integers(0, law.dispatchers, q)),
        whole(np.concatenate([[0], np.cumsum(blocks)])), block.astype(np.int32),
    )  # fmt: skip
    f = lambda *x: np.resize(np.array(x, float), r)
    fleet = new_fleet(
        prefill=f(9000, 5000, 3000), base_s=f(0.01, 0.02, 0.03), request_s=1e-4, token_s=1e-7, attention=1 / 5000,
        kv=f(kv, kv, kv * 0.6), seats=[6, 40, 40], chunk=f(512, 300, 2048), blocks=[3, 9, 0], share=1 / r,
    )  # fmt: skip
    return new_sim(law, trace, fleet, rng, changes_of([]) if changes is None else changes)


FAILURES = changes_of([(1.3, 0, 0.0), (2.0, 1, 3.0), (3.1, 0, -1.0), (3.4, 2, 0.0), (4.5, 1, 0.7), (6.0, 2, -1.0)])
WORLDS = {
    "fresh": Law(),
    "scraped": Law(4, 0.4),
    "late": Law(3, 0.2, 0.35),
    "own index": Law(3, 0.5, exact_index=False),
    "gathered": Law(2, 0.3, gather_s=0.25),
}


@pytest.mark.parametrize("failing", [False, True], ids=["up", "failing"])
@pytest.mark.parametrize("name", WORLDS)
def test_it_is_what_a_plain_simulator_does_event_by_event(name, failing):
    law, preempted = WORLDS[name], 0
    for seed in range(3):
        sim = small(law, seed, FAILURES if failing else None)
        plain = Reference(small(law, seed, FAILURES if failing else None))
        rng = np.random.default_rng(seed)
        view = new_view(3)
        while (i := advance(sim)) >= 0:
            q = plain.next_decision()
            assert (q.number, plain.now) == (i, pytest.approx(sim.clock[0], rel=1e-12))
            look(sim, i, view)
            for r, (age, told, then, own, hit, up) in enumerate(plain.seen(q)):
                assert close(view.age_s[r], age) and close(view.hit[r], hit) and view.up[r] == up
                np.testing.assert_allclose(view.told[r], told, rtol=1e-9, atol=1e-6)
                np.testing.assert_allclose(view.then[r], then, rtol=1e-9, atol=1e-6)
                np.testing.assert_allclose(view.own[r], own, rtol=1e-9, atol=1e-6)
            option = int(rng.integers(-1, 3)) if rng.random() < 0.5 else int(rng.integers(0, 3))
            if option < 0:
                hold(sim, i), plain.hold(q)
            else:
                send(sim, i, option), plain.send(q, option)
        assert plain.next_decision() is None
        np.testing.assert_allclose(sim.requests.first, [q.first for q in plain.requests], rtol=1e-9)
        np.testing.assert_allclose(sim.requests.last, [q.last for q in plain.requests], rtol=1e-9)
        assert sim.counts[PREEMPTED] == plain.preempted and sim.counts[RETRIED] == plain.retried
        assert (sim.counts[RETRIED] > 0) == failing
        preempted += sim.counts[PREEMPTED]
    assert preempted > 2  # or it would not have been looked at


def test_who_is_due_at_one_dispatcher_at_one_moment_is_decided_together():
    sim, out = small(Law(2, 0.3, gather_s=0.5), 0), np.zeros(4, np.int64)
    alone, seen = [], []
    while (i := advance(sim)) >= 0:
        n = gathered(sim, i, out)
        assert len(set(sim.trace.dispatcher[out[:n]])) == 1 and (np.diff(out[:n]) > 0).all()
        alone.append(n)
        for j in out[:n]:
            seen.append(j)
            send(sim, j, j % 3)
    assert sorted(seen) == list(range(60)) and max(alone) == 4


@pytest.mark.parametrize("seed", range(4))
def test_nothing_is_lost_or_served_twice(seed):
    """Every request is done once, in order of its tokens, whatever fails; nothing is left behind."""
    sim = small(Law(4, 0.5), seed, FAILURES, requests=200, spread=0.04)
    rng = np.random.default_rng(seed)
    while (i := advance(sim)) >= 0:
        send(sim, i, int(rng.integers(0, 3)))
    q = sim.requests
    assert sim.counts[DONE] == 200 and np.isfinite(q.last).all()
    assert (q.first > sim.trace.arrival).all() and (q.last >= q.first).all()
    one = sim.trace.output == 1
    assert one.any() and (q.last[one] == q.first[one]).all() and (q.last[~one] > q.first[~one]).all()
    assert np.abs(sim.dispatchers.own).max() < 1e-6 and np.abs(sim.replicas.kv).max() < 1e-6
    assert (sim.replicas.head == sim.replicas.tail).all() and not sim.replicas.runs.any()
    assert np.abs(sim.replicas.waiting_tokens).max() < 1e-6
    assert sim.counts[RETRIED] > 0 and q.tries.sum() >= 200 + sim.counts[RETRIED]


def test_all_replicas_down_requests_wait_and_are_served_when_one_returns():
    """Nobody is asked to decide where there is nothing to choose; what comes up again serves all."""
    down = [(0.5, r, 0.0) for r in range(3)]
    sim = small(Law(2, 0.5), 1, changes_of([*down, (20.0, 1, -1.0)]))
    times = []
    while (i := advance(sim)) >= 0:
        times.append(sim.clock[0])
        send(sim, i, 1)
    assert sim.counts[DONE] == 60
    assert not [t for t in times if 1.0 < t < 20.5]
    for_good = small(Law(2, 0.5), 1, changes_of(down))
    while (i := advance(for_good)) >= 0:
        send(for_good, i, 1)
    assert advance(for_good) == -1 and for_good.counts[DONE] < 60  # they wait, and say so
    left = np.isnan(for_good.requests.last)
    assert for_good.counts[DONE] + left.sum() == 60


def test_a_replica_that_starts_down_takes_part_when_it_is_up():
    """Scale-out: it is known not to be there, then it is."""
    sim = small(Law(1), 0, changes_of([(0.0, 2, 0.0), (3.0, 2, -1.0)]))
    view, seen = new_view(3), []
    while (i := advance(sim)) >= 0:
        look(sim, i, view)
        seen.append((sim.clock[0], bool(view.up[2])))
        send(sim, i, 2 if view.up[2] else i % 2)
    assert all(up == (t >= 3.5) for t, up in seen) and {up for _, up in seen} == {False, True}


def test_what_is_foreseen_of_the_last_request_is_what_comes():
    """It comes last and shares no prefix, whose cache would fill meanwhile. Looking ahead changes nothing."""
    for seed in range(4):
        for r in range(3):
            sim, untouched = (small(Law(), seed, requests=40, spread=0.05, shared=False) for _ in range(2))
            out = np.zeros(2)
            while (i := advance(sim)) >= 0:
                assert advance(untouched) == i
                foresee(sim, i, r, out)
                send(sim, i, r if i == 39 else i % 3), send(untouched, i, r if i == 39 else i % 3)
                if i == 39:
                    told = out.copy()
            assert advance(untouched) == -1
            assert (sim.requests.last == untouched.requests.last).all()
            assert (sim.requests.first == untouched.requests.first).all()
            mine = np.array([sim.requests.first[39], sim.requests.last[39]]) - sim.trace.arrival[39]
            np.testing.assert_allclose(told, mine, rtol=1e-9)


def test_changes_come_in_order():
    changes = changes_of([(3.0, 1, 2.0), (1.0, 0, 0.0)])
    assert changes.at.tolist() == [1.0, 3.0] and changes.replica.tolist() == [0, 1]
