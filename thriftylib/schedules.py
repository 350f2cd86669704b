"""Learning rates as pure functions of what has happened so far: a resumed run needs no scheduler state. No torch."""

from __future__ import annotations

import math
from collections.abc import Sequence

from thriftylib.spec import OneCycle, Plateau, Recipe, Steps

_THRESHOLD, _MIN_CHANGE = 1e-4, 1e-8  # PyTorch's defaults: relative improvement, smallest change of the learning rate


def learning_rate(
    recipe: Recipe, epoch: int, step: int, steps_per_epoch: int, monitored: Sequence[float | None]
) -> float:
    """The learning rate of step ``step`` (from 0) in ``epoch`` (from 0).

    ``monitored`` holds the plateau's quantity for every finished epoch; other schedules ignore it.
    """
    schedule, peak = recipe.schedule, recipe.learning_rate
    match schedule:
        case Steps():
            return peak * schedule.factor ** sum(milestone <= epoch for milestone in schedule.milestones)
        case Plateau():
            return _after_plateaus(schedule, peak, monitored)
        case OneCycle():
            return peak * _cycle(schedule, epoch * steps_per_epoch + step, recipe.epochs * steps_per_epoch)
    return peak


def steps_per_epoch(images: int, batch_size: int) -> int:
    """Steps over ``images``; a last batch of one image is left out: batch norm cannot learn from one value."""
    full, rest = divmod(images, batch_size)
    return full + (rest > 1)


def _cycle(schedule: OneCycle, step: int, steps: int) -> float:
    """The factor at ``step`` of ``steps``: above 0 at the first, just above ``final_factor`` at the last."""
    warmup = round(schedule.warmup * steps)
    if step < warmup:
        return (step + 1) / (warmup + 1)
    done = (step - warmup) / max(1, steps - warmup)
    fall = (1 + math.cos(math.pi * done)) / 2 if schedule.anneal == "cosine" else 1 - done
    return schedule.final_factor + (1 - schedule.final_factor) * fall


def _after_plateaus(schedule: Plateau, rate: float, monitored: Sequence[float | None]) -> float:
    """``torch.optim.lr_scheduler.ReduceLROnPlateau`` over the finished epochs, to the bit; None: not finite."""
    best, bad = math.inf, 0
    for value in monitored:
        if value is not None and value < best * (1 - _THRESHOLD):
            best, bad = value, 0
        else:
            bad += 1
        if bad > schedule.patience:
            lowered, bad = max(rate * schedule.factor, schedule.min_learning_rate), 0
            rate = lowered if rate - lowered > _MIN_CHANGE else rate
    return rate
