"""Options of every command that runs comparisons: how much each trains, where it runs, where its runs are kept."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from hybridalloc.experiments.mlflow_store import default_uri

if TYPE_CHECKING:
    from hybridalloc.experiments.suite import Suite

BUDGET = ("agent_steps", "train_seeds", "report_seeds", "tuning")


@dataclass(frozen=True, kw_only=True)
class Comparing:
    """What ``compare``, ``bench`` and ``reproduce`` have in common; in their help it stands after what is their own."""

    agent_steps: int | None = None
    """Training budget of each learner, alone and in the hybrid alike; default by --size or --full, as of the next
    three."""
    train_seeds: int | None = None
    report_seeds: int | None = None
    tuning: int | None = None
    """Trials of the search over toll and prices."""
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

    def budget(self) -> dict[str, int]:
        """What was given of the four, by name."""
        return {name: value for name in BUDGET if (value := getattr(self, name)) is not None}

    def suite(self, **own: Any) -> Suite:
        """These options and a command's ``own``, as what is asked of a suite."""
        from hybridalloc.experiments.suite import Suite

        shared = {name: getattr(self, name) for name in ("workers", "tracking_uri", "quiet", "engine", "address")}
        return Suite(budget=tuple(self.budget().items()), **shared, **own)


def tell(text: str) -> None:
    """A line of progress on standard error."""
    from hybridalloc.experiments.progress import Stage

    Stage._say(text)
