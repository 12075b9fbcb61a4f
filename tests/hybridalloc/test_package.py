"""The package as it is installed: wheel and sdist, in a clean environment; what the core does without its extras."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

HOUSE = Path(__file__).resolve().parents[2]
PACKAGES = ("coordinator", "games", "rl", "hybridalloc")
PROJECT = tomllib.loads((HOUSE / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def run(*words, **options):
    done = subprocess.run([str(w) for w in words], capture_output=True, text=True, timeout=300, **options)
    assert done.returncode == 0, (done.stdout + done.stderr)[-2000:]
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Wheel and sdist, made from a copy without network by the setuptools that is here."""
    pytest.importorskip("build", reason="needs build: pip install 'hybridalloc[dev]'")
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    for name in PACKAGES:
        shutil.copytree(HOUSE / name, source / name, ignore=shutil.ignore_patterns("__pycache__", "*.nb?"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(HOUSE / name, source / name)
    run(sys.executable, "-m", "build", "--no-isolation", "--skip-dependency-check", "--outdir", out, cwd=source)
    return next(out.glob("*.whl")), next(out.glob("*.tar.gz"))


def test_wheel_and_sdist_hold_every_module_and_its_types(built):
    wheel, sdist = built
    wanted = {
        path.relative_to(HOUSE).as_posix()
        for name in PACKAGES
        for path in (HOUSE / name).rglob("*")
        if path.suffix == ".py" or path.name == "py.typed"
    }
    held = set(zipfile.ZipFile(wheel).namelist())
    assert wanted <= held, sorted(wanted - held)[:5]
    assert not [name for name in held if not name.startswith((*PACKAGES, "hybridalloc-"))]
    with tarfile.open(sdist) as archive:
        packed = {name.partition("/")[2] for name in archive.getnames()}
    assert wanted | {"pyproject.toml", "README.md", "LICENSE"} <= packed


def test_the_wheel_runs_in_a_clean_environment(built, tmp_path):
    """The libraries it stands on come from this environment by path, as installing them anew takes minutes; what is
    installed here of hybridalloc itself does not. Without mlflow and cvxpy, which the core does not need."""
    run(sys.executable, "-m", "venv", tmp_path / "clean")
    here = tmp_path / "clean" / "bin"
    run(here / "python", "-m", "pip", "install", "--no-deps", "--no-index", "--quiet", built[0])
    site = Path(run(here / "python", "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip())
    masks = "import sys; sys.modules.update(mlflow=None, cvxpy=None, optuna=None)"
    (site / "libraries.pth").write_text(f"{sysconfig.get_path('purelib')}\n{masks}\n", encoding="utf-8")
    (tmp_path / "jobs.csv").write_text("name,work,deadline_s\na,4,2\nb,5,3\n", encoding="utf-8")
    (tmp_path / "servers.csv").write_text("name,capacity\nfast,6\nslow,2\n", encoding="utf-8")
    keep = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    clean = {"cwd": tmp_path, "env": keep | {"NUMBA_DISABLE_JIT": "1"}}  # kernels as Python: compiling takes a minute
    where = run(here / "python", "-c", "import hybridalloc, rl; print(hybridalloc.__file__, rl.__file__)", **clean)
    assert where.count(str(site)) == 2
    assert run(here / "hybridalloc", "--version", **clean).strip() == f"hybridalloc {PROJECT['version']}"
    table = run(here / "hybridalloc", "step", "--jobs", "jobs.csv", "--servers", "servers.csv", **clean)
    assert table.startswith("2 of 2 in time") and "feasible" in table


def test_a_command_that_needs_an_extra_names_it(capsys, monkeypatch, tmp_path):
    from hybridalloc.cli import main

    monkeypatch.setitem(sys.modules, "mlflow", None)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mlflow.db").touch()
    assert main(["compare", "--from-runs", "hybridalloc", "--tracking-uri", "sqlite:///mlflow.db"]) == 2
    assert "pip install 'hybridalloc[mlflow]'" in capsys.readouterr().err


def names(lines):
    return {re.split(r"[\s<>=!~\[;]", line)[0].lower().replace("_", "-") for line in lines}


def test_constraints_pin_what_the_project_asks_for():
    pins = {}
    for line in (HOUSE / "constraints.txt").read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            name, _, version = line.partition("==")
            pins[name.lower().replace("_", "-")] = version
    extras = PROJECT["optional-dependencies"]
    lines = [line for name in extras if name != "bench" for line in extras[name]]
    asked = names(PROJECT["dependencies"]) | names(lines)
    assert asked - pins.keys() <= {"hybridalloc", "setuptools"}
    assert not [name for name, version in pins.items() if not re.fullmatch(r"[\w.!]+", version)]


def test_the_version_is_said_once():
    import hybridalloc

    told = (HOUSE / "CITATION.cff").read_text(encoding="utf-8")
    assert hybridalloc.__version__ == PROJECT["version"] and f"\nversion: {PROJECT['version']}\n" in told
