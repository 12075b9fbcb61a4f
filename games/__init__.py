"""Equilibria and convex shares: arrays in, arrays out. Knows no domain and no learner.

The names below are what most users need; each module holds one algorithm or one game, with its source: congestion
games (congestion, best_response, gibbs, candidates, candidate_games, optimum, anarchy, slices, topology), shares
(shares, alpha_fair, market, partial_allocation, routing, water_filling, joint_shares), interference and
power_control, quadratic, stackelberg, normal_form (exact, fictitious_play, replicator), stochastic games
(stochastic_game, q_learning), the oracles (reference, brute_force) and the checks of all answers (certificate).
"""

import games.kernels  # noqa: F401 (first: it says where kernels are kept)
from games.alpha_fair import FairShares, alpha_fair_shares
from games.anarchy import Anarchy, TollDesign, marginal_toll, price_of_anarchy
from games.best_response import best_response_dynamics
from games.candidate_games import best_response_candidates, gibbs_candidates
from games.candidates import Candidates, candidate_lists
from games.congestion import CongestionGame, Equilibrium
from games.errors import InvalidGameError, InvalidStateError
from games.gibbs import gibbs_equilibrium
from games.interference import iterative_water_filling, welfare_response
from games.joint_shares import JointShares, joint_shares
from games.market import Market, eisenberg_gale
from games.optimum import Optimum, social_optimum
from games.partial_allocation import PartialAllocation, partial_allocation
from games.power_control import PowerControl, foschini_miljanic
from games.quadratic import QuadraticGame, VariationalEquilibrium, variational_equilibrium
from games.routing import Routing, route
from games.shares import Shares, delay_shares, square_root_shares
from games.slices import bimatrix_slice
from games.stackelberg import congestion_leader, market_leader
from games.topology import Topology, network_options
from games.water_filling import WaterFilling, water_filling

__all__ = [
    "Anarchy",
    "Candidates",
    "CongestionGame",
    "Equilibrium",
    "FairShares",
    "InvalidGameError",
    "InvalidStateError",
    "JointShares",
    "Market",
    "Optimum",
    "PartialAllocation",
    "PowerControl",
    "QuadraticGame",
    "Routing",
    "Shares",
    "TollDesign",
    "Topology",
    "VariationalEquilibrium",
    "WaterFilling",
    "alpha_fair_shares",
    "best_response_candidates",
    "best_response_dynamics",
    "bimatrix_slice",
    "candidate_lists",
    "congestion_leader",
    "delay_shares",
    "eisenberg_gale",
    "foschini_miljanic",
    "gibbs_candidates",
    "gibbs_equilibrium",
    "iterative_water_filling",
    "joint_shares",
    "marginal_toll",
    "market_leader",
    "network_options",
    "partial_allocation",
    "price_of_anarchy",
    "route",
    "social_optimum",
    "square_root_shares",
    "variational_equilibrium",
    "water_filling",
    "welfare_response",
]
