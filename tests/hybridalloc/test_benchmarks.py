"""The benchmarks start as the README says, although one of them is named like a package."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

HOUSE = Path(__file__).resolve().parents[2]


BENCHMARKS = tuple(sorted(path.stem for path in (HOUSE / "benchmarks").glob("*.py")))


@pytest.mark.parametrize("name", BENCHMARKS)
def test_a_benchmark_finds_the_packages(name):
    code = f"import runpy, sys; sys.argv = ['benchmarks/{name}.py']; sys.path[0] = 'benchmarks'; " + (
        f"runpy.run_path('benchmarks/{name}.py', run_name='loaded'); import games; print(games.__file__)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=HOUSE)
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()) == HOUSE / "games" / "__init__.py"
