"""Radial feeders: a tree of branches below a substation, in per unit on 1 MVA, so that powers are MW and Mvar.

Made from branches (:func:`feeder_of`), by name (:func:`feeder_named`: "case33", "copies-k"), from a description that
``Feeder.to_dict`` gave, or from a pandapower net (:mod:`hybridalloc.problems.voltage.grid`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, NamedTuple, Self

import numpy as np

from games.congestion import Float, Int
from games.errors import InvalidStateError
from hybridalloc.problems.state import echo, read_array, whole_number
from hybridalloc.problems.voltage.case33 import BRANCHES, INVERTERS, KV

MOST_COPIES = 1000
SERIES = (0.0005, 0.008)  # p.u. on 1 MVA of the substation's transformer that copies share, divided by their number


class Branch(NamedTuple):
    """One branch between two buses: series impedance, p.u.; ``shunt`` admittances at its ends, p.u.; ``ratio``,
    complex, of the ideal transformer at its first bus (bus voltage over the voltage inside)."""

    first: int
    second: int
    impedance: complex
    shunt: tuple[complex, complex] = (0j, 0j)
    ratio: complex = 1 + 0j


class Tree(NamedTuple):
    """A feeder's branches as compiled code reads them; see :class:`Feeder`."""

    parent: Int
    r: Float
    x: Float
    shunt_g: Float
    shunt_b: Float
    up_g: Float
    up_b: Float
    tap_r: Float
    tap_i: Float
    slack: float
    plain: bool


@dataclass(frozen=True, eq=False)
class Feeder:
    """A radial feeder of B buses in an order in which parents come first; the substation is 0 and its own parent.

    Attributes:
        name: of it. bus: (B,) each bus's number where it came from. parent: (B,). r, x: (B,) of the branch to the
            parent, p.u. shunt_g, shunt_b: (B,) admittance at the bus, the branch's lower end included. up_g, up_b: (B,)
            at the branch's upper end. tap_r, tap_i: (B,) ratio of the parent's voltage to that at the upper end.
        slack: p.u., the substation's voltage. load_mw, load_mvar: (B,) nominal loads. inverter: (N,) the buses, as
            ordered here, that have one.
    """

    name: str
    bus: Int
    parent: Int
    r: Float
    x: Float
    shunt_g: Float
    shunt_b: Float
    up_g: Float
    up_b: Float
    tap_r: Float
    tap_i: Float
    slack: float
    load_mw: Float
    load_mvar: Float
    inverter: Int

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Feeder) and self.to_dict() == other.to_dict()

    __hash__ = object.__hash__

    @property
    def size(self) -> int:
        """B, buses."""
        return len(self.parent)

    @property
    def plain(self) -> bool:
        """Whether it has lines alone, without charging."""
        shunts = any(np.any(a) for a in (self.shunt_g, self.shunt_b, self.up_g, self.up_b, self.tap_i))
        return not shunts and bool(np.all(self.tap_r == 1))

    def tree(self) -> Tree:
        """What :mod:`hybridalloc.problems.voltage.flow` reads."""
        return Tree(
            self.parent, self.r, self.x, self.shunt_g, self.shunt_b, self.up_g, self.up_b, self.tap_r, self.tap_i,
            self.slack, self.plain,
        )  # fmt: skip

    def to_dict(self) -> dict[str, Any]:
        """Plain data; :meth:`from_dict` reads it back."""
        parts = {f.name: getattr(self, f.name) for f in fields(self)}
        return {name: part.tolist() if isinstance(part, np.ndarray) else part for name, part in parts.items()}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """A feeder from what :meth:`to_dict` gave.

        Raises:
            InvalidStateError: a field is missing, unknown or misshapen, or the branches are no tree.
        """
        known = [f.name for f in fields(cls)]
        for name in (*known, *data):
            if name not in data or name not in known:
                raise InvalidStateError(f"{echo(name, 30)} is {'unknown' if name in data else 'missing'} in a feeder")
        whole = ("bus", "parent", "inverter")
        arrays = {
            name: read_array(name, data[name], "N", int if name in whole else float)
            for name in known
            if name not in ("name", "slack")
        }
        b = len(arrays["parent"])
        for name, array in arrays.items():
            if name != "inverter" and array.shape != (b,):
                raise InvalidStateError(f"{name} has shape {array.shape}; a feeder of {b} buses needs ({b},)")
            if not np.isfinite(array).all():
                raise InvalidStateError(f"{name} of a feeder holds what is not finite")
        slack = float(read_array("slack", data["slack"], ""))
        parent, order = arrays["parent"], np.arange(b)
        if not b or parent[0] != 0 or (parent[1:] >= order[1:]).any() or (parent < 0).any():
            raise InvalidStateError("parent is no tree: each bus's parent comes before it, and the first is its own")
        if ((arrays["inverter"] < 0) | (arrays["inverter"] >= b)).any():
            raise InvalidStateError(f"inverter = {arrays['inverter'].tolist()}; buses are 0 to {b - 1}")
        if not 0.5 < slack < 1.5:
            raise InvalidStateError(f"slack = {slack}; it is a voltage in p.u., between 0.5 and 1.5")
        return cls(name=str(data["name"])[:80], slack=slack, **arrays)


def feeder_of(
    name: str, branches: Sequence[Branch], root: int, loads: Mapping[int, complex], inverters: Sequence[int],
    slack: float = 1.0, shunts: Mapping[int, complex] | None = None,
) -> Feeder:  # fmt: skip
    """A feeder from its branches, ordered from the substation down by depth-first search.

    Args:
        root: the substation. loads: nominal, MW + j Mvar by bus. inverters: buses that have one. slack: p.u. shunts:
            admittance p.u. by bus.

    Raises:
        InvalidStateError: a loop (says which bus closes it), a bus that no branch reaches, an inverter or a load at a
            bus that is not there.
    """
    near: dict[int, list[int]] = {}
    for k, branch in enumerate(branches):
        if not abs(branch.impedance) > 0 or not abs(branch.ratio) > 0:
            raise InvalidStateError(
                f"branch {branch.first}-{branch.second} has impedance {branch.impedance} and ratio {branch.ratio}; "
                "neither may be 0 (join the buses instead)"
            )
        near.setdefault(branch.first, []).append(k)
        near.setdefault(branch.second, []).append(k)
    order, parent, used = [root], [0], [-1]
    place, stack = {root: 0}, [root]
    while stack:
        here = stack.pop()
        for k in near.get(here, ()):
            branch = branches[k]
            there = branch.second if branch.first == here else branch.first
            if k == used[place[here]]:
                continue
            if there in place:
                raise InvalidStateError(
                    f"{name} is meshed: branch {branch.first}-{branch.second} closes a loop at bus {there}; open one "
                    "of the loop's branches (feeders here are radial)"
                )
            place[there] = len(order)
            order.append(there)
            parent.append(place[here])
            used.append(k)
            stack.append(there)
    for what, buses in (("an inverter", inverters), ("a load", loads), ("a shunt", shunts or ())):
        for bus in buses:
            if bus not in place:
                known = ", ".join(map(str, sorted(place)[:12])) + (" ..." if len(place) > 12 else "")
                raise InvalidStateError(
                    f"{name} has {what} at bus {bus}, which is not there or not connected to the substation {root}: "
                    f"no such bus, or an open switch or line; its buses are {known}"
                )
    lost = sorted(set(near) - set(place))
    if lost:
        raise InvalidStateError(
            f"{name}: bus {lost[0]}{' and others' if len(lost) > 1 else ''} has branches but is not connected to the "
            f"substation {root}; close the switch or line, or leave it out"
        )
    b = len(order)
    r, x, tap, down, up = np.zeros(b), np.zeros(b), np.ones(b, complex), np.zeros(b, complex), np.zeros(b, complex)
    for bus, y in (shunts or {}).items():
        down[place[bus]] += y
    for k in range(1, b):
        branch = branches[used[k]]
        upright = branch.first == order[parent[k]]
        # seen from the parent; a transformer at the lower end is moved to the upper one
        inner = 1 + 0j if upright else branch.ratio
        z = branch.impedance * abs(inner) ** 2
        ends = branch.shunt if upright else branch.shunt[::-1]
        r[k], x[k], tap[k] = z.real, z.imag, (branch.ratio if upright else 1 / branch.ratio)
        up[k] += ends[0] / abs(inner) ** 2
        down[k] += ends[1] / abs(inner) ** 2
    load = np.zeros(b, complex)
    for bus, s in loads.items():
        load[place[bus]] += s
    found = np.array([place[bus] for bus in inverters], np.int64)
    f = np.ascontiguousarray
    return Feeder(
        name, np.array(order, np.int64), np.array(parent, np.int64), r, x, f(down.real), f(down.imag), f(up.real),
        f(up.imag), f(tap.real), f(tap.imag), float(slack), f(load.real), f(load.imag), found,
    )  # fmt: skip


def case33(inverters: Sequence[int] = INVERTERS) -> Feeder:
    """Baran and Wu's feeder with inverters at these buses."""
    base = KV**2
    branches = [Branch(a, b, complex(r, x) / base) for a, b, r, x, _, _ in BRANCHES]
    return feeder_of("case33", branches, 0, {b: complex(p, q) for _, b, _, _, p, q in BRANCHES}, inverters)


def copies(count: int, inverters: Sequence[int] = INVERTERS) -> Feeder:
    """``count`` of :func:`case33` below one substation, behind its transformer; bus b of copy c is 1 + 33 c + b."""
    one = case33(inverters)
    whole_number("copies", count, 1, MOST_COPIES)
    branches = [Branch(0, 1, complex(*SERIES) / count)]
    loads: dict[int, complex] = {}
    places = []
    base = KV**2
    for c in range(count):
        number = lambda bus, c=c: 1 if bus == 0 else 1 + 33 * c + bus
        branches += [Branch(number(a), number(b), complex(r, x) / base) for a, b, r, x, _, _ in BRANCHES]
        loads |= {number(b): complex(p, q) for _, b, _, _, p, q in BRANCHES}
        places += [number(int(one.bus[k])) for k in one.inverter]
    return feeder_of(f"copies-{count}", branches, 0, loads, places)


def feeder_named(name: str, inverters: Sequence[int] | None = None) -> Feeder:
    """A built-in feeder: "case33" or "copies-k".

    Raises:
        InvalidStateError: no such feeder.
    """
    at = INVERTERS if inverters is None else inverters
    if name == "case33":
        return case33(at)
    head, _, count = name.partition("-")
    if head == "copies" and count.isdigit():
        return copies(int(count), at)
    raise InvalidStateError(
        f"feeder = {echo(name)}; it is 'case33', 'copies-k' (k feeders below one substation), or a Feeder such as "
        "hybridalloc.problems.voltage.grid.feeder_from(net) makes of a pandapower net"
    )
