"""The command line: ``hybridalloc compare | train | evaluate | export | step | report | sync | data``."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from hybridalloc.errors import InvalidStateError, UnknownNameError

EPILOG = "Data: set HYBRIDALLOC_DATA to a folder of data sets, or let `hybridalloc data fetch eua` download them."


@dataclass(frozen=True)
class Compare:
    """Compare the hybrid with pure RL, the game and heuristics: tune, train, evaluate, log to MLflow, report."""

    problem: str = "mec"
    agents: int = 50
    servers: int = 9
    scenario: str = "H"
    sites: Literal["eua", "synthetic"] = "eua"
    """eua: real base stations and users (needs the data). synthetic: a hexagonal grid (needs nothing)."""
    full: bool = False
    """The table of the README: 5 training seeds, 100 reporting seeds, 2 million agent-steps, 150 tuning trials."""
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
    """Processes; default the number of cores."""
    runs: str = "runs"
    report: str = "report.html"
    tracking_uri: str = "sqlite:///mlflow.db"
    quiet: bool = False

    def run(self) -> int:
        from hybridalloc.compare import FULL, Settings, compare, summary_lines
        from hybridalloc.training import LEARNERS

        changes: dict[str, Any] = dict(FULL) if self.full else {}
        for name in ("agent_steps", "train_seeds", "report_seeds", "tuning", "workers"):
            if getattr(self, name) is not None:
                changes[name] = getattr(self, name)
        settings = replace(
            Settings(
                self.problem, self.agents, self.servers, self.scenario, self.sites,
                learners=tuple(LEARNERS) if self.learners == ("all",) else self.learners, methods=self.methods, runs=self.runs, report=self.report,
                tracking_uri=self.tracking_uri, quiet=self.quiet,
            ),
            **changes,
        )  # fmt: skip
        comparison = compare(settings)
        print(comparison["tables"]["text"])
        print("\n".join(summary_lines(comparison)))
        if not self.full:
            print(
                f"\nA sketch: {settings.train_seeds} training seeds, {settings.report_seeds} reporting seeds, "
                f"{settings.agent_steps:,} agent-steps. `hybridalloc compare --full` makes the README's table."
            )
        print(f"\nreport     {Path(settings.report).resolve()}")
        print(f"record     {comparison['folder']}")
        print(f"MLflow     {comparison['mirror']}")
        print(f"           {comparison['open']}")
        return 0


@dataclass(frozen=True)
class Train:
    """Train one recommender and save the allocator."""

    out: Path = Path("allocator.npz")
    learner: str = "imappo"
    """imappo, dqn, mappo, ippo, ppo, a2c, a3c, coma, counterfactual, iql, vdn, qmix or maddpg."""
    kind: Literal["hybrid", "rl"] = "hybrid"
    problem: str = "mec"
    agents: int = 50
    servers: int = 9
    scenario: str = "H"
    sites: Literal["eua", "synthetic"] = "eua"
    agent_steps: int = 1_000_000
    tuning: int = 40
    """Trials of the price search before training."""
    seed: int = 0
    checkpoint_every: int = 250_000
    """Agent-steps between two checkpoints; the last and the best are kept in a folder beside --out. 0: none."""
    resume: Path | None = None
    """Go on from a checkpoint: problem, prices, learner and budget are those of its run."""

    def run(self) -> int:
        from tqdm import tqdm

        from coordinator import Coordinator
        from hybridalloc.allocator import Allocator
        from hybridalloc.checkpoints import Checkpoints, run_of
        from hybridalloc.problems import make_problem
        from hybridalloc.training import TrainConfig, train
        from hybridalloc.tuning import tune_prices

        if self.resume is not None:
            problem, prices, config = run_of(self.resume, self)
        else:
            problem = make_problem(
                self.problem, agents=self.agents, servers=self.servers, scenario=self.scenario, sites=self.sites
            )
            prices = tune_prices(problem, Coordinator("game"), self.tuning).prices
            config = TrainConfig(self.learner, self.kind, self.agent_steps, seed=self.seed)
        checkpoints = None
        if self.checkpoint_every or self.resume is not None:
            folder = self.out.with_name(self.out.name.removesuffix(".npz") + ".checkpoints")
            checkpoints = Checkpoints(folder, self.checkpoint_every or config.agent_steps, self.resume)
        with tqdm(total=config.agent_steps, desc="training", unit="step", unit_scale=True) as bar:

            def report(steps: int, figures: dict[str, float]) -> None:
                bar.update(steps - bar.n)
                if "check_welfare" in figures:
                    bar.set_postfix(welfare=f"{figures['check_welfare']:.4f}")

            trained = train(problem, prices, config, report, checkpoints=checkpoints)
        allocator = Allocator(problem, config.kind, trained.learner.policy, config.final_trust, prices=prices)
        print(f"saved {allocator.save(self.out)}; violations in training: {trained.violations}")
        if checkpoints is not None:
            print(f"checkpoints {checkpoints.folder.resolve()}: last.pt, best.pt")
        return 0


@dataclass(frozen=True)
class Evaluate:
    """Evaluate a saved allocator on the reporting seeds."""

    path: tyro.conf.Positional[str]
    seeds: int = 40

    def run(self) -> int:
        from hybridalloc.allocator import Allocator
        from hybridalloc.training import REPORT_SEEDS, evaluate

        a = Allocator.load(self.path)
        baseline = a.method if a.method in a.problem.baselines else None
        seen = evaluate(a.problem, a.prices, a.coordinator, a.recommender, REPORT_SEEDS[: self.seeds], baseline)
        for metric in a.problem.metrics:
            print(f"{metric.label:40s} {seen.metrics[metric.key].mean():10.4f} {metric.unit}")
        print(f"{'violations of capacity or power':40s} {seen.violations:10d} of {seen.allocations} allocations")
        return 0


@dataclass(frozen=True)
class Export:
    """Write a saved allocator's recommender as ONNX, for serving without Python."""

    path: tyro.conf.Positional[str]
    onnx: Path = Path("recommender.onnx")

    def run(self) -> int:
        from hybridalloc.allocator import CheckpointError, read_checkpoint
        from rl.export import OPSET, write_onnx

        meta, policy = read_checkpoint(self.path)
        if policy is None:
            raise CheckpointError(f"{self.path} holds no recommender: it was saved from method {meta['method']!r}")
        written = write_onnx(policy, self.onnx, {k: json.dumps(meta[k]) for k in ("problem", "prices", "trust")})
        print(f"saved {written} (ONNX opset {OPSET}): scores of every agent and option, for any numbers of them")
        return 0


@dataclass(frozen=True)
class Step:
    """Read a state as JSON from standard input, write the allocation as JSON to standard output."""

    problem: str = "mec"
    method: str = "hybrid"
    allocator: str | None = None
    """A saved allocator (a path or an MLflow URI); its method, prices and recommender are used."""
    trust: float | None = None
    budget_ms: float | None = None
    example: bool = False
    """Write an example state instead, to try: hybridalloc step --example | hybridalloc step."""

    def run(self) -> int:
        from hybridalloc.allocator import Allocator
        from hybridalloc.problems import make_problem

        if self.example:
            state = make_problem(self.problem, agents=6, servers=3).reset(0).to_dict()
            state.pop("truth", None)
            print(json.dumps(state))
            return 0
        changes = {k: getattr(self, k) for k in ("trust", "budget_ms") if getattr(self, k) is not None}
        if self.allocator is not None:
            allocator = Allocator.load(self.allocator, **changes)
        else:
            allocator = Allocator(make_problem(self.problem), self.method, **changes)
        try:
            state = json.load(sys.stdin)
        except json.JSONDecodeError as error:
            raise InvalidStateError(
                f"standard input is not JSON: line {error.lineno}, column {error.colno}: {error.msg}"
            ) from None
        print(json.dumps(allocator.step(state).to_dict()))
        return 0


@dataclass(frozen=True)
class Report:
    """Write the report of a stored comparison again, and print its table."""

    folder: tyro.conf.Positional[Path]
    """Such as runs/mec-20260101-120000-ab12."""
    out: Path = Path("report.html")

    def run(self) -> int:
        from hybridalloc.report import text_table, write_report

        stored = _stored(self.folder, "results.json")
        comparison = json.loads(stored.read_text(encoding="utf-8"))
        print(text_table(comparison))
        print(f"\nreport     {write_report(self.out, comparison).resolve()}")
        return 0


@dataclass(frozen=True)
class Sync:
    """Bring MLflow up to date with a stored comparison: what it has is found again and not doubled."""

    folder: tyro.conf.Positional[Path]
    tracking_uri: str = "sqlite:///mlflow.db"

    def run(self) -> int:
        from hybridalloc.tracking import how_to_open, mirror

        _stored(self.folder, "comparison.json")
        result = mirror(self.folder, self.tracking_uri)
        print(result)
        print(how_to_open(self.tracking_uri, result.experiment_id))
        return 0 if result.complete else 1


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
    """List, fetch or verify the public data sets."""

    action: tyro.conf.Positional[Literal["list", "fetch", "verify"]]
    names: tyro.conf.Positional[tuple[str, ...]] = ()
    """Data sets; default all."""

    def run(self) -> int:
        from hybridalloc import data

        if self.action == "list":
            print(data.list_table())
            return 0
        if self.action == "fetch":
            print(data.fetch_all(self.names))
            return 0
        text, ok = data.verify_all(self.names)
        print(text)
        return 0 if ok else 1


Command = (
    Annotated[Compare, tyro.conf.subcommand("compare")]
    | Annotated[Train, tyro.conf.subcommand("train")]
    | Annotated[Evaluate, tyro.conf.subcommand("evaluate")]
    | Annotated[Export, tyro.conf.subcommand("export")]
    | Annotated[Step, tyro.conf.subcommand("step")]
    | Annotated[Report, tyro.conf.subcommand("report")]
    | Annotated[Sync, tyro.conf.subcommand("sync")]
    | Annotated[Data, tyro.conf.subcommand("data")]
)


def main(arguments: list[str] | None = None) -> int:
    """Run a command; errors that a user can mend go to standard error in one line, with exit code 2."""
    from hybridalloc.data import DataError
    from hybridalloc.errors import CheckpointError

    command: Any = tyro.cli(
        Command,
        args=arguments,
        prog="hybridalloc",
        description=f"Resource allocation by reinforcement learning on top of a game. {EPILOG}",
    )
    try:
        return int(command.run())
    except (InvalidStateError, UnknownNameError, CheckpointError, DataError, FloatingPointError, ValueError) as error:
        print(f"hybridalloc: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
