"""Roll-outs that several collect: what is learned does not depend on who collects them, and where that is."""

from __future__ import annotations

import socket
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hybridalloc import make_problem
from hybridalloc.cli import main
from hybridalloc.errors import UnknownNameError, WorkError
from hybridalloc.experiments import on_ray
from hybridalloc.experiments.compare import Settings, compare
from hybridalloc.experiments.executor import tell
from hybridalloc.machines import Place, build, check_engine, connected
from hybridalloc.training.checkpoints import Checkpoints
from hybridalloc.training.config import TrainConfig
from hybridalloc.training.crew import Here
from hybridalloc.training.trainer import train

TINY = TrainConfig(
    "imappo", "hybrid", 6 * 8 * 5 * 4, networks=5, belief_steps=600, checks=2, check_seeds=2, check_slots=4,
    settings=(("horizon", 8),),
)  # fmt: skip


def make():
    return make_problem("mec", agents=6, servers=2, episode=12)


def trained(config, **options):
    problem = make()
    return train(problem, problem.card.prices(), config, **options)


def assert_same(a, b):
    for name, value in a.learner.policy.weights.items():
        np.testing.assert_array_equal(value, b.learner.policy.weights[name])
    strip = lambda rows: [{k: v for k, v in row.items() if not k.startswith("time/")} for row in rows]
    assert strip(a.updates) == strip(b.updates) and a.curve == b.curve
    assert (a.allocations, a.violations, a.overloads) == (b.allocations, b.violations, b.overloads)


@pytest.mark.parametrize("change", [{"belief": "bayesian"}, {"trust_end": 9.0, "learner": "mappo"}], ids=str)
def test_how_many_collect_has_no_part_in_the_result(change):
    config = replace(TINY, **change)
    whole = trained(config)
    assert whole.learner.updates == 4
    for actors in (2, 5):
        assert_same(whole, trained(replace(config, actors=actors)))


def test_a_member_that_is_lost_goes_on_from_its_last_answer():
    config = replace(TINY, actors=2, belief="learned")
    whole, made = trained(config), []

    class Fragile:
        """Is lost before its third answer, and made again with what the second one said."""

        def __init__(self, part):
            self.part, self.hand, self.answers, self.last = part, Here(part), 0, None
            made.append(self)

        def begin(self, order):
            self.order = order

        def wait(self):
            self.answers += 1
            if self.answers == 3:
                self.hand = Here(self.part)
                self.order = self.order._replace(state=self.last)
            self.hand.begin(self.order)
            done = self.hand.wait()
            self.last = done.state
            return done

        def close(self): ...

    assert_same(whole, trained(config, hires=Fragile))
    assert [hand.answers > 3 for hand in made] == [True, True]


def test_a_run_with_a_crew_goes_on_to_the_bit(tmp_path):
    config = replace(TINY, actors=2, belief="learned")
    whole, rows = trained(config), []

    def stop(steps, figures):
        rows.append(steps)
        if len(rows) == 5:  # after the checkpoint half-way
            raise KeyboardInterrupt

    kept = Checkpoints(tmp_path, 2 * 8 * 30)
    with pytest.raises(KeyboardInterrupt):
        trained(config, report=stop, checkpoints=kept)
    again = trained(config, checkpoints=Checkpoints(tmp_path / "on", resume=tmp_path / "last.pt"))
    assert_same(whole, again)
    for name, value in whole.belief.state_dict().items():
        np.testing.assert_array_equal(value, again.belief.state_dict()[name])


def test_what_has_no_crew_says_so():
    with pytest.raises(ValueError, match="dqn as it is set reads more than its policy while it acts"):
        trained(replace(TINY, learner="dqn", actors=2, settings=()))
    with pytest.raises(ValueError, match="actors = 6; at most one a network, and there are 5"):
        trained(replace(TINY, actors=6))
    with pytest.raises(ValueError, match="actors = 0; it must be a whole number from 1 to 10,000"):
        replace(TINY, actors=0)


# --- engines, where there is no Ray


def test_an_engine_that_does_not_exist_or_is_not_there(monkeypatch, capsys, tmp_path):
    with pytest.raises(UnknownNameError, match=r"unknown engine 'rai'; did you mean 'ray'\? Known: processes, ray"):
        compare(Settings(engine="rai", runs=str(tmp_path)))
    with pytest.raises(ValueError, match="address = 'auto' goes with engine ray; this is processes"):
        check_engine("processes", "auto")
    monkeypatch.setitem(sys.modules, "ray", None)  # as if it were not installed
    for words in (["compare"], ["bench"], ["train", "--out", str(tmp_path / "a.npz")], ["reproduce", "003-table2"]):
        assert main([*words, "--engine", "ray"]) == 2
        assert "ray is not installed; pip install 'hybridalloc[ray]'" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []  # nothing was begun


class Note:
    """A counter as a task meets it, and the actor's methods as Ray gives them."""

    def __init__(self):
        self.told, self.note = [], self

    def remote(self, key, steps):
        self.told.append((key, steps))


def copying(folder, fail):
    tell(3)
    (Path(folder) / "b" / "new.txt").write_text((Path(folder) / "a.txt").read_text() + "!")
    (Path(folder) / "b" / "last.pt").unlink()
    (Path(folder) / ".lock").write_text("")
    if fail:
        raise KeyError("fail")
    return "done"


@pytest.mark.parametrize("fail", [False, True])
def test_a_task_reads_and_writes_bytes(tmp_path, fail):
    (tmp_path / "b").mkdir()
    for name in ("a.txt", "b/last.pt", "b/kept", "unread"):
        (tmp_path / name).write_text(name)
    files = on_ray.packed(tmp_path, ("a.txt", "b", "missing"))
    assert set(files) == {"a.txt", "b/last.pt", "b/kept"}
    sent, note = on_ray.Sent(copying, (str(tmp_path), fail), str(tmp_path), files, Place.here()), Note()
    answer = on_ray.run_there(sent, note, (0, 1))
    assert answer.files == {"b/new.txt": b"a.txt!"} and answer.gone == ("b/last.pt",)
    assert note.told == [((0, 1), 3)]
    assert not (tmp_path / "b" / "new.txt").exists()  # it had a folder of its own
    if fail:
        assert answer.value is None and repr(answer.error) == "KeyError('fail')"
    else:
        assert answer.value == "done" and answer.error is None


def test_a_machine_with_other_versions_is_named():
    other = Place.here()._replace(build=(("hybridalloc's source", "0"), *build()[1:]))
    answer = on_ray.run_there(on_ray.Sent(copying, (), "", {}, other), Note(), (0, 1))
    assert isinstance(answer.error, WorkError)
    assert f"has hybridalloc's source {build()[0][1]} and who asks has 0; install the same" in str(answer.error)


@pytest.mark.parametrize("name", ["../b.txt", "/tmp/b.txt"])
def test_no_file_is_written_outside_of_the_folder(tmp_path, name):
    with pytest.raises(WorkError, match="leads out of"):
        on_ray.unpacked({name: b""}, tmp_path)


def test_a_cluster_that_is_not_there_is_named():
    pytest.importorskip("ray", reason="Ray is not installed; pip install 'hybridalloc[ray]'")
    with socket.socket() as nobody:  # bound, and nobody listens
        nobody.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{nobody.getsockname()[1]}"
        with pytest.raises(WorkError, match=f"no Ray cluster at address '{address}'"), connected(address):
            raise AssertionError
    for wrong in ("nonsense", "ray://head", "head:0", "head:x"):
        with pytest.raises(ValueError, match="host:port, ray://host:port or auto is required"):
            check_engine("ray", wrong)
