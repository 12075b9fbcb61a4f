"""One slot of mec in plain Python, written from the docstrings: the oracle of the compiled core."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np


def snapshot(batch, e=0):
    """Network ``e`` of a batch as plain arrays of its own."""
    return SimpleNamespace(**{name: np.array(getattr(batch.world, name)[e]) for name in batch.world._fields})


def plan_of(plan, e=0):
    """Network ``e`` of a plan as plain arrays of its own."""
    return SimpleNamespace(**{name: np.array(getattr(plan, name)[e]) for name in plan._fields})


def physics_of(problem):
    """The scenario's constants from the issue's text, not from the code under test."""
    s = problem.scenario
    width = 1.8e6 * (1 if s.choose_channel else s.channels)
    noise_w = 10 ** ((-174 + 5 - 30) / 10) * width
    return SimpleNamespace(width=width, noise_w=noise_w, efficiency=0.35, kappa=5e-27, slot=s.slot_s)


def slot(problem, w, plan):
    """What happens to network ``w`` (as from :func:`snapshot`) under ``plan``: a namespace of plain arrays.

    Switches as in ``problem.scenario.dynamics``. ``w`` is not changed.
    """
    p, d = physics_of(problem), problem.scenario.dynamics
    n, bands = w.true_gain.shape
    servers = len(w.server_hz)
    per = bands // servers
    rate_floor = 1e4

    def sends(i):
        return w.active[i] and plan.option[i] > 0 and plan.fraction[i] > 0 and plan.air[i] > 0

    senders = [i for i in range(n) if sends(i)]
    band = {i: int(plan.option[i]) - 1 for i in senders}
    server = {i: band[i] // per for i in senders}

    # rates: interference from none, then twice from the duty cycles of the round before
    rise = np.zeros(bands)
    rounds = 3 if d.interference else 1
    for turn in range(rounds):
        sinr = {i: plan.power_w[i] * w.true_gain[i, band[i]] / (p.noise_w * (1 + rise[band[i]])) for i in senders}
        air_s = {
            i: plan.fraction[i] * w.task_bits[i] / (p.width * np.log2(1 + sinr[i]) + rate_floor) for i in senders
        }
        if turn == rounds - 1:
            break
        rise = np.zeros(bands)
        for i in senders:
            duty = min(plan.air[i], air_s[i] / p.slot)
            for q in range(servers):
                if q != server[i] and w.reuse_group[q] == w.reuse_group[server[i]]:
                    hit = q * per + band[i] % per
                    rise[hit] += duty * plan.power_w[i] * w.true_gain[i, hit] / p.noise_w

    out = SimpleNamespace(
        done=np.zeros(n, bool), latency_s=np.full(n, np.nan), device_j=np.zeros(n), reward=np.zeros(n),
        sinr=np.array([sinr.get(i, np.nan) for i in range(n)]), switched=np.zeros(n, bool), rise=rise,
        server_j=3.5 * servers * p.slot, local_s=np.zeros(n), remote_s=np.zeros(n), able=np.zeros(n, bool),
        air_share_s=np.zeros(n), battery_j=w.battery_j.copy(), age_slots=w.age_slots.copy(),
        last_server=w.last_server.copy(), air_in=np.zeros(bands), cpu_in=np.zeros(servers),
        air_used=np.zeros(n), cpu_used=np.zeros(n),
    )  # fmt: skip
    for i in range(n):
        if w.active[i]:
            tau, cycles = w.deadline_s[i], w.task_cycles[i]
            rho = plan.fraction[i] if i in band else 0.0
            local_s = (1 - rho) * cycles / w.device_hz[i]
            local_j = p.kappa * w.device_hz[i] ** 2 * (1 - rho) * cycles
            able = local_s <= tau and not (d.batteries and local_j > w.battery_j[i])
            total = local_s
            energy = local_j if able else 0.0
            if i in band:
                b, k = band[i], server[i]
                moved = d.migration and w.last_server[i] not in (-1, k)
                before = 1e-3 + w.air_backlog_s[b] + (4e-3 if moved else 0.0)
                on_air = air_s[i] / plan.air[i]
                on_cpu = rho * cycles / (w.server_hz[k] * plan.cpu[i])
                remote = before + on_air + w.backlog_s[k] + on_cpu
                total = max(local_s, remote)
                used = min(air_s[i], plan.air[i] * max(tau - before, 0.0))  # it stops sending at the deadline
                energy += plan.power_w[i] * used / p.efficiency
                out.air_in[b] += used
                out.air_used[i] = used
                if before + on_air <= tau:  # it got across in time: the server computes it
                    out.cpu_used[i] = rho * cycles / w.server_hz[k]
                    out.cpu_in[k] += out.cpu_used[i]
                    out.server_j += 3e-9 * rho * cycles
                out.switched[i] = moved
                out.last_server[i] = k
                out.remote_s[i], out.air_share_s[i] = remote, on_air
            out.local_s[i], out.able[i] = local_s, able
            out.done[i] = able and total <= tau
            if out.done[i]:
                out.latency_s[i] = total
            out.device_j[i] = energy
            if d.batteries:
                out.battery_j[i] = max(w.battery_j[i] - energy, 0.0)
        out.age_slots[i] = 1 if out.done[i] else w.age_slots[i] + 1
        out.reward[i] = (
            float(out.done[i]) - 0.2 * out.device_j[i] / 0.1 - 0.05 * min(out.age_slots[i], 20) / 10
            - 0.1 * out.switched[i]
        )  # fmt: skip
    cap = 3 * p.slot
    out.air_backlog_s = move_queue(w.air_backlog_s, out.air_in, p.slot, cap) if d.queues else w.air_backlog_s
    out.backlog_s = move_queue(w.backlog_s, out.cpu_in, p.slot, cap) if d.queues else w.backlog_s
    return out


def move_queue(backlog, came_in, slot_s, cap):
    return np.clip(backlog + came_in - slot_s, 0, cap)


def late(time, tau):
    """Smooth probability of a miss: sigmoid(12 (T / tau - 1))."""
    return 1 / (1 + np.exp(-12 * (time / tau - 1)))


def smooth_completion(out, w):
    """(N,) 1 - late(T), 0 for those that cannot complete and those without a task."""
    total = np.maximum(out.local_s, out.remote_s)
    tau = np.where(w.active, w.deadline_s, 1.0)
    with np.errstate(over="ignore"):
        return np.where(out.able, 1 - late(total, tau), 0.0)
