"""What a comparison is asked for, and whether that can be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hybridalloc.errors import nearest
from hybridalloc.experiments import tracking
from hybridalloc.experiments.methods import rows_of
from hybridalloc.limits import check_fields, check_names
from hybridalloc.machines import check_engine
from hybridalloc.problems import make_with
from hybridalloc.problems.contract import AnyProblem
from rl.registry import LEARNERS, learner_names


@dataclass(frozen=True)
class Settings:
    """A comparison.

    Attributes:
        problem: "mec". agents, servers, scenario: its size and set, "" for the problem's own. sites: "eua" needs the
            EUA data, "synthetic" none. agent_steps: training budget of each learner, alone and in the hybrid alike.
            train_seeds: how many, from 0. report_seeds: how many held-out networks, from 10000. tuning: trials of the
            price search.
        learners: compared alone and in the hybrid. methods: rows of the table; default those of the learners.
            workers: processes; default the number of cores.
        engine: "processes" on this machine or "ray"; address: of the Ray cluster, see
            :func:`hybridalloc.machines.connected`. Neither has a part in the result.
    """

    problem: str = "mec"
    agents: int = 50
    servers: int = 9
    scenario: str = ""
    sites: str = "eua"
    agent_steps: int = 600_000
    train_seeds: int = 2
    report_seeds: int = 40
    tuning: int = 40
    learners: tuple[str, ...] = ("imappo", "dqn")
    methods: tuple[str, ...] = ()
    workers: int | None = None
    runs: str = "runs"
    report: str = "report.html"
    tracking_uri: str = tracking.DEFAULT_URI
    quiet: bool = False
    settings: tuple[tuple[str, Any], ...] = ()  # of a problem of one's own, by name
    suite: str = ""  # whose row it is, as a tag
    engine: str = "processes"
    address: str = ""


FULL = {"agent_steps": 2_000_000, "train_seeds": 5, "report_seeds": 100, "tuning": 150}


def problem_of(settings: Settings) -> AnyProblem:
    """The problem, with those of the flags that it has."""
    flags = {name: getattr(settings, name) for name in ("agents", "servers", "sites", "scenario")}
    return make_with(settings.problem, flags, dict(settings.settings))


def check_alone(settings: Settings) -> None:
    """An error that names the first of the settings which can be told from itself alone: a count that is out of its
    range, a learner that there is not, an engine or a store that cannot be."""
    check_fields(settings)
    for name in ("learners", "methods"):
        check_names(name, getattr(settings, name))
    for name in settings.learners:
        if name not in LEARNERS:
            raise nearest("learner", name, LEARNERS)
    check_engine(settings.engine, settings.address)
    tracking.check_store(settings.tracking_uri)


def check_methods(problem: AnyProblem, methods: Sequence[str]) -> None:
    """An UnknownNameError for a row that this problem's table cannot have."""
    known = rows_of(problem.card, learner_names())
    for name in methods:
        if name not in known:
            raise nearest("method", name, known)


SAME = (  # for a stopped comparison to go on
    "problem", "agents", "servers", "scenario", "sites", "agent_steps", "train_seeds", "report_seeds", "tuning",
    "methods", "settings",
)  # fmt: skip
