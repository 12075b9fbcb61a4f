"""Networks of ``mec`` and their states: what a decision reads of one, all of it made out, and back."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from games.congestion import Float
from hybridalloc.problems.mec import arrays, build, law
from hybridalloc.problems.mec.arrays import Physics, Reports, Seen, World
from hybridalloc.problems.mec.sites import SITE_SIDE_M
from hybridalloc.problems.mec.state import HIDDEN, OBSERVED, MecState, MecTruth

NEPERS = np.log(10.0) / 10.0  # of a decibel, in power
ONE = np.ones(1, bool)
SHOWN = tuple(name for name in Seen._fields if name in OBSERVED)


def shown(state: MecState) -> dict[str, NDArray[Any]]:
    """What a decision reads of a state as it stands there, with an axis of one network; its arrays, not copies."""
    return {name: plain(getattr(state, name))[None] for name in SHOWN}


def looked_at(physics: Physics, state: MecState) -> Seen:
    """What a decision reads of a state, the reports taken at their word."""
    one = shown(state)
    k, bands = len(state.server_hz), state.reported_gain_db.shape[1]
    gain = np.exp(NEPERS * state.reported_gain_db)[None]
    rate = np.empty(gain.shape)
    told = Reports(
        gain, one["noise_rise"], plain(state.queue_s)[None], plain(state.air_queue_s)[None], rate[..., None],
        rate, np.empty((1, k)), np.empty((1, bands)),
    )  # fmt: skip
    build.believe(physics, told, ONE)
    return Seen(
        **one, mean_gain=linear(state.mean_gain_db), rates=told.rates, rate=rate, cpu_wait_s=told.cpu_wait_s,
        air_wait_s=told.air_wait_s,
    )  # fmt: skip


def made_out(state: MecState, day: int) -> World:
    """The network at a state, with a day of so many slots; its reports are true where nothing else is known."""
    n, k = state.mean_gain_db.shape
    bands, logged = state.reported_gain_db.shape[1], state.harvest_log_j.shape[1]
    one: dict[str, Any] = {name: getattr(state, name).copy()[None] for name in OBSERVED}
    one["harvest_log_j"] = state.harvest_log_j.copy()[None] if logged else np.zeros((1, n, day))
    one["slot"], one["cloudy"] = np.array([state.slot]), np.array([state.cloudy])
    one["mean_gain"], one["reported_gain"] = linear(state.mean_gain_db), linear(state.reported_gain_db)
    if state.truth is None:
        fading = np.zeros((1, n, bands, 2))
        fading[..., 0] = np.sqrt(one["reported_gain"] / np.repeat(one["mean_gain"], bands // max(k, 1), axis=2))
        one |= {
            "backlog_s": one["queue_s"].copy(), "air_backlog_s": one["air_queue_s"].copy(), "fading": fading,
            "correlation": np.full((1, n), 0.7), "attenuation": np.ones((1, n, k)), "panel": np.ones((1, n)),
            "bursting": one["activity"] >= 0.5, "orientation_h": np.zeros((1, n)), "site": np.zeros((1, k, 2)),
            "position": np.full((1, n, 2), SITE_SIDE_M),  # the sites stay at 0: nobody is near a hot spot
        }  # fmt: skip
    else:
        one |= {name: getattr(state.truth, name).copy()[None] for name in HIDDEN}
    pairs, h = (1, n, bands), arrays.HORIZON
    world = World(
        **one, true_gain=np.empty(pairs), rates=np.empty((*pairs, 1)), rate=np.empty(pairs),
        cpu_wait_s=np.empty((1, k)), air_wait_s=np.empty((1, bands)), trail_band=np.full((1, n, h), -1),
        trail_cpu_s=np.zeros((1, n, h)), trail_air_s=np.zeros((1, n, h)),
    )  # fmt: skip
    law.gain(world, 0, bands // max(k, 1))
    return world


def state_of(world: World, e: int) -> MecState:
    """Network ``e`` as a state with its truth."""
    return MecState(
        **{name: getattr(world, name)[e] for name in OBSERVED},
        mean_gain_db=10 * np.log10(world.mean_gain[e]),
        reported_gain_db=10 * np.log10(np.maximum(world.reported_gain[e], 1e-30)),
        harvest_log_j=world.harvest_log_j[e],
        slot=int(world.slot[e]),
        cloudy=bool(world.cloudy[e]),
        truth=MecTruth(**{name: getattr(world, name)[e] for name in HIDDEN}),
    )


def empty_world(e: int, n: int, k: int, b: int, day: int) -> World:
    """E networks of N devices, K servers and B bands, of which nothing is drawn yet."""
    f = lambda *shape: np.zeros((e, *shape))
    i = lambda *shape: np.zeros((e, *shape), np.int64)
    flag = lambda *shape: np.zeros((e, *shape), bool)
    h = arrays.HORIZON
    return World(
        active=flag(n), task_bits=f(n), task_cycles=f(n), deadline_s=f(n), device_hz=f(n), battery_j=f(n),
        age_slots=f(n), last_server=i(n), activity=f(n), sla=f(n), worth=f(n) + 1, harvest_log_j=f(n, day),
        mean_gain=f(n, k), reported_gain=f(n, b), reachable=flag(n, k), server_hz=f(k), reuse_group=i(k), queue_s=f(k),
        air_queue_s=f(b), noise_rise=f(b), slot=i(), cloudy=flag(), fading=f(n, b, 2), attenuation=f(n, k),
        true_gain=f(n, b), backlog_s=f(k), air_backlog_s=f(b), correlation=f(n), bursting=flag(n), position=f(n, 2),
        site=f(k, 2), rates=f(n, b, 1), rate=f(n, b), panel=f(n) + 1, orientation_h=f(n),
        cpu_wait_s=f(k), air_wait_s=f(b), trail_band=i(n, h) - 1, trail_cpu_s=f(n, h), trail_air_s=f(n, h),
    )  # fmt: skip


def linear(gain_db: Float) -> Float:
    """Gains in dB as factors, with an axis of one network."""
    return np.asarray(np.exp(NEPERS * gain_db)[None])


def plain(array: NDArray[Any]) -> NDArray[Any]:
    """The array, or a copy that may be written: compiled code is made for one kind alone."""
    return array if array.flags.writeable else array.copy()
