"""Turns: of the processes that want a kernel one compiles it; none waits for one that is dead, stopped or failed."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest
from numba import config, njit
from numba.core.errors import TypingError

from games import kernels
from games.turns import LOCK_FILE, Turns

HOUSE = Path(__file__).resolve().parents[2]
AT_ONCE = multiprocessing.get_context("fork")
SOURCE = "@njit(cache=True)\ndef plus(a, b):\n    return a + b\n"


def plus():
    """A fresh kernel of this house, as a new process would make it."""
    scope = {"njit": njit, "__name__": "games.errors"}  # whose module another process can find
    exec(compile(SOURCE, str(HOUSE / "games" / "errors.py"), "exec"), scope)
    return scope["plus"]


def slow_plus():
    """The same, which takes long to compile."""
    kernel = plus()
    compiler = kernel._compiler.compile

    def slowly(arguments, return_type):
        time.sleep(0.3)
        return compiler(arguments, return_type)

    kernel._compiler.compile = slowly
    return kernel


def beside(target, *arguments):
    """A process that runs ``target`` and then ``told.set()``."""
    told = AT_ONCE.Event()
    process = AT_ONCE.Process(target=target, args=(*arguments, told), daemon=True)
    process.start()
    return process, told


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(config, "CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(Turns, "patience", 60.0)
    return tmp_path


def use(numbers, results, start):
    kernel = slow_plus()
    start.wait()
    kernel(*numbers)
    results.put((sum(kernel.stats.cache_hits.values()), sum(kernel.stats.cache_misses.values())))


def used_at_once(pairs):
    """(hits, misses) of processes that call ``plus`` with the pairs at the same moment."""
    results, start = AT_ONCE.Queue(), AT_ONCE.Barrier(len(pairs))
    processes = [AT_ONCE.Process(target=use, args=(pair, results, start), daemon=True) for pair in pairs]
    for process in processes:
        process.start()
    counts = sorted(results.get(timeout=60) for _ in processes)
    for process in processes:
        process.join()
    return counts


def test_of_three_processes_one_compiles(folder):
    assert used_at_once([(1, 2)] * 3) == [(0, 1), (1, 0), (1, 0)]


def test_two_signatures_are_compiled_at_once_and_both_are_kept(folder):
    assert used_at_once([(1, 2), (0.5, 0.25)]) == [(0, 1), (0, 1)]
    kernel = plus()
    assert kernel(1, 2) == 3 and kernel(0.5, 0.25) == 0.75
    assert sum(kernel.stats.cache_hits.values()) == 2


def hold(folder, of, told):
    Turns(folder).take(of)
    told.set()
    signal.pause()


def test_who_is_killed_gives_back_its_turn(tmp_path):
    holder, told = beside(hold, tmp_path, "a kernel")
    assert told.wait(30)
    turns, start = Turns(tmp_path), time.monotonic()
    turns.take("another")
    assert time.monotonic() - start < 5
    AT_ONCE.Process(target=kill_after, args=(holder.pid, 0.3), daemon=True).start()
    turns.take("a kernel")
    assert 0.2 < time.monotonic() - start < 30
    assert Turns.patience > 0
    holder.join()


def kill_after(pid, seconds):
    time.sleep(seconds)
    os.kill(pid, signal.SIGKILL)


def test_patience_ends_once(tmp_path, monkeypatch):
    monkeypatch.setattr(Turns, "patience", 0.2)
    holder, told = beside(hold, tmp_path, "a kernel")
    assert told.wait(30)
    start = time.monotonic()
    turns = Turns(tmp_path)
    turns.take("a kernel")
    assert 0.2 <= time.monotonic() - start < 20 and Turns.patience == 0
    start = time.monotonic()
    for _ in range(20):
        turns.take("a kernel")  # 20 waits would be 4 s
    assert time.monotonic() - start < 2
    holder.kill()
    holder.join()


def wait_for(folder, of, told):
    Turns(folder).take(of)
    told.set()


def test_a_kernel_that_does_not_compile_keeps_nobody_waiting(folder):
    kernel = plus()
    with pytest.raises(TypingError):
        kernel(None, 2)
    assert kernel._cache._held == []
    signature = (kernel.typeof_pyval(None), kernel.typeof_pyval(2))
    waiter, told = beside(wait_for, kernel._cache.cache_path, (kernel._cache._impl.filename_base, signature))
    assert told.wait(30)
    waiter.join()


def test_without_locks_everybody_has_the_turn(tmp_path):
    (tmp_path / LOCK_FILE).mkdir()  # what cannot be opened for writing
    holder, told = beside(hold, tmp_path, "a kernel")
    assert told.wait(30)
    start = time.monotonic()
    Turns(tmp_path).take("a kernel")
    assert time.monotonic() - start < 5
    holder.kill()
    holder.join()


def test_a_turn_that_is_held_is_given_back_when_the_kernel_is_kept(folder):
    kernel = plus()
    assert kernel(1, 2) == 3
    assert isinstance(kernel._cache, kernels.Cache) and kernel._cache._held == []
