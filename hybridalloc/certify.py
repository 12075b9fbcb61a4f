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

from games.certificate import CapacityCheck, deviations, measure_regret
from games.certificate_lists import Findings
from games.certificate_places import measure_envy, measure_fitting_regret
from games.congestion import Bool, Int
from games.lean import KEPT
from games.packing import Packing
from games.packing_certificate import certify_packing
from games.quadratic import QuadraticGame
from games.quadratic_certificate import quadratic_gains
from games.tree import TreeBatch
from games.tree_certificate import tree_gains
from hybridalloc.allocation import Allocation
from hybridalloc.problems.contract import AnyProblem, Audits, Examines, Prices, offers

SHOWN = 6  # agents named in a status
ROUNDING = 1e-9


@dataclass(frozen=True)
class Verdict:
    """What was found of one allocation of N agents.

    Attributes:
        check: limits kept, every number finite. in_time: (N,) who is served by the problem's second reading, None where
            it has none.
        regret: largest gain by deviating alone; inf where there was nothing to measure it in.
        late: agents that are said to be served in time, or hold a place, and are late.
        unserved: (M,) live agents not in time.
        doubtful: served as was believed, but not by the reports at their face value.
        envy: agents left out while lower classes hold what would serve them.
    """

    check: CapacityCheck
    in_time: Bool | None
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
    if isinstance(game := allocation.game, Packing):
        packed = certify_packing(game, allocation.option)
        envy = tuple(dict.fromkeys(i for i, _ in packed.envy))
        return Verdict(check, None, packed.regret, (), unseen.unserved, (), envy)
    if not offers(problem, Audits):  # type: ignore[type-abstract]
        return Verdict(check, None, regret_of(allocation), (), unseen.unserved, (), ())
    try:
        seen = problem.examine(state, allocation, prices, believed) if offers(problem, Examines) else None  # type: ignore[type-abstract]
        if seen is None:
            seen = _read(problem, state, allocation, prices, believed)
    except Exception as error:
        message = f"not audited: {type(error).__name__}: {error}"
        warn("not audited", message)
        return Verdict(CapacityCheck(float("inf"), (message,)), None, float("inf"), (), unseen.unserved, (), ())
    held = np.asarray(allocation.held, bool)
    late = np.flatnonzero(active & (served | (held & ~seen.home)) & ~seen.in_time).tolist()
    doubtful = np.flatnonzero(active & seen.in_time & ~seen.by_reports).tolist()
    unserved = np.flatnonzero(active & ~seen.in_time)
    return Verdict(check, seen.in_time, seen.regret, tuple(late), unserved, tuple(doubtful), seen.envy)


def _read(problem: Audits, state: Any, allocation: Allocation, prices: Prices, believed: Any) -> Findings:
    """What a problem's audit of all options shows."""
    found = problem.audit(state, allocation, prices, believed)
    regret = float("inf")
    if allocation.played and allocation.seated:
        regret = measure_fitting_regret(found)
    elif allocation.played:
        regret = float(deviations(found, allocation.option)[0].max(initial=0.0))
    envy = tuple(dict.fromkeys(i for i, _ in measure_envy(found)))
    return Findings(found.in_time, found.by_reports, found.home, regret, envy)


def regret_of(allocation: Allocation) -> float:
    """Largest gain by deviating alone in the game as it was played, of options or of levels; inf without a game."""
    game = allocation.game
    if game is None:
        return float("inf")
    if isinstance(game, Packing):
        return certify_packing(game, allocation.option).regret
    if not isinstance(game, QuadraticGame | TreeBatch):
        return measure_regret(game, allocation.option)
    levels = np.stack(list(allocation.levels.values()), axis=-1)
    if isinstance(game, TreeBatch):
        return float(tree_gains(game, levels[None]).max(initial=0.0))
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
    """Whether nothing of what :func:`check_numbers` tells is the case, in one compiled look at all numbers."""
    shared, floors = bool(allocation.shares), allocation.floors
    none = np.zeros(n)
    of_agents = [*allocation.levels.values(), *allocation.shares.values(), *floors.values()]
    of_agents += [allocation.shares.get(family, none) for family in floors]
    numbers = _together(of_agents, n)
    if numbers is None or held.shape != (n,):
        return False
    prices = [np.asarray(given, np.float64) for given in allocation.prices.values()]
    if any(given.ndim != 1 for given in prices):
        return False
    priced = np.concatenate(prices) if prices else np.empty(0)
    option = np.ascontiguousarray(allocation.option, np.int64)
    return bool(_look(option, numbers, len(of_agents) - 2 * len(floors), len(floors), out, held, shared, priced))


def _together(given: list[Any], n: int) -> Any:
    """Rows (R, N) of arrays (N,); None where one has another shape."""
    rows = np.empty((len(given), n))
    for row, value in zip(rows, given, strict=True):
        value = np.asarray(value, np.float64)
        if value.shape != (n,):
            return None
        row[:] = value
    return rows


@njit(**KEPT)
def _look(option, numbers, owned, floors, out, held, shared, prices):
    """Options and prices >= 0; the first ``owned`` rows finite, of what is shared >= 0, and 0 for who is ``out`` (N,);
    the next ``floors`` within the rows so many later, and of holders alone."""
    for r in range(len(prices)):
        if not 0.0 <= prices[r] < np.inf:
            return False
    for i in range(len(option)):
        if option[i] < 0:
            return False
        for k in range(owned):
            value = numbers[k, i]
            if not np.isfinite(value) or (shared and (value < 0.0 or (out[i] and value != 0.0))):
                return False
        for k in range(owned, owned + floors):
            low, share = numbers[k, i], numbers[k + floors, i]
            if not (np.isfinite(low) and 0.0 <= low <= share * (1.0 + ROUNDING) + ROUNDING):
                return False
            if low > 0.0 and (out[i] or not held[i]):
                return False
    return True


def _named_parts(kind: str, parts: Mapping[str, Any]) -> dict[str, Any]:
    return {f"{kind} of {name}": value for name, value in parts.items()}


def _named(agents: tuple[int, ...]) -> str:
    some = ", ".join(map(str, agents[:SHOWN])) + (" ..." if len(agents) > SHOWN else "")
    return f"agent{'s' if len(agents) > 1 else ''} {some}"
