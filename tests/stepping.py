"""A training step by step, without data on disk, progress or records."""

from __future__ import annotations

import torch

from thriftylib.datasets.load import load
from thriftylib.spec import Run
from thriftylib.training.progress import Progress
from thriftylib.training.trainer import Trainer

CPU = torch.device("cpu")


def trainer_of(run: Run) -> Trainer:
    """Its training before the first step, on the CPU in fp32."""
    return Trainer(run, load(run.data, seed=run.seed), CPU, "fp32")


def advance(trainer: Trainer, steps: int = 10**9) -> Trainer:
    """So many steps on, or to the end."""
    report = Progress(trainer.run, 1, 0, shown=False)
    while not trainer.finished and steps:
        trainer.step(report)
        steps -= 1
    return trainer
