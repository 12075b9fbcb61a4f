"""What ``Allocator.step`` answers with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from games.congestion import CongestionGame, Float, Int


@dataclass(frozen=True)
class Certificate:
    """What was checked, by code that shares nothing with the solvers.

    Attributes:
        feasible: every capacity, power and energy limit holds.
        max_violation: largest relative excess over a limit. violations: one line for each.
        regret: largest gain of one agent by deviating alone in the game that was played, measured.
        epsilon_bound: what the regret cannot exceed: limit / trust for the hybrid, 0 for the game, inf where
            nothing is promised (pure RL, heuristics, fallback).
        source: "hybrid", "rl", "game", a baseline's name, or "fallback". status: "ok", or why it is not.
        elapsed_ms: time of the step, this check included.
        unserved: agents whose deadline is not expected to hold, highest priority first.
    """

    feasible: bool
    max_violation: float
    violations: tuple[str, ...]
    regret: float
    epsilon_bound: float
    source: str
    status: str
    elapsed_ms: float
    unserved: tuple[int, ...]


@dataclass(frozen=True)
class Allocation:
    """A joint allocation that can be executed as it is. N agents.

    Attributes:
        option: (N,) chosen option, 0 = opt out.
        shares: resource family -> (N,) fraction of the chosen resource's capacity.
        power: (N,) W. fraction: (N,) offloaded fraction. served: (N,) bool.
        prices: resource family -> (resources,) marginal price of each.
        certificate: feasibility, regret, source.
    """

    option: Int
    shares: dict[str, Float]
    power: Float
    fraction: Float
    served: NDArray[np.bool_]
    prices: dict[str, Float]
    certificate: Certificate
    game: CongestionGame
    log_prior: Float
    trust: float

    def why(self, agent: int) -> list[dict[str, Any]]:
        """The agent's options at the others' choices, cheapest first.

        Each row has ``option``, ``cost`` (private + congestion), ``private``, ``congestion``, ``learned`` (what the
        recommender's prior adds, in cost), ``total``, ``chosen``, ``allowed``, and ``admits``: by how much this
        option would have to become cheaper for the agent to take it (0 for the chosen one).

        Raises:
            IndexError: no such agent.
        """
        if not -len(self.option) <= agent < len(self.option):
            raise IndexError(
                f"agent {agent}: this allocation has {len(self.option)} agents, 0 to {len(self.option) - 1}"
            )
        agent %= len(self.option)
        costs = self.game.costs(self.option)[agent]
        learned = np.zeros_like(costs)
        if 0 < self.trust < np.inf:
            learned = -self.log_prior[agent] / self.trust
        total = costs + learned
        held = total[self.option[agent]]
        rows = [
            {
                "option": int(o),
                "cost": float(costs[o]),
                "private": float(self.game.private_cost[agent, o]),
                "congestion": float(costs[o] - self.game.private_cost[agent, o]),
                "learned": float(learned[o]),
                "total": float(total[o]),
                "chosen": bool(o == self.option[agent]),
                "allowed": bool(self.game.allowed[agent, o]),
                "admits": float(max(total[o] - held, 0.0)) if self.game.allowed[agent, o] else float("inf"),
            }
            for o in range(len(costs))
        ]
        return sorted(rows, key=lambda row: row["total"])

    def to_dict(self) -> dict[str, Any]:
        """Plain lists and numbers, ready for ``json.dumps``; infinite bounds become null."""
        c = self.certificate
        return {
            "option": self.option.tolist(),
            "shares": {k: v.tolist() for k, v in self.shares.items()},
            "power": self.power.tolist(),
            "fraction": self.fraction.tolist(),
            "prices": {k: v.tolist() for k, v in self.prices.items()},
            "certificate": {
                "feasible": c.feasible,
                "max_violation": c.max_violation,
                "violations": list(c.violations),
                "regret": c.regret if np.isfinite(c.regret) else None,
                "epsilon_bound": c.epsilon_bound if np.isfinite(c.epsilon_bound) else None,
                "source": c.source,
                "status": c.status,
                "elapsed_ms": c.elapsed_ms,
                "unserved": list(c.unserved),
            },
        }
