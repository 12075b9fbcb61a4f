"""What cannot be is refused at once: a line that names it and what to do, nothing computed, nothing written."""

from __future__ import annotations

import re
from math import inf, nan

import pytest

from hybridalloc import Allocator, make_problem
from hybridalloc.cli import COMMANDS, main
from hybridalloc.experiments.compare import compare
from hybridalloc.experiments.hyper import Search, tune
from hybridalloc.experiments.reproduce import reproduce
from hybridalloc.experiments.settings import Settings
from hybridalloc.experiments.suite import Suite, bench
from hybridalloc.limits import LIMITS, check_fields
from hybridalloc.serving.models import log_model
from hybridalloc.training.config import TrainConfig
from hybridalloc.training.stores import learn_value
from hybridalloc.training.trainer import train
from hybridalloc.training.tuning import tune_game


@pytest.fixture
def idle(tmp_path, monkeypatch):
    """A folder to stand in, in which nothing may be computed or written."""

    def work(*_, **__):
        raise AssertionError("work began")

    monkeypatch.setattr("hybridalloc.training.rollout.Rollout.step", work)
    for module in ("experiments.compare", "experiments.again"):
        monkeypatch.setattr(f"hybridalloc.{module}.open_pool", work)
    monkeypatch.chdir(tmp_path)
    yield
    assert list(tmp_path.rglob("*")) == []


SMALL = "--sites synthetic --agents 6 --servers 2"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (f"train {SMALL} --actors 0", "--actors 0: it must be a whole number from 1 to 10,000"),
        (f"train {SMALL} --actors -1", "--actors -1: it must be a whole number from 1"),
        (f"train {SMALL} --actors 40", "actors = 40; at most one a network, and there are 32 networks"),
        (f"train {SMALL} --actors 2 --learner dqn", "dqn as it is set reads more than its policy while it acts"),
        (f"train {SMALL} --overlap --learner qmix", "qmix as it is set cannot learn while it acts"),
        (f"train {SMALL} --address h:1", "address = 'h:1' goes with engine ray; this is processes: give engine ray"),
        (f"train {SMALL} --seed -1", "--seed -1: it must be a whole number from 0"),
        (f"train {SMALL} --learner-settings rate=-1", "rate = -1; it must be a number >= 0"),
        (f"train {SMALL} --learner-settings rate=much", "rate = 'much'; it must be a number >= 0"),
        (f"train {SMALL} --learner-settings epochs=0", "epochs = 0; it must be a whole number >= 1"),
        (f"train {SMALL} --tracking-uri gopher://x", "tracking_uri = 'gopher://x' is no address of a store"),
        (f"train {SMALL} --servers 0 --out a/b.npz", "servers = 0; it must be a whole number from 1"),
        ("train --resume nothing.pt --out a/b.npz", "no checkpoint at nothing.pt"),
        (f"compare {SMALL} --workers 0", "--workers 0: it must be a whole number from 1 to 10,000"),
        ("compare --from-runs nothing --workers 0", "--workers 0: it must be"),
        (f"compare {SMALL} --address nowhere", "address = 'nowhere' goes with engine ray"),
        (f"compare {SMALL} --tracking-uri mlruns", "tracking_uri = 'mlruns' is a folder, which MLflow no longer takes"),
        ("bench --workers -1", "--workers -1: it must be"),
        ("bench --report-seeds 101", "--report-seeds 101: it must be a whole number from 1 to 100"),
        ("bench --address h:1", "address = 'h:1' goes with engine ray"),
        ("reproduce 003-table1 --agent-steps 0", "--agent-steps 0: it must be"),
        ("reproduce 003-table1 --address h:1", "address = 'h:1' goes with engine ray"),
        (f"tune {SMALL} --trials 0", "--trials 0: it must be"),
        (f"tune {SMALL} --tracking-uri gopher://x", "tracking_uri = 'gopher://x' is no address"),
        ("learn-value --networks 0 --out a/b.npz", "--networks 0: it must be"),
        ("learn-value --problem cluster --out a/b.npz", "cluster as it is set names no store"),
        ("evaluate nothing.npz --seeds 0", "--seeds 0: it must be a whole number from 1 to 100"),
        ("export nothing.npz --onnx a/b.onnx", "no checkpoint at nothing.npz"),
        ("report nothing --out a/b.html", "no results.json in nothing"),
        ("route --replica http://127.0.0.1:1 --port 70000", "--port 70000: it must be a whole number from 0 to 65,535"),
        ("route --replica http://127.0.0.1:1 --report-s 0", "--report-s 0.0: it must be a number above 0"),
        ("slurm --held --patience-s nan", "--patience-s nan: it must be a number >= 0"),
        ("step --trust -1", "--trust -1.0: it must be a number >= 0"),
        ("step --jobs a.csv --servers b.csv --out a/b.txt", "--out a/b.txt: a name that ends in .csv or .json"),
        ("step --jobs a.csv --servers b.csv --out a/b.csv", "a.csv cannot be read"),
        ("data list eua", "list takes no names; got eua"),
    ],
)
def test_a_bad_option_is_refused_before_anything_is_done(idle, capsys, words, message):
    assert main(words.split()) == 2
    told = capsys.readouterr()
    assert not told.out and message in told.err and told.err.splitlines()[-1].startswith("hybridalloc: "), told.err


def small(**changes):
    return Settings("mec", 6, 2, sites="synthetic", **changes)


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda p: compare(small(workers=0)), "workers = 0; it must be a whole number from 1 to 10,000"),
        (lambda p: compare(small(train_seeds=None)), "train_seeds = None; it must be"),
        (lambda p: compare(small(methods="game-tuned")), "methods = 'game-tuned'; it must be a tuple of names"),
        (lambda p: compare(small(learners=("imapo",))), "unknown learner 'imapo'; did you mean 'imappo'"),
        (lambda p: compare(small(tracking_uri="gopher://x")), "tracking_uri = 'gopher://x' is no address"),
        (lambda p: bench(Suite(workers=0)), "workers = 0"),
        (lambda p: bench(Suite(only="mec")), "only = 'mec'; it must be a tuple of names"),
        (lambda p: bench(Suite(budget=(("agent_step", 9),))), "part of a budget 'agent_step'; did you mean 'agent_ste"),
        (lambda p: bench(Suite(budget=(("train_seeds", 0),))), "train_seeds = 0; it must be"),
        (lambda p: bench(Suite(engine="rai")), "unknown engine 'rai'; did you mean 'ray'"),
        (lambda p: reproduce("003-table1", Suite(size="smal")), "unknown size 'smal'; did you mean 'small'"),
        (lambda p: reproduce("003-table1", Suite(workers=-1)), "workers = -1; it must be"),
        (lambda p: reproduce("003-table1", Suite(methods=("nearest",))), "the rows of a table have their own"),
        (lambda p: TrainConfig(seed=-1), "seed = -1; it must be a whole number from 0"),
        (lambda p: TrainConfig(agent_steps=2.5), "agent_steps = 2.5; it must be"),
        (lambda p: TrainConfig(actors=True), "actors = True; it must be"),
        (lambda p: TrainConfig(trust=nan), "trust = nan; it must be a number >= 0"),
        (lambda p: TrainConfig(kind="hybride"), "unknown kind 'hybride'; did you mean 'hybrid'"),
        (lambda p: train(p, None, TrainConfig(belief="learnd")), "belief of mec 'learnd'; did you mean 'learned'"),
        (
            lambda p: train(p, None, TrainConfig(settings=(("rat", 1.0),))),
            "of imappo 'rat'; did you mean 'rate'",
        ),
        (lambda p: train(p, None, TrainConfig(settings=(("gamma", 1.5),))), "gamma = 1.5; it must be a number from 0"),
        (lambda p: Search(trials=0), "trials = 0; it must be"),
        (lambda p: Search(seed=2**32), "seed = 4294967296; it must be"),
        (lambda p: tune(p, Search(), "out", "gopher://x"), "tracking_uri = 'gopher://x'"),
        (lambda p: tune_game(p, "", -1), "trials = -1; it must be a whole number from 0"),
        (lambda p: tune_game(p, "learnd", 1), "unknown belief of mec 'learnd'; did you mean 'learned'"),
        (lambda p: learn_value(p, p.card.prices(), networks=0), "networks = 0; it must be"),
        (lambda p: learn_value(p, p.card.prices(), rounds=0), "rounds = 0; it must be"),
        (lambda p: Allocator(p, seed=-1), "seed = -1; it must be"),
        (lambda p: Allocator(p, trust="robust", period=0), "period = 0; it must be"),
        (lambda p: log_model(Allocator(p), alias="v2"), "alias = 'v2'; letters, digits"),
        (lambda p: log_model(Allocator(p), name="a/b"), "name = 'a/b'; a model's name"),
        (lambda p: log_model(Allocator(p), tracking_uri="gopher://x"), "tracking_uri = 'gopher://x'"),
    ],
)
def test_the_same_holds_without_a_command(idle, ask, message):
    problem = make_problem("mec", agents=6, servers=2, sites="synthetic")
    with pytest.raises((ValueError, RuntimeError), match=re.escape(message)):
        ask(problem)


def test_every_option_of_that_name_has_its_limit():
    """What every command starts with is within its limits, and what is just outside of them is not."""
    for limit in LIMITS.values():
        below = limit.low if limit.above else limit.low - 1
        assert not limit.holds(below) and not limit.holds(nan) and not limit.holds("1") and not limit.holds(True)
        assert limit.high == inf or (limit.holds(limit.high) and not limit.holds(limit.high + 1))
        assert limit.holds(limit.low) is not limit.above and limit.holds(1.5) is not limit.whole
    for command in COMMANDS.values():
        needs = {name: ("x",) for name in ("path", "folder", "action", "replica") if name in command.__annotations__}
        check_fields(command(**needs), flag=True)
    check_fields(TrainConfig())


# --- spelling


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (f"compare {SMALL} --problem mecc", "unknown problem 'mecc'; did you mean 'mec'"),
        (f"compare {SMALL} --methods hybrid-imapo", "unknown method 'hybrid-imapo'; did you mean 'hybrid-imappo'"),
        (f"compare {SMALL} --learners imapo", "unknown learner 'imapo'; did you mean 'imappo'"),
        ("train --problem volage --out a/b.npz", "unknown problem 'volage'; did you mean 'voltage'"),
        ("train --problem balancer --scenario azur --out a/b.npz", "balancer 'azur'; did you mean 'azure'"),
        ("train --problem cluster --scenario sinthetic", "unknown scenario 'sinthetic'; did you mean 'synthetic'"),
        ("train --problem voltage --settings profils=x", "setting of voltage 'profils'; did you mean 'profiles'"),
        (f"train {SMALL} --learner mapo", "unknown learner 'mapo'; did you mean 'mappo'"),
        (f"train {SMALL} --learner-settings entropi=0", "unknown setting of imappo 'entropi'; did you mean 'entropy'"),
        ("learn-value --settings harvest=0.003", "unknown setting of mec 'harvest'; did you mean 'harvest_j'"),
        ("learn-value --scenario f", "unknown scenario 'f'; did you mean 'F'"),
        (f"tune {SMALL} --learner imapo", "unknown learner 'imapo'; did you mean 'imappo'"),
        (f"tune {SMALL} --search rat", "unknown setting of imappo 'rat'; did you mean 'rate'"),
        ("bench --size smal", "unknown size 'smal'; did you mean 'small'"),
        ("bench --only volage", "unknown row 'volage'; did you mean 'voltage'"),
        ("bench --only mec --methods game-tund", "unknown method 'game-tund'; did you mean 'game-tuned'"),
        ("bench --engine rai", "unknown engine 'rai'; did you mean 'ray'"),
        ("reproduce 003-tabel2", "unknown table '003-tabel2'; did you mean '003-table2'"),
        ("reproduce 003-table1 --only n50k9", "unknown row 'n50k9'; did you mean 'n50-k9'"),
        ("step --method hybird", "unknown method 'hybird'; did you mean 'hybrid'"),
        ("step --example --settings agnts=3", "unknown setting of mec 'agnts'; did you mean 'agents'"),
        ("step --example --problem custum", "unknown problem 'custum'; did you mean 'custom'"),
        ("data fetch eau", "unknown data set 'eau'; did you mean 'eua'"),
        ("data verify opnb", "unknown data set 'opnb'; did you mean 'openb'"),
        ("route --replica http://h:1,capcity=4", "figure of replica 'http://h:1' 'capcity'; did you mean 'capacity'"),
        ("route --replica http://h:1 --price reqests=3", "unknown price 'reqests'; did you mean 'requests'"),
        ("repoduce 003-table1", "unknown command 'repoduce'; did you mean 'reproduce'"),
    ],
)
def test_a_wrong_spelling_lists_the_nearest(idle, capsys, words, message):
    assert main(words.split()) == 2
    told = capsys.readouterr()
    assert not told.out and message in told.err and " Known: " in told.err
    assert told.err.splitlines()[-1].startswith("hybridalloc: "), told.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("train --agent-step 3", "--agent-steps INT"), ("train --kind hybird", "('hybrid', 'rl')"),
        ("compare --sites eau", "('eua', 'synthetic')"), ("compare --metods nearest", "--methods"),
        ("bench --worker 3", "--workers INT"), ("reproduce --onli x", "--only"), ("tune --kind ql", "('hybrid', 'rl')"),
        ("learn-value --network 3", "--networks INT"), ("evaluate a.npz --seed 3", "--seeds INT"),
        ("export a.npz --onx b", "--onnx PATH"), ("step --alocator a.npz", "--allocator TEXT"),
        ("report a --ot b", "--out PATH"), ("sync a --tracking-url b", "--tracking-uri"),
        ("log-model a.npz --alia b", "--alias"), ("data lst", "('list', 'fetch', 'verify', 'describe')"),
        ("route --replica http://h:1 --prot 3", "--port INT"), ("slurm --dry-rn", "--dry-run"),
    ],
)  # fmt: skip
def test_a_misspelt_option_names_that_of_its_command(idle, capsys, words, message):
    with pytest.raises(SystemExit) as left:
        main(words.split())
    told = " ".join(re.sub(r"[│─╭╮╰╯]", " ", capsys.readouterr().err).split())
    assert left.value.code == 2 and message in told and f"hybridalloc {words.split()[0]} --help" in told, told
    others = [name for name in COMMANDS if name != words.split()[0]]
    assert not any(f"hybridalloc {name} " in told for name in others)
