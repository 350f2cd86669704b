"""What a record states against what its run implies: each fault names the field, the value and the right one. No torch.

A record is only our word. So whatever of it follows from its run, or from another part of it, is worked out again
when it is read: learning rates from the schedule, best and last from the series, accuracies as whole numbers of images,
times as sums. The closed-form cost needs the network's paper; it is checked wherever that is imported (training,
``verify``, notebooks, tests), since reading alone must not import torch.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
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
    """Compare all of a record with what it implies.

    Raises:
        RecordError: the record is inconsistent; names the field and both values.
    """
    for faults in (_form, _series, _equal, _sessions, _status, _learning_rates, _images, _times, _kept):
        for fault in faults(record):
            raise RecordError(fault)


def same_accuracy(run: Run) -> float:
    """Points of test accuracy by which two evaluations of the same weights may differ.

    Other devices, precisions and memory formats round a few logits the other way: three images, or 0.1 points.
    """
    return max(0.1, 100 * _FEW_IMAGES / (run.data.test_images or run.data.info.test))


def check_utc(field: str, text: str) -> datetime:
    """The moment that an ISO date, or a time in UTC, names.

    Raises:
        RecordError: ``text`` is neither.
    """
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is None or (len(text) > 10 and moment.utcoffset() != timedelta(0)):
        raise RecordError(f"{field} = {text!r}: must be an ISO date or time in UTC such as '2026-01-31T12:00:00+00:00'")
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _form(record: Record) -> Iterator[str]:
    if missing := [name for name in VERSIONS if name not in record.versions]:
        yield f"versions: lacks {', '.join(missing)}"
    if missing := [name for name in SERIES if name not in record.series]:
        yield f"series: lacks {', '.join(missing)}"
    for field, text in [("finished", record.finished)] + [
        ("sessions.started", each.started) for each in record.sessions
    ]:
        check_utc(field, text)


def _equal(record: Record) -> Iterator[str]:
    """What is stated twice is the same."""
    best, final = points(record.series)
    pairs = [
        ("id", record.id, "the run's own id is", record.run.id),
        ("best", record.best, "the series say", best),
        ("final", record.final, "the series say", final),
    ]
    if record.weights:
        pairs.append(("weights.file", record.weights.file, "must be", f"{record.id}.safetensors"))
    if record.sessions:
        pairs.append(("sittings", record.sittings, "the number of sessions is", len(record.sessions)))
        for name in ("commit", "device", "threads", "versions"):
            pairs.append((name, getattr(record, name), "the last session's is", getattr(record.sessions[-1], name)))
    if record.kept and record.kept.shapes == {}:
        for name, value in record.cost:
            pairs.append((f"kept.{name}", getattr(record.kept, name), "nothing was narrowed, and cost has", value))
    if record.run.network.name in NetworkOptions.known:  # only where its paper is imported anyway: see this module
        for name, value in record.cost.of(record.run.cost):
            pairs.append((f"cost.{name}", getattr(record.cost, name), "the run's network has", value))
    for field, stated, source, implied in pairs:
        if stated != implied:
            yield f"{field} = {stated!r}: {source} {implied!r}"


def _sessions(record: Record) -> Iterator[str]:
    for session in record.sessions:
        if session.seconds and session.precision != record.precision:  # else nothing of it is in the result
            yield f"sessions.precision = {session.precision!r}: the record's is {record.precision!r}"
        if (session.commit is None) != bool(session.no_commit):
            yield "sessions.no_commit: must say why where there is no commit, and only there"
    starts = [check_utc("sessions.started", session.started) for session in record.sessions]
    if starts != sorted(starts):
        yield "sessions.started: must rise"
    took = record.sessions[-1].seconds if record.sessions else 0.0
    if starts and check_utc("finished", record.finished) < starts[-1] + timedelta(seconds=took - _CLOCKS):
        yield f"finished = {record.finished!r}: the last session, of {starts[-1]}, took longer"


def _series(record: Record) -> Iterator[str]:
    for name, values in record.series.items():
        known = [value for value in values if value is not None]
        low, high = min(known, default=0), max(known, default=0)
        if len(values) != record.epochs:
            yield f"series.{name} has {len(values)} values: epochs = {record.epochs}"
        if name.endswith("_accuracy") and not 0 <= low <= high <= 100:
            yield f"series.{name}: must be percent, 0 to 100"
        if name in ("learning_rate", "seconds") and (len(known) < len(values) or low < 0):
            yield f"series.{name}: must be 0 or more in each epoch"
        if name in ("train_loss", "test_loss", "validation_loss") and low < 0:
            yield f"series.{name} = {low}: a cross-entropy is 0 or more"


def _status(record: Record) -> Iterator[str]:
    train, test = record.series["train_loss"], record.series["test_loss"]
    diverged = None in train or all(loss is None for loss in test)
    asked, is_complete = record.run.epochs, record.status == "complete"
    if record.epochs > asked:
        yield f"epochs = {record.epochs}: the recipe has {asked}"
    if is_complete and asked and (record.epochs != asked or record.final is None):
        yield f"status = 'complete' with {record.epochs} epochs measured: the recipe has {asked}"
    if is_complete and asked and diverged:
        yield "status = 'complete': a train loss, or every test loss, is not finite: it is 'diverged'"
    if not is_complete and record.epochs and not diverged:
        yield "status = 'diverged': all train losses are finite, and so is a test loss"
    if not asked and not (is_complete and record.measured):
        yield "measured: is empty, and the run has no recipe, so it has no outcome"


def _learning_rates(record: Record) -> Iterator[str]:
    recipe, data = record.run.recipe, record.run.data
    if recipe is None:
        return
    steps = steps_per_epoch(data.training_images, recipe.batch_size)
    monitored = record.series.get(recipe.schedule.monitor, []) if isinstance(recipe.schedule, Plateau) else []
    for epoch, stated in enumerate(record.series["learning_rate"]):
        implied = learning_rate(recipe, epoch, steps - 1, steps, monitored[:epoch])
        if not math.isclose(stated, implied, rel_tol=1e-9, abs_tol=1e-15):
            yield f"series.learning_rate = {stated} in epoch {epoch}: the schedule gives {implied}"


def _images(record: Record) -> Iterator[str]:
    """Accuracies are whole numbers of images."""
    data = record.run.data
    for split, images in (("test", data.test_images or data.info.test), ("validation", data.validation_images)):
        name = f"{split}_accuracy"
        stated = [(f"series.{name}", value) for value in record.series.get(name, [])]
        stated += [(f"kept.{name}", getattr(record.kept, name, None))]
        for field, value in stated:
            if value is not None and not images:
                yield f"{field} = {value}: the run has no {split} images"
            if value is not None and abs(value * images / 100 - round(value * images / 100)) > 1e-6:
                yield f"{field} = {value}: is no whole number of the {images:,} {split} images"


def _times(record: Record) -> Iterator[str]:
    # Work that a kill threw away is in the total of old records but in no epoch, so there the total may be larger.
    epochs = math.fsum(record.series["seconds"])
    if record.seconds < 0.99 * epochs - 0.1:
        yield f"seconds = {record.seconds}: less than its epochs together ({epochs:.1f})"
    parts = math.fsum(session.seconds for session in record.sessions)
    if record.sessions and abs(parts - record.seconds) > _ROUNDED + 0.001 * len(record.sessions):
        yield f"seconds = {record.seconds}: its sessions together have {parts:.1f}"
    speed = record.images_per_second
    training = record.epochs * record.run.data.training_images / (speed + 0.05) if speed else 0.0
    if training > 1.01 * record.seconds + 1:
        yield f"images_per_second = {speed}: its epochs would take {training:.1f} s, seconds = {record.seconds}"


def _kept(record: Record) -> Iterator[str]:
    kept, run, final = record.kept, record.run, record.final
    from_engine = bool(record.sessions)  # what the engine writes has sessions; older records have none
    if from_engine and run.method is None and record.measured:
        yield "measured: a run without a method measures nothing"
    if kept is None:
        if from_engine and run.recipe is not None:
            yield "kept: is missing, though the record has sessions"
        return
    if kept.test_loss is not None and kept.test_loss < 0:
        yield f"kept.test_loss = {kept.test_loss}: a cross-entropy is 0 or more"
    if bool(run.data.validation_images) != (kept.validation_accuracy is not None):
        yield "kept.validation_accuracy: goes with validation images, and only with them"
    if from_engine and run.method is None and run.parent is None:
        if kept.shapes != {}:
            yield "kept.shapes: a run without a method keeps the network that it trains"
        if final is not None and abs(kept.test_accuracy - final.test_accuracy) > same_accuracy(run):
            yield (
                f"kept.test_accuracy = {kept.test_accuracy}: the last epoch has {final.test_accuracy}, and no method "
                "changed the network"
            )
