"""Records that another machine made, checked one by one and put among the committed ones, with their weights.

A record is refused where it is corrupt or inconsistent, is of no experiment, has weights that are not those it names or
do not give its accuracy, or where another record of the run is there already.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from thriftylib.datasets.releases import present
from thriftylib.errors import RecordError, ThriftyError
from thriftylib.evidence.consistency import check, same_accuracy
from thriftylib.evidence.records import Record, load_record, load_records, save_record
from thriftylib.experiments.base import EXPERIMENTS
from thriftylib.options import MethodOptions, NetworkOptions, find
from thriftylib.paths import data_root, results_dir, weights_dir, write_atomically
from thriftylib.running.execute import verify_weights
from thriftylib.spec import Run

MAX_WEIGHTS = 1_000_000
"""Bytes of a weight file that is committed; a record of larger weights comes without them."""


@dataclass(frozen=True)
class Outcome:
    """What came of one file: ``done`` is "adopted", "there already" or "refused"; ``why`` is a line on it."""

    path: Path
    done: str
    why: str = ""
    record: Record | None = None


def adopt(
    folder: Path, *, data: Path | None = None, device: str = "auto", check_only: bool = False
) -> Iterator[Outcome]:
    """Check every record (``runs/<id>.json``) and weight file that trainings wrote below a folder; adopt what is sound.

    Parents come before what started from them. Weights are evaluated where their data set is there.

    Args:
        folder: what ``thrifty train --out`` wrote, or a checkout's ``local``.
        data: folder of the data sets.
        check_only: write nothing.

    Raises:
        ThriftyError: the folder holds no records, or nothing can be written.
    """
    known, weights = {record.id: record for record in load_records(results_dir())}, folder / "weights"
    runs = next((place for place in (folder / "runs", folder / "results" / "runs") if place.is_dir()), None)
    paths = sorted(runs.glob("*.json")) if runs else []
    if not paths:
        raise ThriftyError(f"{folder}: holds no records (runs/*.json); give the folder of thrifty train --out")
    presets, found = _configurations(), list[tuple[Path, Record]]()
    for path in paths:
        try:
            found.append((path, load_record(path)))
        except ThriftyError as error:
            yield Outcome(path, "refused", str(error))
    named = {record.weights.file for _, record in found if record.weights}
    while found:  # parents first, though one may name a parent that is nowhere
        later = [(path, record) for path, record in found if _waits(record, [each for _, each in found], known)]
        for path, record in [each for each in found if each not in later] or found:
            outcome = _settle(path, record, known, presets, weights, data=data, device=device, check_only=check_only)
            if outcome.done == "adopted":
                known[record.id] = record
            yield outcome
        found = later if len(later) < len(found) else []
    for path in sorted(weights.glob("*.safetensors")):
        if path.name not in named:
            yield Outcome(path, "refused", "no sound record names these weights")


def _configurations() -> dict[str, str]:
    """The preset of each configuration that an experiment trains, the real data's before those of the smoke tests."""
    found: dict[str, str] = {}
    for preset in ("paper", "fast", "smoke"):
        for experiment in EXPERIMENTS.values():
            for configuration in experiment.configurations(preset):
                found.setdefault(configuration.run.configuration, preset)
    return found


def _waits(record: Record, others: list[Record], known: Mapping[str, Record]) -> bool:
    return not _has_parent(record.run, known.values()) and _has_parent(record.run, others)


def _has_parent(run: Run, records: Iterable[Record]) -> bool:
    return run.parent is None or any((r.run.configuration, r.run.seed) == (run.parent, run.seed) for r in records)


def _settle(
    path: Path,
    record: Record,
    known: Mapping[str, Record],
    presets: Mapping[str, str],
    weights: Path,
    *,
    data: Path | None,
    device: str,
    check_only: bool,
) -> Outcome:
    """Adopt one record, unless something is wrong with it."""
    try:
        if record.id in known:
            if _comparable(known[record.id]) == _comparable(record):
                return Outcome(path, "there already", record=record)
            raise RecordError("another record of this run is there already; a run has one")
        _check(record, known, presets)
        notes, content = _weights(record, weights, data, device)
        if record.commit is None or record.commit.endswith("+"):
            notes.append(f"its code is no commit: {record.commit or record.sessions[-1].no_commit}")
    except ThriftyError as error:
        return Outcome(path, "refused", str(error), record)
    if not check_only:
        if content is not None:
            write_atomically(weights_dir() / record.weights.file, content)
        save_record(record if content is not None else record.model_copy(update={"weights": None}), results_dir())
    return Outcome(path, "adopted", "; ".join(notes), record)


def _comparable(record: Record) -> Record:
    return record.model_copy(update={"weights": None})  # large ones are left out


def _check(record: Record, known: Mapping[str, Record], presets: Mapping[str, str]) -> None:
    """What a record says of its run, against today's code and the other records.

    Raises:
        ThriftyError: a line that says what is wrong.
    """
    run = record.run
    find(NetworkOptions, run.network.name)  # imports the paper, whose closed form the record's cost is compared with
    if run.method:
        find(MethodOptions, run.method.name)
    if Run.model_validate(run.model_dump()).id != record.id:
        raise RecordError(f"run {record.id}: its options mean another run today")
    check(record)  # once more: its network's cost is known now
    preset = presets.get(run.configuration)
    if preset is None:
        raise RecordError(f"run {record.id}: no experiment has this configuration in its grid (thrifty list)")
    if preset == "smoke":
        raise RecordError(f"run {record.id}: a smoke test on {run.data.name}, which answers no claim")
    if not _has_parent(run, known.values()):
        raise RecordError(
            f"run {record.id}: starts from {run.parent} with seed {run.seed}, of which there is no record"
        )


def _weights(record: Record, folder: Path, data: Path | None, device: str) -> tuple[list[str], bytes | None]:
    """What is to be said of a record's weights, and the file's bytes where it is to be committed.

    Raises:
        ThriftyError: they are missing, others, or do not give the accuracy of the record.
    """
    if record.weights is None:
        return ["names no weights"] if record.run.recipe else [], None
    path = folder / record.weights.file
    if not path.is_file():
        raise RecordError(f"{path}: missing, though record {record.id} names it")
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != record.weights.sha256 or len(content) != record.weights.bytes:
        raise RecordError(f"{path}: not the file that record {record.id} names: its SHA-256 or its size is another")
    notes = []
    if record.kept is not None and record.kept.shapes is None:
        notes.append("accuracy not checked: the kept network has layers of its own")
    elif record.final_accuracy is None:
        notes.append("no accuracy to check")
    elif record.run.data.name != "digits" and not present(record.run.data.name, data_root(data)):
        notes.append(f"accuracy not checked: {record.run.data.name} is not in {data_root(data)}")
    else:
        now = verify_weights(record, folder, device=device, data=data)
        if abs(now - record.final_accuracy) > same_accuracy(record.run):
            raise RecordError(
                f"run {record.id}: its weights reach {now:.2f} %, its record says {record.final_accuracy:.2f} %"
            )
        notes.append(f"its weights reach {now:.2f} %")
    if len(content) > MAX_WEIGHTS:
        notes.append(f"without its weights: {len(content):,} bytes, more than {MAX_WEIGHTS:,}")
        return notes, None
    return notes, content
