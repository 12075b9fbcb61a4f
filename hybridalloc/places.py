"""Places: whether what a command will write can be written, asked before anything is computed."""

from __future__ import annotations

import fcntl
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hybridalloc.errors import PlaceError
from hybridalloc.text import printable

TRIAL = b"\0" * 4096  # a full disk takes a new name, and no bytes


def check_file(flag: str, path: str | Path) -> Path:
    """A file that can be written or replaced; its folders are made.

    Args:
        flag: what the user gave it by, for the message, such as "--out".

    Raises:
        PlaceError: it is a folder or a device, or its folder cannot be made or written; says which and why.
    """
    target = Path(path)
    try:
        if target.is_dir():
            raise PlaceError(f"{flag} {printable(path, 200)} is a folder; give the name of a file in it")
        if target.exists() and not target.is_file():
            raise PlaceError(f"{flag} {printable(path, 200)} is no regular file; give the name of one")
    except OSError as error:
        raise _refusal(flag, path, error) from None
    _try(flag, path, target.parent)
    return target


def check_folder(flag: str, path: str | Path) -> Path:
    """A folder in which files can be made; it is made if missing. Raises as :func:`check_file` does."""
    _try(flag, path, Path(path))
    return Path(path)


@contextmanager
def locked(path: Path, shared: bool = False, wait_s: float = 0.0) -> Iterator[bool]:
    """Hold a lock on ``path``, one holder or any number of ``shared`` ones; whether it was had within ``wait_s``.

    The lock goes with its process, however that ends. Where the file system knows no locks, it is had.
    """
    until = time.monotonic() + wait_s
    with path.open("a") as stream:
        while True:
            try:
                fcntl.flock(stream, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() < until:
                    time.sleep(0.1)
                    continue
                yield False
                return
            except OSError:  # no locks on this file system
                pass
            yield True
            return


def _try(flag: str, path: str | Path, folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as stream:
            stream.write(TRIAL)
            stream.flush()
    except OSError as error:
        raise _refusal(flag, path, error) from None


def _refusal(flag: str, path: str | Path, error: OSError) -> PlaceError:
    at = f" at {printable(error.filename, 200)}" if error.filename and str(error.filename) != str(path) else ""
    reason = f"{error.strerror or error}{at}"
    return PlaceError(f"{flag} {printable(path, 200)} cannot be written ({reason}); nothing was computed, give another")
