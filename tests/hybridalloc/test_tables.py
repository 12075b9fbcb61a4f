"""Jobs, servers and links from CSV files, frames and mappings: what is read, and what each mistake is told."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from hybridalloc import Allocator, InvalidStateError, make_problem

JOBS = "name,work,deadline_s,priority\nrender,40,9,2\nencode,25,4,1\nindex,10,,0\n"
SERVERS = "name,capacity,wait_s\nold,4,0.5\nnew,12,\n"
LINKS = "job,server,cost,work\nrender,new,0.1,\nencode,old,,20\nencode,new,,\nindex,old,0.3,\n"


def write(folder, **tables):
    paths = {}
    for name, text in tables.items():
        path = folder / f"{name}.csv"
        path.write_text(text, encoding="utf-8")
        paths[name] = path
    return paths


def test_csv_frames_and_mappings_say_the_same(tmp_path):
    import pandas as pd

    paths = write(tmp_path, jobs=JOBS, servers=SERVERS, links=LINKS)
    problem = make_problem("custom", **paths)
    frames = make_problem("custom", **{name: pd.read_csv(path) for name, path in paths.items()})
    columns = make_problem("custom", **{n: pd.read_csv(path).to_dict("list") for n, path in paths.items()})
    assert problem == frames == columns
    state = problem.reset()
    assert problem.resources == ("old", "new") and state.names == ("render", "encode", "index")
    assert state.work.tolist() == [[40, 40], [20, 25], [10, 10]]
    assert state.allowed.tolist() == [[True, False, True], [True, True, True], [True, True, False]]
    assert state.private_cost.tolist() == [[0, 0, 0.1], [0, 0, 0], [0, 0.3, 0]]
    assert state.deadline_s.tolist() == [9, 4, 1e9] and state.delay_cost == pytest.approx([1 / 9, 1 / 4, 1 / 9])
    assert state.opt_out_cost.tolist() == [2, 2, 1e6] and state.wait_s.tolist() == [0.5, 0]
    allocation = Allocator(problem, "game").step(state)
    assert allocation.option[0] == 2 and allocation.option[2] == 1 and allocation.certificate.feasible


def test_a_byte_order_mark_blank_lines_and_quotes_are_read(tmp_path):
    paths = write(tmp_path, jobs='\ufeffname,work\n"a, the first",1\n\nb,2\n', servers="name,capacity\ns,1\n")
    assert make_problem("custom", **paths).reset().names == ("a, the first", "b")


@pytest.mark.parametrize(
    ("table", "text", "message"),
    [
        ("jobs", "name,wrk\na,1\n", "jobs.csv, line 1, column 'wrk': unknown; did you mean 'work'"),
        ("jobs", "name,deadline_s\na,1\n", "jobs.csv, line 1, column 'work': missing; the columns there are: name"),
        ("jobs", "name,work\na,1\nb,fast\n", "jobs.csv, line 3, column 'work': 'fast' is not a number; write a"),
        ("jobs", "name,work\na,1\nb,-2\n", "jobs.csv, line 3, column 'work': -2 is out of range; write a number > 0"),
        ("jobs", "name,work\na,nan\n", "jobs.csv, line 2, column 'work': nan is out of range"),
        ("jobs", "name,work\na,\n", "jobs.csv, line 2, column 'work': empty; this column needs a value"),
        ("jobs", 'name,work\n"a\nb",1\nc,x\n', "jobs.csv, line 4, column 'work'"),
        ("jobs", "name,work\na,1\nb,2\na,3\n", "jobs.csv, line 4, column 'name': 'a' is used already in line 2"),
        ("jobs", "name,work,work\na,1,2\n", "jobs.csv, line 1, column 'work': appears twice"),
        ("jobs", "name,work\na,1,2\n", "jobs.csv, line 2: 3 cells under 2 columns"),
        ("jobs", "", "jobs.csv, line 1: a line of column names is needed"),
        ("servers", "name,capacity\n", "servers.csv has no rows; write one a server"),
        ("jobs", 'name,work\na,"1,000"\n', "line 2, column 'work': '1,000' is not a number; .* without separators"),
        ("jobs", "name,work\na,1_000\n", "line 2, column 'work': '1_000' is not a number"),
        ("jobs", "name,work\na,\u0661\u0662\n", "line 2, column 'work': '\u0661\u0662' is not a number"),
        ("jobs", "name,work\na,0x10\n", "line 2, column 'work': '0x10' is not a number"),
        ("jobs", "name,work\na,True\n", "line 2, column 'work': 'True' is not a number"),
        ("jobs", "name,work\na,inf\n", "line 2, column 'work': inf is out of range; write a number > 0 units"),
        ("jobs", "name,work\na,1e999\n", "line 2, column 'work': 1e999 is out of range"),
        ("jobs", "name,work\nNA,1\n", "line 2, column 'name': 'NA' is how programs write a missing value"),
        ("jobs", "name,work\nnan,1\n", "line 2, column 'name': 'nan' is how programs write a missing value"),
        ("jobs", "name,work\n,1\n", "line 2, column 'name': empty; this column needs a value"),
        ("jobs", "name,work\na\0,1\n", "jobs.csv, line 2: a NUL byte; this is no text file"),
        ("jobs", 'name,work\n"a,1\n', r"jobs.csv, line 2: not CSV \(unexpected end of data\); look for a quote"),
        ("jobs", "\n\n", "jobs.csv, line 1: a line of column names is needed"),
        ("servers", "name,capacity\ns,-1\n", "servers.csv, line 2, column 'capacity': -1 is out of range; write a"),
        ("servers", "name,capacity,wait_s\ns,1,-1\n", "column 'wait_s': -1 is out of range; write a number >= 0 s"),
        ("links", "job,server\nrender,old\n", "servers.csv, line 3, column 'name': no job reaches server 'new'"),
        ("links", "job,server\nrendr,old\n", r"links.csv, line 2, column 'job': 'rendr' is not in .*; did you mean"),
        ("links", "job,server\nrender,old\nrender,old\n", "links.csv, line 3, .* linked already in line 2"),
    ],
)
def test_a_mistake_is_told_with_file_line_column_and_remedy(tmp_path, table, text, message):
    paths = write(tmp_path, **({"jobs": JOBS, "servers": SERVERS} | {table: text}))
    with pytest.raises(InvalidStateError, match=message):
        make_problem("custom", **paths)


def test_a_missing_file_and_a_wrong_type_are_told(tmp_path):
    paths = write(tmp_path, jobs=JOBS)
    with pytest.raises(InvalidStateError, match=r"servers: .*none.csv cannot be read \(No such file"):
        make_problem("custom", jobs=paths["jobs"], servers=tmp_path / "none.csv")
    with pytest.raises(InvalidStateError, match="servers is missing; custom from tables needs jobs= and servers="):
        make_problem("custom", jobs=paths["jobs"])
    with pytest.raises(InvalidStateError, match="servers is a ndarray; give the path of a CSV file, a pandas frame"):
        make_problem("custom", jobs=paths["jobs"], servers=np.ones(3))
    with pytest.raises(InvalidStateError, match="jobs, row 1, column 'work': 'x' is not a number"):
        make_problem("custom", jobs={"name": ["a", "b"], "work": [1, "x"]}, servers={"name": ["s"], "capacity": [1]})
    with pytest.raises(InvalidStateError, match="jobs: columns differ in length"):
        make_problem("custom", jobs={"name": ["a"], "work": [1, 2]}, servers={"name": ["s"], "capacity": [1]})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xff\xfen\0a\0", "jobs.csv is text in UTF-16; save it as CSV in UTF-8"),
        (b"name,work\na,1\nb\xe9,2\n", r"jobs.csv, line 3: b'\\xe9' is not text in UTF-8"),
        (b"\x7fELF\x02\x01\x01\0\0", "jobs.csv, line 1: a NUL byte; this is no text file"),
        (b"name,work\n" + b"a" * 200_000 + b",1\n", "jobs.csv, line 2: not CSV .field larger than field limit"),
    ],
)
def test_what_is_no_text_in_utf_8_is_told(tmp_path, content, message):
    paths = write(tmp_path, servers=SERVERS)
    (tmp_path / "jobs.csv").write_bytes(content)
    with pytest.raises(InvalidStateError, match=message):
        make_problem("custom", jobs=tmp_path / "jobs.csv", **paths)


def test_a_folder_an_impossible_name_and_a_file_without_end_are_told(tmp_path, monkeypatch):
    from hybridalloc.problems.custom import tables

    servers = write(tmp_path, servers=SERVERS)["servers"]
    with pytest.raises(InvalidStateError, match=r"jobs: .* cannot be read \(Is a directory\); give the path"):
        make_problem("custom", jobs=tmp_path, servers=servers)
    with pytest.raises(InvalidStateError, match=r"jobs: a\\x00b cannot be read \(not a name that a file can have\)"):
        make_problem("custom", jobs="a\0b", servers=servers)
    monkeypatch.setattr(tables, "LARGEST", 2_000_000)
    with pytest.raises(InvalidStateError, match="/dev/zero has more than 2 MB; at most as many are read: split it"):
        make_problem("custom", jobs="/dev/zero", servers=servers)
    monkeypatch.setattr(tables, "MOST_PAIRS", 5)
    paths = write(tmp_path, jobs=JOBS, servers=SERVERS)
    with pytest.raises(InvalidStateError, match=r"3 jobs and .* 2 servers; at most 5 pairs of them are taken"):
        make_problem("custom", **paths)


def test_line_ends_of_windows_are_read(tmp_path):
    (tmp_path / "jobs.csv").write_bytes(JOBS.replace("\n", "\r\n").encode())
    paths = write(tmp_path, servers=SERVERS)
    state = make_problem("custom", jobs=tmp_path / "jobs.csv", **paths).reset()
    assert state.names == ("render", "encode", "index") and state.deadline_s.tolist() == [9, 4, 1e9]


def test_a_missing_name_of_a_frame_is_refused_and_whole_numbers_match_whatever_pandas_made_of_them():
    import pandas as pd

    servers = {"name": ["s"], "capacity": [1.0]}
    for missing in (None, float("nan"), np.float32("nan"), pd.NA, pd.NaT):
        frame = pd.DataFrame({"name": pd.Series(["a", missing], dtype=object), "work": [1, 2]})
        with pytest.raises(InvalidStateError, match="jobs, row 1, column 'name': empty; this column needs a value"):
            make_problem("custom", jobs=frame, servers=servers)
    for word in ("NA", "nan", "None", "<NA>"):
        with pytest.raises(InvalidStateError, match=r"jobs, row 0, column 'name': .* a missing value; write another"):
            make_problem("custom", jobs={"name": [word], "work": [1]}, servers=servers)
    for odd in (True, [1], float("inf"), b"a"):
        with pytest.raises(InvalidStateError, match=r"jobs, row 0, column 'name': .* is not a name; write text"):
            make_problem("custom", jobs={"name": [odd], "work": [1]}, servers=servers)
    jobs = pd.DataFrame({"name": [1, 2], "work": [3.0, 4.0]})
    links = pd.DataFrame({"job": [1.0, 2.0], "server": ["s", "s"], "cost": [0.5, 0.0]})
    assert links["job"].dtype == float
    state = make_problem("custom", jobs=jobs, servers=servers, links=links).reset()
    assert state.names == ("1", "2") and state.private_cost.tolist() == [[0, 0.5], [0, 0]]


@pytest.mark.parametrize(
    ("jobs", "message"),
    [
        ({"name": ["a"], "work": [True]}, "jobs, row 0, column 'work': True is not a number; write a number > 0 units"),
        ({"name": ["a"], "work": [np.True_]}, "jobs, row 0, column 'work': True is not a number"),
        ({"name": ["a"], "work": [10**400]}, "column 'work': a whole number of 1329 bits is out of range"),
        ({"name": ["a"], "work": [b"5"]}, "column 'work': b'5' is not a number"),
        ({"name": ["a"], "work": [[1, 2]]}, "column 'work': a list of 2 is not a number"),
        ({"name": "ab", "work": [1, 2]}, "jobs, column 'name': 'ab' is not a list; give one of cells"),
        ({"name": ["a"], "work": 5}, "jobs, column 'work': 5 is not a list; give one of cells"),
        ({"name": ["a"], "work": [1], " work": [2]}, "jobs, line 1, column 'work': appears twice; delete or rename"),
        ({"name": ["a"], 5: [1], "5": [2]}, "jobs, line 1, column '5'"),
        ({"name": ["a"], "work": ["x" * 900]}, r"column 'work': 'x+\.\.\. is not a number"),
        ({"name": ["a\x1b[31m"] * 2, "work": [1, 1]}, r"'a\\x1b\[31m' is used already in row 0"),
    ],
)
def test_a_wrong_column_or_cell_of_a_mapping_is_told(jobs, message):
    with pytest.raises(InvalidStateError, match=message) as caught:
        make_problem("custom", jobs=jobs, servers={"name": ["s"], "capacity": [1]})
    assert len(str(caught.value)) < 300 and str(caught.value).isprintable()


def test_two_columns_of_one_name_in_a_frame_are_refused():
    import pandas as pd

    frame = pd.DataFrame([["a", 1.0, 2.0]], columns=["name", "work", "work"])
    with pytest.raises(InvalidStateError, match="jobs, line 1, column 'work': appears twice; delete or rename one"):
        make_problem("custom", jobs=frame, servers={"name": ["s"], "capacity": [1]})


def test_links_beside_arrays_are_refused():
    with pytest.raises(InvalidStateError, match="links= goes with jobs= and servers=; beside arrays, allowed= and"):
        make_problem("custom", work=[1.0], capacity=[1.0], links={"job": [], "server": []})


@pytest.mark.parametrize("linked", [False, True])
def test_a_table_of_jobs_without_rows_is_a_step_without_jobs(tmp_path, linked):
    import json

    from hybridalloc.reports.step import as_json, as_text

    paths = write(tmp_path, jobs="name,work,deadline_s\n", servers=SERVERS)
    paths |= write(tmp_path, links="job,server,cost\n") if linked else {}
    problem = make_problem("custom", **paths)
    state = problem.reset()
    assert state.agents == problem.agents == 0 and state.work.shape == (0, 2) and state.names == ()
    for method in ("hybrid", "game", *problem.card.baselines):
        allocator = Allocator(problem, method)
        allocation = allocator.step(state)
        c = allocation.certificate
        assert (c.status, c.feasible, c.regret, c.unserved, len(allocation.option)) == ("ok", True, 0.0, (), 0), method
        told = json.loads(json.dumps(as_json(problem, state, allocation), allow_nan=False))
        assert told["jobs"] == told["unserved"] == [] and told["price_of"] == {"old": 0.0, "new": 0.0}
        assert "0 agents, 0 on resources" in str(allocation) and "new" in as_text(problem, state, allocation)
        with pytest.raises(IndexError, match="agent 0: this allocation has 0 agents"):
            allocation.why(0)
        assert np.isnan([problem.evaluate(state, allocation)[k] for k in ("welfare", "completion", "latency")]).all()


def test_a_fallback_is_shown_too():
    from hybridalloc.reports.step import as_json, as_text

    problem = make_problem("custom", work=[[1.0, 1.0]], capacity=[1.0, 2.0])
    state = problem.reset()
    allocation = Allocator(problem, "game", budget_ms=0.0).step(state)
    assert allocation.certificate.source == "fallback"
    assert as_json(problem, state, allocation)["price_of"] == {"resource 0": 0.0, "resource 1": 0.0}
    assert "opt out" in as_text(problem, state, allocation)
    assert np.isfinite(problem.evaluate(state, allocation)["welfare"])


def test_what_was_left_out_is_told_for_the_first_and_named_for_the_rest():
    import json

    from hybridalloc.reports.step import TRIED, as_json, as_text

    names = [f"job {i}" for i in range(20)]
    problem = make_problem(
        "custom", work=np.ones(20), capacity=[3.1], deadline_s=np.ones(20), priority=np.arange(20.0), names=names
    )
    state = problem.reset()
    allocation = Allocator(problem, "game").step(state)
    assert len(allocation.certificate.unserved) == 17
    text = as_text(problem, state, allocation)
    assert "reserved %" in text and "job 16: on resource 0 if resource 0 had 4 units/s (now 3.1)" in text
    assert "if its priority were 17.5 (now 16), in place of job 17" in text
    assert "and 11 more: job 10, job 9, job 8, job 7, job 6, job 5 ..." in text
    left = json.loads(json.dumps(as_json(problem, state, allocation), allow_nan=False))["unserved"]
    assert [entry["name"] for entry in left] == [f"job {i}" for i in range(16, -1, -1)]
    assert all(entry["would_be_served"] for entry in left[:TRIED])
    assert all(entry["would_be_served"] is None for entry in left[TRIED:])
    assert "reserved %" not in as_text(problem, state, Allocator(problem, "fastest").step(state))


def test_numbers_that_are_none_are_null_in_the_report_too():
    import json

    from hybridalloc.reports.step import as_json

    problem = make_problem("custom", work=[[1.0, 1.0]] * 2, capacity=[1.0, 2.0])
    state = problem.reset()
    allocation = Allocator(problem, "fastest").step(state)
    broken = replace(allocation, shares={"share": np.array([np.inf, np.nan])}, prices={"share": np.array([np.nan] * 2)})
    told = json.loads(json.dumps(as_json(problem, state, broken), allow_nan=False))
    assert told["price_of"] == {"resource 0": None, "resource 1": None} and told["shares"] == {"share": [None, None]}
