"""``hybridalloc bench``: the standard suite of domains."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hybridalloc.commands.shared import Comparing, tell


@dataclass(frozen=True)
class Bench(Comparing):
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
    json: bool = False
    """The suite's summary as JSON on standard output."""

    def run(self) -> int:
        from hybridalloc.commands.terminal import print_json, say
        from hybridalloc.experiments.suite import bench
        from hybridalloc.experiments.tracking import how_to_open
        from hybridalloc.reports.suite import text

        suite = self.suite(size=self.size, only=self.only, methods=self.methods, out=self.out)
        began = time.monotonic()
        told: dict[str, Any] = bench(suite, (lambda text: None) if self.quiet else tell)
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
