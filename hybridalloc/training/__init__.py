"""Loops over decisions: training, evaluation, beliefs, tuning, calibration, rehearsal."""

from __future__ import annotations

from hybridalloc.training.config import TrainConfig
from hybridalloc.training.evaluation import Evaluation, evaluate
from hybridalloc.training.trainer import Trained, train

__all__ = ["Evaluation", "TrainConfig", "Trained", "evaluate", "train"]
