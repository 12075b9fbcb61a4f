"""The suite: names, what is skipped and gone on with after a stop, its tables; rows are made up, not run."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from hybridalloc.cli import main
from hybridalloc.errors import CheckpointError, PlaceError, UnknownNameError, WorkError
from hybridalloc.experiments import suite as module
from hybridalloc.experiments.suite import Suite, bench, stored
from hybridalloc.experiments.tidy import Line, write_tidy
from hybridalloc.experiments.tracking import MirrorResult, write_comparison
from hybridalloc.reports.suite import cells, chances, markdown, summarise, text, verdict

ROWS = ("mec", "cluster", "balancer", "voltage")


def made_up(name: str, seeds: int = 5):
    """A comparison whose hybrid is first but in cluster, with a clairvoyant in balancer; less is better in voltage."""
    rng, sign = np.random.default_rng(len(name)), -1.0 if name == "voltage" else 1.0
    floor = "none" if name == "voltage" else "random"
    level = {"hybrid-imappo": 0.9, "rl-imappo": 0.95 if name == "cluster" else 0.7, "game-tuned": 0.8, floor: 0.1}
    level |= {"clairvoyant": 1.2} if name == "balancer" else {}
    kinds = {"hybrid-imappo": "hybrid", "rl-imappo": "rl", "game-tuned": "game"}
    noise = 0.01 * rng.normal(size=(seeds, 6))
    methods = [
        {"key": key, "label": key, "kind": kinds.get(key, "heuristic"),
         "values": {"m": (sign * mean + noise[: seeds if key in list(kinds)[:2] else 1]).tolist()}}
        | ({"bound": True} if key == "clairvoyant" else {})
        for key, mean in level.items()
    ]  # fmt: skip
    return {
        "title": name, "problem": name, "aim": "m", "headline": ["m"], "methods": methods, "budget": {},
        "metrics": [{"key": "m", "label": "score", "unit": "", "better": "lower" if sign < 0 else "higher"}],
        "seeds": {"train": list(range(seeds)), "report": list(range(10000, 10006))},
        "counts": {"allocations": 10, "violations": 0},
    }  # fmt: skip


@pytest.fixture
def ran(monkeypatch):
    """Rows that are made up where compare is called; the calls, and by row what is to be raised half-way."""
    calls, trouble = [], {}

    def compare(settings, resume=None):
        place = Path(settings.runs)
        calls.append((settings.problem, resume is not None))
        folder = place / f"{settings.problem}-1"
        write_comparison(
            folder, problem=settings.problem, scenario={}, methods=[], seeds={}, budget={}, data_digest="", git="x"
        )
        if settings.problem in trouble:
            raise trouble.pop(settings.problem)
        told = made_up(settings.problem)
        (folder / "results.json").write_text(json.dumps(told))
        return told | {"folder": str(folder)}

    monkeypatch.setattr(module, "compare", compare)
    monkeypatch.setattr(module.tracking, "mirror", lambda *_, **__: MirrorResult("p", "1", (), (), ""))
    return calls, trouble


def test_a_suite_that_was_stopped_goes_on_with_what_is_done_and_ends_with_the_same_table(tmp_path, ran):
    calls, trouble = ran
    whole, cut = Suite(out=str(tmp_path / "whole")), Suite(out=str(tmp_path / "cut"))
    bench(whole)
    assert calls == [(name, False) for name in ROWS]
    calls.clear()
    trouble |= {"cluster": KeyboardInterrupt(), "voltage": WorkError("a worker died")}
    with pytest.raises(KeyboardInterrupt):
        bench(cut)
    assert calls == [("mec", False), ("cluster", False)]
    told = bench(cut)
    assert calls[2:] == [("cluster", True), ("balancer", False), ("voltage", False)]  # mec is done
    assert told["failed"] == {"voltage": "a worker died"} and [row["name"] for row in told["rows"]] == list(ROWS[:3])
    assert bench(cut)["failed"] == {} and calls[5:] == [("voltage", True)]
    for name in ("results.csv", "table.md", "report.html"):
        assert (tmp_path / "cut" / name).read_text() == (tmp_path / "whole" / name).read_text(), name
    calls.clear()
    bench(cut)
    assert calls == []


def test_two_suites_at_once_have_a_folder_each_and_a_named_one_is_refused(tmp_path, ran, monkeypatch):
    monkeypatch.chdir(tmp_path)
    inner = {}

    def say(line):
        if "row 1 of 1" in line and not inner:
            inner["told"] = True
            inner["folder"] = bench(Suite(only=("mec",)))["folder"]
            with pytest.raises(PlaceError, match="--out runs/bench-small is being worked on by another suite"):
                bench(Suite(only=("mec",), out="runs/bench-small"))

    outer = bench(Suite(only=("mec",)), say)["folder"]
    assert (Path(outer).name, Path(inner["folder"]).name) == ("bench-small", "bench-small-2")
    assert (Path(outer) / "report.html").is_file() and (Path(inner["folder"]) / "report.html").is_file()


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (Suite(size="smal"), "unknown size 'smal'; did you mean 'small'"),
        (Suite(only=("volage",)), "unknown row 'volage'; did you mean 'voltage'"),
        (Suite(only=("cluster",), methods=("hybrid-imapo",)), "unknown method 'hybrid-imapo'; did you mean"),
    ],
)
def test_what_is_unknown_lists_the_nearest_before_anything_is_written(asked, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UnknownNameError, match=message):
        bench(asked)
    assert list(tmp_path.iterdir()) == []


def test_another_budget_in_the_same_folder_is_refused(tmp_path, ran):
    bench(Suite(only=("mec",), out=str(tmp_path)))
    with pytest.raises(
        CheckpointError, match=r"holds a suite whose budget \(tuning\) is 8, and 3 is asked for; give another --out"
    ):
        bench(Suite(only=("mec",), out=str(tmp_path), budget=(("tuning", 3),)))


def test_every_score_is_a_line_and_the_report_is_made_again(tmp_path, ran, capsys):
    bench(Suite(out=str(tmp_path / "b")))
    with (tmp_path / "b" / "results.csv").open() as stream:
        lines = list(csv.DictReader(stream))
    assert tuple(lines[0]) == Line._fields
    assert len(lines) == sum(np.size(m["values"]["m"]) for name in ROWS for m in made_up(name)["methods"])
    line = next(x for x in lines if (x["row"], x["method"], x["training_seed"]) == ("mec", "rl-imappo", "3"))
    assert (
        float(line["value"]) == made_up("mec")["methods"][1]["values"]["m"][3][0] and line["evaluation_seed"] == "10000"
    )
    (tmp_path / "b" / "report.html").unlink()
    assert main(["report", str(tmp_path / "b"), "--out", str(tmp_path / "again.html")]) == 0
    assert "3 of 4 domains" in capsys.readouterr().out and (tmp_path / "b" / "report.html").is_file()
    assert (tmp_path / "again.html").read_text() == (tmp_path / "b" / "report.html").read_text()
    assert main(["report", str(tmp_path)]) == 2
    assert "`hybridalloc compare`" in capsys.readouterr().err
    with pytest.raises(RuntimeError, match="`hybridalloc bench` makes one"):
        stored(tmp_path)


def test_both_tables_hold_the_same_lines(tmp_path, monkeypatch):
    parquet = pytest.importorskip("pyarrow.parquet")
    told = {name: made_up(name) for name in ROWS}
    told["mec"]["methods"][0]["values"]["m"][1][2] = None  # a seed on which there is nothing to measure
    told["mec"]["methods"][0]["values"]["m"][1][3] = 1 / 3
    write_tidy(tmp_path, told)
    with (tmp_path / "results.csv").open() as stream:
        lines = list(csv.DictReader(stream))
    table = parquet.read_table(tmp_path / "results.parquet")
    assert tuple(table.column_names) == Line._fields
    assert [str(kind) for kind in table.schema.types] == ["string"] * 7 + ["int64"] * 2 + ["double"]
    same = [
        {k: "" if v is None else v if isinstance(v, str) else repr(v) for k, v in x.items()} for x in table.to_pylist()
    ]
    assert same == lines and sum(line["value"] == "" for line in lines) == 1
    write_tidy(tmp_path, {})
    assert parquet.read_table(tmp_path / "results.parquet").num_rows == 0
    monkeypatch.setattr("hybridalloc.experiments.tidy.find_spec", lambda name: None)
    write_tidy(tmp_path, told)  # pyarrow is gone: the file of before would be of other scores
    assert sorted(path.name for path in tmp_path.iterdir()) == ["results.csv"]


def test_the_table_says_who_is_first_and_how_likely_it_is_above(tmp_path):
    told = summarise({name: made_up(name) | {"floor": "none" if name == "voltage" else "random"} for name in ROWS}, "t")
    assert [row["first"] for row in told["rows"]] == [True, False, True, True]  # less is better in voltage
    assert verdict(told).startswith("The hybrid has the best mean in 3 of 4 domains (mec, balancer, voltage)")
    by_row = told["aggregate"]["hybrid"]["by_row"]
    assert by_row["mec"] == pytest.approx(1.0, abs=0.02)  # the best known
    assert by_row["balancer"] == pytest.approx((0.9 - 0.1) / (1.2 - 0.1), abs=0.02)  # the clairvoyant is 1
    assert by_row["cluster"] == pytest.approx((0.9 - 0.1) / (0.95 - 0.1), abs=0.02)
    assert told["aggregate"]["bound"]["iqm"] is None  # not in every domain
    assert chances(told["rows"][0]) == "1.00 (in one world 1.00)" and chances(told["rows"][1]).startswith("0.00")
    assert "told apart from RL alone in 3" in verdict(told)
    assert "too few" in verdict(summarise({"mec": made_up("mec", 2)}, "t"))
    assert len(cells(told["rows"][2])) == 6 and "clairvoyant" in text(told) and markdown(told).count("\n| ") == 6
    assert verdict(summarise({}, "t")) == "No row is done yet."
