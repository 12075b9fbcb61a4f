"""``hybridalloc report`` and ``sync``: what ran, shown again and brought to MLflow."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

import tyro

from hybridalloc.commands.terminal import print_json, say, write
from hybridalloc.experiments.mlflow_store import default_uri


@dataclass(frozen=True)
class Report:
    """Write the report of a stored comparison or suite again, and print its table."""

    folder: tyro.conf.Positional[Path]
    """Such as runs/mec-20260101-120000-ab12 or runs/bench-small."""
    out: Path = Path("report.html")
    json: bool = False
    """The stored comparison as JSON on standard output."""

    def run(self) -> int:
        from hybridalloc.experiments.suite import SUITE_FILE
        from hybridalloc.places import check_file
        from hybridalloc.reports.report import text_table, write_report

        if (self.folder / SUITE_FILE).is_file():
            return self._suite()
        stored = _stored(self.folder, "results.json")
        check_file("--out", self.out)
        try:
            comparison = json.loads(stored.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(
                f"{stored} is no JSON ({error}); `hybridalloc compare --from-runs` makes it anew"
            ) from None
        if not isinstance(comparison, dict):
            raise ValueError(f"{stored} holds a {type(comparison).__name__}; a comparison is an object")
        page = write_report(self.out, comparison)
        if self.json:
            return print_json(comparison)
        say(text_table(comparison))
        write(f"\nreport     {page.resolve()}")
        return 0

    def _suite(self) -> int:
        from hybridalloc.experiments.suite import publish, stored
        from hybridalloc.files import write_text
        from hybridalloc.places import check_file
        from hybridalloc.reports.suite import text

        check_file("--out", self.out)
        told = publish(self.folder, stored(self.folder)[0])
        page = write_text(self.out, (self.folder / "report.html").read_text(encoding="utf-8"))
        if self.json:
            return print_json(told)
        say(text(told))
        write(f"\nreport     {page.resolve()}")
        return 0


@dataclass(frozen=True)
class Sync:
    """Bring MLflow up to date with a stored comparison or training run: what it has is found again, not doubled."""

    folder: tyro.conf.Positional[Path]
    tracking_uri: str = field(default_factory=default_uri)
    """MLflow's store; default MLFLOW_TRACKING_URI, or else a file in this folder."""
    json: bool = False
    """What MLflow has and lacks as JSON on standard output."""

    def run(self) -> int:
        from hybridalloc.experiments.tracking import check_store, how_to_open, mirror

        _stored(self.folder, "comparison.json")
        check_store(self.tracking_uri)
        result = mirror(self.folder, self.tracking_uri)
        if self.json:
            print_json(asdict(result))
            return 0 if result.complete else 1
        say(str(result))
        write(how_to_open(self.tracking_uri, result.experiment_id))
        return 0 if result.complete else 1


def _stored(folder: Path, name: str) -> Path:
    """A file of a comparison's folder, or an error that lists the folders there are."""
    path = folder / name
    if path.is_file():
        return path
    runs = sorted(str(p.parent) for p in Path("runs").glob(f"*/{name}"))
    there = f"; there are {', '.join(runs[-3:])}" if runs else "; `hybridalloc compare` makes one under runs/"
    raise ValueError(f"no {name} in {folder}{there}")
