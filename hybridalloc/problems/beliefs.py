"""Beliefs on file: arrays and settings in one ``.npz``, to go on learning as if nothing had happened."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from hybridalloc.errors import CheckpointError, nearest
from hybridalloc.files import read_kept, whole_file
from hybridalloc.problems.contract import AnyProblem
from hybridalloc.text import printable, quoted

MOST = 100_000  # of any setting but the seed, which is what a belief takes memory by


def belief_arrays(belief: Any) -> dict[str, Any]:
    """A belief as arrays by name, for an ``.npz``; :func:`restore_belief` reads them back."""
    meta = {"name": belief.name, "settings": belief.settings()}
    return {"belief": np.array(json.dumps(meta))} | {f"belief/{k}": v for k, v in belief.state_dict().items()}


def restore_belief(problem: AnyProblem, arrays: dict[str, Any]) -> Any:
    """The belief that :func:`belief_arrays` wrote, None where there is none.

    Raises:
        CheckpointError: the problem has no such belief, or its shapes are others.
    """
    if "belief" not in arrays:
        return None
    try:
        meta = json.loads(str(arrays["belief"]))
        if meta["name"] not in problem.card.beliefs:
            known = ", ".join(problem.card.beliefs) or "none"
            raise CheckpointError(f"this is a belief {quoted(meta['name'])}; {problem.card.name} has {known}")
        for name, value in meta["settings"].items():
            if type(value) not in (bool, int) or not 0 <= value <= (MOST if name != "seed" else 2**63):
                raise ValueError(f"{printable(name)} = {quoted(value)}; it must be a whole number from 0 to {MOST:,}")
        for name, value in arrays.items():
            if name.startswith("belief/") and value.dtype.kind == "f" and not np.isfinite(value).all():
                raise ValueError(f"{name} holds what is not finite")
        belief = problem.card.beliefs[meta["name"]](**meta["settings"])
        belief.load_state_dict({k.removeprefix("belief/"): v for k, v in arrays.items() if k.startswith("belief/")})
    except CheckpointError:
        raise
    except Exception as error:  # a belief reads what it needs: of what is missing or misshapen it says so in many ways
        reason = printable(f"{type(error).__name__}: {error}", 200)
        raise CheckpointError(f"the belief does not fit this version of {problem.card.name}: {reason}") from None
    return belief


def save_belief(path: str | Path, belief: Any) -> Path:
    """Write a belief to ``path`` (.npz), in one piece or not at all."""
    with whole_file(path) as stream:
        np.savez(stream, **belief_arrays(belief))
    return Path(path)


def load_belief(problem: AnyProblem, path: str | Path) -> Any:
    """The belief that :func:`save_belief` wrote.

    Raises:
        CheckpointError: no such file, a truncated one, or another problem's; the file is left as it is.
    """
    arrays = read_kept(path, "belief")
    belief = restore_belief(problem, arrays)
    if belief is None:
        raise CheckpointError(f"{path} holds no belief; it has {printable(', '.join(arrays))}")
    return belief


def make_belief(problem: AnyProblem, given: Any, seed: int = 0) -> Any:
    """A belief from a name, an object (as it is), or None.

    Raises:
        UnknownNameError: the problem has no belief of that name.
    """
    if given is None or not isinstance(given, str):
        return given
    known = problem.card.beliefs
    if given not in known:
        raise nearest(f"belief of {problem.card.name}", given, tuple(known))
    return known[given](seed=seed)
