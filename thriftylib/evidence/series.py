"""The series of a record, one value per epoch, and the epochs that are read from them. No torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated

from pydantic import Field

from thriftylib.options import Strict

SERIES = ("train_loss", "train_accuracy", "test_loss", "test_accuracy", "learning_rate", "seconds")
"""The series that every record has, one value per epoch; accuracies in percent, times in seconds."""

Series = dict[str, list[float | None]]
Percent = Annotated[float, Field(ge=0, le=100)]
Whole = Annotated[int, Field(ge=0)]


class Point(Strict):
    """The test accuracy (percent) and loss after ``epoch``, which counts from 0 as everywhere."""

    epoch: Whole
    test_accuracy: Percent
    test_loss: float | None = None


def points(series: Mapping[str, Sequence[float | None]]) -> tuple[Point | None, Point | None]:
    """The best point (highest test accuracy, the earliest of equals) and the last epoch's; None: none measured."""
    losses = series["test_loss"]
    measured = [
        Point(epoch=epoch, test_accuracy=accuracy, test_loss=loss)
        for epoch, (accuracy, loss) in enumerate(zip(series["test_accuracy"], losses, strict=True))
        if accuracy is not None
    ]
    best = max(measured, key=lambda point: point.test_accuracy, default=None)
    return best, measured[-1] if measured and measured[-1].epoch == len(losses) - 1 else None
