r"""How the world of ``mec`` moves between slots, compiled: random numbers, tasks, fading, blockages, harvest.

Every network has its own counter-based stream (SplitMix64, as in Steele, Lea and Flood 2014): draw j of the
network with ``key`` is mix(key + (counter + j) golden). A slot takes the same number of draws whatever was executed
and whichever dynamics are on, so methods and ablations see the same world. The two words (key, counter) are the
whole random state. Bits become numbers by exponent tricks and polynomials alone, which vectorise and give the same
world on every machine; the complex normals of the fading are Box and Muller's (1958).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from games.lean import KEPT

Float = NDArray[np.float64]
Stream = NDArray[np.uint64]

GOLDEN, FIRST, SECOND = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
S12, S27, S30, S31, S52 = (np.uint64(s) for s in (12, 27, 30, 31, 52))
ONE_BITS, MANTISSA = np.uint64(0x3FF0000000000000), np.uint64(0x000FFFFFFFFFFFFF)
EXACT_BITS, EXACT = np.uint64(0x4330000000000000), 4503599627370496.0  # 2^52: its low bits count in ones
LOG_2, LOG_10, PI = 0.6931471805599453, 2.302585092994046, 3.141592653589793
LOG_2_HIGH, LOG_2_LOW = 0.6931471803691238, 1.9082149292705877e-10  # the first times a whole number < 2^20 is exact
ROUNDER = 6755399441055744.0  # 1.5 2^52: adding it leaves a whole number in the low bits
BLOCKED = 10**-1.5  # 15 dB
TO_CLEAR, TO_CLOUD = 1.0 / 20.0, 1.0 / 30.0  # chances a slot that clouds go and come
OVERCAST = TO_CLOUD / (TO_CLOUD + TO_CLEAR)  # of the time
HOT_SPOT_SLOTS, HOT_SPOT_STEPS, DRIFT_SLOTS = 10, 4, 160


class Law(NamedTuple):
    """Constants of how a network begins and drifts. SI units; ranges are (lowest, highest)."""

    load: float
    bits: tuple[float, float]
    cycles_per_bit: tuple[float, float]
    deadline_s: tuple[float, float]
    device_hz: tuple[float, float]
    server_hz: tuple[float, float]
    harvest_j: float  # mean a slot
    battery_j: float
    staleness: bool
    varied_fading: bool
    blockage: bool
    batteries: bool
    bursts: bool
    day: int  # slots; 0: no sun, harvest and worth know no hour
    panel: tuple[float, float]
    orientation_h: float  # most by which a device's sun is early or late
    cloudy: float  # part of the sun that clouds let through
    worths: tuple[float, float, float]
    day_mix: tuple[float, float, float]  # chances of the worths from 6 to 18 h
    night_mix: tuple[float, float, float]


def streams(seeds: Sequence[int]) -> Stream:
    """(E, 2) key and counter of a fresh stream for each seed."""
    keys = [np.random.SeedSequence(int(s)).generate_state(1, np.uint64)[0] for s in seeds]
    return np.stack([np.array(keys, np.uint64), np.zeros(len(keys), np.uint64)], axis=1)


def renew(stream: Stream, e: int) -> np.random.Generator:
    """A numpy generator taken from stream ``e``, which goes on under a new key: for what is drawn once an episode."""
    rng = np.random.default_rng([int(stream[e, 0]), int(stream[e, 1])])
    stream[e] = rng.integers(0, 2**64, dtype=np.uint64), 0
    return rng


@njit(**KEPT, error_model="numpy")
def draw(stream, e, out):
    """Fill ``out`` (M,) with the next uniforms of stream ``e``, in [1, 2): multiples of 2^-52."""
    bits = out.view(np.uint64)
    key = stream[e, 0] + stream[e, 1] * GOLDEN
    for j in range(len(bits)):
        x = key + np.uint64(j + 1) * GOLDEN
        x = (x ^ (x >> S30)) * FIRST
        x = (x ^ (x >> S27)) * SECOND
        bits[j] = ((x ^ (x >> S31)) >> S12) | ONE_BITS
    stream[e, 1] += np.uint64(len(bits))


@njit(**KEPT, error_model="numpy")
def log(x):
    """Natural logarithm of a normal x > 0 to 4e-16 of |log x| + 1; unlike numpy's it vectorises in a compiled loop."""
    bits = np.float64(x).view(np.uint64)
    power = np.uint64((bits >> S52) | EXACT_BITS).view(np.float64) - (EXACT + 1023.0)
    m = np.uint64((bits & MANTISSA) | ONE_BITS).view(np.float64)
    high = m > 1.4142135623730951
    m = 0.5 * m if high else m
    power = power + 1.0 if high else power
    s = (m - 1.0) / (m + 1.0)  # log m = 2 artanh s, |s| < .172
    t = s * s
    p = 1.0 / 21.0
    for c in (19.0, 17.0, 15.0, 13.0, 11.0, 9.0, 7.0, 5.0, 3.0, 1.0):
        p = p * t + 1.0 / c
    return power * LOG_2 + 2.0 * s * p


@njit(**KEPT, error_model="numpy")
def exp(x):
    """e^x to 3e-16 of it, of |x| <= 700; unlike numpy's it vectorises in a compiled loop."""
    shifted = x * (1.0 / LOG_2) + ROUNDER
    whole = shifted - ROUNDER
    r = (x - whole * LOG_2_HIGH) - whole * LOG_2_LOW  # |r| <= log(2) / 2
    p = 1.0 / 6227020800.0
    for c in (
        479001600.0, 39916800.0, 3628800.0, 362880.0, 40320.0, 5040.0, 720.0, 120.0, 24.0, 6.0, 2.0, 1.0, 1.0,
    ):  # fmt: skip
        p = p * r + 1.0 / c
    bits = np.float64(p).view(np.uint64) + (np.float64(shifted).view(np.uint64) << S52)
    return np.uint64(bits).view(np.float64)


@njit(**KEPT, error_model="numpy")
def normal_pairs(u, v):
    """Turn uniforms u, v (M,) in [1, 2) into independent standard normals, in place."""
    for j in range(len(u)):
        radius = np.sqrt(-2.0 * log(2.0 - u[j]))
        half = PI * (v[j] - 1.5)  # half the angle: the sine and cosine of the whole one follow from its own
        t = half * half
        s = 1.0
        c = 1.0
        for k in (18.0, 16.0, 14.0, 12.0, 10.0, 8.0, 6.0, 4.0, 2.0):
            s = 1.0 - s * t * (1.0 / (k * (k + 1.0)))
            c = 1.0 - c * t * (1.0 / (k * (k - 1.0)))
        s *= half
        u[j] = radius * (1.0 - 2.0 * s * s)
        v[j] = radius * (2.0 * s * c)


@njit(**KEPT, error_model="numpy")
def restart(law, w, stream, e):
    """A new network ``e`` at the places and reuse groups that stand in ``w``: its first slot, as reported and as true.

    Path loss 128.1 + 37.6 log10 d_km with shadowing of 8 dB; see the module docstring of ``mec`` for the rest.
    """
    n, bands = w.rate.shape[1:]
    servers = w.server_hz.shape[1]
    per = bands // max(servers, 1)
    device = np.empty((10, n))
    link = np.empty((3, n, servers))
    fresh = np.empty((4, n, bands))
    clock = np.empty(1 + servers)
    draw(stream, e, device.reshape(10 * n))
    draw(stream, e, link.reshape(3 * n * servers))
    draw(stream, e, fresh.reshape(4 * n * bands))
    draw(stream, e, clock)
    normal_pairs(link[0].reshape(n * servers), link[1].reshape(n * servers))
    for h in range(0, 4, 2):
        normal_pairs(fresh[h].reshape(n * bands), fresh[h + 1].reshape(n * bands))
    w.slot[e] = np.int64((clock[0] - 1.0) * DRIFT_SLOTS)
    for k in range(servers):
        w.server_hz[e, k] = between(clock[1 + k], law.server_hz)
        w.queue_s[e, k] = w.backlog_s[e, k] = 0.0
    for b in range(bands):
        w.air_queue_s[e, b] = w.air_backlog_s[e, b] = w.noise_rise[e, b] = 0.0
    for i in range(n):
        w.device_hz[e, i] = between(device[0, i], law.device_hz)
        w.sla[e, i] = np.floor(3.0 * (device[5, i] - 1.0)) / 2.0
        w.battery_j[e, i] = law.battery_j * (between(device[6, i], (0.3, 1.0)) if law.batteries else 1.0)
        w.correlation[e, i] = between(device[7, i], (0.4, 0.95)) if law.varied_fading else 0.7
        w.bursting[e, i] = device[8, i] < 1.5
        w.age_slots[e, i], w.activity[e, i], w.last_server[e, i] = 1.0, 0.5, -1
        w.trail_band[e, i, :] = -1
        for k in range(servers):
            x, y = w.position[e, i, 0] - w.site[e, k, 0], w.position[e, i, 1] - w.site[e, k, 1]
            km = np.sqrt(x * x + y * y + 400.0) / 1e3  # antennas stand 20 m above the devices
            loss_db = 128.1 + 37.6 / LOG_10 * log(km) + 8.0 * link[0, i, k]
            w.mean_gain[e, i, k] = np.exp(-0.1 * LOG_10 * loss_db)
            w.attenuation[e, i, k] = BLOCKED if law.blockage and link[2, i, k] < 1.25 else 1.0
            w.reachable[e, i, k] = True
        for b in range(bands):
            w.fading[e, i, b, 0] = np.sqrt(0.5) * fresh[0, i, b]
            w.fading[e, i, b, 1] = np.sqrt(0.5) * fresh[1, i, b]
    gain(w, e, per)
    w.reported_gain[e] = w.true_gain[e]
    tasks(law, w, e, device)
    if law.day > 0:
        dawn(law, w, stream, e)
    if law.staleness:  # the report is of the slot before
        fade(w, e, fresh[2], fresh[3])
        gain(w, e, per)


@njit(**KEPT, error_model="numpy")
def drift(law, w, stream):
    """The next slot: harvest, bursts, tasks, fading, blockages and the true gains they make."""
    networks, n, bands = w.rate.shape
    servers = w.server_hz.shape[1]
    per = bands // max(servers, 1)
    device = np.empty((6, n))
    flip = np.empty((n, servers))
    real = np.empty((n, bands))
    imaginary = np.empty((n, bands))
    day = np.empty(n + 1)
    cloud = 1.0
    for e in range(networks):
        w.slot[e] += 1
        draw(stream, e, device.reshape(6 * n))
        draw(stream, e, flip.reshape(n * servers))
        draw(stream, e, real.reshape(n * bands))
        draw(stream, e, imaginary.reshape(n * bands))
        normal_pairs(real.reshape(n * bands), imaginary.reshape(n * bands))
        if law.day > 0:
            draw(stream, e, day)
            if day[n] - 1.0 < (TO_CLEAR if w.cloudy[e] else TO_CLOUD):
                w.cloudy[e] = not w.cloudy[e]
            cloud = law.cloudy if w.cloudy[e] else 1.0
        for i in range(n):
            if law.batteries:
                got = 2.0 * law.harvest_j * (device[5, i] - 1.0)
                if law.day > 0:
                    got = sunshine(law, w, e, i, w.slot[e] - 1, cloud) * between(device[5, i], (0.6, 1.4))
                    h = (w.slot[e] - 1) % law.day
                    w.harvest_log_j[e, i, h] = 0.5 * w.harvest_log_j[e, i, h] + 0.5 * got
                w.battery_j[e, i] = min(w.battery_j[e, i] + got, law.battery_j)
            if law.bursts and device[0, i] < 1.1:
                w.bursting[e, i] = not w.bursting[e, i]
        tasks(law, w, e, device)
        if law.day > 0:
            worths(law, w, e, day[:n])
        if law.blockage:
            for i in range(n):
                for k in range(servers):
                    blocked = w.attenuation[e, i, k] < 1.0
                    changed = flip[i, k] < (1.12 if blocked else 1.04)
                    w.attenuation[e, i, k] = BLOCKED if blocked != changed else 1.0
        fade(w, e, real, imaginary)
        gain(w, e, per)


@njit(**KEPT, error_model="numpy")
def tasks(law, w, e, u):
    """New tasks of network ``e`` from uniforms u (>= 5, N) in [1, 2): rows 1 to 4."""
    n, servers = w.mean_gain.shape[1:]
    chance = burst = law.load
    spot_x = spot_y = np.inf
    reach_x = reach_y = 1.0
    if law.bursts and servers > 0:
        load = law.load * (1.0 + 0.35 * np.sin(2.0 * PI * w.slot[e] / DRIFT_SLOTS))
        burst, chance = min(1.5 * load, 1.0), 0.2 * load
        low_x = high_x = w.site[e, 0, 0]
        low_y = high_y = w.site[e, 0, 1]
        for k in range(1, servers):
            low_x, high_x = min(low_x, w.site[e, k, 0]), max(high_x, w.site[e, k, 0])
            low_y, high_y = min(low_y, w.site[e, k, 1]), max(high_y, w.site[e, k, 1])
        turn = 2.0 * PI * ((w.slot[e] // HOT_SPOT_SLOTS) % HOT_SPOT_STEPS) / HOT_SPOT_STEPS
        spot_x = 0.5 * (low_x + high_x) + 0.35 * (high_x - low_x) * np.cos(turn)
        spot_y = 0.5 * (low_y + high_y) + 0.35 * (high_y - low_y) * np.sin(turn)
        reach_x, reach_y = max(high_x - low_x, 1.0), max(high_y - low_y, 1.0)
    for i in range(n):
        mine = burst if w.bursting[e, i] else chance
        dx, dy = (w.position[e, i, 0] - spot_x) / reach_x, (w.position[e, i, 1] - spot_y) / reach_y
        if dx * dx + dy * dy < 0.09:
            mine = 0.95
        w.active[e, i] = u[1, i] - 1.0 < mine
        w.activity[e, i] = 0.8 * w.activity[e, i] + (0.2 if w.active[e, i] else 0.0)
        w.task_bits[e, i] = between(u[2, i], law.bits)
        w.task_cycles[e, i] = w.task_bits[e, i] * between(u[3, i], law.cycles_per_bit)
        w.deadline_s[e, i] = between(u[4, i], law.deadline_s)


@njit(**KEPT, error_model="numpy")
def sunshine(law, w, e, i, slot, cloud):
    """J that the sun brings device i in ``slot``, before chance: a half sine from 6 to 18 h, whose mean over a day and
    the weather is law.harvest_j for a panel of 1."""
    x = (24.0 * (slot % law.day) / law.day - 6.0 + w.orientation_h[e, i]) / 12.0
    if not 0.0 < x < 1.0:
        return 0.0
    weather = cloud / (1.0 - OVERCAST + OVERCAST * law.cloudy)
    return law.harvest_j * PI * weather * w.panel[e, i] * np.sin(PI * x)


@njit(**KEPT, error_model="numpy")
def worths(law, w, e, u):
    """Worth of each task of network ``e`` by the hour, from uniforms u (N,) in [1, 2); its service class goes by it."""
    hour = 24.0 * (w.slot[e] % law.day) / law.day
    mix = law.day_mix if 6.0 <= hour < 18.0 else law.night_mix
    total = mix[0] + mix[1] + mix[2]
    most = max(law.worths[0], law.worths[1], law.worths[2])
    for i in range(len(u)):
        at = (u[i] - 1.0) * total
        k = 0 if at < mix[0] else (1 if at < mix[0] + mix[1] else 2)
        w.worth[e, i] = law.worths[k]
        w.sla[e, i] = law.worths[k] / most


@njit(**KEPT, error_model="numpy")
def dawn(law, w, stream, e):
    """What a day needs of a new network: panels, weather, the first tasks' worth and a log as of a day before."""
    n = w.active.shape[1]
    device = np.empty((3, n))
    log = np.empty((n, law.day))
    sky = np.empty(2)
    draw(stream, e, device.reshape(3 * n))
    draw(stream, e, log.reshape(n * law.day))
    draw(stream, e, sky)
    w.slot[e] = np.int64((sky[0] - 1.0) * law.day)
    w.cloudy[e] = sky[1] - 1.0 < OVERCAST
    usual = 1.0 - OVERCAST + OVERCAST * law.cloudy
    for i in range(n):
        w.panel[e, i] = between(device[0, i], law.panel)
        w.orientation_h[e, i] = between(device[1, i], (-law.orientation_h, law.orientation_h))
        for h in range(law.day):
            w.harvest_log_j[e, i, h] = sunshine(law, w, e, i, h, usual) * between(log[i, h], (0.7, 1.3))
    worths(law, w, e, device[2])


@njit(**KEPT, error_model="numpy")
def between(u, span):
    return span[0] + (span[1] - span[0]) * (u - 1.0)


@njit(**KEPT, error_model="numpy")
def fade(w, e, real, imaginary):
    """One step of the fading of network ``e``: h <- rho h + sqrt(1 - rho^2) CN(0, 1), from standard normals (N, B)."""
    n, bands = real.shape
    for i in range(n):
        rho = w.correlation[e, i]
        fresh = np.sqrt((1.0 - rho * rho) / 2.0)
        for b in range(bands):
            w.fading[e, i, b, 0] = rho * w.fading[e, i, b, 0] + fresh * real[i, b]
            w.fading[e, i, b, 1] = rho * w.fading[e, i, b, 1] + fresh * imaginary[i, b]


@njit(**KEPT, error_model="numpy")
def gain(w, e, per):
    """True gains of network ``e`` from path loss, blockage and fading."""
    n, bands = w.true_gain.shape[1:]
    for i in range(n):
        for b in range(bands):
            slow = w.mean_gain[e, i, b // per] * w.attenuation[e, i, b // per]
            w.true_gain[e, i, b] = slow * (w.fading[e, i, b, 0] ** 2 + w.fading[e, i, b, 1] ** 2)


class Counts(NamedTuple):
    """What happened in one slot, (E,) each unless said otherwise; what metrics are folded from."""

    slots: Float  # in which there was a device
    reward: Float  # mean over devices
    age: Float  # the same
    generated: Float
    done: Float
    latency_s: Float  # of those done
    device_j: Float
    joules: Float  # servers included
    sent: Float
    outage: Float
    switched: Float
    generated_by: Float  # (E, N)
    done_by: Float  # (E, N)


@njit(**KEPT, error_model="numpy")
def count(w, out, t):
    """Fill ``t``, zeros, with the counts of one executed slot of every network."""
    networks, n = w.active.shape
    for e in range(networks):
        age = reward = 0.0
        for i in range(n):
            age += w.age_slots[e, i]
            reward += out.reward[e, i]
            t.device_j[e] += out.device_j[e, i]
            if w.active[e, i]:
                t.generated[e] += 1.0
                t.generated_by[e, i] += 1.0
            if out.done[e, i]:
                t.done[e] += 1.0
                t.done_by[e, i] += 1.0
                t.latency_s[e] += out.latency_s[e, i]
            if out.switched[e, i]:
                t.switched[e] += 1.0
            if np.isfinite(out.sinr[e, i]):
                t.sent[e] += 1.0
                if out.sinr[e, i] < 1.0:
                    t.outage[e] += 1.0
        t.joules[e] = t.device_j[e] + out.server_j[e]
        if n > 0:
            t.slots[e] = 1.0
            t.age[e] = age / n
            t.reward[e] = reward / n
