"""Random games that the tests of this folder share."""

from __future__ import annotations

import numpy as np
import pytest

from games import CongestionGame


def random_game(
    rng: np.random.Generator,
    agents: int | None = None,
    options: int | None = None,
    resources: int | None = None,
    toll: float = 0.0,
    span: int | None = None,
    scale: float = 1.0,
) -> CongestionGame:
    """A game of random shape: options of up to three resources, some with none, masks, zero weights."""
    n = int(rng.integers(1, 8)) if agents is None else agents
    o = int(rng.integers(1, 7)) if options is None else options
    r = int(rng.integers(1, 6)) if resources is None else resources
    s = int(rng.integers(1, min(r, 3) + 1)) if span is None else span
    table = np.array([rng.permutation(r)[:s] for _ in range(o)])
    table[rng.random((o, s)) < 0.2] = -1
    weight = rng.uniform(0.1, 2.0, (n, r)) * (rng.random((n, r)) > 0.1)
    allowed = rng.random((n, o)) < 0.8
    allowed[np.arange(n), rng.integers(0, o, n)] = True
    return CongestionGame(
        options=table,
        weight=weight * np.sqrt(scale),
        capacity=rng.uniform(0.5, 3.0, r),
        private_cost=rng.uniform(-1.0, 3.0, (n, o)) * scale,
        allowed=allowed,
        toll=toll,
    )


def random_choice(rng: np.random.Generator, game: CongestionGame) -> np.ndarray:
    """(N,) a permitted option for each agent."""
    return np.array([rng.choice(np.flatnonzero(row)) for row in game.allowed], dtype=np.int64)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(20261121)
