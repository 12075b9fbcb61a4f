r"""MAPPO with the leave-one-out critic: the advantage R_lambda - b_i(s, a_-i) on the team's pay.

See :mod:`rl.leave_one_out` for b_i and :mod:`rl.mappo` for the rest.

Source: Foerster et al. (2018), "Counterfactual multi-agent policy gradients", for the idea; its own baseline, by
enumeration, is :mod:`rl.coma`.
"""

from __future__ import annotations

from dataclasses import dataclass

from rl.mappo import Mappo, MappoConfig
from rl.networks import Sizes


@dataclass(frozen=True)
class CounterfactualConfig(MappoConfig):
    """Settings of MAPPO with the leave-one-out baseline: MAPPO's."""

    baseline: str = "leave_one_out"


class Counterfactual(Mappo):
    """The learner; ``policy`` is its actor as arrays, refreshed at each update."""

    name = "counterfactual"

    def __init__(self, sizes: Sizes, config: CounterfactualConfig | None = None, seed: int = 0) -> None:
        super().__init__(sizes, config or CounterfactualConfig(), seed)
