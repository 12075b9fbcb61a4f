"""One thread a process, the shared data where they lie beside the checkout, and the longest files first."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")
SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
if SHARED.is_dir():
    os.environ.setdefault("HYBRIDALLOC_DATA", str(SHARED))


FIRST = ("test_notebooks", "test_files_are_data", "test_attack", "test_ahead", "test_allocator")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with tests of a minute and more go first, so that two workers end together."""
    items.sort(key=lambda item: item.path.stem not in FIRST)
