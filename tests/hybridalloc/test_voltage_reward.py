"""What a step of the voltage domain pays: its cost, and MAPDN's rewards by their formulas."""

from __future__ import annotations

import math

import numpy as np
import pytest

from coordinator import Coordinator
from hybridalloc.problems import make_problem
from hybridalloc.problems.voltage.reward import cost_kw, paid
from hybridalloc.problems.voltage.setting import Prices

VOLTAGE = np.array([[1.0, 1.03, 0.93]])
Q = np.array([[0.2, -0.4]])
BOWL = (
    0.04 - 0.01 / math.sqrt(2 * math.pi * 0.01),
    0.04 - 0.01 * math.exp(-0.045) / math.sqrt(2 * math.pi * 0.01),
    2 * 0.07 - 0.095,
)


@pytest.mark.parametrize(
    ("kind", "barrier"), [("l1", (0, 0.03, 0.07)), ("l2", (0, 2 * 0.03**2, 2 * 0.07**2)), ("bowl", BOWL)]
)
def test_mapdns_rewards_are_their_formulas(kind, barrier):
    solved = np.array([True])
    found = paid(kind, np.zeros(1), VOLTAGE, Q, solved)
    assert found[0] == pytest.approx(-sum(barrier) / 3 - 0.1 * 0.3, rel=1e-12)
    assert paid(kind, np.zeros(1), VOLTAGE, Q, ~solved)[0] == -200.0


def test_the_cost_is_loss_and_what_leaving_the_band_costs():
    cost = cost_kw(np.array([50.0, 50.0]), np.array([True, False]), np.array([0.0, 2.0]))
    np.testing.assert_allclose(cost, [50.0, 390.0])
    np.testing.assert_allclose(paid("cost", cost, VOLTAGE, Q, np.ones(2, bool)), [-0.5, -3.9])


def test_set_mapdn_pays_by_its_bowl_and_the_metrics_stay():
    problem, who, prices = make_problem("voltage", variant="mapdn"), Coordinator("game"), Prices()
    assert problem.reward == "bowl"
    worlds = [p.worlds(range(3)) for p in (problem, make_problem("voltage", variant="mapdn", reward="cost"))]
    mine, other = (w.execute(who.settle(w, who.decide(w, None, prices), prices)) for w in worlds)
    np.testing.assert_array_equal(mine.counts["cost_kw"], other.counts["cost_kw"])
    np.testing.assert_allclose(other.reward[:, 0], -other.counts["cost_kw"] / 100)
    assert (mine.reward < 0).all() and (mine.reward > -1).all()
