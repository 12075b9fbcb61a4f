"""A slice of ``benchmarks/properties.py``: what must hold of every allocation, on every setting."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

_PATH = Path(__file__).resolve().parents[2] / "benchmarks" / "properties.py"
_SPEC = importlib.util.spec_from_file_location("properties_benchmark", _PATH)
properties = importlib.util.module_from_spec(_SPEC)
sys.modules["properties_benchmark"] = properties  # dataclasses look their module up
_SPEC.loader.exec_module(properties)

PROMISED = {
    "capacity and power", "options allowed, idle agents out", "regret within the bound", "trust inf is Nash",
    "no worse than either parent", "trust 0 is the filtered proposal", "regret as certified", "nothing failed",
    "who is said to be served is", "no justified envy", "who holds a place is served",
}  # fmt: skip


@pytest.mark.parametrize("name", properties.SETTINGS)
def test_promises_hold_on_fresh_states(name):
    """11 settings x (2 seeds x 6 trusts x 25 networks batched + 25 steps): 3,575 allocations."""
    count = properties.Count()
    for seed in (70_000, 70_001):
        properties.check_batch(name, seed, count, networks=25)
    properties.check_steps(name, 80_000, count, 25)
    assert count.allocations == 325
    assert set(count.broken) <= PROMISED and len(count.broken) >= len(PROMISED) - 2  # without floors, no places
    assert not any(count.broken.values()), (count.broken, count.worst)


def test_a_broken_promise_is_counted():
    """The count is no rubber stamp: a bound that is too tight by half is seen to be broken."""
    count = properties.Count()
    bound = properties.Coordinator.epsilon_bound
    try:
        properties.Coordinator.epsilon_bound = property(lambda self: 0.01 * bound.fget(self))
        properties.check_batch("H", 1, count, networks=25)
    finally:
        properties.Coordinator.epsilon_bound = bound
    assert count.broken["regret within the bound"] > 0 and count.broken["capacity and power"] == 0
