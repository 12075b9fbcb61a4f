"""Kernels: kept where the user may write, never trusted when damaged, and done without where there is no place."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from numba import config, njit
from numba.core import caching, event

from games import kernels

HOUSE = Path(__file__).resolve().parents[2]
NOWHERE = """
import os, sys, tempfile
kept = tempfile.gettempdir()
real = tempfile.TemporaryFile
def refuse(*arguments, **options):  # of a user without rights on the packages and on a home
    if not str(options.get("dir")).startswith(os.path.join(kept, "hybridalloc-")):
        raise PermissionError(13, "Permission denied", str(options.get("dir")))
    return real(*arguments, **options)
tempfile.TemporaryFile = refuse
import coordinator, games, rl.fused
from games.shares import split_resources
print(type(split_resources._cache).__name__, split_resources._cache.cache_path)
"""


def run(code, temporary, **variables):
    """A process whose packages and home cannot be written."""
    kept = {name: value for name, value in os.environ.items() if name not in ("HOME", "XDG_CACHE_HOME")}
    there = {"PYTHONPATH": str(HOUSE), "TMPDIR": str(temporary)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=kept | there | variables, cwd=temporary
    )
    assert done.returncode == 0, done.stderr
    return done


def adder():
    """A fresh ``plus`` of this house, as a new process would make it."""
    scope = {"njit": njit}
    source = "@njit(cache=True)\ndef plus(a, b):\n    return a + b\n"
    exec(compile(source, str(HOUSE / "games" / "errors.py"), "exec"), scope)
    return scope["plus"]


@pytest.fixture
def kept(tmp_path, monkeypatch):
    """The folder of kept kernels, with that of ``plus`` for whole numbers in it."""
    monkeypatch.setattr(config, "CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(kernels, "_TOLD", set())
    plus = adder()
    assert plus(1, 2) == 3
    folder = Path(plus._cache.cache_path)
    assert folder.parent == tmp_path and sorted(p.suffix for p in folder.iterdir()) == [".lock", ".nbc", ".nbi"]
    return folder


@pytest.mark.parametrize("package", ["games", "coordinator"])
def test_without_a_folder_to_write_a_private_one_is_made(tmp_path, package):
    where = run(NOWHERE.replace("import coordinator, games, rl.fused", f"import {package}"), tmp_path)
    private = tmp_path / f"hybridalloc-kernels-{os.geteuid()}"
    name, _, path = where.stdout.strip().partition(" ")
    assert name == "Cache" and Path(path).parent == private and private.stat().st_mode & 0o777 == 0o700
    assert where.stderr == ""


@pytest.mark.parametrize("unsafe", ["open to all", "a link", "a file"])
def test_a_folder_that_others_can_write_is_not_used(tmp_path, unsafe):
    private = tmp_path / f"hybridalloc-kernels-{os.geteuid()}"
    if unsafe == "open to all":
        private.mkdir()
        private.chmod(0o777)
    elif unsafe == "a link":
        (tmp_path / "theirs").mkdir()
        private.symlink_to(tmp_path / "theirs")
    else:
        private.write_text("")
    done = run(NOWHERE, tmp_path)
    assert done.stdout.strip() == "NullCache None"
    assert done.stderr.count("no folder for compiled kernels can be written") == 1
    assert "Set NUMBA_CACHE_DIR" in done.stderr


def test_a_user_without_rights_imports_and_computes(tmp_path):
    if os.geteuid() != 0 or subprocess.run(["which", "setpriv"], capture_output=True).returncode:
        pytest.skip("only root can become a user without rights")
    tmp_path.chmod(0o777)
    for folder in list(tmp_path.parents)[:3]:
        folder.chmod(0o755)
    code = "import os, games.kernels as k; assert os.geteuid() == 65534; import coordinator; print(k.private_folder())"
    become = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=+dac_read_search"]
    done = subprocess.run(
        [*become, "--ambient-caps=+dac_read_search", sys.executable, "-c", code], capture_output=True, text=True,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(HOUSE), "TMPDIR": str(tmp_path)}, cwd="/",
    )  # fmt: skip
    if "setpriv" in done.stderr:
        pytest.skip(done.stderr)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(tmp_path / "hybridalloc-kernels-65534")


@pytest.mark.parametrize("suffix", [".nbi", ".nbc"])
@pytest.mark.parametrize("damage", ["truncated", "empty", "garbage", "a flipped bit", "unreadable"])
def test_a_damaged_kernel_is_compiled_afresh(kept, suffix, damage):
    path = next(kept.glob(f"*{suffix}"))
    content = bytearray(path.read_bytes())
    if damage == "a flipped bit":
        content[len(content) // 2] ^= 4
    content = {"truncated": content[:-9], "empty": b"", "garbage": b"\x80\x05garbage" * 40}.get(damage, content)
    path.write_bytes(content)
    if damage == "unreadable":
        path.unlink()
        path.mkdir()  # what root cannot read either
    plus = adder()
    if damage == "unreadable" and suffix == ".nbc":  # numba's own rule: as if it were not there
        with pytest.warns(RuntimeWarning, match="cannot be kept"):
            assert plus(1, 2) == 3
        return
    with pytest.warns(RuntimeWarning, match="is damaged .*: it is compiled afresh"):
        assert plus(1, 2) == 3
    if damage != "unreadable":
        again = adder()
        assert again(1, 2) == 3 and sum(again.stats.cache_hits.values()) == 1


def test_a_kernel_of_another_signature_is_not_taken(kept):
    """Two processes that compile at once can give two signatures one number."""
    whole = next(kept.glob("*.nbc"))
    plus = adder()
    assert plus(0.5, 0.25) == 0.75
    other = next(p for p in kept.glob("*.nbc") if p != whole)
    other.write_bytes(whole.read_bytes())
    again = adder()
    assert again(0.5, 0.25) == 0.75 and sum(again.stats.cache_hits.values()) == 0


def test_a_kernel_that_cannot_be_written_is_used(kept, monkeypatch):
    def full(self, name, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(caching.IndexDataCacheFile, "_save_data", full)
    with pytest.warns(RuntimeWarning, match="cannot be kept in .*No space left on device"):
        assert adder()(0.5, 0.25) == 0.75


def test_kernels_are_kept_and_loaded_and_those_of_others_left_alone(kept):
    with event.install_recorder("numba:compile") as recorded:
        assert adder()(1, 2) == 3
    assert not recorded.buffer
    strange = njit(cache=True)(run)
    assert type(strange._cache) is caching.FunctionCache and type(adder()._cache) is kernels.Cache
