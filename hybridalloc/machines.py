"""Many machines, by Ray: how to reach them, what must be the same on all, and what says that one was lost."""

from __future__ import annotations

import hashlib
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from games.extras import required
from hybridalloc.errors import WorkError, nearest
from hybridalloc.text import printable, quoted

ENGINES = ("processes", "ray")
ANSWER_S = 10.0  # in which a cluster's head must take a connection
TRIES = 4  # of one task, of which all but the last may lose their machine
PACKAGES = ("coordinator", "games", "hybridalloc", "rl")
ARITHMETIC = ("numpy", "llvmlite", "torch")  # whose versions a result depends on; the second compiles our kernels


def check_engine(engine: str, address: str) -> None:
    """An error for an engine that does not exist, that is not installed, or that an address does not go with.

    Raises:
        UnknownNameError: no such engine. ImportError: Ray is missing. ValueError: an address without Ray, or of no form
            that one has.
    """
    if engine not in ENGINES:
        raise nearest("engine", engine, ENGINES)
    if engine == "ray":
        required("ray")
        if address not in ("", "auto"):
            _host_and_port(address)
    elif address:
        raise ValueError(
            f"address = {quoted(address)} goes with engine ray; this is {engine}: give engine ray, or no address"
        )


@contextmanager
def connected(address: str = "") -> Iterator[Any]:
    """Ray, connected to a cluster; a connection that this process has already is used, and stays.

    Args:
        address: "host:port" of a cluster's head, "ray://host:port" of its client server, "auto" for the one that
            RAY_ADDRESS names or that runs on this machine; "": that one, or where there is none one that is started
            here and ended with the block.

    Raises:
        ImportError: Ray is not installed. WorkError: no cluster answers there.
    """
    ray = required("ray")
    if ray.is_initialized():
        yield ray
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    try:
        try:
            if address not in ("", "auto"):
                socket.create_connection(_host_and_port(address), ANSWER_S).close()  # Ray itself asks for minutes
            ray.init(address=address or "auto", **quiet)
        except ConnectionError:
            if address:
                raise
            ray.init(include_dashboard=False, **quiet)
    except Exception as error:  # Ray says in many ways that nobody answers
        reason = printable(str(error).strip().split("\n")[0] or type(error).__name__, 200)
        raise WorkError(
            f"no Ray cluster at address {quoted(address or 'auto')} ({reason}); start one with `ray start --head`, and "
            "on every other machine `ray start --address=<head>:6379`"
        ) from None
    try:
        yield ray
    finally:
        ray.shutdown()


def _host_and_port(address: str) -> tuple[str, int]:
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon or not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise ValueError(f"address = {quoted(address)}; host:port, ray://host:port or auto is required")
    return host, int(port)


@lru_cache
def build() -> tuple[tuple[str, str], ...]:
    """What must be the same on all machines for equal seeds to give equal results: names and versions."""
    digest = hashlib.sha256()
    for package in PACKAGES:
        spec = find_spec(package)
        assert spec is not None and spec.origin is not None
        root = Path(spec.origin).parent
        for path in sorted(root.rglob("*.py")):
            digest.update(f"{package}/{path.relative_to(root).as_posix()}".encode() + b"\0" + path.read_bytes())
    return ("hybridalloc's source", digest.hexdigest()[:12]), *((name, _version(name)) for name in ARITHMETIC)


def _version(package: str) -> str:
    try:
        return version(package).partition("+")[0]
    except PackageNotFoundError:
        return "none"


class Place(NamedTuple):
    """What a worker is told of who asks: the folder it stands in, that of its data sets, and its :func:`build`."""

    folder: str
    data: str
    build: tuple[tuple[str, str], ...]

    @classmethod
    def here(cls) -> Place:
        return cls(str(Path.cwd()), os.environ.get("HYBRIDALLOC_DATA", ""), build())

    def enter(self) -> None:
        """Look for modules and data where who asks does, as far as that is there on this machine too.

        Raises:
            WorkError: this machine computes with other versions; names it and the first that differs.
        """
        for (name, theirs), (_, ours) in zip(self.build, build(), strict=True):
            if theirs != ours:
                raise WorkError(
                    f"machine {socket.gethostname()} has {name} {ours} and who asks has {theirs}; install the same on "
                    "all machines"
                )
        if Path(self.folder).is_dir() and self.folder not in sys.path:
            sys.path.append(self.folder)
        if self.data and Path(self.data).is_dir():
            os.environ.setdefault("HYBRIDALLOC_DATA", self.data)


def losses(ray: Any) -> tuple[type[Exception], ...]:
    """What Ray raises where work is lost with its worker or machine, and not by an error of its own."""
    e = ray.exceptions
    return e.WorkerCrashedError, e.NodeDiedError, e.OutOfMemoryError, e.ObjectLostError, e.RayActorError


def first_line(error: BaseException) -> str:
    """Of what Ray says, what a terminal's line can hold."""
    return printable((str(error).strip().splitlines() or [type(error).__name__])[0], 160)
