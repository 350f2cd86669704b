"""What a record states against what its run implies: each check names the field, the value and the right one. No torch.

A record is only our word. So whatever of it follows from its run, or from another part of it, is worked out again
when it is read: learning rates from the schedule, best and last from the series, accuracies as whole numbers of images,
times as sums. The closed-form cost needs the network's paper; it is checked wherever that is imported (training,
``verify``, notebooks, tests), since reading alone must not import torch.
"""

from __future__ import annotations

import math
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from thriftylib.errors import RecordError
from thriftylib.evidence.series import SERIES, points
from thriftylib.options import NetworkOptions
from thriftylib.schedules import learning_rate, steps_per_epoch
from thriftylib.spec import Plateau, Run

if TYPE_CHECKING:
    from thriftylib.evidence.records import Record

VERSIONS = ("python", "torch", "torchvision", "thriftylib")
"""The versions that every record names."""

_FEW_IMAGES = 3
_CLOCKS = 2.0  # seconds: two clocks, and times that are recorded whole
_ROUNDED = 0.06  # seconds: the total is recorded to a tenth, sessions to a thousandth


def check(record: Record) -> None:
    """All checks of this module.

    Raises:
        RecordError: the record is inconsistent; names the field and both values.
    """
    _check_identity(record)
    _check_series(record)
    _check_status(record)
    _check_learning_rates(record)
    _check_grid(record)
    _check_times(record)
    _check_kept(record)
    _check_cost(record)


def _check_identity(record: Record) -> None:
    if record.id != record.run.id:
        raise RecordError(
            f"id = {record.id!r}: the run's own id is {record.run.id!r}, so the run or its id was changed"
        )
    if missing := [name for name in VERSIONS if name not in record.versions]:
        raise RecordError(f"versions: lacks {', '.join(missing)}")
    if record.weights is not None and record.weights.file != f"{record.id}.safetensors":
        raise RecordError(f"weights.file = {record.weights.file!r}: must be '{record.id}.safetensors'")
    check_utc("finished", record.finished)
    if record.sessions:
        if len(record.sessions) != record.sittings:
            raise RecordError(f"sessions: has {len(record.sessions)}, sittings = {record.sittings}")
        for session in record.sessions:
            check_utc("sessions.started", session.started)
            if session.seconds and session.precision != record.precision:  # else nothing of it is in the result
                raise RecordError(f"sessions.precision = {session.precision!r}: the record's is {record.precision!r}")
            if (session.commit is None) != bool(session.no_commit):
                raise RecordError("sessions.no_commit: must say why where there is no commit, and only there")
        starts = [datetime.fromisoformat(session.started) for session in record.sessions]
        last, finished = record.sessions[-1], datetime.fromisoformat(record.finished)
        if starts != sorted(starts):
            raise RecordError("sessions.started: must rise")
        if finished < starts[-1] + timedelta(seconds=last.seconds - _CLOCKS):
            raise RecordError(f"finished = {record.finished!r}: the last session, of {last.started}, took longer")
        for name in ("commit", "device", "threads", "versions"):
            if getattr(last, name) != getattr(record, name):
                raise RecordError(f"{name} = {getattr(record, name)!r}: the last session's is {getattr(last, name)!r}")


def _check_series(record: Record) -> None:
    if missing := [name for name in SERIES if name not in record.series]:
        raise RecordError(f"series: lacks {', '.join(missing)}")
    for name, values in record.series.items():
        if len(values) != record.epochs:
            raise RecordError(f"series.{name} has {len(values)} values: epochs = {record.epochs}")
        known = [value for value in values if value is not None]
        if name.endswith("_accuracy") and not all(0 <= value <= 100 for value in known):
            raise RecordError(f"series.{name}: must be percent, 0 to 100")
        if name in ("learning_rate", "seconds") and (len(known) < len(values) or any(value < 0 for value in known)):
            raise RecordError(f"series.{name}: must be 0 or more in each epoch")
        if name in ("train_loss", "test_loss", "validation_loss") and any(value < 0 for value in known):
            raise RecordError(f"series.{name} = {min(known)}: a cross-entropy is 0 or more")


def _check_status(record: Record) -> None:
    best, final = points(record.series)
    for name, said, shown in (("best", record.best, best), ("final", record.final, final)):
        if said != shown:
            raise RecordError(f"{name} = {_show(said)}: the series say {_show(shown)}")
    wanted = record.run.epochs
    if record.epochs > wanted:
        raise RecordError(f"epochs = {record.epochs}: the recipe has {wanted}")
    if record.status == "complete" and wanted:
        if record.epochs != wanted or final is None:
            raise RecordError(f"status = 'complete' with {record.epochs} epochs measured: the recipe has {wanted}")
        if _lost(record):
            raise RecordError("status = 'complete': a train loss, or every test loss, is not finite: it is 'diverged'")
    if record.status == "diverged" and record.epochs and not _lost(record):
        raise RecordError("status = 'diverged': all train losses are finite, and so is a test loss")
    if not wanted and (record.status != "complete" or not record.measured):
        raise RecordError("measured: is empty, and the run has no recipe, so it has no outcome")


def same_accuracy(run: Run) -> float:
    """Points of test accuracy by which two evaluations of the same weights may differ.

    Other devices, precisions and memory formats round a few logits the other way: three images, or 0.1 points.
    """
    return max(0.1, 100 * _FEW_IMAGES / (run.data.test_images or run.data.info.test))


def _lost(record: Record) -> bool:
    """Whether the series say that the run diverged."""
    train, test = record.series["train_loss"], record.series["test_loss"]
    return any(loss is None for loss in train) or all(loss is None for loss in test)


def _check_learning_rates(record: Record) -> None:
    recipe, data = record.run.recipe, record.run.data
    if recipe is None:
        return
    steps = steps_per_epoch(data.training_images, recipe.batch_size)
    monitored = record.series.get(recipe.schedule.monitor, []) if isinstance(recipe.schedule, Plateau) else []
    for epoch, said in enumerate(record.series["learning_rate"]):
        implied = learning_rate(recipe, epoch, steps - 1, steps, monitored[:epoch])
        if not math.isclose(said, implied, rel_tol=1e-9, abs_tol=1e-15):
            raise RecordError(f"series.learning_rate = {said} in epoch {epoch}: the schedule gives {implied}")


def _check_grid(record: Record) -> None:
    """Accuracies are whole numbers of images."""
    data = record.run.data
    images = {"test": data.test_images or data.info.test, "validation": data.validation_images}
    said = [
        (f"series.{split}_accuracy", split, value)
        for split in images
        for value in record.series.get(f"{split}_accuracy", [])
    ]
    if record.kept is not None:
        said.append(("kept.test_accuracy", "test", record.kept.test_accuracy))
        said.append(("kept.validation_accuracy", "validation", record.kept.validation_accuracy))
    for name, split, value in said:
        if value is None:
            continue
        if not images[split]:
            raise RecordError(f"{name} = {value}: the run has no {split} images")
        if abs(value * images[split] / 100 - round(value * images[split] / 100)) > 1e-6:
            raise RecordError(f"{name} = {value}: is no whole number of the {images[split]:,} {split} images")


def _check_times(record: Record) -> None:
    # Work that a kill threw away is in the total of old records but in no epoch, so there the total may be larger.
    epochs = math.fsum(record.series["seconds"])
    if record.seconds < 0.99 * epochs - 0.1:
        raise RecordError(f"seconds = {record.seconds}: less than its epochs together ({epochs:.1f})")
    if record.sessions:
        parts = math.fsum(session.seconds for session in record.sessions)
        if abs(parts - record.seconds) > _ROUNDED + 0.001 * len(record.sessions):
            raise RecordError(f"seconds = {record.seconds}: its sessions together have {parts:.1f}")
    if record.epochs and record.images_per_second:
        training = record.epochs * record.run.data.training_images / (record.images_per_second + 0.05)
        if training > 1.01 * record.seconds + 1:
            raise RecordError(
                f"images_per_second = {record.images_per_second}: its epochs would take {training:.1f} s, "
                f"more than seconds = {record.seconds}"
            )


def _check_kept(record: Record) -> None:
    kept, is_engines = (
        record.kept,
        bool(record.sessions),
    )  # what the engine writes has sessions; older records have none
    if is_engines and record.run.method is None and record.measured:
        raise RecordError("measured: a run without a method measures nothing")
    if kept is None:
        if is_engines and record.run.recipe is not None:
            raise RecordError("kept: is missing, though the record has sessions")
        return
    if kept.test_loss is not None and kept.test_loss < 0:
        raise RecordError(f"kept.test_loss = {kept.test_loss}: a cross-entropy is 0 or more")
    if bool(record.run.data.validation_images) != (kept.validation_accuracy is not None):
        raise RecordError("kept.validation_accuracy: goes with validation images, and only with them")
    if is_engines and record.run.method is None and record.run.parent is None:
        room = same_accuracy(record.run)
        if kept.shapes != {}:
            raise RecordError("kept.shapes: a run without a method keeps the network that it trains")
        if record.final is not None and abs(kept.test_accuracy - record.final.test_accuracy) > room:
            raise RecordError(
                f"kept.test_accuracy = {kept.test_accuracy}: the last epoch has {record.final.test_accuracy}, and no "
                "method changed the network"
            )
    if kept.shapes is None or kept.shapes:
        return
    for name in ("parameters", "macs", "ptflops_macs", "weight_bytes", "activation_bytes"):
        if getattr(kept, name) != getattr(record.cost, name):
            raise RecordError(
                f"kept.{name} = {getattr(kept, name)}: nothing was narrowed, and cost has {getattr(record.cost, name)}"
            )


def _check_cost(record: Record) -> None:
    """Only where the network's paper is imported anyway: see this module."""
    if record.run.network.name not in NetworkOptions.known:
        return
    for name, value in record.cost.of(record.run.cost).model_dump().items():
        if getattr(record.cost, name) != value:
            raise RecordError(f"cost.{name} = {getattr(record.cost, name)}: the run's network has {value}")


def check_utc(field: str, text: str) -> None:
    """Raises RecordError unless ``text`` is an ISO date, or a time in UTC."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is None or (len(text) > 10 and moment.utcoffset() != timedelta(0)):
        raise RecordError(f"{field} = {text!r}: must be an ISO date or time in UTC such as '2026-01-31T12:00:00+00:00'")


def _show(point: object | None) -> str:
    return "none" if point is None else f"{point.test_accuracy} in epoch {point.epoch} (loss {point.test_loss})"
