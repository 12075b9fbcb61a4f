"""Trust after training: priors that are known to help, to harm, or to say nothing."""

from __future__ import annotations

import numpy as np
import pytest

from hybridalloc import make_problem
from hybridalloc.training.calibration import calibrate
from hybridalloc.training.config import TUNE_SEEDS

PROBLEM = make_problem("mec", agents=12, servers=3)
PRICES = PROBLEM.card.prices()
SEEDS = TUNE_SEEDS[:12]


class Noise:
    name = "noise"

    def __init__(self, strength: float) -> None:
        self.strength, self.rng = strength, np.random.default_rng(0)

    def propose(self, observation):
        return self.strength * self.rng.standard_normal(observation.allowed.shape)


class Outgoing:
    """Says: not on the device."""

    name = "outgoing"

    def propose(self, observation):
        out = np.zeros(observation.allowed.shape)
        out[..., 0] = -9.0
        return out


def test_a_prior_of_noise_loses_its_say():
    found = calibrate(PROBLEM, PRICES, Noise(3.0), 2.5, seeds=SEEDS, slots=20)
    assert found.trust == np.inf and found.violations == 0
    welfare = {t.trust: t.welfare for t in found.tried}
    assert welfare[np.inf] > welfare[10.0] > welfare[2.5]
    assert all(t.gain - (t.welfare - welfare[2.5]) < 1e-12 for t in found.tried)


def test_a_prior_that_says_nothing_stays_as_it_was_trained():
    found = calibrate(PROBLEM, PRICES, Noise(0.0), 20.0, seeds=SEEDS, slots=20)
    assert found.trust == 20.0 and len(found.tried) == 5


def test_a_prior_that_helps_keeps_its_say():
    """A toll far too high keeps the game's devices at home; the prior sends them out, where they do better."""
    found = calibrate(PROBLEM, PRICES._replace(toll=20.0), Outgoing(), 20.0, seeds=SEEDS, slots=20)
    welfare = {t.trust: t.welfare for t in found.tried}
    assert found.trust < np.inf and welfare[found.trust] > welfare[np.inf] + 0.005


@pytest.mark.filterwarnings("error")
def test_networks_without_a_welfare_do_not_count_and_without_any_trust_stays(monkeypatch):
    from types import SimpleNamespace

    from hybridalloc.training import calibration

    def tried(rows):
        told = iter(rows)
        answer = lambda *given, **named: SimpleNamespace(
            metrics={"welfare": np.array(next(told))}, allocations=1, violations=0
        )
        monkeypatch.setattr(calibration, "evaluate", answer)
        return calibration.calibrate(make_problem("mec", agents=2, servers=1), None, None, 4.0)

    nan = np.nan
    best = tried([[1.0, nan, 2.0, 3.0], [nan, 9.0, 2.5, 3.5], [1.0, nan, 2.0, nan], [nan] * 4, [0.0] * 4])
    assert best.trust == 2.0 and best.tried[1].gain == 0.5 and best.tried[1].error == 0.0
    assert np.isnan(best.tried[3].gain) and best.tried[3].error == np.inf
    assert tried([[nan] * 4] * 5).trust == 4.0
