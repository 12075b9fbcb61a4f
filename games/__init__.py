"""Equilibria and convex shares: arrays in, arrays out. Knows no domain and no learner."""

from games.best_response import best_response_dynamics
from games.congestion import CongestionGame, Equilibrium
from games.errors import InvalidGameError, InvalidStateError
from games.gibbs import gibbs_equilibrium
from games.shares import Shares, delay_shares, square_root_shares

__all__ = [
    "CongestionGame",
    "Equilibrium",
    "InvalidGameError",
    "InvalidStateError",
    "Shares",
    "best_response_dynamics",
    "delay_shares",
    "gibbs_equilibrium",
    "square_root_shares",
]
