"""The standard suite: fixed domains, scenarios, seeds and budgets, every method on each, one table of all.

A row is a comparison in a folder of its own, so that a suite that was killed at any moment goes on with what is done:

    <out>/suite.json                     what was asked for
    <out>/<row>/<comparison>/...         as `hybridalloc compare` writes it
    <out>/<row>/done.json                its comparison is whole, report and all
    <out>/results.csv, results.parquet, table.md, report.html

Small rows draw everything they need; others run on the public traces (`hybridalloc data fetch`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from hybridalloc.errors import CheckpointError, PlaceError, WorkError, nearest
from hybridalloc.experiments import tracking
from hybridalloc.experiments.asked import as_asked
from hybridalloc.experiments.compare import compare
from hybridalloc.experiments.jobs import whole_json
from hybridalloc.experiments.resume import newest
from hybridalloc.experiments.runlog import COMPARISON_FILE
from hybridalloc.experiments.settings import FULL, Settings, check_alone, check_methods, problem_of
from hybridalloc.experiments.tidy import CSV, PARQUET, write_tidy
from hybridalloc.files import whole_file, write_text
from hybridalloc.limits import check_names
from hybridalloc.machines import connected
from hybridalloc.places import check_folder, locked
from hybridalloc.text import quoted

SUITE_FILE, DONE_FILE, LOCK = "suite.json", "done.json", ".suite.lock"
TRIES = 100  # folders of the same name, each held by another suite, before that is an error


class Row(NamedTuple):
    """A domain of the suite: the settings of its comparison, and the rule whose mean is 0 in normalised scores."""

    problem: str
    flags: tuple[tuple[str, Any], ...] = (("sites", "synthetic"),)  # of the comparison: its scenario, size, budget
    floor: str = "random"
    settings: tuple[tuple[str, Any], ...] = ()  # more, of the problem


SMALL_ROWS = {
    "mec": Row("mec"), "cluster": Row("cluster"), "balancer": Row("balancer"), "voltage": Row("voltage", floor="none"),
}  # fmt: skip
FULL_ROWS = {
    "mec": Row("mec", (("sites", "eua"),)),
    "cluster": Row("cluster", (("scenario", "openb"),)),
    "balancer": Row("balancer", (("scenario", "azure"),)),
    "voltage": Row("voltage", floor="none", settings=(("profiles", "simbench"),)),
}
MEDIUM_ROWS = FULL_ROWS | {
    "mec": FULL_ROWS["mec"]._replace(flags=(("sites", "eua"), ("agent_steps", 2_000_000))),  # RL needs them
    "cluster": FULL_ROWS["cluster"]._replace(settings=(("nodes", 121),)),  # a tenth of it
}
SIZES: dict[str, tuple[Mapping[str, Row], dict[str, int]]] = {
    "small": (SMALL_ROWS, {"agent_steps": 40_000, "train_seeds": 2, "report_seeds": 10, "tuning": 8}),
    "medium": (MEDIUM_ROWS, {"agent_steps": 200_000, "train_seeds": 5, "report_seeds": 20, "tuning": 40}),
    "full": (FULL_ROWS, dict(FULL)),
}
LEARNERS = ("imappo",)


@dataclass(frozen=True)
class Suite:
    """What is asked for.

    Attributes:
        size: "small", "medium" or "full". only: names of rows, default all. methods: of every row, default all that it
            has.
        out: its folder; default runs/bench-<size>, or the first of that name and a number that no other suite holds.
        budget: changes of the size's: agent_steps, train_seeds, report_seeds, tuning.
        engine, address: where its comparisons run, as of :class:`~hybridalloc.experiments.settings.Settings`.
    """

    size: str = "small"
    only: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()
    out: str = ""
    budget: tuple[tuple[str, int], ...] = ()
    workers: int | None = None
    tracking_uri: str = tracking.DEFAULT_URI
    quiet: bool = False
    engine: str = "processes"
    address: str = ""


def bench(suite: Suite, say: Callable[[str], None] = lambda text: None) -> dict[str, Any]:
    """Run what is left of a suite and write its table and report.

    Returns:
        the suite as :func:`hybridalloc.reports.suite.write_suite` takes it, "folder" and "failed" (row: why) added.

    Raises:
        UnknownNameError: a size, row or method; the nearest are listed. PlaceError: its folder cannot be written, or
            another suite works in it. CheckpointError: the folder holds a suite that was asked for otherwise.
    """
    rows = rows_of(suite)
    with ExitStack() as stack:
        stack.enter_context(engine_of(suite))
        folder = _held(suite, stack)
        record = _record(folder, suite)
        failed: dict[str, str] = {}
        for number, (name, row) in enumerate(rows.items(), start=1):
            if done(folder / name) is not None:
                say(f"{name}: done before ({number} of {len(rows)})")
                continue
            say(f"{name}: row {number} of {len(rows)}")
            try:
                run_row(folder / name, row, suite, suite.methods, f"bench-{suite.size}")
            except WorkError as error:  # the other rows are none the worse
                failed[name] = str(error)
                say(f"{name}: {error}")
            publish(folder, record)
        told = publish(folder, record)
        mirrored = _mirror(folder, told, suite)
    return told | {"folder": str(folder), "failed": failed, "mirror": str(mirrored), "open": mirrored.experiment_id}


def engine_of(suite: Suite) -> AbstractContextManager[Any]:
    """A block in which the suite's comparisons find their engine open."""
    return connected(suite.address) if suite.engine == "ray" else nullcontext()


def rows_of(suite: Suite) -> dict[str, Row]:
    """The rows that are asked for, with every name and number checked before anything runs."""
    rows = SIZES[suite.size][0] if suite.size in SIZES else {}
    check_suite(suite, rows)
    asked = {name: row for name, row in rows.items() if not suite.only or name in suite.only}
    for row in asked.values() if suite.methods else ():
        check_methods(problem_of(settings_of(row, suite)), suite.methods)
    return asked


def check_suite(suite: Suite, rows: Collection[str]) -> None:
    """What is asked for, of these rows.

    Raises:
        UnknownNameError: a size, row or part of the budget that there is not; the nearest are listed. ValueError: a
            number out of its range, an address without its engine.
    """
    if suite.size not in SIZES:
        raise nearest("size", suite.size, SIZES)
    check_names("only", suite.only)
    for name in suite.only:
        if name not in rows:
            raise nearest("row", name, rows)
    usual = SIZES[suite.size][1]
    for name, _ in suite.budget:
        if name not in usual:
            raise nearest("part of a budget", name, usual)
    check_alone(settings_of(Row("mec"), suite))


def budget_of(suite: Suite) -> dict[str, int]:
    """The size's budget with the suite's changes."""
    return SIZES[suite.size][1] | dict(suite.budget)


def settings_of(row: Row, suite: Suite) -> Settings:
    """The comparison of a row."""
    asked: dict[str, Any] = SIZES[suite.size][1] | dict(row.flags) | dict(suite.budget)
    settings = Settings(
        row.problem, learners=LEARNERS, methods=suite.methods, settings=row.settings, workers=suite.workers,
        tracking_uri=suite.tracking_uri, quiet=suite.quiet, engine=suite.engine, address=suite.address,
    )  # fmt: skip
    return replace(settings, **asked)


def _held(suite: Suite, stack: ExitStack) -> Path:
    """The suite's folder, locked for as long as the stack stands."""
    for number in range(1, TRIES):
        name = suite.out or f"runs/bench-{suite.size}{f'-{number}' if number > 1 else ''}"
        folder = check_folder("--out", name).resolve()
        if stack.enter_context(locked(folder / LOCK)):
            return folder
        if suite.out:
            break
    raise PlaceError(f"--out {suite.out or 'runs'} is being worked on by another suite; wait for it, or give another")


def _record(folder: Path, suite: Suite) -> dict[str, Any]:
    """What the folder's suite was asked for: as now, or an error that says what differs."""
    asked = {"size": suite.size, "methods": list(suite.methods), "budget": budget_of(suite)}
    return as_asked(folder / SUITE_FILE, asked, "a suite", f"bench-{suite.size}")


def run_row(place: Path, row: Row, suite: Suite, methods: tuple[str, ...], tag: str) -> None:
    """Run a row's comparison, or go on with it, and mark it as done."""
    begun = any(place.glob(f"*/{COMPARISON_FILE}"))
    place.mkdir(parents=True, exist_ok=True)
    settings = replace(
        settings_of(row, suite), methods=methods, suite=tag, runs=str(place), report=str(place / "report.html")
    )
    comparison = compare(settings, resume=place if begun else None)
    write_text(place / DONE_FILE, json.dumps({"folder": Path(comparison["folder"]).name}) + "\n")


def done(place: Path) -> Path | None:
    """The folder of a row's whole comparison, None where it is to be run.

    Raises:
        CheckpointError: the row's record names no folder of its own.
    """
    if not (place / DONE_FILE).is_file():
        return None
    told = whole_json(place / DONE_FILE)
    if not isinstance(told, dict) or "folder" not in told:
        folder = newest(place)
    else:
        folder = place / str(told["folder"])
        if folder.resolve().parent != place.resolve():
            raise CheckpointError(
                f"{place / DONE_FILE} names the folder {quoted(told['folder'])}, which is not one in {place}; delete "
                "that file and give the same command again: what is done is found, and not run anew"
            )
    return folder if (folder / "results.json").is_file() else None


def stored(folder: Path) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """A suite's record and the comparisons of its rows that are whole, by name.

    Raises:
        TrackingError: no suite is there; says how to make one.
    """
    kept = whole_json(folder / SUITE_FILE) if (folder / SUITE_FILE).is_file() else None
    if not isinstance(kept, dict) or kept.get("size") not in SIZES:
        raise tracking.TrackingError(f"{folder} holds no suite ({SUITE_FILE}); `hybridalloc bench` makes one")
    found = {}
    for name, row in SIZES[kept["size"]][0].items():
        place = done(folder / name)
        if place is not None:
            comparison = json.loads((place / "results.json").read_text(encoding="utf-8"))
            found[name] = comparison | {"floor": row.floor, "page": f"{name}/{place.name}/report.html"}
    return kept, found


def publish(folder: Path, record: Mapping[str, Any]) -> dict[str, Any]:
    """Table and report of what is there."""
    from hybridalloc.reports.suite import summarise, write_suite

    _, comparisons = stored(folder)
    write_tidy(folder, comparisons)
    told = summarise(comparisons, f"bench, {record['size']}")
    write_suite(folder, told)
    return told


def _mirror(folder: Path, told: Mapping[str, Any], suite: Suite) -> tracking.MirrorResult:
    """The suite as a run of its own in MLflow: its table and report, and each kind's aggregates as its methods'."""
    record, comparisons = stored(folder)
    for name in comparisons:  # a row that a slow store did not take in time is completed; what is there is found again
        tracking.mirror(folder / name / Path(comparisons[name]["page"]).parent.name, suite.tracking_uri)
    place = folder / "suite" / str(record["id"])
    groups = [name for name, scores in told["aggregate"].items() if scores["iqm"] is not None]
    tracking.write_comparison(
        place, problem="bench", scenario={"size": record["size"]}, methods=groups, seeds={},
        budget=record["budget"], data_digest="", tags={"suite": f"bench-{record['size']}"},
    )  # fmt: skip
    for path in place.glob("*.jsonl"):
        path.unlink()
    for group in groups:
        with tracking.RunLog(place, group, 0) as log:
            scores = told["aggregate"][group]
            log.end({"iqm": scores["iqm"][0]} | {f"score_{name}": v for name, v in scores["by_row"].items()})
    for name in ("report.html", "table.md", CSV, PARQUET):
        if (folder / name).is_file():
            with whole_file(place / name) as copy:
                copy.write((folder / name).read_bytes())
    return tracking.mirror(place, suite.tracking_uri)
