"""What an operator sees of `hybridalloc step --jobs`: what is read, the line that counts, what is written."""

from __future__ import annotations

import itertools
import json
import warnings

import numpy as np
import pytest

from hybridalloc import Allocator, InvalidStateError, make_problem
from hybridalloc.cli import main
from hybridalloc.problems.custom.tables import MOVING, TableNote
from hybridalloc.reports.step import LONG, as_csv, as_text, summary

JOBS = "name,work,deadline_s,priority\nrender,40,9,2\nencode,25,4,1\nindex,10,,0\ntranscode,60,6,1\n"
SERVERS = "name,capacity,wait_s\nold,4,0.5\nnew,12,\n"
COLUMNS = {
    "jobs": {"name": ["a", "b", "c"], "work": [2, 2, 2], "deadline_s": [2, 2, 2]},
    "servers": {"name": ["x", "y"], "capacity": [4, 4]},
}


@pytest.fixture
def tables(tmp_path):
    (tmp_path / "jobs.csv").write_text(JOBS)
    (tmp_path / "servers.csv").write_text(SERVERS)
    return ["step", "--jobs", str(tmp_path / "jobs.csv"), "--servers", str(tmp_path / "servers.csv")]


def run(capsys, *words):
    code = main([str(word) for word in words])
    out, error = capsys.readouterr()
    return code, out, error


def test_the_first_line_counts_and_jobs_alone_say_that_it_is_custom(capsys, tables):
    code, out, error = run(capsys, *tables)
    assert code == 0 and "note" not in error
    assert out.splitlines()[0] == "3 of 4 in time; left out: 1 of priority 1 (transcode)"
    assert run(capsys, *tables, "--problem", "custom")[1].splitlines()[:8] == out.splitlines()[:8]
    told = json.loads(run(capsys, *tables, "--json")[1])
    assert told["summary"] == out.splitlines()[0]
    code, _, error = run(capsys, *tables, "--problem", "mec")
    assert code == 2 and "--jobs and --servers go with --problem custom; got --problem mec" in error


def test_the_first_line_tells_priorities_late_jobs_and_who_moved():
    names = [f"job {i}" for i in range(12)]
    problem = make_problem(
        "custom", work=np.ones(12), capacity=[2.1], deadline_s=np.ones(12), names=names,
        priority=[5, 5, 5, 5, 5, 5, 5, 4, 3, 2, 1, 0],
    )  # fmt: skip
    state = problem.reset()
    line = summary(problem, state, Allocator(problem, "game").step(state))
    assert line == (
        "2 of 12 in time; left out: 5 of priority 5 (job 2, job 3, job 4, job 5, ...), 1 of priority 4 (job 7), "
        "1 of priority 3 (job 8), 1 of priority 2 (job 9), 2 of lower ones"
    )
    assert "; late: " in summary(problem, state, Allocator(problem, "fastest").step(state))
    equals = make_problem("custom", work=np.ones(3), capacity=[2.1], deadline_s=np.ones(3))
    state = equals.reset()
    assert summary(equals, state, Allocator(equals, "game").step(state)) == "2 of 3 in time; left out: 1 (agent 0)"
    free = make_problem("custom", work=[4.0, 1.0], capacity=[1.0, 8.0], previous=[1, 2], moving_cost=0.0)
    state = free.reset()
    assert summary(free, state, Allocator(free, "game").step(state)) == "2 of 2 served; moved: 1 (agent 0)"


def test_places_are_written_read_again_by_name_and_kept(capsys, tables, tmp_path):
    jobs = tmp_path / "jobs.csv"
    for name in ("last.csv", "last.json"):
        jobs.write_text(JOBS)
        out = tmp_path / name
        assert run(capsys, *tables, "--out", out)[0] == 0
        # shorter by a little, in another order, one gone and one new
        jobs.write_text("name,work,deadline_s,priority\nindex,10,,0\nencode,24,4,1\nrender,39,9,2\nfresh,1,9,1\n")
        code, text, error = run(capsys, *tables, "--previous", out, "--out", out, "--moving-cost", 2)
        assert code == 0 and not error and text.startswith("4 of 4 in time; moved: nobody"), text
        problem = make_problem("custom", jobs=jobs, servers=tmp_path / "servers.csv", previous=out)
        assert problem.start.previous.tolist()[:3] == [1, 2, 2] and problem.start.moving_cost.tolist() == [MOVING] * 4
    rows = [
        line.split(",")
        for line in as_csv(problem, problem.reset(), Allocator(problem).step(problem.reset())).splitlines()
    ]
    assert rows[0][:4] == ["job", "goes_to", "was", "in_time"] and len({len(row) for row in rows}) == 1
    assert [row[2] for row in rows[1:4]] == ["old", "new", "new"]


def test_what_json_printed_is_read_as_previous_too(capsys, tables, tmp_path):
    (tmp_path / "last.json").write_text(run(capsys, *tables, "--json")[1])
    assert "moved: nobody" in run(capsys, *tables, "--previous", tmp_path / "last.json")[1]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("none.json", None, "cannot be read (No such file or directory); give what `step --json`"),
        ("a.json", "{}", "a.json has no list 'jobs' of name and option; --previous reads what `step --json`"),
        ("a.json", "[", "a.json is not JSON"),
        ("a.csv", "name,server\na,b\n", "a.csv, line 1, column 'job': missing; --previous reads what `step --json`"),
    ],
)
def test_a_file_that_step_did_not_write_is_told(capsys, tables, tmp_path, name, text, message):
    if text is not None:
        (tmp_path / name).write_text(text)
    code, _, error = run(capsys, *tables, "--previous", tmp_path / name)
    assert code == 2 and message in error and error.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--out", "a.txt"], "--out a.txt: a name that ends in .csv or .json is required"),
        (["--moving-cost", "1"], "--moving-cost goes with --previous FILE"),
    ],
)
def test_flags_that_do_not_go_together_are_told(capsys, tables, words, message):
    code, _, error = run(capsys, *tables, *words)
    assert code == 2 and message in error
    code, _, error = run(capsys, "step", "--problem", "custom", "--out", "a.csv")
    assert code == 2 and "--out goes with --jobs and --servers" in error


def test_other_columns_are_left_alone_with_a_note_and_misspelt_ones_refused(capsys, tables, tmp_path):
    jobs = tmp_path / "jobs.csv"
    plain = run(capsys, *tables)[1]
    jobs.write_text("\n".join(line + f",{x}" for line, x in zip(JOBS.splitlines(), ["owner", *"xyzq"], strict=True)))
    code, out, error = run(capsys, *tables)
    assert code == 0 and out == plain
    assert error.startswith("hybridalloc: note: ") and "column 'owner' ignored; known columns: name, work" in error
    jobs.write_text(JOBS.replace("deadline_s", "deadline"))
    code, _, error = run(capsys, *tables)
    assert code == 2 and "column 'deadline': unknown; did you mean 'deadline_s'? Rename or delete it" in error


def test_moving_cost_is_a_number_a_list_or_a_column_and_places_a_mapping():
    def cost(previous=None, moving_cost=None, column=None):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            given = {"jobs": COLUMNS["jobs"] | (column or {}), "servers": COLUMNS["servers"]}
            start = make_problem("custom", **given, previous=previous, moving_cost=moving_cost).start
        return start.previous.tolist(), start.moving_cost.tolist()

    was = {"a": "y", "b": "x", "gone": "x"}
    assert cost() == ([-1, -1, -1], [0, 0, 0])
    assert cost(was) == ([2, 1, -1], [MOVING] * 3)
    assert cost(was, 0.5) == ([2, 1, -1], [0.5] * 3)
    assert cost(was, [1, 2, 3]) == ([2, 1, -1], [1, 2, 3])
    assert cost(was, 0.5, {"moving_cost": [7, None, 0]})[1] == [7, 0.5, 0]
    assert cost({"a": "opt out", "b": "sold"})[0] == [0, -1, -1]
    with pytest.raises(
        InvalidStateError, match=r"moving_cost has shape \(2,\); it is one number, or one for each of 3"
    ):
        make_problem("custom", **COLUMNS, previous=was, moving_cost=[1, 2])
    with pytest.raises(InvalidStateError, match=r"moving_cost\[0\] = -1.0; it must be finite and >= 0"):
        make_problem("custom", **COLUMNS, previous=was, moving_cost=-1)
    with pytest.raises(InvalidStateError, match="previous is a list; give the path of what `step --out` wrote"):
        make_problem("custom", **COLUMNS, previous=["x", "y"])
    with pytest.raises(InvalidStateError, match="previous= by names goes with jobs= and servers="):
        make_problem("custom", work=[1.0], capacity=[1.0], previous={"a": "x"})
    with pytest.warns(TableNote, match="previous: none of its 1 jobs is among these 3, so that all are new"):
        make_problem("custom", **COLUMNS, previous={"other": "x"})


def test_a_job_that_must_leave_a_server_that_is_down_is_shown_with_where_it_was():
    down = {"jobs": COLUMNS["jobs"], "servers": {"name": ["x", "y"], "capacity": [0, 9]}}
    problem = make_problem("custom", **down, previous={"a": "x", "b": "y", "c": "y"})
    state = problem.reset()
    allocation = Allocator(problem).step(state)
    text = as_text(problem, state, allocation)
    assert allocation.option.tolist() == [2, 2, 2] and text.startswith("3 of 3 in time; moved: 1 (a)\n")
    heads, first = text.splitlines()[2:4]
    assert heads.split()[:4] == ["job", "goes", "to", "was"] and first.split()[:3] == ["a", "y", "x"]
    assert "down" in text


def test_long_tables_are_cut_and_what_counts_comes_first():
    n = 3 * LONG
    rng, names = np.random.default_rng(0), [f"j{i}" for i in range(n)]
    problem = make_problem(
        "custom", jobs={"name": names, "work": [1.0] * (n - 1) + [500.0], "deadline_s": [5.0] * n},
        servers={"name": [f"s{r}" for r in range(2 * LONG)], "capacity": rng.uniform(4, 8, 2 * LONG)},
    )  # fmt: skip
    state = problem.reset()
    allocation = Allocator(problem, "game").step(state)
    text = as_text(problem, state, allocation)
    lines = text.splitlines()
    assert lines[0] == f"{n - 1} of {n} in time; left out: 1 (j{n - 1})" and lines[3].startswith(f"j{n - 1} ")
    assert f"{LONG} of {n} jobs, who is not in time or moved first; --out FILE.csv writes all" in text
    assert f"the {LONG} dearest of {2 * LONG}" in text and len(lines) < 2 * LONG + 30
    shown = [float(line.split()[-1]) for line in lines if line.startswith("s") and len(line.split()) == 5]
    assert len(shown) == LONG and shown == sorted(shown, reverse=True)
    assert len(as_csv(problem, state, allocation).splitlines()) == 1 + n


# --- why, in the user's names


def test_why_speaks_in_names_of_jobs_and_servers(tables):
    problem = make_problem("custom", jobs=tables[2], servers=tables[4])
    state = problem.reset()
    for method in ("hybrid", "game", "optimal", "fastest"):
        allocation = Allocator(problem, method).step(state)
        for i, name in enumerate(state.names):
            why = allocation.why(name)
            assert why.agent == i and why.taken == allocation.option[i]
            assert str(why).startswith(f"{name} ({problem.option_name(why.taken)}): ")
            for word in ("option 0", "option 1", "option 2", "agent ", "resource 0", "resource 1"):
                assert word not in str(why) and word not in why._repr_html_() + "".join(map(str, why.changes)), str(why)
            assert {row["name"] for row in why} == {"opt out", "old", "new"}
    out = Allocator(problem).step(state).why("transcode")
    assert "new: it needs 0.833 of new, 0.109 is left" in out.reason and "if old had 10.91 units/s" in str(out)
    with pytest.raises(ValueError, match="unknown agent 'rendr'; did you mean 'render'"):
        allocation.why("rendr")
    crowd = make_problem("custom", work=np.ones(99), capacity=[9.0], names=[f"job {i}" for i in range(99)])
    with pytest.raises(ValueError, match="unknown agent 'job 7a'; did you mean 'job 7") as caught:
        Allocator(crowd, "game").step(crowd.reset()).why("job 7a")
    assert len(str(caught.value)) < 300
    mec = make_problem("mec", agents=3, servers=2)
    with pytest.raises(ValueError, match="agent 'a': agents have no names here; give a number"):
        Allocator(mec, "game").step(mec.reset(0)).why("a")


# --- method "optimal"


def small(seed):
    """A table small enough to try everything, waits, power limits and reach included."""
    rng = np.random.default_rng(seed)
    n, k = int(rng.integers(2, 7)), int(rng.integers(1, 4))
    more = {"full_power_w": rng.uniform(0, 2, (n, k)), "power_limit_w": rng.uniform(0.3, 2, n)} if seed % 3 == 0 else {}
    return make_problem(
        "custom", work=rng.uniform(0.5, 4, (n, k)), capacity=rng.uniform(2, 5, k), deadline_s=rng.uniform(0.8, 3, n),
        priority=rng.integers(0, 3, n), wait_s=rng.uniform(0, 0.3, k),
        allowed=np.hstack([np.ones((n, 1), bool), rng.random((n, k)) < 0.8]), **more,
    )  # fmt: skip


def most(problem):
    """Served by class, the highest first, by trying every joint choice, from the definitions."""
    s = problem.start
    n, k = s.work.shape
    best = None
    for choice in itertools.product(range(k + 1), repeat=n):
        room = np.ones(k)
        for i, o in enumerate(choice):
            if o:
                slack = s.deadline_s[i] - s.wait_s[o - 1]
                need = s.work[i, o - 1] / s.capacity[o - 1] / slack if slack > 0 else np.inf
                alone = (s.wait_s[o - 1] + s.work[i, o - 1] / s.capacity[o - 1]) / s.deadline_s[i]
                draw = s.full_power_w[i, o - 1]
                cap = s.power_limit_w[i] / draw if draw > 0 else np.inf
                if not s.allowed[i, o] or need > cap or alone > 3.0:
                    room[:] = -1
                    break
                room[o - 1] -= need
        if (room >= -1e-9).all():
            by = [sum(1 for i, o in enumerate(choice) if o and s.priority[i] == p) for p in np.unique(s.priority)[::-1]]
            best = by if best is None or by > best else best
    return best


@pytest.mark.parametrize("seed", range(24))
def test_the_optimum_is_that_of_trying_everything(seed):
    problem = small(seed)
    state = problem.reset()
    allocation = Allocator(problem, "optimal", prices=problem.card.prices(margin=1.0)).step(state)
    c = allocation.certificate
    levels = np.unique(state.priority)[::-1]
    assert [int(allocation.held[state.priority == p].sum()) for p in levels] == most(problem)
    assert c.gap == 0 and c.feasible and c.source == "optimal" and not c.envy and not c.late and c.regret <= 1e-9
    assert c.status.startswith("ok: no more can be served, class by class: proved by HiGHS in ")
    assert [row["option"] for row in allocation.why(0)] and np.isnan(
        Allocator(problem, "game").step(state).certificate.gap
    )


def test_the_optimum_packs_what_can_be_packed_and_then_moves_nobody():
    rng = np.random.default_rng(3)
    for _ in range(6):
        floor = rng.dirichlet(np.ones(4), 3).ravel() * 0.999
        problem = make_problem("custom", work=floor[:, None] * np.ones(3), capacity=np.ones(3), deadline_s=np.ones(12))
        state = problem.reset()
        first = Allocator(problem, "optimal").step(state)
        assert first.served.all() and first.certificate.gap == 0
        again = make_problem(
            "custom", work=state.work, capacity=state.capacity, deadline_s=state.deadline_s, previous=first.option,
            moving_cost=1.0,
        )  # fmt: skip
        kept = Allocator(again, "optimal").step(again.reset())
        assert kept.served.all() and (kept.option == first.option).all()


def test_what_is_beyond_the_optimum_s_reach_is_told_with_its_size(capsys, tables, monkeypatch):
    from hybridalloc.problems.custom import optimum

    two = make_problem("custom", work=np.ones((2, 2)), capacity=[1.0, 1.0], options=[[0, 1]])
    with pytest.raises(InvalidStateError, match="method 'optimal' takes options of one resource, and here some use"):
        Allocator(two, "optimal").step(two.reset())
    monkeypatch.setattr(optimum, "REACH", 4)
    code, _, error = run(capsys, *tables, "--method", "optimal")
    assert code == 2 and "up to 4 pairs" in error and "here 4 agents and 2 options make 5: take 'hybrid'" in error
    with pytest.raises(ValueError, match="unknown method 'optimal'"):
        Allocator(make_problem("mec", agents=4, servers=2), "optimal")


def test_a_search_that_is_stopped_says_how_far_it_is_proved(capsys, tables):
    code, out, _ = run(capsys, *tables, "--method", "optimal")
    assert code == 0 and out.startswith(
        "3 of 4 in time; left out: 1 of priority 1 (transcode); no more can be served, "
    )
    code, out, _ = run(capsys, *tables, "--method", "optimal", "--budget-ms", 0)
    assert code == 0 and "; at most 1 more can be served before a lower class counts" in out.splitlines()[0]
    assert "by optimal, ok: at most 1 more of priority 1 can be served" in out
