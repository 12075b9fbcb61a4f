"""Tasks of a comparison on the machines of a Ray cluster.

No folder is shared: what a task reads travels with it as bytes, and what it writes comes back as bytes and is written
here, in the order in which it was written there. A task whose worker or machine is lost runs again from what was sent,
so that the checkpoints of a lost try are lost with it; what a task that failed of itself has written comes back.
"""

from __future__ import annotations

import queue
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from hybridalloc.errors import WorkError
from hybridalloc.experiments.executor import Files, listen
from hybridalloc.experiments.progress import Stage
from hybridalloc.files import whole_file
from hybridalloc.machines import TRIES, Place, first_line, losses
from hybridalloc.text import quoted

KNOWN = (  # whose errors travel as they are
    "builtins", "hybridalloc.data.registry", "hybridalloc.errors", "hybridalloc.experiments.runlog",
)  # fmt: skip
LOOK_S, TELL_S = 0.2, 0.5  # between two looks at what has ended, and between two words of progress


class Sent(NamedTuple):
    """A task as it travels: ``function(*arguments)``, whose paths begin with ``folder``, and the files that it reads
    there, by their names in it."""

    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    folder: str
    files: dict[str, bytes]
    place: Place


class Answer(NamedTuple):
    """What comes back: the value or the error, files that are new or changed, and names of those that are gone."""

    value: Any
    error: Exception | None
    files: dict[str, bytes]
    gone: tuple[str, ...]


class Teller:
    """Tells ``counter`` how far the task ``key`` is, now and then."""

    def __init__(self, counter: Any, key: tuple[int, int]) -> None:
        self.counter, self.key, self.done, self.told = counter, key, 0, 0.0

    def put(self, steps: int) -> None:
        self.done += steps
        if time.monotonic() - self.told > TELL_S:
            self.told = time.monotonic()
            self.counter.note.remote(self.key, self.done)


class Counter:
    """How far each task's last try is; an actor beside who asks."""

    def __init__(self) -> None:
        self.done: dict[int, tuple[int, int]] = {}  # by task: try, steps

    def note(self, key: tuple[int, int], steps: int) -> None:
        task, attempt = key
        self.done[task] = max(self.done.get(task, (0, 0)), (attempt, steps))

    def total(self) -> int:
        return sum(steps for _, steps in self.done.values())


def run_there(sent: Sent, counter: Any, key: tuple[int, int]) -> Answer:
    """Run a task in a folder of its own on the machine that it came to."""
    listen(Teller(counter, key))
    with tempfile.TemporaryDirectory(prefix="hybridalloc-") as place:
        value, failed = None, None
        try:
            sent.place.enter()
            unpacked(sent.files, Path(place))
            value = sent.function(*rebased(sent.arguments, sent.folder, place))
        except Exception as error:
            failed = error if error.__class__.__module__ in KNOWN else WorkError(f"{type(error).__name__}: {error}")
        finally:
            listen(None)
        there = packed(Path(place), ("",))
        changed = {name: data for name, data in there.items() if sent.files.get(name) != data}
        return Answer(value, failed, changed, tuple(name for name in sent.files if name not in there))


def packed(folder: Path, names: tuple[str, ...]) -> dict[str, bytes]:
    """Files of ``folder`` by their names in it, the last written last: those named, and all in folders that are named;
    none whose name begins with a dot, which locks and half-written files have."""
    found: list[Path] = []
    for name in names:
        path = folder / name
        found += [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()] if path.is_dir() else []
    kept = sorted((p for p in found if not p.name.startswith(".")), key=lambda p: (p.stat().st_mtime_ns, str(p)))
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in kept}


def unpacked(files: dict[str, bytes], folder: Path) -> None:
    """Write files into ``folder``.

    Raises:
        WorkError: a name that leads out of it.
    """
    for name, data in files.items():
        target = inside(folder, name)
        with whole_file(target) as stream:
            stream.write(data)


def inside(folder: Path, name: str) -> Path:
    target = folder / name
    if not target.resolve().is_relative_to(folder.resolve()):
        raise WorkError(f"a file named {quoted(name)} came from another machine; it leads out of {folder}")
    return target


def rebased(value: Any, old: str, new: str) -> Any:
    """Arguments in which paths in the folder ``old`` are in ``new``; in tuples too."""
    if isinstance(value, str) and old and (value == old or value.startswith(old + "/")):
        return new + value[len(old) :]
    if isinstance(value, tuple):
        parts = [rebased(item, old, new) for item in value]
        return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
    return value


@dataclass
class Task:
    """One task that was asked for: what to send, its files, who waits for it, and how often it was begun."""

    number: int
    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    files: Files | None
    future: Future[Any] = field(default_factory=Future)
    tries: int = 0


class RayPool:
    """Runs at most ``most`` tasks at a time, a core each, and the lost ones again.

    One thread talks to Ray; whoever submits gets a future.
    """

    def __init__(self, ray: Any, most: int, told: queue.Queue[int], quiet: bool) -> None:
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        self.ray, self.most, self.told, self.quiet = ray, most, told, quiet
        beside = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
        self.counter = ray.remote(num_cpus=0, scheduling_strategy=beside)(Counter).remote()
        # retried here and not by Ray, which would not say so
        self.remote = ray.remote(num_cpus=1, max_retries=0)(run_there)
        self.place = Place.here()
        self._waiting: deque[Task] = deque()
        self._running: dict[Any, Task] = {}
        self._submitted = self._shown = 0
        self._more, self._over = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def submit(self, function: Callable[..., Any], /, *arguments: Any, files: Files | None = None) -> Future[Any]:
        """What ``function(*arguments)`` gives on some machine; ``files`` says what it reads and where it writes."""
        task = Task(self._submitted, function, arguments, files)
        self._submitted += 1
        self._waiting.append(task)
        self._more.set()
        return task.future

    def close(self, cancel: bool = False) -> None:
        """Wait for what runs, or ``cancel`` it."""
        self._over.set()
        if cancel:
            self._waiting.clear()
            for ref in list(self._running):
                with suppress(Exception):
                    self.ray.cancel(ref, force=True)
        self._more.set()
        self._thread.join(timeout=10 if cancel else None)
        with suppress(Exception):
            self.ray.kill(self.counter)

    def _work(self) -> None:
        try:
            while self._waiting or self._running or not self._over.is_set():
                while self._waiting and len(self._running) < self.most:
                    self._begin(self._waiting.popleft())
                if not self._running:
                    self._more.wait(LOOK_S)
                    self._more.clear()
                    continue
                done, _ = self.ray.wait(list(self._running), num_returns=1, timeout=LOOK_S)
                for ref in done:
                    self._end(ref, self._running.pop(ref))
                self._say_how_far()
        except Exception as error:  # the cluster itself is gone
            why = f"{type(error).__name__}: {first_line(error)}"
            self._fail(WorkError(f"the Ray cluster is lost ({why}); what was done is kept, and --resume goes on"))

    def _fail(self, error: Exception) -> None:
        for task in (*self._running.values(), *self._waiting):
            if not task.future.done():
                task.future.set_exception(error)
        self._running.clear()
        self._waiting.clear()

    def _begin(self, task: Task) -> None:
        task.tries += 1
        folder = "" if task.files is None else task.files.folder
        try:
            files = {} if task.files is None else packed(Path(folder), task.files.reads)
        except OSError as error:
            task.future.set_exception(error)
            return
        sent = Sent(task.function, task.arguments, folder, files, self.place)
        self._running[self.remote.remote(sent, self.counter, (task.number, task.tries))] = task

    def _end(self, ref: Any, task: Task) -> None:
        try:
            answer: Answer = self.ray.get(ref)
        except losses(self.ray) as error:
            if task.tries >= TRIES:
                why = f"its worker was lost {task.tries} times ({first_line(error)}), perhaps for want of memory"
                task.future.set_exception(WorkError(why))
                return
            if not self.quiet:
                Stage._say(f"a worker was lost ({first_line(error)}); its task runs again")
            self._waiting.appendleft(task)
            return
        except Exception as error:
            if not self._over.is_set():
                task.future.set_exception(WorkError(f"{type(error).__name__}: {first_line(error)}"))
            return
        try:
            if task.files is not None:
                unpacked(answer.files, Path(task.files.folder))
                for name in answer.gone:
                    inside(Path(task.files.folder), name).unlink(missing_ok=True)
        except Exception as error:
            task.future.set_exception(error)
            return
        if answer.error is not None:
            task.future.set_exception(answer.error)
        else:
            task.future.set_result(answer.value)

    def _say_how_far(self) -> None:
        with suppress(Exception):  # progress that nobody tells stops no work
            total = int(self.ray.get(self.counter.total.remote(), timeout=2))
            if total > self._shown:  # a lost task begins again
                self.told.put(total - self._shown)
                self._shown = total


@contextmanager
def open_pool(ray: Any, workers: int, quiet: bool) -> Iterator[tuple[RayPool, Any]]:
    """Workers on a cluster, at most so many at a time, and the queue on which they tell how far they are.

    Where the block ends by an error or by Ctrl-C, what runs is ended; what has come back stays.
    """
    told: queue.Queue[int] = queue.Queue()
    pool = RayPool(ray, workers, told, quiet)
    try:
        yield pool, told
    except BaseException:
        pool.close(cancel=True)
        raise
    pool.close()
