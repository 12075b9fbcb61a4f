"""In front of Slurm: what is read, what is decided, and thirty jobs on a Slurm of our own."""

from __future__ import annotations

import json
import re
import time

import pytest

from hybridalloc.cli import main
from hybridalloc.serving.slurm import Bridge, Given, plan_round
from hybridalloc.serving.slurm_read import Job, Node, SlurmError, expand, gpus_of, read_jobs, read_nodes
from tests.hybridalloc.slurm_cluster import Cluster, missing

GIVEN = Given(partitions=("batch",))


def job(number, gpus=0, cpus=1, memory=100, nodes=1, **more):
    plain = Job(
        str(number),
        f"j{number}",
        "PENDING",
        True,
        "batch",
        "",
        "ann",
        nodes,
        cpus,
        memory,
        gpus,
        "",
        (),
        (),
        (),
        number,
    )
    return plain._replace(**more)


def node(name, cpus=8, memory=16_000, gpus=4, used=(0, 0, 0), **more):
    kinds = {"": gpus} if gpus else {}
    return Node(name, True, ("batch",), (), cpus, memory, kinds, used[0], used[1], {"": used[2]})._replace(**more)


def placed(jobs, nodes, given=GIVEN, patience_s=1e9, now_s=100.0):
    return {p.job.id: ",".join(p.nodes) for p in plan_round(jobs, nodes, given, patience_s, now_s)}


def test_host_lists_and_gpus_are_read():
    assert expand("n[1-3,05],login") == ("n1", "n2", "n3", "n05", "login")
    assert expand("r[1-2]n[08-09]x") == ("r1n08x", "r1n09x", "r2n08x", "r2n09x") and expand("") == ()
    assert gpus_of("gpu:a100:4(S:0-1),gpu:2") == {"a100": 4, "": 2} and gpus_of("gres:gpu:2") == {"": 2}
    assert gpus_of("gres/gpu:v100=3,license/x=1") == {"v100": 3} and gpus_of("gpu") == {"": 1} and gpus_of("") == {}


def row(**more):
    plain = {
        "job_id": 7, "name": "a", "job_state": "PENDING", "state_reason": "JobHeldUser", "partition": "batch",
        "cpus": 8,
        "node_count": 2, "tres_req_str": "cpu=8,mem=4G,node=2", "tres_per_node": "gres:gpu:v100:2", "submit_time": 5,
    }  # fmt: skip
    return plain | more


def test_jobs_are_read_node_by_node_and_task_by_task():
    (one,) = read_jobs(json.dumps({"jobs": [row()]}))
    assert (one.nodes, one.cpus, one.memory, one.gpus, one.gpu_type, one.held) == (2, 4, 2048, 2, "v100", True)
    later = {k: {"set": True, "infinite": False, "number": row()[k]} for k in ("cpus", "node_count", "submit_time")}
    assert read_jobs(json.dumps({"jobs": [row(**later, job_state=["PENDING"])]})) == [one]
    tasks = read_jobs(json.dumps({"jobs": [row(array_job_id=7, array_task_string="0-4:2,9%2")]}))
    assert [t.id for t in tasks] == ["7_0", "7_2", "7_4", "7_9"]
    (split,) = read_jobs(json.dumps({"jobs": [row(job_id=12, array_job_id=7, array_task_id=3)]}))
    assert split.id == "7_3"
    per_task = row(tres_per_node="", tres_per_task="gres:gpu:1", tasks=6)
    assert read_jobs(json.dumps({"jobs": [per_task]}))[0].gpus == 3
    doubted = read_jobs(json.dumps({"jobs": [row(features="a|b"), row(dependency="afterok:3")]}))
    assert "constraint a|b" in doubted[0].doubt and "afterok:3" in doubted[1].doubt
    with pytest.raises(SlurmError, match="squeue --json said 'oops'; an object with 'jobs' is needed"):
        read_jobs("oops")
    with pytest.raises(SlurmError, match="squeue --json: Failed while looking for jobs"):
        read_jobs(json.dumps({"jobs": [], "errors": [{"description": "Failed while looking for jobs"}]}))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (7, "row 2 is passed over: 7 is no object"),
        (None, "row 2 is passed over: None is no object"),
        ({"job_id": "seven"}, "row 2 (job seven) is passed over: job_id is 'seven'; a whole number from 0 is needed"),
        ({"job_id": None}, "it has no job_id"),
        ({"job_state": None}, "row 2 (job 7) is passed over: it has no job_state"),
        ({"cpus": -8}, "cpus is -8"),
        ({"node_count": 10**400}, "node_count is 1000"),
        ({"submit_time": {"set": True, "number": "noon"}}, "submit_time is {'set': True"),
        ({"tres_req_str": "cpu=8,mem=1.2.3G"}, "its memory cannot be read"),
        ({"tres_per_node": "gres:gpu:v100:many"}, "'gres:gpu:v100:many' is no number of GPUs"),
        ({"array_task_string": "0-4:x"}, "array_task_string is '0-4:x'"),
        ({"array_task_string": "0-99999999999"}, "is of more than 100,000 numbers"),
        ({"excluded_nodes": "n[1-90000]x[1-90000]"}, "is of more than 100,000 names"),
        ({"required_nodes": "n1 JobId=3"}, "'n1 JobId=3' is no name of a node"),
    ],
)
def test_a_job_that_cannot_be_read_is_named_and_the_others_count(wrong, message):
    bad, rows = [], [row(job_id=1), row(**wrong) if isinstance(wrong, dict) else wrong, row(job_id=3)]
    text = json.dumps({"jobs": rows})
    assert [job.id for job in read_jobs(text, bad.append)] == ["1", "3"]
    assert len(bad) == 1 and bad[0].startswith("squeue --json: row 2") and message in bad[0]
    with pytest.raises(SlurmError, match=re.escape(bad[0])):
        read_jobs(text)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ([], "[] is no object"),
        ({"name": "n2,n3"}, "'n2,n3' is no name of a node"),
        ({"name": "n\x1b[2J"}, "row 2 (node n\\x1b[2J) is passed over: 'n\\x1b[2J' is no name of a node"),
        ({"name": ""}, "'' is no name of a node"),
        ({"name": "-n"}, "'-n' is no name of a node"),
        ({"cpus": 2**40}, "cpus is 1099511627776; a whole number from 0 to 1,000,000 is needed"),
        ({"gres": "gpu:99999999"}, "a node has up to 10,000 GPUs"),
        ({"cpus": True}, "cpus is True"),
        ({"real_memory": float("nan")}, "real_memory is nan"),
        ({"gres_used": "gpu:-1"}, "'gpu:-1' is no number of GPUs"),
    ],
)
def test_a_node_that_cannot_be_read_is_named_and_the_others_count(wrong, message):
    plain = {"name": "b", "state": "idle", "cpus": 8, "real_memory": 64_000, "partitions": ["batch"]}
    bad, rows = [], [plain | {"name": "a"}, plain | wrong if isinstance(wrong, dict) else wrong, plain | {"name": "c"}]
    assert [node.name for node in read_nodes(json.dumps({"nodes": rows}), bad.append)] == ["a", "c"]
    assert len(bad) == 1 and message in bad[0] and bad[0].isprintable()


def test_of_a_node_told_twice_neither_counts_where_the_rows_differ_and_one_where_they_do_not():
    plain = {"state": "idle", "cpus": 8, "real_memory": 64_000, "partitions": ["batch"]}
    bad, rows = [], [plain | {"name": name} for name in "abbca"]
    rows[4]["cpus"] = 16
    assert [node.name for node in read_nodes(json.dumps({"nodes": rows}), bad.append)] == ["b", "c"]
    assert len(bad) == 1 and "row 5 (node a)" in bad[0]
    assert "another row is of that name, cpus 8 there and 16 here; neither counts" in bad[0]


def test_a_job_whose_name_cannot_be_printed_stays_held():
    (rude,) = read_jobs(json.dumps({"jobs": [row(name="a\x1b[2J", node_count=1, tres_per_node="")]}))
    (plan,) = plan_round([rude], [node("a")], GIVEN, 1e9, 100.0)
    assert plan.nodes == () and "cannot be printed" in plan.why and str(plan).isprintable()


def test_a_name_that_no_node_can_have_never_reaches_a_command():
    said, asked = [], []
    bridge = Bridge(GIVEN, ask=lambda words: asked.append(words) or "", say=said.append)
    (plan,) = plan_round([job(1)], [node("a JobId=2")], GIVEN, 1e9, 100.0)
    assert plan.nodes and not bridge._place(plan) and not asked and "is not given to Slurm" in said[0]


def test_what_is_not_set_is_no_number_and_gpus_without_a_type_are_counted():
    unset = row(memory_per_cpu=2**32 - 2, tres_req_str="", memory_per_node={"set": False, "number": 9}, tasks=None)
    assert read_jobs(json.dumps({"jobs": [unset]}))[0].memory == 0
    assert gpus_of("gpu:(null):2(IDX:0-1)") == {"": 2} and gpus_of("gpumem:4,shard/gpu=3") == {}
    long = row(array_job_id=7, array_task_string="0-2,5,...")
    assert [job.id for job in read_jobs(json.dumps({"jobs": [long]}))] == ["7_0", "7_1", "7_2", "7_5"]


def test_a_row_that_is_passed_over_is_told_once_and_again_when_it_comes_back():
    said, broken = [], iter([True, True, False, True])

    def ask(words):
        if words[0] == "squeue":
            return json.dumps({"jobs": [row(job_id=1, cpus="x" if next(broken) else 1)]})
        return json.dumps({"nodes": []})

    bridge = Bridge(GIVEN, dry_run=True, ask=ask, say=said.append)
    bridge.run(1.0, rounds=4, sleep=lambda s: None)
    assert sum("is passed over: cpus is 'x'" in line for line in said) == 2 and len(said) == 3
    assert "waits: no node that is up" in said[1]


def test_nodes_that_are_draining_or_do_not_answer_take_no_jobs():
    names = [("idle", []), ("mixed", ["DRAIN"]), ("down*", []), ("allocated", [])]
    rows = [{"name": str(k), "state": s, "state_flags": flags} for k, (s, flags) in enumerate(names)]
    assert [n.up for n in read_nodes(json.dumps({"nodes": rows}))] == [True, False, False, True]


@pytest.mark.parametrize(
    ("more", "doubt"),
    [
        ({"max_nodes": 3, "node_count": 1}, "it may run on 1 to 3 nodes"),
        ({"shared": "none"}, "it wants nodes for itself"),
        ({"shared": ["user"]}, "it wants nodes for itself"),
        ({"het_job_id": 25}, "a part of a heterogeneous job"),
        ({"threads_per_core": {"set": True, "number": 1}}, "it asks for threads per core"),
        ({"sockets_per_node": 1}, "it asks for sockets per node"),
        ({"minimum_tmp_disk_per_node": 100}, "it asks for disk space"),
        ({"contiguous": True}, "--contiguous"),
        ({"resv_name": "night"}, "of the reservation night"),
    ],
)
def test_what_counts_do_not_say_is_left_to_slurm(more, doubt):
    (one,) = read_jobs(json.dumps({"jobs": [row(**more)]}))
    assert doubt in one.doubt and not plan_round([one], [node("a")], GIVEN, 1e9, 100.0)[0].nodes


def test_a_job_is_of_no_more_nodes_than_it_may_run_on():
    """``-N 1 -n 2 -c 2``, of which Slurm 22.05 says node_count 2 while it waits."""
    said = row(node_count=2, max_nodes=1, cpus=4, tres_req_str="cpu=4,mem=100M,node=1,billing=4", tres_per_node="")
    (one,) = read_jobs(json.dumps({"jobs": [said | {"shared": "shared", "minimum_cpus_per_node": 2}]}))
    assert (one.nodes, one.cpus, one.memory, one.doubt) == (1, 4, 100, "")
    (least,) = read_jobs(json.dumps({"jobs": [row(node_count=1, cpus=1, minimum_cpus_per_node=3)]}))
    assert least.cpus == 3


def test_who_is_to_begin_later_is_not_released_yet_and_takes_no_room():
    nodes = [node("a", cpus=2)]
    later = job(1, cpus=2, begins=160)
    plans = plan_round([later, job(2, cpus=2)], nodes, GIVEN, 1e9, 100.0)
    assert [(p.job.id, p.nodes) for p in plans] == [("1", ()), ("2", ("a",))] and "begin for 60 s" in plans[0].why
    assert placed([later], nodes, now_s=160.0) == {"1": "a"}
    released = later._replace(held=False, on=("a",))
    assert placed([released, job(2, cpus=2)], nodes) == {"2": "a"}


def test_of_one_second_the_lower_number_is_the_older():
    jobs = [
        job(10)._replace(submitted=5),
        job(9)._replace(submitted=5, id="9_10"),
        job(9)._replace(submitted=5, id="9_2"),
    ]
    assert [p.job.id for p in plan_round(jobs, [node("a")], GIVEN, 1e9, 100.0)] == ["9_2", "9_10", "10"]


def test_jobs_fill_what_is_begun_and_leave_whole_nodes():
    nodes = [node("a"), node("b", used=(2, 1000, 2)), node("c", gpus=0)]
    assert placed([job(1, 1), job(2, 1), job(3, 4), job(4)], nodes) == {"1": "b", "2": "b", "3": "a", "4": "c"}


def test_the_oldest_comes_first_and_who_does_not_fit_waits():
    plans = plan_round([job(2, 4), job(1, 3), job(3, 1)], [node("a")], GIVEN, 1e9, 100.0)
    assert [(p.job.id, p.nodes) for p in plans] == [("1", ("a",)), ("2", ()), ("3", ("a",))]
    assert "none of 1 places where it can run has room" in plans[1].why
    assert "0 GPUs, 6 CPUs and 15,800 MB stay free there" in plans[2].why


def test_a_job_that_has_waited_too_long_holds_back_who_came_later():
    nodes, jobs = [node("a", used=(1, 100, 1))], [job(1, 4), job(2, 1)]
    assert placed(jobs, nodes, patience_s=200) == {"1": "", "2": "a"}
    plans = plan_round(jobs, nodes, GIVEN, 50.0, 100.0)
    assert [p.nodes for p in plans] == [(), ()] and "job 1 has waited longer" in plans[1].why
    assert placed([job(1, 9), job(2, 1)], nodes, patience_s=0) == {"1": "", "2": "a"}  # it never will: nobody waits


def test_only_held_jobs_that_are_named_are_touched():
    jobs = [
        job(1), job(2, held=False), job(3, partition="other"), job(4, state="RUNNING", held=False), job(5, account="x"),
    ]  # fmt: skip
    nodes = [node("a", partitions=("batch", "other"))]
    assert set(placed(jobs, nodes)) == {"1", "5"}
    assert set(placed(jobs, nodes, Given(held=True))) == {"1", "3", "5"}
    assert set(placed(jobs, nodes, Given(accounts=("x",)))) == {"5"}
    with pytest.raises(ValueError, match="no jobs are named"):
        Given()


def test_what_was_released_and_has_not_started_counts_as_there():
    waits = job(1, 3, held=False, on=("a",))
    assert placed([waits, job(2, 2), job(3, 1)], [node("a")]) == {"2": "", "3": "a"}


def test_several_nodes_types_of_gpus_features_and_excluded_nodes():
    nodes = [
        node("a", gpus=0), node("b", gpus=0), node("c", gpus=0, features=("ib",)),
        node("d")._replace(gpus={"v100": 2, "a100": 2}, used_gpus={"v100": 1}), node("e")._replace(up=False),
    ]  # fmt: skip
    assert placed([job(1, cpus=8, nodes=3)], nodes) == {"1": "a,b,c"}
    assert placed([job(1, 2, gpu_type="v100"), job(2, 2, gpu_type="a100")], nodes) == {"1": "", "2": "d"}
    assert placed([job(1, features=("ib",)), job(2, excluded=("a", "b", "c", "d"))], nodes) == {"1": "c", "2": ""}


def test_a_job_that_cannot_be_told_where_to_go_stays_held_and_others_go_on():
    asked, said = [], []

    def ask(words):
        asked.append(" ".join(words))
        if words[0] == "squeue":
            return json.dumps({"jobs": [row(job_id=k, node_count=1, tres_per_node="", cpus=1) for k in (1, 2)]})
        if words[0] == "sinfo":
            tell = {"name": "a", "state": "idle", "cpus": 8, "real_memory": 64_000, "partitions": ["batch"]}
            return json.dumps({"nodes": [tell]})
        if words[:3] == ["scontrol", "update", "JobId=1"]:
            raise SlurmError("no such job")
        return ""

    done = Bridge(GIVEN, ask=ask, say=said.append).round()
    assert [p.job.id for p in done] == ["2"] and any("job 1 is as it was: no such job" in line for line in said)
    assert "scontrol release 1" not in asked and asked[-1] == "scontrol release 2"
    asked.clear()
    Bridge(GIVEN, dry_run=True, ask=ask, say=said.append).round()
    assert asked == ["squeue --json", "sinfo --json"]


def test_a_controller_that_is_down_is_told_once_and_survived():
    said, rounds = [], iter([SlurmError("refused"), SlurmError("refused"), None])

    def ask(words):
        if words[0] == "squeue" and (error := next(rounds)):
            raise error
        return json.dumps({"jobs": [], "nodes": []})

    Bridge(GIVEN, ask=ask, say=said.append).run(1.0, rounds=3, sleep=lambda s: None)
    assert said == ["Slurm does not answer (refused); nothing is done until it does", "Slurm answers again"]


def test_the_command_without_jobs_or_without_slurm(capsys, monkeypatch):
    assert main(["slurm", "--once"]) == 2 and "no jobs are named" in capsys.readouterr().err
    monkeypatch.setenv("PATH", "/nowhere")
    assert main(["slurm", "--held", "--once"]) == 2 and "squeue is not installed here" in capsys.readouterr().err


# --- a Slurm of our own

NODES = [("n1", 8, 16_000, 4), ("n2", 8, 16_000, 4), ("n3", 8, 16_000, 2), ("n4", 6, 8_000, 0)]


@pytest.fixture(scope="module")
def slurm(tmp_path_factory):
    if reason := missing():
        pytest.skip(reason)
    cluster = Cluster(tmp_path_factory.mktemp("slurm"), NODES)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()


def told(cluster):
    return {j["job_id"]: j for j in json.loads(cluster.run("squeue", "--json"))["jobs"]}


def test_thirty_jobs_go_where_slurm_was_told(slurm, monkeypatch, capsys):
    """Every placement against Slurm's own word, round by round; a job of another partition is never touched."""
    monkeypatch.setenv("SLURM_CONF", slurm.env["SLURM_CONF"])
    shapes = [(0, 1, 500), (1, 1, 1000), (2, 2, 2000), (4, 4, 8000), (1, 3, 500), (0, 6, 6000)]
    for k in range(30):
        gpus, cpus, memory = shapes[k % 6]
        gres = [f"--gres=gpu:{gpus}"] if gpus else []
        slurm.run(
            "sbatch", "--hold", "-p", "batch", f"-c{cpus}", f"--mem={memory}", *gres, "-J", f"job{k}", "-o",
            "/dev/null",
            "--wrap", "sleep 2",
        )  # fmt: skip
    slurm.run("sbatch", "--hold", "-p", "other", "-o", "/dev/null", "--wrap", "sleep 1")
    other = max(told(slurm))
    assert main(["slurm", "--partition", "batch", "--once", "--dry-run"]) == 0
    assert "-> n" in capsys.readouterr().out
    assert all(j["priority"] == 0 and not j["required_nodes"] for j in told(slurm).values())
    went, ends, down = {}, time.monotonic() + 150, False
    while time.monotonic() < ends:
        assert main(["slurm", "--partition", "batch", "--once"]) == 0
        for number, nodes in re.findall(r"job (\d+) .* -> (\S+):", capsys.readouterr().out):
            went[int(number)] = nodes
        time.sleep(0.5)
        seen = told(slurm)
        for name, cpus, memory, gpus in NODES:
            here = [j for j in seen.values() if j["job_state"] == "RUNNING" and j["nodes"] == name]
            assert sum(j["cpus"] for j in here) <= cpus and sum(j["memory_per_node"] for j in here) <= memory
            assert sum(sum(gpus_of(j["tres_per_node"]).values()) for j in here) <= gpus
        for number, nodes in went.items():
            if number in seen and seen[number]["nodes"]:
                assert seen[number]["nodes"] == nodes == seen[number]["required_nodes"]
        assert seen[other]["priority"] == 0 and not seen[other]["required_nodes"]
        if len(went) > 10 and not down:  # the controller goes, and comes back
            down = True
            slurm.control.terminate()
            slurm.control.wait(20)
            said = []
            Bridge(GIVEN, say=said.append).run(0.1, rounds=2)
            assert len(said) == 1 and "nothing is done until it does" in said[0]
            slurm.controller()
            time.sleep(2.0)
        live = [j for n, j in seen.items() if n != other and j["job_state"] in ("PENDING", "RUNNING")]
        if not live:
            break
    assert len(went) == 30 and down
    done = [j["job_state"] for n, j in told(slurm).items() if n != other]
    assert set(done) <= {"COMPLETED", "COMPLETING"}
