"""What every problem shares: states described field by field, read from JSON and checked with clear errors."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping, Sequence, Sized
from dataclasses import MISSING, dataclass, field, fields
from itertools import chain
from textwrap import shorten
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from games.errors import InvalidStateError

LISTS = {list, tuple}
NUMBERS = {int, float, np.float64, np.float32, np.int64, np.int32}  # others are looked at one by one
FLAGS = {bool, np.bool_}
DEEPEST = 64  # levels of lists and objects that a state may nest


class Spec(NamedTuple):
    """One array of a state: axes by name, unit, dtype, permitted range and default fill."""

    axes: tuple[str, ...]
    unit: str
    dtype: type
    low: float
    above: float
    high: float
    fill: float | None


def array(
    axes: str,
    unit: str = "",
    *,
    dtype: type = float,
    low: float = -np.inf,
    above: float = -np.inf,
    high: float = np.inf,
    fill: float | None = None,
) -> Any:
    """A dataclass field that holds an array: ``array("N K", "Hz", above=0)``; an axis named "2" has two entries.

    ``low`` <= value <= ``high`` and value > ``above``. ``fill`` makes the field optional: a missing one is
    filled with that number.
    """
    spec = Spec(tuple(axes.split()), unit, dtype, low, above, high, fill)
    default = MISSING if fill is None else None
    return field(default=default, metadata={"spec": spec})


@dataclass(frozen=True)
class State:
    """Base of every problem's state: a frozen dataclass whose arrays carry a :class:`Spec`.

    States are equal when all their fields are, entry by entry. They hold arrays, so they cannot be hashed.
    """

    same_size: ClassVar[dict[str, str]] = {}  # axis: the axis whose size it takes where no array tells

    def __init_subclass__(cls, **settings: Any) -> None:
        super().__init_subclass__(**settings)
        cls.__eq__ = State.__eq__  # type: ignore[method-assign]  # or @dataclass compares arrays by their truth

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return all(_same(getattr(self, f.name), getattr(other, f.name)) for f in fields(self))

    __hash__ = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        sizes: dict[str, int] = {}
        owner: dict[str, str] = {}
        specs = [(f.name, f.metadata["spec"]) for f in fields(self) if "spec" in f.metadata]
        arrays = {name: _as_array(name, getattr(self, name), spec) for name, spec in specs}
        for _, spec in specs:
            sizes |= {axis: int(axis) for axis in spec.axes if axis.isdigit()}
        for name, spec in specs:
            value = arrays[name]
            if value is None:
                continue
            # [] is all that JSON can say of a (0, K) matrix: it fixes the first axis alone
            bare = value.size == 0 and value.ndim == 1 < len(spec.axes)
            if value.ndim != len(spec.axes) and not bare:
                wanted = ", ".join(spec.axes)
                raise InvalidStateError(f"{name} has shape {value.shape}; it needs axes ({wanted},)")
            for axis, size in zip(spec.axes, value.shape, strict=False):
                if axis not in sizes:
                    sizes[axis], owner[axis] = size, name
                known = sizes[axis]
                if known != size:
                    where = f" in {owner[axis]}" if axis in owner else ""
                    raise InvalidStateError(f"{name} has shape {value.shape}; axis {axis} has {known} entries{where}")
        for axis, like in self.same_size.items():
            if like in sizes:
                sizes.setdefault(axis, sizes[like])
        for name, spec in specs:
            value = arrays[name]
            shape = tuple(sizes.get(axis, 0) for axis in spec.axes)
            if value is None:
                value = np.full(shape, spec.fill, dtype=spec.dtype)
            elif value.ndim != len(shape):
                value = np.zeros(shape, dtype=spec.dtype)  # bare, so of size 0
            _check_range(name, value, spec)
            object.__setattr__(self, name, np.ascontiguousarray(value))
        self.validate()

    @property
    def agents(self) -> int:
        """N: entries of the first axis N."""
        specs = ((f.name, f.metadata["spec"]) for f in fields(self) if "spec" in f.metadata)
        return next(len(getattr(self, name)) for name, spec in specs if spec.axes[:1] == ("N",))

    def validate(self) -> None:
        """Checks that involve several fields; raises InvalidStateError."""

    def to_dict(self) -> dict[str, Any]:
        """Plain lists and numbers, ready for ``json.dumps``; :meth:`from_dict` reads them back."""
        out: dict[str, Any] = {}
        for f in fields(self):
            value = getattr(self, f.name)
            if isinstance(value, State):
                out[f.name] = value.to_dict()
            elif isinstance(value, np.ndarray):
                out[f.name] = value.tolist()
            elif value is not None:
                out[f.name] = value
        return out

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """A state from a mapping as JSON gives it; unknown and missing fields are named."""
        if not isinstance(data, Mapping):
            raise InvalidStateError(f"a state is a JSON object with named fields; got {type(data).__name__}")
        known = {f.name: f for f in fields(cls)}
        for name in data:
            if name not in known:
                close = difflib.get_close_matches(str(name)[:60], known, n=1)
                hint = f"did you mean {close[0]!r}?" if close else f"known fields: {shorten(', '.join(known), 200)}"
                raise InvalidStateError(f"unknown field {echo(name, 30)}; {hint}")
        missing = [n for n, f in known.items() if n not in data and f.default is MISSING]
        if missing:
            raise InvalidStateError(f"field {missing[0]!r} is missing; required: {', '.join(missing)}")
        values = dict(data)
        for name, f in known.items():
            nested = f.metadata.get("nested")
            if nested is not None and isinstance(values.get(name), Mapping):
                try:
                    values[name] = nested.from_dict(values[name])
                except InvalidStateError as error:
                    raise InvalidStateError(f"{name}: {error}") from None
            elif "spec" not in f.metadata:
                _check_depth(name, values.get(name))
        return cls(**values)


def _same(a: Any, b: Any) -> bool:
    """Equality of what a state holds; arrays inside mappings and lists entry by entry."""
    if isinstance(a, np.ndarray) or isinstance(b, np.ndarray):
        return isinstance(a, np.ndarray) and isinstance(b, np.ndarray) and np.array_equal(a, b)
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        return a.keys() == b.keys() and all(_same(value, b[key]) for key, value in a.items())
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(map(_same, a, b))
    return bool(a == b)


def _check_depth(name: str, value: Any) -> None:
    """Refuse what is nested so deep that reading or writing it again would fail."""
    level = [value]
    for _ in range(DEEPEST):
        level = [
            part
            for whole in level
            if isinstance(whole, Mapping | list | tuple)
            for part in (whole.values() if isinstance(whole, Mapping) else whole)
        ]
        if not level:
            return
    raise InvalidStateError(f"{name} is nested more than {DEEPEST} levels deep; keep it flatter")


def echo(value: Any, most: int = 60) -> str:
    """A value as a message shows it: one line, at most about ``most`` characters, none that a terminal obeys."""
    value = value.item() if isinstance(value, np.generic) else value
    if isinstance(value, str | bytes):
        text = repr(value[: most + 1])  # escapes what does not print
    elif isinstance(value, int) and value.bit_length() > 200:
        text = f"a whole number of {value.bit_length()} bits"
    elif value is None or isinstance(value, int | float | complex):
        text = repr(value)
    elif isinstance(value, np.ndarray):
        text = f"an array of shape {value.shape}"
    elif isinstance(value, Sized):
        text = f"a {type(value).__name__} of {len(value)}"
    else:
        text = f"a {type(value).__name__}"
    return text if len(text) <= most else text[: most - 3] + "..."


def read_array(name: str, value: Any, axes: str, dtype: type = float) -> NDArray[Any]:
    """A setting as an array of numbers, read as a state's fields are; its number of axes is the caller's to check."""
    array = _as_array(name, value, Spec(tuple(axes.split()), "", dtype, -np.inf, -np.inf, np.inf, None))
    assert array is not None  # without a fill, None is refused
    return array


def _as_array(name: str, value: Any, spec: Spec) -> NDArray[Any] | None:
    """The field as an array of its dtype, or None where it is left to its fill; axes are checked afterwards."""
    if value is None:
        if spec.fill is None:
            raise InvalidStateError(f"field {name!r} is missing")
        return None
    array = _regular(value, spec)
    if array is None or array.dtype.kind not in ("biuf" if spec.dtype is bool else "iuf"):
        listed = value
        if array is not None:
            listed = (array.astype(str) if array.dtype.kind in "mMV" else array).tolist()
        _shape(name, listed, spec, ())
        array = np.array(listed, dtype=np.float64 if spec.dtype is float else None)
    if spec.dtype is float:
        return np.asarray(array.astype(np.float64))
    # whole numbers and flags: nothing may be lost on the way
    with np.errstate(invalid="ignore"):
        whole = array.astype(np.int64)
        wrong = whole != array
        if spec.dtype is bool:
            wrong |= (array != 0) & (array != 1)
    if wrong.any():
        index = tuple(int(k) for k in np.argwhere(wrong)[0])
        raise InvalidStateError(f"{name}{_where(index)} = {echo(array[index])}; it must be {_kind(spec, array[index])}")
    return np.asarray(whole.astype(spec.dtype))


def _regular(value: Any, spec: Spec) -> NDArray[Any] | None:
    """The value as NumPy makes an array of it; None where it does not, or would hide what a list holds.

    NumPy makes numbers of flags, and text (as wide as the widest) of whatever stands beside text: so lists are looked
    at first.
    """
    if isinstance(value, list | tuple):
        level: Sequence[Any] = value
        for _ in spec.axes:
            kinds = set(map(type, level))
            if not kinds or not kinds <= LISTS:
                break
            level = list(chain.from_iterable(level))
        else:
            kinds = set(map(type, level))
        if not kinds <= (NUMBERS | FLAGS if spec.dtype is bool else NUMBERS):
            return None
    try:
        return np.array(value)
    except Exception:  # ragged, or an object that no array can be made of
        return None


def _shape(name: str, value: Any, spec: Spec, index: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of nested lists of numbers.

    Raises:
        InvalidStateError: names the first entry that is no number, or has not the length of the first of its row.
    """
    here = f"{name}{_where(index)}"
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if not isinstance(value, list | tuple):
        if not _is_number(value, spec):
            raise InvalidStateError(f"{here} = {echo(value)}; {_rule(spec, value, index)}")
        return ()
    if len(index) == len(spec.axes):
        raise InvalidStateError(f"{here} = {echo(value)}; {_rule(spec, value, ())}")
    first: tuple[int, ...] = ()
    for k, part in enumerate(value):
        shape = _shape(name, part, spec, (*index, k))
        first = first if k else shape
        if shape != first:
            raise InvalidStateError(
                f"{name}{_where((*index, k))} has {_entries(shape)}, {name}{_where((*index, 0))} has "
                f"{_entries(first)}; all need as many: axes {_axes(spec)}"
            )
    return (len(value), *first)


def _is_number(value: Any, spec: Spec) -> bool:
    if isinstance(value, bool | np.bool_):
        return spec.dtype is bool
    if not isinstance(value, int):
        return isinstance(value, float | np.integer | np.floating)
    if spec.dtype is float:
        return bool(abs(value) <= float(np.finfo(float).max))
    return bool(abs(value) < 2**63)


def _rule(spec: Spec, value: Any, index: tuple[int, ...]) -> str:
    """What an entry must be; with the axes where the fault may be in the nesting."""
    rule = f"it must be {_kind(spec, value)}"
    if spec.dtype is not bool:
        rule += f", {' and '.join(_limits(spec))}"
    return rule if index or not spec.axes else f"{rule}, with axes {_axes(spec)}"


def _kind(spec: Spec, value: Any) -> str:
    if spec.dtype is int:
        plain = value.item() if isinstance(value, np.generic) else value
        large = isinstance(plain, int | float) and abs(plain) >= 2**63
        return "a whole number" + " of 64 bits" * large
    return "true or false" if spec.dtype is bool else "a number"


def _entries(shape: tuple[int, ...]) -> str:
    if not shape:
        return "no list but a number"
    return f"{shape[0]} entries" if len(shape) == 1 else f"shape {shape}"


def _axes(spec: Spec) -> str:
    return f"({', '.join(spec.axes)},)"


def _where(index: tuple[int, ...]) -> str:
    return f"[{', '.join(map(str, index))}]" if index else ""


def _check_range(name: str, value: NDArray[Any], spec: Spec) -> None:
    if spec.dtype is bool or not value.size:
        return
    bad = ~np.isfinite(value) | (value < spec.low) | (value <= spec.above) | (value > spec.high)
    if not bad.any():
        return
    index = tuple(int(k) for k in np.argwhere(bad)[0])
    raise InvalidStateError(f"{name}{_where(index)} = {value[index]}; it must be {' and '.join(_limits(spec))}")


def _limits(spec: Spec) -> list[str]:
    """Such as ["finite", "> 0 Hz"]."""
    unit = f" {spec.unit}" if spec.unit else ""
    rules = ["finite"]
    if np.isfinite(spec.above):
        rules.append(f"> {spec.above:g}{unit}")
    elif np.isfinite(spec.low):
        rules.append(f">= {spec.low:g}{unit}")
    if np.isfinite(spec.high):
        rules.append(f"<= {spec.high:g}{unit}")
    return rules


def whole_number(name: str, value: Any, low: int, high: int) -> int:
    """``value`` as an int within ``low`` to ``high``; a float that is whole is one.

    Raises:
        InvalidStateError: ``"slot = 2.5; it must be a whole number from 0 to 9"``.
    """
    right = isinstance(value, int | np.integer) and not isinstance(value, bool)
    right = right or (isinstance(value, float | np.floating) and bool(np.isfinite(value)) and int(value) == value)
    if not right or not low <= value <= high:
        raise InvalidStateError(f"{name} = {echo(value)}; it must be a whole number from {low} to {high}")
    return int(value)


def name_list(name: str, value: Any) -> tuple[str, ...]:
    """Names from a list of text; a whole number stands for its digits (1.0 as "1").

    Raises:
        InvalidStateError: ``"names[3] = None; a name is text"``, or not a list.
    """
    given = value.tolist() if isinstance(value, np.ndarray) else value
    if not isinstance(given, list | tuple):
        raise InvalidStateError(f"{name} = {echo(value)}; it must be a list of names")
    found = []
    for k, entry in enumerate(given):
        text = as_name(entry)
        if not text:
            raise InvalidStateError(f"{name}[{k}] = {echo(entry)}; a name is text")
        found.append(text)
    return tuple(found)


def as_name(value: Any) -> str:
    """Text or a number as a name, without spaces around it; "" for what is none, such as None and NaN."""
    if isinstance(value, str):
        return value.strip()
    plain = value.item() if isinstance(value, np.integer | np.floating) else value
    if isinstance(plain, bool) or not isinstance(plain, int | float) or not abs(plain) < 1e30:
        return ""
    return str(int(plain) if plain == int(plain) else plain)


def read_json(text: str | bytes, source: str) -> Any:
    """What JSON text holds.

    Raises:
        InvalidStateError: it is not JSON, is nested too deep or holds a number that is too long; names ``source`` and,
            where there is one, line and column.
    """
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise InvalidStateError(
            f"{source} is not JSON: line {error.lineno}, column {error.colno}: {error.msg}"
        ) from None
    except UnicodeDecodeError as error:
        raise InvalidStateError(f"{source} is not text in UTF-8: byte {error.start} {error.reason}") from None
    except RecursionError:
        raise InvalidStateError(f"{source} is nested too deep; a state's lists have 3 levels at most") from None
    except ValueError as error:  # a whole number of more digits than Python reads
        raise InvalidStateError(f"{source} holds a number that cannot be read: {echo(str(error), 120)}") from None
