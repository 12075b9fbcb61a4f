"""Where the tasks of a comparison run: worker processes of one thread each, and how they tell how far they are.

Another engine (:mod:`.on_ray`) gives the same two things, a :class:`Pool` and a queue.
"""

from __future__ import annotations

import faulthandler
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing.context import SpawnContext, SpawnProcess
from typing import Any, NamedTuple, Protocol

from hybridalloc.experiments.progress import Stage

ENDS_S = 5.0  # until processes that were told to end are waited for no longer
_QUEUE: Any = None  # of a worker, to its comparison


def tell(steps: int) -> None:
    """Say from a worker that so much more is done; nothing where no comparison asked."""
    if _QUEUE is not None:
        _QUEUE.put(steps)


def listen(queue: Any) -> None:
    """Have ``queue`` told in this process, None nobody."""
    global _QUEUE
    _QUEUE = queue


class Files(NamedTuple):
    """Where a task reads and writes: in ``folder``, with which every path in its arguments begins; ``reads`` names the
    files and folders in it that the task looks at, whether they are there yet or not."""

    folder: str
    reads: tuple[str, ...] = ()


class Pool(Protocol):
    """Runs tasks somewhere."""

    def submit(self, function: Callable[..., Any], /, *arguments: Any, files: Files | None = None) -> Future[Any]:
        """What ``function(*arguments)`` will give, which must be picklable; ``files`` where it reads or writes any."""
        ...


class Started(SpawnContext):
    """Starts processes and keeps them all, as what a broken pool tells does not say how its worker ended."""

    def __init__(self) -> None:
        super().__init__()
        self.processes: list[SpawnProcess] = []

    def Process(self, *arguments: Any, **more: Any) -> SpawnProcess:  # type: ignore[override]
        process = SpawnProcess(*arguments, **more)
        self.processes.append(process)
        return process


class Processes(ProcessPoolExecutor):
    """Worker processes that Ctrl-C does not reach: the comparison that it reaches ends them."""

    def __init__(self, workers: int, queue: Any, context: Started) -> None:
        super().__init__(workers, context, _start_worker, (queue,))
        self.context = context

    def submit(  # type: ignore[override]
        self, function: Callable[..., Any], /, *arguments: Any, files: Files | None = None
    ) -> Future[Any]:
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # a process started here inherits it
        try:
            before_it = len(self.context.processes)
            future = super().submit(function, *arguments)  # which sees the same files as we do
            if len(self.context.processes) > before_it:
                # who watches the workers was woken before this one was there, and would miss its end
                super().submit(int)
            return future
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def how_one_ended(self) -> str:
        """The signal or the exit status of a worker that ended by itself, "" where none is known to have.

        The pool ends the others by SIGTERM.
        """
        until = time.monotonic() + ENDS_S
        started = [process for process in self.context.processes if process.pid is not None]
        while any(process.exitcode is None for process in started) and time.monotonic() < until:
            time.sleep(0.01)  # the pool's own thread waits for them too, and one of the two is told nothing at first
        codes = {code for process in started if (code := process.exitcode)}
        code = next(iter(codes - {-signal.SIGTERM} or codes), 0)
        if code < 0:
            known = {int(one): one.name for one in signal.Signals}
            return f"ended by {known.get(-code, f'signal {-code}')}"
        return f"with exit status {code}" if code else ""


class WorkerLost(BrokenProcessPool):
    """A worker process ended without an answer; the text says how, as far as that is known."""


def _start_worker(queue: Any) -> None:
    if sys.stderr is not None:
        faulthandler.enable()  # a crash in compiled code says where
    listen(queue)
    os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1", NUMBA_NUM_THREADS="1")
    parent = os.getppid()

    def leave_with_parent() -> None:  # a killed comparison leaves no training behind
        while os.getppid() == parent:
            time.sleep(2)
        os._exit(1)

    threading.Thread(target=leave_with_parent, daemon=True).start()


@contextmanager
def open_pool(workers: int) -> Iterator[tuple[Pool, Any]]:
    """Worker processes of one thread each, and the queue on which they tell how far they are.

    Where the block ends by an error or by Ctrl-C, they are ended at once: what they had written stays.
    """
    context = Started()
    queue = context.Queue()
    with _main_that_can_be_read(), Processes(workers, queue, context) as pool:
        try:
            yield pool, queue
        except BaseException as error:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in context.processes:
                if process.is_alive():
                    process.terminate()
            if isinstance(error, BrokenProcessPool):
                raise WorkerLost(pool.how_one_ended()) from error
            raise


@contextmanager
def _main_that_can_be_read() -> Iterator[None]:
    """A new process runs the main program's file first; ``python - < script`` has none ("<stdin>"): none is named."""
    main = sys.modules["__main__"]
    file = getattr(main, "__file__", None)
    hidden = file is not None and getattr(main, "__spec__", None) is None and not os.path.isfile(file)
    if hidden:
        del main.__file__
    try:
        yield
    finally:
        if hidden:
            main.__file__ = file


def follow(queue: Any, bar: Stage) -> Callable[[], None]:
    """Move ``bar`` by what comes on ``queue`` until the function that is returned is called."""
    done = threading.Event()

    def watch() -> None:
        while not done.is_set() or not queue.empty():
            try:
                bar.update(queue.get(timeout=0.2))
            except Exception:
                continue

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()

    def stop() -> None:
        done.set()
        watcher.join(timeout=2)
        bar.close()

    return stop


@contextmanager
def following(queue: Any, bar: Stage) -> Iterator[None]:
    """A block in which ``bar`` moves by what comes on ``queue``."""
    stop = follow(queue, bar)
    try:
        yield
    finally:
        stop()
