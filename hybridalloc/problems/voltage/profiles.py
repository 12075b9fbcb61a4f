"""A year of loads and sun on a feeder, in steps of 15 minutes: of SimBench, or synthetic and seeded.

Each load is a mixture of four profiles, its peak that of its nominal load times a factor; rooftop plants that nobody
controls follow one of eight sites and their mean; each inverter's sun one of the sites. Every sixth day is held out.

Source of the profiles: Meinecke et al. (2020), "SimBench, a benchmark dataset of electric power systems". The synthetic
year copies their kind (hours, weeks, seasons, clouds that pass over all sites), none of their numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from games.congestion import Float, Int
from hybridalloc.data.registry import DataError, fetch
from hybridalloc.problems.voltage.feeder import Feeder

DAY, STEP_S = 96, 900.0
DAYS = 366
MIXED, SITES = 4, 8  # profiles in a load, sites of sun
NOMINAL_MW = 3.715  # of the feeder that the sizes in MW are said for; others in proportion
EVERY, HELD_OUT, TUNED = 6, 3, 0  # days d with d % 6 == 3 are for reporting, with 0 for tuning
USED = ("G0", "G1", "G2", "G3", "G4", "G5", "G6", "H0", "L0", "L1", "L2")  # of SimBench: no heat pumps, no storage
SOURCES = ("synthetic", "simbench")


class Profiles(NamedTuple):
    """A year in T steps: active (T, K) and reactive (T, K) shape of K loads, and sun (T, 8), each site's peak 1."""

    active: Float
    reactive: Float
    sun: Float


@dataclass(frozen=True, eq=False)
class Year:
    """A feeder's year: what its buses draw and its inverters' sun at any step, rooftop plants counted off.

    Attributes:
        profiles: the shapes. pick, active, reactive: (L, 4) shapes of each load and their factors, MW and Mvar. loaded:
            (L,) the loads' buses. site, own, roof: (B,) of a rooftop plant its site, that site's part and MW. place,
            peak: (N,) an inverter's site and peak, MW.
    """

    buses: int
    profiles: Profiles
    pick: Int
    active: Float
    reactive: Float
    loaded: Int
    site: Int
    own: Float
    roof: Float
    place: Int
    peak: Float

    @property
    def steps(self) -> int:
        """T, whole days."""
        return len(self.profiles.sun)

    def loads(self, at: Int) -> tuple[Float, Float]:
        """(len(at), B) MW and Mvar that the buses draw at steps ``at``."""
        p, q = np.zeros((len(at), self.buses)), np.zeros((len(at), self.buses))
        p[:, self.loaded] = (self.profiles.active[at][:, self.pick] * self.active).sum(2)
        q[:, self.loaded] = (self.profiles.reactive[at][:, self.pick] * self.reactive).sum(2)
        sun = self.profiles.sun[at]
        p -= self.roof * (self.own * sun[:, self.site] + (1 - self.own) * sun.mean(1, keepdims=True))
        return p, q

    def sun(self, at: Int) -> Float:
        """(len(at), N) MW that the inverters could feed in."""
        return np.asarray(self.profiles.sun[at][:, self.place] * self.peak)


class Days(NamedTuple):
    """Days of the year to learn on, to tune on and to report on: nobody sees two kinds, so that what was learned is
    tuned on days that are new to it, as it is met with later."""

    learn: Int
    tune: Int
    report: Int


def days() -> Days:
    """Every sixth day is held out for reports, and the one half-way between two of them for tuning."""
    every = np.arange(DAYS)
    kind = every % EVERY
    return Days(every[(kind != HELD_OUT) & (kind != TUNED)], every[kind == TUNED], every[kind == HELD_OUT])


def year_of(
    feeder: Feeder, profiles: Profiles, sun_mw: float, load_scale: float, roof_mw: float, seed: int = 0
) -> Year:
    """Loads, rooftop plants and sites drawn by ``seed``; sizes are for a nominal load of 3.715 MW."""
    rng = np.random.default_rng(seed)
    share = float(feeder.load_mw.sum()) / NOMINAL_MW
    order = np.argsort(feeder.bus, kind="stable")  # draws come in the order of the buses' own numbers
    loaded = np.array([k for k in order if feeder.load_mw[k] or feeder.load_mvar[k]], np.int64)
    shapes = profiles.active.shape[1]
    shape = [np.ascontiguousarray(part.T) for part in (profiles.active, profiles.reactive)]
    pick, active, reactive = np.zeros((len(loaded), MIXED), np.int64), *np.zeros((2, len(loaded), MIXED))
    for row, k in enumerate(loaded):
        pick[row] = rng.choice(shapes, MIXED, replace=False)
        weight = rng.dirichlet(np.ones(MIXED))
        top = (weight @ shape[0][pick[row]]).max()
        bend = (weight @ shape[1][pick[row]]).max()
        active[row] = weight / top * feeder.load_mw[k] * load_scale
        reactive[row] = weight / max(bend, 1e-9) * feeder.load_mvar[k] * load_scale
    sites = rng.permutation(SITES)
    n = len(feeder.inverter)
    place = np.array([sites[j % SITES] for j in range(n)], np.int64)
    peak = np.full(n, 0.0)
    if n:
        count = np.bincount(place, minlength=SITES)
        peak[:] = sun_mw * share / max(float((profiles.sun @ count).max()), 1e-9)
    site, own, roof = np.zeros(feeder.size, np.int64), np.ones(feeder.size), np.zeros(feeder.size)
    if roof_mw > 0:
        site, own = rng.integers(0, SITES, feeder.size), rng.uniform(0.6, 1, feeder.size)
        mean = profiles.sun.mean(1)
        mass = np.bincount(site, weights=feeder.load_mw * own, minlength=SITES)
        together = profiles.sun @ mass + mean * float((feeder.load_mw * (1 - own)).sum())
        roof = feeder.load_mw * roof_mw * share / float(together.max())
    return Year(feeder.size, profiles, pick, active, reactive, loaded, site, own, roof, place, peak)


@lru_cache(maxsize=2)
def simbench() -> Profiles:
    """SimBench's year from the data folder.

    Raises:
        DataError: it is not there (says how to make it), or malformed.
    """
    path = fetch("simbench", "profiles.npz")
    try:
        with np.load(path, allow_pickle=False) as held:
            names = [str(name) for name in held["names"]]
            use = [k for k, name in enumerate(names) if name[:2] in USED]
            p, q, sun = (held[name].astype(np.float64) for name in ("P", "Q", "pv"))
    except (KeyError, ValueError, OSError) as error:
        raise DataError(f"{path} holds no P, Q, pv and names ({error}); make it again from the package") from error
    return Profiles(p[:, use], q[:, use], sun / sun.max(0))


@lru_cache(maxsize=2)
def synthetic(seed: int = 0, shapes: int = 24) -> Profiles:
    """A year that is made up: the same for the same seed, no download."""
    rng = np.random.default_rng([seed, 17])
    from scipy.signal import lfilter  # as long to import as all the rest, and this alone needs it

    t = np.arange(DAYS * DAY)
    hour, day = (t % DAY) / 4.0, t // DAY
    season, weekend = np.cos(2 * np.pi * (day - 15) / 365.0), (day % 7 >= 5).astype(float)

    def noise(columns: int, minutes: float) -> Any:
        keep = np.exp(-15.0 / minutes)
        return lfilter([np.sqrt(1 - keep**2)], [1, -keep], rng.standard_normal((len(t), columns)), axis=0)

    bump = lambda at, width: np.exp(-0.5 * (((hour[:, None] - at + 12) % 24 - 12) / width) ** 2)
    home = rng.random(shapes) < 0.6
    morning, evening = bump(rng.uniform(6.5, 8.5, shapes), 1.2), bump(rng.uniform(18, 20.5, shapes), 2.0)
    work = bump(rng.uniform(11.5, 13.5, shapes), rng.uniform(3, 4.5, shapes))
    base = rng.uniform(0.15, 0.35, shapes)
    active = base + np.where(home, 0.35 * morning + 0.6 * evening, 0.75 * work * (1 - 0.7 * weekend[:, None]))
    active = active * (1 + rng.uniform(0.05, 0.3, shapes) * season[:, None])
    active *= np.exp(0.12 * noise(shapes, 45.0) + 0.06 * noise(shapes, 60 * 24.0))
    factor = rng.uniform(0.2, 0.5, shapes) * np.exp(0.1 * noise(shapes, 180.0))
    active /= active.max(0)
    # the sun's height over the horizon at 51 degrees north, and clouds: some over all, some over one
    tilt = np.radians(23.4) * np.sin(2 * np.pi * (day - 81) / 365.0)
    up = np.sin(np.radians(51)) * np.sin(tilt)
    up = up + np.cos(np.radians(51)) * np.cos(tilt) * np.cos(2 * np.pi * (hour - 12.3) / 24)
    clear = np.maximum(up, 0) ** 1.15
    cloud = 1.1 * noise(1, 60 * 30.0) + 0.8 * noise(1, 120.0) + 0.7 * noise(SITES, 60.0)
    sun = clear[:, None] * (0.25 + 0.75 / (1 + np.exp(-1.5 * (cloud + 0.3))))
    return Profiles(active, active * factor, sun / sun.max(0))


def profiles_of(source: str, seed: int = 0) -> Profiles:
    """Shapes by their source; ``seed`` is for those that are made up."""
    return simbench() if source == "simbench" else synthetic(seed)
