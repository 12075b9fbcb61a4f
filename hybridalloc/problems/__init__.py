"""The problems by name. Adding one here adds a file and a line; a user's own comes by its address or an entry point.

An address is the user's word, as ``make_problem("my_package.farm:Farm")`` and ``--problem farm:Farm`` take it. A
package of one's own registers a problem under a name in its ``pyproject.toml``::

    [project.entry-points."hybridalloc.problems"]
    farm = "my_package.farm:Farm"

``Farm(**settings)`` makes it and ``Farm.restore(problem.describe())`` makes it again (without ``restore``,
``Farm(**description)`` less its name and class). It may also be a function that gives ``make_problem("custom", ...)``.
Whatever is made is held to :mod:`hybridalloc.problems.contract` before anything runs on it.

A file's word (a saved allocator, a checkpoint, a run's folder) is data: it names what is built in or registered, and an
address only where the user trusts the file.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Literal, overload

from hybridalloc.addresses import named
from hybridalloc.errors import CheckpointError, nearest
from hybridalloc.problems import balancer, cluster, custom, mec, voltage
from hybridalloc.problems.contract import AnyProblem, Restores
from hybridalloc.problems.members import check_problem
from hybridalloc.text import printable, quoted

GROUP = "hybridalloc.problems"
PROBLEMS: dict[str, Callable[..., Any]] = {
    "mec": mec.make, "custom": custom.make, "cluster": cluster.make, "voltage": voltage.make,
    "balancer": balancer.make,
}  # fmt: skip
_CODE = ("transition", "jobs", "servers", "links")  # settings by which a name is loaded or a file is opened


def problem_names() -> list[str]:
    """All that ``make_problem`` knows: the built-in ones, then those of entry points."""
    return [*PROBLEMS, *sorted(name for name in _registered() if name not in PROBLEMS)]


@overload
def make_problem(name: Literal["mec"], **settings: Any) -> mec.Mec: ...
@overload
def make_problem(name: Literal["custom"], **settings: Any) -> custom.Custom: ...
@overload
def make_problem(name: Literal["cluster"], **settings: Any) -> cluster.Cluster: ...
@overload
def make_problem(name: Literal["balancer"], **settings: Any) -> balancer.Balancer: ...
@overload
def make_problem(name: Literal["voltage"], **settings: Any) -> voltage.Voltage: ...
@overload
def make_problem(name: str, **settings: Any) -> AnyProblem: ...
def make_problem(name: str, **settings: Any) -> Any:
    """A problem by name with its settings, such as ``make_problem("mec", agents=50, servers=9)``.

    Args:
        name: built in, registered under an entry point, or the address of a class or function, "module:Name".

    Raises:
        UnknownNameError: no such problem, scenario or setting; the nearest are listed. ContractError: a problem of
            one's own misses a member, or gives something else than it must.
    """
    maker = _maker(name)
    return _kept(maker(**settings) if name in PROBLEMS else _made(maker, name, settings), name)


def make_with(name: str, flags: dict[str, Any], settings: dict[str, Any] | None = None) -> Any:
    """As :func:`make_problem`: a command's ``flags`` as far as this problem has them and they are given (not ""), and
    ``settings`` as they are."""
    parameters = inspect.signature(_maker(name)).parameters
    sized = name != "custom"  # whose ``servers`` is a table
    taken = {key: value for key, value in flags.items() if sized and key in parameters and value != ""}
    return make_problem(name, **taken | (settings or {}))


def restore_problem(description: Mapping[str, Any], trust_code: bool = False) -> Any:
    """The problem that ``problem.describe()`` described.

    A description is data: it names a problem that is built in or installed, and a transition likewise; another
    transition stays unloaded, see :mod:`hybridalloc.problems.custom.transitions`.

    Args:
        trust_code: the description is the user's own, or the user trusts who wrote it: any class is loaded.

    Raises:
        UnknownNameError: no such problem is installed. ValueError: the description is not one of it. CheckpointError:
            it names a class that is not registered, and is not trusted.
    """
    name = description.get("name")
    if not isinstance(name, str):
        raise ValueError(f"name = {quoted(name)}; a description names its problem")
    if name == "custom" and "held" in description:
        return custom.Held.restore(description)
    if name == "custom":
        return custom.Custom.restore(description, trust_code)
    if name == "mec":
        return mec.Mec.restore(dict(description))
    if name == "cluster":
        return cluster.restore(description)
    if name == "balancer":
        return balancer.Balancer.restore(description)
    if name == "voltage":
        return voltage.Voltage.restore(description)
    address = description.get("class")
    if address is not None and not isinstance(address, str):
        raise ValueError(f"class = {quoted(address)}; a description gives a class by its address, 'module:Class'")
    registered = {point.value for point in _registered().values()}
    if address is not None and (trust_code or address in registered):
        return _kept(_restored(_loaded(address), description, trust_code), address)
    if address is not None and name not in _registered():
        raise CheckpointError(
            f"this problem {quoted(address)} is named by a file and is no entry point of {GROUP}, so it was not "
            "loaded. If you trust the file: --allow-code, or trust_code=True, or give problem= yourself"
        )
    return _kept(_restored(_maker(name), description, trust_code), name)


def _restored(maker: Callable[..., Any], description: Mapping[str, Any], trust_code: bool) -> Any:
    if isinstance(maker, Restores):
        return maker.restore(dict(description))
    for key in _CODE:
        if isinstance(description.get(key), str | Mapping) and not trust_code:
            raise ValueError(
                f"{key} = {quoted(description[key])}: a description of {description['name']} may not give it"
            )
    settings = {key: value for key, value in description.items() if key not in ("name", "class")}
    return _made(maker, str(description["name"]), settings)


def _made(maker: Callable[..., Any], name: str, settings: Mapping[str, Any]) -> Any:
    """A problem of one's own from its settings, if it takes these."""
    try:
        signature = inspect.signature(maker)
    except (TypeError, ValueError):  # of code that is not Python's nothing is known
        return maker(**settings)
    known = [p.name for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
    for key in settings:
        if key not in known and len(known) == len(signature.parameters):
            raise nearest(f"setting of {printable(name)}", key, known)
    try:
        signature.bind(**settings)
    except TypeError as error:
        raise ValueError(
            f"problem {quoted(name)} cannot be made: {error}; its settings are {', '.join(known)}"
        ) from None
    return maker(**settings)


def _kept(problem: Any, name: str) -> Any:
    """The problem, held to the contract where it is not built in."""
    ours = custom.Custom | custom.Held | mec.Mec | cluster.Cluster | cluster.Queue | voltage.Voltage | balancer.Balancer
    built_in = isinstance(problem, ours)
    return problem if built_in else check_problem(problem, name)


def _loaded(address: str) -> Any:
    """The class or function that an address, "module:Name", names.

    Raises:
        ValueError: it cannot be loaded, or is neither.
    """
    try:
        found = named(address)
    except Exception as error:  # someone's module: whatever it raises is told
        reason = printable(f"{type(error).__name__}: {error}", 200)
        raise ValueError(
            f"problem {quoted(address)} cannot be loaded ({reason}); write it as 'module:Class', module.py in this "
            "folder or installed"
        ) from None
    if not callable(found):
        raise ValueError(f"problem {quoted(address)} is a {type(found).__name__}; it must be a class or a function")
    return found


def _registered() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=GROUP)}


def _maker(name: str) -> Callable[..., Any]:
    if name in PROBLEMS:
        return PROBLEMS[name]
    if ":" in name:
        made: Callable[..., Any] = _loaded(name)
        return made
    points = _registered()
    if name not in points:
        raise nearest("problem", name, problem_names())
    point = points[name]
    try:
        made = point.load()
    except Exception as error:  # someone else's code: whatever it raises is told
        owner = point.dist.name if point.dist is not None else "unknown package"
        raise ValueError(
            f"problem {name!r} of {owner} cannot be loaded from {point.value} ({type(error).__name__}: {error}); "
            "mend that package or remove it"
        ) from error
    if not callable(made):
        raise ValueError(
            f"problem {name!r}: {point.value} is a {type(made).__name__}; it must be a class or a function"
        )
    return made
