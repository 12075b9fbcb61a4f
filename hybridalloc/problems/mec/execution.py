"""A slot as it truly goes: the one part of ``mec`` that reads the truth, which no operator is told (:class:`World`)."""

from __future__ import annotations

import numpy as np
from numba import njit

from games.lean import KEPT
from hybridalloc.problems.mec.arrays import ENERGY_UNIT, HORIZON, LEAST_RATE
from hybridalloc.problems.mec.formulas import lateness


@njit(**KEPT, error_model="numpy")
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


@njit(**KEPT, error_model="numpy", nogil=True)
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


@njit(**KEPT, error_model="numpy")
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
            now[j] = lateness(max(local_part[j], remote[j]), tau)
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


@njit(**KEPT, error_model="numpy")
def _can_lose(local_s, remote_s, tau):
    """Whether a device's completion can fall by .0025 or more: smaller losses are left out.

    ``local_s`` is inf for a device that cannot complete whatever others do.
    """
    return max(local_s, remote_s) > 0.5 * tau and local_s < 1.5 * tau


@njit(**KEPT, error_model="numpy")
def _loss(now, local_s, without_s, tau):
    """Rise of the smooth miss to ``now`` from what it is with the remote side done after ``without_s``."""
    if without_s >= 1.5 * tau:
        return 0.0
    return now - lateness(max(local_s, without_s), tau)


@njit(**KEPT, error_model="numpy")
def _left(queue, work, cap):
    """How much longer a queue is for one piece of ``work`` in it."""
    return min(max(queue, 0.0), cap) - min(max(queue - work, 0.0), cap)
