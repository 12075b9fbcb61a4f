"""The seeds' tables again: their figures as printed, ours beside them from stored runs, the order, what is missing."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from hybridalloc import make_problem
from hybridalloc.cli import main
from hybridalloc.errors import CheckpointError, UnknownNameError
from hybridalloc.experiments import again as elsewhere
from hybridalloc.experiments import reproduce as commands
from hybridalloc.experiments import suite as module
from hybridalloc.experiments.again import again, under
from hybridalloc.experiments.reproduce import page, reproduce
from hybridalloc.experiments.seeds import TABLES
from hybridalloc.experiments.seeds.figures import converged, evenness, wavering
from hybridalloc.experiments.seeds.page import page as page_of
from hybridalloc.experiments.seeds.table import Cell, Claim, Column, Part, Table
from hybridalloc.experiments.settings import check_methods, problem_of
from hybridalloc.experiments.suite import DONE_FILE, Row, Suite, done, settings_of
from hybridalloc.experiments.tracking import write_comparison
from hybridalloc.training.config import REPORT_SEEDS
from hybridalloc.training.evaluation import evaluate


def whole(folder, methods, values, settings=None, rows=None):
    """A comparison's folder as `compare` leaves it, as far as tables read it."""
    budget = {"agent_steps": getattr(settings, "agent_steps", 7), "tuning_trials": getattr(settings, "tuning", 0)}
    seeds = {"train": [0], "report": [10000, 10001]}
    record = {"problem": "mec", "seeds": seeds, "budget": budget, "git_commit": "c0ffee", "curves": []}
    rows = rows or [{"key": key, "label": key, "kind": "rl", "values": values} for key in methods]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.json").write_text(json.dumps(record | {"methods": rows}))


@pytest.fixture
def ran(monkeypatch):
    """Comparisons whose completion is 80 plus the number of servers, less is needed of nothing else."""
    calls = []

    def compare(settings, resume=None):
        calls.append((settings.agents, settings.servers, settings.scenario, settings.suite))
        folder = Path(settings.runs) / "mec-1"
        write_comparison(folder, problem="mec", scenario={}, methods=settings.methods, seeds={}, data_digest="", git="",
                         budget={})  # fmt: skip
        values = {"completion": [[80.0 + settings.servers, 80.5 + settings.servers]], "latency": [[5.0, np.nan]]}
        whole(folder, settings.methods, values, settings)
        return {"folder": str(folder)}

    monkeypatch.setattr(module, "compare", compare)
    return calls


@pytest.mark.parametrize("name", TABLES)
def test_every_table_names_problems_methods_and_laws_that_are_there(name):
    table = TABLES[name]
    for row, methods in [*table.runs.values(), *((one.row, one.methods) for one in table.again.values())]:
        problem = problem_of(settings_of(row, Suite()))
        check_methods(problem, methods)
        flags = dict(row.flags)
        for flag in {"agents", "servers"} & flags.keys():
            assert getattr(problem, flag) == flags[flag]
    methods = {key: set(told) for key, (_, told) in table.runs.items()}
    for one in table.again.values():
        assert set(one.methods) <= methods[one.of]
        under(problem_of(settings_of(one.row, Suite())), one.shift)
    methods |= {key: set(one.methods) for key, one in table.again.items()}
    assert table.home in ("", *TABLES) and (not table.home or TABLES[table.home].runs == table.runs)
    for part in table.parts:
        keys = {column.key for column in part.columns}
        assert all(cell.method in methods[cell.row] and cell.theirs.keys() <= keys for cell in part.cells)
        for claim in part.claims:
            assert claim.method in methods[claim.row] and set(claim.others) <= methods[claim.against or claim.row]
            assert claim.against or claim.method not in claim.others


def test_the_figures_are_as_the_documents_print_them():
    """Each against the page of targets, row by row as it stands there."""
    theirs = lambda table, key, part=0: [
        cell.theirs[key] for cell in TABLES[table].parts[part].cells if key in cell.theirs
    ]
    assert theirs("003-table1", "completion") == [85.3, 91.2, 88.7, 94.8, 78.4, 99.0]
    assert theirs("003-table1", "tasks_per_joule_all") == [1.42, 1.87, 1.65, 2.23, 1.18, 2.68]
    assert theirs("003-table2", "outage") == [0.38, 0.12, 0.05, 0.02, 0.01, 0.01]
    assert theirs("003-table3", "completion_high") == [94.2, 98.7, 95.8, 97.2, 99.1]
    assert theirs("003-table3", "evenness") == [1.0, 0.924, 0.987, 0.941, 0.962]
    assert theirs("003-table4", "welfare") == [64_500, 63_200, 62_306, 61_100, 59_800]
    assert theirs("003-table5", "wavering", 1) == [2_180, 3_450, 1_240]
    assert theirs("001-table1", "used") == [82, 70, 85, 72, 80, 68]
    assert (theirs("001-table2", "jct_0"), theirs("001-table2", "jct_1")) == ([12, 18], [15, 22])
    ratio = [low / high for high, low in ((98.7, 91.4), (95.8, 95.1), (97.2, 92.8), (99.1, 94.8))]
    np.testing.assert_allclose(
        ratio, [0.926, 0.993, 0.955, 0.957], atol=5e-4
    )  # as its notes say of the fairness column


def test_ours_stand_beside_theirs_and_the_order_is_told(tmp_path, ran):
    out = Suite(out=str(tmp_path), only=("n50-k3", "n50-k9"), budget=(("agent_steps", 7),))
    told = reproduce("003-table2", out)
    assert ran == [(50, 3, "S", "reproduce-003-table2"), (50, 9, "S", "reproduce-003-table2")]
    assert "| K = 3 | 83.25 [83.00, 83.50] | 89.4 | 5.00 | 28.6 |" in told
    assert "| K = 6 | – | 94.2 |" in told
    assert "completion %: order kept, Kendall's tau 1.00, 2 rows." in told
    assert "latency ms: order kept" in told  # a tie breaks no order
    assert "1 training seeds of 7 agent-steps, 2 reporting seeds" in told and "2 of 6 comparisons done" in told
    assert "`hybridalloc reproduce 003-table2 --agent-steps 7 --train-seeds 2 --report-seeds 10 --tuning 8`" in told
    assert "Table 1 is said to be of K = 9 and equals Table 2's row of K = 18" in told
    assert (tmp_path / "003-table2.md").read_text() == told == page("003-table2", tmp_path)
    reproduce("003-table2", out)
    assert len(ran) == 2  # what is done is not run again


def test_rows_of_another_budget_or_table_are_not_mixed_in(tmp_path, ran):
    first = Suite(out=str(tmp_path), only=("n50-k3",), budget=(("agent_steps", 7),))
    reproduce("003-table2", first)
    other = Suite(out=str(tmp_path), only=("n50-k9",), budget=(("agent_steps", 8), ("report_seeds", 11)))
    said = r"holds a table's runs whose budget \(agent_steps, report_seeds\) is 7, 10, and 8, 11 is asked for; give ano"
    with pytest.raises(CheckpointError, match=said):
        reproduce("003-table2", other)
    with pytest.raises(CheckpointError, match="whose table is 003-table2, and 003-table4 is asked for"):
        reproduce("003-table4", Suite(out=str(tmp_path), budget=(("agent_steps", 7),)))
    assert len(ran) == 1
    assert "whose table is" not in reproduce("003-table2", first)


def test_two_tables_of_the_same_runs_share_them(tmp_path, ran, monkeypatch):
    monkeypatch.chdir(tmp_path)
    reproduce("003-table1", Suite())
    told = reproduce("003-table5", Suite())
    assert len(ran) == 1 and "1 of 1 comparisons done" in told
    assert {path.name for path in Path("runs/reproduce-003-table1").glob("*.md")} == {"003-table1.md", "003-table5.md"}


@pytest.mark.parametrize("name", ["../../elsewhere", "..", ".", "", "inner/deeper"])
def test_a_rows_record_names_a_folder_of_its_own(tmp_path, name):
    """A record that points elsewhere is refused though a whole comparison lies there."""
    place = tmp_path / "a" / "row"
    for folder in (place / "own", tmp_path / "elsewhere", place, tmp_path / "a", place / "inner" / "deeper"):
        whole(folder, ("game-tuned",), {})
    (place / DONE_FILE).write_text(json.dumps({"folder": name}))
    with pytest.raises(CheckpointError, match=r"which is not one in .*; delete that file"):
        done(place)
    (place / DONE_FILE).write_text(json.dumps({"folder": "own"}))
    assert done(place) == place / "own"


def test_a_link_out_of_a_rows_folder_is_not_followed(tmp_path):
    whole(tmp_path / "elsewhere", ("game-tuned",), {})
    place = tmp_path / "row"
    place.mkdir()
    (place / "link").symlink_to(tmp_path / "elsewhere")
    (place / DONE_FILE).write_text(json.dumps({"folder": "link"}))
    with pytest.raises(CheckpointError, match="which is not one in"):
        done(place)


def test_what_is_not_done_is_said_to_be_missing_and_names_are_the_nearest(tmp_path, capsys):
    assert "No run is done yet." in page("003-table1", tmp_path)
    assert "| IMAPPO alone | – | 99 | – | 14.2 | – | 2.68 | – | 3.8 | – | 62,306 |" in page("003-table1", tmp_path)
    assert page("000-comparison", tmp_path).count("not run yet.") == 6
    with pytest.raises(UnknownNameError, match="did you mean '003-table1'"):
        reproduce("003-tabel1", Suite(out=str(tmp_path)))
    with pytest.raises(UnknownNameError, match="unknown row 'n50-k8'; did you mean"):
        reproduce("003-table2", Suite(out=str(tmp_path), only=("n50-k8",)))
    assert main(["reproduce"]) == 0
    told = capsys.readouterr().out
    assert all(f"{name}  " in told for name in TABLES) and "n1000-k150" in told


RATE = Column("rate", "rate %")


def told_of(tmp_path, values, cells=(), claims=()):
    """The page of a table of one run, of methods with these values of a rate."""
    place = tmp_path / "one"
    rows = [{"key": key, "label": key, "kind": "rl", "values": {"rate": rows}} for key, rows in values.items()]
    whole(place / "c", (), {}, rows=rows)
    (place / DONE_FILE).write_text('{"folder": "c"}')
    rows = tuple(Cell(label, "one", label, {"rate": theirs}) for label, theirs in cells)
    table = Table("T", {"one": (Row("mec"), tuple(values))}, (Part((RATE,), rows, claims),), ("a note",))
    return page_of("t", table, tmp_path)


def test_an_order_that_is_not_kept_names_the_pairs_that_are_beyond_the_intervals(tmp_path):
    """Three rows, theirs 1 < 2 < 3. Ours of a and b are turned within their intervals, c is below both beyond them."""
    noise = [[0.0, 1.0, 2.0, 3.0]]
    shift = lambda by: (np.array(noise) + by).tolist()
    told = told_of(tmp_path, {"a": shift(10.2), "b": shift(10.0), "c": shift(0.0)}, (("a", 1), ("b", 2), ("c", 3)))
    assert (
        "order not kept, Kendall's tau -1.00, 3 rows: 3 pairs turned, 2 beyond the rows' intervals: a and c; b and c"
        in told
    )
    kept = told_of(tmp_path, {"a": shift(10.2), "b": shift(10.0)}, (("a", 1), ("b", 2)))
    assert "one pair turned, each within the rows' intervals." in kept


def test_a_claim_is_judged_by_differences_on_common_seeds(tmp_path):
    """b is 10 % below a on every seed, c above, d as far above as below: as claimed, the other way round, undecided."""
    base = np.array([[10.0, 20.0, 30.0, 40.0]])
    values = {
        "a": base.tolist(), "b": (0.9 * base).tolist(), "c": (base + 1).tolist(),
        "d": (base + np.array([1, -1, 1, -1])).tolist(),
    }  # fmt: skip
    told = told_of(tmp_path, values, claims=(Claim("a is best", "one", RATE, "a", ("b", "c", "d")),))
    assert '"a is best": rate %, against b +11.1 % [' in told
    b, c, d = told.split("against ")[1].split("; ")
    assert b.endswith("as claimed") and c.endswith("the other way round") and "undecided" in d
    assert "Of 1 training seeds: no more than a direction." in told
    fewer = Column("rate", "rate %", "lower")
    told = told_of(tmp_path, values, claims=(Claim("a is least", "one", fewer, "a", ("b", "c")),))
    assert "], the other way round; c" in told and told.split("; c ")[1].startswith("−3.8 % [")


def test_convergence_and_spread_are_read_from_the_checks():
    """By hand: 95 % of 10 is 9.5; the first run is there for good at the fourth check, the second from the start."""
    curve = {
        "method": "m",
        "steps": [0, 1000, 2000, 3000, 4000],
        "values": [[1, 9.6, 9.4, 9.7, 10], [10, 10, 10, 10, 10]],
    }
    comparison = {"methods": [], "curves": [curve]}
    np.testing.assert_array_equal(converged(comparison, "m", ""), [[3.0], [0.0]])
    np.testing.assert_allclose(wavering(comparison, "m", ""), [[np.std([9.4, 9.7, 10], ddof=1)], [0.0]])
    assert np.isnan(converged(comparison, "other", "")).all() and np.isnan(wavering(comparison, "other", "")).all()
    below = {"method": "m", "steps": [0, 1000, 2000], "values": [[-3, -1.06, -1.0]]}  # of a reward below 0
    np.testing.assert_array_equal(converged({"curves": [below]}, "m", ""), [[2.0]])


def test_evenness_is_the_worse_half_over_the_better():
    values = {"completion_high": [[99.1, 80.0, 0.0]], "completion_low": [[94.8, 100.0, 0.0]]}
    comparison = {"methods": [{"key": "m", "values": values}]}
    np.testing.assert_allclose(evenness(comparison, "m", ""), [[94.8 / 99.1, 0.8, np.nan]])


def test_stored_allocators_decide_on_another_problem(tmp_path, monkeypatch):
    """What `again` returns is what the same allocator gives there by itself; a rule's and a game's alike."""
    from hybridalloc import Allocator

    @contextmanager
    def pool(workers):  # a process of its own reads hybridalloc again, which takes longer than what it is asked for
        with ThreadPoolExecutor(workers) as threads:
            yield threads, None

    monkeypatch.setattr(elsewhere, "open_pool", pool)
    problem = make_problem("mec", agents=5, servers=2)
    for method in ("game", "nearest"):
        name = {"game": "game-tuned"}.get(method, method)
        Allocator(problem, method).save(tmp_path / f"{name}-seed0" / "allocator.npz")
    whole(tmp_path, ("game-tuned", "nearest"), {})
    other = under(make_problem("mec", agents=7, servers=2), "CPU / 2")
    told = again(tmp_path, other, ("game-tuned", "nearest"), 2, workers=1)
    values = {m["key"]: m["values"] for m in told["methods"]}
    kept = Allocator.load(tmp_path / "game-tuned-seed0" / "allocator.npz")
    direct = evaluate(other, kept.prices, kept.coordinator, None, REPORT_SEEDS[:2])
    np.testing.assert_allclose(values["game-tuned"]["welfare"], [direct.metrics["welfare"]])
    rule = evaluate(other, kept.prices, None, None, REPORT_SEEDS[:2], "nearest")
    np.testing.assert_allclose(values["nearest"]["completion"], [rule.metrics["completion"]])
    assert told["problem"] == f"mec, {other.card.size}" and told["seeds"]["report"] == [10000, 10001]
    with pytest.raises(UnknownNameError, match="unknown law of the problem 'CPU / 3'; did you mean 'CPU / 2'"):
        under(other, "CPU / 3")
    with pytest.raises(UnknownNameError, match="law"):
        under(make_problem("balancer"), "CPU / 2")


def test_what_a_row_begins_from_is_run_first(tmp_path, ran, monkeypatch):
    """Asked for the row of 1,000 devices alone, the row it begins from is run, and then it is evaluated there."""
    seen = []

    def evaluated(folder, problem, methods, seeds, workers):
        seen.append((folder.parent.name, problem.agents, seeds))
        whole(folder / "scratch", methods, {})
        return json.loads((folder / "scratch" / "results.json").read_text())

    monkeypatch.setattr(commands, "again", evaluated)
    told = reproduce("003-table4", Suite(out=str(tmp_path), only=("n1000-k150",)))
    assert [call[:2] for call in ran] == [(100, 15)] and seen == [("n100-k15", 1000, 2)]
    assert "2 of 6 comparisons done" in told
    reproduce("003-table4", Suite(out=str(tmp_path), only=("n1000-k150",)))
    assert len(seen) == 1
