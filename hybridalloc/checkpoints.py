"""Checkpoints of a training run: resumed on one thread, training goes on bit for bit as if uninterrupted.

One file holds the learner (networks, optimizers, normalisers, random states, rollout in progress or replay), the
environments (every array and random stream of the batch), the belief, the trainer's random state, counters, rows and
seconds. ``last.pt`` is written every so many agent-steps, ``best.pt`` when the check on the tuning seeds is the best so
far. A file is written beside its target and then renamed, so that a killed process leaves the one before whole.

Files are ``torch.save`` archives of plain containers, numbers, text and tensors: reading one runs no code of its own.
"""

from __future__ import annotations

import json
import math
import os
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hybridalloc.allocator import CheckpointError

FORMAT = 1


class Checkpoints:
    """Where a run keeps its checkpoints, how often, and what it goes on from.

    Args:
        folder: of ``last.pt`` and ``best.pt``.
        every: agent-steps between two writings of ``last.pt``; a killed process loses at most so many, and what is
            left of its learner's rollout.
        resume: a checkpoint to go on from.

    Raises:
        ValueError: ``every`` is not positive.
    """

    def __init__(self, folder: str | Path, every: int = 250_000, resume: str | Path | None = None) -> None:
        if every <= 0:
            raise ValueError(f"checkpoint_every = {every}; it must be > 0 agent-steps")
        self.folder, self.every = Path(folder), every
        self.resume = None if resume is None else Path(resume)
        self.identity = ""
        self.best = -math.inf
        self.kept: tuple[Path, int] | None = None  # the last good one, and its agent-steps
        self._found: dict[str, Any] | None = None

    def open(self, problem: Any, prices: Any, config: Any) -> bool:
        """Note whose run this is; whether it goes on from a checkpoint.

        Raises:
            CheckpointError: the checkpoint is missing, truncated, of another format, or of another run, with the first
                setting that differs; the file is left as it was.
        """
        self.identity = identity(problem, prices, config)
        if self.resume is None:
            return False
        self._found = read(self.resume)
        difference = first_difference(json.loads(self._found["identity"]), json.loads(self.identity))
        if difference:
            raise CheckpointError(f"{self.resume} is of another run: {difference}; it was left as it is")
        return True

    def restore(self, parts: dict[str, Any]) -> dict[str, Any]:
        """Load every part from the checkpoint that :meth:`open` read; the trainer's record."""
        assert self._found is not None and self.resume is not None
        found, self._found = self._found, None
        try:
            states = unpack(found["parts"])
            for name, part in parts.items():
                put(part, states[name])
        except (KeyError, RuntimeError, TypeError, ValueError) as error:
            raise CheckpointError(
                f"{self.resume} does not fit this version's {getattr(parts['learner'], 'name', 'learner')} "
                f"({type(error).__name__}: {error}); it was left as it is"
            ) from None
        self.best, self.kept = found["best"], (self.resume, found["agent_steps"])
        return dict(unpack(found["record"]))

    def due(self, agent_steps: int) -> bool:
        """Whether ``every`` agent-steps have gone by since the last writing."""
        return agent_steps - (self.kept[1] if self.kept else 0) >= self.every

    def keep(self, agent_steps: int, parts: dict[str, Any], record: dict[str, Any]) -> Path:
        """Write ``last.pt``.

        Raises:
            FloatingPointError: the learner holds a number that is not one; nothing is written.
        """
        path = self._write("last.pt", agent_steps, parts, record)
        self.kept = (path, agent_steps)
        return path

    def judge(self, score: float, agent_steps: int, parts: dict[str, Any], record: dict[str, Any]) -> None:
        """Write ``best.pt`` if ``score`` is the best so far."""
        if score > self.best:
            self.best = score
            self._write("best.pt", agent_steps, parts, record)

    def last_good(self) -> str:
        """Where to go on from, for a message."""
        if self.kept is None:
            return "no checkpoint had been written yet"
        return f"the last good checkpoint is {self.kept[0]} ({self.kept[1]:,} agent-steps)"

    def _write(self, name: str, agent_steps: int, parts: dict[str, Any], record: dict[str, Any]) -> Path:
        states = {key: take(part) for key, part in parts.items()}
        where = not_a_number(states["learner"])
        if where:
            raise FloatingPointError(f"the learner's {where} holds nan; nothing was written; {self.last_good()}")
        content = {
            "format": FORMAT, "identity": self.identity, "agent_steps": agent_steps, "best": self.best,
            "parts": pack(states), "record": pack(record),
        }  # fmt: skip
        self.folder.mkdir(parents=True, exist_ok=True)
        target = self.folder / name
        partial = target.with_name(name + ".partial")
        with partial.open("wb") as file:
            torch.save(content, file)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(target)
        return target


def read(path: str | Path) -> dict[str, Any]:
    """A checkpoint's content, packed.

    Raises:
        CheckpointError: no such file, a truncated one, another format, or not a checkpoint of a training run.
    """
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise CheckpointError(f"no checkpoint at {path}") from None
    except Exception as error:  # of bytes that are no archive the reader says so in many ways
        reason = str(error).split("\n")[0][:120]
        raise CheckpointError(
            f"{path} is truncated or not a checkpoint of a training run ({reason}); it was left as it is"
        ) from None
    if not isinstance(found, dict) or "format" not in found or "identity" not in found:
        raise CheckpointError(f"{path} is not a checkpoint of a training run; `hybridalloc train` writes them")
    if found["format"] != FORMAT:
        raise CheckpointError(
            f"{path} has format {found['format']}; this version reads format {FORMAT}; it was left as it is"
        )
    return found


def identity(problem: Any, prices: Any, config: Any) -> str:
    """What must be the same for a run to go on, as JSON: the problem, its prices and the training's settings."""
    run = {"problem": problem.describe(), "prices": prices._asdict(), "training": asdict(config)}
    return json.dumps(run, default=lambda x: x.item())


def run_of(path: str | Path, flags: Any) -> tuple[Any, Any, Any]:
    """Problem, prices and settings of a checkpoint's run.

    Args:
        flags: a dataclass of what a user asks for; what is not at its default must agree with the checkpoint.

    Raises:
        CheckpointError: unreadable, see :func:`read`, or a flag disagrees.
    """
    from hybridalloc.problems import restore_problem
    from hybridalloc.training import TrainConfig

    found = json.loads(read(path)["identity"])
    problem = restore_problem(found["problem"])
    training = found["training"] | {"settings": tuple((k, v) for k, v in found["training"]["settings"])}
    told = {"problem": problem.name} | found["problem"] | found["training"]
    for field in fields(flags):
        asked, theirs = getattr(flags, field.name), told.get(field.name)
        theirs = theirs["name"] if isinstance(theirs, dict) else theirs
        if field.name in told and asked not in (field.default, theirs):
            raise CheckpointError(
                f"{path} is of another run: {field.name} is {theirs!r} there and {asked!r} is asked for; "
                "leave that flag out, or start afresh without --resume"
            )
    return problem, problem.prices_type(**found["prices"]), TrainConfig(**training)


def first_difference(theirs: Any, ours: Any, at: str = "") -> str:
    """Where two JSON values differ first, in words; "" where they do not."""
    if isinstance(theirs, dict) and isinstance(ours, dict):
        for key in dict.fromkeys((*theirs, *ours)):
            inside = f"{at}.{key}" if at else key
            if (key in theirs) != (key in ours):
                return f"{inside} is known to one of them only"
            found = first_difference(theirs[key], ours[key], inside)
            if found:
                return found
        return ""
    return "" if theirs == ours else f"{at} is {theirs!r} there and {ours!r} here"


def take(part: Any) -> Any:
    """The whole state of a learner, a belief, a random generator or a batch of environments."""
    if part is None:
        return None
    if isinstance(part, np.random.Generator):
        return json.dumps(part.bit_generator.state)
    if hasattr(part, "state_dict"):
        return part.state_dict()
    return {name: kept for name, value in vars(part).items() if (kept := _kept(value)) is not None}


def put(part: Any, state: Any) -> None:
    """Bring ``part`` to a state that :func:`take` took."""
    if part is None:
        return
    if isinstance(part, np.random.Generator):
        part.bit_generator.state = json.loads(state)
    elif hasattr(part, "load_state_dict"):
        part.load_state_dict(state)
    else:
        for name, kept in state.items():
            value = getattr(part, name)
            if isinstance(value, np.ndarray):
                setattr(part, name, kept)
            elif isinstance(value, list):
                for generator, numbers in zip(value, kept, strict=True):
                    put(generator, numbers)
            else:  # a named tuple: others may hold it, so it is filled in place
                for field, array in kept.items():
                    getattr(value, field)[...] = array


def _kept(value: Any) -> Any:
    """What of a batch's attribute is state: arrays, named tuples of arrays, lists of random generators."""
    if isinstance(value, np.ndarray):
        return value
    if isinstance(value, list) and value and isinstance(value[0], np.random.Generator):
        return [take(g) for g in value]
    if isinstance(value, tuple) and hasattr(value, "_asdict") and all(isinstance(v, np.ndarray) for v in value):
        return value._asdict()
    return None


def pack(value: Any) -> Any:
    """Arrays as tagged tensors, so that a file holds nothing but plain containers, numbers, text and tensors."""
    if isinstance(value, np.ndarray) and value.dtype.kind == "U":
        return {"//text": str(value)}
    if isinstance(value, np.ndarray | np.generic):
        return {"//array": torch.from_numpy(np.array(value)), "scalar": isinstance(value, np.generic)}
    if isinstance(value, dict):
        return {key: pack(item) for key, item in value.items()}
    if isinstance(value, list) or type(value) is tuple:
        return type(value)(pack(item) for item in value)
    if value is None or isinstance(value, bool | int | float | str | torch.Tensor):
        return value
    raise TypeError(f"a {type(value).__name__} cannot be kept in a checkpoint")


def unpack(value: Any) -> Any:
    """Undo :func:`pack`."""
    if isinstance(value, dict):
        if "//text" in value:
            return np.array(value["//text"])
        if "//array" in value:
            array = value["//array"].numpy()
            return array[()] if value["scalar"] else array
        return {key: unpack(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(unpack(item) for item in value)
    return value


def not_a_number(value: Any, at: str = "") -> str:
    """Where a nan is in nested state, "" if nowhere."""
    if isinstance(value, dict | list | tuple):
        pairs = value.items() if isinstance(value, dict) else enumerate(value)
        return next((found for key, item in pairs if (found := not_a_number(item, f"{at}.{key}".lstrip(".")))), "")
    if isinstance(value, torch.Tensor):
        value = value.detach().numpy()
    if isinstance(value, float | np.ndarray) and np.asarray(value).dtype.kind == "f" and np.isnan(value).any():
        return at
    return ""
