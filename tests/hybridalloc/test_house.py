"""The house: who may import whom, and what a folder of the same name does."""

from __future__ import annotations

import ast
import subprocess
import sys
from functools import cache
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


@cache
def trees():
    """Every module of the house by its name, and its tree."""
    found = {}
    for package in ALLOWED:
        for path in (HOUSE / package).rglob("*.py"):
            parts = path.relative_to(HOUSE).with_suffix("").parts
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            found[name] = ast.parse(path.read_text(encoding="utf-8"))
    return found


def imported(tree, typed=False):
    """What a module imports when it runs, in its functions too; what only a type checker reads where ``typed``."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test) and not typed:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        yield from imported(node, typed)


def circles(edges):
    """Modules that import each other by whatever way, each circle once (Tarjan's strong components)."""
    number, low, stack, found = {}, {}, [], []

    def visit(at):
        number[at] = low[at] = len(number)
        stack.append(at)
        for to in edges.get(at, ()):
            if to not in number:
                visit(to)
                low[at] = min(low[at], low[to])
            elif to in stack:
                low[at] = min(low[at], number[to])
        if low[at] == number[at]:
            circle = stack[stack.index(at) :]
            del stack[stack.index(at) :]
            found.extend([sorted(circle)] if len(circle) > 1 else [])

    for at in edges:
        if at not in number:
            visit(at)
    return found


def edges_of(modules, typed=False):
    """For each module the modules it imports: ``from a import b`` is of a.b where that is one, of a where it is not."""
    edges = {}
    for name, tree in modules.items():
        for target in imported(tree, typed):
            while target and target not in modules:
                target = target.rpartition(".")[0]
            if target and target != name:
                edges.setdefault(name, set()).add(target)
    return edges


@pytest.mark.parametrize("typed", [False, True], ids=["as it runs", "as a type checker reads it"])
def test_no_module_imports_itself_by_way_of_others(typed):
    modules = trees()
    assert len(modules) > 100
    assert circles(edges_of(modules, typed)) == []


def test_a_circle_is_found_also_within_a_function():
    text = {
        "games.a": "def f():\n    from games.b import g", "games.b": "import games.c", "games.c": "from games import a",
        "games.d": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from games.e import E",
        "games.e": "import games.d", "games": "",
    }  # fmt: skip
    parsed = {name: ast.parse(code) for name, code in text.items()}
    assert circles(edges_of(parsed)) == [["games.a", "games.b", "games.c"]]
    assert ["games.d", "games.e"] in circles(edges_of(parsed, typed=True))


JUDGED = {"hybridalloc.problems", "hybridalloc.problems.members", "hybridalloc.environments"}  # what is no problem yet


def untyped(tree, names=("problem", "prices")):
    """Arguments and fields of these names that are Any, outside of protocols, which stand for every domain's own."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.ClassDef) and any("Protocol" in ast.unparse(base) for base in node.bases):
            continue
        if isinstance(node, ast.arg) and node.arg in names and node.annotation is not None:
            yield from [node.arg] * (ast.unparse(node.annotation) == "Any")
        if isinstance(node, ast.AnnAssign) and ast.unparse(node.target) in names:
            yield from [ast.unparse(node.target)] * (ast.unparse(node.annotation) == "Any")
        yield from untyped(node, names)


def test_problems_and_prices_have_types():
    found = {name: list(untyped(tree)) for name, tree in trees().items() if name.startswith("hybridalloc")}
    assert {name for name, wrong in found.items() if wrong} - JUDGED == set()
    assert list(untyped(ast.parse("def f(problem: Any, prices: Any): ...\nclass A:\n    prices: Any"))) == [
        "problem", "prices", "prices",
    ]  # fmt: skip


OWN = {  # attributes of one domain's problems and worlds, by the folder that alone may read them
    "hybridalloc.problems.mec": {"physics", "bands", "sites", "reachable", "servers", "dynamics"},
    "hybridalloc.problems.custom": {"transition", "families_of", "resources"},
}
FREE = {  # flags of those names, and the tables of one step of a user's own jobs, which is custom's
    "hybridalloc.commands.compare", "hybridalloc.commands.step", "hybridalloc.experiments.settings",
    "hybridalloc.reports.step", "hybridalloc.reports.step_held",
}  # fmt: skip


def test_a_domains_own_words_are_read_in_its_folder_alone():
    for name, tree in trees().items():
        if name.startswith("hybridalloc") and name not in FREE:
            read = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
            for folder, words in OWN.items():
                assert name.startswith(folder) or not read & words, f"{name} reads {read & words} of {folder}"


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


def test_errors_load_no_solver_until_one_of_its_own_is_asked_for():
    code = (
        "import sys, hybridalloc.errors as e; print(sorted({'games', 'numba', 'numpy'} & set(sys.modules))); "
        "from hybridalloc.errors import *; import games.errors as g; "
        "print(InvalidStateError is g.InvalidStateError, issubclass(InvalidGameError, InvalidStateError))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=HOUSE, check=True)
    assert done.stdout.split("\n")[:2] == ["[]", "True True"]


def test_the_command_line_holds_no_command_and_loads_nothing_for_its_help():
    """A command is a dataclass in a file of ``commands``; cli.py puts them together."""
    text = (HOUSE / "hybridalloc" / "cli.py").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 180
    assert [node.name for node in ast.walk(ast.parse(text)) if isinstance(node, ast.ClassDef)] == []
    for path in (HOUSE / "hybridalloc" / "commands").glob("*.py"):
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 250, path.name
    heavy = {"numpy", "numba", "scipy", "torch", "mlflow", "pandas", "ray", "cvxpy", "games", "matplotlib", "optuna"}
    code = f"import sys, hybridalloc.cli as c; c.main(['--version']); print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=HOUSE, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
