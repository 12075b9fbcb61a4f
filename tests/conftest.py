"""One thread a process, and the shared data where they lie beside the checkout."""

from __future__ import annotations

import os
from pathlib import Path

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")
SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
if SHARED.is_dir():
    os.environ.setdefault("HYBRIDALLOC_DATA", str(SHARED))
