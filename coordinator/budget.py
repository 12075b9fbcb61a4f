"""The time of one step: what each stage took, what is left, and whether the next stage fits.

A stage starts only if what it usually takes, and what must still follow it, fit in what is left. "Usually" is the
third largest of its last 200 times at this size of state, so that a lone hiccup of the machine does not shut a stage
out; a size not seen yet is scaled up from the nearest, doubled. Iterative kernels are run a few sweeps a call and
read the clock in between, so at most one sweep is under way when time is up.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

now = time.perf_counter  # what the clock reads, in s; benchmarks put the thread's own processor time here
MEMORY, PATIENCE = 1000, 2000
STAGES = ("build", "observe", "propose", "game", "equilibrate", "choose", "settle", "certify")


class Usual:
    """What each stage usually takes, in ms, by the size of the state (agents times options)."""

    def __init__(self) -> None:
        self._times: dict[tuple[str, int], deque[float]] = {}
        self._usual: dict[tuple[str, int], float] = {}
        self._since: dict[tuple[str, int], int] = {}
        self._shut: dict[tuple[str, int], int] = {}

    def learn(self, stage: str, size: int, spent_ms: float) -> None:
        key = (stage, size)
        times = self._times.setdefault(key, deque(maxlen=MEMORY))
        times.append(spent_ms)
        self._shut.pop(key, None)
        known = self._usual.get(key)
        self._since[key] = self._since.get(key, 0) + 1
        if known is None or spent_ms >= known or self._since[key] % 50 == 0:
            self._usual[key] = _usual(times)

    def of(self, stage: str, size: int) -> float:
        """ms; 0 for a stage that was never measured."""
        if (stage, size) in self._usual:
            return self._usual[stage, size]
        near = [(abs(s - size), s) for name, s in self._usual if name == stage]
        if not near:
            return 0.0
        other = min(near)[1]
        return 2.0 * self._usual[stage, other] * max(size / max(other, 1), 1.0)

    def forget(self, count: int) -> None:
        """Drop the first ``count`` times of each stage: they held compilation."""
        for key, times in self._times.items():
            kept = list(times)[count:] or list(times)
            self._times[key] = deque(kept, maxlen=MEMORY)
            self._usual[key] = _usual(kept)

    def shut_out(self, stage: str, size: int) -> None:
        """A stage did not fit; after ``PATIENCE`` times in a row its times are forgotten, so that it is tried again."""
        key = (stage, size)
        self._shut[key] = self._shut.get(key, 0) + 1
        if self._shut[key] >= PATIENCE:
            for memory in (self._shut, self._times, self._usual):
                memory.pop(key, None)


def _usual(times: Iterable[float]) -> float:
    ordered = sorted(times)
    return ordered[-2 if len(ordered) >= MEMORY // 2 else -1]


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

    def left_ms(self, after: tuple[str, ...] = ("settle", "certify")) -> float:
        """What is left of the budget once the stages ``after`` have had their usual time."""
        if self.budget_ms is None:
            return float("inf")
        reserve = sum(self.usual.of(stage, self.size) for stage in after) if self.usual else 0.0
        return self.budget_ms - self.spent_ms() - reserve

    def fits(self, *stages: str) -> bool:
        """Whether these stages, and settling and certifying after them, fit in what is left; notes it if not."""
        if self.budget_ms is None:
            return True
        need = sum(self.usual.of(stage, self.size) for stage in stages) if self.usual else 0.0
        if need < self.left_ms():
            return True
        self.skipped.append(stages[0])
        if self.usual is not None:
            for stage in stages:
                self.usual.shut_out(stage, self.size)
        return False

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        began = now()
        try:
            yield
        finally:
            spent = 1e3 * (now() - began)
            self.stages[name] = self.stages.get(name, 0.0) + spent

    def close(self) -> None:
        """End of the step: what its stages took is remembered, but for those that were cut short."""
        if self.usual is not None:
            for name, spent in self.stages.items():
                if name not in self.skipped:
                    self.usual.learn(name, self.size, spent)
