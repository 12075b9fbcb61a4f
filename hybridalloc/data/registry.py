"""Public data sets: where each file comes from, what it must contain, and how to get it.

No data is committed. Every file is known by its public address and the SHA-256 of its *content*
(of the uncompressed bytes, so that a gzipped copy and the upstream file count as the same). `fetch`
looks in this order:

1. the folder that the environment variable ``HYBRIDALLOC_DATA`` names, laid out ``<dataset>/<file>``;
2. pooch's cache (``HYBRIDALLOC_CACHE`` moves it), filled from the public address when needed.

Content that does not match its hash is never used: `DataError` says what to do instead.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

import numpy as np
import pooch
from numpy.typing import NDArray

from hybridalloc.data.sources import DATASETS, DataFile, Dataset
from hybridalloc.errors import nearest

Array = NDArray[np.float64]

DATA_VARIABLE = "HYBRIDALLOC_DATA"
CACHE_VARIABLE = "HYBRIDALLOC_CACHE"
TIMEOUT_S = (5.0, 15.0)  # to connect, and between two pieces of an answer; a failed address is not retried
EARTH_RADIUS_M = 6_371_008.8  # mean radius R1 of the WGS 84 ellipsoid


class DataError(RuntimeError):
    """A data file is missing, unreachable, altered or malformed; the message says what to do."""


@dataclass(frozen=True)
class FileCheck:
    """Result of `verify`: `status` is "ok", "missing" or "altered"; `path` is where it was looked for."""

    dataset: str
    file: str
    status: str
    path: Path | None


def datasets() -> tuple[Dataset, ...]:
    """All registered data sets."""
    return DATASETS


def fetch(dataset: str, file: str) -> Path:
    """Path of a file whose content is known to be right.

    Args:
        dataset: a registered name, such as "eua".
        file: a file of it, by the name it has in a local folder (with ".gz" where it is stored so).

    Returns:
        The local folder's copy, or the cache's. The cache holds upstream's uncompressed file, so for
        a name that ends in ".gz" the path may lack that ending; `open_text` reads either.

    Raises:
        UnknownNameError: no such data set or file; the nearest are listed. DataError: a copy with another content, or
            neither folder nor network (what to do is said).
    """
    entry = _find(dataset, file)
    local = _local_path(dataset, entry)
    if local is not None:
        found = _sha256(local)
        if found != entry.sha256:
            raise DataError(
                f"{local}: SHA-256 of its content is {found}, required is {entry.sha256}; replace the file, "
                f"or unset {DATA_VARIABLE} and run `hybridalloc data fetch {dataset}` with a network"
            )
        return local
    return _from_cache(dataset, entry)


def digest(dataset: str) -> str:
    """SHA-256 (hexadecimal) over the names and content hashes of a data set's files."""
    lines = sorted(f"{entry.sha256}  {entry.plain_name}\n" for entry in _dataset(dataset).files)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def digest_of(names: Iterable[str]) -> str:
    """What tells the data of ``names`` apart from other data; "synthetic" where there are none."""
    found = {name: digest(name) for name in names}
    if len(found) == 1:
        return next(iter(found.values()))
    return ", ".join(f"{name} {one}" for name, one in found.items()) or "synthetic"


def verify(dataset: str) -> tuple[FileCheck, ...]:
    """Check each file of a data set where it lies, without a network; one result a file."""
    checks = []
    for entry in _dataset(dataset).files:
        path = _local_path(dataset, entry) or _cache_path(dataset, entry)
        if not path.is_file():
            checks.append(FileCheck(dataset, entry.name, "missing", None))
            continue
        try:
            right = _sha256(path) == entry.sha256
        except (OSError, EOFError):  # a damaged gzip
            right = False
        checks.append(FileCheck(dataset, entry.name, "ok" if right else "altered", path))
    return tuple(checks)


def open_text(path: Path) -> IO[str]:
    """Open a data file as text, gunzipping a name that ends in ".gz"."""
    if path.suffix == ".gz":
        return cast("IO[str]", gzip.open(path, "rt", encoding="utf-8", newline=""))
    return path.open(encoding="utf-8", newline="")


def list_table() -> str:
    """The registry as a table for `hybridalloc data list`."""
    lines = []
    for dataset in DATASETS:
        lines += [
            f"{dataset.name}: {dataset.title}",
            f"    from     {dataset.origin}",
            f"    licence  {dataset.licence}",
            f"    cite     {dataset.citation}",
        ]
        for check, entry in zip(verify(dataset.name), dataset.files, strict=True):
            where = "not here yet" if check.path is None else f"{check.status}, {check.path}"
            lines.append(f"    file     {entry.name}  {entry.sha256[:12]}  {where}")
            if entry.note:
                lines.append(f"             {entry.note}; taken from {DATA_VARIABLE} only")
    return "\n".join(lines)


def fetch_all(names: Iterable[str] = ()) -> str:
    """Fetch every file of the named data sets (all when none is named); the lines to print.

    Raises:
        DataError: as `fetch` does, at the first file that cannot be had.
    """
    chosen = tuple(names) or tuple(dataset.name for dataset in DATASETS)
    lines = [f"{name}/{entry.name}: {fetch(name, entry.name)}" for name in chosen for entry in _dataset(name).files]
    return "\n".join(lines)


def verify_all(names: Iterable[str] = ()) -> tuple[str, bool]:
    """Verify the named data sets (all when none is named): the lines to print, and whether all are ok."""
    chosen = tuple(names) or tuple(dataset.name for dataset in DATASETS)
    checks = [check for name in chosen for check in verify(name)]
    lines = [
        f"{check.dataset}/{check.file}: {check.status}" + (f" ({check.path})" if check.path else "") for check in checks
    ]
    return "\n".join(lines), all(check.status == "ok" for check in checks)


def eua_sites() -> tuple[Array, Array]:
    """Base stations and users of Melbourne's centre in metres on a local tangent plane.

    Returns:
        sites (125, 2) and users (816, 2): metres east and north of the sites' mean position,
        by the equirectangular projection (over these 3 km it errs by less than a metre).

    Raises:
        DataError: no data (see `fetch`), or a malformed file ("..., line 17, column LATITUDE: ...").
    """
    sites = read_positions(fetch("eua", "site-optus-melbCBD.csv"), "LATITUDE", "LONGITUDE")
    users = read_positions(fetch("eua", "users-melbcbd-generated.csv"), "Latitude", "Longitude")
    origin = sites.mean(axis=0)
    return tangent_plane(sites, origin), tangent_plane(users, origin)


def tangent_plane(degrees: Array, origin: Array) -> Array:
    """(n, 2) latitude and longitude in degrees to (n, 2) metres east and north of `origin` (2,)."""
    latitude, longitude = np.radians(degrees - origin).T
    east = EARTH_RADIUS_M * np.cos(np.radians(origin[0])) * longitude
    return np.column_stack([east, EARTH_RADIUS_M * latitude])


def read_positions(path: Path, latitude: str, longitude: str) -> Array:
    """Read (n, 2) degrees from the named columns of a CSV file.

    Raises:
        DataError: names file, line and column of a missing column, a missing or unreadable number, or
            one outside [-90, 90] (latitude) or [-180, 180] (longitude).
    """
    with open_text(path) as stream:
        reader = csv.reader(stream)
        header = next(reader, [])
        index = []
        for column in (latitude, longitude):
            if column not in header:
                columns = ", ".join(header) or "none"
                raise DataError(f"{path}, line 1: column {column} is missing; the columns are {columns}")
            index.append(header.index(column))
        rows = [
            [
                _degrees(row, index[0], 90.0, f"{path}, line {reader.line_num}, column {latitude}"),
                _degrees(row, index[1], 180.0, f"{path}, line {reader.line_num}, column {longitude}"),
            ]
            for row in reader
            if row
        ]
    if not rows:
        raise DataError(f"{path}: no position below the header; at least one is required")
    return np.array(rows)


def _degrees(row: list[str], column: int, limit: float, where: str) -> float:
    text = row[column] if column < len(row) else ""
    try:
        value = float(text)
    except ValueError:
        raise DataError(f"{where}: {text!r} is not a number; degrees are required") from None
    if not -limit <= value <= limit:  # also catches NaN
        raise DataError(f"{where}: {text} is outside [-{limit:g}, {limit:g}] degrees")
    return value


def _dataset(name: str) -> Dataset:
    for dataset in DATASETS:
        if dataset.name == name:
            return dataset
    raise nearest("data set", name, (dataset.name for dataset in DATASETS))


def _find(dataset: str, file: str) -> DataFile:
    files = _dataset(dataset).files
    for entry in files:
        if file in (entry.name, entry.plain_name):
            return entry
    raise nearest(f"file of {dataset}", file, (entry.name for entry in files))


def _local_path(dataset: str, entry: DataFile) -> Path | None:
    """The file in the folder of HYBRIDALLOC_DATA, or None without such a folder or file."""
    folder = os.environ.get(DATA_VARIABLE)
    if not folder:
        return None
    if not Path(folder).is_dir():
        raise DataError(f"{DATA_VARIABLE} = {folder}: no such folder; it must hold <dataset>/<file>, or be unset")
    for name in (entry.name, entry.plain_name):
        path = Path(folder) / dataset / name
        if path.is_file():
            return path
    return None


def _registry() -> pooch.Pooch:
    """Pooch's view of the registry: plain name -> content hash and first address."""
    entries = {f"{d.name}/{e.plain_name}": e for d in DATASETS for e in d.files if e.urls}
    return pooch.create(
        path=pooch.os_cache("hybridalloc"),
        base_url="",
        env=CACHE_VARIABLE,
        registry={name: f"sha256:{entry.sha256}" for name, entry in entries.items()},
        urls={name: entry.urls[0] for name, entry in entries.items()},
        retry_if_failed=0,
    )


def cache_folder() -> Path:
    """Where data from elsewhere and what is derived from it is kept; it need not be there yet."""
    return Path(_registry().abspath)


def _cache_path(dataset: str, entry: DataFile) -> Path:
    return Path(_registry().abspath) / dataset / entry.plain_name


def _from_cache(dataset: str, entry: DataFile) -> Path:
    # requests comes with pooch and costs 0.1 s to import: only when a file is not in the folder
    import requests

    name = f"{dataset}/{entry.plain_name}"
    registry = _registry()
    failures = [entry.note or "no public address"] if not entry.urls else []
    for url in entry.urls:
        registry.urls[name] = url
        try:
            return Path(registry.fetch(name, downloader=pooch.HTTPDownloader(timeout=TIMEOUT_S)))
        except (requests.ConnectionError, requests.Timeout) as error:
            failures.append(f"{url}: no connection ({type(error).__name__})")
            break  # every address is on one host
        except (requests.RequestException, ValueError, OSError) as error:
            failures.append(f"{url}: {error}")
    folder = os.environ.get(DATA_VARIABLE)
    looked = f"{DATA_VARIABLE} = {folder} does not hold it" if folder else f"{DATA_VARIABLE} is not set"
    cure = f"set {DATA_VARIABLE} to a folder that holds {dataset}/{entry.name}"
    if entry.urls:
        cure += f", or run `hybridalloc data fetch {dataset}` with a network"
    if dataset == "eua":
        cure += ", or pass `--sites synthetic`"
    raise DataError(f"no usable {name}: {looked}; {'; '.join(failures)}. To go on, {cure}.")


def _sha256(path: Path) -> str:
    """SHA-256 (hexadecimal) of a file's uncompressed content."""
    total = hashlib.sha256()
    with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as stream:
        while block := stream.read(1 << 20):
            total.update(cast("bytes", block))
    return total.hexdigest()
