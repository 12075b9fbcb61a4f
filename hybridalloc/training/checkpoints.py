"""Checkpoints of a training run: resumed on one thread, training goes on bit for bit as if uninterrupted.

One file holds the learner (networks, optimizers, normalisers, random states, rollout in progress or replay), the
worlds (every array and random stream, by their own account), the belief, the trainer's random state, counters, rows
and seconds. ``last.pt`` is written every so many agent-steps, ``best.pt`` when the check on the tuning seeds is the
best so far. A file is written beside its target and then renamed: a killed process leaves the one before whole.

A file is one line, ``hybridalloc checkpoint 3 sha256 <digest of the rest>``, and a ``torch.save`` archive of plain
containers, numbers, text and tensors. The digest is verified, sizes are bounded before memory is taken, and reading
runs no code: a transition that the file names is loaded where it is installed or the user allows it, nowhere else.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch

from hybridalloc.errors import CheckpointError
from hybridalloc.files import whole_file
from hybridalloc.problems import restore_problem
from hybridalloc.problems.contract import AnyProblem, Prices, Simulates
from hybridalloc.saved import saved_prices
from hybridalloc.text import printable, quoted
from hybridalloc.training.config import TrainConfig
from hybridalloc.training.learners import learner_settings, unwritten
from rl.registry import resolved

FORMAT = 3
HEAD = f"hybridalloc checkpoint {FORMAT} sha256 "
_HEAD_BYTES = len(HEAD) + 64 + 1


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

    def open(self, problem: AnyProblem, prices: Prices, config: TrainConfig) -> bool:
        """Note whose run this is; whether it goes on from a checkpoint.

        Raises:
            CheckpointError: the checkpoint is missing, truncated, of another format, or of another run, with the first
                setting that differs; the file is left as it was.
        """
        self.identity = identity(problem, prices, config)
        if self.resume is None:
            return False
        self._found = read(self.resume)
        difference = first_difference(_told(self._found["identity"], problem), json.loads(self.identity))
        if difference:
            raise CheckpointError(f"{self.resume} is of another run: {difference}; it was left as it is")
        return True

    def part(self, name: str) -> Any:
        """The state of one part in the checkpoint that :meth:`open` read; None where it has none of that name."""
        assert self._found is not None
        return unpack(self._found["parts"].get(name))

    def restore(self, parts: Mapping[str, Part]) -> dict[str, Any]:
        """Load every part from the checkpoint that :meth:`open` read; the trainer's record."""
        assert self._found is not None and self.resume is not None
        found, self._found = self._found, None
        try:
            states = unpack(found["parts"])
            for name, part in parts.items():
                put(part, states[name])
            record = dict(unpack(found["record"]))
            self.best, self.kept = float(found["best"]), (self.resume, int(found["agent_steps"]))
        except Exception as error:  # every part reads what it needs: of what does not fit it says so in many ways
            reason = printable(f"{type(error).__name__}: {error}", 200)
            learner = json.loads(self.identity)["training"]["learner"]
            raise CheckpointError(
                f"{self.resume} does not fit this version's {learner} ({reason}); it was left as it is"
            ) from None
        return record

    def left(self, agent_steps: int) -> int:
        """Agent-steps until the next writing."""
        return self.every + (self.kept[1] if self.kept else 0) - agent_steps

    def due(self, agent_steps: int) -> bool:
        """Whether ``every`` agent-steps have gone by since the last writing."""
        return self.left(agent_steps) <= 0

    def keep(self, agent_steps: int, parts: Mapping[str, Part], record: dict[str, Any]) -> Path:
        """Write ``last.pt``.

        Raises:
            FloatingPointError: the learner holds a number that is not one; nothing is written.
        """
        path = self._write("last.pt", agent_steps, parts, record)
        self.kept = (path, agent_steps)
        return path

    def judge(self, score: float, agent_steps: int, parts: Mapping[str, Part], record: dict[str, Any]) -> None:
        """Write ``best.pt`` if ``score`` is the best so far."""
        if score > self.best:
            self.best = score
            self._write("best.pt", agent_steps, parts, record)

    def last_good(self) -> str:
        """Where to go on from, for a message."""
        if self.kept is None:
            return "no checkpoint had been written yet"
        return f"the last good checkpoint is {self.kept[0]} ({self.kept[1]:,} agent-steps)"

    def _write(self, name: str, agent_steps: int, parts: Mapping[str, Part], record: dict[str, Any]) -> Path:
        states = {key: take(part) for key, part in parts.items()}
        where = not_a_number(states["learner"])
        if where:
            raise FloatingPointError(f"the learner's {where} holds nan; nothing was written; {self.last_good()}")
        content = {
            "identity": self.identity, "agent_steps": agent_steps, "best": self.best,
            "parts": pack(states), "record": pack(record),
        }  # fmt: skip
        target = self.folder / name
        write(target, content)
        return target


def write(path: str | Path, content: dict[str, Any]) -> None:
    """Write a checkpoint's packed content with its digest; the whole file or nothing."""
    with whole_file(path) as file:
        file.write(b" " * (_HEAD_BYTES - 1) + b"\n")
        told: Any = _Digesting(file)
        torch.save(content, told)
        file.seek(0)
        file.write(f"{HEAD}{told.digest.hexdigest()}".encode())


class _Digesting(io.RawIOBase):
    """A stream that notes the digest of what is written to it."""

    def __init__(self, stream: Any) -> None:
        self.stream, self.digest = stream, hashlib.sha256()

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self.digest.update(data)
        return int(self.stream.write(data))


def read(path: str | Path) -> dict[str, Any]:
    """A checkpoint's content, packed.

    Raises:
        CheckpointError: no such file, a damaged one, another format, or not a checkpoint of a training run.
    """
    try:
        data = Path(path).read_bytes()
    except FileNotFoundError:
        raise CheckpointError(f"no checkpoint at {path}") from None
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read ({error.strerror})") from None
    head, body = data[:_HEAD_BYTES].decode("ascii", "replace"), memoryview(data)[_HEAD_BYTES:]
    general = HEAD.rsplit(f" {FORMAT} ", 1)[0]
    if not head.startswith(general):
        raise CheckpointError(
            f"{path} is truncated or not a checkpoint of a training run; `hybridalloc train` writes them"
        )
    if not head.startswith(HEAD):
        found = printable(head.removeprefix(general).split(" sha256")[0].strip())
        raise CheckpointError(f"{path} has format {found}; this version reads format {FORMAT}; it was left as it is")
    if head != f"{HEAD}{hashlib.sha256(body).hexdigest()}\n":
        raise CheckpointError(f"{path} is truncated or damaged: its digest is another; it was left as it is")
    try:
        _check_archive(body)
        found = torch.load(io.BytesIO(body), map_location="cpu", weights_only=True)
        if not isinstance(found, dict) or not isinstance(found.get("identity"), str):
            raise ValueError("no identity of a training run is in it")
        largest = max((t.numel() * t.element_size() for t in _tensors(found)), default=0)
        if largest > len(body):
            raise ValueError(f"an array of {largest:,} bytes is in it, the file has {len(body):,}")
    except Exception as error:  # of bytes that are no such archive the reader says so in many ways
        reason = printable(str(error).split("\n")[0], 120)
        raise CheckpointError(
            f"{path} is not a checkpoint of a training run ({reason}); it was left as it is"
        ) from None
    return found


def _check_archive(body: memoryview) -> None:
    """A ValueError unless every entry lies there as it is: what is read is then no larger than the file."""
    with zipfile.ZipFile(io.BytesIO(body)) as archive:
        entries = archive.infolist()
    total = sum(entry.file_size for entry in entries)
    if total > len(body) or any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise ValueError(f"its entries state {total:,} bytes, the file has {len(body):,}")


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, dict | list | tuple):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _tensors(item)


def identity(problem: AnyProblem, prices: Prices, config: TrainConfig) -> str:
    """What must be the same for a run to go on, as JSON: the problem, its prices, the training's settings and every one
    of the learner's, so that it goes on with its own where a default is another by then."""
    training = asdict(config)
    del training["settings"]
    run = {
        "problem": problem.describe(), "prices": prices._asdict(), "training": training,
        "learner": learner_settings(problem, config),
    }  # fmt: skip
    return json.dumps(run, default=lambda x: x.item())


def _told(text: str, problem: AnyProblem) -> dict[str, Any]:
    """A checkpoint's identity with all of its prices and its learner's settings; a file that does not say them all has
    those that held when it was written."""
    found: dict[str, Any] = json.loads(text)
    if isinstance(found["prices"], dict):
        found["prices"] = dict(problem.card.unpriced) | found["prices"]
    found["training"] = training = {"overlap": False, "actors": 1} | found["training"]
    if "learner" not in found:
        given = {str(name): _tuples(value) for name, value in training.pop("settings")}
        settings = unwritten(training["learner"], training["kind"], problem=problem) | given
        config = TrainConfig(**training, settings=tuple(settings.items()))
        found |= {"training": training, "learner": json.loads(json.dumps(learner_settings(problem, config)))}
    if "engine" not in found["learner"] and "engine" in resolved(found["training"]["learner"]):
        found["learner"]["engine"] = "auto"  # the same gradients, to rounding
    if "span" not in found["learner"] and "span" in resolved(found["training"]["learner"]):
        found["learner"]["span"] = 0.0
    for name, then in (("replay", 0), ("critic_gain", 1.0)):
        if name not in found["learner"] and name in resolved(found["training"]["learner"]):
            found["learner"][name] = then
    return found


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def run_of(path: str | Path, flags: Any, trust_code: bool = False) -> tuple[Any, Any, Any]:
    """Problem, prices and settings of a checkpoint's run.

    Args:
        flags: a dataclass of what a user asks for; what is not at its default must agree with the checkpoint.
        trust_code: load a transition that the checkpoint names though it is not installed as an entry point.

    Raises:
        CheckpointError: unreadable, see :func:`read`, of a transition that is not allowed, or a flag disagrees.
    """
    text = read(path)["identity"]
    try:
        found = json.loads(text)
        problem = restore_problem(found["problem"], trust_code)
        found = _told(text, problem)
        settings = tuple((k, _tuples(v)) for k, v in found["learner"].items())
        config = TrainConfig(**found["training"], settings=settings)
        prices = saved_prices(problem, found["prices"])
    except CheckpointError:
        raise
    except Exception as error:  # a forged one may say anything
        reason = printable(f"{type(error).__name__}: {error}", 300)
        raise CheckpointError(
            f"{path} names no run that this version can make ({reason}); it was left as it is"
        ) from None
    if isinstance(problem, Simulates):
        problem.simulator()  # refused here, not after minutes
    told = {"problem": problem.card.name} | found["problem"] | found["training"] | {"settings": []}
    for field in fields(flags):
        asked, theirs = getattr(flags, field.name), told.get(field.name)
        theirs = theirs["name"] if isinstance(theirs, dict) else theirs
        if field.name in told and asked not in (field.default, theirs):
            raise CheckpointError(
                f"{path} is of another run: {field.name} is {quoted(theirs)} there and {quoted(asked)} is asked for; "
                "leave that flag out, or start afresh without --resume"
            )
    return problem, prices, config


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
    return "" if theirs == ours else f"{at} is {quoted(theirs)} there and {quoted(ours)} here"


@runtime_checkable
class Stateful(Protocol):
    """A learner, a belief, a rollout: whatever says by itself what its future depends on."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


Part = Stateful | np.random.Generator | None


def take(part: Part) -> Any:
    """The whole state of a part of a run."""
    if part is None:
        return None
    return json.dumps(part.bit_generator.state) if isinstance(part, np.random.Generator) else part.state_dict()


def put(part: Part, state: Any) -> None:
    """Bring ``part`` to a state that :func:`take` took."""
    if isinstance(part, np.random.Generator):
        part.bit_generator.state = json.loads(state)
    elif part is not None:
        part.load_state_dict(state)


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
