"""``hybridalloc reproduce``: the seeds' tables."""

from __future__ import annotations

from dataclasses import dataclass

import tyro

from hybridalloc.commands.shared import Comparing, tell


@dataclass(frozen=True)
class Reproduce(Comparing):
    """Run a seed's table again: our figure with its interval, the seed's beside it, whether the order is kept.

    The same command goes on with one that was stopped. Without a name it lists the tables.
    """

    table: tyro.conf.Positional[str] = ""
    """Such as 003-table1."""
    size: str = "small"
    """Budget: small or full, as of bench."""
    only: tuple[str, ...] = ()
    """Rows to run, such as n50-k9; default all."""
    out: str = ""
    """Folder of the runs; default runs/reproduce-<table>, or that of the table whose runs it reads."""

    def run(self) -> int:
        from hybridalloc.commands.terminal import say
        from hybridalloc.experiments.reproduce import reproduce
        from hybridalloc.experiments.seeds import TABLES

        if not self.table:
            say("\n".join(f"{name}  {table.title}; rows {', '.join(table.names)}" for name, table in TABLES.items()))
            return 0
        suite = self.suite(size=self.size, only=self.only, out=self.out)
        say(reproduce(self.table, suite, (lambda text: None) if self.quiet else tell))
        return 0
