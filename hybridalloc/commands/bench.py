"""``hybridalloc bench``: the standard suite of domains."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hybridalloc.experiments.mlflow_store import default_uri


@dataclass(frozen=True)
class Bench:
    """Run the standard suite: every method on mec, cluster, balancer and voltage, one table, report and MLflow runs.

    The same command goes on with a suite that was stopped at any moment, and skips what is done.
    """

    size: str = "small"
    """small (synthetic, needs no data), or medium and full (public traces: hybridalloc data fetch)."""
    only: tuple[str, ...] = ()
    """Rows: mec, cluster, balancer, voltage; default all."""
    methods: tuple[str, ...] = ()
    """Rows of every table; default all that the domain has."""
    out: str = ""
    """Folder of the suite; default runs/bench- and the size, with a number if another suite works there."""
    agent_steps: int | None = None
    """Training budget of each learner; default the size's, as the next three."""
    train_seeds: int | None = None
    report_seeds: int | None = None
    tuning: int | None = None
    workers: int | None = None
    """Tasks at a time; default the number of cores, of a cluster all of them."""
    engine: str = "processes"
    """Where tasks run: processes of this machine, or ray, the machines of a Ray cluster (extra ray)."""
    address: str = ""
    """Of the Ray cluster: host:port, ray://host:port or auto; default one that runs here, or else one started here."""
    tracking_uri: str = field(default_factory=default_uri)
    """MLflow's store; default MLFLOW_TRACKING_URI, or else a file in this folder."""
    quiet: bool = False
    """No progress on standard error."""
    json: bool = False
    """The suite's summary as JSON on standard output."""

    def run(self) -> int:
        from hybridalloc.commands.terminal import print_json, say
        from hybridalloc.experiments.suite import Suite, bench
        from hybridalloc.experiments.tracking import how_to_open
        from hybridalloc.reports.suite import text

        names = ("agent_steps", "train_seeds", "report_seeds", "tuning")
        budget = tuple((name, value) for name in names if (value := getattr(self, name)) is not None)
        suite = Suite(
            self.size, self.only, self.methods, self.out, budget, self.workers, self.tracking_uri, self.quiet,
            self.engine, self.address,
        )  # fmt: skip
        began = time.monotonic()
        told: dict[str, Any] = bench(suite, (lambda text: None) if self.quiet else _tell)
        if self.json:
            print_json(told)
        else:
            say(text(told))
            say(f"\ntook       {time.monotonic() - began:.0f} s")
            say(f"report     {Path(told['folder']) / 'report.html'}")
            say(f"table      {Path(told['folder']) / 'results.csv'}, a line a score")
            say(f"MLflow     {told['mirror']}")
            say(f"           {how_to_open(self.tracking_uri, told['open'])}")
        for name, why in told["failed"].items():
            print(f"hybridalloc: {name}: {why}; the same command goes on", file=sys.stderr)
        return 2 if told["failed"] else 0


def _tell(text: str) -> None:
    from hybridalloc.experiments.progress import Stage

    Stage._say(text)
