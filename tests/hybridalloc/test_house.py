"""The house: who may import whom, and what a folder of the same name does."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

HOUSE = Path(__file__).resolve().parents[2]
ALLOWED = {
    "games": {"games"},
    "rl": {"rl"},
    "coordinator": {"coordinator", "games", "rl"},
    "hybridalloc": {"hybridalloc", "coordinator", "games", "rl"},
}


@pytest.mark.parametrize("package", ALLOWED)
def test_imports_run_one_way(package):
    for path in (HOUSE / package).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{path}: relative import"
                names = [node.module or ""]
            roots = {name.split(".")[0] for name in names} & set(ALLOWED)
            assert roots <= ALLOWED[package], f"{path.relative_to(HOUSE)} imports {roots - ALLOWED[package]}"


@pytest.mark.parametrize("content", ["package", "namespace", "module"])
def test_a_shadowed_package_is_named(tmp_path, content):
    if content == "module":
        (tmp_path / "games.py").write_text("")
    else:
        (tmp_path / "games").mkdir()
        (tmp_path / "games" / ("__init__.py" if content == "package" else "readme.txt")).write_text("")
    code = f"import sys; sys.path[:0] = [{str(tmp_path)!r}, {str(HOUSE)!r}]; import hybridalloc"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    if content == "namespace":  # a folder without __init__.py yields to a real package further down the path
        assert done.returncode == 0, done.stderr
        return
    assert done.returncode != 0
    assert "another package named 'games'" in done.stderr
    assert str(tmp_path) in done.stderr and "Rename that folder" in done.stderr


def test_import_loads_neither_torch_nor_mlflow():
    code = (
        "import sys, hybridalloc; from hybridalloc import Allocator, make_problem; p = make_problem('mec', agents=3, "
        "servers=2); Allocator(p).step(p.reset(0)); print(sorted({'torch', 'mlflow', 'gymnasium', 'matplotlib'} & "
        "set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=HOUSE, check=True)
    assert done.stdout.strip() == "[]"
