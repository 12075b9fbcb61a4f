"""The seeds' tables again: their figures as printed, ours beside them from stored runs, the order, what is missing."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from hybridalloc.cli import main
from hybridalloc.errors import UnknownNameError
from hybridalloc.experiments import suite as module
from hybridalloc.experiments.reproduce import page, reproduce
from hybridalloc.experiments.seed_tables import TABLES
from hybridalloc.experiments.settings import check_methods, problem_of
from hybridalloc.experiments.suite import Suite, settings_of
from hybridalloc.experiments.tracking import write_comparison


@pytest.fixture
def ran(monkeypatch):
    """Comparisons whose completion is 80 plus the number of servers, less is needed of nothing else."""
    calls = []

    def compare(settings, resume=None):
        calls.append((settings.agents, settings.servers, settings.scenario, settings.suite))
        folder = Path(settings.runs) / "mec-1"
        write_comparison(
            folder, problem="mec", scenario={}, methods=settings.methods,
            seeds={"train": [0], "report": [10000, 10001]}, data_digest="", git="c0ffee",
            budget={"agent_steps": settings.agent_steps, "tuning_trials": settings.tuning},
        )  # fmt: skip
        values = {"completion": [[80.0 + settings.servers, 80.5 + settings.servers]], "latency": [[5.0, np.nan]]}
        methods = [{"key": key, "label": key, "kind": "rl", "values": values} for key in settings.methods]
        (folder / "results.json").write_text(json.dumps({"methods": methods, "problem": "mec"}))
        return {"folder": str(folder)}

    monkeypatch.setattr(module, "compare", compare)
    return calls


def test_every_table_names_problems_and_methods_that_are_there():
    for table in TABLES.values():
        for row, methods in table.runs.values():
            problem = problem_of(settings_of(row, Suite()))
            check_methods(problem, methods)
            assert (problem.agents, problem.servers) == (dict(row.flags)["agents"], dict(row.flags)["servers"])
        assert {cell.row for cell in table.cells} <= table.runs.keys()
        assert all(cell.method in table.runs[cell.row][1] for cell in table.cells)


def test_ours_stand_beside_theirs_and_the_order_is_told(tmp_path, ran):
    out = Suite(out=str(tmp_path), only=("n50-k3", "n50-k9"), budget=(("agent_steps", 7),))
    told = reproduce("003-table2", out)
    assert ran == [(50, 3, "S", "reproduce-003-table2"), (50, 9, "S", "reproduce-003-table2")]
    assert "| K = 3 | 83.25 [83.00, 83.50] | 89.4 | 5.00 | 28.6 |" in told
    assert "| K = 6 | – | 94.2 |" in told
    assert "completion %: order kept, Kendall's tau 1.00, 2 rows." in told
    assert "latency ms: order kept" in told  # a tie breaks no order
    assert "1 training seeds of 7 agent-steps, 2 reporting seeds" in told and "2 of 6 comparisons done" in told
    assert "Table 1 is said to be of K = 9 and equals Table 2's row of K = 18" in told
    assert (tmp_path / "table.md").read_text() == told
    reproduce("003-table2", out)
    assert len(ran) == 2  # what is done is not run again


def test_what_is_not_done_is_said_to_be_missing_and_names_are_the_nearest(tmp_path, capsys):
    assert "No run is done yet." in page("003-table1", tmp_path)
    assert "| IMAPPO alone | – | 99 | – | 14.2 | – | 2.68 | – | 3.8 |" in page("003-table1", tmp_path)
    with pytest.raises(UnknownNameError, match="did you mean '003-table1'"):
        reproduce("003-tabel1", Suite(out=str(tmp_path)))
    with pytest.raises(UnknownNameError, match="unknown row 'n50-k8'; did you mean"):
        reproduce("003-table2", Suite(out=str(tmp_path), only=("n50-k8",)))
    assert main(["reproduce"]) == 0
    assert "003-table4  By size" in capsys.readouterr().out
