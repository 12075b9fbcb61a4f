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
    assert done.returncode == 0, done.stderr[-2000:]


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
