"""Learning rates as pure functions of what has happened so far: a resumed run needs no scheduler state. No torch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import AliasChoices, ConfigDict, Field, model_validator

from thriftylib.errors import SpecError
from thriftylib.options import Strict

if TYPE_CHECKING:
    from thriftylib.spec import Recipe

Count = Annotated[int, Field(ge=1)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
Milestones = Annotated[tuple[Count, ...], Field(strict=False, min_length=1)]


class Plateau(Strict):
    """Multiply the learning rate by ``factor`` when ``monitor`` has not improved for more than ``patience`` epochs.

    As in ``torch.optim.lr_scheduler.ReduceLROnPlateau`` with its default relative threshold of 1e-4.
    """

    kind: Literal["plateau"] = "plateau"
    monitor: Literal["test_loss", "train_loss", "validation_loss"] = "test_loss"
    factor: Annotated[float, Field(gt=0, lt=1)] = 0.5
    patience: Annotated[int, Field(ge=0)] = 7
    min_learning_rate: Annotated[float, Field(ge=0)] = 1e-4


class Steps(Strict):
    """Multiply the learning rate by ``factor`` at the start of each epoch in ``milestones`` (counted from 0)."""

    kind: Literal["steps"] = "steps"
    milestones: Milestones
    factor: Annotated[float, Field(gt=0, lt=1)] = 0.1

    @model_validator(mode="after")
    def _rising(self) -> Self:
        if list(self.milestones) != sorted(set(self.milestones)):
            raise SpecError(f"milestones = {list(self.milestones)}: must rise strictly")
        return self


class OneCycle(Strict):
    """Linear warm-up over the fraction ``warmup`` of all steps, then down to ``final_factor`` x the learning rate."""

    model_config = ConfigDict(serialize_by_alias=True)

    kind: Literal["one-cycle"] = "one-cycle"
    warmup: Fraction = 0.2
    anneal: Literal["cosine", "linear"] = "cosine"
    # Records call it "final", and a run's id is the hash of that text.
    final_factor: Fraction = Field(
        0.0, validation_alias=AliasChoices("final_factor", "final"), serialization_alias="final"
    )


class Constant(Strict):
    """The learning rate never changes."""

    kind: Literal["constant"] = "constant"


class Inverse(Strict):
    """Caffe's policy ``inv``: at step t (from 0) the learning rate is multiplied by (1 + gamma t) ** -power."""

    kind: Literal["inverse"] = "inverse"
    gamma: Annotated[float, Field(gt=0)] = 1e-4
    power: Annotated[float, Field(gt=0)] = 0.75


Schedule = Annotated[Plateau | Steps | OneCycle | Constant | Inverse, Field(discriminator="kind")]

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
        case Inverse():
            return peak * (1 + schedule.gamma * (epoch * steps_per_epoch + step)) ** -schedule.power
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
