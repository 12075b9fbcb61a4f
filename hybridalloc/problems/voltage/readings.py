"""What a belief reads of what is told of a feeder."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from games.congestion import Float, Int
from hybridalloc.problems.voltage.profiles import DAY
from hybridalloc.problems.voltage.setting import VoltageSetting
from hybridalloc.problems.voltage.state import BY_BUS


def features(s: VoltageSetting, told: Mapping[str, Float], step: Int) -> Float:
    """(E, F) of E feeders at steps (E,) of the year, told by name; see :mod:`hybridalloc.problems.voltage.belief`."""
    reactance = s.between_x
    bare = [told[f"voltage_{n}"] - told[f"reactive_{n}_mvar"] @ reactance.T for n in ("last", "before")]
    sun = [told[name] for name in ("sun_mw", "sun_last_mw", "sun_before_mw", "sun_day_mw", "sun_day_before_mw")]
    hour, season = 2 * np.pi * (step % DAY) / DAY, 2 * np.pi * (step // DAY) / 365.25
    waves = [f(k * hour) for k in (1, 2) for f in (np.sin, np.cos)] + [np.sin(season), np.cos(season)]
    return np.concatenate([*bare, *sun, *(told[name] for name in BY_BUS), np.stack(waves, 1)], axis=1)
