"""Progress of long work: a bar with speed and time left on a terminal, a line at times in a log, nothing if quiet."""

from __future__ import annotations

import sys
import time
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

from tqdm import tqdm

SAY_EVERY_S = 30.0  # in a log


class Stage:
    """One stage of work, counted in units; a context manager.

    Args:
        title: such as "tuning prices". total: units in all. unit: their name. quiet: say nothing.
    """

    def __init__(self, title: str, total: int, unit: str, quiet: bool = False) -> None:
        self.title, self.total, self.unit, self.quiet = title, total, unit, quiet
        self.began, self.n, self.notes = time.monotonic(), 0, ""
        self._said, self._before = self.began, 0
        terminal = sys.stderr.isatty()
        self._bar = tqdm(
            total=total, desc=title, unit=unit, unit_scale=True, smoothing=0.05, disable=quiet or not terminal
        )  # fmt: skip
        self._log = not quiet and not terminal
        if self._log:
            self._say(f"{title}: {total:,} {unit}s")

    def update(self, units: int = 1) -> None:
        """That many more units are done."""
        self.n += units
        self._bar.update(units)
        now = time.monotonic()
        if self._log and self.n > self._before and now - self._said >= SAY_EVERY_S:
            self._said = now
            speed = (self.n - self._before) / (now - self.began)
            left = f", {max(self.total - self.n, 0) / speed:,.0f} s left"
            pace = f"{speed:,.0f} {self.unit}s/s" if speed >= 10 else f"{60 * speed:,.1f} {self.unit}s/min"
            more = f", {self.notes}" if self.notes else ""
            self._say(f"{self.title}: {self.n:,} of {self.total:,} {self.unit}s, {pace}{left}{more}")

    def skip(self, units: int) -> None:
        """That many units were done before, by a run that this one goes on with; they say nothing about its speed."""
        self.n += units
        self._before += units
        self._bar.update(units)
        self._bar.unpause()

    def note(self, **figures: Any) -> None:
        """Figures to show beside the bar, and on the log's last line."""
        self.notes = ", ".join(f"{name} {value}" for name, value in figures.items())
        self._bar.set_postfix_str(self.notes, refresh=False)

    def close(self) -> None:
        """End the stage; in a log, with a line that says how long it took."""
        self._bar.close()
        if self._log:
            more = f", {self.notes}" if self.notes else ""
            spent = time.monotonic() - self.began
            done = self.n - self._before
            speed = f", {done / spent:,.0f} {self.unit}s/s" if done >= 10 * spent > 0 else ""
            self._say(f"{self.title}: done in {spent:.0f} s{speed}{more}")
            self._log = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._log = self._log and kind is None
        self.close()

    @staticmethod
    def _say(text: str) -> None:
        with suppress(OSError):  # progress that nobody can read stops no work
            print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


_listener: Any = None  # of the process: a later call replaces it


def tell_of_compiling(tell: bool = True) -> None:
    """Have numba's first compilation said on standard error, or no longer: a new installation makes its kernels once,
    and nothing else is to be seen meanwhile; later runs load them."""
    global _listener
    from numba.core import event

    class Once(event.Listener):
        told = False

        def on_start(self, event: Any) -> None:
            if not self.told:
                Stage._say("first run of this installation: compiling kernels; later runs load them")
            self.told = True

        def on_end(self, event: Any) -> None: ...

    if _listener is not None:
        event.unregister("numba:compile", _listener)
    _listener = Once() if tell else None
    if tell:
        event.register("numba:compile", _listener)
