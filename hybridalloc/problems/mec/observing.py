"""What a recommender sees of agents, servers and pairs."""

from __future__ import annotations

import numpy as np
from numba import njit

from games.lean import KEPT
from hybridalloc.problems.mec.arrays import ENERGY_UNIT, INVERSE_LOG_2, LEAST_RATE
from hybridalloc.problems.mec.build import servers_of
from hybridalloc.problems.mec.formulas import lateness_row
from hybridalloc.problems.mec.law import log


@njit(**KEPT, error_model="numpy", nogil=True)
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
                        late[b] += lateness_row(time[b], 1.0) / values
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
