"""The record of one training run: a comparison of one run, as ``hybridalloc compare`` writes them.

    <name>.runs/<id>/comparison.json
    <name>.runs/<id>/<kind>-<learner>-seed<k>.jsonl      a line an update and check, as they come

MLflow is brought up to date when the run ends; ``hybridalloc sync <folder>`` does it at any other time.
"""

from __future__ import annotations

import shutil
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from hybridalloc.data.registry import digest_of
from hybridalloc.experiments import tracking
from hybridalloc.experiments.runlog import COMPARISON_FILE
from hybridalloc.problems.contract import AnyProblem, Prices
from hybridalloc.training.config import TrainConfig
from hybridalloc.training.trainer import Trained


class Recording:
    """Writes what a training run says as it goes; a context manager, whose run is FAILED where one is left by an error.

    Args:
        runs: the folder of this name's runs; each has one of its own in it.
        tracking_uri: MLflow's store, "" for none.
        resume: go on with the newest of them, where there is one: figures that a run wrote after the checkpoint from
            which it goes on are written again and count once.
    """

    def __init__(
        self, runs: Path, problem: AnyProblem, prices: Prices, config: TrainConfig, tracking_uri: str,
        resume: bool = False,
    ) -> None:  # fmt: skip
        card, name = problem.card, f"{config.kind}-{config.learner}"
        file = f"{tracking.run_name(name, config.seed)}.jsonl"
        known = sorted(runs.glob(f"*/{file}"), key=lambda path: path.stat().st_mtime) if resume else []
        known = [path for path in known if (path.parent / COMPARISON_FILE).is_file()]
        self.folder = known[-1].parent if known else runs / tracking.new_comparison_id(card.name)
        if not known:
            tracking.write_comparison(
                self.folder, problem=card.name, scenario=problem.describe(), methods=[name],
                seeds={"train": [config.seed]}, budget={"agent_steps": config.agent_steps},
                data_digest=digest_of(card.datasets), datasets=card.datasets, tags=card.tags,
            )  # fmt: skip
        given = {k: v for k, v in asdict(config).items() if k != "settings"} | dict(config.settings)
        params: dict[str, Any] = {f"train/{k}": v for k, v in given.items()}
        params |= {f"price/{k}": v for k, v in prices._asdict().items()}
        self.tracking_uri = tracking_uri
        self.log = tracking.RunLog(self.folder, name, config.seed, params, dict(card.tags), resume=bool(known))
        self._store = tracking.Opening(self.folder, tracking_uri) if tracking_uri else None
        self.mirrored: tracking.MirrorResult | None = None

    def end(self, trained: Trained, trust: float, saved: Path) -> None:
        """The run is done: what it took, what computed its gradients, the trust it was given, the saved allocator."""
        shutil.copyfile(saved, self.folder / "allocator.npz")
        self.log.artifact("allocator.npz")
        self.log.params({"engine": trained.learner.engine})
        spent = {f"train_seconds/{k}": v for k, v in trained.seconds.items()}
        counts = {"allocations": float(trained.allocations), "violations": float(trained.violations)}
        self.log.end(spent | counts | {"trained_agent_steps": float(trained.agent_steps), "trust": trust})

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.log.end(status="FINISHED" if kind is None else "FAILED")
        if self._store is not None and (kind is None or not issubclass(kind, KeyboardInterrupt)):
            try:
                self.mirrored = self._store.mirror()
            except tracking.TrackingError as damaged:  # a line that was there before: the training's own end counts
                self.mirrored = tracking.MirrorResult(None, None, (), (self.log.name,), str(damaged))
