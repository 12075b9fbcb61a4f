"""What numbers may be, by the names that commands, settings and functions share, checked before anything is done.

A name means the same wherever it stands: ``--train-seeds`` of a command, ``Settings.train_seeds``, a suite's budget.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import MISSING, fields
from math import inf
from numbers import Integral, Real
from typing import Any, NamedTuple

from hybridalloc.text import quoted

TRAIN_SEEDS, TUNE_SEEDS, REPORT_SEEDS = range(0, 5000), range(5000, 5100), range(10000, 10100)


class Limit(NamedTuple):
    """Lowest and highest value; whether it counts something; whether the lowest is itself too low."""

    low: float
    high: float = inf
    whole: bool = True
    above: bool = False

    def holds(self, value: Any) -> bool:
        """NaN, True and text are no numbers."""
        if not _is(value, Integral if self.whole else Real):
            return False
        return bool(self.low < value <= self.high) if self.above else bool(self.low <= value <= self.high)

    def __str__(self) -> str:
        kind = "a whole number" if self.whole else "a number"
        if self.high < inf:
            return f"{kind} {'above' if self.above else 'from'} {self.low:g} {'up ' * self.above}to {self.high:,}"
        return f"{kind} {'>' if self.above else '>='} {self.low:g}"


def _is(value: Any, kind: type[Any]) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)


STEPS, MANY = 10**12, 10**9
LIMITS = {
    "agent_steps": Limit(1, STEPS), "belief_steps": Limit(0, STEPS), "checkpoint_every": Limit(0, STEPS),
    "train_seeds": Limit(1, len(TRAIN_SEEDS)), "report_seeds": Limit(1, len(REPORT_SEEDS)),
    "seeds": Limit(1, len(REPORT_SEEDS)), "seed": Limit(0, 2**63 - 1), "period": Limit(1, MANY),
    "tuning": Limit(0, MANY), "trials": Limit(1, MANY), "rounds": Limit(1, MANY), "segments": Limit(1, MANY),
    "length": Limit(1, MANY), "workers": Limit(1, 10_000), "actors": Limit(1, 10_000), "networks": Limit(1, 10**6),
    "checks": Limit(0, 10**6), "check_seeds": Limit(1, len(TUNE_SEEDS)), "check_slots": Limit(1, 10**6),
    "trust": Limit(0, whole=False), "trust_end": Limit(0, whole=False), "budget_ms": Limit(0, whole=False),
    "dispatchers": Limit(1, 10_000), "port": Limit(0, 65_535), "retries": Limit(0, 10_000),
    "report_s": Limit(0, 86_400, False, True), "connect_s": Limit(0, 86_400, False, True),
    "first_s": Limit(0, 86_400, False, True), "idle_s": Limit(0, 86_400, False, True),
    "wait_s": Limit(0, 86_400, False), "drain_s": Limit(0, 86_400, False), "every_s": Limit(0.1, 86_400, False),
    "patience_s": Limit(0, whole=False),
}  # fmt: skip


def check(name: str, value: Any, limit: Limit | None = None, flag: bool = False) -> None:
    """A value of this name; ``limit`` where it is another than everyone's.

    Raises:
        ValueError: "workers = 0; it must be a whole number from 1 to 10,000", or of a command's ``flag`` "--workers 0:
            ...".
    """
    limit = LIMITS[name] if limit is None else limit
    if not limit.holds(value):
        told = f"--{name.replace('_', '-')} {quoted(value)}:" if flag else f"{name} = {quoted(value)};"
        raise ValueError(f"{told} it must be {limit}")


def check_fields(given: Any, flag: bool = False) -> None:
    """Every field of a dataclass that has a limit; None where that is a field's default. Raises as :func:`check`."""
    for field in fields(given):
        value = getattr(given, field.name)
        if field.name in LIMITS and not (value is None and field.default in (None, MISSING)):
            check(field.name, value, flag=flag)


def check_values(**given: Any) -> None:
    """Each of these by its name. Raises as :func:`check`."""
    for name, value in given.items():
        check(name, value)


def check_names(name: str, given: Any) -> None:
    """Several names, each text: one alone is easily taken for its letters.

    Raises:
        ValueError: it is text, or holds what is none.
    """
    several = isinstance(given, Collection) and not isinstance(given, str | Mapping)
    if not several or not all(isinstance(word, str) for word in given):
        raise ValueError(f"{name} = {quoted(given)}; it must be a tuple of names, such as ('game-tuned',)")
