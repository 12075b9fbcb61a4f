"""``hybridalloc reproduce``: the seeds' tables."""

from __future__ import annotations

from dataclasses import dataclass, field

import tyro

from hybridalloc.experiments.mlflow_store import default_uri


@dataclass(frozen=True)
class Reproduce:
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

    def run(self) -> int:
        from hybridalloc.commands.bench import _tell
        from hybridalloc.commands.terminal import say
        from hybridalloc.experiments.reproduce import reproduce
        from hybridalloc.experiments.seeds import TABLES
        from hybridalloc.experiments.suite import Suite

        if not self.table:
            say("\n".join(f"{name}  {table.title}; rows {', '.join(table.names)}" for name, table in TABLES.items()))
            return 0
        names = ("agent_steps", "train_seeds", "report_seeds", "tuning")
        budget = tuple((name, value) for name in names if (value := getattr(self, name)) is not None)
        suite = Suite(
            self.size, self.only, (), self.out, budget, self.workers, self.tracking_uri, self.quiet, self.engine,
            self.address,
        )  # fmt: skip
        say(reproduce(self.table, suite, (lambda text: None) if self.quiet else _tell))
        return 0
