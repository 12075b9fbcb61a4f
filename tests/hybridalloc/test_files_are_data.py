"""Files and input are data: nothing in them runs code, opens or writes another file, or fails in a foreign way."""

from __future__ import annotations

import io
import json
import sys
import threading
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from hybridalloc import Allocator, CheckpointError, InvalidStateError, files, make_problem
from hybridalloc.cli import main
from hybridalloc.errors import nearest
from hybridalloc.problems import restore_problem
from hybridalloc.problems.beliefs import load_belief, save_belief
from hybridalloc.problems.custom.transitions import Unloaded
from hybridalloc.problems.farm import Farm
from hybridalloc.saved import read_checkpoint
from hybridalloc.text import printable, quoted
from hybridalloc.training.checkpoints import Checkpoints, read, write

TRAP = """
from pathlib import Path

Path({marker!r}).write_text("imported")

class World:
    def __init__(self, work=1.0): self.work = work
    def reset(self, seed): return {{"work": [[self.work]] * 3, "capacity": [2.0], "deadline_s": [9.0] * 3}}
    def advance(self, state, allocation, rng): return self.reset(0)
    def reward(self, state, allocation): return allocation.served * 1.0

class Half:
    def reset(self, seed): raise AssertionError("called")

def make(**settings): raise AssertionError("called")
"""
STATE = {"work": [[1.0], [2.0]], "capacity": [4.0], "deadline_s": [3.0, 3.0]}


class Trap:
    """A module that leaves a marker when it is imported, and a command that leaves one when it is run."""

    def __init__(self, folder: Path) -> None:
        self.imported, self.ran = folder / "imported", folder / "ran"
        (folder / "trap_module.py").write_text(TRAP.format(marker=str(self.imported)))
        self.addresses = {
            "system": {"class": "os:system", "settings": {"command": f"touch {self.ran}"}},
            "module": {"class": "trap_module:World", "settings": {}},
            "text": "trap_module:make",
        }

    def sprung(self) -> bool:
        return self.imported.exists() or self.ran.exists() or "trap_module" in sys.modules


@pytest.fixture
def trap(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    yield Trap(tmp_path)
    sys.modules.pop("trap_module", None)


def rewritten(path: Path, change) -> Path:
    """The saved allocator at ``path`` with its settings changed by a function."""
    arrays = files.read_arrays(path)
    meta = json.loads(str(arrays.pop("meta")))
    change(meta)
    with path.open("wb") as stream:
        np.savez(stream, meta=np.array(json.dumps(meta)), **arrays)
    return path


def armed(folder: Path, transition) -> Path:
    problem = make_problem("custom", work=[[1.0], [2.0]], capacity=[4.0], deadline_s=[3.0, 3.0])
    path = Allocator(problem, "hybrid").save(folder / "armed.npz")
    return rewritten(path, lambda meta: meta["problem"].update(transition=transition))


# --- nothing runs


@pytest.mark.parametrize("kind", ["system", "module", "text"])
def test_a_state_on_standard_input_names_no_code(trap, kind, capsys, monkeypatch):
    named = trap.addresses[kind]
    if kind == "system":
        named = {"address": "os:system", "settings": named["settings"]}
    for state in (STATE | {"transition": named}, {"transition": named}):
        for words in ([], ["--settings", "episode=9"]):
            monkeypatch.setattr("sys.stdin", io.StringIO(json.dumps(state)))
            assert main(["step", "--problem", "custom", *words]) == 2
            if not words:
                assert "transition is no field of a state" in capsys.readouterr().err
    assert not trap.sprung()


@pytest.mark.parametrize("name", ["jobs", "servers", "links", "episode", "credit"])
def test_a_state_on_standard_input_opens_no_file(tmp_path, name, capsys, monkeypatch):
    table = tmp_path / "table.csv"
    table.write_text("secret\n1\n")
    monkeypatch.setattr("sys.stdin", io.StringIO(json.dumps(STATE | {name: str(table)})))
    assert main(["step", "--problem", "custom"]) == 2
    told = capsys.readouterr().err
    assert name in told and "secret" not in told and told.count("\n") == 1


def test_a_state_on_standard_input_may_name_resources_and_options(capsys, monkeypatch):
    state = {"work": [[1.0, 2.0]] * 3, "capacity": [4.0, 3.0], "deadline_s": [3.0] * 3}
    named = {"options": [[0, 1]], "families": ["air", "cpu"], "resources": ["radio", "core"]}
    monkeypatch.setattr("sys.stdin", io.StringIO(json.dumps(state | named)))
    assert main(["step", "--problem", "custom", "--method", "game"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert set(answer["shares"]) == {"air", "cpu"} and answer["certificate"]["feasible"]


@pytest.mark.parametrize("kind", ["system", "module", "text"])
def test_a_saved_allocator_runs_no_code(trap, tmp_path, kind, capsys, monkeypatch):
    path = armed(tmp_path, trap.addresses[kind])
    a = Allocator.load(path)
    assert isinstance(a.problem.transition, Unloaded)
    assert a.step(STATE).certificate.feasible and Allocator.load(path, budget_ms=1e6).step(STATE).certificate.feasible
    allocation = a.step(a.problem.start)
    for needs in (
        lambda: a.problem.reset(0), lambda: a.problem.worlds([0, 1]),
        lambda: a.problem.evaluate(a.problem.start, allocation),
        lambda: a.problem.advance(a.problem.start, allocation, 0),
    ):  # fmt: skip
        with pytest.raises(CheckpointError, match=r"was not loaded .*--allow-code, or trust_code=True"):
            needs()
    again = Allocator.load(a.save(tmp_path / "again"))  # what is not loaded is kept as it was
    assert again.problem.describe() == a.problem.describe()
    assert main(["evaluate", str(path), "--seeds", "1"]) == 2
    assert "--allow-code" in capsys.readouterr().err
    assert main(["step", "--example", "--allocator", str(path)]) == 0
    state = capsys.readouterr().out
    monkeypatch.setattr("sys.stdin", io.StringIO(state))
    assert main(["step", "--allocator", str(path)]) == 0
    restore_problem(a.problem.describe())
    assert not trap.sprung()


def test_a_served_model_runs_no_code(trap, tmp_path):
    import mlflow

    from hybridalloc.serving.models import log_model

    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    logged = log_model(armed(tmp_path, trap.addresses["system"]), "armed", uri)
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(uri)
    try:
        model = mlflow.pyfunc.load_model(logged.uri)
        (answer,) = model.predict([{"state": STATE}])
        assert answer["certificate"]["feasible"]
        with pytest.raises(Exception, match="unknown field 'transition'"):
            model.predict([{"state": STATE | {"transition": trap.addresses["system"]}}])
    finally:
        mlflow.set_tracking_uri(before)
    assert not trap.sprung()


@pytest.mark.parametrize("kind", ["system", "module", "text"])
def test_a_checkpoint_of_training_runs_no_code(trap, tmp_path, kind, capsys):
    from dataclasses import asdict

    from hybridalloc.training.config import TrainConfig

    problem = make_problem("custom", work=[[1.0], [2.0]], capacity=[4.0])
    run = {
        "problem": problem.describe() | {"transition": trap.addresses[kind]}, "training": asdict(TrainConfig()),
        "prices": problem.card.prices()._asdict(),
    }  # fmt: skip
    write(tmp_path / "last.pt", {"identity": json.dumps(run), "agent_steps": 0, "best": 0.0, "parts": {}, "record": {}})
    resume = ["train", "--resume", str(tmp_path / "last.pt"), "--out", str(tmp_path / "a.npz")]
    assert main(resume) == 2
    assert "was not loaded" in capsys.readouterr().err and not trap.sprung()
    assert main([*resume, "--allow-code"]) == 2
    told = capsys.readouterr().err
    assert not trap.ran.exists() and ("does not fit" in told) == (kind == "module")
    assert kind == "module" or "it must be a class with reset, advance, reward, and was not called" in told


def test_a_stored_comparison_runs_no_code(trap, tmp_path, capsys):
    from hybridalloc.experiments import tracking

    farm = make_problem("custom", transition=Farm(tenants=3, nodes=2))
    folder = tmp_path / "runs" / "custom-1"
    scenario = farm.describe() | {"transition": trap.addresses["system"]}
    tracking.write_comparison(
        folder,
        problem="custom",
        scenario=scenario,
        methods=["balanced"],
        seeds=[0],
        budget={},
        data_digest="x",
        git="x",
    )
    with tracking.RunLog(folder, "balanced", 0):
        rows = {"welfare": [1.0, 2.0], "completion": [3.0, 4.0]}
        text = json.dumps({"metrics": rows, "curve": [], "allocations": 1, "violations": 0})
        files.write_text(folder / "balanced-seed0" / "evaluation.json", text)
    assert main(["compare", "--from-runs", str(folder), "--report", str(tmp_path / "r.html")]) == 0
    assert "balanced" in capsys.readouterr().out and not trap.sprung()


def test_the_users_own_comparison_runs_the_users_own_transition(trap, tmp_path, capsys):
    words = ["--problem", "custom", "--settings", "transition=trap_module:World", "--methods", "balanced"]
    few = ["--tuning", "1", "--report-seeds", "1", "--workers", "1", "--quiet", "--tracking-uri", "http://127.0.0.1:9"]
    assert main(["compare", *words, *few]) == 0  # in processes of their own
    assert trap.imported.exists() and "balanced" in capsys.readouterr().out
    path = next((tmp_path / "runs").glob("*/balanced-seed0/allocator.npz"))
    assert isinstance(Allocator.load(path).problem.transition, Unloaded)


def test_trust_loads_a_class_with_three_methods_and_nothing_else(trap, tmp_path, capsys):
    a = Allocator.load(armed(tmp_path, trap.addresses["module"]), trust_code=True)
    assert trap.imported.exists() and a.problem.reset(0).agents == 3
    assert main(["evaluate", str(tmp_path / "armed.npz"), "--seeds", "1", "--allow-code"]) == 0
    capsys.readouterr()
    for address, reason in (
        ("os:system", "is a builtin_function_or_method"), ("trap_module:make", "is a function"),
        ("trap_module:Half", "lacks advance, reward"), ("trap_module:None", "cannot be loaded"),
        ("no_such_module:World", "cannot be loaded"), ("json:JSONDecoder", "lacks reset, advance, reward"),
    ):  # fmt: skip
        settings = {"command": f"touch {trap.ran}"}
        path = armed(tmp_path, {"class": address, "settings": settings})
        with pytest.raises(CheckpointError, match=reason):
            Allocator.load(path, trust_code=True)
        with pytest.raises(InvalidStateError, match=reason):  # the user's own word is checked too
            make_problem("custom", transition={"class": address, "settings": settings})
    with pytest.raises(CheckpointError, match=r"cannot be made: .*unexpected keyword"):
        Allocator.load(armed(tmp_path, {"class": "trap_module:World", "settings": {"x": 1}}), trust_code=True)
    assert not trap.ran.exists()
    assert make_problem("custom", transition="trap_module:World").agents == 3
    with pytest.raises(InvalidStateError, match="transition is a object without reset, advance, reward"):
        make_problem("custom", transition=object())
    with pytest.raises(InvalidStateError, match=r"is the class Farm; give an object: Farm\(\.\.\.\)"):
        make_problem("custom", transition=Farm)


def test_a_file_may_name_what_is_built_in_or_installed(trap, tmp_path):
    farm = make_problem("custom", transition=Farm(tenants=3, nodes=2, load=0.5))
    again = Allocator.load(Allocator(farm).save(tmp_path / "farm"))
    assert again.problem == farm and again.problem.transition == Farm(3, 2, load=0.5)
    assert make_problem("custom", transition="farm").transition == Farm()
    info = tmp_path / "trap-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: trap\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[hybridalloc.transitions]\nworld = trap_module:World\n")
    for named in ({"class": "trap_module:World", "settings": {"work": 2.0}}, "world"):
        assert Allocator.load(armed(tmp_path, named)).problem.reset(0).agents == 3
    path = armed(tmp_path, {"class": "trap_module:make", "settings": {}})  # of that module, but not that class
    assert isinstance(Allocator.load(path).problem.transition, Unloaded)


def test_a_description_for_an_installed_maker_names_no_code(trap, tmp_path):
    (tmp_path / "loose_package.py").write_text(
        "from hybridalloc import make_problem\ndef loose(**settings): return make_problem('custom', **settings)\n"
    )
    info = tmp_path / "loose-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: loose\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[hybridalloc.problems]\nloose = loose_package:loose\n")
    assert restore_problem({"name": "loose", "work": [1.0], "capacity": [1.0]}).agents == 1
    for key, value in (("transition", "trap_module:World"), ("jobs", "/etc/hostname"), ("servers", {"name": ["a"]})):
        with pytest.raises(ValueError, match=f"{key} = .* a description of loose may not give it"):
            restore_problem({"name": "loose", key: value})
    assert not trap.sprung()


# --- whatever is wrong with a file, it is a CheckpointError


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Allocators of either problem, with recommender, belief and a learning trust."""
    folder = tmp_path_factory.mktemp("saved")
    mec = make_problem("mec", agents=4, servers=2)
    farm = make_problem("custom", transition=Farm(tenants=3, nodes=2))
    made = {
        "mec": Allocator(mec, "hybrid", "imappo", trust="hedge", belief="learned"),
        "custom": Allocator(farm, "hybrid", "dqn", trust="exp3"),
    }
    made["mec"].step(mec.reset(0))
    return {name: a.save(folder / name) for name, a in made.items()}


def content(path):
    meta, _, arrays = read_checkpoint(path)
    return json.dumps(meta, sort_keys=True), {k: (v.dtype.str, v.shape, v.tobytes()) for k, v in arrays.items()}


def test_flipped_bits_of_an_allocator_are_noticed_or_change_nothing(saved, tmp_path):
    rng = np.random.default_rng(0)
    noticed = 0
    for path in saved.values():
        whole, bad = path.read_bytes(), tmp_path / "bad.npz"
        want = content(path)
        directory = int.from_bytes(whole[-6:-2], "little")  # where a name or a length may hide an array
        bits = *rng.integers(0, 8 * len(whole), 200), *rng.integers(8 * directory, 8 * len(whole), 300)
        for bit in bits:
            data = bytearray(whole)
            data[bit // 8] ^= 1 << (bit % 8)
            bad.write_bytes(data)
            try:
                assert content(bad) == want, f"bit {bit} of {path.name}"
            except CheckpointError:
                noticed += 1
        for size in rng.integers(0, len(whole), 20):
            bad.write_bytes(whole[:size])
            with pytest.raises(CheckpointError):
                read_checkpoint(bad)
    assert noticed > 500


def places(value, at=()):
    """Every place of nested JSON."""
    yield at
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in inner:
        yield from places(item, (*at, key))


STRANGE = (
    None, True, -1, 10**18, 1e308, float("nan"), float("inf"), "", "x" * 10_000, "\x1b[2J", [], [1], [[[]]], {},
    {"a": 1},
)  # fmt: skip


def mutated(meta, place, value):
    if not place:
        return value
    meta = json.loads(json.dumps(meta))
    inner = meta
    for key in place[:-1]:
        inner = inner[key]
    if value is ...:
        del inner[place[-1]]
    elif isinstance(inner, dict) and value == "another name":
        inner["another\x1b[31m"] = inner.pop(place[-1])
    else:
        inner[place[-1]] = value
    return meta


@pytest.mark.parametrize("name", ["mec", "custom"])
def test_mutated_descriptions_are_checkpoint_errors_or_serve(saved, tmp_path, name):
    rng = np.random.default_rng(1)
    arrays = files.read_arrays(saved[name])
    texts = {key: json.loads(str(arrays[key])) for key in ("meta", "belief") if key in arrays}
    state = Allocator.load(saved[name]).problem.reset(0).to_dict()
    every = [
        (key, place, v) for key, t in texts.items() for place in places(t) for v in (*STRANGE, ..., "another name")
    ]
    refused = 0
    for k in rng.permutation(len(every))[:250]:
        key, place, value = every[k]
        if not place and value in (..., "another name"):
            continue
        changed = arrays | {key: np.array(json.dumps(mutated(texts[key], place, value)))}
        path = tmp_path / "bad.npz"
        with path.open("wb") as stream:
            np.savez(stream, **changed)
        try:
            made = Allocator.load(path)
        except CheckpointError as error:
            refused += 1
            assert len(str(error)) < 1000 and str(error).isprintable(), error
        else:
            made.step(state).to_dict()
    assert refused > 120


@pytest.mark.parametrize("name", ["mec", "custom"])
def test_mutated_arrays_are_checkpoint_errors_or_serve(saved, tmp_path, name):
    arrays = files.read_arrays(saved[name])
    state = Allocator.load(saved[name]).problem.reset(0).to_dict()
    refused = 0
    for key, value in arrays.items():
        for wrong in (
            None,
            value[..., None],
            np.zeros(3),
            np.array("x"),
            np.full(value.shape, np.nan),
            np.zeros((0, 2)),
        ):
            changed = {k: v for k, v in arrays.items() if k != key} | ({} if wrong is None else {key: wrong})
            path = tmp_path / "bad.npz"
            with path.open("wb") as stream:
                np.savez(stream, **changed)
            try:
                made = Allocator.load(path)
            except CheckpointError:
                refused += 1
            else:
                made.step(state).to_dict()
    assert refused > 4 * sum(k.startswith("policy/") for k in arrays)


def test_weights_of_other_shapes_are_named(saved, tmp_path):
    arrays = files.read_arrays(saved["custom"])
    for change, message in (
        ({"policy/mix.bias": np.zeros(5)}, r"mix\.bias has shape \(5,\); it needs axes \(M\)"),
        ({"policy/scale": np.array(np.nan)}, "scale holds what is not finite"),
        ({"policy/spare": np.zeros(2)}, "'spare' is unknown"),
        ({"policy/rounds": np.array(2**40)}, "rounds = 1099511627776; 0 to 100 are served"),
    ):
        with (tmp_path / "bad.npz").open("wb") as stream:
            np.savez(stream, **arrays | change)
        with pytest.raises(CheckpointError, match=message):
            Allocator.load(tmp_path / "bad.npz")


def test_a_mistake_of_the_callers_is_not_blamed_on_the_file(saved):
    with pytest.raises(ValueError, match=r"^unknown method 'hybird'") as caught:
        Allocator.load(saved["mec"], method="hybird")
    assert not isinstance(caught.value, CheckpointError)


def npy(shape, dtype="<f8", body=b""):
    """An array's bytes whose header says what it likes."""
    header = f"{{'descr': {dtype!r}, 'fortran_order': False, 'shape': {shape}, }}".encode()
    header += b" " * (-(len(header) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + body


def test_sizes_are_bounded_before_memory_is_taken(saved, tmp_path, monkeypatch):
    path = tmp_path / "bad.npz"
    entries = {
        "a": npy((10**12,)), "b": npy((10**6, 10**6), "<U9000"), "c": npy((-1,)), "d": npy((2**70,)),
        "e": npy((), "|O"), "f": npy((4,), body=b"\0" * 33), "g": b"no array", "h": npy("4"),
        "i": npy((1,), "<m8", b"\0" * 8),
    }  # fmt: skip
    for name, data in entries.items():
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(f"{name}.npy", data)
        tracemalloc.start()
        with pytest.raises(CheckpointError, match="truncated or not a checkpoint"):
            read_checkpoint(path)
        assert tracemalloc.get_traced_memory()[1] < 10e6
        tracemalloc.stop()
    with zipfile.ZipFile(path, "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("meta.npy", npy(()))
    with pytest.raises(CheckpointError, match="compressed by method 14"):
        read_checkpoint(path)
    monkeypatch.setattr(files, "MOST_BYTES", 1000)
    with pytest.raises(CheckpointError, match="bytes; at most 1,000 are read"):
        read_checkpoint(saved["mec"])
    with pytest.raises(CheckpointError, match="at most 1,000 are read"):
        load_belief(make_problem("mec", agents=3, servers=2), saved["mec"])


# --- checkpoints of training


CONTENT = {
    "identity": "{}", "agent_steps": 7, "best": 1.5, "parts": {"learner": {"w": torch.arange(300.0), "n": [1, "x"]}},
    "record": {"rows": list(range(50))},
}  # fmt: skip


def test_every_flipped_bit_of_a_checkpoint_is_noticed(tmp_path):
    path = tmp_path / "a.pt"
    write(path, CONTENT)
    whole = path.read_bytes()
    assert torch.equal(read(path)["parts"]["learner"]["w"], torch.arange(300.0))
    for bit in np.random.default_rng(2).integers(0, 8 * len(whole), 300):
        data = bytearray(whole)
        data[bit // 8] ^= 1 << (bit % 8)
        path.write_bytes(data)
        with pytest.raises(CheckpointError):
            read(path)
    path.write_bytes(whole + b"more")
    with pytest.raises(CheckpointError, match="its digest is another; it was left as it is"):
        read(path)


def test_a_forged_checkpoint_takes_no_memory(tmp_path):
    write(tmp_path / "a.pt", CONTENT | {"parts": torch.zeros(1).expand(10**11)})
    with pytest.raises(CheckpointError, match="an array of 400,000,000,000 bytes is in it"):
        read(tmp_path / "a.pt")
    write(tmp_path / "a.pt", CONTENT | {"record": 7})
    keeper = Checkpoints(tmp_path, resume=tmp_path / "a.pt")
    keeper._found = read(tmp_path / "a.pt")
    keeper.identity = '{"training": {"learner": "dqn"}}'
    with pytest.raises(CheckpointError, match="does not fit this version's dqn"):
        keeper.restore({"learner": None})


def test_an_identity_that_says_anything_is_refused(tmp_path):
    from hybridalloc.commands.train import Train
    from hybridalloc.training.checkpoints import run_of

    for identity in ("", "[]", "7", '{"problem": 3}', '{"problem": {"name": "mec"}, "training": {}, "prices": {}}'):
        write(tmp_path / "a.pt", CONTENT | {"identity": identity})
        with pytest.raises(CheckpointError, match="names no run that this version can make"):
            run_of(tmp_path / "a.pt", Train())


# --- writing


def test_writers_of_one_path_do_not_disturb_each_other(tmp_path):
    problem = make_problem("mec", agents=3, servers=2)
    allocators = [Allocator(problem, "hybrid", "imappo", trust=float(k)) for k in range(1, 5)]
    belief = Allocator(problem, belief="bayesian").belief
    keepers = [Checkpoints(tmp_path) for _ in range(2)]
    lost: list[Exception] = []

    def work(once):
        try:
            for _ in range(25):
                once()
        except Exception as error:
            lost.append(error)

    jobs = [lambda a=a: a.save(tmp_path / "one") for a in allocators]
    jobs += [lambda: save_belief(tmp_path / "belief.npz", belief) for _ in range(2)]
    jobs += [lambda k=k: k.keep(5, {"learner": allocators[0].coordinator and None}, {}) for k in keepers]
    jobs += [lambda: files.write_text(tmp_path / "text", "x" * 10_000) for _ in range(2)]
    threads = [threading.Thread(target=work, args=(job,)) for job in jobs]
    for thread in threads:
        thread.start()
    seen = set()
    while any(thread.is_alive() for thread in threads):
        if (tmp_path / "one.npz").exists():
            seen.add(read_checkpoint(tmp_path / "one.npz").meta["trust"])
    assert not lost and seen <= {1.0, 2.0, 3.0, 4.0}
    assert {p.name for p in tmp_path.iterdir()} == {"one.npz", "belief.npz", "last.pt", "text"}


def test_a_writing_that_fails_leaves_what_was_there_and_nothing_else(tmp_path, monkeypatch):
    allocator = Allocator(make_problem("mec", agents=3, servers=2))
    path = allocator.save(tmp_path / "a")
    before = path.read_bytes()

    def full(stream, **arrays):
        stream.write(b"half")
        raise OSError(28, "no space left on device")

    monkeypatch.setattr(np, "savez_compressed", full)
    with pytest.raises(OSError, match="no space"):
        allocator.save(path)
    assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == ["a.npz"]


def test_what_is_saved_under_a_plain_name_is_loaded_by_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    problem = make_problem("mec", agents=3, servers=2)
    allocator = Allocator(problem, "hybrid", "imappo", trust=9.0)
    for name in ("plain", "with.dot", "folder/plain"):
        assert allocator.save(name) == Path(f"{name}.npz")
        assert Allocator.load(name).trust == 9.0
        assert Allocator(problem, "hybrid", name).trust == 9.0
    assert main(["evaluate", "plain", "--seeds", "1"]) == 0
    with pytest.raises(CheckpointError, match="no checkpoint at none"):
        Allocator.load("none")


# --- stores and terminals


def everything(folder: Path) -> set[str]:
    return {str(p.relative_to(folder)) for p in folder.rglob("*") if "mlruns" not in p.parts}


def test_a_store_writes_nothing_outside_its_folder(tmp_path, monkeypatch):
    from mlflow.tracking import MlflowClient

    from hybridalloc.experiments import tracking
    from hybridalloc.experiments.mlflow_store import artifact_location
    from hybridalloc.experiments.replay import COMPARISON_TAG, KEY_TAG
    from hybridalloc.experiments.runlog import TrackingError
    from hybridalloc.experiments.stored import comparison_from

    place = tmp_path / "temporary"
    place.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(place))
    monkeypatch.chdir(tmp_path)
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    client = MlflowClient(uri)
    key = "../../escaped"
    experiment = client.create_experiment("hybridalloc", artifact_location=artifact_location(uri))
    parent = client.create_run(experiment, tags={COMPARISON_TAG: key, KEY_TAG: key})
    record = {"id": key, "methods": ["balanced"], "scenario": {}, "problem": "custom", "seeds": {}}
    client.log_text(parent.info.run_id, json.dumps(record), "comparison.json")
    tags = {COMPARISON_TAG: key, KEY_TAG: f"{key}/../../../evil", "method": "balanced", "seed": "0"}
    child = client.create_run(experiment, tags=tags)
    before = everything(tmp_path)
    with pytest.raises(TrackingError, match=r"has method 'balanced' and seed '0', and is called '\.\./\.\./\.\./evil'"):
        comparison_from("hybridalloc", uri)
    for name, value in (("method", "../x"), ("seed", "-1"), ("seed", "9" * 5000), ("seed", "one")):
        client.set_tag(child.info.run_id, name, value)
        with pytest.raises(TrackingError):
            comparison_from(key, uri)
    client.delete_run(child.info.run_id)
    with pytest.raises(TrackingError, match="holds no run that ended"):
        comparison_from("hybridalloc", uri)
    assert everything(tmp_path) == before

    (tmp_path / "secret.txt").write_text("secret")  # and nothing from outside goes into it
    folder = tmp_path / "runs" / "c-1"
    tracking.write_comparison(
        folder, problem="custom", scenario={}, methods=["balanced"], seeds=[0], budget={}, data_digest="", git="x"
    )
    with tracking.RunLog(folder, "balanced", 0) as log:
        log._write("artifact", path="../../secret.txt")
    assert tracking.mirror(folder, uri).complete
    assert not [p for p in (tmp_path / "mlruns").rglob("secret.txt")]


def test_a_damaged_comparison_is_refused_in_one_line(tmp_path):
    from hybridalloc.experiments.runlog import TrackingError, read_run
    from hybridalloc.experiments.stored import rebuild

    for record in ({"id": "x"}, {"id": "x", "methods": 3, "scenario": []}):
        (tmp_path / "comparison.json").write_text(json.dumps(record))
        (tmp_path / "balanced-seed0.jsonl").write_text('{"kind": "start"}\n')
        with pytest.raises(TrackingError, match="is damaged"):
            rebuild(tmp_path)
    with pytest.raises(TrackingError, match=r"balanced-seed0\.jsonl is damaged: a field is missing"):
        read_run(tmp_path / "balanced-seed0.jsonl")


def test_names_do_not_steer_the_terminal(tmp_path, capsys):
    (tmp_path / "jobs.csv").write_text(f"name,work,deadline_s\n\x1b[2Jred,1,2\n{'long' * 100},1,2\nthird,1e9,1\n")
    (tmp_path / "servers.csv").write_text("name,capacity\nser\x1b]0;x\x07ver,9\n")
    tables = ["--jobs", str(tmp_path / "jobs.csv"), "--servers", str(tmp_path / "servers.csv")]
    assert main(["step", "--problem", "custom", *tables]) == 0
    out = capsys.readouterr().out
    assert r"\x1b[2Jred" in out and "\x1b" not in out and "\x07" not in out and "long" * 20 not in out
    results = {
        "title": "t", "problem": "p", "metrics": [{"key": "m", "label": "m\x1b[31m", "unit": "", "better": "higher"}],
        "methods": [{"key": "a", "label": "a\x9b31m", "kind": "game", "values": {"m": [[1.0, 2.0]]}}],
    }  # fmt: skip
    (tmp_path / "results.json").write_text(json.dumps(results))
    assert main(["report", str(tmp_path), "--out", str(tmp_path / "r.html")]) == 0
    out = capsys.readouterr().out
    assert r"\x1b[31m" in out and "\x1b" not in out and "\x9b" not in out
    assert main(["step", "--problem", "\x1b[31m" + "x" * 100_000]) == 2
    told = capsys.readouterr().err
    assert "\x1b" not in told and len(told) < 300 and told.count("\n") == 1


def test_text_is_cut_and_escaped():
    assert printable("plain ± −") == "plain ± −" and printable("a\nb", keep="\n") == "a\nb"
    assert printable("\x1b[0m\u202e\ud800\n") == r"\x1b[0m\u202e\ud800\n"
    assert len(printable("x" * 1000)) == 60 and printable("x" * 1000, None) == "x" * 1000
    assert quoted("it's") == '"it\'s"' and quoted({"a": 1}) == "{'a': 1}" and len(quoted("x" * 10**6)) <= 62
    assert len(str(nearest("method", "x" * 10**6, ["hybrid", "rl"]))) < 150
