"""Learning rates as pure functions of what has happened so far: a resumed run needs no scheduler state."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch.optim.lr_scheduler import ReduceLROnPlateau

from thriftylib.spec import Constant, OneCycle, Plateau, Recipe, Steps


def learning_rate(recipe: Recipe, epoch: int, step: int, steps_per_epoch: int, monitored: Sequence[float]) -> float:
    """The rate of step ``step`` (from 0) in ``epoch`` (from 0).

    ``monitored`` holds the plateau's quantity for every finished epoch; other schedules ignore it.
    """
    schedule = recipe.schedule
    match schedule:
        case Constant():
            return recipe.learning_rate
        case Steps():
            passed = sum(milestone <= epoch for milestone in schedule.milestones)
            return recipe.learning_rate * schedule.factor**passed
        case Plateau():
            return _after_plateaus(schedule, recipe.learning_rate, monitored)
        case OneCycle():
            return recipe.learning_rate * _cycle(
                schedule, epoch * steps_per_epoch + step, recipe.epochs * steps_per_epoch
            )


def _cycle(schedule: OneCycle, step: int, steps: int) -> float:
    """The share of the peak rate at ``step`` of ``steps``: above 0 at the first, just above ``final`` at the last."""
    warmup = round(schedule.warmup * steps)
    if step < warmup:
        return (step + 1) / (warmup + 1)
    done = (step - warmup) / max(1, steps - warmup)
    fall = (1 + math.cos(math.pi * done)) / 2 if schedule.anneal == "cosine" else 1 - done
    return schedule.final + (1 - schedule.final) * fall


def _after_plateaus(schedule: Plateau, rate: float, monitored: Sequence[float]) -> float:
    """Replay PyTorch's own scheduler over the finished epochs."""
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=rate)
    scheduler = ReduceLROnPlateau(
        optimizer, factor=schedule.factor, patience=schedule.patience, min_lr=schedule.min_learning_rate
    )
    for value in monitored:
        scheduler.step(value)
    return optimizer.param_groups[0]["lr"]
