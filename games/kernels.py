"""Where compiled kernels are kept, and what is done with a kept one that is damaged.

numba keeps a kernel beside its source, or in the user's cache folder, and raises on import where neither can be written
(an installation of another user, HOME unset or unreadable). Importing this module, which ``games`` and
``coordinator`` do first, changes that for the kernels of this house and for no other function:

- where numba finds no place, kernels are kept in a folder of the user's own in the temporary one, which must be the
  user's and nobody else's (mode 0700), as a kept kernel is code; without such a folder nothing is kept, said once;
- a kernel counts as absent when any module of the house that compiles has changed, not its own alone;
- every file carries the SHA-256 of its content and the signature that it is for. One that is truncated, altered, of
  another signature or unreadable counts as absent: the kernel is compiled afresh and written again, said once;
- a kernel that cannot be written (a full disk) is used all the same, said once;
- processes that want the same kernel at the same time take turns (:mod:`.turns`): one compiles it, the others load it.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import pickle
import stat
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from numba.core import caching, event
from numba.core import config as _config
from numba.core import dispatcher as _dispatcher

from games.turns import Turns, turns_of

config: Any = _config
dispatcher: Any = _dispatcher

HOUSE = Path(__file__).resolve().parent.parent
PACKAGES = tuple(str((HOUSE / name).resolve()) + os.sep for name in ("coordinator", "games", "hybridalloc", "rl"))
SEAL = hashlib.sha256().digest_size


@cache
def sources() -> str:
    """Digest of every module of the house that compiles: a kernel holds what it calls, wherever that is written, and
    numba looks at its own file alone."""
    digest = hashlib.sha256()
    for package in PACKAGES:
        for path in sorted(Path(package).rglob("*.py")):
            content = path.read_bytes()
            if b"numba" in content:
                digest.update(str(path.relative_to(HOUSE)).encode() + content)
    return digest.hexdigest()[:16]


class DamagedKernelError(ValueError):
    """A kept kernel that is not what was written."""


class SealedFile(caching.IndexDataCacheFile):
    """numba's index and data files, each followed by the SHA-256 of what it holds; data begin with their key."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        # files without a seal, or from other sources, are of another version, not damaged
        self._version = f"{self._version}, sealed, {sources()}"

    def save(self, key: Any, data: Any) -> None:
        super().save(key, (key, data))  # two processes may give two signatures one number

    def load(self, key: Any) -> Any:
        found = super().load(key)
        if found is None or found[0] != key:
            return None
        return found[1]

    def _dump(self, obj: Any) -> bytes:
        content = super()._dump(obj)
        return content + hashlib.sha256(content).digest()

    def _load_index(self) -> dict[Any, str]:
        try:
            with open(self._index_path, "rb") as file:
                version = pickle.load(file)
                content = file.read()
        except FileNotFoundError:
            return {}
        if version != self._version:
            return {}
        stamp, kept = pickle.loads(_opened(content, self._index_path))
        return kept if stamp == self._source_stamp else {}

    def _load_data(self, name: str) -> Any:
        path = self._data_path(name)
        with open(path, "rb") as file:
            content = file.read()
        return pickle.loads(_opened(content, path))


class Cache(caching.FunctionCache):
    """numba's cache of a function, which neither stops the work nor trusts a damaged file."""

    def __init__(self, function: Any) -> None:
        try:
            super().__init__(function)
        except RuntimeError:  # "cannot cache function ...: no locator available"
            before, config.CACHE_DIR = config.CACHE_DIR, str(private_folder() or "")
            try:
                super().__init__(function)
            finally:
                config.CACHE_DIR = before
        locator = self._impl.locator
        self._cache_file = SealedFile(
            cache_path=self._cache_path, filename_base=self._impl.filename_base,
            source_stamp=locator.get_source_stamp(),
        )  # fmt: skip
        self._held: list[Any] = []  # the turns that this process has at signatures of the function

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """A kept kernel, or None: then it is this process's turn to compile it, until it is saved or has failed."""
        found = self._kept(sig, target_context)
        if found is None and (turns := self._turns()) is not None:
            turns.take((self._impl.filename_base, sig))
            self._held.append(sig)
            found = self._kept(sig, target_context)  # another may have made it since
            if found is not None:
                self.give_turns()
        return found

    def _kept(self, sig: Any, target_context: Any) -> Any:
        try:
            return super().load_overload(sig, target_context)
        except Exception as error:  # bytes that are no pickle, or no machine code, fail in any way they like
            _tell("damaged", f"a kept kernel in {self._cache_path} is damaged ({_why(error)}): it is compiled afresh")
            self._drop()
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        try:
            with self._index_turn():
                super().save_overload(sig, data)
        except Exception as error:
            _tell("unwritable", f"compiled kernels cannot be kept in {self._cache_path} ({_why(error)}); they are used")
            self.disable()
        finally:
            self.give_turns()

    def give_turns(self) -> None:
        """Let others at the signatures that were this process's to compile."""
        while self._held:
            turns_of(self._cache_path).give((self._impl.filename_base, self._held.pop()))

    def _turns(self) -> Turns | None:
        if not self._enabled:
            return None
        try:
            self._impl.locator.ensure_cache_path()
        except OSError:
            return None
        return turns_of(self._cache_path)

    @contextmanager
    def _index_turn(self) -> Iterator[None]:
        """The turn at the list of the function's signatures: of two that write it at once one would lose its entry."""
        turns = self._turns()
        if turns is not None:
            turns.take(self._impl.filename_base)
        try:
            yield
        finally:
            if turns is not None:
                turns.give(self._impl.filename_base)

    def _drop(self) -> None:
        try:
            self.flush()  # the index alone: data that nothing names are written over
        except OSError:  # it cannot be written: what is in it is refused each time
            self.disable()


class Failures(event.Listener):
    """Gives back the turn at a kernel that did not compile, as nothing will be saved."""

    def on_start(self, event: Any) -> None: ...

    def on_end(self, event: Any) -> None:
        kernel: Any = (event.data or {}).get("dispatcher")
        kept = getattr(kernel, "_cache", None)
        if isinstance(kept, Cache) and tuple(event.data["args"]) not in kernel.overloads:
            kept.give_turns()


@cache
def private_folder() -> Path | None:
    """The user's own folder in the temporary one, made if missing; None where there is none that is safe to use."""
    try:
        folder = Path(tempfile.gettempdir()) / f"hybridalloc-kernels-{os.geteuid()}"
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
            return None
        tempfile.TemporaryFile(dir=folder).close()
    except OSError:
        return None
    return folder


def cache_of(function: Any) -> Any:
    """What keeps a function's compiled code: ours for this house's functions, numba's own for all others."""
    if not os.path.realpath(function.__code__.co_filename).startswith(PACKAGES):
        return caching.FunctionCache(function)
    try:
        return Cache(function)
    except RuntimeError:
        _tell(
            "nowhere",
            f"no folder for compiled kernels can be written (tried {Path(function.__code__.co_filename).parent}, the "
            "user's cache folder and the temporary one): they are compiled in every process. Set NUMBA_CACHE_DIR to a "
            "folder of your own to keep them",
        )
        return caching.NullCache()


def _opened(content: bytes, path: str) -> bytes:
    """What a sealed file holds."""
    inside = content[:-SEAL]
    if hashlib.sha256(inside).digest() != content[-SEAL:]:
        raise DamagedKernelError(f"{os.path.basename(path)} has another SHA-256 than when it was written")
    return inside


def _why(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no reason given'}"[:160]


_TOLD: set[str] = set()


def _tell(kind: str, message: str) -> None:
    if kind not in _TOLD and multiprocessing.parent_process() is None:  # a worker's parent has said it
        _TOLD.add(kind)
        warnings.warn(message, RuntimeWarning, stacklevel=3)


dispatcher.FunctionCache = cache_of
event.register("numba:compile", Failures())
