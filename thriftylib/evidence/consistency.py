"""What a record states against what its run implies: each fault names the field, the value and the right one. No torch.

A record is only our word. So whatever of it follows from its run, or from another part of it, is worked out again when
it is read. The closed-form cost needs the network's paper; it is checked wherever that is imported (training,
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
from thriftylib.schedules import Plateau, learning_rate, steps_per_epoch
from thriftylib.spec import Run

if TYPE_CHECKING:
    from thriftylib.evidence.records import Record

Checks = Iterator[tuple[object, str]]
"""What may be wrong: whether it is, and what to say then."""
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
        for is_so, fault in faults(record):
            if is_so:
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


def _form(record: Record) -> Checks:
    for field, names in (("versions", VERSIONS), ("series", SERIES)):
        missing = [name for name in names if name not in getattr(record, field)]
        yield missing, f"{field}: lacks {', '.join(missing)}"


def _series(record: Record) -> Checks:
    for name, values in record.series.items():
        known = [value for value in values if value is not None]
        low, high = min(known, default=0), max(known, default=0)
        no_percent = name.endswith("_accuracy") and not 0 <= low <= high <= 100
        has_gap = name in ("learning_rate", "seconds") and (len(known) < len(values) or low < 0)
        is_loss = name in ("train_loss", "test_loss", "validation_loss")
        yield len(values) != record.epochs, f"series.{name} has {len(values)} values: epochs = {record.epochs}"
        yield no_percent, f"series.{name}: must be percent, 0 to 100"
        yield has_gap, f"series.{name}: must be 0 or more in each epoch"
        yield is_loss and low < 0, f"series.{name} = {low}: a cross-entropy is 0 or more"


def _equal(record: Record) -> Checks:
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
        yield stated != implied, f"{field} = {stated!r}: {source} {implied!r}"


def _sessions(record: Record) -> Checks:
    finished = check_utc("finished", record.finished)
    starts = [check_utc("sessions.started", session.started) for session in record.sessions]
    yield starts != sorted(starts), "sessions.started: must rise"
    for session in record.sessions:
        is_other = session.seconds and session.precision != record.precision  # else nothing of it is in the result
        yield is_other, f"sessions.precision = {session.precision!r}: the record's is {record.precision!r}"
        is_unsaid = (session.commit is None) != bool(session.no_commit)
        yield is_unsaid, "sessions.no_commit: must say why where there is no commit, and only there"
    if record.sessions:
        end = starts[-1] + timedelta(seconds=record.sessions[-1].seconds - _CLOCKS)
        yield finished < end, f"finished = {record.finished!r}: the last session, of {starts[-1]}, took longer"


def _status(record: Record) -> Checks:
    train, test = record.series["train_loss"], record.series["test_loss"]
    diverged = None in train or all(loss is None for loss in test)
    epochs, asked, is_complete = record.epochs, record.run.epochs, record.status == "complete"
    is_short = is_complete and asked and (epochs != asked or record.final is None)
    is_finite = not is_complete and epochs and not diverged
    is_empty = not asked and not (is_complete and record.measured)
    yield epochs > asked, f"epochs = {epochs}: the recipe has {asked}"
    yield is_short, f"status = 'complete' with {epochs} epochs measured: the recipe has {asked}"
    yield (
        is_complete and asked and diverged,
        "status = 'complete': train loss or every test loss is not finite: diverged",
    )
    yield is_finite, "status = 'diverged': all train losses are finite, and so is a test loss"
    yield is_empty, "measured: is empty, and the run has no recipe, so it has no outcome"


def _learning_rates(record: Record) -> Checks:
    recipe, data = record.run.recipe, record.run.data
    if recipe is None:
        return
    steps = steps_per_epoch(data.training_images, recipe.batch_size)
    monitored = record.series.get(recipe.schedule.monitor, []) if isinstance(recipe.schedule, Plateau) else []
    for epoch, stated in enumerate(record.series["learning_rate"]):
        implied = learning_rate(recipe, epoch, steps - 1, steps, monitored[:epoch])
        is_other = not math.isclose(stated, implied, rel_tol=1e-9, abs_tol=1e-15)
        yield is_other, f"series.learning_rate = {stated} in epoch {epoch}: the schedule gives {implied}"


def _images(record: Record) -> Checks:
    """Accuracies are whole numbers of images."""
    data = record.run.data
    for split, images in (("test", data.test_images or data.info.test), ("validation", data.validation_images)):
        name = f"{split}_accuracy"
        stated = [(f"series.{name}", value) for value in record.series.get(name, [])]
        stated += [(f"kept.{name}", getattr(record.kept, name, None))]
        for field, value in stated:
            if value is not None:
                correct = value * images / 100
                yield not images, f"{field} = {value}: the run has no {split} images"
                yield abs(correct - round(correct)) > 1e-6, f"{field} = {value}: no whole number of {images:,} images"


def _times(record: Record) -> Checks:
    # Work that a kill threw away is in the total of old records but in no epoch, so there the total may be larger.
    seconds, speed = record.seconds, record.images_per_second
    epochs = math.fsum(record.series["seconds"])
    sessions = math.fsum(session.seconds for session in record.sessions)
    differs = record.sessions and abs(sessions - seconds) > _ROUNDED + 0.001 * len(record.sessions)
    training = record.epochs * record.run.data.training_images / (speed + 0.05) if speed else 0.0
    too_fast = training > 1.01 * seconds + 1
    yield seconds < 0.99 * epochs - 0.1, f"seconds = {seconds}: less than its epochs together ({epochs:.1f})"
    yield differs, f"seconds = {seconds}: its sessions together have {sessions:.1f}"
    yield too_fast, f"images_per_second = {speed}: its epochs would take {training:.1f} s, seconds = {seconds}"


def _kept(record: Record) -> Checks:
    kept, run, final = record.kept, record.run, record.final
    from_engine = bool(record.sessions)  # what the engine writes has sessions; older records have none
    unmeasured = from_engine and run.method is None and record.measured
    is_missing = from_engine and run.recipe is not None and kept is None
    yield unmeasured, "measured: a run without a method measures nothing"
    yield is_missing, "kept: is missing, though the record has sessions"
    if kept is None:
        return
    loss, accuracy, is_split = kept.test_loss, kept.test_accuracy, bool(run.data.validation_images)
    unasked = is_split != (kept.validation_accuracy is not None)
    yield loss is not None and loss < 0, f"kept.test_loss = {loss}: a cross-entropy is 0 or more"
    yield unasked, "kept.validation_accuracy: goes with validation images, and only with them"
    if from_engine and run.method is None and run.parent is None:
        last = accuracy if final is None else final.test_accuracy
        is_other = abs(accuracy - last) > same_accuracy(run)
        yield kept.shapes != {}, "kept.shapes: a run without a method keeps the network that it trains"
        yield is_other, f"kept.test_accuracy = {accuracy}: last epoch {last}, and no method changed the network"
