"""Turns at a kernel: of the processes that want the same one, the first compiles it and the others load what it kept.

Workers that start together on a new installation want the same kernels at the same moment, and none sees what another
is about to keep. A turn is a byte of a lock file in the folder of the kept kernels, one for each kernel and signature
(POSIX record locks, ``fcntl(2)``). The system takes it back when its process ends, however it ends. A process that
holds a turn waits only for kernels that its own one calls, so nobody waits in a circle; and who has waited
:data:`PATIENCE` in vain, for a process that was stopped say, waits for nobody again and compiles for itself. Where a
folder has no locks (no right to write, another system, a file system without them), everybody has the turn at once.
"""

from __future__ import annotations

import hashlib
import os
import time
from contextlib import suppress
from functools import cache
from pathlib import Path

try:
    import fcntl
except ImportError:  # not a POSIX system
    fcntl = None  # type: ignore[assignment]

PATIENCE = 180.0  # s, several times what the largest kernel takes with all that it calls
LOCK_FILE = "kernels.lock"


class Turns:
    """The turns of one folder, for this process; one object a folder, see :func:`turns_of`."""

    patience = PATIENCE  # of the class: one wait in vain ends it for every folder

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self._file: int | None = None
        with suppress(OSError):
            # never closed: to close any descriptor of the file would give back every turn of the process
            self._file = os.open(Path(folder) / LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o644) if fcntl is not None else None

    def take(self, of: object) -> None:
        """Wait until it is this process's turn at ``of`` (by its ``repr``), or for as long as patience lasts."""
        if self._file is None:
            return
        until = time.monotonic() + Turns.patience
        pause = 0.01
        while True:
            try:
                fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, _byte(of))
                return
            except (BlockingIOError, PermissionError):  # EAGAIN or EACCES: another has it
                if time.monotonic() >= until:
                    Turns.patience = 0.0
                    return
            except OSError:  # ENOLCK and its like: no locks here
                self._file = None
                return
            time.sleep(pause)
            pause = min(2 * pause, 0.2)

    def give(self, of: object) -> None:
        """Give back the turn at ``of``; nothing where it was not had."""
        if self._file is not None:
            try:
                fcntl.lockf(self._file, fcntl.LOCK_UN, 1, _byte(of))
            except OSError:
                self._file = None


@cache
def turns_of(folder: str) -> Turns:
    """The turns of a folder, the same object for all its kernels."""
    return Turns(folder)


def _byte(of: object) -> int:
    """Which byte of the file stands for ``of``: one of 2 ** 62, so that two kernels do not share one."""
    return int.from_bytes(hashlib.sha256(repr(of).encode()).digest()[:8]) >> 2
