r"""The compiled core of ``mec``: E networks a call, plain arrays, no objects.

One slot: ``believe`` takes the reports at their word (a belief, see ``mec_belief``, may know better), ``fill_game``
turns what is believed into the congestion game's weights and private costs, ``settle`` turns a choice into shares,
power and fractions that fit, ``execute`` runs the true physics. Beliefs read only what an operator is told (see
:class:`World`); ``execute`` alone reads the truth.

Sources: path loss and noise as in 3GPP TR 36.814 (urban macro); square-root shares and the game they induce:
Josilo and Dan (2019), "Selfish decentralized computation offloading for mobile cloud computing in dense
wireless networks"; energy model kappa f^2 c: Miettinen and Nurminen (2010).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from numba.extending import register_jitable

from coordinator.continuous import best_fraction, blend, falling_until, power_exponent
from games.congestion import Bool, Float, Int
from games.lean import INLINE, LEAN
from games.shares import Split, new_split, split_into
from hybridalloc.problems.mec.law import exp, log

AGENT_FEATURES, SERVER_FEATURES, PAIR_FEATURES = 12, 8, 11
HORIZON = 5  # slots over which a leftover backlog is charged to the agent that left it
STEEPNESS = 12.0  # of the smooth deadline: sigmoid(12 (T / tau - 1)) is .5 at the deadline, .95 a quarter late
ENERGY_UNIT = 0.1  # J: energies are priced and rewarded by the tenth of a joule
LEAST_RATE = 1e4  # bit/s: keeps a hopeless link's air time finite
INVERSE_LOG_2 = 1.4426950408889634
TINY = 1e-150  # least weight of who sends: shares stay defined


class Physics(NamedTuple):
    """Constants of a scenario. SI units."""

    slot_s: float
    band_hz: float
    noise_w: float
    power_w: float  # most a device may transmit
    nominal_w: float  # what the game assumes before power is settled
    least_w: float
    efficiency: float  # of the amplifier
    kappa: float  # J / (cycle Hz^2)
    backhaul_s: float
    switch_s: float  # migration time when the server changes
    battery_j: float
    queue_cap_s: float
    server_j: float  # J / cycle at a server
    static_w: float  # of one server
    reward_energy: float
    reward_age: float
    reward_switch: float
    certain: bool  # what is reported is how the slot will be
    interference: bool
    queues: bool
    batteries: bool
    migration: bool
    power_control: bool
    partial: bool
    floors: bool


class Prices(NamedTuple):
    """What the game charges; every one is tuned by random search for the game and the hybrid alike."""

    toll: float = 1.0
    delay: float = 0.5  # a full deadline of delay
    energy: float = 0.2  # a tenth of a joule
    miss: float = 1.0  # a certain miss, before any load: the unit, as in the reward
    risk: float = 1.0  # how much longer than believed the work is taken to be when misses are judged
    backlog: float = 0.0
    migration: float = 0.1
    interference: float = 0.0  # a noise rise of one, for a deadline: what power is charged
    leakage: float = (
        0.05  # a slot's signal, for the log of the noise rise at each task that may hear it: what options are
    )
    margin: float = 0.9  # of the deadline that floors and fractions aim at
    caution: float = 0.5  # shares, power and fractions count on the rate that is exceeded with this chance


class World(NamedTuple):
    """All of E networks; N devices, K servers, B bands (a server's bands stand together)."""

    # what the operator is told
    active: Bool  # (E, N) has a task
    task_bits: Float
    task_cycles: Float
    deadline_s: Float
    device_hz: Float
    battery_j: Float
    age_slots: Float
    last_server: Int
    activity: Float
    sla: Float
    worth: Float  # of a task that is completed
    harvest_log_j: Float  # (E, N, D) what each slot of the day brought, each day counting half; D = 0 without a day
    mean_gain: Float  # (E, N, K) linear, path loss and shadowing
    reported_gain: Float  # (E, N, B) linear, as last reported
    reachable: Bool  # (E, N, K)
    server_hz: Float  # (E, K)
    reuse_group: Int  # (E, K)
    queue_s: Float  # (E, K) reported
    air_queue_s: Float  # (E, B) reported
    noise_rise: Float  # (E, B) interference over noise, as last measured
    slot: Int  # (E,)
    cloudy: Bool  # (E,) in the slot before
    # what is true
    fading: Float  # (E, N, B, 2)
    attenuation: Float  # (E, N, K)
    true_gain: Float  # (E, N, B)
    backlog_s: Float  # (E, K)
    air_backlog_s: Float  # (E, B)
    correlation: Float  # (E, N)
    bursting: Bool  # (E, N)
    position: Float  # (E, N, 2) m
    site: Float  # (E, K, 2) m
    panel: Float  # (E, N) size of its solar panel, 1 on average
    orientation_h: Float  # (E, N) hours by which its sun is early
    # what is believed of it; memory of the trainer
    rates: Float  # (E, N, B, Q) believed bit/s at nominal power: Q equally likely values, ascending
    rate: Float  # (E, N, B) their median
    cpu_wait_s: Float  # (E, K) believed backlog
    air_wait_s: Float  # (E, B)
    trail_band: Int  # (E, N, HORIZON)
    trail_cpu_s: Float
    trail_air_s: Float


class Seen(NamedTuple):
    """What is read of E networks to decide a slot: fields of :class:`World`."""

    active: Bool
    task_bits: Float
    task_cycles: Float
    deadline_s: Float
    device_hz: Float
    battery_j: Float
    age_slots: Float
    last_server: Int
    activity: Float
    sla: Float
    worth: Float
    mean_gain: Float
    reachable: Bool
    server_hz: Float
    reuse_group: Int
    noise_rise: Float
    rates: Float
    rate: Float
    cpu_wait_s: Float
    air_wait_s: Float


class Reports(NamedTuple):
    """What is reported of E networks, and where :func:`believe` puts it: fields of :class:`World`."""

    reported_gain: Float
    noise_rise: Float
    queue_s: Float
    air_queue_s: Float
    rates: Float
    rate: Float
    cpu_wait_s: Float
    air_wait_s: Float


class Plan(NamedTuple):
    """What is executed in E networks. Shares are of the chosen band and server."""

    option: Int  # (E, N)
    air: Float
    cpu: Float
    power_w: Float
    fraction: Float
    served: Bool  # False: an active device whose task does not make its deadline, as believed
    air_price: Float  # (E, B) cost that one more band like it would save its devices, at the margin
    cpu_price: Float  # (E, K) the same for one more server like it
    held: Bool  # (E, N) holds a place, or needs none: a promise
    air_floor: Float  # (E, N) shares reserved for it
    cpu_floor: Float


class Wish(NamedTuple):
    """A proposal's power (W) and offloaded fraction with its spreads, (E, N); an infinite spread asks for nothing.

    ``settle`` fills in the best responses that it pulled towards them; nan where it did not.
    """

    power: Float
    power_spread: Float
    fraction: Float
    fraction_spread: Float
    power_response: Float
    fraction_response: Float


class Net(NamedTuple):
    """What settling and valuing read of one network: fields of :class:`World`, without E."""

    active: Bool  # (N,)
    task_bits: Float
    task_cycles: Float
    deadline_s: Float
    device_hz: Float
    battery_j: Float
    age_slots: Float
    last_server: Int
    worth: Float
    mean_gain: Float  # (N, K)
    server_hz: Float  # (K,)
    reuse_group: Int  # (K,)
    rates: Float  # (N, B, Q)
    rate: Float  # (N, B)
    cpu_wait_s: Float  # (K,)
    air_wait_s: Float  # (B,)


@njit(cache=True, inline="always")
def network(w, e):
    """Network ``e`` of a :class:`World`."""
    return Net(
        w.active[e], w.task_bits[e], w.task_cycles[e], w.deadline_s[e], w.device_hz[e], w.battery_j[e], w.age_slots[e],
        w.last_server[e], w.worth[e], w.mean_gain[e], w.server_hz[e], w.reuse_group[e], w.rates[e], w.rate[e],
        w.cpu_wait_s[e], w.air_wait_s[e],
    )  # fmt: skip


# A row is what settling and valuing read of a device on one option, in SI units. Of the device, by :func:`lay`:
TAU, BITS, LOCAL_S, LOCAL_J, BATTERY_J, WORTH, AGE, WAIT_S, QUEUE_S, CPU_S, MOVED = range(11)
# and by :func:`charge`, with prices: of its band on the server; who is named first where floors do not all fit; a
# second's and a joule's price and that of a miss; the least fraction it must send; weights of its legs; signal over
# noise at 1 W, at the rate that is counted on and at the median; at which ratio of prices power is at its limit, that
# ratio for all of the band, and the s on air at the limit
BAND, FIRST, RANK, SECOND, JOULE, MISS, LEAST, AIR_WEIGHT, CPU_WEIGHT, GAIN, MEDIAN, TOP, RATIO, TOP_S = range(11, 25)
# a place that is held (or none is needed) and its floors; what is proposed for power and fraction, as in Wish
HELD, AIR_FLOOR, CPU_FLOOR, POWER, POWER_SPREAD, FRACTION, FRACTION_SPREAD = range(25, 32)
ROW = 32
# What a device is settled to, see Plan; s on air for all of its task; best responses that were pulled, nan without
OUT_AIR, OUT_CPU, OUT_POWER, OUT_FRACTION, OUT_SERVED, OUT_S, OUT_POWER_RESPONSE, OUT_FRACTION_RESPONSE = range(8)
OUT = 8


class Room(NamedTuple):
    """Scratch of :func:`settle_server`, for up to N devices; whatever it holds."""

    band: Int  # (N,) of the server's, from 0; -1 for who sends nothing after all
    server: Int  # (N,) the same for its processor
    order: Int  # (N,)
    air_s: Float  # (N,)
    air_weight: Float  # (N,)
    cpu_weight: Float  # (N,)
    air_floor: Float  # (N,)
    cpu_floor: Float  # (N,)
    first: Float  # (N,)
    air: Float  # (N,)
    cpu: Float  # (N,)
    met: Bool  # (N,)
    air_total: Float  # (B / K,)
    split: Split


@register_jitable
def new_room(n, per):
    """Room for ``n`` devices and ``per`` bands a server."""
    f, w = np.empty, np.int64
    return Room(
        f(n, w), f(n, w), f(n, w), f(n), f(n), f(n), f(n), f(n), f(n), f(n), f(n), f(n, np.bool_), f(per),
        new_split(n, max(per, 1)),
    )  # fmt: skip


class Outcome(NamedTuple):
    """What happened. Per device (E, N); ``lost`` and ``carried`` are negative: what others lose because of i."""

    reward: Float
    done: Bool
    latency_s: Float
    device_j: Float
    server_j: Float  # (E,)
    sinr: Float  # nan where the device did not transmit
    switched: Bool
    lost: Float  # worth of smoothed completions lost by others in this slot
    carried: Float  # (E, N, HORIZON): in this slot, because of what i left h + 1 slots ago
    rise: Float  # (E, B)


@njit(cache=True, error_model="numpy", nogil=True)
def believe(p, w, which):
    """Take the :class:`Reports` of networks ``which`` (E,) at their word: ``w.rates`` (all alike), ``w.rate``, the
    queues."""
    networks, n, bands = w.reported_gain.shape
    scale = np.empty(bands)
    for e in range(networks):
        if not which[e]:
            continue
        w.cpu_wait_s[e] = w.queue_s[e]
        w.air_wait_s[e] = w.air_queue_s[e]
        for b in range(bands):
            scale[b] = p.nominal_w / (p.noise_w * (1.0 + w.noise_rise[e, b]))
        for i in range(n):
            gain, rate, rates = w.reported_gain[e, i], w.rate[e, i], w.rates[e, i]
            for b in range(bands):
                rate[b] = p.band_hz * INVERSE_LOG_2 * log(1.0 + scale[b] * gain[b]) + LEAST_RATE
            for b in range(bands):
                for q in range(rates.shape[1]):
                    rates[b, q] = rate[b]


@njit(cache=True, error_model="numpy", nogil=True)
def fill_game(p, w, prices, weight, capacity, private, allowed):
    """The congestion game of each network: resources are B bands (capacity 1), then K CPUs (Hz).

    A device's options stand side by side in rows of their own, so that each short loop becomes vector code.
    """
    networks, n, bands, values = w.rates.shape
    servers = w.server_hz.shape[1]
    per = bands // servers
    leaks = p.interference and prices.leakage > 0.0
    near, first = np.zeros(servers), np.empty(servers, np.int64)
    base, speed, queue, quiet = np.empty(bands), np.empty(bands), np.empty(bands), np.empty(bands)
    wait, time, air_s = np.empty(bands), np.empty(bands), np.empty(bands)
    miss, cost, heard = np.empty(bands), np.empty(bands), np.zeros(bands)
    whole = np.empty((servers, per))
    of = servers_of(bands, per)
    for e in range(networks):
        if leaks:
            count_near(w, e, near)
            first_of_group(w.reuse_group[e], first)
        capacity[e, :bands] = 1.0
        for k in range(servers):
            capacity[e, bands + k] = w.server_hz[e, k]
        for b in range(bands):
            base[b] = p.backhaul_s + w.cpu_wait_s[e, of[b]] + w.air_wait_s[e, b]
            speed[b], queue[b] = w.server_hz[e, of[b]], w.cpu_wait_s[e, of[b]]
            quiet[b] = p.nominal_w / (p.noise_w * (1.0 + w.noise_rise[e, b]))
        for i in range(n):
            if not w.active[e, i]:
                continue
            tau, bits, cycles = w.deadline_s[e, i], w.task_bits[e, i], w.task_cycles[e, i]
            battery = w.battery_j[e, i] if p.batteries else np.inf
            omega = prices.delay / tau
            missed = prices.miss * w.worth[e, i]
            cpu_weight = np.sqrt(omega * cycles)
            local_s = cycles / w.device_hz[e, i]
            local_j = p.kappa * w.device_hz[e, i] ** 2 * cycles
            allowed[e, i, 0] = True
            if local_s > tau or local_j > battery:
                private[e, i, 0] = prices.delay + missed
            else:
                private[e, i, 0] = omega * local_s + prices.energy * local_j / ENERGY_UNIT
            own, load, open_to = private[e, i, 1:], weight[e, i], allowed[e, i]
            for k in range(servers):
                load[bands + k] = cpu_weight
            was = w.last_server[e, i] if p.migration else -1
            switch = p.switch_s if was >= 0 else 0.0
            for b in range(bands):
                wait[b] = base[b] + switch
                air_s[b] = miss[b] = 0.0
            if was >= 0:
                for b in range(was * per, (was + 1) * per):
                    wait[b] = base[b]
            rates = w.rates[e, i]
            for q in range(values):
                for b in range(bands):
                    time[b] = bits / rates[b, q]
                for b in range(bands):  # the mean, of no more than a deadline
                    air_s[b] += (time[b] if time[b] < tau else tau) / values
                for b in range(bands):
                    miss[b] += _late_row(wait[b] + prices.risk * (time[b] + cycles / speed[b]), tau) / values
            for b in range(bands):
                sent_j = p.nominal_w / p.efficiency * air_s[b]
                late = missed * miss[b] + (missed if sent_j > battery else 0.0)
                cost[b] = omega * (wait[b] if wait[b] < tau else tau) + prices.energy / ENERGY_UNIT * sent_j + late
            if prices.backlog != 0.0:
                for b in range(bands):
                    backlog = queue[b] * cycles / speed[b] + w.air_wait_s[e, b] * air_s[b]
                    cost[b] += prices.backlog * backlog / p.slot_s**2
            if was >= 0:
                for b in range(bands):
                    cost[b] += prices.migration if of[b] != was else 0.0
            if leaks:
                _heard(w.mean_gain[e, i], quiet, near, first, whole, heard)
                rate = w.rate[e, i]
                for b in range(bands):
                    duty = bits / p.slot_s / rate[b]
                    cost[b] += prices.leakage * (duty if duty < 1.0 else 1.0) * heard[b]
            for b in range(bands):
                own[b] = cost[b]
            for b in range(bands):
                load[b] = np.sqrt(omega * air_s[b])
            for b in range(bands):
                open_to[1 + b] = w.reachable[e, i, of[b]]
            if private.shape[2] > 1 + bands:  # the last option sheds the task
                private[e, i, 1 + bands] = prices.delay + missed
                allowed[e, i, 1 + bands] = True


@njit(cache=True)
def servers_of(bands, per):
    """(B,) server of each band: a division in every inner loop costs more than what is done with it."""
    of = np.empty(bands, np.int64)
    for b in range(bands):
        of[b] = b // per
    return of


@njit(cache=True, error_model="numpy")
def count_near(w, e, near):
    """Fill ``near`` (K,) with the tasks of network ``e`` whose best mean gain is each server's."""
    near[:] = 0.0
    for i in range(w.active.shape[1]):
        if w.active[e, i]:
            best = 0
            for q in range(1, len(near)):
                if w.mean_gain[e, i, q] > w.mean_gain[e, i, best]:
                    best = q
            near[best] += 1.0


@njit(cache=True, error_model="numpy")
def first_of_group(group, first):
    """Fill ``first`` (K,) with the first server of each one's reuse group (K,)."""
    for k in range(len(group)):
        first[k] = k
        for q in range(k):
            if group[q] == group[k]:
                first[k] = q
                break


@njit(cache=True, error_model="numpy")
def _heard(gain, quiet, near, first, whole, heard):
    """Fill ``heard`` (B,), for a device of mean gains (K,): on each band the sum, over the tasks near other servers of
    its spectrum, of log(1 + rise): its signal there, at nominal power, over noise and interference as last measured.

    ``quiet`` (B,) is nominal power over that noise; ``near`` and ``first`` (K,) as counted; ``whole`` is scratch.
    """
    servers, per = whole.shape
    if per == 1:
        for b in range(servers):
            heard[b] = near[b] * log(1.0 + gain[b] * quiet[b])
    else:
        for b in range(servers * per):
            heard[b] = near[b // per] * log(1.0 + gain[b // per] * quiet[b])
    whole[:] = 0.0
    for k in range(servers):
        for c in range(per):
            whole[first[k], c] += heard[k * per + c]
    for k in range(servers):
        for c in range(per):
            heard[k * per + c] = max(whole[first[k], c] - heard[k * per + c], 0.0)


@njit(cache=True, error_model="numpy", inline="always")
def _late_row(time, tau):
    """:func:`_late` without a branch or a call, for loops that are to become vector code."""
    z = STEEPNESS * (time / tau - 1.0)
    near = z if z > -30.0 else -30.0
    near = near if near < 30.0 else 30.0
    late = 1.0 / (1.0 + exp(-near))
    late = late if z <= 30.0 else 1.0
    return late if z >= -30.0 else 0.0


@njit(cache=True, error_model="numpy", inline="always")
def _late(time, tau):
    z = STEEPNESS * (time / tau - 1.0)
    if z > 30.0:
        return 1.0
    if z < -30.0:
        return 0.0
    return 1.0 / (1.0 + np.exp(-z))


@njit(cache=True, error_model="numpy")
def fill_places(p, w, prices, game, seconds, slack, acceptable, home):
    """What serving each device on each option takes, for :class:`games.places.Places`: its air time, then its CPU time.

    A place counts the most power that the device may use and can pay for, and the least fraction that its own
    processor leaves: what serves it with the least of the shared resources. A device that can finish by itself needs
    none.
    """
    networks, n, bands = w.rate.shape
    servers = w.server_hz.shape[1]
    per = bands // servers
    row, of = np.empty(bands), servers_of(bands, per)
    for e in range(networks):
        for i in range(n):
            if not w.active[e, i]:
                continue
            cycles = w.task_cycles[e, i]
            home[e, i] = _own(p, w, e, i) <= w.deadline_s[e, i]
            acceptable[e, i, 0] = home[e, i]
            tau, own = w.deadline_s[e, i], _own(p, w, e, i)
            local_j = p.kappa * w.device_hz[e, i] ** 2 * cycles
            rho = _least_fraction(p, prices, own, tau)
            watts = _most_power(p, local_j, w.battery_j[e, i], tau, rho, 1.0)
            if home[e, i]:
                for b in range(bands):
                    if w.reachable[e, i, of[b]]:
                        acceptable[e, i, 1 + b] = True
                        slack[e, i, 1 + b] = w.deadline_s[e, i]
                continue
            legs, rates = seconds[e, i], w.rates[e, i]
            for b in range(bands):  # of the rate at the power that is used: log(1 + SNR)
                row[b] = (_exceeded(rates[b], prices.caution) - LEAST_RATE) / (p.band_hz * INVERSE_LOG_2)
            for b in range(bands):
                snr = (exp(row[b] if row[b] < 700.0 else 700.0) - 1.0) / p.nominal_w
                row[b] = log(1.0 + watts * snr)
            for b in range(bands):
                row[b] = rho * w.task_bits[e, i] / (p.band_hz * INVERSE_LOG_2 * row[b] + LEAST_RATE)
            for b in range(bands):
                k, o = of[b], 1 + b
                if not w.reachable[e, i, k]:
                    continue
                slack[e, i, o] = prices.margin * w.deadline_s[e, i] - _wait(p, w, e, i, b, k)
                legs[o, 0], legs[o, 1] = row[b], rho * cycles / w.server_hz[e, k]
                alone = game.private_cost[e, i, o] + game.weight[e, i, b] ** 2
                alone += game.weight[e, i, bands + k] ** 2 / w.server_hz[e, k]
                acceptable[e, i, o] = watts > 0.0 and alone <= game.private_cost[e, i, 0]


@njit(cache=True, error_model="numpy", inline="always")
def _own(p, w, e, i):
    """s that a device takes for its whole task by itself; inf where its battery cannot pay."""
    local_j = p.kappa * w.device_hz[e, i] ** 2 * w.task_cycles[e, i]
    if p.batteries and local_j > w.battery_j[e, i]:
        return np.inf
    return w.task_cycles[e, i] / w.device_hz[e, i]


@njit(cache=True, error_model="numpy", inline="always")
def _least_fraction(p, prices, own, tau):
    """Smallest fraction that must be sent so that the device's own side, of ``own`` s, is in time; 1 where it can keep
    nothing."""
    if not p.partial or own == np.inf:
        return 1.0
    return max(0.0, 1.0 - prices.margin * tau / own) if own > tau else 0.0


@njit(cache=True, error_model="numpy", inline="always")
def _most_power(p, local_j, battery_j, tau, rho, share):
    """Most power in W with which a device may send for a whole deadline at ``share`` of the air, by limit and battery,
    sending ``rho`` of its task and computing the rest."""
    most = p.power_w if p.power_control else p.nominal_w
    if p.batteries:
        window = share * tau / p.efficiency
        if window > 0.0:
            most = min(most, max(battery_j - (1.0 - rho) * local_j, 0.0) / window)
    return most


@njit(cache=True, error_model="numpy", inline="always")
def _wait(p, w, e, i, b, k):
    """s that pass before a device's work on band b and server k begins, as believed."""
    moved = p.migration and w.last_server[e, i] >= 0 and w.last_server[e, i] != k
    return p.backhaul_s + w.cpu_wait_s[e, k] + w.air_wait_s[e, b] + (p.switch_s if moved else 0.0)


@njit(cache=True, error_model="numpy", inline="always")
def _snr(p, rate):
    """Signal over noise and interference at 1 W, from the rate at nominal power."""
    return (np.exp2((rate - LEAST_RATE) / p.band_hz) - 1.0) / p.nominal_w


@njit(cache=True, error_model="numpy", inline="always")
def _rate(p, power, gain):
    return p.band_hz * np.log2(1.0 + power * gain) + LEAST_RATE


@njit(**INLINE)
def lay(p, w, i, b, row, j):
    """Fill row j with what is read of device i of a :class:`Net` on band b; -1: it sends nothing."""
    cycles, hz = w.task_cycles[i], w.device_hz[i]
    row[j, TAU], row[j, BITS], row[j, WORTH] = w.deadline_s[i], w.task_bits[i], w.worth[i]
    row[j, BATTERY_J] = w.battery_j[i]
    row[j, LOCAL_S], row[j, LOCAL_J] = cycles / hz, p.kappa * hz**2 * cycles
    row[j, AGE] = min(w.age_slots[i] + 1.0, 20.0)
    if b >= 0:
        k = b // (w.rate.shape[1] // len(w.server_hz))
        moved = p.migration and w.last_server[i] >= 0 and w.last_server[i] != k
        row[j, MOVED], row[j, QUEUE_S] = 1.0 if moved else 0.0, w.cpu_wait_s[k]
        row[j, WAIT_S] = p.backhaul_s + w.cpu_wait_s[k] + w.air_wait_s[b] + (p.switch_s if moved else 0.0)
        row[j, CPU_S] = cycles / w.server_hz[k]


@njit(**INLINE)
def charge(p, w, prices, priority, rank, energy, i, b, row, j):
    """Fill the rest of row j on band b, without a place and nothing proposed; ``priority``, ``rank`` and ``energy``
    (what a tenth of a joule is worth) are the device's own."""
    servers = len(w.server_hz)
    per = w.rate.shape[1] // servers
    k = b // per
    tau = row[j, TAU]
    row[j, BAND], row[j, FIRST], row[j, RANK] = b - k * per, priority, rank
    row[j, SECOND], row[j, JOULE], row[j, MISS] = prices.delay / tau, energy / ENERGY_UNIT, prices.miss * row[j, WORTH]
    own = np.inf if p.batteries and row[j, LOCAL_J] > row[j, BATTERY_J] else row[j, LOCAL_S]
    row[j, LEAST] = _least_fraction(p, prices, own, tau)
    rate = _exceeded(w.rates[i, b], prices.caution)
    gain, air_s = _snr(p, rate), row[j, BITS] / rate
    row[j, GAIN], row[j, MEDIAN] = gain, gain if w.rate[i, b] == rate else _snr(p, w.rate[i, b])
    row[j, AIR_WEIGHT] = max(np.sqrt(row[j, SECOND] * air_s), TINY)
    row[j, CPU_WEIGHT] = max(np.sqrt(row[j, SECOND] * w.task_cycles[i]), TINY)
    row[j, TOP], row[j, RATIO], row[j, TOP_S] = 0.0, np.inf, air_s
    if p.power_control:
        harm = 0.0
        if p.interference and prices.interference > 0.0:
            for q in range(servers):
                if q != k and w.reuse_group[q] == w.reuse_group[k]:
                    harm += w.mean_gain[i, q] / p.noise_w
        watt = row[j, JOULE] / p.efficiency + prices.interference * harm / tau
        row[j, TOP], octaves = falling_until(gain * p.power_w)
        row[j, TOP_S] = row[j, BITS] / (p.band_hz * octaves + LEAST_RATE)
        if watt > 0.0 and gain > 0.0:
            row[j, RATIO] = row[j, SECOND] * gain / watt
    row[j, HELD] = row[j, AIR_FLOOR] = row[j, CPU_FLOOR] = row[j, POWER] = row[j, FRACTION] = 0.0
    row[j, POWER_SPREAD] = row[j, FRACTION_SPREAD] = np.inf


@njit(cache=True, error_model="numpy", nogil=True)
def settle(p, w, prices, priority, rank, wish, trust, option, seated, held, floor, energy, plan):
    """Shares, power and fraction for ``option`` (E, N) on believed rates; then the safety filter. Who has no task, or
    cannot reach the server, has option 0.

    Where ``seated``, ``held`` (E, N) and ``floor`` (E, N, 2) are given (see :mod:`games.admission`), and who is held is
    in time by construction. Otherwise a device's floors stretch its square-root shares until its deadline holds, and where they do
    not all fit they are admitted by priority. ``energy`` (E, N) is what a tenth of a joule is worth to each device.
    Fits by construction: shares of a band or server sum to at most one, power is within its limit and within what the
    battery can pay for, and no device starts local work that it cannot pay for or finish in time. ``plan.served`` is
    who is in time with what it got, as believed.
    """
    networks, n, bands = w.rate.shape
    servers = w.server_hz.shape[1]
    per = bands // servers if servers else 1
    count, member = np.empty(servers, np.int64), np.empty((servers, n), np.int64)
    row, out = np.empty((n, ROW)), np.empty((n, OUT))
    room = new_room(n, per)
    for e in range(networks):
        one = network(w, e)
        count[:] = 0
        for i in range(n):
            o = option[e, i]
            if o > 0 and not (w.active[e, i] and w.reachable[e, i, (o - 1) // per]):
                o = 0
            plan.option[e, i] = o
            plan.held[e, i] = seated and held[e, i] and o == option[e, i]
            plan.air_floor[e, i] = floor[e, i, 0] if plan.held[e, i] else 0.0
            plan.cpu_floor[e, i] = floor[e, i, 1] if plan.held[e, i] else 0.0
            sends = w.active[e, i] and o > 0
            if w.active[e, i]:
                lay(p, one, i, o - 1, row, i)
            if sends:
                k = (o - 1) // per
                member[k, count[k]] = i
                count[k] += 1
                charge(p, one, prices, priority[e, i], rank[e, i], energy[e, i], i, o - 1, row, i)
                row[i, POWER], row[i, POWER_SPREAD] = wish.power[e, i], wish.power_spread[e, i]
                row[i, FRACTION], row[i, FRACTION_SPREAD] = wish.fraction[e, i], wish.fraction_spread[e, i]
                row[i, HELD] = 1.0 if plan.held[e, i] else 0.0
                row[i, AIR_FLOOR], row[i, CPU_FLOOR] = plan.air_floor[e, i], plan.cpu_floor[e, i]
            else:
                plan.power_w[e, i] = plan.fraction[e, i] = plan.air[e, i] = plan.cpu[e, i] = 0.0
                if w.active[e, i]:
                    plan.served[e, i] = _able(p, row, i, 0.0)
        for k in range(servers):
            these, air_price = member[k, : count[k]], plan.air_price[e, k * per : (k + 1) * per]
            cpu_price = plan.cpu_price[e, k : k + 1]
            settle_server(p, prices, trust, seated, row, these, count[k], out, air_price, cpu_price, room)
            plan.cpu_price[e, k] /= w.server_hz[e, k]  # weights are per cycle: now in cost, like the air's
            for m in range(count[k]):
                i = these[m]
                plan.air[e, i], plan.cpu[e, i], plan.power_w[e, i] = out[m, OUT_AIR], out[m, OUT_CPU], out[m, OUT_POWER]
                plan.fraction[e, i], plan.served[e, i] = out[m, OUT_FRACTION], out[m, OUT_SERVED] > 0.0
                wish.power_response[e, i] = out[m, OUT_POWER_RESPONSE]
                wish.fraction_response[e, i] = out[m, OUT_FRACTION_RESPONSE]


@njit(**INLINE)
def _able(p, row, j, rho):
    """Whether the device of row j can pay for what it does not send, 1 - ``rho`` of its task, and finish it in time."""
    kept = 1.0 - rho
    return kept * row[j, LOCAL_S] <= row[j, TAU] and not (p.batteries and kept * row[j, LOCAL_J] > row[j, BATTERY_J])


@njit(**LEAN)
def settle_server(p, prices, trust, seated, row, member, count, out, air_price, cpu_price, room):
    """One server's part of :func:`settle`; no server's part reads another's.

    Args:
        row: (., ROW) of :func:`lay` and :func:`charge`. member: its first ``count`` are the rows of who shares this
            server, by device, ascending. out: (., OUT), filled in their order with what each gets. air_price,
            cpu_price: (B / K,) and (1,), filled; the latter by the cycle. room: from :func:`new_room`.
    """
    band, server, air_s, air_weight, cpu_weight = room.band, room.server, room.air_s, room.air_weight, room.cpu_weight
    air_floor, cpu_floor, first, air, cpu, met = (
        room.air_floor, room.cpu_floor, room.first, room.air, room.cpu, room.met,
    )  # fmt: skip
    air_total = room.air_total
    air_total[:] = 0.0
    cpu_total = 0.0
    for m in range(count):
        j = member[m]
        band[m], server[m], first[m] = int(row[j, BAND]), 0, row[j, FIRST]
        air_floor[m] = cpu_floor[m] = 0.0
        cpu_weight[m] = row[j, CPU_WEIGHT]
        air_total[band[m]] += row[j, AIR_WEIGHT]
        cpu_total += row[j, CPU_WEIGHT]
    # power: each device's best response at its square-root share of the air
    for m in range(count):
        j = member[m]
        power, seconds = p.power_w if p.power_control else p.nominal_w, row[j, TOP_S]
        ratio = row[j, RATIO] * air_total[band[m]] / row[j, AIR_WEIGHT]
        if ratio < row[j, TOP]:
            octaves, power = power_exponent(ratio, row[j, GAIN])
            if power > p.least_w:
                seconds = row[j, BITS] / (p.band_hz * octaves + LEAST_RATE)
            else:
                power = p.least_w
                seconds = row[j, BITS] / _rate(p, power, row[j, GAIN])
        out[m, OUT_POWER_RESPONSE] = np.nan
        if p.power_control and row[j, POWER_SPREAD] < np.inf:  # in units of the range: the cost's curvature is about 1
            out[m, OUT_POWER_RESPONSE] = power
            scale = p.power_w - p.least_w
            pulled = blend(power / scale, 1.0, trust, row[j, POWER] / scale, row[j, POWER_SPREAD] / scale)
            power = min(max(pulled * scale, p.least_w), p.power_w)
            seconds = row[j, BITS] / _rate(p, power, row[j, GAIN])
        out[m, OUT_POWER], out[m, OUT_S] = power, seconds
    air_total[:] = 0.0
    for m in range(count):
        air_weight[m] = max(np.sqrt(row[member[m], SECOND] * out[m, OUT_S]), TINY)
        air_total[band[m]] += air_weight[m]
    # fraction: local and remote side by side
    for m in range(count):
        j = member[m]
        seconds = out[m, OUT_S]
        out[m, OUT_FRACTION_RESPONSE] = np.nan
        rho = 1.0
        if p.partial and not (p.batteries and row[j, LOCAL_J] > row[j, BATTERY_J]):
            remote = seconds * air_total[band[m]] / air_weight[m] + row[j, CPU_S] * cpu_total / cpu_weight[m]
            rho = best_fraction(
                row[j, SECOND], row[j, JOULE], row[j, LOCAL_S], row[j, LOCAL_J], row[j, WAIT_S], remote,
                out[m, OUT_POWER] * seconds / p.efficiency, prices.margin * row[j, TAU], row[j, MISS],
            )  # fmt: skip
            if row[j, FRACTION_SPREAD] < np.inf:
                out[m, OUT_FRACTION_RESPONSE] = rho
                rho = min(max(blend(rho, 1.0, trust, row[j, FRACTION], row[j, FRACTION_SPREAD]), 0.0), 1.0)
            if rho > 0.0 and (1.0 - rho) * row[j, LOCAL_S] > row[j, TAU]:
                rho = 1.0  # nothing is in time as believed; a local side that is late for certain spoils the rest
            if seated and row[j, HELD] > 0.0:
                rho = max(rho, row[j, LEAST])
        out[m, OUT_FRACTION] = rho
    air_total[:] = 0.0
    cpu_total = 0.0
    for m in range(count):
        rho = out[m, OUT_FRACTION]
        if rho <= 0.0:
            band[m] = server[m] = -1
            out[m, OUT_POWER] = 0.0
            continue
        air_s[m] = out[m, OUT_S] * rho
        root = np.sqrt(rho)
        air_weight[m] *= root
        cpu_weight[m] *= root
        air_total[band[m]] += air_weight[m]
        cpu_total += cpu_weight[m]
    # floors: how far the square-root shares must be stretched for the deadline, at the power and fraction chosen
    for m in range(count):
        if band[m] >= 0 and p.floors:
            j = member[m]
            slack = prices.margin * row[j, TAU] - row[j, WAIT_S]
            air_even = air_weight[m] / air_total[band[m]]
            cpu_even = cpu_weight[m] / cpu_total
            time = air_s[m] / air_even + out[m, OUT_FRACTION] * row[j, CPU_S] / cpu_even
            if slack > 0.0 and max(air_even, cpu_even) * time <= slack * (1.0 + 1e-12):
                air_floor[m] = air_even * time / slack
                cpu_floor[m] = cpu_even * time / slack
    if seated:
        _keep_places(row, member, count, room)
    split_into(count, air_weight, air_floor, band, first, air, met, air_price, room.split)
    for m in range(count):
        if band[m] >= 0 and not met[m]:
            cpu_floor[m] = 0.0
    split_into(count, cpu_weight, cpu_floor, server, first, cpu, met, cpu_price, room.split)
    for m in range(count):
        out[m, OUT_AIR], out[m, OUT_CPU] = air[m], cpu[m]
        _finish(p, prices, row, member[m], out, m)


@njit(**LEAN)
def _keep_places(row, member, count, room):
    """The places' floors first; what is left goes to the floors that were chosen, by class and priority, where both
    legs fit."""
    band, air_floor, cpu_floor, air_room = room.band, room.air_floor, room.cpu_floor, room.air_total
    order, key = room.order, room.air
    air_room[:] = 1.0
    cpu_room = 1.0
    for m in range(count):
        j = member[m]
        x, own = m, 1e3 * row[j, RANK] - row[j, FIRST]
        while x > 0 and key[x - 1] > own:
            order[x], key[x] = order[x - 1], key[x - 1]
            x -= 1
        order[x], key[x] = m, own
        if band[m] >= 0:
            air_room[band[m]] -= row[j, AIR_FLOOR]
            cpu_room -= row[j, CPU_FLOOR]
    for x in range(count):
        m = order[x]
        j, b = member[m], band[m]
        if b < 0:
            continue
        air_more = max(air_floor[m] - row[j, AIR_FLOOR], 0.0)
        cpu_more = max(cpu_floor[m] - row[j, CPU_FLOOR], 0.0)
        if air_more > air_room[b] or cpu_more > cpu_room:
            air_more = cpu_more = 0.0
        air_floor[m] = row[j, AIR_FLOOR] + air_more
        cpu_floor[m] = row[j, CPU_FLOOR] + cpu_more
        air_room[b] -= air_more
        cpu_room -= cpu_more


@njit(**INLINE)
def _finish(p, prices, row, j, out, m):
    """Power and fraction with the shares that a device got, in row j of ``row`` and m of ``out``: within its battery,
    and in time if that can be; whether it is. Where it would be late, power goes up first, then what is sent goes down
    to what its own side leaves."""
    rho = out[m, OUT_FRACTION]
    if rho <= 0.0:
        out[m, OUT_SERVED] = 1.0 if _able(p, row, j, 0.0) else 0.0
        return
    tau, gain, air, cpu = row[j, TAU], row[j, GAIN], out[m, OUT_AIR], out[m, OUT_CPU]
    local_j, battery_j = row[j, LOCAL_J], row[j, BATTERY_J]
    slack = prices.margin * tau - row[j, WAIT_S]
    cpu_s = row[j, CPU_S] / cpu if cpu > 0.0 else np.inf
    power, seconds = out[m, OUT_POWER], out[m, OUT_S]
    most = _most_power(p, local_j, battery_j, tau, rho, air)
    if power > most:
        power, seconds = most, row[j, BITS] / _rate(p, most, gain)
    air_s = seconds / air if air > 0.0 else np.inf
    if not rho * (air_s + cpu_s) <= slack and air > 0.0 and cpu > 0.0:
        least = row[j, LEAST]
        payable = _most_power(p, local_j, battery_j, tau, least, air)
        left = slack / rho - cpu_s
        needed = np.inf  # the power at which all that is sent would be in time
        if left > 0.0:
            bits = (row[j, BITS] / (air * left) - LEAST_RATE) / p.band_hz
            needed = (np.exp2(min(bits, 1000.0)) - 1.0) / gain if gain > 0.0 else np.inf
        for attempt in range(2):  # with less sent, more is kept that has to be paid for
            top = payable if attempt else max(payable, power)
            watts = min(max(needed * (1.0 + 1e-12), power), top)
            longer = row[j, BITS] / _rate(p, watts, gain)
            air_s = longer / air
            sent = max(slack, 0.0) / (air_s + cpu_s)
            now = rho
            if sent >= least * (1.0 - 1e-12) and least < 1.0:
                now = min(rho, max(sent, least))
            elif rho > sent * (1.0 + 1e-12):  # late whatever it does: as it was
                continue
            if watts <= _most_power(p, local_j, battery_j, tau, now, air) * (1.0 + 1e-12):
                rho, power, seconds = now, watts, longer
                break
    if rho <= 0.0:
        out[m, OUT_AIR] = out[m, OUT_CPU] = power = 0.0
    out[m, OUT_FRACTION], out[m, OUT_POWER], out[m, OUT_S] = rho, power, seconds
    served = _able(p, row, j, rho)
    if served and rho > 0.0:
        time = row[j, WAIT_S] + rho * seconds / air + rho * row[j, CPU_S] / cpu if air > 0.0 and cpu > 0.0 else np.inf
        served = time <= tau * (1.0 + 1e-9)
    out[m, OUT_SERVED] = 1.0 if served else 0.0


@njit(cache=True, error_model="numpy", inline="always")
def _exceeded(rates, chance):
    """The rate that is exceeded with ``chance``: the quantile 1 - chance of Q equally likely values, ascending."""
    values = rates.shape[0]
    if values == 1:
        return rates[0]
    at = min(max((1.0 - chance) * values - 0.5, 0.0), values - 1.0)
    k = min(int(at), values - 2)
    return rates[k] + (at - k) * (rates[k + 1] - rates[k])


@njit(cache=True, error_model="numpy")
def overload(p, w, prices, option, out):
    """(E,) share of used bands and servers on which a raw choice asks for more than there is.

    Every offloading device asks, at nominal power, for the shares with which it would make its deadline if
    both stretched alike from the square-root split; a resource is violated where the requests sum above one.
    """
    networks, n, bands = w.rate.shape
    servers = w.server_hz.shape[1]
    per = bands // servers
    air_total = np.empty(bands)
    cpu_total = np.empty(servers)
    air_need = np.empty(bands)
    cpu_need = np.empty(servers)
    for e in range(networks):
        air_total[:] = 0.0
        cpu_total[:] = 0.0
        air_need[:] = 0.0
        cpu_need[:] = 0.0
        for i in range(n):
            if w.active[e, i] and option[e, i] > 0:
                b = option[e, i] - 1
                omega = 1.0 / w.deadline_s[e, i]
                air_total[b] += np.sqrt(omega * w.task_bits[e, i] / w.rate[e, i, b])
                cpu_total[b // per] += np.sqrt(omega * w.task_cycles[e, i])
        for i in range(n):
            if w.active[e, i] and option[e, i] > 0:
                b = option[e, i] - 1
                k = b // per
                omega = 1.0 / w.deadline_s[e, i]
                air_share = np.sqrt(omega * w.task_bits[e, i] / w.rate[e, i, b]) / air_total[b]
                cpu_share = np.sqrt(omega * w.task_cycles[e, i]) / cpu_total[k]
                time = w.task_bits[e, i] / w.rate[e, i, b] / air_share
                time += w.task_cycles[e, i] / w.server_hz[e, k] / cpu_share
                slack = w.deadline_s[e, i] - p.backhaul_s - w.cpu_wait_s[e, k] - w.air_wait_s[e, b]
                need = min(time / slack, 1e3) if slack > 0.0 else 1e3
                air_need[b] += need * air_share
                cpu_need[k] += need * cpu_share
        used = 0
        over = 0
        for b in range(bands):
            if air_total[b] > 0.0:
                used += 1
                if air_need[b] > 1.0 + 1e-9:
                    over += 1
        for k in range(servers):
            if cpu_total[k] > 0.0:
                used += 1
                if cpu_need[k] > 1.0 + 1e-9:
                    over += 1
        out[e] = over / used if used else 0.0


@njit(cache=True, error_model="numpy", nogil=True)
def execute(p, w, plan, out):
    """Run one slot of true physics and update batteries, ages, queues and servers in ``w``."""
    networks, n, bands = w.rate.shape
    servers = w.server_hz.shape[1]
    per = bands // servers
    band = np.empty(n, np.int64)
    air_s = np.empty(n)
    time = np.empty(n)
    local_part = np.empty(n)
    remote = np.empty(n)
    air_part = np.empty(n)
    cpu_part = np.empty(n)
    air_used = np.empty(n)
    cpu_used = np.empty(n)
    rise = np.empty(bands)
    duty = np.empty(n)  # mean received power over noise per unit of gain, as the interference was summed
    for e in range(networks):
        for i in range(n):
            sends = w.active[e, i] and plan.option[e, i] > 0 and plan.fraction[e, i] > 0.0 and plan.air[e, i] > 0.0
            band[i] = plan.option[e, i] - 1 if sends else -1
        # mean interference: two rounds of rate -> time on air -> interference
        rise[:] = 0.0
        for step in range(3):
            for i in range(n):
                b = band[i]
                if b >= 0:
                    sinr = plan.power_w[e, i] * w.true_gain[e, i, b] / (p.noise_w * (1.0 + rise[b]))
                    rate = p.band_hz * np.log2(1.0 + sinr) + LEAST_RATE
                    air_s[i] = plan.fraction[e, i] * w.task_bits[e, i] / rate
                    out.sinr[e, i] = sinr
                else:
                    out.sinr[e, i] = np.nan
            if not p.interference or step == 2:
                break
            rise[:] = 0.0
            for i in range(n):
                b = band[i]
                if b < 0:
                    continue
                duty[i] = min(plan.air[e, i], air_s[i] / p.slot_s) * plan.power_w[e, i] / p.noise_w
                k = b // per
                for q in range(servers):
                    if q != k and w.reuse_group[e, q] == w.reuse_group[e, k]:
                        c = q * per + b % per
                        rise[c] += duty[i] * w.true_gain[e, i, c]
        for b in range(bands):
            out.rise[e, b] = rise[b]
        # times, energies, what each task did
        out.server_j[e] = p.static_w * servers * p.slot_s
        for i in range(n):
            time[i] = 0.0
            local_part[i] = 0.0
            air_part[i] = 0.0
            cpu_part[i] = 0.0
            air_used[i] = 0.0
            cpu_used[i] = 0.0
            out.done[e, i] = False
            out.switched[e, i] = False
            out.latency_s[e, i] = np.nan
            out.device_j[e, i] = 0.0
            if w.active[e, i]:
                tau = w.deadline_s[e, i]
                cycles = w.task_cycles[e, i]
                rho = plan.fraction[e, i] if band[i] >= 0 else 0.0
                local_s = (1.0 - rho) * cycles / w.device_hz[e, i]
                local_j = (1.0 - rho) * p.kappa * w.device_hz[e, i] ** 2 * cycles
                able = local_s <= tau and not (p.batteries and local_j > w.battery_j[e, i])
                time[i] = local_s
                local_part[i] = local_s if able else np.inf
                if band[i] >= 0:
                    b = band[i]
                    k = b // per
                    moved = p.migration and w.last_server[e, i] >= 0 and w.last_server[e, i] != k
                    wait = p.backhaul_s + w.air_backlog_s[e, b] + (p.switch_s if moved else 0.0)
                    air_part[i] = air_s[i] / plan.air[e, i]
                    cpu_part[i] = rho * cycles / (w.server_hz[e, k] * max(plan.cpu[e, i], 1e-12))
                    remote[i] = wait + air_part[i] + w.backlog_s[e, k] + cpu_part[i]
                    time[i] = max(time[i], remote[i])
                    air_used[i] = min(air_s[i], plan.air[e, i] * max(tau - wait, 0.0))
                    if wait + air_part[i] <= tau:
                        cpu_used[i] = rho * cycles / w.server_hz[e, k]
                        out.server_j[e] += p.server_j * rho * cycles
                    out.device_j[e, i] = plan.power_w[e, i] * air_used[i] / p.efficiency
                    out.switched[e, i] = moved
                    w.last_server[e, i] = k
                if able:
                    out.device_j[e, i] += local_j
                    out.done[e, i] = time[i] <= tau
                if out.done[e, i]:
                    out.latency_s[e, i] = time[i]
                if p.batteries:
                    w.battery_j[e, i] = max(w.battery_j[e, i] - out.device_j[e, i], 0.0)
            w.age_slots[e, i] = 1.0 if out.done[e, i] else w.age_slots[e, i] + 1.0
            reward = w.worth[e, i] if out.done[e, i] else 0.0
            reward -= p.reward_energy * out.device_j[e, i] / ENERGY_UNIT
            reward -= p.reward_age * min(w.age_slots[e, i], 20.0) / 10.0
            if out.switched[e, i]:
                reward -= p.reward_switch
            out.reward[e, i] = reward
        _charge(p, w, plan, out, e, band, duty, local_part, remote, air_part, cpu_part, air_used, cpu_used)


@njit(cache=True, error_model="numpy")
def _charge(p, w, plan, out, e, band, duty, local_part, remote, air_part, cpu_part, air_used, cpu_used):
    """What each device costs the others, now and through the backlog it leaves; then move the queues on.

    A loss is the fall of the other's smooth completion, 1 - sigmoid(12 (T / tau - 1)) with T the later of its two
    sides, times its task's worth, against the slot replayed without the device: those of its band and server divide
    its shares in proportion, those that hear it are rid of its signal, and its leftover is not in the queue. What the
    replay holds fixed: everyone's choice, fraction, power and time on air, and what each queue takes in.
    """
    n = band.shape[0]
    bands = w.air_backlog_s.shape[1]
    servers = w.server_hz.shape[1]
    per = bands // servers
    air_in = np.zeros(bands)
    cpu_in = np.zeros(servers)
    server = np.full(n, -1)
    count = np.zeros(servers, np.int64)
    member = np.empty((servers, n), np.int64)  # of each server, those that others can cost anything
    now = np.empty(n)
    rate = np.empty(n)
    for j in range(n):
        b = band[j]
        if b < 0:
            continue
        k = b // per
        server[j] = k
        air_in[b] += air_used[j]
        cpu_in[k] += cpu_used[j]
        tau = w.deadline_s[e, j]
        if _can_lose(local_part[j], remote[j], tau):
            member[k, count[k]] = j
            count[k] += 1
            now[j] = _late(max(local_part[j], remote[j]), tau)
            rate[j] = np.log2(1.0 + out.sinr[e, j]) * p.band_hz + LEAST_RATE
    for i in range(n):
        lost = 0.0
        b = band[i]
        k = server[i]
        if b >= 0:
            for m in range(count[k]):
                j = member[k, m]
                if j == i:
                    continue
                saved = cpu_part[j] * plan.cpu[e, i]
                if band[j] == b:
                    saved += air_part[j] * plan.air[e, i]
                lost += w.worth[e, j] * _loss(now[j], local_part[j], remote[j] - saved, w.deadline_s[e, j])
            if p.interference:  # what those served by other servers of the group lose to i's signal
                for q in range(servers):
                    if q == k or w.reuse_group[e, q] != w.reuse_group[e, k]:
                        continue
                    c = q * per + b % per
                    part = duty[i] * w.true_gain[e, i, c]
                    quiet = (1.0 + out.rise[e, c]) / (1.0 + max(out.rise[e, c] - part, 0.0))
                    for m in range(count[q]):
                        j = member[q, m]
                        if band[j] == c and remote[j] - air_part[j] <= 1.5 * w.deadline_s[e, j]:
                            alone = np.log2(1.0 + out.sinr[e, j] * quiet) * p.band_hz + LEAST_RATE
                            saved = air_part[j] * (1.0 - rate[j] / alone)
                            lost += w.worth[e, j] * _loss(now[j], local_part[j], remote[j] - saved, w.deadline_s[e, j])
        out.lost[e, i] = -lost
        for h in range(HORIZON - 1, -1, -1):
            out.carried[e, i, h] = 0.0
            b = w.trail_band[e, i, h]
            if h < HORIZON - 1:
                w.trail_band[e, i, h + 1] = -1
            if b < 0:
                continue
            k = b // per
            late = 0.0
            for m in range(count[k]):
                j = member[k, m]
                if j != i:
                    saved = w.trail_cpu_s[e, i, h] + (w.trail_air_s[e, i, h] if band[j] == b else 0.0)
                    late += w.worth[e, j] * _loss(now[j], local_part[j], remote[j] - saved, w.deadline_s[e, j])
            out.carried[e, i, h] = -late
            if h < HORIZON - 1:
                left_cpu = _left(w.backlog_s[e, k] + cpu_in[k] - p.slot_s, w.trail_cpu_s[e, i, h], p.queue_cap_s)
                left_air = _left(w.air_backlog_s[e, b] + air_in[b] - p.slot_s, w.trail_air_s[e, i, h], p.queue_cap_s)
                if left_cpu + left_air > 1e-7:
                    w.trail_band[e, i, h + 1] = b
                    w.trail_cpu_s[e, i, h + 1] = left_cpu
                    w.trail_air_s[e, i, h + 1] = left_air
        w.trail_band[e, i, 0] = -1
        b = band[i]
        if b >= 0 and p.queues:
            k = server[i]
            left_cpu = _left(w.backlog_s[e, k] + cpu_in[k] - p.slot_s, cpu_used[i], p.queue_cap_s)
            left_air = _left(w.air_backlog_s[e, b] + air_in[b] - p.slot_s, air_used[i], p.queue_cap_s)
            if left_cpu + left_air > 1e-7:
                w.trail_band[e, i, 0] = b
                w.trail_cpu_s[e, i, 0] = left_cpu
                w.trail_air_s[e, i, 0] = left_air
    if p.queues:
        for k in range(servers):
            w.backlog_s[e, k] = min(max(w.backlog_s[e, k] + cpu_in[k] - p.slot_s, 0.0), p.queue_cap_s)
        for b in range(bands):
            w.air_backlog_s[e, b] = min(max(w.air_backlog_s[e, b] + air_in[b] - p.slot_s, 0.0), p.queue_cap_s)


@njit(cache=True, error_model="numpy")
def _can_lose(local_s, remote_s, tau):
    """Whether a device's completion can fall by .0025 or more: smaller losses are left out.

    ``local_s`` is inf for a device that cannot complete whatever others do.
    """
    return max(local_s, remote_s) > 0.5 * tau and local_s < 1.5 * tau


@njit(cache=True, error_model="numpy")
def _loss(now, local_s, without_s, tau):
    """Rise of the smooth miss to ``now`` from what it is with the remote side done after ``without_s``."""
    if without_s >= 1.5 * tau:
        return 0.0
    return now - _late(max(local_s, without_s), tau)


@njit(cache=True, error_model="numpy")
def _left(queue, work, cap):
    """How much longer a queue is for one piece of ``work`` in it."""
    return min(max(queue, 0.0), cap) - min(max(queue - work, 0.0), cap)


@njit(cache=True, error_model="numpy", nogil=True)
def observe(p, w, agent, server, pair):
    """Features for the recommenders, each of order one: agent (E, N, .), server (E, B, .), pair (E, N, 1 + B, .)."""
    networks, n, bands, values = w.rates.shape
    servers = w.server_hz.shape[1]
    per = bands // servers
    base, speed, wait, time, told = np.empty(bands), np.empty(bands), np.empty(bands), np.empty(bands), np.empty(bands)
    air, cpu, alone, late = np.empty(bands), np.empty(bands), np.empty(bands), np.empty(bands)
    usual, of = np.empty(servers), servers_of(bands, per)
    for e in range(networks):
        for b in range(bands):
            k = b // per
            base[b], speed[b] = w.cpu_wait_s[e, k] + w.air_wait_s[e, b] + p.backhaul_s, w.server_hz[e, k]
            x = server[e, b]
            x[0] = w.cpu_wait_s[e, k] / p.slot_s
            x[1] = w.air_wait_s[e, b] / p.slot_s
            x[2] = w.server_hz[e, k] / 1e10 - 1.0
            x[3] = np.log1p(w.noise_rise[e, b])
            x[4] = 0.0  # demand near it: devices whose best report is this band
            x[5] = 0.0
            x[6] = 0.0
        mean_activity = 0.0
        for i in range(n):
            mean_activity += w.activity[e, i] / n
        for i in range(n):
            best, most = -1, -np.inf
            for b in range(bands):
                if w.rate[e, i, b] > most and w.reachable[e, i, of[b]]:
                    best, most = b, w.rate[e, i, b]
            a = agent[e, i]
            active = w.active[e, i]
            tau = w.deadline_s[e, i] if active else 1.0
            local_s = w.task_cycles[e, i] / w.device_hz[e, i]
            local_j = p.kappa * w.device_hz[e, i] ** 2 * w.task_cycles[e, i]
            a[0] = 1.0 if active else 0.0
            a[1] = w.task_bits[e, i] / 1e5 - 1.0 if active else 0.0
            a[2] = w.task_cycles[e, i] / 3e7 - 1.0 if active else 0.0
            a[3] = tau / 0.035 - 1.0 if active else 0.0
            a[4] = w.device_hz[e, i] / 1e9 - 0.9
            a[5] = min(local_s / tau, 3.0) - 1.0 if active else 0.0
            a[6] = min(local_j / ENERGY_UNIT, 4.0) if active else 0.0
            a[7] = w.battery_j[e, i] / p.battery_j if p.batteries else 1.0
            a[8] = min(w.age_slots[e, i], 20.0) / 10.0
            a[9] = w.activity[e, i]
            a[10] = 1.0 if p.batteries and w.battery_j[e, i] < local_j else 0.0
            a[11] = mean_activity
            if best >= 0:
                server[e, best, 6] += 0.2 * w.activity[e, i]
                if active:
                    server[e, best, 4] += 0.2
                    server[e, best, 5] += 0.2 * w.task_cycles[e, i] / 3e7
            x = pair[e, i, 0]
            x[:] = 0.0
            x[0] = 1.0
            x[5] = min(local_s / tau, 3.0) if active else 0.0
            rates, rate, gain, reach = w.rates[e, i], w.rate[e, i], w.mean_gain[e, i], w.reachable[e, i]
            for b in range(bands):
                told[b] = log(rate[b] / 2e7)
            for k in range(servers):
                mean_rate = p.band_hz * INVERSE_LOG_2 * log(1.0 + p.nominal_w * gain[k] / p.noise_w) + LEAST_RATE
                usual[k] = log(mean_rate / 2e7)
            if active:
                bits, cycles = w.task_bits[e, i] / tau, w.task_cycles[e, i] / tau
                late[:] = 0.0
                for b in range(bands):
                    cpu[b] = cycles / speed[b]
                for b in range(bands):
                    wait[b] = base[b] / tau + cpu[b]
                for b in range(bands):
                    air[b] = bits / rate[b]
                for b in range(bands):
                    alone[b] = min(air[b] + wait[b], 3.0)
                for q in range(values):  # chance of missing the deadline, as if alone
                    for b in range(bands):
                        time[b] = bits / rates[b, q] + wait[b]
                    for b in range(bands):
                        late[b] += _late_row(time[b], 1.0) / values
            else:
                for b in range(bands):
                    air[b] = cpu[b] = alone[b] = late[b] = 0.0
            mine = pair[e, i, 1:]
            for b in range(bands):
                mine[b, 0] = mine[b, 6] = mine[b, 7] = mine[b, 10] = 0.0
                mine[b, 1], mine[b, 2] = told[b], usual[of[b]]
                mine[b, 3], mine[b, 4] = min(air[b], 3.0), min(cpu[b], 3.0)
                mine[b, 5], mine[b, 8], mine[b, 9] = alone[b], 1.0 if reach[of[b]] else 0.0, late[b]
            if w.last_server[e, i] >= 0:
                for b in range(w.last_server[e, i] * per, (w.last_server[e, i] + 1) * per):
                    mine[b, 6] = 1.0
            if best >= 0:
                mine[best, 7] = 1.0
            if values > 1:
                for b in range(bands):  # how unsure of the rate
                    mine[b, 10] = log(rates[b, values - 1] / rates[b, 0])
        for b in range(bands):
            server[e, b, 7] = server[e, b, 4] - server[e, b, 0]
