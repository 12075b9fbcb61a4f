"""``hybridalloc export`` and ``log-model``: a saved allocator for those who serve it."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

import tyro

from hybridalloc.commands.terminal import write
from hybridalloc.experiments.mlflow_store import default_uri


@dataclass(frozen=True)
class Export:
    """Write a saved allocator's recommender as ONNX, for serving without Python."""

    path: tyro.conf.Positional[str]
    onnx: Path = Path("recommender.onnx")

    def run(self) -> int:
        from hybridalloc.allocator import read_checkpoint
        from hybridalloc.errors import CheckpointError
        from hybridalloc.places import check_file
        from hybridalloc.text import quoted
        from rl.export import OPSET, write_onnx

        meta, policy, _ = read_checkpoint(self.path)
        if policy is None:
            held = quoted(meta["method"])
            raise CheckpointError(f"{self.path} holds no recommender: it was saved from method {held}")
        check_file("--onnx", self.onnx)
        written = write_onnx(policy, self.onnx, {k: json.dumps(meta[k]) for k in ("problem", "prices", "trust")})
        write(f"saved {written} (ONNX opset {OPSET}): scores of every agent and option, for any numbers of them")
        return 0


@dataclass(frozen=True)
class LogModel:
    """Register a saved allocator in MLflow as the next version of a model, for `mlflow models serve`."""

    path: tyro.conf.Positional[str]
    """A saved allocator: a path or an MLflow URI."""
    name: str = "hybridalloc"
    """Name of the registered model."""
    alias: str = ""
    """Move this alias to the new version, such as champion; by default none moves."""
    tracking_uri: str = field(default_factory=default_uri)
    """MLflow's store; default MLFLOW_TRACKING_URI, or else a file in this folder."""
    allow_code: bool = False
    """Load the transition that the file names, for an example state of its own: its code runs. Serving needs none."""

    def run(self) -> int:
        from hybridalloc.serving.models import how_to_serve, log_model

        logged = log_model(self.path, self.name, self.tracking_uri, alias=self.alias, trust_code=self.allow_code)
        told = f", alias {self.alias}" if self.alias else ""
        write(f"registered {self.name}, version {logged.version}{told}")
        write(how_to_serve(self.name, self.tracking_uri, logged.version, self.alias, self.path))
        return 0
