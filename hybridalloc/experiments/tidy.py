"""Every score of a suite, a line each, in one tidy table: as CSV, and as Parquet where pyarrow is installed."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from hybridalloc.files import whole_file, write_text

CSV, PARQUET = "results.csv", "results.parquet"


class Line(NamedTuple):
    """A score: of which row of the suite, method and metric, on which training seed (its number from 0) and which
    evaluation seed; None where that seed has none."""

    row: str
    problem: str
    method: str
    label: str
    kind: str
    metric: str
    unit: str
    training_seed: int
    evaluation_seed: int
    value: float | None


def lines(comparisons: Mapping[str, Mapping[str, Any]]) -> Iterator[Line]:
    """Every score of the comparisons, by the names of their rows."""
    for name, comparison in comparisons.items():
        units = {metric["key"]: metric.get("unit", "") for metric in comparison["metrics"]}
        for method in comparison["methods"]:
            kind = "bound" if method.get("bound") else method["kind"]
            for metric, rows in method["values"].items():
                for train, row in enumerate(rows):
                    for seed, value in zip(comparison["seeds"]["report"], row, strict=False):
                        yield Line(
                            name, comparison["problem"], method["key"], method["label"], kind, metric,
                            units.get(metric, ""), train, seed, value,
                        )  # fmt: skip


def write_tidy(folder: Path, comparisons: Mapping[str, Mapping[str, Any]]) -> None:
    """``results.csv``, and the same in ``results.parquet``; without pyarrow none is left there from before."""
    found = list(lines(comparisons))
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(Line._fields)
    writer.writerows((*line[:-1], "" if line.value is None else repr(line.value)) for line in found)
    write_text(folder / CSV, stream.getvalue())
    if find_spec("pyarrow") is None:
        (folder / PARQUET).unlink(missing_ok=True)
        return
    import pyarrow as pa
    from pyarrow import parquet

    kinds = [pa.string()] * 7 + [pa.int64()] * 2 + [pa.float64()]
    columns = list(zip(*found, strict=True)) or [()] * len(kinds)
    table = pa.table(
        [pa.array(column, kind) for column, kind in zip(columns, kinds, strict=True)], names=list(Line._fields)
    )
    with whole_file(folder / PARQUET) as file:
        parquet.write_table(table, file)
