"""Loops over decisions: training, evaluation, beliefs, tuning, calibration, rehearsal."""

from __future__ import annotations

from hybridalloc.training.trainer import TrainConfig, evaluate, train

__all__ = ["TrainConfig", "evaluate", "train"]
