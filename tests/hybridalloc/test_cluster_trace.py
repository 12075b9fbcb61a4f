"""A cluster of one's own from two files: what is wrong is listed, what is right runs and describes itself."""

from __future__ import annotations

import json

import numpy as np
import pytest

from coordinator import Coordinator
from hybridalloc import Allocator, make_problem
from hybridalloc.cli import main
from hybridalloc.data.registry import DataError
from hybridalloc.problems import restore_problem
from hybridalloc.problems.cluster.stream import run_stream
from hybridalloc.problems.cluster.trace import describe, read_own
from hybridalloc.training.evaluation import evaluate

NODES = "name,cpu_milli,memory_mib,gpu,model\nb1,64000,262144,4,A\nb2,64000,262144,2,B\n"
JOBS = "name,cpu_milli,memory_mib,num_gpu,gpu_milli\nj1,4000,8192,1,500\nj2,8000,16384,2,1000\nj3,4000,8192,0,0\n"


@pytest.fixture
def files(tmp_path):
    def write(nodes=NODES, jobs=JOBS):
        paths = tmp_path / "nodes.csv", tmp_path / "jobs.csv"
        for path, text in zip(paths, (nodes, jobs), strict=True):
            path.write_text(text, encoding="utf-8")
        return [str(path) for path in paths]

    return write


def test_it_runs_and_its_description_holds_it_without_the_files(files, tmp_path):
    nodes, jobs = files()
    problem = make_problem("cluster", scenario="trace", node_file=nodes, job_file=jobs)
    assert problem.workload.capacity == 6000 and problem.workload.count.sum() == 3
    for path in (nodes, jobs):
        (tmp_path / path).unlink()
    again = restore_problem(json.loads(json.dumps(problem.describe())))
    assert again == problem and again.reset(3) == problem.reset(3)
    saved = Allocator(problem, "game").save(tmp_path / "a.npz")
    allocation = Allocator.load(saved).step(problem.reset(1))
    assert allocation.certificate.feasible and allocation.option[0] > 0


def test_it_is_described_by_a_command(files, capsys):
    assert main(["data", "describe", *files(jobs=JOBS + "big,4000,8192,8,1000\n")]) == 0
    told = capsys.readouterr().out
    assert "2, 6 GPUs, 128 cores, 512 GiB; models A, B" in told and "GPUs 175.0 %" in told
    assert "fits nowhere  1 jobs of 4000 milli, 8192 MiB, 8 GPUs" in told
    assert main(["data", "describe", "one.csv"]) == 2
    assert "takes two files" in capsys.readouterr().err


def test_a_job_that_is_larger_than_any_node_is_refused_and_the_others_go_on(files):
    nodes, jobs = files(jobs=JOBS + "big,4000,8192,8,1000\n" * 2)
    problem = make_problem("cluster", scenario="trace", node_file=nodes, job_file=jobs, until=3.0)
    figures = problem.play(problem.card.prices(), range(5))
    assert (figures["failed_eight"][~np.isnan(figures["failed_eight"])] == 100).all()
    assert (figures["placed"] > 0).all()


def test_who_fits_nowhere_is_counted_in_a_comparison_and_its_report(files, tmp_path, capsys):
    nodes, jobs = files(jobs=JOBS + "big,4000,8192,8,1000\n" * 2 + "wide,90000,1,0,0\n")
    common = ["--settings", f"node_file={nodes}", f"job_file={jobs}", "--methods", "fgd", "best_fit"]
    page = tmp_path / "report.html"
    place = ["--report", str(page), "--runs", str(tmp_path / "runs"), "--tracking-uri", f"sqlite:///{tmp_path}/m.db"]
    seeds = ["--report-seeds", "2", "--tuning", "0", "--workers", "1", "--quiet"]
    assert main(["compare", "--problem", "cluster", "--scenario", "trace", *common, *place, *seeds]) == 0
    for told in (page.read_text(encoding="utf-8"), capsys.readouterr().out):
        assert "fits nowhere  2 jobs of 4000 milli, 8192 MiB, 8 GPUs" in told and "1 jobs of 90000 milli" in told


@pytest.mark.parametrize(
    ("change", "lines"),
    [
        ({"nodes": NODES + "b1,1,1,1,A\n"}, ["line 4, column name: 'b1' is the node of line 2 too"]),
        ({"nodes": NODES + "b3,-5,1,9,A\n"}, ["line 4, column cpu_milli: -5 is below 0 milli", "column gpu: 9 GPUs"]),
        (
            {"nodes": NODES + "b3,many,1,,A\n"},
            ["line 4, column cpu_milli: 'many' is not a number", "column gpu: it is empty"],
        ),
        ({"jobs": JOBS + "j4,1,1,2,500\n"}, ["line 5, column gpu_milli: 500 of each of 2 GPUs"]),
        (
            {"jobs": JOBS + "j4,1,1,1,0\nj5,1,1.5,1,1\n"},
            ["line 5, column gpu_milli", "line 6, column memory_mib: 1.5 is not"],
        ),
    ],
)
def test_every_entry_that_cannot_be_used_is_listed(files, change, lines):
    with pytest.raises(DataError) as error:
        read_own(*files(**change))
    for line in lines:
        assert line in str(error.value)


def test_an_end_before_its_start_and_a_missing_column_are_told(files):
    head = "cpu_milli,memory_mib,num_gpu,gpu_milli,creation_time,deletion_time\n"
    with pytest.raises(DataError, match="line 3, column deletion_time: 5 s is before its creation_time, 9 s"):
        read_own(*files(jobs=head + "1,1,1,1,2,3\n1,1,1,1,9,5\n"))
    with pytest.raises(DataError, match="column gpu is missing; the columns are name, cpu_milli"):
        read_own(*files(nodes="name,cpu_milli,memory_mib\na,1,1\n"))
    assert "3 of 3 kinds" in describe(read_own(*files()))


def test_a_trace_without_files_and_a_forged_description_are_refused(files):
    with pytest.raises(ValueError, match="scenario 'trace' is of nodes and jobs of one's own"):
        make_problem("cluster", scenario="trace")
    nodes, jobs = files()
    told = make_problem("cluster", scenario="trace", node_file=nodes, job_file=jobs).describe()
    for wrong in ({"nodes": [[1, 2, 3]]}, {"jobs": "all"}, {"jobs": [[1, 1, 1, 1, -1]]}):
        with pytest.raises(ValueError, match="own"):
            restore_problem(told | {"own": told["own"] | wrong})


TIMES = "cpu_milli,memory_mib,num_gpu,gpu_milli,creation_time,deletion_time\n"
ONE = "name,cpu_milli,memory_mib,gpu\nb1,64000,262144,1\n"


def test_a_job_that_ends_makes_room_for_who_comes_when_it_has_ended(files):
    rows = "1,1,1,1000,10,20\n1,1,1,1000,15,30\n1,1,1,600,20,\n1,1,1,400,20,20\n1,1,1,400,21,25\n1,1,1,500,90,91\n"
    nodes, jobs = files(nodes=ONE, jobs=TIMES + rows)
    problem = make_problem("cluster", scenario="trace", node_file=nodes, job_file=jobs, timed=True)
    run = run_stream(problem.workload, problem.tables, 0)
    # the second finds the first there, and leaves unserved; the third stays; the fourth ends as it comes
    assert run.node.tolist() == [0, -1, 0, 0, 0, -1]
    assert run.used.tolist() == [1000, 1000, 600, 1000, 1000, 600]
    assert run.demand.tolist() == [1000, 2000, 1600, 2000, 2000, 1100]


@pytest.mark.parametrize("seed", [0, 1])
def test_worlds_and_stream_end_the_same_jobs_and_nothing_is_overbooked(files, seed):
    rng = np.random.default_rng(seed)
    begin = rng.integers(0, 300, 120)
    end = np.where(rng.random(120) < 0.1, -1, begin + rng.integers(0, 60, 120))
    asks = rng.choice(["4000,8192,1,500", "8000,16384,2,1000", "4000,8192,0,0", "2000,4096,1,1000"], 120)
    rows = [f"{ask},{b},{e if e >= 0 else ''}\n" for ask, b, e in zip(asks, begin, end, strict=True)]
    nodes, jobs = files(jobs=TIMES + "".join(rows))
    problem = make_problem("cluster", scenario="trace", node_file=nodes, job_file=jobs, timed=True)
    run = run_stream(problem.workload, problem.tables, seed)
    order = np.argsort(begin, kind="stable")
    begin, end = begin[order], np.where(end < 0, 10**9, end)[order]
    gpu = problem.workload.pods.demand[run.kind]
    for a in range(120):  # by the definition: who came before, or is this one, and has not ended
        there = [j for j in range(a + 1) if j == a or end[j] > begin[a]]
        assert run.demand[a] == gpu[there].sum() and run.used[a] == gpu[there][run.node[there] >= 0].sum() <= 6000
    prices = problem.card.prices()
    loop, played = evaluate(problem, prices, Coordinator("game"), None, range(3)), problem.play(prices, range(3))
    for key, values in played.items():
        np.testing.assert_allclose(loop.metrics[key], values, rtol=1e-12, err_msg=key)
    half, stepped = problem.worlds([seed]), problem.worlds([seed])
    half.spread(np.array([0.5]))
    while stepped.at[0] < half.at[0]:
        choice = Coordinator("game").decide(stepped, None, prices)
        stepped.execute(stepped.settle(choice.choice, prices))
        stepped.drift()
    assert all(np.array_equal(mine, theirs) for mine, theirs in zip(half.left[:3], stepped.left[:3], strict=True))
    assert half.came == stepped.came and half.used == stepped.used and half.gone == stepped.gone
    assert restore_problem(json.loads(json.dumps(problem.describe()))) == problem


def test_times_that_are_missing_and_settings_that_do_not_go_with_them(files):
    nodes, jobs = files(jobs=TIMES + "1,1,1,1,2,3\n1,1,1,1,,5\n")
    with pytest.raises(DataError, match="line 3, column creation_time: it is empty; jobs that come by their times"):
        read_own(nodes, jobs, timed=True)
    with pytest.raises(ValueError, match="timed: the scenario 'synthetic' has no times"):
        make_problem("cluster", timed=True)
    nodes, jobs = files(jobs=TIMES + "1,1,1,1,2,3\n")
    with pytest.raises(ValueError, match="jobs that come by their times come as they are"):
        make_problem("cluster", scenario="trace", node_file=nodes, job_file=jobs, timed=True, mix=1)
    told = make_problem("cluster", scenario="trace", node_file=nodes, job_file=jobs, timed=True).describe()
    for wrong in ([[0, -2, 3]], [[1, 2, 3]], [[0, 2]], ["all"], [[0, float("nan"), 1]]):
        with pytest.raises(ValueError, match=r"own\.stays"):
            restore_problem(told | {"own": told["own"] | {"stays": wrong}})
