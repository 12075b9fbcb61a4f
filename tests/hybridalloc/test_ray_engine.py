"""Comparisons and one training on a Ray cluster of three nodes on this machine, of which one is killed midway."""

from __future__ import annotations

import contextlib
import sys
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path

import pytest

import hybridalloc.experiments.compare as comparing
from hybridalloc.errors import WorkError
from hybridalloc.experiments import on_ray
from hybridalloc.experiments.compare import Settings, compare
from hybridalloc.experiments.executor import Files
from hybridalloc.experiments.mirror import MirrorResult
from hybridalloc.training.on_ray import hiring

sys.path.insert(0, str(Path(__file__).parent))
from test_crew import TINY as TRAINED
from test_crew import assert_same, trained

ray = pytest.importorskip("ray", reason="Ray is not installed; pip install 'hybridalloc[ray]'")

TINY = Settings(
    agents=4, servers=2, sites="synthetic", agent_steps=3_000, train_seeds=1, report_seeds=2, tuning=0,
    methods=("hybrid-imappo", "game-belief", "game-tuned", "nearest"), quiet=True,
)  # fmt: skip


class Nodes:
    """A head with one core and two more nodes with one each."""

    def __init__(self):
        from ray.cluster_utils import Cluster

        small = {"num_cpus": 1, "object_store_memory": 80 * 2**20}
        self.cluster = Cluster(initialize_head=True, head_node_args=small | {"include_dashboard": False})
        self.others = [self.cluster.add_node(**small) for _ in range(2)]
        self.small = small

    def kill(self):
        """One node, as if its machine lost power."""
        self.cluster.remove_node(self.others.pop(0), allow_graceful=False)

    def mend(self):
        """Another takes its place; in the main thread, as it sets signals."""
        self.others.append(self.cluster.add_node(**self.small))


@pytest.fixture(scope="module")
def nodes():
    found = Nodes()
    ray.init(address=found.cluster.address, log_to_driver=False, logging_level="ERROR")
    try:
        yield found
    finally:
        ray.shutdown()
        found.cluster.shutdown()


class Here:
    def submit(self, function, *arguments, files=None):
        future = Future()
        future.set_result(function(*arguments))
        return future


@contextlib.contextmanager
def in_this_process(_tasks):
    import queue

    yield Here(), queue.Queue()


def scores(comparison):
    """Every method's values, less the time that a decision took."""
    return {m["key"]: {k: v for k, v in m["values"].items() if k != "step_ms"} for m in comparison["methods"]}


def test_a_comparison_that_loses_a_node_gives_the_local_table_and_goes_on(nodes, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(comparing, "open_pool", in_this_process)
    monkeypatch.setattr(comparing.tracking, "mirror", lambda *_, **__: MirrorResult("run", "1", (), (), ""))
    here = replace(TINY, runs=str(tmp_path / "here"), report=str(tmp_path / "here.html"))
    there = replace(here, runs=str(tmp_path / "there"), engine="ray", quiet=False)
    local = compare(here)
    began, killed = on_ray.RayPool._begin, []

    def begin(pool, task):
        began(pool, task)
        if task.function is comparing.run_job and len(pool._running) == 3 and not killed:  # a task on every node
            killed.append(nodes.kill())

    monkeypatch.setattr(on_ray.RayPool, "_begin", begin)
    far = compare(there)
    nodes.mend()
    assert killed and "a worker was lost" in capsys.readouterr().err
    assert scores(far) == scores(local)
    for part in ("curves", "levels", "counts", "differences"):
        assert far[part] == local[part]
    folder = Path(far["folder"])
    names = lambda at: {p.relative_to(at).as_posix() for p in at.rglob("*") if not p.name.startswith(".")}
    assert names(folder) == names(Path(local["folder"]))  # all that was written came back, and nothing that was removed

    (folder / "results.json").unlink()
    (folder / "nearest-seed0" / "evaluation.json").unlink()
    whole = {p: p.stat().st_mtime_ns for p in folder.glob("*.jsonl") if "nearest" not in p.name}
    asked = []
    monkeypatch.setattr(on_ray.RayPool, "_begin", lambda pool, task: (asked.append(task), began(pool, task)))
    again = compare(replace(there, quiet=True), resume=folder)
    assert [task.arguments[0].method for task in asked] == ["nearest"]
    assert {p: p.stat().st_mtime_ns for p in whole} == whole and scores(again) == scores(local)


def test_a_task_whose_worker_dies_each_time_is_given_up(nodes, tmp_path, monkeypatch):
    monkeypatch.setattr(on_ray, "TRIES", 2)
    with on_ray.open_pool(ray, 2, True) as (pool, _):
        lost = pool.submit(_leave, str(tmp_path), files=Files(str(tmp_path)))
        failed = pool.submit(_fail, str(tmp_path), files=Files(str(tmp_path)))
        with pytest.raises(WorkError, match="its worker was lost 2 times"):
            lost.result()
        with pytest.raises(FloatingPointError, match="not finite"):
            failed.result()
    assert (tmp_path / "record.jsonl").read_text() == "as far as it came\n"


def _leave(folder):
    import os

    os._exit(1)


def _fail(folder):
    (Path(folder) / "record.jsonl").write_text("as far as it came\n")
    raise FloatingPointError("a gradient is not finite")


def test_a_training_whose_actors_lose_a_node_is_the_local_one(nodes):
    config = replace(TRAINED, actors=2, belief="learned")
    rows = []

    def report(steps, figures):
        rows.append(steps)
        if len(rows) == 3:  # both of the other nodes, so that one actor is lost at least
            for _ in range(2):
                nodes.kill()
                nodes.mend()

    with hiring("ray", quiet=True) as hires:
        far = trained(config, report=report, hires=hires)
    assert_same(trained(config), far)
    assert far.belief.channel.network.flat.flags.writeable  # it goes on learning
