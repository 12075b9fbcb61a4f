"""From what is believed of E networks to the congestion game: weights, private costs, and what each place takes.

``believe`` takes the reports at their word; a belief (:mod:`hybridalloc.problems.mec.belief`) may know better.

Source: square-root shares and the game they induce: Josilo and Dan (2019), "Selfish decentralized computation
offloading for mobile cloud computing in dense wireless networks".
"""

from __future__ import annotations

import numpy as np
from numba import njit

from games.lean import KEPT
from hybridalloc.problems.mec.arrays import ENERGY_UNIT, INVERSE_LOG_2, LEAST_RATE
from hybridalloc.problems.mec.formulas import exceeded, lateness_row, least_fraction, most_power, own_of, wait_of
from hybridalloc.problems.mec.law import exp, log


@njit(**KEPT, error_model="numpy", nogil=True)
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


@njit(**KEPT, error_model="numpy", nogil=True)
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
                    miss[b] += lateness_row(wait[b] + prices.risk * (time[b] + cycles / speed[b]), tau) / values
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


@njit(**KEPT)
def servers_of(bands, per):
    """(B,) server of each band: a division in every inner loop costs more than what is done with it."""
    of = np.empty(bands, np.int64)
    for b in range(bands):
        of[b] = b // per
    return of


@njit(**KEPT, error_model="numpy")
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


@njit(**KEPT, error_model="numpy")
def first_of_group(group, first):
    """Fill ``first`` (K,) with the first server of each one's reuse group (K,)."""
    for k in range(len(group)):
        first[k] = k
        for q in range(k):
            if group[q] == group[k]:
                first[k] = q
                break


@njit(**KEPT, error_model="numpy")
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


@njit(**KEPT, error_model="numpy")
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
            home[e, i] = own_of(p, w, e, i) <= w.deadline_s[e, i]
            acceptable[e, i, 0] = home[e, i]
            tau, own = w.deadline_s[e, i], own_of(p, w, e, i)
            local_j = p.kappa * w.device_hz[e, i] ** 2 * cycles
            rho = least_fraction(p, prices, own, tau)
            watts = most_power(p, local_j, w.battery_j[e, i], tau, rho, 1.0)
            if home[e, i]:
                for b in range(bands):
                    if w.reachable[e, i, of[b]]:
                        acceptable[e, i, 1 + b] = True
                        slack[e, i, 1 + b] = w.deadline_s[e, i]
                continue
            legs, rates = seconds[e, i], w.rates[e, i]
            for b in range(bands):  # of the rate at the power that is used: log(1 + SNR)
                row[b] = (exceeded(rates[b], prices.caution) - LEAST_RATE) / (p.band_hz * INVERSE_LOG_2)
            for b in range(bands):
                snr = (exp(row[b] if row[b] < 700.0 else 700.0) - 1.0) / p.nominal_w
                row[b] = log(1.0 + watts * snr)
            for b in range(bands):
                row[b] = rho * w.task_bits[e, i] / (p.band_hz * INVERSE_LOG_2 * row[b] + LEAST_RATE)
            for b in range(bands):
                k, o = of[b], 1 + b
                if not w.reachable[e, i, k]:
                    continue
                slack[e, i, o] = prices.margin * w.deadline_s[e, i] - wait_of(p, w, e, i, b, k)
                legs[o, 0], legs[o, 1] = row[b], rho * cycles / w.server_hz[e, k]
                alone = game.private_cost[e, i, o] + game.weight[e, i, b] ** 2
                alone += game.weight[e, i, bands + k] ** 2 / w.server_hz[e, k]
                acceptable[e, i, o] = watts > 0.0 and alone <= game.private_cost[e, i, 0]
