"""A learner's other half: a process in which it learns, and which is sent rollouts through memory that both share.

The process has its own interpreter lock, so that collecting and learning do not wait for each other; the networks and
optimizers there are the true ones until :meth:`Apart.fetch`.
"""

from __future__ import annotations

import ctypes
import io
import multiprocessing
import os
import signal
import sys
import weakref
from collections.abc import Mapping
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from hybridalloc.errors import WorkError
from rl.batch import joined
from rl.on_policy import Following, OnPolicy

Slots = list[dict[str, Any]]
Where = tuple[int, tuple[int, ...], str]  # first byte, shape and type of an array
HERE = ("slots", "held", "late")  # of a learner's state: what belongs to who acts
PAD, SPARE = 64, 4096  # bytes: an array begins at a multiple of PAD
LOOK = 5.0  # seconds between looks of the process whether who began it is still there


class Learned(NamedTuple):
    """What an update says of itself, and the policy's weights after it."""

    figures: dict[str, float]
    weights: Mapping[str, NDArray[Any]]


class Room:
    """A block of memory that two processes share, for one rollout's arrays."""

    def __init__(self, context: Any, size: int) -> None:
        self.block = context.RawArray(ctypes.c_byte, size)

    def fill(self, slots: Slots) -> tuple[dict[str, Where], NDArray[np.int64]]:
        """Put the joined slots here: where each array is, for :meth:`read`, and which slots have a final."""
        end, places = 0, dict[str, Where]()

        def place(name: str, shape: tuple[int, ...], kind: np.dtype[Any]) -> NDArray[Any]:
            nonlocal end
            places[name] = end, shape, kind.str
            end += padded(int(np.prod(shape)) * kind.itemsize)
            return self.array(*places[name])

        return places, joined(slots, place)["final_at"]

    def read(self, places: Mapping[str, Where], final_at: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
        """The rollout's arrays; the next filling replaces them."""
        return {name: self.array(*where) for name, where in places.items()} | {"final_at": final_at}

    def array(self, start: int, shape: tuple[int, ...], kind: str) -> NDArray[Any]:
        return np.frombuffer(self.block, kind, int(np.prod(shape)), start).reshape(shape)


def padded(size: int) -> int:
    return -(-size // PAD) * PAD


def room_for(slots: Slots, following: Following, most: int) -> int:
    """Bytes that ``most`` slots such as these need, each with a final."""
    of = lambda slot: sum(padded(np.asarray(v).nbytes) for k, v in slot.items() if k != "final")
    return most * (max(map(of, slots)) + sum(padded(x.nbytes) for x in following[:2])) + SPARE


class Apart:
    """The process of ``learner``, begun with its first rollout, and ended with this object or by :meth:`close`.

    It has two rooms: the next rollout is put in one while the last is learned from in the other.
    """

    def __init__(self, learner: OnPolicy) -> None:
        self.learner = learner
        self.process: Any = None
        self._turn = 0

    def put(self, slots: Slots, following: Following) -> Any:
        """Put a rollout where the process can read it; it may still be learning from the last."""
        if self.process is None:
            self._begin(room_for(slots, following, self.learner.settings.horizon + self.learner.late + 1))
        self._turn = 1 - self._turn
        return self._turn, self._rooms[self._turn].fill(slots)

    def learn(self, put: Any, following: Following, progress: float) -> None:
        """Begin to learn from what was put."""
        self._ask(("learn", put, following, progress))

    def learned(self) -> Learned:
        """Wait for what was begun.

        Raises:
            FloatingPointError: a gradient was not finite. WorkError: the process ended, or its work did, otherwise.
        """
        found: Learned = self._answer()
        return found

    def fetch(self) -> None:
        """The learner here gets the networks, optimizers and random state from there. Nothing may be under way."""
        if self.process is not None:
            self._ask(("state",))
            state = torch.load(io.BytesIO(self._answer()), weights_only=False)  # our own process wrote it
            own, acting = self.learner.state_dict(), self.learner.policy
            self.learner.load_state_dict(state | {k: own[k] for k in HERE})
            self.learner.policy = acting

    def close(self) -> None:
        """End the process."""
        if self.process is not None:
            self._end()
            self.process = None

    def _begin(self, size: int) -> None:
        context: Any = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
        self._rooms = Room(context, size), Room(context, size)
        self._pipe, other = context.Pipe()
        forked = self._pipe if context.get_start_method() == "fork" else None
        self.process = context.Process(
            target=keep_learning, args=(self.learner, self._rooms, other, forked, os.getpid()), name="learner",
            daemon=True,
        )  # fmt: skip
        self.process.start()
        other.close()
        self._end = weakref.finalize(self, ended, self.process, self._pipe)

    def _ask(self, what: Any) -> None:
        try:
            self._pipe.send(what)
        except OSError as error:
            raise self._gone() from error

    def _answer(self) -> Any:
        try:
            answer = self._pipe.recv()
        except (EOFError, OSError) as error:
            raise self._gone() from error
        if isinstance(answer, Exception):
            raise answer
        return answer

    def _gone(self) -> WorkError:
        self.process.join(LOOK)
        code = self.process.exitcode
        how = f"by signal {-code}" if code is not None and code < 0 else f"with exit code {code}"
        return WorkError(f"the learner's process ended {how}")


def ended(process: Any, pipe: Connection) -> None:
    """Close the pipe, upon which the process leaves; kill it where it does not."""
    pipe.close()
    process.join(LOOK)
    if process.is_alive():
        process.kill()
        process.join()


def keep_learning(
    learner: OnPolicy, rooms: tuple[Room, Room], pipe: Connection, parents: Connection | None, parent: int
) -> None:
    """What the process does: answer until the other end is closed, or whoever holds it is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's
    torch.set_num_threads(1)
    threadpool_limits(1, "blas")  # which a forked process has forgotten
    if parents is not None:
        parents.close()  # the copy that a forked process has: with it open the end would never come
    learner.slots = []
    while os.getppid() == parent:
        try:
            if not pipe.poll(LOOK):
                continue
            asked = pipe.recv()
        except (EOFError, OSError):
            return
        answer: Any
        try:
            answer = _answer_of(learner, rooms, asked)
        except FloatingPointError as error:
            answer = error
        except Exception as error:
            answer = WorkError(f"the learner's process failed ({type(error).__name__}: {error})")
        pipe.send(answer)


def _answer_of(learner: OnPolicy, rooms: tuple[Room, Room], asked: Any) -> Any:
    if asked[0] == "state":
        told = io.BytesIO()
        torch.save(learner.state_dict(), told)
        return told.getvalue()
    _, (which, where), following, progress = asked
    slots = rooms[which].read(*where)
    if learner.keeps:
        slots = {k: v.copy() for k, v in slots.items()}
    figures = learner.learn(learner.batch_of(slots, following), progress)
    return Learned(figures, learner.export().weights)
