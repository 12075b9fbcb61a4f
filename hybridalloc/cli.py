"""The command line: ``hybridalloc compare | train | learn-value | evaluate | export | step | report | sync | ...``."""

from __future__ import annotations

import json
import math
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import reduce
from operator import or_
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from hybridalloc.commands.bench import Bench
from hybridalloc.commands.options import readable
from hybridalloc.commands.reproduce import Reproduce
from hybridalloc.commands.terminal import (
    OutputError,
    output,
    pairs,
    place_of,
    print_json,
    say,
    to_json,
    whole,
    write,
)
from hybridalloc.commands.tune import Tune
from rl.registry import LEARNERS, learner_names

if TYPE_CHECKING:
    from hybridalloc.problems.contract import AnyProblem, Prices
    from hybridalloc.training.stores import LearnedValue
    from rl.value import StoreValue

GUIDE = """Resource allocation by reinforcement learning on top of a game: every step feasible, certified, fast.

First steps:
  hybridalloc step --example | hybridalloc step             one state in, one certified allocation out (JSON)
  hybridalloc step --jobs jobs.csv --servers servers.csv    your own jobs and servers: a table, prices, who is left out
  hybridalloc compare                                       hybrid against pure RL, the game, heuristics: table, report
                                                            (stopped: compare --resume runs goes on)
  hybridalloc bench                                         every method on every domain, one table (stopped: again)
  hybridalloc train --out a.npz; hybridalloc evaluate a.npz one recommender, saved, and its metrics
  hybridalloc log-model a.npz                               into MLflow as a model that `mlflow models serve` serves

Every command has --help. Data: set HYBRIDALLOC_DATA to a folder of data sets, or let `hybridalloc data fetch eua`
download them; `--sites synthetic` needs none. Runs lie under runs/ as JSON lines; MLflow mirrors them.
"""


def _tracking_uri() -> str:
    from hybridalloc.experiments.mirror import default_uri

    return default_uri()


@dataclass(frozen=True)
class Compare:
    """Compare the hybrid with pure RL, the game and heuristics: tune, train, evaluate, log to MLflow, report."""

    problem: str = "mec"
    """mec, custom, cluster, voltage, balancer, or one of your own (entry point group hybridalloc.problems)."""
    agents: int = 50
    servers: int = 9
    scenario: str = ""
    """Of the problem; default its own: H of mec (H, A, S, F), synthetic of cluster (openb, openb-gpushare100)
    and of balancer (azure, mooncake)."""
    sites: Literal["eua", "synthetic"] = "eua"
    """eua: real base stations and users (needs the data). synthetic: a hexagonal grid (needs nothing)."""
    settings: tuple[str, ...] = ()
    """More settings of the problem, such as --settings transition=my_module:Farm episode=100."""
    from_runs: str | None = None
    """Run nothing: table and report again from a folder under runs/, from runs/ itself (the newest), or from an MLflow
    experiment's name or a comparison's id (with --tracking-uri)."""
    resume: Path | None = None
    """Go on with a stopped comparison, its folder or runs/ (the newest): what ended is kept, learners go on from their
    checkpoints, and settings are its own."""
    allow_code: bool = False
    """With --resume or --from-runs: load the code that its record names though it is no installed entry point."""
    full: bool = False
    """The table of docs/results.md: 5 training seeds, 100 reporting seeds, 2 million agent-steps, 150 tuning trials."""
    agent_steps: int | None = None
    """Training budget of each learner, alone and in the hybrid alike."""
    train_seeds: int | None = None
    report_seeds: int | None = None
    tuning: int | None = None
    """Trials of the random search over toll and prices."""
    learners: tuple[str, ...] = ("imappo", "dqn")
    """Recommenders to compare, alone and in the hybrid; "all" for every one."""
    methods: tuple[str, ...] = ()
    """Rows of the table; default those of the learners, the games and the heuristics."""
    workers: int | None = None
    """Tasks at a time; default the number of cores, of a cluster all of them."""
    engine: str = "processes"
    """Where tasks run: processes of this machine, or ray, the machines of a Ray cluster (extra ray)."""
    address: str = ""
    """Of the Ray cluster: host:port, ray://host:port or auto; default one that runs here, or else one started here."""
    runs: str = "runs"
    report: str = "report.html"
    tracking_uri: str = field(default_factory=_tracking_uri)
    """MLflow's store; default MLFLOW_TRACKING_URI, or else a file in this folder."""
    quiet: bool = False
    """No progress on standard error."""
    json: bool = False
    """The whole comparison as JSON on standard output instead of tables."""

    def run(self) -> int:
        from hybridalloc.experiments.compare import FULL, Settings, compare, summary_lines
        from hybridalloc.reports.verdict import verdict_lines

        if self.from_runs is not None:
            return self._again()
        changes: dict[str, Any] = dict(FULL) if self.full else {}
        for name in ("agent_steps", "train_seeds", "report_seeds", "tuning", "workers"):
            if getattr(self, name) is not None:
                changes[name] = getattr(self, name)
        settings = replace(
            Settings(
                self.problem, self.agents, self.servers, self.scenario, self.sites,
                learners=learner_names() if self.learners == ("all",) else self.learners, methods=self.methods,
                runs=self.runs, report=self.report, tracking_uri=self.tracking_uri, quiet=self.quiet,
                settings=tuple(pairs(self.settings).items()), engine=self.engine, address=self.address,
            ),
            **changes,
        )  # fmt: skip
        comparison = compare(settings, self.resume, self.allow_code)
        if self.json:
            return print_json(comparison)
        say(comparison["tables"]["text"] + "\n")
        say("\n".join(verdict_lines(comparison)) + "\n")
        say("\n".join(summary_lines(comparison)))
        ran = comparison["seeds"] | comparison["budget"]
        if len(ran["train"]) < FULL["train_seeds"] or ran["agent_steps"] < FULL["agent_steps"]:
            write(
                f"\nA sketch: {len(ran['train'])} training seeds, {len(ran['report'])} reporting seeds, "
                f"{ran['agent_steps']:,} agent-steps. `hybridalloc compare --full` makes the table of docs/results.md."
            )
        write(f"\nreport     {Path(settings.report).resolve()}")
        say(f"record     {comparison['folder']}")
        say(f"MLflow     {comparison['mirror']}")
        say(f"           {comparison['open']}")
        return 0

    def _again(self) -> int:
        from hybridalloc.experiments.stored import comparison_from
        from hybridalloc.places import check_file
        from hybridalloc.reports.report import text_table, write_report

        check_file("--report", self.report)
        comparison = comparison_from(str(self.from_runs), self.tracking_uri, self.allow_code)
        page = write_report(self.report, comparison)
        if self.json:
            return print_json(comparison)
        say(text_table(comparison))
        if comparison.get("note"):
            say(f"\n{comparison['note']}")
        say(f"\nfrom       {comparison['source']}\nreport     {page.resolve()}")
        return 0


@dataclass(frozen=True)
class Train:
    """Train one recommender and save the allocator."""

    out: Path = Path("allocator.npz")
    learner: Annotated[str, tyro.conf.arg(help=f"One of {', '.join(LEARNERS)}.")] = "imappo"
    kind: Literal["hybrid", "rl"] = "hybrid"
    problem: str = "mec"
    agents: int = 50
    servers: int = 9
    scenario: str = ""
    sites: Literal["eua", "synthetic"] = "eua"
    belief: Literal["learned", "bayesian", ""] = "learned"
    """What stale reports are taken for, where the problem has beliefs; "" takes them at their face value."""
    value: str = ""
    """What is left in the agents' stores, such as batteries, where the problem names some: "learned" learns it first
    (see learn-value), the path of a saved allocator takes that one's; "": energy has one price."""
    agent_steps: int = 1_000_000
    tuning: int = 40
    """Trials of the price search before training."""
    calibrate: bool = True
    """Weigh the trained prior by what it is worth on tuning seeds; without, at the trust of training."""
    overlap: bool = False
    """Collect the next rollout while the last is learned from, on a second core: faster, one update behind, and at the
    default learning rate it learns less (docs/speed.md)."""
    actors: int = 1
    """Who collect roll-outs, each from its share of the networks; with --engine ray on the machines of a cluster."""
    engine: str = "processes"
    """processes: all actors are this process. ray: each is a core of a Ray cluster (extra ray); the result is the same.
    """
    address: str = ""
    """Of the Ray cluster: host:port, ray://host:port or auto; default one that runs here, or else one started here."""
    seed: int = 0
    checkpoint_every: int = 250_000
    """Agent-steps between two checkpoints; the last and the best are kept in a folder beside --out. 0: none."""
    resume: Path | None = None
    """Go on from a checkpoint: problem, prices, learner and budget are those of its run."""
    allow_code: bool = False
    """With --resume: load the transition that the checkpoint names though it is no installed entry point."""
    settings: tuple[str, ...] = ()
    """More settings of the problem, such as --settings transition=my_module:Farm episode=100."""
    learner_settings: tuple[str, ...] = ()
    """Settings of the learner beside its defaults, such as --learner-settings rate=0.001 epochs=4 (see tune)."""
    tracking_uri: str = field(default_factory=_tracking_uri)
    """MLflow's store; default MLFLOW_TRACKING_URI, or else a file in this folder; "": MLflow gets nothing."""
    quiet: bool = False
    """No progress on standard error."""
    json: bool = False
    """What was trained as JSON on standard output."""

    def run(self) -> int:
        from hybridalloc.allocator import Allocator
        from hybridalloc.errors import nearest
        from hybridalloc.experiments.progress import Stage
        from hybridalloc.experiments.recording import Recording
        from hybridalloc.experiments.tracking import how_to_open
        from hybridalloc.machines import check_engine
        from hybridalloc.places import check_file, check_folder
        from hybridalloc.problems import make_with
        from hybridalloc.problems.stores import check_stores, check_value
        from hybridalloc.saved import saved_value
        from hybridalloc.training.calibration import calibrate
        from hybridalloc.training.checkpoints import Checkpoints, run_of
        from hybridalloc.training.config import BELIEF_STEPS, TrainConfig, first_trust
        from hybridalloc.training.on_ray import hiring
        from hybridalloc.training.trainer import train
        from hybridalloc.training.tuning import ALONE_STEPS, tune_alone, tune_game
        from rl.registry import LEARNERS, resolved

        if self.learner not in LEARNERS:
            raise nearest("learner", self.learner, LEARNERS)
        chosen, known = pairs(self.learner_settings, "--learner-settings"), resolved(self.learner)
        for name in chosen:
            if name not in known:
                raise nearest(f"setting of {self.learner}", name, known)
        whole("--agent-steps", self.agent_steps, 1)
        whole("--tuning", self.tuning, 0)
        whole("--seed", self.seed, 0)
        whole("--checkpoint-every", self.checkpoint_every, 0)
        whole("--actors", self.actors, 1)
        check_engine(self.engine, self.address)
        check_file("--out", self.out if self.out.suffix == ".npz" else self.out.with_name(self.out.name + ".npz"))
        beside = lambda what: self.out.with_name(f"{self.out.name.removesuffix('.npz')}.{what}")
        folder, runs = beside("checkpoints"), check_folder("--out", beside("runs"))
        kept = bool(self.checkpoint_every) or self.resume is not None
        if kept:
            check_folder("--out", folder)
        value: StoreValue | None = None
        if self.resume is not None:
            problem, prices, config = run_of(self.resume, self, self.allow_code)
        else:
            flags = {name: getattr(self, name) for name in ("agents", "servers", "scenario", "sites")}
            problem = make_with(self.problem, flags, pairs(self.settings))
            if self.value == "learned":
                check_stores(problem)
            elif self.value:
                value = check_value(problem, saved_value(self.value))
            aim = problem.card.aim
            with Stage("tuning prices", self.tuning, "trial", self.quiet) as stage:

                def tried(_trial: int, best: float) -> None:
                    stage.note(**{aim.key: f"{aim.sign * best:.4f}"})
                    stage.update()

                belief = self.belief if self.belief in problem.card.beliefs else ""
                watched = min(BELIEF_STEPS, self.agent_steps)  # a small trial is not held up by its belief
                if self.kind == "rl":
                    tuned = tune_alone(
                        problem, self.learner, belief, self.tuning, tried, self.seed, watched,
                        min(self.agent_steps, ALONE_STEPS),
                    )  # fmt: skip
                else:
                    tuned = tune_game(problem, belief, self.tuning, tried, belief_steps=watched)
                prices = tuned.prices
            config = TrainConfig(
                self.learner, self.kind, self.agent_steps, trust=first_trust(problem.card, belief), belief=belief,
                belief_steps=watched, overlap=self.overlap, actors=self.actors, seed=self.seed,
                settings=tuple(chosen.items()),
            )  # fmt: skip
            if self.value == "learned":
                value = _learn_value(problem, prices, self.seed, self.quiet).value
        checkpoints = None
        if kept:
            checkpoints = Checkpoints(folder, self.checkpoint_every or config.agent_steps, self.resume)
        again = self.resume is not None
        with _kept_of(checkpoints), Recording(runs, problem, prices, config, self.tracking_uri, again) as record:
            with Stage("training", config.agent_steps, "step", self.quiet) as stage:

                def report(steps: int, figures: dict[str, float]) -> None:
                    if (check := f"check_{problem.card.aim.key}") in figures:
                        stage.note(**{problem.card.aim.key: f"{figures[check]:.4f}"})
                    if again and not stage.n:  # what the run before had done; its next update is not known
                        stage.skip(steps)
                    stage.update(steps - stage.n)
                    record.log.metrics(steps, figures)

                with hiring(self.engine, self.address, self.quiet) as hires:
                    trained = train(problem, prices, config, report, None, checkpoints, value, hires)
            policy, trust = trained.learner.policy, config.final_trust
            if config.kind == "hybrid" and self.calibrate:
                given = {"belief": trained.belief, "value": trained.value, "improve": problem.card.improve}
                trust = calibrate(problem, prices, policy, trust, **given).trust
            allocator = Allocator(
                problem, config.kind, policy, trust, prices=prices, belief=trained.belief, value=trained.value
            )
            path = allocator.save(self.out)
            record.end(trained, trust, path)
        if self.json:
            told = {
                "saved": str(path), "violations": trained.violations, "trust": trust, "curve": trained.curve,
                "agent_steps": trained.agent_steps, "record": str(record.folder), "engine": trained.learner.engine,
            }  # fmt: skip
            return print_json(told)
        steps = f"{trained.agent_steps:,} of {config.agent_steps:,} agent-steps"
        write(f"saved {path}; {steps}; violations in training: {trained.violations}; trust {trust:g}")
        write(f"record {record.log.path.resolve()}: a line of JSON an update and check")
        if record.mirrored is not None:
            say(f"MLflow {record.mirrored}")
            write(f"    {how_to_open(self.tracking_uri, record.mirrored.experiment_id)}")
        if checkpoints is not None:
            write(f"checkpoints {checkpoints.folder.resolve()}: last.pt, best.pt")
        return 0


@dataclass(frozen=True)
class LearnValue:
    """Learn what is left in the agents' stores, such as batteries, is worth, and save the game that goes by it."""

    out: Path = Path("value.npz")
    problem: str = "mec"
    agents: int = 12
    servers: int = 3
    scenario: str = "F"
    sites: Literal["eua", "synthetic"] = "synthetic"
    tuning: int = 40
    """Trials of the price search before."""
    networks: int = 96
    """Worlds of each round; 24 are a quarter of the time and a little worse."""
    rounds: int = 3
    """The first under the constant price, the others under the value itself."""
    seed: int = 0
    settings: tuple[str, ...] = ()
    """More settings of the problem, such as --settings harvest_j=0.003."""
    quiet: bool = False
    """No progress on standard error."""
    json: bool = False
    """What was learned as JSON on standard output."""

    def run(self) -> int:
        from hybridalloc.allocator import Allocator
        from hybridalloc.experiments.progress import Stage
        from hybridalloc.places import check_file
        from hybridalloc.problems import make_with
        from hybridalloc.problems.stores import check_stores
        from hybridalloc.training.tuning import tune_game

        for name in ("tuning", "seed"):
            whole(f"--{name}", getattr(self, name), 0)
        for name in ("networks", "rounds"):
            whole(f"--{name}", getattr(self, name), 1)
        check_file("--out", self.out if self.out.suffix == ".npz" else self.out.with_name(self.out.name + ".npz"))
        flags = {name: getattr(self, name) for name in ("agents", "servers", "scenario", "sites")}
        problem = make_with(self.problem, flags, pairs(self.settings))
        check_stores(problem)
        with Stage("tuning prices", self.tuning, "trial", self.quiet) as stage:
            prices = tune_game(problem, "", self.tuning, lambda *_: stage.update()).prices
        learned = _learn_value(problem, prices, self.seed, self.quiet, self.networks, self.rounds)
        path = Allocator(problem, "game", prices=prices, value=learned.value).save(self.out)
        if self.json:
            return print_json({"saved": str(path)} | learned._asdict() | {"value": problem.card.store})
        rounds = "; ".join(
            f"{n:,} samples" + ("" if math.isnan(r) else f", {100 * r:.0f} % explained")
            for n, r in zip(learned.samples, learned.explained, strict=True)
        )
        write(f"saved {path}: the worth of a {problem.card.store} by its level ({rounds})")
        return 0


def _learn_value(
    problem: AnyProblem, prices: Prices, seed: int, quiet: bool, networks: int | None = None, rounds: int | None = None
) -> LearnedValue:
    """A value of the problem's stores under its tuned game, with a line of progress."""
    from hybridalloc.experiments.progress import Stage
    from hybridalloc.training.stores import NETWORKS, ROUNDS, learn_value

    turns = rounds or ROUNDS
    with Stage("learning a value", turns, "round", quiet) as stage:

        def fitted(_round: int, _samples: int, explained: float) -> None:
            stage.note(**({} if math.isnan(explained) else {"explained": f"{100 * explained:.0f} %"}))
            stage.update()

        return learn_value(problem, prices, networks=networks or NETWORKS, rounds=turns, seed=seed, report=fitted)


@dataclass(frozen=True)
class Evaluate:
    """Evaluate a saved allocator on the reporting seeds."""

    path: tyro.conf.Positional[str]
    seeds: int = 40
    allow_code: bool = False
    """Load the transition that the file names though it is no installed entry point: its code runs."""
    json: bool = False
    """Metrics as JSON on standard output."""

    def run(self) -> int:
        from hybridalloc.allocator import Allocator
        from hybridalloc.training.config import REPORT_SEEDS
        from hybridalloc.training.evaluation import evaluate

        whole("--seeds", self.seeds, 1, len(REPORT_SEEDS))
        a = Allocator.load(self.path, trust_code=self.allow_code)
        baseline = a.method if a.method in a.problem.card.baselines else None
        seen = evaluate(
            a.problem,
            a.prices,
            a.coordinator,
            a.recommender,
            REPORT_SEEDS[: self.seeds],
            baseline,
            belief=a.belief,
            value=a.value,
        )
        if self.json:
            return print_json(seen.means() | {"violations": seen.violations, "allocations": seen.allocations})
        means = seen.means()
        for metric in a.problem.card.metrics:
            mean = f"{means[metric.key]:10.4f} {metric.unit}" if metric.key in means else f"{'–':>10s}"
            say(f"{metric.label:40s} {mean}")
        write(f"{'violations of capacity or power':40s} {seen.violations:10d} of {seen.allocations} allocations")
        return 0


@dataclass(frozen=True)
class Export:
    """Write a saved allocator's recommender as ONNX, for serving without Python."""

    path: tyro.conf.Positional[str]
    onnx: Path = Path("recommender.onnx")

    def run(self) -> int:
        from hybridalloc.allocator import read_checkpoint
        from hybridalloc.errors import CheckpointError
        from hybridalloc.places import check_file
        from hybridalloc.text import quoted
        from rl.export import OPSET, write_onnx

        check_file("--onnx", self.onnx)
        meta, policy, _ = read_checkpoint(self.path)
        if policy is None:
            held = quoted(meta["method"])
            raise CheckpointError(f"{self.path} holds no recommender: it was saved from method {held}")
        written = write_onnx(policy, self.onnx, {k: json.dumps(meta[k]) for k in ("problem", "prices", "trust")})
        write(f"saved {written} (ONNX opset {OPSET}): scores of every agent and option, for any numbers of them")
        return 0


@dataclass(frozen=True)
class Step:
    """One certified allocation: of a state (JSON on standard input; JSON out), or of your own jobs and servers (CSV
    files; a table out, or --json)."""

    problem: str | None = None
    """mec (the default), custom (the default with --jobs), or one of your own."""
    method: str = "hybrid"
    """hybrid, rl, game or a baseline of the problem; custom also: optimal, the most that can be served, by MILP."""
    jobs: Path | None = None
    """CSV of name, work; optional deadline_s, delay_cost, priority, opt_out_cost, power_limit_w, moving_cost."""
    servers: Path | None = None
    """CSV of name, capacity (units of work a second, 0: down); optional wait_s, full_power_w."""
    links: Path | None = None
    """CSV of job, server; optional cost, work. Without it every job reaches every server."""
    previous: Path | None = None
    """Where the jobs are now, by their names: what --out or --json wrote before. They stay unless moving pays."""
    moving_cost: float | None = None
    """With --previous: what leaving its place costs a job, in deadlines of delay; default 0.3, or the jobs' column."""
    out: Path | None = None
    """With --jobs: write every job's row there too, .csv or .json; --previous reads both."""
    settings: tuple[str, ...] = ()
    """More settings of the problem, such as --settings agents=20 servers=4."""
    json: bool = False
    """JSON also for jobs and servers."""
    allocator: str | None = None
    """A saved allocator (a path or an MLflow URI); its method, prices and recommender are used."""
    allow_code: bool = False
    """Load the transition that the allocator's file names though it is no installed entry point: its code runs."""
    trust: float | None = None
    improve: bool | None = None
    """Try single changes on what the problem settles and expects; by default with the hybrid alone."""
    budget_ms: float | None = None
    example: bool = False
    """Write an example state instead (of --allocator's problem), to try: hybridalloc step --example | hybridalloc step.
    """

    def run(self) -> int:
        from hybridalloc.allocator import Allocator
        from hybridalloc.problems import make_problem, make_with

        settings, tables = pairs(self.settings), self.jobs is not None or self.servers is not None
        name = self.problem or ("custom" if tables else "mec")
        if not tables:
            for flag in ("links", "previous", "moving_cost", "out"):
                if getattr(self, flag) is not None:
                    raise ValueError(f"--{flag.replace('_', '-')} goes with --jobs and --servers")
        if self.example and self.allocator is not None:
            from hybridalloc.serving.models import example_state

            return print_json(example_state(Allocator.load(self.allocator, trust_code=self.allow_code)))
        if self.example:
            if name == "custom" and not settings:
                settings = {"transition": "hybridalloc.problems.farm:Farm"}
            state = make_with(name, {"agents": 6, "servers": 3}, settings).reset(0).to_dict()
            state.pop("truth", None)
            return print_json(state)
        changes = {k: getattr(self, k) for k in ("trust", "budget_ms", "improve") if getattr(self, k) is not None}
        if tables:
            return self._tables(name, changes, settings)
        given = None
        if self.allocator is not None:
            allocator = Allocator.load(self.allocator, trust_code=self.allow_code, **changes)
        else:
            if name == "custom" and not settings:
                settings, given = _custom_input()  # a state says all that the problem needs
            allocator = Allocator(make_problem(name, **settings), self.method, **changes)
        return print_json(allocator.step(_standard_input() if given is None else given).to_dict())

    def _tables(self, name: str, changes: dict[str, Any], settings: dict[str, Any]) -> int:
        from hybridalloc.allocator import Allocator
        from hybridalloc.files import write_text
        from hybridalloc.places import check_file
        from hybridalloc.problems import make_problem
        from hybridalloc.problems.custom import CustomPrices
        from hybridalloc.reports.step import as_csv, as_json, as_text

        if name != "custom":
            raise ValueError(f"--jobs and --servers go with --problem custom; got --problem {name}")
        for flag, given, holds in (("--jobs", self.jobs, "name, work"), ("--servers", self.servers, "name, capacity")):
            if given is None:
                raise ValueError(f"{flag} is missing: give a CSV file with the columns {holds}")
        if self.moving_cost is not None and self.previous is None:
            raise ValueError("--moving-cost goes with --previous FILE: without it nobody is anywhere yet")
        if self.out is not None and check_file("--out", self.out).suffix.lower() not in (".csv", ".json"):
            raise ValueError(f"--out {self.out}: a name that ends in .csv or .json is required")
        with _noted():
            problem = make_problem(
                "custom", jobs=self.jobs, servers=self.servers, links=self.links, previous=self.previous,
                moving_cost=self.moving_cost, **settings,
            )  # fmt: skip
        if self.allocator is not None:
            allocator = Allocator.load(self.allocator, problem=problem, **changes)
        else:
            allocator = Allocator(problem, self.method, **changes)
        state, prices = problem.reset(), allocator.prices
        assert isinstance(prices, CustomPrices)
        allocation = allocator.step(state)
        written = self.out is not None and self.out.suffix.lower() == ".json"
        told = as_json(problem, state, allocation, prices) if self.json or written else {}
        if self.out is not None:
            write_text(self.out, to_json(told) + "\n" if written else as_csv(problem, state, allocation))
        if self.json:
            return print_json(told)
        say(as_text(problem, state, allocation, prices))
        return 0


@dataclass(frozen=True)
class Report:
    """Write the report of a stored comparison or suite again, and print its table."""

    folder: tyro.conf.Positional[Path]
    """Such as runs/mec-20260101-120000-ab12 or runs/bench-small."""
    out: Path = Path("report.html")
    json: bool = False
    """The stored comparison as JSON on standard output."""

    def run(self) -> int:
        from hybridalloc.experiments.suite import SUITE_FILE
        from hybridalloc.places import check_file
        from hybridalloc.reports.report import text_table, write_report

        if (self.folder / SUITE_FILE).is_file():
            return self._suite()
        stored = _stored(self.folder, "results.json")
        check_file("--out", self.out)
        try:
            comparison = json.loads(stored.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(
                f"{stored} is no JSON ({error}); `hybridalloc compare --from-runs` makes it anew"
            ) from None
        if not isinstance(comparison, dict):
            raise ValueError(f"{stored} holds a {type(comparison).__name__}; a comparison is an object")
        page = write_report(self.out, comparison)
        if self.json:
            return print_json(comparison)
        say(text_table(comparison))
        write(f"\nreport     {page.resolve()}")
        return 0

    def _suite(self) -> int:
        from hybridalloc.experiments.suite import publish, stored
        from hybridalloc.files import write_text
        from hybridalloc.places import check_file
        from hybridalloc.reports.suite import text

        check_file("--out", self.out)
        told = publish(self.folder, stored(self.folder)[0])
        page = write_text(self.out, (self.folder / "report.html").read_text(encoding="utf-8"))
        if self.json:
            return print_json(told)
        say(text(told))
        write(f"\nreport     {page.resolve()}")
        return 0


@dataclass(frozen=True)
class Sync:
    """Bring MLflow up to date with a stored comparison or training run: what it has is found again, not doubled."""

    folder: tyro.conf.Positional[Path]
    tracking_uri: str = field(default_factory=_tracking_uri)
    """MLflow's store; default MLFLOW_TRACKING_URI, or else a file in this folder."""
    json: bool = False
    """What MLflow has and lacks as JSON on standard output."""

    def run(self) -> int:
        from hybridalloc.experiments.tracking import how_to_open, mirror

        _stored(self.folder, "comparison.json")
        result = mirror(self.folder, self.tracking_uri)
        if self.json:
            print_json(asdict(result))
            return 0 if result.complete else 1
        say(str(result))
        write(how_to_open(self.tracking_uri, result.experiment_id))
        return 0 if result.complete else 1


@dataclass(frozen=True)
class LogModel:
    """Register a saved allocator in MLflow as the next version of a model, for `mlflow models serve`."""

    path: tyro.conf.Positional[str]
    """A saved allocator: a path or an MLflow URI."""
    name: str = "hybridalloc"
    """Name of the registered model."""
    alias: str = ""
    """Move this alias to the new version, such as champion; by default none moves."""
    tracking_uri: str = field(default_factory=_tracking_uri)
    """MLflow's store; default MLFLOW_TRACKING_URI, or else a file in this folder."""
    allow_code: bool = False
    """Load the transition that the file names, for an example state of its own: its code runs. Serving needs none."""

    def run(self) -> int:
        from hybridalloc.serving.models import how_to_serve, log_model

        logged = log_model(self.path, self.name, self.tracking_uri, alias=self.alias, trust_code=self.allow_code)
        told = f", alias {self.alias}" if self.alias else ""
        write(f"registered {self.name}, version {logged.version}{told}")
        write(how_to_serve(self.name, self.tracking_uri, logged.version, self.alias, self.path))
        return 0


def _standard_input() -> Any:
    from hybridalloc.errors import InvalidStateError

    if sys.stdin is None:
        raise InvalidStateError("standard input is closed; a state as JSON is expected on it")
    if sys.stdin.isatty():
        raise InvalidStateError(
            "a state as JSON is expected on standard input: try `hybridalloc step --example | hybridalloc step`"
        )
    from hybridalloc.problems.state import read_json

    try:
        text = sys.stdin.read()
    except UnicodeDecodeError as error:
        raise InvalidStateError(f"standard input is not text in UTF-8: byte {error.start}: {error.reason}") from None
    return read_json(text, "standard input")


def _custom_input() -> tuple[dict[str, Any], dict[str, Any]]:
    """The settings of a custom problem and its state, from a state as JSON: its fields, and what names resources.

    Input is data: what would load code or open a file is not taken from it, whatever it is called.
    """
    from hybridalloc.errors import InvalidStateError
    from hybridalloc.problems.custom.problem import CustomState
    from hybridalloc.text import quoted

    elsewhere = {"transition": "--settings transition=module:Class"} | {
        name: f"--{name} FILE" for name in ("jobs", "servers", "links")
    }
    given = _standard_input()
    if not isinstance(given, dict):
        raise InvalidStateError(f"a state is a JSON object with named fields; got {type(given).__name__}")
    for name in given:
        if name in elsewhere:
            raise InvalidStateError(
                f"{name} is no field of a state, and is not taken from standard input; give {elsewhere[name]} instead"
            )
    named = {name: given.pop(name) for name in ("options", "resources", "families") if name in given}
    for name, value in named.items():
        if not isinstance(value, list):
            raise InvalidStateError(f"{name} = {quoted(value)}; it must be a list")
    CustomState.from_dict(given)  # names what is unknown or missing
    return given | named, given


@contextmanager
def _kept_of(checkpoints: Any) -> Iterator[None]:
    """Say of a training that is stopped from outside what is left of it, and how to go on."""
    from hybridalloc.errors import WorkError

    def left() -> str:
        if checkpoints is None or checkpoints.kept is None:
            return "no checkpoint had been written yet"
        return f"{checkpoints.last_good()}: `hybridalloc train --resume {checkpoints.kept[0]}` goes on"

    try:
        yield
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"interrupted; {left()}") from None
    except OSError as error:
        raise WorkError(f"{place_of(error)}; {left()}") from error


@contextmanager
def _noted() -> Iterator[None]:
    """What is noted of tables goes to standard error in a line each."""
    from hybridalloc.problems.custom.tables import TableNote
    from hybridalloc.text import printable

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", TableNote)
        yield
    for warning in caught:
        if issubclass(warning.category, TableNote):
            print(f"hybridalloc: note: {printable(warning.message, None)}", file=sys.stderr)
        else:
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)


def _stored(folder: Path, name: str) -> Path:
    """A file of a comparison's folder, or an error that lists the folders there are."""
    path = folder / name
    if path.is_file():
        return path
    runs = sorted(str(p.parent) for p in Path("runs").glob(f"*/{name}"))
    there = f"; there are {', '.join(runs[-3:])}" if runs else "; `hybridalloc compare` makes one under runs/"
    raise ValueError(f"no {name} in {folder}{there}")


@dataclass(frozen=True)
class Data:
    """List, fetch or verify the public data sets; describe a cluster of your own: data describe nodes.csv jobs.csv."""

    action: tyro.conf.Positional[Literal["list", "fetch", "verify", "describe"]]
    names: tyro.conf.Positional[tuple[str, ...]] = ()
    """Data sets, default all; to describe, the files of nodes and jobs."""

    def run(self) -> int:
        from hybridalloc.data import registry as data

        if self.action == "list":
            write(data.list_table())
            return 0
        if self.action == "describe":
            from hybridalloc.problems.cluster.trace import describe, read_own

            if len(self.names) != 2:
                raise ValueError(f"describe takes two files, of nodes and of jobs; got {len(self.names)}")
            write(describe(read_own(*self.names)))
            return 0
        if self.action == "fetch":
            write(data.fetch_all(self.names))
            return 0
        text, ok = data.verify_all(self.names)
        write(text)
        return 0 if ok else 1


@dataclass(frozen=True)
class Route:
    """Route requests to OpenAI-compatible servers: a proxy that picks each one's replica and streams its answer on."""

    replica: tuple[str, ...]
    """Addresses with what is known of each: http://10.0.0.1:8000,capacity=4,kv=160000 http://10.0.0.2:8000."""
    host: str = "127.0.0.1"
    """Where the proxy listens; 0.0.0.0 lets everyone in."""
    port: int = 8080
    dispatchers: int = 1
    """Proxies like this one in front of the same replicas."""
    belief: Literal["blend", "learned", "corrected", "own", "report"] = "blend"
    """What is made of reports between two scrapes."""
    price: tuple[str, ...] = ()
    """Prices of the game that are not at their defaults; requests=3 exponent=1 minds the last token, not the first."""
    report_s: float = 1.0
    """Between two scrapes of a replica's /metrics."""
    retries: int = 2
    """Other replicas that a request is sent to where one fails before it answers."""
    wait_s: float = 10.0
    """That a request waits while no replica is up."""
    drain_s: float = 30.0
    """That open requests are given when the proxy is ended."""

    def run(self) -> int:
        try:
            from hybridalloc.serving.proxy import Limits, parse_prices, serve
        except ModuleNotFoundError as error:
            raise ImportError(f"{error.name} is missing; pip install 'hybridalloc[route]'") from None
        if not self.replica:
            raise ValueError("--replica names no server; give one or more, such as --replica http://127.0.0.1:8000")
        limits = Limits(report_s=self.report_s, retries=self.retries, wait_s=self.wait_s, drain_s=self.drain_s)
        picker = {"dispatchers": self.dispatchers, "belief": self.belief, "prices": parse_prices(self.price)}
        serve(self.replica, self.host, self.port, picker, limits)
        return 0


@dataclass(frozen=True)
class Slurm:
    """Place jobs that are held in Slurm: name their nodes and release them; nothing else is touched."""

    partition: tuple[str, ...] = ()
    """Held jobs of these partitions are placed."""
    account: tuple[str, ...] = ()
    """Held jobs of these accounts are placed; beside --partition: of both."""
    held: bool = False
    """All jobs that their users hold are placed."""
    dry_run: bool = False
    """Say what would be done and why, and do nothing."""
    once: bool = False
    """One round; otherwise one every --every-s, until it is stopped."""
    every_s: float = 30.0
    patience_s: float = 600.0
    """A job that has waited so long and fits nowhere holds back those that came later, until it fits."""

    def run(self) -> int:
        from hybridalloc.serving.slurm import Bridge, Given

        if not 0.1 <= self.every_s <= 86_400 or not self.patience_s >= 0:
            raise ValueError(f"--every-s {self.every_s:g} --patience-s {self.patience_s:g}; at least .1 s and 0 s")
        bridge = Bridge(Given(self.partition, self.account, self.held), self.dry_run, self.patience_s, say=say)
        if self.once:
            bridge.round()
        else:
            bridge.run(self.every_s)
        return 0


COMMANDS: dict[str, type[Any]] = {
    "compare": Compare,
    "bench": Bench,
    "tune": Tune,
    "reproduce": Reproduce,
    "train": Train,
    "learn-value": LearnValue,
    "evaluate": Evaluate,
    "export": Export,
    "step": Step,
    "report": Report,
    "sync": Sync,
    "log-model": LogModel,
    "data": Data,
    "route": Route,
    "slurm": Slurm,
}
STORES = ("mlflow", "sqlalchemy", "alembic")  # libraries whose errors say what is wrong with a store


def main(arguments: list[str] | None = None) -> int:
    """Run a command; whatever a user can mend goes to standard error in one line.

    Returns:
        0; 1 where standard output could not take all, or MLflow lacks a part; 2 where the command could not be done;
        130 where it was interrupted. What is a fault of ours is raised.
    """
    words = sys.argv[1:] if arguments is None else arguments
    if sys.stderr is None:  # closed: print would take standard output instead
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115 (for the rest of the process)
    try:
        try:
            return _command(words)
        finally:
            if sys.stdout is not None:
                with output():  # a full disk is met here and not as the interpreter leaves
                    sys.stdout.flush()
    except KeyboardInterrupt as error:
        return _fail(str(error) or "interrupted", 130)
    except OutputError as error:
        if sys.stdout is sys.__stdout__:  # let go, so that the interpreter does not try again
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return _fail(f"standard output did not take all ({error})", 1)
    except Exception as error:
        told = _told(error)
        if told is None:
            raise
        return _fail(told, 2)


def _command(words: list[str]) -> int:
    from hybridalloc.errors import PlaceError, nearest

    if sys.stdout is None:
        raise PlaceError("standard output is closed; open it, or send it to a file")
    try:
        here = str(Path.cwd())
    except OSError:
        raise PlaceError("this folder is gone; change to one that is there") from None
    if here not in sys.path:
        sys.path.append(here)  # my_module:MyWorld is found where the command is started; worker processes get it too
    if words and not words[0].startswith("-") and words[0] not in COMMANDS:
        raise nearest("command", words[0], COMMANDS)
    if words and words[0] in ("--version", "-V"):
        from hybridalloc import __version__

        write(f"hybridalloc {__version__}")
        return 0
    choice: Any = reduce(or_, (Annotated[readable(c), tyro.conf.subcommand(name)] for name, c in COMMANDS.items()))
    with output():
        command: Any = tyro.cli(choice, args=words or ["--help"], prog="hybridalloc", description=GUIDE)
    if isinstance(command, Compare | Train | LearnValue | Evaluate | Step) and not getattr(command, "quiet", False):
        from hybridalloc.experiments.progress import tell_of_compiling

        tell_of_compiling()
    return int(command.run())


def _told(error: Exception) -> str | None:
    """An error that a user can mend, in words; None of one that is a fault of ours."""
    from games.extras import EXTRAS, missing
    from hybridalloc.data.registry import DataError
    from hybridalloc.errors import WorkError
    from hybridalloc.experiments.runlog import TrackingError

    if isinstance(error, BrokenPipeError):  # a worker's pipe, a server's
        return None
    if isinstance(error, OSError):
        return place_of(error)
    if isinstance(error, MemoryError):
        return "out of memory: give fewer agents, servers or --workers"
    if type(error).__module__.split(".")[0] in STORES:
        return f"MLflow: {type(error).__name__}: {(str(error).strip().splitlines() or ['no reason given'])[0]}"
    if isinstance(error, ModuleNotFoundError) and error.name in EXTRAS:
        return missing(error.name)
    known = ValueError | FloatingPointError | ImportError | DataError | TrackingError | WorkError
    return str(error) if isinstance(error, known) else None


def _fail(message: str, code: int) -> int:
    from hybridalloc.text import printable

    print(f"hybridalloc: {printable(message, None)}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
