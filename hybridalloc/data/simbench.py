"""SimBench's year of profiles from its package, as the file that the registry knows: ``python -m
hybridalloc.data.simbench`` writes it into the folder that ``HYBRIDALLOC_DATA`` names.

The data are under ODbL 1.0: what is made here is a derived database; it is yours to use and not ours to ship.
"""

from __future__ import annotations

import csv
import importlib.util
import os
from pathlib import Path

import numpy as np

from hybridalloc.data.registry import DATA_VARIABLE, DataError

FOLDER = Path("networks") / "1-complete_data-mixed-all-0-sw"
DAY = 96


def make_profiles(target: Path, package: Path | None = None) -> Path:
    """Write ``profiles.npz``: P, Q (T, 53), pv (T, 8), float32, and names (53,), whole days.

    Args:
        target: a folder. package: of simbench; default where it is installed.

    Raises:
        DataError: simbench is not installed, or its files are not as in version 1.6.3.
    """
    if package is None:
        found = importlib.util.find_spec("simbench")
        if found is None or found.origin is None:
            raise DataError("simbench is not installed; `pip install simbench` (381 MB), then run this again")
        package = Path(found.origin).parent
    loads, head = _table(package / FOLDER / "LoadProfile.csv")
    sun, sites = _table(package / FOLDER / "RESProfile.csv")
    names = [c[:-6] for c in head if c.endswith("_pload") and c[0] in "GHL" and len(c) <= 10]
    steps = len(loads) // DAY * DAY
    try:
        columns = [[head.index(f"{name}_{kind}load") for name in names] for kind in "pq"]
        places = [sites.index(f"PV{k}") for k in range(1, 9)]
    except ValueError as error:
        raise DataError(f"{package / FOLDER}: a column is missing ({error}); simbench 1.6.3 has it") from error
    p, q = (loads[:steps, which].astype(np.float32) for which in columns)
    target.mkdir(parents=True, exist_ok=True)
    path = target / "profiles.npz"
    np.savez_compressed(path, P=p, Q=q, pv=sun[:steps, places].astype(np.float32), names=np.array(names))
    return path


def _table(path: Path) -> tuple[np.ndarray, list[str]]:
    """Numbers of a CSV file with ";", its first column (time) as NaN, and its header."""
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            head = next(csv.reader(stream, delimiter=";"))
            return np.genfromtxt(stream, delimiter=";"), head
    except (OSError, StopIteration, ValueError) as error:
        raise DataError(f"{path} cannot be read ({error}); simbench 1.6.3 has it") from error


if __name__ == "__main__":
    folder = os.environ.get(DATA_VARIABLE)
    if not folder:
        raise SystemExit(f"set {DATA_VARIABLE} to the folder that is to hold simbench/profiles.npz")
    print(make_profiles(Path(folder) / "simbench"))
