"""One setting chooses how much the game weighs against the recommender: a number, or a rule that finds one.

``trust = 5.0`` stays; ``"learned"`` is what training by the policy's gradient left (:mod:`coordinator.learned_trust`);
``"hedge"`` adapts to outcomes (:mod:`coordinator.hedge`); ``"robust"`` holds against scenarios
(:mod:`coordinator.robust`). All promise what a fixed trust promises: the certificate's bound is that of the trust
which was drawn for the step.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from coordinator.hedge import Exp3, Hedge, check_grid
from coordinator.robust import Robust

DEFAULT_TRUST = 5.0
MULTIPLES = (0.0, 0.25, 0.5, 1.0, 2.0, 4.0, np.inf)  # of the trust trained at: what the rules mix; both parents are in
DEFAULT_GRID = tuple(DEFAULT_TRUST * m for m in MULTIPLES)
RULES = ("learned", "hedge", "exp3", "robust")


class Trust:
    """The trust of each step.

    Args:
        setting: None (``trained``), a number >= 0, "hedge", "exp3", "robust", or "learned" with ``learned`` given.
        learned: what training left, for "learned".
        trained: the trust that the recommender was trained at: the default; rules start there, on a grid of multiples.
        grid: trusts that the rules mix instead, about ``trained``.
        seed: of the draws. period: steps for which a robust trust holds what it drew.

    Raises:
        ValueError: below 0, an unknown rule, or "learned" where nothing was learned.
    """

    def __init__(
        self,
        setting: float | str | None = None,
        learned: float | None = None,
        trained: float = DEFAULT_TRUST,
        grid: ArrayLike | None = None,
        seed: int = 0,
        period: int = 50,
    ) -> None:
        self.rule: Hedge | Exp3 | Robust | None = None
        self.now = DEFAULT_TRUST
        self.index = -1
        self._rng = np.random.default_rng([seed, 5])
        if isinstance(setting, str):
            if setting not in RULES:
                raise ValueError(f"trust = {setting!r:.60}; give a number >= 0 or one of {', '.join(RULES)}")
            if setting == "learned" and learned is None:
                raise ValueError(
                    'trust="learned" needs a recommender that was trained with TrainConfig(learn_trust=True)'
                )
            if setting != "learned":
                middle = trained if 0 < trained < np.inf else DEFAULT_TRUST
                trusts = check_grid(middle * np.array(MULTIPLES) if grid is None else grid)
                start = int(np.argmin(np.abs(trusts - middle)))
                if setting == "robust":
                    self.rule = Robust(trusts, period, start=start)
                else:
                    self.rule = Hedge(trusts, start) if setting == "hedge" else Exp3(trusts)
                self.now = float(trusts[start])
        else:
            setting = trained if setting is None else float(setting)
        self.setting = setting
        if self.rule is None:
            self.now = float(learned if setting == "learned" else setting)  # type: ignore[arg-type]
            if not self.now >= 0:
                raise ValueError(f"trust = {self.now}; it must be >= 0 (0 is pure RL, inf the pure game)")

    @property
    def grid(self) -> Any:
        """(K,) the trusts that may be drawn."""
        return np.array([self.now]) if self.rule is None else self.rule.grid

    def draw(self) -> float:
        """The trust of the next step; a robust one holds for a period, as the payoffs of a trust that stays are."""
        if self.rule is not None and (not isinstance(self.rule, Robust) or self.rule.due() or self.index < 0):
            self.index = int(self._rng.choice(len(self.rule.grid), p=self.rule.weights))
            self.now = float(self.rule.grid[self.index])
        return self.now

    def state(self) -> dict[str, Any] | None:
        """What the rule has learned, as plain numbers."""
        return None if self.rule is None else self.rule.state()

    def restore(self, state: dict[str, Any] | None) -> None:
        if self.rule is not None and state is not None:
            self.rule.restore(state)


__all__ = ["DEFAULT_GRID", "DEFAULT_TRUST", "RULES", "Exp3", "Hedge", "Robust", "Trust", "check_grid"]
