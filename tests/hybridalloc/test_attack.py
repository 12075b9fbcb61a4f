"""A slice of ``benchmarks/attack.py``, and the faults that it found, one by one."""

from __future__ import annotations

import importlib.util
import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from games.certificate import Audit
from games.certificate_places import _fits
from hybridalloc import Allocator, make_problem
from hybridalloc.certify import certify
from hybridalloc.errors import CheckpointError

_PATH = Path(__file__).resolve().parents[2] / "benchmarks" / "attack.py"
_SPEC = importlib.util.spec_from_file_location("attack_benchmark", _PATH)
attack = importlib.util.module_from_spec(_SPEC)
_first = sys.path[0]
_SPEC.loader.exec_module(attack)
sys.path[0] = _first


def test_plain_loops_find_what_the_certificate_says():
    assert attack.attack(["steps"], steps=240, inputs=0, seed=3) == 0


def test_every_planted_fault_is_caught(capsys):
    found = attack.attack(["plant"], steps=0, inputs=0)
    assert found == 0, capsys.readouterr().out


@pytest.mark.parametrize("kind", attack.KINDS)
def test_inputs_are_answered_or_refused_by_name(kind, capsys):
    pytest.importorskip("mlflow")
    found = attack.attack(
        [kind], steps=0, inputs=int((60 if kind == "checkpoints" else 300) / attack.SHARE[kind]), seed=9
    )
    assert found == 0, capsys.readouterr().out


def test_an_attack_finds_what_is_wrong():
    """The loops do not merely repeat the certificate: a lie in it is found."""

    problem = make_problem("mec", agents=12, servers=3)
    state = problem.reset(1)
    allocation = Allocator(problem, "game").step(state)
    lies = {
        "served": replace(allocation, served=~allocation.served),
        "regret": replace(allocation, certificate=replace(allocation.certificate, regret=0.5)),
        "envy": replace(allocation, certificate=replace(allocation.certificate, envy=(0,))),
        "limit": replace(allocation, shares={k: 2 * v for k, v in allocation.shares.items()}),
    }
    assert not attack_findings(problem, state, allocation)
    for kind, lie in lies.items():
        assert kind in {line.split(":")[0] for line in attack_findings(problem, state, lie)}


def attack_findings(problem, state, allocation):
    from benchmarks.attacks.checker import findings

    return findings(problem, state, allocation, problem.card.prices())


def test_the_certificates_least_floors_take_the_least():
    """Of several ways to clamp legs at their room the first that fits need not be the least."""
    rng = np.random.default_rng(0)
    clamped = 0
    for _ in range(500):
        legs = int(rng.integers(2, 4))
        sec, room = rng.uniform(0.1, 1, legs), rng.uniform(0.05, 1, legs)
        slack = (sec / room).sum() * rng.uniform(1.0, 2.0)
        one = np.zeros((1, 1))
        found = Audit(
            np.arange(legs)[None], np.zeros((1, legs)), np.ones(legs), one, one > -1, np.ones(legs), one[0] > -1,
            one[0] > -1, one[0] > -1, sec[None, None], np.full((1, 1), slack), np.full((1, 1), np.inf), one > -1,
            one[0] > 1, np.zeros(1, np.int64), np.zeros(1, np.int64), one[0] > -1, np.zeros((1, legs)),
            np.zeros((1, legs)),
        )  # fmt: skip
        floor = np.zeros(legs)
        assert _fits(found, 0, 0, room, floor)
        low, high = 0.0, (room / np.sqrt(sec * room)).max()
        for _ in range(100):  # f = min(room, m sqrt(sec room)), the conditions' one solution
            m = (low + high) / 2
            low, high = (m, high) if (sec / np.minimum(room, m * np.sqrt(sec * room))).sum() > slack else (low, m)
        np.testing.assert_allclose(floor, np.minimum(room, high * np.sqrt(sec * room)), rtol=1e-7)
        clamped += bool((floor > room * (1 - 1e-9)).any())
    assert clamped > 50


def certified(problem, allocation, **changes):

    return certify(problem, problem.start, replace(allocation, **changes), problem.card.prices(), None, lambda *_: None)


def test_a_custom_agent_draws_what_it_is_said_to():
    problem = make_problem("custom", work=[1.0, 2.0], capacity=[4.0], full_power_w=[[3.0], [2.0]])
    allocation = Allocator(problem, "game").step(problem.start)
    assert certified(problem, allocation).check.feasible
    for power in (0 * allocation.power, 1.1 * allocation.power, np.full(2, np.nan)):
        check = certified(problem, allocation, levels={"power": power}).check
        assert not check.feasible and "power" in check.violations[0]


@pytest.mark.parametrize("option", [-1, 2, 2**40])
def test_an_option_that_is_not_there_is_not_feasible(option):
    problem = make_problem("custom", work=[1.0, 2.0], capacity=[4.0])
    allocation = Allocator(problem, "game").step(problem.start)
    check = certified(problem, allocation, option=np.array([option, 1])).check
    assert any(str(option) in line for line in check.violations)
    assert not any("not checked" in line for line in check.violations)


def test_who_holds_a_place_and_is_late_is_said_whatever_settling_says():
    problem = make_problem("custom", work=[1.0, 1.0], capacity=[4.0], deadline_s=[1.0, 1.0])
    allocation = Allocator(problem, "game").step(problem.start)
    assert allocation.held.all() and not certified(problem, allocation).late
    thin = {"shares": {"share": np.array([0.1, 0.5])}, "floors": {"share": np.array([0.1, 0.5])}}
    verdict = certified(problem, allocation, served=np.array([False, True]), **thin)
    assert verdict.late == (0,)
    assert "agent 0" in verdict.complaints(0.0, True)[0]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 10**400, "1", True])
def test_prices_are_finite_numbers(value):
    problem = make_problem("custom", work=[1.0], capacity=[1.0])
    with pytest.raises(ValueError, match=r"prices\.toll = .*finite number"):
        Allocator(problem, "game", prices=problem.card.prices()._replace(toll=value))
    large = Allocator(problem, "game", prices=problem.card.prices()._replace(toll=10**30))
    assert large.step(problem.start).certificate.feasible


@pytest.mark.parametrize(
    ("field", "value"), [("trust", "x" * 1000), ("prices", {"k" * 1000: 1.0}), ("method", "y" * 1000)]
)
def test_a_files_long_words_are_cut(tmp_path, field, value):
    problem = make_problem("custom", work=[1.0], capacity=[1.0])
    path = Allocator(problem, "game").save(tmp_path / "a.npz")
    with np.load(path) as archive:
        arrays = dict(archive)
    meta = json.loads(str(arrays["meta"])) | {field: value}
    np.savez(path, **arrays | {"meta": np.array(json.dumps(meta))})
    with pytest.raises(CheckpointError) as caught:
        Allocator.load(path)
    assert len(str(caught.value).replace(str(path), "")) < 300 and field in str(caught.value)


def test_who_sends_less_pays_for_what_it_keeps():
    """Power is raised or kept while the fraction falls, and the battery still holds both."""
    problem = make_problem("mec", agents=50, servers=2, load=1.0)
    rng = np.random.default_rng(0)
    for seed in range(60):
        state = replace(problem.reset(seed), battery_j=rng.uniform(0.05, 0.4, 50))
        prices = problem.card.prices(energy=0.02, delay=1.0, margin=rng.uniform(0.6, 1.0))
        for method in ("nearest", "greedy"):
            certificate = Allocator(problem, method, prices=prices).step(state).certificate
            assert certificate.feasible and certificate.status == "ok", certificate.violations
