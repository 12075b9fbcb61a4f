"""``hybridalloc train``: one recommender, saved as an allocator."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from hybridalloc.commands.learn_value import learned_value
from hybridalloc.commands.terminal import pairs, place_of, print_json, say, write
from hybridalloc.errors import WorkError
from hybridalloc.experiments.mlflow_store import default_uri
from rl.registry import LEARNERS

if TYPE_CHECKING:
    from hybridalloc.problems.contract import AnyProblem, Prices
    from hybridalloc.training.config import TrainConfig
    from rl.value import StoreValue


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
    tracking_uri: str = field(default_factory=default_uri)
    """MLflow's store; default MLFLOW_TRACKING_URI, or else a file in this folder; "": MLflow gets nothing."""
    quiet: bool = False
    """No progress on standard error."""
    json: bool = False
    """What was trained as JSON on standard output."""

    def run(self) -> int:
        from hybridalloc.allocator import Allocator
        from hybridalloc.experiments.progress import Stage
        from hybridalloc.experiments.recording import Recording
        from hybridalloc.experiments.tracking import check_store, how_to_open
        from hybridalloc.machines import check_engine
        from hybridalloc.places import check_file, check_folder
        from hybridalloc.problems.stores import check_value
        from hybridalloc.saved import saved_value
        from hybridalloc.training.calibration import calibrate
        from hybridalloc.training.checkpoints import Checkpoints, run_of
        from hybridalloc.training.checks import check_training
        from hybridalloc.training.on_ray import hiring
        from hybridalloc.training.trainer import train

        check_engine(self.engine, self.address)
        check_store(self.tracking_uri)
        value: StoreValue | None = None
        if self.resume is not None:
            problem, prices, config = run_of(self.resume, self, self.allow_code)
        else:
            problem, config = self._asked()
            if self.value not in ("", "learned"):
                value = check_value(problem, saved_value(self.value))
        check_training(problem, config, self.engine == "ray")
        check_file("--out", self.out if self.out.suffix == ".npz" else self.out.with_name(self.out.name + ".npz"))
        beside = lambda what: self.out.with_name(f"{self.out.name.removesuffix('.npz')}.{what}")
        folder, runs = beside("checkpoints"), check_folder("--out", beside("runs"))
        checkpoints, again = None, self.resume is not None
        if self.checkpoint_every or again:
            check_folder("--out", folder)
            checkpoints = Checkpoints(folder, self.checkpoint_every or config.agent_steps, self.resume)
        with ExitStack() as stack:
            hires = stack.enter_context(hiring(self.engine, self.address, self.quiet))  # before hours of work for it
            if not again:
                prices = self._prices(problem, config)
                if self.value == "learned":
                    value = learned_value(problem, prices, self.seed, self.quiet).value
            stack.enter_context(_kept_of(checkpoints))
            record = stack.enter_context(Recording(runs, problem, prices, config, self.tracking_uri, again))
            with Stage("training", config.agent_steps, "step", self.quiet) as stage:

                def report(steps: int, figures: dict[str, float]) -> None:
                    if (check := f"check_{problem.card.aim.key}") in figures:
                        stage.note(**{problem.card.aim.key: f"{figures[check]:.4f}"})
                    if again and not stage.n:  # what the run before had done; its next update is not known
                        stage.skip(steps)
                    stage.update(steps - stage.n)
                    record.log.metrics(steps, figures)

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

    def _asked(self) -> tuple[AnyProblem, TrainConfig]:
        """The problem and the settings of a run that begins; nothing is computed or written yet."""
        from hybridalloc.problems import make_with
        from hybridalloc.problems.stores import check_stores
        from hybridalloc.training.config import BELIEF_STEPS, TrainConfig, first_trust

        TrainConfig(self.learner)
        chosen = pairs(self.learner_settings, "--learner-settings")
        flags = {name: getattr(self, name) for name in ("agents", "servers", "scenario", "sites")}
        problem: AnyProblem = make_with(self.problem, flags, pairs(self.settings))
        if self.value == "learned":
            check_stores(problem)
        problem.reset(0)  # data that is missing is missed here
        belief = self.belief if self.belief in problem.card.beliefs else ""
        watched = min(BELIEF_STEPS, self.agent_steps)  # a small trial is not held up by its belief
        return problem, TrainConfig(
            self.learner, self.kind, self.agent_steps, trust=first_trust(problem.card, belief), belief=belief,
            belief_steps=watched, overlap=self.overlap, actors=self.actors, seed=self.seed,
            settings=tuple(chosen.items()),
        )  # fmt: skip

    def _prices(self, problem: AnyProblem, config: TrainConfig) -> Prices:
        """Tuned for the run's kind and belief."""
        from hybridalloc.experiments.progress import Stage
        from hybridalloc.training.tuning import ALONE_STEPS, tune_alone, tune_game

        aim, belief, watched = problem.card.aim, config.belief, config.belief_steps
        with Stage("tuning prices", self.tuning, "trial", self.quiet) as stage:

            def tried(_trial: int, best: float) -> None:
                stage.note(**{aim.key: f"{aim.sign * best:.4f}"})
                stage.update()

            if self.kind == "rl":
                least = min(self.agent_steps, ALONE_STEPS)
                return tune_alone(
                    problem, self.learner, belief, self.tuning, tried, self.seed, watched, least
                ).prices  # fmt: skip
            return tune_game(problem, belief, self.tuning, tried, belief_steps=watched).prices


@contextmanager
def _kept_of(checkpoints: Any) -> Iterator[None]:
    """Say of a training that is stopped from outside what is left of it, and how to go on."""

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
