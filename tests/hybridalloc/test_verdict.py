"""The verdict of a comparison: who stands for which kind, and when anything may be said."""

from __future__ import annotations

import numpy as np
import pytest

from hybridalloc.reports.report import write_report
from hybridalloc.reports.verdict import standings, verdict_lines


def comparison(training_seeds: int, better: str = "higher"):
    rng, sign = np.random.default_rng(0), 1 if better == "higher" else -1
    noise = rng.normal(size=(training_seeds, 30))
    rows = [("hybrid-imappo", "hybrid", training_seeds, 94.7, {}), ("hybrid-dqn", "hybrid", training_seeds, 95.0, {}),
            ("rl-imappo", "rl", training_seeds, 93.1, {}), ("rl-dqn", "rl", training_seeds, 80.0, {}),
            ("nearest", "heuristic", 1, 80.4, {}), ("random", "heuristic", 1, 60.0, {}),
            ("clairvoyant", "heuristic", 1, 99.0, {"bound": True})]  # fmt: skip
    return {
        "title": "t", "problem": "mec", "aim": "completion", "headline": ["completion"],
        "metrics": [{"key": "completion", "label": "tasks in time", "unit": "%", "better": better}],
        "methods": [
            {"key": key, "label": key, "kind": kind, "values": {"completion": sign * mean + 0.1 * noise[:count]}} | more
            for key, kind, count, mean, more in rows
        ],
    }  # fmt: skip


@pytest.mark.parametrize("better", ["higher", "lower"])
def test_the_best_of_each_kind_stands_for_it_and_a_bound_is_no_rival(better):
    (standing,) = standings(comparison(5, better))
    assert standing.key == "hybrid-imappo"  # the table's first, though another scores more
    assert {r.kind: (r.key, r.told) for r in standing.rivals} == {
        "rl": ("rl-imappo", "better"), "heuristic": ("nearest", "better"), "bound": ("clairvoyant", "worse"),
    }  # fmt: skip
    heuristic = next(r for r in standing.rivals if r.kind == "heuristic")
    sign = 1 if better == "higher" else -1
    assert sign * heuristic.difference.mean == pytest.approx(14.3, abs=0.1)
    assert heuristic.difference.conservative is not None


@pytest.mark.parametrize(("published", "told"), [("nearest", {}), ("random", {"published": ("random", "better")})])
def test_what_others_have_published_is_a_heuristic_too_and_told_once(published, told):
    given = comparison(5)
    for method in given["methods"]:
        if method["key"] in (published, "clairvoyant"):
            method["published"] = True
    (standing,) = standings(given)
    found = {r.kind: (r.key, r.told) for r in standing.rivals}
    assert found["heuristic"][0] == "nearest" and found["published"][0] == published
    assert found["bound"][0] == "clairvoyant"
    once = {r.kind: (r.key, r.told) for r in standing.distinct}
    assert {kind: row for kind, row in once.items() if kind == "published"} == told
    assert [r.kind for r in standing.distinct if r.key == "nearest"] == ["heuristic"]
    assert sum("less nearest" in line for line in verdict_lines(given)) == 1


def test_nothing_is_told_on_fewer_than_five_training_seeds(tmp_path):
    lines = verdict_lines(comparison(4))
    assert "hybrid-imappo 94.71 %, RL alone 93.11 % (rl-imappo), best heuristic 80.39 % (nearest)" in lines[0]
    assert all(line.endswith("4 training seeds: too few to tell") for line in lines[1:]) and len(lines) == 4
    page = write_report(tmp_path / "report.html", comparison(4)).read_text(encoding="utf-8")
    assert page.index("Verdict") < page.index("Metrics") and "too few to tell" in page and ": better" not in page
    assert verdict_lines(comparison(5))[1].endswith(": better")


def test_a_table_without_a_hybrid_has_no_verdict():
    given = comparison(5)
    given["methods"] = [m for m in given["methods"] if m["kind"] != "hybrid"]
    assert standings(given) == [] and verdict_lines(given) == []
