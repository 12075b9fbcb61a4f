"""``hybridalloc tune``: a search over a learner's settings."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from hybridalloc.experiments.mlflow_store import default_uri


@dataclass(frozen=True)
class Tune:
    """Search a learner's settings on tuning seeds (Optuna; trials that lag are pruned), each trial a run in MLflow.

    The same command goes on with a search that was stopped.
    """

    problem: str = "mec"
    learner: str = "imappo"
    kind: Literal["hybrid", "rl"] = "hybrid"
    agents: int = 50
    servers: int = 9
    scenario: str = ""
    sites: Literal["eua", "synthetic"] = "eua"
    settings: tuple[str, ...] = ()
    """More settings of the problem, such as --settings episode=100."""
    search: tuple[str, ...] = ()
    """Settings of the learner to search, such as rate entropy gamma; default all that have a range."""
    trials: int = 30
    """In all, those of earlier tries included; the first is that of the defaults."""
    agent_steps: int = 500_000
    """Training of each trial that is not pruned."""
    tuning: int = 40
    """Trials of the price search before."""
    seed: int = 0
    out: str = ""
    """Folder of the search; default runs/tune-<problem>-<kind>-<learner>."""
    tracking_uri: str = field(default_factory=default_uri)
    """MLflow's store; default MLFLOW_TRACKING_URI, or else a file in this folder; "": MLflow gets nothing."""
    quiet: bool = False
    """No progress on standard error."""
    json: bool = False
    """What was found as JSON on standard output."""

    def run(self) -> int:
        from hybridalloc.commands.terminal import pairs, print_json, write
        from hybridalloc.experiments.hyper import Search, space_of, tune
        from hybridalloc.experiments.progress import Stage
        from hybridalloc.experiments.tracking import check_store
        from hybridalloc.problems import make_with

        asked = Search(
            self.learner, self.kind, self.trials, self.agent_steps, self.search, self.tuning, self.seed
        )  # fmt: skip
        flags: dict[str, Any] = {name: getattr(self, name) for name in ("agents", "servers", "scenario", "sites")}
        problem = make_with(self.problem, flags, pairs(self.settings))
        out = self.out or f"runs/tune-{problem.card.name}-{self.kind}-{self.learner}"
        space_of(problem, asked)
        check_store(self.tracking_uri)
        with Stage("searching settings", self.trials, "trial", self.quiet) as stage:

            def report(number: int, value: float | None, best: float) -> None:
                stage.note(best=f"{best:.4f}", last="pruned" if value is None else f"{value:.4f}")
                stage.skip(number - stage.n)
                stage.update()

            found = tune(problem, asked, out, self.tracking_uri, report)
        if self.json:
            return print_json(found._asdict() | {"folder": str(Path(out).resolve())})
        aim = problem.card.aim
        write(f"{found.trials} trials, {found.pruned} of them pruned; {aim.label} on tuning seeds:")
        write(f"  defaults {found.default:.4f}, best {found.value:.4f} {aim.unit}".rstrip())
        words = " ".join(f"{name}={value:g}" for name, value in found.settings.items())
        write(f"  hybridalloc train --problem {self.problem} --learner {self.learner} --learner-settings {words}")
        write(f"record {Path(out).resolve()}: best.json, study.db, a line of JSON an update and check of each trial")
        return 0
