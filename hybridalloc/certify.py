"""What is known of an allocation before anyone executes it, by code that shares nothing with the solvers.

A problem's ``check`` measures limits, its ``audit`` reads who is in time, what each option costs and what serving
takes, from the state and the allocation alone; :mod:`games.certificate` measures regret and envy in that. Here it is
put together, with what holds for every problem: all numbers finite, nothing held by who opted out, floors kept.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit

from games.certificate import (
    Audit,
    CapacityCheck,
    deviations,
    measure_envy,
    measure_fitting_regret,
    measure_regret,
)
from games.congestion import Int
from games.quadratic import QuadraticGame
from games.quadratic_certificate import quadratic_gains
from hybridalloc.allocation import Allocation
from hybridalloc.problems.contract import AnyProblem, Audits, Prices, offers

SHOWN = 6  # agents named in a status
ROUNDING = 1e-9


@dataclass(frozen=True)
class Verdict:
    """What was found of one allocation of N agents.

    Attributes:
        check: limits kept, every number finite. audit: the problem's second reading, None where it has none.
        regret: largest gain by deviating alone; inf where there was nothing to measure it in.
        late: agents that are said to be served in time, or hold a place, and are late.
        unserved: (M,) live agents not in time.
        doubtful: served as was believed, but not by the reports at their face value.
        envy: agents left out while lower classes hold what would serve them.
    """

    check: CapacityCheck
    audit: Audit | None
    regret: float
    late: tuple[int, ...]
    unserved: Int
    doubtful: tuple[int, ...]
    envy: tuple[int, ...]

    def complaints(self, bound: float, promised: bool) -> list[str]:
        """Promises that do not hold, in words; ``promised``: places were given, so that envy and lateness break one."""
        said = []
        if self.late:
            said.append(f"{_named(self.late)} said to be served in time and not")
        if np.isfinite(self.regret) and self.regret > bound + ROUNDING * (1 + abs(bound)):
            said.append(f"regret {self.regret:.4g} above its bound {bound:.4g}")
        if promised and self.envy:
            said.append(f"{_named(self.envy)} left out while lower classes hold what would serve them")
        return said


def certify(
    problem: AnyProblem,
    state: Any,
    allocation: Allocation,
    prices: Prices,
    believed: Any,
    warn: Callable[[str, str], None],
) -> Verdict:
    """Check and audit an allocation; where a part of that fails, the verdict says so.

    Args:
        believed: what a belief said of the state, as data; None where the reports were believed.
        warn: called with a head and a message where something could not be checked.
    """
    try:
        own = problem.check(state, allocation)
        numbers = check_numbers(allocation, np.asarray(state.active, bool))
        check = CapacityCheck(max(own.max_violation, numbers.max_violation), own.violations + numbers.violations)
    except Exception as error:
        check = CapacityCheck(float("inf"), (f"not checked: {type(error).__name__}: {error}",))
        warn("not checked", check.violations[0])
    served, active = np.asarray(allocation.served, bool), np.asarray(state.active, bool)
    unseen = Verdict(check, None, float("inf"), (), np.flatnonzero(active & ~served), (), ())
    if not check.feasible:
        return unseen  # numbers that break a limit are not worth reading further
    if not offers(problem, Audits):  # type: ignore[type-abstract]
        return Verdict(check, None, regret_of(allocation), (), unseen.unserved, (), ())
    try:
        found = problem.audit(state, allocation, prices, believed)
        if allocation.game is None:
            regret = float("inf")
        else:
            moves = lambda: float(deviations(found, allocation.option)[0].max(initial=0.0))
            regret = measure_fitting_regret(found) if allocation.seated else moves()
        envy = tuple(dict.fromkeys(i for i, _ in measure_envy(found)))
    except Exception as error:
        message = f"not audited: {type(error).__name__}: {error}"
        warn("not audited", message)
        return Verdict(CapacityCheck(float("inf"), (message,)), None, float("inf"), (), unseen.unserved, (), ())
    late = tuple(np.flatnonzero(active & (served | (found.held & ~found.home)) & ~found.in_time).tolist())
    doubtful = tuple(np.flatnonzero(active & found.in_time & ~found.by_reports).tolist())
    return Verdict(check, found, regret, late, np.flatnonzero(active & ~found.in_time), doubtful, envy)


def regret_of(allocation: Allocation) -> float:
    """Largest gain by deviating alone in the game as it was played, of options or of levels; inf without a game."""
    game = allocation.game
    if game is None:
        return float("inf")
    if not isinstance(game, QuadraticGame):
        return measure_regret(game, allocation.option)
    levels = np.stack(list(allocation.levels.values()), axis=-1)
    return float(quadratic_gains(game, len(levels), levels).max(initial=0.0))


def check_numbers(allocation: Allocation, active: Any) -> CapacityCheck:
    """What holds for every problem: finite numbers, shares, prices and levels >= 0, nothing held by who opted out,
    floors kept and only where a place is held. Where nothing is shared nobody opts out, and levels are any numbers."""
    n = len(active)
    option = np.asarray(allocation.option)
    lines: list[str] = []
    if option.shape != (n,) or option.dtype.kind not in "iu":
        return CapacityCheck(float("inf"), (f"option has shape {option.shape}; {n} agents need whole numbers ({n},)",))
    out = (option == 0) | ~active
    held = np.asarray(allocation.held, bool)
    if _sound(allocation, n, out, held):
        return CapacityCheck(0.0, ())
    lines += [f"option: agent {i} has {option[i]}" for i in np.flatnonzero(option < 0)[:SHOWN]]
    for name, given in (allocation.levels | _named_parts("share", allocation.shares)).items():
        value = np.asarray(given, float)
        if value.shape != (n,):
            lines.append(f"{name} has shape {value.shape}; {n} agents need ({n},)")
            continue
        bad = ~np.isfinite(value)
        if allocation.shares:
            bad |= ~(value >= 0) | (out & (value != 0))
        lines += [f"{name}: agent {i} has {value[i]} at option {option[i]}" for i in np.flatnonzero(bad)[:SHOWN]]
    for name, given in _named_parts("price", allocation.prices).items():
        value = np.asarray(given, float)
        bad = ~(np.isfinite(value) & (value >= 0))
        lines += [f"{name}: resource {r} has {value[r]}" for r in np.flatnonzero(bad)[:SHOWN]]
    for family, floor in allocation.floors.items():
        low, share = np.asarray(floor, float), np.asarray(allocation.shares.get(family, 0.0), float)
        bad = ~np.isfinite(low) | (low < 0) | (low > share * (1 + ROUNDING) + ROUNDING) | ((low > 0) & (out | ~held))
        lines += [f"floor of {family}: agent {i} has {low[i]}" for i in np.flatnonzero(bad)[:SHOWN]]
    return CapacityCheck(float("inf") if lines else 0.0, tuple(lines))


def _sound(allocation: Allocation, n: int, out: Any, held: Any) -> bool:
    """Whether nothing of what :func:`check_numbers` tells is the case, in one compiled look at each array."""
    shared = bool(allocation.shares)
    if not _whole(np.ascontiguousarray(allocation.option, np.int64)) or held.shape != (n,):
        return False
    for given in (*allocation.levels.values(), *allocation.shares.values()):
        value = np.ascontiguousarray(given, np.float64)
        if value.shape != (n,) or not _owned(value, out, shared):
            return False
    for given in allocation.prices.values():
        value = np.ascontiguousarray(given, np.float64)
        if value.ndim != 1 or not _priced(value):
            return False
    for family, given in allocation.floors.items():
        low = np.ascontiguousarray(given, np.float64)
        share = np.ascontiguousarray(allocation.shares.get(family, 0.0), np.float64)
        if low.shape != (n,) or share.shape != (n,) or not _kept(low, share, out, held):
            return False
    return True


@njit(cache=True)
def _whole(option):
    fine = True
    for i in range(len(option)):
        fine &= option[i] >= 0
    return fine


@njit(cache=True)
def _owned(value, out, shared):
    """Finite numbers; of what is shared >= 0, and 0 for who is ``out`` (N,)."""
    for i in range(len(value)):
        if not np.isfinite(value[i]) or (shared and (value[i] < 0.0 or (out[i] and value[i] != 0.0))):
            return False
    return True


@njit(cache=True)
def _priced(value):
    fine = True
    for r in range(len(value)):
        fine &= 0.0 <= value[r] < np.inf
    return fine


@njit(cache=True)
def _kept(low, share, out, held):
    """Floors (N,) within the shares, of holders alone."""
    for i in range(len(low)):
        if not (np.isfinite(low[i]) and 0.0 <= low[i] <= share[i] * (1.0 + ROUNDING) + ROUNDING):
            return False
        if low[i] > 0.0 and (out[i] or not held[i]):
            return False
    return True


def _named_parts(kind: str, parts: Mapping[str, Any]) -> dict[str, Any]:
    return {f"{kind} of {name}": value for name, value in parts.items()}


def _named(agents: tuple[int, ...]) -> str:
    some = ", ".join(map(str, agents[:SHOWN])) + (" ..." if len(agents) > SHOWN else "")
    return f"agent{'s' if len(agents) > 1 else ''} {some}"
