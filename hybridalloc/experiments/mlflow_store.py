"""MLflow's store: where it is, how its pages are opened, and quiet while we write there."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import entry_points
from pathlib import Path

DEFAULT_URI = "sqlite:///mlflow.db"
KIND_TAG = {"mlflow.experimentKind": "custom_model_development"}  # else MLflow opens on its pages for traces

# MLflow's defaults hold one call to a dead server for 247 s, and print
_SETTINGS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_BACKOFF_JITTER": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "5",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # two lines a run
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",  # one bar a file
}
_CHATTER = ("alembic", "mlflow.store.db.utils", "mlflow.store.tracking", "mlflow.tracking", "mlflow.pyfunc", "urllib3")


def default_uri() -> str:
    """MLflow's store where none is named: what ``MLFLOW_TRACKING_URI`` says, or else a file in this folder."""
    return os.environ.get("MLFLOW_TRACKING_URI") or DEFAULT_URI


def how_to_open(tracking_uri: str = DEFAULT_URI, experiment_id: str | None = None) -> str:
    """How to see the mirrored runs: a command, and the address of the experiment's runs.

    MLflow 3.17 opens on its pages for traces, where training runs are not to be seen; so name the
    experiment (`MirrorResult.experiment_id`) for an address that shows them.
    """
    page = f"/#/experiments/{experiment_id}/runs" if experiment_id else "/#/experiments"
    if tracking_uri.startswith(("http://", "https://")):
        return f"open {tracking_uri.rstrip('/')}{page}"
    return f"mlflow ui --backend-store-uri {tracking_uri}   # then open http://127.0.0.1:5000{page}"


SCHEMES = ("sqlite", "postgresql", "mysql", "mssql", "http", "https", "databricks", "databricks-uc", "uc")
FOLDERS = "MLFLOW_ALLOW_FILE_STORE"  # MLflow's own switch for a store that is a folder


def check_store(uri: str) -> None:
    """Whether MLflow can have a store of this address at all; one that does not answer later stops nobody.

    Raises:
        TrackingError: no such kind of store; says which there are.
    """
    from hybridalloc.experiments.runlog import TrackingError  # not above: every command's help reads this module
    from hybridalloc.text import quoted

    scheme = (uri if ":" not in uri and uri in SCHEMES else uri.partition(":")[0] * (":" in uri)).partition("+")[0]
    folder = scheme in ("", "file") or len(scheme) == 1  # C:\\runs
    if not uri or scheme in SCHEMES or (folder and os.environ.get(FOLDERS, "").lower() in ("true", "1")):
        return
    if scheme not in {point.name for point in entry_points(group="mlflow.tracking_store")}:
        what = "a folder, which MLflow no longer takes" if folder else "no address of a store"
        raise TrackingError(f"tracking_uri = {quoted(uri)} is {what}; give sqlite:///mlflow.db or an https:// address")


def is_sqlite(uri: str) -> bool:
    return uri.startswith("sqlite:")


def sqlite_file(tracking_uri: str) -> Path | None:
    """The file of an sqlite store, read from the address as MLflow reads it ("%20" is a space); None of another one."""
    if not is_sqlite(tracking_uri):
        return None
    from sqlalchemy import make_url
    from sqlalchemy.exc import ArgumentError

    from hybridalloc.experiments.runlog import TrackingError  # not above: every command's help reads this module

    try:
        name = make_url(tracking_uri).database
    except ArgumentError as error:
        raise TrackingError(f"{tracking_uri} is no address of a store ({first_line(error)})") from None
    return Path(name).resolve() if name and name != ":memory:" else None


def artifact_location(tracking_uri: str) -> str | None:
    """`mlruns` beside an sqlite file (MLflow's own default is beside the caller's folder of the day)."""
    file = sqlite_file(tracking_uri)
    return (file.parent / "mlruns").as_uri() if file else None


@contextmanager
def quiet_mlflow() -> Iterator[None]:
    """MLflow's environment for a replay: short waits (unless the user set them), no chatter, no telemetry."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # read when mlflow is imported
    added = {name: value for name, value in _SETTINGS.items() if name not in os.environ}
    os.environ.update(added)
    import mlflow  # noqa: F401  (sets up its loggers, so their levels are changed after it)

    loggers = {name: logging.getLogger(name) for name in _CHATTER}
    levels = {name: logger.level for name, logger in loggers.items()}
    for logger in loggers.values():
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for name, logger in loggers.items():
            logger.setLevel(levels[name])
        for name in added:
            os.environ.pop(name, None)


def first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [""])[0][:300]
