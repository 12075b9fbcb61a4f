"""hybridalloc: resource allocation by reinforcement learning on top of a non-cooperative game.

Every step is feasible, certified and fast: ``Allocator.step(state)`` answers with an allocation that can be
executed as it is. ``import hybridalloc`` loads neither torch nor mlflow; they come with what needs them.
"""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hybridalloc.addresses import answer_to_short_names

if TYPE_CHECKING:
    from hybridalloc.allocation import Allocation, Certificate
    from hybridalloc.allocator import Allocator
    from hybridalloc.environments import make_env
    from hybridalloc.errors import CheckpointError, InvalidStateError
    from hybridalloc.problems import make_problem

__version__ = "0.1.0"
__all__ = [
    "Allocation",
    "Allocator",
    "Certificate",
    "CheckpointError",
    "InvalidStateError",
    "make_env",
    "make_problem",
]

_HOMES = {
    "Allocation": "hybridalloc.allocation",
    "Allocator": "hybridalloc.allocator",
    "Certificate": "hybridalloc.allocation",
    "CheckpointError": "hybridalloc.errors",
    "InvalidStateError": "hybridalloc.errors",
    "make_env": "hybridalloc.environments",
    "make_problem": "hybridalloc.problems",
}


def _check_neighbours() -> None:
    """``games``, ``rl`` and ``coordinator`` are common words: are the ones found ours?"""
    house = Path(__file__).resolve().parent.parent
    for name in ("coordinator", "games", "rl"):
        spec = importlib.util.find_spec(name)
        where = None
        if spec is not None:
            where = spec.origin or next(iter(spec.submodule_search_locations or []), None)
        if where is None:
            raise ImportError(f"package {name!r} is missing; it should stand in {house}. Reinstall hybridalloc.")
        folder = Path(where).resolve().parent if spec is not None and spec.origin else Path(where).resolve()
        if folder != house / name:
            raise ImportError(
                f"another package named {name!r} in {folder} hides hybridalloc's own in {house / name}. "
                f"Rename that folder, or put {house} before it on sys.path."
            )


_check_neighbours()
answer_to_short_names()


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'hybridalloc' has no attribute {name!r}")
    if name == "make_env":
        for library in ("gymnasium", "pettingzoo"):
            if importlib.util.find_spec(library) is None:
                raise ImportError(f"make_env needs {library}: pip install 'hybridalloc[envs]'")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
