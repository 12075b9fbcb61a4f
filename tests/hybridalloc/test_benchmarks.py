"""The benchmarks start as the README says, although one of them is named like a package."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from subprocess import PIPE

import pytest

HOUSE = Path(__file__).resolve().parents[2]


BENCHMARKS = tuple(sorted(path.stem for path in (HOUSE / "benchmarks").glob("*.py")))


# A fresh interpreter each, forked from one in which only what others wrote is imported, once.
LOADER = """
import json, os, runpy, sys, tempfile, traceback
import matplotlib, numba, scipy.optimize, scipy.stats, torch
for line in sys.stdin:
    name = line.strip()
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as told:
        child = os.fork()
        if child == 0:
            os.dup2(out.fileno(), 1), os.dup2(told.fileno(), 2)
            sys.argv, sys.path[0] = [f"benchmarks/{name}.py"], "benchmarks"
            code = 1
            try:
                runpy.run_path(f"benchmarks/{name}.py", run_name="loaded")
                print(*{m.__file__ for name, m in sys.modules.items() if name == "games"})  # none: it uses no package
                code = 0
            except BaseException:
                traceback.print_exc()
            sys.stdout.flush(), sys.stderr.flush(), os._exit(code)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        out.seek(0), told.seek(0)
        print(json.dumps([code, out.read(), told.read()]), flush=True)
"""


@pytest.fixture(scope="module")
def load():
    """Loads a benchmark by name: its exit code and what it wrote on either stream."""
    with subprocess.Popen([sys.executable, "-c", LOADER], stdin=PIPE, stdout=PIPE, text=True, cwd=HOUSE) as process:

        def loaded(name):
            process.stdin.write(f"{name}\n")
            process.stdin.flush()
            return json.loads(process.stdout.readline())

        yield loaded
        process.stdin.close()


@pytest.mark.parametrize("name", BENCHMARKS)
def test_a_benchmark_finds_the_packages(load, name):
    if name == "routers_ray":
        pytest.importorskip("ray", reason="Ray is not installed; pip install 'hybridalloc[ray]'")
    code, out, told = load(name)
    assert code == 0, told
    assert out.strip() in ("", str(HOUSE / "games" / "__init__.py"))


def test_a_recipe_is_trained_judged_on_tuning_seeds_and_kept(tmp_path, monkeypatch, capsys):
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
