"""The report and the tables, on made-up numbers."""

from __future__ import annotations

import copy
import math
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hybridalloc.reports import figures
from hybridalloc.reports.report import markdown_table, text_table, write_report
from hybridalloc.reports.statistics import paired_difference
from hybridalloc.reports.summary import number, places, summarise


def made_up() -> dict[str, Any]:
    """A comparison with the demo's methods and metrics whose every number is invented."""
    rng = np.random.default_rng(0)
    seeds, evaluations = 3, 20
    names = [
        ("hybrid-imappo", "Hybrid, IMAPPO", "hybrid", 0.862),
        ("hybrid-dqn", "Hybrid, DQN", "hybrid", 0.848),
        ("hybrid-untrained", "Hybrid, untrained", "hybrid", 0.815),
        ("imappo", "IMAPPO alone", "rl", 0.742),
        ("dqn", "DQN alone", "rl", 0.713),
        ("game-0", "Game, toll 0", "game", 0.781),
        ("game-1", "Game, toll 1", "game", 0.812),
        ("game-tuned", "Game, tuned toll and prices", "game", 0.829),
        ("local", "Local only", "heuristic", 0.39),
        ("nearest", "Nearest server", "heuristic", 0.44),
        ("random", "Random", "heuristic", 0.31),
        ("greedy", "Greedy", "heuristic", 0.702),
    ]
    metrics = [
        ("welfare", "Welfare", "per agent-slot", "higher", 1.0, 0.0),
        ("completion", "Completion", "share of tasks", "higher", 0.3, 0.66),
        ("latency", "Latency", "ms", "lower", -30.0, 56.0),
        ("tasks_per_joule", "Tasks per joule", "1/J", "higher", 9.0, 1.0),
        ("aoi", "Age of information", "ms", "lower", -250.0, 380.0),
        ("outage", "Outage", "share", "lower", -0.2, 0.21),
        ("jain", "Jain's index", "", "higher", 0.4, 0.6),
        ("raw_violations", "Raw violations", "share", "lower", -0.5, 0.5),
        ("violations", "Executed violations", "count", "lower", 0.0, 0.0),
        ("step_ms", "Step time", "ms", "lower", 0.9, 0.3),
    ]
    common = rng.normal(size=evaluations) * 0.01
    methods = []
    for key, label, kind, level in names:
        count = seeds if key in ("hybrid-imappo", "hybrid-dqn", "imappo", "dqn") else 1
        base = level + common + rng.normal(size=(count, 1)) * 0.004 + rng.normal(size=(count, evaluations)) * 0.006
        values = {m: slope * base + start for m, _, _, _, slope, start in metrics if m != "raw_violations"}
        if kind in ("hybrid", "rl"):
            values["raw_violations"] = np.clip(0.5 - 0.5 * base, 0, 1)
        methods.append({"key": key, "label": label, "kind": kind, "values": values})
    by_key = {method["key"]: method["values"]["welfare"] for method in methods}
    steps = np.linspace(0, 300_000, 41)
    curves = []
    for key, start, tau in (
        ("hybrid-imappo", 0.815, 6e4),
        ("hybrid-dqn", 0.815, 9e4),
        ("imappo", 0.36, 7e4),
        ("dqn", 0.33, 8e4),
    ):
        end = float(by_key[key].mean())
        mean = end + (start - end) * np.exp(-steps / tau)
        curves.append({"method": key, "steps": steps, "values": mean + rng.normal(size=(seeds, 41)) * 0.008})
    differences = []
    for key, label in (
        ("imappo", "IMAPPO alone"),
        ("hybrid-untrained", "untrained hybrid"),
        ("game-tuned", "tuned game"),
    ):
        d = paired_difference(by_key["hybrid-imappo"], by_key[key])
        differences.append(
            {
                "label": f"Hybrid, IMAPPO − {label}",
                "metric": "welfare",
                "mean": d.mean,
                "low": d.low,
                "high": d.high,
                "conservative": d.conservative,
            }
        )
    d = paired_difference(by_key["hybrid-dqn"], by_key["hybrid-imappo"] - 0.015)
    differences.append(
        {
            "label": "Hybrid, DQN − a shifted twin",
            "metric": "welfare",
            "mean": d.mean,
            "low": d.low,
            "high": d.high,
        }
    )
    stations, devices = rng.uniform(-480, 480, (9, 2)), rng.uniform(-500, 500, (50, 2))
    nearest = 1 + np.argmin(((devices[:, None] - stations) ** 2).sum(-1), axis=1)
    return {
        "title": "Hybrid against pure RL on an edge network (made-up numbers)",
        "note": "Every number on this page is invented, to test the page.",
        "problem": "mec",
        "scenario": {
            "name": "H",
            "agents": 50,
            "servers": 9,
            "sites": "eua",
            "interference": True,
            "slot_ms": 100,
        },
        "budget": {"agent_steps": 300_000},
        "git_commit": "6c64b04b2847645c234358f67f63540948d1d99d",
        "data_digest": "ab" * 32,
        "seeds": {"train": [0, 1, 2], "tune": [5000, 5001], "report": list(range(10000, 10020))},
        "metrics": [
            {"key": k, "label": label, "unit": unit, "better": better} for k, label, unit, better, _, _ in metrics
        ],
        "methods": methods,
        "curves": curves,
        "levels": [
            {"label": label, "value": float(by_key[key].mean())}
            for key, label, _, _ in names
            if key in ("hybrid-untrained", "game-0", "game-1", "game-tuned", "greedy")
        ],
        "differences": differences,
        "over_time": {
            "counts": [[3, 0, 40, 7], [2, 5, 43, 0]],
            "options": ["station 1", "station 2", "opted out", "idle"],
            "label": "hybrid",
        },
        "map": {
            "site": "station",
            "stations": stations,
            "devices": devices,
            "option": np.where(rng.random(50) < 0.2, 0, nearest),
            "active": rng.random(50) < 0.85,
            "label": "Slot 40 of evaluation seed 10000, hybrid with IMAPPO",
        },
    }


class Page(HTMLParser):
    """Checks that tags nest, and collects tables, figures and everything that could load something."""

    VOID = ("meta", "br")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.links: list[str] = []
        self.cells: list[list[str]] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [f"{k}={v}" for k, v in attrs if k in ("src", "href", "data", "action")]
        if tag not in self.VOID:
            self.open.append(tag)
        if tag == "tr":
            self.cells.append([])
        if tag in ("td", "th"):
            self.cells[-1].append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if {"td", "th"} & set(self.open):
            self.cells[-1][-1] += data + " "

    def row(self, first: str, number_of_cells: int) -> list[str]:
        rows = [[cell.strip() for cell in row] for row in self.cells]
        return next(row for row in rows if row[0] == first and len(row) == number_of_cells)


def page_of(tmp_path: Path, comparison: dict[str, Any]) -> tuple[str, Page]:
    text = write_report(tmp_path / "a" / "report.html", comparison).read_text(encoding="utf-8")
    return text, Page(text)


def test_page_stands_alone_and_has_every_part(tmp_path: Path) -> None:
    text, page = page_of(tmp_path, made_up())
    assert page.links == [] and not {"script", "link", "img", "iframe"} & set(page.tags)
    assert re.findall(r"url\(|@import|https?://(?!www\.w3\.org/2000/svg)", text) == []
    titles = re.findall(r"<h2>(.*?)</h2>", text)
    assert titles == [
        "Verdict",
        "Paired differences",
        "Learning curves",
        "Metrics",
        "Performance profiles",
        "Welfare against fairness",
        "Allocation over time",
        "Who is served where",
        "What was run",
        "How the numbers were made",
    ]
    assert "prefers-color-scheme: dark" in text and 'name="viewport"' in text
    assert "6c64b04b2847645c" in text and "10000 to 10019 (20)" in text and "Every number on this page is" in text
    assert len(text) < 400_000


def test_tables_hold_the_numbers(tmp_path: Path) -> None:
    comparison = made_up()
    _, page = page_of(tmp_path, comparison)
    first = comparison["methods"][0]
    row = page.row("Hybrid, IMAPPO", 1 + len(comparison["metrics"]))
    assert row[1].split()[0] == f"{first['values']['welfare'].mean():.4f}"
    assert row[3].split()[0] == f"{first['values']['latency'].mean():.2f}"
    assert page.row("Local only", 1 + len(comparison["metrics"]))[8] == "–"  # has no raw policy
    curve = comparison["curves"][0]["values"]
    ends = page.row("Hybrid, IMAPPO", 7)
    assert ends[1:5] == ["3", *(f"{curve[:, k].mean():.4f}" for k in (0, 20, -1))]
    difference = comparison["differences"][0]
    row = page.row("Hybrid, IMAPPO − IMAPPO alone", 3)
    low, high = difference["conservative"]
    assert row[1] == f"+{difference['mean']:.4f} above 0" and row[2].endswith(f"t: [+{low:.4f}, +{high:.4f}]")
    served = (comparison["map"]["active"] & (comparison["map"]["option"] == 5)).sum()
    assert page.row("station 5", 4)[3] == str(served)


def test_few_seeds_are_said_to_be_few(tmp_path: Path) -> None:
    comparison = made_up()
    text, _ = page_of(tmp_path, comparison)
    assert "Here are 3 training seeds: read the intervals of trained methods as a sketch." in text
    comparison["seeds"]["train"] = list(range(5))
    assert "as a sketch" not in page_of(tmp_path, comparison)[0]


def test_labels_cannot_break_the_page(tmp_path: Path) -> None:
    comparison = made_up()
    evil = "<script>alert('&\"')</script>"
    comparison["title"] = comparison["note"] = comparison["map"]["label"] = evil
    comparison["scenario"][evil] = evil
    for part in ("methods", "metrics", "levels", "differences"):
        comparison[part][0]["label"] = evil
    text, page = page_of(tmp_path, comparison)
    assert "script" not in page.tags and text.count("&lt;script&gt;") >= 8


def test_required_parts_alone_make_a_page(tmp_path: Path) -> None:
    comparison = {
        "title": "Small",
        "problem": "mec",
        "metrics": [{"key": "w", "label": "Welfare", "better": "higher"}],
        "methods": [
            {"key": "a", "label": "A", "kind": "game", "values": {"w": [0.5]}},
            {"key": "b", "label": "B", "kind": "rl", "values": {"w": [-0.25, 0.25, math.nan]}},
            {"key": "c", "label": "C", "kind": "other", "values": {"w": []}},
        ],
    }
    text, page = page_of(tmp_path, comparison)
    assert re.findall(r"<h2>(.*?)</h2>", text) == ["Metrics", "What was run", "How the numbers were made"]
    assert page.row("A", 2)[1] == "0.5000" and page.row("C", 2)[1] == "–"
    assert page.row("B", 2)[1].startswith("0.0000† ") and "without the evaluation seeds on which" in text


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("methods",), [], r"comparison\['methods'\] is missing or empty"),
        (("notes",), 5, r"comparison\['notes'\] is no list of sentences"),
        (("metrics", 0), {"key": "welfare"}, r"comparison\['metrics'\]\[0\] has no 'label'"),
        (
            ("methods", 1, "values", "welfare"),
            np.zeros((1, 2, 3)),
            "'hybrid-dqn', metric 'welfare': values have 3",
        ),
        (("map", "option"), np.full(50, 10), "map: options lie in 10 to 10; 0 to 9 is required"),
        (
            ("map", "active"),
            np.ones(49),
            r"map: stations \(9, 2\), devices \(50, 2\), option \(50,\), active \(49,\)",
        ),
    ],
)
def test_malformed_comparison_is_named(path: tuple[Any, ...], value: Any, message: str, tmp_path: Path) -> None:
    comparison = copy.deepcopy(made_up())
    part: Any = comparison
    for key in path[:-1]:
        part = part[key]
    part[path[-1]] = value
    with pytest.raises(ValueError, match=message):
        write_report(tmp_path / "report.html", comparison)
    assert not (tmp_path / "report.html").exists()


def test_terminal_table_fits_and_marks_the_best() -> None:
    comparison = made_up()
    table = text_table(comparison, width=90)
    blocks = table.split("\n\n")
    assert max(len(line) for block in blocks[:-1] for line in block.splitlines()) <= 90
    cells = summarise(comparison)
    for key, better in (("welfare", max), ("latency", min)):
        means = {m["key"]: m["values"][key].mean() for m in comparison["methods"]}
        assert [k for k in means if cells[k, key].best] == [better(means, key=means.__getitem__)]
    assert not any(cells[m["key"], "violations"].best for m in comparison["methods"])  # all are equal
    assert table.count("Greedy") == len(blocks) - 1
    assert re.search(r"Hybrid, DQN − a shifted twin +welfare +−0\.0\d+ .* not told apart$", table, re.M)
    assert len(text_table(comparison, width=1000).split("\n\n")) == 2


def test_markdown_table_is_rectangular() -> None:
    comparison = made_up()
    comparison["methods"][2]["label"] = "a|b"
    main, differences = markdown_table(comparison).split("\n\n")
    for table, columns in ((main, 11), (differences, 6)):
        for line in table.splitlines():
            assert len(re.findall(r"(?<!\\)\|", line)) == columns + 1
    assert len(main.splitlines()) == 14 and r"| a\|b |" in main and main.count("**") == 2 * 9


def test_verdict_goes_by_the_t_interval_and_by_what_is_better(tmp_path: Path) -> None:
    comparison = made_up()
    entry = {"label": "X − Y", "metric": "latency", "mean": -1.0, "low": -1.5, "high": -0.5}
    for conservative, verdict, tone in (
        (None, "below 0", "range good"),  # less latency is better
        ([-3.0, 1.0], "not told apart", "range"),
        ([math.nan, math.nan], "one observation", "range"),
    ):
        comparison["differences"] = [entry | {"conservative": conservative}]
        text, _ = page_of(tmp_path, comparison)
        assert f'<span class="{tone}">{verdict}</span>' in text
    comparison["differences"] = [entry | {"metric": "welfare"}]
    assert '<span class="range bad">below 0</span>' in page_of(tmp_path, comparison)[0]


def test_numbers_are_written_for_readers() -> None:
    assert number(-0.00001, 4) == "0.0000" and number(-1234.5, 1) == "−1,234.5"
    assert number(0.5, 2, sign=True) == "+0.50" and number(math.nan, 1) == "–" and number(-math.inf, 1) == "−∞"
    assert [places([v]) for v in (0.5, 5.5, 55.5, 555.5, 5555.5, 7.0)] == [4, 3, 2, 1, 0, 0]
    assert places([]) == 0


@pytest.mark.parametrize(("low", "high"), [(0, 1), (-0.3, 0.02), (0, 3e6), (5, 5), (1e-5, 3e-5), (-7, -2)])
def test_ticks_are_round_even_and_cover(low: float, high: float) -> None:
    marks = figures.ticks(low, high, 5)
    assert 2 <= len(marks) <= 9 and marks[0] <= low and marks[-1] >= high
    steps = np.diff(marks)
    np.testing.assert_allclose(steps, steps[0])
    assert len({figures.tick_text(mark, marks) for mark in marks}) == len(marks)


def test_labels_are_spread_as_little_as_needed() -> None:
    assert figures.spread([10.0, 50.0], 12) == [10.0, 50.0]
    assert figures.spread([20.0, 20.0], 12) == [14.0, 26.0]
    rng = np.random.default_rng(0)
    wanted = rng.uniform(0, 60, 8)
    placed = np.array(figures.spread(list(wanted), 12))
    assert np.all(np.diff(np.sort(placed)) >= 12 - 1e-9)
    assert list(np.argsort(placed)) == list(np.argsort(wanted))
    assert placed.mean() == pytest.approx(wanted.mean())


def _partly_absent() -> dict[str, Any]:
    """Three methods; the first serves nobody on any seed, the second on one of four, the third somebody on each."""
    nobody, some = [None] * 4, [None, 3.0, 5.0, 4.0]
    return {
        "title": "absent", "problem": "p", "metrics": [
            {"key": "latency", "label": "latency", "unit": "ms", "better": "lower"},
            {"key": "welfare", "label": "welfare", "unit": "", "better": "higher"},
            {"key": "jain", "label": "Jain", "unit": "", "better": "higher"},
        ],
        "methods": [
            {"key": k, "label": k, "kind": "heuristic", "values": {"latency": [v], "welfare": [w], "jain": [v]}}
            for k, v, w in (
                ("none", nobody, [None] * 4), ("some", some, [1.0, 2.0, None, 4.0]), ("all", [6.0] * 4, [2.0] * 4),
            )
        ],
        "curves": [
            {"method": "none", "steps": [0, 1], "values": [[None, None]]},
            {"method": "some", "steps": [0, 1, 2], "values": [[1.0, 2.0, None], [1.0, None, None]]},
        ],
        "levels": [],
        "differences": [
            {"label": "none - all", "metric": "welfare", "mean": None, "low": None, "high": None, "conservative": None,
             "pairs": 0, "of": 4},
            {"label": "some - all", "metric": "welfare", "mean": 0.5, "low": -1.0, "high": 2.0, "conservative": None,
             "pairs": 3, "of": 4},
        ],
        "over_time": {"counts": [[0, 0, 0]], "options": ["a", "opted out", "idle"], "label": "nobody"},
    }  # fmt: skip


@pytest.mark.filterwarnings("error")
def test_what_is_a_mean_of_nothing_is_a_dash_never_a_zero_never_the_best(tmp_path: Path) -> None:
    from hybridalloc.reports.pictures import write_pictures

    comparison = _partly_absent()
    cells = summarise(comparison)
    assert cells["none", "latency"].mean == "–" and cells["none", "latency"].interval is None
    assert not any(cells["none", key].best for key in ("latency", "welfare", "jain"))
    assert cells["some", "latency"].best and cells["some", "latency"].mark == "†" and not cells["all", "latency"].mark
    assert cells["some", "latency"].seeds == (1, 3)
    text, marked = text_table(comparison), markdown_table(comparison)
    for table in (text, marked):
        assert "4†" in table and "† without the evaluation seeds on which the metric is a mean of nothing" in table
        assert "no pair (0 of 4 pairs)" in table and "not told apart (3 of 4 pairs)" in table and "nan" not in table
    page = write_report(tmp_path / "report.html", comparison).read_text(encoding="utf-8")
    assert "3 of 4 pairs" in page and "no pair" in page and ">nan" not in page and '"nan' not in page
    assert write_pictures(tmp_path, comparison)
    nothing = comparison | {"methods": comparison["methods"][:1], "curves": comparison["curves"][:1]}
    write_report(tmp_path / "nothing.html", nothing | {"differences": []})
    assert "–" in text_table(nothing | {"differences": []})
    write_pictures(tmp_path, nothing)


def test_every_number_in_a_figure_is_finite(tmp_path: Path) -> None:
    comparison = made_up()
    comparison["curves"][0]["values"][1, 3] = math.nan  # one seed lost one evaluation
    comparison["curves"].append({"method": "imappo", "steps": [0], "values": [[0.4]]})
    text, _ = page_of(tmp_path, comparison)
    drawings = "".join(re.findall(r"<svg.*?</svg>", text, re.S))
    assert "nan" not in drawings and "inf" not in drawings.replace("information", "")


def test_allocation_over_time_draws_every_agent(tmp_path: Path) -> None:
    text, page = page_of(tmp_path, made_up())
    section = text[text.index("Allocation over time") :]
    drawn = re.findall(r'height="([\d.]+)" style="[^"]*"><title>slot (\d): ([^<]*) (\d+)</title>', section)
    assert [(int(slot), name, int(n)) for _, slot, name, n in drawn] == [
        (0, "station 1", 3), (0, "opted out", 40), (0, "idle", 7),
        (1, "station 1", 2), (1, "station 2", 5), (1, "opted out", 43),
    ]  # fmt: skip
    one = float(drawn[1][0]) / 40
    assert all(float(tall) == pytest.approx(int(n) * one, abs=0.15) for tall, _, _, n in drawn)
    assert page.row("station 2", 3) == ["station 2", "2.5", "0 to 5"]


def test_the_top_of_the_curves_is_enlarged_where_a_start_from_scratch_hides_it(tmp_path: Path) -> None:
    comparison = made_up()
    for curve, start in zip(comparison["curves"], (0.79, 0.8, 0.2, 0.3), strict=True):
        curve["values"] = np.linspace(start, 0.82, 41)[None] * np.ones((3, 1))
    text, _ = page_of(tmp_path, comparison)
    assert text.count('the top enlarged"') == 2  # desk and phone
    enlarged = figures.learning_curves(
        comparison["curves"], [{"label": "low", "value": 0.1}, {"label": "high", "value": 0.9}],
        {m["key"]: m["label"] for m in comparison["methods"]}, figures.looks(comparison["methods"]),
        "welfare", wide=True, floor=0.7,
    )  # fmt: skip
    assert enlarged.count('class="level"') == 1 and "clipPath" in enlarged
    for curve in comparison["curves"]:
        curve["values"] = np.linspace(0.79, 0.82, 41)[None] * np.ones((3, 1))
    comparison["levels"] = []
    assert 'the top enlarged"' not in page_of(tmp_path, comparison)[0]


def test_the_frontiers_letters_keep_off_other_dots():
    from hybridalloc.reports.extras import _beside

    dots = [(100.0, 100.0), (101.0, 100.0), (112.0, 101.0), (300.0, 50.0)]
    placed = _beside(dots)
    for k, (x, y) in enumerate(placed):
        assert np.hypot(x - dots[k][0], y - dots[k][1]) <= 20.001
        assert min(np.hypot(x - a, y - b) for j, (a, b) in enumerate(dots) if j != k) > 9
        assert all(np.hypot(x - a, y - b) > 9 for a, b in placed[:k])


def test_the_frontier_and_the_profiles_numbers_are_those_of_the_definition():
    import itertools

    from hybridalloc.reports import extras as report_extras

    rng = np.random.default_rng(0)
    points = [(float(a), float(b)) for a, b in rng.integers(0, 5, (12, 2))]
    for k, on in enumerate(report_extras.frontier(points)):
        beaten = any(
            (p[0] > points[k][0] and p[1] >= points[k][1]) or (p[0] >= points[k][0] and p[1] > points[k][1])
            for p in points
        )
        assert on != beaten
    scores = {"a": rng.normal(size=40), "b": rng.normal(size=10)}
    for (key, row), level in itertools.product(report_extras.quantile_rows(scores).items(), (1, 3)):
        below = float((scores[key] < row[level]).mean())
        assert abs(below - report_extras.LEVELS[level]) <= 1 / len(scores[key])
    methods = [{"key": "a", "values": {"welfare": [[1.0, float("nan")]]}}, {"key": "b", "values": {}}]
    assert {k: v.tolist() for k, v in report_extras.scores_of({"methods": methods}, "welfare").items()} == {"a": [1.0]}


def test_what_was_trained_is_told_where_it_is_not_the_budget(tmp_path: Path) -> None:
    comparison = made_up()
    told = lambda: (
        text_table(comparison), markdown_table(comparison), write_report(tmp_path / "r.html", comparison).read_text()
    )  # fmt: skip
    assert not any("of a budget" in text for text in told())  # all of it
    comparison["budget"]["agent_steps"] = 300_500
    assert all("trained for 300,000 agent-steps, of a budget of 300,500" in text for text in told())
    comparison["curves"][0]["steps"] = comparison["curves"][0]["steps"] + 300
    assert all("trained for 300,000 to 300,300 agent-steps" in text for text in told())
    del comparison["budget"]
    assert not any("of a budget" in text for text in told())


def test_maps_and_columns_speak_the_problems_words(tmp_path: Path) -> None:
    comparison = made_up() | {"agent": "van"}
    comparison["map"] |= {"site": "depot", "opting_out": "<stay>"}
    page = write_report(tmp_path / "r.html", comparison).read_text()
    text = re.sub(r"<style.*?</style>|<(?!title)[^>]+>", " ", page, flags=re.S)
    for words in ("depot 1", "Squares: depots", "vans that opted out", "opted out (&lt;stay&gt;)", "vans, mean"):
        assert words in text, words
    assert not re.search(r"\bdevices?\b|computed locally", text)
    assert "Map of depots and vans" in page and "Vans by option in each slot" in page
