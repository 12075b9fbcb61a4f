"""One network of ``mec`` with many servers: the game, its places and the features on short lists of each device's best.

One pass over a state, device by device: a row of bands is a few vector loops whose arrays stay in the processor's
cache, and nothing of the size of devices times bands is made. Costs, places and features are those of :mod:`.core`, of
the options listed alone.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from games.congestion import Bool, Float, Int
from games.lean import INLINE, LEAN, ROOMY
from games.shortlists import Serving, Shortlists
from hybridalloc.problems.mec.arrays import (
    AGENT_FEATURES,
    ENERGY_UNIT,
    INVERSE_LOG_2,
    LEAST_RATE,
    PAIR_FEATURES,
    SERVER_FEATURES,
    STEEPNESS,
    Physics,
    Prices,
)
from hybridalloc.problems.mec.formulas import lateness_row, least_fraction, most_power
from hybridalloc.problems.mec.law import exp, log

NEPERS = np.log(10.0) / 10.0  # of a decibel, in power
FEW = 12  # sets of bands that hear each other, up to which each is summed by itself
FUSED: dict[str, Any] = INLINE | {"cache": False, "fastmath": {"contract"}}  # product and sum in one instruction
fused_exp, fused_log = (njit(**FUSED)(getattr(f, "py_func", f)) for f in (exp, log))  # plain where numba is off


class Told(NamedTuple):
    """The fields of a state that are read."""

    active: Bool
    task_bits: Float
    task_cycles: Float
    deadline_s: Float
    device_hz: Float
    battery_j: Float
    age_slots: Float
    last_server: Int
    activity: Float
    worth: Float
    mean_gain_db: Float
    reported_gain_db: Float
    reachable: Bool
    server_hz: Float
    reuse_group: Int
    noise_rise: Float
    queue_s: Float
    air_queue_s: Float


class Listed(NamedTuple):
    """What is read of M devices with a task, on their lists of T options.

    Attributes:
        option, slot, weight, private, off: as in :class:`games.shortlists.Shortlists`, S = 2.
        rate: (M, T) bit/s at nominal power. usual: (M, T) the same by mean gain alone, without others.
        best: (N,) the band of the highest rate of every device, -1 for none.
        seconds, slack, acceptable, home, more: as in :class:`games.shortlists.Serving`.
    """

    option: Int
    slot: NDArray[np.uint32]
    weight: Float
    private: Float
    off: Float
    rate: Float
    usual: Float
    best: Int
    seconds: Float
    slack: Float
    acceptable: Bool
    home: Bool
    more: Bool
    work: Float  # (T,) scratch


def shortlist(
    physics: Physics, told: Told, prices: Prices, rank: Int, width: int
) -> tuple[Shortlists, Serving, Listed]:
    """The game, what serving takes and what was read, on lists of ``width`` options; ``rank`` (N,) classes."""
    n, bands = told.reported_gain_db.shape
    servers = len(told.server_hz)
    who = np.flatnonzero(told.active)
    made = _lists(physics, told, prices, who, min(width, 1 + bands))
    none = bands + servers
    capacity = np.concatenate([np.ones(bands), told.server_hz])
    lists = Shortlists(
        who, n, 1 + bands, made.option, made.slot, made.weight, made.private, made.off, capacity,
        np.full(none, prices.toll),
    )  # fmt: skip
    return lists, Serving(made.seconds, made.slack, made.acceptable, rank[who], made.home, made.more), made


@njit(**LEAN)
def put_rates(who, option, rate, rates):
    """Write the rates of what is listed, (M, T), into ``rates`` (N, B)."""
    for m in range(len(who)):
        for t in range(1, option.shape[1]):
            if option[m, t] > 0:
                rates[who[m], option[m, t] - 1] = rate[m, t]


def told_of(state: Any) -> Told:
    """As compiled code reads it, which is made for arrays that may be written."""
    fields = [getattr(state, name) for name in Told._fields]
    return Told._make([x if x.flags.writeable else x.copy() for x in fields])


@njit(**ROOMY)
def _lists(p, s, prices, who, width):
    """:class:`Listed`."""
    n, bands = s.reported_gain_db.shape
    servers = len(s.server_hz)
    per = bands // servers
    many = len(who)
    f = np.empty
    option, weight = np.full((many, width), -1), np.zeros((many, width, 2))
    private, off = np.full((many, width), np.inf), np.full(many, np.inf)
    rate, usual, best = np.ones((many, width)), np.ones((many, width)), np.full(n, -1)
    seconds, slack = np.zeros((many, width, 2)), np.zeros((many, width))
    acceptable, home, more = np.zeros((many, width), np.bool_), np.zeros(many, np.bool_), np.zeros(many, np.bool_)
    slot = np.full((many, width, 2), np.uint32(bands + servers))
    out = Listed(
        option, slot, weight, private, off, rate, usual, best, seconds, slack, acceptable, home, more, f(width)
    )
    leaks = p.interference and prices.leakage > 0.0
    near, cell, cells = np.zeros(servers), np.zeros(bands, np.int64), 0
    of, scale, speed, base, quiet = np.empty(bands, np.int64), f(bands), f(bands), f(bands), f(bands)
    if leaks:
        for m in range(many):
            _count_near(s.mean_gain_db[who[m]], near)
        cells = _cells(s.reuse_group, per, cell)
    for b in range(bands):
        of[b] = b // per
        speed[b] = s.server_hz[of[b]]
        scale[b] = p.nominal_w / (p.noise_w * (1.0 + s.noise_rise[b]))
        quiet[b] = -np.log(1.0 + s.noise_rise[b]) / NEPERS
        base[b] = p.backhaul_s + s.queue_s[of[b]] + s.air_queue_s[b]
    rates, alone, air_s, cost, heard, whole = f(bands), f(bands), f(bands), f(bands), np.zeros(bands), f(bands)
    m = 0
    for i in range(n):
        if not s.active[i]:
            best[i] = _highest(s.reported_gain_db[i], quiet, s.reachable[i], of, rates)
            continue
        _row(p, s, prices, i, leaks, near, cell, cells, of, scale, speed, base, rates, air_s, heard, whole, cost, alone)
        # never a literal, for which what is called would be compiled once more
        _fill(p, s, prices, i, np.int64(m), of, base, speed, rates, air_s, cost, alone, out)
        m += 1
    return out


@njit(**LEAN)
def _cells(group, per, cell):
    """Fill ``cell`` (B,), which bands hear each other: of one spectrum and channel; how many such sets there are."""
    cells = 0
    for k in range(len(group)):
        first = k
        while first > 0 and group[first - 1] != group[k]:
            first -= 1
        if first > 0:  # as the last server of its spectrum before it
            for c in range(per):
                cell[k * per + c] = cell[(first - 1) * per + c]
        else:
            for c in range(per):
                cell[k * per + c] = cells + c
            cells += per
    return cells


@njit(**LEAN)
def _count_near(gain, near):
    """Count a device at the server of its best mean gain."""
    most = gain[0]
    for q in range(1, len(gain)):
        most = gain[q] if gain[q] > most else most
    best = 0
    while gain[best] != most:
        best += 1
    near[best] += 1.0


@njit(**LEAN)
def _highest(gain, scale, reachable, of, rates):
    """The band of the highest rate within reach, -1 for none, by gains and ``scale`` in dB; ``rates`` is scratch."""
    for b in range(len(rates)):
        rates[b] = scale[b] + gain[b]
    best, most = -1, -np.inf
    for b in range(len(rates)):
        if rates[b] > most and reachable[of[b]]:
            best, most = b, rates[b]
    return best


@njit(**LEAN, fastmath={"contract", "reassoc", "nsz"})
def _others(cell, cells, heard, whole):
    """From what each band hears (B,) to the sum of the others of its spectrum and channel, ``cell`` (B,) of ``cells``;
    ``whole`` (B,) is scratch."""
    if cells <= FEW:
        for c in range(cells):
            total = 0.0
            for b in range(len(heard)):
                total += heard[b] if cell[b] == c else 0.0
            whole[c] = total
    else:
        for c in range(cells):
            whole[c] = 0.0
        for b in range(len(heard)):
            whole[cell[b]] += heard[b]
    for b in range(len(heard)):
        others = whole[cell[b]] - heard[b]
        heard[b] = others if others > 0.0 else 0.0


@njit(**LEAN, fastmath={"contract"})
def _row(p, s, prices, i, leaks, near, cell, cells, of, scale, speed, base, rates, air_s, heard, whole, cost, alone):
    """Fill, for a device on each band, ``rates`` (B,), s on air, private ``cost``, and what it pays ``alone``."""
    bands, servers = len(rates), len(near)
    per = bands // servers
    tau, bits, cycles = s.deadline_s[i], s.task_bits[i], s.task_cycles[i]
    omega, missed = prices.delay / tau, prices.miss * s.worth[i]
    battery = s.battery_j[i] if p.batteries else np.inf
    gain = s.reported_gain_db[i]
    for b in range(bands):
        rates[b] = p.band_hz * INVERSE_LOG_2 * fused_log(1.0 + scale[b] * fused_exp(NEPERS * gain[b])) + LEAST_RATE
    if leaks:
        mean = s.mean_gain_db[i]
        if per == 1:
            for b in range(bands):
                heard[b] = near[b] * fused_log(1.0 + fused_exp(NEPERS * mean[b]) * scale[b])
        else:
            for b in range(bands):
                heard[b] = near[of[b]] * fused_log(1.0 + fused_exp(NEPERS * mean[of[b]]) * scale[b])
        _others(cell, cells, heard, whole)
    was = s.last_server[i] if p.migration else -1
    moving = p.switch_s if was >= 0 else 0.0
    priced = prices.energy / ENERGY_UNIT * p.nominal_w / p.efficiency
    for b in range(bands):  # one array is written in each loop, so that it becomes vector code
        time = bits / rates[b]
        air_s[b] = time if time < tau else tau
    hurry = 1.0 / tau
    joule, moved = p.nominal_w / p.efficiency, prices.migration if was >= 0 else 0.0
    for b in range(bands):
        stay = of[b] == was
        wait = base[b] + (0.0 if stay else moving)
        c = omega * (wait if wait < tau else tau) + (0.0 if stay else moved)
        late = STEEPNESS * ((wait + prices.risk * (bits / rates[b] + cycles / speed[b])) * hurry - 1.0)
        near_late = late if late < 30.0 else 30.0
        near_late = near_late if near_late > -30.0 else -30.0
        cost[b] = c + missed / (1.0 + fused_exp(-near_late))
    for b in range(bands):
        duty = bits / rates[b] / p.slot_s
        cost[b] += prices.leakage * (duty if duty < 1.0 else 1.0) * heard[b]
    for b in range(bands):
        cost[b] += priced * air_s[b] + (missed if joule * air_s[b] > battery else 0.0)
    if prices.backlog != 0.0:
        for b in range(bands):
            backlog = s.queue_s[of[b]] * cycles / speed[b] + s.air_queue_s[b] * air_s[b]
            cost[b] += prices.backlog * backlog / p.slot_s**2
    for b in range(bands):
        alone[b] = cost[b] + omega * (air_s[b] + cycles / speed[b])


@njit(**LEAN, fastmath={"nsz", "nnan", "reassoc"})
def _fastest(rates, alone):
    """The band of the highest rate within reach, -1 for none."""
    most = -1.0
    for b in range(len(rates)):
        rate = rates[b] if alone[b] < np.inf else -1.0
        most = rate if rate > most else most
    if most < 0.0:
        return -1
    best = 0
    while not (rates[best] == most and alone[best] < np.inf):
        best += 1
    return best


@njit(**LEAN)
def _least(values):
    low = np.inf
    for b in range(len(values)):
        low = values[b] if values[b] < low else low
    return low


@njit(**LEAN)
def _able_beyond(alone, last, stays, base, of, was, moving, hurry, bits, cycles, rates, louder, speed):
    """How many bands of lone costs from ``last`` to ``stays`` might end in time, all of the band and server given."""
    count = 0
    for b in range(len(rates)):
        left = hurry - base[b] - (0.0 if of[b] == was else moving)
        fits = bits / (rates[b] + louder) + cycles / speed[b] <= left
        count += 1 if fits and alone[b] >= last and alone[b] <= stays else 0
    return count


@njit(**INLINE)
def _fill(p, s, prices, i, m, of, base, speed, rates, air_s, cost, alone, out):
    """Select a device's options and fill what is read of them."""
    bands, width = len(rates), out.option.shape[1]
    tau, bits, cycles = s.deadline_s[i], s.task_bits[i], s.task_cycles[i]
    omega, missed = prices.delay / tau, prices.miss * s.worth[i]
    local_s, local_j = cycles / s.device_hz[i], p.kappa * s.device_hz[i] ** 2 * cycles
    unpaid = p.batteries and local_j > s.battery_j[i]
    stays = prices.delay + missed
    if local_s <= tau and not (local_j > (s.battery_j[i] if p.batteries else np.inf)):
        stays = omega * local_s + prices.energy * local_j / ENERGY_UNIT
    own = np.inf if unpaid else local_s
    home = own <= tau
    rho = least_fraction(p, prices, own, tau)
    watts = most_power(p, local_j, s.battery_j[i], tau, rho, 1.0)
    was = s.last_server[i] if p.migration else -1
    moving = p.switch_s if was >= 0 else 0.0
    options, reach = out.option[m], s.reachable[i]
    options[0], out.private[m, 0], out.home[m], out.acceptable[m, 0] = 0, stays, home, home
    for b in range(bands):
        alone[b] = alone[b] if reach[of[b]] else np.inf
    held, worst, within = 1, np.inf, 0
    for b in range(bands):  # the least lone costs: few enter once the list is full
        c = alone[b]
        within += c < np.inf
        if not c < worst or width == 1:
            continue
        t = held if held < width else width - 1
        while t > 1 and alone[options[t - 1] - 1] > c:
            options[t] = options[t - 1]
            t -= 1
        options[t] = 1 + b
        held = min(held + 1, width)
        worst = alone[options[held - 1] - 1] if held == width else np.inf
    if within >= held:
        out.off[m] = worst if width > 1 else _least(alone)
    out.best[i] = _fastest(rates, alone)
    if not home and out.off[m] <= stays and watts > 0.0:  # might what is off the list serve it?
        louder = p.band_hz * np.log2(max(watts / p.nominal_w, 1.0))  # rates rise with power by no more
        last, hurry = (worst if width > 1 else -np.inf), prices.margin * tau
        able = _able_beyond(
            alone, last, stays, base, of, was, moving, hurry, rho * bits, rho * cycles, rates, louder, speed
        )  # fmt: skip
        for t in range(1, held):
            b = options[t] - 1
            left = hurry - base[b] - (0.0 if of[b] == was else moving)
            fits = rho * bits / (rates[b] + louder) + rho * cycles / speed[b] <= left
            able -= fits and last <= alone[b] <= stays
        out.more[m] = able > 0
    _listed(
        p, s, prices, i, m, held, home, stays, rho, watts, was, moving, of, base, speed, rates, air_s, cost, alone, out
    )


@njit(**LEAN, fastmath={"contract"})
def _listed(
    p, s, prices, i, m, held, home, stays, rho, watts, was, moving, of, base, speed, rates, air_s, cost, alone, out
):  # fmt: skip
    """Fill what is read of the options on a device's list; short loops over it, each of one thing."""
    bands = len(rates)
    tau, bits, cycles = s.deadline_s[i], s.task_bits[i], s.task_cycles[i]
    omega = prices.delay / tau
    gain, options, slot, weight = s.mean_gain_db[i], out.option[m], out.slot[m], out.weight[m]
    private, rate, usual, slack = out.private[m], out.rate[m], out.usual[m], out.slack[m]
    seconds, acceptable, work = out.seconds[m], out.acceptable[m], out.work
    root = np.sqrt(omega * cycles)
    for t in range(1, held):
        b = options[t] - 1
        private[t], rate[t], usual[t] = cost[b], rates[b], gain[of[b]]
        slot[t, 0], slot[t, 1] = b, bands + of[b]
        weight[t, 0], weight[t, 1] = np.sqrt(omega * air_s[b]), root
        acceptable[t] = home or (watts > 0.0 and alone[b] <= stays)
        slack[t] = tau if home else prices.margin * tau - base[b] - (0.0 if of[b] == was else moving)
    mean = p.nominal_w / p.noise_w
    for t in range(1, held):
        usual[t] = p.band_hz * INVERSE_LOG_2 * fused_log(1.0 + mean * fused_exp(NEPERS * usual[t])) + LEAST_RATE
    if home:
        return
    for t in range(1, held):
        octaves = (rate[t] - LEAST_RATE) / (p.band_hz * INVERSE_LOG_2)
        work[t] = fused_exp(octaves if octaves < 700.0 else 700.0)
    for t in range(1, held):
        work[t] = fused_log(1.0 + watts / p.nominal_w * (work[t] - 1.0))
    for t in range(1, held):
        seconds[t, 0] = rho * bits / (p.band_hz * INVERSE_LOG_2 * work[t] + LEAST_RATE)
        seconds[t, 1] = rho * cycles / speed[options[t] - 1]


def features(physics: Physics, told: Told, lists: Shortlists, made: Listed) -> tuple[Any, Any, Any]:
    """Features as in :func:`.core.observe`: agent (M, .), server (B, .), pair (M, T, .) of the options listed."""
    bands = told.reported_gain_db.shape[1]
    agent = np.empty((len(lists.who), AGENT_FEATURES), np.float32)
    server = np.zeros((bands, SERVER_FEATURES), np.float32)
    pair = np.zeros((*lists.option.shape, PAIR_FEATURES), np.float32)
    _observe(physics, told, lists.who, made, agent, server, pair)
    return agent, server, pair


@njit(**LEAN)
def _observe(p, s, who, made, agent, server, pair):
    n, bands = len(s.active), len(server)
    servers = len(s.server_hz)
    per = bands // servers
    activity = 0.0
    for i in range(n):
        activity += s.activity[i] / n
        best = made.best[i]
        if best >= 0:
            server[best, 6] += 0.2 * s.activity[i]
            if s.active[i]:
                server[best, 4] += 0.2
                server[best, 5] += 0.2 * s.task_cycles[i] / 3e7
    for b in range(bands):
        k = b // per
        x = server[b]
        x[0], x[1] = s.queue_s[k] / p.slot_s, s.air_queue_s[b] / p.slot_s
        x[2], x[3] = s.server_hz[k] / 1e10 - 1.0, np.log1p(s.noise_rise[b])
        x[7] = x[4] - x[0]
    for m in range(len(who)):
        i = who[m]
        tau, cycles, bits = s.deadline_s[i], s.task_cycles[i], s.task_bits[i]
        local_s, local_j = cycles / s.device_hz[i], p.kappa * s.device_hz[i] ** 2 * cycles
        a = agent[m]
        a[0], a[1], a[2], a[3] = 1.0, bits / 1e5 - 1.0, cycles / 3e7 - 1.0, tau / 0.035 - 1.0
        a[4], a[5] = s.device_hz[i] / 1e9 - 0.9, min(local_s / tau, 3.0) - 1.0
        a[6] = min(local_j / ENERGY_UNIT, 4.0)
        a[7] = s.battery_j[i] / p.battery_j if p.batteries else 1.0
        a[8], a[9] = min(s.age_slots[i], 20.0) / 10.0, s.activity[i]
        a[10] = 1.0 if p.batteries and s.battery_j[i] < local_j else 0.0
        a[11] = activity
        pair[m, 0, 0], pair[m, 0, 5] = 1.0, min(local_s / tau, 3.0)
        for t in range(1, pair.shape[1]):
            b = made.option[m, t] - 1
            if b < 0:
                break
            k = b // per
            rate, x = made.rate[m, t], pair[m, t]
            cpu = cycles / tau / s.server_hz[k]
            wait = (p.backhaul_s + s.queue_s[k] + s.air_queue_s[b]) / tau + cpu
            air = bits / tau / rate
            x[1], x[2] = log(rate / 2e7), log(made.usual[m, t] / 2e7)
            x[3], x[4], x[5] = min(air, 3.0), min(cpu, 3.0), min(air + wait, 3.0)
            x[6] = 1.0 if s.last_server[i] == k else 0.0
            x[7] = 1.0 if made.best[i] == b else 0.0
            x[8], x[9] = 1.0, lateness_row(air + wait, 1.0)
