"""The pandapower controller, in pandapower's own time series."""

from __future__ import annotations

import numpy as np
import pytest

pp = pytest.importorskip("pandapower", reason="pandapower (extra grid) is not installed")


def run(controlled, steps=6, **settings):
    """Six steps of growing sun on the 33-bus feeder; voltages (T, B) and losses (T,)."""
    import pandas as pd
    from pandapower.control import ConstControl
    from pandapower.networks import case33bw
    from pandapower.timeseries import DFData, OutputWriter, run_timeseries

    from hybridalloc.serving.pandapower import voltage_controller

    net = case33bw()
    for bus in (12, 17, 21, 24, 28, 32):
        pp.create_sgen(net, bus, p_mw=0.3, q_mvar=0.0, sn_mva=1.6)
    sun = DFData(pd.DataFrame({i: np.linspace(0.2, 1.2, steps) for i in net.sgen.index}))
    ConstControl(net, "sgen", "p_mw", net.sgen.index, profile_name=net.sgen.index, data_source=sun, order=-1)
    made = voltage_controller(net, **settings) if controlled else None
    writer = OutputWriter(net, time_steps=range(steps))
    writer.log_variable("res_bus", "vm_pu")
    writer.log_variable("res_line", "pl_mw")
    run_timeseries(net, time_steps=range(steps), verbose=False)
    return made, writer.output["res_bus.vm_pu"].to_numpy(), writer.output["res_line.pl_mw"].sum(axis=1).to_numpy()


def test_a_time_series_runs_with_the_hybrid_as_its_controller():
    _, before, _ = run(False)
    made, after, loss = run(True)
    assert before.max() > 1.08 or before.min() < 0.93
    assert after.max() <= 1.05 + 1e-6 and after.min() >= 0.95 - 1e-6
    assert len(made.allocations) == 6 and all(a.certificate.feasible for a in made.allocations)
    assert all(a.certificate.source == "game" and a.certificate.status == "ok" for a in made.allocations)
    _, shy, more = run(True, steps=6, low=0.90, high=1.10)
    assert more.sum() <= loss.sum() + 1e-9 and shy.max() > 1.05  # a wider band, less loss


def test_an_allocator_of_another_feeder_and_settings_beside_one_are_refused():
    from pandapower.networks import case33bw

    from hybridalloc import Allocator, make_problem
    from hybridalloc.serving.pandapower import voltage_controller

    net = case33bw()
    pp.create_sgen(net, 12, p_mw=0.3)
    other = Allocator(make_problem("voltage"), "game")
    with pytest.raises(ValueError, match="not of the net's feeder of 33 buses and 1 static generators"):
        voltage_controller(net, other)
    with pytest.raises(ValueError, match="low: settings go with the controller's own allocator"):
        voltage_controller(net, other, low=0.9)
