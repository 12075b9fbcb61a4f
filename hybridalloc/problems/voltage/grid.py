"""Feeders from pandapower nets (extra ``grid``): any that is radial, with lines, transformers, shunts and switches.

The branches are those that pandapower itself solves: its per-unit table of a net that it has run, MATPOWER's model with
a transformer's ratio at the first bus. A net that it cannot run is refused with its reason.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from games.errors import InvalidStateError
from hybridalloc.problems.voltage.feeder import Branch, Feeder, feeder_of

# columns of pandapower's tables
BUS, GS, BS = 0, 4, 5
FIRST, SECOND, R, X, TAP, SHIFT, STATUS = 0, 1, 2, 3, 8, 9, 10


def feeder_from(net: Any, inverters: Sequence[int] | None = None, name: str = "") -> Feeder:
    """The feeder of a pandapower net; the net is left as it is, but for its results.

    Args:
        inverters: buses by their pandapower index; default those of its static generators in service. name: default
            the net's.

    Raises:
        InvalidStateError: more than one external grid or a generator that holds a voltage, loads that are no constant
            powers, a loop, an inverter at a bus that is not there or is cut off; says which.
        ImportError: pandapower is not installed: ``pip install hybridalloc[grid]``.
    """
    import pandapower as pp

    title = name or str(net.name or "net")
    sources = net.ext_grid[net.ext_grid.in_service]
    holding = len(net.gen[net.gen.in_service]) if len(net.gen) else 0
    if len(sources) != 1 or holding:
        raise InvalidStateError(
            f"{title} has {len(sources)} external grids and {holding} generators that hold a voltage; a feeder has one "
            "substation (make static generators of the others)"
        )
    for column in ("const_z_percent", "const_i_percent", "const_z_p_percent", "const_i_p_percent"):
        if column in net.load and net.load[column].abs().max() > 0:
            raise InvalidStateError(f"{title}: load.{column} is not 0; loads here are constant powers")
    try:
        pp.runpp(net, numba=False, calculate_voltage_angles=True)
    except Exception as error:
        raise InvalidStateError(f"{title}: pandapower does not solve it ({type(error).__name__}: {error})") from error
    table, number = net._ppc, net._pd2ppc_lookups["bus"]
    base = float(table["baseMVA"])
    place: dict[int, int] = {}  # a row of its table: the first bus that is joined into it
    for bus in sorted(net.bus.index[net.bus.in_service]):
        place.setdefault(int(number[bus]), int(bus))
    joined = lambda bus: place[int(number[bus])]
    branches = []
    for row in table["branch"]:
        if row[STATUS].real < 1:
            continue
        ratio = complex(row[TAP].real or 1.0) * np.exp(1j * np.radians(row[SHIFT].real))
        branches.append(
            Branch(
                _bus(place, row[FIRST]), _bus(place, row[SECOND]), complex(row[R].real, row[X].real) / base,
                _shunts(row, base), ratio,
            )
        )  # fmt: skip
    loads: dict[int, complex] = {}
    for entry in net.load[net.load.in_service].itertuples():
        bus = joined(entry.bus)
        loads[bus] = loads.get(bus, 0j) + complex(entry.p_mw, entry.q_mvar) * entry.scaling
    buses = table["bus"]
    shunts = {
        place[int(row[BUS].real)]: complex(row[GS].real, row[BS].real)
        for row in buses
        if int(row[BUS].real) in place and (row[GS] or row[BS])
    }
    wanted = net.sgen.bus[net.sgen.in_service].tolist() if inverters is None else list(inverters)
    for bus in wanted:
        if bus not in net.bus.index or not net.bus.in_service[bus]:
            raise InvalidStateError(f"{title} has an inverter at bus {bus}, which is not there or not in service")
    root = joined(sources.bus.iloc[0])
    return feeder_of(title, branches, root, loads, [joined(b) for b in wanted], float(sources.vm_pu.iloc[0]), shunts)


def _bus(place: dict[int, int], entry: Any) -> int:
    """The bus of a row; where a line ends at an open switch, pandapower has one of its own, here -1 and below."""
    return place.setdefault(int(entry.real), -1 - int(entry.real))


def _shunts(row: Any, base: float) -> tuple[complex, complex]:
    """Admittance at both ends, p.u. on 1 MVA."""
    from pandapower.pypower import idx_brch

    column = lambda name: row[getattr(idx_brch, name)].real if hasattr(idx_brch, name) else 0.0
    y = complex(column("BR_G"), column("BR_B"))
    return y / 2 * base, (y + complex(column("BR_G_ASYM"), column("BR_B_ASYM"))) / 2 * base
