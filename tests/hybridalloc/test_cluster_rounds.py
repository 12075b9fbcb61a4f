"""Rounds of jobs on several kinds of GPUs: by hand, against cvxpy, and what no rule may do."""

from __future__ import annotations

import cvxpy as cp
import numpy as np
import pytest
from scipy.optimize import LinearConstraint, milp

from hybridalloc.data.registry import DataError
from hybridalloc.problems.cluster.jobs import GANGS, MODELS, Jobs, draw_jobs, sustainable_rate, throughputs
from hybridalloc.problems.cluster.rounds import ROUND_S, RULES, Guard, Standing, _left_s, _trade, run_rounds
from hybridalloc.problems.cluster.shares import finish_time, least_attained, makespan, max_min, own_part

POOLS = np.array([4, 4, 4])


def by_hand(*rows):
    """Jobs given as (arrival in rounds, gang, rounds alone on the first kind); half as fast on the second."""
    arrival, gang, rounds = (np.array(column, float) for column in zip(*rows, strict=True))
    speed = np.repeat([[2.0, 1.0]], len(rows), 0)
    return Jobs(arrival * ROUND_S, np.zeros(len(rows), int), gang.astype(int), rounds * ROUND_S * 2, speed)


def mixed(seed, many=30, pools=POOLS):
    """Jobs without data: random speeds, gangs and lengths."""
    rng = np.random.default_rng(seed)
    speed = rng.uniform(0.2, 1, (many, len(pools))) * np.array([1.0, 0.6, 0.2])[: len(pools)]
    gang, steps = rng.choice([1, 1, 2, 4], many), 60 * 10 ** rng.uniform(1.5, 3.5, many) * speed[:, 0]
    return Jobs(rng.exponential(2000, many).cumsum(), np.zeros(many, int), gang, steps, speed)


def rounds(run):
    return (run.completion_s / ROUND_S).round(6).tolist()


def test_orders_by_hand():
    """One GPU of the fast kind, none of the slow: a long job is there, a short one comes after a round."""
    jobs = by_hand((0, 1, 4), (1, 1, 1))
    assert rounds(run_rounds(jobs, [1, 0], "fifo")) == [4, 4]
    assert rounds(run_rounds(jobs, [1, 0], "srtf")) == [5, 1]
    assert rounds(run_rounds(jobs, [1, 0], "attained")) == [5, 1]
    assert rounds(run_rounds(jobs, [1, 1], "fifo")) == [4, 2]  # on the slow kind beside it


def test_nobody_passes_the_oldest_in_strict_order_and_others_fill_the_gap_in_backfill():
    jobs = by_hand((0, 2, 2), (0, 4, 1), (0, 1, 1))
    assert rounds(run_rounds(jobs, [4, 0], "fifo")) == [2, 3, 4]
    assert rounds(run_rounds(jobs, [4, 0], "backfill")) == [2, 3, 1]


def test_a_job_of_half_the_time_on_half_the_gpus_comes_first_by_area():
    jobs = by_hand((0, 4, 2), (0, 1, 3))
    assert rounds(run_rounds(jobs, [4, 0], "srtf")) == [2, 5]
    assert rounds(run_rounds(jobs, [4, 0], "area")) == [5, 3]


def test_a_restart_costs_its_time_at_each_start():
    jobs = by_hand((0, 1, 3), (1, 1, 1))
    run = run_rounds(jobs, [1, 0], "srtf", restart_s=90.0)
    # the short one starts once and ends in the round after; the long one starts twice
    assert run.starts * 2 == 3 and rounds(run) == [5.5, 1.25]


def test_misjudged_jobs_are_ordered_by_what_is_believed():
    jobs = by_hand((0, 1, 4), (0, 1, 2))
    assert rounds(run_rounds(jobs, [1, 0], "srtf")) == [6, 2]
    assert rounds(run_rounds(jobs, [1, 0], "srtf", believed=jobs.steps[::-1])) == [4, 6]


def test_a_guard_lets_a_short_job_wait_for_who_would_be_treated_unfairly():
    jobs = by_hand((0, 1, 4), *((k, 1, 1) for k in range(1, 9)))
    own = jobs.alone_s * np.array([2.0] + [6.0] * 8)
    plain = run_rounds(jobs, [1, 0], "area", own_s=own)
    fair = run_rounds(jobs, [1, 0], "guard", own_s=own, guard=Guard(mark=0.7))
    assert fair.ratio.max() < plain.ratio.max() == 1.5 and plain.completion_s.mean() <= fair.completion_s.mean()
    same = run_rounds(jobs, [1, 0], "guard", own_s=own, guard=Guard(weight=0.0))
    np.testing.assert_array_equal(same.completion_s, plain.completion_s)


@pytest.mark.parametrize("rule", [rule for rule in RULES if rule != "shares"])
@pytest.mark.parametrize("seed", range(3))
def test_whatever_the_rule_all_work_is_done_and_no_pool_is_overfull(rule, seed):
    jobs = mixed(seed)
    run = run_rounds(jobs, POOLS, rule, restart_s=30.0)
    assert (run.completion_s >= jobs.alone_s - 1e-6).all() and 0 < run.used <= run.held <= 1
    assert run.makespan_s == pytest.approx((jobs.arrival_s + run.completion_s).max())
    again = run_rounds(jobs, POOLS, rule, restart_s=30.0)
    np.testing.assert_array_equal(run.completion_s, again.completion_s)


def traded(seed, many=7, kinds=3):
    """A market of a round: gangs, values, room, and where it seats whom."""
    rng = np.random.default_rng(seed)
    gang, value = rng.choice([1, 1, 2, 4], many), rng.uniform(0.1, 3, (many, kinds))
    value[rng.random(value.shape) < 0.15] = -1.0
    room, kind = rng.integers(2, 6, kinds), np.full(many, -1)
    free = room.copy()
    _trade(gang, value, np.arange(many), free, kind)
    return gang, value, room, kind, free


@pytest.mark.parametrize("seed", range(40))
def test_no_move_trade_or_replacement_raises_what_a_market_is_worth(seed):
    gang, value, room, kind, free = traded(seed)
    worth = lambda at: sum(value[i, j] for i, j in enumerate(at) if j >= 0)
    fits = lambda at: (
        all(gang[at == j].sum() <= room[j] for j in range(3))
        and all(value[i, j] > 0 for i, j in enumerate(at) if j >= 0)
    )
    assert fits(kind) and (free == [room[j] - gang[kind == j].sum() for j in range(3)]).all()
    for i in range(len(gang)):
        for j in range(3):
            alone = np.where(np.arange(len(gang)) == i, j, kind)
            changes = [alone] if fits(alone) else []
            for o in np.flatnonzero((kind == j) & (np.arange(len(gang)) != i)):
                changes += [np.where(np.arange(len(gang)) == o, q, alone) for q in (-1, 0, 1, 2) if q != j]
            assert all(worth(at) <= worth(kind) + 1e-9 for at in changes if fits(at))


def test_a_market_is_nearly_worth_what_the_best_assignment_is():
    """Against a MILP by HiGHS."""
    mine, best = 0.0, 0.0
    for seed in range(40):
        gang, value, room, kind, _ = traded(seed)
        n, w = value.shape
        found = milp(
            -value.ravel(), integrality=np.ones(n * w), bounds=(0, 1),
            constraints=[
                LinearConstraint(np.kron(np.eye(n), np.ones(w)), 0, 1),
                LinearConstraint(np.kron(gang, np.eye(w)), 0, room),
            ],
        )  # fmt: skip
        mine, best = mine + sum(value[i, j] for i, j in enumerate(kind) if j >= 0), best - found.fun
    assert 0.97 * best < mine <= best + 1e-6


def test_who_is_hardly_slower_elsewhere_leaves_the_fast_kind():
    """Alike but for their speed on the second kind: by order the first takes the fast one, here who needs it."""
    jobs = Jobs(
        np.zeros(2), np.zeros(2, int), np.ones(2, int), np.full(2, 20 * ROUND_S), np.array([[1.0, 0.9], [1.0, 0.2]])
    )
    order, market = (run_rounds(jobs, [1, 1], rule, guard=Guard(weight=0.0)) for rule in ("srtf", "market"))
    assert rounds(market) == pytest.approx([20 / 0.9, 20.0], abs=0.5)
    assert market.completion_s.mean() < order.completion_s.mean()


def test_a_doubted_job_is_believed_to_take_longer_the_longer_it_overstays():
    """The mean of what remains of a lognormal, against draws."""
    draws = 3600.0 * np.exp(np.random.default_rng(0).normal(0, 0.8, 400_000))
    jobs = by_hand((0, 1, 100))
    at = Standing(jobs.steps.copy(), *(np.zeros(1) for _ in range(6)))
    left = []
    for done in (0.0, 1800.0, 7200.0, 20_000.0):
        at.left[0] = jobs.steps[0] - done
        left.append(_left_s(jobs, np.array([3600.0]), at, 0, 1.0, 0.8))
        assert left[-1] == pytest.approx((draws[draws > done] - done).mean(), rel=0.03)
    assert left[2] < left[3]
    assert _left_s(jobs, np.array([3600.0]), at, 0, 1.0, 0.0) == 180.0  # a twentieth: no doubt


# --- Gavel's programs


@pytest.mark.parametrize("seed", range(4))
def test_the_programs_find_what_cvxpy_finds(seed):
    jobs, pools = mixed(seed, 7), np.array([3, 4, 6])
    speed, gang, left = jobs.speed, jobs.gang, jobs.steps
    x = cp.Variable(speed.shape, nonneg=True)
    rate = cp.sum(cp.multiply(speed, x), axis=1)
    limits = [cp.sum(x, axis=1) <= 1, gang @ x <= pools]
    equal = (speed * (pools / pools.sum())).sum(1)
    aims = {
        "las": (
            least_attained(speed, gang, pools),
            cp.min(cp.multiply(gang / equal, rate)),
            lambda r: (r * gang / equal).min(),
        ),
        "makespan": (
            makespan(speed, gang, pools, left),
            cp.min(cp.multiply(1 / left, rate)),
            lambda r: (r / left).min(),
        ),
    }
    for mine, aim, value in aims.values():
        best = cp.Problem(cp.Maximize(aim), limits).solve(solver=cp.CLARABEL)
        assert value((speed * mine).sum(1)) == pytest.approx(best, rel=1e-4)
        assert (mine.sum(1) <= 1 + 1e-9).all() and (gang @ mine <= pools + 1e-9).all()


@pytest.mark.parametrize("seed", range(4))
def test_finish_time_fairness_is_the_convex_programs(seed):
    """What is left over a rate is convex in it, so the least largest ratio is one convex program."""
    jobs, pools = mixed(seed, 6), np.array([2, 3, 3])
    age, own = np.linspace(0, 4000, 6), jobs.steps / own_part(jobs.speed, jobs.gang, pools, 5.0)
    x = cp.Variable(jobs.speed.shape, nonneg=True)
    rate = cp.sum(cp.multiply(jobs.speed, x), axis=1)
    ratio = cp.multiply(1 / own, age + cp.multiply(jobs.steps, cp.inv_pos(rate)))
    limits = [cp.sum(x, axis=1) <= 1, jobs.gang @ x <= pools]
    best = cp.Problem(cp.Minimize(cp.max(ratio)), limits).solve(solver=cp.CLARABEL)
    mine = (jobs.speed * finish_time(jobs.speed, jobs.gang, pools, jobs.steps, age, own)).sum(1)
    assert ((age + jobs.steps / mine) / own).max() == pytest.approx(best, rel=0.01)


def test_shares_are_what_rounds_come_to():
    """Three jobs that never end on two GPUs: each has two thirds of the time, in rounds."""
    jobs = by_hand((0, 1, 300), (0, 1, 300), (0, 1, 300))
    run = run_rounds(
        jobs, [2, 0], "shares", shares=lambda told: least_attained(told.speed, told.gang, np.array([2, 0]))
    )
    assert max(rounds(run)) == pytest.approx(450, abs=2) and min(rounds(run)) == pytest.approx(450, abs=6)


def test_equal_jobs_have_equal_parts():
    x, least = max_min(np.ones((4, 2)), np.array([1, 1, 1, 1]), np.array([1, 1]))
    assert least == pytest.approx(0.5) and (x.sum(1) >= 0.5 - 1e-9).all()


# --- Gavel's jobs


@pytest.fixture(scope="module")
def measured():
    try:
        return throughputs()
    except DataError as error:
        pytest.skip(str(error))


def test_gavels_jobs_are_drawn_as_the_paper_says(measured):
    assert measured.shape == (len(MODELS), len(GANGS), 3) and (measured[:, 0] > 0).all()
    jobs = draw_jobs(np.random.default_rng(0), 4000, 2.0)
    minutes = jobs.steps / jobs.speed[:, 0] / 60
    assert minutes.min() >= 10**1.5 * 0.99 and minutes.max() <= 10**4 * 1.01
    assert (minutes < 1000).mean() == pytest.approx(0.8, abs=0.02)
    assert np.diff(jobs.arrival_s).mean() == pytest.approx(1800, rel=0.05)
    parallel = jobs.gang[jobs.model < 19]
    assert (parallel == 1).mean() == pytest.approx(0.7, abs=0.03) and set(jobs.gang) == set(GANGS)
    other = draw_jobs(np.random.default_rng(0), 4000, np.inf)
    np.testing.assert_array_equal(jobs.steps, other.steps)
    assert (other.arrival_s == 0).all()


def test_queues_grow_above_the_sustainable_rate_and_not_below(measured):
    pools = np.array([12, 12, 12])
    many = 400
    rate = sustainable_rate(draw_jobs(np.random.default_rng(1), many, 1.0), pools)
    waits = []
    for share in (0.7, 1.6):
        jobs = draw_jobs(np.random.default_rng(1), many, share * rate)
        waits.append((run_rounds(jobs, pools, "area").completion_s - jobs.alone_s).mean())
    assert waits[1] > 2.5 * waits[0]
    assert sustainable_rate(draw_jobs(np.random.default_rng(1), many, 1.0), 3 * pools) == pytest.approx(3 * rate)


def test_what_cannot_run_is_told():
    jobs = by_hand((0, 8, 1))
    with pytest.raises(ValueError, match=r"job 0 takes 8 GPUs of a kind it runs on; pools are \[4, 4\]"):
        run_rounds(jobs, [4, 4], "fifo")
    with pytest.raises(ValueError, match="rule 'best' with no shares"):
        run_rounds(jobs, [8, 8], "best")
