"""Libraries that only some of what is here needs, and how they are installed."""

from __future__ import annotations

import importlib
from typing import Any

EXTRAS = {"cvxpy": "solvers", "mlflow": "mlflow", "optuna": "tune", "ray": "ray"}  # of pyproject.toml, by library


def required(library: str) -> Any:
    """The library, imported.

    Raises:
        ImportError: it is not installed; says which extra brings it.
    """
    try:
        return importlib.import_module(library)
    except ModuleNotFoundError as error:
        if error.name != library:
            raise
        raise ImportError(missing(library)) from None


def missing(library: str) -> str:
    """What to do about a library that is not installed."""
    return f"{library} is not installed; pip install 'hybridalloc[{EXTRAS[library]}]'"
