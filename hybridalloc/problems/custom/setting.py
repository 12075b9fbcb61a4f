"""What a ``custom`` problem is: its settings, checked, and what follows from them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from games.congestion import Int
from games.errors import InvalidStateError
from hybridalloc.errors import nearest
from hybridalloc.problems.custom import transitions
from hybridalloc.problems.custom.state import OUT, CustomPrices, CustomState
from hybridalloc.problems.knobs import Admitting

BASELINES = {"opt_out": "opt out", "fastest": "fastest", "balanced": "balanced", "random": "random"}
STARTS = ("balanced", "fastest")  # from which a choice is improved too


@dataclass(frozen=True, eq=False)
class CustomSetting(Admitting[CustomState, Any, CustomPrices]):
    """Settings of :class:`hybridalloc.problems.custom.problem.Custom`, which says what they mean."""

    options: Int
    resources: tuple[str, ...]
    families_of: tuple[str, ...]
    start: CustomState
    transition: Any = None
    episode: int = 200
    credit: str = "difference"
    priority_gap: float = 0.0
    most: int = 0

    def __post_init__(self) -> None:
        r = len(self.resources)
        bad = (self.options < -1) | (self.options >= r)
        if bad.any():
            o, s = map(int, np.argwhere(bad)[0])
            raise InvalidStateError(
                f"options[{o}, {s}] = {self.options[o, s]}; a resource is -1 (none) or 0 to {r - 1}"
            )
        for o, row in enumerate(self.options):
            used = [self.families_of[k] for k in row if k >= 0]
            if len(set(used)) < len(used):
                raise InvalidStateError(
                    f"options[{o}] = {row.tolist()} uses two resources of one family; give families=[...], one name a "
                    "resource, so that those which an option combines differ"
                )
        if self.credit not in ("difference", "own"):
            raise nearest("credit", self.credit, ("difference", "own"))
        if not 0 <= self.priority_gap < float("inf"):
            raise InvalidStateError(f"priority_gap = {self.priority_gap}; it must be a finite number >= 0")

    @property
    def agents(self) -> int:
        return self.start.agents

    @property
    def families(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(self.families_of))

    def option_name(self, option: int) -> str:
        """Such as "opt out", "gpu-2" or "air-1 + cpu-1"."""
        if option == 0:
            return OUT
        return " + ".join(self.resources[r] for r in self.options[option - 1] if r >= 0)

    def simulator(self) -> Any:
        """The transition; None without one.

        Raises:
            CheckpointError: a file names it and nobody allowed it; says how.
        """
        if isinstance(self.transition, transitions.Unloaded):
            raise self.transition.refuse()
        if isinstance(self.transition, str | Mapping):
            object.__setattr__(self, "transition", transitions.by_user(self.transition))
        return self.transition
