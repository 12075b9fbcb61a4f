"""What the compiled parts of ``mec`` read and fill: E networks of N devices and B bands, plain arrays, no objects."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from numba.extending import register_jitable

from games.congestion import Bool, Float, Int
from games.lean import KEPT
from games.shares import Split, new_split

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


@njit(**KEPT, inline="always")
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
