"""From a finished training to what is kept of it: the kept network, its weights and the record."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn

from thriftylib.datasets.load import Dataset
from thriftylib.errors import RecordError, SpecError
from thriftylib.evidence.records import Counted, Kept, Record, Session, Weights, load_records
from thriftylib.evidence.series import SERIES, points
from thriftylib.method import Parent
from thriftylib.narrowing import Shape, different_shapes, fit
from thriftylib.paths import write_atomically
from thriftylib.spec import Run
from thriftylib.training.counting import count, first_difference
from thriftylib.training.device import Precision
from thriftylib.training.evaluation import as_input, evaluate
from thriftylib.training.hooks import Numbers


def keep(run: Run, network: nn.Module, dataset: Dataset, device: torch.device, precision: Precision) -> Kept:
    """Count and evaluate the network that a run leaves, built again from its shapes and loaded as a reader would."""
    built, shapes = _build(run, network.state_dict())
    network = (network if shapes is None else built).to(device, memory_format=torch.channels_last).eval()
    with torch.no_grad():
        logits, classes = network(as_input(dataset.test.images[:1], dataset, "fp32")), len(dataset.info.classes)
    if logits.shape != (1, classes):
        raise SpecError(
            f"finish: the network answers an image by {tuple(logits.shape)[1:]} numbers: must be {classes} logits"
        )
    loss, accuracy = evaluate(network, dataset.test, dataset, device, precision)
    validation = dataset.validation and evaluate(network, dataset.validation, dataset, device, precision)[1]
    return Kept(
        **count(network, dataset.info.image_shape).model_dump(),
        test_accuracy=accuracy,
        test_loss=_finite(loss),
        validation_accuracy=validation,
        shapes=shapes,
    )


def make_record(
    run: Run,
    sessions: Sequence[Session],
    measured: Numbers,
    *,
    series: Mapping[str, list[float]] | None = None,
    diverged: bool = False,
    images_per_second: float = 0.0,
    weights: Weights | None = None,
    kept: Kept | None = None,
) -> Record:
    """The record of a finished run: all that a verdict, a figure or a doubter may ask.

    ``seconds`` of each session are those that the result holds. A run that measures only has no series.
    """
    sessions = [session.model_copy(update={"seconds": round(session.seconds, 3)}) for session in sessions]
    last = sessions[-1]
    finite = {name: _finite(values) for name, values in (series or {name: [] for name in SERIES}).items()}
    best, final = points(finite)
    # A network that never gave a finite test loss has learned nothing, however finite its training loss is.
    lost = bool(finite["test_loss"]) and all(loss is None for loss in finite["test_loss"])
    return Record(
        format=1,
        id=run.id,
        run=run,
        status="diverged" if diverged or lost else "complete",
        epochs=len(finite["test_accuracy"]),
        series=finite,
        best=best,
        final=final,
        cost=Counted.of(run.cost),
        images_per_second=round(images_per_second, 1),
        seconds=round(math.fsum(session.seconds for session in sessions), 1),
        finished=datetime.now(UTC).isoformat(timespec="seconds"),
        sittings=len(sessions),
        weights=weights,
        kept=kept,
        measured={name: _finite(value) for name, value in measured.items()},
        sessions=tuple(sessions),
        **{name: getattr(last, name) for name in ("device", "precision", "threads", "versions", "commit")},
    )


def _finite(x: float | list[float]) -> float | None | list[float | None]:
    if isinstance(x, list):
        return [_finite(each) for each in x]
    return x if math.isfinite(x) else None


def save_weights(tensors: Mapping[str, Tensor], folder: Path, run_id: str) -> Weights:
    """Write weights and statistics as ``<run id>.safetensors``."""
    content = save(dict(tensors), {"run": run_id})  # one key only: safetensors writes several in random order
    path = folder / f"{run_id}.safetensors"
    write_atomically(path, content)
    return Weights(file=path.name, sha256=hashlib.sha256(content).hexdigest(), bytes=len(content))


def find_parent(run: Run, folders: Iterable[tuple[Path, Path]]) -> Parent:
    """The finished run, of the same seed, from whose weights ``run`` starts.

    Args:
        folders: of records (``runs/<id>.json``), each with its folder of weights.

    Raises:
        RecordError: no such record has weights, or they are not those that it names.
    """
    for results, weights in folders:
        for record in load_records(results / "runs"):
            if (record.run.configuration, record.run.seed) == (run.parent, run.seed) and record.weights:
                return Parent(record, _read_weights(record, weights))
    raise RecordError(
        f"run {run.id} starts from the trained weights of {run.parent} with seed {run.seed}, which has no record with "
        "weights here: train that run first"
    )


def rebuild(record: Record, folder: Path) -> nn.Module:
    """A record's kept network with its weights, from the record and the weight file alone.

    Raises:
        RecordError: there are no such weights, or the kept network has other layers than the run's own.
    """
    network, stored = _build(record.run, _read_weights(record, folder))
    shapes = record.kept.shapes if record.kept else {}
    if shapes is None:
        raise RecordError(f"record {record.id}: the kept network has other layers than the run's own: not rebuilt")
    if stored is None:
        raise RecordError(f"record {record.id}: its weight file holds other layers than its network")
    if stored != shapes:
        name = min(name for name in stored.keys() | shapes.keys() if stored.get(name) != shapes.get(name))
        said, found = (each.get(name, "the run's own shape") for each in (shapes, stored))
        raise RecordError(f"record {record.id}: kept.shapes says {said} of {name}, its weight file {found}")
    counted = count(network, record.run.data.info.image_shape)
    if record.kept and (difference := first_difference(record.kept, counted)):
        name, said, found = difference
        raise RecordError(f"record {record.id}: kept.{name} = {said}, the network counts {found}")
    return network


def _build(run: Run, tensors: Mapping[str, Tensor]) -> tuple[nn.Module, dict[str, Shape] | None]:
    """A run's network with these weights, and the shapes in which they differ; None: its layers are others."""
    network = run.build()
    shapes = different_shapes(network, tensors)
    if shapes is not None:
        fit(network, shapes)
        network.load_state_dict(dict(tensors))
    return network, shapes


def _read_weights(record: Record, folder: Path) -> dict[str, Tensor]:
    if record.weights is None:
        raise RecordError(f"record {record.id}: names no weight file")
    path = folder / record.weights.file
    if not path.is_file():
        raise RecordError(f"{path}: missing, though record {record.id} names it")
    if (found := hashlib.sha256(path.read_bytes()).hexdigest()) != record.weights.sha256:
        raise RecordError(f"{path}: SHA-256 is {found}, record {record.id} says {record.weights.sha256}")
    return load_file(path)
