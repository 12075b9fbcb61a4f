"""AC flow: against pandapower on random injections, larger nets, closed forms; feeders that are refused."""

from __future__ import annotations

import time

import numpy as np
import pytest

from games.errors import InvalidStateError
from hybridalloc.problems.voltage.core import shared_path
from hybridalloc.problems.voltage.feeder import Branch, Feeder, case33, copies, feeder_named, feeder_of
from hybridalloc.problems.voltage.flow import flows


def injections(feeder, count, seed=0):
    rng = np.random.default_rng(seed)
    p = feeder.load_mw * rng.uniform(0, 1.2, (count, feeder.size))
    q = feeder.load_mvar * rng.uniform(0, 1.2, (count, feeder.size))
    p[:, feeder.inverter] -= rng.uniform(0, 1.6, (count, len(feeder.inverter)))
    q[:, feeder.inverter] -= rng.uniform(-1, 1, (count, len(feeder.inverter)))
    return p, q


def mismatch(feeder, p, q, voltage):
    """(E,) worst error of power at any bus but the substation, by the admittance matrix, for a feeder of lines: the
    angles are found again from the magnitudes' flow."""
    n = feeder.size
    z = feeder.r + 1j * feeder.x
    worst = []
    for e in range(len(p)):
        v = voltage[e].astype(complex)
        for _ in range(200):
            current = np.conj((p[e] + 1j * q[e]) / v)
            for k in range(n - 1, 0, -1):
                current[feeder.parent[k]] += current[k]
            for k in range(1, n):
                v[k] = v[feeder.parent[k]] - z[k] * current[k]
        worst.append(np.abs(np.abs(v) - voltage[e]).max())
    return np.array(worst)


SAME_NET = {"bus_pq": True, "gen": False, "trafo": False}  # only powers change: its matrices are made once


def test_1000_random_injections_are_pandapowers_to_1e8():
    pp = pytest.importorskip("pandapower", reason="pandapower (extra grid) is not installed")
    nets = pytest.importorskip("pandapower.networks")
    net, feeder = nets.case33bw(), case33()
    p, q = injections(feeder, 1000)
    found = flows(feeder, p, q)
    assert found.found.all()
    for bus in range(1, 33):
        pp.create_sgen(net, bus, p_mw=0.0, q_mvar=0.0)
    net.load["p_mw"] = 0.0
    net.load["q_mvar"] = 0.0
    place = {int(bus): k for k, bus in enumerate(feeder.bus)}
    rows = [place[bus] for bus in range(33)]
    for e in range(1000):
        net.sgen["p_mw"], net.sgen["q_mvar"] = -p[e, rows[1:]], -q[e, rows[1:]]
        pp.runpp(net, tolerance_mva=1e-9, numba=False, recycle=SAME_NET)
        assert np.abs(net.res_bus.vm_pu.to_numpy() - found.voltage[e, rows]).max() <= 1e-8
        assert abs(net.res_line.pl_mw.sum() - found.loss[e]) <= 1e-7


@pytest.mark.parametrize("name", ["case33bw", "create_cigre_network_mv", "create_cigre_network_lv"])
def test_other_nets_with_charging_taps_and_open_switches_are_pandapowers(name):
    pp = pytest.importorskip("pandapower", reason="pandapower (extra grid) is not installed")
    nets = pytest.importorskip("pandapower.networks")
    from hybridalloc.problems.voltage.grid import feeder_from

    net = getattr(nets, name)()
    feeder = feeder_from(net)
    assert feeder.plain == (name == "case33bw")
    pp.runpp(net, tolerance_mva=1e-9, calculate_voltage_angles=True)
    found = flows(feeder, feeder.load_mw[None], feeder.load_mvar[None])
    place = {int(bus): k for k, bus in enumerate(feeder.bus)}
    for bus in set(net.bus.index[net.bus.in_service]) & set(place):
        assert abs(net.res_bus.vm_pu[bus] - found.voltage[0, place[bus]]) <= 1e-8
    loss = net.res_line.pl_mw.sum() + (net.res_trafo.pl_mw.sum() if len(net.trafo) else 0.0)
    assert found.loss[0] == pytest.approx(loss, abs=1e-7)
    again = Feeder.from_dict(feeder.to_dict())
    np.testing.assert_array_equal(flows(again, feeder.load_mw[None], feeder.load_mvar[None]).voltage, found.voltage)


def test_what_is_no_radial_feeder_is_refused_with_the_reason():
    pp = pytest.importorskip("pandapower", reason="pandapower (extra grid) is not installed")
    nets = pytest.importorskip("pandapower.networks")
    from hybridalloc.problems.voltage.grid import feeder_from

    net = nets.case33bw()
    net.line.loc[32, "in_service"] = True
    with pytest.raises(InvalidStateError, match=r"is meshed: branch .* closes a loop at bus"):
        feeder_from(net)
    net = nets.case33bw()
    pp.create_switch(net, 5, 5, et="l", closed=False)
    with pytest.raises(InvalidStateError, match=r"an inverter at bus 17, which is not there or not connected"):
        feeder_from(net, [17])
    with pytest.raises(InvalidStateError, match="an inverter at bus 99, which is not there or not in service"):
        feeder_from(nets.case33bw(), [99])
    net = nets.case33bw()
    pp.create_gen(net, 3, p_mw=0.1, vm_pu=1.0)
    with pytest.raises(InvalidStateError, match="1 generators that hold a voltage"):
        feeder_from(net)


def test_two_buses_have_the_textbook_voltage():
    """v^2 solves v^4 - (v0^2 - 2 (r p + x q)) v^2 + (r^2 + x^2)(p^2 + q^2) = 0."""
    r, x, p, q = 0.03, 0.05, 1.5, 0.7
    feeder = feeder_of("two", [Branch(0, 1, complex(r, x))], 0, {}, [1])
    found = flows(feeder, np.array([[0, p]]), np.array([[0, q]]))
    b, c = 1 - 2 * (r * p + x * q), (r * r + x * x) * (p * p + q * q)
    v2 = (b + np.sqrt(b * b - 4 * c)) / 2
    assert found.voltage[0, 1] == pytest.approx(np.sqrt(v2), abs=1e-11)
    assert found.loss[0] == pytest.approx(r * (p * p + q * q) / v2, abs=1e-10)
    none = flows(feeder, np.array([[0, 20.0]]), np.array([[0, 20.0]]))
    assert not none.found[0] and np.isnan(none.loss[0]) and np.isnan(none.voltage[0]).all()


def test_copies_are_the_feeder_where_nothing_is_shared_and_columns_are_those_of_the_dense_matrix():
    feeder = copies(3)
    assert feeder.size == 2 + 3 * 32 and len(feeder.inverter) == 18
    p, q = injections(feeder, 20)
    assert mismatch(feeder, p, q, flows(feeder, p, q).voltage).max() < 1e-8
    path = np.zeros((feeder.size, feeder.size))
    for k in range(1, feeder.size):
        path[k] = path[feeder.parent[k]]
        path[k, k] = 1
    dense = path @ np.diag(feeder.r) @ path.T
    np.testing.assert_allclose(shared_path(feeder.parent, feeder.r, feeder.inverter), dense[:, feeder.inverter])


def test_a_flow_takes_microseconds():
    feeder = case33()
    p, q = injections(feeder, 5000)
    flows(feeder, p[:2], q[:2])
    began = time.perf_counter()
    flows(feeder, p, q)
    assert 5000 / (time.perf_counter() - began) > 20_000


BAD = [
    (lambda: feeder_named("case34"), r"feeder = 'case34'; it is 'case33', 'copies-k'"),
    (lambda: feeder_named("copies-0"), r"copies = 0; it must be a whole number from 1 to 1000"),
    (lambda: case33([40]), r"case33 has an inverter at bus 40, which is not there"),
    (
        lambda: feeder_of("loop", [Branch(0, 1, 1j), Branch(1, 2, 1j), Branch(2, 0, 1j)], 0, {}, []),
        r"loop is meshed: branch \d-\d closes a loop at bus \d",
    ),
    (lambda: feeder_of("cut", [Branch(0, 1, 1j), Branch(2, 3, 1j)], 0, {}, []), r"cut: bus 2 and others has branches"),
    (lambda: feeder_of("zero", [Branch(0, 1, 0j)], 0, {}, []), r"branch 0-1 has impedance 0j"),
    (lambda: Feeder.from_dict(case33().to_dict() | {"parent": [0] * 32}), r"parent has shape \(32,\)|has shape"),
    (lambda: Feeder.from_dict(case33().to_dict() | {"slack": 3.0}), r"slack = 3.0; it is a voltage"),
    (lambda: Feeder.from_dict(case33().to_dict() | {"inverter": [33]}), r"inverter = \[33\]; buses are 0 to 32"),
    (lambda: Feeder.from_dict({"name": "x"}), r"'bus' is missing in a feeder"),
]


@pytest.mark.parametrize(("make", "message"), BAD)
def test_bad_feeders_are_named(make, message):
    with pytest.raises(InvalidStateError, match=message):
        make()
