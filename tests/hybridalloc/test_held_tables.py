"""What is held, from CSV files: the tables say what the arrays say, and what is wrong is told by line and column."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest

from games.errors import InvalidStateError
from hybridalloc import Allocator, make_problem
from hybridalloc.cli import main

SERVERS = "name,held:gpu,held:gb\ns1,8,80\ns2,8,256\n"
JOBS = (
    "name,demand:gpu,demand:gb,apart,team,priority,count\n"
    "web-1,1,64,web,a,0,\nweb-2,1,64,web,a,0,1\ntrain,4,100,,b,1,\nsweep,2,10,,b,,2\nlarge,4,16,,a,-1,1\n"
)
QUOTA = "team,quota:gpu,quota:gb\na,4,\n"


@pytest.fixture
def files(tmp_path):
    def write(jobs=JOBS, servers=SERVERS, quota=QUOTA):
        given = {"jobs": jobs, "servers": servers, "quota": quota}
        for name, text in given.items():
            (tmp_path / f"{name}.csv").write_text(text, encoding="utf-8")
        return {name: tmp_path / f"{name}.csv" for name in given}

    return write


def test_tables_are_the_problem_of_the_arrays(files):
    by_arrays = make_problem(
        "custom", demand={"gpu": [1, 1, 4, 2, 4], "gb": [64, 64, 100, 10, 16]}, held={"gpu": [8, 8], "gb": [80, 256]},
        count=[1, 1, 1, 2, 1], apart=["web", "web", "", "", ""], team=["a", "a", "b", "b", "a"],
        priority=[0, 0, 1, 0, -1], quota={"a": {"gpu": 4}}, names=["web-1", "web-2", "train", "sweep", "large"],
        servers=["s1", "s2"],
    )  # fmt: skip
    assert make_problem("custom", **files()) == by_arrays


def test_a_step_says_where_jobs_go_and_what_the_others_lack_and_they_stay(files, tmp_path, capsys):
    given = files()
    flags = [word for name, path in given.items() for word in (f"--{name}", str(path))]
    assert main(["step", *flags, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    on = {row["name"]: row["servers"] for row in told["jobs"]}
    assert told["certificate"]["feasible"] and sorted(on["sweep"]) == ["s1", "s2"]
    assert on["web-1"] != on["web-2"] and on["train"] == ["s2"]
    waits = [row for row in told["jobs"] if not row["served"]]
    assert [row["name"] for row in waits] == ["large"] and "none of 2 places has room" in waits[0]["why"]
    assert main(["step", *flags, "--out", str(tmp_path / "out.csv")]) == 0
    text = capsys.readouterr().out
    assert "4 of 5 have a place" in text and "large waits: none of 2 places has room" in text
    before = {row["job"]: row["goes_to"] for row in csv.DictReader((tmp_path / "out.csv").open(encoding="utf-8"))}
    again = make_problem("custom", **given, previous=tmp_path / "out.csv", moving_cost=5.0)
    allocation = Allocator(again, "game").step(again.reset())
    after = {name: again.card.options[o] for name, o in zip(before, allocation.option, strict=True)}
    assert after == before and np.all(again.reset().moving_cost == 5.0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"jobs": "name\na\n"}, "jobs.csv, line 1: what jobs take is missing; add columns such as demand:gpu"),
        ({"jobs": "name,demand:tpu\na,1\n"}, "'demand:tpu': no server has it; .*columns for gpu, gb"),
        ({"jobs": "name,demand:gpu\na,1\nb,-2\n"}, "jobs.csv, line 3, column 'demand:gpu': -2 is out of range"),
        ({"jobs": "name,demand:gpu\na,one\n"}, "line 2, column 'demand:gpu': 'one' is not a number"),
        ({"jobs": "name,demand:gpu,count\na,1,1.5\n"}, "column 'count': 1.5 is no whole number of servers"),
        ({"jobs": "name,demand:gpu\na,1\na,1\n"}, "line 3, column 'name': 'a' is used already in line 2"),
        ({"servers": "name,held:gpu,held:gb\ns,1,1\ns,2,2\n"}, "line 3, column 'name': 's' is used already in line 2"),
        ({"servers": "name,held:gpu,held:gb\n"}, "servers.csv has no rows; write one a server"),
        ({"quota": "team,quota:gpu\na,1\na,2\n"}, "quota.csv, line 3, column 'team': 'a' is there already"),
        ({"quota": "team,quota:tpu\na,1\n"}, "quota of 'a': 'tpu' is none of gpu, gb"),
    ],
)
def test_what_is_wrong_is_told_where_it_stands(files, change, message):
    with pytest.raises(InvalidStateError, match=message):
        make_problem("custom", **files(**change))


def test_links_and_settings_that_do_not_go_together(files, tmp_path):
    given = files()
    links = tmp_path / "links.csv"
    links.write_text("job,server,cost\ntrain,s2,1\nweb-1,s1,\nweb-1,s1,2\n", encoding="utf-8")
    with pytest.raises(InvalidStateError, match="line 4, column 'server': linked already in line 3"):
        make_problem("custom", **given, links=links)
    links.write_text("job,server,cost\ntrain,s2,1\nweb-1,s1,\n", encoding="utf-8")
    start = make_problem("custom", **given, links=links).reset()
    assert start.allowed.sum() == 2 and start.cost[2, 1] == 1
    with pytest.raises(InvalidStateError, match="not both"):
        make_problem("custom", **given, work=[1.0])
    with pytest.raises(InvalidStateError, match="quota= goes with what is held"):
        make_problem("custom", work=[[1.0]], capacity=[1.0], quota="quota.csv")
