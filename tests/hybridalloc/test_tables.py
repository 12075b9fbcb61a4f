"""Jobs, servers and links from CSV files, frames and mappings: what is read, and what each mistake is told."""

from __future__ import annotations

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
        ("jobs", "name,work\n", "jobs.csv has no rows; write one a job"),
        ("servers", "name,capacity\ns,0\n", "servers.csv, line 2, column 'capacity': 0 is out of range; write a"),
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
