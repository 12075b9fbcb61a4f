"""Checkpoints: resumed training is uninterrupted training, to the last bit; what does not belong is refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from hybridalloc import make_problem
from hybridalloc.allocator import CheckpointError
from hybridalloc.training.checkpoints import Checkpoints, first_difference, pack, read, run_of, unpack, write
from hybridalloc.training.config import TrainConfig
from hybridalloc.training.learners import learner_settings
from hybridalloc.training.trainer import train
from rl.registry import LEARNERS

HOUSE = Path(__file__).resolve().parents[2]
SLOTS = 32
TINY = TrainConfig(
    "imappo", "hybrid", SLOTS * 4 * 6, networks=4, checks=2, check_seeds=1, check_slots=1, belief_steps=96,
    settings=(("horizon", 8),),
)  # fmt: skip
QUICK = (("horizon", 8), ("batch", 32), ("warmup", 4))
REPLAYING = ("dqn", "iql", "vdn", "qmix", "maddpg")
VARIANTS = {n: replace(TINY, learner=n, settings=QUICK if n in REPLAYING else TINY.settings) for n in LEARNERS} | {
    "dqn, all switches": replace(
        TINY, learner="dqn", kind="rl", settings=(*QUICK, ("prioritised", True), ("steps", 3), ("capacity", 20))
    ),
    "learned belief, schedules": replace(TINY, belief="learned", trust_end=2.0, rate_schedule="cosine"),
    "imappo, heads and memory": replace(TINY, settings=(("horizon", 8), ("continuous", ("power",)), ("memory", 4))),
    "imappo, recent policies": replace(TINY, settings=(("horizon", 8), ("replay", 2))),
    "graph network": replace(TINY, settings=(("horizon", 8), ("network", "graph"))),
    "bayesian belief": replace(TINY, learner="mappo", belief="bayesian"),
}


@dataclass
class Flags:
    """Of a command that asks for nothing of its own."""

    learner: str = "imappo"


class Stop(Exception):
    pass


def make():
    return make_problem("mec", agents=6, servers=2)


def interrupted(steps, figures):
    """A report that stops the run at an update in its midst, before that slot's checkpoint is written."""
    if "value_loss" in figures and steps >= 14 * 24:
        raise Stop


def same(a, b, at=""):
    """Every array, number and text of two states is the same."""
    assert type(a) is type(b), at
    if isinstance(a, dict):
        assert a.keys() == b.keys(), at
        for k in a:
            same(a[k], b[k], f"{at}.{k}")
    elif isinstance(a, list | tuple):
        assert len(a) == len(b), at
        for k, (x, y) in enumerate(zip(a, b, strict=True)):
            same(x, y, f"{at}.{k}")
    elif isinstance(a, torch.Tensor):
        assert torch.equal(a, b), at
    elif isinstance(a, np.ndarray):
        np.testing.assert_array_equal(a, b, at)
    else:
        assert a == b, at


def rows(trained):
    return [{k: v for k, v in row.items() if not k.startswith("time/")} for row in trained.updates]


def assert_same_run(a, b):
    same(a.learner.state_dict(), b.learner.state_dict())
    same(a.learner.policy.weights, b.learner.policy.weights)
    assert rows(a) == rows(b) and a.curve == b.curve
    assert (a.allocations, a.violations, a.overloads) == (b.allocations, b.violations, b.overloads)
    if a.belief is not None and a.belief.learns:
        same(a.belief.state_dict(), b.belief.state_dict())


@pytest.mark.parametrize("name", VARIANTS)
def test_a_resumed_run_is_the_uninterrupted_one(name, tmp_path):
    """Stopped in the middle of a rollout and again from a best one; a fresh problem, batch and learner each time."""
    config = VARIANTS[name]
    prices = make().card.prices()
    whole = train(make(), prices, config, checkpoints=Checkpoints(tmp_path / "whole", 5 * 24))
    assert len(whole.updates) >= 3
    last = read(tmp_path / "whole" / "last.pt")
    assert last["agent_steps"] == config.agent_steps
    with pytest.raises(Stop):
        train(make(), prices, config, interrupted, checkpoints=Checkpoints(tmp_path / "cut", 5 * 24))
    path = tmp_path / "cut" / "last.pt"
    before = path.read_bytes()
    assert 0 < read(path)["agent_steps"] < config.agent_steps
    resumed = train(make(), prices, config, checkpoints=Checkpoints(tmp_path / "on", 10**9, path))
    assert_same_run(whole, resumed)
    assert path.read_bytes() == before
    if name in ("a3c", "imappo", "dqn, all switches"):
        best = tmp_path / "cut" / "best.pt"
        resumed = train(make(), prices, config, checkpoints=Checkpoints(tmp_path / "on", 10**9, best))
        assert_same_run(whole, resumed)
    assert sorted(p.name for p in (tmp_path / "cut").iterdir()) == ["best.pt", "last.pt"]


def test_a_killed_process_loses_at_most_one_interval(tmp_path):
    config = VARIANTS["dqn, all switches"]
    code = f"""
import os, sys
from hybridalloc import make_problem
from hybridalloc.training.checkpoints import Checkpoints
from hybridalloc.training.config import TrainConfig
from hybridalloc.training.learners import learner_settings
from hybridalloc.training.trainer import train
problem = make_problem("mec", agents=6, servers=2)
def report(steps, figures):
    if steps >= 26 * 24:
        os.kill(os.getpid(), 9)
train(problem, problem.card.prices(), {config!r}, report, checkpoints=Checkpoints({str(tmp_path)!r}, 5 * 24))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=HOUSE)
    assert done.returncode == -9, done.stderr
    found = read(tmp_path / "last.pt")
    assert 26 * 24 - found["agent_steps"] <= 5 * 24 + 24
    resumed = train(
        make(), make().card.prices(), config, checkpoints=Checkpoints(tmp_path, 10**9, tmp_path / "last.pt")
    )
    assert_same_run(train(make(), make().card.prices(), config), resumed)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    trained = train(make(), make().card.prices(), TINY, checkpoints=Checkpoints(folder, 5 * 24))
    return folder, trained


def refused(path, message, problem=None, config=TINY, prices=None):
    before = path.read_bytes() if path.exists() else b""
    problem = problem or make()
    with pytest.raises(CheckpointError, match=message):
        train(problem, prices or problem.card.prices(), config, checkpoints=Checkpoints(path.parent, resume=path))
    assert (path.read_bytes() if path.exists() else b"") == before


def test_a_checkpoint_of_another_run_is_refused_with_the_first_difference(finished):
    last = finished[0] / "last.pt"
    other, calm = (make_problem("mec", agents=n, servers=2, bursts=b) for n, b in ((7, True), (6, False)))
    refused(last, r"of another run: problem\.agents is 6 there and 7 here; it was left as it is", other)
    refused(last, r"problem\.dynamics\.bursts is True there and False here", calm)
    refused(last, r"training\.learner is 'imappo' there and 'dqn' here", config=replace(TINY, learner="dqn"))
    refused(last, r"training\.agent_steps is 768 there", config=replace(TINY, agent_steps=999))
    refused(last, r"prices\.toll is", prices=make().card.prices(toll=3.25))


def older(last, path):
    """The file as it was written when only what differed from the defaults was said of the learner, and no leakage was
    charged."""
    found = read(last)
    identity = json.loads(found["identity"])
    del identity["learner"], identity["prices"]["leakage"]
    identity["training"]["settings"] = [["horizon", 8], ["continuous", []]]
    write(path, found | {"identity": json.dumps(identity)})


def test_a_checkpoint_goes_on_with_the_settings_that_were_the_defaults_when_it_was_written(tmp_path):
    was = (
        *TINY.settings, ("gamma", 0.9), ("gae", 0.9), ("entropy", 2e-3), ("rate", 3e-3), ("epochs", 4),
        ("minibatches", 4), ("critic", "central"),
    )  # fmt: skip
    begun = replace(TINY, kind="rl", settings=(*was, ("limit", 10.0)))
    whole = train(make(), make().card.prices(leakage=0.0), begun, checkpoints=Checkpoints(tmp_path, 5 * 24))
    older(tmp_path / "last.pt", tmp_path / "old.pt")
    _, prices, config = run_of(tmp_path / "old.pt", Flags())
    again = train(make(), prices, config, checkpoints=Checkpoints(tmp_path / "on", resume=tmp_path / "old.pt"))
    assert again.learner.config == whole.learner.config and again.learner.config.limit == 10.0
    assert_same_run(whole, again)
    told = r"learner\.limit is 10\.0 there and 40\.0 here"
    refused(tmp_path / "old.pt", told, config=replace(begun, settings=was), prices=prices)


def test_a_learner_alone_has_a_limit_of_its_own_and_one_that_is_asked_for():
    limit = lambda kind, *given: learner_settings(make(), replace(TINY, kind=kind, settings=given))["limit"]
    assert limit("hybrid") == 10.0 and limit("rl") == 40.0 and limit("rl", ("limit", 7.0)) == 7.0


def test_a_damaged_or_foreign_file_is_refused(finished, tmp_path):
    whole = (finished[0] / "last.pt").read_bytes()
    for share in (0.0, 0.3, 0.99):
        (tmp_path / "cut.pt").write_bytes(whole[: int(share * len(whole))])
        refused(tmp_path / "cut.pt", r"cut\.pt is truncated or (not a checkpoint|damaged)")
    (tmp_path / "text.pt").write_text("an allocator?")
    refused(tmp_path / "text.pt", "truncated or not a checkpoint")
    torch.save({"weights": torch.ones(3)}, tmp_path / "foreign.pt")
    refused(tmp_path / "foreign.pt", "not a checkpoint of a training run; `hybridalloc train` writes them")
    write(tmp_path / "other.pt", {"weights": torch.ones(3)})
    refused(tmp_path / "other.pt", "is not a checkpoint of a training run .*no identity")
    (tmp_path / "new.pt").write_bytes(whole.replace(b"checkpoint 3 sha256", b"checkpoint 9 sha256", 1))
    refused(tmp_path / "new.pt", "has format 9; this version reads format 3")
    refused(tmp_path / "none.pt", r"no checkpoint at .*none\.pt")
    content = read(finished[0] / "last.pt")
    content["parts"]["learner"].pop("critic")
    write(tmp_path / "part.pt", content)
    refused(tmp_path / "part.pt", "does not fit this version's imappo .*critic")


class Harmful:
    def __reduce__(self):
        return os.system, ("echo harm > harmed",)


def test_reading_runs_no_code_of_the_files_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "harm.pt", {"identity": "{}", "parts": Harmful()})
    refused(tmp_path / "harm.pt", "is not a checkpoint of a training run")
    assert not (tmp_path / "harmed").exists()


def test_a_gradient_that_is_not_finite_stops_with_the_last_good_checkpoint_named(tmp_path, monkeypatch):
    from rl.mappo import Mappo

    update = Mappo.update

    def spoiled(self, last, progress):
        if self.updates == 3:
            with torch.no_grad():
                self.critic.out.weight.fill_(float("nan"))
        return update(self, last, progress)

    monkeypatch.setattr(Mappo, "update", spoiled)
    with pytest.raises(FloatingPointError, match=r"training stopped after .* the last good checkpoint is .*last\.pt"):
        train(make(), make().card.prices(), TINY, checkpoints=Checkpoints(tmp_path, 24))
    monkeypatch.undo()
    kept = read(tmp_path / "last.pt")
    assert kept["agent_steps"] >= TINY.agent_steps // 3
    resumed = train(make(), make().card.prices(), TINY, checkpoints=Checkpoints(tmp_path, resume=tmp_path / "last.pt"))
    assert_same_run(train(make(), make().card.prices(), TINY), resumed)


def test_a_state_with_a_nan_is_never_written(finished, tmp_path):
    keeper = Checkpoints(tmp_path, 24)
    learner = finished[1].learner
    keeper.keep(24, {"learner": learner}, {})
    before = (tmp_path / "last.pt").read_bytes()
    spoiled = type("Learner", (), {"state_dict": lambda self: learner.state_dict() | {"norm": {"mean": float("nan")}}})
    with pytest.raises(FloatingPointError, match=r"learner's norm\.mean holds nan.*last good checkpoint .*\(24 agent"):
        keeper.keep(48, {"learner": spoiled()}, {})
    assert (tmp_path / "last.pt").read_bytes() == before


def test_a_writing_that_breaks_off_leaves_the_one_before(finished, tmp_path, monkeypatch):
    keeper = Checkpoints(tmp_path, 24)
    keeper.keep(24, {"learner": finished[1].learner}, {})
    before = (tmp_path / "last.pt").read_bytes()

    def full(content, file):
        file.write(b"half")
        raise OSError("no space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match="no space"):
        keeper.keep(48, {"learner": finished[1].learner}, {})
    assert (tmp_path / "last.pt").read_bytes() == before


def test_pack_and_unpack_are_inverse_and_refuse_objects():
    generator = np.random.default_rng(3)
    state = {
        "a": [np.arange(6.0).reshape(2, 3)[:, ::2], np.array(True), np.float32(0.1), np.array("text")],
        "b": (1, None, 2.5, "x", {"c": torch.ones(2)}), "d": np.zeros((0, 2), np.int64),
        "e": json.dumps(generator.bit_generator.state), 5: True,
    }  # fmt: skip
    back = unpack(pack(state))
    same(back, state)
    assert isinstance(back["a"][2], np.float32) and back["a"][1].shape == ()
    with pytest.raises(TypeError, match="a Generator cannot be kept"):
        pack({"rng": generator})
    with pytest.raises(ValueError, match="checkpoint_every = 0; it must be > 0"):
        Checkpoints("folder", 0)
    assert first_difference({"a": {"b": 1}}, {"a": {"b": 1}}) == ""
    assert first_difference({"a": {"b": 1}}, {"a": {}}) == "a.b is known to one of them only"
