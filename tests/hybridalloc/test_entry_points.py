"""A problem of someone else's package, found through the entry point group ``hybridalloc.problems``."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from hybridalloc import Allocator, make_problem
from hybridalloc.errors import ContractError
from hybridalloc.problems import problem_names, restore_problem

HOUSE = Path(__file__).resolve().parents[2]
CODE = '''
from examples.chargers import Chargers
from hybridalloc import make_problem

def orchard(trees: int = 4, servers: int = 2):
    return make_problem("custom", work=[1.0] * trees, capacity=[1.0] * servers, deadline_s=[9.0] * trees)

class Harbour(Chargers):
    restore = None  # made again from its description

class Half:
    """Nothing of a problem but its description."""
    def __init__(self, size=1): self.size = size
    def describe(self): return {"name": "half", "size": self.size}

number = 7
'''


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package as pip would leave it: a module and its dist-info on the path."""
    (tmp_path / "orchard_package.py").write_text(CODE)
    info = tmp_path / "orchard-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: orchard\nVersion: 1.0\n")
    lines = "orchard = orchard_package:orchard\nharbour = orchard_package:Harbour\nmec = orchard_package:Half\n"
    lines += "half = orchard_package:Half\nferries = examples.chargers:Chargers\n"
    lines += "broken = orchard_package:nothing\nnumber = orchard_package:number\n"
    (info / "entry_points.txt").write_text(f"[hybridalloc.problems]\n{lines}")
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def test_a_registered_problem_is_made_and_restored(package):
    assert {"mec", "custom", "orchard", "harbour", "ferries"} <= set(problem_names())
    problem = make_problem("orchard", trees=5)
    assert problem.agents == 5 and restore_problem(json.loads(json.dumps(problem.describe()))) == problem
    assert make_problem("mec", agents=3, servers=2).name == "mec"  # what is built in stays


def test_what_is_registered_may_be_named_by_a_file(package, tmp_path):
    """By its class's address, under whatever name; with or without ``restore``."""
    problem = make_problem("ferries", cars=3)
    again = restore_problem(json.loads(json.dumps(problem.describe())))
    assert again == problem == make_problem("examples.chargers:Chargers", cars=3)
    assert Allocator.load(Allocator(problem).save(tmp_path / "a.npz")).problem == problem
    own = make_problem("harbour", cars=2, closes=3.0)
    restored = restore_problem(own.describe())
    assert type(restored) is type(own) and (restored.cars, restored.closes) == (2, 3.0)


def test_one_that_misses_a_member_is_refused_by_its_name(package):
    with pytest.raises(ContractError, match=r"problem 'half' \(Half\) has no 'card'; it needs a hybridalloc.problems"):
        make_problem("half")
    with pytest.raises(ContractError, match=r"problem 'half' \(Half\) has no 'card'"):
        restore_problem({"name": "half", "size": 3})


def test_a_broken_one_names_its_package(package):
    with pytest.raises(ValueError, match=r"problem 'broken' of orchard cannot be loaded from orchard_package:nothing"):
        make_problem("broken")
    with pytest.raises(ValueError, match="orchard_package:number is a int; it must be a class or a function"):
        make_problem("number")
    with pytest.raises(ValueError, match="unknown problem 'orchad'; did you mean 'orchard'"):
        make_problem("orchad")


def test_it_works_in_a_command(package):
    path = os.pathsep.join([str(package), str(HOUSE)])
    code = "from hybridalloc.cli import main; import sys; sys.exit(main(sys.argv[1:]))"
    run = lambda *words, given="": subprocess.run(
        [sys.executable, "-c", code, *words], input=given, capture_output=True, text=True, check=True,
        env=os.environ | {"PYTHONPATH": path},
    )  # fmt: skip
    state = run("step", "--problem", "orchard", "--settings", "trees=3", "servers=2", "--example").stdout
    assert len(json.loads(state)["work"]) == 3
    answer = json.loads(run("step", "--problem", "orchard", "--json", given=state).stdout)
    assert len(answer["option"]) == 3 and answer["certificate"]["feasible"]
