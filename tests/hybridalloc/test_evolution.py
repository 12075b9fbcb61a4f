"""Evolution of prices on a cluster that needs no data: it learns, it is repeated, and tuning takes it."""

from __future__ import annotations

import numpy as np
import pytest

from coordinator import Coordinator
from hybridalloc import make_problem
from hybridalloc.problems.cluster.prices import PUBLISHED
from hybridalloc.training.evolution import evolve_prices
from hybridalloc.training.tuning import tune_prices


def packed(problem, prices, seeds=range(5000, 5010)):
    return float(np.mean(problem.play(prices, seeds)["packed"]))


def test_it_finds_prices_that_pack_better_than_the_published_rule_on_seeds_it_has_not_seen():
    problem = make_problem("cluster", nodes=40, until=1.02)
    found = evolve_prices([problem], start=PUBLISHED, generations=12, beside={"failed_eight": -0.02})
    assert packed(problem, found.prices) > packed(problem, PUBLISHED) + 2
    assert found.episodes == 12 * 14 and len(found.rows) == 12
    again = evolve_prices([problem], start=PUBLISHED, generations=12, beside={"failed_eight": -0.02})
    assert again.prices == found.prices


def test_several_problems_take_turns():
    problems = [make_problem("cluster", nodes=8, until=0.9, mix=mix) for mix in (0, 1, 2)]
    seen = []
    play = type(problems[0]).play
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(problems[0]), "play", lambda p, *a: seen.append((p.mix, *a[1])) or play(p, *a))
        evolve_prices(problems, generations=2, size=2, episodes=2)
        assert [mix for mix, _ in seen] == [0, 1, 0, 1, 0, 2, 0, 2]
        assert len({seed for _, seed in seen}) == 4  # no generation sees another's
        seen.clear()
        evolve_prices(problems, generations=1, size=2, episodes=0)
        assert [mix for mix, _ in seen] == [0, 1, 2] * 2


def test_tuning_takes_what_evolved_only_where_it_is_better():
    problem = make_problem("cluster", nodes=16, until=1.02)
    ticks = []
    tuned = tune_prices(problem, Coordinator("game"), 30, seeds=6, report=lambda k, best: ticks.append(k))
    assert len(tuned.trials) == 2 and tuned.welfare == max(value for _, value in tuned.trials)
    assert tuned.welfare == pytest.approx(packed(problem, tuned.prices, range(5000, 5006)))
    assert ticks == list(range(30))
    none = tune_prices(problem, Coordinator("game"), 0, seeds=2)
    assert none.prices == problem.card.prices() and len(none.trials) == 1


def test_who_does_not_play_is_told():
    with pytest.raises(ValueError, match="mec does not play whole episodes"):
        evolve_prices([make_problem("mec", agents=3, servers=2)])
