"""The problems by name. Adding one here adds a file and a line; a user's own comes through an entry point.

A package of one's own registers a problem in its ``pyproject.toml``::

    [project.entry-points."hybridalloc.problems"]
    farm = "my_package.farm:Farm"

``Farm(**settings)`` makes it and ``Farm.restore(problem.describe())`` makes it again (without ``restore``,
``Farm(**description)`` less its name). It may also be a function that gives ``make_problem("custom", ...)``.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from hybridalloc.errors import UnknownNameError, nearest
from hybridalloc.problems import custom, mec
from hybridalloc.text import quoted

GROUP = "hybridalloc.problems"
PROBLEMS: dict[str, Callable[..., Any]] = {"mec": mec.make, "custom": custom.make}
_CODE = ("transition", "jobs", "servers", "links")  # settings by which a name is loaded or a file is opened


def problem_names() -> list[str]:
    """All that ``make_problem`` knows: the built-in ones, then those of entry points."""
    return [*PROBLEMS, *sorted(name for name in _registered() if name not in PROBLEMS)]


def make_problem(name: str, **settings: Any) -> Any:
    """A problem by name with its settings, such as ``make_problem("mec", agents=50, servers=9)``.

    Raises:
        UnknownNameError: no such problem, scenario or setting; the nearest are listed.
    """
    return _maker(name)(**settings)


def make_with(name: str, flags: dict[str, Any], settings: dict[str, Any] | None = None) -> Any:
    """As :func:`make_problem`: a command's ``flags`` as far as this problem has them, and ``settings`` as given."""
    parameters = inspect.signature(_maker(name)).parameters
    sized = name != "custom"  # whose ``servers`` is a table
    taken = {key: value for key, value in flags.items() if sized and key in parameters}
    return make_problem(name, **taken | (settings or {}))


def restore_problem(description: Mapping[str, Any], trust_code: bool = False) -> Any:
    """The problem that ``problem.describe()`` described.

    A description is data: it names a problem that is built in or installed, and a transition likewise; another
    transition stays unloaded, see :mod:`hybridalloc.problems.custom.transitions`.

    Args:
        trust_code: the description is the user's own, or the user trusts who wrote it: any transition is loaded.

    Raises:
        UnknownNameError: no such problem is installed. ValueError: the description is not one of it.
    """
    name = description.get("name")
    if not isinstance(name, str):
        raise ValueError(f"name = {quoted(name)}; a description names its problem")
    if name == "custom":
        return custom.Custom.restore(description, trust_code)
    if name == "mec":
        return mec.Mec.restore(dict(description))
    maker = _maker(name)
    restore = getattr(maker, "restore", None)
    if restore is not None:
        return restore(description)
    for key in _CODE:
        if isinstance(description.get(key), str | Mapping) and not trust_code:
            raise ValueError(f"{key} = {quoted(description[key])}: a description of {name} may not give it")
    return maker(**{key: value for key, value in description.items() if key != "name"})


def _registered() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=GROUP)}


def _maker(name: str) -> Callable[..., Any]:
    if name in PROBLEMS:
        return PROBLEMS[name]
    points = _registered()
    if name not in points:
        raise _unknown(name, [*PROBLEMS, *points])
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


def _unknown(name: str, known: Iterable[str]) -> UnknownNameError:
    return nearest("problem", name, known)
