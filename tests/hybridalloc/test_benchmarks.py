"""The benchmarks start as the README says, although one of them is named like a package."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

HOUSE = Path(__file__).resolve().parents[2]


BENCHMARKS = tuple(sorted(path.stem for path in (HOUSE / "benchmarks").glob("*.py")))


@pytest.mark.parametrize("name", BENCHMARKS)
def test_a_benchmark_finds_the_packages(name):
    if name == "routers_ray":
        pytest.importorskip("ray", reason="Ray is not installed; pip install 'hybridalloc[ray]'")
    code = f"import runpy, sys; sys.argv = ['benchmarks/{name}.py']; sys.path[0] = 'benchmarks'; " + (
        f"runpy.run_path('benchmarks/{name}.py', run_name='loaded'); "
        "print(*{m.__file__ for name, m in sys.modules.items() if name == 'games'})"  # none where it uses no package
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=HOUSE)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() in ("", str(HOUSE / "games" / "__init__.py"))


def test_a_recipe_is_trained_judged_on_tuning_seeds_and_kept(tmp_path, monkeypatch, capsys):
    import json

    from hybridalloc import Allocator
    from hybridalloc.training.config import REPORT_SEEDS

    monkeypatch.syspath_prepend(str(HOUSE))
    monkeypatch.setattr(sys, "path", [str(HOUSE / "benchmarks"), *sys.path])
    import recipe

    words = [
        "alone",
        "--agents",
        "4",
        "--servers",
        "2",
        "--sites",
        "synthetic",
        "--agent-steps",
        "6000",
        "--seeds",
        "1",
    ]
    words += ["--networks", "2", "--tuning", "1", "--watched", "512", "--checks", "2", "--set", 'mine={"limit": 30}']
    words += ["--out", str(tmp_path / "rows.jsonl"), "--keep", str(tmp_path / "kept")]
    assert recipe.main(words) == 0 and "| mine | 1 |" in capsys.readouterr().out
    row = json.loads((tmp_path / "rows.jsonl").read_text())
    assert row["kind"] == "rl" and len(row["earned"]) == len(row["game"]) == 2 and len(row["curve"]) == 3
    prices = json.loads((tmp_path / "rows.prices.json").read_text())
    kept = tmp_path / "kept" / "mine-seed0"
    allocator = Allocator.load(kept / "allocator.npz")
    assert allocator.method == "rl" and allocator.prices._asdict() == prices["rl-imappo"]["best"]
    curve = [json.loads(line) for line in (kept / "curve.jsonl").read_text().splitlines()]
    assert [point["check_welfare"] for point in curve] == [value for _, value in row["curve"]]
    assert (kept / "last.pt").is_file() and not set(recipe.TUNE_SEEDS) & set(REPORT_SEEDS)
