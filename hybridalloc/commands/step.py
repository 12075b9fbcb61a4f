"""``hybridalloc step``: one certified allocation."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hybridalloc.commands.terminal import pairs, print_json, say, to_json


@dataclass(frozen=True)
class Step:
    """One certified allocation: of a state (JSON on standard input; JSON out), or of your own jobs and servers (CSV
    files; a table out, or --json)."""

    problem: str | None = None
    """mec (the default), custom (the default with --jobs), or one of your own."""
    method: str = "hybrid"
    """hybrid, rl, game or a baseline of the problem; custom also: optimal, the most that can be served, by MILP."""
    jobs: Path | None = None
    """CSV of name, work; optional deadline_s, delay_cost, priority, opt_out_cost, power_limit_w, moving_cost. Of what
    is held whole: name, demand:gpu, ...; optional count, apart, team, priority, moving_cost."""
    servers: Path | None = None
    """CSV of name, capacity (units of work a second, 0: down); optional wait_s, full_power_w. Of what is held whole:
    name, held:gpu, held:memory_gb, ..."""
    links: Path | None = None
    """CSV of job, server; optional cost, work. Without it every job reaches every server."""
    quota: Path | None = None
    """With what is held: CSV of team, quota:gpu, ...: what each team may have in all."""
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
            for flag in ("links", "quota", "previous", "moving_cost", "out"):
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
        from hybridalloc.problems.custom.held import Held
        from hybridalloc.reports import step_held
        from hybridalloc.reports.step import as_csv, as_json, as_text

        if name != "custom":
            raise ValueError(f"--jobs and --servers go with --problem custom; got --problem {name}")
        for flag, given, holds in (("--jobs", self.jobs, "name, work"), ("--servers", self.servers, "name, capacity")):
            if given is None:
                raise ValueError(f"{flag} is missing: give a CSV file with the columns {holds}")
        if self.moving_cost is not None and self.previous is None:
            raise ValueError("--moving-cost goes with --previous FILE: without it nobody is anywhere yet")
        if self.out is not None and self.out.suffix.lower() not in (".csv", ".json"):
            raise ValueError(f"--out {self.out}: a name that ends in .csv or .json is required")
        if self.quota is not None:
            settings = settings | {"quota": self.quota}
        with _noted():
            problem = make_problem(
                "custom", jobs=self.jobs, servers=self.servers, links=self.links, previous=self.previous,
                moving_cost=self.moving_cost, **settings,
            )  # fmt: skip
        if self.allocator is not None:
            allocator = Allocator.load(self.allocator, problem=problem, **changes)
        else:
            allocator = Allocator(problem, self.method, **changes)
        if self.out is not None:
            check_file("--out", self.out)
        state, prices = problem.reset(), allocator.prices
        allocation = allocator.step(state)
        written = self.out is not None and self.out.suffix.lower() == ".json"
        if isinstance(problem, Held):
            told = step_held.as_json(problem, state, allocation) if self.json or written else {}
            rows = step_held.as_csv(problem, state, allocation)
            text = "" if self.json else step_held.as_text(problem, state, allocation)
        else:
            assert isinstance(prices, CustomPrices)
            told = as_json(problem, state, allocation, prices) if self.json or written else {}
            rows = as_csv(problem, state, allocation)
            text = "" if self.json else as_text(problem, state, allocation, prices)
        if self.out is not None:
            write_text(self.out, to_json(told) + "\n" if written else rows)
        if self.json:
            return print_json(told)
        say(text)
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
