"""Every Python block of the README and of the docs runs, page by page, in a folder of its own."""

from __future__ import annotations

import json
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

HOUSE = Path(__file__).resolve().parents[2]
PAGES = [HOUSE / "README.md", *sorted((HOUSE / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```python\n(.*?)^```", re.M | re.S)
WITH_CODE = [page for page in PAGES if BLOCK.search(page.read_text(encoding="utf-8"))]


@pytest.mark.parametrize("page", WITH_CODE, ids=lambda page: page.relative_to(HOUSE).as_posix())
def test_its_code_runs(page, tmp_path):
    code = "\n".join(BLOCK.findall(page.read_text(encoding="utf-8")))
    (tmp_path / "page.txt").write_text(code, encoding="utf-8")
    guard = 'if __name__ == "__main__":\n    exec(open("page.txt").read())\n'  # workers import it, and run nothing
    (tmp_path / "page.py").write_text(guard, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "page.py"], cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(HOUSE)}, capture_output=True,
        text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_there_is_code_to_run_and_links_lead_somewhere():
    assert len(WITH_CODE) >= 4
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#:\s]+?)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.relative_to(HOUSE)}: {target}"


def test_the_pictures_of_the_architecture_name_files_that_are_there():
    figures = runpy.run_path(str(HOUSE / "docs" / "figures" / "architecture.py"))
    for name, (columns, stations) in figures["PICTURES"].items():
        for station in stations:
            assert (HOUSE / station.file).is_file() and station.column < len(columns), station
        drawn = (HOUSE / "docs" / "figures" / f"architecture-{name}.svg").read_text(encoding="utf-8")
        assert drawn == figures["drawn"](columns, stations), f"{name}: run docs/figures/architecture.py"


def test_the_gallery_quotes_what_its_pictures_were_drawn_from():
    told = json.loads((HOUSE / "docs" / "figures" / "gallery.json").read_text(encoding="utf-8"))
    page = (HOUSE / "docs" / "gallery.md").read_text(encoding="utf-8")
    sections = {text.partition(":")[0]: text for text in page.split("\n## ")[1:]}
    drawn = runpy.run_path(str(HOUSE / "docs" / "figures" / "gallery.py"), run_name="gallery")["PICTURES"]
    assert sections.keys() == told.keys() == drawn.keys()
    for name, figures in told.items():
        assert (HOUSE / "docs" / "figures" / f"gallery-{name}.png").is_file()
        for value in figures.values():
            assert re.search(rf"(?<![\d.]){value}(?![\d])", sections[name]), (name, value)


RUNS = runpy.run_path(str(HOUSE / "docs" / "figures" / "runs.py"), run_name="runs")
MEASURED = re.compile(r"(?<![\w.])[+-]?\d*\.\d+(?!\.?\d|\w)")  # a decimal: a figure, not a version or a setting
COMMAND = re.compile(
    r"(?:python benchmarks|python docs/figures|notebooks)/\w+\.(?:py|ipynb)"
    r"|hybridalloc (?:bench|compare|evaluate|reproduce|train)|make demo"
)


def test_every_block_is_what_its_stored_run_printed():
    stored, used = {path.stem for path in RUNS["RUNS"].glob("*.json")}, set()
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        assert RUNS["rewritten"](text) == text, f"{page.relative_to(HOUSE)}: run make docs-figures"
        used |= {found.group(1) for found in RUNS["BLOCK"].finditer(text)}
    assert used == stored, "a stored run that no page shows, or the reverse"
    for name in stored:
        record = RUNS["load"](name)
        assert COMMAND.search(record["command"]) and re.fullmatch(r"[0-9a-f]{40}", record["commit"]), name


def _sections(text):
    """Each section of a page with all that its headings' own paragraphs say, from the page's down to its own."""
    above: list[tuple[int, str]] = []
    for heading, body in re.findall(
        r"^(#+) (.*?)(?=^#+ |\Z)", re.sub(r"^(```.*?^```)", _quoted, text, flags=re.M | re.S), re.M | re.S
    ):
        above = [one for one in above if one[0] < len(heading)]
        above.append((len(heading), body))
        yield body, "\n".join(one for _, one in above)


def _quoted(block):
    return re.sub(r"^#", " #", block.group(1), flags=re.M)  # a comment in code is no heading


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(HOUSE).as_posix())
def test_no_table_of_figures_without_the_command_that_made_it(page):
    """In its block, in the same section, or in one above it; and the script that it names is there."""
    text = page.read_text(encoding="utf-8")
    bare = [
        table
        for section, said in _sections(text)
        for table in RUNS["TABLE"].findall(section)
        if len(MEASURED.findall(table)) > 3 and not COMMAND.search(said)
    ]
    assert not bare, "\n\n".join(table[:400] for table in bare)
    for script in re.findall(r"((?:benchmarks|docs/figures|notebooks)/[\w/]+\.(?:py|ipynb))", text):
        assert (HOUSE / script).is_file(), f"{page.name}: {script}"


def test_a_block_follows_its_run_and_an_unknown_run_is_told(tmp_path, monkeypatch):
    monkeypatch.setitem(RUNS["load"].__globals__, "RUNS", tmp_path)
    told = {
        "command": "hybridalloc bench",
        "commit": "0123456789abcdef",
        "text": "a\n| x |\n|---|\n| 1.5 |\n\n| y |\n|---|\n",
    }
    (tmp_path / "one.json").write_text(json.dumps(told), encoding="utf-8")
    page = "before\n<!-- run one 1 -->\n| x |\n|---|\n| 1.6 |\n<!-- /run -->\nafter\n"
    fresh = RUNS["rewritten"](page)
    assert (
        "1.6" not in fresh and "| 1.5 |\n\n`hybridalloc bench`, at commit 0123456789ab.\n<!-- /run -->\nafter" in fresh
    )
    assert "| y |" not in fresh and RUNS["rewritten"](fresh) == fresh
    with pytest.raises(SystemExit, match=r"no run 'two' is stored .* there are: one"):
        RUNS["rewritten"](page.replace("run one", "run two"))
    for name, command, file in (
        ("one", "rm -rf /", None), ("one", "python /tmp/benchmarks/x.py", None), ("../one", "hybridalloc bench", None),
        ("one", "hybridalloc bench", "../../secret"),
    ):  # fmt: skip
        with pytest.raises(SystemExit, match=r"is not run|is not in"):
            RUNS["store"](name, command, file)
