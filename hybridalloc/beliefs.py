"""Beliefs on file: arrays and settings in one ``.npz``, to go on learning as if nothing had happened."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from hybridalloc.errors import CheckpointError, nearest


def belief_arrays(belief: Any) -> dict[str, Any]:
    """A belief as arrays by name, for an ``.npz``; :func:`restore_belief` reads them back."""
    meta = {"name": belief.name, "settings": belief.settings()}
    return {"belief": np.array(json.dumps(meta))} | {f"belief/{k}": v for k, v in belief.state_dict().items()}


def restore_belief(problem: Any, arrays: dict[str, Any]) -> Any:
    """The belief that :func:`belief_arrays` wrote, None where there is none.

    Raises:
        CheckpointError: the problem has no such belief, or its shapes are others.
    """
    if "belief" not in arrays:
        return None
    meta = json.loads(str(arrays["belief"]))
    if meta["name"] not in problem.beliefs:
        raise CheckpointError(f"this is a belief {meta['name']!r}; {problem.name} has {', '.join(problem.beliefs)}")
    belief = problem.beliefs[meta["name"]](**meta["settings"])
    try:
        belief.load_state_dict({k.removeprefix("belief/"): v for k, v in arrays.items() if k.startswith("belief/")})
    except (KeyError, ValueError) as error:
        raise CheckpointError(f"the belief does not fit this version of {problem.name}: {error}") from None
    return belief


def save_belief(path: str | Path, belief: Any) -> Path:
    """Write a belief to ``path`` (.npz), in one piece or not at all."""
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(target.name + ".partial.npz")
    np.savez(partial, **belief_arrays(belief))
    return partial.replace(target)


def load_belief(problem: Any, path: str | Path) -> Any:
    """The belief that :func:`save_belief` wrote.

    Raises:
        CheckpointError: no such file, a truncated one, or another problem's; the file is left as it is.
    """
    try:
        with np.load(path, allow_pickle=False) as data:
            arrays = {k: data[k] for k in data.files}
    except FileNotFoundError:
        raise CheckpointError(f"no belief at {path}") from None
    except (zipfile.BadZipFile, OSError, ValueError, EOFError) as error:
        raise CheckpointError(f"{path} is truncated or not a belief ({error}); it was left as it is") from None
    belief = restore_belief(problem, arrays)
    if belief is None:
        raise CheckpointError(f"{path} holds no belief; it has {', '.join(arrays)}")
    return belief


def make_belief(problem: Any, given: Any, seed: int = 0) -> Any:
    """A belief from a name, an object (as it is), or None.

    Raises:
        UnknownNameError: the problem has no belief of that name.
    """
    if given is None or not isinstance(given, str):
        return given
    known = getattr(problem, "beliefs", {})
    if given not in known:
        raise nearest(f"belief of {problem.name}", given, tuple(known))
    return known[given](seed=seed)
