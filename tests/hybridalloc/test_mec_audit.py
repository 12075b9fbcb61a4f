"""The certificate's compiled reading of mec, held against plain loops, and against faults that were planted."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from games.certificate import Audit, deviations, measure_regret
from games.certificate_places import fitting_costs, measure_envy, measure_fitting_regret
from hybridalloc import Allocator, make_problem
from hybridalloc.certify import _read, certify
from hybridalloc.problems.mec.audit import excess

SETTINGS = {
    "set H": {"agents": 14, "servers": 4},
    "set A": {"agents": 10, "servers": 3, "scenario": "A"},
    "sheds": {"agents": 12, "servers": 3, "scenario": "F"},
    "channels": {"agents": 14, "servers": 4, "choose_channel": True, "channels": 3, "reuse": 2},
    "one job": {"agents": 1, "servers": 2},
    "nobody": {"agents": 0, "servers": 2},
    "crowded": {"agents": 40, "servers": 2},
}


def states_of(problem, count, seed=0):
    """States of an episode under the game, some servers out of reach in every third, nobody at work in every fifth."""
    allocator, state = Allocator(problem, "game"), problem.reset(seed)
    for t in range(count):
        given = state
        if t % 3 == 2:
            reachable = state.reachable.copy()
            reachable[:, 0] = False
            given = replace(given, reachable=reachable)
        if t % 5 == 4:
            given = replace(given, active=np.zeros(state.agents, bool))
        answer = allocator.step(given)
        yield given, answer, allocator.prices
        state, _ = problem.advance(state, allocator.step(state), seed=t)


def by_plain_loops(problem, s, answer, prices):
    """Private costs, weights, seconds, slack, who is in time and who can do without others, from the docstrings."""
    p, n = problem.physics, s.agents
    bands, servers = s.reported_gain_db.shape[1], len(s.server_hz)
    per = bands // servers
    best = [int(np.argmax(s.mean_gain_db[i])) for i in range(n)]
    near = [sum(bool(s.active[i]) and best[i] == k for i in range(n)) for k in range(servers)]

    def rate(i, b, watts):
        noise = p.noise_w * (1 + s.noise_rise[b])
        return p.band_hz * np.log2(1 + watts * 10 ** (s.reported_gain_db[i, b] / 10) / noise) + 1e4

    def wait(i, b):
        moves = p.migration and s.last_server[i] not in (-1, b // per)
        return 1e-3 + s.queue_s[b // per] + s.air_queue_s[b] + 4e-3 * moves, moves

    out = SimpleNamespace(
        private=np.zeros((n, 1 + bands)), weight=np.zeros((n, bands + servers)), slack=np.zeros((n, 1 + bands)),
        seconds=np.zeros((n, 1 + bands, 2)), in_time=np.ones(n, bool), home=np.zeros(n, bool),
    )  # fmt: skip
    for i in np.flatnonzero(s.active):
        tau, cycles, bits = s.deadline_s[i], s.task_cycles[i], s.task_bits[i]
        own_s, own_j = cycles / s.device_hz[i], p.kappa * s.device_hz[i] ** 2 * cycles
        pays = not p.batteries or own_j <= s.battery_j[i]
        out.home[i] = pays and own_s <= tau
        cost = prices.delay * own_s / tau + prices.energy * own_j / 0.1
        out.private[i, 0] = cost if out.home[i] else prices.delay + prices.miss * s.worth[i]
        least = 0.0 if out.home[i] else max(1 - prices.margin * tau / own_s, 0) if pays and p.partial else 1.0
        watts = p.power_w if p.power_control else p.nominal_w
        if p.batteries:
            watts = min(watts, max(s.battery_j[i] - (1 - least) * own_j, 0) * p.efficiency / tau)
        out.weight[i, bands:] = np.sqrt(prices.delay * cycles / tau)
        for b in range(bands):
            k, (before, moves) = b // per, wait(i, b)
            alone, cpu_s = bits / rate(i, b, p.nominal_w), cycles / s.server_hz[k]
            air_s = min(alone, tau)
            joule = p.nominal_w * air_s / p.efficiency
            miss = 1 / (1 + np.exp(min(-12 * ((before + prices.risk * (alone + cpu_s)) / tau - 1), 700)))
            cost = prices.delay * min(before, tau) / tau + prices.energy * joule / 0.1 + prices.miss * s.worth[i] * miss
            cost += prices.backlog * (s.queue_s[k] * cpu_s + s.air_queue_s[b] * air_s) / p.slot_s**2
            cost += prices.migration * moves
            cost += prices.miss * s.worth[i] * (p.batteries and joule > s.battery_j[i])
            if p.interference:
                for q in range(servers):
                    if q != k and s.reuse_group[q] == s.reuse_group[k]:
                        heard = 10 ** (s.mean_gain_db[i, q] / 10) * p.nominal_w / p.noise_w
                        rise = heard / (1 + s.noise_rise[q * per + b % per])
                        cost += prices.leakage * min(alone / p.slot_s, 1) * near[q] * np.log(1 + rise)
            out.private[i, 1 + b], out.weight[i, b] = cost, np.sqrt(prices.delay * air_s / tau)
            out.slack[i, 1 + b] = tau if out.home[i] else prices.margin * tau - before
            if not out.home[i]:
                out.seconds[i, 1 + b] = (least * bits / rate(i, b, watts), least * cpu_s) if watts > 0 else (np.inf, 0)
        o, rho = answer.option[i], answer.fraction[i] if answer.option[i] > 0 else 0.0
        own = (1 - rho) * own_s if not (p.batteries and (1 - rho) * own_j > s.battery_j[i]) else np.inf
        if o > bands:
            out.in_time[i] = False
            continue
        if rho > 0:
            air, cpu = answer.shares["air"][i], answer.shares["cpu"][i]
            sent = rho * bits / (rate(i, o - 1, answer.power[i]) * air) + rho * cycles / (
                s.server_hz[(o - 1) // per] * cpu
            )
            own = max(own, wait(i, o - 1)[0] + sent)
        out.in_time[i] = own <= tau * (1 + 1e-9)
    return out


@pytest.mark.parametrize("name", SETTINGS)
def test_what_is_read_is_what_plain_loops_read(name):
    problem = make_problem("mec", **SETTINGS[name])
    for t, (state, answer, prices) in enumerate(states_of(problem, 6)):
        priced = prices._replace(backlog=0.2 * (t % 2))
        found, plain = problem.audit(state, answer, priced), by_plain_loops(problem, state, answer, priced)
        bands = state.reported_gain_db.shape[1]
        close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)
        close(found.private_cost[:, : 1 + bands], plain.private)
        close(found.weight, plain.weight)
        close(found.slack[:, : 1 + bands], plain.slack)
        close(np.minimum(found.seconds[:, : 1 + bands], 10), np.minimum(plain.seconds, 10))  # of links that are any use
        assert (found.in_time == plain.in_time).all() and (found.home == plain.home).all()
        per = bands // len(state.server_hz)
        reach = np.repeat(state.reachable, per, axis=1) & state.active[:, None]
        assert (found.allowed[:, 1 : 1 + bands] == reach).all()
        assert 0 <= excess(problem, state, answer) <= 1e-9 and problem.check(state, answer).feasible


def planted(problem, kind, state, answer):
    """The answer with one fault, and where it is; None where this answer has no room for it."""
    sent = np.flatnonzero(state.active & (answer.option > 0) & (answer.option <= state.reported_gain_db.shape[1]))
    if not len(sent):
        return None
    i = int(sent[0])
    shares = {name: value.copy() for name, value in answer.shares.items()}
    levels = {name: value.copy() for name, value in answer.levels.items()}
    option = answer.option.copy()
    if kind == "over capacity":
        shares["cpu"][i] = 1.0 + 1e-6
    elif kind == "negative share":
        shares["air"][i] = -1e-3
    elif kind == "share is no number":
        shares["air"][i] = np.nan
    elif kind == "too much power":
        levels["power"][i] = problem.physics.power_w * 1.001
    elif kind == "more than all is sent":
        levels["fraction"][i] = 1.001
    elif kind == "out of reach":
        state = replace(state, reachable=np.zeros_like(state.reachable))
    elif kind == "no such option":
        option[i] = 99
    elif kind == "below a floor":
        held = np.flatnonzero(answer.held & (answer.floors["cpu"] > 0))
        if not len(held):
            return None
        shares["cpu"][held[0]] = 0.9 * answer.floors["cpu"][held[0]]
    elif kind == "held by who opted out":
        out = np.flatnonzero(answer.option == 0)
        if not len(out):
            return None
        shares["cpu"][out[0]] = 1e-3
    elif kind == "beyond the battery":
        battery = state.battery_j.copy()
        battery[i] = 1e-9
        state = replace(state, battery_j=battery)
    return state, replace(answer, option=option, shares=shares, levels=levels)


FAULTS = (
    "over capacity", "negative share", "share is no number", "too much power", "more than all is sent", "out of reach",
    "no such option", "below a floor", "held by who opted out", "beyond the battery",
)  # fmt: skip


@pytest.mark.parametrize("kind", FAULTS)
def test_a_planted_fault_is_found(kind):
    problem, found = make_problem("mec", agents=20, servers=3), 0
    for state, answer, prices in states_of(problem, 6):
        assert certify(problem, state, answer, prices, None, lambda *_: None).check.feasible
        bad = planted(problem, kind, state, answer)
        if bad is not None:
            check = certify(problem, *bad, prices, None, lambda *_: None).check
            assert not check.feasible and check.violations and check.max_violation > 1e-9
            found += 1
    assert found


def test_a_deadline_that_is_missed_is_found():
    problem, found = make_problem("mec", agents=20, servers=3), 0
    for state, answer, prices in states_of(problem, 6):
        sent = np.flatnonzero(answer.held & (answer.option > 0) & (answer.floors["cpu"] > 0))
        if len(sent):
            deadline = state.deadline_s.copy()
            deadline[sent[0]] *= 0.05
            late = certify(problem, replace(state, deadline_s=deadline), answer, prices, None, lambda *_: None)
            assert int(sent[0]) in late.late or not late.check.feasible
            found += 1
    assert found


@pytest.mark.parametrize("name", ["set H", "channels", "crowded"])
def test_regret_over_places_that_may_be_cheaper_is_that_over_all(name):
    problem = make_problem("mec", **SETTINGS[name])
    rng = np.random.default_rng(1)
    for state, answer, prices in states_of(problem, 8):
        found = problem.audit(state, answer, prices)
        cost = found.private_cost + rng.exponential(
            0.05, found.private_cost.shape
        )  # so that there is something to gain
        found = found._replace(private_cost=cost, toll=rng.uniform(0, 4, len(found.toll)))
        agents = np.flatnonzero(found.held & found.live)
        costs = fitting_costs(found)[agents]
        now = costs[np.arange(len(agents)), found.choice[agents]]
        gain = now - costs.min(axis=1, initial=np.inf)
        most = np.where(gain > 1e-9 + 4e-9 * np.abs(now), gain, 0.0).max(initial=0.0)
        assert measure_fitting_regret(found) == pytest.approx(most, abs=1e-12)
        alone = deviations(found, found.choice)[0].max(initial=0.0)
        assert alone == pytest.approx(max(measure_regret(found, found.choice), 0.0), abs=1e-9)


def envy_by_plain_loops(found: Audit):
    out = []
    for i in range(len(found.choice)):
        if not (found.live[i] and not found.home[i] and not found.in_time[i] and not found.held[i]):
            continue
        for o in range(len(found.options)):
            if not found.acceptable[i, o]:
                continue
            time = 0.0
            for s, r in enumerate(found.options[o]):
                if r < 0 or found.seconds[i, o, s] <= 0:
                    continue
                room = 1.0
                for j in range(len(found.choice)):
                    if found.held[j] and not found.home[j] and found.rank[j] <= found.rank[i]:
                        room -= sum(found.floor[j, q] for q, t in enumerate(found.options[found.choice[j]]) if t == r)
                share = min(room, found.cap[i, o])
                time += found.seconds[i, o, s] / share if share > 1e-9 else np.inf
            if time < found.slack[i, o] * (1 - 1e-9):
                out.append((i, o))
    return tuple(out)


def test_envy_is_that_of_plain_loops():
    problem, some = make_problem("mec", **SETTINGS["crowded"]), 0
    for state, answer, prices in states_of(problem, 8):
        found = problem.audit(state, answer, prices)
        assert measure_envy(found) == envy_by_plain_loops(found)
        gone = found.held & (np.arange(len(found.held)) % 3 > 0)  # places that nobody holds: somebody would fit
        found = found._replace(held=gone, in_time=found.in_time & gone)
        if gone.any():
            assert measure_envy(found) == envy_by_plain_loops(found)
            some += len(measure_envy(found))
    assert some


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("method", ["hybrid", "game", "rl", "nearest"])
def test_what_a_step_examines_is_what_the_whole_audit_shows(name, method):
    """The certificate's reading in every step leaves out what a bound rules out: the answers are those of the whole."""
    problem = make_problem("mec", **SETTINGS[name])
    belief = next(iter(problem.card.beliefs)) if method == "hybrid" else None
    recommender = "imappo" if method in ("hybrid", "rl") else None
    found = 0
    for prices in (problem.card.prices(), problem.card.prices(energy=-0.02, backlog=0.3, interference=0.01)):
        allocator = Allocator(problem, method, recommender, belief=belief, prices=prices)
        for seed in range(6):
            state = problem.reset(seed)
            answer = allocator.step(state)
            believed = allocator.problem.world_at(state, answer.origin.memory).believed() if belief else None
            n = state.agents
            rng = np.random.default_rng(seed)
            spoilt = replace(  # places and shares that nobody would give: gains and envy to be found
                answer, option=np.where(rng.random(n) < 0.3, 0, answer.option),
                held=answer.held & (rng.random(n) < 0.7), floors={k: v * 0.5 for k, v in answer.floors.items()},
            )  # fmt: skip
            for given in (answer, spoilt):
                fast, slow = (
                    problem.examine(state, given, prices, believed),
                    _read(problem, state, given, prices, believed),
                )
                if problem.scenario.sheds:
                    assert fast is None
                    continue
                found += bool(slow.envy) + (0 < slow.regret < np.inf)
                assert np.array_equal(fast.in_time, slow.in_time) and np.array_equal(fast.by_reports, slow.by_reports)
                assert np.array_equal(fast.home[state.active], slow.home[state.active])
                assert fast.regret == pytest.approx(slow.regret, rel=1e-7, abs=1e-9) and fast.envy == slow.envy
    assert found or n <= 1 or problem.scenario.sheds
