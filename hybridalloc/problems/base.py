"""What every problem shares: states described field by field, read from JSON and checked with clear errors."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from games.errors import InvalidStateError


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
    """Base of every problem's state: a frozen dataclass whose arrays carry a :class:`Spec`."""

    same_size: ClassVar[dict[str, str]] = {}  # axis: the axis whose size it takes where no array tells

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
                    raise InvalidStateError(
                        f"{name} has shape {value.shape}; axis {axis} has {known} entries{where}"
                    )
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
                close = difflib.get_close_matches(str(name), known, n=1)
                hint = f"did you mean {close[0]!r}?" if close else f"known fields: {', '.join(known)}"
                raise InvalidStateError(f"unknown field {name!r}; {hint}")
        missing = [n for n, f in known.items() if n not in data and f.default is MISSING]
        if missing:
            raise InvalidStateError(f"field {missing[0]!r} is missing; required: {', '.join(missing)}")
        values = dict(data)
        for name, f in known.items():
            nested = f.metadata.get("nested")
            if nested is not None and isinstance(values.get(name), Mapping):
                values[name] = nested.from_dict(values[name])
        return cls(**values)


def _as_array(name: str, value: Any, spec: Spec) -> NDArray[Any] | None:
    if value is None:
        if spec.fill is None:
            raise InvalidStateError(f"field {name!r} is missing")
        return None
    try:
        array = np.array(value)
        if array.dtype.kind not in "biuf":
            raise ValueError
    except (ValueError, TypeError, OverflowError):
        raise InvalidStateError(
            f"{name} is not a regular array of {spec.dtype.__name__}; it needs axes ({', '.join(spec.axes)},)"
        ) from None
    if spec.dtype is float or array.dtype.kind == "b":
        return np.asarray(array.astype(spec.dtype))
    # whole numbers and flags: nothing may be lost on the way
    with np.errstate(invalid="ignore"):
        whole = array.astype(np.int64)
        wrong = whole != array
        if spec.dtype is bool:
            wrong |= (array != 0) & (array != 1)
    if wrong.any():
        index = tuple(int(k) for k in np.argwhere(wrong)[0])
        kind = "true or false" if spec.dtype is bool else "a whole number"
        raise InvalidStateError(f"{name}{_where(index)} = {array[index]}; it must be {kind}")
    return np.asarray(whole.astype(spec.dtype))


def _where(index: tuple[int, ...]) -> str:
    return f"[{', '.join(map(str, index))}]" if index else ""


def _check_range(name: str, value: NDArray[Any], spec: Spec) -> None:
    if spec.dtype is bool or not value.size:
        return
    bad = ~np.isfinite(value) | (value < spec.low) | (value <= spec.above) | (value > spec.high)
    if not bad.any():
        return
    index = tuple(int(k) for k in np.argwhere(bad)[0])
    unit = f" {spec.unit}" if spec.unit else ""
    rules = ["finite"]
    if np.isfinite(spec.above):
        rules.append(f"> {spec.above:g}{unit}")
    elif np.isfinite(spec.low):
        rules.append(f">= {spec.low:g}{unit}")
    if np.isfinite(spec.high):
        rules.append(f"<= {spec.high:g}{unit}")
    raise InvalidStateError(f"{name}{_where(index)} = {value[index]}; it must be {' and '.join(rules)}")


class Metric(NamedTuple):
    """A figure a problem reports: key, label, unit and which way is better."""

    key: str
    label: str
    unit: str
    better: str  # "higher" | "lower"
