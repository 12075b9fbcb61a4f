"""Faults of the place: what cannot be written is said first, what stops a command is said in one line and costs
nothing that was done."""

from __future__ import annotations

import contextlib
import io
import json
import os
import queue
import signal
import subprocess
import sys
import time
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path

import pytest

import hybridalloc.experiments.compare as comparing
from hybridalloc.allocator import Allocator
from hybridalloc.cli import main
from hybridalloc.errors import CheckpointError, PlaceError, WorkError
from hybridalloc.experiments import jobs
from hybridalloc.experiments.compare import Settings, compare
from hybridalloc.experiments.executor import WorkerLost, open_pool
from hybridalloc.experiments.mirror import MirrorResult
from hybridalloc.experiments.mlflow_store import artifact_location
from hybridalloc.places import check_file, check_folder, locked
from hybridalloc.problems import make_problem

HOUSE = Path(__file__).resolve().parents[2]
TINY = Settings(
    agents=4, servers=2, sites="synthetic", agent_steps=6_000, train_seeds=1, report_seeds=2, tuning=1,
    methods=("hybrid-imappo", "rl-dqn", "nearest", "game-tuned"), quiet=True,
)  # fmt: skip
HERE = """
import sys
sys.path[:0] = [{house!r}, {tests!r}]
from test_place import TINY, comparing, in_this_process, silent
comparing.open_pool, comparing.tracking.mirror = in_this_process, silent
"""


class Here:
    """A pool whose work is done here and now."""

    def submit(self, function, *arguments, files=None):
        future = Future()
        try:
            future.set_result(function(*arguments))
        except Exception as error:
            future.set_exception(error)
        return future


@contextlib.contextmanager
def in_this_process(_workers):
    yield Here(), queue.Queue()


def silent(folder, *_, **__):
    """MLflow is another test's."""
    return MirrorResult("run", "1", (), (), "")


@pytest.fixture
def here(monkeypatch, tmp_path):
    monkeypatch.setattr(comparing, "open_pool", in_this_process)
    monkeypatch.setattr(comparing.tracking, "mirror", silent)
    monkeypatch.chdir(tmp_path)
    return replace(TINY, runs=str(tmp_path / "runs"), report=str(tmp_path / "report.html"))


def scores(comparison):
    """Every method's values, less the time that a decision took."""
    return {m["key"]: {k: v for k, v in m["values"].items() if k != "step_ms"} for m in comparison["methods"]}


def command(words, **options):
    """A command as a shell runs it."""
    environment = os.environ | {"PYTHONPATH": str(HOUSE)}
    return subprocess.run(
        [sys.executable, "-m", "hybridalloc.cli", *words], stderr=subprocess.PIPE, text=True, env=environment, **options
    )


# --- a comparison that was killed


def test_a_killed_comparison_goes_on_and_gives_the_same_table(here, tmp_path, capsys):
    whole = compare(replace(here, runs=str(tmp_path / "reference")))
    script = HERE.format(house=str(HOUSE), tests=str(HOUSE / "tests" / "hybridalloc"))
    script += f"comparing.compare(comparing.replace(TINY, runs={here.runs!r}, report={here.report!r}))"
    process = subprocess.Popen([sys.executable, "-c", script], cwd=tmp_path, stderr=subprocess.PIPE)
    until = time.monotonic() + 120
    while not list((tmp_path / "runs").glob("*/rl-dqn-seed0/last.pt")):  # the second learner is half-way
        assert process.poll() is None and time.monotonic() < until, process.stderr.read().decode()
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    folder = next((tmp_path / "runs").iterdir())
    first = folder / "hybrid-imappo-seed0.jsonl"
    assert (folder / "hybrid-imappo-seed0" / "evaluation.json").is_file() and not (folder / "results.json").exists()
    ended, begun = first.read_bytes(), (folder / "rl-dqn-seed0.jsonl").read_bytes()
    again = compare(Settings(runs="elsewhere", report=here.report, quiet=True), resume=here.runs)
    assert scores(again) == scores(whole) and again["folder"] == str(folder)
    for part in ("curves", "levels", "counts", "differences"):
        assert again[part] == whole[part]
    assert first.read_bytes() == ended  # what had ended was not done again
    log = (folder / "rl-dqn-seed0.jsonl").read_bytes()
    assert log.startswith(begun[: begun.rfind(b"\n") + 1]) and log.count(b'"kind":"start"') == 2
    steps = [json.loads(line) for line in log.splitlines()]
    second = next(k for k, line in enumerate(steps) if line["kind"] == "start" and k)
    assert steps[second + 1]["step"] > 0  # it went on from its checkpoint, not from the start
    assert not list(folder.glob("*/last.pt")) and not list(folder.glob("*/.*.partial"))
    assert Path(here.report).read_text().count("<svg") > 0
    prices = json.loads((folder / "tuning.json").read_text())
    assert set(prices) == {"learned", "reports", "rl-dqn"} and len(prices["rl-dqn"]["trials"]) == 1 + 1
    assert prices["rl-dqn"]["trials"][0]["prices"] == prices["learned"]["best"]
    charged = json.loads(log.splitlines()[0])["params"]
    assert {k: charged[f"price/{k}"] for k in prices["rl-dqn"]["best"]} == prices["rl-dqn"]["best"]


def test_what_differs_from_a_stopped_comparison_is_named(here, tmp_path, monkeypatch, capsys):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(comparing, "_learn_beliefs", stop)
    words = ["--sites", "synthetic", "--agents", "4", "--servers", "2", "--tuning", "0", "--report-seeds", "2"]
    words += ["--methods", "nearest", "game-tuned", "--quiet"]
    assert main(["compare", *words]) == 130
    told = capsys.readouterr().err
    folder = next((tmp_path / "runs").iterdir())
    assert told == f"hybridalloc: interrupted; what was done is kept: `hybridalloc compare --resume {folder}` goes on\n"
    assert main(["compare", *words, "--resume", "runs"]) == 130  # the same words are no difference
    capsys.readouterr()
    for flag, value, message in (
        ("--agents", "5", "agents is 4 there and 5 is asked for; leave that flag out"),
        ("--report-seeds", "3", "report_seeds is 2 there and 3"),
        ("--settings", "episode=7", "settings is {} there and {'episode': 7}"),
        ("--learners", "dqn", "methods is ['nearest', 'game-tuned'] there and"),
        ("--methods", "random", "methods is ['nearest', 'game-tuned'] there and ['random']"),
        ("--full", None, "agent_steps is 600000 there and 2000000"),
    ):
        assert main(["compare", "--resume", str(folder), "--quiet", flag, *([value] if value else [])]) == 2
        assert message in capsys.readouterr().err
    record = json.loads((folder / "comparison.json").read_text())
    (folder / "comparison.json").write_text(json.dumps(record | {"data_digest": "\x1b[31m"}))
    assert main(["compare", "--resume", str(folder), "--quiet"]) == 2
    assert "is of other data: '\\x1b[31m' there, synthetic here" in capsys.readouterr().err
    for forged in ("2", None, 0, 99, True):
        (folder / "comparison.json").write_text(json.dumps(record | {"defaults": forged}))
        assert main(["compare", "--resume", str(folder), "--quiet"]) == 2
        assert "was begun with defaults" in capsys.readouterr().err
    (folder / "comparison.json").write_text(json.dumps({k: v for k, v in record.items() if k != "settings"}))
    assert main(["compare", "--resume", str(folder), "--quiet"]) == 2
    assert "does not say what was asked for" in capsys.readouterr().err


def test_a_record_names_no_code(here, tmp_path, monkeypatch):
    """The record of a comparison is data: its transition is loaded on the user's word alone."""
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "their_farm.py").write_text("from hybridalloc.problems.farm import Farm as Theirs\nprint('ran')")
    problem = make_problem("custom", transition="hybridalloc.problems.farm:Farm")
    asked = Settings("custom", methods=("random",), settings=(("transition", "their_farm:Theirs"),), quiet=True)
    folder = tmp_path / "runs" / "custom-1"
    comparing._record(folder, problem, asked, "synthetic")
    record = json.loads((folder / "comparison.json").read_text())
    record["scenario"]["transition"]["class"] = "their_farm:Theirs"
    (folder / "comparison.json").write_text(json.dumps(record))
    monkeypatch.setattr(comparing, "_work", lambda settings, problem, *_: problem.transition)
    plainly = Settings(report=here.report, quiet=True)
    with pytest.raises(CheckpointError, match=r"their_farm:Theirs.*--allow-code"):
        compare(plainly, folder)
    assert "their_farm" not in sys.modules
    assert type(compare(plainly, folder, trust_code=True)).__name__ == "Farm"
    assert type(compare(replace(asked, report=here.report), folder)).__name__ == "Farm"  # said again by the user


def test_a_comparison_that_still_runs_is_left_alone(here, tmp_path, monkeypatch):
    monkeypatch.setattr(comparing, "LEAVE_S", 0.2)
    folder = tmp_path / "runs" / "mec-1"
    comparing._record(folder, make_problem("mec", agents=4, servers=2), here, "synthetic")
    for name, shared, message in (
        (comparing.LOCK, False, "is being worked on by another process"),
        (jobs.WORKERS_LOCK, True, "worker processes still write"),
    ):
        with locked(folder / name, shared) as had:
            assert had
            with pytest.raises(comparing.tracking.TrackingError, match=message):
                compare(Settings(report=here.report), folder)


@pytest.mark.parametrize(
    ("fault", "told"),
    [((signal.raise_signal, signal.SIGSEGV), "ended by SIGSEGV"), ((os._exit, 3), "with exit status 3")],
)
def test_how_a_worker_ended_is_told(fault, told):
    began = time.monotonic()
    with pytest.raises(WorkerLost, match=told), open_pool(2) as (pool, _):
        other, doomed = pool.submit(time.sleep, 600), pool.submit(*fault)
        doomed.result()
    assert other.done() and time.monotonic() - began < 300  # at once, not when the other one is through


GONE = """
import multiprocessing.spawn as spawn
from multiprocessing.resource_tracker import ensure_running
from hybridalloc.experiments.executor import WorkerLost, open_pool

ensure_running()
spawn.set_executable("/bin/false")
try:
    with open_pool(1) as (pool, _):
        pool.submit(int).result()
except WorkerLost as lost:
    print(lost)
"""


def test_a_worker_that_is_gone_as_it_starts_is_told_too():
    """What cannot be run leaves nothing behind but its status."""
    done = subprocess.run([sys.executable, "-c", GONE], text=True, capture_output=True, cwd=HOUSE, timeout=300)
    assert (done.stdout, done.stderr) == ("with exit status 1\n", "")


class Losing(Here):
    """As :class:`Here`; of the tasks that run jobs so many are lost."""

    def __init__(self, times):
        self.times = times

    def submit(self, function, *arguments, files=None):
        if function is not comparing.run_job or self.times == 0:
            return super().submit(function, *arguments)
        self.times -= 1
        future = Future()
        future.set_exception(WorkerLost("ended by SIGKILL"))
        return future


def losing(monkeypatch, times):
    pool = Losing(times)
    opens = lambda _: contextlib.nullcontext((pool, queue.Queue()))
    monkeypatch.setattr(comparing, "open_pool", opens)


def test_a_comparison_goes_on_where_a_worker_was_lost(here, monkeypatch, capfd):
    asked = replace(here, methods=("nearest", "random"), tuning=0, quiet=False)
    whole = compare(asked)
    capfd.readouterr()
    losing(monkeypatch, 1)
    again = compare(asked)
    assert "a worker process was lost (ended by SIGKILL); what has not ended is run again" in capfd.readouterr().err
    assert "A worker process was lost (ended by SIGKILL)" in again["note"] and "note" not in whole
    assert scores(again) == scores(whole)


def test_a_comparison_whose_workers_are_lost_again_and_again_stops(here, monkeypatch):
    losing(monkeypatch, 100)
    with pytest.raises(WorkError, match=r"ended by SIGKILL.*--resume"):
        compare(replace(here, methods=("nearest",), tuning=0))


@pytest.mark.parametrize("stop", ["a worker was killed", "the disk is full", "a fault"])
def test_what_stops_a_comparison_is_said_with_how_to_go_on(here, capsys, monkeypatch, stop):
    def work(*_):
        if stop == "a worker was killed":
            raise comparing.BrokenProcessPool("A process in the process pool was terminated abruptly")
        raise OSError(28, "No space left on device") if stop == "the disk is full" else ZeroDivisionError("float")

    monkeypatch.setattr(comparing, "run_job", work)
    words = ["--sites", "synthetic", "--agents", "4", "--servers", "2", "--tuning", "0", "--methods", "nearest"]
    assert main(["compare", *words, "--quiet"]) == 2
    told = capsys.readouterr().err
    assert told.startswith("hybridalloc: ") and told.count("\n") == 1 and "hybridalloc compare --resume" in told
    reason = {"a worker was killed": "a worker process ended", "the disk is full": "No space left"}.get(stop, "float")
    assert reason in told


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"workers": 0}, "workers = 0; it must be a whole number from 1"),
        ({"train_seeds": 0}, "train_seeds = 0"),
        ({"report_seeds": 101}, "report_seeds = 101; it must be a whole number from 1 to 100"),
        ({"agent_steps": 2.5}, "agent_steps = 2.5"),
        ({"tuning": -1}, "tuning = -1"),
    ],
)
def test_counts_are_checked_before_anything_is_written(here, tmp_path, wrong, message):
    with pytest.raises(ValueError, match=message):
        compare(replace(here, **wrong))
    assert not list(tmp_path.iterdir())


# --- places


def test_places_are_tried_with_bytes(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    os.mkfifo(tmp_path / "pipe")
    assert check_file("--out", tmp_path / "new" / "a.npz").parent.is_dir()
    assert check_file("--out", tmp_path / "file").read_text() == ""
    for path, message in (
        ("", "is a folder"),
        ("pipe", "is no regular file"),
        ("file/a", "Not a directory|File exists"),
    ):
        with pytest.raises(PlaceError, match=f"^--out .*{message}"):
            check_file("--out", tmp_path / path)
    with pytest.raises(PlaceError, match=r"--runs .* cannot be written \((Not a directory|File exists)\)"):
        check_folder("--runs", tmp_path / "file")

    class Full(io.BytesIO):
        def write(self, data):
            raise OSError(28, "No space left on device")

    monkeypatch.setattr("tempfile.TemporaryFile", lambda **_: Full())
    with pytest.raises(PlaceError, match="No space left on device"):
        check_folder("--runs", tmp_path)


def test_commands_try_their_places_first(tmp_path, capsys, monkeypatch):
    def work(*_, **__):
        raise AssertionError("work has begun")

    for name in (
        "hybridalloc.training.tuning.tune_game",
        "hybridalloc.training.trainer.train",
        "hybridalloc.experiments.compare._work",
    ):
        monkeypatch.setattr(name, work)
    monkeypatch.setattr("hybridalloc.experiments.stored.comparison_from", work)
    monkeypatch.setattr("rl.export.write_onnx", work)
    monkeypatch.chdir(tmp_path)
    Allocator(make_problem("mec", agents=4, servers=2), recommender="imappo").save("a.npz")
    (tmp_path / "file").write_text("")
    (tmp_path / "taken.checkpoints").write_text("")
    (tmp_path / "stored").mkdir()
    (tmp_path / "stored" / "results.json").write_text("{}")
    small = ["--sites", "synthetic", "--agents", "4", "--servers", "2", "--quiet"]
    for words, flag in (
        (["train", *small, "--out", "file/a.npz"], "--out"),
        (["train", *small, "--out", "stored"], None),  # stored.npz is a file's name like any other
        (["train", *small, "--out", "taken"], "--out"),
        (["compare", *small, "--runs", "file"], "--runs"),
        (["compare", *small, "--report", "file/a.html"], "--report"),
        (["compare", *small, "--report", "stored"], "--report"),
        (["compare", *small, "--report", "/dev/null"], "--report"),
        (["compare", "--from-runs", "stored", "--report", "file/a.html"], "--report"),
        (["report", "stored", "--out", "file/a.html"], "--out"),
        (["export", "a.npz", "--onnx", "file/a.onnx"], "--onnx"),
    ):
        if flag is None:
            with pytest.raises(AssertionError, match="work has begun"):
                main(words)
            continue
        assert main(words) == 2
        told = capsys.readouterr().err
        assert told.startswith(f"hybridalloc: {flag} ") and told.count("\n") == 1, told
    assert not (tmp_path / "runs").exists() or not list((tmp_path / "runs").iterdir())


def test_a_report_that_cannot_be_written_in_the_end_costs_nothing_else(here, monkeypatch, tmp_path):
    real = comparing.write_text

    def full(path, text):
        if str(path) == here.report:
            raise OSError(28, "No space left on device")
        return real(path, text)

    monkeypatch.setattr(comparing, "write_text", full)
    with pytest.raises(WorkError, match=r"No space left on device.*all else is done, and the report is .*report.html"):
        compare(replace(here, methods=("nearest",), report_seeds=1, tuning=0))
    assert len(list((tmp_path / "runs").glob("*/report.html"))) == 1


# --- one line


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (OSError(28, "No space left on device", "a/b.npz"), 2, "a/b.npz: No space left on device"),
        (PermissionError(13, "Permission denied", "a"), 2, "a: Permission denied"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (KeyboardInterrupt("interrupted; c goes on"), 130, "interrupted; c goes on"),
        (WorkError("two\nlines \x1b[31m"), 2, "two\\nlines \\x1b[31m"),
        (ImportError("No module named 'onnx'"), 2, "No module named 'onnx'"),
        (MemoryError(), 2, "out of memory"),
    ],
)
def test_what_stops_a_command_is_one_line(capsys, monkeypatch, error, code, message):
    def stop(self):
        raise error

    monkeypatch.setattr("hybridalloc.commands.evaluate.Evaluate.run", stop)
    assert main(["evaluate", "a.npz"]) == code
    told = capsys.readouterr().err
    assert told.startswith(f"hybridalloc: {message}") and told.count("\n") == 1


def test_a_fault_of_ours_is_not_hidden(monkeypatch):
    def stop(self):
        raise KeyError("a fault")

    monkeypatch.setattr("hybridalloc.commands.evaluate.Evaluate.run", stop)
    with pytest.raises(KeyError, match="a fault"):
        main(["evaluate", "a.npz"])


@pytest.mark.parametrize("output", ["full", "closed", "left", "help on a full one"])
def test_standard_output_that_takes_no_more_is_one_line(output):
    words = ["--help"] if output == "help on a full one" else ["data", "list"]
    if output == "closed":
        done = command(words, preexec_fn=lambda: os.close(1))
        assert done.returncode == 2 and done.stderr.startswith("hybridalloc: standard output is closed")
    elif output == "left":
        read, write = os.pipe()
        os.close(read)
        done = command(words, stdout=write)
        os.close(write)
        assert done.stderr == "hybridalloc: standard output did not take all (its reader has left)\n"
    else:
        with open("/dev/full", "w") as full:
            done = command(words, stdout=full)
        assert done.stderr == "hybridalloc: standard output did not take all (No space left on device)\n"
    assert done.returncode in (1, 2) and done.stderr.count("\n") == 1


def test_standard_error_and_input_may_be_closed():
    done = command(["data", "list"], stdout=subprocess.PIPE, preexec_fn=lambda: os.close(2))
    assert done.returncode == 0 and "eua" in done.stdout
    done = command(["step"], stdout=subprocess.PIPE, preexec_fn=lambda: os.close(0))
    assert done.returncode == 2 and "hybridalloc: standard input is closed" in done.stderr


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("agents=x", "agents = 'x'; it must be a whole number from 0 to 1000000"),
        ("agents=2.5", "agents = 2.5; it must be a whole number from 0 to 1000000"),
        ("agents=true", "agents = True; it must be a whole number from 0 to 1000000"),
        ("servers=null", "servers = None; it must be a whole number from 1 to 1000000"),
        ("episode=q", "episode = 'q'; it must be a whole number from 1 to 1000000"),
        ("slot_s=NaN", "slot_s = nan; it must be a finite number >= 0"),
        ("slot_s=0", "slot_s = 0; it must be > 0"),
        ("load=-1", "load = -1; it must be a finite number >= 0"),
        ("floors=3", "floors = 3; it must be true or false"),
        ("bits=5", "bits = 5; it must be 2 finite numbers >= 0"),
        ("bits=[1,2,3]", "bits = a list of 3; it must be 2 finite numbers >= 0"),
        ("deadline_s=[0.05,0.02]", "deadline_s = a list of 2; it is a range: 0 < low <= high"),
        ("dynamics=5", "dynamics = 5; it must be a Dynamics"),
        ("episode=0", "episode = 0; it must be a whole number from 1 to 1000000"),
    ],
)
def test_a_setting_of_another_kind_is_named(capsys, setting, message):
    assert main(["step", "--example", "--settings", setting]) == 2
    assert capsys.readouterr().err == f"hybridalloc: {message}\n"


def test_ctrl_c_in_training_names_the_checkpoint(tmp_path, capsys, monkeypatch):
    from hybridalloc.training.checkpoints import Checkpoints

    real = Checkpoints.keep

    def stopping(error):
        def keep(self, *arguments):
            real(self, *arguments)
            raise error

        return keep

    words = ["train", "--sites", "synthetic", "--agents", "4", "--servers", "2", "--agent-steps", "1", "--tuning", "0"]
    last = tmp_path / "a.checkpoints" / "last.pt"
    full = OSError(28, "No space left on device")
    for error, code, head in ((KeyboardInterrupt(), 130, "interrupted"), (full, 2, "No space left on device")):
        monkeypatch.setattr(Checkpoints, "keep", stopping(error))
        assert main([*words, "--quiet", "--out", str(tmp_path / "a.npz")]) == code
        told = capsys.readouterr().err
        assert told.startswith(f"hybridalloc: {head}; the last good checkpoint is {last}")
        assert f"`hybridalloc train --resume {last}` goes on" in told


# --- MLflow's store


def test_the_store_that_mlflow_is_told_of_is_the_default(tmp_path, capsys, monkeypatch):
    asked = []
    monkeypatch.setattr(
        "hybridalloc.experiments.stored.comparison_from", lambda source, uri, *more: asked.append(uri) or 1 / 0
    )
    monkeypatch.setattr("hybridalloc.serving.models.log_model", lambda path, name, uri, **_: asked.append(uri) or 1 / 0)
    monkeypatch.setattr("hybridalloc.experiments.tracking.mirror", lambda folder, uri: asked.append(uri) or 1 / 0)
    monkeypatch.setattr("hybridalloc.commands.stored._stored", lambda *_: None)
    monkeypatch.chdir(tmp_path)
    commands = (["compare", "--from-runs", "x"], ["log-model", "a.npz"], ["sync", "x"])
    for variable, flags, uri in (
        ("sqlite:///theirs.db", [], "sqlite:///theirs.db"),
        ("sqlite:///theirs.db", ["--tracking-uri", "sqlite:///mine.db"], "sqlite:///mine.db"),
        ("", [], "sqlite:///mlflow.db"),
    ):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", variable)
        for words in commands:
            with pytest.raises(ZeroDivisionError):
                main([*words, *flags])
            assert asked.pop() == uri


def test_a_store_that_is_damaged_or_not_there_says_why(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    problem = make_problem("mec", agents=3, servers=2)
    Allocator(problem, "game").save("a.npz")
    (tmp_path / "m.db").write_bytes(b"no database at all, of any kind" * 400)
    for words, reason in (
        (["log-model", "a.npz", "--tracking-uri", "sqlite:///m.db"], "file is not a database"),
        (["compare", "--from-runs", "x", "--tracking-uri", "sqlite:///m.db"], "file is not a database"),
        (
            ["compare", "--from-runs", "x", "--tracking-uri", "sqlite:///a%20b/m.db"],
            "a b/m.db, which is the MLflow store sqlite:///a%20b/m.db",
        ),
    ):
        assert main(words) == 2
        told = [line for line in capsys.readouterr().err.splitlines() if line.startswith("hybridalloc: ")]
        assert len(told) == 1 and reason in told[0], told


def test_artifacts_lie_beside_the_file_that_mlflow_opens(tmp_path):
    at = artifact_location(f"sqlite:///{tmp_path}/a%20b/m.db?timeout=3")
    assert at == (tmp_path / "a b" / "mlruns").as_uri()
    assert artifact_location("http://127.0.0.1:5000") is None and artifact_location("sqlite:///:memory:") is None


# --- the program that calls compare


@pytest.mark.parametrize("program", ["from standard input", "without a guard"])
def test_worker_processes_and_the_program_that_starts_them(tmp_path, program):
    body = "from hybridalloc.experiments.executor import open_pool\n"
    body += "from hybridalloc.experiments.jobs import belief_file\nfrom pathlib import Path\n"
    if program == "from standard input":
        body += "with open_pool(1) as (pool, _):\n    print(pool.submit(belief_file, Path('a'), 'k', 0).result())\n"
        done = subprocess.run(
            [sys.executable, "-"], input=body, capture_output=True, text=True, cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(HOUSE)},
        )  # fmt: skip
        assert done.stdout.strip() == str(Path("a") / "beliefs" / "k-seed0.npz"), done.stderr
        return
    script = tmp_path / "script.py"
    script.write_text(
        "from hybridalloc.experiments.compare import Settings, compare\n"
        "compare(Settings(agents=3, servers=1, sites='synthetic', tuning=0, methods=('nearest',), quiet=True,"
        " tracking_uri='sqlite:////dev/null/m.db'))\n"
    )
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(HOUSE)},
    )  # fmt: skip
    assert done.returncode == 1
    assert 'put the call under `if __name__ == "__main__":`' in done.stderr.splitlines()[-1]
    assert len(list((tmp_path / "runs").iterdir())) == 1  # the imported copy began nothing
