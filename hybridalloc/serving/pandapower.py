"""A pandapower controller that sets a net's static generators by an allocator of ``voltage`` (extra ``grid``).

    net = pandapower.networks.case33bw()                      # with static generators and loads, profiles attached
    controller = voltage_controller(net)                      # or with an allocator of one's own
    pandapower.timeseries.run_timeseries(net, time_steps=range(96))

In each time step it reads sun (``sgen.p_mw``), and loads as its problem's information says: "now" the present ones,
"15 min" and "day" those of as many steps ago, as they were in the run. Voltages and reactive power of its generators
are those of the last step. It writes ``sgen.q_mvar``; the local reaction within a step is not pandapower's, so plans
are held.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from hybridalloc.allocation import Allocation
from hybridalloc.allocator import Allocator
from hybridalloc.problems import make_problem
from hybridalloc.problems.voltage.grid import feeder_from
from hybridalloc.problems.voltage.state import VoltageState


def voltage_controller(net: Any, allocator: Allocator | None = None, order: int = 0, **settings: Any) -> Any:
    """Put a controller into ``net`` that runs its static generators; it is a pandapower ``BasicCtrl``.

    Args:
        net: radial, see :func:`hybridalloc.problems.voltage.grid.feeder_from`; its static generators in service are the
            inverters, rated by ``sgen.sn_mva`` where that is given, else 1.2 times their present ``p_mw``.
        allocator: of a ``voltage`` problem of this feeder; default the game of ``make_problem("voltage", feeder=...,
            **settings)`` with loads known now and q held.
        order: of pandapower's controllers, of which profiles' come first (at a lower order).

    Returns:
        the controller; ``allocations`` holds what was decided in each time step.

    Raises:
        InvalidStateError: the net is no radial feeder. ValueError: the allocator is of another feeder.
        ImportError: pandapower is not installed.
    """
    from pandapower.control.basic_controller import Controller

    from hybridalloc.problems.voltage.problem import Voltage

    feeder = feeder_from(net)
    sgens = net.sgen.index[net.sgen.in_service].to_numpy()
    if allocator is None:
        given = {"information": "now", "held": True} | settings
        allocator = Allocator(make_problem("voltage", feeder=feeder, **given), "game")
    elif settings:
        raise ValueError(f"{', '.join(settings)}: settings go with the controller's own allocator")
    problem = allocator.problem
    if not isinstance(problem, Voltage) or problem.net.size != feeder.size or len(problem.net.inverter) != len(sgens):
        raise ValueError(
            f"this allocator is not of the net's feeder of {feeder.size} buses and {len(sgens)} static generators; "
            "make its problem with feeder=feeder_from(net)"
        )
    decide, age = allocator.step, problem.age
    rating = net.sgen.sn_mva.loc[sgens].to_numpy(np.float64)
    present = np.abs(net.sgen.p_mw.loc[sgens].to_numpy(np.float64))
    rating = np.where(np.isfinite(rating) & (rating > 0), rating, np.maximum(1.2 * present, 1e-6))
    number = net._pd2ppc_lookups["bus"]
    place = {int(number[int(bus)]): k for k, bus in enumerate(feeder.bus) if bus >= 0}

    class VoltageController(Controller):
        def __init__(self) -> None:
            super().__init__(net, in_service=True, order=order, level=0)
            self.allocations: list[Allocation] = []
            self.log: list[tuple[Any, Any]] = []  # loads by step
            self.last: list[tuple[Any, Any, Any]] = []  # sun, voltage and q of the inverters by step
            self.done = False

        def time_step(self, net: Any, time: int) -> None:
            """A step begins: what the last one came to is read before its results are gone."""
            if self.allocations and len(net.res_bus):
                voltage = net.res_bus.vm_pu.loc[net.sgen.bus.loc[sgens]].to_numpy(np.float64)
                self.last.append((self._sun(net), voltage, net.sgen.q_mvar.loc[sgens].to_numpy(np.float64)))
            self.time, self.done = int(time), False

        def is_converged(self, net: Any) -> bool:
            return self.done

        def control_step(self, net: Any) -> None:
            """Read, decide, write."""
            allocation = decide(self._state(net))
            self.allocations.append(allocation)
            net.sgen.loc[sgens, "q_mvar"] = allocation.reactive_mvar
            self.done = True

        def _sun(self, net: Any) -> Any:
            return net.sgen.p_mw.loc[sgens].to_numpy(np.float64) * net.sgen.scaling.loc[sgens].to_numpy(np.float64)

        def _state(self, net: Any) -> VoltageState:
            p, q = np.zeros(feeder.size), np.zeros(feeder.size)
            for load in net.load[net.load.in_service].itertuples():
                at = place.get(int(number[load.bus]))
                if at is not None:
                    p[at] += load.p_mw * load.scaling
                    q[at] += load.q_mvar * load.scaling
            self.log.append((p, q))
            ago = lambda steps: self.log[max(len(self.log) - 1 - steps, 0)]
            sun, none = self._sun(net), np.zeros(len(sgens))
            seen = lambda back: self.last[-back] if len(self.last) >= back else (none, none + 1.0, none)
            (s1, v1, q1), (s2, v2, q2) = seen(1), seen(2)
            now, before, week = ago(age), ago(age + 1), ago(672)
            day = lambda steps: self.last[-steps][0] if len(self.last) >= steps else none
            return VoltageState(
                sun_mw=np.clip(sun, 0.0, rating), rating_mva=rating, load_mw=now[0], load_mvar=now[1],
                voltage_last=v1, voltage_before=v2, reactive_last_mvar=q1, reactive_before_mvar=q2, sun_last_mw=s1,
                sun_before_mw=s2, sun_day_mw=day(96), sun_day_before_mw=day(97), load_before_mw=before[0],
                load_before_mvar=before[1], load_week_mw=week[0], load_week_mvar=week[1],
                step=getattr(self, "time", 0),
            )  # fmt: skip

    return VoltageController()
