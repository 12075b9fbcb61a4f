"""What ``attack.py`` holds certificates against: states and allocations read by plain loops, from the documentation.

Nothing here is imported from ``games`` or from a problem's auditor. A :class:`Reading` holds, of one state and one
allocation, what serving takes, what each option costs and who is in time; :func:`findings` compares it with what the
certificate says. Where a comparison hangs on the last digits (a deadline met exactly, a place that just fits) both
answers are accepted: :data:`NEAR` is how near counts as that.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

NEAR = 1e-8
ROUNDING = 1e-9
NO_ROOM = 1e-9
REST = 1e-3  # of a resource that floors which bind are taken to leave at least
NO_DEADLINE = 1e9  # s


@dataclass
class Reading:
    """One state and allocation of N agents with O options of S legs; lists of lists of numbers."""

    rows: list[list[int]]  # (O, S) resources, -1 for none
    capacity: list[float]  # (R,)
    weight: list[list[float]]  # (N, R)
    private: list[list[float]]  # (N, O)
    allowed: list[list[bool]]  # (N, O)
    toll: float
    active: list[bool]
    deadline: list[float]
    time: list[float]  # (N,) s
    seconds: list[list[list[float]]]  # (N, O, S) with the resource alone
    slack: list[list[float]]  # (N, O)
    cap: list[list[float]]  # (N, O)
    home: list[bool]
    priority: list[float]
    gap: float
    option: list[int]
    share: list[list[float]]  # (N, S)
    floor: list[list[float]]  # (N, S)
    held: list[bool]
    faults: list[str] = field(default_factory=list)  # limits that do not hold

    def legs(self, o: int) -> list[tuple[int, int]]:
        return [(s, r) for s, r in enumerate(self.rows[o]) if r >= 0]

    def in_time(self, i: int, loose: bool) -> bool:
        return not self.active[i] or self.time[i] <= self.deadline[i] * (1 + (NEAR if loose else -NEAR))


def read(problem: Any, state: Any, allocation: Any, prices: Any) -> Reading:
    """A reading of any of the two problems."""
    reading = (_read_mec if problem.name == "mec" else _read_custom)(problem, state, allocation, prices)
    _check_numbers(reading, allocation)
    return reading


def _check_numbers(x: Reading, allocation: Any) -> None:
    """Shares, floors and prices; ``x.faults`` gets what is wrong."""
    used = [0.0] * len(x.capacity)
    kept = [0.0] * len(x.capacity)
    for i, o in enumerate(x.option):
        if not x.active[i] and o:
            x.faults.append(f"agent {i} is idle and takes {o}")
        if not x.allowed[i][o]:
            x.faults.append(f"agent {i} may not take {o}")
        for s, r in x.legs(o):
            used[r] += x.share[i][s]
            kept[r] += x.floor[i][s]
            if x.floor[i][s] > x.share[i][s] * (1 + ROUNDING) + ROUNDING:
                x.faults.append(f"floor of agent {i} is above its share")
        for name, parts in (("shares", allocation.shares), ("floors", allocation.floors)):
            for family, values in parts.items():
                if not (math.isfinite(values[i]) and values[i] >= 0):
                    x.faults.append(f"{name} of {family}: {values[i]}")
                if o == 0 and values[i] != 0:
                    x.faults.append(f"agent {i} is out and holds {family}")
                if name == "floors" and values[i] > 0 and not x.held[i]:
                    x.faults.append(f"agent {i} has a floor and no place")
    for r in range(len(x.capacity)):
        if used[r] > 1 + ROUNDING or kept[r] > 1 + ROUNDING:
            x.faults.append(f"resource {r} is used to {used[r]}, its floors are {kept[r]}")
    for family, values in allocation.prices.items():
        for r, value in enumerate(values):
            if not (math.isfinite(value) and value >= 0):
                x.faults.append(f"price of {family} {r} is {value}")


def _read_mec(problem: Any, state: Any, allocation: Any, prices: Any) -> Reading:
    s, d = problem.scenario, problem.scenario.dynamics
    n, servers, bands = len(state.active), len(state.server_hz), state.reported_gain_db.shape[1]
    per = bands // servers
    width = s.channel_hz * (1 if s.choose_channel else s.channels)
    noise = 10 ** ((-174 + 5 + 10 * math.log10(width) - 30) / 10)
    rows = [[-1, -1]] + [[b, bands + b // per] for b in range(bands)]
    capacity = [1.0] * bands + [float(f) for f in state.server_hz]
    floats = lambda a: [float(v) for v in a]
    x = Reading(
        rows, capacity, [], [], [], float(prices.toll), [bool(a) for a in state.active], floats(state.deadline_s), [],
        [], [], [], [], [], 0.0, [int(o) for o in allocation.option],
        [[float(a), float(c)] for a, c in zip(allocation.shares["air"], allocation.shares["cpu"], strict=True)],
        [[float(a), float(c)] for a, c in zip(allocation.floors["air"], allocation.floors["cpu"], strict=True)],
        [bool(h) for h in allocation.held],
    )  # fmt: skip
    strongest = lambda i: max(range(servers), key=lambda q: float(state.mean_gain_db[i][q]))
    best = [strongest(i) if servers and state.active[i] else -1 for i in range(n)]
    shortest_queue = min(floats(state.queue_s), default=math.inf)
    for i in range(n):
        tau, cycles, bits = float(state.deadline_s[i]), float(state.task_cycles[i]), float(state.task_bits[i])
        speed, battery = float(state.device_hz[i]), float(state.battery_j[i])
        power, rho = float(allocation.power[i]), float(allocation.fraction[i])
        gain = [10 ** (float(state.reported_gain_db[i][b]) / 10) / (noise * (1 + float(state.noise_rise[b])))
                for b in range(bands)]  # fmt: skip
        rate = lambda b, watts, gain=gain: width * math.log2(1 + watts * gain[b]) + 1e4
        own_s, own_j = cycles / speed, s.kappa * speed**2 * cycles
        payable = not d.batteries or own_j <= battery
        moved = [d.migration and int(state.last_server[i]) >= 0 and int(state.last_server[i]) != b // per
                 for b in range(bands)]  # fmt: skip
        wait = [0.001 + float(state.queue_s[b // per]) + float(state.air_queue_s[b]) + 0.004 * moved[b]
                for b in range(bands)]  # fmt: skip
        # what it gets
        o = x.option[i]
        if not 0 <= o <= bands:
            x.faults.append(f"option {o} of agent {i}")
            o = x.option[i] = 0
        sent = rho if o else 0.0
        left_s, left_j = (1 - sent) * own_s, (1 - sent) * own_j
        time = math.inf if d.batteries and left_j > battery else left_s
        if sent > 0:
            b, (air, cpu) = o - 1, x.share[i]
            away = math.inf
            if air > 0 and cpu > 0:
                away = wait[b] + sent * bits / (rate(b, power) * air)
                away += sent * cycles / (float(state.server_hz[b // per]) * cpu)
            time = max(time, away)
        x.time.append(time)
        for name, value, most in (("power", power, 1.0), ("fraction", rho, 1.0)):
            if not -ROUNDING <= value <= most * (1 + ROUNDING) or (o == 0 and value != 0):
                x.faults.append(f"{name} of agent {i} is {value}")
        if d.batteries:
            begun = x.active[i] and left_s <= tau and left_j <= battery
            spent = (left_j if begun else 0.0) + power * x.share[i][0] * tau / 0.35 * (o > 0)
            if spent > battery * (1 + ROUNDING):
                x.faults.append(f"agent {i} spends {spent} of {battery} J")
        # what options cost and take
        home = x.active[i] and payable and own_s <= tau
        x.home.append(home)
        x.allowed.append([True] + [bool(x.active[i] and state.reachable[i][b // per]) for b in range(bands)])
        a_second = prices.delay / tau
        own_cost = a_second * own_s + prices.energy * own_j / 0.1 if home else prices.delay + prices.miss
        costs, weights, seconds, slack = [own_cost], [], [[0.0, 0.0]], [0.0]
        least = 0.0 if home else (max(0.0, 1 - prices.margin * tau / own_s) if payable and s.partial else 1.0)
        watts = 1.0 if s.power_control else 0.2
        if d.batteries:
            watts = min(watts, max(battery - (1 - least) * own_j, 0.0) * 0.35 / tau)
        for b in range(bands):
            alone = bits / rate(b, 0.2)
            cpu_s, air_s = cycles / float(state.server_hz[b // per]), min(alone, tau)
            late = 12 * ((wait[b] + prices.risk * (alone + cpu_s)) / tau - 1)
            joule = 0.2 * air_s / 0.35
            cost = a_second * min(wait[b], tau) + prices.energy * joule / 0.1 + prices.miss * _sigmoid(late)
            queues = float(state.queue_s[b // per]) * cpu_s + float(state.air_queue_s[b]) * air_s
            cost += prices.backlog * queues / s.slot_s**2 + prices.migration * moved[b]
            if d.batteries and joule > battery:
                cost += prices.miss
            for q in range(servers) if d.interference else ():  # what tasks near other servers hear of it
                if q != b // per and state.reuse_group[q] == state.reuse_group[b // per]:
                    there = noise * (1 + float(state.noise_rise[q * per + b % per]))
                    heard = math.log(1 + 10 ** (float(state.mean_gain_db[i][q]) / 10) * 0.2 / there)
                    cost += prices.leakage * min(alone / s.slot_s, 1.0) * best.count(q) * heard
            costs.append(cost)
            weights.append(math.sqrt(a_second * air_s))
            seconds.append([least * bits / rate(b, watts) if watts > 0 else math.inf, least * cpu_s])
            slack.append(tau if home else prices.margin * tau - wait[b])
        if home:
            seconds = [[0.0, 0.0] for _ in seconds]
        weights += [math.sqrt(a_second * cycles)] * servers
        if not x.active[i]:
            costs, weights = [0.0] * (1 + bands), [0.0] * (bands + servers)
        x.private.append(costs)
        x.weight.append(weights)
        x.seconds.append(seconds)
        x.slack.append(slack)
        x.cap.append([math.inf] * (1 + bands))
        if s.priority_gap is None:
            x.priority.append(float(state.sla[i]))
        else:
            time_part = min(max(shortest_queue / tau, 0.0), 1.0)
            work_part = min(cycles / (s.bits[1] * s.cycles_per_bit[1]), 1.0)
            a, b_, c = s.priority
            x.priority.append(a * time_part + b_ * work_part + c * float(state.sla[i]))
    x.gap = 0.0 if s.priority_gap is None else s.priority_gap
    return x


def _read_custom(problem: Any, state: Any, allocation: Any, prices: Any) -> Reading:
    n, resources = state.work.shape
    span = problem.options.shape[1]
    rows = [[-1] * span] + [[int(r) for r in row] for row in problem.options]
    options = len(rows)
    floats = lambda a: [float(v) for v in a]
    x = Reading(
        rows, floats(state.capacity), [], [], [], float(prices.toll), [bool(a) for a in state.active],
        floats(state.deadline_s), [], [], [], [], [False] * n, floats(state.priority), problem.priority_gap,
        [int(o) for o in allocation.option], [], [], [bool(h) for h in allocation.held],
    )  # fmt: skip
    for i in range(n):
        if not 0 <= x.option[i] < options:
            x.faults.append(f"option {x.option[i]} of agent {i}")
            x.option[i] = 0
        tau, a_second = x.deadline[i], float(state.delay_cost[i])
        work = floats(state.work[i])
        of_leg = lambda parts, i=i: [
            float(parts[problem.families_of[r]][i]) if r >= 0 else 0.0 for r in rows[x.option[i]]
        ]
        x.share.append(of_leg(allocation.shares))
        x.floor.append(of_leg(allocation.floors))
        time, draw = 0.0 if x.option[i] else math.inf, 0.0
        for s, r in x.legs(x.option[i]):
            draw += x.share[i][s] * float(state.full_power_w[i][r])
            if work[r] > 0:
                speed = x.share[i][s] * x.capacity[r]
                time += float(state.wait_s[r]) + (work[r] / speed if speed > 0 else math.inf)
        x.time.append(time)
        limit = float(state.power_limit_w[i])
        told = float(allocation.power[i])
        if max(draw, told) > limit * (1 + ROUNDING) or not abs(told - draw) <= 1e-6 * max(draw, told):
            x.faults.append(f"agent {i} draws {draw} W, said {told}, of {limit}")
        costs, seconds, slack, cap, allowed = [], [], [], [], []
        for o in range(options):
            legs = [(s, r) for s, r in x.legs(o) if work[r] > 0]
            alone = [0.0] * span
            for s, r in legs:
                alone[s] = work[r] / x.capacity[r]
            wait = sum(float(state.wait_s[r]) for _, r in legs)
            own = float(state.private_cost[i][o]) if state.private_cost.size else 0.0
            if o == 0:
                own += prices.opt_out * float(state.opt_out_cost[i])
            else:
                own += a_second * wait
                if tau < NO_DEADLINE:
                    late = 12 * ((wait + prices.risk * sum(alone)) / tau - 1)
                    own += prices.miss * _sigmoid(max(-30.0, min(30.0, late)))
            costs.append(own if x.active[i] else 0.0)
            seconds.append(alone)
            slack.append(prices.margin * tau - wait)
            watts = sum(float(state.full_power_w[i][r]) for _, r in legs)
            cap.append(limit / watts if watts > 0 else math.inf)
            may = bool(state.allowed[i][o]) if state.allowed.size else True
            allowed.append(o == 0 or (may and x.active[i]))
        x.private.append(costs)
        x.weight.append([math.sqrt(a_second * work[r]) for r in range(resources)])
        x.seconds.append(seconds)
        x.slack.append(slack)
        x.cap.append(cap)
        x.allowed.append(allowed)
    return x


def _sigmoid(z: float) -> float:
    return 1 / (1 + math.exp(-max(-700.0, min(700.0, z))))


def acceptable(x: Reading, i: int, o: int, loose: bool) -> bool:
    """Whether a place at option o, alone, costs agent i no more than opting out does."""
    if o == 0 or not x.allowed[i][o] or not x.active[i]:
        return False
    alone = x.private[i][o] + sum(x.weight[i][r] ** 2 / x.capacity[r] for _, r in x.legs(o))
    scale = ROUNDING * (abs(x.private[i][0]) + abs(alone))
    return alone <= x.private[i][0] + (scale if loose else -scale) and all(map(math.isfinite, x.seconds[i][o]))


def least(seconds: Any, slack: float, room: Any) -> list[float] | None:
    """(S,) shares, the least in sum f / room, with which legs of ``seconds`` end within ``slack``; None if none fit.

    By a search for the multiplier: f_s = min(room_s, m sqrt(sec_s room_s)) with the legs ending just in time.
    """
    if slack <= 0:
        return None
    needs = [(s, float(sec), float(most)) for s, (sec, most) in enumerate(zip(seconds, room, strict=True)) if sec > 0]
    out = [0.0] * len(seconds)
    if not needs:
        return out
    if any(most <= NO_ROOM for _, _, most in needs) or sum(sec / most for _, sec, most in needs) > slack:
        return None
    low, high = 0.0, max(most / math.sqrt(sec * most) for _, sec, most in needs)  # there every leg has all its room
    for _ in range(200):
        m = 0.5 * (low + high)
        if not low < m < high:
            break
        took = sum(sec / min(most, m * math.sqrt(sec * most)) for _, sec, most in needs)
        low, high = (m, high) if took > slack else (low, m)
    for s, sec, most in needs:
        out[s] = min(most, high * math.sqrt(sec * most))
    return out


def least_floors(x: Reading, i: int, o: int, room: list[float], loose: bool) -> list[float] | None:
    """(S,) the least floors with which agent i's deadline holds at option o in ``room`` (R,); None if none fit."""
    free = [min(room[r], x.cap[i][o]) if r >= 0 else 0.0 for r in x.rows[o]]
    return least(x.seconds[i][o], x.slack[i][o] * (1 + (NEAR if loose else -NEAR)), free)


def least_delay(held: list[tuple[float, float]], capacity: float) -> float:
    """min sum w^2 / (C f) over f >= floor, sum f <= 1, of pairs (w, floor)."""
    if not held:
        return 0.0
    bound: set[int] = set()
    while True:
        free = sum(w for k, (w, _) in enumerate(held) if k not in bound)
        left = max(1.0 - sum(low for k, (_, low) in enumerate(held) if k in bound), REST)
        if free <= 0:
            break
        more = {k for k, (w, low) in enumerate(held) if k not in bound and low > left / free * w * (1 + 1e-15)}
        if not more:
            break
        bound |= more
    total = sum(w * w / low for k, (w, low) in enumerate(held) if k in bound)
    return (total + (free * free / left if free > 0 else 0.0)) / capacity


def fitting_regret(x: Reading, loose: bool) -> float:
    """Largest gain of a holder by moving alone to another place that fits, floors kept."""
    on: list[list[tuple[int, float, float]]] = [[] for _ in x.capacity]
    used = [0.0] * len(x.capacity)
    for i, o in enumerate(x.option):
        if x.held[i]:
            for s, r in x.legs(o):
                on[r].append((i, x.weight[i][r], x.floor[i][s]))
                used[r] += x.floor[i][s]
    everyone = [least_delay([(w, low) for _, w, low in on[r]], x.capacity[r]) for r in range(len(on))]
    worst = 0.0
    for i, now in enumerate(x.option):
        if not x.held[i] or not x.active[i]:
            continue
        mine = {r: x.floor[i][s] for s, r in x.legs(now)}
        without = dict.fromkeys(range(len(on)))

        def charge(o: int, floor: list[float], i: int = i, mine: Any = mine, without: Any = without) -> float:
            cost = x.private[i][o]
            for s, r in x.legs(o):
                others = [(w, low) for j, w, low in on[r] if j != i]
                if without[r] is None:
                    without[r] = least_delay(others, x.capacity[r]) if r in mine else everyone[r]
                w = x.weight[i][r]
                added = least_delay([*others, (w, floor[s])], x.capacity[r]) - without[r]
                cost += (1 + x.toll) / 2 * added + (1 - x.toll) / 2 * w * w / x.capacity[r]
            return cost

        present = charge(now, x.floor[i])
        for o in range(len(x.rows)):
            if o == now:
                continue
            floor: list[float] | None = [0.0] * len(x.rows[o])
            if x.home[i]:
                if not x.allowed[i][o]:
                    continue
            elif not acceptable(x, i, o, loose):
                continue
            else:
                room = [1.0 - used[r] + mine.get(r, 0.0) for r in range(len(on))]
                floor = least_floors(x, i, o, room, loose)
            if floor is not None:
                worst = max(worst, present - charge(o, floor))
    return worst


def affine_regret(x: Reading) -> float:
    """Largest gain of one agent by any allowed deviation, in private + sum w (L + toll (L - w)) / C."""
    load = [0.0] * len(x.capacity)
    for i, o in enumerate(x.option):
        for _, r in x.legs(o):
            load[r] += x.weight[i][r]
    worst = 0.0
    for i, now in enumerate(x.option):
        costs = {}
        for o in range(len(x.rows)):
            if x.allowed[i][o]:
                costs[o] = x.private[i][o]
                for _, r in x.legs(o):
                    w = x.weight[i][r]
                    others = load[r] - (w if r in x.rows[now] else 0.0)
                    costs[o] += w * (w + others + x.toll * others) / x.capacity[r]
        worst = max(worst, costs[now] - min(costs.values()))
    return worst


def ranks(priority: list[float], gap: float) -> list[int]:
    """Class of each agent, 0 the highest: one begins more than the gap below the first of the last."""
    out = [0] * len(priority)
    head, c = math.inf, -1
    for i in sorted(range(len(priority)), key=lambda k: -priority[k]):
        if c < 0 or priority[i] < head - gap:
            head, c = priority[i], c + 1
        out[i] = c
    return out


def envious(x: Reading, loose: bool) -> set[int]:
    """Agents that are left out and would be served beside what their own class and those above hold."""
    rank = ranks(x.priority, x.gap)
    n = len(x.option)
    taken: list[dict[int, float]] = [{} for _ in range(n)]
    for j in range(n):
        if any(x.held):
            if x.held[j] and not x.home[j]:
                taken[j] = {r: x.floor[j][s] for s, r in x.legs(x.option[j])}
        elif x.active[j] and x.option[j] and not x.home[j] and x.in_time(j, not loose):
            o = x.option[j]
            took = sum(x.seconds[j][o][s] / x.share[j][s] for s, _ in x.legs(o) if x.seconds[j][o][s] > 0)
            slack = x.slack[j][o]
            kept = min(took / slack, 1.0) if slack > 0 else 1.0
            taken[j] = {r: x.share[j][s] * kept for s, r in x.legs(o)}
    out = set()
    for i in range(n):
        if not x.active[i] or x.home[i] or x.held[i] or x.in_time(i, not loose):
            continue
        room = [1.0] * len(x.capacity)
        for j in range(n):
            if rank[j] <= rank[i]:
                for r, amount in taken[j].items():
                    room[r] -= amount * (1 - NEAR if loose else 1 + NEAR)
        for o in range(1, len(x.rows)):
            if acceptable(x, i, o, loose) and least_floors(x, i, o, room, loose) is not None:
                out.add(i)
    return out


def findings(problem: Any, state: Any, allocation: Any, prices: Any) -> list[str]:
    """Where the certificate says otherwise than this module, and promises that do not hold."""
    c = allocation.certificate
    x = read(problem, state, allocation, prices)
    n = len(x.option)
    found = [f"limit: {fault}" for fault in x.faults]
    if not c.feasible:
        found.append("infeasible: returned as such")
    if n != len(state.active):
        found.append("size")
    for i in range(n):
        said = bool(allocation.served[i])
        if said != x.in_time(i, said):
            found.append(f"served: agent {i} is said to be {said}, takes {x.time[i]} of {x.deadline[i]}")
        if (i in c.unserved) != (x.active[i] and not said):
            found.append(f"unserved: agent {i}")
        if allocation.seated and x.held[i] and not x.in_time(i, True):
            found.append(f"place: agent {i} holds one and is late")
    if c.late:
        found.append(f"late: {c.late}")
    if allocation.game is not None:
        if allocation.seated:
            low, high = sorted(fitting_regret(x, loose) for loose in (False, True))
        else:
            low = high = affine_regret(x)
        near = 1e-6 * max(1.0, high)
        if not low - near <= c.regret <= high + near:
            found.append(f"regret: {c.regret} is said, between {low} and {high} found")
        if math.isfinite(c.epsilon_bound) and low > c.epsilon_bound + near:
            found.append(f"bound: regret {low}, promised {c.epsilon_bound}")
    sure, perhaps = envious(x, False), envious(x, True)
    if not sure <= set(c.envy) <= perhaps:
        found.append(f"envy: {sorted(c.envy)} is said, {sorted(sure)} to {sorted(perhaps)} found")
    if allocation.seated and sure:
        found.append(f"justified envy: {sorted(sure)}")
    return found
