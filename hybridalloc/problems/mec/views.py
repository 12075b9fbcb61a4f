"""What recommenders see of E networks, and a value of their batteries."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from games.congestion import Float
from hybridalloc.problems.mec import arrays, observing
from hybridalloc.problems.mec.arrays import Physics, Seen, World
from hybridalloc.problems.mec.scenario import Scenario
from rl.proposal import Observation


def observation(physics: Physics, seen: Seen) -> Observation:
    """Features of every network; see :func:`hybridalloc.problems.mec.observing.observe`."""
    e, n, b = seen.rate.shape
    agent = np.empty((e, n, arrays.AGENT_FEATURES), np.float32)
    server = np.empty((e, b, arrays.SERVER_FEATURES), np.float32)
    pair = np.empty((e, n, 1 + b, arrays.PAIR_FEATURES), np.float32)
    observing.observe(physics, seen, agent, server, pair)
    allowed, per = np.empty((e, n, 1 + b), bool), b // max(seen.server_hz.shape[1], 1)
    allowed[:, :, 0] = True
    allowed[:, :, 1:] = seen.reachable if per == 1 else np.repeat(seen.reachable, per, axis=2)
    return Observation(agent, server, pair, seen.active.copy(), allowed, np.arange(-1, b))


def with_day(plain: Observation, scenario: Scenario, seen: Seen, outlook: Float) -> Observation:
    """Where there is a day each device also sees what its task is worth, and its :func:`outlook`."""
    own = [(seen.active * seen.worth / max(scenario.worths))[..., None], outlook]
    return plain._replace(agent=np.concatenate([plain.agent, *own], axis=2, dtype=np.float32))


def with_shedding(plain: Observation, physics: Physics, drawn: Float) -> Observation:
    """Where tasks may be shed: the option of shedding, and what each option draws from a battery."""
    e, n = plain.live.shape
    allowed = np.concatenate([plain.allowed, np.ones((e, n, 1), bool)], axis=2)
    pair = np.concatenate([plain.pair, np.zeros((e, n, 1, arrays.PAIR_FEATURES), np.float32)], axis=2)
    joules = np.minimum(8.0 * drawn / physics.battery_j, 3.0)
    shed = np.zeros(joules.shape)
    shed[..., -1] = 1.0
    pair = np.concatenate([pair, np.stack([joules, shed], axis=-1)], axis=3, dtype=np.float32)
    return plain._replace(pair=pair, allowed=allowed, resource_of=np.append(plain.resource_of, -1))


def outlook(physics: Physics, world: World, day: int) -> Float:
    """(E, N, 12) what an operator knows of a device's days to come, each of order one: the hour, its harvest log
    ahead (2, 6, 12, 24 h), clouds, its two best links, its speed. Without a day (E, N, 4): the links, its speed and
    how often it has a task."""
    w, p = world, physics
    e, n = w.active.shape
    gain = np.pad(np.sort(w.mean_gain, axis=2)[..., ::-1], ((0, 0), (0, 0), (0, 2)))[..., :2]
    own = [np.log1p(p.nominal_w * gain / p.noise_w) / 5 - 1, (w.device_hz / 1e9 - 0.9)[..., None]]
    if not day:
        return np.concatenate([*own, w.activity[..., None]], axis=-1)
    turn = 2 * np.pi * (w.slot % day) / day
    clock = np.stack([np.sin(turn), np.cos(turn), np.sin(2 * turn), np.cos(2 * turn)], axis=-1)
    ahead = np.take_along_axis(w.harvest_log_j, ((w.slot[:, None] + np.arange(day)) % day)[:, None], axis=2)
    until = [0, day // 12, day // 4, day // 2, day]
    parts = [ahead[..., a:b].sum(axis=2) / p.battery_j for a, b in pairwise(until)]
    alike = lambda x: np.broadcast_to(x[:, None], (e, n, x.shape[-1]))
    return np.concatenate([alike(clock), np.stack(parts, axis=-1), alike(w.cloudy[:, None] * 1.0), *own], axis=-1)


def drawn(physics: Physics, world: World, options: int) -> Float:
    """(E, N, O) J that each option is believed to draw from a device's battery: its own work where it can be done in
    time and paid for, sending at nominal power for no more than the deadline, nothing."""
    w, p = world, physics
    out = np.zeros((*w.active.shape, options))
    local_j = p.kappa * w.device_hz**2 * w.task_cycles
    able = (w.task_cycles <= w.deadline_s * w.device_hz) & ~(p.batteries & (local_j > w.battery_j))
    air_s = np.minimum(w.task_bits[..., None, None] / w.rates, w.deadline_s[..., None, None]).mean(axis=3)
    out[..., 0] = np.where(able, local_j, 0.0)
    out[..., 1 : 1 + w.rate.shape[2]] = p.nominal_w / p.efficiency * air_s
    return np.where(w.active[..., None], out, 0.0)
