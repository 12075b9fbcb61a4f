"""A problem without options: levels in a quadratic game, through ``Allocator.step`` and its certificate."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import pytest

from coordinator.improve import Improve
from coordinator.quadratic import Quadratic
from games.certificate import CapacityCheck
from games.quadratic_batch import quadratic_batch
from hybridalloc import Allocator
from rl.proposal import Observation, Proposal

MOST = 0.5  # of the sum of all levels


class Charge(NamedTuple):
    toll: float = 1.0


@dataclass(frozen=True)
class Wanted:
    want: np.ndarray  # (N,) what each would set its level to, were it alone
    active: np.ndarray

    @property
    def agents(self):
        return len(self.want)


class World:
    """Each pays (x - want)^2 / 2 and ``toll`` times the sum of all levels for a unit of its own."""

    def __init__(self, state):
        self.state = state

    def observe(self):
        none = np.zeros((1, self.state.agents, 1, 1), np.float32)
        live, allowed = self.state.active[None], np.ones((1, self.state.agents, 1), bool)
        return Observation(none[:, :, 0], none[:, :1, 0], none, live, allowed, np.array([-1]))

    def game(self, prices):
        n = self.state.agents
        jacobian = np.eye(n) + prices.toll * (np.ones((n, n)) + np.eye(n))
        want = -self.state.want[None, :, None]
        return Quadratic(quadratic_batch(jacobian[None], want, -1.0, 1.0, np.ones((1, 1, n)), [[MOST]]), ("vars",))

    def settle(self, choice, prices, proposal=None, trust=np.inf, seating=None):
        return choice.level

    def parts(self, plan, e=0):
        n = self.state.agents
        none = {"shares": {}, "floors": {}, "prices": {}, "held": np.zeros(n, bool), "served": np.ones(n, bool)}
        return none | {"option": np.zeros(n, np.int64), "vars": plan[e, :, 0]}

    def priority(self):
        return np.zeros((1, self.state.agents))


class Levels:
    name, state_type = "levels", Wanted
    card = SimpleNamespace(
        baselines={}, improve=Improve(), families=(), prices=Charge, cost_of_change=lambda prices: 0.1, fleeting=False
    )  # fmt: skip

    def world_at(self, state, memory=None):
        return World(state)

    def check(self, state, allocation):
        over = max(0.0, float(allocation.vars.sum()) - MOST)
        return CapacityCheck(over, ("the sum of all levels",) if over > 1e-9 else ())


class Middle:
    """Proposes .3 for everyone."""

    name = "middle"

    def __init__(self, spread=0.2):
        self.spread = spread

    def propose(self, observation):
        mean = np.full((*observation.live.shape, 1), 0.3)
        return Proposal(None, mean, np.full(mean.shape, self.spread), ("vars",))


STATE = Wanted(np.array([3.0, -1.0, 2.0]), np.ones(3, bool))


def step(method="hybrid", recommender=None, **settings):
    return Allocator(Levels(), method, recommender, **settings).step(STATE)


def test_trust_runs_from_the_feasible_proposal_to_the_game_certified_throughout():
    game, proposal = step("game"), step("rl", Middle())
    np.testing.assert_allclose(proposal.vars, MOST / 3, atol=1e-9)  # .3 each is more than all may have
    assert game.certificate.epsilon_bound == 0 and game.certificate.regret <= 1e-9
    apart = []
    for trust in (0.0, 0.5, 5.0, 50.0, np.inf):
        allocation = step("hybrid", Middle(), trust=trust)
        c = allocation.certificate
        assert c.feasible and c.source == "hybrid" and c.status == "ok" and c.regret <= c.epsilon_bound + 1e-9
        assert np.isinf(c.epsilon_bound) == (trust == 0)
        apart.append(np.abs(allocation.vars - game.vars).max())
    assert apart == sorted(apart, reverse=True) and apart[-1] <= 1e-9 and apart[0] > 0.1


def test_levels_are_listed_and_written_and_options_are_not_explained():
    allocation = step("hybrid", Middle(), trust=5.0)
    assert list(allocation.levels) == ["vars"] and allocation.to_dict()["vars"] == allocation.vars.tolist()
    assert len(str(allocation).splitlines()) == 5 and "vars" in str(allocation)
    with pytest.raises(ValueError, match="there are no options to explain: this game decides levels alone"):
        allocation.why(0)


@pytest.mark.parametrize(
    ("spread", "message"), [(-1.0, "vars_spread = -1.0; a spread is >= 0"), (np.nan, "spread = nan")]
)
def test_a_proposal_that_cannot_be_used_leaves_the_game(spread, message):
    with pytest.warns(RuntimeWarning, match="recommender failed"):
        allocation = step("hybrid", Middle(spread))
    assert allocation.certificate.source == "game" and message in allocation.certificate.status
    np.testing.assert_array_equal(allocation.vars, step("game").vars)
