"""Merges a proposal and a game into an allocation that can be executed. Imports games and rl, never upward."""

import games.kernels  # noqa: F401 (first: it says where kernels are kept)
from coordinator.coordinator import Coordinator, Decision, Situation
from coordinator.game import Choice, Game
from coordinator.merge import clip_prior, equilibrate, explore

__all__ = ["Choice", "Coordinator", "Decision", "Game", "Situation", "clip_prior", "equilibrate", "explore"]
