"""The time of one step: what each stage took, what is left, and whether the next stage fits.

A stage starts only if what it takes in nine steps of ten fits in what is left after a reserve: what settling and
certifying take together in all but one step of a thousand, and a tenth more. Where a hiccup of the machine has eaten
the reserve, all agents opt out instead, which takes a tenth of it. So what runs over is what hiccups in its last stage
alone. Iterative kernels are run a few sweeps a call and read the clock in between, so at most one sweep is under way
when time is up.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from math import ceil

import numpy as np

from games.congestion import Float, Int

now = time.perf_counter  # what the clock reads, in s; benchmarks put the thread's own processor time here
MEMORY, PATIENCE, AGAIN = 1000, 2000, 50
MOSTLY, NEARLY_ALWAYS = 0.9, 0.999  # shares of the steps
STAGES = ("build", "observe", "propose", "game", "equilibrate", "choose", "admit", "improve", "settle", "certify")
LAST = ("settle", "certify")


class Usual:
    """What stages usually take together, in ms, by the size of the state: quantiles over the last ``MEMORY`` steps."""

    def __init__(self) -> None:
        self._steps: dict[int, Float] = {}  # size: (MEMORY, stages) ms, nan where a stage did not run
        self._seen: dict[int, int] = {}
        self._known: dict[int, dict[tuple[tuple[str, ...], float], float]] = {}
        self._shut: dict[int, int] = {}

    def learn(self, size: int, spent_ms: dict[str, float]) -> None:
        """What the stages of one step took, those that were cut short left out."""
        rows = self._steps.setdefault(size, np.full((MEMORY, len(STAGES)), np.nan))
        seen = self._seen[size] = self._seen.get(size, 0) + 1
        rows[(seen - 1) % MEMORY] = [spent_ms.get(stage, np.nan) for stage in STAGES]
        self._shut.pop(size, None)
        if seen < AGAIN or seen % AGAIN == 0:
            self._known.pop(size, None)

    def of(self, stages: tuple[str, ...], size: int, share: float = NEARLY_ALWAYS) -> float:
        """ms within which ``stages`` end in this share of the steps that ran them all.

        A size not seen yet is scaled up from the nearest, doubled; 0 where nothing was measured.
        """
        if size not in self._steps:
            near = min(self._steps, key=lambda other: abs(other - size), default=None)
            return 0.0 if near is None else 2.0 * self.of(stages, near, share) * max(size / max(near, 1), 1.0)
        known = self._known.setdefault(size, {})
        if (stages, share) not in known:
            sums = self._steps[size][:, [STAGES.index(stage) for stage in stages]].sum(axis=1)
            sums = np.sort(sums[~np.isnan(sums)])
            known[stages, share] = float(sums[ceil(share * len(sums)) - 1]) if len(sums) else 0.0
        return known[stages, share]

    def forget(self, count: int) -> None:
        """Drop the first ``count`` steps of each size: they held compilation."""
        for rows in self._steps.values():
            rows[:count] = np.nan
        self._known.clear()

    def shut_out(self, size: int) -> bool:
        """Something did not fit. True the ``PATIENCE``-th time in a row: then it is tried all the same, and the oldest
        quarter of what is known is forgotten, so that a machine's bad hour does not shut it out for good."""
        self._shut[size] = self._shut.get(size, 0) + 1
        if self._shut[size] < PATIENCE:
            return False
        self._shut[size] = 0
        if size in self._steps:
            by_age = (self._seen[size] + np.arange(MEMORY)) % MEMORY
            held = by_age[~np.isnan(self._steps[size][by_age]).all(axis=1)]
            self._steps[size][held[: ceil(0.25 * len(held))]] = np.nan
            self._known.pop(size, None)
        return True


class Stage:
    """Adds what its ``with`` block takes, in ms, to ``stages[name]``."""

    __slots__ = ("began", "name", "stages")

    def __init__(self, stages: dict[str, float], name: str) -> None:
        self.stages, self.name = stages, name

    def __enter__(self) -> None:
        self.began = now()

    def __exit__(self, *error: object) -> None:
        self.stages[self.name] = self.stages.get(self.name, 0.0) + 1e3 * (now() - self.began)


class Clock:
    """Times one step, and tells what still fits in its budget.

    Args:
        budget_ms: None for no limit. usual: memory shared by the steps. size: of the state. began: now().

    Attributes:
        stages: ms spent in each stage so far. skipped: stages that were left out or cut short.
    """

    def __init__(
        self, budget_ms: float | None = None, usual: Usual | None = None, size: int = 0, began: float | None = None
    ) -> None:
        self.began = now() if began is None else began
        self.budget_ms, self.usual, self.size = budget_ms, usual, size
        self.stages: dict[str, float] = {}
        self.skipped: list[str] = []

    @property
    def limited(self) -> bool:
        return self.budget_ms is not None

    def spent_ms(self) -> float:
        return 1e3 * (now() - self.began)

    def left_ms(self) -> float:
        """What is left of the budget less the reserve for settling and certifying."""
        if self.budget_ms is None:
            return float("inf")
        reserve = 1.1 * self.usual.of(LAST, self.size) if self.usual else 0.0
        return self.budget_ms - self.spent_ms() - reserve

    def fits(self, *stages: str) -> bool:
        """Whether these stages fit in what is left; without stages, whether the reserve is whole. Notes it if not."""
        if self.budget_ms is None:
            return True
        need = self.usual.of(stages, self.size, MOSTLY) if self.usual and stages else 0.0
        if need < self.left_ms():
            return True
        if self.usual is not None and self.usual.shut_out(self.size):
            return True
        self.skipped.append(stages[0] if stages else LAST[0])
        return False

    def portions(self, items: Int, stage: str, after_ms: float = 0.0) -> Iterator[Int]:
        """``items`` in portions that each fit in what is left, all at once without a budget; noted if not all did.

        Args:
            after_ms: what has to be done after the last of them.
        """
        if not self.limited:
            yield items
            return
        at, size = 0, 4
        while at < len(items):
            left, began = self.left_ms() - after_ms, self.spent_ms()
            if left <= 0:
                self.skipped.append(stage)
                return
            yield items[at : at + size]
            at += size
            each = max((self.spent_ms() - began) / size, 1e-5)
            size = max(min(int(0.5 * (self.left_ms() - after_ms) / each), 4 * size), 1)

    def stage(self, name: str) -> Stage:
        """A ``with`` block whose time counts as the stage's."""
        return Stage(self.stages, name)

    def close(self) -> None:
        """End of the step: what its stages took is remembered, but for those that were cut short."""
        kept = {name: ms for name, ms in self.stages.items() if name in STAGES and name not in self.skipped}
        if self.usual is not None and kept:
            self.usual.learn(self.size, kept)
